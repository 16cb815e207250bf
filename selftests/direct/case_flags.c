// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Flags of send() and recv(). */
#include "posix.h"
#include <linux/errqueue.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/wait.h>

static volatile sig_atomic_t signals;

static void count(int sig)
{
	(void)sig;
	signals++;
}

/* Send these bytes when the other role asks for them. */
static void serve_parts(struct end *e, const int *parts)
{
	for (; *parts; parts++) {
		hear(e);
		put(e, *parts);
	}
}

/* ---------------------------------------------------------------- MSG_PEEK */

static void peek_client(struct end *e)
{
	tell(e, 0);
	arrived(e->fd, 1000);
	for (int i = 0; i < 3; i++) {
		IS(get1(e, 10, MSG_PEEK), 10);
		IS(get1(e, 1000, MSG_PEEK), 1000);
		IS(get1(e, 4000, MSG_PEEK), 1000);
	}
	IS(get1(e, 300, 0), 300);
	IS(get1(e, 4000, MSG_PEEK), 700);
	tell(e, 0);
	arrived(e->fd, 1200);
	IS(get1(e, 4000, MSG_PEEK), 1200);
	IS(inq(e->fd), 1200);
	IS(get1(e, 1200, MSG_WAITALL), 1200);
	FAILS(get1(e, 10, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
	chat(e);
}

static void peek_server(struct end *e)
{
	serve_parts(e, (int[]){ 1000, 500, 0 });
	chat(e);
}

/* A peek waits for the first byte; with MSG_WAITALL for all of them. */
static void peek_waits_client(struct end *e)
{
	tell(e, 0);
	CHECK(get1(e, 100, MSG_PEEK) > 0);
	get(e, 50);
	tell(e, 0);
	tell(e, 0);
	IS(get1(e, 100, MSG_PEEK | MSG_WAITALL), 100);
	IS(get1(e, 100, 0), 100);
	tell(e, 0);
	IS(get1(e, 100, MSG_PEEK | MSG_WAITALL), 20); /* the end comes instead */
	IS(get1(e, 100, 0), 20);
	IS(get1(e, 100, MSG_PEEK), 0);
	IS(get1(e, 100, MSG_PEEK), 0);
	get_eof(e);
}

static void peek_waits_server(struct end *e)
{
	hear(e);
	nap(50);
	put(e, 50);
	hear(e);
	put(e, 60);
	hear(e);
	nap(50);
	put(e, 40);
	hear(e);
	put(e, 20);
	nap(20);
	IS(shutdown(e->fd, SHUT_WR), 0);
}

/* More than the ring is long may lie there: a peek sees no further than there is, and in order. */
static void peek_far_client(struct end *e)
{
	for (int i = 0; i < 40; i++) {
		ssize_t n = get1(e, 200000, MSG_PEEK);

		CHECK(n > 0);
		CHECK(get1(e, 50000, MSG_PEEK) > 0);
		get(e, n);
	}
	tell(e, 0);
	get_all(e);
}

static void peek_far_server(struct end *e)
{
	while (!heard(e, 0))
		put(e, 70000);
	conn_close(e);
}

/* ---------------------------------------------------------------- MSG_WAITALL */

static void waitall_client(struct end *e)
{
	tell(e, 0);
	IS(get1(e, 600, MSG_WAITALL), 600);
	IS(get1(e, 300000, MSG_WAITALL), 300000);
	IS(get1(e, 900, MSG_WAITALL), 70);
	IS(get1(e, 900, MSG_WAITALL), 0);
}

static void waitall_server(struct end *e)
{
	hear(e);
	for (int i = 0; i < 3; i++) {
		put(e, 200);
		nap(20);
	}
	for (int i = 0; i < 3; i++) {
		put(e, 100000);
		nap(20);
	}
	put(e, 70);
	nap(20);
	conn_close(e);
}

static void waitall_dontwait(struct end *e)
{
	if (e->server) {
		serve_parts(e, (int[]){ 100, 0 });
		meet(e);
		return;
	}
	tell(e, 0);
	arrived(e->fd, 100);
	IS(get1(e, 500, MSG_WAITALL | MSG_DONTWAIT), 100);
	nonblock(e->fd, true);
	FAILS(get1(e, 500, MSG_WAITALL), EAGAIN);
	meet(e);
}

/* A signal ends the wait: what has come is returned, with SA_RESTART too. */
static void waitall_signal_client(struct end *e)
{
	catch_signal(SIGUSR1, count, e->arg);
	tell(e, getpid());
	IS(get1(e, 500, MSG_WAITALL), 50);
	CHECK(signals > 0);
	tell(e, 0);
	chat(e);
}

static void waitall_signal_server(struct end *e)
{
	pid_t pid = hear(e);

	put(e, 50);
	while (!heard(e, 60))
		kill(pid, SIGUSR1);
	hear(e);
	chat(e);
}

/* ---------------------------------------------------------------- MSG_DONTWAIT, MSG_TRUNC, MSG_NOSIGNAL */

static void dontwait_client(struct end *e)
{
	FAILS(get1(e, 100, MSG_DONTWAIT), EAGAIN);
	while (put1(e, 30000, MSG_DONTWAIT) > 0)
		CHECK(e->tx.n < 512u << 20);
	IS(errno, EAGAIN);
	CHECK(!(fcntl(e->fd, F_GETFL) & O_NONBLOCK));
	tell(e, e->tx.n);
	chat(e);
}

static void dontwait_server(struct end *e)
{
	get(e, hear(e));
	chat(e);
}

/* TCP throws away what MSG_TRUNC reads. */
static void trunc_client(struct end *e)
{
	uint8_t buf[400], zero[400] = { 0 };

	memset(buf, 0, sizeof(buf));
	tell(e, 0);
	arrived(e->fd, 1000);
	IS(recv(e->fd, buf, 400, MSG_TRUNC), 400);
	CHECK(!memcmp(buf, zero, sizeof(buf)));
	e->rx.n += 400;
	IS(recv(e->fd, NULL, 100, MSG_TRUNC), 100);
	e->rx.n += 100;
	IS(recv(e->fd, NULL, 100, MSG_TRUNC | MSG_PEEK), 100);
	get(e, 500);
	chat(e);
}

static void trunc_server(struct end *e)
{
	serve_parts(e, (int[]){ 1000, 0 });
	chat(e);
}

static void nosignal(struct end *e)
{
	if (e->server) {
		conn_close(e);
		tell(e, 0);
		hear(e);
		return;
	}
	catch_signal(SIGPIPE, count, 0);
	hear(e);
	IS(polled(e->fd, POLLIN, 10000), POLLIN);
	IS(shutdown(e->fd, SHUT_WR), 0);
	FAILS(send(e->fd, "x", 1, MSG_NOSIGNAL), EPIPE);
	IS(signals, 0);
	FAILS(send(e->fd, "x", 1, 0), EPIPE);
	IS(signals, 1);
	FAILS(write(e->fd, "x", 1), EPIPE);
	IS(signals, 2);
	FAILS(writev(e->fd, &(struct iovec){ "x", 1 }, 1), EPIPE);
	IS(signals, 3);
	FAILS(sendmsg(e->fd, &(struct msghdr){ 0 }, MSG_NOSIGNAL), EPIPE);
	IS(signals, 3);
	signal(SIGPIPE, SIG_IGN);
	FAILS(write(e->fd, "x", 1), EPIPE);
	tell(e, 0);
}

/* SIGPIPE is not caught: it kills, as it should. */
static void sigpipe_kills(struct end *e)
{
	int status;
	pid_t pid;

	if (e->server) {
		get_eof(e);
		return;
	}
	IS(shutdown(e->fd, SHUT_WR), 0);
	pid = child();
	if (!pid) {
		if (write(e->fd, "x", 1) < 0)
			_exit(7);
		_exit(8);
	}
	IS(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
}

/* ---------------------------------------------------------------- urgent data */

static void urgent_mark(int fd, int want)
{
	int mark = -1;

	IS(ioctl(fd, SIOCATMARK, &mark), 0);
	IS(mark, want);
}

static void oob_client(struct end *e)
{
	char buf[100];

	tell(e, 0);
	IS(polled(e->fd, POLLPRI, 10000), POLLPRI);
	arrived(e->fd, 3);
	urgent_mark(e->fd, 0);
	IS(recv(e->fd, buf, sizeof(buf), 0), 3); /* stops before the mark */
	CHECK(!memcmp(buf, "abc", 3));
	urgent_mark(e->fd, 1);
	IS(recv(e->fd, buf, 1, MSG_OOB), 1);
	IS(buf[0], 'X');
	FAILS(recv(e->fd, buf, 1, MSG_OOB), EINVAL);
	tell(e, 0);
	IS(recv(e->fd, buf, 4, MSG_WAITALL), 4);
	CHECK(!memcmp(buf, "defg", 4));
	urgent_mark(e->fd, 0);
	chat(e);
}

static void oob_server(struct end *e)
{
	hear(e);
	IS(send(e->fd, "abc", 3, 0), 3);
	IS(send(e->fd, "X", 1, MSG_OOB), 1);
	hear(e);
	IS(send(e->fd, "defg", 4, 0), 4);
	chat(e);
}

static void oob_inline_client(struct end *e)
{
	char buf[100];

	setint(e->fd, SOL_SOCKET, SO_OOBINLINE, 1);
	tell(e, 0);
	IS(polled(e->fd, POLLPRI, 10000), POLLPRI);
	arrived(e->fd, 4);
	FAILS(recv(e->fd, buf, 1, MSG_OOB), EINVAL);
	IS(recv(e->fd, buf, sizeof(buf), 0), 3);
	urgent_mark(e->fd, 1);
	tell(e, 0);
	IS(recv(e->fd, buf, 5, MSG_WAITALL), 5);
	CHECK(!memcmp(buf, "Xdefg", 5));
	urgent_mark(e->fd, 0);
	chat(e);
}

static void oob_none(struct end *e)
{
	char c;

	FAILS(recv(e->fd, &c, 1, MSG_OOB), EINVAL);
	urgent_mark(e->fd, 0);
	chat(e);
}

static void on_urgent(int sig)
{
	(void)sig;
	signals++;
}

/* SIGURG for who asked for it. */
static void sigurg_client(struct end *e)
{
	char c;

	catch_signal(SIGURG, on_urgent, SA_RESTART);
	IS(fcntl(e->fd, F_SETOWN, getpid()), 0);
	tell(e, 0);
	for (int i = 0; i < 1000 && !signals; i++)
		nap(10);
	IS(signals, 1);
	IS(recv(e->fd, &c, 1, MSG_OOB), 1);
	IS(c, 'X');
	tell(e, 0);
}

static void sigurg_server(struct end *e)
{
	hear(e);
	IS(send(e->fd, "abcX", 4, MSG_OOB), 4);
	hear(e);
}

/* ---------------------------------------------------------------- MSG_MORE, TCP_CORK, MSG_ZEROCOPY */

static void more_client(struct end *e)
{
	for (int i = 0; i < 200; i++)
		IS(put1(e, 100, i % 10 == 9 ? 0 : MSG_MORE), 100);
	setint(e->fd, IPPROTO_TCP, TCP_CORK, 1);
	for (int i = 0; i < 200; i++)
		put(e, 33);
	setint(e->fd, IPPROTO_TCP, TCP_CORK, 0);
	chat(e);
	put(e, 10);
	IS(put1(e, 10, MSG_MORE), 10);
	conn_close(e);
}

static void more_server(struct end *e)
{
	get(e, 200 * 133);
	chat(e);
	get_all(e);
}

/* The numbers of the sends that are over, as the error queue tells them. */
static int completions(int fd)
{
	char space[256];
	struct msghdr m = { .msg_control = space, .msg_controllen = sizeof(space) };
	struct sock_extended_err *err;
	struct cmsghdr *c;

	if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0) {
		IS(errno, EAGAIN);
		return 0;
	}
	c = CMSG_FIRSTHDR(&m);
	CHECK(c);
	err = (void *)CMSG_DATA(c);
	IS(err->ee_origin, SO_EE_ORIGIN_ZEROCOPY);
	IS(err->ee_errno, 0);
	return err->ee_data - err->ee_info + 1;
}

static void zerocopy_client(struct end *e)
{
	static uint8_t buf[10][20000]; /* one each: they belong to the kernel for a while */
	int over = 0;

	setint(e->fd, SOL_SOCKET, SO_ZEROCOPY, 1);
	for (int i = 0; i < 10; i++) {
		fill(e, buf[i], sizeof(buf[i]));
		IS(send(e->fd, buf[i], sizeof(buf[i]), MSG_ZEROCOPY), sizeof(buf[i]));
	}
	while (over < 10) {
		IS(polled(e->fd, 0, 10000), POLLERR);
		over += completions(e->fd);
	}
	IS(over, 10);
	chat(e);
}

static void zerocopy_server(struct end *e)
{
	get(e, 200000);
	chat(e);
}

/* The error queue is empty where nobody asked for anything. */
static void errqueue_empty(struct end *e)
{
	char c;

	FAILS(recv(e->fd, &c, 1, MSG_ERRQUEUE), EAGAIN);
	chat(e);
}

/* Flags that nobody knows are no reason to fail. */
static void odd_flags_client(struct end *e)
{
	IS(put1(e, 100, MSG_CONFIRM), 100);
	IS(put1(e, 100, MSG_DONTROUTE), 100);
	IS(put1(e, 100, MSG_EOR), 100);
	IS(put1(e, 100, MSG_BATCH), 100);
	chat(e);
}

static void odd_flags_server(struct end *e)
{
	get(e, 400);
	chat(e);
}

const struct test tests_flags[] = {
	{ "peek", peek_client, peek_server, 0, 0 },
	{ "peek_waits", peek_waits_client, peek_waits_server, 0, 0 },
	{ "peek_far", peek_far_client, peek_far_server, 0, 0 },
	{ "waitall", waitall_client, waitall_server, 0, 0 },
	{ "waitall_dontwait", waitall_dontwait, NULL, 0, 0 },
	{ "waitall_signal", waitall_signal_client, waitall_signal_server, 0, 0 },
	{ "waitall_signal_restart", waitall_signal_client, waitall_signal_server, 0, SA_RESTART },
	{ "dontwait", dontwait_client, dontwait_server, 0, 0 },
	{ "trunc", trunc_client, trunc_server, 0, 0 },
	{ "nosignal", nosignal, NULL, 0, 0 },
	{ "sigpipe_kills", sigpipe_kills, NULL, 0, 0 },
	{ "oob", oob_client, oob_server, 0, 0 },
	{ "oob_inline", oob_inline_client, oob_server, 0, 0 },
	{ "oob_none", oob_none, NULL, 0, 0 },
	{ "sigurg", sigurg_client, sigurg_server, 0, 0 },
	{ "more", more_client, more_server, 0, 0 },
	{ "zerocopy", zerocopy_client, zerocopy_server, 0, 0 },
	{ "errqueue_empty", errqueue_empty, NULL, 0, 0 },
	{ "odd_flags", odd_flags_client, odd_flags_server, 0, 0 },
	{ 0 },
};
