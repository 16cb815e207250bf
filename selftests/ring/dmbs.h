/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DMBs for tests of the ring: memfds mapped between inaccessible pages, read-only for their owner as in
 * the shim.
 */
#ifndef RING_DMBS_H
#define RING_DMBS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "pattern.h"
#include "ring.h"

#define DMB_GUARD 65536

/* One end of a connection: what it reads, what it writes, and its private state. */
struct ring_end {
	void *own; /* read only */
	void *peer;
	struct ism_ring_tx tx;
	struct ism_ring_rx rx;
};

/* The memory behind both directions. */
struct ring_mem {
	int fd[2];
	uint32_t size[2];
};

static inline void *dmb_map(int fd, uint32_t size, int prot)
{
	size_t len = ism_dmb_len(size);
	uint8_t *at =
		mmap(NULL, len + 2 * DMB_GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED ||
	    mmap(at + DMB_GUARD, len, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		perror("mmap");
		abort();
	}
	return at + DMB_GUARD;
}

static inline void dmb_unmap(void *dmb, uint32_t size)
{
	munmap((uint8_t *)dmb - DMB_GUARD, ism_dmb_len(size) + 2 * DMB_GUARD);
}

/* @size0: of the ring that end 0 reads; @size1: of the one that end 1 reads */
static inline void ring_mem_make(struct ring_mem *m, uint32_t size0, uint32_t size1)
{
	m->size[0] = size0;
	m->size[1] = size1;
	for (int i = 0; i < 2; i++) {
		m->fd[i] = memfd_create("dmb", MFD_CLOEXEC);
		if (m->fd[i] < 0 || ftruncate(m->fd[i], ism_dmb_len(m->size[i]))) {
			perror("memfd");
			abort();
		}
	}
}

/* Begin with both cursors at 0 in memory that is mapped already. */
static inline void ring_end_init(struct ring_end *e, const struct ring_mem *m, int which)
{
	ism_ring_tx_init(&e->tx, m->size[!which]);
	ism_ring_rx_init(&e->rx, m->size[which]);
	e->tx.flags = 0;
}

/* Map end @which (0 or 1) and make its direction an empty ring. */
static inline void ring_end_open(struct ring_end *e, const struct ring_mem *m, int which)
{
	e->own = dmb_map(m->fd[which], m->size[which], PROT_READ);
	e->peer = dmb_map(m->fd[!which], m->size[!which], PROT_READ | PROT_WRITE);
	ring_end_init(e, m, which);
	ism_ring_tx_publish(&e->tx, e->peer);
}

static inline void ring_end_close(struct ring_end *e)
{
	dmb_unmap(e->own, e->rx.size);
	dmb_unmap(e->peer, e->tx.size);
}

#endif
