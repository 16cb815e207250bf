/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The relay plane's half of the verdict: what an application sends goes into its dummy, what the dummy
 * sends into the application's socket, or not yet. Included by redirect.bpf.c, whose tests it shares.
 * The rule, and why it is safe: docs/cross-kernel.rst, "The relay".
 */
#ifndef ISMREDIR_RELAY_BPF_H
#define ISMREDIR_RELAY_BPF_H

#include "relay_look.bpf.h"

/* An end is worth a relay when it has sent so much; what the relay costs is more than short ones have. */
#define ISM_RELAY_ASK_MSGS  16
#define ISM_RELAY_ASK_BYTES (256 << 10)

/* Messages in the dummy cost memory that nobody charges; so many times budget_msgs is the end of it. */
#define ISM_RELAY_MSGS_BOUND 4

static __always_inline void ask_for_relay(struct verdict *v)
{
	struct ism_relay_ask ask = { .token = v->token };

	if (v->me->relay || !v->ctl->relay)
		return;
	if (++v->me->msgs < ISM_RELAY_ASK_MSGS && v->me->tcp_bytes < ISM_RELAY_ASK_BYTES)
		return;
	v->me->msgs = 0;
	if (!bpf_ringbuf_output(&relay_asks, &ask, sizeof(ask), 0))
		v->me->relay = ISM_RELAY_ASKED;
}

/* Bytes on TCP that are on their way, which the relay then has to wait for. */
#define ISM_RELAY_TCP_AHEAD (1 << 20)

/*
 * The remote relay keeps redirected bytes until the TCP bytes before them have been read. So those must
 * all have been sent, for egress lets out what was there before the last redirect and no more, and a
 * segment that is not sent yet may become one with what comes later; see pace() in handshake.bpf.c.
 */
static __always_inline int relay_tcp_is_out(const struct verdict *v, const struct ism_relay *r)
{
	struct tcp_sock *tp = v->tp;
	__u32 seq = v->me->last_seq;

	if (KREAD(struct tcp_sock, tp, snd_nxt) != seq ||
	    seq - KREAD(struct tcp_sock, tp, snd_una) > ISM_RELAY_TCP_AHEAD)
		return 0;
	return r->redirected == r->delivered || r->after == seq;
}

/* What nothing can be redirected against. Where bytes are in the relay, egress holds back what follows. */
static __always_inline __u32 relay_refused(struct verdict *v, const struct ism_relay *r)
{
	const struct sock *sk = (const struct sock *)v->tp;

	if (v->ctl->word != ISM_WORD_ON)
		return v->ctl->word == ISM_WORD_DRAIN ? ISM_R_DRAIN : ISM_R_OFF;
	if (v->me->flags & (ISM_CONN_PINNED | ISM_CONN_LEAVING) ||
	    !(v->me->flags & ISM_CONN_ENROLLED))
		return v->me->reason ? v->me->reason : ISM_R_STREAM;
	if (!r || r->token != v->token || r->state != ISM_RELAY_OPEN)
		return ISM_R_RELAY_WAIT;
	if (KREAD(struct sock, sk, sk_shutdown) ||
	    KREAD(struct sock, sk, __sk_common.skc_state) != BPF_TCP_ESTABLISHED)
		return ISM_R_SHUTDOWN;
	if (!relay_tcp_is_out(v, r))
		return ISM_R_UNREAD_TCP;
	if (ism_sends_oob()) {
		ism_set(v->me, ISM_CONN_PINNED);
		return ISM_R_URGENT;
	}
	/* What is in the relay holds back what follows, so it may be left at any time. */
	if (is_duplex(v)) {
		ism_set(v->me, ISM_CONN_PINNED);
		ism_leave(v->me);
		return ISM_R_DUPLEX;
	}
	return 0;
}

struct relay_spin {
	struct ism_relay *r;
	__u64 end_ns;
	__u64 most; /* redirected and not read when the message fits */
};

static long relay_spin_step(__u64 i, struct relay_spin *w)
{
	struct ism_relay *r = w->r;

	if (!r)
		return 1;
	return r->redirected - *(volatile __u64 *)&r->read <= w->most ||
	       bpf_ktime_get_ns() > w->end_ns;
}

