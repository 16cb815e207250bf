// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The skmsg plane: for every message that an enrolled socket sends, redirect it into the partner's
 * receive queue, or let it take TCP. The switch rule and why it is safe: docs/switch-rule.rst.
 */
#include "common.bpf.h"
#include "memory.bpf.h"
#include "tokens.bpf.h"
#include "waiters.bpf.h"

/* include/net/sock.h */
#define ISM_SOCK_SNDBUF_LOCK 1
#define ISM_SOCK_RCVBUF_LOCK 2

/* One wait for a reader is paid back by so many messages that needed none; so many are lent. */
#define ISM_SPIN_DEBT	  16
#define ISM_SPIN_DEBT_MAX 64
#define ISM_SPIN_LOOPS	  4096

/* TCP bytes of a blocking socket that may be unread before it leaves: far from a full buffer. */
#define ISM_BLOCKING_UNREAD 16384

/* What one verdict looks at; everything of the partner is read once, then its identity re-checked. */
struct verdict {
	struct ism_ctl *ctl;
	struct ism_conn *me;
	struct ism_conn *peer;
	struct sock *psk;
	struct tcp_sock *tp;
	__u64 token;
	__u32 size;
	__u32 backlog;
};

/* The application's own buffer sizes bound what may lie unread, as they do on TCP. */
static __always_inline __u32 byte_budget(const struct verdict *v)
{
	const struct sock *sk = (const struct sock *)v->tp, *psk = v->psk;
	__u32 budget = v->ctl->budget_bytes, own;

	if (KREAD(struct sock, psk, sk_userlocks) & ISM_SOCK_RCVBUF_LOCK) {
		own = KREAD(struct sock, psk, sk_rcvbuf);
		if (own < budget)
			budget = own;
	}
	if (KREAD(struct sock, sk, sk_userlocks) & ISM_SOCK_SNDBUF_LOCK) {
		own = KREAD(struct sock, sk, sk_sndbuf);
		if (own < budget)
			budget = own;
	}
	return budget;
}

struct spin {
	__u64 psk;
	__u64 end_ns;
	__u32 room; /* backlog at which the message fits */
	__u32 backlog;
};

static long spin_step(__u64 i, struct spin *w)
{
	w->backlog = KREAD(struct sock, w->psk, sk_backlog.rmem_alloc.counter);
	return w->backlog <= w->room || bpf_ktime_get_ns() > w->end_ns;
}

/*
 * Give a reader on another CPU a moment before the bytes take TCP. Only now and then: a writer that
 * always outruns its reader should sleep in TCP instead.
 */
static __always_inline __u32 wait_for_reader(const struct verdict *v, __u32 budget)
{
	struct spin w = { .psk = v->peer->sk, .backlog = v->backlog, .room = budget - v->size };

	if (!v->ctl->spin || v->size > budget || v->me->spins > ISM_SPIN_DEBT_MAX)
		return v->backlog;
	v->me->spins += ISM_SPIN_DEBT;
	w.end_ns = bpf_ktime_get_ns() + v->ctl->spin * 1000ULL;
	bpf_loop(ISM_SPIN_LOOPS, spin_step, &w, 0);
	return w.backlog;
}

/*
 * A one-way stream of small messages: TCP coalesces, redirection pays a wake-up and a struct sk_msg
 * for each. "One-way" is: @stream_run sends without anything received in between, by TCP or (@redir
 * moves) redirected.
 */
static __always_inline int small_stream(struct verdict *v, __u32 redir)
{
	struct ism_conn *me = v->me;
	struct tcp_sock *tp = v->tp;
	__u32 rcv = KREAD(struct tcp_sock, tp, rcv_nxt);

	if (me->seen_redir != redir || me->seen_rcv != rcv) {
		me->seen_redir = redir;
		me->seen_rcv = rcv;
		me->run = 0;
	}
	if (v->size >= v->ctl->stream_size) {
		me->run = 0;
		return 0;
	}
	if (me->run < v->ctl->stream_run) {
		me->run++;
		return 0;
	}
	me->run++;
	return 1;
}

