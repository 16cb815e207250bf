// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The owner's side of a region: DMBs in the own directory and arena, those that an earlier process left,
 * and memory that waits until nobody can write to it any more.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "memfd_mem.h"
#include "region_priv.h"

#define TRIES 100 /* to read an entry that is being changed */

static struct ism_region_dmb *entry(struct region *r, __u64 index)
{
	return region_dmb(&r->mem, &r->l, r->me, index);
}

static __u64 in_arena(const struct region *r, __u64 off)
{
	return off - region_arena(&r->l, r->me);
}

/* ---------------------------------------------------------------- memory that waits */

static int hold(struct region *r, __u64 off, __u64 len, __u64 index)
{
	if (r->n_held == r->held_room) {
		unsigned int room = r->held_room ? 2 * r->held_room : 32;
		void *held = realloc(r->held, room * sizeof(*r->held));

		if (!held)
			return -ENOMEM;
		r->held = held;
		r->held_room = room;
	}
	r->held[r->n_held++] = (struct region_held){ off, len, index };
	r->n_held_of[index]++;
	return 0;
}

typedef void (*named_fn)(struct region *r, const struct region_attach_copy *a, void *arg);

static int overlap(__u64 a, __u64 a_len, __u64 b, __u64 b_len)
{
	return a < b + b_len && b < a + a_len;
}

/*
 * May this entry name something of @off, @len? What becomes valid after this look is looked at again by
 * its peer; and an entry changes only while it is not valid.
 */
static int may_name(const struct region *r, const struct ism_region_attach *at, __u64 off,
		    __u64 len)
{
	return (region_load(&at->state) & ISM_ENTRY_VALID) &&
	       ISM_REGION_DMB_PEER(region_load(&at->dmb)) == r->me &&
	       overlap(region_load(&at->off), region_load(&at->len), off, len);
}

/* One that cannot be read, because it changes all the time, names what it said last: -EAGAIN. */
static int read_named(struct region *r, unsigned int peer, __u64 gen, __u64 index,
		      struct region_attach_copy *ret)
{
	int rc, tries = 0;

	do
		rc = region_read_attach(&r->mem, &r->l, peer, gen, index, ret);
	while (rc == -EAGAIN && ++tries < TRIES);
	return rc == 1 && ISM_REGION_DMB_PEER(ret->dmb) != r->me ? 0 : rc;
}

/* All entries of attach tables, also the own one, that name memory of @off, @len. 0, or -EAGAIN: not sure */
static int for_each_named(struct region *r, __u64 off, __u64 len, named_fn fn, void *arg)
{
	int unsure = 0;

	for (unsigned int i = 0; i < r->l.peers; i++) {
		struct ism_region_peer *p = region_peer(&r->mem, &r->l, i);
		struct ism_region_attach *at = region_attach(&r->mem, &r->l, i, 0);
		__u64 state = region_state_of(r, i), n;
		struct region_attach_copy a;

		if (!region_counts(r, i, state))
			continue;
		region_expect(&r->mem, &p->attach_high, sizeof(p->attach_high));
		n = region_high(&r->l, &p->attach_high);
		if (n)
			region_expect(&r->mem, at, n * sizeof(*at));
		for (__u64 k = 0; k < n; k++) {
			int rc = may_name(r, at + k, off, len)
					 ? read_named(r, i, ISM_PEER_GEN(state), k, &a)
					 : 0;

			unsure |= rc == -EAGAIN;
			if (rc == 1)
				fn(r, &a, arg);
		}
	}
	return unsure ? -EAGAIN : 0;
}

static void mark(struct region *r, const struct region_attach_copy *a, void *arg)
{
	char *named = arg;

	for (unsigned int i = 0; i < r->n_held; i++)
		if (overlap(r->held[i].off, r->held[i].len, a->off, a->len))
			named[i] = 1;
}

void region_release_held(struct region *r)
{
	char *named = r->n_held ? calloc(r->n_held, 1) : NULL;
	unsigned int kept = 0;

	if (!named)
		return;
	region_fence(&r->mem);
	if (for_each_named(r, region_arena(&r->l, r->me), r->l.arena, mark, named)) {
		free(named);
		return;
	}
	for (unsigned int i = 0; i < r->n_held; i++) {
		struct region_held h = r->held[i];

		if (named[i]) {
			r->held[kept++] = h;
			continue;
		}
		region_alloc_give(&r->alloc, in_arena(r, h.off), h.len);
		r->n_held_of[h.index]--;
	}
	r->n_held = kept;
	free(named);
}

struct look {
	__u64 off, len;
	int found;
};

static void look(struct region *r, const struct region_attach_copy *a, void *arg)
{
	struct look *l = arg;

	(void)r;
	l->found |= overlap(l->off, l->len, a->off, a->len);
}

