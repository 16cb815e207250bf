// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* epoll sets: registration, errors, nesting, several sets, fairness, other kinds of descriptors. */
#include "posix.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/timerfd.h>

static int add(int ep, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = 0xabcd000000000000ULL + fd };

	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

static int change(int ep, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = 0xabcd000000000000ULL + fd };

	return epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev);
}

/* The server's part of most: bytes when the client asks for them, @ms later, until both are through. */
static void feed(struct end *e, int rounds, int ms)
{
	for (int i = 0; i < rounds; i++) {
		hear(e);
		nap(ms);
		put(e, 100);
	}
	meet(e);
}

/* The events that @ep reports for @fd and nobody else, 0 for none. */
static uint32_t reported(int ep, int fd, int ms)
{
	struct epoll_event got[4];
	int n = epoll_wait(ep, got, 4, ms);

	CHECK(n >= 0 && n <= 1);
	if (n)
		CHECK(got[0].data.u64 == 0xabcd000000000000ULL + fd);
	return n ? got[0].events : 0;
}

/* ---------------------------------------------------------------- arguments */

static void errors(struct end *e)
{
	volatile int less = -1; /* the compiler would warn */
	int ep = epoll_create1(0), file = open("/proc/self/exe", O_RDONLY);
	struct epoll_event ev = { .events = EPOLLIN };

	FAILS(epoll_create(0), EINVAL);
	FAILS(epoll_create1(12345), EINVAL);
	IS(add(ep, e->fd, EPOLLIN), 0);
	FAILS(add(ep, e->fd, EPOLLIN), EEXIST);
	FAILS(change(ep, e->ctl, EPOLLIN), ENOENT);
	FAILS(epoll_ctl(ep, EPOLL_CTL_DEL, e->ctl, NULL), ENOENT);
	FAILS(add(ep, ep, EPOLLIN), EINVAL);
	FAILS(add(ep, file, EPOLLIN), EPERM);
	FAILS(add(ep, 999, EPOLLIN), EBADF);
	FAILS(add(999, e->fd, EPOLLIN), EBADF);
	FAILS(add(e->ctl, e->fd, EPOLLIN), EINVAL);
	FAILS(add(e->fd, e->ctl, EPOLLIN), EINVAL);
	FAILS(epoll_ctl(ep, EPOLL_CTL_MOD, e->fd, NULL), EFAULT);
	FAILS(epoll_ctl(ep, 77, e->fd, &ev), EINVAL);
	FAILS(epoll_wait(ep, &ev, 0, 0), EINVAL);
	FAILS(epoll_wait(ep, &ev, less, 0), EINVAL);
	FAILS(epoll_wait(e->fd, &ev, 1, 0), EINVAL);
	FAILS(epoll_wait(999, &ev, 1, 0), EBADF);
	IS(epoll_ctl(ep, EPOLL_CTL_DEL, e->fd, NULL), 0);
	FAILS(epoll_ctl(ep, EPOLL_CTL_DEL, e->fd, NULL), ENOENT);
	IS(add(ep, e->fd, EPOLLIN), 0);
	chat(e);
	IS(reported(ep, e->fd, 0), 0);
	meet(e);
	close(ep);
	chat(e);
}

/* What is there when the socket is added is reported at once, also nothing but errors for no events. */
static void add_late(struct end *e)
{
	int ep = epoll_create1(0);

	if (e->server) {
		put(e, 100);
		meet(e);
		conn_close(e);
		meet(e);
		return;
	}
	arrived(e->fd, 100);
	IS(add(ep, e->fd, EPOLLIN), 0);
	IS(reported(ep, e->fd, 1000), EPOLLIN);
	IS(change(ep, e->fd, EPOLLOUT), 0);
	IS(reported(ep, e->fd, 1000), EPOLLOUT);
	IS(change(ep, e->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP), 0);
	IS(reported(ep, e->fd, 1000), EPOLLIN | EPOLLOUT);
	IS(change(ep, e->fd, 0), 0);
	IS(reported(ep, e->fd, 30), 0);
	meet(e);
	IS(change(ep, e->fd, EPOLLRDHUP), 0);
	IS(reported(ep, e->fd, 10000), EPOLLRDHUP);
	IS(change(ep, e->fd, 0), 0);
	IS(reported(ep, e->fd, 30), 0);
	IS(shutdown(e->fd, SHUT_WR), 0);
	IS(reported(ep, e->fd, 10000), EPOLLHUP);
	get(e, 100);
	meet(e);
}

