// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Signals: interrupted calls with and without SA_RESTART, handlers that use sockets, what sigaction() says. */
#define _GNU_SOURCE
#include "posix.h"
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>

static volatile sig_atomic_t signals;
static sigjmp_buf back;
static struct end *in_handler;

static void count(int sig)
{
	(void)sig;
	signals++;
}

static void jump(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

static void write_there(int sig)
{
	(void)sig;
	signals++;
	put(in_handler, 100);
}

/* ---------------------------------------------------------------- interrupted calls */

enum { RECV, READ, SEND, POLLS, SELECTS, EPOLLS, PPOLLS, TIMEO, PEEKS };

static void interrupted_call(struct end *e, int call)
{
	struct pollfd p = { .fd = e->fd, .events = POLLIN };
	struct timespec hour = { 3600, 0 };
	struct timeval t = { 3600, 0 };
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(0);
	fd_set in;
	char c;

	FD_ZERO(&in);
	FD_SET(e->fd, &in);
	IS(epoll_ctl(ep, EPOLL_CTL_ADD, e->fd, &ev), 0);
	switch (call) {
	case RECV:
		FAILS(recv(e->fd, &c, 1, 0), EINTR);
		break;
	case PEEKS:
		FAILS(recv(e->fd, &c, 1, MSG_PEEK), EINTR);
		break;
	case READ:
		FAILS(read(e->fd, &c, 1), EINTR);
		break;
	case POLLS:
		FAILS(poll(&p, 1, -1), EINTR);
		break;
	case PPOLLS:
		FAILS(ppoll(&p, 1, &hour, NULL), EINTR);
		break;
	case SELECTS:
		FAILS(select(e->fd + 1, &in, NULL, NULL, NULL), EINTR);
		break;
	case EPOLLS:
		FAILS(epoll_wait(ep, &ev, 1, -1), EINTR);
		break;
	case TIMEO: /* with a time limit a receive is never restarted */
		IS(setsockopt(e->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)), 0);
		FAILS(recv(e->fd, &c, 1, 0), EINTR);
		t.tv_sec = 0;
		IS(setsockopt(e->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)), 0);
		break;
	}
	close(ep);
}

static void interrupt_client(struct end *e)
{
	catch_signal(SIGUSR1, count, e->arg & 256 ? SA_RESTART : 0);
	tell(e, getpid());
	interrupted_call(e, e->arg & 255);
	CHECK(signals > 0);
	tell(e, 0);
	chat(e);
}

static void interrupt_server(struct end *e)
{
	disturb(e);
	chat(e);
}

/* A send that blocks: EINTR before the first byte, a count after it. */
static void interrupt_send_client(struct end *e)
{
	ssize_t n;

	catch_signal(SIGUSR1, count, 0);
	tell(e, getpid());
	while (!signals) {
		n = put1(e, 300000, 0);
		if (n < 0)
			IS(errno, EINTR);
		CHECK(e->tx.n < 512u << 20);
	}
	tell(e, e->tx.n);
	chat(e);
}

static void interrupt_send_server(struct end *e)
{
	pid_t pid = hear(e);

	while (!heard(e, 200))
		kill(pid, SIGUSR1);
	get(e, hear(e));
	chat(e);
}

/* An old function that programs still use. */
static void interrupts(int sig, int on)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	IS(siginterrupt(sig, on), 0);
#pragma GCC diagnostic pop
}

/* The kinds of handler after which a receive goes on. */
static void install(int how)
{
	switch (how) {
	case 0:
		catch_signal(SIGUSR1, count, SA_RESTART);
		break;
	case 1:
		signal(SIGUSR1, count);
		break;
	case 2:
		catch_signal(SIGUSR1, count, 0);
		interrupts(SIGUSR1, 0);
		break;
	case 3:
		catch_signal(SIGUSR1, count, SA_RESTART | SA_NODEFER);
		break;
	}
}

static void restart_client(struct end *e)
{
	install(e->arg);
	tell(e, getpid());
	get(e, 100); /* comes after three signals */
	CHECK(signals > 0);
	chat(e);
}

static void restart_server(struct end *e)
{
	pid_t pid = hear(e);

	for (int i = 0; i < 3; i++) {
		nap(40);
		kill(pid, SIGUSR1);
	}
	nap(40);
	put(e, 100);
	chat(e);
}

/* The other kinds: not restarted, or the handler is there only once. */
static void no_restart_client(struct end *e)
{
	char c;

	switch (e->arg) {
	case 0:
		signal(SIGUSR1, count);
		interrupts(SIGUSR1, 1);
		break;
	case 1:
		sysv_signal(SIGUSR1, count);
		break;
	case 2:
		catch_signal(SIGUSR1, count, SA_RESETHAND);
		break;
	}
	tell(e, getpid());
	FAILS(recv(e->fd, &c, 1, 0), EINTR);
	IS(signals, 1);
	if (e->arg)
		CHECK(signal(SIGUSR1, SIG_DFL) == SIG_DFL);
	tell(e, 0);
	chat(e);
}

