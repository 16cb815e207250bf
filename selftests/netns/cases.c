// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * cases: what the socket interface promises beyond a stream of bytes, one case at a time.
 *
 * Both ends of one connection are in this process. Every expectation holds on plain TCP.
 * Exit status: 0 as expected, 1 not, 2 usage, 4 not possible here.
 */
#define _GNU_SOURCE
#include "cases.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CASE_SECONDS 30
#define CHUNK	     65536

const char *const case_address = "127.0.0.1";
const char *case_check;
static const char *case_name = "?", *case_step = "start";
static int case_port;

void step(const char *what)
{
	case_step = what;
}

static void on_alarm(int sig)
{
	(void)sig;
	dprintf(STDERR_FILENO, "case %s: still at '%s' after %d s\n", case_name, case_step,
		CASE_SECONDS);
	_exit(EXIT_BAD);
}

/* ---------------------------------------------------------------- connections */

int listen_on(int port, void (*prepare)(int fd))
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct addr a;

	addr_parse(&a, case_address, port);
	if (fd < 0)
		fail_errno("socket");
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
	if (prepare)
		prepare(fd);
	if (bind(fd, (void *)&a.ss, a.len) || listen(fd, 16))
		fail_errno("listen on port %d", port);
	return fd;
}

int connect_to(int port, void (*prepare)(int fd))
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct addr a;

	addr_parse(&a, case_address, port);
	if (fd < 0)
		fail_errno("socket");
	if (prepare)
		prepare(fd);
	if (connect(fd, (void *)&a.ss, a.len))
		fail_errno("connect to port %d", port);
	return fd;
}

struct pair pair_open_with(void (*prepare)(int fd))
{
	static uint64_t seed = 7;
	struct pair p;

	p.listener = listen_on(case_port, prepare);
	p.c = connect_to(sock_port(p.listener, false), prepare);
	p.s = accept4(p.listener, NULL, NULL, SOCK_CLOEXEC);
	if (p.s < 0)
		fail_errno("accept");
	p.up = (struct lane){ .from = p.c, .to = p.s, .seed = seed++ };
	p.down = (struct lane){ .from = p.s, .to = p.c, .seed = seed++ };
	return p;
}

struct pair pair_open(void)
{
	return pair_open_with(NULL);
}

void pair_close(struct pair *p)
{
	close(p->c);
	close(p->s);
	close(p->listener);
}

void warm_up(struct pair *p)
{
	step("warm-up");
	for (int i = 0; i < 4; i++) {
		lane_send(&p->up, 512);
		lane_recv(&p->up, 512);
		lane_send(&p->down, 512);
		lane_recv(&p->down, 512);
	}
}

void check_live(void)
{
	alarm(CASE_SECONDS);
	run_hook(case_name, case_check);
}

/* ---------------------------------------------------------------- lanes */

void lane_took(struct lane *l, const void *buf, size_t len)
{
	long bad = stream_verify(l->seed, l->got, buf, len);
	char text[256];

	if (bad >= 0) {
		stream_explain(text, sizeof(text), l->seed, l->got, buf, len, bad);
		fail("case %s, step '%s': wrong bytes: %s", case_name, case_step, text);
	}
	l->got += len;
}

ssize_t lane_try_send(struct lane *l, size_t len, int flags)
{
	static uint8_t buf[1 << 20];
	ssize_t n;

	stream_fill(l->seed, l->sent, buf, len);
	n = send(l->from, buf, len, flags | MSG_NOSIGNAL);
	if (n > 0)
		l->sent += n;
	return n;
}

ssize_t lane_try_recv(struct lane *l, size_t len, int flags)
{
	static uint8_t buf[1 << 20];
	ssize_t n = recv(l->to, buf, len, flags);
	uint64_t at = l->got;

	if (n > 0)
		lane_took(l, buf, n);
	if (flags & MSG_PEEK)
		l->got = at;
	return n;
}

void lane_send(struct lane *l, size_t len)
{
	ssize_t n;

	for (; len; len -= n) {
		n = lane_try_send(l, len < CHUNK ? len : CHUNK, 0);
		if (n <= 0)
			fail_errno("case %s, step '%s': send", case_name, case_step);
	}
}

void lane_recv(struct lane *l, size_t len)
{
	ssize_t n;

	for (; len; len -= n) {
		n = lane_try_recv(l, len < CHUNK ? len : CHUNK, 0);
		if (n < 0)
			fail_errno("case %s, step '%s': receive", case_name, case_step);
		EXPECT(n, "case %s, step '%s': the stream ended at %llu of %llu", case_name,
		       case_step, (unsigned long long)l->got, (unsigned long long)l->sent);
	}
}

void lane_drain(struct lane *l)
{
	lane_recv(l, l->sent - l->got);
}

void expect_eof(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, 0);

	if (n < 0)
		fail_errno("case %s, step '%s': end of stream", case_name, case_step);
	EXPECT(!n, "case %s, step '%s': a byte after the end", case_name, case_step);
}

void expect_reset(struct lane *l)
{
	ssize_t n = lane_try_recv(l, 1, 0);

	EXPECT(n < 0 && errno == ECONNRESET, "case %s: %s where a reset was sent", case_name,
	       n < 0 ? strerror(errno)
	       : n   ? "another byte"
		     : "a plain end");
}

int polled(int fd, int events, int ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, ms) > 0 ? p.revents : 0;
}

/* ---------------------------------------------------------------- main */

static const struct test_case *const all_cases[] = { flow_cases, option_cases, reader_cases,
						     end_cases, direct_cases };

static const struct test_case *find_case(const char *name)
{
	for (size_t i = 0; i < sizeof(all_cases) / sizeof(*all_cases); i++)
		for (const struct test_case *t = all_cases[i]; t->name; t++)
			if (!strcmp(t->name, name))
				return t;
	return NULL;
}

static _Noreturn void usage(void)
{
	fprintf(stderr, "usage: cases [--cgroup PATH] [--port N] [--check CMD] NAME\nnames:");
	for (size_t i = 0; i < sizeof(all_cases) / sizeof(*all_cases); i++)
		for (const struct test_case *t = all_cases[i]; t->name; t++)
			fprintf(stderr, " %s", t->name);
	fprintf(stderr, "\n");
	exit(EXIT_USAGE);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "cgroup", 1, NULL, 'g' },
		{ "port", 1, NULL, 'p' },
		{ "check", 1, NULL, 'k' },
		{ NULL, 0, NULL, 0 },
	};
	const struct test_case *t;
	const char *cgroup = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'g')
			cgroup = optarg;
		else if (c == 'p')
			case_port = atoi(optarg);
		else if (c == 'k')
			case_check = optarg;
		else
			usage();
	}
	if (optind != argc - 1 || !(t = find_case(argv[optind])))
		usage();
	case_name = t->name;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGALRM, on_alarm);
	alarm(CASE_SECONDS);
	if (cgroup)
		join_cgroup(cgroup);
	t->run();
	return EXIT_GOOD;
}