/* What was not read is reported again. */
static void level(struct end *e)
{
	int ep = epoll_create1(0);

	if (e->server) {
		hear(e);
		put(e, 300);
		meet(e);
		chat(e);
		return;
	}
	IS(add(ep, e->fd, EPOLLIN), 0);
	IS(reported(ep, e->fd, 0), 0);
	tell(e, 0);
	for (int i = 0; i < 3; i++) {
		IS(reported(ep, e->fd, 10000), EPOLLIN);
		IS(reported(ep, e->fd, 0), EPOLLIN);
		get(e, 100);
	}
	IS(reported(ep, e->fd, 0), 0);
	meet(e);
	chat(e);
}

/* Writable until full, and again when there is room. */
static void out_full(struct end *e)
{
	int ep = epoll_create1(0);

	if (e->server) {
		get(e, hear(e));
		chat(e);
		return;
	}
	nonblock(e->fd, true);
	IS(add(ep, e->fd, EPOLLOUT), 0);
	while (reported(ep, e->fd, 0)) {
		if (put1(e, 100000, 0) < 0)
			IS(errno, EAGAIN);
		CHECK(e->tx.n < 512u << 20);
	}
	tell(e, e->tx.n);
	IS(reported(ep, e->fd, 20000), EPOLLOUT);
	CHECK(put1(e, 0, 0) == 0);
	nonblock(e->fd, false);
	chat(e);
}

/* ---------------------------------------------------------------- members */

static void members(struct end *e)
{
	int ep = epoll_create1(0), other, fd = e->fd;

	if (e->server) {
		feed(e, 3, 0);
		return;
	}
	/* a dup keeps the entry of a closed number alive, with its data */
	IS(add(ep, fd, EPOLLIN), 0);
	other = fcntl(fd, F_DUPFD, 50);
	close(fd);
	e->fd = other;
	tell(e, 0);
	IS(reported(ep, fd, 10000), EPOLLIN);
	get(e, 100);
	FAILS(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL), EBADF);
	/* the entry cannot be named any more; a set of its own for the new number */
	close(ep);
	ep = epoll_create1(0);
	IS(add(ep, other, EPOLLIN), 0);
	tell(e, 0);
	IS(reported(ep, other, 10000), EPOLLIN);
	get(e, 100);
	/* deleted: silence */
	IS(epoll_ctl(ep, EPOLL_CTL_DEL, other, (void *)1), 0);
	tell(e, 0);
	arrived(other, 100);
	IS(reported(ep, other, 30), 0);
	get(e, 100);
	meet(e);
	/* closed: gone */
	IS(add(ep, other, EPOLLOUT), 0);
	conn_close(e);
	IS(reported(ep, other, 30), 0);
}

static void two_sets(struct end *e)
{
	int a = epoll_create1(0), b = epoll_create1(0);

	if (e->server) {
		feed(e, 2, 0);
		chat(e);
		return;
	}
	IS(add(a, e->fd, EPOLLIN), 0);
	IS(add(b, e->fd, EPOLLIN | EPOLLET), 0);
	tell(e, 0);
	IS(reported(a, e->fd, 10000), EPOLLIN);
	IS(reported(b, e->fd, 10000), EPOLLIN);
	IS(reported(a, e->fd, 0), EPOLLIN);
	IS(reported(b, e->fd, 0), 0);
	get(e, 100);
	IS(reported(a, e->fd, 0), 0);
	IS(epoll_ctl(a, EPOLL_CTL_DEL, e->fd, NULL), 0);
	tell(e, 0);
	IS(reported(b, e->fd, 10000), EPOLLIN);
	IS(reported(a, e->fd, 0), 0);
	get(e, 100);
	meet(e);
	chat(e);
}

