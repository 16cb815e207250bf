/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The rings of a relayed end: its own DMB, which it reads, and the partner's, which it writes, by
 * mapping or, where the fabric is not coherent or cannot be mapped, by move_data from a copy. Byte counts
 * instead of cursors; bells. Knows nothing of sockets. The relay's thread uses it; no locks.
 *
 * -EPROTO from any function: the partner wrote nonsense, and the ring must not be used any more.
 */
#ifndef ISM_DAEMON_RELAY_RING_H
#define ISM_DAEMON_RELAY_RING_H

#include <ismredir/dmb.h>
#include <ismredir/fabric.h>
#include "ring.h"

/* So much is given to one recv() or send(). */
#define RELAY_PIECE (128u << 10)

/**
 * struct relay_ring - both rings of an end
 * @dmb: the own DMB; the caller's
 * @map: the partner's, if it is attached; the caller's
 * @own: where the own DMB is read
 * @peer: where the partner's is written: @map, or @shadow
 * @shadow: what is not mapped is written here and moved from here
 * @sent: bytes put into the partner's ring
 * @got: bytes taken out of the own ring
 * @told: what was last said of the own reading
 * @arm: the value of the last sleep, @armed while it is in force
 * @rung_data, @rung_space: values for which the partner was rung
 * @bells: how often it was
 * @puts, @gets: messages
 */
struct relay_ring {
	struct ism_fabric *fabric;
	struct ism_dmb *dmb;
	struct ism_dmb_map map;
	__u64 peer_token;
	const void *own;
	void *peer;
	void *shadow;
	struct ism_ring_tx tx;
	struct ism_ring_rx rx;
	__u64 sent, got;
	__u64 told_tcp, told_read;
	__u32 arm;
	__u32 armed;
	__u32 rung_data, rung_space;
	__u64 bells;
	__u64 puts, gets;
};

/**
 * relay_ring_open() - @map: the partner's DMB, with @addr NULL where it is not mapped
 * Return: 0; -ENOMEM; -EPROTO: the DMBs have no size that a ring can have.
 */
int relay_ring_open(struct relay_ring *r, struct ism_fabric *f, struct ism_dmb *dmb,
		    const struct ism_dmb_map *map);
void relay_ring_close(struct relay_ring *r);

/* ---- towards the partner */

/** relay_ring_space() - a place for up to RELAY_PIECE bytes at *@ret; 0 when the ring is full */
ssize_t relay_ring_space(struct relay_ring *r, void **ret);

/** relay_ring_put() - @n bytes were written there; @after: see struct ism_dmb_tx */
int relay_ring_put(struct relay_ring *r, size_t n, __u64 after);

/** relay_ring_flags() - set or clear ISM_PROD_* */
int relay_ring_flags(struct relay_ring *r, __u32 set, __u32 clear);

/** relay_ring_consumed() - how many of @sent the partner has consumed, into @ret */
int relay_ring_consumed(struct relay_ring *r, __u64 *ret);

/** relay_ring_partner() - what the partner says as a reader: ISM_RX_* and sequence number */
__u64 relay_ring_partner(struct relay_ring *r);

/** relay_ring_read() - how many of @sent the remote application has read, as a relay says it */
__u64 relay_ring_read(struct relay_ring *r);

/* ---- from the partner */

/** relay_ring_poll() - bytes that lie in the own ring */
ssize_t relay_ring_poll(struct relay_ring *r);

/** relay_ring_after() - the partner's struct ism_dmb_tx.after, for what relay_ring_poll() found */
__u64 relay_ring_after(const struct relay_ring *r);

/** relay_ring_get() - up to @max of them; they stay */
size_t relay_ring_get(struct relay_ring *r, size_t max, struct iovec v[2]);

/** relay_ring_took() - @n were used; the partner is told */
int relay_ring_took(struct relay_ring *r, size_t n);

/** relay_ring_tell() - struct ism_dmb_rx.tcp and .read for the partner, if they are news */
int relay_ring_tell(struct relay_ring *r, __u64 tcp, __u64 read);

/** relay_ring_show_stats() - this side's counters, into the partner's DMB, for listings */
void relay_ring_show_stats(struct relay_ring *r);

/* ---- waiting */

/**
 * relay_ring_arm() - ask for a bell with the next data, or space if @space
 * Return: 0 when it is safe to sleep; 1: there is something to do already.
 */
int relay_ring_arm(struct relay_ring *r, int space);

/** relay_ring_awake() - a bell came: the partner's next will need another value */
static inline void relay_ring_awake(struct relay_ring *r)
{
	r->armed = 0;
}

#endif
