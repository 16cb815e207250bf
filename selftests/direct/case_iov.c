// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Vectors, messages and batches: what readv(), sendmsg(), recvmmsg() and their kin make of odd arguments. */
#include "posix.h"
#include <limits.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---------------------------------------------------------------- vectors */

/* Pieces of odd lengths, some of them 0. */
static size_t pieces(struct iovec *v, uint8_t *buf, int n, uint64_t *random)
{
	size_t at = 0;

	for (int i = 0; i < n; i++) {
		v[i].iov_base = buf + at;
		v[i].iov_len = i % 5 == 2 ? 0 : pattern_random(random) % 700;
		at += v[i].iov_len;
	}
	return at;
}

static void vectors_client(struct end *e)
{
	static uint8_t buf[40 * 700];
	struct iovec v[40];
	uint64_t random = 3;

	for (int i = 0; i < 300; i++) {
		size_t len = pieces(v, buf, 1 + i % 40, &random);

		fill(e, buf, len);
		if (i % 3)
			IS(writev(e->fd, v, 1 + i % 40), len);
		else
			IS(sendmsg(e->fd,
				   &(struct msghdr){ .msg_iov = v, .msg_iovlen = 1 + i % 40 }, 0),
			   len);
	}
	IS(shutdown(e->fd, SHUT_WR), 0);
	get_eof(e);
}

static void vectors_server(struct end *e)
{
	static uint8_t buf[40 * 700];
	struct iovec v[40];
	uint64_t random = 4;

	for (int i = 0;; i++) {
		size_t len = pieces(v, buf, 1 + i % 40, &random);
		struct msghdr m = { .msg_iov = v, .msg_iovlen = 1 + i % 40 };
		ssize_t n = i % 3 ? readv(e->fd, v, 1 + i % 40) : recvmsg(e->fd, &m, 0);

		CHECK(n >= 0);
		took(e, buf, n);
		if (!n && len)
			break;
	}
	conn_close(e);
}

static void iov_max(struct end *e)
{
	volatile int less = -1;
	static struct iovec v[IOV_MAX + 1];
	static uint8_t buf[3 * IOV_MAX];

	for (int i = 0; i <= IOV_MAX; i++)
		v[i] = (struct iovec){ buf + (i % IOV_MAX) * 3, 3 };
	FAILS(writev(e->fd, v, IOV_MAX + 1), EINVAL);
	FAILS(readv(e->fd, v, IOV_MAX + 1), EINVAL);
	FAILS(writev(e->fd, v, less), EINVAL);
	FAILS(sendmsg(e->fd, &(struct msghdr){ .msg_iov = v, .msg_iovlen = IOV_MAX + 1 }, 0),
	      EMSGSIZE);
	FAILS(recvmsg(e->fd, &(struct msghdr){ .msg_iov = v, .msg_iovlen = IOV_MAX + 1 }, 0),
	      EMSGSIZE);
	if (e->server) {
		arrived(e->fd, sizeof(buf));
		IS(readv(e->fd, v, IOV_MAX), sizeof(buf));
		took(e, buf, sizeof(buf));
	} else {
		fill(e, buf, sizeof(buf));
		IS(writev(e->fd, v, IOV_MAX), sizeof(buf));
	}
	chat(e);
}

static void huge_lengths(struct end *e)
{
	char c[2] = "";
	struct iovec v[2] = { { c, 1 }, { c, (size_t)-1 } };

	FAILS(writev(e->fd, v, 2), EINVAL);
	FAILS(readv(e->fd, v, 2), EINVAL);
	FAILS(sendmsg(e->fd, &(struct msghdr){ .msg_iov = v, .msg_iovlen = 2 }, 0), EINVAL);
	chat(e);
}

static void empty_vectors(struct end *e)
{
	struct iovec v[2] = { { NULL, 0 }, { NULL, 0 } };

	IS(writev(e->fd, v, 0), 0);
	IS(readv(e->fd, v, 0), 0);
	IS(writev(e->fd, v, 2), 0);
	IS(readv(e->fd, v, 2), 0);
	IS(sendmsg(e->fd, &(struct msghdr){ .msg_iov = v, .msg_iovlen = 2 }, 0), 0);
	chat(e);
}

/* ---------------------------------------------------------------- nothing to transfer */

