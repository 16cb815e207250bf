// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The byte ring in a DMB; see ring.h. */
#include "ring.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

/*
 * Both are found by trial, and each matters for the other: where caches are shared a ring is quickest by usual
 * stores and with a reader that looks away. So that does not fade while it makes no difference.
 */
const struct ism_tuning ism_ring_away = { .levels = 6, .first = 4, .lower = 105 };
const struct ism_tuning ism_ring_bypass = { .levels = 2, .first = 0, .lower = 98 };

void ism_ring_tx_init(struct ism_ring_tx *tx, __u32 size)
{
	memset(tx, 0, sizeof(*tx));
	tx->size = size;
	tx->flags = ISM_PROD_TCP;
}

void ism_ring_rx_init(struct ism_ring_rx *rx, __u32 size)
{
	memset(rx, 0, sizeof(*rx));
	rx->size = size;
	rx->word = ISM_PROD(0, ISM_PROD_TCP);
}

/* One or two pieces of a ring that begin at @cursor. */
static void spans(__u8 *ring, __u32 size, __u64 cursor, size_t n, struct iovec v[2])
{
	size_t at = cursor & (size - 1), first = size - at < n ? size - at : n;

	v[0].iov_base = ring + at;
	v[0].iov_len = first;
	v[1].iov_base = ring;
	v[1].iov_len = n - first;
}

/* The reader's cursor moves forward within what was written; right after a rewind it may lag. */
static int read_cons(struct ism_ring_tx *tx, const void *own)
{
	__u64 c = __atomic_load_n(&ism_dmb_rx(own)->cons, __ATOMIC_ACQUIRE);

	if (c == tx->skip && tx->skip != tx->cons)
		return 0;
	if (c < tx->cons || c > tx->tail)
		return -EPROTO;
	tx->cons = c;
	return 0;
}

/*
 * The reader has consumed everything and said so: both sides may round their cursor up to the start of
 * the ring. The flag tells the reader; it comes with the first byte that is written there.
 */
static void rewind_empty(struct ism_ring_tx *tx)
{
	if (tx->cons != tx->tail || (tx->tail & (tx->size - 1)) < ISM_RING_REWIND)
		return;
	tx->skip = tx->tail;
	tx->tail = (tx->tail + tx->size - 1) & ~(__u64)(tx->size - 1);
	tx->cons = tx->tail;
	tx->flags ^= ISM_PROD_REWIND;
}

ssize_t ism_ring_tx_room(struct ism_ring_tx *tx, const void *own, size_t want)
{
	size_t room = tx->size - (tx->tail - tx->cons);

	if (room >= want && (tx->tail & (tx->size - 1)) < ISM_RING_REWIND)
		return room;
	if (tx->cons == tx->tail)
		return room;
	if (read_cons(tx, own))
		return -EPROTO;
	return tx->size - (tx->tail - tx->cons);
}

size_t ism_ring_tx_spans(struct ism_ring_tx *tx, void *peer, size_t max, struct iovec v[2])
{
	size_t room;

	if (max)
		rewind_empty(tx);
	room = tx->size - (tx->tail - tx->cons);
	if (max > room)
		max = room;
	spans(ism_dmb_ring(peer), tx->size, tx->tail, max, v);
	return max;
}

#if defined(__x86_64__)
/*
 * Around the caches: whole lines by MOVNTDQ, what is left at both ends as usual. Such stores are not
 * ordered with the store of the producer word, not even by release: so a fence (Intel SDM 3, 9.2.2).
 */
static void copy_around(__u8 *to, const __u8 *from, size_t n)
{
	size_t head = -(uintptr_t)to & 63;

	memcpy(to, from, head);
	for (to += head, from += head, n -= head; n >= 64; to += 64, from += 64, n -= 64) {
		for (int i = 0; i < 64; i += 16)
			_mm_stream_si128((__m128i *)(to + i),
					 _mm_loadu_si128((const __m128i *)(from + i)));
	}
	memcpy(to, from, n);
	_mm_sfence();
}
#else
static void copy_around(__u8 *to, const __u8 *from, size_t n)
{
	memcpy(to, from, n);
}
#endif

static void copy_in(const struct ism_ring_tx *tx, void *to, const void *from, size_t n)
{
	if (tx->bypass && n >= ISM_RING_BYPASS_MIN)
		copy_around(to, from, n);
	else
		memcpy(to, from, n);
}

ssize_t ism_ring_tx_write(struct ism_ring_tx *tx, const void *own, void *peer, const void *buf,
			  size_t len)
{
	struct iovec v[2];
	ssize_t room = ism_ring_tx_room(tx, own, len);
	size_t n;

	if (room <= 0)
		return room;
	n = ism_ring_tx_spans(tx, peer, len, v);
	copy_in(tx, v[0].iov_base, buf, v[0].iov_len);
	if (v[1].iov_len)
		copy_in(tx, v[1].iov_base, (const __u8 *)buf + v[0].iov_len, v[1].iov_len);
	ism_ring_tx_advance(tx, n);
	return n;
}

ssize_t ism_ring_tx_unread(const struct ism_ring_tx *tx, void *peer, __u64 from, struct iovec v[2])
{
	if (from == tx->skip && tx->skip != tx->cons)
		from = tx->cons;
	if (from < tx->cons || from > tx->tail)
		return -EPROTO;
	spans(ism_dmb_ring(peer), tx->size, from, tx->tail - from, v);
	return tx->tail - from;
}

ssize_t ism_ring_rx_poll(struct ism_ring_rx *rx, const void *own)
{
	__u64 w = ism_ring_word(own), tail = w >> ISM_PROD_SHIFT, head = rx->head;

	if (w == rx->word)
		return rx->tail - rx->head;
	if ((w ^ rx->word) & ISM_PROD_REWIND) {
		/* Only a writer that was told of an empty ring may do that. */
		if (rx->head != rx->tail || rx->told != rx->head)
			return -EPROTO;
		head = (head + rx->size - 1) & ~(__u64)(rx->size - 1);
	}
	if (tail < rx->tail || tail < head || tail - head > rx->size)
		return -EPROTO;
	rx->head = head;
	rx->tail = tail;
	rx->word = w;
	return tail - head;
}

size_t ism_ring_rx_spans(const struct ism_ring_rx *rx, const void *own, size_t off, size_t max,
			 struct iovec v[2])
{
	size_t avail = rx->tail - rx->head;

	if (off > avail)
		off = avail;
	if (max > avail - off)
		max = avail - off;
	spans(ism_dmb_ring(own), rx->size, rx->head + off, max, v);
	return max;
}
