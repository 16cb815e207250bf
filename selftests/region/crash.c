// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A peer dies before each of its stores and fences in turn, in many random workloads; the survivor goes on, and then
 * the peer comes back in the same boot, in another one, or never. After each death: nothing that is
 * half-written is valid, no two DMBs overlap, no memory is used again that an attach table names, and at the
 * end all memory can be had. Then the same with stores lost that were not visible yet, and, instead of a
 * death, with the other peer doing something at that point.
 *
 * Run as `crash SEEDS [FIRST]`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "box.h"

#define OPS	 28 /* of a workload */
#define MAX_DMBS 6 /* that a side has at a time */
#define LEN_MAX	 12288
#define TOKENS	 512 /* of a workload, all told */
#define PARTNER	 0x100000 /* between the tokens of a pair */
#define INIT_LEN 200 /* what some DMBs begin with */

enum { DYING, SURVIVOR };

/* One of both peers, as the workload knows it. */
struct side {
	struct ism_fabric *f;
	struct ism_dmb *dmb[MAX_DMBS];
	struct ism_dmb_map map[MAX_DMBS];
	__u64 written[TOKENS]; /* tokens of its own that somebody wrote to */
	unsigned int n_written;
};

enum aftermath { SAME_BOOT, OTHER_BOOT, NEVER, N_AFTERMATHS };

static struct side side[2];
static __u64 next_token;
static __u64 rng;
static const char *where;
static unsigned int failures;
static __u64 interleaved_op;
static int stepped_in;
static __u64 going; /* token that the dying peer is about to unregister */

/* What was ever attached or could be: entries of directories, with the memory that they had. */
static struct {
	__u64 dmb, state, off, len;
} history[4 * TOKENS];
static unsigned int n_history;

/* What is being run, for messages. */
static struct {
	unsigned int seed, mode;
	__u64 die_at;
} this;

static void fail(const char *what, __u64 value)
{
	if (failures++ < 10)
		printf("not ok - %s (%llu): seed %u, step %llu, mode %u, %s, %scoherent\n", what,
		       (unsigned long long)value, this.seed, (unsigned long long)this.die_at,
		       this.mode, where, box.is_coherent ? "" : "not ");
}

/* ---------------------------------------------------------------- what a token stands for */

static __u64 len_of(__u64 token)
{
	return 4096 * (1 + token % 3) - token % 50;
}

static int is_by_token(__u64 token)
{
	return token & 4 ? 1 : 0;
}

/* Byte @i of a DMB that nobody has written to. */
static char byte_of(__u64 token, __u64 i)
{
	return token & 2 && i < INIT_LEN ? 1 + (token + i) % 100 : 0;
}

static struct ism_dmb_params params_of(__u64 token, const struct ism_fabric *partner)
{
	struct ism_dmb_params p = { .token = token, .len = len_of(token), .exported = token & 1 };

	if (is_by_token(token))
		p.partner_token = token ^ PARTNER;
	else
		p.partner = partner->info.gid;
	return p;
}

/* ---------------------------------------------------------------- operations */

static struct ism_dmb **free_dmb(struct side *s)
{
	for (int i = 0; i < MAX_DMBS; i++)
		if (!s->dmb[i])
			return &s->dmb[i];
	return NULL;
}

static int is_fresh(const char *mem, __u64 token, __u64 len)
{
	for (__u64 i = 0; i < len; i++)
		if (mem[i] != byte_of(token, i))
			return 0;
	return 1;
}

static unsigned int slot_of(const struct ism_fabric *f)
{
	for (unsigned int i = 0; i < BOX_PEERS; i++)
		if (!memcmp(region_peer(&box.map.mem, &box.map.l, i)->gid, &f->info.gid,
			    sizeof(f->info.gid)))
			return i;
	abort();
}

static void remember(unsigned int peer, __u64 index)
{
	struct region_dmb_copy d;
	__u64 state = region_load(&region_peer(&box.map.mem, &box.map.l, peer)->state);

	if (n_history == sizeof(history) / sizeof(history[0]) ||
	    region_read_dmb(&box.map.mem, &box.map.l, peer, ISM_PEER_GEN(state), index, &d) != 1) {
		fail("a DMB that was registered is not there", index);
		return;
	}
	history[n_history].dmb = ISM_REGION_DMB_ID(peer, index);
	history[n_history].state = d.state;
	history[n_history].off = d.off;
	history[n_history++].len = d.len;
}

