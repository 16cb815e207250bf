/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What all programs need: access to ctl, counters, a socket's record, and safe looks at a socket
 * that belongs to somebody else.
 */
#ifndef ISMREDIR_COMMON_BPF_H
#define ISMREDIR_COMMON_BPF_H

#include "maps.bpf.h"
#include "kernel_types.h"
#include <bpf/bpf_core_read.h>
#include <ismredir/option.h>
#include <ismredir/reasons.h>

/*
 * KREAD(type, addr, field): a member of a kernel struct at an address that may be stale. Where the
 * kernel has bpf_rdonly_cast() (6.2) this is one load with an exception entry; before, a call of
 * bpf_probe_read_kernel(), which costs some 20 ns, and a verdict makes thirty of them.
 */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;
/* A program's context as the kernel has it (6.2). */
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;

#define KREAD(type, addr, field)                                                                   \
	({                                                                                         \
		typeof(((type *)0)->field) __v;                                                    \
		const void *__a = (const void *)(addr);                                            \
		if (bpf_rdonly_cast) {                                                             \
			type *__p = bpf_rdonly_cast(__a, bpf_core_type_id_kernel(type));           \
			__v = __p->field;                                                          \
		} else {                                                                           \
			__v = BPF_CORE_READ((type *)__a, field);                                   \
		}                                                                                  \
		__v;                                                                               \
	})

/* The same of a bit field. */
#define KBITS(type, addr, field)                                                                   \
	({                                                                                         \
		const void *__a = (const void *)(addr);                                            \
		__u64 __v;                                                                         \
		if (bpf_rdonly_cast) {                                                             \
			type *__p = bpf_rdonly_cast(__a, bpf_core_type_id_kernel(type));           \
			__v = BPF_CORE_READ_BITFIELD(__p, field);                                  \
		} else {                                                                           \
			__v = BPF_CORE_READ_BITFIELD_PROBED((type *)__a, field);                   \
		}                                                                                  \
		__v;                                                                               \
	})

/*
 * The socket behind what a program is given of one, for KREAD(). No helper, as there is none in all programs, and as
 * the call of one costs 8 to 10 ns whatever it does: with the usual mitigations each return in the kernel is
 * mispredicted. So what can be had by loads is, here and elsewhere. Without the cast the verifier lets
 * nobody add to the pointer, unless it does not know that it is one.
 */
static __always_inline const struct tcp_sock *ism_tcp_sock(struct bpf_sock *sk)
{
	__u64 addr = 0;

	if (bpf_rdonly_cast)
		return bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
	bpf_probe_read_kernel(&addr, sizeof(addr), &sk);
	return (const struct tcp_sock *)addr;
}

#define ISM_AF_INET  2
#define ISM_AF_INET6 10

/* include/net/tcp_states.h is not UAPI; the BPF_TCP_* of linux/bpf.h are the same numbers. */

static const __u32 ism_zero;

static __always_inline struct ism_ctl *ism_ctl(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ctl, &zero);
}

static __always_inline struct ism_stats *ism_stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
}

#define ism_count(field, n)                                                                        \
	do {                                                                                       \
		struct ism_stats *__s = ism_stats();                                               \
		if (__s)                                                                           \
			__s->field += (n);                                                         \
	} while (0)

static __always_inline void ism_count_reason(__u32 reason)
{
	__u32 slot = ISM_REASON_SLOT(reason) & (ISM_REASON_SLOTS - 1);
	__u64 *n = bpf_map_lookup_elem(&reasons, &slot);

	if (n)
		(*n)++;
}

/* Both ends, and user space by setsockopt, change the flags of a record: always atomically. */
static __always_inline void ism_set(struct ism_conn *c, __u32 flags)
{
	__sync_fetch_and_or(&c->flags, flags);
}

static __always_inline void ism_clear(struct ism_conn *c, __u32 flags)
{
	__sync_fetch_and_and(&c->flags, ~flags);
}

/*
 * A socket in a sockhash sends slower by TCP than a plain one: tcp_bpf_sendmsg() builds a sk_msg
 * first. So one that will not be redirected any more leaves: the partner stops redirecting to it now,
 * and on_rtt() in handshake.bpf.c takes it out as soon as that loses nothing.
 */
static __always_inline void ism_leave(struct ism_conn *c)
{
	if (!(c->flags & ISM_CONN_ENROLLED))
		return;
	ism_set(c, ISM_CONN_LEAVING);
	ism_clear(c, ISM_CONN_ENROLLED);
}

/* Both ends are processes that can read and write rings: nothing is redirected by the kernel then. */
static __always_inline int ism_both_direct(const struct ism_conn *c)
{
	return c->caps & c->peer_caps & ISM_CAP_DIRECT;
}

/* A slot of the relay, if it is still of that end. */
static __always_inline struct ism_relay *ism_relay_at(__u32 slot, __u64 token)
{
	struct ism_relay *r = bpf_map_lookup_elem(&relays, &slot);

	return r && r->token == token ? r : 0;
}

