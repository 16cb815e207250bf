// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The client's side of the ivshmem server protocol; see ivclient.h. */
#include "ivclient.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include "clock.h"
#include "err.h"
#include "util.h"

#define VERSION	  0
#define MEMORY	  (-1)
#define MAX_PEER  65535
#define WAIT_MS	  5000
#define AT_A_TIME 256 /* messages of one drain: a server that talks without end stops nobody */

struct ism_ivclient {
	int sock, epoll, memory;
	unsigned int id;
	__s64 deadline; /* of the greeting, ms of CLOCK_MONOTONIC */
	size_t have; /* bytes of @part */
	char part[8];
	int part_fd; /* came with them */
	int is_full; /* the next message has a descriptor for which this process has no room */
	int *bells; /* first vector of each peer, -1: there is no such peer */
	unsigned int n_bells;
};

static int bell_of(const struct ism_ivclient *c, __u64 id)
{
	return id < c->n_bells ? c->bells[id] : -1;
}

/* ---------------------------------------------------------------- messages */

/* The first one, which is the caller's; or -1. */
static int first_fd(struct msghdr *m)
{
	int first = -1, fd;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
			if (first < 0)
				first = fd;
			else
				close(fd);
		}
	}
	return first;
}

/* What comes next, which stays; @ret: the first descriptor, of this or, where this has none, a later message. */
static ssize_t peek_part(struct ism_ivclient *c, int *ret)
{
	char control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec iov = { c->part + c->have, sizeof(c->part) - c->have };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(c->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_PEEK);

	*ret = n < 0 ? -1 : first_fd(&m);
	if (n < 0)
		return -errno;
	return *ret < 0 && m.msg_flags & MSG_CTRUNC ? -EMFILE : n;
}

/*
 * More of a message: bytes, or as recv(). A descriptor for which this process has no room is lost together with
 * its message, and without it a message says that a peer has left. So what comes is looked at first, which
 * makes the descriptor ours, and then taken without: MSG_CTRUNC tells that there was one. -EMFILE: not now.
 */
static ssize_t get_part(struct ism_ivclient *c)
{
	int fd;
	ssize_t n = peek_part(c, &fd);
	struct iovec iov = { c->part + c->have, n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n > 0 && recvmsg(c->sock, &m, MSG_DONTWAIT) != n)
		n = -EPROTO;
	if (n > 0 && m.msg_flags & MSG_CTRUNC && c->part_fd < 0)
		c->part_fd = fd;
	else if (fd >= 0)
		close(fd);
	return n;
}

/* Returns 1 for a message, 0 when there is none yet, or an error. @ret_fd is the caller's, or -1. */
static int get(struct ism_ivclient *c, __s64 *ret, int *ret_fd)
{
	ssize_t n = get_part(c);
	__u64 raw;

	if (n < 0)
		return n == -EAGAIN || n == -EINTR ? 0 : n;
	if (n == 0)
		return -ECONNRESET;
	c->have += n;
	if (c->have < sizeof(c->part))
		return 0;
	memcpy(&raw, c->part, sizeof(raw));
	*ret = (__s64)le64toh(raw);
	*ret_fd = c->part_fd;
	c->have = 0;
	c->part_fd = -1;
	return 1;
}

static int watch(struct ism_ivclient *c, int fd)
{
	struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };

	return epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &e) ? -errno : 0;
}

static int make_room(struct ism_ivclient *c, unsigned int id)
{
	unsigned int n = (id + 64) & ~63U;
	int *bells;

	if (id < c->n_bells)
		return 0;
	bells = realloc(c->bells, n * sizeof(*bells));
	if (!bells)
		return -ENOMEM;
	for (unsigned int i = c->n_bells; i < n; i++)
		bells[i] = -1;
	c->bells = bells;
	c->n_bells = n;
	return 0;
}

/* The first vector of a peer. We must not sleep on it, whoever made it; and the own one wakes us. */
static int add_bell(struct ism_ivclient *c, unsigned int id, int fd)
{
	int rc = make_room(c, id);

	if (rc)
		return rc;
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
		return -EPROTO;
	rc = id == c->id ? watch(c, fd) : 0;
	if (!rc)
		c->bells[id] = fd;
	return rc;
}

