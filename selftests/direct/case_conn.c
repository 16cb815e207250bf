// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* How connections begin: connect(), accept(), listen() and their odd uses; many short ones. */
#include "posix.h"
#include <netinet/tcp.h>
#include <sys/epoll.h>

/* ---------------------------------------------------------------- connect */

static int socket4(int flags)
{
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

	CHECK(fd >= 0);
	return fd;
}

/* A port where nobody listens. */
static int dead_port(void)
{
	struct end e = { 0 };

	close(listen_any(&e, AF_INET));
	return e.port;
}

static void connect_nonblock(struct end *e)
{
	if (e->server) {
		conn_open(e, AF_INET);
	} else {
		e->port = hear(e);
		e->fd = socket4(SOCK_NONBLOCK);
		IS(polled(e->fd, POLLIN | POLLOUT, 0), POLLOUT | POLLHUP);
		if (connect_to(e->fd, e->port))
			IS(errno, EINPROGRESS);
		IS(polled(e->fd, POLLOUT, 10000), POLLOUT);
		IS(getint(e->fd, SOL_SOCKET, SO_ERROR), 0);
		IS(connect_to(e->fd, e->port) < 0 ? errno : 0, 0); /* the result, once */
		FAILS(connect_to(e->fd, e->port), EISCONN);
		FAILS(get1(e, 1, 0), EAGAIN);
		nonblock(e->fd, false);
		e->tx.seed = 1;
		e->rx.seed = 2;
	}
	warm_up(e);
	chat(e);
}

