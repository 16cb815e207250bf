// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The rings of a relayed end; see relay_ring.h. */
#include "relay_ring.h"
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int ring_size_of(__u64 len, __u32 *ret)
{
	__u64 size = len - ISM_DMB_RING_OFF; /* of a shorter one: far too much */

	if (!ism_is_ring_size(size))
		return -EPROTO;
	*ret = size;
	return 0;
}

int relay_ring_open(struct relay_ring *r, struct ism_fabric *f, struct ism_dmb *dmb,
		    const struct ism_dmb_map *map)
{
	__u32 own_size, peer_size;

	memset(r, 0, sizeof(*r));
	if (!dmb->addr || ring_size_of(dmb->len, &own_size) || ring_size_of(map->len, &peer_size))
		return -EPROTO;
	r->fabric = f;
	r->dmb = dmb;
	r->map = *map;
	r->peer_token = map->token;
	r->own = dmb->addr;
	r->peer = map->addr;
	if (!map->addr || !(f->info.caps & ISM_FABRIC_COHERENT)) {
		r->shadow = calloc(1, ism_dmb_len(peer_size));
		if (!r->shadow)
			return -ENOMEM;
		r->peer = r->shadow;
	}
	ism_ring_tx_init(&r->tx, peer_size);
	ism_ring_rx_init(&r->rx, own_size);
	return 0;
}

void relay_ring_close(struct relay_ring *r)
{
	free(r->shadow);
	r->shadow = NULL;
	r->peer = NULL;
}

/* ---------------------------------------------------------------- memory that is not just there */

/* What was written to the partner's DMB at [off, off + len) becomes visible to it. */
static int push(struct relay_ring *r, size_t off, size_t len)
{
	if (!r->shadow)
		return 0;
	return ism_fabric_move_data(r->fabric, r->peer_token, off, (__u8 *)r->shadow + off, len, 0);
}

/* What the partner wrote into the own DMB becomes visible here. */
static void see(struct relay_ring *r, size_t off, size_t len)
{
	if (!(r->fabric->info.caps & ISM_FABRIC_COHERENT))
		ism_fabric_fetch(r->fabric, r->dmb, off, len);
}

static int push_tx(struct relay_ring *r)
{
	return push(r, ISM_DMB_TX_OFF, sizeof(struct ism_dmb_tx));
}

static int push_rx(struct relay_ring *r)
{
	return push(r, ISM_DMB_RX_OFF, sizeof(struct ism_dmb_rx));
}

static void see_tx(struct relay_ring *r)
{
	see(r, ISM_DMB_TX_OFF, sizeof(struct ism_dmb_tx));
}

static void see_rx(struct relay_ring *r)
{
	see(r, ISM_DMB_RX_OFF, sizeof(struct ism_dmb_rx));
}

/* Where it cannot be heard the partner is gone, and that is found out in other ways. */
static void ring_bell(struct relay_ring *r)
{
	r->bells++;
	ism_fabric_ring(r->fabric, r->peer_token);
}

/* Does the partner sleep for data? Ours was published before. */
static void bell_for_data(struct relay_ring *r)
{
	__u32 want;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	see_rx(r);
	want = __atomic_load_n(&ism_dmb_rx(r->own)->want_data, __ATOMIC_RELAXED);
	if (!want || want == r->rung_data)
		return;
	r->rung_data = want;
	ring_bell(r);
}

/* Does it sleep for space in the ring that we read? */
static void bell_for_space(struct relay_ring *r)
{
	__u32 want;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	see_tx(r);
	want = __atomic_load_n(&ism_dmb_tx(r->own)->want_space, __ATOMIC_RELAXED);
	if (!want || want == r->rung_space)
		return;
	r->rung_space = want;
	ring_bell(r);
}

/* ---------------------------------------------------------------- towards the partner */

ssize_t relay_ring_space(struct relay_ring *r, void **ret)
{
	struct iovec v[2];
	ssize_t room;

	see_rx(r);
	room = ism_ring_tx_room(&r->tx, r->own, r->tx.size);
	if (room <= 0)
		return room;
	ism_ring_tx_spans(&r->tx, r->peer, room < RELAY_PIECE ? room : RELAY_PIECE, v);
	*ret = v[0].iov_base;
	return v[0].iov_len;
}

int relay_ring_put(struct relay_ring *r, size_t n, __u64 after)
{
	size_t at = r->tx.tail & (r->tx.size - 1);
	int rc = push(r, ISM_DMB_RING_OFF + at, n);

	if (rc)
		return rc;
	ism_ring_tx_advance(&r->tx, n);
	r->sent += n;
	r->puts++;
	__atomic_store_n(&ism_dmb_tx(r->peer)->after, after, __ATOMIC_RELAXED);
	ism_ring_tx_publish(&r->tx, r->peer);
	rc = push_tx(r);
	if (!rc)
		bell_for_data(r);
	return rc;
}

