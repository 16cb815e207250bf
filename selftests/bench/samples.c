// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Samples of the workload programs: how long each operation took, and what is printed of it.
 */
#include "netload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_SAMPLES (4u << 20)

void samples_begin(struct samples *s, unsigned int ms, uint64_t count)
{
	s->ns = nl_alloc(MAX_SAMPLES * sizeof(*s->ns));
	s->n = 0;
	s->count = count;
	s->begin = s->end = nl_now();
	s->until = s->begin + ms * 1000000ULL;
}

/* Note the operation that began at @since. Return: whether there is time for another one. */
bool samples_add(struct samples *s, uint64_t since)
{
	uint64_t now = nl_now(), ns = now - since;

	s->ns[s->n++] = ns > UINT32_MAX ? UINT32_MAX : ns;
	s->end = now;
	return now < s->until && s->n < MAX_SAMPLES && (!s->count || s->n < s->count);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double percentile_us(const struct samples *s, double p)
{
	size_t i = p * s->n;

	return s->ns[i < s->n ? i : s->n - 1] / 1e3;
}

/* One line of JSON; the samples are gone then. */
void samples_print(struct samples *s, const char *work, size_t size, uint64_t spurious)
{
	double secs = (s->end - s->begin) / 1e9;

	qsort(s->ns, s->n, sizeof(*s->ns), by_value);
	printf("{\"work\":\"%s\",\"size\":%zu,\"ops\":%zu,\"secs\":%.6f,\"per_sec\":%.1f,"
	       "\"mean_us\":%.3f,\"p50_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,"
	       "\"spurious_eagain\":%" PRIu64 "}\n",
	       work, size, s->n, secs, s->n / secs, secs * 1e6 / s->n, percentile_us(s, .5),
	       percentile_us(s, .99), percentile_us(s, .999), spurious);
	free(s->ns);
}
