/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel structs that the programs read, with only the members they need.
 *
 * Written by hand: libbpf moves every access to where the running kernel has the member (CO-RE), so
 * order and size mean nothing here. Sources are named beside each; UAPI types come from linux/bpf.h.
 */
#ifndef ISMREDIR_KERNEL_TYPES_H
#define ISMREDIR_KERNEL_TYPES_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct refcount_struct {
	atomic_t refs;
} refcount_t;

struct list_head {
	struct list_head *next, *prev;
};

/* include/linux/wait.h */
struct wait_queue_entry {
	unsigned int flags;
	void *private;
	void *func;
	struct list_head entry;
};

struct wait_queue_head {
	struct list_head head;
};

/* include/linux/net.h */
struct socket_wq {
	struct wait_queue_head wait;
};

struct inode {
	unsigned long i_ino;
};

struct file {
	unsigned int f_flags;
};

struct socket {
	short type;
	unsigned long flags;
	struct file *file;
};

struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
};

/* include/linux/kernfs.h, include/linux/cgroup-defs.h */
struct kernfs_node {
	__u64 id;
};

struct cgroup_subsys_state {
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	int level;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* include/net/net_namespace.h */
struct netns_ipv4 {
	__u8 sysctl_tcp_retries2;
};

struct net {
	__u64 net_cookie;
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

/* include/net/dst.h, route.h, ip6_fib.h: is a destination directly connected? */
struct dst_entry {
	short obsolete;
};

struct rtable {
	struct dst_entry dst;
	__u16 rt_type;
	__u8 rt_uses_gateway;
};

struct rt6_info {
	struct dst_entry dst;
	__u32 rt6i_flags;
};

/* include/linux/page_counter.h, memcontrol.h */
typedef struct {
	long counter;
} atomic_long_t;

struct page_counter {
	atomic_long_t usage;
	unsigned long max;
	struct page_counter *parent;
};

struct mem_cgroup {
	struct page_counter tcpmem;
};

/* include/net/sock.h; the numbers are the running kernel's, by CO-RE */
enum sock_flags {
	SOCK_ZEROCOPY = 0,
};

struct proto {
	unsigned long *memory_pressure;
};

struct in6_addr {
	__u32 words[4];
};

struct sock_common {
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned long skc_flags;
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
	struct proto *skc_prot;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
};

typedef struct {
	int owned;
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	int sk_rcvbuf;
	int sk_rcvlowat;
	unsigned long sk_max_pacing_rate;
	void *sk_filter;
	int sk_sndbuf;
	__u8 sk_userlocks;
	__u8 sk_shutdown;
	int sk_err;
	int sk_forward_alloc;
	void *sk_user_data;
	void *sk_bpf_storage;
	struct mem_cgroup *sk_memcg;
	struct socket_wq *sk_wq;
	struct socket *sk_socket;
	struct dst_entry *sk_dst_cache;
	struct sock_cgroup_data sk_cgrp_data;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u32 icsk_user_timeout;
	__u8 icsk_retransmits;
};

/* include/net/request_sock.h */
struct saved_syn {
	__u32 mac_hdrlen;
	__u32 network_hdrlen;
	__u32 tcp_hdrlen;
	__u8 data[];
};

/* include/linux/skbuff.h, include/uapi/linux/tcp.h, include/linux/filter.h */
struct sk_buff {
	unsigned char *data;
};

struct tcphdr {
	__u16 doff : 4;
};

struct bpf_sock_ops_kern {
	struct sk_buff *syn_skb;
};

/* include/linux/tcp.h */
struct tcp_options_received {
	__u16 wscale_ok : 1;
	__u16 tstamp_ok : 1;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 rcv_nxt;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 srtt_us; /* eight times */
	__u8 nonagle : 4;
	__u8 bpf_sock_ops_cb_flags;
	__u8 repair : 1;
	void *fastopen_req;
	struct saved_syn *saved_syn;
	struct tcp_options_received rx_opt;
	__u64 bytes_acked;
};

/* include/linux/skmsg.h */
struct sk_psock {
	struct list_head ingress_msg;
	__u32 msg_tot_len;
	refcount_t refcnt;
};

/* include/linux/cred.h */
typedef struct {
	__u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
};

/* include/linux/sched.h */
struct task_struct {
	void *stack;
	int tgid;
	const struct cred *cred;
	char comm[16];
	__u64 start_boottime;
	__u64 self_exec_id;
	struct task_struct *group_leader;
};

/* arch/.../include/asm/ptrace.h: only where a system call's flags can be read */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long dx;
	unsigned long r10;
	unsigned long orig_ax;
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__s32 syscallno;
};
#elif defined(__TARGET_ARCH_s390)
struct pt_regs {
	unsigned long gprs[16];
	unsigned int int_code;
};
#else
struct pt_regs;
#endif

/* kernel/bpf: contexts of the iterators */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
	__u32 uid;
};

#pragma clang attribute pop

#endif
