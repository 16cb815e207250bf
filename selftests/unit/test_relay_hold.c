// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* When a FIN that is held may go, when the connection is reset, and when it waits (relay_hold.h). */
#include "unit.h"
#include <string.h>
#include <ismredir/dmb.h>
#include "../../user/daemon/relay_hold.h"

#define ESTABLISHED 1
#define MS	    1000000ULL
#define START	    (1000 * MS)

static struct relay_hold hold;
static struct ism_relay slot;
static __u8 own[4096], peer[4096]; /* the lines in front of the rings */

/* The partner has taken @cons of @prod bytes, and says @says. */
static void rings(__u64 prod, __u64 cons, __u64 says)
{
	ism_dmb_tx(peer)->prod = ISM_PROD(prod, 0);
	ism_dmb_rx(own)->cons = cons;
	ism_dmb_rx(own)->tcp = says;
}

/* A FIN waits; nobody has the socket any more unless @flags say so. */
static void held(__u32 flags)
{
	memset(&hold, 0, sizeof(hold));
	memset(&slot, 0, sizeof(slot));
	slot.token = 7;
	slot.owner = 1;
	slot.state = ISM_RELAY_DIRECT;
	slot.sk_state = ESTABLISHED;
	slot.sk_flags = flags;
	slot.held = 1;
	rings(5000, 4000, 0);
}

static enum relay_hold_todo step(__u64 after)
{
	return relay_hold_step(&hold, &slot, own, peer, START + after);
}

static enum relay_hold_todo step_blind(__u64 after)
{
	return relay_hold_step(&hold, &slot, NULL, NULL, START + after);
}

Test(relay_hold, waits_and_goes_when_all_is_taken)
{
	held(ISM_RELAY_SK_ORPHAN);
	cr_assert_eq(step(0), HOLD_WAIT);
	rings(5000, 4999, 0);
	cr_assert_eq(step(1000 * MS), HOLD_WAIT);
	cr_assert_eq(slot.state, ISM_RELAY_DIRECT);
	rings(5000, 5000, 0);
	cr_assert_eq(step(1001 * MS), HOLD_KICK);
	cr_assert_eq(slot.state, ISM_RELAY_CLOSED);
	cr_assert_eq(slot.kick, 1);
	cr_assert_eq(step(1002 * MS), HOLD_NOTHING);
}

Test(relay_hold, nothing_is_held)
{
	held(0);
	slot.held = 0;
	cr_assert_eq(step(0), HOLD_NOTHING);
	held(0);
	slot.fin_ok = 1;
	cr_assert_eq(step(0), HOLD_NOTHING);
	cr_assert_not(relay_hold_is_on(&slot));
	held(0);
	slot.owner = 0; /* a relayed end's slot */
	cr_assert_eq(step(0), HOLD_NOTHING);
	cr_assert_eq(hold.since_ns, 0);
}

Test(relay_hold, what_was_taken_counts_though_the_partner_is_gone)
{
	held(ISM_RELAY_SK_ORPHAN);
	rings(5000, 5000, ISM_RX_CLOSED);
	cr_assert_eq(step(0), HOLD_KICK);
}

static void expect_reset_after_grace(void)
{
	cr_assert_eq(step(0), HOLD_WAIT);
	cr_assert_eq(step(RELAY_HOLD_GRACE_NS), HOLD_WAIT);
	cr_assert_eq(step(RELAY_HOLD_GRACE_NS + 1), HOLD_RESET);
	/* asked for again while the socket is there, but not at every look */
	cr_assert_eq(step(RELAY_HOLD_GRACE_NS + 2), HOLD_WAIT);
	cr_assert_eq(step(RELAY_HOLD_GRACE_NS + 2000 * MS), HOLD_RESET);
	cr_assert_eq(slot.state, ISM_RELAY_DIRECT, "nothing may leave meanwhile");
}

Test(relay_hold, partner_does_not_read_the_rest)
{
	held(ISM_RELAY_SK_ORPHAN);
	rings(5000, 4000, ISM_RX_CLOSED);
	expect_reset_after_grace();
	held(0);
	rings(5000, 4000, ISM_RX_FROZEN);
	expect_reset_after_grace();
}

Test(relay_hold, cursors_that_cannot_be)
{
	held(0);
	rings(4000, 5000, 0);
	expect_reset_after_grace();
	held(0);
	rings(4001 + 2ULL * ISM_RING_MAX, 4000, 0);
	expect_reset_after_grace();
	held(0);
	rings(4000 + 2ULL * ISM_RING_MAX, 4000, 0);
	cr_assert_eq(step(0), HOLD_WAIT);
	cr_assert_eq(step(1000 * MS), HOLD_WAIT);
}

/* Bytes that it took before it said so may be seen a moment later. */
Test(relay_hold, partner_took_the_rest_meanwhile)
{
	held(ISM_RELAY_SK_ORPHAN);
	rings(5000, 4000, ISM_RX_CLOSED);
	cr_assert_eq(step(0), HOLD_WAIT);
	rings(5000, 5000, ISM_RX_CLOSED);
	cr_assert_eq(step(5 * MS), HOLD_KICK);
}

/* A partner that reads again after all has a new grace. */
Test(relay_hold, grace_begins_anew)
{
	held(ISM_RELAY_SK_ORPHAN);
	rings(5000, 4000, ISM_RX_FROZEN);
	cr_assert_eq(step(0), HOLD_WAIT);
	rings(5000, 4000, 0);
	cr_assert_eq(step(15 * MS), HOLD_WAIT);
	rings(5000, 4000, ISM_RX_FROZEN);
	cr_assert_eq(step(30 * MS), HOLD_WAIT);
	cr_assert_eq(step(30 * MS + RELAY_HOLD_GRACE_NS + 1), HOLD_RESET);
}

Test(relay_hold, a_slow_partner)
{
	held(ISM_RELAY_SK_ORPHAN);
	cr_assert_eq(step(0), HOLD_WAIT);
	cr_assert_eq(step(RELAY_HOLD_ORPHAN_NS), HOLD_WAIT);
	cr_assert_eq(step(RELAY_HOLD_ORPHAN_NS + 1), HOLD_RESET);
	held(0);
	cr_assert_eq(step(0), HOLD_WAIT);
	cr_assert_eq(step(RELAY_HOLD_OWNED_NS), HOLD_WAIT);
	cr_assert_eq(step(RELAY_HOLD_OWNED_NS + 1), HOLD_RESET);
}

Test(relay_hold, rings_that_nobody_shows)
{
	held(ISM_RELAY_SK_ORPHAN);
	cr_assert_eq(step_blind(0), HOLD_WAIT);
	cr_assert_eq(step_blind(RELAY_HOLD_UNKNOWN_NS), HOLD_WAIT);
	cr_assert_eq(step_blind(RELAY_HOLD_UNKNOWN_NS + 1), HOLD_RESET);
	held(ISM_RELAY_SK_ORPHAN);
	cr_assert_eq(step_blind(0), HOLD_WAIT);
	rings(5000, 5000, 0);
	cr_assert_eq(step(RELAY_HOLD_UNKNOWN_NS - 1), HOLD_KICK);
}

Test(relay_hold, the_socket_is_gone)
{
	held(ISM_RELAY_SK_ORPHAN);
	cr_assert_eq(step(0), HOLD_WAIT);
	slot.sk_state = 0;
	cr_assert_eq(step(1 * MS), HOLD_OVER);
	cr_assert_eq(slot.token, 0);
	cr_assert_eq(slot.owner, 0);
	cr_assert_eq(hold.since_ns, 0);
}
