// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Receiving: the ring first, TCP when the writer says that the stream goes on there. docs/ring.rst, "the
 * switch rule".
 */
#include "io.h"
#include <sys/ioctl.h>

/* A reader that polls with MSG_DONTWAIT asks TCP once in so many empty reads: is this the end? */
#define LOOK_WHEN_EMPTY 64

/*
 * Become a reader of the ring: from now on the writer may leave TCP, so nobody of ours may be inside a
 * kernel receive or poll of this socket: not one that began before the rings came.
 */
static void rx_activate(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;
	struct ism_sock_info info;

	if (s->rx_ready || s->rx_frozen || atomic_load(&s->kernel_rx))
		return;
	/* Of this kernel both DMBs come from one ismredird, so the partner has the very same. */
	if ((s->remote && !(rx_word(c) & ISM_RX_HERE)) || sock_info(fd, &info))
		return;
	s->rx_seq = info.copied_seq;
	s->rx_ready = 1;
	io_set_rx(c, rx_bits(s));
}

/*
 * A relay that writes lets TCP go on only behind what it has been told of, and then there is nothing that
 * would make a few untold bytes more: so with the ring empty it is told of each.
 */
static int relay_has_to_know(const struct conn *c)
{
	const struct ism_ring_rx *rx = &c->slot->rx;

	return c->slot->remote && rx->head == rx->tail && rx->head != rx->told &&
	       rx_word(c) & ISM_RX_RELAY;
}

/*
 * A writer that is told of an empty ring goes back to its start, which spares pages that it has not touched
 * yet. A long stream has touched them all, and had better not go back: to the lines that the reader has just read.
 */
#define LONG_LAPS 4

static int is_due(const struct ism_slot *s)
{
	const struct ism_ring_rx *rx = &s->rx;

	if (conn_streams(s) && s->rx_bytes / LONG_LAPS > rx->size)
		return ism_ring_rx_quarter(rx);
	return ism_ring_rx_due(rx);
}

static void tell_consumed(struct conn *c)
{
	if (!is_due(c->slot) && !relay_has_to_know(c))
		return;
	ism_ring_rx_publish(&c->slot->rx, c->peer);
	conn_ring(c, ISM_WANT_SPACE);
}

static ssize_t ring_take(struct conn *c, struct cursor *k, int flags)
{
	struct ism_slot *s = c->slot;
	struct cursor p = *k;
	struct iovec v[2];
	size_t n = ism_ring_rx_spans(&s->rx, c->own, 0, k->left, v), m, piece;
	void *to = NULL;

	for (int i = 0; i < 2; i++) {
		for (size_t at = 0; at < v[i].iov_len; at += m) {
			piece = cursor_piece(&p, &to);
			m = v[i].iov_len - at < piece ? v[i].iov_len - at : piece;
			if (!(flags & MSG_TRUNC)) /* TCP's MSG_TRUNC discards: tcp(7) */
				memcpy(to, (char *)v[i].iov_base + at, m);
			cursor_move(&p, m);
		}
	}
	if (flags & MSG_PEEK)
		return n;
	ism_ring_rx_advance(&s->rx, n);
	s->rx_bytes += n;
	s->rx_msgs++;
	tell_consumed(c);
	io_stats_rx(c);
	return n;
}

/*
 * Bytes on TCP are next. READING, fence, and the writer's word once more: a writer that wants back to
 * the ring does the reverse, so at most one of us goes ahead.
 */
static ssize_t tcp_take(struct conn *c, int fd, struct cursor *k, int flags, int must_be_tcp)
{
	struct ism_slot *s = c->slot;
	struct iovec v[TCP_PIECES];
	struct msghdr m;
	ssize_t n;

	if (s->rx_ready && !s->rx_frozen) {
		io_set_rx(c, rx_bits(s) | ISM_RX_READING);
		atomic_thread_fence(memory_order_seq_cst);
		if (must_be_tcp && ism_ring_word(c->own) != s->rx.word) {
			io_set_rx(c, rx_bits(s));
			return -ERESTART;
		}
	}
	cursor_msg(k, &m, v);
	n = real.recvmsg(fd, &m, (flags & ~(MSG_WAITALL | MSG_CMSG_CLOEXEC)) | MSG_DONTWAIT);
	if (n < 0)
		n = -errno;
	if (n > 0 && !(flags & MSG_PEEK)) {
		s->rx_seq += n;
		s->tcp_rx_bytes += n;
		io_stats_rx(c);
	}
	if (s->rx_ready && !s->rx_frozen)
		io_set_rx(c, rx_bits(s));
	return n;
}

/*
 * The ring is empty and the writer did not say TCP: then TCP has nothing but an end that the writer's
 * shim could not announce: it was killed, or reset the connection. Asking the kernel costs, so only when
 * it reported something, or now and then.
 */
