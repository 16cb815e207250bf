/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which of several settings moves the most bytes? What is best for a ring depends on where the host puts the
 * two CPUs, on the size of messages and on what programs do with them, and it changes; so it is tried, one
 * step up or down at a time, and kept where that brings more bytes in the same time.
 *
 * The state is one task's; no call blocks, and the caller has the clock.
 */
#ifndef ISM_LIB_TUNE_H
#define ISM_LIB_TUNE_H

#include <linux/types.h>

/* So long the bytes are counted before a setting is judged, ns. */
#define ISM_TUNE_WINDOW_NS 200000

/**
 * struct ism_tuning - what there is to choose from
 * @levels: how many settings, in an order in which neighbours are alike
 * @first: the one to begin with
 * @lower: percent of the settled rate that the next lower one has to bring; below 100 where the lower
 *         one is better if it makes no difference
 */
struct ism_tuning {
	__u8 levels;
	__u8 first;
	__u8 lower;
};

/**
 * struct ism_tune - how far it has come; all 0 is a fresh one
 * @begin: time at which this window began
 * @last: when it was last asked, 0: never
 * @bytes: counter when the window began
 * @rate: what the settled setting brings, smoothed
 * @base: what it brought when another one was last tried
 * @level: the settled setting
 * @tried: the setting of this window
 * @fresh: windows until this setting shows: caches still hold what was left by the one before
 * @down: the next one to be tried is a lower one
 * @rest: windows until then
 * @pause: and until the one after it, should it fail
 */
struct ism_tune {
	__u64 begin;
	__u64 last;
	__u64 bytes;
	__u64 rate;
	__u64 base;
	__u8 level;
	__u8 tried;
	__u8 fresh;
	__u8 down;
	__u16 rest;
	__u16 pause;
};

/**
 * ism_tune() - count on
 * @now: of any clock, in any unit; not 0
 * @bytes: moved so far, a counter
 * @window: ISM_TUNE_WINDOW_NS in the unit of @now
 * @lap: for settings that show only after a while: a window has at least so many bytes, unless it would become
 *       very long by that, and some windows pass before one counts. 0: they show at once
 *
 * Return: the setting to use now, from 0.
 */
unsigned int ism_tune(struct ism_tune *t, const struct ism_tuning *what, __u64 now, __u64 bytes,
		      __u64 window, __u64 lap);

#endif
