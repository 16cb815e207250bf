// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Threads on one connection: two readers, two writers, and calls that end or wake the calls of others. */
#include "posix.h"
#include <pthread.h>
#include <sys/epoll.h>

/* A call in a thread, and what became of it. */
struct call {
	struct end *e;
	int what;
	ssize_t result;
	int err;
};

enum { RECV, POLLS, EPOLLS, SEND, ACCEPT };

static void *do_call(void *arg)
{
	static char big[1 << 20];
	struct call *c = arg;
	struct epoll_event ev = { .events = EPOLLIN };
	struct pollfd p = { .fd = c->e->fd, .events = POLLIN };
	int ep;

	switch (c->what) {
	case RECV:
		c->result = get1(c->e, 100, 0);
		break;
	case POLLS:
		c->result = poll(&p, 1, 20000);
		break;
	case EPOLLS:
		ep = epoll_create1(0);
		epoll_ctl(ep, EPOLL_CTL_ADD, c->e->fd, &ev);
		c->result = epoll_wait(ep, &ev, 1, 20000);
		break;
	case SEND:
		while ((c->result = send(c->e->fd, big, sizeof(big), MSG_NOSIGNAL)) > 0)
			;
		break;
	case ACCEPT:
		c->result = accept(c->e->listener, NULL, NULL);
		break;
	}
	c->err = errno;
	return NULL;
}

static pthread_t begin(struct call *c)
{
	pthread_t id;

	IS(pthread_create(&id, NULL, do_call, c), 0);
	nap(80); /* most likely it blocks now; if not, the result is the same */
	return id;
}

/* ---------------------------------------------------------------- waking */

static void shutdown_wakes(struct end *e)
{
	struct call c = { .e = e, .what = e->arg & 15 };
	pthread_t id;

	if (e->server) {
		hear(e);
		return;
	}
	id = begin(&c);
	IS(shutdown(e->fd, e->arg >> 4), 0);
	IS(pthread_join(id, NULL), 0);
	switch (c.what) {
	case RECV:
		IS(c.result, 0);
		break;
	case SEND:
		IS(c.result, -1);
		IS(c.err, EPIPE);
		break;
	default:
		IS(c.result, 1);
	}
	tell(e, 0);
}

/* shutdown() of a listener ends accept(). */
static void shutdown_accept(struct end *e)
{
	struct call c = { .e = e, .what = ACCEPT };
	pthread_t id;

	if (e->server) {
		id = begin(&c);
		IS(shutdown(e->listener, SHUT_RD), 0);
		IS(pthread_join(id, NULL), 0);
		IS(c.result, -1);
		IS(c.err, EINVAL);
	}
	chat(e);
}

/*
 * close() does not wake who waits; the wait goes on until something comes. Different on rings: a receive
 * ends with EBADF.
 */
static void close_waits(struct end *e)
{
	struct call c = { .e = e, .what = e->arg };
	pthread_t id;

	if (e->server) {
		hear(e);
		nap(50);
		put(e, 10);
		hear(e);
		return;
	}
	id = begin(&c);
	IS(close(e->fd), 0);
	tell(e, 0);
	IS(pthread_join(id, NULL), 0);
	if (rings_expected() && c.what == RECV)
		CHECK(c.result == -1 && c.err == EBADF);
	else
		IS(c.result, c.what == RECV ? 10 : 1);
	tell(e, 0);
}

/* A thread that is cancelled in recv() leaves a usable connection. */
static void cancel(struct end *e)
{
	struct call c = { .e = e, .what = RECV };
	void *result = NULL;
	pthread_t id;

	if (!e->server) {
		id = begin(&c);
		IS(pthread_cancel(id), 0);
		IS(pthread_join(id, &result), 0);
		CHECK(result == PTHREAD_CANCELED);
	}
	meet(e);
	chat(e);
}

/* ---------------------------------------------------------------- at the same time */

