// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What other libraries of this kind got wrong (docs/other-shims.rst), where no other file has it: calls whose
 * descriptor a handler closes, queued signals, a connect() that is shut down, two listeners in one set, sockets of
 * other kinds, a fork() before any constructor, many descriptors, and some that do not come back.
 */
#include "posix.h"
#include <dirent.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/un.h>
#include <sys/wait.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#define IPPROTO_OF_SMC 256

/* ---------------------------------------------------------------- a handler closes what the call is about */

enum { RECV, READ, ACCEPT };

static volatile sig_atomic_t victim = -1, signals;

static void close_victim(int sig)
{
	int err = errno;

	(void)sig;
	if (victim >= 0)
		close(victim);
	victim = -1;
	signals++;
	errno = err;
}

/* A call that is restarted finds that there is nothing left; one that is not may have begun too late for the signal. */
static void closed_in_handler(struct end *e)
{
	bool restart = e->arg & 256;
	int call = e->arg & 255;
	char c;

	if (!e->server) {
		disturb(e);
		if (call != ACCEPT)
			get_eof(e);
		else
			chat(e);
		return;
	}
	victim = call == ACCEPT ? e->listener : e->fd;
	catch_signal(SIGUSR1, close_victim, restart ? SA_RESTART : 0);
	tell(e, getpid());
	if (call == ACCEPT)
		IS(accept(e->listener, NULL, NULL), -1);
	else
		IS(call == READ ? read(e->fd, &c, 1) : recv(e->fd, &c, 1, 0), -1);
	if (restart || errno != EINTR)
		IS(errno, EBADF);
	CHECK(signals > 0);
	FAILS(fcntl(call == ACCEPT ? e->listener : e->fd, F_GETFD), EBADF);
	tell(e, 0);
	if (call == ACCEPT)
		chat(e);
}

/* ---------------------------------------------------------------- signals that queue */

#define QUEUED 5

static volatile sig_atomic_t values[QUEUED], n_values;

static void keep_value(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	if (n_values < QUEUED)
		values[n_values] = info->si_value.sival_int;
	n_values++;
}

/* Each of them is delivered, in order, with its value, and the receive ends once. */
static void queued_signals(struct end *e)
{
	struct sigaction sa = { .sa_sigaction = keep_value, .sa_flags = SA_SIGINFO };
	char c;

	if (!e->server) {
		pid_t pid = hear(e);

		nap(100);
		for (int i = 0; i < QUEUED; i++)
			IS(sigqueue(pid, SIGRTMIN + 1, (union sigval){ .sival_int = 100 + i }), 0);
		while (!heard(e, 40)) /* they came before it received */
			sigqueue(pid, SIGRTMIN + 1, (union sigval){ .sival_int = 0 });
		hear(e);
		chat(e);
		return;
	}
	IS(sigaction(SIGRTMIN + 1, &sa, NULL), 0);
	tell(e, getpid());
	FAILS(recv(e->fd, &c, 1, 0), EINTR);
	for (uint64_t until = now_ms() + 5000; n_values < QUEUED && now_ms() < until;)
		nap(1);
	CHECK(n_values >= QUEUED);
	for (int i = 0; i < QUEUED; i++)
		IS(values[i], 100 + i);
	tell(e, 0);
	chat(e);
}

/* ---------------------------------------------------------------- connect() that does not get through */

struct attempt {
	int fd, port;
	int result, err;
};

static void *attempt(void *arg)
{
	struct attempt *t = arg;

	t->result = connect_to(t->fd, t->port);
	t->err = errno;
	return NULL;
}

/* Connections until the listener has no room, and its kernel drops what asks for one. Return: how many. */
static int fill_backlog(int port, int *fds, int max)
{
	for (int n = 0; n < max; n++) {
		fds[n] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		CHECK(fds[n] >= 0);
		if (connect_to(fds[n], port))
			IS(errno, EINPROGRESS);
		if (!polled(fds[n], POLLOUT, 300))
			return n + 1;
	}
	FAIL("a listener of backlog 0 took %d connections", max);
}

