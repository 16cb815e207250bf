// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The table of pairs; see pairs.h. What DMBs say about themselves is in dmbs.c. */
#define _GNU_SOURCE
#include "pairs.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "dmbs.h"
#include "far.h"

/* ---------------------------------------------------------------- finding */

/* Tokens are random, so their low bits spread well. */
static struct pair_end **bucket_of(struct pairs *t, __u64 token)
{
	return &t->bucket[token % PAIR_BUCKETS];
}

struct pair_end *pairs_find(struct pairs *t, __u64 token)
{
	struct pair_end *e = *bucket_of(t, token);

	while (e && e->token != token)
		e = e->next;
	return e;
}

struct pair_end *pair_partner(const struct pair_end *e)
{
	return &e->pair->end[e == &e->pair->end[0]];
}

const struct pair *pairs_after(const struct pairs *t, __u64 serial)
{
	const struct pair *p = t->first;

	while (p && p->serial <= serial)
		p = p->next;
	return p;
}

/* ---------------------------------------------------------------- making and ending a pair */

void pair_link(struct pairs *t, struct pair *p)
{
	p->serial = ++t->serial;
	p->prev = t->last;
	if (t->last)
		t->last->next = p;
	else
		t->first = p;
	t->last = p;
	for (int i = 0; i < 2; i++) {
		struct pair_end *e = &p->end[i], **at = bucket_of(t, e->token);

		e->pair = p;
		e->next = *at;
		*at = e;
	}
	t->n++;
	t->bytes += p->bytes;
	p->account->bytes += p->bytes;
	atomic_fetch_add(&p->account->refs, 1);
}

static void unlink_pair(struct pairs *t, struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		struct pair_end **at = bucket_of(t, p->end[i].token);

		while (*at != &p->end[i])
			at = &(*at)->next;
		*at = p->end[i].next;
	}
	if (p->prev)
		p->prev->next = p->next;
	else
		t->first = p->next;
	if (p->next)
		p->next->prev = p->prev;
	else
		t->last = p->prev;
	t->n--;
	t->bytes -= p->bytes;
	p->account->bytes -= p->bytes;
	account_put(p->account);
}

static void free_pair(struct pairs *t, struct pair *p)
{
	if (p->far)
		far_free(p);
	else
		for (int i = 0; i < 2; i++)
			ism_fabric_unregister_dmb(t->fabric, p->end[i].dmb);
	free(p);
}

/* The partner's counters count where its kernel is. */
static void add_stats(const struct pair *p, struct ism_msg_status *ret)
{
	for (int i = 0; i < 2; i++)
		if (p->end[i].dmb && (!p->far || i))
			dmb_add_stats(p->end[i].dmb, ret);
}

/* The counters in shared memory outlive their writers, so this is early enough to read them. */
static void end_pair(struct pairs *t, struct pair *p)
{
	add_stats(p, &t->ended);
	unlink_pair(t, p);
	free_pair(t, p);
}

static int check_limits(const struct pairs *t, const struct account *a, __u64 bytes)
{
	if (bytes > t->limit_uid || a->bytes > t->limit_uid - bytes)
		return -EDQUOT;
	if (bytes > t->limit_total || t->bytes > t->limit_total - bytes)
		return -ENOSPC;
	return 0;
}

/* How many quarters of it are used, 0 to 3. */
static unsigned int quarters(__u64 used, __u64 limit)
{
	return used / (limit / 4 + 1);
}

__u32 pairs_ring_size(const struct pairs *t, const struct account *a)
{
	static const __u32 size[] = { PAIRS_RING_MOST, PAIRS_RING_MOST / 2, PAIRS_RING_MOST / 4,
				      PAIRS_RING_LEAST };
	unsigned int mine = quarters(a->bytes, t->limit_uid),
		     all = quarters(t->bytes, t->limit_total);
	unsigned int step = mine > all ? mine : all;
	__u64 left = t->limit_uid - a->bytes;

	if (t->ring_size)
		return t->ring_size;
	if (left > t->limit_total - t->bytes)
		left = t->limit_total - t->bytes;
	while (step < 3 && 2 * ism_dmb_len(size[step]) > left)
		step++;
	return size[step];
}

/* A pair for @who without DMBs, not in the table yet. */
int pair_new(struct pairs *t, struct holder *who, __u64 token, __u64 peer, __u64 bytes,
	     struct pair **ret)
{
	struct pair *p;
	int rc = check_limits(t, who->account, bytes);

