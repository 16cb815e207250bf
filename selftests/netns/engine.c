// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Driving the streams of many connections: threads, a forked writer, poll, epoll. */
#define _GNU_SOURCE
#include "traffic.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#define LONGEST_WAIT 200 /* ms; the stop word is looked at at least so often */

/* ---------------------------------------------------------------- blocking */

static void sit_out(const struct dir *d)
{
	uint64_t now = now_ms();

	if (d->not_before > now)
		sleep_ms(d->not_before - now);
}

/* The end of an open-ended stream is its FIN. */
static void finish_tx(struct end *e)
{
	if (opt.seconds && !opt.repeat && shutdown(e->fd, SHUT_WR))
		fail_errno("shutdown(SHUT_WR)");
}

static void *tx_thread(void *arg)
{
	struct end *e = arg;

	while (!tx_finished(e)) {
		sit_out(&e->tx);
		if (!tx_step(e))
			fail("EAGAIN from a blocking send");
	}
	finish_tx(e);
	return NULL;
}

static void *rx_thread(void *arg)
{
	struct end *e = arg;

	while (!rx_finished(e)) {
		sit_out(&e->rx);
		if (!rx_step(e) && !spurious_eagain(e))
			fail("EAGAIN from a blocking receive at position %llu",
			     (unsigned long long)e->rx.pos);
	}
	return NULL;
}

static pthread_t start_thread(void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	if (pthread_create(&t, &attr, fn, arg))
		fail("cannot start a thread");
	pthread_attr_destroy(&attr);
	return t;
}

static void run_threads(struct end *ends, unsigned int n)
{
	pthread_t t[2 * MAX_CONNS];

	for (unsigned int i = 0; i < n; i++) {
		t[2 * i] = start_thread(tx_thread, &ends[i]);
		t[2 * i + 1] = start_thread(rx_thread, &ends[i]);
	}
	for (unsigned int i = 0; i < 2 * n; i++)
		pthread_join(t[i], NULL);
}

static pid_t fork_writer(struct end *e)
{
	pid_t pid = fork();

	if (pid < 0)
		fail_errno("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	tx_thread(e);
	_exit(EXIT_GOOD);
}

static void run_fork(struct end *ends, unsigned int n)
{
	pid_t pid[MAX_CONNS];
	pthread_t t[MAX_CONNS];
	int status;

	/* Fork first: a child of a process with threads may do little. */
	for (unsigned int i = 0; i < n; i++)
		pid[i] = fork_writer(&ends[i]);
	for (unsigned int i = 0; i < n; i++)
		t[i] = start_thread(rx_thread, &ends[i]);
	for (unsigned int i = 0; i < n; i++) {
		if (waitpid(pid[i], &status, 0) < 0)
			fail_errno("waitpid");
		if (status)
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_BAD);
		pthread_join(t[i], NULL);
		ends[i].tx.finished = true;
	}
}

/* ---------------------------------------------------------------- events */

static bool wants(const struct dir *d, uint64_t now)
{
	return !d->finished && d->not_before <= now;
}

static int time_left(const struct end *ends, unsigned int n, uint64_t now)
{
	uint64_t until = now + LONGEST_WAIT;

	for (unsigned int i = 0; i < n; i++) {
		const struct dir *d[2] = { &ends[i].tx, &ends[i].rx };

		for (int k = 0; k < 2; k++)
			if (!d[k]->finished && d[k]->not_before > now && d[k]->not_before < until)
				until = d[k]->not_before;
	}
	return until - now;
}

static void note_events(struct end *e, unsigned int events)
{
	/* EPOLLIN and POLLIN are the same bits; an error is found by the next call. */
	if (events & (POLLIN | POLLERR | POLLHUP))
		e->rx.ready = true;
	if (events & (POLLOUT | POLLERR | POLLHUP))
		e->tx.ready = true;
}

static unsigned int interest(const struct end *e, uint64_t now)
{
	return (wants(&e->rx, now) ? POLLIN : 0) | (wants(&e->tx, now) ? POLLOUT : 0);
}

static void wait_poll(struct end *ends, unsigned int n)
{
	struct pollfd p[MAX_CONNS];
	uint64_t now = now_ms();

	for (unsigned int i = 0; i < n; i++) {
		p[i].events = interest(&ends[i], now);
		p[i].fd = p[i].events ? ends[i].fd : -1;
		p[i].revents = 0;
	}
	if (poll(p, n, time_left(ends, n, now)) < 0 && errno != EINTR)
		fail_errno("poll");
	for (unsigned int i = 0; i < n; i++)
		note_events(&ends[i], p[i].revents);
}

static void wait_epoll(int ep, struct end *ends, unsigned int n, bool edge)
{
	struct epoll_event ev[MAX_CONNS];
	uint64_t now = now_ms();
	int got;

	for (unsigned int i = 0; !edge && i < n; i++) {
		struct epoll_event e = { .events = interest(&ends[i], now), .data.u32 = i };

		if (epoll_ctl(ep, EPOLL_CTL_MOD, ends[i].fd, &e))
			fail_errno("epoll_ctl");
	}
	got = epoll_wait(ep, ev, MAX_CONNS, time_left(ends, n, now));
	if (got < 0 && errno != EINTR)
		fail_errno("epoll_wait");
	for (int i = 0; i < got; i++)
		note_events(&ends[ev[i].data.u32], ev[i].events);
}