static void shutdown_connecting(struct end *e)
{
	struct attempt t = { .fd = -1 };
	int fds[16], n;
	pthread_t id;

	if (e->server) {
		e->listener = listen_any(e, AF_INET);
		IS(listen(e->listener, 0), 0);
		tell(e, e->port);
		hear(e);
		return;
	}
	t.port = hear(e);
	n = fill_backlog(t.port, fds, 16);
	t.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	IS(pthread_create(&id, NULL, attempt, &t), 0);
	while (tcp_state(t.fd) != TCP_SYN_SENT)
		nap(1);
	IS(shutdown(t.fd, SHUT_RDWR), 0);
	IS(pthread_join(id, NULL), 0);
	IS(t.result, -1);
	IS(t.err, ECONNRESET);
	CHECK(polled(t.fd, POLLIN | POLLOUT, 0) & POLLHUP);
	close(t.fd);
	while (n--)
		close(fds[n]);
	tell(e, 0);
}

/* ---------------------------------------------------------------- two listeners in one set */

#define CLIENTS 20

struct served {
	int listener[2], accepted[2], closed;
};

static void serve_event(int ep, struct served *s, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };
	uint8_t c;

	if (fd == s->listener[0] || fd == s->listener[1]) {
		ev.data.fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		CHECK(ev.data.fd >= 0);
		IS(epoll_ctl(ep, EPOLL_CTL_ADD, ev.data.fd, &ev), 0);
		s->accepted[fd == s->listener[1]]++;
	} else if (read(fd, &c, 1) == 1) {
		IS(write(fd, &c, 1), 1);
	} else {
		IS(close(fd), 0);
		s->closed++;
	}
}

static void *serve_set(void *arg)
{
	struct epoll_event ev[8] = { { .events = EPOLLIN } };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct served *s = arg;

	for (int i = 0; i < 2; i++) {
		ev[0].data.fd = s->listener[i];
		IS(epoll_ctl(ep, EPOLL_CTL_ADD, s->listener[i], &ev[0]), 0);
	}
	while (s->closed < CLIENTS) {
		int n = epoll_wait(ep, ev, 8, 10000);

		CHECK(n > 0);
		for (int i = 0; i < n; i++)
			serve_event(ep, s, ev[i].data.fd);
	}
	close(ep);
	return NULL;
}

static void two_listeners_server(struct end *e)
{
	struct served s = { .closed = 0 };
	pthread_t id;

	for (int i = 0; i < 2; i++) {
		s.listener[i] = listen_shared(e, 0);
		tell(e, e->port);
	}
	IS(pthread_create(&id, NULL, serve_set, &s), 0);
	IS(pthread_join(id, NULL), 0);
	IS(s.accepted[0], CLIENTS / 2);
	IS(s.accepted[1], CLIENTS / 2);
}

/* Whoever has been busy with one connection, and looks for its next byte, still sees the other listener. */
static void two_listeners(struct end *e)
{
	int port[2], before = -1;
	uint8_t c;

	for (int i = 0; i < 2; i++)
		port[i] = hear(e);
	for (int i = 0; i < CLIENTS; i++) {
		int fd = connect_port(AF_INET, port[i & 1]);

		for (int k = 0; k < 100; k++) {
			IS(write(fd, &(uint8_t){ k }, 1), 1);
			IS(read(fd, &c, 1), 1);
			IS(c, k);
		}
		if (before >= 0)
			IS(close(before), 0);
		before = fd;
	}
	IS(close(before), 0);
}

/* ---------------------------------------------------------------- sockets of other kinds */

static void bounce(int a, int b, bool packets)
{
	static uint8_t out[20000], in[20000];
	size_t size = packets ? 1000 : sizeof(out), got;
	int fds[] = { a, b };
	ssize_t n;

	for (int round = 0; round < 100; round++) {
		pattern_fill(7, round, out, size);
		IS(send(fds[round & 1], out, size, 0), size);
		for (got = 0; got < size; got += n) {
			n = recv(fds[!(round & 1)], in + got, size - got, 0);
			CHECK(n > 0);
		}
		CHECK(!memcmp(out, in, size));
	}
}