static ssize_t look_at_tcp(struct conn *c, int fd, struct cursor *k, int flags)
{
	struct ism_slot *s = c->slot;

	if (!(atomic_load(&s->tcp_hint) & ISM_HINT_RX) && ++s->empty_reads % LOOK_WHEN_EMPTY)
		return -EAGAIN;
	atomic_fetch_and(&s->tcp_hint, ~ISM_HINT_RX);
	return tcp_take(c, fd, k, flags, 1);
}

/*
 * TCP ended and the ring did not: the partner was killed. With bytes unread that is a reset, but the
 * kernel does not know of those in its ring. Its cursor may be told late; its counter is not.
 */
static int killed_with_unread(const struct conn *c)
{
	return !(rx_word(c) & ISM_RX_CLOSED) && ism_dmb_stats(c->own)->rx_bytes < c->slot->tx_bytes;
}

static ssize_t rx_end_of_ring(struct conn *c, int fd, struct cursor *k, int flags)
{
	struct ism_slot *s = c->slot;
	ssize_t n;

	if (s->rx.word & ISM_PROD_ABORT) {
		n = tcp_take(c, fd, k, flags, 0);
		return n == -EAGAIN || n == 0 ? -ECONNRESET : n;
	}
	if (s->rx.word & ISM_PROD_FIN || atomic_load(&s->shut) & 1) {
		s->rx_eof = 1;
		return 0;
	}
	n = look_at_tcp(c, fd, k, flags);
	return n == 0 && !s->rx_eof && killed_with_unread(c) ? -ECONNRESET : n;
}

/* One attempt, rx_lock held: bytes, 0 at the end, -EAGAIN when nothing is there, other errno. */
static ssize_t rx_take(struct conn *c, int fd, struct cursor *k, int flags)
{
	struct ism_slot *s = c->slot;
	ssize_t n;

	for (int i = 0; i < 100; i++) {
		if (unlikely(s->rx_err)) {
			n = s->rx_err;
			if (!(flags & MSG_PEEK))
				s->rx_err = 0;
			s->rx_eof = 1;
			return n;
		}
		if (unlikely(!s->rx_ready))
			rx_activate(c, fd);
		if (unlikely(s->rx_frozen))
			return tcp_take(c, fd, k, flags, 0);
		n = ism_ring_rx_poll(&s->rx, c->own);
		if (likely(n > 0))
			return ring_take(c, k, flags);
		if (unlikely(n < 0)) {
			io_break(c, fd);
			continue;
		}
		if (s->rx.word & ISM_PROD_TCP)
			n = tcp_take(c, fd, k, flags, 1);
		else
			n = rx_end_of_ring(c, fd, k, flags);
		/* An end on TCP that came with bytes in the ring: those were written before it. */
		if ((n == 0 || (n < 0 && n != -EAGAIN && n != -ERESTART)) &&
		    ism_ring_rx_poll(&s->rx, c->own) > 0) {
			if (n < 0)
				s->rx_err = n;
			else
				atomic_fetch_or(&s->tcp_hint, ISM_HINT_RX);
			continue;
		}
		if (n == -ERESTART)
			continue;
		if (n == 0 || n == -ECONNRESET) {
			s->rx_eof = 1;
			atomic_fetch_or(&s->tcp_hint,
					ISM_HINT_RX); /* what comes next is TCP's, too */
		}
		return n;
	}
	return -EAGAIN;
}

/* The next thing to do after an attempt that gave nothing: 0 try again, or a negative errno. */
static int rx_wait(struct conn *c, int fd, int flags, uint64_t *deadline, int partial)
{
	struct ism_slot *s = c->slot;

	serve(c, fd);
	tell_epoll(c);
	if (atomic_load(&c->closing))
		return -EBADF;
	if (flags & MSG_DONTWAIT || atomic_load(&s->nonblock))
		return -EAGAIN;
	if (!*deadline)
		*deadline = deadline_of(atomic_load(&s->rcvtimeo));
	return conn_wait(c, fd, ISM_WANT_DATA | partial, *deadline);
}

/*
 * MSG_PEEK waiting for more than is there (MSG_WAITALL, SO_RCVLOWAT): rare, and what is there keeps
 * every other way of waiting from sleeping, so by the clock. 1: no more waiting.
 */
static int peek_wait(struct conn *c, int flags, ssize_t have, uint64_t *deadline)
{
	struct ism_slot *s = c->slot;
	uint64_t w = ism_ring_word(c->own);
	uint32_t intr = ism_interrupts;

	if (flags & MSG_DONTWAIT || atomic_load(&s->nonblock) || s->rx_eof)
		return 1;
	if (!*deadline)
		*deadline = deadline_of(atomic_load(&s->rcvtimeo));
	for (;;) {
		if (w & (ISM_PROD_FIN | ISM_PROD_TCP) || atomic_load(&s->tcp_hint) & ISM_HINT_RX ||
		    have < 0)
			return 1;
		real.poll(NULL, 0, 1);
		if (ism_interrupts != intr || (*deadline && ism_now_ns() >= *deadline))
			return 1;
		if (ism_ring_word(c->own) != w)
			return 0;
	}
}

