// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Descriptors: numbers, dup() and its kin, flags, closing many at once, limits. */
#include "posix.h"
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>

/* ---------------------------------------------------------------- numbers */

static int lowest_free(void)
{
	int fd = 0;

	while (fcntl(fd, F_GETFD) >= 0)
		fd++;
	return fd;
}

/* Nothing sits at low numbers that the application did not open. */
static void numbers(struct end *e)
{
	int before = open_fds(512), free_before = lowest_free(), fd;

	conn_open(e, AF_INET);
	IS(e->fd, e->server ? e->listener + 1 : free_before);
	warm_up(e);
	IS(open_fds(512), before + (e->server ? 2 : 1));
	IS(lowest_free(), e->fd + 1);
	fd = open("/dev/null", O_RDONLY);
	IS(fd, e->fd + 1);
	IS(dup(fd), fd + 1);
	close(fd + 1);
	close(fd);
	chat(e);
	IS(socket(AF_INET, SOCK_STREAM, 0), fd);
	close(fd);
	fd = e->fd;
	meet(e);
	conn_close(e);
	IS(lowest_free(), fd);
}

/* ---------------------------------------------------------------- dup */

/* Each name of the connection is as good as the other. */
static void dups(struct end *e)
{
	int old = e->fd, a = dup(old), b = fcntl(old, F_DUPFD, 100),
	    c = fcntl(old, F_DUPFD_CLOEXEC, 200);
	int d = dup3(old, 300, O_CLOEXEC), f = dup2(old, 301);
	int all[] = { a, b, c, d, f };

	CHECK(a > old && b >= 100 && c >= 200 && d == 300 && f == 301);
	IS(fcntl(a, F_GETFD), 0);
	IS(fcntl(b, F_GETFD), 0);
	IS(fcntl(c, F_GETFD), FD_CLOEXEC);
	IS(fcntl(d, F_GETFD), FD_CLOEXEC);
	IS(fcntl(f, F_GETFD), 0);
	for (int i = 0; i < 5; i++) {
		e->fd = all[i];
		chat(e);
	}
	close(old);
	for (int i = 0; i < 4; i++) {
		chat(e);
		IS(close(all[i]), 0);
		e->fd = all[i + 1];
	}
	chat(e);
	/* only the last one ends it */
	meet(e);
	if (e->server)
		get_eof(e);
	else
		conn_close(e);
}

/* dup2() over the only descriptor of a connection ends that one. */
static void dup_over(struct end *e)
{
	struct end two = { .fd = -1, .ctl = e->ctl, .listener = -1, .server = e->server };

	conn_open(&two, AF_INET);
	warm_up(&two);
	if (e->server) {
		get_all(e);
		IS(e->rx.n, 10);
		chat(&two);
		return;
	}
	put(e, 10);
	IS(dup2(two.fd, e->fd), e->fd);
	IS(close(two.fd), 0);
	two.fd = e->fd;
	chat(&two);
}

/* A file takes the place. */
static void file_over(struct end *e)
{
	int null = open("/dev/zero", O_RDWR);
	char c = 1;

	if (e->server) {
		get_eof(e);
		return;
	}
	IS(dup2(null, e->fd), e->fd);
	IS(read(e->fd, &c, 1), 1);
	IS(c, 0);
	IS(write(e->fd, &c, 1), 1);
	IS(polled(e->fd, POLLIN | POLLOUT, 0), POLLIN | POLLOUT);
	FAILS(send(e->fd, &c, 1, 0), ENOTSOCK);
}

static void dup_errors(struct end *e)
{
	IS(dup2(e->fd, e->fd), e->fd);
	FAILS(dup3(e->fd, e->fd, 0), EINVAL);
	FAILS(dup3(e->fd, 100, O_APPEND), EINVAL);
	FAILS(dup2(e->fd, 1 << 30), EBADF);
	FAILS(fcntl(e->fd, F_DUPFD, 1 << 30), EINVAL);
	FAILS(fcntl(e->fd, 0x7777), EINVAL);
	chat(e);
}

/* Two connections change places. */
static void swapped(struct end *e)
{
	struct end two = { .fd = -1, .ctl = e->ctl, .listener = -1, .server = e->server };
	int tmp, fd = e->fd;

	conn_open(&two, AF_INET);
	warm_up(&two);
	tmp = dup(fd);
	IS(dup2(two.fd, fd), fd);
	IS(dup2(tmp, two.fd), two.fd);
	IS(close(tmp), 0);
	e->fd = two.fd;
	two.fd = fd;
	chat(e);
	chat(&two);
	meet(e);
	conn_close(&two);
	chat(e);
}

/* ---------------------------------------------------------------- flags */

/* O_NONBLOCK belongs to the connection, FD_CLOEXEC to the descriptor. */
static void flags(struct end *e)
{
	int other = dup(e->fd);

	nonblock(other, true);
	CHECK(fcntl(e->fd, F_GETFL) & O_NONBLOCK);
	FAILS(get1(e, 10, 0), EAGAIN);
	meet(e);
	IS(fcntl(e->fd, F_GETFL) & O_ACCMODE, O_RDWR);
	nonblock(e->fd, false);
	CHECK(!(fcntl(other, F_GETFL) & O_NONBLOCK));
	chat(e);
	IS(fcntl(other, F_SETFD, FD_CLOEXEC), 0);
	IS(fcntl(e->fd, F_GETFD), FD_CLOEXEC); /* as it was made */
	IS(fcntl(e->fd, F_SETFD, 0), 0);
	IS(fcntl(other, F_GETFD), FD_CLOEXEC);
	close(other);
	chat(e);
}

