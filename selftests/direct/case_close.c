// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The ends of connections: half-close, close, reset, and what the other side sees of them in which order. */
#include "posix.h"

static volatile sig_atomic_t signals;

static void count(int sig)
{
	(void)sig;
	signals++;
}

static void abort_conn(struct end *e)
{
	struct linger l = { 1, 0 };

	IS(setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	conn_close(e);
}

/* ---------------------------------------------------------------- half-close */

/* Who has shut down still receives; @arg: which role shuts down first. */
static void half_close(struct end *e)
{
	if (e->server == e->arg) {
		put(e, 100000);
		IS(shutdown(e->fd, SHUT_WR), 0);
		FAILS(put1(e, 1, 0), EPIPE);
		get_all(e);
		IS(e->rx.n, 2000000);
	} else {
		get_all(e);
		IS(e->rx.n, 100000);
		get_eof(e);
		for (int i = 0; i < 20; i++)
			put(e, 100000);
		conn_close(e);
	}
}

/* The same with nothing sent before: the end alone wakes a reader. */
static void half_close_empty(struct end *e)
{
	if (e->server) {
		nap(60);
		IS(shutdown(e->fd, SHUT_WR), 0);
		get(e, 1000);
		get_eof(e);
		return;
	}
	get_eof(e);
	get_eof(e);
	IS(polled(e->fd, POLLIN | POLLRDHUP, 0), POLLIN | POLLRDHUP);
	put(e, 1000);
	conn_close(e);
}

/* What poll() says at each step. */
static void poll_states(struct end *e)
{
	int all = POLLIN | POLLOUT | POLLRDHUP | POLLPRI;

	IS(polled(e->fd, all, 0), POLLOUT);
	meet(e);
	if (e->server) {
		IS(shutdown(e->fd, SHUT_WR), 0);
		IS(polled(e->fd, all, 0), POLLOUT);
	}
	meet(e);
	if (!e->server) {
		IS(polled(e->fd, POLLIN, 10000), POLLIN);
		IS(polled(e->fd, all, 0), POLLIN | POLLOUT | POLLRDHUP);
		get_eof(e);
		IS(polled(e->fd, all, 0), POLLIN | POLLOUT | POLLRDHUP);
		IS(shutdown(e->fd, SHUT_WR), 0);
		IS(polled(e->fd, all, 0), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
	}
	meet(e);
	if (e->server) {
		IS(polled(e->fd, POLLIN, 10000) & POLLIN, POLLIN);
		IS(polled(e->fd, all, 0), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
		get_eof(e);
	}
}

static void shut_rd_client(struct end *e)
{
	IS(shutdown(e->fd, SHUT_RD), 0);
	IS(polled(e->fd, POLLIN | POLLRDHUP, 0), POLLIN | POLLRDHUP);
	get_eof(e);
	get_eof(e);
	tell(e, 0);
	hear(e);
	/* the partner was not told, and what it sends can be read */
	arrived(e->fd, 100);
	IS(get1(e, 500, 0), 100);
	get_eof(e);
	put(e, 200);
	conn_close(e);
}

static void shut_rd_server(struct end *e)
{
	hear(e);
	put(e, 100);
	tell(e, 0);
	get(e, 200);
	get_eof(e);
}

/* With unread bytes: they stay readable. */
static void shut_rd_unread(struct end *e)
{
	if (e->server) {
		put(e, 5000);
		meet(e);
		get(e, 10);
		return;
	}
	arrived(e->fd, 5000);
	IS(shutdown(e->fd, SHUT_RD), 0);
	get(e, 5000);
	get_eof(e);
	put(e, 10);
	meet(e);
}

static void shutdown_errors(struct end *e)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	FAILS(shutdown(fd, SHUT_RD), ENOTCONN);
	FAILS(shutdown(e->fd, 7), EINVAL);
	chat(e);
	meet(e);
	for (int i = 0; i < 2 && !e->server; i++)
		IS(shutdown(e->fd, SHUT_WR), 0);
	meet(e);
	if (e->server)
		IS(shutdown(e->fd, SHUT_WR), 0);
	get_eof(e);
	meet(e);
	FAILS(shutdown(e->fd, SHUT_RDWR), ENOTCONN); /* both ends have closed */
}

static void shut_both(struct end *e)
{
	if (e->server) {
		put(e, 1000);
		IS(shutdown(e->fd, SHUT_RDWR), 0);
		get_eof(e);
		FAILS(put1(e, 1, 0), EPIPE);
		meet(e);
		return;
	}
	get(e, 1000);
	get_eof(e);
	meet(e);
}

/* ---------------------------------------------------------------- close */

/* A writer that is gone: everything is still delivered. @arg: how it goes. */
static void writer_leaves(struct end *e)
{
	if (!e->server) {
		int64_t sent = hear(e);

		nap(100);
		get_all(e);
		IS(e->rx.n, sent);
		return;
	}
	while (e->tx.n < 900000 && put1(e, 10000, MSG_DONTWAIT) > 0)
		;
	CHECK(e->tx.n >= 50000);
	tell(e, e->tx.n);
	switch (e->arg) {
	case 0:
		conn_close(e);
		break;
	case 1:
		exit(0);
	case 2:
		_exit(0);
	case 3:
		shutdown(e->fd, SHUT_WR);
		get_eof(e);
		break;
	case 4:
		kill(getpid(), SIGKILL);
	}
}

static void eof_again(struct end *e)
{
	if (e->server) {
		put(e, 10);
		conn_close(e);
		meet(e);
		return;
	}
	get(e, 10);
	for (int i = 0; i < 5; i++) {
		get_eof(e);
		IS(polled(e->fd, POLLIN, 0), POLLIN);
	}
	nonblock(e->fd, true);
	get_eof(e);
	IS(inq(e->fd), 0);
	meet(e);
}

/* Both ends close at once, with nothing unread. */
static void close_both(struct end *e)
{
	chat(e);
	meet(e);
	conn_close(e);
	conn_open(e, AF_INET);
	chat(e);
}

/* Unread bytes at close are a reset for the partner. */
static void close_unread_client(struct end *e)
{
	put(e, 1000);
	tell(e, 0);
	hear(e);
	CHECK(polled(e->fd, POLLIN, 10000) & POLLIN);
	if (e->arg) {
		signal(SIGPIPE, count);
		FAILS(send(e->fd, "x", 1, 0), ECONNRESET);
		IS(signals, 0);
		FAILS(send(e->fd, "x", 1, 0), EPIPE);
		IS(signals, 1);
		get_eof(e);
		return;
	}
	IS(polled(e->fd, POLLIN | POLLOUT | POLLRDHUP, 0),
	   POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP);
	FAILS(get1(e, 10, 0), ECONNRESET);
	get_eof(e);
	FAILS(put1(e, 1, 0), EPIPE);
}

static void close_unread_server(struct end *e)
{
	hear(e);
	arrived(e->fd, 1000);
	conn_close(e);
	tell(e, 0);
}

/* Unread bytes at close, and answers on their way: these are not lost. */
static void close_unread_answered_client(struct end *e)
{
	put(e, 1000);
	hear(e);
	get(e, 3000);
	FAILS(get1(e, 10, 0), ECONNRESET);
	get_eof(e);
}

static void close_unread_answered_server(struct end *e)
{
	arrived(e->fd, 1000);
	put(e, 3000);
	conn_close(e);
	tell(e, 0);
}

/* ---------------------------------------------------------------- reset */

static void reset_client(struct end *e)
{
	tell(e, 0);
	FAILS(get1(e, 10, 0), ECONNRESET);
	get_eof(e);
	FAILS(put1(e, 1, 0), EPIPE);
	IS(polled(e->fd, POLLIN | POLLOUT, 0), POLLIN | POLLOUT | POLLHUP);
}

static void reset_server(struct end *e)
{
	hear(e);
	nap(50);
	abort_conn(e);
}

/* Bytes that came before a reset are there. */
static void reset_after_data_client(struct end *e)
{
	int ready = 0;

	arrived(e->fd, 5000);
	tell(e, 0);
	hear(e);
	/* the word of it may be here before the reset is, and with bytes in the ring TCP is not asked each time */
	for (int i = 0; i < 1000 && !(ready & POLLERR); i++) {
		nap(1);
		ready = polled(e->fd, POLLIN | POLLRDHUP, 10000);
	}
	IS(ready, POLLIN | POLLRDHUP | POLLERR | POLLHUP);
	get(e, 5000);
	FAILS(get1(e, 10, 0), ECONNRESET);
	get_eof(e);
}

static void reset_after_data_server(struct end *e)
{
	put(e, 5000);
	hear(e);
	abort_conn(e);
	tell(e, 0);
}

/* A writer that blocks hears of the reset. */
static void reset_blocked_writer(struct end *e)
{
	if (e->server) {
		hear(e);
		nap(100);
		abort_conn(e);
		return;
	}
	tell(e, 0);
	while (put1(e, 100000, 0) > 0)
		;
	CHECK(errno == ECONNRESET || errno == EPIPE);
	FAILS(put1(e, 1, 0), EPIPE);
}

/* The first write to who has closed is taken; then the answer is there. */
static void write_to_closed(struct end *e)
{
	nap(50); /* ismredird holds the sockets for a moment after it gave out rings */
	if (e->server) {
		conn_close(e);
		tell(e, 0);
		hear(e);
		return;
	}
	hear(e);
	get_eof(e);
	signal(SIGPIPE, count);
	IS(send(e->fd, "hello", 5, 0), 5);
	IS(polled(e->fd, POLLIN, 10000) & POLLIN, POLLIN);
	for (int i = 0; i < 1000 && !(polled(e->fd, 0, 0) & POLLERR); i++)
		nap(1);
	FAILS(send(e->fd, "hello", 5, 0), EPIPE);
	IS(signals, 1);
	get_eof(e);
	tell(e, 0);
}

/* A server that answers who does not listen any more must not hang. */
static void writer_of_closed(struct end *e)
{
	if (e->server) {
		get(e, 100);
		conn_close(e);
		return;
	}
	put(e, 100);
	while (put1(e, 50000, 0) > 0)
		CHECK(e->tx.n < 512u << 20);
	CHECK(errno == ECONNRESET || errno == EPIPE);
}

/* close() with a time to linger: all is delivered. */
static void linger(struct end *e)
{
	struct linger l = { 1, 10 };

	if (e->server) {
		nap(50);
		get_all(e);
		IS(e->rx.n, 200000);
		return;
	}
	IS(setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	put(e, 200000);
	conn_close(e);
}

/* After the end of one, a descriptor of the same number is another thing. */
static void number_reused(struct end *e)
{
	char c = 0;
	int fd = e->fd, pipes[2];

	chat(e);
	meet(e);
	IS(close(fd), 0);
	IS(pipe(pipes), 0);
	CHECK(pipes[0] == fd || pipes[1] == fd);
	IS(write(pipes[1], "p", 1), 1);
	IS(polled(pipes[0], POLLIN, 0), POLLIN);
	IS(read(pipes[0], &c, 1), 1);
	IS(c, 'p');
	IS(close(pipes[0]), 0);
	IS(close(pipes[1]), 0);
	conn_open(e, AF_INET);
	chat(e);
}

const struct test tests_close[] = {
	{ "half_close_client", half_close, NULL, 0, 0 },
	{ "half_close_server", half_close, NULL, 0, 1 },
	{ "half_close_empty", half_close_empty, NULL, 0, 0 },
	{ "poll_states", poll_states, NULL, 0, 0 },
	{ "shut_rd", shut_rd_client, shut_rd_server, 0, 0 },
	{ "shut_rd_unread", shut_rd_unread, NULL, 0, 0 },
	{ "shutdown_errors", shutdown_errors, NULL, 0, 0 },
	{ "shut_both", shut_both, NULL, 0, 0 },
	{ "writer_closes", writer_leaves, NULL, 0, 0 },
	{ "writer_exits", writer_leaves, NULL, 0, 1 },
	{ "writer_exits_at_once", writer_leaves, NULL, 0, 2 },
	{ "writer_shuts_down", writer_leaves, NULL, 0, 3 },
	{ "writer_is_killed", writer_leaves, NULL, SERVER_DIES, 4 },
	{ "eof_again", eof_again, NULL, 0, 0 },
	{ "close_both", close_both, NULL, 0, 0 },
	{ "close_unread", close_unread_client, close_unread_server, 0, 0 },
	{ "close_unread_send", close_unread_client, close_unread_server, 0, 1 },
	{ "close_unread_answered", close_unread_answered_client, close_unread_answered_server, 0,
	  0 },
	{ "reset", reset_client, reset_server, 0, 0 },
	{ "reset_after_data", reset_after_data_client, reset_after_data_server, 0, 0 },
	{ "reset_blocked_writer", reset_blocked_writer, NULL, 0, 0 },
	{ "write_to_closed", write_to_closed, NULL, 0, 0 },
	{ "writer_of_closed", writer_of_closed, NULL, 0, 0 },
	{ "linger", linger, NULL, 0, 0 },
	{ "number_reused", number_reused, NULL, 0, 0 },
	{ 0 },
};