static size_t rx_need(const struct ism_slot *s, size_t total, int flags)
{
	size_t low = atomic_load(&((struct ism_slot *)s)->rcvlowat);

	if (flags & MSG_WAITALL)
		return total;
	return low > total ? total : low ? low : 1;
}

ssize_t conn_recv(struct conn *c, int fd, const struct iovec *iov, int iovcnt, int flags)
{
	struct ism_slot *s = c->slot;
	struct cursor k;
	size_t done = 0, need;
	uint64_t deadline = 0;
	ssize_t n;
	char byte;
	int rc;

	cursor_init(&k, iov, iovcnt);
	if (unlikely(!k.left)) {
		/* waits for the first byte, and leaves it: tcp_recvmsg() */
		n = conn_recv(c, fd, &(struct iovec){ &byte, 1 }, 1, flags | MSG_PEEK);
		return n < 0 ? n : 0;
	}
	need = rx_need(s, k.left, flags);
	for (;;) {
		rc = ism_lock_take(&s->rx_lock);
		if (unlikely(rc))
			return done ? (ssize_t)done : -EAGAIN;
		n = rx_take(c, fd, &k, flags);
		/* Others that wait may have been woken by the same ring. */
		rc = n > 0 && atomic_load(&s->rx_waiters) && s->rx.tail != s->rx.head;
		ism_lock_drop(&s->rx_lock);
		if (unlikely(rc))
			real.write(c->own_bell, &(uint64_t){ 1 }, 8);
		if (n > 0) {
			if (flags & MSG_PEEK) {
				if ((size_t)n >= need || peek_wait(c, flags, n, &deadline))
					return n;
				continue;
			}
			cursor_move(&k, n);
			done += n;
			if (done >= need || !k.left)
				return done;
			continue;
		}
		if (n != -EAGAIN) {
			if (done && n < 0)
				s->rx_err = n;
			return done ? (ssize_t)done : n;
		}
		rc = rx_wait(c, fd, flags, &deadline, done ? ISM_WANT_PARTIAL : 0);
		if (rc)
			return done ? (ssize_t)done : rc;
	}
}

/* ---------------------------------------------------------------- other ways out, and questions */

/* By way of a buffer when the bytes are on TCP: looked at, handed over, and then taken. */
static ssize_t tcp_drain(struct conn *c, int fd, size_t len,
			 ssize_t (*drain)(void *arg, const struct iovec *v, int n), void *arg)
{
	char buf[16384];
	struct iovec v = { buf, len < sizeof(buf) ? len : sizeof(buf) };
	struct cursor k;
	ssize_t n, m;

	cursor_init(&k, &v, 1);
	n = rx_take(c, fd, &k, MSG_PEEK);
	if (n <= 0)
		return n;
	v.iov_len = n;
	m = drain(arg, &v, 1);
	if (m <= 0)
		return m;
	v.iov_len = m;
	cursor_init(&k, &v, 1);
	return rx_take(c, fd, &k, 0);
}

ssize_t conn_recv_to(struct conn *c, int fd, size_t len, int flags,
		     ssize_t (*drain)(void *arg, const struct iovec *v, int n), void *arg)
{
	struct ism_slot *s = c->slot;
	uint64_t deadline = 0;
	struct iovec v[2];
	ssize_t n;
	int rc;

	for (;;) {
		if (ism_lock_take(&s->rx_lock))
			return -EAGAIN;
		if (!s->rx_frozen && ism_ring_rx_poll(&s->rx, c->own) > 0) {
			ism_ring_rx_spans(&s->rx, c->own, 0, len, v);
			n = drain(arg, v, v[1].iov_len ? 2 : 1);
			if (n > 0) {
				ism_ring_rx_advance(&s->rx, n);
				s->rx_bytes += n;
				s->rx_msgs++;
				tell_consumed(c);
				io_stats_rx(c);
			}
			ism_lock_drop(&s->rx_lock);
			return n;
		}
		n = tcp_drain(c, fd, len, drain, arg);
		ism_lock_drop(&s->rx_lock);
		if (n != -EAGAIN)
			return n;
		rc = rx_wait(c, fd, flags, &deadline, 0);
		if (rc)
			return rc;
	}
}

void conn_try_rx(struct conn *c, int fd)
{
	if (c->slot->rx_ready || ism_lock_take(&c->slot->rx_lock))
		return;
	rx_activate(c, fd);
	ism_lock_drop(&c->slot->rx_lock);
}

int conn_inq(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;
	int tcp = 0;
	ssize_t n = 0;

	if (ism_lock_take(&s->rx_lock))
		return -EAGAIN;
	if (!s->rx_frozen)
		n = ism_ring_rx_poll(&s->rx, c->own);
	if (n < 0)
		n = 0;
	if (s->rx_frozen || s->rx.word & ISM_PROD_TCP) {
		if (real.ioctl(fd, FIONREAD, &tcp))
			n = -errno;
		else
			n += tcp;
	}
	ism_lock_drop(&s->rx_lock);
	return n;
}
