/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DMBs for tests of the ring: memfds mapped between inaccessible pages, read-only for their owner as in
 * the shim, and a stream of bytes that says at which position each of them belongs.
 */
#ifndef RING_DMBS_H
#define RING_DMBS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
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

/* Eight bytes of the stream @seed, those from position 8 * @word on (splitmix64). */
static inline uint64_t pattern_word(uint64_t seed, uint64_t word)
{
	uint64_t z = seed + word * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static inline void pattern_fill(uint64_t seed, uint64_t at, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		uint64_t w = pattern_word(seed, at / 8);
		size_t off = at % 8, n = 8 - off < len ? 8 - off : len;

		memcpy(p, (uint8_t *)&w + off, n);
		p += n;
		at += n;
		len -= n;
	}
}

/* The first position that is wrong, or -1. */
static inline int64_t pattern_check(uint64_t seed, uint64_t at, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		uint64_t w = pattern_word(seed, at / 8);
		size_t off = at % 8, n = 8 - off < len ? 8 - off : len;

		if (memcmp(p, (uint8_t *)&w + off, n)) {
			while (*p == ((uint8_t *)&w)[at % 8])
				p++, at++;
			return at;
		}
		p += n;
		at += n;
		len -= n;
	}
	return -1;
}

/* A repeatable source of numbers (xorshift64*). */
static inline uint64_t dmbs_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dULL;
}

#endif
