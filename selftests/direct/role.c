// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One role of a case: its connection, the control channel, verified bytes and small things. */
#include "posix.h"
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define CTL	     3
#define ROLE_SECONDS 40

char **role_argv;
const char *test_name;
static bool is_server;

/* ---------------------------------------------------------------- how it ends */

void failed(const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(STDERR_FILENO, "%s, %s, %s:%d: %s\n", test_name, is_server ? "server" : "client",
		base ? base + 1 : file, line, text);
	_exit(1);
}

void skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vdprintf(STDERR_FILENO, fmt, ap);
	va_end(ap);
	dprintf(STDERR_FILENO, "\n");
	_exit(77);
}

static void on_alarm(int sig)
{
	static const char text[] = "a role hangs\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(4);
	_exit(3);
}

/* ---------------------------------------------------------------- the two roles */

void tell(struct end *e, int64_t value)
{
	IS(write(e->ctl, &value, sizeof(value)), sizeof(value));
}

int64_t hear(struct end *e)
{
	int64_t value;
	ssize_t n;

	do
		n = read(e->ctl, &value, sizeof(value));
	while (n < 0 && errno == EINTR);
	if (n == 0)
		_exit(5); /* the other role has ended: it will have said why */
	IS(n, sizeof(value));
	return value;
}

void meet(struct end *e)
{
	tell(e, 0x6d656574);
	IS(hear(e), 0x6d656574);
}

bool heard(struct end *e, int ms)
{
	struct pollfd p = { .fd = e->ctl, .events = POLLIN };

	return poll(&p, 1, ms) > 0;
}

void send_fd(int sock, int fd)
{
	char byte = 'f', space[CMSG_SPACE(sizeof(fd))] = { 0 };
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v,
			    .msg_iovlen = 1,
			    .msg_control = space,
			    .msg_controllen = sizeof(space) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	IS(sendmsg(sock, &m, 0), 1);
}

