// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* exec of other programs with the connection, and users of it inside the C library (stdio, popen). */
#include "posix.h"
#include <netdb.h>
#include <spawn.h>
#include <sys/wait.h>
#include <syslog.h>

extern char **environ;

/* ---------------------------------------------------------------- a program gets the socket as its stdio */

enum { FORK, VFORK, SPAWN, BARE };

static void run_cat(int fd)
{
	if (dup2(fd, 0) < 0 || dup2(fd, 1) < 0) {
		if (errno != EAGAIN || !rings_expected())
			perror("dup2");
		_exit(126);
	}
	execl("/bin/cat", "cat", "-", NULL);
	_exit(127);
}

static pid_t spawn_cat(int fd, char **env)
{
	posix_spawn_file_actions_t a;
	char *argv[] = { "cat", NULL };
	pid_t pid = -1;

	posix_spawn_file_actions_init(&a);
	IS(posix_spawn_file_actions_adddup2(&a, fd, 0), 0);
	IS(posix_spawn_file_actions_adddup2(&a, fd, 1), 0);
	IS(posix_spawn(&pid, "/bin/cat", &a, NULL, argv, env), 0);
	posix_spawn_file_actions_destroy(&a);
	return pid;
}

/* Returns when it runs: the write end of the pipe is gone then. */
static pid_t cat_on(int fd, int how)
{
	char *none[] = { NULL };
	int started[2];
	pid_t pid = -1;

	IS(pipe2(started, O_CLOEXEC), 0);
	switch (how) {
	case FORK:
		pid = fork();
		if (!pid)
			run_cat(fd);
		break;
	case VFORK:
		pid = vfork();
		if (!pid)
			run_cat(fd);
		break;
	case SPAWN:
		pid = spawn_cat(fd, environ);
		break;
	case BARE: /* without the environment: nothing is preloaded there */
		pid = spawn_cat(fd, none);
		break;
	}
	CHECK(pid > 0);
	close(started[1]);
	IS(read(started[0], &(char){ 0 }, 1), 0);
	close(started[0]);
	return pid;
}

enum { UNREAD = 16, ENDED = 32 };

/*
 * What the client sends comes back by cat; @arg: how it is started, with bytes unread, or with the whole
 * stream there. Different on rings: the last cannot be given to a program, and the attempt says EAGAIN.
 */
static void cat_server(struct end *e)
{
	bool cannot = e->arg & ENDED && rings_expected();
	int status = -1;
	pid_t pid;

	chat(e);
	if (e->arg & (UNREAD | ENDED))
		arrived(e->fd, 5000);
	meet(e);
	pid = cat_on(e->fd, e->arg & 15);
	meet(e);
	conn_close(e);
	IS(waitpid(pid, &status, 0), pid);
	IS(status, cannot ? 126 << 8 : 0);
}

static void cat_client(struct end *e)
{
	uint64_t seed = e->tx.n;

	chat(e);
	seed = e->tx.n;
	if (e->arg & (UNREAD | ENDED))
		put(e, 5000);
	if (e->arg & ENDED)
		IS(shutdown(e->fd, SHUT_WR), 0);
	meet(e);
	if (e->arg & ENDED && rings_expected()) {
		meet(e);
		return;
	}
	e->rx = (struct half){ e->tx.seed, seed }; /* my own bytes */
	if (e->arg & UNREAD)
		get(e, 5000);
	meet(e);
	for (int i = 0; i < 30 && !(e->arg & ENDED); i++)
		put(e, 1 + i * 100);
	if (!(e->arg & ENDED))
		IS(shutdown(e->fd, SHUT_WR), 0);
	get_all(e);
	IS(e->rx.n, e->tx.n);
}

/* A program that reads one line and leaves; the parent goes on where it stopped. */
static void one_line_server(struct end *e)
{
	int status;
	pid_t pid;

	chat(e);
	pid = fork();
	if (!pid) {
		if (dup2(e->fd, 0) < 0)
			_exit(126);
		execl("/bin/sh", "sh", "-c", "read x; test \"$x\" = hello", NULL);
		_exit(127);
	}
	IS(waitpid(pid, &status, 0), pid);
	IS(status, 0);
	chat(e);
}

static void one_line_client(struct end *e)
{
	chat(e);
	IS(send(e->fd, "hello\n", 6, 0), 6);
	chat(e);
}

/* The shell, while connections are open. */
static void popen_open(struct end *e)
{
	char line[64] = "";
	FILE *p;

	chat(e);
	IS(system("exit 3"), 3 << 8);
	p = popen("echo there", "r");
	CHECK(p && fgets(line, sizeof(line), p));
	IS(pclose(p), 0);
	CHECK(!strcmp(line, "there\n"));
	p = popen("cat >/dev/null", "w");
	CHECK(p && fputs("x", p) >= 0);
	IS(pclose(p), 0);
	chat(e);
}

/* A child process must not keep the connection open by anything of ours. */
static void not_inherited(struct end *e)
{
	pid_t pid;

	if (!e->server) {
		chat(e);
		get_eof(e);
		tell(e, 0);
		return;
	}
	chat(e);
	pid = fork();
	if (!pid) {
		execl("/bin/sleep", "sleep", "20", NULL);
		_exit(127);
	}
	nap(100);
	conn_close(e);
	hear(e);
	kill(pid, SIGKILL);
}

