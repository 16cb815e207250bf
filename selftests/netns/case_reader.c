// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Cases about readers: every way to wait for bytes must be served, and none may wait for ever. */
#define _GNU_SOURCE
#include "cases.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

/* A reader in a thread of its own that is asleep in its call before anything is sent. */
static pthread_t reader(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, arg))
		fail("cannot start a thread");
	sleep_ms(50);
	return t;
}

/* ---------------------------------------------------------------- MSG_WAITALL */

static void *read_waitall(void *arg)
{
	struct lane *l = arg;
	static uint8_t buf[10000];
	ssize_t n = recv(l->to, buf, sizeof(buf), MSG_WAITALL);

	EXPECT(n == sizeof(buf), "MSG_WAITALL for %zu bytes gave %zd", sizeof(buf), n);
	lane_took(l, buf, n);
	return NULL;
}

/* @first bytes lie there when the reader comes, the rest comes in ten pieces. */
static void waitall_after(size_t first, bool warm)
{
	struct pair p = pair_open();
	pthread_t t;

	if (warm)
		warm_up(&p);
	for (int round = 0; round < 3; round++) {
		step("MSG_WAITALL");
		if (first)
			lane_send(&p.up, first);
		t = reader(read_waitall, &p.up);
		for (int i = 0; i < 10; i++) {
			lane_send(&p.up, (10000 - first) / 10);
			sleep_ms(5);
		}
		pthread_join(t, NULL);
	}
	warm_up(&p);
	check_live();
	pair_close(&p);
}

static void waitall(void)
{
	waitall_after(0, false);
}

static void waitall_warm(void)
{
	waitall_after(0, true);
}

/* Some bytes lie there already: redirected ones cannot be taken back. */
static void waitall_part(void)
{
	waitall_after(1000, true);
}

/* Never a hang: everything, the end, or at least what there is. */
static void waitall_end(void)
{
	struct pair p = pair_open();
	ssize_t n;

	warm_up(&p);
	step("MSG_WAITALL until the end");
	lane_send(&p.up, 3000);
	shutdown(p.c, SHUT_WR);
	while ((n = lane_try_recv(&p.up, 10000, MSG_WAITALL)) > 0)
		;
	EXPECT(!n && p.up.got == p.up.sent, "the stream ended at %llu of %llu (%s)",
	       (unsigned long long)p.up.got, (unsigned long long)p.up.sent, strerror(errno));
	pair_close(&p);
}

/* ---------------------------------------------------------------- splice */

static void splice_some(struct lane *l, const int *fds, size_t len)
{
	uint8_t buf[65536];

	while (len) {
		ssize_t n = splice(l->to, NULL, fds[1], NULL, len < 65536 ? len : 65536, 0);

		if (n <= 0)
			fail("splice from the socket: %s", n ? strerror(errno) : "end");
		EXPECT(read(fds[0], buf, n) == n, "read from the pipe");
		lane_took(l, buf, n);
		len -= n;
	}
}

static void *read_splice(void *arg)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		fail_errno("pipe");
	splice_some(arg, fds, 50000);
	close(fds[0]);
	close(fds[1]);
	return NULL;
}

static void splice_blocking(bool warm)
{
	struct pair p = pair_open();
	pthread_t t;

	if (warm)
		warm_up(&p);
	for (int round = 0; round < 3; round++) {
		step("a reader in splice");
		t = reader(read_splice, &p.up);
		for (int i = 0; i < 50; i++) {
			lane_send(&p.up, 1000);
			sleep_ms(1);
		}
		pthread_join(t, NULL);
		lane_send(&p.down, 1000);
		lane_drain(&p.down);
	}
	check_live();
	pair_close(&p);
}

static void splice_cold(void)
{
	splice_blocking(false);
}

static void splice_warm(void)
{
	splice_blocking(true);
}

