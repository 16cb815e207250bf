// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Edge-triggered and one-shot epoll: exactly the events that the kernel gives, no more and no fewer. */
#include "posix.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

static uint32_t reported(int ep, int ms)
{
	struct epoll_event got;
	int n = epoll_wait(ep, &got, 1, ms);

	CHECK(n >= 0);
	return n ? got.events : 0;
}

static int set(int ep, int op, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events };

	return epoll_ctl(ep, op, fd, &ev);
}

/* The partner sends this many bytes when it is asked. */
static void on_demand(struct end *e)
{
	for (int64_t n; (n = hear(e)) > 0;) {
		put(e, n);
		tell(e, 0);
	}
}

static void ask(struct end *e, int n)
{
	int before = inq(e->fd);

	tell(e, n);
	hear(e);
	arrived(e->fd, before + n);
}

static void edges(struct end *e)
{
	int ep = epoll_create1(0);

	IS(set(ep, EPOLL_CTL_ADD, e->fd, EPOLLIN | EPOLLET), 0);
	IS(reported(ep, 30), 0);
	ask(e, 100);
	IS(reported(ep, 10000), EPOLLIN);
	IS(reported(ep, 30), 0); /* though nothing was read */
	ask(e, 100);
	IS(reported(ep, 10000), EPOLLIN); /* more is an edge */
	IS(reported(ep, 30), 0);
	get(e, 150);
	IS(reported(ep, 30), 0); /* reading is none */
	ask(e, 10);
	IS(reported(ep, 10000), EPOLLIN);
	get(e, 60);
	FAILS(get1(e, 1, MSG_DONTWAIT), EAGAIN);
	ask(e, 1);
	IS(reported(ep, 10000), EPOLLIN);
	get(e, 1);
	tell(e, 0);
}

/* Setting it anew reports what is there. */
static void rearmed(struct end *e)
{
	int ep = epoll_create1(0);

	IS(set(ep, EPOLL_CTL_ADD, e->fd, EPOLLIN | EPOLLET), 0);
	ask(e, 100);
	IS(reported(ep, 10000), EPOLLIN);
	for (int i = 0; i < 3; i++) {
		IS(reported(ep, 20), 0);
		IS(set(ep, EPOLL_CTL_MOD, e->fd, EPOLLIN | EPOLLET), 0);
		IS(reported(ep, 10000), EPOLLIN);
	}
	IS(epoll_ctl(ep, EPOLL_CTL_DEL, e->fd, NULL), 0);
	IS(set(ep, EPOLL_CTL_ADD, e->fd, EPOLLIN | EPOLLET), 0);
	IS(reported(ep, 10000), EPOLLIN);
	get(e, 100);
	IS(set(ep, EPOLL_CTL_MOD, e->fd, EPOLLIN | EPOLLET), 0);
	IS(reported(ep, 30), 0);
	tell(e, 0);
}

/* Writable: once, and again only after it was full. */
static void out_edge(struct end *e)
{
	int ep = epoll_create1(0);

	if (e->server) {
		get(e, hear(e));
		hear(e);
		chat(e);
		return;
	}
	nonblock(e->fd, true);
	IS(set(ep, EPOLL_CTL_ADD, e->fd, EPOLLOUT | EPOLLET), 0);
	IS(reported(ep, 10000), EPOLLOUT);
	IS(reported(ep, 30), 0);
	while (put1(e, 100000, 0) > 0)
		CHECK(e->tx.n < 512u << 20);
	IS(errno, EAGAIN);
	IS(reported(ep, 30), 0);
	tell(e, e->tx.n);
	IS(reported(ep, 20000), EPOLLOUT);
	nonblock(e->fd, false);
	tell(e, 0);
	chat(e);
}

/* The end of the stream is an edge. */
static void eof_edge(struct end *e)
{
	int ep = epoll_create1(0);

	if (e->server) {
		on_demand(e);
		IS(shutdown(e->fd, SHUT_WR), 0);
		meet(e);
		return;
	}
	IS(set(ep, EPOLL_CTL_ADD, e->fd, EPOLLIN | EPOLLRDHUP | EPOLLET), 0);
	ask(e, 10);
	IS(reported(ep, 10000), EPOLLIN);
	tell(e, 0);
	IS(reported(ep, 10000), EPOLLIN | EPOLLRDHUP);
	/* different on rings: the end comes twice, by the ring and by TCP */
	if (reported(ep, 30))
		CHECK(rings_expected());
	get(e, 10);
	get_eof(e);
	meet(e);
}

