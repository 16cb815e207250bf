// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Cases about the ends of connections, and about sockets that live more than one. */
#define _GNU_SOURCE
#include "cases.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t pipe_signals;

static void on_pipe(int sig)
{
	(void)sig;
	pipe_signals++;
}

/* Nothing may be sent after shutdown(SHUT_WR); the other direction goes on. */
static void epipe(void)
{
	struct pair p = pair_open();

	signal(SIGPIPE, on_pipe);
	warm_up(&p);
	check_live();
	step("send after shutdown");
	lane_send(&p.up, 5000);
	shutdown(p.c, SHUT_WR);
	EXPECT(lane_try_send(&p.up, 10, 0) < 0 && errno == EPIPE,
	       "send after shutdown(SHUT_WR): %s", strerror(errno));
	EXPECT(write(p.c, "x", 1) < 0 && errno == EPIPE && pipe_signals == 1,
	       "write after shutdown(SHUT_WR) gives %d SIGPIPE", (int)pipe_signals);
	lane_drain(&p.up);
	expect_eof(p.s);
	step("the other direction");
	lane_send(&p.down, 100000);
	lane_drain(&p.down);
	shutdown(p.s, SHUT_WR);
	expect_eof(p.c);
	EXPECT(lane_try_send(&p.down, 10, 0) < 0 && errno == EPIPE, "send after both shut down");
	pair_close(&p);
}