/* A child that changes O_NONBLOCK changes it for the parent. */
static void flags_fork(struct end *e)
{
	pid_t pid = child();

	if (!pid) {
		nonblock(e->fd, true);
		done();
	}
	reap(pid);
	FAILS(get1(e, 10, 0), EAGAIN);
	meet(e);
	CHECK(fcntl(e->fd, F_GETFL) & O_NONBLOCK);
	pid = child();
	if (!pid) {
		nonblock(e->fd, false);
		done();
	}
	reap(pid);
	chat(e);
}

/* ---------------------------------------------------------------- closing many */

/* What daemons do at their start: all but a few go, also those that are not theirs. */
static void close_all(struct end *e)
{
	struct end two = { .fd = -1, .ctl = e->ctl, .listener = -1, .server = e->server };

	conn_open(&two, AF_INET);
	warm_up(&two);
	for (int fd = 3; fd < 1024; fd++)
		if (fd != e->ctl && fd != e->fd)
			close(fd);
	if (e->arg)
		closefrom(1024);
	two.listener = e->listener = -1;
	chat(e);
	conn_open(&two, AF_INET);
	chat(&two);
	chat(e);
}

static void ranges(struct end *e)
{
	struct end two = { .fd = -1, .ctl = e->ctl, .listener = -1, .server = e->server };

	conn_open(&two, AF_INET);
	warm_up(&two);
	IS(close_range(two.fd, two.fd + 20, CLOSE_RANGE_CLOEXEC), 0);
	chat(&two);
	FAILS(close_range(9, 8, 0), EINVAL);
	meet(e);
	if (e->server) {
		get_eof(&two);
		chat(e);
		return;
	}
	IS(close_range(two.fd, ~0U, 0), 0);
	FAILS(fcntl(two.fd, F_GETFD), EBADF);
	chat(e);
}

static void close_from(struct end *e)
{
	int fd = dup2(e->fd, 4);

	IS(fd, 4);
	closefrom(5);
	FAILS(fcntl(5, F_GETFD), EBADF);
	e->fd = 4;
	chat(e);
	meet(e);
	if (e->server)
		get_eof(e);
	else
		closefrom(4);
}

/* ---------------------------------------------------------------- limits */

static void high_numbers(struct end *e)
{
	fd_set in;
	int fd;

	allow_fds(6000);
	fd = fcntl(e->fd, F_DUPFD, FD_SETSIZE - 1);
	IS(fd, FD_SETSIZE - 1);
	close(e->fd);
	e->fd = fd;
	meet(e);
	put(e, 1);
	FD_ZERO(&in);
	FD_SET(fd, &in);
	IS(select(FD_SETSIZE, &in, NULL, NULL, NULL), 1);
	CHECK(FD_ISSET(fd, &in));
	get(e, 1);
	e->fd = dup2(fd, 5999);
	IS(e->fd, 5999);
	close(fd);
	put(e, 1);
	IS(polled(5999, POLLIN, 10000), POLLIN);
	get(e, 1);
	chat(e);
}

/* No number is left: accept() says so, connections go on, and the next one can be accepted. */
static void emfile(struct end *e)
{
	struct rlimit r;
	int fd;

	chat(e);
	if (!e->server) {
		int one = connect_port(AF_INET, e->port);

		tell(e, 0);
		chat(e);
		IS(write(one, "x", 1), 1);
		hear(e);
		return;
	}
	hear(e);
	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = lowest_free();
	setrlimit(RLIMIT_NOFILE, &r);
	FAILS(accept(e->listener, NULL, NULL), EMFILE);
	FAILS(dup(e->fd), EMFILE);
	FAILS(socket(AF_INET, SOCK_STREAM, 0), EMFILE);
	chat(e);
	r.rlim_cur = 256;
	setrlimit(RLIMIT_NOFILE, &r);
	fd = accept(e->listener, NULL, NULL);
	CHECK(fd >= 0);
	IS(read(fd, &(char){ 0 }, 1), 1);
	tell(e, 0);
}

/* Few numbers from the start: no room for anything else, and still a connection. */
static void few_numbers(struct end *e)
{
	struct rlimit r = { 8, 8 };

	IS(setrlimit(RLIMIT_NOFILE, &r), 0);
	conn_open(e, AF_INET);
	for (int i = 0; i < 30; i++)
		chat(e);
	while (dup(e->fd) >= 0)
		;
	IS(errno, EMFILE);
	chat(e);
}

const struct test tests_fd[] = {
	{ "fd_numbers", numbers, NULL, RAW, 0 },  { "dup_all", dups, NULL, 0, 0 },
	{ "dup_over", dup_over, NULL, 0, 0 },	  { "dup_file_over", file_over, NULL, 0, 0 },
	{ "dup_errors", dup_errors, NULL, 0, 0 }, { "dup_swap", swapped, NULL, 0, 0 },
	{ "fd_flags", flags, NULL, 0, 0 },	  { "fd_flags_fork", flags_fork, NULL, 0, 0 },
	{ "close_all", close_all, NULL, 0, 0 },	  { "close_all_above", close_all, NULL, 0, 1 },
	{ "close_range", ranges, NULL, 0, 0 },	  { "closefrom", close_from, NULL, 0, 0 },
	{ "fd_high", high_numbers, NULL, 0, 0 },  { "fd_emfile", emfile, NULL, 0, 0 },
	{ "fd_few", few_numbers, NULL, RAW, 0 },  { 0 },
};
