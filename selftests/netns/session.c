// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The life of the connections at one side: make them, drive them, end them as asked. */
#define _GNU_SOURCE
#include "traffic.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef TCP_FASTOPEN_NO_COOKIE
#define TCP_FASTOPEN_NO_COOKIE 34
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCP_INQ
#define TCP_INQ 36
#endif

/* ---------------------------------------------------------------- socket options */

struct sockopt_name {
	const char *name;
	int level, option;
};

static const struct sockopt_name sockopt_names[] = {
	{ "sndbuf", SOL_SOCKET, SO_SNDBUF },
	{ "rcvbuf", SOL_SOCKET, SO_RCVBUF },
	{ "rcvlowat", SOL_SOCKET, SO_RCVLOWAT },
	{ "zerocopy", SOL_SOCKET, SO_ZEROCOPY },
	{ "pacing", SOL_SOCKET, SO_MAX_PACING_RATE },
	{ "oobinline", SOL_SOCKET, SO_OOBINLINE },
	{ "keepalive", SOL_SOCKET, SO_KEEPALIVE },
	{ "timestamp", SOL_SOCKET, SO_TIMESTAMP },
	{ "timestampns", SOL_SOCKET, SO_TIMESTAMPNS },
	{ "timestamping", SOL_SOCKET, SO_TIMESTAMPING },
	{ "nodelay", IPPROTO_TCP, TCP_NODELAY },
	{ "cork", IPPROTO_TCP, TCP_CORK },
	{ "inq", IPPROTO_TCP, TCP_INQ },
	{ "ulp", IPPROTO_TCP, TCP_ULP },
};

const struct sockopt_name *sockopt_find(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(sockopt_names) / sizeof(*sockopt_names); i++)
		if (strlen(sockopt_names[i].name) == len &&
		    !memcmp(sockopt_names[i].name, name, len))
			return &sockopt_names[i];
	return NULL;
}

static void apply_sockopts(int fd, int who, bool late)
{
	const struct side *s = &opt.side[who];

	if (opt.side[!who].send == SEND_OOB && !late)
		set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1, "SO_OOBINLINE");
	for (unsigned int i = 0; i < s->n_sockopt; i++) {
		const struct sockopt_name *o = s->sockopt[i].name;

		if (s->sockopt[i].late != late)
			continue;
		if (o->option == TCP_ULP && o->level == IPPROTO_TCP) {
			/* As TLS libraries do: try, and go on without when it is refused. */
			if (!setsockopt(fd, o->level, o->option, "tls", 3))
				give_up(EXIT_SKIP,
					"this kernel has kTLS: the stream would need keys");
			continue;
		}
		set_int(fd, o->level, o->option, s->sockopt[i].value, o->name);
	}
}

/* ---------------------------------------------------------------- making connections */

static uint64_t seed_of(int who, unsigned int index)
{
	return opt.seed * 1000003 + index * 2 + who;
}

/* The streams of connection @index as @who sees them. */
static void start_end(struct end *e, int fd, int who, unsigned int index)
{
	bool open_ended = opt.seconds && !opt.repeat;

	memset(e, 0, sizeof(*e));
	e->fd = fd;
	e->who = who;
	e->index = index;
	e->tx.seed = seed_of(who, index);
	e->rx.seed = seed_of(!who, index);
	e->tx.rng.state = opt.seed * 31 + e->tx.seed;
	e->rx.rng.state = opt.seed * 37 + e->tx.seed;
	e->tx.total = opt.rounds ? 0 : open_ended ? UINT64_MAX : opt.bytes[who];
	e->rx.total = opt.rounds ? 0 : open_ended ? UINT64_MAX : opt.bytes[!who];
	io_prepare(e);
}

/*
 * With several connections the client says which one this is, because neither port nor order of
 * arrival survives every path.
 */
static bool has_header(void)
{
	return opt.conns > 1 || opt.repeat;
}

static void put_header(int fd, unsigned int index)
{
	uint32_t header = htonl(index);

	if (send(fd, &header, sizeof(header), MSG_NOSIGNAL) != sizeof(header))
		fail_errno("connection %u: sending its number", index);
}

static unsigned int get_header(int fd)
{
	uint32_t header;
	size_t got = 0;
	ssize_t n;

	while (got < sizeof(header)) {
		n = recv(fd, (char *)&header + got, sizeof(header) - got, 0);
		if (n < 0)
			fail_errno("reading the number of a connection");
		if (!n)
			give_up(EXIT_GONE, "a connection ended before it said its number");
		got += n;
	}
	return ntohl(header);
}

static int make_socket(const struct addr *a, int who)
{
	int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC,
			opt.side[who].mptcp ? IPPROTO_MPTCP : 0);

	if (fd < 0 && opt.side[who].mptcp)
		give_up(EXIT_SKIP, "no MPTCP here");
	if (fd < 0)
		fail_errno("socket");
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
	apply_sockopts(fd, who, false);
	return fd;
}

