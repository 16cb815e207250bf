// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What happens to connections that have not said much yet: they are shared, copied, closed and interrupted as any
 * other, and find to their rings afterwards.
 */
#include "posix.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>

#define SOON_US 20000 /* when a wait is asleep */

static void open_fresh(struct end *e)
{
	conn_open(e, AF_INET);
	if (e->server) {
		get(e, 10);
		put(e, 20);
	} else {
		put(e, 10);
		get(e, 20);
	}
}

/* Both roles: it has come to no harm, and rings carry it. */
static void is_well(struct end *e)
{
	warm_up(e);
	chat(e);
}

static void chats_and_is_well(struct end *e)
{
	open_fresh(e);
	for (int i = 0; i < e->arg; i++)
		chat(e);
	is_well(e);
}

/* ---------------------------------------------------------------- dup, fork, threads */

/* Two numbers in turn; then the one that is left. */
static void in_turn_with_dup(struct end *e)
{
	int other;

	open_fresh(e);
	other = dup(e->fd);
	CHECK(other >= 0);
	for (int i = 0; i < e->arg; i++) {
		int fd = e->fd;

		chat(e);
		e->fd = other;
		other = fd;
	}
	IS(close(other), 0);
	is_well(e);
}

static struct half *shared_halves(void)
{
	struct half *at =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

/* A child says something, and the parent goes on where it stopped. */
static void child_has_it(struct end *e, void (*says)(struct end *e), bool killed)
{
	struct half *at = shared_halves();
	pid_t pid = child();
	int status;

	if (!pid) {
		says(e);
		at[0] = e->rx;
		at[1] = e->tx;
		if (killed)
			raise(SIGKILL);
		done();
	}
	IS(waitpid(pid, &status, 0), pid);
	IS(killed ? WTERMSIG(status) == SIGKILL : !status, true);
	e->rx = at[0];
	e->tx = at[1];
	munmap(at, 4096);
}

static void child_first(struct end *e)
{
	child_has_it(e, chat, false);
}

static void forks(struct end *e)
{
	open_fresh(e);
	for (int i = 0; i < e->arg; i++)
		child_first(e);
	is_well(e);
}

/* It dies about when it has asked for rings. */
static void fork_is_killed(struct end *e)
{
	open_fresh(e);
	child_has_it(e, chat, true);
	is_well(e);
}

static void comes_to_rings(struct end *e)
{
	is_well(e);
	if (!e->server)
		put(e, 100);
	meet(e);
}

/* Only children of both ends have used the rings, and are gone. What they left there, and the rings, are the parents'. */
static void children_end(struct end *e)
{
	open_fresh(e);
	child_has_it(e, comes_to_rings, e->arg);
	nap(1500);
	meet(e);
	if (e->server)
		get(e, 100);
	is_well(e);
}

/* Both have it, and each its own turn: none gets rings of which the other does not know. */
static void forks_in_turn(struct end *e)
{
	struct half *at = shared_halves();
	int pipes[2][2];
	pid_t pid;
	char c = 0;

	open_fresh(e);
	IS(pipe(pipes[0]), 0);
	IS(pipe(pipes[1]), 0);
	at[0] = e->rx;
	at[1] = e->tx;
	pid = child();
	for (int i = 0; i < e->arg / 2; i++) {
		if (!pid)
			IS(read(pipes[0][0], &c, 1), 1);
		e->rx = at[0];
		e->tx = at[1];
		chat(e);
		at[0] = e->rx;
		at[1] = e->tx;
		IS(write(pipes[pid ? 0 : 1][1], &c, 1), 1);
		if (pid)
			IS(read(pipes[1][0], &c, 1), 1);
	}
	if (!pid)
		done();
	reap(pid);
	e->rx = at[0];
	e->tx = at[1];
	is_well(e);
}

static void *takes(void *arg)
{
	struct end *e = arg;

	for (int i = 0; i < e->arg; i++)
		get(e, 70);
	return NULL;
}

/* One thread waits already when the other begins. */
static void threads(struct end *e)
{
	struct end reader;
	pthread_t t;

	open_fresh(e);
	reader = *e;
	IS(pthread_create(&t, NULL, takes, &reader), 0);
	nap(20);
	for (int i = 0; i < e->arg; i++)
		put(e, 50);
	IS(pthread_join(t, NULL), 0);
	e->rx = reader.rx;
	is_well(e);
}

static void threads_partner(struct end *e)
{
	open_fresh(e);
	for (int i = 0; i < e->arg; i++) {
		get(e, 50);
		put(e, 70);
	}
	is_well(e);
}

/* ---------------------------------------------------------------- a handler in the middle of a call */

static struct end *handled;
static void (*in_handler)(struct end *e);

static void on_alarm(int sig)
{
	(void)sig;
	in_handler(handled);
}

static void interrupt_soon(struct end *e, void (*fn)(struct end *e), int flags)
{
	struct itimerval soon = { .it_value = { 0, SOON_US } };

	handled = e;
	in_handler = fn;
	catch_signal(SIGALRM, on_alarm, flags);
	IS(setitimer(ITIMER_REAL, &soon, NULL), 0);
}

/* What comes is for the call that was interrupted: it is waiting in the kernel, whatever the handler did. */
static void takes_one_across(struct end *e, void (*fn)(struct end *e))
{
	struct end waiting;
	char c;

	open_fresh(e);
	waiting = *e;
	interrupt_soon(&waiting, fn, SA_RESTART);
	IS(recv(e->fd, &c, 1, 0), 1);
	*e = waiting;
	took(e, &c, 1);
}

static void chats_meanwhile(struct end *e)
{
	takes_one_across(e, chat);
	is_well(e);
}

static void forks_meanwhile(struct end *e)
{
	takes_one_across(e, child_first);
	chat(e);
}

static void one_more(struct end *e)
{
	open_fresh(e);
	chat(e);
	nap(20);
	put(e, 1);
}

static void chats_partner(struct end *e)
{
	one_more(e);
	is_well(e);
}

static void forks_partner(struct end *e)
{
	one_more(e);
	chat(e);
}

/* The number is another connection's when the call comes back. */
static void another_one(struct end *e)
{
	int fd = e->fd;

	conn_close(e);
	conn_open(e, AF_INET);
	IS(e->fd, fd);
	chat(e);
}

static void replaced_meanwhile(struct end *e)
{
	char c;

	open_fresh(e);
	interrupt_soon(e, another_one, 0);
	FAILS(recv(e->fd, &c, 1, 0), EINTR);
	is_well(e);
}

static void replaced_partner(struct end *e)
{
	open_fresh(e);
	get_eof(e);
	conn_close(e);
	conn_open(e, AF_INET);
	chat(e);
	is_well(e);
}

/* ---------------------------------------------------------------- what was said of it before */

/* In a set since before it was connected, and closed before the set is asked. */
static void closed_in_a_set(struct end *e)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 7 }, out;
	struct sockaddr_storage a;
	int set = epoll_create1(EPOLL_CLOEXEC), fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len;

	IS(epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev), 0);
	address(&a, &len, AF_INET, hear(e));
	IS(connect(fd, (void *)&a, len), 0);
	IS(close(fd), 0);
	conn_open(e, AF_INET);
	IS(e->fd, fd);
	is_well(e);
	put(e, 1);
	arrived(e->fd, 1);
	IS(epoll_wait(set, &out, 1, 0), 0);
	ev.data.u64 = 8;
	IS(epoll_ctl(set, EPOLL_CTL_ADD, e->fd, &ev), 0);
	IS(epoll_wait(set, &out, 1, 0), 1);
	IS(out.data.u64, 8);
	get(e, 1);
	IS(close(set), 0);
}

