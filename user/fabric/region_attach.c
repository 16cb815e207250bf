// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The partner's side of a region: finding DMBs, the own attach table, moving data and ringing. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "region_priv.h"

static struct ism_region_attach *entry(struct region *r, __u64 index)
{
	return region_attach(&r->mem, &r->l, r->me, index);
}

/* ---------------------------------------------------------------- may this peer write? */

static int is_my_gid(const struct region *r, const __u64 gid[2])
{
	const struct ism_gid it = region_gid(gid);

	return fabric_same_gid(&it, &r->base.info.gid);
}

/* Both ends name each other: this peer has registered what the other one names. @hint: where it was. */
static int is_mutual(const struct region *r, const struct region_dmb_copy *d, __u64 *hint)
{
	__u64 i = *hint;

	if (!d->partner_token)
		return 0;
	if (i >= r->own_high || !r->own[i] || r->own[i]->base.token != d->partner_token)
		for (i = 0; i < r->own_high; i++)
			if (r->own[i] && r->own[i]->base.token == d->partner_token)
				break;
	*hint = i;
	return i < r->own_high && !r->own[i]->is_orphan && r->own[i]->partner_token == d->token;
}

static int is_partner(const struct region *r, unsigned int owner, const struct region_dmb_copy *d,
		      __u64 *hint)
{
	const struct region_peer_copy *me = &r->view[r->me].id, *it = &r->view[owner].id;

	return (is_my_gid(r, d->partner) || is_mutual(r, d, hint)) &&
	       (d->flags & ISM_REGION_DMB_VLAN) <= ISM_VLAN_MAX &&
	       fabric_has_label(&r->labels, d->flags & ISM_REGION_DMB_VLAN) &&
	       me->pnetid[0] == it->pnetid[0] && me->pnetid[1] == it->pnetid[1];
}

/* A DMB with this token of which this peer is the partner. Every peer is looked at, so it is of now. */
static int find_dmb(struct region *r, __u64 token, unsigned int *ret_owner, __u64 *ret_index,
		    struct region_dmb_copy *ret)
{
	int rc = -ENOENT;
	__u64 hint = 0;

	region_sync(r);
	for (unsigned int i = 0; i < r->l.peers; i++) {
		const struct region_view *v = &r->view[i];

		if (v->gone && v->gone == v->id.state)
			continue;
		for (__u64 k = 0; k < v->n_known; k++) {
			if (!v->known[k].state || v->known[k].token != token ||
			    region_read_dmb(&r->mem, &r->l, i, ISM_PEER_GEN(v->id.state), k, ret) !=
				    1 ||
			    ret->token != token)
				continue;
			rc = -EACCES;
			if (!is_partner(r, i, ret, &hint))
				continue;
			*ret_owner = i;
			*ret_index = k;
			return 0;
		}
	}
	return rc;
}

int region_query_dmb(struct ism_fabric *f, __u64 token, struct ism_gid *owner, __u64 *len)
{
	struct region *r = region_of(f);
	struct region_dmb_copy d;
	unsigned int peer;
	__u64 index;
	int rc = find_dmb(r, token, &peer, &index, &d);

	if (!rc && len)
		*len = d.len;
	if (!rc && owner)
		*owner = region_gid(r->view[peer].id.gid);
	return rc;
}

/* ---------------------------------------------------------------- the attach table */

static __u32 *bucket_of(struct region *r, __u64 token)
{
	return &r->bucket[token % REGION_BUCKETS];
}

/* Is what it names still what it was? */
static int is_current(const struct region *r, const struct region_att *a)
{
	unsigned int owner = ISM_REGION_DMB_PEER(a->dmb);
	struct ism_region_dmb *d = region_dmb(&r->mem, &r->l, owner, ISM_REGION_DMB_INDEX(a->dmb));

	if (region_state_of(r, owner) != a->owner_state)
		return 0;
	region_expect(&r->mem, &d->state, sizeof(d->state));
	return region_load(&d->state) == a->dmb_state;
}

