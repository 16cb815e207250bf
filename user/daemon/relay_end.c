// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One relayed end; see relay_end.h. The rule: docs/cross-kernel.rst, "The relay". */
#include "relay_end.h"
#include <errno.h>
#include <string.h>
#include <ismredir/option.h>
#include <ismredir/reasons.h>

/* A verdict that was taken before its slot closed has counted its bytes by then. */
#define GRACE_NS 20000000ULL
/* What an application that closed had given to the relay is not waited for any longer. */
#define CLOSING_NS 30000000000ULL
/* A reader whom redirected bytes would not wake, and who has not gone on by then, never will. */
#define READER_NS    5000000000ULL
#define RETRY_MIN_NS 50000ULL
#define RETRY_MAX_NS 4000000ULL

/* Words of a slot: each has one writer, and the other side reads it at any time. */
static void put64(__u64 *to, __u64 v)
{
	__atomic_store_n(to, v, __ATOMIC_RELEASE);
}

static void put32(__u32 *to, __u32 v)
{
	__atomic_store_n(to, v, __ATOMIC_RELEASE);
}

static __u64 get64(const __u64 *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static __u32 get32(const __u32 *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static int partner_is_direct(const struct relay_end *e)
{
	return e->conn.peer_caps & ISM_CAP_DIRECT;
}

static int app_is_gone(const struct relay_end *e)
{
	return !get32(&e->s->sk_state);
}

void relay_end_break(struct relay_end *e, const char *why)
{
	if (e->state == END_BROKEN || e->state == END_DONE)
		return;
	e->state = END_BROKEN;
	e->why = why;
	put32(&e->s->state, ISM_RELAY_BROKEN);
}

static void hostile(struct relay_end *e)
{
	relay_end_break(e, "the partner wrote nonsense into the ring");
}

static void begin_closing(struct relay_end *e, __u64 now)
{
	if (!e->closing_ns)
		e->closing_ns = now;
}

void relay_end_open(struct relay_end *e)
{
	e->state = END_OPEN;
	put32(&e->s->state, ISM_RELAY_CLOSED);
	relay_ring_tell(&e->ring, ISM_RX_RELAY | ISM_RX_HERE | e->s->copied, 0);
}

/* ---------------------------------------------------------------- to the partner */

/*
 * The reader of a direct partner reads TCP only while the flag TCP is there, so the flag is there
 * whenever nothing is in the ring; and going back to the ring is Dekker's scheme of docs/ring.rst.
 * A relay that reads holds bytes back by itself until TCP has been read, and needs none of that.
 */
static int may_publish(struct relay_end *e)
{
	__u64 w = relay_ring_partner(&e->ring);

	if (!partner_is_direct(e) || !(e->ring.tx.flags & ISM_PROD_TCP))
		return 1;
	if (!(w & ISM_RX_READY) || w & (ISM_RX_READING | ISM_RX_FROZEN) ||
	    ISM_RX_SEQ(w) != get32(&e->s->after))
		return 0;
	if (relay_ring_flags(&e->ring, 0, ISM_PROD_TCP))
		return 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(relay_ring_partner(&e->ring) & ISM_RX_READING))
		return 1;
	relay_ring_flags(&e->ring, ISM_PROD_TCP, 0);
	return 0;
}

static int publish(struct relay_end *e)
{
	size_t n = e->pending;

	if (!n || !may_publish(e))
		return 0;
	if (relay_ring_put(&e->ring, n, ISM_TX_AFTER | get32(&e->s->after))) {
		relay_end_break(e, "the fabric refused to take bytes");
		return 1;
	}
	e->pending = 0;
	e->taken += n;
	put64(&e->s->taken, e->taken);
	return 1;
}

/* Redirect into the dummy, or not any more? */
static void gate(struct relay_end *e, __u64 w, __u64 now)
{
	const __u64 go = ISM_RX_HERE | ISM_RX_READY;
	int open = e->state == END_OPEN && (w & go) == go && !(w & (ISM_RX_FROZEN | ISM_RX_CLOSED));
	__u32 was = get32(&e->s->state);

	if (open && was != ISM_RELAY_OPEN) {
		/* Without the flag a relay that reads knows that more may come. */
		if (!partner_is_direct(e))
			relay_ring_flags(&e->ring, 0, ISM_PROD_TCP);
		put32(&e->s->state, ISM_RELAY_OPEN);
	} else if (!open && was == ISM_RELAY_OPEN) {
		put32(&e->s->state, ISM_RELAY_CLOSED);
		e->gate_ns = now;
	}
}

/*
 * What TCP was kept from sending may go. Where the kernel has given the socket up meanwhile, its FIN never left
 * and the remote socket would wait for it for ever.
 */
static void let_held(struct relay_end *e)
{
	e->held = get32(&e->s->held);
	if (app_is_gone(e)) {
		relay_end_break(e, "its end was held back for too long");
		return;
	}
	put32(&e->s->kick, 1);
	e->kick = 1;
}

/* What the partner has got, for the verdict and for egress. */
static int note_delivered(struct relay_end *e)
{
	__u64 consumed, read;
	int changed;

	if (relay_ring_consumed(&e->ring, &consumed)) {
		hostile(e);
		return 1;
	}
	/* A direct reader has to know that TCP follows before anything can come by TCP. */
	if (partner_is_direct(e) && consumed == e->ring.sent &&
	    consumed == get64(&e->s->redirected) && relay_ring_flags(&e->ring, ISM_PROD_TCP, 0))
		return 0;
	read = partner_is_direct(e) ? consumed : relay_ring_read(&e->ring);
	changed = e->s->delivered != consumed || e->s->read != read;
	put64(&e->s->read, read);
	put64(&e->s->delivered, consumed);
	if (get32(&e->s->held) != e->held && consumed == get64(&e->s->redirected))
		let_held(e);
	return changed;
}

size_t relay_end_want_recv(struct relay_end *e, void **to)
{
	ssize_t n;

	if (e->receiving || e->pending || (e->state != END_OPEN && e->state != END_DRAINING))
		return 0;
	n = relay_ring_space(&e->ring, to);
	if (n < 0)
		hostile(e);
	return n > 0 ? n : 0;
}

void relay_end_received(struct relay_end *e, ssize_t n, __u64 now)
{
	e->receiving = 0;
	if (n == -EAGAIN || n == -EINTR || n == -ECANCELED)
		return;
	if (n <= 0) {
		relay_end_break(e, "its dummy socket ended");
		return;
	}
	e->used_ns = now;
	e->pending = n;
	publish(e);
}

/* ---------------------------------------------------------------- to the application */

/* Bytes for a socket that is gone are dropped, as TCP would drop them. */
static void discard(struct relay_end *e)
{
	ssize_t n = relay_ring_poll(&e->ring);

	if (n > 0 && !e->sending)
		relay_ring_took(&e->ring, n);
}

size_t relay_end_want_send(struct relay_end *e, __u64 now)
{
	ssize_t n;

	if (e->sending || now < e->retry_ns || e->frozen ||
	    (e->state != END_OPEN && e->state != END_DRAINING))
		return 0;
	n = relay_ring_poll(&e->ring);
	if (n < 0)
		hostile(e);
	/* A writer that rewound the ring and then had nothing to put there has to hear that it is empty. */
	if (!n && e->ring.rx.told != e->ring.rx.head)
		relay_ring_took(&e->ring, 0);
	if (n <= 0)
		return 0;
	if (app_is_gone(e)) {
		discard(e);
		return 0;
	}
	put64(&e->s->after_in, relay_ring_after(&e->ring));
	n = relay_ring_get(&e->ring, RELAY_PIECE, e->iov);
	memset(&e->msg, 0, sizeof(e->msg));
	e->msg.msg_iov = e->iov;
	e->msg.msg_iovlen = e->iov[1].iov_len ? 2 : 1;
	return n;
}

/* The verdict said no: @s->why is its reason. */
static void refused(struct relay_end *e, __u64 now)
{
	__u32 why = get32(&e->s->why);

	if (!e->refused_ns)
		e->refused_ns = now;
	e->retry_step = e->retry_step ? e->retry_step * 2 : RETRY_MIN_NS;
	if (e->retry_step > RETRY_MAX_NS)
		e->retry_step = RETRY_MAX_NS;
	e->retry_ns = now + e->retry_step;
	switch (why) {
	case ISM_R_PEER_GONE:
		/* TCP resets a connection that brings bytes for nobody */
		if (!app_is_gone(e))
			relay_end_break(e, "bytes came for a socket that was closed");
		break;
	case ISM_R_PLAIN_READER:
	case ISM_R_WAITALL:
	case ISM_R_SPLICE:
		if (now - e->refused_ns > READER_NS)
			relay_end_break(e, "its reader waits where redirected bytes are not seen");
	}
}

void relay_end_sent(struct relay_end *e, ssize_t n, __u64 now)
{
	e->sending = 0;
	/* EINVAL is the verdict's "not now" */
	if (n == -EINVAL || n == -ENOMEM || n == -ENOBUFS || n == -EAGAIN || n == -EINTR) {
		refused(e, now);
		return;
	}
	if (n == -EACCES) {
		relay_end_break(e, "its dummy socket cannot send any more");
		return;
	}
	if (n < 0) {
		/* It left the sockhash between verdict and queue: it is being closed. */
		put32(&e->s->why, ISM_R_PEER_GONE);
		refused(e, now);
		return;
	}
	e->used_ns = now;
	e->refused_ns = 0;
	e->retry_step = 0;
	e->retry_ns = 0;
	if (relay_ring_took(&e->ring, n))
		relay_end_break(e, "the fabric refused to take a cursor");
}

/* What this end says as a reader. */
static void tell(struct relay_end *e, __u64 w)
{
	__u64 word = ISM_RX_RELAY | ISM_RX_HERE | get32(&e->s->copied);
	__u64 read = get64(&e->s->pushed) - get32(&e->s->unread);

	if (e->state == END_OPEN && w & ISM_RX_HERE && !app_is_gone(e) &&
	    !(get32(&e->s->sk_flags) & ISM_RELAY_SK_PINNED))
		word |= ISM_RX_READY;
	if (e->frozen)
		word |= ISM_RX_FROZEN;
	relay_ring_tell(&e->ring, word, read);
	/* What changes without anybody sending has to be looked at. */
	e->look = get32(&e->s->unread) ||
		  (partner_is_direct(e) && ism_ring_word(e->ring.own) & ISM_PROD_TCP);
}

/* ---------------------------------------------------------------- ends */

/* Nothing that this end took from its application is on its way any more, and nothing will be. */
static int out_is_done(struct relay_end *e, __u64 now)
{
	if (now - e->gate_ns < GRACE_NS || e->pending ||
	    get64(&e->s->redirected) != get64(&e->s->delivered))
		return 0;
	return !relay_ring_flags(&e->ring, ISM_PROD_TCP, 0);
}

/* The same of the partner. A relay says so by the flag TCP, a program takes back what we left. */
static int in_is_done(struct relay_end *e)
{
	ssize_t n;

	if (app_is_gone(e)) {
		discard(e);
		return 1;
	}
	if (e->sending)
		return 0;
	if (partner_is_direct(e)) {
		if (!e->frozen) {
			e->frozen = 1;
			tell(e, 0);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			n = relay_ring_poll(&e->ring);
			return n == 0;
		}
		return !!(ism_ring_word(e->ring.own) & ISM_PROD_TCP);
	}
	n = relay_ring_poll(&e->ring);
	return n == 0 && e->ring.rx.word & ISM_PROD_TCP;
}

static void step_draining(struct relay_end *e, __u64 w, __u64 now)
{
	int out = out_is_done(e, now);

	if (w & ISM_RX_CLOSED ? out : out && in_is_done(e))
		e->state = END_DONE;
	else if (app_is_gone(e) && now - e->closing_ns > CLOSING_NS)
		relay_end_break(e, "its bytes were not taken in time");
}

/*
 * The partner reads no more. What it did not take is lost; what it gave before is still delivered. If its own
 * connection broke, its kernel may have nothing left by which to tell ours.
 */
static void partner_closed(struct relay_end *e, __u64 now)
{
	begin_closing(e, now);
	if (now - e->closing_ns < GRACE_NS)
		return;
	if (get64(&e->s->redirected) != get64(&e->s->delivered))
		relay_end_break(e, "its partner ended with bytes in it");
	else if (app_is_gone(e) && relay_ring_poll(&e->ring) > 0)
		discard(e);
	else if (e->sending || relay_ring_poll(&e->ring) > 0)
		return;
	else if (e->ring.rx.word & ISM_PROD_ABORT && !app_is_gone(e))
		relay_end_break(e, "its partner's connection broke");
	else
		e->state = END_DONE;
}

void relay_end_drain(struct relay_end *e, __u64 now)
{
	if (e->state == END_OPEN) {
		e->state = END_DRAINING;
		begin_closing(e, now);
	}
}

int relay_end_step(struct relay_end *e, __u64 now)
{
	int changed = publish(e);
	__u64 w;

	if (e->state != END_OPEN && e->state != END_DRAINING)
		return changed;
	changed |= note_delivered(e);
	w = relay_ring_partner(&e->ring) | (e->peer_gone ? ISM_RX_CLOSED : 0);
	gate(e, w, now);
	if (app_is_gone(e) || get32(&e->s->sk_flags) & ISM_RELAY_SK_PINNED)
		relay_end_drain(e, now);
	if (w & ISM_RX_CLOSED)
		partner_closed(e, now);
	else if (e->state == END_DRAINING)
		step_draining(e, w, now);
	else if (get32(&e->s->state) == ISM_RELAY_CLOSED && !partner_is_direct(e))
		out_is_done(e, now); /* the partner drains, and waits to hear of it */
	if (e->state == END_OPEN || e->state == END_DRAINING)
		tell(e, w);
	if (changed)
		e->used_ns = now;
	return changed;
}

void relay_end_farewell(struct relay_end *e)
{
	__u64 word = ISM_RX_RELAY | ISM_RX_CLOSED | get32(&e->s->copied);

	if (get32(&e->s->sk_flags) & ISM_RELAY_SK_PINNED)
		word |= ISM_RX_PINNED;
	if (e->state == END_BROKEN)
		relay_ring_flags(&e->ring, ISM_PROD_ABORT, 0);
	relay_ring_tell(&e->ring, word, e->ring.told_read);
	ism_fabric_ring(e->ring.fabric, e->ring.peer_token);
}

int relay_end_stays_on_tcp(struct relay_end *e)
{
	const __u64 pinned = ISM_RX_RELAY | ISM_RX_CLOSED | ISM_RX_PINNED;

	return e->state == END_DONE && (relay_ring_partner(&e->ring) & pinned) == pinned;
}

int relay_end_arm(struct relay_end *e)
{
	return relay_ring_arm(&e->ring, !e->receiving && !e->pending);
}
