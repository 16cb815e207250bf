// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Streams of random sizes both ways at once, through every way of waiting. */
#include "posix.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>

enum { BLOCKING, POLL, SELECT, LEVEL, EDGE, ONESHOT };
enum { SMALL, MIXED, BIG, PAUSING, SIZES };

static const struct {
	uint64_t total;
	size_t max;
} sizes[SIZES] = {
	[SMALL] = { 400000, 200 },
	[MIXED] = { 24 << 20, 65536 },
	[BIG] = { 64 << 20, 300 << 10 },
	[PAUSING] = { 6 << 20, 20000 },
};

#define WAY(client, server, size) ((client) | (server) << 4 | (size) << 8)

/* One role's stream: how much is still to send, and who waits how. */
struct flow {
	struct end *e;
	int size;
	uint64_t random;
	bool sent_all, got_all;
};

static size_t some(struct flow *f)
{
	return 1 + pattern_random(&f->random) % sizes[f->size].max;
}

/* A reader or writer that is late now and then makes the other one wait. */
static void dawdle(struct flow *f)
{
	if (f->size == PAUSING && pattern_random(&f->random) % 64 == 0)
		nap(3);
}

/* One send; false when it would block. */
static bool send_some(struct flow *f)
{
	uint64_t left = sizes[f->size].total - f->e->tx.n;
	size_t len = some(f);

	dawdle(f);
	if (put1(f->e, len < left ? len : left, 0) < 0) {
		IS(errno, EAGAIN);
		return false;
	}
	if (f->e->tx.n == sizes[f->size].total) {
		IS(shutdown(f->e->fd, SHUT_WR), 0);
		f->sent_all = true;
	}
	return true;
}

static bool recv_some(struct flow *f)
{
	ssize_t n;

	dawdle(f);
	n = get1(f->e, some(f), 0);
	if (n < 0) {
		IS(errno, EAGAIN);
		return false;
	}
	f->got_all = n == 0;
	return true;
}

/* ---------------------------------------------------------------- ways of waiting */

static void *writer(void *arg)
{
	struct flow *f = arg;

	while (!f->sent_all)
		CHECK(send_some(f));
	return NULL;
}

static void blocking(struct flow *f)
{
	struct flow w = *f;
	pthread_t id;

	w.random ^= 0x5555;
	IS(pthread_create(&id, NULL, writer, &w), 0);
	while (!f->got_all)
		CHECK(recv_some(f));
	IS(pthread_join(id, NULL), 0);
}

/* What the events say; they must be true: a call that they promise does not block. */
static void serve(struct flow *f, bool in, bool out)
{
	if (in)
		CHECK(recv_some(f));
	if (out)
		CHECK(send_some(f));
}

static void by_poll(struct flow *f)
{
	while (!f->sent_all || !f->got_all) {
		struct pollfd p = { .fd = f->e->fd,
				    .events = (f->got_all ? 0 : POLLIN) |
					      (f->sent_all ? 0 : POLLOUT) };

		IS(poll(&p, 1, -1), 1);
		serve(f, p.revents & POLLIN && !f->got_all, p.revents & POLLOUT && !f->sent_all);
	}
}

static void by_select(struct flow *f)
{
	while (!f->sent_all || !f->got_all) {
		fd_set in, out;

		FD_ZERO(&in);
		FD_ZERO(&out);
		if (!f->got_all)
			FD_SET(f->e->fd, &in);
		if (!f->sent_all)
			FD_SET(f->e->fd, &out);
		CHECK(select(f->e->fd + 1, &in, &out, NULL, NULL) > 0);
		serve(f, FD_ISSET(f->e->fd, &in), FD_ISSET(f->e->fd, &out));
	}
}

static uint32_t wanted(const struct flow *f)
{
	return (f->got_all ? 0 : EPOLLIN) | (f->sent_all ? 0 : EPOLLOUT);
}

static void by_level(struct flow *f, int ep, uint32_t extra)
{
	struct epoll_event ev = { .events = wanted(f) | extra, .data.fd = f->e->fd }, got;
	uint32_t now = ev.events;

	IS(epoll_ctl(ep, EPOLL_CTL_ADD, f->e->fd, &ev), 0);
	while (!f->sent_all || !f->got_all) {
		IS(epoll_wait(ep, &got, 1, -1), 1);
		IS(got.data.fd, f->e->fd);
		serve(f, got.events & EPOLLIN && !f->got_all,
		      got.events & EPOLLOUT && !f->sent_all);
		ev.events = wanted(f) | extra;
		if (extra || ev.events != now)
			IS(epoll_ctl(ep, EPOLL_CTL_MOD, f->e->fd, &ev), 0);
		now = ev.events;
	}
}