static struct region_att *find_att(struct region *r, __u64 token)
{
	for (__u32 i = *bucket_of(r, token); i; i = r->att[i - 1].next) {
		struct region_att *a = &r->att[i - 1];

		if (a->token == token && !a->is_orphan && is_current(r, a))
			return a;
	}
	return NULL;
}

static void link_att(struct region *r, struct region_att *a)
{
	__u32 *at = bucket_of(r, a->token);

	a->next = *at;
	*at = a - r->att + 1;
}

static void drop_att(struct region *r, struct region_att *a)
{
	__u32 *at = bucket_of(r, a->token), number = a - r->att + 1;

	while (*at != number)
		at = &r->att[*at - 1].next;
	*at = a->next;
	if (!region_check_self(r))
		region_set(r, &entry(r, a - r->att)->state, a->state & ~ISM_ENTRY_VALID);
	*a = (struct region_att){};
}

static struct region_att *free_att(struct region *r)
{
	for (__u64 i = 0; i < r->l.dmbs; i++)
		if (!r->att[i].is_used)
			return &r->att[i];
	return NULL;
}

static void write_att(struct region *r, struct region_att *a)
{
	struct ism_region_attach *at = entry(r, a - r->att);
	__u64 index = a - r->att;

	region_store(&r->mem, &at->peer_gen, ISM_PEER_GEN(r->state));
	region_store(&r->mem, &at->dmb, a->dmb);
	region_store(&r->mem, &at->dmb_state, a->dmb_state);
	region_store(&r->mem, &at->off, a->off);
	region_store(&r->mem, &at->len, a->len);
	region_store(&r->mem, &at->pid, r->pid);
	region_store(&r->mem, &at->start, r->start);
	region_publish(&r->mem, at, sizeof(*at));
	if (index >= r->att_high) {
		r->att_high = index + 1;
		region_set(r, &region_self(r)->attach_high, r->att_high);
	}
	a->state = ISM_ENTRY_NEXT(region_load(&at->state));
	region_set(r, &at->state, a->state);
}

/* Name the memory; then look whether it is still there. The owner does it the other way round. */
static int make_att(struct region *r, __u64 token, unsigned int owner, __u64 index,
		    const struct region_dmb_copy *d, struct region_att **ret)
{
	struct ism_region_bell *bell = region_bell(&r->mem, &r->l, owner, index);
	struct region_att *a = free_att(r);

	if (!a) {
		region_drop_stale(r, 1);
		a = free_att(r);
	}
	if (!a)
		return -ENOSPC;
	*a = (struct region_att){ .is_used = 1,
				  .token = token,
				  .dmb = ISM_REGION_DMB_ID(owner, index),
				  .dmb_state = d->state,
				  .owner_state = r->view[owner].id.state,
				  .off = d->off,
				  .len = d->len,
				  .pid = r->pid,
				  .start = r->start };
	link_att(r, a);
	write_att(r, a);
	if (!is_current(r, a)) {
		drop_att(r, a);
		return -ENOENT;
	}
	/* No line of an earlier DMB in this memory may be in a cache here. */
	region_expect(&r->mem, r->mem.base + a->off, a->len);
	region_expect(&r->mem, bell, sizeof(*bell));
	a->bell = region_load(&bell->value);
	*ret = a;
	return 0;
}

/* What a process before this one attached for a program, which goes on writing. */
static struct region_att *find_orphan(struct region *r, unsigned int owner, __u64 index,
				      const struct region_dmb_copy *d)
{
	for (__u64 i = 0; i < r->att_high; i++) {
		struct region_att *a = &r->att[i];

		if (a->is_orphan && a->dmb == ISM_REGION_DMB_ID(owner, index) &&
		    a->dmb_state == d->state && a->off == d->off && a->len == d->len)
			return a;
	}
	return NULL;
}