/* A set in a set, and a set in poll() and select(). */
static void nested(struct end *e)
{
	int in = epoll_create1(0), mid = epoll_create1(0), out = epoll_create1(0);
	fd_set set;

	if (e->server) {
		feed(e, 4, 30);
		return;
	}
	IS(add(in, e->fd, EPOLLIN), 0);
	IS(add(mid, in, EPOLLIN), 0);
	IS(add(out, mid, EPOLLIN), 0);
	IS(reported(out, mid, 0), 0);
	IS(polled(in, POLLIN, 0), 0);
	for (int i = 0; i < 4; i++) {
		tell(e, 0);
		FD_ZERO(&set);
		FD_SET(mid, &set);
		if (i == 0)
			IS(reported(out, mid, 10000), EPOLLIN);
		else if (i == 1)
			IS(polled(in, POLLIN, 10000), POLLIN);
		else if (i == 2)
			IS(select(mid + 1, &set, NULL, NULL, NULL), 1);
		else
			IS(polled(out, POLLIN, 10000), POLLIN);
		IS(reported(mid, in, 0), EPOLLIN);
		IS(reported(in, e->fd, 0), EPOLLIN);
		IS(reported(out, mid, 0), EPOLLIN);
		get(e, 100);
		IS(polled(out, POLLIN, 0), 0);
		IS(reported(in, e->fd, 0), 0);
	}
	meet(e);
}

/* Whatever woke a sleeper before, bytes that were read make no set ready, seen from outside. */
static void nested_later(struct end *e)
{
	int before = epoll_create1(0), in = epoll_create1(0), mid = epoll_create1(0),
	    out = epoll_create1(0);
	struct timeval none = {};
	fd_set set;

	if (e->server) {
		feed(e, 2, 30);
		return;
	}
	IS(add(before, e->fd, EPOLLIN), 0);
	tell(e, 0);
	IS(reported(before, e->fd, 10000), EPOLLIN);
	get(e, 100);
	IS(add(in, e->fd, EPOLLIN), 0);
	IS(polled(in, POLLIN, 0), 0);
	IS(add(mid, in, EPOLLIN), 0);
	FD_ZERO(&set);
	FD_SET(mid, &set);
	IS(select(mid + 1, &set, NULL, NULL, &none), 0);
	IS(add(out, mid, EPOLLIN), 0);
	IS(reported(out, mid, 0), 0);
	IS(reported(out, mid, 50), 0);
	tell(e, 0);
	IS(reported(out, mid, 10000), EPOLLIN);
	get(e, 100);
	IS(reported(out, mid, 0), 0);
	IS(reported(before, e->fd, 0), 0);
	meet(e);
}

static void exclusive(struct end *e)
{
	int a = epoll_create1(0), b = epoll_create1(0);

	if (e->server) {
		hear(e);
		put(e, 100);
		meet(e);
		return;
	}
	IS(add(a, e->fd, EPOLLIN | EPOLLEXCLUSIVE), 0);
	IS(add(b, e->fd, EPOLLIN | EPOLLEXCLUSIVE), 0);
	FAILS(change(a, e->fd, EPOLLIN), EINVAL);
	FAILS(change(a, e->fd, EPOLLIN | EPOLLEXCLUSIVE), EINVAL);
	tell(e, 0);
	IS(reported(a, e->fd, 10000), EPOLLIN);
	IS(epoll_ctl(a, EPOLL_CTL_DEL, e->fd, NULL), 0);
	FAILS(add(a, e->fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT), EINVAL);
	get(e, 100);
	meet(e);
}

