/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Direct ends whose partner is a relay: when may their FIN go? A program that ends in order says so itself
 * (ISM_SO_FIN), once the remote relay has taken all that it put into the ring. One that is killed, or whose
 * socket is closed by others, does not; its kernel's FIN is held by ism_hold then (bpf/relayd.bpf.c). Here is
 * who sees from the rings that it may go, or never will: then the connection is reset.
 *
 * A socket's FIN is all that shows that the last who had it is gone, whoever inherited or was given it. So nobody
 * has to know of processes.
 *
 * The relay's thread uses this under the relay's lock, and the guard when that is gone.
 */
#ifndef ISM_DAEMON_RELAY_HOLD_H
#define ISM_DAEMON_RELAY_HOLD_H

#include <ismredir/relay.h>

struct relay_maps;
struct relay_guard;

/* What the partner took before it said that it reads no more is seen by then. ns, as all of these. */
#define RELAY_HOLD_GRACE_NS 20000000ULL
/* Who knows the rings comes by then, or never; and who is at work is seen to be by then. */
#define RELAY_HOLD_UNKNOWN_NS 5000000000ULL
/*
 * The kernel itself gives up the FIN of a socket that nobody has after about 50 s (tcp_orphan_retries()), and says
 * nothing to the partner. A program that waits for its slow reader is waited for.
 */
#define RELAY_HOLD_ORPHAN_NS 40000000000ULL
#define RELAY_HOLD_OWNED_NS  600000000000ULL

/**
 * struct relay_hold - what is known of a slot beside what is in it; in memory that the guard has, too
 * @own: the end's DMB, which tells what the partner has taken; @peer: the partner's, which tells what was put
 *       there. NULL: not known, because nobody who came back after a restart has shown them
 * @since_ns: a FIN waits since then; 0: none
 * @deaf_ns: since when the partner does not read any more; 0: it does
 * @reset_ns: when a reset was last asked for; 0: never
 * @beat, @beat_ns: struct ism_relay.beat of another owner's, and since when it has been the same
 */
struct relay_hold {
	const void *own;
	const void *peer;
	__u64 since_ns;
	__u64 deaf_ns;
	__u64 reset_ns;
	__u32 beat;
	__u32 pad;
	__u64 beat_ns;
};

enum relay_hold_todo {
	HOLD_NOTHING, /* no FIN waits */
	HOLD_WAIT, /* look again soon */
	HOLD_KICK, /* it may go now, which the slot says already: kick the socket */
	HOLD_RESET, /* bytes are lost: reset the connection */
	HOLD_OVER, /* the socket is gone, and the slot free */
};

/**
 * relay_hold_step() - look at one slot, whose third line was brought up to date (ism_relay_look)
 * @own, @peer: those of @h if they can be read now, else NULL
 * @now: CLOCK_MONOTONIC, ns
 */
enum relay_hold_todo relay_hold_step(struct relay_hold *h, struct ism_relay *s, const void *own,
				     const void *peer, __u64 now);

/** relay_hold_is_on() - may a FIN be held for this slot, now or later? */
int relay_hold_is_on(const struct ism_relay *s);

/**
 * struct relay_holds - all slots of this kind
 * @maps, @guard: the relay's
 * @high: no slot above is one
 * @next_ns: when relay_holds_run() is due
 * @resets: connections that were reset
 */
struct relay_holds {
	struct relay_maps *maps;
	struct relay_guard *guard;
	unsigned int high;
	__u64 next_ns;
	__u64 resets;
};

/** relay_holds_open() - another load: take notice of the slots that there are */
void relay_holds_open(struct relay_holds *hs, struct relay_maps *maps, struct relay_guard *guard);

/** relay_holds_find() - slot of a token, or -ENOENT */
int relay_holds_find(const struct relay_holds *hs, __u64 token);

/**
 * relay_holds_add() - from now on the FIN of a socket is held
 * @slot: a free one, or its own from before
 * @sock: the socket; stays the caller's, and nothing is called that its owner could delay
 *
 * Return: 0; -ENOENT it has no record any more; negative errno.
 */
int relay_holds_add(struct relay_holds *hs, unsigned int slot, int sock, __u64 token);

/** relay_holds_rings() - where its DMBs are, or NULLs: nowhere any more. 1 when there is such a slot, else 0 */
int relay_holds_rings(struct relay_holds *hs, __u64 token, const void *own, const void *peer);

/** relay_holds_is_orphan() - when its socket was last looked at, was there no descriptor of it any more? */
int relay_holds_is_orphan(const struct relay_holds *hs, __u64 token);

/** relay_holds_wake() - if the token is one of them a FIN was held: look at once. Return: is it? */
int relay_holds_wake(struct relay_holds *hs, __u64 token);

/** relay_holds_run() - look at all and do what is to be done, if it is time */
void relay_holds_run(struct relay_holds *hs, __u64 now);

/** relay_holds_any() - is one of ours to be looked after? */
int relay_holds_any(const struct relay_holds *hs);

#endif