static void connect_refused(struct end *e)
{
	int port = dead_port(), fd = socket4(0), state;

	FAILS(connect_to(fd, port), ECONNREFUSED);
	close(fd);
	fd = socket4(SOCK_NONBLOCK);
	if (connect_to(fd, port) && errno == EINPROGRESS) {
		state = polled(fd, POLLIN | POLLOUT, 10000);
		IS(state, POLLIN | POLLOUT | POLLERR | POLLHUP);
		IS(getint(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	} else {
		IS(errno, ECONNREFUSED);
	}
	FAILS(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
	close(fd);
	chat(e);
}

/* A socket that was disconnected lives another life. */
static void connect_unspec(struct end *e)
{
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };
	ssize_t n;

	if (e->server) {
		chat(e);
		n = get1(e, 1, 0);
		if (n < 0)
			IS(errno, ECONNRESET);
		else
			IS(n, 0);
		close(e->fd);
		conn_open(e, AF_INET);
		warm_up(e);
		chat(e);
		return;
	}
	chat(e);
	IS(connect(e->fd, &unspec, sizeof(unspec)), 0);
	FAILS(put1(e, 1, 0), ECONNRESET);
	FAILS(put1(e, 1, 0), EPIPE);
	FAILS(getpeername(e->fd, (void *)&unspec, &(socklen_t){ sizeof(unspec) }), ENOTCONN);
	IS(connect_to(e->fd, hear(e)), 0);
	e->tx.n = e->rx.n = 0;
	warm_up(e);
	chat(e);
}

static void not_connected(struct end *e)
{
	int fd = socket4(0);
	char c;

	FAILS(recv(fd, &c, 1, 0), ENOTCONN);
	FAILS(send(fd, &c, 1, MSG_NOSIGNAL), EPIPE);
	FAILS(accept(fd, NULL, NULL), EINVAL);
	FAILS(connect(fd, NULL, 0), EINVAL);
	if (e->server) {
		FAILS(recv(e->listener, &c, 1, 0), ENOTCONN);
		FAILS(accept(e->fd, NULL, NULL), EINVAL);
		FAILS(listen(e->fd, 1), EINVAL);
	} else {
		FAILS(connect_to(e->fd, e->port), EISCONN);
	}
	chat(e);
}

/* Data in the SYN, where it is allowed; a plain connection otherwise. */
static void fastopen(struct end *e)
{
	struct sockaddr_storage a;
	uint8_t buf[300];
	socklen_t len;

	for (int i = 0; i < 4; i++) {
		if (e->server) {
			if (e->listener < 0) {
				e->listener = listen_any(e, AF_INET);
				setint(e->listener, IPPROTO_TCP, TCP_FASTOPEN, 5);
			}
			conn_open(e, AF_INET);
			get(e, 300);
			chat(e);
			conn_close(e);
			continue;
		}
		e->port = hear(e);
		e->fd = socket4(0);
		e->tx = (struct half){ 1, 0 };
		e->rx = (struct half){ 2, 0 };
		fill(e, buf, sizeof(buf));
		address(&a, &len, AF_INET, e->port);
		if (i % 2) {
			setint(e->fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
			IS(connect(e->fd, (void *)&a, len), 0);
			IS(write(e->fd, buf, sizeof(buf)), sizeof(buf));
		} else if (sendto(e->fd, buf, sizeof(buf), MSG_FASTOPEN, (void *)&a, len) < 0) {
			IS(errno, EOPNOTSUPP); /* net.ipv4.tcp_fastopen says no */
			IS(connect(e->fd, (void *)&a, len), 0);
			IS(write(e->fd, buf, sizeof(buf)), sizeof(buf));
		}
		chat(e);
		conn_close(e);
	}
}

/* ---------------------------------------------------------------- accept, listen */

static void accept_flags(struct end *e)
{
	static const int flags[] = { 0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC };
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	for (int i = 0; i < 4; i++) {
		if (!e->server) {
			int fd = connect_port(AF_INET, e->port);

			IS(read(fd, &(char){ 0 }, 1), 1);
			close(fd);
			continue;
		}
		nonblock(e->listener, i % 2); /* not inherited */
		IS(polled(e->listener, POLLIN, 10000), POLLIN);
		len = sizeof(a);
		e->arg = accept4(e->listener, (void *)&a, &len, flags[i]);
		CHECK(e->arg >= 0);
		IS(len, sizeof(struct sockaddr_in));
		IS(a.ss_family, AF_INET);
		IS(!!(fcntl(e->arg, F_GETFL) & O_NONBLOCK), !!(flags[i] & SOCK_NONBLOCK));
		IS(fcntl(e->arg, F_GETFD), flags[i] & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
		IS(write(e->arg, "x", 1), 1);
		close(e->arg);
	}
	if (e->server) {
		nonblock(e->listener, true);
		FAILS(accept(e->listener, NULL, NULL), EAGAIN);
		FAILS(accept4(e->listener, NULL, NULL, 12345), EINVAL);
	}
	chat(e);
}

static volatile sig_atomic_t signals;

static void count(int sig)
{
	(void)sig;
	signals++;
}

static void accept_eintr(struct end *e)
{
	if (e->server) {
		catch_signal(SIGUSR1, count, 0);
		tell(e, getpid());
		FAILS(accept(e->listener, NULL, NULL), EINTR);
		CHECK(signals > 0);
		tell(e, 0);
	} else {
		disturb(e);
	}
	chat(e);
}

/* The client came, wrote and left before anybody accepted. */
static void accept_late(struct end *e)
{
	if (e->server) {
		tell(e, e->port);
		hear(e);
		e->fd = accept(e->listener, NULL, NULL);
		CHECK(e->fd >= 0);
		e->rx = (struct half){ 1, 0 };
		get_all(e);
		IS(e->rx.n, 20000);
		return;
	}
	e->fd = connect_port(AF_INET, hear(e));
	e->tx = (struct half){ 1, 0 };
	put(e, 20000);
	conn_close(e);
	tell(e, 0);
}

/* A listener that is shut down and set up again. */
static void listen_again(struct end *e)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	if (!e->server) {
		hear(e);
		conn_close(e);
		conn_open(e, AF_INET);
		chat(e);
		return;
	}
	IS(shutdown(e->listener, SHUT_RD), 0);
	FAILS(accept(e->listener, NULL, NULL), EINVAL);
	CHECK(polled(e->listener, POLLIN, 0) & POLLHUP);
	IS(listen(e->listener, 10), 0);
	IS(listen(e->listener, 20), 0);
	IS(getsockname(e->listener, (void *)&a, &len), 0);
	e->port = ntohs(a.sin_port); /* it was none that we had chosen: another one now */
	tell(e, 0);
	conn_close(e);
	conn_open(e, AF_INET);
	chat(e);
}

/* Two listeners share a port; each connection is served by one of them. */
static void reuseport(struct end *e)
{
	struct pollfd p[2];
	uint8_t c;

	if (!e->server) {
		int port = hear(e);

		for (int i = 0; i < 32; i++) {
			int fd = connect_port(AF_INET, port);

			for (int k = 0; k < 80; k++) {
				IS(write(fd, &(uint8_t){ i }, 1), 1);
				IS(read(fd, &c, 1), 1);
				IS(c, i);
			}
			close(fd);
		}
		return;
	}
	for (int i = 0; i < 2; i++) {
		p[i].fd = listen_shared(e, i ? e->port : 0);
		p[i].events = POLLIN;
	}
	tell(e, e->port);
	for (int i = 0; i < 32; i++) {
		int fd;

		IS(poll(p, 2, 10000), 1);
		fd = accept(p[!(p[0].revents & POLLIN)].fd, NULL, NULL);
		CHECK(fd >= 0);
		while (read(fd, &c, 1) == 1)
			IS(write(fd, &c, 1), 1);
		close(fd);
	}
}

/* A v4 client on a v6 listener: the server sees a mapped address. */
static void dual_stack(struct end *e)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof(a);
	int fd;

	if (e->server) {
		fd = socket(AF_INET6, SOCK_STREAM, 0);
		if (fd < 0)
			skip("no IPv6 here");
		setint(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
		a = (struct sockaddr_in6){ .sin6_family = AF_INET6 };
		IS(bind(fd, (void *)&a, sizeof(a)), 0);
		IS(listen(fd, 5), 0);
		IS(getsockname(fd, (void *)&a, &len), 0);
		e->listener = fd;
		e->port = ntohs(a.sin6_port);
	}
	conn_open(e, AF_INET);
	warm_up(e);
	if (e->server) {
		IS(getpeername(e->fd, (void *)&a, &len), 0);
		CHECK(IN6_IS_ADDR_V4MAPPED(&a.sin6_addr));
	}
	chat(e);
}

/* ---------------------------------------------------------------- many */

/* Short connections, as a web server without keep-alive has them: nothing is left of them. */
static void short_ones(struct end *e)
{
	int before = open_fds(1024);

	for (int i = 0; i < 2000; i++) {
		if (!e->server) {
			e->fd = connect_port(AF_INET, e->port);
			e->tx = (struct half){ 1, 0 };
			e->rx = (struct half){ 2, 0 };
			put(e, 100);
			get_all(e);
			IS(e->rx.n, 200);
		} else {
			e->fd = accept(e->listener, NULL, NULL);
			CHECK(e->fd >= 0);
			e->tx = (struct half){ 2, 0 };
			e->rx = (struct half){ 1, 0 };
			get(e, 100);
			put(e, 200);
		}
		conn_close(e);
	}
	IS(open_fds(1024), before);
}

static void short_ones_start(struct end *e)
{
	int keep = e->fd;

	short_ones(e);
	e->fd = keep;
	e->tx = (struct half){ e->server ? 2 : 1, 0 };
	e->rx = (struct half){ e->server ? 1 : 2, 0 };
	chat(e);
}

/* One after the other, each long enough for rings. */
static void long_ones(struct end *e)
{
	int before = open_fds(1024);

	for (int i = 0; i < 40; i++) {
		conn_open(e, AF_INET);
		warm_up(e);
		chat(e);
		meet(e);
		conn_close(e);
	}
	IS(open_fds(1024), before + e->server);
}

/* Bytes of the first moments: written before the partner has accepted, and at once after it. */
static void first_bytes(struct end *e)
{
	for (int i = 0; i < 200; i++) {
		conn_open(e, AF_INET);
		put(e, 1 + i);
		get(e, 1 + i);
		chat(e);
		conn_close(e);
	}
}

const struct test tests_conn[] = {
	{ "connect_nonblock", connect_nonblock, NULL, RAW, 0 },
	{ "connect_refused", connect_refused, NULL, 0, 0 },
	{ "connect_unspec", connect_unspec, NULL, 0, 0 },
	{ "not_connected", not_connected, NULL, 0, 0 },
	{ "fastopen", fastopen, NULL, RAW, 0 },
	{ "accept_flags", accept_flags, NULL, 0, 0 },
	{ "accept_eintr", accept_eintr, NULL, 0, 0 },
	{ "accept_late", accept_late, NULL, 0, 0 },
	{ "listen_again", listen_again, NULL, 0, 0 },
	{ "reuseport", reuseport, NULL, RAW, 0 },
	{ "dual_stack", dual_stack, NULL, RAW, 0 },
	{ "short_connections", short_ones_start, NULL, 0, 0 },
	{ "long_connections", long_ones, NULL, RAW, 0 },
	{ "first_bytes", first_bytes, NULL, RAW, 0 },
	{ 0 },
};