/* A child works with the set of its parent. */
static void shared_set(struct end *e)
{
	int ep = epoll_create1(0);
	pid_t pid;

	if (e->server) {
		feed(e, 2, 0);
		return;
	}
	IS(add(ep, e->fd, EPOLLIN), 0);
	tell(e, 0);
	pid = child();
	if (!pid) {
		IS(reported(ep, e->fd, 10000), EPOLLIN);
		get(e, 100);
		done();
	}
	reap(pid);
	e->rx.n += 100;
	IS(reported(ep, e->fd, 0), 0);
	tell(e, 0);
	IS(reported(ep, e->fd, 10000), EPOLLIN);
	get(e, 100);
	meet(e);
}

/* ---------------------------------------------------------------- waiting */

static void pwait2(struct end *e)
{
	struct timespec t = { 0, 30000000 };
	struct epoll_event ev;
	int ep = epoll_create1(0);

	if (e->server) {
		hear(e);
		put(e, 100);
		meet(e);
		return;
	}
	IS(add(ep, e->fd, EPOLLIN), 0);
	if (epoll_pwait2(ep, &ev, 1, &t, NULL) < 0 && errno == ENOSYS)
		skip("no epoll_pwait2");
	IS(epoll_pwait2(ep, &ev, 1, &t, NULL), 0);
	tell(e, 0);
	IS(epoll_pwait2(ep, &ev, 1, NULL, NULL), 1);
	get(e, 100);
	meet(e);
}

/* Added by one thread while another waits already. */
static int shared_ep;

static void *wait_in_thread(void *arg)
{
	struct epoll_event got;

	IS(epoll_wait(shared_ep, &got, 1, 20000), 1);
	*(uint64_t *)arg = got.data.u64;
	return NULL;
}

static void add_while_waiting(struct end *e)
{
	uint64_t data = 0;
	pthread_t id;

	if (e->server) {
		if (!e->arg)
			put(e, 100);
		hear(e);
		if (e->arg)
			put(e, 100);
		meet(e);
		return;
	}
	shared_ep = epoll_create1(0);
	if (!e->arg)
		arrived(e->fd, 100);
	IS(pthread_create(&id, NULL, wait_in_thread, &data), 0);
	nap(60);
	IS(add(shared_ep, e->fd, EPOLLIN), 0);
	if (e->arg)
		nap(60);
	tell(e, 0);
	IS(pthread_join(id, NULL), 0);
	CHECK(data == 0xabcd000000000000ULL + e->fd);
	get(e, 100);
	meet(e);
}

/* ---------------------------------------------------------------- many of them */

#define MANY 500

/* Few of many connections are busy; others are in the same set. */
static void many(struct end *e)
{
	static struct end ends[MANY];
	int ep = epoll_create1(0);

	for (int i = 0; i < MANY; i++) {
		ends[i] = (struct end){ .fd = -1,
					.ctl = e->ctl,
					.listener = e->listener,
					.port = e->port,
					.server = e->server };
		conn_open(&ends[i], AF_INET);
		e->listener = ends[i].listener;
		e->port = ends[i].port;
		if (i % 50 == 7)
			warm_up(&ends[i]);
		if (e->server) {
			struct epoll_event ev = { .events = EPOLLIN, .data.u32 = i };

			IS(epoll_ctl(ep, EPOLL_CTL_ADD, ends[i].fd, &ev), 0);
		}
	}
	for (int round = 0; round < 2000; round++) {
		struct epoll_event got[8];
		int i = round % 3 ? 7 + round % 10 * 50 : round % MANY;

		if (!e->server) {
			put(&ends[i], 64);
			get(&ends[i], 128);
			continue;
		}
		IS(epoll_wait(ep, got, 8, 20000), 1);
		IS(got[0].data.u32, i);
		get(&ends[i], 64);
		put(&ends[i], 128);
	}
	for (int i = 0; i < MANY; i++)
		conn_close(&ends[i]);
}

