// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sending: into the ring while the partner has read all that took TCP, else by TCP. docs/ring.rst, "the
 * switch rule".
 */
#include "io.h"
#include <sched.h>

/* Once in so many sends the clock is looked at, and once in so long TCP: has the partner died? */
#define LOOK_AT_CLOCK  32
#define LOOK_AT_TCP_NS 1000000
/* How long a stream is held back for its reader to empty TCP, and after how long it is tried again. */
#define DRAIN_NS	  50000000
#define DRAIN_NONBLOCK_NS 1000000
#define DRAIN_STALL_NS	  25000000
/* Who does not see it read for so long does not look on, but leaves it the CPU: others may want that, too. */
#define DRAIN_LOOK_NS 300000
#define DRAIN_NAP_NS  200000
/* The same to another kernel, where megabytes may be on the way, and come in bursts. */
#define DRAIN_REMOTE_NS		 1000000000
#define DRAIN_REMOTE_NONBLOCK_NS 10000000
#define DRAIN_REMOTE_STALL_NS	 50000000
#define DRAIN_REMOTE_NAP_NS	 100000
/* Twice as long each time, and four times what the last one took. */
#define DRAIN_AGAIN_NS		5000000
#define DRAIN_AGAIN_MAX_NS	1000000000
#define DRAIN_AGAIN_NONBLOCK_NS 100000000
/* Bytes after which the way of copying is looked at again. */
#define TUNE_STRIDE 16384
/* A writer that has blocked so long before a full ring goes on by TCP, which holds some megabytes more. */
#define OVERFLOW_NS 50000000

/*
 * What a relay has taken out of the ring it has given to its program's socket, before anything that comes
 * there by TCP later. So behind what it has not taken TCP would overtake. tx_lock held.
 */
static ssize_t not_taken(struct conn *c)
{
	__u64 cons = __atomic_load_n(&ism_dmb_rx(c->own)->cons, __ATOMIC_ACQUIRE);
	struct iovec v[2];

	return ism_ring_tx_unread(&c->slot->tx, c->peer, cons, v);
}

static int relay_lags(struct conn *c)
{
	return rx_word(c) & ISM_RX_RELAY && atomic_load(&c->slot->tx_state) == ISM_TX_RING &&
	       not_taken(c) > 0;
}

/* The FIN is held at our own host, lest it overtake: where not all was taken ismredird decides. */
static void let_fin(struct conn *c, int fd)
{
	if (c->slot->remote && rx_word(c) & ISM_RX_RELAY && !not_taken(c))
		ism_tell(fd, ISM_SO_FIN, 0);
}

int io_end_tx(struct conn *c, int fd, uint64_t until)
{
	struct pollfd p = { .fd = fd };

	while (relay_lags(c)) {
		if (tx_needs_service(c)) {
			io_serve(c, fd);
			continue;
		}
		if (ism_now_ns() >= until)
			return -ETIMEDOUT;
		conn_ring(c, ISM_WANT_DATA);
		real.poll(&p, 1, 1); /* POLLERR and POLLHUP come unasked */
		if (p.revents)
			return -ECONNRESET;
	}
	let_fin(c, fd);
	return 0;
}

void io_tx_forever(struct conn *c, uint32_t reason)
{
	struct ism_slot *s = c->slot;

	if (atomic_load(&s->tx_state) == ISM_TX_RING) {
		s->switches++;
		s->tx.flags |= ISM_PROD_TCP;
		ism_ring_tx_publish(&s->tx, c->peer);
	}
	atomic_store(&s->tx_state, ISM_TX_FOREVER);
	if (!s->tx_reason)
		s->tx_reason = reason;
	io_stats_tx(c);
	/* a reader that sleeps has to look where the stream goes on */
	conn_ring(c, ISM_WANT_DATA);
}