static void closed_in_a_set_partner(struct end *e)
{
	int listener = listen_any(e, AF_INET), fd;
	char c;

	e->listener = listener;
	tell(e, e->port);
	fd = accept(listener, NULL, NULL);
	CHECK(fd >= 0);
	IS(read(fd, &c, 1), 0);
	IS(close(fd), 0);
	conn_open(e, AF_INET);
	is_well(e);
	get(e, 1);
	put(e, 1);
}

/* Options that rings have to obey are set before there are any. */
static void options_hold(struct end *e)
{
	struct timeval tv = { 0, 50000 };

	open_fresh(e);
	IS(setsockopt(e->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	meet(e);
	is_well(e);
	FAILS(get1(e, 1, 0), EAGAIN);
	meet(e);
	nonblock(e->fd, true);
	FAILS(get1(e, 1, 0), EAGAIN);
	nonblock(e->fd, false);
	meet(e);
	chat(e);
}

static void options_partner(struct end *e)
{
	open_fresh(e);
	nonblock(e->fd, true); /* as early: it has to be noted */
	FAILS(get1(e, 1, 0), EAGAIN);
	nonblock(e->fd, false);
	meet(e);
	is_well(e);
	meet(e);
	meet(e);
	chat(e);
}

static void half_closes(struct end *e)
{
	open_fresh(e);
	IS(shutdown(e->fd, SHUT_WR), 0);
	get(e, 5000);
	get_eof(e);
	FAILS(put1(e, 1, MSG_NOSIGNAL), EPIPE);
}

static void half_closes_partner(struct end *e)
{
	open_fresh(e);
	get_eof(e);
	for (int i = 0; i < 50; i++)
		put(e, 100);
	IS(shutdown(e->fd, SHUT_WR), 0);
}

/* Urgent data and the error queue are the kernel's, and no messages. */
static void urgent(struct end *e)
{
	char c = 0;

	open_fresh(e);
	if (e->server) {
		IS(send(e->fd, "!", 1, MSG_OOB), 1);
	} else {
		IS(polled(e->fd, POLLPRI, 10000) & POLLPRI, POLLPRI);
		IS(recv(e->fd, &c, 1, MSG_OOB), 1);
		IS(c, '!');
		FAILS(recv(e->fd, &c, 1, MSG_ERRQUEUE), EAGAIN);
	}
	chat(e);
}

const struct test tests_fresh[] = {
	{ "fresh_few", chats_and_is_well, NULL, RAW, 0 },
	{ "fresh_many", chats_and_is_well, NULL, RAW, 3 },
	{ "fresh_dup", in_turn_with_dup, chats_and_is_well, RAW, 6 },
	{ "fresh_forks", forks, chats_and_is_well, RAW, 4 },
	{ "fresh_fork_killed", fork_is_killed, chats_and_is_well, RAW, 1 },
	{ "fresh_children_end", children_end, NULL, RAW, 0 },
	{ "fresh_children_killed", children_end, NULL, RAW, 1 },
	{ "fresh_forks_in_turn", forks_in_turn, chats_and_is_well, RAW, 8 },
	{ "fresh_threads", threads, threads_partner, RAW, 60 },
	{ "fresh_handler_chats", chats_meanwhile, chats_partner, RAW, 0 },
	{ "fresh_handler_forks", forks_meanwhile, forks_partner, RAW, 0 },
	{ "fresh_handler_reconnects", replaced_meanwhile, replaced_partner, RAW, 0 },
	{ "fresh_closed_in_a_set", closed_in_a_set, closed_in_a_set_partner, RAW, 0 },
	{ "fresh_options", options_hold, options_partner, RAW, 0 },
	{ "fresh_half_closes", half_closes, half_closes_partner, RAW, 0 },
	{ "fresh_urgent", urgent, NULL, RAW, 0 },
	{ 0 },
};