/* As Go's io.Copy: poll says readable, then splice must find bytes. */
static void splice_polled(void)
{
	struct pair p = pair_open();
	uint8_t buf[65536];
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		fail_errno("pipe");
	for (int i = 0; i < 20; i++) {
		step("poll, then splice");
		lane_send(&p.up, 1000);
		while (p.up.got < p.up.sent) {
			ssize_t n;

			EXPECT(polled(p.s, POLLIN, 5000) & POLLIN, "nothing to read");
			n = splice(p.s, NULL, fds[1], NULL, 65536, SPLICE_F_NONBLOCK);
			EXPECT(n > 0, "poll says readable, splice says %s",
			       n ? strerror(errno) : "end");
			EXPECT(read(fds[0], buf, n) == n, "read from the pipe");
			lane_took(&p.up, buf, n);
		}
		lane_send(&p.down, 100);
		lane_drain(&p.down);
	}
	check_live();
	pair_close(&p);
}

/* ---------------------------------------------------------------- readers asleep */

static void *read_one(void *arg)
{
	struct lane *l = arg;

	EXPECT(lane_try_recv(l, 1000, 0) > 0, "the reader woke without bytes");
	return NULL;
}

/* A reader asleep in recv() before the first byte, before each next one, and at the end. */
static void wakes(void)
{
	struct pair p = pair_open();
	pthread_t t;

	for (int i = 0; i < 10; i++) {
		struct lane *l = i & 1 ? &p.down : &p.up;

		step("waking a reader");
		t = reader(read_one, l);
		lane_send(l, 10);
		pthread_join(t, NULL);
	}
	check_live();
	pair_close(&p);
}

static void *read_eof(void *arg)
{
	expect_eof(((struct lane *)arg)->to);
	return NULL;
}

static void eof_wakes(void)
{
	struct pair p = pair_open();
	pthread_t t;

	warm_up(&p);
	step("waking a reader by the end");
	t = reader(read_eof, &p.up);
	shutdown(p.c, SHUT_WR);
	pthread_join(t, NULL);
	pair_close(&p);
}

static void no_op(int sig)
{
	(void)sig;
}

/* What a reader asleep in recv() got. */
struct sleeper {
	struct lane *lane;
	pthread_t thread;
	ssize_t n;
	int err;
};

static void *sleep_in_recv(void *arg)
{
	struct sleeper *s = arg;

	s->n = lane_try_recv(s->lane, 1000, 0);
	s->err = errno;
	return NULL;
}

static void start_sleeper(struct sleeper *s, struct lane *l)
{
	s->lane = l;
	s->n = 0;
	s->thread = reader(sleep_in_recv, s);
}

static void expect_slept(struct sleeper *s, const char *through)
{
	pthread_join(s->thread, NULL);
	EXPECT(s->n > 0, "a blocking recv returns %zd (%s) because of %s", s->n,
	       s->n < 0 ? strerror(s->err) : "end", through);
}

/* Signals and time limits end a wait as they should, and no byte is lost by it. */
static void interrupted(void)
{
	struct sigaction sa = { .sa_handler = no_op };
	struct timeval brief = { 0, 100000 };
	struct pair p = pair_open();
	struct sleeper s;

	sigaction(SIGUSR1, &sa, NULL);
	warm_up(&p);
	step("a signal while waiting");
	start_sleeper(&s, &p.up);
	pthread_kill(s.thread, SIGUSR1);
	pthread_join(s.thread, NULL);
	EXPECT(s.n < 0 && s.err == EINTR, "recv after a signal: %zd (%s), not EINTR", s.n,
	       strerror(s.err));
	step("SO_RCVTIMEO");
	setsockopt(p.s, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief));
	EXPECT(lane_try_recv(&p.up, 1, 0) < 0 && errno == EAGAIN, "SO_RCVTIMEO does not end recv");
	EXPECT(lane_try_recv(&p.up, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN,
	       "MSG_DONTWAIT waits or finds something");
	brief.tv_usec = 0;
	setsockopt(p.s, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief));
	warm_up(&p);
	check_live();
	pair_close(&p);
}