/* Of the application's socket, not of a dummy. */
static __always_inline struct ism_relay *ism_relay_of(const struct ism_relay_sk *own)
{
	return own->dummy ? 0 : ism_relay_at(own->slot, own->token);
}

/*
 * Who moves the bytes at this end when the partner is of another kernel: enum ism_plane. By what both
 * ends said, so both know it of each other. docs/cross-kernel.rst.
 */
static __always_inline int ism_remote_plane(const struct ism_conn *c)
{
	if (!ism_caps_agree(c->caps, c->peer_caps))
		return ISM_PLANE_TCP;
	return c->caps & ISM_CAP_DIRECT ? ISM_PLANE_DIRECT : ISM_PLANE_RELAY;
}

/* This end's process reads and writes rings, or may. */
static __always_inline int ism_uses_rings(const struct ism_conn *c)
{
	if (c->flags & ISM_CONN_REMOTE)
		return ism_remote_plane(c) == ISM_PLANE_DIRECT;
	return ism_both_direct(c);
}

static __always_inline int ism_has_fabric(const struct ism_ctl *c, __u32 tag)
{
	int has = 0;

	for (int i = 0; i < ISM_MAX_FABRICS; i++)
		has |= c->fabrics[i] == tag;
	return tag && has;
}

/* The record of the partner, which has one in this table unless it is of another kernel. */
static __always_inline struct ism_conn *ism_peer_of(const struct ism_conn *c)
{
	__u64 peer = c->peer;

	return peer && !(c->flags & ISM_CONN_REMOTE) ? bpf_map_lookup_elem(&conns, &peer) : 0;
}

/* Which of the sockets that listen on a port gets a connection is not known beforehand. */
static __always_inline __u8 ism_listener_caps(const struct ism_listener *l)
{
	return l->direct >= l->refs ? ISM_CAP_DIRECT : 0;
}

/* A v4 address in the 16-byte form that peers, negative and rules use. */
static __always_inline void ism_map_v4(__u8 *to, __u32 v4)
{
	__builtin_memset(to, 0, 10);
	to[10] = 0xff;
	to[11] = 0xff;
	__builtin_memcpy(to + 12, &v4, 4);
}

static __always_inline __u64 ism_sk_cookie(const struct sock *sk)
{
	return KREAD(struct sock, sk, __sk_common.skc_cookie.counter);
}

/* Is it @task's process that said this? After exec() by a thread it has the leader's place and start. */
static __always_inline int ism_is_proc(const struct ism_proc *p, const struct task_struct *task)
{
	return p->exec_id == task->self_exec_id &&
	       p->start_ns == task->group_leader->start_boottime;
}

static __always_inline __u64 ism_sk_cgroup_id(const struct sock *sk)
{
	struct cgroup *cgrp = KREAD(struct sock, sk, sk_cgrp_data.cgroup);
	struct kernfs_node *kn = KREAD(struct cgroup, cgrp, kn);

	return KREAD(struct kernfs_node, kn, id);
}

/*
 * Is the socket's cgroup @id, or below it? Walks css parents, which are the first member of struct
 * cgroup, rather than cgroup->ancestors[], whose form changed between 6.0 and 6.1.
 */
static __always_inline int ism_sk_in_cgroup(const struct sock *sk, __u64 id, __u32 level)
{
	struct cgroup *cgrp = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);

	for (int i = 0; i < 24 && cgrp; i++) {
		if (BPF_CORE_READ(cgrp, level) < (int)level)
			return 0;
		if (BPF_CORE_READ(cgrp, kn, id) == id)
			return 1;
		cgrp = (struct cgroup *)BPF_CORE_READ(cgrp, self.parent);
	}
	return 0;
}

/* include/net/sock.h */
#define ISM_SEND_SHUTDOWN 2
#define ISM_SHUTDOWN_MASK 3

/* Bytes given to TCP since @seq; a FIN takes a sequence number too and is no byte. */
static __always_inline __u32 ism_tcp_bytes_since(const struct tcp_sock *tp, __u32 seq)
{
	__u32 n = KREAD(struct tcp_sock, tp, write_seq) - seq;

	if (n && KREAD(struct sock, tp, sk_shutdown) & ISM_SEND_SHUTDOWN)
		n--;
	return n;
}

#define ISM_O_NONBLOCK 04000 /* asm-generic/fcntl.h */

static __always_inline int ism_is_blocking(const struct sock *sk)
{
	const struct socket *sock = KREAD(struct sock, sk, sk_socket);
	const struct file *file = KREAD(struct socket, sock, file);

	return !(KREAD(struct file, file, f_flags) & ISM_O_NONBLOCK);
}

/* sk_user_data carries flags in its low bits (include/net/sock.h SK_USER_DATA_PTRMASK). */
static __always_inline struct sk_psock *ism_sk_psock(const struct sock *sk)
{
	return (struct sk_psock *)((unsigned long)KREAD(struct sock, sk, sk_user_data) & ~7UL);
}

#endif
