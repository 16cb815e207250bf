// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One send or one receive of the traffic program, in every way an application may make it. */
#define _GNU_SOURCE
#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#define BUF_SIZE (1u << 20)
#define MAX_IOV	 16

/* ---------------------------------------------------------------- preparing */

static bool needs_image(enum send_kind kind)
{
	return kind == SEND_SENDFILE || kind == SEND_ZEROCOPY || kind == SEND_URING ||
	       kind == SEND_MIXED;
}

static void make_image(struct end *e)
{
	size_t len = e->tx.total + opt.tail;

	if (e->tx.total == UINT64_MAX || opt.rounds)
		give_up(EXIT_USAGE, "this way of sending needs --bytes");
	e->image_fd = memfd_create("stream", MFD_CLOEXEC);
	if (e->image_fd < 0 || ftruncate(e->image_fd, len + 1))
		fail_errno("memfd of %zu bytes", len);
	e->image = mmap(NULL, len + 1, PROT_READ | PROT_WRITE, MAP_SHARED, e->image_fd, 0);
	if (e->image == MAP_FAILED)
		fail_errno("mmap %zu bytes", len);
	stream_fill(e->tx.seed, 0, e->image, len);
}

static void make_pipe(struct dir *d)
{
	if (pipe2(d->pipe, O_CLOEXEC))
		fail_errno("pipe");
	fcntl(d->pipe[0], F_SETPIPE_SZ, BUF_SIZE);
}

void io_prepare(struct end *e)
{
	const struct side *s = &opt.side[e->who];

	e->image_fd = -1;
	e->tx.buf = xalloc(BUF_SIZE);
	e->rx.buf = xalloc(BUF_SIZE);
	if (needs_image(s->send))
		make_image(e);
	if (s->send == SEND_SPLICE)
		make_pipe(&e->tx);
	if (s->recv == RECV_SPLICE)
		make_pipe(&e->rx);
	if (s->send == SEND_ZEROCOPY)
		set_int(e->fd, SOL_SOCKET, SO_ZEROCOPY, 1, "SO_ZEROCOPY");
}

static void release_dir(struct dir *d, bool piped)
{
#ifdef HAVE_LIBURING
	if (d->ring) {
		io_uring_queue_exit(d->ring);
		free(d->ring);
	}
#endif
	d->ring = NULL;
	free(d->buf);
	d->buf = NULL;
	if (piped) {
		close(d->pipe[0]);
		close(d->pipe[1]);
	}
}

void io_release(struct end *e)
{
	const struct side *s = &opt.side[e->who];

	release_dir(&e->tx, s->send == SEND_SPLICE);
	release_dir(&e->rx, s->recv == RECV_SPLICE);
	if (e->image_fd >= 0) {
		munmap(e->image, e->tx.total + opt.tail + 1);
		close(e->image_fd);
	}
}

static void maybe_pause(struct dir *d, const struct pause *p)
{
	if (p->percent && rng_below(&d->rng, 100) < p->percent)
		d->not_before = now_ms() + 1 + rng_below(&d->rng, p->ms);
}

/* ---------------------------------------------------------------- io_uring */

#ifdef HAVE_LIBURING
static ssize_t uring_call(struct end *e, struct dir *d, bool sending, void *buf, size_t len)
{
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	int rc;

	if (!d->ring) {
		d->ring = xalloc(sizeof(struct io_uring));
		rc = io_uring_queue_init(4, d->ring, 0);
		if (rc)
			give_up(EXIT_SKIP, "io_uring: %s", strerror(-rc));
	}
	sqe = io_uring_get_sqe(d->ring);
	if (sending)
		io_uring_prep_send(sqe, e->fd, buf, len, MSG_NOSIGNAL);
	else
		io_uring_prep_recv(sqe, e->fd, buf, len, 0);
	rc = io_uring_submit_and_wait(d->ring, 1);
	if (rc < 0)
		fail("io_uring_submit_and_wait: %s", strerror(-rc));
	rc = io_uring_wait_cqe(d->ring, &cqe);
	if (rc)
		fail("io_uring_wait_cqe: %s", strerror(-rc));
	rc = cqe->res;
	io_uring_cqe_seen(d->ring, cqe);
	if (rc < 0) {
		errno = -rc;
		return -1;
	}
	return rc;
}
#else
static ssize_t uring_call(struct end *e, struct dir *d, bool sending, void *buf, size_t len)
{
	(void)e, (void)d, (void)sending, (void)buf, (void)len;
	give_up(EXIT_SKIP, "built without liburing");
}
#endif