/* Of the survivor a token whose mutual partner the dying peer has, if there is one; and the other way. */
static __u64 pick_token(const struct side *me, const struct side *other)
{
	for (int i = 0; i < MAX_DMBS; i++) {
		__u64 t = other->dmb[i] ? other->dmb[i]->token : 0;
		int is_there = 0;

		for (int k = 0; k < MAX_DMBS; k++)
			is_there |= me->dmb[k] && me->dmb[k]->token == (t ^ PARTNER);
		if (t && is_by_token(t) && !is_there && box_random(&rng) & 1)
			return t ^ PARTNER;
	}
	return ++next_token;
}

static void op_register(struct side *me, struct side *other)
{
	struct ism_dmb **at = free_dmb(me);
	struct ism_dmb_params p;
	char init[INIT_LEN];
	struct ism_dmb *d;

	if (!at)
		return;
	p = params_of(pick_token(me, other), other->f ? other->f : me->f);
	for (int i = 0; i < INIT_LEN; i++)
		init[i] = byte_of(p.token, i);
	p.init = init;
	p.init_len = *init ? INIT_LEN : 0;
	if (!ism_fabric_register_dmb(me->f, &p, &d)) {
		*at = d;
		if (!is_fresh(d->addr, d->token, d->len))
			fail("a new DMB has other contents", d->token);
		remember(slot_of(me->f), d->index);
	}
}

/* The entry is forgotten first: a peer that dies in the middle has it no more. */
static void op_unregister(struct side *me)
{
	int i = box_random(&rng) % MAX_DMBS;
	struct ism_dmb *d = me->dmb[i];

	me->dmb[i] = NULL;
	if (me == &side[DYING])
		going = d ? d->token : 0;
	ism_fabric_unregister_dmb(me->f, d);
	if (me == &side[DYING])
		going = 0;
}

static void note_written(struct side *owner, __u64 token)
{
	if (owner->n_written < TOKENS)
		owner->written[owner->n_written++] = token;
}

static struct ism_dmb *any_dmb(const struct side *s)
{
	return s->dmb[box_random(&rng) % MAX_DMBS];
}

static void op_attach(struct side *me, struct side *other)
{
	struct ism_dmb *d = any_dmb(other);
	struct ism_dmb_map *at = &me->map[box_random(&rng) % MAX_DMBS];

	if (!d || at->addr || !(me->f->info.caps & ISM_FABRIC_ATTACH))
		return;
	if (!ism_fabric_attach_dmb(me->f, d->token, at) && me == &side[SURVIVOR]) {
		note_written(other, d->token);
		memset(at->addr, 0xab, at->len);
	}
}

static void op_detach(struct side *me)
{
	struct ism_dmb_map *at = &me->map[box_random(&rng) % MAX_DMBS], was = *at;

	if (!was.addr)
		return;
	at->addr = NULL;
	ism_fabric_detach_dmb(me->f, &was);
}

static void op_move(struct side *me, struct side *other)
{
	struct ism_dmb *d = any_dmb(other);
	char data[100];

	if (!d)
		return;
	memset(data, 0xcd, sizeof(data));
	note_written(other, d->token);
	ism_fabric_move_data(me->f, d->token, d->len - sizeof(data), data, sizeof(data), 1);
}

static void op_event(struct side *me, struct side *other)
{
	if (other->f)
		ism_fabric_signal_event(me->f, &other->f->info.gid, 7, box_random(&rng));
}

static void op_read(struct side *me)
{
	struct ism_event e[BOX_EVENTS];

	box_later(150);
	ism_fabric_read_events(me->f, e, BOX_EVENTS);
}

/* Close and come back: what was exported stays for whom it was exported to. */
static void op_reopen(struct side *me, int slot)
{
	struct ism_fabric *f = me->f;

	memset(me->dmb, 0, sizeof(me->dmb));
	memset(me->map, 0, sizeof(me->map));
	me->f = NULL;
	box_close(f);
	me->f = box_peer(slot, "", NULL);
}

static void one_op(struct side *me, struct side *other, unsigned int what)
{
	switch (what % 12) {
	case 0:
	case 1:
	case 2:
		op_register(me, other);
		break;
	case 3:
	case 4:
		op_unregister(me);
		break;
	case 5:
	case 6:
		op_attach(me, other);
		break;
	case 7:
		op_detach(me);
		break;
	case 8:
	case 9:
		op_move(me, other);
		break;
	case 10:
		op_event(me, other);
		break;
	default:
		op_read(me);
	}
}

/* ---------------------------------------------------------------- beginning */