	if (rc)
		return rc;
	if (pairs_find(t, peer))
		return -ESTALE; /* the partner's pair is with somebody else */
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->end[0].token = token;
	p->end[1].token = peer;
	p->account = who->account;
	p->bytes = bytes;
	*ret = p;
	return 0;
}

static int make_dmb(struct pairs *t, struct pair_end *e, __u64 len)
{
	struct ism_dmb_params params = {
		.token = e->token,
		.len = len,
		.partner = t->fabric->info.gid, /* loopback: both ends are clients of this daemon */
		.exported = 1,
	};

	return dmb_register(t->fabric, &params, &e->dmb);
}

static int make_pair(struct pairs *t, struct holder *who, __u64 token, __u64 peer,
		     struct pair **ret)
{
	__u64 len = ism_dmb_len(pairs_ring_size(t, who->account));
	struct pair *p;
	int rc = pair_new(t, who, token, peer, 2 * len, &p);

	for (int i = 0; !rc && i < 2; i++) {
		rc = make_dmb(t, &p->end[i], len);
		if (rc)
			free_pair(t, p);
	}
	if (rc)
		return rc;
	pair_link(t, p);
	*ret = p;
	return 0;
}

/* ---------------------------------------------------------------- holds */

static struct hold *find_hold(const struct pair_end *e, const struct holder *who)
{
	struct hold *h = e->holds;

	while (h && h->who != who)
		h = h->next_of_end;
	return h;
}

int pair_was_given(const struct pair_end *e, const struct holder *who)
{
	const struct hold *h = find_hold(e, who);

	return h && h->was_given;
}

void pair_is_given(struct pair_end *e, const struct holder *who)
{
	struct hold *h = find_hold(e, who);

	if (h)
		h->was_given = 1;
}

/*
 * Only who knows the secret number comes to an end that had a holder before. When the daemon does not
 * know the number, because that holder has not resumed yet, nobody does.
 */
int pair_may_hold(const struct pair_end *e, const struct holder *who, __u64 share)
{
	if (find_hold(e, who))
		return -EALREADY;
	if (e->has_share)
		return e->share == share ? 0 : -EBUSY;
	return pair_partner(e)->dmb && dmb_was_used(pair_partner(e)->dmb) ? -EBUSY : 0;
}

static int add_hold(struct pair_end *e, struct holder *who, __u64 share)
{
	struct hold *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->who = who;
	h->pair = e->pair;
	h->end = e - e->pair->end;
	h->next_of_end = e->holds;
	e->holds = h;
	h->next_of_holder = who->holds;
	who->holds = h;
	e->share = share;
	e->has_share = 1;
	return 0;
}

/* May somebody come that nobody knows of? */
static int stays(const struct pair *p)
{
	return p->far ? far_stays(p) : p->end[0].is_left || p->end[1].is_left;
}

static void end_unheld(struct pairs *t, struct pair *p)
{
	if (p->end[0].holds || p->end[1].holds)
		return;
	if (t->sweep_soon && stays(p))
		t->sweep_soon(t->arg);
	else
		end_pair(t, p);
}

int pair_hold(struct pairs *t, struct pair_end *e, struct holder *who, __u64 share)
{
	int rc = add_hold(e, who, share);

	if (rc)
		end_unheld(t, e->pair);
	return rc;
}

/* @at: where its holder's list points to it. */
static void end_hold(struct pairs *t, struct hold **at, int leaves)
{
	struct hold *h = *at, **of_end = &h->pair->end[h->end].holds;

	h->pair->end[h->end].is_left = leaves;
	while (*of_end != h)
		of_end = &(*of_end)->next_of_end;
	*of_end = h->next_of_end;
	*at = h->next_of_holder;
	end_unheld(t, h->pair);
	free(h);
}

int pairs_attach(struct pairs *t, struct holder *who, __u64 token, __u64 peer, __u64 share,
		 struct pair_end **ret)
{
	struct pair_end *e = pairs_find(t, token);
	struct pair *p;
	int rc;

	if (e) {
		if (e->pair->far || pair_partner(e)->token != peer)
			return -ESTALE;
		rc = pair_may_hold(e, who, share);
	} else {
		rc = make_pair(t, who, token, peer, &p);
		e = rc ? NULL : &p->end[0];
	}
	if (!rc)
		rc = pair_hold(t, e, who, share);
	if (!rc)
		*ret = e;
	return rc;
}

