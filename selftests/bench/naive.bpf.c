// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The naive sockmap accelerator, as blog posts show it: pair sockets by 4-tuple, redirect every
 * message. Only a yardstick of the bench: it reorders, has no backpressure and loses bytes.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NAIVE_AF_INET  2
#define NAIVE_AF_INET6 10

struct naive_key {
	__u32 local[4];
	__u32 remote[4];
	__u32 lport; /* both ports in host order */
	__u32 rport;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct naive_key);
	__type(value, __u64);
} naive_socks SEC(".maps");

SEC("sockops")
int naive_sockops(struct bpf_sock_ops *ops)
{
	struct naive_key key = { 0 };

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB &&
	    ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (ops->family == NAIVE_AF_INET) {
		key.local[0] = ops->local_ip4;
		key.remote[0] = ops->remote_ip4;
	} else if (ops->family == NAIVE_AF_INET6) {
		for (int i = 0; i < 4; i++) {
			key.local[i] = ops->local_ip6[i];
			key.remote[i] = ops->remote_ip6[i];
		}
	} else {
		return 1;
	}
	key.lport = ops->local_port;
	key.rport = bpf_ntohl(ops->remote_port);
	bpf_sock_hash_update(ops, &naive_socks, &key, BPF_NOEXIST);
	return 1;
}

SEC("sk_msg")
int naive_redirect(struct sk_msg_md *msg)
{
	struct naive_key peer = { 0 };

	if (msg->family == NAIVE_AF_INET) {
		peer.local[0] = msg->remote_ip4;
		peer.remote[0] = msg->local_ip4;
	} else {
		for (int i = 0; i < 4; i++) {
			peer.local[i] = msg->remote_ip6[i];
			peer.remote[i] = msg->local_ip6[i];
		}
	}
	peer.lport = bpf_ntohl(msg->remote_port);
	peer.rport = msg->local_port;
	bpf_msg_redirect_hash(msg, &naive_socks, &peer, BPF_F_INGRESS);
	return SK_PASS; /* without a partner in the map the bytes take TCP */
}

char _license[] SEC("license")
= "Dual BSD/GPL";