static int is_named(struct region *r, __u64 off, __u64 len)
{
	struct look l = { off, len, 0 };

	return for_each_named(r, off, len, look, &l) || l.found;
}

/* ---------------------------------------------------------------- register */

static struct region_own *find_own(const struct region *r, __u64 token)
{
	for (__u64 i = 0; i < r->own_high; i++)
		if (r->own[i] && r->own[i]->base.token == token)
			return r->own[i];
	return NULL;
}

/* Anybody's, also of a peer that is silent right now. */
static int is_token_known(struct region *r, __u64 token)
{
	region_sync(r);
	for (unsigned int i = 0; i < r->l.peers; i++)
		for (__u64 k = 0; k < r->view[i].n_known; k++)
			if (r->view[i].known[k].state && r->view[i].known[k].token == token)
				return 1;
	return find_own(r, token) != NULL;
}

static int find_index(const struct region *r, __u64 *ret)
{
	for (__u64 i = 0; i < r->base.info.max_dmbs; i++)
		if (!r->own[i] && !r->n_held_of[i]) {
			*ret = i;
			return 0;
		}
	return -ENOSPC;
}

static int find_room(const struct region *r, __u64 len, __u64 *ret_index, __u64 *ret_off)
{
	int rc = find_index(r, ret_index);

	return rc ? rc : region_alloc_find(&r->alloc, len, ret_off);
}

/* Everything of the entry, and only then that it is valid; then that something changed. */
static void publish(struct region *r, struct region_own *o, const struct ism_dmb_params *p)
{
	struct ism_region_dmb *d = entry(r, o->base.index);
	struct ism_region_peer *self = region_self(r);
	__u64 partner[2];

	region_words(partner, &p->partner);
	region_store(&r->mem, &d->peer_gen, ISM_PEER_GEN(r->state));
	region_store(&r->mem, &d->token, p->token);
	region_store(&r->mem, &d->partner_token, p->partner_token);
	region_store(&r->mem, &d->partner[0], partner[0]);
	region_store(&r->mem, &d->partner[1], partner[1]);
	region_store(&r->mem, &d->off, o->off);
	region_store(&r->mem, &d->len, p->len);
	region_store(&r->mem, &d->flags, p->vlan | (p->exported ? ISM_REGION_DMB_EXPORTED : 0));
	region_publish(&r->mem, d, sizeof(*d));
	if (o->base.index >= r->own_high) {
		r->own_high = o->base.index + 1;
		region_set(r, &self->dmb_high, r->own_high);
	}
	o->state = ISM_ENTRY_NEXT(region_load(&d->state));
	region_set(r, &d->state, o->state);
	region_set(r, &self->changes, ++r->changes);
}

static struct region_own *new_own(const struct ism_dmb_params *p)
{
	struct region_own *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->bell_fd = -1;
	o->base.token = p->token;
	o->base.len = p->len;
	o->base.partner = p->partner;
	o->base.vlan = p->vlan;
	o->base.exported = p->exported;
	o->partner_token = p->partner_token;
	return o;
}

static __u64 bell_of(struct region *r, __u64 index)
{
	struct ism_region_bell *b = region_bell(&r->mem, &r->l, r->me, index);

	region_expect(&r->mem, b, sizeof(*b));
	return region_load(&b->value);
}

/*
 * What the DMB is at first, for everybody. Never a line of it stays in a cache of this CPU: written back
 * later it would take the place of what the partner has written.
 */
static void fill(struct region *r, struct region_own *o, const struct ism_dmb_params *p)
{
	__u64 len = (o->base.len + r->l.unit - 1) / r->l.unit * r->l.unit;

	o->base.addr = r->mem.base + o->off;
	region_zero(&r->mem, o->base.addr, len);
	if (p->init_len)
		region_copy(&r->mem, o->base.addr, p->init, p->init_len);
	region_publish(&r->mem, o->base.addr, len);
}

static void count(struct region *r, const struct region_own *o, int n)
{
	r->base.counters.dmbs += n;
	r->base.counters.dmb_bytes += n * (__s64)o->base.len;
}

static int may_register(struct region *r, const struct ism_dmb_params *p)
{
	int rc = region_check_self(r);

	if (rc)
		return rc;
	if (!fabric_has_label(&r->labels, p->vlan))
		return -ENOENT;
	return is_token_known(r, p->token) ? -EEXIST : 0;
}