/*
 * A writer that outruns its reader: once the budget is reached TCP takes over, and rule 1 holds the
 * stream there until the reader catches up for a moment. Each way works, but a stream that is on TCP
 * for much of its time is better off on a plain socket.
 */
static __always_inline int mostly_overflow(struct verdict *v)
{
	struct ism_conn *me = v->me;
	__u64 redir = me->redir_bytes - me->mark_redir, tcp = me->tcp_bytes - me->mark_tcp;

	if (!v->ctl->mix_bytes || redir + tcp < v->ctl->mix_bytes)
		return 0;
	me->mark_redir = me->redir_bytes;
	me->mark_tcp = me->tcp_bytes;
	if (tcp * 3 < redir + tcp)
		return 0;
	ism_leave(me);
	return 1;
}

/* Both records exist, name each other, are enrolled and want redirection. */
static __always_inline __u32 check_pair(struct verdict *v)
{
	__u64 peer_token = v->me->peer;

	if (v->ctl->word != ISM_WORD_ON)
		return v->ctl->word == ISM_WORD_DRAIN ? ISM_R_DRAIN : ISM_R_OFF;
	if (v->me->flags & (ISM_CONN_PINNED | ISM_CONN_LEAVING)) {
		ism_leave(v->me);
		return v->me->reason ? v->me->reason : ISM_R_STREAM;
	}
	if (!(v->me->flags & ISM_CONN_ENROLLED) || !peer_token)
		return v->me->reason ? v->me->reason : ISM_R_PENDING;
	v->peer = bpf_map_lookup_elem(&conns, &peer_token);
	if (!v->peer)
		return ISM_R_PEER_GONE;
	if (v->peer->peer != v->token)
		return ISM_R_NOT_MUTUAL;
	if (v->peer->flags & ISM_CONN_PINNED) {
		ism_leave(v->me);
		return ISM_R_PEER_PINNED;
	}
	if (!(v->peer->flags & ISM_CONN_ENROLLED))
		return v->peer->reason ? v->peer->reason : ISM_R_NOT_MUTUAL;
	return 0;
}

/* Rule 1 and rule 3: nothing of ours lies unread in TCP, and nobody is shutting down. */
static __always_inline __u32 check_order(struct verdict *v)
{
	struct sock *sk = (struct sock *)v->tp, *psk = (struct sock *)v->peer->sk;
	struct tcp_sock *tp = v->tp, *ptp = (struct tcp_sock *)psk;
	__u32 write_seq = KREAD(struct tcp_sock, tp, write_seq);

	v->psk = psk;
	if (!psk)
		return ISM_R_PEER_GONE;
	if (KREAD(struct sock, sk, sk_shutdown) || KREAD(struct sock, psk, sk_shutdown))
		return ISM_R_SHUTDOWN;
	if (KREAD(struct sock, sk, __sk_common.skc_state) != BPF_TCP_ESTABLISHED ||
	    KREAD(struct sock, psk, __sk_common.skc_state) != BPF_TCP_ESTABLISHED)
		return ISM_R_SHUTDOWN;
	if (KREAD(struct tcp_sock, ptp, copied_seq) != write_seq)
		return ISM_R_UNREAD_TCP;
	return 0;
}

/*
 * A reader inside plain tcp_recvmsg() or splice(2) is not woken by redirected bytes. It is either
 * running, and then owns the socket lock until it sleeps, or it sleeps on the wait queue without a
 * reference on the psock. So first the lock, then the queue. The lock matters only right after TCP
 * bytes were read: while bytes are redirected nobody can enter the plain path.
 */
static __always_inline __u32 check_reader(struct verdict *v)
{
	struct sock *psk = v->psk;
	__u32 reason;

	if (v->me->last == ISM_PLANE_TCP && v->me->tcp_bytes &&
	    KREAD(struct sock, psk, sk_lock.owned))
		return ISM_R_PLAIN_READER;
	reason = ism_plain_reader((__u64)psk);
	if (!reason && v->ctl->readers == ISM_READERS_POLL && ism_sleepers((__u64)psk))
		reason = ISM_R_BLOCKING;
	return reason;
}

