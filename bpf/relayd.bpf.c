// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What ismredird loads while it relays: looks at the sockets of its ends, the program that lets nothing of
 * them leave by TCP while bytes before it are in the relay, and one that lets readers sleep on behind their own
 * FIN. docs/cross-kernel.rst.
 */
#include "maps.bpf.h"
#include "waiters.bpf.c"
#include "relay_look.bpf.h"
#include "tokens.bpf.h"
#include <bpf/bpf_endian.h>

#define ISM_TCP_NODELAY 1
#define ISM_SOL_TCP	6
#define ISM_IPPROTO_TCP 6
#define ISM_TCP_FIN	0x01
#define ISM_TCP_RST	0x04
#define ISM_TCP_ACK	0x10

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
		if (arg->leave && rec->flags & ISM_CONN_ENROLLED) {
			rec->reason = ISM_R_PEER_PINNED;
			ism_leave(rec);
		}
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

struct segment {
	__u32 flags;
	__u32 len; /* payload */
	__u32 seq;
	__u32 ack;
};

/* 0: not one of TCP. */
static __always_inline int read_segment(struct __sk_buff *skb, struct segment *ret)
{
	__u8 ip[40] = {}, tcp[14] = {};
	__u32 at, head;

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
	head = at + (tcp[12] >> 4) * 4;
	ret->flags = tcp[13];
	ret->len = skb->len > head ? skb->len - head : 0;
	ret->seq = (__u32)tcp[4] << 24 | tcp[5] << 16 | tcp[6] << 8 | tcp[7];
	ret->ack = (__u32)tcp[8] << 24 | tcp[9] << 16 | tcp[10] << 8 | tcp[11];
	return 1;
}

/*
 * Payload or FIN, but no reset, and not what was there before the last redirect: must it come behind the
 * bytes in the relay?
 */
static __always_inline int is_behind(const struct segment *s, const struct ism_relay *r)
{
	__u32 fin = !!(s->flags & ISM_TCP_FIN);

	if (s->flags & ISM_TCP_RST || !(fin + s->len))
		return 0;
	return (__s32)(s->seq + s->len + fin - r->after) > 0;
}

/*
 * A direct end puts its own bytes in order, and its end behind them; but not when it is killed, or closed by
 * others. Then ismredird sees when the FIN may go: user/daemon/relay_hold.h.
 */
static __always_inline int holds_fin(const struct segment *s, const struct ism_relay *r)
{
	return (s->flags & (ISM_TCP_FIN | ISM_TCP_RST)) == ISM_TCP_FIN && !r->fin_ok;
}

static __always_inline void tell_held(const struct ism_relay *r)
{
	struct ism_relay_ask ask = { .token = r->token };

	bpf_ringbuf_output(&relay_asks, &ask, sizeof(ask), 0);
}

/* Does the state of the slot hold back anything at all? */
static __always_inline int is_holding(const struct ism_relay *r)
{
	return r->redirected != r->delivered || r->state == ISM_RELAY_BROKEN ||
	       r->state == ISM_RELAY_DIRECT;
}

SEC("cgroup_skb/egress")
int ism_hold(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct ism_relay_sk *own;
	struct segment seg = {};
	struct ism_relay *r;
	int direct;

	sk = sk ? bpf_sk_fullsock(sk) : 0;
	if (!sk || sk->protocol != ISM_IPPROTO_TCP)
		return 1;
	own = bpf_sk_storage_get(&sk_relay, sk, 0, 0);
	if (!own)
		return 1;
	r = ism_relay_of(own);
	if (!r || !is_holding(r) || !read_segment(skb, &seg))
		return 1;
	direct = r->state == ISM_RELAY_DIRECT;
	if (!(direct ? holds_fin(&seg, r) : is_behind(&seg, r)))
		return 1;
	__sync_fetch_and_add(&r->held, 1);
	if (direct)
		tell_held(r);
	return 0;
}

/* ---------------------------------------------------------------- ingress */

/* A FIN that is sent again this often before TCP gives up, or over a longer way, is left to TCP. */
#define ISM_RETRIES_LEFT 3
#define ISM_SRTT_MAX_US	 100000

/*
 * May the socket's own FIN stay unacknowledged for longer? Each segment that comes shows that the partner lives,
 * but tcp_write_timeout() does not get to see it; so not up to where it would end the connection.
 */
static __always_inline int fin_can_wait(const struct tcp_sock *tp)
{
	const struct net *net = KREAD(struct sock, tp, __sk_common.skc_net.net);
	int most = KREAD(struct net, net, ipv4.sysctl_tcp_retries2);
	const struct inet_connection_sock *icsk = &tp->inet_conn;

	return KREAD(struct inet_connection_sock, icsk, icsk_retransmits) <
		       most - ISM_RETRIES_LEFT &&
	       !KREAD(struct inet_connection_sock, icsk, icsk_user_timeout) &&
	       KREAD(struct tcp_sock, tp, srtt_us) >> 3 < ISM_SRTT_MAX_US;
}

/* Is it in the sockhash, open for reading, and does who sleeps in recv() expect to sleep until there is something? */
static __always_inline int reads_on(const struct tcp_sock *tp)
{
	const struct sock *sk = (const struct sock *)tp;
	__u64 token = ism_token_of(ism_sk_cookie(sk));
	struct ism_conn *rec = bpf_map_lookup_elem(&conns, &token);

	return rec && rec->flags & ISM_CONN_REMOTE &&
	       rec->flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING) &&
	       KREAD(struct sock, sk, sk_shutdown) == ISM_SEND_SHUTDOWN && ism_is_blocking(sk);
}

/*
 * tcp_rcv_state_process() wakes who sleeps on a socket when its FIN is acknowledged, for close() with SO_LINGER,
 * and tcp_bpf_recvmsg() takes that for the end of its wait: EAGAIN. A relayed socket cannot leave the sockhash
 * before, as one of the plane skmsg does; so such an ACK is dropped while it brings nothing else. The FIN is sent
 * again and again then, until bytes or the partner's FIN bring the ACK.
 */
SEC("cgroup_skb/ingress")
int ism_calm(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct segment seg = {};
	struct tcp_sock *tp;

	if (!sk || sk->state != BPF_TCP_FIN_WAIT1)
		return 1;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || !read_segment(skb, &seg) || seg.len || !(seg.flags & ISM_TCP_ACK) ||
	    seg.flags & (ISM_TCP_FIN | ISM_TCP_RST) ||
	    seg.ack != KREAD(struct tcp_sock, tp, write_seq))
		return 1;
	return !reads_on(tp) || !fin_can_wait(tp);
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
	r = own ? ism_relay_of(own) : 0;
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
