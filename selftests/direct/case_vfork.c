// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vfork() before the first socket, where its child has the memory of its parent, as in every program that only
 * starts others. What the child does there must not be taken for something that the parent did.
 */
#include "posix.h"
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* Written by children that have our memory. */
static volatile int shared;
static volatile sig_atomic_t of_child, of_parent;

static void childs_handler(int sig)
{
	(void)sig;
	of_child++;
}

static void parents_handler(int sig)
{
	(void)sig;
	of_parent++;
}

static bool is_real_vfork(void)
{
#if defined(__x86_64__) && !defined(__CET__)
	return true;
#else
	return !getenv("LD_PRELOAD"); /* see user/shim/vfork.c */
#endif
}

static void ended(pid_t pid, int want)
{
	int status = -1;

	CHECK(pid > 0);
	IS(waitpid(pid, &status, 0), pid);
	IS(status, want);
}

static void shares_memory(void)
{
	volatile int on_stack = 1;
	pid_t pid;

	shared = 1;
	pid = vfork();
	if (!pid) {
		shared = 2;
		on_stack = 2;
		_exit(7);
	}
	ended(pid, 7 << 8);
	IS(shared, is_real_vfork() ? 2 : 1);
	IS(on_stack, shared);
}

/* Which descriptors the child had: the parent's next ones have the same numbers. */
static volatile int childs[4];

static void make_things(void)
{
	childs[0] = socket(AF_INET, SOCK_STREAM, 0);
	childs[1] = socket(AF_INET, SOCK_STREAM, 0);
	childs[2] = epoll_create1(0);
	if (listen(childs[0], 5)) /* on any port, whichever host this is: selftests/cross */
		_exit(1);
	childs[3] = dup(childs[0]);
}

/* What has the numbers of the child's sockets and epoll set is a file, and read and written as one. */
static void leaves_descriptors(void)
{
	int p[2], q[2];
	char got[6];
	pid_t pid;

	pid = vfork();
	if (!pid) {
		make_things();
		_exit(0);
	}
	ended(pid, 0);
	IS(pipe(p), 0);
	IS(pipe(q), 0);
	if (is_real_vfork())
		IS(p[0], childs[0]);
	IS(write(p[1], "hello", 6), 6);
	IS(read(p[0], got, 6), 6);
	IS(write(q[1], got, 6), 6);
	FAILS(epoll_wait(q[0], &(struct epoll_event){ 0 }, 1, 0), EINVAL);
	FAILS(accept(p[0], NULL, NULL), ENOTSOCK);
	IS(read(q[0], got, 6), 6);
	IS(memcmp(got, "hello", 6), 0);
	for (int i = 0; i < 2; i++) {
		close(p[i]);
		close(q[i]);
	}
}

/* Handlers and filters are of a process, and the child is one. */
static void keeps_to_itself(void)
{
	pid_t pid;

	catch_signal(SIGUSR2, parents_handler, 0);
	pid = vfork();
	if (!pid) {
		catch_signal(SIGUSR2, childs_handler, 0);
		prctl(PR_SET_SECCOMP, 99, 0, 0,
		      0); /* no such mode: what counts is that it was tried */
		_exit(0);
	}
	ended(pid, 0);
	raise(SIGUSR2);
	IS(of_parent, 1);
	IS(of_child, 0);
}

/* vfork() and fork() in the child; a child that is killed; exec. */
static void goes_on(void)
{
	pid_t pid, inner;
	int status = -1;

	pid = vfork();
	if (!pid) {
		inner = vfork();
		if (!inner)
			_exit(3);
		if (waitpid(inner, &status, 0) != inner || status != 3 << 8)
			_exit(1);
		inner = fork();
		if (!inner) {
			shares_memory();
			_exit(5);
		}
		_exit(waitpid(inner, &status, 0) == inner && status == 5 << 8 ? 6 : 2);
	}
	ended(pid, 6 << 8);
	pid = vfork();
	if (!pid) {
		raise(SIGKILL);
		_exit(1);
	}
	ended(pid, SIGKILL);
	pid = vfork();
	if (!pid) {
		execl("/bin/sh", "sh", "-c", "exit 9", NULL);
		_exit(127);
	}
	ended(pid, 9 << 8);
	pid = vfork();
	if (!pid) {
		execl("/does/not/exist", "x", NULL);
		_exit(errno == ENOENT ? 0 : 1);
	}
	ended(pid, 0);
}

/* And then the parent's own connection gets rings as ever, and the next vfork() spares it. */
static void vfork_first(struct end *e)
{
	pid_t pid;

	shares_memory();
	leaves_descriptors();
	shares_memory(); /* the shim has not taken the child's sockets for ours */
	keeps_to_itself();
	goes_on();
	conn_open(e, AF_INET);
	warm_up(e);
	chat(e);
	pid = vfork();
	if (!pid) {
		close(e->fd);
		_exit(0);
	}
	ended(pid, 0);
	chat(e);
	conn_close(e);
}

const struct test tests_vfork[] = {
	{ "vfork_first", vfork_first, NULL, RAW, 0 },
	{ 0 },
};
