// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Peers of a region: claiming a slot, heartbeats, and how others are seen; see docs/region.rst. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "clock.h"
#include "region_priv.h"

#define STUCK_MS 1000 /* a claim takes microseconds */

#ifdef REGION_TEST
__u64 region_test_now(void);
__u64 region_test_process(__u64 pid);
extern __u64 region_test_host[2];
#endif

__u64 region_now_ms(void)
{
#ifdef REGION_TEST
	return region_test_now();
#else
	return ism_clock_ms();
#endif
}

static void pause_ms(unsigned int ms)
{
#ifdef REGION_TEST
	(void)ms; /* region_test_now() goes on by itself */
#else
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
#endif
}

/* ---------------------------------------------------------------- who this is */

/* Field 22 of /proc/PID/stat; the second may have anything in its parentheses. */
__u64 region_process_start(__u64 pid)
{
#ifdef REGION_TEST
	return region_test_process(pid);
#else
	char path[48], text[1024], *at;
	unsigned long long start = 0;
	ssize_t n;
	int fd;

	if (!pid || pid > 0x7fffffff)
		return 0;
	snprintf(path, sizeof(path), "/proc/%llu/stat", (unsigned long long)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	at = strrchr(text, ')');
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, "%llu", &start) == 1 ? start : 0;
#endif
}

int region_is_process(__u64 pid, __u64 start)
{
	__u64 now = region_process_start(pid);

	return now && now == start;
}

int region_has_programs(const struct region_mem *m, const struct region_layout *l,
			unsigned int peer, __u64 gen)
{
	__u64 n = region_high(l, &region_peer(m, l, peer)->attach_high);
	struct region_attach_copy a;

	for (__u64 i = 0; i < n; i++) {
		int rc = region_read_attach(m, l, peer, gen, i, &a);

		if (rc == -EAGAIN || (rc == 1 && region_is_process(a.pid, a.start)))
			return 1;
	}
	return 0;
}

/* Daemons of two network namespaces of one kernel are two peers. */
int region_host_id(__u64 ret[2])
{
#ifdef REGION_TEST
	memcpy(ret, region_test_host, sizeof(region_test_host));
	return 0;
#else
	struct ism_gid boot;
	struct stat st;
	int rc = fabric_boot_uuid(&boot);

	if (rc)
		return rc;
	if (stat("/proc/self/ns/net", &st))
		return -errno;
	memcpy(ret, &boot, sizeof(boot));
	ret[1] ^= st.st_ino;
	return 0;
#endif
}

/* ---------------------------------------------------------------- claiming a slot */

