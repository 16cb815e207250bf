// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What is in a DMB, for the daemon; see dmbs.h. */
#define _GNU_SOURCE
#include "dmbs.h"
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>

static __u64 load64(const __u64 *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static __u32 ring_size_of(const struct ism_dmb *dmb)
{
	return dmb->len - ISM_DMB_RING_OFF;
}

/* What a DMB begins with. */
struct head {
	struct ism_dmb_static s;
	struct ism_dmb_tx tx;
};

_Static_assert(offsetof(struct head, tx) == ISM_DMB_TX_OFF, "line A is behind the static part");

static void format(const struct ism_dmb_params *p, const struct ism_gid *owner, struct head *ret)
{
	*ret = (struct head){};
	ret->s.magic = ISM_DMB_MAGIC;
	ret->s.version = ISM_DMB_VERSION;
	ret->s.header_len = ISM_DMB_RING_OFF;
	ret->s.length = p->len;
	ret->s.ring_off = ISM_DMB_RING_OFF;
	ret->s.ring_size = p->len - ISM_DMB_RING_OFF;
	ret->s.token = p->token;
	/* An owner that attaches before its partner has to know where the stream is. */
	ret->tx.prod = ISM_PROD(0, ISM_PROD_TCP);
	memcpy(ret->s.owner_gid, owner, sizeof(ret->s.owner_gid));
	memcpy(ret->s.partner_gid, &p->partner, sizeof(ret->s.partner_gid));
}

int dmb_register(struct ism_fabric *f, const struct ism_dmb_params *p, struct ism_dmb **ret)
{
	struct ism_dmb_params with_head = *p;
	struct head head;

	format(p, &f->info.gid, &head);
	with_head.init = &head;
	with_head.init_len = sizeof(head);
	return ism_fabric_register_dmb(f, &with_head, ret);
}

int dmb_check_static(const struct ism_dmb *dmb, __u32 ring_size)
{
	struct ism_dmb_static s;

	memcpy(&s, dmb->addr, sizeof(s)); /* of the copy, every field is what it is checked to be */
	if (s.magic != ISM_DMB_MAGIC || s.version != ISM_DMB_VERSION ||
	    s.header_len != ISM_DMB_RING_OFF || s.length != ism_dmb_len(ring_size) ||
	    s.ring_off != ISM_DMB_RING_OFF || s.ring_size != ring_size || s.token != dmb->token)
		return -EPERM;
	return 0;
}

/* Whoever attaches says at once that it reads its ring, or at least who it is. */
int dmb_was_used(const struct ism_dmb *dmb)
{
	return load64(&ism_dmb_tx(dmb->addr)->prod) != ISM_PROD(0, ISM_PROD_TCP) ||
	       load64(&ism_dmb_rx(dmb->addr)->cons) || load64(&ism_dmb_rx(dmb->addr)->tcp);
}

void dmb_say_closed(const struct ism_dmb *own, const struct ism_dmb *peer)
{
	__u64 *said = &ism_dmb_rx(peer->addr)->tcp;

	if (load64(&ism_dmb_rx(own->addr)->tcp) & ISM_RX_RELAY)
		__atomic_store_n(said, load64(said) | ISM_RX_CLOSED, __ATOMIC_RELEASE);
}

int dmb_is_memfd(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0;
}

/* Both are words of counters, in two halves of 32 bits at most. */
static void copy_stats(const struct ism_dmb *dmb, struct ism_dmb_stats *ret)
{
	const __u64 *from = (const __u64 *)ism_dmb_stats(dmb->addr);
	__u64 to[sizeof(*ret) / sizeof(__u64)] = {};

	for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++)
		to[i] = load64(&from[i]);
	memcpy(ret, to, sizeof(*ret));
}

void dmb_show(const struct ism_dmb *own, const struct ism_dmb *peer, struct ism_msg_dmb *ret)
{
	const __u64 mask = ~0ULL >> ISM_PROD_SHIFT;
	__u64 prod = load64(&ism_dmb_tx(own->addr)->prod);
	__u64 cons = peer ? load64(&ism_dmb_rx(peer->addr)->cons) : 0;
	__u64 fill = ((prod >> ISM_PROD_SHIFT) - cons) & mask;

	ret->ring_size = ring_size_of(own);
	/* Cursors are read one after the other, and a broken client writes any: show what can be. */
	if (fill > mask / 2)
		fill = 0;
	ret->fill = fill < ret->ring_size ? fill : ret->ring_size;
	ret->prod_flags = prod & ISM_PROD_FLAGS;
	copy_stats(own, &ret->stats);
}

void dmb_add_stats(const struct ism_dmb *dmb, struct ism_msg_status *ret)
{
	struct ism_dmb_stats s;

	copy_stats(dmb, &s);
	ret->ring_bytes += s.tx_bytes;
	ret->ring_msgs += s.tx_msgs;
	ret->tcp_bytes += s.tcp_tx_bytes;
	ret->doorbells += s.doorbells;
	ret->spins += s.spins;
	ret->sleeps += s.sleeps;
	ret->timeouts += s.timeouts;
}
