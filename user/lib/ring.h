/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The byte ring in a DMB: single producer, single consumer, across processes. Both the shim and the
 * relay use it. Layout: include/ismredir/dmb.h; protocol: docs/ring.rst.
 *
 * Cursors count bytes and only grow; a byte's place is cursor & (size - 1). The state below is private
 * to one side (a process and its fork() relatives) and never re-read from a DMB. What comes from the
 * partner is loaded once, checked, then used: -EPROTO means that the partner wrote nonsense, and the
 * ring must not be used any more. Memory order: the data, then the producer word (release); the
 * producer word (acquire), then the data. No function blocks, calls the kernel or takes a lock: the
 * caller makes sure that one task at a time is in a direction.
 */
#ifndef ISM_LIB_RING_H
#define ISM_LIB_RING_H

#include <ismredir/dmb.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "tune.h"

/* A big send is published in pieces of this size, so that the reader copies while we do. */
#define ISM_RING_PIECE (128u << 10)
/* An empty ring is rewound when the cursor is this far in: few pages are touched, caches stay warm. */
#define ISM_RING_REWIND (16u << 10)
/* An idle reader tells its cursor when so much is untold, so that the writer can rewind. */
#define ISM_RING_TELL (4u << 10)
/* Shorter pieces are never copied around the caches. */
#define ISM_RING_BYPASS_MIN 1024

/*
 * A reader that is quicker than its writer takes each message as soon as it is there; then the cache
 * lines of the ring wander from CPU to CPU one at a time, and both wait for them. One that looks away for
 * some microseconds each time it has found the ring empty gets many lines at once. These are the
 * lengths that are worth trying (tune.h), the longest being the latency of a stream that is bought with it.
 */
extern const struct ism_tuning ism_ring_away;

/** ism_ring_away_ns() - how long setting @level of ism_ring_away looks away */
static inline __u32 ism_ring_away_ns(unsigned int level)
{
	return level ? 250u << level : 0;
}

/**
 * struct ism_ring_tx - the writing side
 * @tail: cursor behind the last byte written, published or not
 * @cons: the reader's cursor as last seen
 * @skip: cursor before the last rewind: what a reader that has not looked since still says
 * @size: bytes of the ring
 * @flags: ISM_PROD_* to publish
 * @bypass: ism_ring_tx_write() copies long pieces around the caches; the caller's choice, see there
 */
struct ism_ring_tx {
	__u64 tail;
	__u64 cons;
	__u64 skip;
	__u32 size;
	__u32 flags;
	__u32 bypass;
	__u32 pad;
};

/**
 * struct ism_ring_rx - the reading side
 * @head: cursor of the next byte to read
 * @tail: the writer's cursor as last seen
 * @told: consumer cursor last published
 * @word: producer word last seen, with its flags
 * @size: bytes of the ring
 */
struct ism_ring_rx {
	__u64 head;
	__u64 tail;
	__u64 told;
	__u64 word;
	__u32 size;
	__u32 pad;
};

/** ism_ring_tx_init() - an empty ring of @size bytes, a power of two; flags say TCP until changed */
void ism_ring_tx_init(struct ism_ring_tx *tx, __u32 size);
void ism_ring_rx_init(struct ism_ring_rx *rx, __u32 size);

/**
 * ism_ring_tx_room() - free bytes
 * @own: this side's own DMB, where the reader's cursor arrives
 * @want: the cursor is read again only when less than this is known to be free
 *
 * Return: bytes, or -EPROTO.
 */
ssize_t ism_ring_tx_room(struct ism_ring_tx *tx, const void *own, size_t want);

/**
 * ism_ring_tx_spans() - where up to @max bytes may be written, at most the known room
 * @peer: the partner's DMB
 * @v: one or two pieces; unused ones get length 0
 *
 * Call ism_ring_tx_room() before. Return: bytes in all.
 */
size_t ism_ring_tx_spans(struct ism_ring_tx *tx, void *peer, size_t max, struct iovec v[2]);

/** ism_ring_tx_advance() - @n bytes were written there */
static inline void ism_ring_tx_advance(struct ism_ring_tx *tx, size_t n)
{
	tx->tail += n;
}

/** ism_ring_tx_publish() - make everything written, and the flags, visible to the reader */
static inline void ism_ring_tx_publish(const struct ism_ring_tx *tx, void *peer)
{
	__atomic_store_n(&ism_dmb_tx(peer)->prod, ISM_PROD(tx->tail, tx->flags), __ATOMIC_RELEASE);
}

/** ism_ring_bypass - the settings of struct ism_ring_tx.bypass, 0 and 1 */
extern const struct ism_tuning ism_ring_bypass;

/**
 * ism_ring_tx_write() - copy up to @len bytes in, as far as there is room; not published
 *
 * A store to a line that the reader has in its cache must fetch the line from there first. Between CPUs that
 * have no cache in common that is most of the time of a copy. With @tx->bypass pieces of ISM_RING_BYPASS_MIN
 * and more are written by non-temporal stores, which fetch nothing; between CPUs that share a cache this is
 * slower for all but long pieces. What other CPUs see is the same. Where there are no such stores @bypass
 * changes nothing.
 *
 * Return: bytes copied, or -EPROTO.
 */
ssize_t ism_ring_tx_write(struct ism_ring_tx *tx, const void *own, void *peer, const void *buf,
			  size_t len);

/**
 * ism_ring_tx_unread() - where the bytes lie that the reader has not consumed, from cursor @from on
 * For re-sending them by TCP. Return: bytes in all, or -EPROTO when @from is outside the window.
 */
ssize_t ism_ring_tx_unread(const struct ism_ring_tx *tx, void *peer, __u64 from, struct iovec v[2]);

/** ism_ring_word() - the producer word of the ring in DMB @own right now, unchecked */
static inline __u64 ism_ring_word(const void *own)
{
	return __atomic_load_n(&ism_dmb_tx(own)->prod, __ATOMIC_ACQUIRE);
}

/**
 * ism_ring_rx_poll() - look for bytes; rx->word then has the flags
 * @own: this side's own DMB
 *
 * Return: bytes that may be read, or -EPROTO.
 */
ssize_t ism_ring_rx_poll(struct ism_ring_rx *rx, const void *own);

/** ism_ring_rx_spans() - where up to @max bytes lie, @off bytes from the first unread one */
size_t ism_ring_rx_spans(const struct ism_ring_rx *rx, const void *own, size_t off, size_t max,
			 struct iovec v[2]);

/** ism_ring_rx_advance() - @n bytes were consumed */
static inline void ism_ring_rx_advance(struct ism_ring_rx *rx, size_t n)
{
	rx->head += n;
}

/** ism_ring_rx_quarter() - has a quarter of the ring been read that the writer was not told of? */
static inline int ism_ring_rx_quarter(const struct ism_ring_rx *rx)
{
	return rx->head - rx->told >= rx->size / 4;
}

/** ism_ring_rx_due() - is it time to tell the writer the cursor? (a quarter ring, or idle) */
static inline int ism_ring_rx_due(const struct ism_ring_rx *rx)
{
	return ism_ring_rx_quarter(rx) ||
	       (rx->head == rx->tail && rx->head - rx->told >= ISM_RING_TELL);
}

/** ism_ring_rx_publish() - tell the writer the cursor; @peer: the partner's DMB */
static inline void ism_ring_rx_publish(struct ism_ring_rx *rx, void *peer)
{
	rx->told = rx->head;
	__atomic_store_n(&ism_dmb_rx(peer)->cons, rx->head, __ATOMIC_RELEASE);
}

#endif
