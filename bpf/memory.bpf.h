/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Is there memory for a redirect? bpf_tcp_ingress() charges the receiver and, where that fails,
 * gives the *sender* ENOMEM, blocking or not (net/ipv4/tcp_bpf.c, net/core/sock.c
 * __sk_mem_raise_allocated()). TCP only slows down. So near a limit the bytes take TCP: of the host's
 * tcp_mem, and of kmem.tcp of cgroup v1, at any level. A memory.max of cgroup v2 does not count: the
 * charge happens in process context and reclaims (gfp_memcg_charge()), and page cache fills it always.
 */
#ifndef ISMREDIR_MEMORY_BPF_H
#define ISMREDIR_MEMORY_BPF_H

#include "common.bpf.h"

#define ISM_MEMCG_LEVELS 8
#define ISM_PAGE_SHIFT	 12
#define ISM_ROOM_MIN	 (512 << 10) /* for the others that charge at the same time */
#define ISM_ROOM_AMPLE	 (64 << 20) /* so much that a jiffy cannot use it up */

enum {
	ISM_ROOM = 0,
	ISM_NO_ROOM_HOST, /* net.ipv4.tcp_mem: passes when the host recovers */
	ISM_NO_ROOM_CGROUP, /* a memory cgroup is nearly full */
};

/* The least room, in pages, from @c up to the root. */
static __always_inline long counter_room(struct page_counter *c, long room)
{
	for (int i = 0; i < ISM_MEMCG_LEVELS && c; i++) {
		long max = BPF_CORE_READ(c, max), used = BPF_CORE_READ(c, usage.counter);

		if (max - used < room)
			room = max - used;
		c = BPF_CORE_READ(c, parent);
	}
	return c ? 0 : room;
}

/* Bytes that may still be charged for @sk, as far as memory cgroups go. */
static __always_inline long memcg_room(const struct sock *sk)
{
	long pages = ISM_ROOM_AMPLE >> ISM_PAGE_SHIFT;
	struct mem_cgroup *m;

	if (!bpf_core_field_exists(sk->sk_memcg))
		return ISM_ROOM_AMPLE;
	/* Newer kernels keep flags in the low bits. */
	m = (struct mem_cgroup *)((unsigned long)BPF_CORE_READ(sk, sk_memcg) & ~7UL);
	if (!m)
		return ISM_ROOM_AMPLE;
	if (bpf_core_field_exists(m->tcpmem))
		pages = counter_room((void *)m + bpf_core_field_offset(struct mem_cgroup, tcpmem),
				     pages);
	return pages > 0 ? pages << ISM_PAGE_SHIFT : 0;
}

static __always_inline int tcp_pressure(const struct sock *sk)
{
	const struct proto *prot = KREAD(struct sock, sk, __sk_common.skc_prot);
	unsigned long *p = KREAD(struct proto, prot, memory_pressure);
	unsigned long v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), p);
	return v != 0;
}

/* @me remembers ample room for the rest of the jiffy: a verdict costs a third of a look. */
static __always_inline int ism_memory_room(struct ism_conn *me, const struct sock *psk, __u32 size)
{
	__u32 now = bpf_jiffies64();
	long room;

	if (me->room_jiffy == now)
		return ISM_ROOM;
	if (tcp_pressure(psk))
		return ISM_NO_ROOM_HOST;
	room = memcg_room(psk);
	if (room >= ISM_ROOM_AMPLE) {
		me->room_jiffy = now;
		return ISM_ROOM;
	}
	return room >= (long)size + ISM_ROOM_MIN ? ISM_ROOM : ISM_NO_ROOM_CGROUP;
}

#endif