int region_register_dmb(struct ism_fabric *f, const struct ism_dmb_params *p, struct ism_dmb **ret)
{
	struct region *r = region_of(f);
	struct region_own *o;
	__u64 index, at;
	int rc = may_register(r, p);

	if (rc)
		return rc;
	rc = find_room(r, p->len, &index, &at);
	if (rc) {
		region_release_held(r);
		rc = find_room(r, p->len, &index, &at);
	}
	if (rc)
		return rc;
	o = new_own(p);
	if (o && p->exported)
		o->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = !o ? -ENOMEM : p->exported && o->bell_fd < 0 ? -errno : 0;
	if (!rc)
		rc = region_alloc_take(&r->alloc, at, p->len);
	if (rc) {
		if (o && o->bell_fd >= 0)
			close(o->bell_fd);
		free(o);
		return rc;
	}
	o->base.index = index;
	o->off = region_arena(&r->l, r->me) + at;
	o->bell = bell_of(r, index);
	r->own[index] = o;
	fill(r, o, p);
	publish(r, o, p);
	count(r, o, 1);
	region_wake(r);
	*ret = &o->base;
	return 0;
}

/* ---------------------------------------------------------------- unregister */

static void forget(struct region *r, struct region_own *o)
{
	r->own[o->base.index] = NULL;
	if (o->bell_fd >= 0)
		close(o->bell_fd);
	free(o);
}

/*
 * The entry becomes invalid; then the attach tables are looked at. A partner does it the other way
 * round: names the memory, then looks at the entry again. So one of both sees the other.
 */
static void withdraw(struct region *r, struct region_own *o)
{
	__u64 index = o->base.index;

	if (!region_check_self(r)) {
		region_set(r, &entry(r, index)->state, o->state & ~ISM_ENTRY_VALID);
		region_set(r, &region_self(r)->changes, ++r->changes);
		region_drop_loops(r, index);
	}
	if (!is_named(r, o->off, o->base.len))
		region_alloc_give(&r->alloc, in_arena(r, o->off), o->base.len);
	else if (hold(r, o->off, o->base.len, index))
		r->n_held_of[index]++; /* nobody remembers why: for as long as this runs */
	forget(r, o);
}

void region_unregister_dmb(struct ism_fabric *f, struct ism_dmb *dmb)
{
	struct region *r = region_of(f);
	struct region_own *o = (struct region_own *)dmb;

	count(r, o, -1);
	withdraw(r, o);
}

unsigned int region_drop_own(struct region *r)
{
	unsigned int left = 0;

	for (__u64 i = 0; i < r->own_high; i++) {
		struct region_own *o = r->own[i];

		if (!o)
			continue;
		if (o->base.exported) {
			left++;
			forget(r, o);
		} else {
			withdraw(r, o);
		}
	}
	return left;
}

/* ---------------------------------------------------------------- what was there before */

static int find_orphan(struct region *r, __u64 index, const struct region_dmb_copy *d)
{
	struct ism_dmb_params p = { .token = d->token,
				    .len = d->len,
				    .partner_token = d->partner_token,
				    .partner = region_gid(d->partner),
				    .vlan = d->flags & ISM_REGION_DMB_VLAN,
				    .exported = !!(d->flags & ISM_REGION_DMB_EXPORTED) };
	struct region_own *o;

	o = new_own(&p);
	if (!o || region_alloc_take(&r->alloc, in_arena(r, d->off), d->len)) {
		free(o);
		return -ENOMEM;
	}
	o->base.index = index;
	o->base.addr = r->mem.base + d->off;
	o->off = d->off;
	o->state = d->state;
	o->bell = bell_of(r, index) - 1; /* as if it had been rung meanwhile */
	o->is_orphan = 1;
	r->own[index] = o;
	r->n_orphans++;
	return 0;
}

/* Memory that others have attached, of a DMB that this generation does not know. */
static void hold_named(struct region *r, const struct region_attach_copy *a, void *arg)
{
	__u64 index = ISM_REGION_DMB_INDEX(a->dmb);
	int *rc = arg;

	if (r->own[index] && r->own[index]->off <= a->off &&
	    a->off + a->len <= r->own[index]->off + r->own[index]->base.len)
		return;
	if (*rc)
		return;
	*rc = region_alloc_take(&r->alloc, in_arena(r, a->off), a->len);
	if (!*rc)
		*rc = hold(r, a->off, a->len, index);
}