/* ---------------------------------------------------------------- sending */

/* Only for tests of the tests. */
static void spoil(struct end *e, size_t len)
{
	uint64_t half = e->tx.total / 2;

	if (e->who != CLIENT || e->tx.pos + len <= half)
		return;
	switch (opt.fault) {
	case FAULT_LOSE:
		stream_fill(e->tx.seed, e->tx.pos + 1, e->tx.buf, len);
		break;
	case FAULT_DOUBLE:
		stream_fill(e->tx.seed, e->tx.pos - 1, e->tx.buf, len);
		break;
	case FAULT_FLIP:
		e->tx.buf[len - 1] ^= 1;
		break;
	case FAULT_SWAP:
		stream_fill(e->tx.seed, e->tx.pos + 4096, e->tx.buf, len);
		break;
	case FAULT_HANG:
		for (;;)
			sleep_ms(1000);
	case FAULT_SHORT:
		_exit(EXIT_GOOD);
	case FAULT_NONE:
		break;
	}
}

static const void *chunk(struct end *e, size_t len)
{
	stream_fill(e->tx.seed, e->tx.pos, e->tx.buf, len);
	if (opt.fault)
		spoil(e, len);
	return e->tx.buf;
}

static ssize_t send_plain(struct end *e, size_t len, int flags)
{
	return send(e->fd, chunk(e, len), len, MSG_NOSIGNAL | flags);
}

static unsigned int cut(struct dir *d, size_t len, struct iovec *iov)
{
	unsigned int n = 0, want = 1 + rng_below(&d->rng, MAX_IOV);
	size_t at = 0;

	while (at < len) {
		size_t part = n + 1 < want ? 1 + rng_below(&d->rng, len - at) : len - at;

		iov[n].iov_base = d->buf + at;
		iov[n++].iov_len = part;
		at += part;
	}
	return n;
}

static ssize_t send_vector(struct end *e, size_t len)
{
	struct iovec iov[MAX_IOV];
	struct msghdr msg = { .msg_iov = iov };

	chunk(e, len);
	msg.msg_iovlen = cut(&e->tx, len, iov);
	return sendmsg(e->fd, &msg, MSG_NOSIGNAL);
}

static ssize_t send_file(struct end *e, size_t len)
{
	off_t off = e->tx.pos;

	return sendfile(e->fd, e->image_fd, &off, len);
}

static ssize_t send_splice(struct end *e, size_t len)
{
	struct dir *d = &e->tx;
	ssize_t n;

	if (!d->in_pipe) {
		n = write(d->pipe[1], chunk(e, len), len < 65536 ? len : 65536);
		if (n <= 0)
			fail_errno("write to a pipe");
		d->in_pipe = n;
	}
	n = splice(d->pipe[0], NULL, e->fd, NULL, d->in_pipe, 0);
	if (n > 0)
		d->in_pipe -= n;
	return n;
}