static void zero_lengths(struct end *e)
{
	char c;

	IS(write(e->fd, &c, 0), 0);
	IS(send(e->fd, &c, 0, 0), 0);
	IS(read(e->fd, &c, 0), 0);
	FAILS(recv(e->fd, &c, 0, MSG_DONTWAIT), EAGAIN);
	meet(e);
	put(e, 100);
	arrived(e->fd, 100);
	IS(read(e->fd, &c, 0), 0);
	IS(recv(e->fd, &c, 0, 0), 0);
	IS(recv(e->fd, &c, 0, MSG_DONTWAIT), 0);
	get(e, 100);
	meet(e);
	IS(shutdown(e->fd, SHUT_WR), 0);
	FAILS(send(e->fd, &c, 0, MSG_NOSIGNAL), EPIPE);
	get_eof(e);
	IS(read(e->fd, &c, 0), 0);
	IS(recv(e->fd, &c, 0, 0), 0);
}

/* ---------------------------------------------------------------- messages */

/* What recvmsg() says beside the bytes. */
static void message_client(struct end *e)
{
	struct sockaddr_storage from;
	uint8_t buf[100], control[100];
	struct iovec v = { buf, sizeof(buf) };
	struct msghdr m = { .msg_name = &from,
			    .msg_namelen = sizeof(from),
			    .msg_iov = &v,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control),
			    .msg_flags = -1 };
	socklen_t len = sizeof(from);

	tell(e, 0);
	arrived(e->fd, 200);
	IS(recvmsg(e->fd, &m, 0), 100);
	took(e, buf, 100);
	IS(m.msg_namelen, 0);
	IS(m.msg_controllen, 0);
	IS(m.msg_flags & ~MSG_CMSG_CLOEXEC, 0);
	IS(recvfrom(e->fd, buf, 100, 0, (void *)&from, &len), 100);
	took(e, buf, 100);
	IS(len, 0);
	/* an address is no matter on a connection */
	address(&from, &len, AF_INET, 9);
	fill(e, buf, 100);
	IS(sendto(e->fd, buf, 100, 0, (void *)&from, len), 100);
	fill(e, buf, 50);
	m = (struct msghdr){
		.msg_name = &from, .msg_namelen = len, .msg_iov = &v, .msg_iovlen = 1
	};
	v.iov_len = 50;
	IS(sendmsg(e->fd, &m, 0), 50);
	chat(e);
}

static void message_server(struct end *e)
{
	hear(e);
	put(e, 200);
	get(e, 150);
	chat(e);
}