/* As wait_for_reader(), for a reader that is further away. */
static __always_inline void relay_wait(const struct verdict *v, struct ism_relay *r)
{
	struct relay_spin w = { .r = r, .most = r->window - v->size };

	if (!v->ctl->spin || v->size > r->window || v->me->spins > ISM_SPIN_DEBT_MAX)
		return;
	v->me->spins += ISM_SPIN_DEBT;
	w.end_ns = bpf_ktime_get_ns() + v->ctl->spin * 1000ULL;
	bpf_loop(ISM_SPIN_LOOPS, relay_spin_step, &w, 0);
}

/* Why TCP would be the better way. It can be taken at once only while nothing is in the relay. */
static __always_inline __u32 relay_unwanted(struct verdict *v, struct ism_relay *r)
{
	struct sock *sk = (struct sock *)v->tp;

	if (mostly_overflow(v))
		return ISM_R_STREAM;
	if (r->redirected - r->read + v->size > r->window) {
		relay_wait(v, r);
		if (r->redirected - r->read + v->size > r->window)
			return ISM_R_BUDGET;
	}
	if (r->taken == r->redirected)
		r->msgs = 0;
	if (r->msgs >= v->ctl->budget_msgs)
		return ISM_R_MESSAGES;
	return ism_memory_room(v->me, sk, v->size) == ISM_ROOM ? 0 : ISM_R_PRESSURE;
}

/*
 * Of a relay that has too much to do: a small message, and nobody waits for more of them or for an ACK before TCP
 * sends it. Without TCP_NODELAY requests and answers in pieces take 40 ms each by TCP (tcp_nagle_check()).
 */
#define ISM_NAGLE_OFF 1 /* include/net/tcp.h */

static __always_inline int is_better_by_tcp(const struct verdict *v)
{
	return v->size < v->ctl->stream_size &&
	       BPF_CORE_READ_BITFIELD_PROBED(v->tp, nonagle) & ISM_NAGLE_OFF;
}

static __always_inline __u32 relay_decide(struct verdict *v, struct ism_relay *r)
{
	int stream = small_stream(v, r ? r->pushed : 0); /* push_msgs starts anew */
	__u32 reason = relay_refused(v, r);

	/* Also while it waits for TCP, as most of such a stream does: in the sockhash that is slower. */
	if (stream && v->me->run >= v->ctl->leave_run && (!r || r->redirected == r->delivered)) {
		ism_leave(v->me);
		return ISM_R_STREAM;
	}
	if (r && r->crowded && r->redirected == r->delivered && is_better_by_tcp(v)) {
		ism_leave(v->me);
		return ISM_R_CROWDED;
	}
	if (reason || !r)
		return reason;
	reason = relay_unwanted(v, r);
	if (!reason && stream)
		reason = ISM_R_STREAM;
	if (!reason || r->redirected == r->delivered)
		return reason;
	/* In the relay there is order by itself; held back on TCP the bytes wait for a timer. */
	if (r->redirected - r->read + v->size <= r->bound &&
	    r->msgs < v->ctl->budget_msgs * ISM_RELAY_MSGS_BOUND)
		return 0;
	return reason;
}

/* By this egress knows the socket. */
static __always_inline int relay_mark(struct bpf_sock *sk, const struct verdict *v)
{
	struct ism_relay_sk *own =
		bpf_sk_storage_get(&sk_relay, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!own)
		return -1;
	own->token = v->token;
	own->slot = v->me->relay - 1;
	return 0;
}

static __always_inline int to_relay(struct sk_msg_md *msg, struct bpf_sock *sk, struct verdict *v)
{
	__u32 slot = v->me->relay - 1, reason;
	struct ism_relay *r = bpf_map_lookup_elem(&relays, &slot);
	__u64 dummy;

	reason = relay_decide(v, r);
	if (!reason && r) {
		if (!r->redirected && relay_mark(sk, v))
			reason = ISM_R_NO_STORAGE;
		dummy = r->dummy;
		r->after = v->me->last_seq;
		if (!reason && bpf_msg_redirect_hash(msg, &socks, &dummy, BPF_F_INGRESS) != SK_PASS)
			reason = ISM_R_RELAY_WAIT;
	}
	if (reason || !r) {
		if (r && v->me->last == ISM_PLANE_RELAY)
			r->turns++;
		if (reason == ISM_R_RELAY_WAIT)
			ask_for_relay(v);
		leave_before_full(v, reason);
		note_plane(v->me, ISM_PLANE_TCP, reason);
		return SK_PASS;
	}
	r->redirected += v->size;
	r->msgs++;
	v->me->redir_bytes += v->size;
	v->me->redir_msgs++;
	if (v->me->spins)
		v->me->spins--;
	v->me->plane = ISM_PLANE_RELAY;
	note_plane(v->me, ISM_PLANE_RELAY, ISM_R_NONE);
	return SK_PASS;
}

