// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What ismredird loads while it relays: looks at the sockets of its ends, and the program that lets
 * nothing of them leave by TCP while bytes before it are in the relay. docs/cross-kernel.rst.
 */
#include "maps.bpf.h"
#include "waiters.bpf.c"
#include "relay_look.bpf.h"
#include <bpf/bpf_endian.h>

#define ISM_TCP_NODELAY 1
#define ISM_SOL_TCP	6
#define ISM_IPPROTO_TCP 6
#define ISM_TCP_FIN	0x01
#define ISM_TCP_RST	0x04

/* ---------------------------------------------------------------- calls of the daemon */

SEC("syscall")
int ism_relay_bind(struct ism_relay_bind *arg)
{
	__u64 token = arg->token;
	struct ism_conn *rec = bpf_map_lookup_elem(&conns, &token);
	__u32 slot = arg->relay - 1;
	struct ism_relay *r;

	if (!rec || !(rec->flags & ISM_CONN_REMOTE))
		return -2; /* ENOENT */
	r = bpf_map_lookup_elem(&relays, &slot);
	if (r)
		relay_look(r, rec);
	if (r && (rec->flags & ISM_CONN_PINNED || !(rec->flags & ISM_CONN_ENROLLED)))
		return -95; /* EOPNOTSUPP */
	rec->relay = arg->relay;
	if (!r) {
		/* TCP has it again */
		rec->plane = ISM_PLANE_TCP;
		rec->msgs = 0;
		return 0;
	}
	if (r->state == ISM_RELAY_OPEN)
		rec->plane = ISM_PLANE_RELAY;
	return ism_plain_reader(rec->sk);
}

static long look_step(__u64 i, void *unused)
{
	__u32 slot = i;
	struct ism_relay *r = bpf_map_lookup_elem(&relays, &slot);
	struct ism_conn *rec;
	__u64 token;

	if (!r)
		return 1;
	if (!r->look)
		return 0;
	r->look = 0;
	token = r->token;
	rec = bpf_map_lookup_elem(&conns, &token);
	relay_look(r, rec);
	return 0;
}

struct look_arg {
	__u32 n; /* slots from 0 on */
};

SEC("syscall")
int ism_relay_look(struct look_arg *arg)
{
	bpf_loop(arg->n, look_step, 0, 0);
	return 0;
}

/* ---------------------------------------------------------------- egress */

static __always_inline struct ism_relay *slot_of(const struct ism_relay_sk *own)
{
	__u32 slot = own->slot;
	struct ism_relay *r = bpf_map_lookup_elem(&relays, &slot);

	return r && r->token == own->token && !own->dummy ? r : 0;
}

/*
 * Payload or FIN, but no reset, and not what was there before the last redirect: must it come behind the
 * bytes in the relay?
 */
static __always_inline int is_behind(struct __sk_buff *skb, const struct ism_relay *r)
{
	__u32 at, flags, head, end;
	__u8 ip[40] = {}, tcp[14] = {};

	if (skb->protocol == bpf_htons(0x0800)) {
		if (bpf_skb_load_bytes(skb, 0, ip, 20))
			return 0;
		at = (ip[0] & 15) * 4;
	} else {
		if (bpf_skb_load_bytes(skb, 0, ip, 40) || ip[6] != ISM_IPPROTO_TCP)
			return 0;
		at = 40;
	}
	if (bpf_skb_load_bytes(skb, at, tcp, sizeof(tcp)))
		return 0;
	flags = tcp[13];
	if (flags & ISM_TCP_RST)
		return 0;
	head = at + (tcp[12] >> 4) * 4;
	if (!(flags & ISM_TCP_FIN) && skb->len <= head)
		return 0;
	end = (__u32)tcp[4] << 24 | tcp[5] << 16 | tcp[6] << 8 | tcp[7];
	end += skb->len - head + !!(flags & ISM_TCP_FIN);
	return (__s32)(end - r->after) > 0;
}

SEC("cgroup_skb/egress")
int ism_hold(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct ism_relay_sk *own;
	struct ism_relay *r;

	sk = sk ? bpf_sk_fullsock(sk) : 0;
	if (!sk || sk->protocol != ISM_IPPROTO_TCP)
		return 1;
	own = bpf_sk_storage_get(&sk_relay, sk, 0, 0);
	if (!own)
		return 1;
	r = slot_of(own);
	if (!r || (r->redirected == r->delivered && r->state != ISM_RELAY_BROKEN) ||
	    !is_behind(skb, r))
		return 1;
	__sync_fetch_and_add(&r->held, 1);
	return 0;
}

/* ---------------------------------------------------------------- what was held, now */

/* Setting TCP_NODELAY sends what waits, whatever it was before (net/ipv4/tcp.c). */
SEC("iter/tcp")
int ism_relay_kick(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct ism_relay_sk *own;
	struct tcp_sock *tp;
	struct ism_relay *r;
	int on = 1, was = 0;

	if (!skc || skc->skc_state == BPF_TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	own = tp ? bpf_sk_storage_get(&sk_relay, tp, 0, 0) : 0;
	r = own ? slot_of(own) : 0;
	if (!r || !r->kick)
		return 0;
	r->kick = 0;
	bpf_getsockopt(tp, ISM_SOL_TCP, ISM_TCP_NODELAY, &was, sizeof(was));
	bpf_setsockopt(tp, ISM_SOL_TCP, ISM_TCP_NODELAY, &on, sizeof(on));
	if (!was)
		bpf_setsockopt(tp, ISM_SOL_TCP, ISM_TCP_NODELAY, &was, sizeof(was));
	return 0;
}

char LICENSE[] SEC("license")
= "Dual BSD/GPL";