/*
 * tcp_bpf_recvmsg() gives a reader that sleeps in it EAGAIN, on a blocking socket too, when it is
 * woken without data, and sk_stream_write_space() wakes whoever sleeps on the socket. So a task that
 * sleeps in recv() while another of its own fills the send buffer would see an error that does not
 * exist: such a socket leaves before its bytes overflow to TCP.
 */
static __always_inline int is_duplex(struct verdict *v)
{
	return v->ctl->readers != ISM_READERS_ANY && ism_sleepers(v->me->sk);
}

/* At the limit of a memory cgroup the connection had better be plain TCP from both ends. */
static __always_inline __u32 check_memory(struct verdict *v)
{
	const struct sock *psk = v->psk;

	switch (ism_memory_room(v->me, psk, v->size)) {
	case ISM_ROOM:
		return 0;
	case ISM_NO_ROOM_CGROUP:
		ism_set(v->me, ISM_CONN_PINNED);
		ism_leave(v->peer);
	}
	return ISM_R_PRESSURE;
}

/* Rule 2: what lies redirected and unread is bounded, in bytes and in messages. */
static __always_inline __u32 check_budget(struct verdict *v)
{
	const struct sock *psk = v->psk;
	__u32 budget = byte_budget(v);

	v->backlog = KREAD(struct sock, psk, sk_backlog.rmem_alloc.counter);
	if (!v->backlog)
		v->me->msgs = 0;
	if (v->backlog + v->size > budget) {
		v->backlog = wait_for_reader(v, budget);
		if (v->backlog + v->size > budget)
			return ISM_R_BUDGET;
	}
	if (v->me->msgs >= v->ctl->budget_msgs)
		return ISM_R_MESSAGES;
	return check_memory(v);
}

/*
 * What makes TCP the better way although a redirect would be in order. While redirected bytes lie
 * unread it has to wait, for a reader that does not see those (splice(2), or one that sleeps in
 * plain tcp_recvmsg()) would be given the later bytes first.
 */
static __always_inline __u32 check_preference(struct verdict *v)
{
	__u32 reason;

	if (mostly_overflow(v))
		return ISM_R_STREAM;
	reason = small_stream(v, v->peer->redir_msgs) ? ISM_R_STREAM : check_reader(v);
	if (!reason && is_duplex(v))
		reason = ISM_R_DUPLEX;
	if (!reason || ism_unread(v->psk))
		return 0;
	if (reason == ISM_R_STREAM && v->me->run >= v->ctl->leave_run)
		ism_leave(v->me);
	if (reason != ISM_R_STREAM && reason != ISM_R_PLAIN_READER)
		ism_set(v->me, ISM_CONN_PINNED);
	return reason;
}

static __always_inline __u32 decide(struct verdict *v)
{
	__u32 reason = check_pair(v);

	if (!reason)
		reason = check_order(v);
	if (!reason)
		reason = check_budget(v);
	if (!reason)
		reason = check_preference(v);
	if (reason)
		return reason;
	if (ism_sends_oob()) {
		ism_set(v->me, ISM_CONN_PINNED);
		return ISM_R_URGENT;
	}
	/* Type-stable memory: if the cookie still matches, all that was read above was of this socket. */
	if (ism_sk_cookie(v->psk) != v->peer->cookie)
		return ISM_R_PEER_GONE;
	return 0;
}

/*
 * tcp_bpf_recvmsg() takes any wake-up without data for the end of its wait and returns EAGAIN, on a
 * blocking socket too; the wake-up that follows a full send buffer is one (sk_stream_write_space()).
 * Whoever uploads with blocking calls and then waits for the answer would see it. So a blocking
 * socket leaves while what it has in TCP is far from filling its buffer; and at once where redirected
 * bytes fill the partner's receive memory, because then TCP there takes a single packet, whose ACK
 * is the one occasion for on_rtt() (net/ipv4/tcp_input.c tcp_data_queue()).
 */