/* A socket with a name of the kernel's choice, which is stored. -1: the kernel has none of that kind. */
static int bound(int family, int type, int protocol, struct sockaddr_storage *a, socklen_t *len)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(family, type | SOCK_CLOEXEC, protocol);

	if (fd < 0) {
		CHECK(errno == EPROTONOSUPPORT || errno == ENOPROTOOPT || errno == EAFNOSUPPORT);
		return -1;
	}
	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (family == AF_INET)
		IS(bind(fd, (void *)&v4, sizeof(v4)), 0);
	else
		IS(bind(fd, (void *)&un, sizeof(un.sun_family)), 0);
	*len = sizeof(*a);
	IS(getsockname(fd, (void *)a, len), 0);
	return fd;
}

/* Connect a pair of that kind through a listener, or by addresses of each other. @protocol: 0 for the usual, @is */
static void of_kind(int family, int type, int protocol, int is)
{
	struct sockaddr_storage to_b, to_a;
	socklen_t len_b, len_a;
	int b = bound(family, type, protocol, &to_b, &len_b), a, listener;

	if (b < 0)
		return;
	a = bound(family, type, protocol, &to_a, &len_a);
	CHECK(a >= 0);
	IS(getint(a, SOL_SOCKET, SO_PROTOCOL), is);
	if (type != SOCK_DGRAM)
		IS(listen(b, 5), 0);
	IS(connect(a, (void *)&to_b, len_b), 0);
	if (type != SOCK_DGRAM) {
		listener = b;
		b = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		CHECK(b >= 0);
		close(listener);
	} else {
		IS(connect(b, (void *)&to_a, len_a), 0);
	}
	bounce(a, b, type != SOCK_STREAM);
	close(a);
	close(b);
}

static void other_kinds(struct end *e)
{
	of_kind(AF_INET, SOCK_STREAM, IPPROTO_MPTCP, IPPROTO_MPTCP);
	of_kind(AF_INET, SOCK_STREAM, IPPROTO_SCTP, IPPROTO_SCTP);
	of_kind(AF_INET, SOCK_STREAM, IPPROTO_OF_SMC, IPPROTO_OF_SMC);
	of_kind(AF_INET, SOCK_DGRAM, 0, IPPROTO_UDP);
	of_kind(AF_INET, SOCK_DGRAM, IPPROTO_UDP, IPPROTO_UDP);
	of_kind(AF_UNIX, SOCK_STREAM, 0, 0);
	of_kind(AF_UNIX, SOCK_SEQPACKET, 0, 0);
	of_kind(AF_UNIX, SOCK_DGRAM, 0, 0);
	chat(e);
}

/* ---------------------------------------------------------------- before any constructor */

#define EARLY_PORT "POSIX_EARLY="
#define EARLY_SAID 8

static int early_fd = -1;

/* No CHECK() here: nobody has been told yet which case this is. */
static bool early_echo(int fd, int times)
{
	uint8_t out[EARLY_SAID] = "earlier", in[EARLY_SAID];

	while (times--) {
		size_t got = 0;
		ssize_t n = write(fd, out, sizeof(out));

		while (n > 0 && got < sizeof(in)) {
			n = read(fd, in + got, sizeof(in) - got);
			got += n;
		}
		if (n <= 0 || memcmp(in, out, sizeof(in)))
			return false;
		out[times % sizeof(out)]++;
	}
	return true;
}

static void early_connection(int port)
{
	int status = -1;
	pid_t pid;

	early_fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect_to(early_fd, port) || !early_echo(early_fd, 10))
		_exit(11);
	pid = fork();
	if (!pid)
		_exit(early_echo(early_fd, 10) ? 0 : 12);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		_exit(13);
}