/* A message after the greeting: about a peer. @fd is taken. */
static int take_peer(struct ism_ivclient *c, __s64 value, int fd)
{
	int is_peer = value >= 0 && value <= MAX_PEER, rc = is_peer ? 0 : -EPROTO;

	if (is_peer && fd < 0 && value != c->id && bell_of(c, value) >= 0) {
		close(c->bells[value]);
		c->bells[value] = -1;
	}
	if (is_peer && fd >= 0 && bell_of(c, value) < 0) {
		rc = add_bell(c, value, fd);
		if (!rc)
			return 0;
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

/* ---------------------------------------------------------------- greeting */

/* One deadline for the whole greeting: a server that sends byte by byte, or without end, keeps nobody. */
static int wait_message(struct ism_ivclient *c, __s64 *ret, int *ret_fd)
{
	for (;;) {
		struct pollfd p = { .fd = c->sock, .events = POLLIN };
		__s64 left = c->deadline - (__s64)ism_clock_ms();
		int rc;

		if (left <= 0)
			return -ETIMEDOUT;
		rc = get(c, ret, ret_fd);
		if (rc)
			return rc < 0 ? rc : 0;
		if (poll(&p, 1, left) < 0 && errno != EINTR)
			return -errno;
	}
}

static int wait_value(struct ism_ivclient *c, __s64 *ret, int want_fd)
{
	int fd, rc = wait_message(c, ret, &fd);

	if (rc)
		return rc;
	if (want_fd) {
		c->memory = fd;
		return fd < 0 ? -EPROTO : 0;
	}
	if (fd < 0)
		return 0;
	close(fd);
	return -EPROTO;
}

/* Everybody's bells follow; the own come last. */
static int wait_own_bell(struct ism_ivclient *c)
{
	while (bell_of(c, c->id) < 0) {
		__s64 value;
		int fd, rc = wait_message(c, &value, &fd);

		if (!rc)
			rc = take_peer(c, value, fd);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int greet(struct ism_ivclient *c, struct ism_err *err)
{
	__s64 version, id, memory;
	int rc = wait_value(c, &version, 0);

	if (!rc && version != VERSION)
		rc = -EPROTO;
	if (!rc)
		rc = wait_value(c, &id, 0);
	if (!rc && (id < 0 || id > MAX_PEER))
		rc = -EPROTO;
	if (rc)
		return ism_err_set(err, rc, "no ivshmem server answers: %s", strerror(-rc));
	c->id = id;
	rc = wait_value(c, &memory, 1);
	if (!rc && memory != MEMORY)
		rc = -EPROTO;
	if (!rc)
		rc = wait_own_bell(c);
	return rc ? ism_err_set(err, rc, "the ivshmem server gave no memory or no vector: %s",
				strerror(-rc))
		  : 0;
}

/* ---------------------------------------------------------------- from outside */

static int start(struct ism_ivclient *c, const char *path, struct ism_err *err)
{
	const struct timeval wait = { .tv_sec = WAIT_MS / 1000 };
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path))
		return ism_err_set(err, -ENAMETOOLONG, "%.40s...: too long for a socket", path);
	memcpy(a.sun_path, path, strlen(path));
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->epoll < 0 || c->sock < 0)
		return -errno;
	c->deadline = ism_clock_ms() + WAIT_MS;
	/* connect() sleeps while a server that has stopped has a full backlog, and then says EAGAIN. */
	if (setsockopt(c->sock, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)))
		return -errno;
	if (connect(c->sock, (struct sockaddr *)&a, sizeof(a))) {
		int rc = errno == EAGAIN ? -ETIMEDOUT : -errno;

		return ism_err_set(err, rc, "%s: %s", path, strerror(-rc));
	}
	return greet(c, err);
}

int ism_ivclient_open(const char *path, struct ism_ivclient **ret, struct ism_err *err)
{
	struct ism_ivclient *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->sock = c->epoll = c->memory = c->part_fd = -1;
	rc = start(c, path, err);
	if (!rc)
		rc = watch(c, c->sock);
	if (rc) {
		ism_ivclient_close(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void ism_ivclient_close(struct ism_ivclient *c)
{
	if (!c)
		return;
	for (unsigned int i = 0; i < c->n_bells; i++)
		if (c->bells[i] >= 0)
			close(c->bells[i]);
	free(c->bells);
	if (c->part_fd >= 0)
		close(c->part_fd);
	if (c->memory >= 0)
		close(c->memory);
	if (c->sock >= 0)
		close(c->sock);
	if (c->epoll >= 0)
		close(c->epoll);
	free(c);
}

unsigned int ism_ivclient_id(const struct ism_ivclient *c)
{
	return c->id;
}

int ism_ivclient_memory(const struct ism_ivclient *c)
{
	return c->memory;
}

int ism_ivclient_fd(const struct ism_ivclient *c)
{
	return c->epoll;
}

/* The server has ended: it must not keep the descriptor readable for ever. */
static void deaf(struct ism_ivclient *c)
{
	close(c->sock);
	c->sock = -1;
}

/* What cannot be read is no bell, and would keep the descriptor readable for ever. */
static void hush(struct ism_ivclient *c)
{
	ssize_t got = fabric_take_bell(c->bells[c->id]);

	if (got == 0 || (got < 0 && got != -EAGAIN && got != -EINTR))
		epoll_ctl(c->epoll, EPOLL_CTL_DEL, c->bells[c->id], NULL);
}

/* What stays in the socket must not keep the descriptor readable either. Every drain tries again. */
static int listen_again(struct ism_ivclient *c)
{
	int was = c->is_full;

	c->is_full = 0;
	return was ? watch(c, c->sock) : 0;
}

static void stop_listening(struct ism_ivclient *c)
{
	c->is_full = 1;
	epoll_ctl(c->epoll, EPOLL_CTL_DEL, c->sock, NULL);
}

void ism_ivclient_drain(struct ism_ivclient *c)
{
	hush(c);
	if (c->sock >= 0 && listen_again(c))
		deaf(c);
	for (int i = 0; c->sock >= 0 && i < AT_A_TIME; i++) {
		__s64 value;
		int fd, rc = get(c, &value, &fd);

		if (rc == -EMFILE)
			stop_listening(c);
		if (!rc || rc == -EMFILE)
			break;
		if (rc > 0)
			rc = take_peer(c, value, fd);
		if (rc < 0)
			deaf(c);
	}
}

int ism_ivclient_knows(const struct ism_ivclient *c, __u64 id)
{
	if (c->sock < 0 || id > MAX_PEER)
		return -1;
	if (bell_of(c, id) >= 0)
		return 1;
	return c->is_full ? -1 : 0;
}

int ism_ivclient_ring(struct ism_ivclient *c, __u64 id)
{
	const eventfd_t one = 1;

	if (bell_of(c, id) < 0)
		return -EHOSTUNREACH;
	/* One that is full is rung already. */
	if (write(c->bells[id], &one, sizeof(one)) < 0 && errno != EAGAIN)
		return -errno;
	return 0;
}
