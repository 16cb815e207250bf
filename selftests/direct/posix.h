/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the conformance cases (case_*.c) are written with.
 *
 * A case has two roles, client and server, each a process of its own that may run under the shim or not;
 * they share one TCP connection over loopback and a control channel. Every expectation here describes
 * what Linux TCP does, and holds in each mode. Both roles have exchanged messages (warm-up) before the
 * case begins; where both are under the shim, their bytes then take rings.
 */
#ifndef DIRECT_POSIX_H
#define DIRECT_POSIX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#include "../ring/pattern.h"

/* One direction as this end sees it: which stream, and how many bytes so far. */
struct half {
	uint64_t seed, n;
};

/**
 * struct end - one role's end of the connection
 * @fd: the connection, -1 in a case with RAW until it makes one
 * @ctl: to the other role, not TCP; -1 in an end made by solo_pair()
 * @listener: of the server, kept open
 */
struct end {
	int fd, ctl, listener, port;
	bool server;
	int arg;
	struct half tx, rx;
};

enum {
	RAW = 1, /* the case makes its connections itself */
	SOLO = 2, /* only the client role, both ends in one process; not in one-sided modes */
	SERVER_DIES = 4, /* the server ends by SIGKILL */
	CLIENT_DIES = 8,
	IPV6 = 16,
	MAPPED = 32, /* a v4-mapped IPv6 socket on both sides */
};

/**
 * struct test - one case
 * @server: NULL where both roles do the same
 */
struct test {
	const char *name;
	void (*client)(struct end *e);
	void (*server)(struct end *e);
	unsigned int flags;
	int arg;
};

/* End the role: the case has failed, or (SKIP) cannot run on this kernel. */
_Noreturn void failed(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define FAIL(...) failed(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			FAIL("not true: %s (%s)", #cond, strerror(errno));                         \
	} while (0)
/* Numbers are equal; both are shown if not, and errno where a call may have failed. */
#define IS(got, want)                                                                              \
	do {                                                                                       \
		long long got_ = (got), want_ = (want);                                            \
		if (got_ != want_)                                                                 \
			FAIL("%s is %lld, expected %s = %lld (%s)", #got, got_, #want, want_,      \
			     got_ < 0 ? strerror(errno) : "-");                                    \
	} while (0)
/* A call fails with this errno. */
#define FAILS(call, err)                                                                           \
	do {                                                                                       \
		long long got_ = (call);                                                           \
		if (got_ >= 0)                                                                     \
			FAIL("%s is %lld, expected %s", #call, got_, #err);                        \
		if (errno != (err))                                                                \
			FAIL("%s fails with %s, expected %s", #call, strerror(errno), #err);       \
	} while (0)

/* ---------------------------------------------------------------- the two roles */

/* Both roles get here before one goes on. */
void meet(struct end *e);
void tell(struct end *e, int64_t value);
int64_t hear(struct end *e);
/* Has the other role said something within @ms? */
bool heard(struct end *e, int ms);
void send_fd(int sock, int fd);
int recv_fd(int sock);

/* ---------------------------------------------------------------- connections */

int listen_any(struct end *e, int family); /* on an ephemeral port, which it stores */
int listen_shared(struct end *e, int port); /* with SO_REUSEPORT; @port 0: as listen_any() */
void address(struct sockaddr_storage *a, socklen_t *len, int family, int port);
int connect_to(int fd, int port); /* as connect() returns */
int connect_port(int family, int port);
/* Both roles: a connection of their own, not warmed up. */
void conn_open(struct end *e, int family);
void conn_close(struct end *e);
/* Both roles: until the rings carry it, where there are rings. */
void warm_up(struct end *e);
/* A pair of ends in this process, warmed up or not. */
void solo_pair(struct end *a, struct end *b, bool warm);
/*
 * True when both sides run under the shim: then bytes must take rings. What is known to be different on
 * rings (docs/shim.rst) is said by cases with this: nothing is left out there.
 */
bool rings_expected(void);

/* ---------------------------------------------------------------- verified bytes */

void put(struct end *e, size_t len); /* all of it, blocking */
void get(struct end *e, size_t len);
/* One call; -1 and errno where it fails. */
ssize_t put1(struct end *e, size_t len, int flags);
ssize_t get1(struct end *e, size_t len, int flags);
/* @buf is what comes next, received in another way; or what the next bytes to send are. */
void took(struct end *e, const void *buf, size_t len);
void fill(struct end *e, void *buf, size_t len); /* counts them as sent */
void get_eof(struct end *e);
/* Everything until the end of the stream. */
void get_all(struct end *e);
/* A few messages both ways: the connection is alive and exact. One role calls, the other answers. */
void talk(struct end *e);
void answer(struct end *e);
/* talk() in the client, answer() in the server */
void chat(struct end *e);
/* Wait until this many bytes can be read. */
void arrived(int fd, int len);
int inq(int fd);

/* ---------------------------------------------------------------- small things */

int polled(int fd, int events, int ms); /* revents */
void nap(int ms);
uint64_t now_ms(void);
void nonblock(int fd, bool on);
void setint(int fd, int level, int name, int value);
int getint(int fd, int level, int name);
/* fork(); the child ends by done() */
pid_t child(void);
_Noreturn void done(void);
void reap(pid_t pid); /* it ended well */
void catch_signal(int sig, void (*handler)(int), int flags);
void disturb(
	struct end
		*e); /* SIGUSR1 to the process that it hears of, until it says that it is enough */
int tcp_state(int fd); /* TCP_ESTABLISHED and so on */
void allow_fds(unsigned int n); /* so many at least; skips the case where that is forbidden */
int open_fds(int below); /* how many descriptors there are below that number */

extern const struct test tests_stream[], tests_flags[], tests_iov[], tests_opts[], tests_close[],
	tests_kill[], tests_signal[], tests_fd[], tests_fork[], tests_exec[], tests_thread[],
	tests_epoll[], tests_edge[], tests_file[], tests_conn[], tests_vfork[], tests_await[],
	tests_local[], tests_fresh[], tests_shims[];

/* case_shims.c: goes on, and ends, where this process began before main(); returns otherwise */
void early_main(void);

/* role.c: run one role of one case; does not return */
_Noreturn void role_main(const struct test *t, bool server);
extern char **role_argv;
extern const char *test_name;

#endif