static void begin(unsigned int seed, int is_coherent)
{
	n_history = 0;
	going = 0;
	stepped_in = 0;
	memset(side, 0, sizeof(side));
	next_token = 100 + seed % 7;
	box_reset(is_coherent);
	side[SURVIVOR].f = box_peer(1, "", NULL);
	if (!side[SURVIVOR].f)
		abort();
	box_new_process(); /* numbers only: nobody of 1000 has attached anything yet */
}

/* ---------------------------------------------------------------- what must be true */

static enum region_life life[ISM_REGION_MAX_PEERS];

static void found(void *arg, int peer, const char *text)
{
	(void)arg;
	if (strstr(text, "was killed") || strstr(text, "never finished"))
		return;
	fail(text, peer);
}

static int was_written(const struct side *s, __u64 token)
{
	for (unsigned int i = 0; i < s->n_written; i++)
		if (s->written[i] == token)
			return 1;
	return 0;
}

/* Is everything that the entry says what was to be registered with this token? */
static void check_entry(unsigned int peer, const struct region_dmb_copy *d)
{
	__u64 partner_token = is_by_token(d->token) ? d->token ^ PARTNER : 0;
	const char *mem = box.map.mem.base + d->off;

	if (d->len != len_of(d->token) || d->partner_token != partner_token ||
	    !partner_token != (d->partner[0] || d->partner[1]) ||
	    d->flags != (d->token & 1 ? ISM_REGION_DMB_EXPORTED : 0))
		fail("a half-written entry is valid", d->token);
	if (peer == 0 && !was_written(&side[DYING], d->token) && !is_fresh(mem, d->token, d->len))
		fail("an entry is valid before its memory has its contents", d->token);
}

/* It names memory as an entry of the owner did, which may have gone since. */
static void check_attached(const struct region_attach_copy *a)
{
	for (unsigned int i = 0; i < n_history; i++)
		if (history[i].dmb == a->dmb && history[i].state == a->dmb_state &&
		    history[i].off == a->off && history[i].len == a->len)
			return;
	fail("a half-written attachment is valid", a->dmb);
}

static __u64 live_gen(unsigned int peer, int *is_live)
{
	__u64 state = region_load(&region_peer(&box.map.mem, &box.map.l, peer)->state);

	*is_live = ISM_PEER_WHAT(state) == ISM_PEER_LIVE;
	return ISM_PEER_GEN(state);
}

/* No DMB that is registered lies in memory that an entry for another DMB names. */
static void check_reuse(unsigned int peer, const struct region_dmb_copy *d, __u64 index)
{
	struct region_attach_copy a;
	int is_live;

	for (unsigned int i = 0; i < BOX_PEERS; i++) {
		__u64 gen = live_gen(i, &is_live);

		for (__u64 k = 0; is_live && k < BOX_DMBS; k++)
			if (region_read_attach(&box.map.mem, &box.map.l, i, gen, k, &a) == 1 &&
			    a.off < d->off + d->len && d->off < a.off + a.len &&
			    (a.dmb != ISM_REGION_DMB_ID(peer, index) || a.dmb_state != d->state))
				fail("memory that is attached was used again", d->token);
	}
}

static void check_all(const char *when)
{
	struct region_attach_copy a;
	struct region_dmb_copy d;
	int is_live;

	where = when;
	region_check(&box.map, life, 0, found, NULL);
	for (unsigned int i = 0; i < BOX_PEERS; i++) {
		__u64 gen = live_gen(i, &is_live);

		for (__u64 k = 0; is_live && k < BOX_DMBS; k++) {
			if (region_read_dmb(&box.map.mem, &box.map.l, i, gen, k, &d) == 1) {
				check_entry(i, &d);
				check_reuse(i, &d, k);
			}
			if (region_read_attach(&box.map.mem, &box.map.l, i, gen, k, &a) == 1)
				check_attached(&a);
		}
	}
}

/* ---------------------------------------------------------------- the workload */

static void workload(unsigned int seed, int slot)
{
	struct side *a = &side[DYING], *b = &side[SURVIVOR];

	rng = seed;
	where = "open";
	box.is_watched = 1;
	a->f = box_peer(slot, "", NULL);
	for (int i = 0; i < OPS && a->f; i++) {
		unsigned int what = box_random(&rng);

		where = "an operation";
		if (box_random(&rng) % 3) {
			if (what % 40 == 39)
				op_reopen(a, slot);
			else
				one_op(a, b, what / 40);
			if (stepped_in) {
				box.is_watched = 0;
				check_all("after stepping in");
				stepped_in = 0;
				box.is_watched = 1;
			}
			continue;
		}
		box.is_watched = 0;
		one_op(b, a, what);
		box.is_watched = 1;
	}
	box.is_watched = 0;
}

