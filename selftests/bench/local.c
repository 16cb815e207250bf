// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Work without a socket, through the same library calls: what does the preloaded library cost here?
 */
#include "netload.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int read_all(int fd, char *buf, size_t len)
{
	while (len) {
		ssize_t n = read(fd, buf, len);

		if (n <= 0)
			return -1;
		buf += n;
		len -= n;
	}
	return 0;
}

static void echo(int in, int out, size_t size)
{
	char *buf = nl_alloc(size);

	while (!read_all(in, buf, size) && write(out, buf, size) == (ssize_t)size)
		;
	_exit(0);
}

/* Request and answer through two pipes. */
static void local_pipe(const struct nl_opts *o)
{
	char *buf = nl_alloc(o->size);
	int there[2], back[2];
	struct samples s;
	uint64_t since;
	pid_t child;

	if (pipe2(there, O_CLOEXEC) || pipe2(back, O_CLOEXEC))
		nl_die("pipe");
	child = fork();
	if (child < 0)
		nl_die("fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(there[1]);
		echo(there[0], back[1], o->size);
	}
	samples_begin(&s, o->ms, o->count);
	do {
		since = nl_now();
		if (write(there[1], buf, o->size) != (ssize_t)o->size ||
		    read_all(back[0], buf, o->size))
			nl_die("pipe ping-pong");
	} while (samples_add(&s, since));
	close(there[1]);
	waitpid(child, NULL, 0);
	free(buf);
	samples_print(&s, "pipe", o->size, 0);
}

/* Read a file again and again, in pieces. */
static void local_file(const struct nl_opts *o)
{
	char *buf = nl_alloc(o->size), name[] = "/tmp/netload-XXXXXX";
	int fd = mkstemp(name);
	struct samples s;
	uint64_t since;

	if (fd < 0)
		nl_die(name);
	unlink(name);
	if (write(fd, buf, o->size) != (ssize_t)o->size)
		nl_die("write");
	samples_begin(&s, o->ms, o->count);
	do {
		since = nl_now();
		if (lseek(fd, 0, SEEK_SET) || read(fd, buf, o->size) != (ssize_t)o->size)
			nl_die("read");
	} while (samples_add(&s, since));
	close(fd);
	free(buf);
	samples_print(&s, "file", o->size, 0);
}

/** nl_local() - "pipe" or "file". Return: 0, or -1 when @what is none of these. */
int nl_local(const char *what, const struct nl_opts *o)
{
	if (!strcmp(what, "pipe"))
		local_pipe(o);
	else if (!strcmp(what, "file"))
		local_file(o);
	else
		return -1;
	return 0;
}