static void by_edge(struct flow *f, int ep)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET }, got;

	IS(epoll_ctl(ep, EPOLL_CTL_ADD, f->e->fd, &ev), 0);
	while (!f->sent_all || !f->got_all) {
		IS(epoll_wait(ep, &got, 1, -1), 1);
		if (got.events & EPOLLIN)
			while (!f->got_all && recv_some(f))
				;
		if (got.events & EPOLLOUT)
			while (!f->sent_all && send_some(f))
				;
	}
}

static void stream(struct end *e)
{
	struct flow f = { .e = e, .size = e->arg >> 8, .random = e->server ? 77 : 99 };
	int way = e->server ? e->arg >> 4 & 15 : e->arg & 15, ep = epoll_create1(EPOLL_CLOEXEC);

	nonblock(e->fd, way != BLOCKING);
	switch (way) {
	case BLOCKING:
		blocking(&f);
		break;
	case POLL:
		by_poll(&f);
		break;
	case SELECT:
		by_select(&f);
		break;
	case LEVEL:
		by_level(&f, ep, 0);
		break;
	case EDGE:
		by_edge(&f, ep);
		break;
	case ONESHOT:
		by_level(&f, ep, EPOLLONESHOT);
		break;
	}
	IS(e->rx.n, sizes[f.size].total);
	meet(e);
}

/* ---------------------------------------------------------------- others */

/* Sets are filled before the connection has rings, and stay: how servers do it. */
static void from_the_start(struct end *e)
{
	struct epoll_event ev = { .events = EPOLLIN | (e->arg ? EPOLLET : 0) }, got;
	int ep = epoll_create1(EPOLL_CLOEXEC);

	conn_open(e, AF_INET);
	if (!e->server) {
		for (int i = 0; i < 3000; i++) {
			put(e, 1 + i % 1000);
			get(e, 1 + i % 1000);
			if (i % 500 == 0)
				nap(20);
		}
		conn_close(e);
		return;
	}
	nonblock(e->fd, true);
	IS(epoll_ctl(ep, EPOLL_CTL_ADD, e->fd, &ev), 0);
	for (;;) {
		ssize_t n;

		IS(epoll_wait(ep, &got, 1, -1), 1);
		while ((n = get1(e, 400, 0)) > 0)
			put(e, n);
		if (n == 0)
			break;
		IS(errno, EAGAIN);
	}
}

/* The same with poll() and blocking calls. */
static void poll_from_the_start(struct end *e)
{
	conn_open(e, AF_INET);
	for (int i = 0; i < 2000; i++) {
		if (e->server) {
			IS(polled(e->fd, POLLIN, 10000), POLLIN);
			get(e, 100);
			put(e, 200);
		} else {
			put(e, 100);
			IS(polled(e->fd, POLLIN, 10000), POLLIN);
			get(e, 200);
		}
	}
	conn_close(e);
}

static void single_bytes(struct end *e)
{
	for (int i = 0; i < 30000 && e->server; i++)
		put(e, 1);
	if (e->server)
		conn_close(e);
	else
		get_all(e);
	if (!e->server)
		IS(e->rx.n, 30000);
}

/* Requests and answers of all sizes, strictly in turn. */
static void in_turn(struct end *e)
{
	uint64_t random = 5;

	for (int i = 0; i < 400; i++) {
		size_t a = 1 + pattern_random(&random) % (i % 10 ? 3000 : 500000);
		size_t b = 1 + pattern_random(&random) % (i % 10 ? 3000 : 500000);

		if (e->server) {
			get(e, a);
			put(e, b);
		} else {
			put(e, a);
			get(e, b);
		}
	}
}

/* Little buffers, set by the application after the rings are there. */
static void small_buffers(struct end *e)
{
	setint(e->fd, SOL_SOCKET, SO_SNDBUF, 4096);
	setint(e->fd, SOL_SOCKET, SO_RCVBUF, 4096);
	if (e->server) {
		put(e, 300000);
		conn_close(e);
	} else {
		get_all(e);
		IS(e->rx.n, 300000);
	}
}

/* Who does not read makes the writer wait at last, in one process after the other. */
static void writer_waits(struct end *e)
{
	uint64_t n = 0;

	if (!e->server) {
		n = hear(e);
		get(e, n);
		chat(e);
		return;
	}
	nonblock(e->fd, true);
	while (put1(e, 100000, 0) > 0)
		CHECK(e->tx.n < 512u << 20);
	IS(errno, EAGAIN);
	IS(polled(e->fd, POLLOUT, 0) & POLLOUT, 0);
	tell(e, e->tx.n);
	IS(polled(e->fd, POLLOUT, 10000), POLLOUT);
	nonblock(e->fd, false);
	chat(e);
}

