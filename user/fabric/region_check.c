// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Looking at a region from outside; see region_check.h. Nothing in it is believed. */
#define _GNU_SOURCE
#include "region_check.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "ivshmem_dev.h"
#include "region_file.h"
#include "region_priv.h"

/* ---------------------------------------------------------------- opening */

static int is_coherent(const char *spec)
{
	return strncmp(spec, "cxl:", 4) != 0;
}

static int map_spec(const char *spec, unsigned int flags, __u64 size, struct region_map *ret,
		    struct ism_err *err)
{
	int rc;

	memset(ret, 0, sizeof(*ret));
	if (!strncmp(spec, "ivshmem:", 8))
		rc = ism_ivshmem_map(spec + 8, &ret->dev, err);
	else if (!strncmp(spec, "shm:", 4) || !strncmp(spec, "cxl:", 4))
		rc = region_file_map(spec + 4, flags, size, &ret->dev, NULL, err);
	else
		rc = ism_err_set(err, -EINVAL, "\"%s\": expected shm:PATH, cxl:PATH or ivshmem:...",
				 spec);
	if (rc)
		return rc;
	ret->mem.base = ret->dev.base;
	ret->mem.len = ret->dev.len;
	ret->mem.is_coherent = is_coherent(spec) || !REGION_CAN_FLUSH;
	ret->mem.has_opt = region_has_clflushopt();
	return 0;
}

int region_map_open(const char *spec, int is_writable, struct region_map *ret, struct ism_err *err)
{
	int rc = map_spec(spec, is_writable ? 0 : REGION_FILE_READ, 0, ret, err);

	if (rc)
		return rc;
	rc = region_check_super(&ret->mem, &ret->super, &ret->l, err);
	if (rc)
		region_map_close(ret);
	return rc;
}

void region_map_close(struct region_map *map)
{
	map->dev.ops->close(&map->dev);
	if (map->dev.lock_fd >= 0)
		close(map->dev.lock_fd);
}

