// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Whether a relay has more to do than it can; see relay_crowd.h. */
#include "relay_crowd.h"
#include <errno.h>
#include <stdio.h>

/* At work for so many of a hundred parts of the time, so often in a row: it is not a burst. */
#define FULL_PERCENT 75
#define FULL_LOOKS   5

/* /proc/stat says much more than it is asked for, so it takes a while on large hosts. */
#define CPUS_NS	    500000000ULL
#define CPUS_OLD_NS 2000000000ULL /* so long ago that it says nothing of now */

int relay_crowd_read_cpus(__u64 *idle, __u64 *total)
{
	/* user, nice, system, idle, iowait, irq, softirq, steal: proc(5) */
	unsigned long long t[8];
	FILE *f = fopen("/proc/stat", "re");
	int n;

	if (!f)
		return -errno;
	n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3],
		   &t[4], &t[5], &t[6], &t[7]);
	fclose(f);
	if (n != 8)
		return -EPROTO;
	*idle = t[3] + t[4];
	*total = 0;
	for (int i = 0; i < 8; i++)
		*total += t[i];
	return 0;
}

int relay_crowd_wants_cpus(const struct relay_crowd *c, __u64 now, unsigned int used)
{
	return c->limit && used > c->limit && now - c->cpus_ns >= CPUS_NS;
}

void relay_crowd_cpus(struct relay_crowd *c, __u64 now, __u64 idle, __u64 total)
{
	__u64 ticks = total - c->total, idled = idle - c->idle;

	c->host_busy = 0;
	if (c->cpus_ns && now - c->cpus_ns < CPUS_OLD_NS && ticks && idled <= ticks)
		c->host_busy = 100 - idled * 100 / ticks;
	c->cpus_ns = now;
	c->idle = idle;
	c->total = total;
}

int relay_crowd_look(struct relay_crowd *c, __u64 now, unsigned int used)
{
	__u64 elapsed = now - c->since_ns;
	int full =
		c->since_ns && (c->worked_ns * 100 >= elapsed * FULL_PERCENT ||
				(c->host_busy >= FULL_PERCENT && now - c->cpus_ns < CPUS_OLD_NS));

	c->since_ns = now;
	c->worked_ns = 0;
	if (!c->limit || !full || used <= c->limit) {
		c->full = 0;
		return 0;
	}
	if (c->full < FULL_LOOKS)
		c->full++;
	return c->full >= FULL_LOOKS;
}