/* A DMB that is not exported cannot be given back by anybody. One that cannot be is none. */
int region_find_orphans(struct region *r)
{
	struct ism_region_peer *self = region_self(r);
	struct region_dmb_copy d;
	int rc = 0;

	region_expect(&r->mem, &self->dmb_high, sizeof(self->dmb_high));
	r->own_high = region_high(&r->l, &self->dmb_high);
	for (__u64 i = 0; i < r->own_high && !rc; i++) {
		int is_valid =
			region_read_dmb(&r->mem, &r->l, r->me, ISM_PEER_GEN(r->state), i, &d);

		if (is_valid == 1 && region_alloc_is_free(&r->alloc, in_arena(r, d.off), d.len))
			rc = find_orphan(r, i, &d);
		else if (is_valid)
			region_set(r, &entry(r, i)->state, d.state & ~ISM_ENTRY_VALID);
	}
	for (__u64 i = 0; i < r->own_high && !rc; i++)
		if (r->own[i] && !r->own[i]->base.exported) {
			r->n_orphans--;
			withdraw(r, r->own[i]);
		}
	if (!rc && for_each_named(r, region_arena(&r->l, r->me), r->l.arena, hold_named, &rc))
		rc = -EBUSY;
	region_set(r, &self->changes, ++r->changes);
	r->orphans_ms = region_now_ms() + REGION_ORPHAN_MS;
	return rc;
}

void region_drop_orphans(struct region *r)
{
	for (__u64 i = 0; i < r->own_high && r->n_orphans; i++)
		if (r->own[i] && r->own[i]->is_orphan) {
			r->n_orphans--;
			withdraw(r, r->own[i]);
		}
}

/* Is it this region? A server of a file system is not asked, so it cannot delay the answer. */
static int is_region(const struct region *r, int fd)
{
	const int flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
	struct statx ours, theirs;

	if (r->dev.fd < 0 || statx(r->dev.fd, "", flags, STATX_INO | STATX_TYPE, &ours) ||
	    statx(fd, "", flags, STATX_INO | STATX_TYPE, &theirs))
		return 0;
	return ours.stx_ino == theirs.stx_ino && ours.stx_dev_major == theirs.stx_dev_major &&
	       ours.stx_dev_minor == theirs.stx_dev_minor && ours.stx_mode == theirs.stx_mode;
}

static int is_given(const struct region *r, const struct region_own *o,
		    const struct ism_dmb_params *p, const struct ism_dmb_fds *fds)
{
	return o && o->is_orphan && o->base.len == p->len && p->exported &&
	       o->partner_token == p->partner_token &&
	       fabric_same_gid(&o->base.partner, &p->partner) && o->base.vlan == p->vlan &&
	       fds->off == r->dev.fd_off + o->off && (fds->read < 0 || is_region(r, fds->read)) &&
	       (fds->write < 0 || is_region(r, fds->write)) && !ism_check_eventfd(fds->bell);
}

int region_adopt_dmb(struct ism_fabric *f, const struct ism_dmb_params *p,
		     const struct ism_dmb_fds *fds, struct ism_dmb **ret)
{
	struct region *r = region_of(f);
	struct region_own *o = find_own(r, p->token);
	int bell, rc = region_check_self(r);

	if (rc)
		return rc;
	if (o && !o->is_orphan)
		return -EEXIST;
	if (!is_given(r, o, p, fds))
		return region_refuse(r, -EPERM);
	bell = fcntl(fds->bell, F_DUPFD_CLOEXEC, 0);
	if (bell < 0)
		return -errno;
	if (fds->read >= 0)
		close(fds->read);
	if (fds->write >= 0)
		close(fds->write);
	close(fds->bell);
	o->bell_fd = bell;
	o->is_orphan = 0;
	r->n_orphans--;
	count(r, o, 1);
	region_wake(r);
	region_more(r);
	*ret = &o->base;
	return 0;
}

int region_export_dmb(struct ism_fabric *f, struct ism_dmb *dmb, struct ism_dmb_fds *ret)
{
	struct region_own *o = (struct region_own *)dmb;
	struct region *r = region_of(f);

	if (!dmb->exported)
		return -EINVAL;
	if (!(f->info.caps & ISM_FABRIC_EXPORT))
		return -EOPNOTSUPP;
	*ret = (struct ism_dmb_fds){ r->read_fd, r->dev.fd, o->bell_fd, r->dev.fd_off + o->off };
	return 0;
}

void region_fetch(struct ism_fabric *f, struct ism_dmb *dmb, __u64 offset, size_t len)
{
	struct region *r = region_of(f);

	if (offset <= dmb->len && len && len <= dmb->len - offset)
		region_expect(&r->mem, (char *)dmb->addr + offset, len);
}

/* ---------------------------------------------------------------- labels */

int region_add_vlan(struct ism_fabric *f, __u16 vlan)
{
	return fabric_add_label(&region_of(f)->labels, vlan);
}

int region_del_vlan(struct ism_fabric *f, __u16 vlan)
{
	struct region *r = region_of(f);

	if (!fabric_has_label(&r->labels, vlan))
		return -ENOENT;
	for (__u64 i = 0; i < r->own_high; i++)
		if (r->own[i] && r->own[i]->base.vlan == vlan)
			return -EBUSY;
	fabric_del_label(&r->labels, vlan);
	return 0;
}
