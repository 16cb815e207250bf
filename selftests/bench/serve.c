// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The server of the workload program: one connection after another, each does as it asks.
 */
#include "netload.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NL_MAX_SIZE (64u << 20)

static void serve_ping(int fd, const struct nl_req *req)
{
	char *buf = nl_alloc(req->size);

	nl_nodelay(fd);
	while (!nl_recv_all(fd, buf, req->size) && !nl_send_all(fd, buf, req->size))
		;
	free(buf);
}

static void serve_ping_loop(int fd, const struct nl_req *req)
{
	char *buf = nl_alloc(req->size);
	struct nl_loop l;

	nl_nodelay(fd);
	nl_loop_open(&l, dup(fd));
	while (!nl_loop_recv(&l, buf, req->size) && !nl_loop_send(&l, buf, req->size))
		;
	nl_loop_close(&l);
	free(buf);
}

static void serve_idle(int fd, const struct nl_req *req)
{
	char *buf = nl_alloc(req->size);

	for (uint32_t i = 0; i < req->msgs; i++) {
		if (nl_recv_all(fd, buf, req->size) || nl_send_all(fd, buf, req->size))
			break;
	}
	free(buf);
}

static void serve_stream(int fd, const struct nl_req *req)
{
	char *buf = nl_alloc(req->read_size);
	uint64_t warm_ns = req->warm_ms * 1000000, first = 0, start = 0, now, cpu = nl_cpu_ns();
	struct nl_report rep = { 0 };
	ssize_t n;

	while ((n = nl_recv(fd, buf, req->read_size)) > 0) {
		rep.bytes += n;
		if (start) {
			rep.timed_bytes += n;
			continue;
		}
		now = nl_now();
		if (!first)
			first = now;
		if (now - first >= warm_ns)
			start = now;
	}
	if (start)
		rep.ns = nl_now() - start;
	rep.cpu_ns = nl_cpu_ns() - cpu;
	rep.spurious = nl_spurious;
	nl_send_all(fd, &rep, sizeof(rep));
	free(buf);
}

static void serve_connect(int fd, const struct nl_req *req)
{
	char c;

	if (!nl_send_all(fd, req, sizeof(*req)))
		nl_recv_all(fd, &c, 1); /* the client closes first */
}

/* Tell the client that nobody will read, then wait until it is gone. */
static void serve_hold(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	if (!nl_send_all(fd, "", 1))
		poll(&p, 1, NL_IO_SECONDS * 1000);
}

/* Do as the client asks, and close; but NL_IDLE is about connections that stay open. */
static void serve_one(int fd)
{
	struct nl_req req;

	if (nl_recv_all(fd, &req, sizeof(req)) || req.magic != NL_MAGIC || req.size > NL_MAX_SIZE ||
	    req.read_size > NL_MAX_SIZE)
		req.work = NL_WORKS;
	switch (req.work) {
	case NL_IDLE:
		serve_idle(fd, &req);
		return;
	case NL_PING:
		req.epoll ? serve_ping_loop(fd, &req) : serve_ping(fd, &req);
		break;
	case NL_STREAM:
		serve_stream(fd, &req);
		break;
	case NL_CONNECT:
		serve_connect(fd, &req);
		break;
	case NL_HOLD:
		serve_hold(fd);
		break;
	}
	close(fd);
}

/** nl_serve() - serve until no client came for NL_IO_SECONDS */
void nl_serve(const struct nl_opts *o)
{
	int fd = nl_listen(&o->addr), conn;

	if (o->ready_fd >= 0) {
		if (write(o->ready_fd, "r", 1) != 1)
			nl_die("ready pipe");
		close(o->ready_fd);
	}
	while ((conn = nl_accept(fd)) >= 0)
		serve_one(conn);
	close(fd);
}