static void oneshot(struct end *e)
{
	int ep = epoll_create1(0), any = EPOLLIN | EPOLLONESHOT;

	IS(set(ep, EPOLL_CTL_ADD, e->fd, any), 0);
	for (int i = 0; i < 3; i++) {
		ask(e, 100);
		IS(reported(ep, 10000), EPOLLIN);
		IS(reported(ep, 20), 0);
		ask(e, 100);
		IS(reported(ep, 20), 0); /* silent until armed again */
		IS(set(ep, EPOLL_CTL_MOD, e->fd, any), 0);
		IS(reported(ep, 10000), EPOLLIN); /* they were there before */
		get(e, 200);
		IS(set(ep, EPOLL_CTL_MOD, e->fd, any), 0);
		IS(reported(ep, 20), 0);
	}
	IS(set(ep, EPOLL_CTL_MOD, e->fd, EPOLLOUT | EPOLLET | EPOLLONESHOT), 0);
	IS(reported(ep, 10000), EPOLLOUT);
	IS(reported(ep, 20), 0);
	tell(e, 0);
}

/* ---------------------------------------------------------------- threads on one set */

static int shared_ep;
static atomic_int wakes;

static void *wait_once(void *arg)
{
	struct epoll_event got;

	(void)arg;
	if (epoll_wait(shared_ep, &got, 1, 400) == 1)
		wakes++;
	return NULL;
}

/* One edge wakes one of those who wait. */
static void one_of_many(struct end *e)
{
	pthread_t id[4];

	shared_ep = epoll_create1(0);
	IS(set(shared_ep, EPOLL_CTL_ADD, e->fd, EPOLLIN | EPOLLET), 0);
	for (int i = 0; i < 4; i++)
		IS(pthread_create(&id[i], NULL, wait_once, NULL), 0);
	nap(60);
	ask(e, 100);
	for (int i = 0; i < 4; i++)
		IS(pthread_join(id[i], NULL), 0);
	IS(wakes, 1);
	get(e, 100);
	tell(e, 0);
}

/* Workers with a one-shot set: nobody reads where another does. */
static struct end *worked;
static atomic_int busy;

static void *work(void *arg)
{
	struct epoll_event got;

	(void)arg;
	for (;;) {
		ssize_t n;

		if (epoll_wait(shared_ep, &got, 1, 20000) != 1)
			FAIL("a worker waits for ever");
		IS(atomic_fetch_add(&busy, 1), 0);
		n = get1(worked, 500, 0);
		CHECK(n >= 0);
		if (n)
			put(worked, n);
		atomic_fetch_sub(&busy, 1);
		IS(set(shared_ep, EPOLL_CTL_MOD, worked->fd, EPOLLIN | EPOLLONESHOT), 0);
		if (!n)
			return NULL;
	}
}

static void workers(struct end *e)
{
	pthread_t id[3];

	if (!e->server) {
		for (int i = 0; i < 1500; i++) {
			put(e, 1 + i % 900);
			get(e, 1 + i % 900);
		}
		IS(shutdown(e->fd, SHUT_WR), 0);
		get_eof(e);
		return;
	}
	worked = e;
	shared_ep = epoll_create1(0);
	IS(set(shared_ep, EPOLL_CTL_ADD, e->fd, EPOLLIN | EPOLLONESHOT), 0);
	for (int i = 0; i < 3; i++)
		IS(pthread_create(&id[i], NULL, work, NULL), 0);
	for (int i = 0; i < 3; i++)
		IS(pthread_join(id[i], NULL), 0);
}

const struct test tests_edge[] = {
	{ "edge_in", edges, on_demand, 0, 0 },
	{ "edge_rearmed", rearmed, on_demand, 0, 0 },
	{ "edge_out", out_edge, NULL, 0, 0 },
	{ "edge_eof", eof_edge, NULL, 0, 0 },
	{ "oneshot", oneshot, on_demand, 0, 0 },
	{ "edge_one_of_many", one_of_many, on_demand, 0, 0 },
	{ "oneshot_workers", workers, NULL, 0, 0 },
	{ 0 },
};
