/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The negative cache: destinations that got an offer and did not answer it.
 *
 * Each connect() looks here first, and where partners are not capable that is all that a connection costs. So it
 * is no hash map, whose look-up and update are calls of a helper: a set of two entries of a cache line each in an
 * array. A destination more in a set puts out the one that would be asked again first.
 */
#ifndef ISMREDIR_NEGATIVE_BPF_H
#define ISMREDIR_NEGATIVE_BPF_H

#include "common.bpf.h"

#define NEG_WAYS 2
#define NEG_BUSY 1 /* until_ns of an entry that somebody writes */

struct neg_dest {
	__u64 netns;
	__u64 addr[2];
	__u32 port;
};

static __always_inline __u64 neg_part(const __u8 *addr)
{
	__u64 ret;

	__builtin_memcpy(&ret, addr, sizeof(ret));
	return ret;
}

/* The upper bits of a product depend on all bits: Knuth, The Art of Computer Programming, 6.4. */
static __always_inline struct ism_neg *neg_entry(const struct neg_dest *d, __u32 way)
{
	__u64 h = d->addr[1] ^ d->addr[0] * 0x9e3779b97f4a7c15ULL ^ d->port ^ d->netns << 16;
	__u32 at;

	h = (h ^ h >> 32) * 0x9e3779b97f4a7c15ULL;
	at = (h >> 32) % (ISM_NEGATIVE / NEG_WAYS) * NEG_WAYS + way;
	return bpf_map_lookup_elem(&negative, &at);
}

static __always_inline int neg_is(const struct ism_neg *n, const struct neg_dest *d)
{
	return n->port == d->port && n->netns == d->netns && neg_part(n->addr) == d->addr[0] &&
	       neg_part(n->addr + 8) == d->addr[1];
}

/*
 * No lock: who reads an entry while it is replaced may take one destination for another for once, and a
 * connection more is plain TCP.
 */
static __always_inline int ism_is_negative(const struct neg_dest *d, __u32 epoch)
{
	for (__u32 way = 0; way < NEG_WAYS; way++) {
		const struct ism_neg *n = neg_entry(d, way);

		if (n && neg_is(n, d))
			return n->epoch == epoch && bpf_ktime_get_coarse_ns() < n->until_ns;
	}
	return 0;
}

static __always_inline void ism_set_negative(const struct neg_dest *d, const struct ism_ctl *c,
					     __u32 reason)
{
	struct ism_neg *n = neg_entry(d, 0), *other = neg_entry(d, 1);

	if (!n || !other)
		return;
	if (neg_is(other, d) || (!neg_is(n, d) && other->until_ns < n->until_ns))
		n = other;
	/* Of two writers the second gives up: nothing shall stay that is half of one and half of the other. */
	if (__sync_lock_test_and_set(&n->until_ns, NEG_BUSY) == NEG_BUSY)
		return;
	n->netns = d->netns;
	__builtin_memcpy(n->addr, d->addr, sizeof(n->addr));
	n->port = d->port;
	n->reason = reason;
	n->epoch = c->epoch;
	__sync_lock_test_and_set(&n->until_ns, bpf_ktime_get_coarse_ns() + c->neg_ttl_ns);
}

#endif
