// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A blocking client of ismredird for commands that show something; see control_client.h. */
#define _GNU_SOURCE
#include "control_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <ismredir/fabric.h>

#define WAIT_SECONDS 5

/* One packet, head and body. */
struct packet {
	struct ism_msg head;
	union {
		struct ism_msg_hello hello;
		struct ism_msg_hello_ok hello_ok;
		struct ism_msg_dmb dmb;
		struct {
			struct ism_msg_fabric fabric;
			struct ism_msg_peer peers[ISM_FABRIC_MAX_PEERS];
		};
		struct ism_msg_status status;
		struct ism_msg_error error;
		unsigned char room[ISM_MSG_MAX - sizeof(struct ism_msg)];
	};
};

const char *ism_control_path(void)
{
	const char *path = secure_getenv("ISMREDIR_SOCK");

	return path && *path ? path : ISM_CONTROL_SOCK;
}

static int failed(struct ism_err *err, int rc)
{
	const char *path = ism_control_path();

	if (rc == -EAGAIN || rc == -EWOULDBLOCK || rc == -EINPROGRESS || rc == -ETIMEDOUT)
		return ism_err_set(err, -ETIMEDOUT, "ismredird at %s does not answer", path);
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		return ism_err_set(err, rc, "ismredird is not running (nobody at %s)", path);
	if (rc == -EPROTO)
		return ism_err_set(err, rc, "%s does not speak version %d of the protocol", path,
				   ISM_CONTROL_VERSION);
	return ism_err_set(err, rc, "ismredird at %s: %s", path, strerror(-rc));
}

static int ask(int fd, unsigned int type, const void *body, size_t len)
{
	struct packet p = { .head = { ISM_CONTROL_MAGIC, ISM_CONTROL_VERSION, type, len, type } };
	ssize_t n;

	if (len)
		memcpy(p.room, body, len);
	do
		n = send(fd, &p, sizeof(p.head) + len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Descriptors come with some answers, and a command has no use for them. */
static void drop_fds(struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			close(fd);
		}
	}
}

/* The next packet, which must answer the request @type. */
static int answer(int fd, unsigned int type, struct packet *p)
{
	char control[CMSG_SPACE(ISM_MSG_FDS * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { p, sizeof(*p) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	do {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	drop_fds(&msg);
	if (!n)
		return -ECONNRESET;
	if ((size_t)n < sizeof(p->head) || (msg.msg_flags & MSG_TRUNC) ||
	    p->head.magic != ISM_CONTROL_MAGIC || p->head.version != ISM_CONTROL_VERSION ||
	    p->head.len != n - sizeof(p->head) || p->head.seq != type)
		return -EPROTO;
	if (p->head.type != ISM_MSG_ERROR)
		return 0;
	if (p->head.len != sizeof(p->error) || p->error.error >= 0)
		return -EPROTO;
	return p->error.error;
}

static int expect(int fd, unsigned int asked, unsigned int type, size_t len, struct packet *p)
{
	int rc = answer(fd, asked, p);

	if (rc)
		return rc;
	return p->head.type == type && p->head.len == len ? 0 : -EPROTO;
}

int ism_control_open(struct ism_err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = WAIT_SECONDS };
	struct ism_msg_hello hello = {};
	const char *path = ism_control_path();
	struct packet p;
	int fd, rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return ism_err_set(err, -ENAMETOOLONG, "%s: path of a socket is too long", path);
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return failed(err, -errno);
	/* SO_SNDTIMEO limits connect() too: it waits while the daemon's backlog is full. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) ||
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		rc = -errno;
	else
		rc = ask(fd, ISM_MSG_HELLO, &hello, sizeof(hello));
	if (!rc)
		rc = expect(fd, ISM_MSG_HELLO, ISM_MSG_HELLO_OK, sizeof(p.hello_ok), &p);
	if (!rc)
		return fd;
	rc = failed(err, rc);
	close(fd);
	return rc;
}

/* Only a fabric is followed by something: its peers. */
static int is_item(const struct packet *p, unsigned int type, size_t len)
{
	if (p->head.type != type || p->head.len < len)
		return 0;
	if (type != ISM_MSG_FABRIC)
		return p->head.len == len;
	return p->fabric.n_peers <= ISM_FABRIC_MAX_PEERS &&
	       p->head.len == len + p->fabric.n_peers * sizeof(p->peers[0]);
}

/* All answers to a request whose list is ended by ISM_MSG_LIST_END. */
static int each(int fd, unsigned int asked, unsigned int type, size_t len,
		int (*fn)(struct packet *p, void *ctx), void *ctx, struct ism_err *err)
{
	struct packet p;
	int rc = ask(fd, asked, NULL, 0);

	while (!rc) {
		rc = answer(fd, asked, &p);
		if (!rc && p.head.type == ISM_MSG_LIST_END && !p.head.len)
			return 0;
		if (!rc && !is_item(&p, type, len))
			rc = -EPROTO;
		if (rc)
			break;
		rc = fn(&p, ctx);
		if (rc)
			return rc;
	}
	return failed(err, rc);
}

struct dmb_call {
	int (*fn)(const struct ism_msg_dmb *m, void *arg);
	void *arg;
};

static int one_dmb(struct packet *p, void *ctx)
{
	struct dmb_call *call = ctx;

	return call->fn(&p->dmb, call->arg);
}

int ism_control_list(int fd, int (*fn)(const struct ism_msg_dmb *m, void *arg), void *arg,
		     struct ism_err *err)
{
	struct dmb_call call = { fn, arg };

	return each(fd, ISM_MSG_LIST, ISM_MSG_DMB, sizeof(struct ism_msg_dmb), one_dmb, &call, err);
}

struct fabric_call {
	int (*fn)(const struct ism_msg_fabric *m, const struct ism_msg_peer *peers, void *arg);
	void *arg;
};

static int one_fabric(struct packet *p, void *ctx)
{
	struct fabric_call *call = ctx;

	p->fabric.name[sizeof(p->fabric.name) - 1] = 0;
	return call->fn(&p->fabric, p->peers, call->arg);
}

int ism_control_fabrics(int fd,
			int (*fn)(const struct ism_msg_fabric *m, const struct ism_msg_peer *peers,
				  void *arg),
			void *arg, struct ism_err *err)
{
	struct fabric_call call = { fn, arg };

	return each(fd, ISM_MSG_FABRICS, ISM_MSG_FABRIC, sizeof(struct ism_msg_fabric), one_fabric,
		    &call, err);
}

int ism_control_status(int fd, struct ism_msg_status *ret, struct ism_err *err)
{
	struct packet p;
	int rc = ask(fd, ISM_MSG_STATUS, NULL, 0);

	if (!rc)
		rc = expect(fd, ISM_MSG_STATUS, ISM_MSG_STATUS_OK, sizeof(p.status), &p);
	if (rc)
		return failed(err, rc);
	*ret = p.status;
	return 0;
}
