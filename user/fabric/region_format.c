// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The superblock, the layout that follows from it, and copies of entries; see region_format.h. */
#define _GNU_SOURCE
#include "region_format.h"
#include <errno.h>
#include <stddef.h>
#include <sys/random.h>
#include <time.h>

/* ---------------------------------------------------------------- layout */

static __u64 round_to(__u64 n, __u64 unit)
{
	return (n + unit - 1) & ~(unit - 1);
}

/* Nothing of it can wrap around: all numbers are bounded before. */
static void lay_out(struct region_layout *l)
{
	__u64 at = sizeof(struct ism_region_peer);

	l->tails = at;
	at = round_to(at + l->peers * sizeof(__le64), ISM_REGION_LINE);
	l->links = at;
	at += l->peers * sizeof(struct ism_region_link);
	l->mails = at;
	at += l->peers * ISM_REGION_MAILS * sizeof(struct ism_region_mail);
	l->dir = at;
	at += l->dmbs * sizeof(struct ism_region_dmb);
	l->attach = at;
	at += l->dmbs * sizeof(struct ism_region_attach);
	l->bells = at;
	at += l->dmbs * sizeof(struct ism_region_bell);
	l->control_off = ISM_REGION_PAGE;
	l->control = round_to(at, ISM_REGION_PAGE);
	l->arena_off = round_to(l->control_off + l->peers * l->control, l->unit);
	l->arena = 0;
	if (l->size > l->arena_off)
		l->arena = ((l->size - l->arena_off) / l->peers) & ~(l->unit - 1);
}

int region_layout_of(__u64 size, const struct region_geometry *g, struct region_layout *ret)
{
	struct region_layout l = { .size = size };

	l.peers = g->peers ? g->peers : REGION_PEERS;
	l.dmbs = g->dmbs ? g->dmbs : REGION_DMBS;
	l.unit = g->unit ? g->unit : ISM_REGION_PAGE;
	if (l.peers > ISM_REGION_MAX_PEERS || l.dmbs > ISM_REGION_MAX_DMBS ||
	    l.unit < ISM_REGION_PAGE || l.unit > ISM_REGION_MAX_UNIT || (l.unit & (l.unit - 1)))
		return -EINVAL;
	lay_out(&l);
	if (!l.arena)
		return -ENOSPC;
	*ret = l;
	return 0;
}

/* ---------------------------------------------------------------- superblock */