/* Everything of @v by TCP, for a reader that has just said that it reads there. */
static int resend(int fd, struct iovec v[2])
{
	uint64_t end = ism_now_ns() + 5000000000ULL;
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	ssize_t n;

	for (int i = 0; i < 2;) {
		n = v[i].iov_len ? real.send(fd, v[i].iov_base, v[i].iov_len,
					     MSG_DONTWAIT | MSG_NOSIGNAL)
				 : 0;
		if (n >= 0) {
			v[i].iov_base = (char *)v[i].iov_base + n;
			v[i].iov_len -= n;
			i += !v[i].iov_len;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (ism_now_ns() > end)
			return -ETIMEDOUT;
		real.poll(&p, 1, 100);
	}
	return 0;
}

/*
 * FROZEN: the reader will not look into the ring again. What it has not consumed goes to TCP, and the
 * cursor back to where it stopped: that is also the answer that it waits for.
 */
void io_serve(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;
	uint64_t w = rx_word(c), from;
	struct iovec v[2];
	ssize_t n;
	int lost;

	if (atomic_load(&s->tx_state) == ISM_TX_FOREVER)
		return;
	if (w & ISM_RX_FROZEN && atomic_load(&s->tx_state) == ISM_TX_RING) {
		from = __atomic_load_n(&ism_dmb_rx(c->own)->cons, __ATOMIC_ACQUIRE);
		n = ism_ring_tx_unread(&s->tx, c->peer, from, v);
		if (n < 0) {
			io_break(c, fd);
			return;
		}
		s->tx.tail -= n;
		io_tx_forever(c, ISM_R_PEER_FROZEN);
		s->tx_bytes -= n;
		if (n && resend(fd, v))
			io_break(c, fd);
		s->tcp_tx_bytes += n;
		io_stats_tx(c);
		return;
	}
	lost = w & ISM_RX_CLOSED && relay_lags(c);
	io_tx_forever(c, w & ISM_RX_CLOSED ? ISM_R_PEER_GONE : ISM_R_PEER_FROZEN);
	/* Nothing may follow the hole: this end's FIN is held until the connection is reset. */
	if (lost)
		real.shutdown(fd, SHUT_WR);
}

/* Was the TCP connection ended by something that is not the partner's shim? */
static int partner_died(struct conn *c, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	if (real.poll(&p, 1, 0) <= 0)
		return 0;
	if (p.revents & (POLLERR | POLLHUP | POLLNVAL))
		return 1;
	return p.revents & POLLRDHUP && !(ism_ring_word(c->own) & (ISM_PROD_FIN | ISM_PROD_TCP));
}

/* Back to the ring? Dekker's scheme with tcp_take(). */
static int try_ring(struct conn *c, int fd, uint64_t w)
{
	struct ism_slot *s = c->slot;
	struct ism_sock_info info;

	if (!(w & ISM_RX_READY) || w & ISM_RX_READING || atomic_load(&s->shut) & 2 ||
	    atomic_load(&s->kernel_tx))
		return 0;
	if (!s->tx_known) {
		if (sock_info(fd, &info))
			return 0;
		s->tx_seq = info.write_seq;
		s->tx_known = 1;
	}
	if (ISM_RX_SEQ(w) != s->tx_seq ||
	    ism_ring_tx_room(&s->tx, c->own, s->tx.size) < (ssize_t)s->tx.size / 4)
		return 0;
	s->tx.flags &= ~ISM_PROD_TCP;
	ism_ring_tx_publish(&s->tx, c->peer);
	atomic_thread_fence(memory_order_seq_cst);
	if (rx_word(c) & ISM_RX_READING) {
		s->tx.flags |= ISM_PROD_TCP;
		ism_ring_tx_publish(&s->tx, c->peer);
		return 0;
	}
	atomic_store(&s->tx_state, ISM_TX_RING);
	s->tx_reason = 0;
	s->switches++;
	return 1;
}

/*
 * A stream never lets TCP run empty, so it would never get to the ring: hold it back for a moment, as
 * long as the reader is seen to read. Not often: a reader that does not keep up had better have TCP.
 */
static uint64_t drain_time(const struct conn *c, int nonblock)
{
	if (c->slot->remote)
		return nonblock ? DRAIN_REMOTE_NONBLOCK_NS : DRAIN_REMOTE_NS;
	return nonblock ? DRAIN_NONBLOCK_NS : DRAIN_NS;
}

/*
 * Asleep others may send, and a signal handler may leave by longjmp(): tx_lock is not held then. 0 when things have
 * changed so that it is no use.
 */
static int drain_pause(struct conn *c, uint32_t intr, uint64_t unseen)
{
	struct ism_slot *s = c->slot;
	struct timespec nap = { .tv_nsec = s->remote ? DRAIN_REMOTE_NAP_NS : DRAIN_NAP_NS };

	if (s->remote || unseen > DRAIN_LOOK_NS) {
		ism_lock_drop(&s->tx_lock);
		real.ppoll(NULL, 0, &nap, NULL);
		while (ism_lock_take(&s->tx_lock))
			sched_yield();
	} else if (conn_partner_cpu(c) == ism_my_cpu()) {
		sched_yield();
	} else {
		for (int i = 0; i < 16; i++)
			ism_pause();
	}
	return ism_interrupts == intr && atomic_load(&s->tx_state) == ISM_TX_TCP &&
	       !(atomic_load(&s->shut) & 2);
}

/* When next, after one that took @spent. */
static uint64_t drain_again(struct ism_slot *s, uint64_t spent, int nonblock)
{
	uint64_t most = nonblock && !s->remote ? DRAIN_AGAIN_NONBLOCK_NS : DRAIN_AGAIN_MAX_NS;
	uint64_t wait = s->drain_wait ? s->drain_wait * 2 : DRAIN_AGAIN_NS;

	if (!s->remote && wait < 4 * spent)
		wait = 4 * spent;
	s->drain_wait = wait < most ? wait : most;
	return s->drain_wait;
}

/* tx_lock held, see drain_pause() */
static int wait_drained(struct conn *c, int fd, int nonblock)
{
	struct ism_slot *s = c->slot;
	uint64_t now = ism_now_ns(), w = rx_word(c), last = w, seen = now, start = now;
	uint64_t end = now + drain_time(c, nonblock);
	uint64_t stall = s->remote ? DRAIN_REMOTE_STALL_NS : DRAIN_STALL_NS;
	uint32_t intr = ism_interrupts;

	if (!(w & ISM_RX_READY) || w & (ISM_RX_FROZEN | ISM_RX_CLOSED) || now < s->drain_at ||
	    !s->tx_known || atomic_load(&s->shut) & 2)
		return 0;
	while (now < end && now - seen < stall) {
		if (ISM_RX_SEQ(w) == s->tx_seq && !(w & ISM_RX_READING) && try_ring(c, fd, w)) {
			s->drain_wait = 0;
			return 1;
		}
		if (!drain_pause(c, intr, now - seen))
			return atomic_load(&s->tx_state) == ISM_TX_RING &&
			       !(atomic_load(&s->shut) & 2);
		now = ism_now_ns();
		w = rx_word(c);
		if (w != last)
			seen = now;
		last = w;
	}
	s->drain_at = now + drain_again(s, now - start, nonblock);
	return 0;
}

static ssize_t tcp_put(struct conn *c, int fd, struct cursor *k, int flags)
{
	struct ism_slot *s = c->slot;
	struct iovec v[TCP_PIECES];
	struct msghdr m;
	ssize_t n;

	cursor_msg(k, &m, v);
	n = real.sendmsg(fd, &m, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	s->tx_seq += n;
	s->tcp_tx_bytes += n;
	io_stats_tx(c);
	return n;
}

static void tell_cpu(struct conn *c)
{
	struct ism_slot *s = c->slot;
	int cpu = ism_my_cpu();

	if (cpu == s->cpu_told)
		return;
	s->cpu_told = cpu;
	__atomic_store_n(&ism_dmb_tx(c->peer)->cpu, cpu, __ATOMIC_RELAXED);
}

/* Do copies around the caches move more to this partner? See ism_ring_tx_write(). tx_lock held. */
static void tune_copies(struct conn *c)
{
	struct ism_slot *s = c->slot;

	s->tx_tuned = s->tx_bytes;
	s->tx.bypass = !s->remote && conn_partner_cpu(c) != s->cpu_told &&
		       ism_tune(&s->tx_bypass, &ism_ring_bypass, ism_ticks(), s->tx_bytes,
				ism_to_ticks(ISM_TUNE_WINDOW_NS), s->tx.size);
}

/* @n more bytes are to be seen. */
static void publish(struct conn *c, size_t n)
{
	struct ism_slot *s = c->slot;

	/* Reading the clock takes a fifth of a small send. */
	if (__atomic_load_n(&ism_dmb_rx(c->own)->order, __ATOMIC_RELAXED))
		ism_dmb_tx(c->peer)->stamp = ism_ticks();
	ism_ring_tx_publish(&s->tx, c->peer);
	s->tx_bytes += n;
	if (n >= ISM_RING_BYPASS_MIN && s->tx_bytes - s->tx_tuned >= TUNE_STRIDE)
		tune_copies(c);
}

/* Copy as much as fits, published piece by piece. */
static ssize_t ring_put(struct conn *c, int fd, struct cursor *k)
{
	struct ism_slot *s = c->slot;
	size_t done = 0, unpublished = 0, len;
	void *from = NULL;
	ssize_t n = 0;

	tell_cpu(c);
	while ((len = cursor_piece(k, &from))) {
		if (len > ISM_RING_PIECE - unpublished)
			len = ISM_RING_PIECE - unpublished;
		n = ism_ring_tx_write(&s->tx, c->own, c->peer, from, len);
		if (n <= 0)
			break;
		cursor_move(k, n);
		done += n;
		unpublished += n;
		if (unpublished >= ISM_RING_PIECE) {
			publish(c, unpublished);
			unpublished = 0;
			if (k->left)
				conn_ring(c, ISM_WANT_DATA);
		}
	}
	if (n < 0) {
		io_break(c, fd);
		return -EPIPE;
	}
	if (!done)
		return -EAGAIN;
	publish(c, unpublished);
	s->tx_msgs++;
	io_stats_tx(c);
	conn_ring(c, ISM_WANT_DATA);
	return done;
}

/* Now and then: are the partner, the load and the daemon still there? tx_lock held. */
static void look_around(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;
	uint64_t now = ism_ticks();

	s->sends_unchecked = 0;
	if (!(atomic_load(&s->tcp_hint) & ISM_HINT_TX) &&
	    now - s->tcp_looked < ism_to_ticks(LOOK_AT_TCP_NS))
		return;
	atomic_fetch_and(&s->tcp_hint, ~ISM_HINT_TX);
	s->tcp_looked = now;
	if (partner_died(c, fd))
		io_tx_forever(c, ISM_R_PEER_GONE);
	else if (ism_host()->word != ISM_WORD_ON && !relay_lags(c))
		io_tx_forever(c, ISM_R_DRAIN);
	c->tick = 1;
}

/* Which way now? 1 ring, 0 TCP. tx_lock held. */
static int tx_route(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;
	uint64_t w = rx_word(c);

	if (unlikely(atomic_load(&s->tx_state) == ISM_TX_FOREVER))
		return 0;
	if (unlikely(w & (ISM_RX_FROZEN | ISM_RX_CLOSED)))
		io_serve(c, fd);
	else if (unlikely(atomic_load(&s->tx_state) == ISM_TX_TCP))
		ism_host()->word == ISM_WORD_ON ? try_ring(c, fd, w) : 0;
	else if (unlikely(++s->sends_unchecked >= LOOK_AT_CLOCK ||
			  atomic_load(&s->tcp_hint) & ISM_HINT_TX))
		look_around(c, fd);
	return atomic_load(&s->tx_state) == ISM_TX_RING && !(atomic_load(&s->shut) & 2);
}

/* What follows takes TCP, as long as the reader has not caught up. tx_lock held. */
static void leave_full_ring(struct conn *c)
{
	struct ism_slot *s = c->slot;

	s->tx.flags |= ISM_PROD_TCP;
	ism_ring_tx_publish(&s->tx, c->peer);
	atomic_store(&s->tx_state, ISM_TX_TCP);
	s->tx_reason = ISM_R_BUDGET;
	s->switches++;
	io_stats_tx(c);
	conn_ring(c, ISM_WANT_DATA);
}

/* One attempt, tx_lock held: bytes, -EAGAIN when it is full, other errno. */
static ssize_t tx_put(struct conn *c, int fd, struct cursor *k, int flags)
{
	struct ism_slot *s = c->slot;
	struct cursor p = *k;
	ssize_t n;

	if (!tx_route(c, fd) &&
	    (atomic_load(&s->tx_state) == ISM_TX_FOREVER ||
	     !wait_drained(c, fd, flags & MSG_DONTWAIT || atomic_load(&s->nonblock))))
		return tcp_put(c, fd, k, flags);
	n = ring_put(c, fd, &p);
	/* The reader may have frozen the ring while we wrote: it looked before, so we look after. */
	if (n > 0 && unlikely(rx_word(c) & ISM_RX_FROZEN))
		io_serve(c, fd);
	if (n == -EAGAIN && io_ended_on_tcp(c)) {
		leave_full_ring(c);
		return tcp_put(c, fd, k, flags);
	}
	if (n == -EAGAIN)
		atomic_fetch_add_explicit(&s->out_blocked, 1, memory_order_relaxed);
	return n;
}

/*
 * Nobody takes anything out of the ring. Perhaps its reader blocks in a send of its own, to us: programs
 * count on what TCP holds for them, which is more than a ring.
 */
static int overflow(struct conn *c)
{
	struct ism_slot *s = c->slot;

	if (ism_lock_take(&s->tx_lock))
		return 0;
	if (atomic_load(&s->tx_state) == ISM_TX_RING && !have_space(c) && !relay_lags(c))
		leave_full_ring(c);
	ism_lock_drop(&s->tx_lock);
	return 0;
}

static int wait_for_space(struct conn *c, int fd, uint64_t deadline, int partial)
{
	uint64_t end = ism_now_ns() + OVERFLOW_NS;
	int rc;

	if (deadline && deadline <= end)
		return conn_wait(c, fd, ISM_WANT_SPACE | partial, deadline);
	if (!deadline)
		partial |= ISM_WANT_OURS;
	rc = conn_wait(c, fd, ISM_WANT_SPACE | partial, end);
	return rc == -EAGAIN ? overflow(c) : rc;
}

static int tx_wait(struct conn *c, int fd, int flags, uint64_t *deadline, int partial)
{
	struct ism_slot *s = c->slot;

	tell_epoll(c);
	if (atomic_load(&c->closing))
		return -EBADF;
	if (flags & MSG_DONTWAIT || atomic_load(&s->nonblock))
		return -EAGAIN;
	if (!*deadline)
		*deadline = deadline_of(atomic_load(&s->sndtimeo));
	if (atomic_load(&s->tx_state) == ISM_TX_RING)
		return wait_for_space(c, fd, *deadline, partial);
	return io_wait_tcp_out(fd, *deadline);
}

ssize_t conn_send(struct conn *c, int fd, const struct iovec *iov, int iovcnt, int flags)
{
	struct ism_slot *s = c->slot;
	uint64_t deadline = 0;
	struct cursor k;
	size_t done = 0;
	ssize_t n;
	int rc;

	cursor_init(&k, iov, iovcnt);
	if (unlikely(!k.left)) {
		n = real.send(fd, "", 0, flags | MSG_NOSIGNAL);
		return n < 0 ? -errno : n;
	}
	for (;;) {
		rc = ism_lock_take(&s->tx_lock);
		if (unlikely(rc))
			return done ? (ssize_t)done : -EAGAIN;
		n = tx_put(c, fd, &k, flags);
		ism_lock_drop(&s->tx_lock);
		tell_epoll(c);
		if (n > 0) {
			cursor_move(&k, n);
			done += n;
			if (!k.left)
				return done;
			continue;
		}
		if (n != -EAGAIN)
			return done ? (ssize_t)done : n;
		rc = tx_wait(c, fd, flags, &deadline, done ? ISM_WANT_PARTIAL : 0);
		if (rc)
			return done ? (ssize_t)done : rc;
	}
}

/* ---------------------------------------------------------------- from other descriptors */

/* There is room: let @fill read straight into the ring. tx_lock held. */
static ssize_t ring_fill(struct conn *c, int fd, size_t len,
			 ssize_t (*fill)(void *arg, const struct iovec *v, int n), void *arg)
{
	struct ism_slot *s = c->slot;
	struct iovec v[2];
	ssize_t n;

	ism_ring_tx_spans(&s->tx, c->peer, len < ISM_RING_PIECE ? len : ISM_RING_PIECE, v);
	n = fill(arg, v, v[1].iov_len ? 2 : 1);
	if (n > 0) {
		tell_cpu(c);
		ism_ring_tx_advance(&s->tx, n);
		s->tx_msgs++;
	}
	/* also when nothing came: the cursor may have been rewound */
	publish(c, n > 0 ? n : 0);
	io_stats_tx(c);
	conn_ring(c, ISM_WANT_DATA);
	if (rx_word(c) & ISM_RX_FROZEN)
		io_serve(c, fd);
	return n;
}

ssize_t conn_send_from(struct conn *c, int fd, size_t len, int flags,
		       ssize_t (*fill)(void *arg, const struct iovec *v, int n), void *arg)
{
	struct ism_slot *s = c->slot;
	uint64_t deadline = 0;
	ssize_t n;
	int rc;

	for (;;) {
		if (ism_lock_take(&s->tx_lock))
			return -EAGAIN;
		if (!tx_route(c, fd)) {
			/* the kernel will send behind our back: forget where TCP is */
			s->tx_known = 0;
			atomic_fetch_add(&s->kernel_tx, 1);
			ism_lock_drop(&s->tx_lock);
			return -EXDEV;
		}
		n = ism_ring_tx_room(&s->tx, c->own, len);
		if (n > 0) {
			n = ring_fill(c, fd, len, fill, arg);
			ism_lock_drop(&s->tx_lock);
			return n;
		}
		if (!n && io_ended_on_tcp(c)) {
			leave_full_ring(c);
			ism_lock_drop(&s->tx_lock);
			continue;
		}
		if (n < 0)
			io_break(c, fd);
		else
			atomic_fetch_add_explicit(&s->out_blocked, 1, memory_order_relaxed);
		ism_lock_drop(&s->tx_lock);
		rc = n < 0 ? -EPIPE : tx_wait(c, fd, flags, &deadline, 0);
		if (rc)
			return rc;
	}
}
