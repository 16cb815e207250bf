// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* When a relay has too much to do (relay_crowd.h). */
#include "unit.h"
#include <unistd.h>
#include "../../user/daemon/relay_crowd.h"

#define TICK 100000000ULL

static struct relay_crowd crowd;
static __u64 now;

static void begin(unsigned int limit)
{
	crowd = (struct relay_crowd){ .limit = limit };
	now = 5 * TICK;
	relay_crowd_look(&crowd, now, 0);
}

/* The next look, after @percent of the time at work. */
static int look(unsigned int percent, unsigned int used)
{
	now += TICK;
	crowd.worked_ns += TICK / 100 * percent;
	return relay_crowd_look(&crowd, now, used);
}

/* How many looks it takes, 0 when 20 do not do. */
static int looks_until(unsigned int percent, unsigned int used)
{
	for (int i = 1; i <= 20; i++)
		if (look(percent, used))
			return i;
	return 0;
}

Test(relay_crowd, who_is_always_at_work_for_many)
{
	begin(8);
	cr_assert_eq(looks_until(90, 9), 5);
	cr_expect(look(75, 9), "goes on for as long as it is so");
	cr_expect_not(look(90, 8), "few enough");
	cr_expect_eq(looks_until(90, 9), 5, "and begins anew");
}

Test(relay_crowd, not_for_a_few_or_with_time_left)
{
	begin(8);
	cr_expect_eq(looks_until(100, 8), 0);
	begin(8);
	cr_expect_eq(looks_until(74, 1000), 0);
}

Test(relay_crowd, not_for_a_burst)
{
	begin(8);
	for (int i = 0; i < 10; i++) {
		for (int n = 0; n < 4; n++)
			cr_expect_not(look(100, 50));
		cr_expect_not(look(10, 50));
	}
}

Test(relay_crowd, never_without_a_limit)
{
	begin(0);
	cr_expect_eq(looks_until(100, 4000), 0);
}

/* Looks of a relay that has little to do, on a host that has @idle of a hundred parts of its time left. */
static int looks_on_host(unsigned int idle, unsigned int used)
{
	__u64 idled = 1000, total = 5000;

	begin(8);
	for (int i = 1; i <= 40; i++) {
		if (relay_crowd_wants_cpus(&crowd, now, used))
			relay_crowd_cpus(&crowd, now, idled, total);
		if (look(20, used))
			return i;
		idled += idle;
		total += 100;
	}
	return 0;
}

Test(relay_crowd, a_host_without_idle_cpus)
{
	/* two looks at the CPUs, five ticks apart, and five in a row that it was so */
	cr_expect_eq(looks_on_host(10, 9), 10);
	cr_expect_eq(looks_on_host(25, 9), 10);
	cr_expect_eq(looks_on_host(26, 9), 0);
	cr_expect_eq(looks_on_host(0, 8), 0);
}

Test(relay_crowd, an_old_look_at_the_cpus_says_nothing)
{
	begin(8);
	relay_crowd_cpus(&crowd, now, 0, 100);
	relay_crowd_cpus(&crowd, now + TICK, 0, 200);
	cr_assert_eq(crowd.host_busy, 100);
	now += 25 * TICK;
	cr_expect_eq(looks_until(20, 8), 0, "few, so nobody looks");
	crowd.cpus_ns = now;
	crowd.host_busy = 100;
	now += 21 * TICK;
	cr_expect_not(relay_crowd_look(&crowd, now, 9));
	cr_expect_eq(crowd.full, 0);
	relay_crowd_cpus(&crowd, now, 0, 300);
	cr_expect_eq(crowd.host_busy, 0, "over so long a time");
}

Test(relay_crowd, reads_what_the_host_says)
{
	__u64 idle[2], total[2];

	cr_assert_not(relay_crowd_read_cpus(&idle[0], &total[0]));
	cr_expect(idle[0] <= total[0]);
	for (int i = 0; i < 1000; i++) {
		cr_assert_not(relay_crowd_read_cpus(&idle[1], &total[1]));
		if (total[1] != total[0])
			break;
		usleep(10000);
	}
	cr_expect(total[1] > total[0], "time passes");
	cr_expect(idle[1] >= idle[0]);
}

/* What was worked before the first look says nothing of how long it took. */
Test(relay_crowd, the_first_look_only_begins)
{
	crowd = (struct relay_crowd){ .limit = 1, .worked_ns = 1000 * TICK };
	now = TICK;
	cr_expect_not(relay_crowd_look(&crowd, now, 2));
	cr_expect_eq(crowd.full, 0);
	cr_expect_eq(looks_until(80, 2), 5);
}

Test(relay_crowd, small_is_what_has_less_than_a_page_each)
{
	cr_expect(relay_crowd_is_small(1, 1));
	cr_expect(relay_crowd_is_small(4095 * 10, 10));
	cr_expect_not(relay_crowd_is_small(4096 * 10, 10));
	cr_expect_not(relay_crowd_is_small(0, 0), "nothing is not small");
}
