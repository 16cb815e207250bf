/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What every test program here needs of the system: addresses, sockets, cgroups, namespaces, time,
 * hooks into the runner, and one way to fail.
 */
#ifndef NETNS_NET_H
#define NETNS_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* Exit statuses; everything else is a death by signal. */
enum {
	EXIT_GOOD = 0,
	EXIT_BAD = 1, /* wrong bytes, a hang, an unexpected error */
	EXIT_USAGE = 2,
	EXIT_GONE = 3, /* the peer ended early; every byte until then was right */
	EXIT_SKIP = 4, /* the kernel lacks what the test needs */
};

struct addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

_Noreturn void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail_errno(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void give_up(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

uint64_t now_ms(void);
void sleep_ms(unsigned int ms);
void *xalloc(size_t len);

/* Numeric addresses only: no name service is asked. */
void addr_parse(struct addr *a, const char *text, int port);
int addr_port(const struct addr *a);
void addr_set_port(struct addr *a, int port);
/* The port of this end (peer = false) or of the other. */
int sock_port(int fd, bool peer);

void set_int(int fd, int level, int name, int value, const char *what);
int get_int(int fd, int level, int name, const char *what);
void set_nonblock(int fd, bool on);

/* Join before the first socket is made: a socket belongs to the cgroup that made it. */
void join_cgroup(const char *path);
void join_netns(const char *path);

/* A command of the runner; @name tells it which point was reached. Fails when it fails. */
void run_hook(const char *name, const char *command);

#endif