int pairs_detach(struct pairs *t, struct holder *who, __u64 token, int leaves)
{
	struct hold **at = &who->holds;

	while (*at && (*at)->pair->end[(*at)->end].token != token)
		at = &(*at)->next_of_holder;
	if (!*at)
		return -ENOENT;
	end_hold(t, at, leaves);
	return 0;
}

unsigned int pairs_drop_holder(struct pairs *t, struct holder *who)
{
	unsigned int n = 0;

	for (; who->holds; n++)
		end_hold(t, &who->holds, 1);
	return n;
}

void pair_drop(struct pairs *t, struct pair *p)
{
	for (int i = 0; i < 2; i++)
		while (p->end[i].holds) {
			struct hold *h = p->end[i].holds;
			struct hold **at = &h->who->holds;

			while (*at != h)
				at = &(*at)->next_of_holder;
			*at = h->next_of_holder;
			p->end[i].holds = h->next_of_end;
			free(h);
		}
	end_pair(t, p);
}

/*
 * Both ends: one may be gone and have left bytes for the other. Tokens of killed programs go with their sockets, in
 * the kernel's time.
 */
static int near_waits(struct pairs *t, struct pair *p, int (*is_gone)(void *arg, __u64 token),
		      void *arg)
{
	if (p->end[0].holds || p->end[1].holds)
		return 0;
	if (!is_gone(arg, p->end[0].token) || !is_gone(arg, p->end[1].token))
		return 1;
	end_pair(t, p);
	return 0;
}

unsigned int pairs_sweep(struct pairs *t, __u64 now, int (*is_gone)(void *arg, __u64 token),
			 void *arg)
{
	struct pair *p = t->first, *next;
	unsigned int waiting = 0;

	for (; p; p = next) {
		next = p->next;
		waiting += p->far ? far_waits(t, p, now, is_gone, arg)
				  : near_waits(t, p, is_gone, arg);
	}
	return waiting;
}

void pairs_clear(struct pairs *t)
{
	while (t->first)
		pair_drop(t, t->first);
}

int pair_end_fds(struct pairs *t, const struct pair_end *e, int fds[ISM_FD_COUNT], __u64 off[2])
{
	struct ism_dmb_fds own, peer;
	int rc;

	if (e->pair->far)
		return far_fds(e, fds, off);
	rc = ism_fabric_export_dmb(t->fabric, e->dmb, &own);

	if (!rc)
		rc = ism_fabric_export_dmb(t->fabric, pair_partner(e)->dmb, &peer);
	if (rc)
		return rc;
	fds[ISM_FD_OWN_DMB] = own.read;
	fds[ISM_FD_PEER_DMB] = peer.write;
	fds[ISM_FD_OWN_BELL] = own.bell;
	fds[ISM_FD_PEER_BELL] = peer.bell;
	off[0] = own.off;
	off[1] = peer.off;
	return 0;
}

/* ---------------------------------------------------------------- resume */

