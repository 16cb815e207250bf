// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What is to be done about one FIN that is held; see relay_hold.h. */
#include <string.h>
#include <ismredir/dmb.h>
#include "relay_hold.h"

#define AGAIN_NS 1000000000ULL

static __u32 get32(const __u32 *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static void put32(__u32 *to, __u32 v)
{
	__atomic_store_n(to, v, __ATOMIC_RELEASE);
}

int relay_hold_is_on(const struct ism_relay *s)
{
	return s->token && s->owner && get32(&s->state) == ISM_RELAY_DIRECT && !get32(&s->fin_ok);
}

enum taking {
	TAKEN, /* the partner has all */
	TAKES, /* not yet */
	DEAF, /* nor will it */
	NONSENSE, /* what was written there cannot be */
};

/*
 * A relay says that it has consumed what lies in the queue of its program's socket. The words are of processes
 * that may write anything, which does harm to the end of their own connection only.
 */
static enum taking look_at_rings(const void *own, const void *peer)
{
	__u64 says = __atomic_load_n(&ism_dmb_rx(own)->tcp, __ATOMIC_ACQUIRE);
	__u64 cons = __atomic_load_n(&ism_dmb_rx(own)->cons, __ATOMIC_ACQUIRE);
	__u64 prod = __atomic_load_n(&ism_dmb_tx(peer)->prod, __ATOMIC_ACQUIRE) >> ISM_PROD_SHIFT;

	if (prod == cons)
		return TAKEN;
	/* a rewound cursor, which the reader has not seen, may be a ring further */
	if (prod < cons || prod - cons > 2ULL * ISM_RING_MAX)
		return NONSENSE;
	return says & (ISM_RX_CLOSED | ISM_RX_FROZEN) ? DEAF : TAKES;
}

static int is_late(struct relay_hold *h, const struct ism_relay *s, __u64 now)
{
	return now - h->since_ns > (get32(&s->sk_flags) & ISM_RELAY_SK_ORPHAN
					    ? RELAY_HOLD_ORPHAN_NS
					    : RELAY_HOLD_OWNED_NS);
}

static int is_lost(struct relay_hold *h, const struct ism_relay *s, enum taking t, __u64 now)
{
	if (t == TAKES)
		h->deaf_ns = 0;
	else if (!h->deaf_ns)
		h->deaf_ns = now;
	return (h->deaf_ns && now - h->deaf_ns > RELAY_HOLD_GRACE_NS) || is_late(h, s, now);
}

static enum relay_hold_todo reset(struct relay_hold *h, __u64 now)
{
	if (h->reset_ns && now - h->reset_ns < AGAIN_NS)
		return HOLD_WAIT;
	h->reset_ns = now;
	return HOLD_RESET;
}

enum relay_hold_todo relay_hold_step(struct relay_hold *h, struct ism_relay *s, const void *own,
				     const void *peer, __u64 now)
{
	enum taking t;

	if (!get32(&s->sk_state)) {
		memset(h, 0, sizeof(*h));
		s->owner = 0;
		__atomic_store_n(&s->token, 0, __ATOMIC_RELEASE);
		return HOLD_OVER;
	}
	if (!relay_hold_is_on(s) || !get32(&s->held))
		return HOLD_NOTHING;
	if (!h->since_ns)
		h->since_ns = now;
	if (!own || !peer)
		return now - h->since_ns > RELAY_HOLD_UNKNOWN_NS ? reset(h, now) : HOLD_WAIT;
	t = look_at_rings(own, peer);
	if (t != TAKEN)
		return is_lost(h, s, t, now) ? reset(h, now) : HOLD_WAIT;
	put32(&s->state, ISM_RELAY_CLOSED);
	put32(&s->kick, 1);
	return HOLD_KICK;
}