static void zerocopy_reap(struct end *e)
{
	char control[128];
	struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct sock_extended_err *err;
	struct cmsghdr *cm;

	while (recvmsg(e->fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0) {
		cm = CMSG_FIRSTHDR(&msg);
		if (!cm)
			fail("a message on the error queue without its control part");
		err = (void *)CMSG_DATA(cm);
		if (err->ee_origin != SO_EE_ORIGIN_ZEROCOPY)
			fail("a message on the error queue of origin %d", err->ee_origin);
		e->zc_done += err->ee_data - err->ee_info + 1;
		msg.msg_controllen = sizeof(control);
	}
}

static ssize_t send_zerocopy(struct end *e, size_t len)
{
	ssize_t n = send(e->fd, e->image + e->tx.pos, len, MSG_NOSIGNAL | MSG_ZEROCOPY);

	if (n > 0)
		e->zc_sent++;
	zerocopy_reap(e);
	if (n < 0 && errno == ENOBUFS) {
		sleep_ms(1);
		errno = EINTR;
	}
	return n;
}

void zerocopy_settle(struct end *e)
{
	uint64_t limit = now_ms() + opt.timeout * 1000;

	while (e->zc_done < e->zc_sent) {
		struct pollfd p = { .fd = e->fd };

		if (now_ms() > limit)
			fail("%u of %u zero-copy sends never completed", e->zc_sent - e->zc_done,
			     e->zc_sent);
		poll(&p, 1, 10);
		zerocopy_reap(e);
	}
}

static ssize_t send_kind(struct end *e, enum send_kind kind, size_t len)
{
	bool last = e->tx.pos + len == e->tx.total;

	switch (kind) {
	case SEND_WRITE:
		return send_plain(e, len, 0);
	case SEND_WRITEV:
		return send_vector(e, len);
	case SEND_MORE:
		return send_plain(e, len, !last && rng_next(&e->tx.rng) & 1 ? MSG_MORE : 0);
	case SEND_OOB:
		return send_plain(e, len, rng_below(&e->tx.rng, 16) ? 0 : MSG_OOB);
	case SEND_SENDFILE:
		return send_file(e, len);
	case SEND_SPLICE:
		return send_splice(e, len);
	case SEND_ZEROCOPY:
		return send_zerocopy(e, len);
	case SEND_URING:
		return uring_call(e, &e->tx, true, e->image + e->tx.pos, len);
	case SEND_MIXED:
		return send_kind(e,
				 (enum send_kind[]){ SEND_WRITE, SEND_WRITEV, SEND_MORE,
						     SEND_SENDFILE }[rng_below(&e->tx.rng, 4)],
				 len);
	}
	return -1;
}

int tx_step(struct end *e)
{
	const struct side *s = &opt.side[e->who];
	size_t len = sizes_draw(&s->send_sizes, &e->tx.rng);
	ssize_t n;

	if (len > BUF_SIZE)
		len = BUF_SIZE;
	if (len > e->tx.total - e->tx.pos)
		len = e->tx.total - e->tx.pos;
	n = send_kind(e, s->send, len);
	if (n < 0) {
		if (errno == EAGAIN)
			return 0;
		if (errno == EPIPE || errno == ECONNRESET) {
			if (!e->peer_may_end)
				peer_gone(e, "sending", errno);
			e->tx.total = e->tx.pos;
			return -1;
		}
		if (errno != EINTR)
			fail_errno("sending %zu bytes at position %llu", len,
				   (unsigned long long)e->tx.pos);
		return 1;
	}
	if (!n)
		fail("a send of %zu bytes took 0", len);
	e->tx.pos += n;
	maybe_pause(&e->tx, &s->pause_tx);
	return 1;
}

bool tx_finished(struct end *e)
{
	if (!e->tx.finished && e->tx.total == UINT64_MAX && shared->stop) {
		/* Unsent bytes in the pipe are part of the stream. */
		e->tx.total = e->tx.pos + e->tx.in_pipe;
	}
	if (e->tx.pos == e->tx.total)
		e->tx.finished = true;
	return e->tx.finished;
}

/* ---------------------------------------------------------------- receiving */

static void check(struct end *e, const uint8_t *buf, size_t len, const char *how)
{
	long bad = stream_verify(e->rx.seed, e->rx.pos, buf, len);
	char text[256];

	if (bad < 0)
		return;
	stream_explain(text, sizeof(text), e->rx.seed, e->rx.pos, buf, len, bad);
	fail("%s of connection %u: wrong bytes in %s of %zu at position %llu: %s",
	     e->who == CLIENT ? "client" : "server", e->index, how, len,
	     (unsigned long long)e->rx.pos, text);
}

static ssize_t recv_vector(struct end *e, size_t len)
{
	struct iovec iov[MAX_IOV];
	struct msghdr msg = { .msg_iov = iov };

	msg.msg_iovlen = cut(&e->rx, len, iov);
	return recvmsg(e->fd, &msg, 0);
}

static ssize_t recv_peek(struct end *e, size_t len)
{
	ssize_t peeked = recv(e->fd, e->rx.buf, len, MSG_PEEK), n;

	if (peeked <= 0)
		return peeked;
	check(e, e->rx.buf, peeked, "a peek");
	n = recv(e->fd, e->rx.buf, peeked, MSG_DONTWAIT);
	if (n <= 0)
		fail("%zd bytes were peeked, but reading them gives %zd (%s)", peeked, n,
		     n ? strerror(errno) : "end");
	return n;
}

static ssize_t recv_waitall(struct end *e, size_t len)
{
	ssize_t n = recv(e->fd, e->rx.buf, len, MSG_WAITALL);

	if (n > 0 && (size_t)n < len && e->rx.total != UINT64_MAX) {
		e->rx.shorts++;
		if (opt.strict)
			fail("MSG_WAITALL for %zu bytes gave %zd at position %llu", len, n,
			     (unsigned long long)e->rx.pos);
	}
	return n;
}

/* Never above half of the receive buffer: the kernel cuts it there and then waits for more room. */
static ssize_t recv_lowat(struct end *e, size_t len)
{
	size_t low = len < 16384 ? len : 16384;
	ssize_t n;

	if (e->rx.total == UINT64_MAX)
		low = 1;
	set_int(e->fd, SOL_SOCKET, SO_RCVLOWAT, low, "SO_RCVLOWAT");
	n = recv(e->fd, e->rx.buf, len, 0);
	if (n > 0 && (size_t)n < low && opt.side[e->who].io == IO_THREADS) {
		e->rx.shorts++;
		if (opt.strict)
			fail("SO_RCVLOWAT %zu, but a blocking read gave %zd", low, n);
	}
	return n;
}

static ssize_t recv_splice(struct end *e, size_t len)
{
	ssize_t n = splice(e->fd, NULL, e->rx.pipe[1], NULL, len < 65536 ? len : 65536, 0), m;

	if (n <= 0)
		return n;
	for (ssize_t got = 0; got < n; got += m) {
		m = read(e->rx.pipe[0], e->rx.buf + got, n - got);
		if (m <= 0)
			fail_errno("read from a pipe");
	}
	return n;
}

static ssize_t recv_kind(struct end *e, enum recv_kind kind, size_t len)
{
	switch (kind) {
	case RECV_READ:
		return recv(e->fd, e->rx.buf, len, 0);
	case RECV_READV:
		return recv_vector(e, len);
	case RECV_PEEK:
		return recv_peek(e, len);
	case RECV_WAITALL:
		return recv_waitall(e, len);
	case RECV_LOWAT:
		return recv_lowat(e, len);
	case RECV_SPLICE:
		return recv_splice(e, len);
	case RECV_URING:
		return uring_call(e, &e->rx, false, e->rx.buf, len);
	case RECV_MIXED:
		return recv_kind(e,
				 (enum recv_kind[]){ RECV_READ, RECV_READV,
						     RECV_PEEK }[rng_below(&e->rx.rng, 3)],
				 len);
	}
	return -1;
}

int rx_step(struct end *e)
{
	const struct side *s = &opt.side[e->who];
	size_t len = sizes_draw(&s->recv_sizes, &e->rx.rng);
	ssize_t n;

	if (len > BUF_SIZE)
		len = BUF_SIZE;
	if (len > e->rx.total - e->rx.pos)
		len = e->rx.total - e->rx.pos;
	n = recv_kind(e, s->recv, len);
	if (n < 0) {
		if (errno == EAGAIN)
			return 0;
		if (errno == ECONNRESET)
			peer_gone(e, "receiving", errno);
		if (errno != EINTR)
			fail_errno("receiving at position %llu", (unsigned long long)e->rx.pos);
		return 1;
	}
	if (!n) {
		if (e->rx.total != UINT64_MAX || !paired)
			peer_gone(e, "receiving", 0);
		e->rx.finished = true;
		return -1;
	}
	check(e, e->rx.buf, n, "a read");
	e->rx.pos += n;
	maybe_pause(&e->rx, &s->pause_rx);
	return 1;
}

bool rx_finished(struct end *e)
{
	if (e->rx.pos == e->rx.total)
		e->rx.finished = true;
	return e->rx.finished;
}

/* True when a blocking receive may be repeated after EAGAIN. */
bool spurious_eagain(struct end *e)
{
	e->rx.eagains++;
	return opt.eagain_ok;
}

ssize_t read_verified(struct end *e, size_t max)
{
	ssize_t n;

	do
		n = recv(e->fd, e->rx.buf, max < BUF_SIZE ? max : BUF_SIZE, 0);
	while (n < 0 && errno == EAGAIN && spurious_eagain(e));
	if (n > 0) {
		check(e, e->rx.buf, n, "a read");
		e->rx.pos += n;
	}
	return n;
}