#define READY 20

/* Few events are taken at a time: everybody gets a turn. */
static void fair(struct end *e)
{
	static struct end ends[READY];
	int ep = epoll_create1(0), seen[READY] = { 0 }, all = 0;

	for (int i = 0; i < READY; i++) {
		ends[i] = (struct end){
			.fd = -1, .ctl = e->ctl, .listener = -1, .server = e->server
		};
		conn_open(&ends[i], AF_INET);
		warm_up(&ends[i]);
		if (!e->server)
			put(&ends[i], 10);
	}
	meet(e);
	for (int i = 0; i < READY && e->server; i++) {
		struct epoll_event ev = { .events = EPOLLIN, .data.u32 = i };

		arrived(ends[i].fd, 10);
		IS(epoll_ctl(ep, EPOLL_CTL_ADD, ends[i].fd, &ev), 0);
	}
	for (int round = 0; round < 200 && e->server && all < READY; round++) {
		struct epoll_event got[3];
		int n = epoll_wait(ep, got, 3, 1000);

		CHECK(n > 0);
		while (n--)
			all += !seen[got[n].data.u32]++;
	}
	if (e->server)
		IS(all, READY);
	meet(e);
}

/* A connection that always has something does not hide a pipe, an eventfd or a timer. */
static void foreign(struct end *e)
{
	int ep = epoll_create1(0), pipes[2], ev = eventfd(0, 0),
	    timer = timerfd_create(CLOCK_MONOTONIC, 0);
	struct itimerspec soon = { .it_value = { 0, 1 } };
	bool seen[3] = { false };
	int others[3];

	if (e->server) {
		while (!heard(e, 0))
			put1(e, 1000, MSG_DONTWAIT);
		return;
	}
	IS(pipe(pipes), 0);
	IS(add(ep, e->fd, EPOLLIN), 0);
	others[0] = pipes[0];
	others[1] = ev;
	others[2] = timer;
	for (int i = 0; i < 3; i++)
		IS(add(ep, others[i], EPOLLIN), 0);
	arrived(e->fd, 1000);
	IS(write(pipes[1], "x", 1), 1);
	IS(eventfd_write(ev, 1), 0);
	IS(timerfd_settime(timer, 0, &soon, NULL), 0);
	for (int round = 0; round < 100; round++) {
		struct epoll_event got;

		IS(epoll_wait(ep, &got, 1, 10000), 1);
		for (int i = 0; i < 3; i++)
			seen[i] |= got.data.u64 == 0xabcd000000000000ULL + others[i];
		get1(e, 10, MSG_DONTWAIT);
	}
	CHECK(seen[0] && seen[1] && seen[2]);
	tell(e, 0);
}

/* The same for poll(): all that is ready is reported in one call. */
static void foreign_poll(struct end *e)
{
	struct pollfd p[4];
	int pipes[2];

	chat(e);
	meet(e);
	put(e, 10);
	arrived(e->fd, 10);
	IS(pipe(pipes), 0);
	p[0] = (struct pollfd){ .fd = e->fd, .events = POLLIN | POLLOUT };
	p[1] = (struct pollfd){ .fd = pipes[0], .events = POLLIN };
	p[2] = (struct pollfd){ .fd = pipes[1], .events = POLLOUT };
	p[3] = (struct pollfd){ .fd = -1, .events = POLLIN, .revents = 7 };
	IS(poll(p, 4, -1), 2);
	IS(p[0].revents, POLLIN | POLLOUT);
	IS(p[1].revents, 0);
	IS(p[2].revents, POLLOUT);
	IS(p[3].revents, 0);
	get(e, 10);
	IS(write(pipes[1], "x", 1), 1);
	IS(poll(p, 2, -1), 2);
	IS(p[0].revents, POLLOUT);
	IS(p[1].revents, POLLIN);
	/* the same socket twice */
	p[1] = p[0];
	p[1].events = POLLIN;
	IS(poll(p, 2, 0), 1);
	IS(p[1].revents, 0);
	/* a wait that the foreign one ends */
	p[0].events = POLLIN;
	p[1] = (struct pollfd){ .fd = pipes[0], .events = POLLIN };
	IS(poll(p, 2, 5000), 1);
	IS(p[1].revents, POLLIN);
	meet(e);
}

