/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Byte streams whose every byte depends on its position, so that a byte that is lost, doubled,
 * moved, altered or taken from another connection is noticed at its very position.
 */
#ifndef NETNS_STREAM_H
#define NETNS_STREAM_H

#include <stddef.h>
#include <stdint.h>

struct rng {
	uint64_t state;
};

/* How the sizes of calls are drawn. */
enum size_kind {
	SIZES_MIX, /* one of the others, drawn anew for each call */
	SIZES_FIXED, /* always the same */
	SIZES_TINY, /* 1 to 16 bytes */
	SIZES_SMALL, /* 1 to 1400 bytes */
	SIZES_LOG, /* 1 byte to 1 MiB, every power of two equally likely */
	SIZES_PAGE, /* multiples of 4096 and their neighbours */
	SIZES_BIG, /* 64 KiB to 1 MiB */
};

struct sizes {
	enum size_kind kind;
	size_t fixed;
	size_t max; /* never more than this; 0 is 1 MiB */
};

uint64_t rng_next(struct rng *r);
/* 0 .. n-1 */
uint64_t rng_below(struct rng *r, uint64_t n);

/* "log", "tiny", "1234", ...; returns -1 for anything else. */
int sizes_parse(struct sizes *s, const char *text);
size_t sizes_draw(const struct sizes *s, struct rng *r);

void stream_fill(uint64_t seed, uint64_t pos, void *buf, size_t len);

/* Returns -1 when all is right, else the offset in @buf of the first wrong byte. */
long stream_verify(uint64_t seed, uint64_t pos, const void *buf, size_t len);

/* Say in @text what the bytes at @bad look like: moved, doubled, a gap, foreign. */
void stream_explain(char *text, size_t room, uint64_t seed, uint64_t pos, const void *buf,
		    size_t len, size_t bad);

#endif
