// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What waking a task on another CPU costs on this host; see host.h. */
#define _GNU_SOURCE
#include "host.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "clock.h"

#define ROUNDS 200
#define WARMUP 20

struct pong {
	int ping, pong;
	int cpu;
};

static void pin_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set); /* where that is refused, it measures less well */
}

static int give(int fd)
{
	const __u64 one = 1;

	return write(fd, &one, sizeof(one)) == sizeof(one) ? 0 : -1;
}

static int take(int fd)
{
	__u64 n;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? 0 : -1;
}

static void *answer(void *arg)
{
	struct pong *p = arg;

	pin_to(p->cpu);
	for (int i = 0; i < ROUNDS; i++)
		if (take(p->ping) || give(p->pong))
			break;
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	__u32 x = *(const __u32 *)a, y = *(const __u32 *)b;

	return x < y ? -1 : x > y;
}

/* Half a round trip: both sleep before they are woken. */
static __u32 play(struct pong *p)
{
	struct pollfd poll_pong = { .fd = p->pong, .events = POLLIN };
	__u32 cost[ROUNDS - WARMUP];
	__u64 start;

	for (int i = 0; i < ROUNDS; i++) {
		start = ism_clock_ns();
		/* A partner that has died would never answer. */
		if (give(p->ping) || poll(&poll_pong, 1, 1000) != 1 || take(p->pong))
			return 0;
		if (i >= WARMUP)
			cost[i - WARMUP] = (ism_clock_ns() - start) / 2;
	}
	qsort(cost, ROUNDS - WARMUP, sizeof(cost[0]), by_size);
	return cost[(ROUNDS - WARMUP) / 2];
}

/* The first two CPUs that this process may use. */
static int two_cpus(int *a, int *b)
{
	cpu_set_t set;
	int n = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		return -1;
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &set))
			*(n++ ? b : a) = i;
	return n == 2 ? 0 : -1;
}

static void *measure(void *arg)
{
	struct pong p = { .ping = eventfd(0, EFD_CLOEXEC), .pong = eventfd(0, EFD_CLOEXEC) };
	__u32 *ret = arg;
	pthread_t partner;
	int own_cpu;

	if (p.ping >= 0 && p.pong >= 0 && !two_cpus(&own_cpu, &p.cpu) &&
	    !pthread_create(&partner, NULL, answer, &p)) {
		pin_to(own_cpu);
		*ret = play(&p);
		if (!*ret)
			pthread_cancel(partner);
		pthread_join(partner, NULL);
	}
	if (p.ping >= 0)
		close(p.ping);
	if (p.pong >= 0)
		close(p.pong);
	return NULL;
}

/* In two threads of their own, so that the caller's affinity stays as it is. */
__u32 host_measure_wake(void)
{
	pthread_t t;
	__u32 ns = 0;

	if (!pthread_create(&t, NULL, measure, &ns))
		pthread_join(t, NULL);
	return ns;
}