static void timeouts(struct end *e)
{
	struct pollfd p = { .fd = e->fd, .events = POLLIN };
	struct timeval t = { 0, 30000 };
	int ep = epoll_create1(0);
	uint64_t before = now_ms();
	fd_set in;

	IS(add(ep, e->fd, EPOLLIN), 0);
	IS(poll(&p, 1, 0), 0);
	IS(poll(&p, 1, 30), 0);
	IS(reported(ep, e->fd, 0), 0);
	IS(reported(ep, e->fd, 30), 0);
	FD_ZERO(&in);
	FD_SET(e->fd, &in);
	IS(select(e->fd + 1, &in, NULL, NULL, &t), 0);
	CHECK(!FD_ISSET(e->fd, &in));
	CHECK(now_ms() - before >= 85);
	IS(poll(NULL, 0, 10), 0);
	t = (struct timeval){ 0, 10000 };
	IS(select(0, NULL, NULL, NULL, &t), 0);
	FAILS(select(-1, NULL, NULL, NULL, &t), EINVAL);
	meet(e);
	chat(e);
}

/* A look without waiting that finds nothing says so, whatever was said or lay there before. */
static void nothing_ready(struct end *e)
{
	struct timeval none = { 0, 0 };
	struct pollfd p[2] = { { .fd = e->fd, .events = POLLIN, .revents = POLLIN | POLLOUT },
			       { .fd = -1, .revents = POLLIN } };
	fd_set in;

	if (e->server) {
		for (int i = 0; i < 3; i++) {
			put(e, 10);
			hear(e);
		}
		chat(e);
		return;
	}
	for (int i = 0; i < 3; i++) {
		IS(polled(e->fd, POLLIN, 5000), POLLIN);
		FD_ZERO(&in);
		FD_SET(e->fd, &in);
		IS(select(e->fd + 1, &in, NULL, NULL, &none), 1);
		CHECK(FD_ISSET(e->fd, &in));
		get(e, 10);
		IS(select(e->fd + 1, &in, NULL, NULL, &none), 0);
		CHECK(!FD_ISSET(e->fd, &in));
		p[0].revents = p[1].revents = POLLIN | POLLERR;
		IS(poll(p, 2, 0), 0);
		IS(p[0].revents, 0);
		IS(p[1].revents, 0);
		tell(e, 0);
	}
	chat(e);
}

/* A listener and its connections in one set, the shape of most servers. */
static void listener_too(struct end *e)
{
	int ep = epoll_create1(0), conns = 0;
	uint8_t buf[300];

	if (!e->server) {
		for (int i = 0; i < 10; i++) {
			struct end c = { .fd = connect_port(AF_INET, e->port),
					 .tx.seed = 1,
					 .rx.seed = 1 };

			for (int k = 0; k < 100; k++) {
				put(&c, 200);
				get(&c, 200);
			}
			conn_close(&c);
		}
		conn_close(e);
		return;
	}
	nonblock(e->listener, true);
	IS(add(ep, e->listener, EPOLLIN), 0);
	IS(add(ep, e->fd, EPOLLIN), 0);
	for (;;) {
		struct epoll_event got;
		int fd;
		ssize_t n;

		IS(epoll_wait(ep, &got, 1, 20000), 1);
		fd = got.data.u64 & 0xffff;
		if (fd == e->listener) {
			fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
			CHECK(fd >= 0);
			IS(add(ep, fd, EPOLLIN), 0);
			conns++;
			continue;
		}
		n = read(fd, buf, sizeof(buf));
		CHECK(n >= 0);
		if (n)
			IS(write(fd, buf, n), n);
		else
			close(fd);
		if (!n && fd == e->fd)
			break;
	}
	IS(conns, 10);
}