/* A control message that TCP cannot know fails and sends nothing. */
static void bad_control(struct end *e)
{
	char space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec v = { space, 4 };
	struct msghdr m = { .msg_iov = &v,
			    .msg_iovlen = 1,
			    .msg_control = space,
			    .msg_controllen = sizeof(space) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = 0x7777;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	FAILS(sendmsg(e->fd, &m, 0), EINVAL);
	chat(e);
}

static void mmsg_client(struct end *e)
{
	static uint8_t buf[10][500];
	struct iovec v[10];
	struct mmsghdr m[10] = { 0 };

	for (int i = 0; i < 10; i++) {
		v[i] = (struct iovec){ buf[i], 50 * (i + 1) };
		fill(e, buf[i], v[i].iov_len);
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	}
	IS(sendmmsg(e->fd, m, 10, 0), 10);
	for (int i = 0; i < 10; i++)
		IS(m[i].msg_len, 50 * (i + 1));
	IS(sendmmsg(e->fd, m, 0, 0), 0);
	meet(e);
	chat(e);
}

static void mmsg_server(struct end *e)
{
	static uint8_t buf[10][500];
	struct iovec v[10];
	struct mmsghdr m[10] = { 0 };
	struct timespec second = { 1, 0 };
	int n;

	for (int i = 0; i < 10; i++) {
		v[i] = (struct iovec){ buf[i], 500 };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	}
	arrived(e->fd, 2750);
	n = recvmmsg(e->fd, m, 10, MSG_WAITFORONE, NULL);
	IS(n, 6); /* 5 full ones and the rest; then it would block */
	for (int i = 0; i < n; i++) {
		IS(m[i].msg_len, i < 5 ? 500 : 250);
		took(e, buf[i], m[i].msg_len);
	}
	FAILS(recvmmsg(e->fd, m, 10, MSG_DONTWAIT, NULL), EAGAIN);
	FAILS(recvmmsg(e->fd, m, 10, MSG_DONTWAIT, &second), EAGAIN);
	meet(e);
	chat(e);
}

/* ---------------------------------------------------------------- wrong arguments */

static void bad_buffer(struct end *e, int call)
{
	void *volatile bad = (void *)16; /* the compiler would warn */

	switch (call) {
	case 0:
		FAILS(recv(e->fd, bad, 10, 0), EFAULT);
		break;
	case 1:
		FAILS(read(e->fd, bad, 10), EFAULT);
		break;
	case 2:
		FAILS(send(e->fd, bad, 10, 0), EFAULT);
		break;
	case 3:
		FAILS(write(e->fd, bad, 10), EFAULT);
		break;
	case 4:
		FAILS(writev(e->fd, &(struct iovec){ bad, 10 }, 1), EFAULT);
		break;
	}
}

/* Different on rings: the process that does so gets SIGSEGV. The connection survives it. */
static void bad_buffers(struct end *e)
{
	int status;
	pid_t pid;

	meet(e);
	put(e, 100);
	arrived(e->fd, 100);
	for (int i = 0; i < 5; i++) {
		pid = child();
		if (!pid) {
			bad_buffer(e, i);
			done();
		}
		IS(waitpid(pid, &status, 0), pid);
		IS(status & 0x7f, rings_expected() ? SIGSEGV : 0);
		IS(WEXITSTATUS(status), 0);
	}
	get(e, 100); /* nothing was lost */
	chat(e);
}

static void bad_descriptors(struct end *e)
{
	char c = 0;
	int pipes[2], gone = dup(e->fd);

	IS(pipe(pipes), 0);
	IS(close(gone), 0);
	FAILS(recv(gone, &c, 1, 0), EBADF);
	FAILS(send(gone, &c, 1, MSG_NOSIGNAL), EBADF);
	FAILS(read(-1, &c, 1), EBADF);
	FAILS(write(1 << 30, &c, 1), EBADF);
	FAILS(close(gone), EBADF);
	FAILS(close(-1), EBADF);
	FAILS(dup(gone), EBADF);
	FAILS(fcntl(gone, F_GETFL), EBADF);
	FAILS(shutdown(gone, SHUT_RD), EBADF);
	FAILS(recv(pipes[0], &c, 1, 0), ENOTSOCK);
	FAILS(send(pipes[1], &c, 1, 0), ENOTSOCK);
	FAILS(shutdown(pipes[0], SHUT_RD), ENOTSOCK);
	IS(polled(gone, POLLIN, 0), POLLNVAL);
	chat(e);
}

/* Offsets are for files. */
static void positioned(struct end *e)
{
	char c = 0;
	struct iovec v = { &c, 1 };

	FAILS(pread(e->fd, &c, 1, 0), ESPIPE);
	FAILS(pwrite(e->fd, &c, 1, 0), ESPIPE);
	FAILS(preadv(e->fd, &v, 1, 0), ESPIPE);
	FAILS(lseek(e->fd, 0, SEEK_SET), ESPIPE);
	FAILS(preadv2(e->fd, &v, 1, -1, RWF_NOWAIT), EAGAIN);
	meet(e);
	fill(e, &c, 1);
	IS(pwritev2(e->fd, &v, 1, -1, 0), 1);
	arrived(e->fd, 1);
	IS(preadv2(e->fd, &v, 1, -1, 0), 1);
	took(e, &c, 1);
	chat(e);
}

/* Around the C library: bytes must not overtake each other. */
static void raw_syscalls(struct end *e)
{
	uint8_t buf[300];
	size_t got = 0;

	for (int i = 0; i < 20; i++) {
		fill(e, buf, 100);
		IS(syscall(SYS_write, e->fd, buf, 100), 100);
		fill(e, buf, 100);
		IS(syscall(SYS_sendto, e->fd, buf, 100, 0, NULL, 0), 100);
		put(e, 100);
		for (got = 0; got < 300;) {
			ssize_t n =
				i % 2 ? syscall(SYS_read, e->fd, buf, 300 - got)
				      : syscall(SYS_recvfrom, e->fd, buf, 300 - got, 0, NULL, NULL);

			CHECK(n > 0);
			took(e, buf, n);
			got += n;
		}
	}
	chat(e);
}

const struct test tests_iov[] = {
	{ "vectors", vectors_client, vectors_server, 0, 0 },
	{ "iov_max", iov_max, NULL, 0, 0 },
	{ "huge_lengths", huge_lengths, NULL, 0, 0 },
	{ "empty_vectors", empty_vectors, NULL, 0, 0 },
	{ "zero_lengths", zero_lengths, NULL, 0, 0 },
	{ "message", message_client, message_server, 0, 0 },
	{ "bad_control", bad_control, NULL, 0, 0 },
	{ "mmsg", mmsg_client, mmsg_server, 0, 0 },
	{ "bad_buffers", bad_buffers, NULL, 0, 0 },
	{ "bad_descriptors", bad_descriptors, NULL, 0, 0 },
	{ "positioned", positioned, NULL, 0, 0 },
	{ "raw_syscalls", raw_syscalls, NULL, 0, 0 },
	{ 0 },
};