/* With SA_RESTART the caller does not notice the signal. */
static void restarted(void)
{
	struct sigaction sa = { .sa_handler = no_op, .sa_flags = SA_RESTART };
	struct pair p = pair_open();
	struct sleeper s;

	sigaction(SIGUSR1, &sa, NULL);
	warm_up(&p);
	step("a restarted recv");
	start_sleeper(&s, &p.up);
	pthread_kill(s.thread, SIGUSR1);
	sleep_ms(50);
	lane_send(&p.up, 10);
	expect_slept(&s, "a signal with SA_RESTART");
	check_live();
	pair_close(&p);
}

/* The own FIN is acknowledged while recv() sleeps: as after shutdown() in every HTTP or nc client. */
static void wait_after_fin(void)
{
	struct pair p = pair_open();
	struct sleeper s;

	warm_up(&p);
	step("recv while the own FIN is acknowledged");
	shutdown(p.c, SHUT_WR);
	start_sleeper(&s, &p.down);
	sleep_ms(100);
	lane_send(&p.down, 10);
	expect_slept(&s, "the ACK of the own FIN");
	pair_close(&p);
}

/* The send side becomes writable while recv() sleeps in another thread. */
static void wait_while_writing(void)
{
	struct pair p = pair_open();
	struct sleeper s;

	warm_up(&p);
	step("recv while the send side moves");
	start_sleeper(&s, &p.down);
	while (lane_try_send(&p.up, 65536, MSG_DONTWAIT) > 0)
		;
	sleep_ms(50);
	lane_drain(&p.up);
	sleep_ms(50);
	lane_send(&p.down, 10);
	expect_slept(&s, "room in the send buffer");
	check_live();
	pair_close(&p);
}

/* ---------------------------------------------------------------- events */

static int edges(int ep, int ms)
{
	struct epoll_event ev = {};

	return epoll_wait(ep, &ev, 1, ms) == 1 ? (int)ev.events : 0;
}

/* Every arrival is an edge, read or not; no arrival is none; the end is one. */
static void edge_events(void)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET };
	struct pair p = pair_open();
	int ep = epoll_create1(EPOLL_CLOEXEC);

	epoll_ctl(ep, EPOLL_CTL_ADD, p.s, &ev);
	for (int i = 0; i < 5; i++) {
		step("an edge for each arrival");
		lane_send(&p.up, 10);
		EXPECT(edges(ep, 2000) & EPOLLIN, "no edge for the first arrival");
		EXPECT(!edges(ep, 20), "an edge out of nothing");
		lane_send(&p.up, 10);
		EXPECT(edges(ep, 2000) & EPOLLIN, "no edge for an arrival beside unread bytes");
		lane_drain(&p.up);
		lane_send(&p.down, 10);
		lane_drain(&p.down);
	}
	check_live();
	lane_send(&p.up, 10);
	shutdown(p.c, SHUT_WR);
	EXPECT(edges(ep, 2000) & EPOLLIN, "no edge for the last bytes");
	for (int i = 0; i < 100 && !(polled(p.s, POLLRDHUP, 0) & POLLRDHUP); i++)
		sleep_ms(10);
	EXPECT(polled(p.s, POLLIN | POLLRDHUP, 0) == (POLLIN | POLLRDHUP),
	       "bytes and the end, but not POLLIN and POLLRDHUP");
	lane_drain(&p.up);
	expect_eof(p.s);
	close(ep);
	pair_close(&p);
}

/* ---------------------------------------------------------------- peeking, skipping */

static void peek(void)
{
	struct pair p = pair_open();

	warm_up(&p);
	step("MSG_PEEK");
	for (int i = 0; i < 10; i++) {
		ssize_t a, b;

		lane_send(&p.up, 300);
		a = lane_try_recv(&p.up, 100, MSG_PEEK);
		b = lane_try_recv(&p.up, 1000, MSG_PEEK);
		EXPECT(a == 100 && b >= 100, "peeked %zd and %zd", a, b);
		lane_send(&p.up, 300);
		lane_try_recv(&p.up, 50, 0);
		lane_try_recv(&p.up, 1000, MSG_PEEK);
		lane_drain(&p.up);
	}
	check_live();
	pair_close(&p);
}

