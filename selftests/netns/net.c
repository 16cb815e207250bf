// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What every test program here needs of the system; see net.h. */
#define _GNU_SOURCE
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Noreturn void leave(int status, int err, const char *fmt, va_list ap)
{
	char line[1024];
	int n = vsnprintf(line, sizeof(line), fmt, ap);

	if (n < 0 || n >= (int)sizeof(line))
		n = sizeof(line) - 1;
	/* One write per line: several threads and processes may fail together. */
	dprintf(STDERR_FILENO, "[%d] %s%s%s\n", getpid(), line, err ? ": " : "",
		err ? strerror(err) : "");
	_exit(status);
}

_Noreturn void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	leave(EXIT_BAD, 0, fmt, ap);
}

_Noreturn void fail_errno(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	leave(EXIT_BAD, err, fmt, ap);
}

_Noreturn void give_up(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	leave(status, 0, fmt, ap);
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void sleep_ms(unsigned int ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

void *xalloc(size_t len)
{
	void *p = calloc(1, len);

	if (!p)
		fail("no memory for %zu bytes", len);
	return p;
}

void addr_parse(struct addr *a, const char *text, int port)
{
	struct sockaddr_in *v4 = (void *)&a->ss;
	struct sockaddr_in6 *v6 = (void *)&a->ss;

	memset(a, 0, sizeof(*a));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		a->len = sizeof(*v4);
	} else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		a->len = sizeof(*v6);
	} else {
		give_up(EXIT_USAGE, "not a numeric address: %s", text);
	}
	addr_set_port(a, port);
}

int addr_port(const struct addr *a)
{
	/* sin_port and sin6_port lie at the same place. */
	return ntohs(((const struct sockaddr_in *)&a->ss)->sin_port);
}

void addr_set_port(struct addr *a, int port)
{
	((struct sockaddr_in *)&a->ss)->sin_port = htons(port);
}

int sock_port(int fd, bool peer)
{
	struct addr a = { .len = sizeof(a.ss) };
	int rc = peer ? getpeername(fd, (void *)&a.ss, &a.len)
		      : getsockname(fd, (void *)&a.ss, &a.len);

	if (rc)
		fail_errno("%s", peer ? "getpeername" : "getsockname");
	return addr_port(&a);
}

void set_int(int fd, int level, int name, int value, const char *what)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		fail_errno("setsockopt(%s, %d)", what, value);
}

int get_int(int fd, int level, int name, const char *what)
{
	socklen_t len = sizeof(int);
	int value = 0;

	if (getsockopt(fd, level, name, &value, &len))
		fail_errno("getsockopt(%s)", what);
	return value;
}

void set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK))
		fail_errno("fcntl(O_NONBLOCK)");
}

void join_cgroup(const char *path)
{
	char file[4096];
	int fd;

	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fail_errno("open %s", file);
	if (write(fd, "0", 1) != 1)
		fail_errno("join %s", path);
	close(fd);
}

void join_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail_errno("open %s", path);
	if (setns(fd, CLONE_NEWNET))
		fail_errno("setns %s", path);
	close(fd);
}

void run_hook(const char *name, const char *command)
{
	int status;

	if (!command)
		return;
	fflush(NULL);
	status = system(command);
	if (status == -1)
		fail_errno("hook %s", name);
	if (status)
		fail("hook %s failed (status %d): %s", name,
		     WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), command);
}