/*
 * Both write before they read: TCP holds what they write, some megabytes each way, and programs count on
 * that. By a request of that size and an answer before its end, too.
 */
static void both_write_first(struct end *e)
{
	for (int i = 0; i < 3; i++) {
		put(e, 1500000);
		get(e, 1500000);
		chat(e);
	}
}

static void echo_of_much(struct end *e)
{
	ssize_t n;

	if (!e->server) {
		put(e, 4000000);
		IS(shutdown(e->fd, SHUT_WR), 0);
		get_all(e);
		IS(e->rx.n, 4000000);
		return;
	}
	while ((n = get1(e, 30000, 0)) > 0)
		put(e, n);
	IS(n, 0);
	conn_close(e);
}

const struct test tests_stream[] = {
	{ "stream_blocking_small", stream, NULL, 0, WAY(BLOCKING, BLOCKING, SMALL) },
	{ "stream_blocking_mixed", stream, NULL, 0, WAY(BLOCKING, BLOCKING, MIXED) },
	{ "stream_blocking_big", stream, NULL, 0, WAY(BLOCKING, BLOCKING, BIG) },
	{ "stream_blocking_pausing", stream, NULL, 0, WAY(BLOCKING, BLOCKING, PAUSING) },
	{ "stream_poll_small", stream, NULL, 0, WAY(POLL, POLL, SMALL) },
	{ "stream_poll_mixed", stream, NULL, 0, WAY(POLL, POLL, MIXED) },
	{ "stream_poll_big", stream, NULL, 0, WAY(POLL, POLL, BIG) },
	{ "stream_poll_pausing", stream, NULL, 0, WAY(POLL, POLL, PAUSING) },
	{ "stream_select_mixed", stream, NULL, 0, WAY(SELECT, SELECT, MIXED) },
	{ "stream_select_pausing", stream, NULL, 0, WAY(SELECT, SELECT, PAUSING) },
	{ "stream_level_small", stream, NULL, 0, WAY(LEVEL, LEVEL, SMALL) },
	{ "stream_level_mixed", stream, NULL, 0, WAY(LEVEL, LEVEL, MIXED) },
	{ "stream_level_big", stream, NULL, 0, WAY(LEVEL, LEVEL, BIG) },
	{ "stream_level_pausing", stream, NULL, 0, WAY(LEVEL, LEVEL, PAUSING) },
	{ "stream_edge_small", stream, NULL, 0, WAY(EDGE, EDGE, SMALL) },
	{ "stream_edge_mixed", stream, NULL, 0, WAY(EDGE, EDGE, MIXED) },
	{ "stream_edge_big", stream, NULL, 0, WAY(EDGE, EDGE, BIG) },
	{ "stream_edge_pausing", stream, NULL, 0, WAY(EDGE, EDGE, PAUSING) },
	{ "stream_oneshot_mixed", stream, NULL, 0, WAY(ONESHOT, ONESHOT, MIXED) },
	{ "stream_oneshot_pausing", stream, NULL, 0, WAY(ONESHOT, ONESHOT, PAUSING) },
	{ "stream_blocking_edge", stream, NULL, 0, WAY(BLOCKING, EDGE, PAUSING) },
	{ "stream_poll_oneshot", stream, NULL, 0, WAY(POLL, ONESHOT, MIXED) },
	{ "stream_select_level", stream, NULL, 0, WAY(SELECT, LEVEL, BIG) },
	{ "stream_edge_blocking_v6", stream, NULL, IPV6, WAY(EDGE, BLOCKING, MIXED) },
	{ "stream_level_poll_mapped", stream, NULL, MAPPED, WAY(LEVEL, POLL, MIXED) },
	{ "epoll_from_the_start", from_the_start, NULL, RAW, 0 },
	{ "edge_from_the_start", from_the_start, NULL, RAW, 1 },
	{ "poll_from_the_start", poll_from_the_start, NULL, RAW, 0 },
	{ "single_bytes", single_bytes, NULL, 0, 0 },
	{ "in_turn", in_turn, NULL, 0, 0 },
	{ "small_buffers", small_buffers, NULL, 0, 0 },
	{ "writer_waits", writer_waits, NULL, 0, 0 },
	{ "both_write_first", both_write_first, NULL, 0, 0 },
	{ "echo_of_much", echo_of_much, NULL, 0, 0 },
	{ 0 },
};