static int make_listener(void)
{
	struct addr a;
	int fd, zero = 0;

	addr_parse(&a, opt.listen, opt.port);
	fd = make_socket(&a, SERVER);
	if (a.ss.ss_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)))
		fail_errno("IPV6_V6ONLY");
	if (bind(fd, (void *)&a.ss, a.len))
		fail_errno("bind %s port %d", opt.listen, addr_port(&a));
	if (opt.tfo)
		set_int(fd, IPPROTO_TCP, TCP_FASTOPEN, 128, "TCP_FASTOPEN");
	if (opt.tfo_no_cookie)
		set_int(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1, "TCP_FASTOPEN_NO_COOKIE");
	if (opt.defer)
		set_int(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, opt.defer, "TCP_DEFER_ACCEPT");
	if (listen(fd, 256))
		fail_errno("listen");
	return fd;
}

/* connect(), or the first bytes of the stream inside the SYN. */
static void fast_open(struct end *e, const struct addr *a)
{
	size_t len = e->tx.total < 700 ? e->tx.total : 700;
	ssize_t n;

	if (opt.tfo_no_cookie)
		set_int(e->fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1, "TCP_FASTOPEN_NO_COOKIE");
	stream_fill(e->tx.seed, 0, e->tx.buf, len);
	n = sendto(e->fd, e->tx.buf, len, MSG_FASTOPEN | MSG_NOSIGNAL, (void *)&a->ss, a->len);
	if (n <= 0)
		fail_errno("sendto(MSG_FASTOPEN)");
	e->tx.pos = n;
}

static void connect_one(struct end *e, unsigned int index)
{
	struct addr a, from;
	int fd;

	/* Another one than the server listens on where addresses are translated. */
	addr_parse(&a, opt.connect,
		   opt.connect_port ? (int)opt.connect_port
		   : opt.port	    ? (int)opt.port
				    : shared->port);
	fd = make_socket(&a, CLIENT);
	if (opt.bind_port) {
		addr_parse(&from, a.ss.ss_family == AF_INET ? "0.0.0.0" : "::", opt.bind_port);
		if (bind(fd, (void *)&from.ss, from.len))
			fail_errno("bind port %d", addr_port(&from));
	}
	start_end(e, fd, CLIENT, index);
	if (opt.tfo || opt.tfo_no_cookie)
		fast_open(e, &a);
	else if (connect(fd, (void *)&a.ss, a.len))
		fail_errno("connect to %s port %d", opt.connect, addr_port(&a));
	apply_sockopts(fd, CLIENT, true);
	if (has_header())
		put_header(fd, index);
}

static void accept_one(int listener, struct end *e)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		fail_errno("accept");
	apply_sockopts(fd, SERVER, true);
	start_end(e, fd, SERVER, has_header() ? get_header(fd) : 0);
	shared->extra[own]++;
}

/* ---------------------------------------------------------------- ending them */

static void add_tail(struct dir *d)
{
	d->total += opt.tail;
	d->finished = false;
}

static void send_tail(struct end *e)
{
	add_tail(&e->tx);
	while (!tx_finished(e))
		tx_step(e);
}

static void expect_eof(struct end *e, const char *after)
{
	ssize_t n;

	e->rx.total = UINT64_MAX;
	n = read_verified(e, 1);
	if (n > 0)
		fail("a byte too many after %s, at position %llu", after,
		     (unsigned long long)e->rx.pos);
	if (n < 0)
		fail_errno("end of stream after %s", after);
}

static void drain_to_eof(struct end *e, uint64_t expected)
{
	ssize_t n;

	while ((n = read_verified(e, 65536)) > 0)
		;
	if (n < 0)
		fail_errno("connection %u: end of stream at %llu", e->index,
			   (unsigned long long)e->rx.pos);
	if (e->rx.pos != expected)
		fail("connection %u: the stream ended at %llu, not at %llu", e->index,
		     (unsigned long long)e->rx.pos, (unsigned long long)expected);
}

static void close_end(struct end *e, bool reset)
{
	struct linger l = { .l_onoff = 1, .l_linger = 0 };

	if (reset && setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)))
		fail_errno("SO_LINGER");
	if (close(e->fd))
		fail_errno("close");
	e->fd = -1;
}

/* The server closed without reading: on TCP a reset, with redirected bytes a plain end. */
static void expect_any_end(struct end *e)
{
	ssize_t n = read_verified(e, 1);

	if (n > 0)
		fail("bytes from a server that had nothing to say");
	if (n < 0 && errno != ECONNRESET)
		fail_errno("end of a connection closed with unread bytes");
}

static void end_client(struct end *e)
{
	switch (opt.end) {
	case END_CLOSE:
		if (shutdown(e->fd, SHUT_WR))
			fail_errno("shutdown");
		expect_eof(e, "the server's stream");
		break;
	case END_HALF:
		if (shutdown(e->fd, SHUT_WR))
			fail_errno("shutdown");
		drain_to_eof(e, e->rx.pos + opt.tail);
		break;
	case END_RST:
		send_tail(e);
		break;
	case END_UNREAD:
		e->peer_may_end = true;
		send_tail(e);
		shared->extra[own]++;
		expect_any_end(e);
		break;
	}
	close_end(e, opt.end == END_RST);
}

