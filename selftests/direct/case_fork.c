// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* fork() and descriptors that travel: who has the connection then, and that every byte is read once. */
#include "posix.h"
#include <sys/mman.h>
#include <sys/wait.h>

static void just_chat(struct end *e)
{
	for (int i = 0; i < 3; i++)
		chat(e);
	get_eof(e);
}

/* The child goes on, the parent has closed. */
static void child_takes_over(struct end *e)
{
	pid_t pid = child();

	if (!pid) {
		chat(e);
		chat(e);
		chat(e);
		done();
	}
	conn_close(e);
	reap(pid);
}

/* A server that forks for each connection, before there are rings. */
static void fork_per_connection(struct end *e)
{
	pid_t pid[8];

	for (int i = 0; i < 8; i++) {
		conn_open(e, AF_INET);
		pid[i] = child();
		if (!pid[i]) {
			close(e->listener);
			e->ctl = -1;
			for (int k = 0; k < 20; k++)
				chat(e);
			done();
		}
		conn_close(e);
	}
	for (int i = 0; i < 8; i++)
		reap(pid[i]);
}

/* Parent and child in turn: one has the place of the other. */
static void in_turn(struct end *e)
{
	struct half *at =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int there[2], back[2];
	char c = 0;
	pid_t pid;

	IS(pipe(there), 0);
	IS(pipe(back), 0);
	pid = child();
	for (int i = 0; i < 50; i++) {
		if (!pid)
			IS(read(there[0], &c, 1), 1);
		if (i || !pid) {
			e->rx = at[0];
			e->tx = at[1];
		}
		chat(e);
		get(e, 999);
		put(e, 555);
		at[0] = e->rx;
		at[1] = e->tx;
		if (pid) {
			IS(write(there[1], &c, 1), 1);
			IS(read(back[0], &c, 1), 1);
		} else {
			IS(write(back[1], &c, 1), 1);
		}
	}
	if (!pid)
		done();
	reap(pid);
}

static void in_turn_partner(struct end *e)
{
	for (int i = 0; i < 100; i++) {
		chat(e);
		put(e, 999);
		get(e, 555);
	}
	get_eof(e);
}

/* ---------------------------------------------------------------- at the same time */

struct tally {
	uint64_t bytes, sum;
};

