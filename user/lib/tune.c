// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which of several settings moves the most bytes; see tune.h. */
#include "tune.h"

/* Percent of the settled rate that the next higher setting has to bring. */
#define HIGHER 105
/* The settled rate itself has changed by so many percent, and not just once: things are different now. */
#define CHANGED 25
#define SMOOTH	8 /* windows, about */
/* Windows between trials: twice as many after each that failed, for a bad setting may cost much. */
#define PAUSE_MIN 32
#define PAUSE_MAX 1024
/*
 * Windows with a lap that do not count after a change. Seen: ten laps until a ring was back in the caches from
 * which it had been kept. A trial with less than so many percent is not waited for.
 */
#define SETTLE	 12
#define HOPELESS 60
/* A window has at most so many times its length for the sake of a lap. */
#define STRETCH 64

static void try(struct ism_tune *t, unsigned int level)
{
	if (t->tried != level)
		t->fresh = SETTLE;
	t->tried = level;
}

/* No trial for a while. */
static void rest(struct ism_tune *t)
{
	try(t, t->level);
	t->base = t->rate;
	t->rest = t->pause;
}

/* Is there no setting in this direction? */
static int at_the_end(const struct ism_tune *t, const struct ism_tuning *what)
{
	return t->down ? !t->level : t->level + 1 >= what->levels;
}

static void try_next(struct ism_tune *t)
{
	try(t, t->down ? t->level - 1 : t->level + 1);
}

static void judge_settled(struct ism_tune *t, const struct ism_tuning *what, __u64 rate)
{
	__u64 off;

	t->rate = t->rate ? (t->rate * (SMOOTH - 1) + rate) / SMOOTH : rate;
	off = t->rate > t->base ? t->rate - t->base : t->base - t->rate;
	if (off * 100 > t->base * CHANGED && t->rest > PAUSE_MIN) {
		t->pause = PAUSE_MIN;
		rest(t);
	}
	if (t->rest) {
		t->rest--;
		return;
	}
	if (at_the_end(t, what))
		t->down = !t->down;
	try_next(t);
}

static void judge_tried(struct ism_tune *t, const struct ism_tuning *what, __u64 rate)
{
	if (rate * 100 >= t->rate * (t->tried > t->level ? HIGHER : what->lower)) {
		t->level = t->tried;
		t->rate = rate;
		t->pause = PAUSE_MIN;
		if (!at_the_end(t, what)) {
			try_next(t);
			return;
		}
	} else {
		t->pause = t->pause < PAUSE_MIN ? PAUSE_MIN : t->pause * 2;
		if (t->pause > PAUSE_MAX)
			t->pause = PAUSE_MAX;
	}
	t->down = !t->down;
	rest(t);
}

static void begin(struct ism_tune *t, const struct ism_tuning *what)
{
	t->level = what->first;
	t->tried = what->first;
	t->fresh = SETTLE;
}

static void judge(struct ism_tune *t, const struct ism_tuning *what, __u64 rate, __u64 lap)
{
	int hopeless = t->tried != t->level && rate * 100 < t->rate * HOPELESS;

	if (lap && t->fresh && !hopeless)
		t->fresh--;
	else if (t->tried == t->level)
		judge_settled(t, what, rate);
	else
		judge_tried(t, what, rate);
}

unsigned int ism_tune(struct ism_tune *t, const struct ism_tuning *what, __u64 now, __u64 bytes,
		      __u64 window, __u64 lap)
{
	__u64 past = now - t->begin, more = bytes - t->bytes;
	/* Not asked for so long: a stream that stood still, or a task without a CPU. No rate. */
	int gap = now - t->last > window;

	if (!t->last)
		begin(t, what);
	t->last = now;
	if (!gap && (past < window || (more < lap && past < STRETCH * window)))
		return t->tried;
	t->begin = now;
	t->bytes = bytes;
	if (!gap)
		judge(t, what, (more << 16) / past, lap);
	return t->tried;
}