int relay_ring_flags(struct relay_ring *r, __u32 set, __u32 clear)
{
	__u32 flags = (r->tx.flags & ~clear) | set;
	int rc;

	if (flags == r->tx.flags)
		return 0;
	r->tx.flags = flags;
	ism_ring_tx_publish(&r->tx, r->peer);
	rc = push_tx(r);
	if (!rc)
		bell_for_data(r);
	return rc;
}

int relay_ring_consumed(struct relay_ring *r, __u64 *ret)
{
	ssize_t room;

	see_rx(r);
	room = ism_ring_tx_room(&r->tx, r->own, (size_t)-1);
	if (room < 0)
		return room;
	*ret = r->sent - (r->tx.tail - r->tx.cons);
	return 0;
}

__u64 relay_ring_partner(struct relay_ring *r)
{
	return __atomic_load_n(&ism_dmb_rx(r->own)->tcp, __ATOMIC_ACQUIRE);
}

/* A reader that claims to have read what it was not given does harm to itself only; still. */
__u64 relay_ring_read(struct relay_ring *r)
{
	__u64 read = __atomic_load_n(&ism_dmb_rx(r->own)->read, __ATOMIC_ACQUIRE);

	return read < r->sent ? read : r->sent;
}

/* ---------------------------------------------------------------- from the partner */

ssize_t relay_ring_poll(struct relay_ring *r)
{
	see_tx(r);
	return ism_ring_rx_poll(&r->rx, r->own);
}

__u64 relay_ring_after(const struct relay_ring *r)
{
	__u64 after = __atomic_load_n(&ism_dmb_tx(r->own)->after, __ATOMIC_RELAXED);

	return after & ISM_TX_AFTER ? ISM_TX_AFTER | (__u32)after : 0;
}

size_t relay_ring_get(struct relay_ring *r, size_t max, struct iovec v[2])
{
	size_t n = ism_ring_rx_spans(&r->rx, r->own, 0, max, v);

	for (int i = 0; i < 2; i++)
		if (v[i].iov_len)
			see(r, (const __u8 *)v[i].iov_base - (const __u8 *)r->own, v[i].iov_len);
	return n;
}

/* Each time, because the partner may not go to TCP before it knows. */
int relay_ring_took(struct relay_ring *r, size_t n)
{
	int rc;

	ism_ring_rx_advance(&r->rx, n);
	r->got += n;
	r->gets += n != 0;
	ism_ring_rx_publish(&r->rx, r->peer);
	rc = push_rx(r);
	if (!rc)
		bell_for_space(r);
	return rc;
}

int relay_ring_tell(struct relay_ring *r, __u64 tcp, __u64 read)
{
	struct ism_dmb_rx *b = ism_dmb_rx(r->peer);

	if (tcp == r->told_tcp && read == r->told_read)
		return 0;
	r->told_tcp = tcp;
	r->told_read = read;
	__atomic_store_n(&b->read, read, __ATOMIC_RELAXED);
	__atomic_store_n(&b->tcp, tcp, __ATOMIC_RELEASE);
	return push_rx(r);
}

void relay_ring_show_stats(struct relay_ring *r)
{
	struct ism_dmb_stats *st = ism_dmb_stats(r->peer);

	st->tx_bytes = r->sent;
	st->tx_msgs = r->puts;
	st->rx_bytes = r->got;
	st->rx_msgs = r->gets;
	st->doorbells = r->bells;
	st->pid = getpid();
	push(r, ISM_DMB_STATS_OFF, sizeof(*st));
}

/* ---------------------------------------------------------------- waiting */

int relay_ring_arm(struct relay_ring *r, int space)
{
	__u64 word = r->rx.word, consumed, before;

	if (!r->armed) {
		r->armed = 1;
		if (!++r->arm)
			r->arm = 1;
	}
	if (relay_ring_consumed(r, &before))
		return 1;
	__atomic_store_n(&ism_dmb_rx(r->peer)->want_data, r->arm, __ATOMIC_RELAXED);
	__atomic_store_n(&ism_dmb_tx(r->peer)->want_space, space ? r->arm : 0, __ATOMIC_RELAXED);
	if (push_rx(r) || push_tx(r))
		return 1;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	see_tx(r);
	return ism_ring_word(r->own) != word ||
	       (space && (relay_ring_consumed(r, &consumed) || consumed != before));
}
