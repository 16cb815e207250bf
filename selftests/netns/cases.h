/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One connection with both ends in this process, and lanes to send verified bytes along: what the
 * single cases (case_*.c) are written with.
 */
#ifndef NETNS_CASES_H
#define NETNS_CASES_H

#include "net.h"
#include "stream.h"

#include <sys/types.h>

/* One direction: what was sent and what of it was received. */
struct lane {
	int from, to;
	uint64_t seed, sent, got;
};

struct pair {
	int listener, c, s;
	struct lane up, down; /* client to server, server to client */
};

struct test_case {
	const char *name;
	void (*run)(void);
};

extern const char *const case_address;
extern const char *case_check; /* the runner's command for the live connection */

/* Where we are, for the message of a hang. */
void step(const char *what);

struct pair pair_open(void);
/* The same with options set on the listener and on the client before they connect. */
struct pair pair_open_with(void (*prepare)(int fd));
void pair_close(struct pair *p);
int listen_on(int port, void (*prepare)(int fd));
int connect_to(int port, void (*prepare)(int fd));

/* A few messages each way, read at once: from here on bytes may be redirected. */
void warm_up(struct pair *p);
/* The runner looks at the connection now. */
void check_live(void);

/* All of it, or fail; blocking. */
void lane_send(struct lane *l, size_t len);
void lane_recv(struct lane *l, size_t len);
/* One call with these flags: its result; sent and got follow. Wrong bytes fail. */
ssize_t lane_try_send(struct lane *l, size_t len, int flags);
ssize_t lane_try_recv(struct lane *l, size_t len, int flags);
/* Verify bytes that were received in another way. */
void lane_took(struct lane *l, const void *buf, size_t len);
/* Everything that is on its way. */
void lane_drain(struct lane *l);
void expect_eof(int fd);
void expect_reset(struct lane *l);
/* poll() result for these events after at most @ms. */
int polled(int fd, int events, int ms);

#define EXPECT(cond, ...)                                                                          \
	do {                                                                                       \
		if (!(cond))                                                                       \
			fail(__VA_ARGS__);                                                         \
	} while (0)

extern const struct test_case flow_cases[], option_cases[], reader_cases[], end_cases[],
	direct_cases[];

#endif
