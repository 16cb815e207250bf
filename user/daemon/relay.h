/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The relay: a thread that moves the bytes of programs without the library between their sockets and the
 * rings of a fabric. docs/cross-kernel.rst, "The relay".
 *
 * Fabrics, and whatever else is not the relay's alone, are used under one lock, which the thread has while
 * it works and not while it sleeps; the daemon's own loop does the same (relay_lock()).
 */
#ifndef ISM_DAEMON_RELAY_H
#define ISM_DAEMON_RELAY_H

#include <ismredir/control.h>
#include <ismredir/fabric.h>
#include <ismredir/maps.h>
#include "err.h"

struct relay;

/**
 * struct relay_config - what a relay works with
 * @fabrics, @tags, @n_fabrics: open fabrics with ISM_FABRIC_BY_TOKEN, and the tags in struct ism_conn
 * @ring_size: of the DMBs that it makes
 * @spin_ns: how long it looks for more before it sleeps, at most
 * @crowd: more ends than that with small messages at once go to TCP when it is always at work; 0: never
 * @on_event: an event that is not the relay's; called by the thread, under the lock. May be NULL
 */
struct relay_config {
	struct ism_fabric *fabrics[ISM_MAX_FABRICS];
	__u32 tags[ISM_MAX_FABRICS];
	unsigned int n_fabrics;
	__u32 ring_size;
	__u32 spin_ns;
	__u32 crowd;
	void (*on_event)(void *arg, struct ism_fabric *f, const struct ism_event *ev);
	void *arg;
};

/**
 * struct relay_stats - counters
 * @ends: relayed now; @waiting: of these, without a partner yet
 * @total, @refused, @broken, @drained: ends that were made; that could not be; that were reset (direct ones
 *                                      with bytes that nobody took, too); that went back to TCP
 * @tx_bytes, @rx_bytes: moved into and out of rings
 * @doorbells: rung for partners
 * @sleeps, @spins: waits that slept; that found something while they looked
 */
struct relay_stats {
	__u32 ends, waiting;
	__u64 total, refused, broken, drained;
	__u64 tx_bytes, rx_bytes;
	__u64 doorbells;
	__u64 sleeps, spins;
};

/** relay_new() - before other threads are there and privileges are given up: starts the guard */
int relay_new(struct relay **ret, const struct relay_config *cfg, struct ism_err *err);

/** relay_start() - start the thread */
int relay_start(struct relay *r);

/** relay_free() - drain for a moment, reset what cannot be drained, end thread and guard */
void relay_free(struct relay *r);

/* NULL is allowed, so that a daemon without a relay needs no condition. */
void relay_lock(struct relay *r);
void relay_unlock(struct relay *r);

/**
 * relay_hold() - from now on the FIN of a direct end whose partner is a relay waits for its ring (relay_hold.h);
 *                before the program has it. The caller has the lock
 * @sock: the connection; stays the caller's
 *
 * Return: 0, also when that was so already; -EAGAIN no relay is at work, or none yet; -ENOSPC too many;
 * -ENOENT the connection is gone; negative errno.
 */
int relay_hold(struct relay *r, int sock, __u64 token);

/**
 * relay_hold_rings() - the DMBs of such an end; NULLs: they are not there any more
 * Return: 1; 0 there is no such end, or none yet.
 */
int relay_hold_rings(struct relay *r, __u64 token, const struct ism_dmb *own,
		     const struct ism_dmb *peer);

/** relay_hold_is_orphan() - there is such an end, and no descriptor of its socket */
int relay_hold_is_orphan(struct relay *r, __u64 token);

/** relay_stats() - now; the caller has the lock, or @r is NULL: zero */
void relay_stats(struct relay *r, struct relay_stats *ret);

/**
 * relay_list() - the DMBs of the next end, for listings; the caller has the lock
 * @at: 0 at first; gets where to go on
 * @ret: the end's own DMB, and its partner's
 *
 * Return: 1, or 0 when there are no more, or @r is NULL.
 */
int relay_list(struct relay *r, unsigned int *at, struct ism_msg_dmb ret[2]);

#endif