/* The entry for a DMB of somebody else, made if need be. Refusals are counted. */
static int get_att(struct region *r, __u64 token, struct region_att **ret)
{
	struct region_dmb_copy d;
	unsigned int owner;
	__u64 index;
	int rc = region_check_self(r);

	if (rc)
		return rc;
	rc = find_dmb(r, token, &owner, &index, &d);
	if (rc)
		return region_refuse(r, rc);
	*ret = find_orphan(r, owner, index, &d);
	if (!*ret)
		return make_att(r, token, owner, index, &d, ret);
	(*ret)->is_orphan = 0;
	return 0;
}

/* The label, or the own DMB that it takes, may be gone since. */
static int still_may(struct region *r, struct region_att *a)
{
	unsigned int owner = ISM_REGION_DMB_PEER(a->dmb);
	struct region_dmb_copy d;

	if (region_read_dmb(&r->mem, &r->l, owner, ISM_PEER_GEN(a->owner_state),
			    ISM_REGION_DMB_INDEX(a->dmb), &d) != 1)
		return -ENOENT;
	return is_partner(r, owner, &d, &a->hint) ? 0 : -EACCES;
}

/* As get_att(), for who does not attach by himself. */
static int writable(struct region *r, __u64 token, struct region_att **ret)
{
	int rc;

	*ret = find_att(r, token);
	if (!*ret)
		return get_att(r, token, ret);
	rc = still_may(r, *ret);
	return rc ? region_refuse(r, rc) : 0;
}

int region_attach_dmb(struct ism_fabric *f, __u64 token, struct ism_dmb_map *ret)
{
	struct region *r = region_of(f);
	struct region_att *a;
	int rc;

	if (!(f->info.caps & ISM_FABRIC_ATTACH))
		return -EOPNOTSUPP;
	rc = writable(r, token, &a);
	if (!rc && a->is_user)
		rc = region_refuse(r, -EBUSY);
	if (rc)
		return rc;
	a->is_user = 1;
	*ret = (struct ism_dmb_map){
		.token = token, .len = a->len, .addr = r->mem.base + a->off, .priv = a
	};
	return 0;
}

void region_detach_dmb(struct ism_fabric *f, struct ism_dmb_map *map)
{
	drop_att(region_of(f), map->priv);
	*map = (struct ism_dmb_map){};
}

/* First the program's name, then its descriptor. */
int region_export_map(struct ism_fabric *f, const struct ism_dmb_map *map, struct ism_dmb_fds *ret)
{
	struct region *r = region_of(f);
	struct region_att *a = map->priv;
	struct ism_region_attach *at = entry(r, a - r->att);

	if (!(f->info.caps & ISM_FABRIC_EXPORT))
		return -EOPNOTSUPP;
	if (map->holder && map->holder != a->pid) {
		a->pid = map->holder;
		a->start = region_process_start(map->holder);
		region_store(&r->mem, &at->pid, a->pid);
		region_store(&r->mem, &at->start, a->start);
		region_publish(&r->mem, at, sizeof(*at));
	}
	*ret = (struct ism_dmb_fds){ -1, r->dev.fd, -1, r->dev.fd_off + a->off };
	return 0;
}

/* ---------------------------------------------------------------- what ends */

/* Does a program hold it that is not this process? */
static int is_given_away(const struct region *r, const struct region_att *a)
{
	return (a->pid != r->pid || a->start != r->start) && region_is_process(a->pid, a->start);
}

void region_drop_stale(struct region *r, int with_orphans)
{
	for (__u64 i = 0; i < r->att_high; i++) {
		struct region_att *a = &r->att[i];

		if (!a->is_used || a->is_user)
			continue;
		if (a->is_orphan ? with_orphans && !region_is_process(a->pid, a->start)
				 : !is_current(r, a))
			drop_att(r, a);
	}
}

unsigned int region_drop_attached(struct region *r)
{
	unsigned int left = 0;

	for (__u64 i = 0; i < r->att_high; i++) {
		struct region_att *a = &r->att[i];

		if (!a->is_used)
			continue;
		if (is_given_away(r, a))
			left++;
		else
			drop_att(r, a);
	}
	return left;
}