/* Whatever arrives before the reset is a prefix of the tail. */
static void read_to_reset(struct end *e)
{
	ssize_t n;

	while ((n = read_verified(e, 65536)) > 0)
		;
	if (!n)
		fail("a plain end of stream where the client sent a reset");
	if (errno != ECONNRESET)
		fail_errno("reading up to a reset");
}

static void end_server(struct end *e)
{
	switch (opt.end) {
	case END_CLOSE:
		expect_eof(e, "the client's stream");
		break;
	case END_HALF:
		expect_eof(e, "the client's stream");
		send_tail(e);
		break;
	case END_RST:
		e->rx.total = UINT64_MAX;
		read_to_reset(e);
		break;
	case END_UNREAD:
		/* At least some of the tail lies there unread. */
		poll(&(struct pollfd){ .fd = e->fd, .events = POLLIN }, 1, 5000);
		sleep_ms(20);
		break;
	}
	close_end(e, false);
}

/* Open-ended streams have ended with a FIN; only the two processes together know the length. */
static void end_open(struct end *e)
{
	const struct end *other = &shared->ends[!e->who][e->index % MAX_CONNS];

	if (e->rx.pos != other->tx.pos)
		fail("connection %u: the stream ended at %llu, the peer sent %llu", e->index,
		     (unsigned long long)e->rx.pos, (unsigned long long)other->tx.pos);
	close_end(e, false);
}

/* ---------------------------------------------------------------- a round of connections */

static void hook(const char *name, const char *command)
{
	shared->hook = 1;
	run_hook(name, command);
	shared->hook = 0;
}

/* Both sides have verified everything; only a pair can know. */
static void meet(unsigned int round)
{
	shared->round[own] = round;
	while (paired && shared->round[!own] < round)
		sleep_ms(1);
}

static void report(const struct end *ends, unsigned int n)
{
	unsigned int shorts = 0, eagains = 0;
	uint64_t rx = 0, tx = 0;

	for (unsigned int i = 0; i < n; i++) {
		shorts += ends[i].rx.shorts;
		eagains += ends[i].rx.eagains;
		rx += ends[i].rx.pos;
		tx += ends[i].tx.pos;
	}
	printf("%s: %u connections, sent %llu, verified %llu%s\n",
	       own == CLIENT ? "client" : "server", n, (unsigned long long)tx,
	       (unsigned long long)rx, opt.repeat ? " (last round)" : "");
	if (shorts || eagains)
		printf("%u short receives, %u EAGAIN of blocking ones\n", shorts, eagains);
	fflush(stdout);
}

static void run_round(struct end *ends, unsigned int round)
{
	if (opt.rounds)
		engine_rounds(ends, opt.conns);
	else
		engine_run(ends, opt.conns);
	for (unsigned int i = 0; i < opt.conns; i++)
		if (opt.side[own].send == SEND_ZEROCOPY)
			zerocopy_settle(&ends[i]);
	meet(2 * round + 1);
	if (own == CLIENT)
		hook("verified", opt.hook_verified);
	meet(2 * round + 2);
	for (unsigned int i = 0; i < opt.conns; i++) {
		if (opt.seconds && !opt.repeat)
			end_open(&ends[i]);
		else if (own == CLIENT)
			end_client(&ends[i]);
		else
			end_server(&ends[i]);
		io_release(&ends[i]);
		shared->extra[own]++;
	}
}

static int by_index(const void *a, const void *b)
{
	const struct end *x = a, *y = b;

	return (x->index > y->index) - (x->index < y->index);
}

/* False when the client has finished instead of coming back. */
static bool wait_for_client(int listener)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };

	while (poll(&p, 1, 20) <= 0) {
		if (shared->client_done || (!paired && shared->stop))
			return poll(&p, 1, 0) > 0;
		if (!paired && opt.repeat)
			shared->extra[own]++; /* idle is not late */
	}
	return true;
}

int session_server(void)
{
	struct end *ends = shared->ends[SERVER];
	int listener = make_listener();
	unsigned int round = 0;

	shared->port = sock_port(listener, false);
	if (!paired) {
		printf("port %d\n", shared->port);
		fflush(stdout);
	}
	while (wait_for_client(listener)) {
		sleep_ms(opt.accept_delay);
		for (unsigned int i = 0; i < opt.conns; i++)
			accept_one(listener, &ends[i]);
		qsort(ends, opt.conns, sizeof(*ends), by_index);
		run_round(ends, round++);
		if (!opt.repeat)
			break;
	}
	report(ends, opt.conns);
	return EXIT_GOOD;
}

int session_client(void)
{
	struct end *ends = shared->ends[CLIENT];
	uint64_t until = now_ms() + opt.seconds * 1000;
	unsigned int round = 0;

	hook("listen", opt.hook_listen);
	do {
		for (unsigned int i = 0; i < opt.conns; i++)
			connect_one(&ends[i], round * opt.conns + i);
		hook("connected", opt.hook_connected);
		run_round(ends, round++);
	} while (opt.repeat && !shared->stop && now_ms() < until);
	report(ends, opt.conns);
	shared->client_done = 1;
	return EXIT_GOOD;
}