/* ---------------------------------------------------------------- odd shapes */

/* The data is the application's, whatever it looks like. */
static void any_data(struct end *e)
{
	const uint64_t data[] = { 0, ~0ULL, 1ULL << 63, 0x80000000ffffffffULL,
				  0xffffffff00000000ULL };
	int ep = epoll_create1(0), n = sizeof(data) / sizeof(*data), other[8];
	struct epoll_event ev = { .events = EPOLLIN }, got[8];

	if (e->server) {
		put(e, 10);
		meet(e);
		return;
	}
	IS(add(ep, e->fd, EPOLLIN), 0);
	arrived(e->fd, 10);
	for (int i = 0; i < n; i++) {
		other[i] = eventfd(1, 0);
		ev.data.u64 = data[i];
		IS(epoll_ctl(ep, EPOLL_CTL_ADD, other[i], &ev), 0);
		IS(epoll_wait(ep, got, 8, 1000), 2);
		CHECK(got[0].data.u64 == data[i] || got[1].data.u64 == data[i]);
		IS(epoll_ctl(ep, EPOLL_CTL_DEL, other[i], NULL), 0);
		ev.data.u64 = data[i];
		IS(epoll_ctl(ep, EPOLL_CTL_MOD, e->fd, &ev), 0);
		IS(epoll_wait(ep, got, 8, 1000), 1);
		CHECK(got[0].data.u64 == data[i]);
	}
	get(e, 10);
	meet(e);
}

/* Room comes back for a send of this thread; who waits for it is another one, asleep since before. */
static void out_for_another(struct end *e)
{
	uint64_t data = 0;
	pthread_t id;

	if (e->server) {
		for (int64_t n = hear(e); e->rx.n < (uint64_t)n;)
			get(e, n - e->rx.n);
		meet(e);
		return;
	}
	shared_ep = epoll_create1(0);
	IS(add(shared_ep, e->fd, EPOLLIN | EPOLLOUT | EPOLLET), 0);
	for (int i = 0; i < 8; i++)
		CHECK(reported(shared_ep, e->fd, 5) == (i ? 0 : EPOLLOUT));
	IS(pthread_create(&id, NULL, wait_in_thread, &data), 0);
	nap(60);
	nonblock(e->fd, true);
	while (put1(e, 100000, 0) > 0)
		;
	IS(errno, EAGAIN);
	nonblock(e->fd, false);
	tell(e, e->tx.n);
	IS(pthread_join(id, NULL), 0);
	CHECK(data == 0xabcd000000000000ULL + e->fd);
	meet(e);
}

/* As many descriptors as RLIMIT_NOFILE allows in one poll(). */
static void poll_limit(struct end *e)
{
	struct pollfd p[300];
	struct rlimit r, few;

	if (e->server) {
		hear(e);
		nap(60);
		put(e, 10);
		meet(e);
		return;
	}
	IS(getrlimit(RLIMIT_NOFILE, &r), 0);
	for (int i = 0; i < 300; i++)
		p[i] = (struct pollfd){ .fd = e->fd, .events = POLLIN };
	few = (struct rlimit){ 300, r.rlim_max };
	IS(setrlimit(RLIMIT_NOFILE, &few), 0);
	IS(poll(p, 300, 20), 0);
	tell(e, 0);
	IS(poll(p, 300, 20000), 300);
	CHECK(p[0].revents == POLLIN && p[299].revents == POLLIN);
	few.rlim_cur = 299;
	IS(setrlimit(RLIMIT_NOFILE, &few), 0);
	FAILS(poll(p, 300, 0), EINVAL);
	IS(setrlimit(RLIMIT_NOFILE, &r), 0);
	get(e, 10);
	meet(e);
}

