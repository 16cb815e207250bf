/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A stream of bytes that says at which position each of them belongs, and repeatable random numbers. */
#ifndef RING_PATTERN_H
#define RING_PATTERN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

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
static inline uint64_t pattern_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dULL;
}

#endif
