// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The first waits of a thread for a connection that is still new, and for the next client: a signal ends them
 * at once, however soon it comes, and so does what is waited for.
 */
#include "posix.h"
#include <pthread.h>
#include <sys/time.h>

#define ROUNDS	40
#define SOON_US 14 /* when a wait has begun and may not be asleep yet */
#define LATE_US 50000

enum { RECV, READ, POLLS, PPOLLS, ACCEPTS, POLLS_CLIENT, KINDS };

static volatile sig_atomic_t signals;
static volatile sig_atomic_t waiting; /* about to, as far as one can say from outside */
static volatile sig_atomic_t came_waiting;

static void count(int sig)
{
	(void)sig;
	if (!signals++)
		came_waiting = waiting;
}

/* -1 as such calls say it. */
static long wait_for(const struct end *e, int kind)
{
	struct pollfd p = { .fd = kind == POLLS_CLIENT ? e->listener : e->fd, .events = POLLIN };
	struct timespec hour = { 3600, 0 };
	char c;

	switch (kind) {
	case RECV:
		return recv(e->fd, &c, 1, 0);
	case READ:
		return read(e->fd, &c, 1);
	case PPOLLS:
		return ppoll(&p, 1, &hour, NULL);
	case ACCEPTS:
		return accept(e->listener, NULL, NULL);
	default:
		return poll(&p, 1, -1);
	}
}

struct
try {
	const struct end *e;
	int kind, inside, late;
};

static void *interrupted(void *arg)
{
	struct itimerval soon = { .it_value = { 0, SOON_US }, .it_interval = { 0, LATE_US } };
	struct try *t = arg;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	signals = 0;
	waiting = 0;
	IS(setitimer(ITIMER_REAL, &soon, NULL), 0);
	IS(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
	waiting = 1;
	FAILS(wait_for(t->e, t->kind), EINTR);
	waiting = 0;
	IS(setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL), 0);
	CHECK(signals > 0);
	t->inside += came_waiting;
	t->late += came_waiting && signals > 1;
	return NULL;
}

/* A thread that is new has no habits. */
static void in_thread(void *(*fn)(void *arg), void *arg)
{
	pthread_t t;

	IS(pthread_create(&t, NULL, fn, arg), 0);
	IS(pthread_join(t, NULL), 0);
}

/*
 * One that comes before the call is natively lost, too, so it does not count; and one that comes when the call
 * begins, or goes to sleep, may be.
 */
static void ends_by_signal(struct end *e)
{
	sigset_t set;
	struct end a, b;
	struct try t = { .e = &b };

	(void)e;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	IS(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	catch_signal(SIGALRM, count, 0);
	solo_pair(&a, &b, false);
	for (t.kind = 0; t.kind < KINDS; t.kind++)
		for (int i = 0; i < ROUNDS; i++)
			in_thread(interrupted, &t);
	CHECK(t.inside > KINDS * ROUNDS / 8);
	if (t.late > t.inside / 4)
		FAIL("the signal was missed %d times of %d", t.late, t.inside);
	alarm(30);
	put(&a, 100);
	get(&b, 100);
}

/* ---------------------------------------------------------------- what does not block */

static void *asks(void *arg)
{
	const struct end *e = arg;
	struct pollfd p = { .fd = e->fd, .events = POLLIN };
	char c;

	FAILS(recv(e->fd, &c, 1, MSG_DONTWAIT), EAGAIN);
	FAILS(recv(e->fd, &c, 1, 0), EAGAIN);
	FAILS(accept(e->listener, NULL, NULL), EAGAIN);
	IS(poll(&p, 1, 0), 0);
	IS(poll(&p, 1, 1), 0);
	IS(p.revents, 0);
	p.fd = e->listener;
	IS(poll(&p, 1, 2), 0);
	IS(p.revents, 0);
	return NULL;
}

static void does_not_block(struct end *e)
{
	struct end a, b;

	(void)e;
	solo_pair(&a, &b, false);
	IS(fcntl(b.fd, F_SETFL, O_NONBLOCK), 0);
	IS(fcntl(b.listener, F_SETFL, O_NONBLOCK), 0);
	for (int i = 0; i < 50; i++)
		in_thread(asks, &b);
	put(&a, 100);
	IS(fcntl(b.fd, F_SETFL, 0), 0);
	get(&b, 100);
}

/* ---------------------------------------------------------------- what is waited for */

static void *send_soon(void *arg)
{
	struct end *e = arg;

	usleep(e->tx.n % 60);
	put(e, 10);
	return NULL;
}

static void *connect_soon(void *arg)
{
	const struct end *e = arg;

	usleep(20);
	close(connect_port(AF_INET, e->port));
	return NULL;
}

/* One call, and what poll() says is so. */
static void comes(struct end *a, struct end *b, int round)
{
	struct pollfd p[3] = { { .fd = b->fd, .events = POLLIN | POLLOUT },
			       { .fd = -1, .events = POLLIN },
			       { .fd = b->listener, .events = POLLIN } };
	pthread_t t;

	IS(poll(p, 3, -1), 1);
	IS(p[0].revents, POLLOUT);
	for (int i = 0; i < 3; i++)
		p[i].revents = -1;
	p[0].events = POLLIN;
	IS(pthread_create(&t, NULL, round % 2 ? send_soon : connect_soon, round % 2 ? a : b), 0);
	IS(poll(p, 3, -1), 1);
	IS(p[0].revents, round % 2 ? POLLIN : 0);
	IS(p[1].revents, 0);
	IS(p[2].revents, round % 2 ? 0 : POLLIN);
	IS(pthread_join(t, NULL), 0);
	if (round % 2)
		get(b, 10);
	else
		IS(close(accept(b->listener, NULL, NULL)), 0);
}

static void *waits(void *arg)
{
	struct end *b = arg;

	get(b, 10);
	return NULL;
}

static void comes_in_time(struct end *e)
{
	struct end a, b;
	pthread_t t;

	for (int i = 0; i < 60; i++) {
		solo_pair(&a, &b, false);
		for (int k = 0; k < 4; k++)
			comes(&a, &b, k);
		IS(pthread_create(&t, NULL, waits, &b), 0);
		usleep(i);
		put(&a, 10);
		IS(pthread_join(t, NULL), 0);
		close(a.fd);
		close(b.fd);
		close(b.listener);
	}
	(void)e;
}

const struct test tests_await[] = {
	{ "await_signal", ends_by_signal, NULL, SOLO | RAW, 0 },
	{ "await_nonblock", does_not_block, NULL, SOLO | RAW, 0 },
	{ "await_comes", comes_in_time, NULL, SOLO | RAW, 0 },
	{ 0 },
};