static int same_file(int a, int b)
{
	struct stat sa, sb;

	return !fstat(a, &sa) && !fstat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* One DMB of a pair that the client had; only one of the two memory descriptors is there. */
static int adopt(struct pairs *t, struct pair_end *e, __u32 ring_size, int *read_fd, int *write_fd,
		 int *bell)
{
	struct ism_dmb_params params = {
		.token = e->token,
		.len = ism_dmb_len(ring_size),
		.partner = t->fabric->info.gid,
		.exported = 1,
	};
	struct ism_dmb_fds fds = { read_fd ? *read_fd : -1, write_fd ? *write_fd : -1, *bell, 0 };
	int rc = ism_fabric_adopt_dmb(t->fabric, &params, &fds, &e->dmb);

	if (rc)
		return rc;
	if (read_fd)
		*read_fd = -1;
	if (write_fd)
		*write_fd = -1;
	*bell = -1;
	return dmb_check_static(e->dmb, ring_size);
}

static int adopt_pair(struct pairs *t, struct holder *who, const struct ism_msg_resume *m, int *fds,
		      struct pair **ret)
{
	__u64 bytes = ism_dmb_len(m->own_ring) + ism_dmb_len(m->peer_ring);
	struct pair *p;
	int rc;

	if (m->own_off || m->peer_off)
		return -EPERM; /* each of these has a memfd of its own */
	rc = pair_new(t, who, m->token, m->peer, bytes, &p);
	if (rc)
		return rc;
	p->is_resumed = 1;
	rc = adopt(t, &p->end[0], m->own_ring, &fds[ISM_FD_OWN_DMB], NULL, &fds[ISM_FD_OWN_BELL]);
	if (!rc)
		rc = adopt(t, &p->end[1], m->peer_ring, NULL, &fds[ISM_FD_PEER_DMB],
			   &fds[ISM_FD_PEER_BELL]);
	if (rc) {
		free_pair(t, p);
		return rc;
	}
	pair_link(t, p);
	*ret = p;
	return 0;
}

/*
 * The other end has resumed before: it must have been the same memory. fcntl() is asked first, because
 * fstat() of what is no memfd may take as long as a client likes.
 */
static int compare_pair(struct pairs *t, const struct pair_end *e, const struct ism_msg_resume *m,
			const int *fds)
{
	int have[ISM_FD_COUNT], rc;
	__u64 off[2];

	rc = pair_end_fds(t, e, have, off);
	if (rc)
		return rc;
	if (off[0] != m->own_off || off[1] != m->peer_off ||
	    e->dmb->len != ism_dmb_len(m->own_ring) ||
	    pair_partner(e)->dmb->len != ism_dmb_len(m->peer_ring) ||
	    !dmb_is_memfd(fds[ISM_FD_OWN_DMB]) || !dmb_is_memfd(fds[ISM_FD_PEER_DMB]))
		return -EPERM;
	return same_file(have[ISM_FD_OWN_DMB], fds[ISM_FD_OWN_DMB]) &&
			       same_file(have[ISM_FD_PEER_DMB], fds[ISM_FD_PEER_DMB])
		       ? 0
		       : -ESTALE;
}

/* It proves by the memory itself that it had the end; a secret that is known must fit as well. */
int pair_may_resume(const struct pair_end *e, const struct holder *who, __u64 peer, __u64 share)
{
	if (pair_partner(e)->token != peer)
		return -ESTALE;
	if (find_hold(e, who))
		return -EALREADY;
	return e->has_share && e->share != share ? -EBUSY : 0;
}

int pairs_resume(struct pairs *t, struct holder *who, const struct ism_msg_resume *m, int *fds)
{
	struct pair_end *e = pairs_find(t, m->token);
	struct pair *p;
	int rc;

	if (e) {
		rc = e->pair->far ? -ESTALE : pair_may_resume(e, who, m->peer, m->share);
		if (!rc)
			rc = compare_pair(t, e, m, fds);
	} else {
		rc = adopt_pair(t, who, m, fds, &p);
		e = rc ? NULL : &p->end[0];
	}
	return rc ? rc : pair_hold(t, e, who, m->share);
}

/* ---------------------------------------------------------------- showing */

int pair_end_visible(const struct pair_end *e, uid_t uid)
{
	if (!uid || e->pair->account->uid == uid)
		return 1;
	for (int i = 0; i < 2; i++)
		for (const struct hold *h = e->pair->end[i].holds; h; h = h->next_of_end)
			if (h->who->uid == uid)
				return 1;
	return 0;
}

void pair_end_show(const struct pair_end *e, struct ism_msg_dmb *ret)
{
	const struct pair_end *peer = pair_partner(e);

	memset(ret, 0, sizeof(*ret));
	ret->token = e->token;
	ret->peer = peer->token;
	ret->uid = e->holds ? e->holds->who->uid : e->pair->account->uid;
	if (e->holds) {
		ret->owner_pid = e->holds->who->pid;
		ret->flags |= ISM_DMB_OWNER_ATTACHED;
	}
	if (peer->holds) {
		ret->partner_pid = peer->holds->who->pid;
		ret->flags |= ISM_DMB_PARTNER_ATTACHED;
	}
	if (e->pair->is_resumed)
		ret->flags |= ISM_DMB_RESUMED;
	if (e->pair->far)
		ret->fabric = far_index(e->pair);
	dmb_show(e->dmb, peer->dmb, ret);
}

void pairs_totals(const struct pairs *t, struct ism_msg_status *ret)
{
	ret->ring_bytes += t->ended.ring_bytes;
	ret->ring_msgs += t->ended.ring_msgs;
	ret->tcp_bytes += t->ended.tcp_bytes;
	ret->doorbells += t->ended.doorbells;
	ret->spins += t->ended.spins;
	ret->sleeps += t->ended.sleeps;
	ret->timeouts += t->ended.timeouts;
	for (const struct pair *p = t->first; p; p = p->next)
		add_stats(p, ret);
}
