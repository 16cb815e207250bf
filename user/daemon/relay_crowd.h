/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a relay has more to do than it can. Each message costs it two system calls and wake-ups, TCP only for
 * as long as nobody waits: where many connections always have something, TCP does many segments at a time, and is
 * the better way for small messages. So says a relay whose CPU is always busy, or one on a host without idle CPUs,
 * for more than a few of them.
 */
#ifndef ISM_DAEMON_RELAY_CROWD_H
#define ISM_DAEMON_RELAY_CROWD_H

#include <linux/types.h>

/* A message of less is small; in a longer one the copy counts, which the relay does as well as TCP. */
#define RELAY_CROWD_SMALL 4096

/**
 * struct relay_crowd - of one relay
 * @limit: so many ends in use are never a crowd; 0: none are
 * @worked_ns: that the relay was at work, or others on its CPU while it looked for something, since @since_ns
 * @since_ns: when that began, CLOCK_MONOTONIC
 * @full: for how many looks in a row it, or the host, has been at work nearly always
 * @cpus_ns: when the host's CPUs were last looked at; @idle, @total: what their times were; @host_busy: of a hundred
 *           parts of the time since the look before that
 */
struct relay_crowd {
	unsigned int limit;
	unsigned int full;
	__u64 worked_ns;
	__u64 since_ns;
	__u64 cpus_ns, idle, total;
	unsigned int host_busy;
};

/** relay_crowd_look() - now and then, at regular times
 * @now: CLOCK_MONOTONIC
 * @used: ends with small messages that were in use since the last look
 *
 * Return: 1 when those had better go by TCP.
 */
int relay_crowd_look(struct relay_crowd *c, __u64 now, unsigned int used);

/** relay_crowd_wants_cpus() - is it worth to look at the host's CPUs now? */
int relay_crowd_wants_cpus(const struct relay_crowd *c, __u64 now, unsigned int used);

/** relay_crowd_cpus() - what the times of the host's CPUs are, as relay_crowd_read_cpus() says */
void relay_crowd_cpus(struct relay_crowd *c, __u64 now, __u64 idle, __u64 total);

/** relay_crowd_read_cpus() - the times of all CPUs together since the host started, in ticks; negative errno */
int relay_crowd_read_cpus(__u64 *idle, __u64 *total);

/** relay_crowd_is_small() - are @msgs messages of @bytes bytes in all small ones? */
static inline int relay_crowd_is_small(__u64 bytes, __u64 msgs)
{
	return bytes / RELAY_CROWD_SMALL < msgs;
}

#endif
