// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Waiting in the kernel for what is about to come: the first messages of a connection, before there are rings,
 * and the next client. Short connections consist of nothing else, and on two CPUs most of their time is
 * falling asleep and being woken. So the kernel is asked again and again for as long as a wake-up costs, and
 * only then slept in. docs/ring.rst, "waiting".
 *
 * Nobody says here who the partner is or where it runs, so what decides is whether it was worth it: a
 * thread whose looks were in vain does without, for longer each time.
 */
#include "shim.h"
#include <fcntl.h>
#include <sys/syscall.h>

/* Points of a habit: what a hit gives and a miss takes, so that two of three have to hit. */
#define SCORE_MAX  4
#define SCORE_MISS 2
/* Waits without looking, each time twice as many, until a look has been worth it. */
#define REST_MIN 32
#define REST_MAX 4096
/* So many times in a row it was there already: the look was for nothing, and costs a system call. */
#define PROMPT 8

/**
 * struct habit - what became of a thread's looks, of one kind
 * @skip: waits left that do without
 * @rest: how many it were the last time, 0: none since the last hit
 * @prompt: times in a row that there was nothing to wait for
 * @score: what hits and misses came to
 */
struct habit {
	uint32_t skip, rest, prompt;
	int32_t score;
};

static __thread struct habit habits[ISM_AWAIT_KINDS];

static int kernel_has(struct pollfd *fds, nfds_t n)
{
	static const struct timespec zero;

	/* by number: poll() is a cancellation point, and here something may be held */
	return SYS(SYS_ppoll, fds, n, &zero, NULL, 8);
}

static void take_a_rest(struct habit *h)
{
	h->rest = h->rest ? h->rest * 2 : REST_MIN;
	if (h->rest > REST_MAX)
		h->rest = REST_MAX;
	h->skip = h->rest;
	h->score = 0;
	h->prompt = 0;
}

/* Does this wait do without? */
static int rests(struct habit *h)
{
	if (!h->skip)
		return 0;
	h->skip--;
	return 1;
}

static void was_prompt(struct habit *h)
{
	if (++h->prompt == PROMPT)
		take_a_rest(h);
}

static void judge(struct habit *h, int hit)
{
	h->prompt = 0;
	h->score += hit ? 1 : -SCORE_MISS;
	if (h->score > SCORE_MAX)
		h->score = SCORE_MAX;
	if (hit)
		h->rest /= 2; /* not 0: one may be luck, as when a tick lets the partner run here */
	else if (h->score < 0)
		take_a_rest(h);
}

/*
 * Without yielding: a partner on this very CPU would answer then, and the look would seem to have been worth
 * it, where a sleep would have let it run at once.
 */
static int look_on(struct habit *h, struct pollfd *fds, nfds_t n, uint32_t intr)
{
	uint32_t budget = 0;
	struct ism_spin s;
	uint64_t now;
	int r = 0;

	ism_spin_begin(&s, &budget, ISM_CPU_UNKNOWN);
	for (now = s.start; !r && now < s.until && ism_interrupts == intr; now = ism_ticks()) {
		ism_pause();
		r = kernel_has(fds, n);
	}
	if (!r && ism_interrupts != intr)
		return -EINTR;
	if (now != s.start) /* else others want this CPU */
		judge(h, r != 0);
	return r;
}

int ism_await(struct pollfd *fds, nfds_t n, enum ism_await kind)
{
	struct habit *h = &habits[kind];
	uint32_t intr = ism_interrupts; /* a handler may run in the first look as well */
	int r;

	if (rests(h))
		return 0;
	r = kernel_has(fds, n);
	if (!r)
		return look_on(h, fds, n, intr);
	if (kind != ISM_AWAIT_SET)
		was_prompt(h);
	return r;
}

int ism_await_data(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return ism_await(&p, 1, ISM_AWAIT_DATA) == -EINTR ? -EINTR : 0;
}

int ism_await_client(int fd)
{
	struct habit *h = &habits[ISM_AWAIT_CLIENT];
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (rests(h))
		return 0;
	if (real.fcntl(fd, F_GETFL) & O_NONBLOCK) {
		h->skip = REST_MIN;
		return 0;
	}
	return ism_await(&p, 1, ISM_AWAIT_CLIENT) == -EINTR ? -EINTR : 0;
}
