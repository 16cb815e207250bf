// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Bytes: the switch rule in user space, docs/ring.rst.
 *
 * Sending: to the ring when the partner has read every byte that took TCP, else by TCP. Receiving: the
 * ring first; TCP only while the writer's word says that the stream goes on there, and with READING
 * published, so that the writer does not go back to the ring behind our back.
 */
#include "shim.h"
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <ismredir/sockctl.h>

/* A writer on the ring looks at the clock once in so many sends, and at TCP once in so long: has the
 * partner died? */
#define LOOK_AT_CLOCK  32
#define LOOK_AT_TCP_NS 1000000
/* And a reader that polls with MSG_DONTWAIT once in so many empty reads. */
#define LOOK_WHEN_EMPTY 64
/* How long a stream is held back for its reader to empty TCP, and after how long it is tried again. */
#define DRAIN_NS	   20000000
#define DRAIN_NONBLOCK_NS  1000000
#define DRAIN_STALL_NS	   300000
#define DRAIN_AGAIN_NS	   5000000
#define DRAIN_AGAIN_MAX_NS 1000000000
/* A writer that has blocked so long before a full ring goes on by TCP, which holds some megabytes more. */
#define OVERFLOW_NS 50000000

/* ---------------------------------------------------------------- pieces of an iovec */

struct cursor {
	const struct iovec *v;
	int n;
	size_t off; /* in v[0] */
	size_t left;
};

static void cursor_init(struct cursor *k, const struct iovec *v, int n)
{
	k->v = v;
	k->n = n;
	k->off = 0;
	k->left = 0;
	for (int i = 0; i < n; i++)
		k->left += v[i].iov_len;
}

static void cursor_move(struct cursor *k, size_t n)
{
	k->left -= n;
	while (k->n && n >= k->v->iov_len - k->off) {
		n -= k->v->iov_len - k->off;
		k->off = 0;
		k->v++;
		k->n--;
	}
	k->off += n;
}

/* The next contiguous piece. */
static size_t cursor_piece(const struct cursor *k, void **at)
{
	const struct iovec *v = k->v;
	int n = k->n;
	size_t off = k->off;

	while (n && v->iov_len == off) {
		v++;
		n--;
		off = 0;
	}
	if (!n)
		return 0;
	*at = (char *)v->iov_base + off;
	return v->iov_len - off;
}

#define TCP_PIECES 64

/* A message header over the rest, as far as it fits @out. */
static void cursor_msg(const struct cursor *k, struct msghdr *m, struct iovec out[TCP_PIECES])
{
	int n = k->n < TCP_PIECES ? k->n : TCP_PIECES;

	memset(m, 0, sizeof(*m));
	m->msg_iov = out;
	m->msg_iovlen = n;
	for (int i = 0; i < n; i++)
		out[i] = k->v[i];
	if (n && k->off) {
		out[0].iov_base = (char *)out[0].iov_base + k->off;
		out[0].iov_len -= k->off;
	}
}

/* ---------------------------------------------------------------- small pieces */

static uint64_t rx_word(const struct conn *c)
{
	return __atomic_load_n(&ism_dmb_rx(c->own)->tcp, __ATOMIC_ACQUIRE);
}

void io_set_rx(struct conn *c, uint64_t bits)
{
	__atomic_store_n(&ism_dmb_rx(c->peer)->tcp, bits | c->slot->rx_seq, __ATOMIC_RELEASE);
}