struct tally {
	int fd;
	uint64_t bytes, sum;
	uint8_t kind;
};

static void *read_tally(void *arg)
{
	struct tally *t = arg;
	uint8_t buf[2000];
	ssize_t n;

	while ((n = recv(t->fd, buf, sizeof(buf), 0)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			t->sum += buf[i];
		t->bytes += n;
	}
	IS(n, 0);
	return NULL;
}

static void *write_kind(void *arg)
{
	struct tally *t = arg;
	uint8_t buf[777];

	memset(buf, t->kind, sizeof(buf));
	for (int i = 0; i < 1500; i++)
		IS(send(t->fd, buf, sizeof(buf), 0), sizeof(buf));
	return NULL;
}

/* Three threads write one kind of byte each, three read: counts and sums are right. */
static void many(struct end *e)
{
	struct tally t[3];
	uint64_t bytes = 0, sum = 0;
	pthread_t id[3];

	for (int i = 0; i < 3; i++) {
		t[i] = (struct tally){ .fd = e->fd, .kind = 1 + i * i };
		IS(pthread_create(&id[i], NULL, e->server ? write_kind : read_tally, &t[i]), 0);
	}
	for (int i = 0; i < 3; i++)
		IS(pthread_join(id[i], NULL), 0);
	if (e->server) {
		conn_close(e);
		return;
	}
	for (int i = 0; i < 3; i++) {
		bytes += t[i].bytes;
		sum += t[i].sum;
	}
	IS(bytes, 3 * 1500 * 777);
	IS(sum, 1500 * 777 * (1 + 2 + 5));
}

/*
 * Messages that come one by one, so that each wakes a sleeper, and bursts, in turn: readers on rings change
 * the way in which they make sure that nobody oversleeps (wait.c, choose_fence()), and none may be late.
 */
static void singles_and_bursts(struct end *e)
{
	struct tally t[3] = {};
	uint64_t bytes = 0, sum = 0;
	pthread_t id[3];
	uint8_t one = 3;

	if (e->server) {
		for (int round = 0; round < 60; round++) {
			for (int i = 0; i < (round % 3 ? 12 : 700); i++) {
				IS(send(e->fd, &one, 1, 0), 1);
				if (round % 3)
					usleep(200);
			}
		}
		conn_close(e);
		return;
	}
	for (int i = 0; i < e->arg; i++) {
		t[i].fd = e->fd;
		IS(pthread_create(&id[i], NULL, read_tally, &t[i]), 0);
	}
	for (int i = 0; i < e->arg; i++) {
		IS(pthread_join(id[i], NULL), 0);
		bytes += t[i].bytes;
		sum += t[i].sum;
	}
	IS(bytes, 20 * (700 + 12 + 12));
	IS(sum, 3 * bytes);
}

/* A connection of its own for each thread. */
static void *own_connection(void *arg)
{
	struct end *e = arg;

	for (int i = 0; i < 60; i++)
		chat(e);
	conn_close(e);
	return NULL;
}

static void many_connections(struct end *e)
{
	static struct end ends[8];
	pthread_t id[8];

	for (int i = 0; i < 8; i++) {
		ends[i] = (struct end){
			.fd = -1, .ctl = e->ctl, .listener = -1, .server = e->server
		};
		conn_open(&ends[i], AF_INET);
	}
	for (int i = 0; i < 8; i++)
		IS(pthread_create(&id[i], NULL, own_connection, &ends[i]), 0);
	for (int i = 0; i < 8; i++)
		IS(pthread_join(id[i], NULL), 0);
	chat(e);
}

/* From thread to thread, one after the other. */
static void *one_chat(void *arg)
{
	chat(arg);
	return NULL;
}

static void handed_on(struct end *e)
{
	pthread_t id;

	for (int i = 0; i < 10; i++) {
		IS(pthread_create(&id, NULL, one_chat, e), 0);
		IS(pthread_join(id, NULL), 0);
		chat(e);
	}
}

/* Connections are closed by one thread while others open theirs: numbers are reused at once. */
static void *open_and_close(void *arg)
{
	struct end *e = arg;
	uint8_t c = 0;

	for (int i = 0; i < 150; i++) {
		int fd = e->server ? accept(e->listener, NULL, NULL)
				   : connect_port(AF_INET, e->port);

		CHECK(fd >= 0);
		for (int k = 0; k < 30; k++) {
			if (e->server) {
				IS(read(fd, &c, 1), 1);
				IS(write(fd, &c, 1), 1);
			} else {
				uint8_t want = i + k;

				IS(write(fd, &want, 1), 1);
				IS(read(fd, &c, 1), 1);
				IS(c, want);
			}
		}
		if (!e->server)
			IS(close(fd), 0);
		else
			IS(read(fd, &c, 1), 0);
		if (e->server)
			IS(close(fd), 0);
	}
	return NULL;
}

static void reuse(struct end *e)
{
	pthread_t id[4];
	int before = open_fds(256);

	for (int i = 0; i < 4; i++)
		IS(pthread_create(&id[i], NULL, open_and_close, e), 0);
	for (int i = 0; i < 4; i++)
		IS(pthread_join(id[i], NULL), 0);
	IS(open_fds(256), before);
	chat(e);
}

/* Both ends in one process: they talk to each other, in one thread and in two. */
static void *echo(void *arg)
{
	struct end *b = arg;
	ssize_t n;

	while ((n = get1(b, 3000, 0)) > 0)
		put(b, n);
	IS(n, 0);
	return NULL;
}

static void same_process(struct end *e)
{
	struct end a, b;
	pthread_t id;

	(void)e;
	solo_pair(&a, &b, true);
	for (int i = 1; i < 500; i++) {
		put(&a, i);
		put(&b, 2 * i);
		get(&a, 2 * i);
		get(&b, i);
	}
	IS(pthread_create(&id, NULL, echo, &b), 0);
	for (int i = 1; i < 500; i++) {
		put(&a, i * 10);
		get(&a, i * 10);
	}
	IS(shutdown(a.fd, SHUT_WR), 0);
	IS(pthread_join(id, NULL), 0);
	conn_close(&b);
	get_eof(&a);
	conn_close(&a);
}

const struct test tests_thread[] = {
	{ "thread_shut_rd_recv", shutdown_wakes, NULL, 0, RECV | SHUT_RD << 4 },
	{ "thread_shut_both_recv", shutdown_wakes, NULL, 0, RECV | SHUT_RDWR << 4 },
	{ "thread_shut_rd_poll", shutdown_wakes, NULL, 0, POLLS | SHUT_RD << 4 },
	{ "thread_shut_both_poll", shutdown_wakes, NULL, 0, POLLS | SHUT_RDWR << 4 },
	{ "thread_shut_rd_epoll", shutdown_wakes, NULL, 0, EPOLLS | SHUT_RD << 4 },
	{ "thread_shut_wr_send", shutdown_wakes, NULL, 0, SEND | SHUT_WR << 4 },
	{ "thread_shut_accept", shutdown_accept, NULL, 0, 0 },
	{ "thread_close_recv", close_waits, NULL, 0, RECV },
	{ "thread_close_poll", close_waits, NULL, 0, POLLS },
	{ "thread_cancel", cancel, NULL, 0, 0 },
	{ "threads_on_one", many, NULL, 0, 0 },
	{ "singles_and_bursts", singles_and_bursts, NULL, 0, 1 },
	{ "threads_singles_and_bursts", singles_and_bursts, NULL, 0, 3 },
	{ "threads_own", many_connections, NULL, 0, 0 },
	{ "threads_handed_on", handed_on, NULL, 0, 0 },
	{ "threads_reuse", reuse, NULL, 0, 0 },
	{ "same_process", same_process, NULL, SOLO, 0 },
	{ 0 },
};