static __always_inline void leave_before_full(struct verdict *v, __u32 reason)
{
	const struct sock *sk = (const struct sock *)v->tp;
	struct tcp_sock *tp = v->tp;
	__u32 unread = KREAD(struct tcp_sock, tp, write_seq) - KREAD(struct tcp_sock, tp, snd_una);

	if (v->ctl->readers == ISM_READERS_ANY || !(v->me->flags & ISM_CONN_ENROLLED))
		return;
	if (v->psk)
		unread = KREAD(struct tcp_sock, tp, write_seq) -
			 KREAD(struct tcp_sock, v->psk, copied_seq);
	if (reason != ISM_R_BUDGET && reason != ISM_R_MESSAGES &&
	    unread + v->size <= ISM_BLOCKING_UNREAD)
		return;
	if (ism_is_blocking(sk))
		ism_leave(v->me);
}

static __always_inline void note_plane(struct ism_conn *me, __u8 plane, __u16 reason)
{
	if (me->reason != reason) {
		me->reason = reason;
		if (reason)
			ism_count_reason(reason);
	}
	if (me->last != plane) {
		me->last = plane;
		me->switches++;
	}
}

/*
 * By the storage of the socket, which is quicker to find than the entry in tokens, but costs so much to
 * make that only a connection gets it that goes on for a while.
 */
#define ISM_STORED_AFTER 32

static __always_inline __u64 own_token(struct bpf_sock *sk, const struct tcp_sock *tp)
{
	struct ism_sk *own = bpf_sk_storage_get(&sk_conn, sk, 0, 0);

	if (own && own->token)
		return own->token;
	return ism_token_of(ism_sk_cookie((const struct sock *)tp));
}

static __always_inline void store_token(struct bpf_sock *sk, __u64 token)
{
	struct ism_sk *own = bpf_sk_storage_get(&sk_conn, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (own)
		own->token = token;
}

#include "relay.bpf.h"

SEC("sk_msg")
int ism_redirect(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct verdict v = {};
	struct tcp_sock *tp;
	__u64 peer_token;
	__u32 reason, seq;

	if (!sk)
		return SK_PASS;
	v.ctl = ism_ctl();
	tp = bpf_skc_to_tcp_sock(sk);
	v.tp = tp;
	if (!v.ctl || !tp)
		return SK_PASS;
	v.token = own_token(sk, tp);
	v.me = bpf_map_lookup_elem(&conns, &v.token);
	if (!v.me)
		return from_relay(msg);
	seq = KREAD(struct tcp_sock, tp, write_seq);
	v.me->tcp_bytes += seq - v.me->last_seq;
	v.me->last_seq = seq;
	v.size = msg->size;
	if (v.me->flags & ISM_CONN_REMOTE)
		return to_relay(msg, sk, &v);

	reason = decide(&v);
	if (!reason) {
		peer_token = v.me->peer;
		/* A miss makes the helper say SK_DROP; the bytes then simply take TCP. */
		if (bpf_msg_redirect_hash(msg, &socks, &peer_token, BPF_F_INGRESS) != SK_PASS)
			reason = ISM_R_PEER_GONE;
	}
	if (reason) {
		leave_before_full(&v, reason);
		if (v.me->flags & (ISM_CONN_PINNED | ISM_CONN_LEAVING))
			v.me->plane = ISM_PLANE_TCP;
		note_plane(v.me, ISM_PLANE_TCP, reason);
		return SK_PASS;
	}
	v.me->redir_bytes += v.size;
	v.me->redir_msgs++;
	v.me->msgs++;
	if (v.me->redir_msgs == ISM_STORED_AFTER)
		store_token(sk, v.token);
	if (v.me->spins)
		v.me->spins--;
	note_plane(v.me, ISM_PLANE_SKMSG, ISM_R_NONE);
	return SK_PASS;
}