static int make_epoll(struct end *ends, unsigned int n, bool edge)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (ep < 0)
		fail_errno("epoll_create1");
	for (unsigned int i = 0; i < n; i++) {
		struct epoll_event e = { .data.u32 = i };

		if (edge)
			e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
		if (epoll_ctl(ep, EPOLL_CTL_ADD, ends[i].fd, &e))
			fail_errno("epoll_ctl");
	}
	return ep;
}

/* With edges a direction stays ready until EAGAIN; without, each call needs a new event. */
static bool step(struct end *e, struct dir *d, int (*fn)(struct end *), bool edge)
{
	if (d->finished || !d->ready || d->not_before > now_ms())
		return false;
	if (!fn(e) || !edge)
		d->ready = false;
	return true;
}

/* Returns whether anything is left to do. */
static bool loop_once(struct end *ends, unsigned int n, bool edge, bool *moved)
{
	bool left = false;

	*moved = false;
	for (unsigned int i = 0; i < n; i++) {
		struct end *e = &ends[i];
		bool was_finished = e->tx.finished;

		*moved |= step(e, &e->tx, tx_step, edge);
		*moved |= step(e, &e->rx, rx_step, edge);
		if (tx_finished(e) && !was_finished)
			finish_tx(e);
		if (!rx_finished(e) || !e->tx.finished)
			left = true;
	}
	return left;
}

static void run_events(struct end *ends, unsigned int n, enum io_kind kind)
{
	bool edge = kind == IO_EPOLL_ET, moved;
	int ep = kind == IO_POLL ? -1 : make_epoll(ends, n, edge);

	for (unsigned int i = 0; i < n; i++)
		if (!tx_finished(&ends[i]))
			rx_finished(&ends[i]);
	while (loop_once(ends, n, edge, &moved)) {
		if (edge && moved)
			continue;
		if (kind == IO_POLL)
			wait_poll(ends, n);
		else
			wait_epoll(ep, ends, n, edge);
	}
	if (ep >= 0)
		close(ep);
}

static bool is_blocking(enum io_kind kind)
{
	return kind == IO_THREADS || kind == IO_FORK;
}

void engine_run(struct end *ends, unsigned int n)
{
	enum io_kind kind = opt.side[own].io;

	for (unsigned int i = 0; i < n; i++) {
		set_nonblock(ends[i].fd, !is_blocking(kind));
		ends[i].rx.not_before = now_ms() + opt.side[own].sleep_rx;
	}
	if (kind == IO_THREADS)
		run_threads(ends, n);
	else if (kind == IO_FORK)
		run_fork(ends, n);
	else
		run_events(ends, n, kind);
	for (unsigned int i = 0; i < n; i++)
		set_nonblock(ends[i].fd, false);
}

/* ---------------------------------------------------------------- request and response */

/* One direction until its total, with the same calls and events as for streams. */
static void drive(struct end *e, int ep, bool sending)
{
	struct dir *d = sending ? &e->tx : &e->rx;
	enum io_kind kind = opt.side[own].io;
	bool edge = kind == IO_EPOLL_ET;

	d->finished = false;
	while (!(sending ? tx_finished(e) : rx_finished(e))) {
		if (is_blocking(kind)) {
			sit_out(d);
			if (!(sending ? tx_step(e) : rx_step(e)) &&
			    (sending || !spurious_eagain(e)))
				fail("EAGAIN from a blocking call");
		} else if (!step(e, d, sending ? tx_step : rx_step, edge)) {
			if (kind == IO_POLL)
				wait_poll(e, 1);
			else
				wait_epoll(ep, e, 1, edge);
		}
	}
}

static void *rounds_thread(void *arg)
{
	struct end *e = arg;
	struct rng script = { .state = opt.seed ^ e->index };
	enum io_kind kind = opt.side[own].io;
	int ep = kind == IO_EPOLL_LT || kind == IO_EPOLL_ET ? make_epoll(e, 1, kind == IO_EPOLL_ET)
							    : -1;

	e->tx.finished = e->rx.finished = true;
	for (unsigned int i = 0; i < opt.rounds; i++) {
		size_t request = sizes_draw(&opt.side[CLIENT].send_sizes, &script);
		size_t response = sizes_draw(&opt.side[SERVER].send_sizes, &script);

		if (own == CLIENT) {
			e->tx.total += request;
			drive(e, ep, true);
			e->rx.total += response;
			drive(e, ep, false);
		} else {
			e->rx.total += request;
			drive(e, ep, false);
			e->tx.total += response;
			drive(e, ep, true);
		}
	}
	if (ep >= 0)
		close(ep);
	return NULL;
}

void engine_rounds(struct end *ends, unsigned int n)
{
	pthread_t t[MAX_CONNS];

	for (unsigned int i = 0; i < n; i++) {
		set_nonblock(ends[i].fd, !is_blocking(opt.side[own].io));
		t[i] = start_thread(rounds_thread, &ends[i]);
	}
	for (unsigned int i = 0; i < n; i++) {
		pthread_join(t[i], NULL);
		set_nonblock(ends[i].fd, false);
	}
}
