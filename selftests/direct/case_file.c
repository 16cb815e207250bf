// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Bytes that do not pass through the application: sendfile(), splice(), io_uring. */
#include "posix.h"
#include <sys/mman.h>
#include <sys/sendfile.h>
#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#define FILE_LEN 1500000

/* A file that holds the next bytes of my stream. */
static int stream_file(struct end *e, size_t len)
{
	static uint8_t buf[FILE_LEN];
	int fd = memfd_create("bytes", MFD_CLOEXEC);

	CHECK(fd >= 0 && len <= sizeof(buf));
	fill(e, buf, len);
	IS(write(fd, buf, len), len);
	IS(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

/* ---------------------------------------------------------------- sendfile */

static void sendfile_client(struct end *e)
{
	off_t at = 1000;
	size_t left = FILE_LEN;
	int fd;

	put(e, 77);
	fd = stream_file(e, FILE_LEN);
	while (left) { /* at the file's own position */
		ssize_t n = sendfile(e->fd, fd, NULL, left);

		CHECK(n > 0);
		left -= n;
	}
	IS(lseek(fd, 0, SEEK_CUR), FILE_LEN);
	IS(sendfile(e->fd, fd, NULL, 100), 0); /* end of the file */
	close(fd);
	put(e, 88);
	e->tx.n -= 1000;
	fd = stream_file(e, 50000 + 1000);
	while (at < 51000) { /* at a position of mine: the file's stays */
		ssize_t n = sendfile(e->fd, fd, &at, 1 << 20);

		CHECK(n > 0);
	}
	IS(at, 51000);
	IS(lseek(fd, 0, SEEK_CUR), 0);
	IS(sendfile(e->fd, fd, NULL, 0), 0);
	FAILS(sendfile(e->fd, 999, NULL, 10), EBADF);
	chat(e);
}

static void sendfile_server(struct end *e)
{
	get(e, 77 + FILE_LEN + 88 + 50000);
	chat(e);
}

/* A file larger than all buffers, without waiting. */
static void sendfile_nonblock(struct end *e)
{
	size_t left = FILE_LEN;
	off_t at = 0;
	int fd, rounds = 20, full = 0;

	if (e->server) {
		hear(e);
		get(e, (uint64_t)FILE_LEN * rounds);
		chat(e);
		return;
	}
	nonblock(e->fd, true);
	for (; rounds; rounds--, at = 0, left = FILE_LEN) {
		fd = stream_file(e, FILE_LEN);
		while (left) {
			ssize_t n = sendfile(e->fd, fd, &at, left);

			if (n > 0) {
				left -= n;
				continue;
			}
			IS(errno, EAGAIN);
			if (!full++)
				tell(e, 0);
			IS(polled(e->fd, POLLOUT, 10000), POLLOUT);
		}
		close(fd);
	}
	CHECK(full);
	nonblock(e->fd, false);
	chat(e);
}

/* ---------------------------------------------------------------- splice */

/* File to pipe to socket. */
static void splice_out_client(struct end *e)
{
	int fd = stream_file(e, 300000), pipes[2];
	size_t left = 300000;

	IS(pipe(pipes), 0);
	while (left) {
		ssize_t n = splice(fd, NULL, pipes[1], NULL, left < 30000 ? left : 30000,
				   SPLICE_F_MOVE);

		CHECK(n > 0);
		left -= n;
		while (n) {
			ssize_t k = splice(pipes[0], NULL, e->fd, NULL, n, SPLICE_F_MORE);

			CHECK(k > 0);
			n -= k;
		}
	}
	chat(e);
}

static void splice_out_server(struct end *e)
{
	get(e, 300000);
	chat(e);
}

/* Socket to pipe. */
static void splice_in_client(struct end *e)
{
	static uint8_t buf[65536];
	size_t got = 0;
	int pipes[2];

	IS(pipe(pipes), 0);
	nonblock(e->fd, true); /* SPLICE_F_NONBLOCK is about the pipe */
	FAILS(splice(e->fd, NULL, pipes[1], NULL, 100, 0), EAGAIN);
	nonblock(e->fd, false);
	tell(e, 0);
	while (got < 300000) {
		ssize_t n = splice(e->fd, NULL, pipes[1], NULL, 40000, 0);

		CHECK(n > 0);
		IS(read(pipes[0], buf, sizeof(buf)), n);
		took(e, buf, n);
		got += n;
	}
	chat(e);
	meet(e);
	IS(splice(e->fd, NULL, pipes[1], NULL, 100, 0), 0); /* end of the stream */
}

static void splice_in_server(struct end *e)
{
	hear(e);
	put(e, 300000);
	chat(e);
	meet(e);
	IS(shutdown(e->fd, SHUT_WR), 0);
	get_eof(e);
}

/* A proxy: from one connection through a pipe into another. */
static void splice_proxy(struct end *e)
{
	struct end two = { .fd = -1, .ctl = e->ctl, .listener = -1, .server = e->server };
	int pipes[2];
	ssize_t n, k;

	conn_open(&two, AF_INET);
	warm_up(&two);
	if (!e->server) {
		if (!child()) {
			for (int i = 0; i < 100; i++)
				put(e, 1 + i * 100);
			IS(shutdown(e->fd, SHUT_WR), 0);
			done();
		}
		two.rx.seed = e->tx.seed;
		get_all(&two);
		IS(two.rx.n, 495100);
		return;
	}
	IS(pipe(pipes), 0);
	while ((n = splice(e->fd, NULL, pipes[1], NULL, 65536, SPLICE_F_MOVE)) > 0)
		for (; n; n -= k) {
			k = splice(pipes[0], NULL, two.fd, NULL, n, SPLICE_F_MOVE);
			CHECK(k > 0);
		}
	IS(n, 0);
	conn_close(&two);
}

/* ---------------------------------------------------------------- io_uring */

/* of the client: a chat (9500), then what the kernel echoes */
#define URING_BYTES 40000

#ifdef HAVE_LIBURING
static int complete(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int res;

	IS(io_uring_submit(ring), 1);
	do
		res = io_uring_wait_cqe(ring, &cqe);
	while (res == -EINTR);
	IS(res, 0);
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return res;
}

static void uring_echo(struct end *e, struct io_uring *ring)
{
	uint8_t buf[1000];
	int n;

	io_uring_prep_recv(io_uring_get_sqe(ring), e->fd, buf, sizeof(buf), 0);
	n = complete(ring);
	CHECK(n > 0);
	took(e, buf, n);
	fill(e, buf, n);
	io_uring_prep_send(io_uring_get_sqe(ring), e->fd, buf, n, 0);
	IS(complete(ring), n);
}

/* The kernel reads and writes by itself, after messages by the usual calls, with @arg unread bytes. */
static void uring_server(struct end *e)
{
	struct io_uring ring;
	int res;

	chat(e);
	arrived(e->fd, e->arg);
	meet(e);
	res = io_uring_queue_init(8, &ring, 0);
	if (res == -ENOSYS || res == -EPERM)
		skip("io_uring is not allowed here");
	IS(res, 0);
	while (e->rx.n < URING_BYTES)
		uring_echo(e, &ring);
	io_uring_queue_exit(&ring);
	meet(e);
	chat(e);
}

static void uring_client(struct end *e)
{
	chat(e);
	put(e, e->arg);
	meet(e);
	get(e, e->arg);
	while (e->tx.n < URING_BYTES) {
		put(e, 50);
		get(e, 50);
	}
	meet(e);
	chat(e);
}
#else
static void uring_server(struct end *e)
{
	(void)e;
	skip("built without liburing");
}

static void uring_client(struct end *e)
{
	hear(e);
}
#endif

const struct test tests_file[] = {
	{ "sendfile", sendfile_client, sendfile_server, 0, 0 },
	{ "sendfile_nonblock", sendfile_nonblock, NULL, 0, 0 },
	{ "splice_out", splice_out_client, splice_out_server, 0, 0 },
	{ "splice_in", splice_in_client, splice_in_server, 0, 0 },
	{ "splice_proxy", splice_proxy, NULL, 0, 0 },
	{ "io_uring", uring_client, uring_server, 0, 0 },
	{ "io_uring_unread", uring_client, uring_server, 0, 700 },
	{ 0 },
};
