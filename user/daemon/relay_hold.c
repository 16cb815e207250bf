// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* FINs of direct ends at a relay; see relay_hold.h. */
#include "relay_hold.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include "log.h"
#include "relay_guard.h"
#include "relay_maps.h"

#define LOOK_NS 100000000ULL
#define WAIT_NS 1000000ULL

/* ---------------------------------------------------------------- all of them */

static struct ism_relay *slot_at(const struct relay_holds *hs, unsigned int i)
{
	return &hs->maps->slots[i];
}

static __u32 self(const struct relay_holds *hs)
{
	return hs->guard->pid;
}

void relay_holds_open(struct relay_holds *hs, struct relay_maps *maps, struct relay_guard *guard)
{
	memset(hs, 0, sizeof(*hs));
	hs->maps = maps;
	hs->guard = guard;
	memset(guard->holds, 0, ISM_MAX_RELAYS * sizeof(*guard->holds));
	for (unsigned int i = 0; i < ISM_MAX_RELAYS; i++)
		if (slot_at(hs, i)->token && slot_at(hs, i)->owner)
			hs->high = i + 1;
}

int relay_holds_find(const struct relay_holds *hs, __u64 token)
{
	for (unsigned int i = 0; i < hs->high; i++)
		if (slot_at(hs, i)->token == token && slot_at(hs, i)->owner)
			return i;
	return -ENOENT;
}

/* One that was there goes on as it was: its FIN may be waiting, or gone. */
static int make_slot(struct relay_holds *hs, unsigned int slot, __u64 token)
{
	struct ism_relay *s = slot_at(hs, slot);
	int rc;

	if (s->token == token) {
		s->owner = self(hs);
		return 0;
	}
	memset(s, 0, sizeof(*s));
	s->owner = self(hs);
	s->state = ISM_RELAY_DIRECT;
	s->look = 1;
	__atomic_store_n(&s->token, token, __ATOMIC_RELEASE);
	rc = relay_maps_look(hs->maps, slot + 1);
	return rc ? rc : s->sk_state ? 0 : -ENOENT;
}

int relay_holds_add(struct relay_holds *hs, unsigned int slot, int sock, __u64 token)
{
	struct ism_relay_sk mark = { .token = token, .slot = slot };
	struct ism_relay *s = slot_at(hs, slot);
	int rc = make_slot(hs, slot, token);

	if (!rc && bpf_map_update_elem(hs->maps->sk_relay, &sock, &mark, BPF_ANY))
		rc = -errno;
	if (rc) {
		__atomic_store_n(&s->token, 0, __ATOMIC_RELEASE);
		s->owner = 0;
		return rc;
	}
	memset(&hs->guard->holds[slot], 0, sizeof(*hs->guard->holds));
	if (slot >= hs->high)
		hs->high = slot + 1;
	return 0;
}

int relay_holds_rings(struct relay_holds *hs, __u64 token, const void *own, const void *peer)
{
	int i = relay_holds_find(hs, token);
	struct relay_hold *h;

	if (i < 0)
		return 0;
	h = &hs->guard->holds[i];
	h->peer = peer;
	h->own = own;
	if (!own)
		return 1;
	slot_at(hs, i)->owner = self(hs);
	hs->next_ns = 0;
	return 1;
}

int relay_holds_is_orphan(const struct relay_holds *hs, __u64 token)
{
	int i = relay_holds_find(hs, token);

	return i >= 0 && slot_at(hs, i)->sk_flags & ISM_RELAY_SK_ORPHAN;
}

int relay_holds_wake(struct relay_holds *hs, __u64 token)
{
	if (relay_holds_find(hs, token) < 0)
		return 0;
	hs->next_ns = 0;
	return 1;
}

/* Its guard works without its ismredird, and knows the rings; if it does not, we do what is left to be done. */
static int is_anothers(struct relay_hold *h, const struct ism_relay *s, __u32 self, __u64 now)
{
	__u32 beat = __atomic_load_n(&s->beat, __ATOMIC_ACQUIRE);

	if (s->owner == self)
		return 0;
	if (beat != h->beat || !h->beat_ns) {
		h->beat = beat;
		h->beat_ns = now;
	}
	return now - h->beat_ns < RELAY_HOLD_UNKNOWN_NS;
}

static void act(struct relay_holds *hs, struct ism_relay *s, enum relay_hold_todo todo)
{
	struct ism_conn c;

	if ((todo != HOLD_KICK && todo != HOLD_RESET) || relay_maps_conn(hs->maps, s->token, &c))
		return;
	if (todo == HOLD_KICK) {
		log_client(LOG_INFO,
			   "relay: the FIN of a program that did not say its end is let go");
		relay_guard_kick(hs->guard, &c);
		return;
	}
	hs->resets++;
	log_client(
		LOG_WARNING,
		"relay: a connection is reset: its program ended with bytes that were not taken");
	relay_guard_reset(hs->guard, &c);
}

static void look_at_sockets(struct relay_holds *hs)
{
	for (unsigned int i = 0; i < hs->high; i++)
		if (slot_at(hs, i)->token && slot_at(hs, i)->owner)
			slot_at(hs, i)->look = 1;
	relay_maps_look(hs->maps, hs->high);
}

void relay_holds_run(struct relay_holds *hs, __u64 now)
{
	enum relay_hold_todo todo;
	int waits = 0;

	if (now < hs->next_ns || !hs->high)
		return;
	look_at_sockets(hs);
	for (unsigned int i = 0; i < hs->high; i++) {
		struct relay_hold *h = &hs->guard->holds[i];
		struct ism_relay *s = slot_at(hs, i);

		if (!s->token || !s->owner || is_anothers(h, s, self(hs), now))
			continue;
		todo = relay_hold_step(h, s, h->own, h->peer, now);
		act(hs, s, todo);
		waits |= todo == HOLD_WAIT;
	}
	while (hs->high && !slot_at(hs, hs->high - 1)->owner)
		hs->high--;
	hs->next_ns = now + (waits ? WAIT_NS : LOOK_NS);
}

int relay_holds_any(const struct relay_holds *hs)
{
	for (unsigned int i = 0; i < hs->high; i++)
		if (slot_at(hs, i)->owner == self(hs) && relay_hold_is_on(slot_at(hs, i)))
			return 1;
	return 0;
}