/* Bytes sent before the reset are there, then the reset, then EPIPE. */
static void rst(void)
{
	struct linger l = { 1, 0 };
	struct pair p = pair_open();

	warm_up(&p);
	step("reset after data");
	lane_send(&p.up, 5000);
	polled(p.s, POLLIN, 2000);
	setsockopt(p.c, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(p.c);
	while (!(polled(p.s, POLLHUP, 0) & POLLHUP))
		sleep_ms(5);
	lane_drain(&p.up);
	expect_reset(&p.up);
	EXPECT(lane_try_send(&p.down, 10, 0) < 0 && errno == EPIPE, "send after a reset: %s",
	       strerror(errno));
	close(p.s);
	close(p.listener);
}

/* The reader goes with bytes unread: the writer notices at last, whatever way. */
static void close_unread(void)
{
	struct pair p = pair_open();
	ssize_t n = 0;

	warm_up(&p);
	step("writing to who is gone");
	lane_send(&p.up, 5000);
	close(p.s);
	for (int i = 0; i < 100 && n >= 0; i++) {
		n = lane_try_send(&p.up, 100, MSG_DONTWAIT);
		sleep_ms(5);
	}
	EXPECT(n < 0 && (errno == EPIPE || errno == ECONNRESET), "writing goes on: %s",
	       strerror(errno));
	close(p.c);
	close(p.listener);
}

/* The writer exits right after its last bytes: they arrive, then the end. */
static void last_words(void)
{
	struct pair p = pair_open();
	int status;
	pid_t pid;

	warm_up(&p);
	step("last words");
	pid = fork();
	if (!pid) {
		lane_send(&p.up, 200000);
		_exit(0);
	}
	close(p.c);
	p.up.sent += 200000;
	lane_drain(&p.up);
	expect_eof(p.s);
	waitpid(pid, &status, 0);
	EXPECT(!status, "the writer failed");
	close(p.s);
	close(p.listener);
}

/* close() with SO_LINGER waits at most so long and loses nothing. */
static void linger(void)
{
	struct linger l = { 1, 3 };
	struct pair p = pair_open();

	warm_up(&p);
	step("lingering close");
	setsockopt(p.c, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	lane_send(&p.up, 20000);
	close(p.c);
	lane_drain(&p.up);
	expect_eof(p.s);
	close(p.s);
	close(p.listener);
}

/* Closing the listener leaves accepted connections alone. */
static void no_listener(void)
{
	struct pair p = pair_open();

	close(p.listener);
	warm_up(&p);
	check_live();
	close(p.c);
	expect_eof(p.s);
	close(p.s);
}

/* A socket that connects to itself: its own offer comes back to it. */
static void self_connect(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct lane l = { .from = fd, .to = fd, .seed = 5 };
	struct addr a;

	addr_parse(&a, case_address, 0);
	if (bind(fd, (void *)&a.ss, a.len))
		fail_errno("bind");
	addr_set_port(&a, sock_port(fd, false));
	step("connecting to itself");
	if (connect(fd, (void *)&a.ss, a.len))
		fail_errno("connect to itself");
	for (int i = 0; i < 20; i++) {
		step("talking to itself");
		lane_send(&l, 10000);
		lane_drain(&l);
	}
	check_live();
	shutdown(fd, SHUT_WR);
	expect_eof(fd);
	close(fd);
}

static void talk(int c, int s, uint64_t seed)
{
	struct pair p = { .listener = -1, .c = c, .s = s };

	p.up = (struct lane){ .from = c, .to = s, .seed = seed };
	p.down = (struct lane){ .from = s, .to = c, .seed = seed + 1 };
	warm_up(&p);
	lane_send(&p.up, 50000);
	lane_drain(&p.up);
}

/* connect(AF_UNSPEC) ends a connection and the same socket makes another one. */
static void reconnect(void)
{
	struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	struct pair p = pair_open();
	struct addr a;
	int listener = listen_on(0, NULL), s2;

	warm_up(&p);
	for (int i = 0; i < 5; i++) {
		step("disconnecting");
		if (connect(p.c, &nowhere, sizeof(nowhere)))
			fail_errno("connect(AF_UNSPEC)");
		step("connecting again");
		addr_parse(&a, case_address, sock_port(listener, false));
		if (connect(p.c, (void *)&a.ss, a.len))
			fail_errno("the second connect");
		s2 = accept(listener, NULL, NULL);
		talk(p.c, s2, 50 + i);
		if (i == 4)
			check_live();
		close(s2);
	}
	close(listener);
	pair_close(&p);
}

/* Unread bytes of the first connection are not those of the second. */
static void reconnect_unread(void)
{
	struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	struct pair p = pair_open();
	struct addr a;
	int s2;

	warm_up(&p);
	step("disconnecting with bytes unread");
	lane_send(&p.down, 5000);
	polled(p.c, POLLIN, 2000);
	if (connect(p.c, &nowhere, sizeof(nowhere)))
		fail_errno("connect(AF_UNSPEC)");
	addr_parse(&a, case_address, sock_port(p.listener, false));
	if (connect(p.c, (void *)&a.ss, a.len))
		fail_errno("the second connect");
	s2 = accept(p.listener, NULL, NULL);
	step("the second connection");
	talk(p.c, s2, 90);
	close(s2);
	pair_close(&p);
}

/* The same socket becomes a listener after its connection. */
static void then_listen(void)
{
	struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	struct pair p = pair_open();
	struct addr a;
	int c, s;

	warm_up(&p);
	if (connect(p.c, &nowhere, sizeof(nowhere)))
		fail_errno("connect(AF_UNSPEC)");
	addr_parse(&a, case_address, 0);
	step("listening with a used socket");
	if (bind(p.c, (void *)&a.ss, a.len) || listen(p.c, 4))
		fail_errno("listen with a used socket");
	c = connect_to(sock_port(p.c, false), NULL);
	s = accept(p.c, NULL, NULL);
	talk(c, s, 70);
	check_live();
	close(c);
	close(s);
	pair_close(&p);
}

static void send_fd(int via, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	if (sendmsg(via, &msg, 0) != 1)
		fail_errno("passing a socket");
}

static int recv_fd(int via)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	int fd;

	if (recvmsg(via, &msg, 0) != 1)
		fail_errno("receiving a socket");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

/* A connected socket is handed to another process, which goes on with it. */
static void passed(void)
{
	struct pair p = pair_open();
	int via[2], status;
	pid_t pid;

	warm_up(&p);
	step("passing a socket");
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, via))
		fail_errno("socketpair");
	pid = fork();
	if (!pid) {
		close(p.c);
		p.up.from = p.down.to = recv_fd(via[0]);
		lane_send(&p.up, 100000);
		lane_recv(&p.down, 1000);
		_exit(0);
	}
	send_fd(via[1], p.c);
	lane_recv(&p.up, 100000);
	lane_send(&p.down, 1000);
	check_live();
	waitpid(pid, &status, 0);
	EXPECT(!status, "the other process failed");
	pair_close(&p);
}

const struct test_case end_cases[] = {
	{ "epipe", epipe },
	{ "rst", rst },
	{ "close_unread", close_unread },
	{ "last_words", last_words },
	{ "linger", linger },
	{ "no_listener", no_listener },
	{ "self_connect", self_connect },
	{ "reconnect", reconnect },
	{ "reconnect_unread", reconnect_unread },
	{ "then_listen", then_listen },
	{ "passed", passed },
	{ NULL, NULL },
};