/* recv(NULL, n, MSG_TRUNC) throws bytes away. */
static void skip(void)
{
	struct pair p = pair_open();
	ssize_t n;

	warm_up(&p);
	step("MSG_TRUNC");
	lane_send(&p.up, 1000);
	polled(p.s, POLLIN, 2000);
	n = recv(p.s, NULL, 600, MSG_TRUNC);
	EXPECT(n == 600, "skipping 600 bytes gives %zd (%s)", n, n < 0 ? strerror(errno) : "");
	p.up.got += n;
	lane_drain(&p.up);
	check_live();
	pair_close(&p);
}

/* ---------------------------------------------------------------- several at one socket */

#define MESSAGES 200
#define MESSAGE	 256

struct message {
	uint32_t writer, number;
	uint8_t rest[MESSAGE - 8];
};

struct writer {
	int fd;
	uint32_t id;
};

static void *write_messages(void *arg)
{
	struct writer *w = arg;
	struct message m = { .writer = w->id };

	for (m.number = 0; m.number < MESSAGES; m.number++) {
		memset(m.rest, w->id + m.number, sizeof(m.rest));
		EXPECT(send(w->fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m), "send: %s",
		       strerror(errno));
	}
	return NULL;
}

static void check_message(const struct message *m, uint32_t *next)
{
	EXPECT(m->writer < 2 && m->number == next[m->writer],
	       "message %u of writer %u where %u was due", m->number, m->writer,
	       m->writer < 2 ? next[m->writer] : 0);
	for (size_t i = 0; i < sizeof(m->rest); i++)
		EXPECT(m->rest[i] == (uint8_t)(m->writer + m->number), "a torn message");
	next[m->writer]++;
}

/* Two threads send on one socket: whole messages, each thread's in order. */
static void two_writers(void)
{
	struct pair p = pair_open();
	struct writer w[2] = { { p.c, 0 }, { p.c, 1 } };
	uint32_t next[2] = { 0, 0 };
	struct message m;
	pthread_t t[2];

	warm_up(&p);
	step("two writers");
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, write_messages, &w[i]);
	for (int i = 0; i < 2 * MESSAGES; i++) {
		for (size_t got = 0; got < sizeof(m);) {
			ssize_t n = recv(p.s, (char *)&m + got, sizeof(m) - got, 0);

			EXPECT(n > 0, "recv: %s", n ? strerror(errno) : "end");
			got += n;
		}
		check_message(&m, next);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	check_live();
	pair_close(&p);
}

static void *count_bytes(void *arg)
{
	int fd = *(int *)arg;
	uint8_t buf[64];
	size_t sum = 0;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		sum += n;
	return (void *)sum;
}

/* Two threads sleep in recv() on one socket: both are served, none sleeps on at the end. */
static void two_readers(void)
{
	struct pair p = pair_open();
	size_t sum = 0;
	pthread_t t[2];
	void *part;

	warm_up(&p);
	step("two readers");
	t[0] = reader(count_bytes, &p.s);
	t[1] = reader(count_bytes, &p.s);
	for (int i = 0; i < 500; i++)
		EXPECT(send(p.c, "12345678", 8, MSG_NOSIGNAL) == 8, "send: %s", strerror(errno));
	check_live();
	shutdown(p.c, SHUT_WR);
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i], &part);
		sum += (size_t)part;
	}
	EXPECT(sum == 4000, "two readers got %zu of 4000 bytes", sum);
	pair_close(&p);
}

const struct test_case reader_cases[] = {
	{ "waitall", waitall },
	{ "waitall_warm", waitall_warm },
	{ "waitall_part", waitall_part },
	{ "waitall_end", waitall_end },
	{ "splice_cold", splice_cold },
	{ "splice_warm", splice_warm },
	{ "splice_polled", splice_polled },
	{ "wakes", wakes },
	{ "eof_wakes", eof_wakes },
	{ "interrupted", interrupted },
	{ "restarted", restarted },
	{ "wait_after_fin", wait_after_fin },
	{ "wait_while_writing", wait_while_writing },
	{ "edge_events", edge_events },
	{ "peek", peek },
	{ "skip", skip },
	{ "two_writers", two_writers },
	{ "two_readers", two_readers },
	{ NULL, NULL },
};