/* The linker calls this before the constructors of all libraries, the C library's, too: it has no environ yet. */
static void before_all(int argc, char **argv, char **envp)
{
	(void)argc, (void)argv;
	environ = envp; /* for connect_to() */
	for (; *envp; envp++)
		if (!strncmp(*envp, EARLY_PORT, strlen(EARLY_PORT)))
			early_connection(atoi(*envp + strlen(EARLY_PORT)));
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(int, char **,
									      char **) = before_all;

/* In main(), if this process was started so. */
void early_main(void)
{
	if (early_fd < 0)
		return;
	_exit(early_echo(early_fd, 500) && !close(early_fd) ? 0 : 14);
}

static void early_fork(struct end *e)
{
	char buf[256], port[40];
	ssize_t n;
	pid_t pid;

	if (e->server) {
		e->listener = listen_any(e, AF_INET);
		tell(e, e->port);
		e->fd = accept(e->listener, NULL, NULL);
		while ((n = read(e->fd, buf, sizeof(buf))) > 0)
			IS(write(e->fd, buf, n), n);
		IS(n, 0);
		return;
	}
	snprintf(port, sizeof(port), "%d", (int)hear(e));
	pid = child();
	if (!pid) {
		setenv("POSIX_EARLY", port, 1);
		execl("/proc/self/exe", "posix", NULL);
		FAIL("exec: %s", strerror(errno));
	}
	reap(pid);
}

/* ---------------------------------------------------------------- descriptors that nobody sees */

/* All of them, also those that the library keeps for itself. */
static int all_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void fds_come_back(struct end *e)
{
	uint64_t until;
	int before = 0;

	for (int i = 0; i < 24; i++) {
		conn_open(e, AF_INET);
		warm_up(e);
		chat(e);
		meet(e);
		conn_close(e);
		if (i == 3) /* what is opened once, and kept */
			before = all_fds();
	}
	for (until = now_ms() + 5000; all_fds() > before && now_ms() < until;)
		nap(5);
	if (all_fds() > before)
		FAIL("%d descriptors after 4 connections, %d after 24", before, all_fds());
}

#define THOUSANDS 1300

/* More than an fd_set and the usual limit have room for. */
static void thousands(struct end *e)
{
	static struct end ends[THOUSANDS];

	allow_fds(THOUSANDS + 100);
	for (int i = 0; i < THOUSANDS; i++) {
		ends[i] = *e;
		conn_open(&ends[i], AF_INET);
		e->listener = ends[i].listener;
		e->port = ends[i].port;
	}
	CHECK(ends[THOUSANDS - 1].fd > FD_SETSIZE);
	for (int i = 0; i < THOUSANDS; i++)
		chat(&ends[i]);
	warm_up(&ends[THOUSANDS - 1]);
	chat(&ends[0]);
	chat(&ends[THOUSANDS - 1]);
	for (int i = 0; i < THOUSANDS; i++)
		conn_close(&ends[i]);
}

const struct test tests_shims[] = {
	{ "close_in_handler_recv", closed_in_handler, NULL, 0, RECV },
	{ "close_in_handler_read", closed_in_handler, NULL, 0, READ },
	{ "close_in_handler_accept", closed_in_handler, NULL, 0, ACCEPT },
	{ "close_in_handler_recv_restart", closed_in_handler, NULL, 0, RECV | 256 },
	{ "close_in_handler_read_restart", closed_in_handler, NULL, 0, READ | 256 },
	{ "close_in_handler_accept_restart", closed_in_handler, NULL, 0, ACCEPT | 256 },
	{ "queued_signals", queued_signals, NULL, 0, 0 },
	{ "shutdown_connecting", shutdown_connecting, NULL, RAW, 0 },
	{ "two_listeners", two_listeners, two_listeners_server, RAW, 0 },
	{ "other_kinds", other_kinds, NULL, 0, 0 },
	{ "early_fork", early_fork, NULL, RAW, 0 },
	{ "thousands", thousands, NULL, RAW, 0 },
	{ "fds_come_back", fds_come_back, NULL, RAW, 0 },
	{ 0 },
};