static void no_restart_server(struct end *e)
{
	pid_t pid = hear(e);

	if (e->arg) { /* a second one would kill */
		nap(150);
		kill(pid, SIGUSR1);
	} else {
		while (!heard(e, 40))
			kill(pid, SIGUSR1);
	}
	hear(e);
	chat(e);
}

/* An ignored signal disturbs nobody. */
static void ignored_client(struct end *e)
{
	signal(SIGUSR1, SIG_IGN);
	tell(e, getpid());
	get(e, 100);
	chat(e);
}

/* alarm() is how old programs limit a receive. */
static void alarm_client(struct end *e)
{
	char c;

	catch_signal(SIGALRM, count, 0);
	setitimer(ITIMER_REAL,
		  &(struct itimerval){ .it_interval = { 0, 50000 }, .it_value = { 0, 50000 } },
		  NULL);
	FAILS(recv(e->fd, &c, 1, 0), EINTR);
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	CHECK(signals > 0);
	alarm(30);
	chat(e);
}

static void just_chat(struct end *e)
{
	chat(e);
}

/* Or they jump out of it. */
static void jump_client(struct end *e)
{
	volatile int rounds = 0;

	catch_signal(SIGALRM, jump, 0);
	for (; rounds < 5; rounds++) {
		if (!sigsetjmp(back, 1)) {
			setitimer(ITIMER_REAL, &(struct itimerval){ .it_value = { 0, 30000 } },
				  NULL);
			get(e, 1);
			FAIL("nothing should have come");
		}
	}
	alarm(0);
	chat(e);
}

/* The same out of a blocked send; the partner reads what was sent, whatever it was. */
static void jump_send_client(struct end *e)
{
	static char zero[100000];
	char c = 1;

	catch_signal(SIGALRM, jump, 0);
	if (!sigsetjmp(back, 1)) {
		setitimer(ITIMER_REAL, &(struct itimerval){ .it_value = { 0, 100000 } }, NULL);
		for (;;)
			send(e->fd, zero, sizeof(zero), 0);
	}
	alarm(0);
	tell(e, 0);
	IS(send(e->fd, &c, 1, 0), 1);
	conn_close(e);
}

static void jump_send_server(struct end *e)
{
	static char buf[100000];
	ssize_t n;
	char last = 0;

	hear(e);
	while ((n = recv(e->fd, buf, sizeof(buf), 0)) > 0)
		last = buf[n - 1];
	IS(n, 0);
	IS(last, 1);
}

/* ---------------------------------------------------------------- handlers that use sockets */

static void handler_writes_client(struct end *e)
{
	struct end other = { .fd = -1, .ctl = e->ctl, .listener = -1 };

	conn_open(&other, AF_INET);
	warm_up(&other);
	in_handler = e->arg ? e : &other;
	catch_signal(SIGUSR1, write_there, SA_RESTART);
	tell(e, getpid());
	get(e, 100); /* while the handler writes, there or here */
	CHECK(signals > 0);
	conn_close(&other);
	meet(e);
	conn_close(e);
}

static void handler_writes_server(struct end *e)
{
	struct end other = { .fd = -1, .ctl = e->ctl, .listener = -1, .server = true };
	pid_t pid;

	conn_open(&other, AF_INET);
	warm_up(&other);
	pid = hear(e);
	for (int i = 0; i < 3; i++) {
		nap(40);
		kill(pid, SIGUSR1);
		get(e->arg ? e : &other, 100);
	}
	put(e, 100);
	get_all(&other);
	meet(e);
	get_all(e);
}

/* In the middle of a flood of signals nothing is lost or doubled. */
static void storm_client(struct end *e)
{
	catch_signal(SIGALRM, count, e->arg);
	setitimer(ITIMER_REAL,
		  &(struct itimerval){ .it_interval = { 0, 300 }, .it_value = { 0, 300 } }, NULL);
	while (e->tx.n < 3000000 || e->rx.n < 3000000) {
		if (e->tx.n < 3000000 && put1(e, 3000, 0) < 0)
			IS(errno, EINTR);
		if (e->rx.n < e->tx.n && get1(e, e->tx.n - e->rx.n, 0) < 0)
			IS(errno, EINTR);
	}
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	CHECK(signals > 10);
	IS(shutdown(e->fd, SHUT_WR), 0);
}

static void storm_server(struct end *e)
{
	ssize_t n;

	while ((n = get1(e, 5000, 0)) > 0)
		put(e, n);
	IS(n, 0);
}

/* ---------------------------------------------------------------- sigaction() and masks */

static void info(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	signals += sig == SIGUSR2 && si->si_pid == getpid();
}

