// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Other people's programs, for tests only: writers of TCP options that collide with ours, and a
 * sockmap that already holds the socket. `naive` redirects without any care, to see that the tests
 * notice what goes wrong then.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define TCPHDR_SYN 0x02
#define TCPHDR_ACK 0x10
#define OPT_LEN	   18
#define AF_INET	   2

const volatile __u8 option[20];
const volatile __u32 option_len;
const volatile __u32 on_syn, on_synack;

/* How often the option was written, or a socket inserted. */
__u64 done;
__u64 failed;

char _license[] SEC("license")
= "Dual BSD/GPL";

static __always_inline void ask_for_options(struct bpf_sock_ops *skops)
{
	bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags |
						 BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

/* Is this the packet that the option belongs on? */
static __always_inline int wanted(const struct bpf_sock_ops *skops)
{
	__u32 flags = skops->skb_tcp_flags & (TCPHDR_SYN | TCPHDR_ACK);

	return (on_syn && flags == TCPHDR_SYN) || (on_synack && flags == (TCPHDR_SYN | TCPHDR_ACK));
}

static __always_inline void count(int err)
{
	__sync_fetch_and_add(err ? &failed : &done, 1);
}

/* The bytes that the loader gave, on SYN or SYN-ACK. */
SEC("sockops")
int opt_write(struct bpf_sock_ops *skops)
{
	__u8 buf[20];

	switch (skops->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		ask_for_options(skops);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (wanted(skops) && bpf_reserve_hdr_opt(skops, option_len, 0))
			count(1);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		if (!wanted(skops))
			break;
		for (int i = 0; i < 20; i++)
			buf[i] = option[i];
		count(bpf_store_hdr_opt(skops, buf, option_len, 0) != 0);
		break;
	}
	return 1;
}

/* Our own option of the SYN comes back unchanged on the SYN-ACK. */
SEC("sockops")
int opt_echo(struct bpf_sock_ops *skops)
{
	__u8 buf[OPT_LEN] = { 254, 6, 0xc9, 0xe2, 0xd4, 0xd9 };
	__u32 flags = skops->skb_tcp_flags & (TCPHDR_SYN | TCPHDR_ACK);

	if (skops->op == BPF_SOCK_OPS_TCP_LISTEN_CB)
		ask_for_options(skops);
	if ((skops->op != BPF_SOCK_OPS_HDR_OPT_LEN_CB &&
	     skops->op != BPF_SOCK_OPS_WRITE_HDR_OPT_CB) ||
	    flags != (TCPHDR_SYN | TCPHDR_ACK))
		return 1;
	if (bpf_load_hdr_opt(skops, buf, sizeof(buf), BPF_LOAD_HDR_OPT_TCP_SYN) != OPT_LEN)
		return 1;
	if (skops->op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		bpf_reserve_hdr_opt(skops, OPT_LEN, 0);
	else
		count(bpf_store_hdr_opt(skops, buf, sizeof(buf), 0) != 0);
	return 1;
}

/* ---------------------------------------------------------------- another sockmap */

struct tuple {
	__u32 laddr, raddr; /* network order */
	__u32 lport, rport; /* host order */
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1024);
	__type(key, struct tuple);
	__type(value, __u64);
} theirs SEC(".maps");

SEC("sockops")
int opt_insert(struct bpf_sock_ops *skops)
{
	struct tuple key;

	if (skops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB &&
	    skops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (skops->family != AF_INET)
		return 1;
	key.laddr = skops->local_ip4;
	key.raddr = skops->remote_ip4;
	key.lport = skops->local_port;
	key.rport = bpf_ntohl(skops->remote_port);
	count(bpf_sock_hash_update(skops, &theirs, &key, BPF_ANY) != 0);
	return 1;
}

SEC("sk_msg")
int msg_pass(struct sk_msg_md *msg)
{
	return SK_PASS;
}

SEC("sk_msg")
int msg_naive(struct sk_msg_md *msg)
{
	struct tuple key;

	key.laddr = msg->remote_ip4;
	key.raddr = msg->local_ip4;
	key.lport = bpf_ntohl(msg->remote_port);
	key.rport = msg->local_port;
	bpf_msg_redirect_hash(msg, &theirs, &key, BPF_F_INGRESS);
	return SK_PASS;
}