__u32 region_crc(const void *data, size_t len)
{
	const unsigned char *p = data;
	__u32 crc = ~0u;

	for (; len; len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static void fill_super(const struct region_layout *l, struct ism_region_super *s)
{
	s->magic = htole64(ISM_REGION_MAGIC);
	s->version = htole64(ISM_REGION_VERSION);
	s->size = htole64(l->size);
	s->peers = htole64(l->peers);
	s->dmbs = htole64(l->dmbs);
	s->unit = htole64(l->unit);
	s->control_off = htole64(l->control_off);
	s->control = htole64(l->control);
	s->arena_off = htole64(l->arena_off);
	s->arena = htole64(l->arena);
	s->created = htole64(time(NULL));
	s->crc = htole64(region_crc(s, offsetof(struct ism_region_super, crc)));
}

int region_format(const struct region_mem *m, const struct region_geometry *g, struct ism_err *err)
{
	struct ism_region_super s = {}, *at = (struct ism_region_super *)m->base;
	struct region_layout l;
	int rc = region_layout_of(m->len, g, &l);

	if (rc == -EINVAL)
		return ism_err_set(
			err, rc,
			"expected 1 to %d peers, 1 to %d DMBs, and a unit that is a power "
			"of two from %d on",
			ISM_REGION_MAX_PEERS, ISM_REGION_MAX_DMBS, ISM_REGION_PAGE);
	if (rc)
		return ism_err_set(err, rc,
				   "%llu bytes are too few for %llu peers with %llu DMBs each",
				   (unsigned long long)m->len,
				   (unsigned long long)(g->peers ? g->peers : REGION_PEERS),
				   (unsigned long long)(g->dmbs ? g->dmbs : REGION_DMBS));
	if (getrandom(s.uuid, sizeof(s.uuid), 0) != sizeof(s.uuid))
		return -EIO;
	fill_super(&l, &s);
	region_store(m, &at->magic, 0);
	region_publish(m, at, sizeof(at->magic));
	region_zero(m, m->base + sizeof(at->magic), l.arena_off - sizeof(at->magic));
	region_copy(m, &at->version, &s.version, sizeof(s) - sizeof(s.magic));
	region_publish(m, m->base, l.arena_off);
	region_store(m, &at->magic, ISM_REGION_MAGIC);
	region_publish(m, at, sizeof(at->magic));
	return 0;
}

/* All of the geometry follows from four numbers; whatever else stands there is damage. */
static int check_geometry(const struct ism_region_super *s, __u64 len, struct region_layout *ret,
			  struct ism_err *err)
{
	struct region_geometry g = { le64toh(s->peers), le64toh(s->dmbs), le64toh(s->unit) };
	struct region_layout l;
	__u64 size = le64toh(s->size);

	if (size > len)
		return ism_err_set(err, -EUCLEAN,
				   "formatted for %llu bytes, but there are only %llu",
				   (unsigned long long)size, (unsigned long long)len);
	if (!g.peers || !g.dmbs || !g.unit || region_layout_of(size, &g, &l) ||
	    l.control_off != le64toh(s->control_off) || l.control != le64toh(s->control) ||
	    l.arena_off != le64toh(s->arena_off) || l.arena != le64toh(s->arena))
		return ism_err_set(err, -EUCLEAN, "damaged: its geometry cannot be");
	*ret = l;
	return 0;
}

int region_check_super(const struct region_mem *m, struct ism_region_super *super,
		       struct region_layout *ret, struct ism_err *err)
{
	struct ism_region_super s;

	if (m->len < ISM_REGION_PAGE)
		return ism_err_set(err, -EMEDIUMTYPE, "too small for a region");
	region_expect(m, m->base, sizeof(s));
	memcpy(&s, m->base, sizeof(s));
	if (le64toh(s.magic) != ISM_REGION_MAGIC)
		return ism_err_set(err, -EMEDIUMTYPE,
				   "not formatted; `ismredir fabric format` does it");
	if (le64toh(s.version) != ISM_REGION_VERSION)
		return ism_err_set(err, -EMEDIUMTYPE, "a region of version %llu, this knows %d",
				   (unsigned long long)le64toh(s.version), ISM_REGION_VERSION);
	if (le64toh(s.crc) != region_crc(&s, offsetof(struct ism_region_super, crc)))
		return ism_err_set(err, -EUCLEAN,
				   "damaged: the checksum of its superblock is wrong");
	if (super)
		*super = s;
	return check_geometry(&s, m->len, ret, err);
}

/* ---------------------------------------------------------------- copies */

/* The words behind the state; whether the state was the same before and after. */
static int copy_words(const struct region_mem *m, const __le64 *at, __u64 *to, size_t n)
{
	region_expect(m, at, n * sizeof(*at));
	to[0] = region_load(at);
	for (size_t i = 1; i < n; i++)
		to[i] = region_load(at + i);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	region_expect(m, at, sizeof(*at));
	return region_load(at) == to[0];
}

int region_read_peer(const struct region_mem *m, const struct region_layout *l, unsigned int peer,
		     struct region_peer_copy *ret)
{
	_Static_assert(offsetof(struct ism_region_peer, number) ==
			       offsetof(struct region_peer_copy, number),
		       "the same words");
	return copy_words(m, &region_peer(m, l, peer)->state, &ret->state,
			  sizeof(*ret) / sizeof(__u64));
}

int region_read_dmb(const struct region_mem *m, const struct region_layout *l, unsigned int peer,
		    __u64 gen, __u64 index, struct region_dmb_copy *ret)
{
	__u64 arena = region_arena(l, peer);

	_Static_assert(offsetof(struct ism_region_dmb, flags) ==
			       offsetof(struct region_dmb_copy, flags),
		       "the same words");
	if (!copy_words(m, &region_dmb(m, l, peer, index)->state, &ret->state,
			sizeof(*ret) / sizeof(__u64)))
		return -EAGAIN;
	if (!(ret->state & ISM_ENTRY_VALID) || ret->peer_gen != gen)
		return 0;
	if (!ret->token || !ret->len || ret->off < arena || ret->off - arena > l->arena ||
	    ret->len > l->arena - (ret->off - arena) || ret->off % l->unit)
		return -EUCLEAN;
	return 1;
}

int region_read_attach(const struct region_mem *m, const struct region_layout *l, unsigned int peer,
		       __u64 gen, __u64 index, struct region_attach_copy *ret)
{
	__u64 owner, arena;

	_Static_assert(sizeof(struct ism_region_attach) == sizeof(*ret), "the same words");
	if (!copy_words(m, &region_attach(m, l, peer, index)->state, &ret->state,
			sizeof(*ret) / sizeof(__u64)))
		return -EAGAIN;
	if (!(ret->state & ISM_ENTRY_VALID) || ret->peer_gen != gen)
		return 0;
	owner = ISM_REGION_DMB_PEER(ret->dmb);
	if (owner >= l->peers || ISM_REGION_DMB_INDEX(ret->dmb) >= l->dmbs)
		return -EUCLEAN;
	arena = region_arena(l, owner);
	if (!ret->len || ret->off < arena || ret->off - arena > l->arena ||
	    ret->len > l->arena - (ret->off - arena))
		return -EUCLEAN;
	return 1;
}
