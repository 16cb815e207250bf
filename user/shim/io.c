// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The switch rule in user space, docs/ring.rst.
 *
 * Sending: to the ring when the partner has read every byte that took TCP, else by TCP. Receiving: the
 * ring first; TCP only while the writer's word says that the stream goes on there, and with READING
 * published, so that the writer does not go back to the ring behind our back.
 *
 * rx.c and tx.c do it; here is what both need, and what is ready.
 */
#include "io.h"

void io_set_rx(struct conn *c, uint64_t bits)
{
	if (c->slot->remote)
		bits |= ISM_RX_HERE;
	__atomic_store_n(&ism_dmb_rx(c->peer)->tcp, bits | c->slot->rx_seq, __ATOMIC_RELEASE);
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

/* Whoever does not block expects no more than a hiccup. */
#define PATIENCE_NS	     2000000000ULL
#define PATIENCE_NONBLOCK_NS 100000000ULL

uint64_t io_patience(const struct conn *c)
{
	return ism_now_ns() +
	       (atomic_load(&c->slot->nonblock) ? PATIENCE_NONBLOCK_NS : PATIENCE_NS);
}

int sock_info(int fd, struct ism_sock_info *i)
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
	conn_report(c, fd, ISM_PLANE_TCP, ISM_R_HOSTILE);
	real.shutdown(fd, SHUT_RDWR);
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

/*
 * The partner's stream has ended on TCP without a word in the ring: it has shut down, or was killed. Only TCP
 * can tell, by what it answers to more bytes.
 */
int io_ended_on_tcp(const struct conn *c)
{
	return c->slot->rx_eof && ism_ring_word(c->own) & ISM_PROD_TCP &&
	       !(rx_word(c) & ISM_RX_RELAY);
}

int have_space(struct conn *c)
{
	struct ism_slot *s = c->slot;
	uint64_t cons = __atomic_load_n(&ism_dmb_rx(c->own)->cons, __ATOMIC_ACQUIRE);

	if (atomic_load(&s->tx_state) != ISM_TX_RING || cons > s->tx.tail || io_ended_on_tcp(c))
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

void serve(struct conn *c, int fd)
{
	if (!tx_needs_service(c) || ism_lock_take(&c->slot->tx_lock))
		return;
	io_serve(c, fd);
	ism_lock_drop(&c->slot->tx_lock);
}

void tell_epoll(struct conn *c)
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

/* ---------------------------------------------------------------- readiness */

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

void conn_shutdown(struct conn *c, int how)
{
	struct ism_slot *s = c->slot;

	if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
		return;
	if (how != SHUT_RD && !ism_lock_take(&s->tx_lock)) {
		if (atomic_load(&s->tx_state) == ISM_TX_RING) {
			s->tx.flags |= ISM_PROD_FIN;
			ism_dmb_tx(c->peer)->stamp = ism_ticks();
			ism_ring_tx_publish(&s->tx, c->peer);
			conn_ring(c, ISM_WANT_DATA);
		}
		/* The FIN that follows is read behind what lies in the socket then. */
		io_end_tx(c, conn_any_fd(c), io_patience(c));
		atomic_fetch_or(&s->shut, 2);
		ism_lock_drop(&s->tx_lock);
	}
	if (how != SHUT_WR)
		atomic_fetch_or(&s->shut, 1);
	/* our own sleepers look again */
	if (atomic_load(&s->rx_waiters) || atomic_load(&s->tx_waiters))
		real.write(c->own_bell, &(uint64_t){ 1 }, 8);
}