/* Does a process of this kernel have the slot? Asked by a lock that is not taken. */
static int is_locked(const struct region_map *map, unsigned int slot, unsigned int slots)
{
	struct flock lock = { .l_type = F_RDLCK,
			      .l_whence = SEEK_SET,
			      .l_start = ISM_REGION_PAGE + slot,
			      .l_len = slots };

	return !fcntl(map->dev.fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

int region_format_spec(const char *spec, __u64 size, const struct region_geometry *g, int is_forced,
		       struct ism_err *err)
{
	struct region_map map;
	int rc = map_spec(spec, size ? REGION_FILE_CREATE : 0, size, &map, err);

	if (rc)
		return rc;
	if (!is_forced && region_load((__le64 *)map.mem.base) == ISM_REGION_MAGIC)
		rc = ism_err_set(err, -EEXIST, "%s is a region already; --force forgets all of it",
				 spec);
	else if (is_locked(&map, 0, ISM_REGION_MAX_PEERS))
		rc = ism_err_set(err, -EBUSY, "%s is in use by a process of this host", spec);
	else
		rc = region_format(&map.mem, g, err);
	region_map_close(&map);
	return rc;
}

/* ---------------------------------------------------------------- who lives */

static enum region_life judge(const struct region_map *m, unsigned int peer, __u64 beat_before)
{
	struct ism_region_peer *at = region_peer(&m->mem, &m->l, peer);
	struct region_peer_copy p;
	__u64 host[2];

	if (!region_read_peer(&m->mem, &m->l, peer, &p))
		return REGION_ALIVE; /* it is changing */
	if (ISM_PEER_WHAT(p.state) == ISM_PEER_FREE)
		return REGION_FREE;
	region_expect(&m->mem, &at->beat, sizeof(at->beat));
	if (region_load(&at->beat) != beat_before)
		return REGION_ALIVE;
	if (is_locked(m, peer, 1) || ISM_PEER_WHAT(p.state) != ISM_PEER_LIVE ||
	    region_host_id(host) || p.host[0] != host[0] || region_is_process(p.pid, p.start) ||
	    region_has_programs(&m->mem, &m->l, peer, ISM_PEER_GEN(p.state)))
		return REGION_SILENT;
	return REGION_DEAD;
}

void region_look(const struct region_map *map, enum region_life *ret)
{
	const struct timespec pause = { 0, (2 * REGION_TICK_MS + 50) * 1000000L };
	__u64 beat[ISM_REGION_MAX_PEERS];

	for (unsigned int i = 0; i < map->l.peers; i++) {
		struct ism_region_peer *p = region_peer(&map->mem, &map->l, i);

		region_expect(&map->mem, &p->beat, sizeof(p->beat));
		beat[i] = region_load(&p->beat);
	}
	nanosleep(&pause, NULL);
	for (unsigned int i = 0; i < map->l.peers; i++)
		ret[i] = judge(map, i, beat[i]);
}

/* ---------------------------------------------------------------- checking */

struct check {
	const struct region_map *m;
	enum region_life *life;
	void (*found)(void *arg, int peer, const char *text);
	void *arg;
	unsigned int n;
};

/* A valid entry of somebody's directory, or memory that somebody's attach table names. */
struct piece {
	__u64 token;
	__u64 off;
	__u64 len;
	unsigned int peer;
	__u64 index;
};

struct pieces {
	struct piece *p;
	size_t n, room;
};

static void __attribute__((format(printf, 3, 4)))
problem(struct check *c, int peer, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->n++;
	c->found(c->arg, peer, text);
}

static int add(struct pieces *all, const struct piece *p)
{
	if (all->n == all->room) {
		size_t room = all->room ? 2 * all->room : 64;
		void *at = realloc(all->p, room * sizeof(*all->p));

		if (!at)
			return -ENOMEM;
		all->p = at;
		all->room = room;
	}
	all->p[all->n++] = *p;
	return 0;
}

static void check_peer(struct check *c, unsigned int i, const struct region_peer_copy *p)
{
	const struct region_map *m = c->m;
	struct ism_region_peer *at = region_peer(&m->mem, &m->l, i);

	if (ISM_PEER_WHAT(p->state) > ISM_PEER_LIVE)
		problem(c, i, "its state is unknown: %llu", (unsigned long long)p->state);
	if (ISM_PEER_WHAT(p->state) == ISM_PEER_CLAIMED && c->life[i] != REGION_ALIVE)
		problem(c, i, "it was claimed, and that was never finished");
	if (c->life[i] == REGION_DEAD)
		problem(c, i, "its process was killed and nobody took its place");
	if (ISM_PEER_WHAT(p->state) != ISM_PEER_LIVE)
		return;
	if (p->lease < ISM_REGION_MIN_LEASE || p->lease > ISM_REGION_MAX_LEASE)
		problem(c, i, "its lease is out of bounds: %llu ms", (unsigned long long)p->lease);
	if (p->bell > ISM_BELL_DEVICE || (p->bell == ISM_BELL_UDP && (!p->port || p->port > 65535)))
		problem(c, i, "its bell cannot be rung");
	if (region_load(&at->dmb_high) > m->l.dmbs || region_load(&at->attach_high) > m->l.dmbs)
		problem(c, i, "it says that it uses more entries than there are");
}

static void check_dir(struct check *c, unsigned int i, __u64 gen, struct pieces *all)
{
	const struct region_map *m = c->m;
	__u64 high = region_high(&m->l, &region_peer(&m->mem, &m->l, i)->dmb_high);
	struct region_dmb_copy d;

	for (__u64 k = 0; k < m->l.dmbs; k++) {
		int rc = region_read_dmb(&m->mem, &m->l, i, gen, k, &d);

		if (rc == -EUCLEAN)
			problem(c, i, "DMB %llu is outside of its arena", (unsigned long long)k);
		if (rc != 1)
			continue;
		if (k >= high)
			problem(c, i, "DMB %llu is beyond those in use", (unsigned long long)k);
		if ((d.flags & ISM_REGION_DMB_VLAN) > ISM_VLAN_MAX)
			problem(c, i, "DMB %llu has an impossible label", (unsigned long long)k);
		if (add(all, &(struct piece){ d.token, d.off, d.len, i, k }))
			return;
	}
}

static void check_attached(struct check *c, unsigned int i, __u64 gen, struct pieces *all)
{
	const struct region_map *m = c->m;
	__u64 high = region_high(&m->l, &region_peer(&m->mem, &m->l, i)->attach_high);
	struct region_attach_copy a;

	for (__u64 k = 0; k < m->l.dmbs; k++) {
		int rc = region_read_attach(&m->mem, &m->l, i, gen, k, &a);

		if (rc == -EUCLEAN)
			problem(c, i, "attached memory %llu is in nobody's arena",
				(unsigned long long)k);
		if (rc != 1)
			continue;
		if (k >= high)
			problem(c, i, "attached memory %llu is beyond those in use",
				(unsigned long long)k);
		if (add(all, &(struct piece){ a.dmb_state, a.off, a.len, i, k }))
			return;
	}
}

static int by_off(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

static int by_token(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->token < y->token ? -1 : x->token > y->token;
}

static void check_dmbs(struct check *c, struct pieces *all)
{
	struct piece *p = all->p;
	__u64 end = 0;

	if (all->n)
		qsort(p, all->n, sizeof(*p), by_off);
	for (size_t i = 0; i < all->n; i++) {
		if (i && p[i].off < end)
			problem(c, p[i].peer, "DMB %llu overlaps another",
				(unsigned long long)p[i].index);
		if (p[i].off + p[i].len > end)
			end = p[i].off + p[i].len;
	}
	if (all->n)
		qsort(p, all->n, sizeof(*p), by_token);
	for (size_t i = 1; i < all->n; i++)
		if (p[i].token == p[i - 1].token)
			problem(c, p[i].peer, "DMB %llu has the token of another",
				(unsigned long long)p[i].index);
}

/* Memory that is attached is written by one peer only. */
static void check_writers(struct check *c, struct pieces *all)
{
	struct piece *p = all->p;

	if (all->n)
		qsort(p, all->n, sizeof(*p), by_off);
	for (size_t i = 1; i < all->n; i++)
		if (p[i].off < p[i - 1].off + p[i - 1].len && p[i].peer != p[i - 1].peer)
			problem(c, p[i].peer, "attached memory %llu is also attached by peer %u",
				(unsigned long long)p[i].index, p[i - 1].peer);
}

static void check_links(struct check *c, unsigned int from)
{
	const struct region_map *m = c->m;

	for (unsigned int to = 0; to < m->l.peers; to++) {
		struct ism_region_link *l = region_link(&m->mem, &m->l, from, to);
		__le64 *t = region_tail(&m->mem, &m->l, to, from);
		__u64 head, tail;

		if (c->life[to] != REGION_ALIVE)
			continue;
		/* the tail first: it never passes a head that is loaded later */
		region_expect(&m->mem, t, sizeof(*t));
		tail = region_load(t);
		region_expect(&m->mem, l, sizeof(*l));
		head = region_load(&l->head);
		if (head < tail)
			problem(c, from, "peer %u has read more of its events than there were", to);
	}
}

static void free_slot(const struct region_map *m, unsigned int peer, __u64 state)
{
	struct ism_region_peer *p = region_peer(&m->mem, &m->l, peer);

	region_store(&m->mem, &p->state, ISM_PEER_STATE(ISM_PEER_GEN(state), ISM_PEER_FREE));
	region_publish(&m->mem, &p->state, sizeof(p->state));
}

/* One store makes void everything that is in it. A claim that was not finished has nothing in it. */
static void repair(const struct region_map *m, enum region_life *life)
{
	for (unsigned int i = 0; i < m->l.peers; i++) {
		__u64 state = region_load(&region_peer(&m->mem, &m->l, i)->state);

		if (life[i] != REGION_DEAD &&
		    !(life[i] == REGION_SILENT && ISM_PEER_WHAT(state) == ISM_PEER_CLAIMED) &&
		    !(life[i] == REGION_SILENT && ISM_PEER_WHAT(state) > ISM_PEER_LIVE))
			continue;
		free_slot(m, i, state);
		life[i] = REGION_FREE;
	}
}

unsigned int region_check(const struct region_map *map, enum region_life *life, int is_repaired,
			  void (*found)(void *arg, int peer, const char *text), void *arg)
{
	struct check c = { map, life, found, arg, 0 };
	struct pieces dmbs = {}, attached = {};
	struct region_peer_copy p;

	if (is_repaired)
		repair(map, life);
	for (unsigned int i = 0; i < map->l.peers; i++) {
		if (!region_read_peer(&map->mem, &map->l, i, &p))
			continue;
		check_peer(&c, i, &p);
		if (ISM_PEER_WHAT(p.state) != ISM_PEER_LIVE)
			continue;
		check_dir(&c, i, ISM_PEER_GEN(p.state), &dmbs);
		check_attached(&c, i, ISM_PEER_GEN(p.state), &attached);
		check_links(&c, i);
	}
	check_dmbs(&c, &dmbs);
	check_writers(&c, &attached);
	free(dmbs.p);
	free(attached.p);
	return c.n;
}

int region_evict(const struct region_map *map, unsigned int peer, struct ism_err *err)
{
	enum region_life life[ISM_REGION_MAX_PEERS];
	__u64 state;

	if (peer >= map->l.peers)
		return ism_err_set(err, -EINVAL, "there is no peer %u", peer);
	region_look(map, life);
	state = region_load(&region_peer(&map->mem, &map->l, peer)->state);
	if (life[peer] == REGION_FREE)
		return ism_err_set(err, -ENOENT, "nobody is peer %u", peer);
	if (life[peer] == REGION_ALIVE)
		return ism_err_set(err, -EBUSY, "peer %u is alive: stop its ismredird first", peer);
	free_slot(map, peer, state);
	return 0;
}