/* Programs with more descriptors than FD_SETSIZE bring their own, bigger sets. */
static void select_big(struct end *e)
{
	unsigned long in[64] = { 0 };
	struct timeval t = { 20, 0 };
	int high;

	if (e->server) {
		put(e, 10);
		meet(e);
		return;
	}
	high = fcntl(e->fd, F_DUPFD_CLOEXEC, 2000);
	if (high < 0)
		skip("no descriptor above FD_SETSIZE");
	in[high / 64] |= 1UL << high % 64;
	IS(select(high + 1, (fd_set *)in, NULL, NULL, &t), 1);
	CHECK(in[high / 64] == 1UL << high % 64);
	CHECK(t.tv_sec >= 10);
	get(e, 10);
	t = (struct timeval){ 0, 1000 };
	IS(select(high + 1, (fd_set *)in, NULL, NULL, &t), 0);
	IS(in[high / 64], 0);
	IS(close(high), 0);
	meet(e);
}

/* pthread_cancel() of a sleeper leaves the set and the connection usable. */
static void cancelled(struct end *e)
{
	uint64_t data;
	pthread_t id;
	void *result;

	if (e->server) {
		hear(e);
		put(e, 10);
		meet(e);
		return;
	}
	shared_ep = epoll_create1(0);
	IS(add(shared_ep, e->fd, EPOLLIN), 0);
	for (int i = 0; i < 3; i++) {
		IS(pthread_create(&id, NULL, wait_in_thread, &data), 0);
		nap(20);
		IS(pthread_cancel(id), 0);
		IS(pthread_join(id, &result), 0);
		CHECK(result == PTHREAD_CANCELED);
	}
	IS(reported(shared_ep, e->fd, 10), 0);
	tell(e, 0);
	IS(reported(shared_ep, e->fd, 10000), EPOLLIN);
	get(e, 10);
	IS(reported(shared_ep, e->fd, 0), 0);
	meet(e);
}

const struct test tests_epoll[] = {
	{ "poll_nothing_ready", nothing_ready, NULL, 0, 0 },
	{ "epoll_errors", errors, NULL, 0, 0 },
	{ "epoll_add_late", add_late, NULL, 0, 0 },
	{ "epoll_level", level, NULL, 0, 0 },
	{ "epoll_out_full", out_full, NULL, 0, 0 },
	{ "epoll_members", members, NULL, 0, 0 },
	{ "epoll_two_sets", two_sets, NULL, 0, 0 },
	{ "epoll_nested_later", nested_later, NULL, 0, 0 },
	{ "epoll_nested", nested, NULL, 0, 0 },
	{ "epoll_exclusive", exclusive, NULL, 0, 0 },
	{ "epoll_fork", shared_set, NULL, 0, 0 },
	{ "epoll_pwait2", pwait2, NULL, 0, 0 },
	{ "epoll_add_ready_while_waiting", add_while_waiting, NULL, 0, 0 },
	{ "epoll_add_while_waiting", add_while_waiting, NULL, 0, 1 },
	{ "epoll_many", many, NULL, RAW, 0 },
	{ "epoll_fair", fair, NULL, RAW, 0 },
	{ "epoll_foreign", foreign, NULL, 0, 0 },
	{ "poll_foreign", foreign_poll, NULL, 0, 0 },
	{ "poll_timeouts", timeouts, NULL, 0, 0 },
	{ "epoll_listener_too", listener_too, NULL, 0, 0 },
	{ "epoll_any_data", any_data, NULL, 0, 0 },
	{ "epoll_out_for_another", out_for_another, NULL, 0, 0 },
	{ "epoll_cancelled", cancelled, NULL, 0, 0 },
	{ "poll_nofile_limit", poll_limit, NULL, 0, 0 },
	{ "select_big_set", select_big, NULL, 0, 0 },
	{ 0 },
};
