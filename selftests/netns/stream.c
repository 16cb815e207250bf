// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Position-dependent byte streams; see stream.h. */
#include "stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE (1u << 20)

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

uint64_t rng_next(struct rng *r)
{
	r->state += 0x9e3779b97f4a7c15ULL;
	return mix(r->state);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	return n ? rng_next(r) % n : 0;
}

int sizes_parse(struct sizes *s, const char *text)
{
	static const char *const names[] = {
		[SIZES_MIX] = "mix", [SIZES_TINY] = "tiny", [SIZES_SMALL] = "small",
		[SIZES_LOG] = "log", [SIZES_PAGE] = "page", [SIZES_BIG] = "big",
	};
	char *end;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (names[i] && !strcmp(text, names[i])) {
			s->kind = i;
			return 0;
		}
	}
	s->kind = SIZES_FIXED;
	s->fixed = strtoull(text, &end, 10);
	return *text && !*end && s->fixed ? 0 : -1;
}

static size_t draw(enum size_kind kind, size_t fixed, struct rng *r)
{
	switch (kind) {
	case SIZES_FIXED:
		return fixed;
	case SIZES_TINY:
		return 1 + rng_below(r, 16);
	case SIZES_SMALL:
		return 1 + rng_below(r, 1400);
	case SIZES_LOG: {
		uint64_t low = 1ULL << rng_below(r, 20);

		return low + rng_below(r, low + 1);
	}
	case SIZES_PAGE:
		return 4096 * (1 + rng_below(r, 32)) + rng_below(r, 3) - 1;
	case SIZES_BIG:
		return 65536 + rng_below(r, MAX_SIZE - 65536 + 1);
	case SIZES_MIX:
		break;
	}
	return draw(SIZES_TINY + rng_below(r, SIZES_BIG - SIZES_TINY + 1), fixed, r);
}

size_t sizes_draw(const struct sizes *s, struct rng *r)
{
	size_t max = s->max ? s->max : MAX_SIZE;
	size_t n = draw(s->kind, s->fixed, r);

	return n > max ? max : n;
}

static uint64_t word(uint64_t seed, uint64_t index)
{
	return mix(seed + (index + 1) * 0x9e3779b97f4a7c15ULL);
}

void stream_fill(uint64_t seed, uint64_t pos, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		uint64_t w = word(seed, pos / 8);
		size_t skip = pos % 8, n = 8 - skip < len ? 8 - skip : len;

		memcpy(p, (const uint8_t *)&w + skip, n);
		p += n;
		pos += n;
		len -= n;
	}
}

long stream_verify(uint64_t seed, uint64_t pos, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	size_t done = 0;

	while (done < len) {
		uint64_t w = word(seed, (pos + done) / 8);
		size_t skip = (pos + done) % 8, n = 8 - skip < len - done ? 8 - skip : len - done;

		if (memcmp(p + done, (const uint8_t *)&w + skip, n)) {
			while (p[done] == ((const uint8_t *)&w)[skip]) {
				done++;
				skip++;
			}
			return done;
		}
		done += n;
	}
	return -1;
}

#define EXPLAIN_BYTES 8 /* so many bytes in a row do not agree by chance */
#define EXPLAIN_REACH (8u << 20) /* how far away the bytes are looked for */

void stream_explain(char *text, size_t room, uint64_t seed, uint64_t pos, const void *buf,
		    size_t len, size_t bad)
{
	const uint8_t *p = (const uint8_t *)buf + bad;
	uint64_t at = pos + bad, low = at > EXPLAIN_REACH ? at - EXPLAIN_REACH : 0;
	uint8_t want[EXPLAIN_BYTES];
	size_t n = len - bad < EXPLAIN_BYTES ? len - bad : EXPLAIN_BYTES;

	stream_fill(seed, at, want, 1);
	if (n < EXPLAIN_BYTES) {
		snprintf(text, room, "position %llu: got 0x%02x, expected 0x%02x",
			 (unsigned long long)at, p[0], want[0]);
		return;
	}
	for (uint64_t q = low; q < at + EXPLAIN_REACH; q++) {
		stream_fill(seed, q, want, 1);
		if (want[0] != p[0] || stream_verify(seed, q, p, n) >= 0)
			continue;
		snprintf(text, room, "position %llu: here are the bytes of position %llu (%s %llu)",
			 (unsigned long long)at, (unsigned long long)q,
			 q > at ? "gap or overtaken, by" : "doubled or late, by",
			 (unsigned long long)(q > at ? q - at : at - q));
		return;
	}
	snprintf(text, room,
		 "position %llu: got %02x %02x %02x %02x, found nowhere within %u of this stream",
		 (unsigned long long)at, p[0], p[1], p[2], p[3], EXPLAIN_REACH);
}
