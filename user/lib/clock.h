/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The clock that intervals and deadlines are measured by. */
#ifndef ISM_LIB_CLOCK_H
#define ISM_LIB_CLOCK_H

#include <linux/types.h>
#include <time.h>

/** ism_clock_ns() - CLOCK_MONOTONIC, which bpf_ktime_get_ns() is, too; ns. From any thread or signal handler */
static inline __u64 ism_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/** ism_clock_ms() - the same in ms */
static inline __u64 ism_clock_ms(void)
{
	return ism_clock_ns() / 1000000;
}

#endif