int recv_fd(int sock)
{
	char byte, space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v,
			    .msg_iovlen = 1,
			    .msg_control = space,
			    .msg_controllen = sizeof(space) };
	struct cmsghdr *c;
	int fd;

	IS(recvmsg(sock, &m, MSG_CMSG_CLOEXEC), 1);
	c = CMSG_FIRSTHDR(&m);
	CHECK(c && c->cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* ---------------------------------------------------------------- connections */

/* Where the server is: another host than the client's in selftests/cross. */
static const char *host(int family)
{
	static char mapped[INET6_ADDRSTRLEN];
	const char *v = getenv(family == AF_INET6 ? "ISMREDIR_TEST_HOST6" : "ISMREDIR_TEST_HOST");

	if (!v)
		v = family == AF_INET6 ? "::1" : "127.0.0.1";
	if (family == AF_INET || family == AF_INET6)
		return v;
	snprintf(mapped, sizeof(mapped), "::ffff:%s", v);
	return mapped;
}

void address(struct sockaddr_storage *a, socklen_t *len, int family, int port)
{
	struct sockaddr_in *v4 = (void *)a;
	struct sockaddr_in6 *v6 = (void *)a;

	memset(a, 0, sizeof(*a));
	if (family == AF_INET) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		CHECK(inet_pton(AF_INET, host(family), &v4->sin_addr) == 1);
		*len = sizeof(*v4);
		return;
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	*len = sizeof(*v6);
	CHECK(inet_pton(AF_INET6, host(family), &v6->sin6_addr) == 1);
}

/* @family: AF_INET, AF_INET6, or anything else for v4-mapped */
static int socket_of(int family)
{
	int fd = socket(family == AF_INET ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 && errno == EAFNOSUPPORT)
		skip("no IPv6 here");
	CHECK(fd >= 0);
	return fd;
}

static int listen_at(struct end *e, int family, int port, bool shared)
{
	struct sockaddr_storage a;
	socklen_t len;
	int fd = socket_of(family);

	if (shared)
		setint(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	address(&a, &len, family, port);
	if (bind(fd, (void *)&a, len) && errno == EADDRNOTAVAIL)
		skip("no IPv6 address here");
	CHECK(listen(fd, 512) == 0);
	len = sizeof(a);
	CHECK(getsockname(fd, (void *)&a, &len) == 0);
	e->port = ntohs(((struct sockaddr_in *)&a)->sin_port);
	return fd;
}

int listen_any(struct end *e, int family)
{
	return listen_at(e, family, 0, false);
}

int listen_shared(struct end *e, int port)
{
	return listen_at(e, AF_INET, port, true);
}

static int connect_by(int fd, int family, int port)
{
	struct sockaddr_storage a;
	socklen_t len;

	address(&a, &len, family, port);
	return connect(fd, (void *)&a, len);
}

int connect_to(int fd, int port)
{
	return connect_by(fd, AF_INET, port);
}

int connect_port(int family, int port)
{
	int fd = socket_of(family);

	IS(connect_by(fd, family, port), 0);
	return fd;
}

void conn_open(struct end *e, int family)
{
	if (e->server) {
		if (e->listener < 0)
			e->listener = listen_any(e, family);
		tell(e, e->port);
		e->fd = accept4(e->listener, NULL, NULL, SOCK_CLOEXEC);
		CHECK(e->fd >= 0);
	} else {
		e->port = hear(e);
		e->fd = connect_port(family, e->port);
	}
	setint(e->fd, IPPROTO_TCP, TCP_NODELAY, 1); /* the tests are many, and answers are small */
	e->tx = (struct half){ e->server ? 2 : 1, 0 };
	e->rx = (struct half){ e->server ? 1 : 2, 0 };
}

void conn_close(struct end *e)
{
	IS(close(e->fd), 0);
	e->fd = -1;
}

/* ---------------------------------------------------------------- warm-up */

struct hello {
	uint32_t seq;
	uint8_t ring; /* the last message before this one did not pass the kernel */
	uint8_t last;
	uint8_t pad[58];
};

struct warm {
	int hits, sent;
	bool theirs;
	uint64_t until;
};

bool rings_expected(void)
{
	return getenv("ISMREDIR_TEST_EXPECT_RING") != NULL;
}

/* Bytes that the kernel's TCP has sent on this socket. */
static uint64_t tcp_sent(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	return info.tcpi_bytes_sent;
}

static void hello_send(struct end *e, struct warm *w, bool last)
{
	struct hello h = { .seq = w->sent++, .ring = w->hits >= 2, .last = last };
	uint64_t before = tcp_sent(e->fd);

	IS(send(e->fd, &h, sizeof(h), MSG_NOSIGNAL), sizeof(h));
	w->hits = tcp_sent(e->fd) == before ? w->hits + 1 : 0;
}

static bool hello_recv(struct end *e, struct warm *w, int seq)
{
	struct hello h;
	size_t got = 0;

	while (got < sizeof(h)) {
		ssize_t n = recv(e->fd, (char *)&h + got, sizeof(h) - got, 0);

		CHECK(n > 0);
		got += n;
	}
	IS(h.seq, seq);
	w->theirs = h.ring;
	return h.last;
}

/* 64 rounds, then more of them until both are on the ring, where that is to be. */
static bool warm_enough(struct warm *w)
{
	bool ring = w->theirs && w->hits >= 2;

	if (w->sent < 64)
		return false;
	if (!rings_expected() || ring)
		return true;
	if (now_ms() > w->until)
		FAIL("no ring after %d messages (mine %d, theirs %d)", w->sent, w->hits >= 2,
		     w->theirs);
	nap(1);
	return false;
}

static void warm_verdict(const struct warm *w)
{
	if (!rings_expected())
		IS(w->hits, 0);
}

void warm_up(struct end *e)
{
	struct warm w = { .until = now_ms() + 10000 };
	bool last = false;

	while (!last) {
		if (e->server) {
			last = hello_recv(e, &w, w.sent);
			hello_send(e, &w, last);
		} else {
			last = warm_enough(&w);
			hello_send(e, &w, last);
			hello_recv(e, &w, w.sent - 1);
		}
	}
	warm_verdict(&w);
}

void solo_pair(struct end *a, struct end *b, bool warm)
{
	struct warm wa = { .until = now_ms() + 10000 }, wb = wa;
	bool last = false;

	*a = (struct end){ .listener = -1, .ctl = -1, .tx.seed = 1, .rx.seed = 2 };
	*b = (struct end){ .listener = -1, .ctl = -1, .tx.seed = 2, .rx.seed = 1 };
	b->listener = listen_any(b, AF_INET);
	a->fd = connect_port(AF_INET, b->port);
	b->fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(b->fd >= 0);
	setint(a->fd, IPPROTO_TCP, TCP_NODELAY, 1);
	setint(b->fd, IPPROTO_TCP, TCP_NODELAY, 1);
	while (warm && !last) {
		last = warm_enough(&wa);
		hello_send(a, &wa, last);
		hello_recv(b, &wb, wb.sent);
		hello_send(b, &wb, last);
		hello_recv(a, &wa, wa.sent - 1);
	}
}

/* ---------------------------------------------------------------- verified bytes */

void fill(struct end *e, void *buf, size_t len)
{
	pattern_fill(e->tx.seed, e->tx.n, buf, len);
	e->tx.n += len;
}

void took(struct end *e, const void *buf, size_t len)
{
	int64_t bad = pattern_check(e->rx.seed, e->rx.n, buf, len);

	if (bad >= 0)
		FAIL("wrong byte at %lld of the stream", (long long)bad);
	e->rx.n += len;
}

ssize_t put1(struct end *e, size_t len, int flags)
{
	static __thread uint8_t buf[1 << 20];
	ssize_t n;

	CHECK(len <= sizeof(buf));
	pattern_fill(e->tx.seed, e->tx.n, buf, len);
	n = send(e->fd, buf, len, flags | MSG_NOSIGNAL);
	if (n > 0)
		e->tx.n += n;
	return n;
}

ssize_t get1(struct end *e, size_t len, int flags)
{
	static __thread uint8_t buf[1 << 20];
	uint64_t at = e->rx.n;
	ssize_t n;

	CHECK(len <= sizeof(buf));
	n = recv(e->fd, buf, len, flags);
	if (n > 0)
		took(e, buf, n);
	if (flags & MSG_PEEK)
		e->rx.n = at;
	return n;
}

void put(struct end *e, size_t len)
{
	while (len) {
		ssize_t n = put1(e, len < 65536 ? len : 65536, 0);

		if (n < 0)
			FAIL("send at %llu: %s", (unsigned long long)e->tx.n, strerror(errno));
		len -= n;
	}
}

void get(struct end *e, size_t len)
{
	while (len) {
		ssize_t n = get1(e, len < 65536 ? len : 65536, 0);

		if (n <= 0)
			FAIL("recv at %llu: %s", (unsigned long long)e->rx.n,
			     n ? strerror(errno) : "end of stream");
		len -= n;
	}
}

void get_eof(struct end *e)
{
	char byte;

	IS(recv(e->fd, &byte, 1, 0), 0);
}

void get_all(struct end *e)
{
	ssize_t n;

	while ((n = get1(e, 65536, 0)) > 0)
		;
	IS(n, 0);
}

void talk(struct end *e)
{
	for (int i = 1; i < 20; i++) {
		put(e, i * 50);
		get(e, i * 70);
	}
}

void answer(struct end *e)
{
	for (int i = 1; i < 20; i++) {
		get(e, i * 50);
		put(e, i * 70);
	}
}

void chat(struct end *e)
{
	if (e->server)
		answer(e);
	else
		talk(e);
}

int inq(int fd)
{
	int n = -1;

	CHECK(ioctl(fd, FIONREAD, &n) == 0);
	return n;
}

void arrived(int fd, int len)
{
	uint64_t until = now_ms() + 10000;

	while (inq(fd) < len) {
		if (now_ms() > until)
			FAIL("FIONREAD says %d, %d bytes should have come", inq(fd), len);
		nap(1);
	}
}

/* ---------------------------------------------------------------- small things */

int polled(int fd, int events, int ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	int n = poll(&p, 1, ms);

	CHECK(n >= 0);
	IS(n, p.revents != 0);
	return p.revents;
}

void nap(int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

void nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	CHECK(flags >= 0);
	CHECK(fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) == 0);
}

void setint(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		FAIL("option %d of level %d: %s", name, level, strerror(errno));
}

int getint(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, level, name, &value, &len))
		FAIL("option %d of level %d: %s", name, level, strerror(errno));
	return value;
}