static uint64_t rx_bits(const struct ism_slot *s)
{
	return (s->rx_ready ? ISM_RX_READY : 0) | (s->rx_frozen ? ISM_RX_FROZEN : 0);
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

void io_stats_tx(struct conn *c)
{
	struct ism_dmb_stats *st = ism_dmb_stats(c->peer);
	struct ism_slot *s = c->slot;

	st->tx_bytes = s->tx_bytes;
	st->tx_msgs = s->tx_msgs;
	st->tcp_tx_bytes = s->tcp_tx_bytes;
	st->switches = s->switches;
	st->doorbells = s->doorbells;
	st->reason = s->tx_reason;
}

void io_stats_rx(struct conn *c)
{
	struct ism_dmb_stats *st = ism_dmb_stats(c->peer);
	struct ism_slot *s = c->slot;

	st->rx_bytes = s->rx_bytes;
	st->rx_msgs = s->rx_msgs;
	st->tcp_rx_bytes = s->tcp_rx_bytes;
	st->spins = s->spins;
	st->sleeps = s->sleeps;
	st->timeouts = s->timeouts;
}

static int sock_info(int fd, struct ism_sock_info *i)
{
	socklen_t len = sizeof(*i);

	memset(i, 0, sizeof(*i));
	if (real.getsockopt(fd, ISM_SOL, ISM_SO_INFO, i, &len))
		return -errno;
	return len == sizeof(*i) ? 0 : -EPROTO;
}

void io_break(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;

	if (atomic_exchange(&s->broken, 1))
		return;
	s->tx_reason = ISM_R_HOSTILE;
	atomic_store(&s->tx_state, ISM_TX_FOREVER);
	s->rx_err = -ECONNRESET;
	real.shutdown(fd, SHUT_RDWR);
}

/* ---------------------------------------------------------------- receiving */

static int tx_needs_service(const struct conn *c)
{
	return rx_word(c) & (ISM_RX_FROZEN | ISM_RX_CLOSED) &&
	       atomic_load(&c->slot->tx_state) != ISM_TX_FOREVER;
}

static int have_data(struct conn *c)
{
	struct ism_slot *s = c->slot;
	uint64_t w = ism_ring_word(c->own);

	if (s->rx_frozen)
		return s->rx_eof || s->rx_err || atomic_load(&s->shut) & 1;
	return w != s->rx.word || s->rx.tail != s->rx.head || w & ISM_PROD_FIN || s->rx_eof ||
	       s->rx_err || atomic_load(&s->shut) & 1;
}

static int have_space(struct conn *c)
{
	struct ism_slot *s = c->slot;
	uint64_t cons = __atomic_load_n(&ism_dmb_rx(c->own)->cons, __ATOMIC_ACQUIRE);

	if (atomic_load(&s->tx_state) != ISM_TX_RING || cons > s->tx.tail)
		return 1;
	/* a quarter at once, so that a wake-up is worth it */
	return s->tx.size - (s->tx.tail - (cons < s->tx.cons ? s->tx.cons : cons)) >=
	       s->tx.size / 4;
}

int io_may_have(struct conn *c, int want)
{
	if (tx_needs_service(c) || atomic_load(&c->slot->broken) || atomic_load(&c->closing))
		return 1;
	if (want & ISM_WANT_DATA && have_data(c))
		return 1;
	return want & ISM_WANT_SPACE && have_space(c);
}

/*
 * Become a reader of the ring: from now on the writer may leave TCP, so nobody of ours may be inside a
 * kernel receive or poll of this socket: not one that began before the rings came.
 */
static void rx_activate(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;
	struct ism_sock_info info;

	if (s->rx_ready || s->rx_frozen || atomic_load(&s->kernel_rx) || sock_info(fd, &info))
		return;
	s->rx_seq = info.copied_seq;
	s->rx_ready = 1;
	io_set_rx(c, rx_bits(s));
}

static void tell_consumed(struct conn *c)
{
	if (!ism_ring_rx_due(&c->slot->rx))
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

static void serve(struct conn *c, int fd)
{
	if (!tx_needs_service(c) || ism_lock_take(&c->slot->tx_lock))
		return;
	io_serve(c, fd);
	ism_lock_drop(&c->slot->tx_lock);
}

/* Sending moved between ring and TCP: epoll has to know who decides about EPOLLOUT. No lock held. */
static void tell_epoll(struct conn *c)
{
	uint32_t out = conn_out_is_ring(c);

	if (unlikely(c->tick)) {
		/* not under tx_lock: an answer of the daemon may lead to epoll's locks */
		c->tick = 0;
		ism_daemon_tick();
	}
	if (likely(c->ep_told == out))
		return;
	c->ep_told = out;
	epoll_conn_changed(c);
}

static uint64_t deadline_of(uint64_t timeo)
{
	return timeo ? ism_now_ns() + timeo : 0;
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

/* ---------------------------------------------------------------- sending */

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
	io_tx_forever(c, w & ISM_RX_CLOSED ? ISM_R_PEER_GONE : ISM_R_PEER_FROZEN);
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
static int wait_drained(struct conn *c, int fd, int nonblock)
{
	struct ism_slot *s = c->slot;
	uint64_t now = ism_now_ns(), w = rx_word(c), last = w, seen = now;
	uint64_t end = now + (nonblock ? DRAIN_NONBLOCK_NS : DRAIN_NS);
	int same = conn_partner_cpu(c) == ism_my_cpu();

	if (!(w & ISM_RX_READY) || w & (ISM_RX_FROZEN | ISM_RX_CLOSED) || now < s->drain_at ||
	    !s->tx_known || atomic_load(&s->shut) & 2)
		return 0;
	while (now < end && now - seen < DRAIN_STALL_NS) {
		if (ISM_RX_SEQ(w) == s->tx_seq && !(w & ISM_RX_READING) && try_ring(c, fd, w)) {
			s->drain_wait = 0;
			return 1;
		}
		if (same)
			sched_yield();
		else
			for (int i = 0; i < 16; i++)
				ism_pause();
		now = ism_now_ns();
		w = rx_word(c);
		if (w != last)
			seen = now;
		last = w;
	}
	s->drain_wait = s->drain_wait ? s->drain_wait * 2 : DRAIN_AGAIN_NS;
	if (s->drain_wait > DRAIN_AGAIN_MAX_NS)
		s->drain_wait = DRAIN_AGAIN_MAX_NS;
	s->drain_at = now + s->drain_wait;
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
			ism_ring_tx_publish(&s->tx, c->peer);
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
	ism_ring_tx_publish(&s->tx, c->peer);
	s->tx_bytes += done;
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
	else if (ism_host()->word != ISM_WORD_ON)
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
	if (atomic_load(&s->tx_state) == ISM_TX_RING && !have_space(c)) {
		s->tx.flags |= ISM_PROD_TCP;
		ism_ring_tx_publish(&s->tx, c->peer);
		atomic_store(&s->tx_state, ISM_TX_TCP);
		s->tx_reason = ISM_R_BUDGET;
		s->switches++;
		io_stats_tx(c);
		conn_ring(c, ISM_WANT_DATA);
	}
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

/* ---------------------------------------------------------------- other ways in and out */

ssize_t conn_send_from(struct conn *c, int fd, size_t len, int flags,
		       ssize_t (*fill)(void *arg, const struct iovec *v, int n), void *arg)
{
	struct ism_slot *s = c->slot;
	uint64_t deadline = 0;
	struct iovec v[2];
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
			ism_ring_tx_spans(&s->tx, c->peer,
					  len < ISM_RING_PIECE ? len : ISM_RING_PIECE, v);
			n = fill(arg, v, v[1].iov_len ? 2 : 1);
			if (n > 0) {
				tell_cpu(c);
				ism_ring_tx_advance(&s->tx, n);
				s->tx_bytes += n;
				s->tx_msgs++;
				io_stats_tx(c);
			}
			/* also when nothing came: the cursor may have been rewound */
			ism_ring_tx_publish(&s->tx, c->peer);
			conn_ring(c, ISM_WANT_DATA);
			if (rx_word(c) & ISM_RX_FROZEN)
				io_serve(c, fd);
			ism_lock_drop(&s->tx_lock);
			return n;
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

/* ---------------------------------------------------------------- readiness */

void conn_try_rx(struct conn *c, int fd)
{
	if (c->slot->rx_ready || ism_lock_take(&c->slot->rx_lock))
		return;
	rx_activate(c, fd);
	ism_lock_drop(&c->slot->rx_lock);
}

unsigned int conn_ready(struct conn *c)
{
	struct ism_slot *s = c->slot;
	uint64_t w = ism_ring_word(c->own);
	unsigned int r = 0;

	if (unlikely(tx_needs_service(c)))
		serve(c, conn_any_fd(c));
	if (!s->rx_frozen) {
		if ((w ^ s->rx.word) & ISM_PROD_REWIND || w >> ISM_PROD_SHIFT != s->rx.head)
			r |= POLLIN;
		if (w & ISM_PROD_FIN) /* with bytes unread, too: tcp_poll() */
			r |= POLLIN | POLLRDHUP;
	}
	if (s->rx_eof || s->rx_err || atomic_load(&s->shut) & 1)
		r |= POLLIN;
	if (r & POLLIN && !(r & POLLRDHUP) && atomic_load(&s->rcvlowat) > 1 && !s->rx_eof &&
	    (w >> ISM_PROD_SHIFT) - s->rx.head < atomic_load(&s->rcvlowat))
		r &= ~POLLIN;
	if (atomic_load(&s->tx_state) == ISM_TX_RING &&
	    (have_space(c) || atomic_load(&s->shut) & 2))
		r |= POLLOUT;
	/* The kernel has not been told yet that it decides again: a send does, so let one happen. */
	if (c->ep_told && atomic_load(&s->tx_state) != ISM_TX_RING)
		r |= POLLOUT;
	return r;
}

unsigned int conn_kernel_events(struct conn *c, unsigned int revents)
{
	struct ism_slot *s = c->slot;

	if (revents & (POLLIN | POLLRDHUP | POLLHUP | POLLERR))
		atomic_fetch_or(&s->tcp_hint, ISM_HINT_RX | ISM_HINT_TX);
	if (conn_out_is_ring(c) && !(revents & (POLLHUP | POLLERR)))
		revents &= ~POLLOUT;
	return revents;
}

int conn_out_is_ring(struct conn *c)
{
	return conn_attached(c) && atomic_load(&c->slot->tx_state) == ISM_TX_RING;
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

void conn_shutdown(struct conn *c, int how)
{
	struct ism_slot *s = c->slot;

	if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
		return;
	if (how != SHUT_RD && !ism_lock_take(&s->tx_lock)) {
		if (atomic_load(&s->tx_state) == ISM_TX_RING) {
			s->tx.flags |= ISM_PROD_FIN;
			ism_ring_tx_publish(&s->tx, c->peer);
			conn_ring(c, ISM_WANT_DATA);
		}
		atomic_fetch_or(&s->shut, 2);
		ism_lock_drop(&s->tx_lock);
	}
	if (how != SHUT_WR)
		atomic_fetch_or(&s->shut, 1);
	/* our own sleepers look again */
	if (atomic_load(&s->rx_waiters) || atomic_load(&s->tx_waiters))
		real.write(c->own_bell, &(uint64_t){ 1 }, 8);
}