/* ---------------------------------------------------------------- afterwards */

/* The survivor does this and that, next to the dead. */
static void go_on(const char *when)
{
	struct side *b = &side[SURVIVOR];
	struct side nobody = {};

	for (int i = 0; i < 6; i++) {
		op_read(b);
		op_register(b, &nobody);
		check_all(when);
		if (box_random(&rng) & 1)
			op_unregister(b);
		op_detach(b);
	}
}

static void give_up_all(struct side *s)
{
	for (int i = 0; i < MAX_DMBS; i++) {
		if (s->map[i].addr)
			ism_fabric_detach_dmb(s->f, &s->map[i]);
		ism_fabric_unregister_dmb(s->f, s->dmb[i]);
		s->dmb[i] = NULL;
		s->map[i].addr = NULL;
	}
}

/* All of an arena in one piece: nothing is lost for good. */
static void take_all(struct side *s, const char *when)
{
	struct ism_dmb_params p = { .token = 0xffff0000 + (s == &side[SURVIVOR]),
				    .len = box.map.l.arena,
				    .partner = s->f->info.gid };
	struct ism_dmb *d;
	int rc = ism_fabric_register_dmb(s->f, &p, &d);

	where = when;
	if (rc)
		fail("memory is lost", -rc);
	else
		ism_fabric_unregister_dmb(s->f, d);
}

static void settle(void)
{
	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 2; k++)
			if (side[k].f)
				op_read(&side[k]);
}

/* Programs give back what they had; all that they do not is given up. */
static void adopt_all(struct side *a, const struct ism_gid *partner)
{
	struct region_dmb_copy d;
	int is_live;
	__u64 gen = live_gen(0, &is_live);

	for (__u64 k = 0; k < BOX_DMBS; k++) {
		struct ism_dmb_params p;
		struct ism_dmb_fds fds;
		struct ism_dmb **at = free_dmb(a), *dmb;
		int rc;

		if (region_read_dmb(&box.map.mem, &box.map.l, 0, gen, k, &d) != 1 || !at)
			continue;
		p = params_of(d.token, side[SURVIVOR].f);
		if (p.partner_token == 0 && memcmp(&p.partner, partner, sizeof(*partner)))
			continue;
		fds = (struct ism_dmb_fds){ dup(box.fd), -1, eventfd(0, 0), d.off };
		rc = ism_fabric_adopt_dmb(a->f, &p, &fds, &dmb);
		if (rc) {
			fail("a DMB could not be given back", d.token);
			close(fds.read);
			close(fds.bell);
		} else {
			*at = dmb;
		}
	}
}

static void come_back(int slot, int is_other_boot)
{
	struct side *a = &side[DYING];
	struct ism_gid partner = side[SURVIVOR].f->info.gid;
	int was_live, rc;
	__u64 gen = live_gen(0, &was_live);
	struct region_peer_copy before;

	region_read_peer(&box.map.mem, &box.map.l, 0, &before);
	memset(a->dmb, 0, sizeof(a->dmb));
	memset(a->map, 0, sizeof(a->map));
	if (is_other_boot)
		box_new_boot();
	else
		box_new_process();
	a->f = box_peer(is_other_boot ? 0 : slot, "",
			&rc); /* nobody but its own host has it given */
	if (!a->f) {
		fail("it cannot come back", -rc);
		return;
	}
	check_all("come back");
	if (is_other_boot) {
		if (live_gen(0, &was_live) == gen && was_live)
			fail("another boot, the same generation", gen);
	} else if (was_live) {
		if (live_gen(0, &was_live) != gen)
			fail("the same boot, another generation", gen);
		if (box.is_coherent)
			adopt_all(a, &partner);
	}
	go_on("next to who came back");
	for (int i = 0; i < 6; i++) {
		op_register(a, &side[SURVIVOR]);
		check_all("who came back");
	}
}

/* Nobody is the dead peer any more. */
static void bury(void)
{
	life[0] = REGION_DEAD;
	if (ISM_PEER_WHAT(region_load(&region_peer(&box.map.mem, &box.map.l, 0)->state)) ==
	    ISM_PEER_CLAIMED)
		life[0] = REGION_SILENT;
	region_check(&box.map, life, 1, found, NULL);
	check_all("buried");
}

