// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The skmsg plane: for every message that an enrolled socket sends, redirect it into the partner's
 * receive queue, or let it take TCP. The switch rule and why it is safe: docs/switch-rule.rst.
 */
#include "common.bpf.h"
#include "memory.bpf.h"
#include "waiters.bpf.h"

/* include/net/sock.h */
#define ISM_SOCK_SNDBUF_LOCK 1
#define ISM_SOCK_RCVBUF_LOCK 2

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

/* Give a reader on another CPU a moment before the bytes take TCP. */
static __always_inline __u32 wait_for_reader(const struct verdict *v, __u32 budget)
{
	const struct sock *psk = v->psk;
	__u32 backlog = v->backlog;

	for (__u32 i = 0; i < 1024; i++) {
		if (i >= v->ctl->spin || backlog + v->size <= budget)
			break;
		backlog = KREAD(struct sock, psk, sk_backlog.rmem_alloc.counter);
	}
	return backlog;
}

/*
 * A one-way stream of small messages: TCP coalesces, redirection pays a wake-up and a struct sk_msg
 * for each. "One-way" is: @stream_run sends without anything received in between.
 */
static __always_inline int small_stream(struct verdict *v)
{
	struct ism_conn *me = v->me;
	struct tcp_sock *tp = v->tp;
	__u32 redir = v->peer->redir_msgs, rcv = KREAD(struct tcp_sock, tp, rcv_nxt);

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
	if (++me->run >= v->ctl->leave_run)
		ism_leave(me);
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
	if (v->me->flags & ISM_CONN_TCP_FIRST) {
		if (write_seq == v->me->start_seq)
			return ISM_R_FIRST;
		ism_clear(v->me, ISM_CONN_TCP_FIRST);
	}
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

	if (v->me->last == ISM_PLANE_TCP && v->me->tcp_bytes && KREAD(struct sock, psk, sk_lock.owned))
		return ISM_R_PLAIN_READER;
	reason = ism_plain_reader((__u64)psk);
	if (!reason && v->ctl->readers == ISM_READERS_POLL && ism_sleepers((__u64)psk))
		reason = ISM_R_BLOCKING;
	if (reason && reason != ISM_R_PLAIN_READER)
		ism_set(v->me, ISM_CONN_PINNED);
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
	if (v->ctl->readers == ISM_READERS_ANY || !ism_sleepers(v->me->sk))
		return 0;
	ism_set(v->me, ISM_CONN_PINNED);
	return 1;
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

static __always_inline __u32 decide(struct verdict *v)
{
	__u32 reason = check_pair(v);

	if (reason)
		return reason;
	if (small_stream(v) || mostly_overflow(v))
		return ISM_R_STREAM;
	reason = check_order(v);
	if (!reason)
		reason = check_budget(v);
	if (!reason)
		reason = check_reader(v);
	if (reason)
		return reason;
	if (is_duplex(v))
		return ISM_R_DUPLEX;
	if (ism_sends_oob()) {
		ism_set(v->me, ISM_CONN_PINNED);
		return ISM_R_URGENT;
	}
	/* Type-stable memory: if the cookie still matches, all that was read above was of this socket. */
	if (ism_sk_cookie(v->psk) != v->peer->cookie)
		return ISM_R_PEER_GONE;
	return 0;
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

SEC("sk_msg")
int ism_redirect(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct verdict v = {};
	struct tcp_sock *tp;
	struct ism_sk *own;
	__u64 peer_token;
	__u32 reason, seq;

	if (!sk)
		return SK_PASS;
	own = bpf_sk_storage_get(&sk_conn, sk, 0, 0);
	v.ctl = ism_ctl();
	tp = bpf_skc_to_tcp_sock(sk);
	v.tp = tp;
	if (!own || !v.ctl || !tp)
		return SK_PASS;
	v.token = own->token;
	v.me = bpf_map_lookup_elem(&conns, &v.token);
	if (!v.me)
		return SK_PASS;
	seq = KREAD(struct tcp_sock, tp, write_seq);
	v.me->tcp_bytes += seq - v.me->last_seq;
	v.me->last_seq = seq;
	v.size = msg->size;

	reason = decide(&v);
	if (!reason) {
		peer_token = v.me->peer;
		/* A miss makes the helper say SK_DROP; the bytes then simply take TCP. */
		if (bpf_msg_redirect_hash(msg, &socks, &peer_token, BPF_F_INGRESS) != SK_PASS)
			reason = ISM_R_PEER_GONE;
	}
	if (reason) {
		if (v.me->flags & (ISM_CONN_PINNED | ISM_CONN_LEAVING))
			v.me->plane = ISM_PLANE_TCP;
		note_plane(v.me, ISM_PLANE_TCP, reason);
		return SK_PASS;
	}
	v.me->redir_bytes += v.size;
	v.me->redir_msgs++;
	v.me->msgs++;
	note_plane(v.me, ISM_PLANE_SKMSG, ISM_R_NONE);
	return SK_PASS;
}