static void oldact(struct end *e)
{
	struct sigaction sa = { .sa_handler = count, .sa_flags = SA_NODEFER }, old;

	sigaddset(&sa.sa_mask, SIGUSR2);
	IS(sigaction(SIGUSR1, NULL, &old), 0);
	CHECK(old.sa_handler == SIG_DFL);
	IS(sigaction(SIGUSR1, &sa, NULL), 0);
	IS(sigaction(SIGUSR1, NULL, &old), 0);
	CHECK(old.sa_handler == count);
	IS(old.sa_flags & ~0x04000000, SA_NODEFER); /* SA_RESTORER is the C library's */
	CHECK(sigismember(&old.sa_mask, SIGUSR2) == 1 && sigismember(&old.sa_mask, SIGUSR1) == 0);
	CHECK(signal(SIGUSR1, SIG_IGN) == count);
	CHECK(signal(SIGUSR1, jump) == SIG_IGN);
	CHECK(signal(SIGUSR1, SIG_DFL) == jump);
	sa = (struct sigaction){ .sa_sigaction = info, .sa_flags = SA_SIGINFO };
	IS(sigaction(SIGUSR2, &sa, NULL), 0);
	IS(kill(getpid(), SIGUSR2), 0);
	IS(signals, 1);
	IS(sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = SIG_DFL }, &old), 0);
	CHECK(old.sa_sigaction == info && old.sa_flags & SA_SIGINFO);
	FAILS(sigaction(SIGKILL, &sa, NULL), EINVAL);
	FAILS(sigaction(9999, &sa, NULL), EINVAL);
	CHECK(signal(SIGKILL, count) == SIG_ERR && errno == EINVAL);
	chat(e);
}

/* A mask for the time of the wait: the pending signal comes then, and only then. */
static void masks_client(struct end *e)
{
	sigset_t block, none, all;
	struct pollfd p = { .fd = e->fd, .events = POLLIN };
	struct epoll_event ev = { .events = EPOLLIN };
	struct timespec soon = { 0, 50000000 };
	int ep = epoll_create1(0);
	fd_set in;

	FD_ZERO(&in);
	FD_SET(e->fd, &in);
	sigemptyset(&none);
	sigfillset(&all);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	IS(epoll_ctl(ep, EPOLL_CTL_ADD, e->fd, &ev), 0);
	IS(sigprocmask(SIG_BLOCK, &block, NULL), 0);
	catch_signal(SIGUSR1, count, SA_RESTART);
	kill(getpid(), SIGUSR1);
	IS(ppoll(&p, 1, &soon, &all), 0);
	IS(epoll_pwait(ep, &ev, 1, 50, &all), 0);
	IS(signals, 0);
	FAILS(ppoll(&p, 1, NULL, &none), EINTR);
	IS(signals, 1);
	kill(getpid(), SIGUSR1);
	FAILS(pselect(e->fd + 1, &in, NULL, NULL, NULL, &none), EINTR);
	IS(signals, 2);
	kill(getpid(), SIGUSR1);
	FAILS(epoll_pwait(ep, &ev, 1, -1, &none), EINTR);
	IS(signals, 3);
	nap(10);
	IS(sigprocmask(SIG_BLOCK, NULL, &none), 0);
	IS(sigismember(&none, SIGUSR1), 1);
	chat(e);
}

#define INTERRUPT(name, call)                                                                      \
	{ name, interrupt_client, interrupt_server, 0, call },                                     \
	{                                                                                          \
		name "_restart", interrupt_client, interrupt_server, 0, 256 | (call)               \
	}

const struct test tests_signal[] = {
	{ "eintr_recv", interrupt_client, interrupt_server, 0, RECV },
	{ "eintr_peek", interrupt_client, interrupt_server, 0, PEEKS },
	{ "eintr_read", interrupt_client, interrupt_server, 0, READ },
	INTERRUPT("eintr_poll", POLLS),
	INTERRUPT("eintr_ppoll", PPOLLS),
	INTERRUPT("eintr_select", SELECTS),
	INTERRUPT("eintr_epoll", EPOLLS),
	INTERRUPT("eintr_timeo", TIMEO),
	{ "eintr_send", interrupt_send_client, interrupt_send_server, 0, 0 },
	{ "restart_sigaction", restart_client, restart_server, 0, 0 },
	{ "restart_signal", restart_client, restart_server, 0, 1 },
	{ "restart_siginterrupt", restart_client, restart_server, 0, 2 },
	{ "restart_nodefer", restart_client, restart_server, 0, 3 },
	{ "no_restart_siginterrupt", no_restart_client, no_restart_server, 0, 0 },
	{ "no_restart_sysv_signal", no_restart_client, no_restart_server, 0, 1 },
	{ "no_restart_resethand", no_restart_client, no_restart_server, 0, 2 },
	{ "ignored_signal", ignored_client, restart_server, 0, 0 },
	{ "alarm_recv", alarm_client, just_chat, 0, 0 },
	{ "longjmp_recv", jump_client, just_chat, 0, 0 },
	{ "longjmp_send", jump_send_client, jump_send_server, 0, 0 },
	{ "handler_writes_elsewhere", handler_writes_client, handler_writes_server, 0, 0 },
	{ "handler_writes_here", handler_writes_client, handler_writes_server, 0, 1 },
	{ "signal_storm", storm_client, storm_server, 0, 0 },
	{ "signal_storm_restart", storm_client, storm_server, 0, SA_RESTART },
	{ "sigaction_old", oldact, NULL, 0, 0 },
	{ "signal_masks", masks_client, just_chat, 0, 0 },
	{ 0 },
};