/* ---------------------------------------------------------------- exec of myself */

/* The server becomes a new program that knows only the numbers. */
static void again_server(struct end *e)
{
	char fd[16], tx[24], rx[24];

	if (getenv("POSIX_AGAIN")) {
		sscanf(getenv("POSIX_AGAIN"), "%d %lu %lu", &e->fd, &e->tx.n, &e->rx.n);
		e->tx.seed = 2;
		e->rx.seed = 1;
		get(e, 4000);
		for (int i = 0; i < 10; i++)
			chat(e);
		return;
	}
	conn_open(e, AF_INET);
	warm_up(e);
	chat(e);
	arrived(e->fd, 4000);
	snprintf(fd, sizeof(fd), "%d", e->fd);
	snprintf(tx, sizeof(tx), "%lu", e->tx.n);
	snprintf(rx, sizeof(rx), "%lu", e->rx.n);
	IS(fcntl(e->fd, F_SETFD, 0), 0);
	IS(fcntl(e->ctl, F_SETFD, 0), 0);
	setenv("POSIX_AGAIN", strcat(strcat(strcat(strcat(fd, " "), tx), " "), rx), 1);
	execv("/proc/self/exe", role_argv);
	FAIL("exec");
}

static void again_client(struct end *e)
{
	conn_open(e, AF_INET);
	warm_up(e);
	chat(e);
	put(e, 4000);
	for (int i = 0; i < 10; i++)
		chat(e);
}

/* ---------------------------------------------------------------- stdio and other parts of the C library */

/* fdopen() after messages have gone by the usual calls. */
static void stdio_server(struct end *e)
{
	char line[100];
	FILE *f;

	chat(e);
	f = fdopen(dup(e->fd), "r+");
	CHECK(f);
	for (int i = 0; i < 300; i++) {
		int n = -1;

		CHECK(fgets(line, sizeof(line), f));
		IS(sscanf(line, "line %d\n", &n), 1);
		IS(n, i);
		CHECK(fprintf(f, "answer %d\n", i) > 0);
		IS(fflush(f), 0);
	}
	IS(fclose(f), 0);
	chat(e);
}

static void stdio_client(struct end *e)
{
	char line[100], want[100];
	int n;

	chat(e);
	for (int i = 0; i < 300; i++) {
		n = snprintf(line, sizeof(line), "line %d\n", i);
		IS(send(e->fd, line, n, 0), n);
		n = snprintf(want, sizeof(want), "answer %d\n", i);
		IS(recv(e->fd, line, n, MSG_WAITALL), n);
		CHECK(!memcmp(line, want, n));
	}
	chat(e);
}

/* dprintf() opens no stream that one could see. */
static void dprintf_server(struct end *e)
{
	for (int i = 0; i < 50; i++) {
		IS(write(e->fd, "a", 1), 1);
		IS(dprintf(e->fd, "%s", "b"), 1);
	}
	chat(e);
}

static void dprintf_client(struct end *e)
{
	char buf[100];

	IS(recv(e->fd, buf, 100, MSG_WAITALL), 100);
	for (int i = 0; i < 100; i++)
		IS(buf[i], "ab"[i % 2]);
	chat(e);
}

/* The C library has sockets of its own. */
static void resolver(struct end *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *res = NULL;
	int before = open_fds(256);

	chat(e);
	openlog("posix-test", LOG_NDELAY, LOG_USER);
	closelog();
	if (!getaddrinfo("localhost", "80", &hints, &res))
		freeaddrinfo(res);
	gethostbyname("localhost");
	chat(e);
	IS(open_fds(256), before);
}

const struct test tests_exec[] = {
	{ "exec_cat_fork", cat_client, cat_server, 0, FORK },
	{ "exec_cat_vfork", cat_client, cat_server, 0, VFORK },
	{ "exec_cat_spawn", cat_client, cat_server, 0, SPAWN },
	{ "exec_cat_bare", cat_client, cat_server, 0, BARE },
	{ "exec_cat_fork_unread", cat_client, cat_server, 0, UNREAD | FORK },
	{ "exec_cat_vfork_unread", cat_client, cat_server, 0, UNREAD | VFORK },
	{ "exec_cat_spawn_unread", cat_client, cat_server, 0, UNREAD | SPAWN },
	{ "exec_cat_bare_unread", cat_client, cat_server, 0, UNREAD | BARE },
	{ "exec_cat_fork_ended", cat_client, cat_server, 0, ENDED | FORK },
	{ "exec_one_line", one_line_client, one_line_server, 0, 0 },
	{ "exec_popen", popen_open, NULL, 0, 0 },
	{ "exec_not_inherited", not_inherited, NULL, 0, 0 },
	{ "exec_again", again_client, again_server, RAW, 0 },
	{ "stdio", stdio_client, stdio_server, 0, 0 },
	{ "stdio_dprintf", dprintf_client, dprintf_server, 0, 0 },
	{ "resolver", resolver, NULL, 0, 0 },
	{ 0 },
};
