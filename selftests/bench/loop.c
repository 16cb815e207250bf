// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Transfers of an event loop: a non-blocking socket, and waiting in epoll_wait(), level-triggered.
 */
#include "netload.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

/** nl_loop_open() - takes over @fd and makes it non-blocking */
void nl_loop_open(struct nl_loop *l, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.fd = fd };

	l->fd = fd;
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	if (fd < 0 || l->ep < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) ||
	    epoll_ctl(l->ep, EPOLL_CTL_ADD, fd, &ev))
		nl_die("epoll");
}

void nl_loop_close(struct nl_loop *l)
{
	close(l->ep);
	close(l->fd);
}

static int wait_out(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int n = poll(&p, 1, NL_IO_SECONDS * 1000);

	if (!n)
		errno = ETIMEDOUT;
	return n > 0 ? 0 : -1;
}

/* Return: 0, or -1 with errno set. */
int nl_loop_send(struct nl_loop *l, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = send(l->fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN && !wait_out(l->fd))
			continue;
		if (n < 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

/* As a server does: wait for an event, then read once. Return: 0, or -1 with errno set. */
int nl_loop_recv(struct nl_loop *l, void *buf, size_t len)
{
	struct epoll_event ev[8];
	char *p = buf;

	while (len) {
		int events = epoll_wait(l->ep, ev, 8, NL_IO_SECONDS * 1000);
		ssize_t n;

		if (events <= 0) {
			errno = events ? errno : ETIMEDOUT;
			return -1;
		}
		n = recv(l->fd, p, len, 0);
		if (n < 0 && errno == EAGAIN) {
			nl_spurious++;
			continue;
		}
		if (n == 0)
			errno = ENODATA;
		if (n <= 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}
