// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Finding the setting that moves the most bytes (tune.h), in a made-up world with its own clock. */
#include "unit.h"
#include "ring.h"
#include "tune.h"

#define WINDOW 200 /* us, the clock here */
#define STEP   5

/* Bytes per us for each setting. @lag: bytes until a changed setting shows. */
struct world {
	const struct ism_tuning *what;
	uint64_t lap, lag;
	unsigned int rate[8];
	uint64_t now, bytes, wait;
	unsigned int level, shows;
	struct ism_tune t;
};

static unsigned int noise_state;

/* Up to @percent more or less. */
static unsigned int noisy(unsigned int rate, unsigned int percent)
{
	noise_state = noise_state * 1103515245 + 12345;
	return rate - rate * percent / 100 + (noise_state >> 16) % (2 * rate * percent / 100 + 1);
}

static void set(struct world *w, const struct ism_tuning *what, const unsigned int *rate)
{
	w->what = what;
	memcpy(w->rate, rate, what->levels * sizeof(*rate));
}

/* Go on for @us; how many bytes were moved. */
static uint64_t go(struct world *w, uint64_t us, unsigned int noise)
{
	uint64_t end = w->now + us, from = w->bytes, more;

	for (; w->now < end; w->now += STEP) {
		more = (uint64_t)noisy(w->rate[w->shows], noise) * STEP;
		w->bytes += more;
		w->wait = w->wait > more ? w->wait - more : 0;
		if (!w->wait)
			w->shows = w->level;
		unsigned int level = ism_tune(&w->t, w->what, w->now + 1, w->bytes, WINDOW, w->lap);

		cr_assert_lt(level, w->what->levels);
		if (level != w->level)
			w->wait = w->lag;
		w->level = level;
	}
	return w->bytes - from;
}

/* The setting that is settled on, @us after the world has become like that. */
static unsigned int settled(struct world *w, const struct ism_tuning *what,
			    const unsigned int *rate, uint64_t us, unsigned int noise)
{
	set(w, what, rate);
	go(w, us, noise);
	return w->t.level;
}

static const unsigned int rising[] = { 8000, 8900, 10000, 12500, 13400, 14500 };
static const unsigned int falling[] = { 14500, 13400, 12500, 10000, 8900, 8000 };
static const unsigned int peak[] = { 8000, 9000, 13000, 9000, 8000, 7000 };
static const unsigned int flat[] = { 9000, 9000, 9000, 9000, 9000, 9000 };
static const unsigned int first[] = { 9000, 4000 }, second[] = { 1300, 9000 };

Test(tune, finds_the_best_wherever_it_is)
{
	static const struct {
		const unsigned int *rate;
		unsigned int best;
	} c[] = { { rising, 5 }, { falling, 0 }, { peak, 2 } };

	for (int i = 0; i < 3; i++) {
		struct world w = {};

		cr_expect_eq(settled(&w, &ism_ring_away, c[i].rate, 100000, 2), c[i].best, "%d: %u",
			     i, w.t.level);
	}
}

Test(tune, stays_where_nothing_makes_a_difference)
{
	struct world w = {};

	cr_expect_eq(settled(&w, &ism_ring_away, flat, 500000, 1), ism_ring_away.first);
}

Test(tune, goes_back_to_the_lower_one_when_that_is_as_good)
{
	struct world w = { .lap = 1 << 20 };

	cr_assert_eq(settled(&w, &ism_ring_bypass, second, 300000, 2), 1);
	cr_expect_eq(settled(&w, &ism_ring_bypass, flat, 2000000, 1), 0);
}

Test(tune, follows_when_things_change)
{
	struct world w = { .lap = 1 << 20 };

	for (int i = 0; i < 6; i++)
		cr_expect_eq(settled(&w, &ism_ring_bypass, i & 1 ? second : first, 1000000, 3),
			     i & 1u, "change %d", i);
}

/* Long after the last change trials are rare, but a rate that is another one is a reason. */
Test(tune, sees_that_things_have_changed)
{
	struct world w = { .lap = 1 << 20 };

	cr_assert_eq(settled(&w, &ism_ring_bypass, first, 10000000, 2), 0);
	cr_expect_eq(settled(&w, &ism_ring_bypass, second, 300000, 2), 1);
}

/* What was in the caches, or kept from them, stays so for some laps. */
Test(tune, waits_until_a_setting_shows)
{
	static const unsigned int third[] = { 30000, 15000 };
	struct world w = { .lap = 4 << 20, .lag = 40 << 20 };

	cr_assert_eq(settled(&w, &ism_ring_bypass, second, 500000, 2), 1);
	cr_expect_eq(settled(&w, &ism_ring_bypass, third, 3000000, 2), 0);
}

/* Bytes, not time: of what the best setting would have moved nearly all are. */
Test(tune, a_trial_costs_little)
{
	static const struct {
		const struct ism_tuning *what;
		const unsigned int *rate;
		unsigned int best;
		uint64_t lap;
	} c[] = { { &ism_ring_away, rising, 14500, 0 },
		  { &ism_ring_away, falling, 14500, 0 },
		  { &ism_ring_bypass, first, 9000, 4 << 20 },
		  { &ism_ring_bypass, second, 9000, 4 << 20 } };

	for (int i = 0; i < 4; i++) {
		struct world w = { .lap = c[i].lap };

		set(&w, c[i].what, c[i].rate);
		go(&w, 200000, 2);
		cr_expect_geq(go(&w, 4000000, 2), 4000000ULL * c[i].best / 100 * 97, "%d", i);
	}
}

/* A writer that pauses, or a reader without a CPU: neither says anything of a setting. */
Test(tune, a_gap_is_no_rate)
{
	struct world w = { .lap = 1 << 20 };

	set(&w, &ism_ring_bypass, (const unsigned int[]){ 9000, 8000 });
	go(&w, 100000, 2);
	for (int i = 0; i < 5000; i++) {
		go(&w, 1 + noisy(5 * WINDOW, 80), 2);
		cr_assert_eq(w.t.level, 0, "%d", i);
		w.now += noisy(5 * WINDOW, 60);
	}
}

Test(tune, a_counter_that_stands_still_is_no_trouble)
{
	struct world w = {};

	set(&w, &ism_ring_away, (const unsigned int[6]){ 0 });
	go(&w, 100000, 0);
	cr_expect_eq(w.bytes, 0);
}