/* Who is left gives up all that it has; all of the memory is free then. */
static void wind_up(void)
{
	for (int i = 0; i < 2; i++)
		if (side[i].f)
			give_up_all(&side[i]);
	box_later(REGION_ORPHAN_MS + 1000);
	settle();
	for (int i = 0; i < 2; i++)
		if (side[i].f)
			take_all(&side[i], "the end");
	for (int i = 0; i < 2; i++) {
		if (side[i].f)
			ism_fabric_close(side[i].f);
		side[i].f = NULL;
	}
}

static void afterwards(enum aftermath how, int slot)
{
	for (int i = 0; i < BOX_PEERS; i++)
		life[i] = i == 1 ? REGION_ALIVE : REGION_SILENT;
	check_all("dead");
	go_on("next to the dead");
	if (how == NEVER)
		bury();
	else
		come_back(slot, how == OTHER_BOOT);
	wind_up();
}

/* ---------------------------------------------------------------- running it */

/* One workload up to the death before store @die_at. Returns 0 when it did not come to that. */
static int run(unsigned int seed, int is_coherent, __u64 die_at, int is_losing)
{
	int slot = is_coherent && seed & 1 ? -1 : 0;
	volatile int died = 1;

	this.seed = seed;
	this.die_at = die_at;
	begin(seed, is_coherent);
	if (slot < 0) /* the lowest that is free */
		ism_fabric_close(box_peer(0, "", NULL));
	box.steps = 0;
	box.die_at = die_at;
	if (!setjmp(box.dead)) {
		workload(seed, slot);
		died = 0;
	}
	this.mode = (die_at + seed) % N_AFTERMATHS;
	if (died && is_losing)
		box_lose(seed * 7919 + die_at);
	box_kill(side[DYING].f);
	side[DYING].f = NULL;
	afterwards(this.mode, slot);
	return died;
}

static __u64 deaths(unsigned int first, unsigned int seeds, int is_losing)
{
	__u64 n = 0;

	for (unsigned int s = first; s < first + seeds; s++)
		for (int is_coherent = 0; is_coherent < 2; is_coherent++)
			for (__u64 at = 1; run(s, is_coherent, at, is_losing); at++)
				n++;
	return n;
}

/* All that the other end may be about: its own go and come, those of the other one are attached. */
static void step_in(void)
{
	struct side *b = &side[SURVIVOR];
	struct ism_dmb_map *at = &b->map[MAX_DMBS - 1];

	box.at = NULL;
	stepped_in = 1;
	if (going && interleaved_op & 1) {
		if (!at->addr && !ism_fabric_attach_dmb(b->f, going, at)) {
			note_written(&side[DYING], going);
			memset(at->addr, 0xab, at->len);
		}
	} else if (interleaved_op % 3 == 0) {
		for (int i = 0; i < MAX_DMBS; i++) {
			ism_fabric_unregister_dmb(b->f, b->dmb[i]);
			b->dmb[i] = NULL;
		}
		for (int i = 0; i < MAX_DMBS; i++)
			op_register(b, &side[DYING]);
	} else {
		one_op(b, &side[DYING], interleaved_op);
	}
}

/* The survivor does something between two stores of the other one. */
static __u64 interleavings(unsigned int first, unsigned int seeds)
{
	__u64 n = 0;

	this.mode = 9;
	for (unsigned int s = first; s < first + seeds; s++)
		for (__u64 at = 1;; at++) {
			this.seed = s;
			this.die_at = at;
			begin(s, at & 1);
			box.steps = 0;
			box.die_at = at;
			box.at = step_in;
			interleaved_op = at + s;
			workload(s, 0);
			if (box.at) {
				ism_fabric_close(side[DYING].f);
				ism_fabric_close(side[SURVIVOR].f);
				break;
			}
			n++;
			for (int i = 0; i < BOX_PEERS; i++)
				life[i] = REGION_ALIVE;
			check_all("after stepping in");
			wind_up();
		}
	return n;
}

static void report(const char *what, __u64 n)
{
	printf("%s - %s: %llu\n", failures ? "not ok" : "ok", what, (unsigned long long)n);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned int seeds = argc > 1 ? strtoul(argv[1], NULL, 10) : 10;
	unsigned int first = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;

	box_open();
	report("deaths at a store or fence", deaths(first, seeds, 0));
	report("deaths with stores lost or out of order", deaths(first + 1000, seeds, 1));
	report("steps in between", interleavings(first + 2000, 3 * seeds));
	return failures != 0;
}
