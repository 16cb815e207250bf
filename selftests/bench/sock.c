// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sockets of the workload program: addresses, and transfers that always end.
 */
#include "netload.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void nl_die(const char *what)
{
	fprintf(stderr, "netload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t nl_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

uint64_t nl_now(void)
{
	return nl_clock(CLOCK_MONOTONIC);
}

uint64_t nl_cpu_ns(void)
{
	return nl_clock(CLOCK_PROCESS_CPUTIME_ID);
}

void *nl_alloc(size_t size)
{
	void *p = malloc(size);

	if (!p)
		nl_die("memory");
	memset(p, 'i', size); /* present before anything is timed */
	return p;
}

static int nl_parse_unix(const char *path, struct nl_addr *addr)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&addr->ss;
	size_t len = strlen(path);

	if (!len || len >= sizeof(un->sun_path))
		return -1;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len);
	if (path[0] == '@')
		un->sun_path[0] = 0; /* abstract name */
	addr->len = offsetof(struct sockaddr_un, sun_path) + len + (path[0] != '@');
	return 0;
}

static int nl_parse_port(const char *text, in_port_t *port)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || !n || n > 65535)
		return -1;
	*port = htons(n);
	return 0;
}

/**
 * nl_parse_addr() - read "127.0.0.1:9000", "[::1]:9000", "unix:PATH" or "unix:@ABSTRACT"
 *
 * Return: 0, or -1 when @text is none of these.
 */
int nl_parse_addr(const char *text, struct nl_addr *addr)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&addr->ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&addr->ss;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2];
	size_t len;

	memset(addr, 0, sizeof(*addr));
	if (!strncmp(text, "unix:", 5))
		return nl_parse_unix(text + 5, addr);
	len = colon ? (size_t)(colon - text) : 0;
	if (len < 2 || len >= sizeof(host))
		return -1;
	memcpy(host, text, len);
	host[len] = 0;
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = 0;
		in6->sin6_family = AF_INET6;
		addr->len = sizeof(*in6);
		if (inet_pton(AF_INET6, host + 1, &in6->sin6_addr) != 1)
			return -1;
		return nl_parse_port(colon + 1, &in6->sin6_port);
	}
	in->sin_family = AF_INET;
	addr->len = sizeof(*in);
	if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
		return -1;
	return nl_parse_port(colon + 1, &in->sin_port);
}

static void nl_timeouts(int fd)
{
	struct timeval tv = { .tv_sec = NL_IO_SECONDS };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)))
		nl_die("setsockopt timeouts");
}

void nl_nodelay(int fd)
{
	int one = 1;

	/* fails on AF_UNIX, where there is nothing to switch off */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int nl_listen(const struct nl_addr *addr)
{
	int fd = socket(addr->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		nl_die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (addr->ss.ss_family == AF_UNIX && ((struct sockaddr_un *)&addr->ss)->sun_path[0])
		unlink(((struct sockaddr_un *)&addr->ss)->sun_path);
	if (bind(fd, (const struct sockaddr *)&addr->ss, addr->len))
		nl_die("bind");
	if (listen(fd, 1024))
		nl_die("listen");
	return fd;
}

/**
 * nl_accept() - wait for the next client
 *
 * Return: the connection, or -1 when none came in time.
 */
int nl_accept(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int conn;

	if (poll(&p, 1, NL_IO_SECONDS * 1000) != 1)
		return -1;
	conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (conn >= 0)
		nl_timeouts(conn);
	return conn;
}

int nl_connect(const struct nl_addr *addr)
{
	int fd = socket(addr->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		nl_die("socket");
	nl_timeouts(fd);
	if (connect(fd, (const struct sockaddr *)&addr->ss, addr->len))
		nl_die("connect");
	return fd;
}

/* Return: 0, or -1 with errno set. */
int nl_send_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

uint64_t nl_spurious;

/**
 * nl_recv() - recv() on a blocking socket, for at most NL_IO_SECONDS
 *
 * A blocking socket with nothing to read never says EAGAIN before its timeout. On kernels where
 * one in a sockhash does, that is counted in nl_spurious and tried again.
 */
ssize_t nl_recv(int fd, void *buf, size_t len)
{
	uint64_t until = 0;
	ssize_t n;

	for (;;) {
		n = recv(fd, buf, len, 0);
		if (n >= 0 || (errno != EINTR && errno != EAGAIN))
			return n;
		if (errno == EINTR)
			continue;
		if (!until)
			until = nl_now() + (NL_IO_SECONDS - 1) * 1000000000ULL;
		if (nl_now() > until)
			return n;
		nl_spurious++;
	}
}

/* Return: 0, or -1 with errno set; the end of the stream is ENODATA. */
int nl_recv_all(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = nl_recv(fd, p, len);

		if (n == 0)
			errno = ENODATA;
		if (n <= 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}