pid_t child(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	return pid;
}

void done(void)
{
	_exit(0);
}

void reap(pid_t pid)
{
	int status = -1;

	IS(waitpid(pid, &status, 0), pid);
	IS(status, 0);
}

void catch_signal(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };

	IS(sigaction(sig, &sa, NULL), 0);
}

void disturb(struct end *e)
{
	pid_t pid = hear(e);

	while (!heard(e, 40))
		kill(pid, SIGUSR1);
	hear(e);
}

int tcp_state(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	IS(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_state;
}

void allow_fds(unsigned int n)
{
	struct rlimit r;

	getrlimit(RLIMIT_NOFILE, &r);
	if (r.rlim_max < n)
		skip("descriptors end at %lu here", (unsigned long)r.rlim_max);
	if (r.rlim_cur >= n)
		return;
	r.rlim_cur = n;
	IS(setrlimit(RLIMIT_NOFILE, &r), 0);
}

int open_fds(int below)
{
	int n = 0;

	for (int fd = 0; fd < below; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ---------------------------------------------------------------- main */

void role_main(const struct test *t, bool server)
{
	struct end e = { .fd = -1, .ctl = CTL, .listener = -1, .server = server, .arg = t->arg };
	int family = t->flags & IPV6 ? AF_INET6 : t->flags & MAPPED ? AF_UNSPEC : AF_INET;

	test_name = t->name;
	is_server = server;
	CHECK(fcntl(CTL, F_SETFD, FD_CLOEXEC) == 0);
	signal(SIGALRM, on_alarm);
	alarm(ROLE_SECONDS);
	if (!(t->flags & (RAW | SOLO))) {
		conn_open(&e, family);
		warm_up(&e);
	}
	if (server && t->server)
		t->server(&e);
	else
		t->client(&e);
	exit(0);
}