static void tally_all(struct end *e, struct tally *t)
{
	static uint8_t buf[3000];
	ssize_t n;

	while ((n = recv(e->fd, buf, sizeof(buf), 0)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			t->sum += buf[i];
		t->bytes += n;
	}
	IS(n, 0);
}

static void tally_of(uint64_t seed, uint64_t len, struct tally *t)
{
	uint8_t c;

	*t = (struct tally){ len, 0 };
	for (uint64_t i = 0; i < len; i++) {
		pattern_fill(seed, i, &c, 1);
		t->sum += c;
	}
}

/* Both read: each byte comes to one of them. */
static void both_read(struct end *e)
{
	struct tally *t =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct tally want;
	pid_t pid;

	if (e->server) {
		for (int i = 0; i < 3000; i++) {
			put(e, 1 + i % 1500);
			if (i % 300 == 0)
				nap(2);
		}
		conn_close(e);
		return;
	}
	pid = child();
	tally_all(e, &t[!pid]);
	if (!pid)
		done();
	reap(pid);
	tally_of(e->rx.seed, 2251500, &want);
	IS(t[0].bytes + t[1].bytes, want.bytes);
	IS(t[0].sum + t[1].sum, want.sum);
}

/* Both write one kind of byte each. */
static void both_write(struct end *e)
{
	static uint8_t buf[700];
	uint64_t n[2] = { 0 };
	ssize_t len;
	pid_t pid;

	if (e->server) {
		while ((len = recv(e->fd, buf, sizeof(buf), 0)) > 0)
			for (ssize_t i = 0; i < len; i++)
				n[buf[i] & 1]++;
		IS(len, 0);
		IS(n[0], 1400000);
		IS(n[1], 1400000);
		return;
	}
	pid = child();
	memset(buf, !pid, sizeof(buf));
	for (int i = 0; i < 2000; i++)
		IS(send(e->fd, buf, sizeof(buf), 0), sizeof(buf));
	if (!pid)
		done();
	conn_close(e);
	reap(pid);
}

/* The child writes, the parent reads, as an inetd pair does. */
static void one_each_way(struct end *e)
{
	pid_t pid = child();

	if (!pid) {
		for (int i = 0; i < 2000; i++)
			put(e, 1 + i % 2000);
		IS(shutdown(e->fd, SHUT_WR), 0);
		done();
	}
	get_all(e);
	IS(e->rx.n, 2001000);
	reap(pid);
}

/* ---------------------------------------------------------------- children that come and go */

/* A child that has nothing to do with it ends: @arg says how. */
static void child_ends(struct end *e)
{
	int status;
	pid_t pid;

	if (e->server) {
		just_chat(e);
		return;
	}
	chat(e);
	pid = child();
	if (!pid) {
		if (e->arg == 0)
			_exit(0);
		if (e->arg == 1)
			exit(0);
		if (e->arg == 3)
			close(e->fd);
		kill(getpid(), SIGKILL);
	}
	IS(waitpid(pid, &status, 0), pid);
	chat(e);
	IS(polled(e->fd, POLLIN, 30), 0);
	chat(e);
	conn_close(e);
}

/* A child is killed while it reads: the parent has the rest of the connection. */
static void child_killed_reading(struct end *e)
{
	int status;
	pid_t pid;

	if (e->server) {
		meet(e);
		put(e, 100);
		chat(e);
		return;
	}
	pid = child();
	if (!pid) {
		char c;

		recv(e->fd, &c, 1, 0);
		_exit(1);
	}
	nap(100);
	kill(pid, SIGKILL);
	IS(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	meet(e);
	get(e, 100);
	chat(e);
}

/* Many generations. */
static void generations(struct end *e)
{
	for (int i = 0; i < 6; i++) {
		pid_t pid;

		chat(e);
		pid = child();
		if (pid) {
			reap(pid);
			done();
		}
	}
	chat(e);
	done();
}

static void generations_partner(struct end *e)
{
	for (int i = 0; i < 7; i++)
		chat(e);
	get_eof(e);
}

/* daemon(): the parent ends, the grandchild has it. */
static void daemonize(struct end *e)
{
	pid_t pid = child();

	if (!pid) {
		pid = child();
		if (pid)
			exit(0);
		for (int i = 0; i < 200 && getppid() != 1; i++)
			nap(1);
		chat(e);
		chat(e);
		chat(e);
		tell(e, 1);
		done();
	}
	conn_close(e);
	reap(pid);
	IS(hear(e), 1);
}

static void daemonize_partner(struct end *e)
{
	just_chat(e);
	hear(e);
	tell(e, 1);
}

/* ---------------------------------------------------------------- SCM_RIGHTS */

/* To a child that was there before the connection. */
static void passed_to_child(struct end *e)
{
	int pair[2];
	pid_t pid;

	IS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pid = child();
	if (!pid) {
		e->tx.seed = e->server ? 2 : 1;
		e->rx.seed = e->server ? 1 : 2;
		e->fd = recv_fd(pair[1]);
		IS(read(pair[1], &e->tx.n, 8), 8);
		IS(read(pair[1], &e->rx.n, 8), 8);
		chat(e);
		chat(e);
		done();
	}
	conn_open(e, AF_INET);
	warm_up(e);
	chat(e);
	send_fd(pair[0], e->fd);
	IS(write(pair[0], &e->tx.n, 8), 8);
	IS(write(pair[0], &e->rx.n, 8), 8);
	conn_close(e);
	reap(pid);
}

static void passed_partner(struct end *e)
{
	conn_open(e, AF_INET);
	warm_up(e);
	for (int i = 0; i < 3; i++)
		chat(e);
	get_eof(e);
}

/* To the other role: no relative. It then has both ends. */
static void passed_to_stranger(struct end *e)
{
	struct end other;

	chat(e);
	if (e->server) {
		put(e, 3000); /* unread at that time */
		meet(e);
		send_fd(e->ctl, e->fd);
		conn_close(e);
		meet(e);
		return;
	}
	meet(e);
	other = *e;
	other.fd = recv_fd(e->ctl);
	other.tx = (struct half){ 2, e->rx.n + 3000 };
	other.rx = (struct half){ 1, e->tx.n };
	for (int i = 0; i < 30; i++) {
		put(e, 100);
		get(&other, 100);
		put(&other, 200);
		get(e, 200);
	}
	get(e, 3000);
	meet(e);
	close(other.fd);
	get_eof(e);
}

const struct test tests_fork[] = {
	{ "fork_child_takes_over", just_chat, child_takes_over, 0, 0 },
	{ "fork_per_connection", fork_per_connection, NULL, RAW, 0 },
	{ "fork_in_turn", in_turn, in_turn_partner, 0, 0 },
	{ "fork_in_turn_v6", in_turn, in_turn_partner, IPV6, 0 },
	{ "fork_both_read", both_read, NULL, 0, 0 },
	{ "fork_both_write", both_write, NULL, 0, 0 },
	{ "fork_one_each_way", one_each_way, NULL, 0, 0 },
	{ "fork_child_ends", child_ends, NULL, 0, 0 },
	{ "fork_child_exits", child_ends, NULL, 0, 1 },
	{ "fork_child_killed", child_ends, NULL, 0, 2 },
	{ "fork_child_closes", child_ends, NULL, 0, 3 },
	{ "fork_child_killed_reading", child_killed_reading, NULL, 0, 0 },
	{ "fork_generations", generations_partner, generations, 0, 0 },
	{ "fork_daemon", daemonize_partner, daemonize, 0, 0 },
	{ "scm_rights_child", passed_partner, passed_to_child, RAW, 0 },
	{ "scm_rights_stranger", passed_to_stranger, NULL, 0, 0 },
	{ 0 },
};