/*
 * May the application be given these bytes now? Everything that came by TCP before them must have been
 * read, and nobody may sleep, or be about to, where only TCP is seen; see check_reader().
 */
static __always_inline __u32 push_refused(struct ism_relay *r, struct ism_conn *rec,
					  struct ism_ctl *ctl, __u32 size)
{
	const struct sock *sk = (const struct sock *)rec->sk;
	__u32 budget = ctl->budget_bytes, own, charged, reason;
	int first = r->after_in && (__u32)r->after_in != r->after_pushed;

	if (!r->sk_state || r->sk_flags & ISM_RELAY_SK_ORPHAN)
		return ISM_R_PEER_GONE;
	if (r->after_in && (__s32)(r->copied - (__u32)r->after_in) < 0)
		return ISM_R_UNREAD_TCP;
	if (first && KREAD(struct sock, sk, sk_lock.owned))
		return ISM_R_PLAIN_READER;
	reason = ism_plain_reader(rec->sk);
	if (reason)
		return reason;
	/* These bytes wake it, and their relay has nowhere else to put them. It is the last time. */
	if (ctl->readers == ISM_READERS_POLL && ism_sleepers(rec->sk)) {
		ism_set(rec, ISM_CONN_PINNED);
		rec->reason = ISM_R_BLOCKING;
	}
	if (!r->unread) {
		r->push_msgs = 0;
		goto memory;
	}
	if (KREAD(struct sock, sk, sk_userlocks) & ISM_SOCK_RCVBUF_LOCK) {
		own = KREAD(struct sock, sk, sk_rcvbuf);
		if (own < budget)
			budget = own;
	}
	charged = KREAD(struct sock, sk, sk_backlog.rmem_alloc.counter);
	if (charged + size > budget)
		return ISM_R_BUDGET;
	if (r->push_msgs >= ctl->budget_msgs)
		return ISM_R_MESSAGES;
memory:
	return ism_memory_room(rec, sk, size) == ISM_ROOM ? 0 : ISM_R_PRESSURE;
}

/*
 * "Not now": send() shall fail and consume nothing. SK_DROP does that, but the kernel remembers it for all
 * later messages of the socket (psock->eval in net/ipv4/tcp_bpf.c). What it does not remember is a redirect
 * that fails, and to send by TCP fails on a socket in TCP_REPAIR, such as the dummy itself: EINVAL.
 */
static __always_inline int not_now(struct sk_msg_md *msg, struct ism_relay *r)
{
	__u64 dummy = r->dummy;

	r->drops++;
	return bpf_msg_redirect_hash(msg, &socks, &dummy, 0);
}

/* The dummy sends. */
static __noinline int from_relay(struct sk_msg_md *msg)
{
	struct ism_ctl *ctl = ism_ctl();
	struct bpf_sock *sk = msg->sk;
	struct ism_relay_sk *own;
	struct ism_relay *r;
	struct ism_conn *rec;
	__u64 token;

	if (!sk || !ctl)
		return SK_PASS;
	own = bpf_sk_storage_get(&sk_relay, sk, 0, 0);
	if (!own || !own->dummy)
		return SK_PASS;
	token = own->token;
	r = ism_relay_at(own->slot, token);
	if (!r)
		return SK_DROP;
	rec = bpf_map_lookup_elem(&conns, &token);
	relay_look(r, rec);
	r->why = rec ? push_refused(r, rec, ctl, msg->size) : ISM_R_PEER_GONE;
	if (!r->why && bpf_msg_redirect_hash(msg, &socks, &token, BPF_F_INGRESS) != SK_PASS)
		r->why = ISM_R_PEER_GONE;
	if (r->why)
		return not_now(msg, r);
	r->after_pushed = r->after_in;
	r->pushed += msg->size;
	r->unread += msg->size;
	r->push_msgs++;
	return SK_PASS;
}

#endif