/* So that no two processes of this kernel have the same; 0 or -EBUSY. */
static int lock_slot(struct region *r, unsigned int slot, int type)
{
	struct flock lock = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = ISM_REGION_PAGE + slot, .l_len = 1
	};

	if (r->dev.lock_fd < 0 || !fcntl(r->dev.lock_fd, F_OFD_SETLK, &lock))
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* Between kernels: a compare and exchange where memory is coherent. Else the slot is chosen by hand. */
static int change_state(struct region *r, unsigned int slot, __u64 from, __u64 to)
{
	struct ism_region_peer *p = region_peer(&r->mem, &r->l, slot);
	__le64 was = htole64(from);

	region_expect(&r->mem, &p->state, sizeof(p->state));
	if (r->mem.is_coherent) {
		region_test_store(&p->state, sizeof(p->state));
		if (!__atomic_compare_exchange_n(&p->state, &was, htole64(to), 0, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			return -EBUSY;
	} else {
		if (region_load(&p->state) != from)
			return -EBUSY;
		region_store(&r->mem, &p->state, to);
	}
	region_publish(&r->mem, &p->state, sizeof(p->state));
	return 0;
}

static void write_process(struct region *r, struct ism_region_peer *p, unsigned int slot)
{
	__u64 number = r->dev.number >= 0 ? r->dev.number : slot;
	int has_device = r->dev.bell_fd >= 0;

	region_store(&r->mem, &p->lease, r->lease);
	region_store(&r->mem, &p->bell,
		     r->udp_port  ? ISM_BELL_UDP
		     : has_device ? ISM_BELL_DEVICE
				  : ISM_BELL_NONE);
	region_store(&r->mem, &p->number, r->dev.number >= 0 || has_device ? number + 1 : 0);
	region_store(&r->mem, &p->addr[0], r->udp_addr[0]);
	region_store(&r->mem, &p->addr[1], r->udp_addr[1]);
	region_store(&r->mem, &p->port, r->udp_port);
	region_store(&r->mem, &p->pid, r->pid);
	region_store(&r->mem, &p->start, r->start);
}

static void pnetid_words(const struct region *r, __u64 ret[2])
{
	char name[16] = {};

	memcpy(name, r->base.info.pnetid, strlen(r->base.info.pnetid));
	region_words(ret, name);
}

static void write_pnetid(struct region *r, struct ism_region_peer *p)
{
	__u64 words[2];

	pnetid_words(r, words);
	region_store(&r->mem, &p->pnetid[0], words[0]);
	region_store(&r->mem, &p->pnetid[1], words[1]);
}

/* Nothing of an earlier generation counts any more: its entries are void from the first store on. */
static int claim_new(struct region *r, unsigned int slot, __u64 was)
{
	struct ism_region_peer *p = region_peer(&r->mem, &r->l, slot);
	__u64 gen = ISM_PEER_GEN(was) + 1, gid[2];
	int rc = fabric_random_gid(&r->base.info.gid);

	if (!rc)
		rc = change_state(r, slot, was, ISM_PEER_STATE(gen, ISM_PEER_CLAIMED));
	if (rc)
		return rc;
	region_words(gid, &r->base.info.gid);
	for (int i = 0; i < 2; i++) {
		region_store(&r->mem, &p->gid[i], gid[i]);
		region_store(&r->mem, &p->host[i], r->host[i]);
	}
	write_process(r, p, slot);
	write_pnetid(r, p);
	region_store(&r->mem, &p->dmb_high, 0);
	region_store(&r->mem, &p->attach_high, 0);
	region_publish(&r->mem, p, sizeof(*p));
	r->state = ISM_PEER_STATE(gen, ISM_PEER_LIVE);
	rc = change_state(r, slot, ISM_PEER_STATE(gen, ISM_PEER_CLAIMED), r->state);
	if (!rc)
		r->me = slot;
	return rc;
}

/* The predecessor was killed: this goes on as the same peer, with the DMBs that programs have. */
static int take_over(struct region *r, unsigned int slot, const struct region_peer_copy *p)
{
	struct ism_region_peer *at = region_peer(&r->mem, &r->l, slot);

	r->base.info.gid = region_gid(p->gid);
	r->state = p->state;
	r->me = slot;
	write_process(r, at, slot);
	region_publish(&r->mem, at, sizeof(*at));
	return 0;
}

static int is_mine(const struct region *r, const struct region_peer_copy *p)
{
	__u64 net[2];

	pnetid_words(r, net);
	if (r->dev.is_sole && p->number != (__u64)r->dev.number + 1)
		return 0;
	return ISM_PEER_WHAT(p->state) == ISM_PEER_LIVE && p->host[0] == r->host[0] &&
	       p->host[1] == r->host[1] && p->pnetid[0] == net[0] && p->pnetid[1] == net[1];
}

static __u64 lease_of(__u64 lease)
{
	return lease < ISM_REGION_MIN_LEASE   ? ISM_REGION_MIN_LEASE
	       : lease > ISM_REGION_MAX_LEASE ? ISM_REGION_MAX_LEASE
					      : lease;
}

/* Does nothing of the slot change for @ms? */
static int is_silent(struct region *r, unsigned int slot, const struct region_peer_copy *was,
		     __u64 ms)
{
	struct ism_region_peer *p = region_peer(&r->mem, &r->l, slot);
	__u64 beat, until = region_now_ms() + ms;

	region_expect(&r->mem, p, sizeof(*p));
	beat = region_load(&p->beat);
	while (region_now_ms() < until) {
		pause_ms(20);
		region_expect(&r->mem, p, sizeof(*p));
		if (region_load(&p->beat) != beat || region_load(&p->state) != was->state)
			return 0;
	}
	return 1;
}

/* Does the device know that this peer does not run any more? */
static int is_gone(struct region *r, const struct region_peer_copy *p)
{
	if (ISM_PEER_WHAT(p->state) != ISM_PEER_LIVE || !p->number)
		return 0;
	if (r->dev.is_sole && p->number == (__u64)r->dev.number + 1 && p->state != r->state)
		return 1;
	return r->dev.ops->peer_gone && r->dev.ops->peer_gone(&r->dev, p->number - 1) == 1;
}

/*
 * A slot that was given to this host by its administrator. Who had it before is of
 * this host, too; it only must not be running.
 */
static int claim_given(struct region *r, unsigned int slot, struct ism_err *err)
{
	struct region_peer_copy p;
	int rc = lock_slot(r, slot, F_WRLCK), tries = 0;

	if (rc)
		return ism_err_set(err, rc, "peer %u is taken by another process of this host",
				   slot);
	while (!region_read_peer(&r->mem, &r->l, slot, &p))
		if (++tries == 100)
			return ism_err_set(err, -EBUSY, "peer %u is being changed", slot);
	if (is_mine(r, &p))
		return take_over(r, slot, &p);
	if (ISM_PEER_WHAT(p.state) != ISM_PEER_FREE && !is_gone(r, &p) &&
	    !is_silent(r, slot, &p, lease_of(p.lease)))
		return ism_err_set(err, -EBUSY, "peer %u is taken by another host, which runs",
				   slot);
	if (ISM_PEER_WHAT(p.state) == ISM_PEER_LIVE && p.host[0] == r->host[0] &&
	    region_has_programs(&r->mem, &r->l, slot, ISM_PEER_GEN(p.state)))
		return ism_err_set(err, -EBUSY,
				   "programs of another network namespace still use peer %u", slot);
	rc = claim_new(r, slot, p.state);
	return rc ? ism_err_set(err, rc, "peer %u was claimed by another host", slot) : 0;
}

enum claim_pass {
	PASS_MINE, /* what this host had */
	PASS_GONE, /* whose peer the device knows not to run any more */
	PASS_FREE,
	PASS_STUCK, /* claims that were never finished: nothing is valid in such a slot */
	PASS_COUNT,
};

static int try_slot(struct region *r, unsigned int slot, enum claim_pass pass)
{
	struct region_peer_copy p;

	if (!region_read_peer(&r->mem, &r->l, slot, &p))
		return -EBUSY;
	switch (pass) {
	case PASS_MINE:
		return is_mine(r, &p) ? take_over(r, slot, &p) : -EBUSY;
	case PASS_GONE:
		return is_gone(r, &p) ? claim_new(r, slot, p.state) : -EBUSY;
	case PASS_FREE:
		return ISM_PEER_WHAT(p.state) == ISM_PEER_FREE ? claim_new(r, slot, p.state)
							       : -EBUSY;
	default:
		if (ISM_PEER_WHAT(p.state) != ISM_PEER_CLAIMED || !is_silent(r, slot, &p, STUCK_MS))
			return -EBUSY;
		return claim_new(r, slot, p.state);
	}
}

static int claim_any(struct region *r, struct ism_err *err)
{
	if (!r->mem.is_coherent)
		return ism_err_set(err, -EINVAL,
				   "peer=N is needed: without coherence no slot can be claimed");
	for (int pass = 0; pass < PASS_COUNT; pass++)
		for (unsigned int i = 0; i < r->l.peers; i++) {
			if (lock_slot(r, i, F_WRLCK))
				continue;
			if (!try_slot(r, i, pass))
				return 0;
			lock_slot(r, i, F_UNLCK);
		}
	return ism_err_set(err, -EUSERS,
			   "all %llu peers are taken; `ismredir fabric show` tells by whom",
			   (unsigned long long)r->l.peers);
}

/* What the peer itself has said so far, and what others said to it. */
static void resume_counters(struct region *r)
{
	struct ism_region_peer *p = region_self(r);

	region_expect(&r->mem, p, sizeof(*p));
	r->beat = region_load(&p->beat);
	r->changes = region_load(&p->changes);
	for (unsigned int i = 0; i < r->l.peers; i++) {
		struct ism_region_link *in = region_link(&r->mem, &r->l, i, r->me);

		region_expect(&r->mem, in, sizeof(*in));
		r->view[i].lost = region_load(&in->lost);
		r->view[i].rings = region_load(&in->rings) - 1; /* look at once */
		r->view[i].tail = region_load(&in->head);
		region_set(r, region_tail(&r->mem, &r->l, r->me, i), r->view[i].tail);
	}
	region_set(r, &p->beat, ++r->beat);
}

int region_claim(struct region *r, int want, struct ism_err *err)
{
	int rc;

	if (want >= (int)r->l.peers)
		return ism_err_set(err, -EINVAL, "peer=%d: there are only %llu", want,
				   (unsigned long long)r->l.peers);
	rc = want >= 0 ? claim_given(r, want, err) : claim_any(r, err);
	if (!rc)
		resume_counters(r);
	return rc;
}

void region_leave(struct region *r, int keep)
{
	if (!keep && !region_check_self(r))
		change_state(r, r->me, r->state,
			     ISM_PEER_STATE(ISM_PEER_GEN(r->state), ISM_PEER_FREE));
}

/* ---------------------------------------------------------------- the others */

__u64 region_state_of(const struct region *r, unsigned int peer)
{
	struct ism_region_peer *p = region_peer(&r->mem, &r->l, peer);

	region_expect(&r->mem, &p->state, sizeof(p->state));
	return region_load(&p->state);
}

static void forget(struct region_view *v)
{
	v->n_known = 0;
	v->is_stale = 1;
	v->has_news = 0;
}

static int make_room(struct region_view *v, __u64 n)
{
	void *known;

	if (n > v->room) {
		known = realloc(v->known, n * sizeof(*v->known));
		if (!known)
			return -ENOMEM;
		v->known = known;
		v->room = n;
	}
	if (n > v->n_known)
		memset(v->known + v->n_known, 0, (n - v->n_known) * sizeof(*v->known));
	return 0;
}

/* An entry that is being changed: its peer counts changes up once more when it is done. */
static void read_directory(struct region *r, unsigned int peer)
{
	struct region_view *v = &r->view[peer];
	__u64 n = region_high(&r->l, &region_peer(&r->mem, &r->l, peer)->dmb_high);
	struct region_dmb_copy d;

	if (make_room(v, n))
		return;
	if (n)
		region_expect(&r->mem, region_dmb(&r->mem, &r->l, peer, 0),
			      n * sizeof(struct ism_region_dmb));
	for (__u64 i = 0; i < n; i++) {
		struct region_known *k = &v->known[i];
		__u64 state = region_load(&region_dmb(&r->mem, &r->l, peer, i)->state);

		if (k->state == state)
			continue; /* never the same for another DMB */
		if (!(state & ISM_ENTRY_VALID))
			k->state = 0;
		else if (region_read_dmb(&r->mem, &r->l, peer, ISM_PEER_GEN(v->id.state), i, &d) ==
			 1) {
			k->state = d.state;
			k->token = d.token;
			k->partner_token = d.partner_token;
		} else {
			k->state = 0;
		}
	}
	r->has_changed = 1;
	v->n_known = n;
	v->is_stale = 0;
	v->has_news = 1;
}

static void look_at(struct region *r, unsigned int peer)
{
	struct ism_region_peer *p = region_peer(&r->mem, &r->l, peer);
	struct region_view *v = &r->view[peer];
	__u64 state = region_state_of(r, peer), beat, changes;

	if (state != v->id.state) {
		forget(v);
		v->beat_ms = region_now_ms();
		if (!region_read_peer(&r->mem, &r->l, peer, &v->id))
			v->id.state = 0;
	}
	if (ISM_PEER_WHAT(v->id.state) != ISM_PEER_LIVE)
		return;
	region_expect(&r->mem, &p->beat, ISM_REGION_LINE);
	beat = region_load(&p->beat);
	changes = region_load(&p->changes);
	if (beat != v->beat)
		v->beat_ms = region_now_ms();
	v->beat = beat;
	if (v->is_stale || changes != v->changes) {
		v->changes = changes;
		read_directory(r, peer);
	}
}

void region_sync(struct region *r)
{
	for (unsigned int i = 0; i < r->l.peers; i++)
		look_at(r, i);
}

int region_is_there(const struct region *r, unsigned int peer)
{
	const struct region_view *v = &r->view[peer];

	if (ISM_PEER_WHAT(v->id.state) != ISM_PEER_LIVE || v->gone == v->id.state)
		return 0;
	return peer == r->me || region_now_ms() - v->beat_ms <= lease_of(v->id.lease);
}

int region_counts(const struct region *r, unsigned int peer, __u64 state)
{
	return ISM_PEER_WHAT(state) == ISM_PEER_LIVE && r->view[peer].gone != state;
}

int region_find_peer(struct region *r, const struct ism_gid *gid, unsigned int *ret)
{
	const struct region_peer_copy *me;

	region_sync(r);
	me = &r->view[r->me].id;
	for (unsigned int i = 0; i < r->l.peers; i++) {
		const struct region_peer_copy *p = &r->view[i].id;
		const struct ism_gid it = region_gid(p->gid);

		if (region_is_there(r, i) && fabric_same_gid(&it, gid) &&
		    p->pnetid[0] == me->pnetid[0] && p->pnetid[1] == me->pnetid[1]) {
			*ret = i;
			return 0;
		}
	}
	return -EHOSTUNREACH;
}

int region_query_remote_gid(struct ism_fabric *f, const struct ism_gid *gid)
{
	unsigned int peer;

	return region_find_peer(region_of(f), gid, &peer);
}

static enum ism_peer_life life_of(const struct region *r, unsigned int peer)
{
	if (r->view[peer].gone == r->view[peer].id.state)
		return ISM_PEER_GONE;
	return region_is_there(r, peer) ? ISM_PEER_ALIVE : ISM_PEER_SILENT;
}

_Static_assert(ISM_REGION_MAX_PEERS <= ISM_FABRIC_MAX_PEERS, "all peers can be listed");

int region_peers(struct ism_fabric *f, struct ism_peer_info *ret, unsigned int n)
{
	struct region *r = region_of(f);
	unsigned int found = 0;

	region_sync(r);
	for (unsigned int i = 0; i < r->l.peers && found < n; i++) {
		const struct region_view *v = &r->view[i];
		struct ism_peer_info *p = &ret[found];

		if (ISM_PEER_WHAT(v->id.state) != ISM_PEER_LIVE)
			continue;
		p->number = i;
		p->life = life_of(r, i);
		p->lease_ms = lease_of(v->id.lease);
		p->age_ms = region_now_ms() - v->beat_ms;
		p->gid = region_gid(v->id.gid);
		region_bytes(p->pnetid, v->id.pnetid);
		found++;
	}
	return found;
}

/* ---------------------------------------------------------------- being there */

int region_check_self(struct region *r)
{
	if (!r->is_lost && region_state_of(r, r->me) != r->state)
		r->is_lost = 1;
	return r->is_lost ? -ESTALE : 0;
}

void region_beat(struct region *r)
{
	if (region_check_self(r))
		return;
	region_set(r, &region_self(r)->beat, ++r->beat);
	for (unsigned int i = 0; i < r->l.peers; i++) {
		struct region_view *v = &r->view[i];

		if (ISM_PEER_WHAT(v->id.state) == ISM_PEER_LIVE && !region_is_there(r, i) &&
		    v->gone != v->id.state && is_gone(r, &v->id))
			v->gone = v->id.state;
	}
}
