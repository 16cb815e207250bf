// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Back to TCP at a byte position, for what rings cannot serve: code that we do not see will read or
 * write the socket. Sending is easy: the writer's word says that the stream goes on on TCP, and the
 * reader reads the ring out first. Receiving: we freeze the ring at our cursor, and the partner, who is
 * the only one that can, sends the rest again by TCP. docs/ring.rst, "demotion".
 */
#include "shim.h"

#define FREEZE_NS  2000000000ULL
#define FREEZE_TRY 10 /* ms between looks */

_Atomic uint32_t ism_disabled, ism_confined;

void conn_demote_tx(struct conn *c, uint32_t reason)
{
	struct ism_slot *s = c->slot;
	int fd = conn_any_fd(c), rc;

	if (!conn_attached(c) || ism_lock_take(&s->tx_lock))
		return;
	if (atomic_load(&s->tx_state) != ISM_TX_FOREVER) {
		rc = io_end_tx(c, fd, ism_now_ns() + FREEZE_NS);
		io_tx_forever(c, reason);
		/* By TCP it would overtake the ring: EPIPE, then, and the FIN is held until the ring was read. */
		if (rc == -ETIMEDOUT)
			real.shutdown(fd, SHUT_WR);
	}
	ism_lock_drop(&s->tx_lock);
	if (c->ep_told) {
		c->ep_told = 0;
		epoll_conn_changed(c);
	}
}

static void wake_partner(struct conn *c)
{
	static const uint64_t one = 1;

	real.write(c->peer_bell, &one, sizeof(one));
}

/* The partner's word says TCP once it has sent again what we did not consume. */
static int wait_for_resend(struct conn *c)
{
	uint64_t end = ism_now_ns() + FREEZE_NS;

	while (!(ism_ring_word(c->own) & ISM_PROD_TCP)) {
		if (ism_now_ns() > end)
			return -EAGAIN;
		wake_partner(c);
		real.poll(NULL, 0, FREEZE_TRY);
	}
	return 0;
}

/*
 * rx_lock held. Whoever publishes into the ring looks for FROZEN after it, so either we see the bytes
 * here or the writer sees the flag. An empty ring needs no answer: whatever comes into it later is sent
 * again by its writer in the same call.
 */
static int freeze(struct conn *c)
{
	struct ism_slot *s = c->slot;
	ssize_t n = ism_ring_rx_poll(&s->rx, c->own);
	int rc = 0;

	if (n < 0 || s->rx_frozen || atomic_load(&s->broken))
		return 0;
	if (n > 0 && s->rx.word & (ISM_PROD_TCP | ISM_PROD_FIN))
		return -EAGAIN; /* what follows is on TCP already, or nobody is there to send again */
	ism_ring_rx_publish(&s->rx, c->peer);
	s->rx_frozen = 1;
	io_set_rx(c, (s->rx_ready ? ISM_RX_READY : 0) | ISM_RX_FROZEN);
	ism_barrier();
	if (ism_ring_rx_poll(&s->rx, c->own) > 0 || s->rx.tail != s->rx.head)
		rc = wait_for_resend(c);
	else
		wake_partner(c);
	if (rc) {
		/* not answered: go on as before; a partner that answers later still does it right */
		io_set_rx(c, s->rx_ready ? ISM_RX_READY : 0);
		ism_barrier();
		if (ism_ring_word(c->own) & ISM_PROD_TCP) {
			io_set_rx(c, (s->rx_ready ? ISM_RX_READY : 0) | ISM_RX_FROZEN);
			return 0;
		}
		s->rx_frozen = 0;
	}
	return rc;
}

static void candidate_stays_plain(struct conn *c)
{
	struct ism_slot *s = c->slot;
	uint32_t state = ISM_SLOT_CANDIDATE;

	if (!atomic_compare_exchange_strong(&s->state, &state, ISM_SLOT_PLAIN)) {
		state = ISM_SLOT_ASKED;
		atomic_compare_exchange_strong(&s->state, &state, ISM_SLOT_PLAIN);
	}
}

int conn_demote(struct conn *c, int fd, uint32_t reason)
{
	struct ism_slot *s = c->slot;
	int rc;

	if (!conn_attached(c)) {
		candidate_stays_plain(c);
		return 0;
	}
	rc = ism_lock_take(&s->rx_lock);
	if (rc)
		return -EAGAIN;
	rc = freeze(c);
	ism_lock_drop(&s->rx_lock);
	if (rc)
		return rc;
	conn_demote_tx(c, reason);
	conn_report(c, fd, ISM_PLANE_TCP, reason);
	return 0;
}

static void demote_one(struct conn *c, void *arg)
{
	int fd = conn_any_fd(c);

	if (fd >= 0)
		conn_demote(c, fd, *(uint32_t *)arg);
}

static void leave_one(struct conn *c, void *arg)
{
	int fd = conn_any_fd(c);

	if (fd >= 0)
		ism_fd_leave(fd, *(uint32_t *)arg, 1);
}

void ism_confine(uint32_t reason)
{
	if (ism_borrowed)
		return;
	atomic_store(&ism_disabled, 1);
	atomic_store(&ism_confined, 1);
	fresh_settle_all();
	conn_each(leave_one, &reason);
}

void ism_disable(uint32_t reason)
{
	if (ism_borrowed || atomic_exchange(&ism_disabled, 1))
		return;
	fresh_settle_all();
	conn_each(demote_one, &reason);
}
