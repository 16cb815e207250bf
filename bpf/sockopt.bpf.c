// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The setsockopt hook: a connection whose application asks for something that redirected bytes
 * cannot give stays on TCP from then on, with the reason in its record.
 */
#include "common.bpf.h"

#define ISM_SOL_SOCKET 1
#define ISM_SOL_TCP    6

/* asm-generic/socket.h, linux/tcp.h; the generic numbers hold on x86, arm64, s390 and riscv. */
#define ISM_SO_RCVLOWAT		18
#define ISM_SO_ATTACH_FILTER	26
#define ISM_SO_TIMESTAMP_OLD	29
#define ISM_SO_TIMESTAMPNS_OLD	35
#define ISM_SO_TIMESTAMPING_OLD 37
#define ISM_SO_PEEK_OFF		42
#define ISM_SO_MAX_PACING_RATE	47
#define ISM_SO_ATTACH_BPF	50
#define ISM_SO_ZEROCOPY		60
#define ISM_SO_TIMESTAMP_NEW	63
#define ISM_SO_TIMESTAMPNS_NEW	64
#define ISM_SO_TIMESTAMPING_NEW 65
#define ISM_TCP_REPAIR		19
#define ISM_TCP_ULP		31
#define ISM_TCP_INQ		36
#define ISM_ENOENT		2

static __always_inline __u32 socket_reason(int optname, int val)
{
	switch (optname) {
	case ISM_SO_RCVLOWAT:
		return val > 1 ? ISM_R_RCVLOWAT : 0;
	case ISM_SO_ZEROCOPY:
		return val ? ISM_R_ZEROCOPY : 0;
	case ISM_SO_MAX_PACING_RATE:
		return val != -1 ? ISM_R_PACING : 0;
	case ISM_SO_TIMESTAMP_OLD:
	case ISM_SO_TIMESTAMPNS_OLD:
	case ISM_SO_TIMESTAMPING_OLD:
	case ISM_SO_TIMESTAMP_NEW:
	case ISM_SO_TIMESTAMPNS_NEW:
	case ISM_SO_TIMESTAMPING_NEW:
		return val ? ISM_R_TIMESTAMP : 0;
	case ISM_SO_PEEK_OFF:
		return val >= 0 ? ISM_R_PEEK_OFF : 0;
	case ISM_SO_ATTACH_FILTER:
	case ISM_SO_ATTACH_BPF:
		return ISM_R_FILTER;
	}
	return 0;
}

static __always_inline __u32 tcp_reason(int optname, int val)
{
	switch (optname) {
	case ISM_TCP_ULP:
		return ISM_R_ULP;
	case ISM_TCP_INQ:
		return val ? ISM_R_INQ : 0;
	case ISM_TCP_REPAIR:
		return val == 1 ? ISM_R_REPAIR : 0;
	}
	return 0;
}

/* Pin the socket: its record if it has one, its listener's connections if it listens. */
static __always_inline struct ism_conn *pin(struct ism_sk *st, __u32 reason, __u64 netns,
					    __u32 port)
{
	__u64 token = st->token;
	struct ism_conn *rec = 0;

	st->pin = reason;
	if (token)
		rec = bpf_map_lookup_elem(&conns, &token);
	if (rec) {
		rec->reason = reason;
		rec->plane = ISM_PLANE_TCP;
		ism_set(rec, ISM_CONN_PINNED);
	}
	if (st->listens) {
		struct ism_lkey key = { .netns = netns, .port = port };
		struct ism_listener *l = bpf_map_lookup_elem(&listeners, &key);

		if (l)
			l->pin = reason;
	}
	ism_count_reason(reason);
	return rec;
}

SEC("cgroup/setsockopt")
int ism_sockopt(struct bpf_sockopt *opt)
{
	struct bpf_sock *sk = opt->sk;
	int *optval = opt->optval;
	struct ism_conn *rec;
	struct ism_sk *st;
	__u32 reason = 0;
	int val = 0;

	/* The kernel shows at most a page of the value; one of 0 bytes or of pages is not ours. */
	if (opt->level != ISM_SOL_SOCKET && opt->level != ISM_SOL_TCP)
		goto out;
	if (!sk || sk->type != 1 /* SOCK_STREAM */ || sk->protocol != 6 /* IPPROTO_TCP */)
		goto out;
	if ((void *)(optval + 1) <= opt->optval_end)
		val = *optval;
	reason = opt->level == ISM_SOL_TCP ? tcp_reason(opt->optname, val)
					   : socket_reason(opt->optname, val);
	if (!reason)
		goto out;
	st = bpf_sk_storage_get(&sk_conn, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st)
		goto out;
	rec = pin(st, reason, bpf_get_netns_cookie(opt), sk->src_port);
	/*
	 * kTLS on a socket in a sockhash would read redirected bytes as plain text and run the sk_msg
	 * verdict on it (net/tls/tls_sw.c). Refuse as a kernel without the tls module does: every
	 * TLS library then goes on by itself.
	 */
	if (reason == ISM_R_ULP && rec && rec->flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING)) {
		bpf_set_retval(-ISM_ENOENT);
		return 0;
	}
out:
	/* Values longer than a page would be refused as truncated unless told to be left alone. */
	if (opt->optlen > 4096)
		opt->optlen = 0;
	return 1;
}