void region_drop_loops(struct region *r, __u64 index)
{
	__u64 dmb = ISM_REGION_DMB_ID(r->me, index);

	for (__u64 i = 0; i < r->att_high; i++)
		if (r->att[i].is_used && !r->att[i].is_user && r->att[i].dmb == dmb)
			drop_att(r, &r->att[i]);
}

static __u64 token_of(struct region *r, const struct region_attach_copy *a)
{
	unsigned int owner = ISM_REGION_DMB_PEER(a->dmb);
	struct region_dmb_copy d;

	if (region_read_dmb(&r->mem, &r->l, owner, ISM_PEER_GEN(region_state_of(r, owner)),
			    ISM_REGION_DMB_INDEX(a->dmb), &d) != 1 ||
	    d.state != a->dmb_state)
		return 0;
	return d.token;
}

void region_find_attached(struct region *r)
{
	struct ism_region_peer *self = region_self(r);
	struct region_attach_copy c;

	region_expect(&r->mem, &self->attach_high, sizeof(self->attach_high));
	r->att_high = region_high(&r->l, &self->attach_high);
	for (__u64 i = 0; i < r->att_high; i++) {
		struct region_att *a = &r->att[i];
		int rc = region_read_attach(&r->mem, &r->l, r->me, ISM_PEER_GEN(r->state), i, &c);

		if (rc < 0)
			region_set(r, &entry(r, i)->state, c.state & ~ISM_ENTRY_VALID);
		if (rc != 1)
			continue;
		*a = (struct region_att){ .is_used = 1,
					  .is_orphan = 1,
					  .state = c.state,
					  .token = token_of(r, &c),
					  .dmb = c.dmb,
					  .dmb_state = c.dmb_state,
					  .off = c.off,
					  .len = c.len,
					  .pid = c.pid,
					  .start = c.start };
		a->owner_state = region_state_of(r, ISM_REGION_DMB_PEER(c.dmb));
		a->bell = region_load(&region_bell(&r->mem, &r->l, ISM_REGION_DMB_PEER(c.dmb),
						   ISM_REGION_DMB_INDEX(c.dmb))
					       ->value);
		link_att(r, a);
	}
	region_drop_stale(r, 1);
}

/* ---------------------------------------------------------------- writing and ringing */

/* The bell, then that there was one, then the interrupt. */
static void ring(struct region *r, struct region_att *a)
{
	unsigned int owner = ISM_REGION_DMB_PEER(a->dmb);
	__u64 index = ISM_REGION_DMB_INDEX(a->dmb);
	struct ism_region_link *l = region_link(&r->mem, &r->l, r->me, owner);

	r->base.counters.signals++;
	region_set(r, &region_bell(&r->mem, &r->l, owner, index)->value, ++a->bell);
	if (owner == r->me) {
		if (region_hear(r->own[index], a->bell))
			region_more(r);
		return;
	}
	region_set(r, &l->rings, region_load(&l->rings) + 1);
	region_knock(r, owner);
}

int region_ring(struct ism_fabric *f, __u64 token)
{
	struct region *r = region_of(f);
	struct region_att *a;
	int rc = writable(r, token, &a);

	if (!rc)
		ring(r, a);
	return rc;
}

int region_move_data(struct ism_fabric *f, __u64 token, __u64 offset, const void *data, size_t len,
		     int signal)
{
	struct region *r = region_of(f);
	struct region_att *a;
	int rc = writable(r, token, &a);
	char *to;

	if (rc)
		return rc;
	if (offset > a->len || len > a->len - offset)
		return -ERANGE;
	to = r->mem.base + a->off + offset;
	region_copy(&r->mem, to, data, len);
	region_publish(&r->mem, to, len);
	f->counters.moves++;
	f->counters.moved_bytes += len;
	if (signal)
		ring(r, a);
	return 0;
}
