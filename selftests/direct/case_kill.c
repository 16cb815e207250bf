// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* kill -9 of a partner: the survivor sees what TCP would show it, and never hangs. */
#include "posix.h"
#include <sys/epoll.h>

/* The server writes for ever and is killed in the middle of it. */
static void writer(struct end *e)
{
	ssize_t n;

	if (e->server) {
		tell(e, getpid());
		for (;;)
			put(e, 1 + e->tx.n % 100000);
	}
	get(e, 3000000);
	IS(kill(hear(e), SIGKILL), 0);
	while ((n = get1(e, 65536, 0)) > 0)
		;
	if (n < 0)
		IS(errno, ECONNRESET);
	get_eof(e);
}

/* The server reads for ever and is killed. */
static void reader(struct end *e)
{
	if (e->server) {
		tell(e, getpid());
		for (;;)
			get(e, 1 + e->rx.n % 10000);
	}
	put(e, 3000000);
	IS(kill(hear(e), SIGKILL), 0);
	while (put1(e, 50000, 0) > 0)
		;
	CHECK(errno == ECONNRESET || errno == EPIPE);
}

/* The server does nothing at all; the client waits in recv(). */
static void idle(struct end *e)
{
	pid_t pid;

	if (e->server) {
		tell(e, getpid());
		get(e, 1);
	}
	pid = hear(e);
	if (!child()) {
		nap(100);
		IS(kill(pid, SIGKILL), 0);
		done();
	}
	get_eof(e);
	IS(polled(e->fd, POLLIN | POLLRDHUP, 0), POLLIN | POLLRDHUP);
}

/* The same with epoll. */
static void idle_epoll(struct end *e)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET }, got;
	int ep = epoll_create1(0);
	pid_t pid;

	if (e->server) {
		tell(e, getpid());
		get(e, 1);
	}
	pid = hear(e);
	IS(epoll_ctl(ep, EPOLL_CTL_ADD, e->fd, &ev), 0);
	if (!child()) {
		nap(100);
		IS(kill(pid, SIGKILL), 0);
		done();
	}
	IS(epoll_wait(ep, &got, 1, 20000), 1);
	IS(got.events, EPOLLIN | EPOLLRDHUP);
	get_eof(e);
}

/* Killed with unread bytes: a reset. */
static void unread(struct end *e)
{
	if (e->server) {
		arrived(e->fd, 1000);
		tell(e, getpid());
		pause();
	}
	put(e, 1000);
	IS(kill(hear(e), SIGKILL), 0);
	FAILS(get1(e, 1, 0), ECONNRESET);
	get_eof(e);
}

static _Noreturn void write_for_ever(struct end *e, uint64_t random)
{
	for (;;) {
		put(e, 1 + pattern_random(&random) % 9000);
		get1(e, 5000, MSG_DONTWAIT);
	}
}

/* Full duplex and many times: whatever instruction it was at. */
static void anywhere(struct end *e)
{
	uint64_t random = 9;

	for (int i = 0; i < 15; i++) {
		pid_t pid = -1;
		ssize_t n;

		if (i)
			conn_open(e, AF_INET);
		if (e->server) {
			pid = child();
			if (!pid)
				write_for_ever(e, random);
			conn_close(e);
			nap(20 + pattern_random(&random) % 20);
			kill(pid, SIGKILL);
			hear(e);
			continue;
		}
		while ((n = get1(e, 7777, 0)) > 0)
			put1(e, n, MSG_DONTWAIT);
		if (n < 0)
			IS(errno, ECONNRESET);
		tell(e, 0);
		conn_close(e);
	}
}

const struct test tests_kill[] = {
	{ "kill_writer", writer, NULL, SERVER_DIES, 0 },
	{ "kill_reader", reader, NULL, SERVER_DIES, 0 },
	{ "kill_idle", idle, NULL, SERVER_DIES, 0 },
	{ "kill_idle_epoll", idle_epoll, NULL, SERVER_DIES, 0 },
	{ "kill_unread", unread, NULL, SERVER_DIES, 0 },
	{ "kill_anywhere", anywhere, NULL, 0, 0 },
	{ 0 },
};
