// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Cases about flow control: a writer whose reader sleeps is held, and costs little memory. */
#define _GNU_SOURCE
#include "cases.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#define CHUNK	      65536
#define DEFAULT_BOUND (8ULL << 20)

/*
 * Send without a reader until nothing goes any more: EAGAIN and no POLLOUT, several times in a row.
 * (Plain TCP, too, takes a little more when the window is probed.)
 */
static void fill_up(struct lane *l, size_t chunk, uint64_t bound)
{
	uint64_t before = l->sent;
	ssize_t n;

	for (int held = 0; held < 5; held++) {
		while ((n = lane_try_send(l, chunk, MSG_DONTWAIT)) > 0) {
			held = 0;
			EXPECT(l->sent - before <= bound, "%llu bytes were taken, bound %llu",
			       (unsigned long long)(l->sent - before), (unsigned long long)bound);
		}
		EXPECT(errno == EAGAIN, "a full send fails with %s", strerror(errno));
		if (polled(l->from, POLLOUT, 0) & POLLOUT)
			held = 0;
		sleep_ms(20);
	}
	printf("held after %llu bytes\n", (unsigned long long)(l->sent - before));
}

static void set_send_limit(int fd, unsigned int ms)
{
	struct timeval tv = { ms / 1000, ms % 1000 * 1000 };

	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)))
		fail_errno("SO_SNDTIMEO");
}

static void expect_held(struct lane *l, uint64_t bound, size_t chunk)
{
	uint64_t before = l->sent;

	step("filling up");
	fill_up(l, chunk, bound);
	step("a blocking send while held");
	set_send_limit(l->from, 100);
	while (lane_try_send(l, chunk, 0) > 0)
		EXPECT(l->sent - before <= bound, "blocking sends are not held");
	EXPECT(errno == EAGAIN, "a blocking send fails with %s", strerror(errno));
	set_send_limit(l->from, 0);
	step("draining");
	lane_drain(l);
	EXPECT(polled(l->from, POLLOUT, 5000) & POLLOUT, "all is read, but POLLOUT is false");
}

static void both_held(struct pair *p, uint64_t bound, size_t chunk)
{
	expect_held(&p->up, bound, chunk);
	expect_held(&p->down, bound, chunk);
	/* Held once more: the way back to redirection keeps a bound, though TCP has grown its own. */
	warm_up(p);
	expect_held(&p->up, 2 * bound, chunk);
	warm_up(p);
	check_live();
	pair_close(p);
}

static void blocked(void)
{
	struct pair p = pair_open();

	warm_up(&p);
	both_held(&p, DEFAULT_BOUND, CHUNK);
}

/* Nothing was ever sent: the very first bytes meet a reader that sleeps. */
static void blocked_cold(void)
{
	struct pair p = pair_open();

	both_held(&p, DEFAULT_BOUND, CHUNK);
}

static void blocked_small(void)
{
	struct pair p = pair_open();

	warm_up(&p);
	both_held(&p, DEFAULT_BOUND, 100);
}

static void small_buffers(int fd)
{
	set_int(fd, SOL_SOCKET, SO_SNDBUF, 16384, "SO_SNDBUF");
	set_int(fd, SOL_SOCKET, SO_RCVBUF, 16384, "SO_RCVBUF");
}

static uint64_t set_bound(const struct lane *l)
{
	int snd = get_int(l->from, SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF");
	int rcv = get_int(l->to, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF");

	return 4ULL * (snd + rcv);
}

static void blocked_set(void)
{
	struct pair p = pair_open_with(small_buffers);

	warm_up(&p);
	both_held(&p, set_bound(&p.up), 4096);
}

static void blocked_set_late(void)
{
	struct pair p = pair_open();

	warm_up(&p);
	small_buffers(p.c);
	small_buffers(p.s);
	both_held(&p, set_bound(&p.up), 4096);
}

static void large_receive_buffer(int fd)
{
	set_int(fd, SOL_SOCKET, SO_RCVBUF, 1 << 20, "SO_RCVBUF");
	set_int(fd, SOL_SOCKET, SO_SNDBUF, 1 << 20, "SO_SNDBUF");
}

static void blocked_large(void)
{
	struct pair p = pair_open_with(large_receive_buffer);

	warm_up(&p);
	both_held(&p, set_bound(&p.up), CHUNK);
}

/* ---------------------------------------------------------------- memory */

static long mem_available_kib(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	long kib = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %ld", &kib) == 1)
			break;
	if (f)
		fclose(f);
	EXPECT(kib > 0, "no MemAvailable in /proc/meminfo");
	return kib;
}

static long tiny_cost(void)
{
	struct pair p = pair_open();
	unsigned int accepted = 0;
	long before, cost;

	warm_up(&p);
	step("one-byte sends");
	before = mem_available_kib();
	for (int i = 0; i < 200000; i++) {
		ssize_t n = lane_try_send(&p.up, 1, MSG_DONTWAIT);

		EXPECT(n == 1 || errno == EAGAIN, "a one-byte send fails with %s", strerror(errno));
		if (n < 0)
			break;
		accepted++;
	}
	cost = before - mem_available_kib();
	printf("%u one-byte sends cost %ld KiB\n", accepted, cost);
	EXPECT(accepted > 1000, "only %u one-byte sends were taken", accepted);
	step("reading one-byte sends");
	lane_drain(&p.up);
	warm_up(&p);
	pair_close(&p);
	return cost;
}

/* Somebody else may take memory meanwhile, so the best of four counts. */
static void tiny(void)
{
	for (int i = 0; i < 4; i++) {
		if (tiny_cost() < 32 << 10) {
			check_live();
			return;
		}
		sleep_ms(200);
	}
	fail("200000 one-byte sends to a sleeping reader cost more than 32 MiB, four times");
}

/* ---------------------------------------------------------------- order */

/* Bytes go by TCP, then the reader catches up half, then more is sent, in every small variation. */
static void order(void)
{
	struct pair p = pair_open();
	struct rng r = { .state = 99 };

	step("ordered pieces");
	for (int i = 0; i < 400; i++) {
		struct lane *l = rng_next(&r) & 1 ? &p.up : &p.down;

		switch (rng_below(&r, 4)) {
		case 0:
			lane_try_send(l, 1 + rng_below(&r, 100000), MSG_DONTWAIT);
			break;
		case 1:
			lane_try_send(l, 1 + rng_below(&r, 10), MSG_DONTWAIT);
			break;
		case 2:
			lane_try_recv(l, 1 + rng_below(&r, 200000), MSG_DONTWAIT);
			break;
		case 3:
			lane_drain(l);
			break;
		}
	}
	lane_drain(&p.up);
	lane_drain(&p.down);
	warm_up(&p);
	check_live();
	pair_close(&p);
}

const struct test_case flow_cases[] = {
	{ "blocked", blocked },
	{ "blocked_cold", blocked_cold },
	{ "blocked_small", blocked_small },
	{ "blocked_set", blocked_set },
	{ "blocked_set_late", blocked_set_late },
	{ "blocked_large", blocked_large },
	{ "tiny", tiny },
	{ "order", order },
	{ NULL, NULL },
};
