// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Interposed: everything that moves bytes. Each function is one look-up for a descriptor that is not
 * ours; for a candidate it is the C library's, counted; with rings it becomes conn_recv() or
 * conn_send(), with the checks and results of the kernel's own entry points (net/socket.c, fs/read_write.c,
 * lib/iov_iter.c).
 *
 * Not as in the kernel: a bad pointer of the application ends in SIGSEGV and not in EFAULT, as with
 * every function of the C library that does not go straight into the kernel.
 */
#include "shim.h"
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

#define MAX_RW	((size_t)INT_MAX & ~4095UL) /* MAX_RW_COUNT of the kernel, 4 KiB pages */
#define MAX_IOV 1024 /* UIO_MAXIOV */

/* ---------------------------------------------------------------- shape of a hook */

/*
 * The kernel's functions are cancellation points. conn_recv() and conn_send() are while they sleep; a
 * request that is already there acts here, where nothing is held.
 */
static struct conn *cancel_point(int fd)
{
	if (likely(ISM_FD_KIND(ism_fd_get(fd)) != ISM_FD_CONN))
		return NULL;
	if (!__libc_single_threaded)
		pthread_testcancel();
	return conn_of(fd);
}

/* What a function of the C library said, as we say it. */
static ssize_t native(ssize_t n)
{
	return n < 0 ? -errno : n;
}

static ssize_t to_errno(ssize_t n)
{
	if (n >= 0)
		return n;
	errno = -n;
	return -1;
}

static int is_nonblock(const struct conn *c)
{
	return atomic_load_explicit(&c->slot->nonblock, memory_order_relaxed);
}

#define NEVER_WAITS (MSG_DONTWAIT | MSG_OOB | MSG_ERRQUEUE)

/*
 * The bodies of hooks. @kernel is the call of the C library's function. Bytes that only the kernel has,
 * urgent data and the error queue, are always read there, whoever has the stream.
 */
#define RECV_HOOK(fd, flags, kernel, ring)                                                         \
	do {                                                                                       \
		uint32_t fresh = fresh_begin(fd, FRESH_RX);                                        \
		struct conn *c;                                                                    \
		ssize_t n;                                                                         \
		if (fresh) {                                                                       \
			n = (flags)&NEVER_WAITS ? 0 : ism_await_data(fd);                          \
			if (likely(!n))                                                            \
				n = native(kernel);                                                \
			fresh_leave(fd, fresh, FRESH_RX, n);                                       \
			return to_errno(n);                                                        \
		}                                                                                  \
		c = cancel_point(fd);                                                              \
		if (likely(!c))                                                                    \
			return kernel;                                                             \
		if (unlikely((flags) & (MSG_OOB | MSG_ERRQUEUE))) {                                \
			n = native(kernel);                                                        \
		} else if (likely(conn_rx_begin(c, fd))) {                                         \
			n = ring;                                                                  \
		} else {                                                                           \
			n = (flags)&MSG_DONTWAIT || is_nonblock(c) ? 0 : ism_await_data(fd);       \
			if (likely(!n))                                                            \
				n = native(kernel);                                                \
			conn_rx_end(c, fd, n);                                                     \
		}                                                                                  \
		conn_done(c);                                                                      \
		return to_errno(n);                                                                \
	} while (0)

/* @why: enum ism_reason when this message can only go by TCP, and the rest of the stream with it. */
#define SEND_HOOK(fd, why, kernel, ring)                                                           \
	do {                                                                                       \
		uint32_t fresh = fresh_begin(fd, FRESH_TX);                                        \
		struct conn *c;                                                                    \
		uint32_t reason;                                                                   \
		ssize_t n;                                                                         \
		if (fresh) {                                                                       \
			n = native(kernel);                                                        \
			fresh_leave(fd, fresh, FRESH_TX, n);                                       \
			return to_errno(n);                                                        \
		}                                                                                  \
		c = cancel_point(fd);                                                              \
		if (likely(!c))                                                                    \
			return kernel;                                                             \
		if (likely(conn_tx_begin(c, fd))) {                                                \
			reason = why;                                                              \
			if (unlikely(reason))                                                      \
				conn_demote_tx(c, reason);                                         \
			n = unlikely(reason) ? native(kernel) : ring;                              \
		} else {                                                                           \
			n = native(kernel);                                                        \
			conn_tx_end(c, fd, n);                                                     \
		}                                                                                  \
		conn_done(c);                                                                      \
		return to_errno(n);                                                                \
	} while (0)

/* ---------------------------------------------------------------- common paths */

/*
 * import_iovec(): a length that is no ssize_t is an error, and what goes beyond MAX_RW_COUNT in all is
 * left for the next call. @big is room for a first piece that has to be cut.
 */
static ssize_t iov_check(const struct iovec **v, size_t count, struct iovec *big)
{
	size_t left = MAX_RW, use = count;

	for (size_t i = 0; i < count; i++) {
		if ((ssize_t)(*v)[i].iov_len < 0)
			return -EINVAL;
		if (use == count && (*v)[i].iov_len > left)
			use = i;
		left -= (*v)[i].iov_len < left ? (*v)[i].iov_len : left;
	}
	if (likely(use == count))
		return count;
	if (use)
		return use;
	big->iov_base = (*v)[0].iov_base;
	big->iov_len = MAX_RW;
	*v = big;
	return 1;
}

/* readv() and writev() of nothing do not ask the socket; the other calls do. */
static int iov_is_empty(const struct iovec *v, size_t count)
{
	while (count && !v->iov_len) {
		v++;
		count--;
	}
	return !count;
}

static ssize_t ring_recv(struct conn *c, int fd, const struct iovec *v, size_t count, int flags)
{
	struct iovec big;
	ssize_t k = iov_check(&v, count, &big);

	return k < 0 ? k : conn_recv(c, fd, v, k, flags);
}

/* As sk_stream_error() does: for the thread that writes. */
static void raise_sigpipe(void)
{
	SYS(SYS_tgkill, getpid(), SYS(SYS_gettid), SIGPIPE);
}

static ssize_t sent(ssize_t n, int flags)
{
	if (unlikely(n == -EPIPE) && !(flags & MSG_NOSIGNAL))
		raise_sigpipe();
	return n;
}

static ssize_t ring_send(struct conn *c, int fd, const struct iovec *v, size_t count, int flags)
{
	struct iovec big;
	ssize_t k = iov_check(&v, count, &big);

	return k < 0 ? k : sent(conn_send(c, fd, v, k, flags), flags);
}

static ssize_t ring_recv1(struct conn *c, int fd, void *buf, size_t len, int flags)
{
	struct iovec v = { buf, len < MAX_RW ? len : MAX_RW };

	return conn_recv(c, fd, &v, 1, flags);
}

static ssize_t ring_send1(struct conn *c, int fd, const void *buf, size_t len, int flags)
{
	struct iovec v = { (void *)buf, len < MAX_RW ? len : MAX_RW };

	return sent(conn_send(c, fd, &v, 1, flags), flags);
}

/* ---------------------------------------------------------------- read and its kin */

/* sock_read_iter(): nothing wanted is nothing read, without waiting. recv() of nothing does wait. */
static ssize_t ring_read(struct conn *c, int fd, void *buf, size_t len)
{
	return len ? ring_recv1(c, fd, buf, len, 0) : 0;
}

static ssize_t ring_readv(struct conn *c, int fd, const struct iovec *v, int count, int flags)
{
	if (count < 0 || count > MAX_IOV)
		return -EINVAL;
	return iov_is_empty(v, count) ? 0 : ring_recv(c, fd, v, count, flags);
}

/* What programs call most, on whatever it is: with one look-up, and no frame of ours, where it is nothing of ours. */
static __attribute__((noinline)) ssize_t read_ours(int fd, void *buf, size_t len)
{
	RECV_HOOK(fd, 0, REAL(read)(fd, buf, len), ring_read(c, fd, buf, len));
}

ISM_EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	return likely(!ism_fd_raw(fd)) ? REAL(read)(fd, buf, len) : read_ours(fd, buf, len);
}
ISM_ALIAS(__read, read);

ISM_EXPORT ssize_t readv(int fd, const struct iovec *v, int count)
{
	RECV_HOOK(fd, 0, REAL(readv)(fd, v, count), ring_readv(c, fd, v, count, 0));
}

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif
#define RWF_OF_SOCKET (RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND)

/* kiocb_set_rw_flags() and sock_read_iter(): RWF_NOWAIT is MSG_DONTWAIT, the others mean nothing. */
static int rwf_flags(int flags)
{
	if (flags & ~RWF_OF_SOCKET)
		return -EOPNOTSUPP;
	return flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
}

/* Only -1, the file's own position, exists on a socket; anything else is the kernel's ESPIPE. */
ISM_EXPORT ssize_t preadv2(int fd, const struct iovec *v, int count, off_t pos, int flags)
{
	int f = rwf_flags(flags);

	if (pos != -1)
		return REAL(preadv2)(fd, v, count, pos, flags);
	RECV_HOOK(fd, 0, REAL(preadv2)(fd, v, count, pos, flags),
		  f < 0 ? f : ring_readv(c, fd, v, count, f));
}
ISM_ALIAS(preadv64v2, preadv2);

ISM_EXPORT ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	RECV_HOOK(fd, flags, REAL(recv)(fd, buf, len, flags), ring_recv1(c, fd, buf, len, flags));
}

/* inet_recvmsg() and move_addr_to_user(): TCP names nobody, so the length becomes 0. */
static ssize_t ring_recvfrom(struct conn *c, int fd, void *buf, size_t len, int flags,
			     struct sockaddr *from, socklen_t *fromlen)
{
	ssize_t n;

	if (from && !fromlen)
		return -EFAULT;
	if (from && (int)*fromlen < 0)
		return -EINVAL;
	n = ring_recv1(c, fd, buf, len, flags);
	if (n >= 0 && from)
		*fromlen = 0;
	return n;
}

ISM_EXPORT ssize_t recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *from,
			    socklen_t *fromlen)
{
	RECV_HOOK(fd, flags, REAL(recvfrom)(fd, buf, len, flags, from, fromlen),
		  ring_recvfrom(c, fd, buf, len, flags, from, fromlen));
}

/* Did it go back to TCP, for the sake of control messages perhaps: TCP_INQ, timestamps? */
static int on_tcp_again(struct conn *c)
{
	int frozen;

	if (ism_lock_take(&c->slot->rx_lock))
		return 0;
	frozen = c->slot->rx_frozen;
	ism_lock_drop(&c->slot->rx_lock);
	return frozen;
}

/* ____sys_recvmsg(): no name, no control messages, and of the flags only what was asked for. */
static ssize_t ring_recvmsg(struct conn *c, int fd, struct msghdr *m, int flags)
{
	ssize_t n;

	if (m->msg_iovlen > MAX_IOV)
		return -EMSGSIZE;
	if ((int)m->msg_namelen < 0)
		return -EINVAL;
	if (unlikely(m->msg_controllen) && on_tcp_again(c))
		return native(real.recvmsg(fd, m, flags));
	n = ring_recv(c, fd, m->msg_iov, m->msg_iovlen, flags);
	if (n < 0)
		return n;
	if (m->msg_name)
		m->msg_namelen = 0;
	m->msg_controllen = 0;
	m->msg_flags = flags & MSG_CMSG_CLOEXEC;
	return n;
}

ISM_EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	RECV_HOOK(fd, flags, REAL(recvmsg)(fd, m, flags), ring_recvmsg(c, fd, m, flags));
}

static int bad_timespec(const struct timespec *t)
{
	return t->tv_sec < 0 || t->tv_nsec < 0 || t->tv_nsec >= 1000000000;
}

/* What is left of @t at @now; 1 when it is over. */
static int time_left(struct timespec *t, uint64_t end)
{
	uint64_t now = ism_now_ns(), left = end > now ? end - now : 0;

	t->tv_sec = left / 1000000000;
	t->tv_nsec = left % 1000000000;
	return !left;
}

/* do_recvmmsg(): the timeout is looked at after each message; an error after some is for the next call. */
static ssize_t ring_recvmmsg(struct conn *c, int fd, struct mmsghdr *mm, unsigned int count,
			     int flags, struct timespec *timeout)
{
	uint64_t end = 0;
	ssize_t n = 0;
	unsigned int i;

	if (timeout && bad_timespec(timeout))
		return -EINVAL;
	if (timeout)
		end = ism_now_ns() + timeout->tv_sec * 1000000000ULL + timeout->tv_nsec;
	for (i = 0; i < count && i < MAX_IOV;) {
		n = ring_recvmsg(c, fd, &mm[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (n < 0)
			break;
		mm[i++].msg_len = n;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		if (timeout && time_left(timeout, end))
			break;
	}
	if (!i)
		return n;
	if (n < 0 && n != -EAGAIN && n != -EINTR)
		__atomic_store_n(&c->slot->rx_err, n, __ATOMIC_RELAXED);
	return i;
}

/* A batch through the kernel: its result is a number of messages. What are they in bytes? */
static ssize_t batch_bytes(const struct mmsghdr *mm, ssize_t n)
{
	ssize_t sum = 0;

	for (ssize_t i = 0; i < n; i++)
		sum += mm[i].msg_len;
	return n < 0 ? n : sum;
}

ISM_EXPORT int recvmmsg(int fd, struct mmsghdr *mm, unsigned int count, int flags,
			struct timespec *timeout)
{
	struct conn *c = cancel_point(fd);
	ssize_t n;

	if (likely(!c))
		return REAL(recvmmsg)(fd, mm, count, flags, timeout);
	if (flags & (MSG_OOB | MSG_ERRQUEUE)) {
		n = native(real.recvmmsg(fd, mm, count, flags, timeout));
	} else if (conn_rx_begin(c, fd)) {
		n = ring_recvmmsg(c, fd, mm, count, flags, timeout);
	} else {
		n = native(real.recvmmsg(fd, mm, count, flags, timeout));
		conn_rx_end(c, fd, batch_bytes(mm, n));
	}
	conn_done(c);
	return to_errno(n);
}

/* What _FORTIFY_SOURCE makes of the above. */
extern void __chk_fail(void) __attribute__((noreturn));

ISM_EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	if (len > room)
		__chk_fail();
	return read(fd, buf, len);
}

ISM_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t len, size_t room, int flags)
{
	if (len > room)
		__chk_fail();
	return recv(fd, buf, len, flags);
}

ISM_EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t room, int flags,
				  struct sockaddr *from, socklen_t *fromlen)
{
	if (len > room)
		__chk_fail();
	return recvfrom(fd, buf, len, flags, from, fromlen);
}

/* ---------------------------------------------------------------- write and its kin */

/* Which messages only TCP can carry. MSG_FASTOPEN on a connection is the kernel's EISCONN. */
static uint32_t only_tcp(int flags)
{
	if (likely(!(flags & (MSG_OOB | MSG_ZEROCOPY | MSG_FASTOPEN))))
		return 0;
	return flags & MSG_OOB ? ISM_R_URGENT : ISM_R_ZEROCOPY;
}

/* Control messages of a TCP socket ask for timestamps or pacing: sock_cmsg_send(). */
static uint32_t only_tcp_msg(const struct msghdr *m, int flags)
{
	return unlikely(m->msg_controllen) ? ISM_R_TIMESTAMP : only_tcp(flags);
}

static ssize_t ring_writev(struct conn *c, int fd, const struct iovec *v, int count, int flags)
{
	if (count < 0 || count > MAX_IOV)
		return -EINVAL;
	return iov_is_empty(v, count) ? 0 : ring_send(c, fd, v, count, flags);
}

static __attribute__((noinline)) ssize_t write_ours(int fd, const void *buf, size_t len)
{
	SEND_HOOK(fd, 0, REAL(write)(fd, buf, len), ring_send1(c, fd, buf, len, 0));
}

ISM_EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
	return likely(!ism_fd_raw(fd)) ? REAL(write)(fd, buf, len) : write_ours(fd, buf, len);
}
ISM_ALIAS(__write, write);

ISM_EXPORT ssize_t writev(int fd, const struct iovec *v, int count)
{
	SEND_HOOK(fd, 0, REAL(writev)(fd, v, count), ring_writev(c, fd, v, count, 0));
}

ISM_EXPORT ssize_t pwritev2(int fd, const struct iovec *v, int count, off_t pos, int flags)
{
	int f = rwf_flags(flags);

	if (pos != -1)
		return REAL(pwritev2)(fd, v, count, pos, flags);
	SEND_HOOK(fd, 0, REAL(pwritev2)(fd, v, count, pos, flags),
		  f < 0 ? f : ring_writev(c, fd, v, count, f));
}
ISM_ALIAS(pwritev64v2, pwritev2);

ISM_EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	SEND_HOOK(fd, only_tcp(flags), REAL(send)(fd, buf, len, flags),
		  ring_send1(c, fd, buf, len, flags));
}
ISM_ALIAS(__send, send);

/* TCP ignores where to once it is connected, but for the form: move_addr_to_kernel(). */
static ssize_t ring_sendto(struct conn *c, int fd, const void *buf, size_t len, int flags,
			   const struct sockaddr *to, socklen_t tolen)
{
	if (to && tolen > sizeof(struct sockaddr_storage))
		return -EINVAL;
	return ring_send1(c, fd, buf, len, flags);
}

ISM_EXPORT ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
			  socklen_t tolen)
{
	SEND_HOOK(fd, only_tcp(flags), REAL(sendto)(fd, buf, len, flags, to, tolen),
		  ring_sendto(c, fd, buf, len, flags, to, tolen));
}

static ssize_t ring_sendmsg(struct conn *c, int fd, const struct msghdr *m, int flags)
{
	if (m->msg_iovlen > MAX_IOV)
		return -EMSGSIZE;
	if ((int)m->msg_namelen < 0)
		return -EINVAL;
	return ring_send(c, fd, m->msg_iov, m->msg_iovlen, flags);
}

/*
 * Descriptors that are about to be sent to another process (SCM_RIGHTS): it can use TCP only, so
 * connections among them go back there first. 0 or -EAGAIN.
 */
static int leave_passed(const struct msghdr *m)
{
	struct cmsghdr *h = m->msg_controllen ? CMSG_FIRSTHDR(m) : NULL;
	size_t n;
	int fd, rc;

	for (; h; h = CMSG_NXTHDR((struct msghdr *)m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS ||
		    h->cmsg_len < CMSG_LEN(0))
			continue;
		n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
			rc = ism_fd_leave(fd, ISM_R_FD_PASSED, 0);
			if (rc)
				return rc;
		}
	}
	return 0;
}

ISM_EXPORT ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	int rc;

	if (unlikely(m && m->msg_controllen)) {
		rc = leave_passed(m);
		if (rc)
			return to_errno(rc);
	}
	SEND_HOOK(fd, only_tcp_msg(m, flags), REAL(sendmsg)(fd, m, flags),
		  ring_sendmsg(c, fd, m, flags));
}

static uint32_t only_tcp_batch(const struct mmsghdr *mm, unsigned int count, int flags)
{
	uint32_t why = 0;

	for (unsigned int i = 0; i < count && i < MAX_IOV && !why; i++)
		why = only_tcp_msg(&mm[i].msg_hdr, flags);
	return why;
}

/* __sys_sendmmsg(): an error after some messages is forgotten; the next call will meet it. */
static ssize_t ring_sendmmsg(struct conn *c, int fd, struct mmsghdr *mm, unsigned int count,
			     int flags)
{
	unsigned int i;
	ssize_t n = 0;

	for (i = 0; i < count && i < MAX_IOV; i++) {
		n = ring_sendmsg(c, fd, &mm[i].msg_hdr, flags);
		if (n < 0)
			break;
		mm[i].msg_len = n;
	}
	return i ? i : n;
}

ISM_EXPORT int sendmmsg(int fd, struct mmsghdr *mm, unsigned int count, int flags)
{
	struct conn *c;
	uint32_t reason;
	ssize_t n;
	int rc;

	for (unsigned int i = 0; mm && i < count && i < MAX_IOV; i++) {
		rc = leave_passed(&mm[i].msg_hdr);
		if (rc)
			return to_errno(rc);
	}
	c = cancel_point(fd);
	if (likely(!c))
		return REAL(sendmmsg)(fd, mm, count, flags);
	if (conn_tx_begin(c, fd)) {
		reason = only_tcp_batch(mm, count, flags);
		if (reason)
			conn_demote_tx(c, reason);
		n = reason ? native(real.sendmmsg(fd, mm, count, flags))
			   : ring_sendmmsg(c, fd, mm, count, flags);
	} else {
		n = native(real.sendmmsg(fd, mm, count, flags));
		conn_tx_end(c, fd, batch_bytes(mm, n));
	}
	conn_done(c);
	return to_errno(n);
}

/* ---------------------------------------------------------------- sendfile */

/*
 * conn_send_from() said -EXDEV: sending is on TCP, where the kernel does it without copying, and raises
 * SIGPIPE itself. @n is what it did, @done what went before.
 */
static ssize_t by_kernel(struct conn *c, int fd, ssize_t n, size_t done)
{
	conn_tx_end(c, fd, n);
	if (n >= 0)
		return done + n;
	return done ? (ssize_t)done : n;
}

struct file_src {
	int fd;
	off_t pos;
};

static ssize_t fill_file(void *arg, const struct iovec *v, int n)
{
	struct file_src *f = arg;
	ssize_t got = native(real.preadv2(f->fd, v, n, f->pos, 0));

	if (got > 0)
		f->pos += got;
	return got == -EISDIR ? -EINVAL : got;
}

/* do_sendfile(): where to read, or why not. The kernel wants a file that can seek. */
static int file_src_init(struct file_src *f, int in, const off_t *at)
{
	off_t now = lseek(in, 0, SEEK_CUR);

	if (now < 0)
		return errno == ESPIPE ? -EINVAL : -errno;
	f->fd = in;
	f->pos = at ? *at : now;
	return f->pos < 0 ? -EINVAL : 0;
}

static ssize_t move_file(struct conn *c, int fd, struct file_src *f, size_t len)
{
	size_t done = 0;
	ssize_t n = 0;

	while (done < len) {
		n = conn_send_from(c, fd, len - done, 0, fill_file, f);
		if (n == -EXDEV)
			return by_kernel(
				c, fd, native(real.sendfile(fd, f->fd, &f->pos, len - done)), done);
		if (n <= 0)
			break;
		done += n;
	}
	return done ? (ssize_t)done : sent(n, 0);
}

static ssize_t ring_sendfile(struct conn *c, int fd, int in, off_t *at, size_t len)
{
	struct file_src f;
	ssize_t n = file_src_init(&f, in, at);

	if (n)
		return n;
	n = move_file(c, fd, &f, len < MAX_RW ? len : MAX_RW);
	if (at)
		*at = f.pos;
	else
		lseek(in, f.pos, SEEK_SET);
	return n;
}

ISM_EXPORT ssize_t sendfile(int fd, int in, off_t *at, size_t len)
{
	SEND_HOOK(fd, 0, REAL(sendfile)(fd, in, at, len), ring_sendfile(c, fd, in, at, len));
}
ISM_ALIAS(sendfile64, sendfile);

/* ---------------------------------------------------------------- splice */

/* A pipe, and whether it may be waited for. */
struct pipe_end {
	int fd;
	int wait;
};

static int pipe_init(struct pipe_end *p, int fd, unsigned int flags)
{
	int fl = real.fcntl(fd, F_GETFL);

	if (fl < 0)
		return -errno;
	if (real.fcntl(fd, F_GETPIPE_SZ) < 0)
		return -EINVAL;
	p->fd = fd;
	p->wait = !(flags & SPLICE_F_NONBLOCK || fl & O_NONBLOCK);
	return 0;
}

/* Until the pipe is ready for @events: then one step of it does not block. 0 or negative errno. */
static int pipe_ready(const struct pipe_end *p, short events, int wait)
{
	struct pollfd f = { .fd = p->fd, .events = events };
	int n = real.poll(&f, 1, wait ? -1 : 0);

	if (n < 0)
		return -errno;
	return n ? 0 : -EAGAIN;
}

/* What is in the pipe now; 0 when it is empty: then the splice ends with what it has. */
static ssize_t fill_pipe(void *arg, const struct iovec *v, int n)
{
	struct pipe_end *p = arg;

	if (pipe_ready(p, POLLIN, 0))
		return 0;
	return native(real.readv(p->fd, v, n));
}

/*
 * Never more than fits: a writer that fills a pipe and only then reads it would wait for itself. Since
 * Linux 6.5 a pipe knows RWF_NOWAIT; before, a page at a time, because a pipe that is ready has room
 * for one.
 */
static ssize_t put_pipe(struct pipe_end *p, const struct iovec *v)
{
	struct iovec page = { v->iov_base, v->iov_len < PIPE_BUF ? v->iov_len : PIPE_BUF };
	ssize_t put = native(real.pwritev2(p->fd, v, 1, -1, RWF_NOWAIT));

	if (put != -EOPNOTSUPP)
		return put;
	if (pipe_ready(p, POLLOUT, 0))
		return -EAGAIN;
	return native(real.writev(p->fd, &page, 1));
}

static ssize_t drain_pipe(void *arg, const struct iovec *v, int n)
{
	struct iovec left[2] = { v[0], n > 1 ? v[1] : (struct iovec){ 0 } };
	ssize_t done = 0, put = 0;

	for (int i = 0; i < n;) {
		if (!left[i].iov_len) {
			i++;
			continue;
		}
		put = put_pipe(arg, &left[i]);
		if (put <= 0)
			break;
		done += put;
		left[i].iov_base = (char *)left[i].iov_base + put;
		left[i].iov_len -= put;
	}
	return done ? done : put;
}

/* splice_file_to_pipe(): first room in the pipe, then bytes of the socket. */
static ssize_t ring_splice_out(struct conn *c, int fd, int to, size_t len, unsigned int flags)
{
	struct pipe_end p;
	ssize_t n = pipe_init(&p, to, flags);

	if (!n)
		n = pipe_ready(&p, POLLOUT, p.wait);
	return n ? n : conn_recv_to(c, fd, len, 0, drain_pipe, &p);
}

/* splice_to_socket(): waits for the first bytes in the pipe, and sends what is there then. */
static ssize_t ring_splice_in(struct conn *c, int fd, int from, size_t len, unsigned int flags)
{
	int msg = flags & SPLICE_F_MORE ? MSG_MORE : 0;
	struct pipe_end p;
	size_t done = 0;
	ssize_t n = pipe_init(&p, from, flags);

	if (!n)
		n = pipe_ready(&p, POLLIN, p.wait);
	if (n)
		return n;
	while (done < len) {
		n = conn_send_from(c, fd, len - done, msg, fill_pipe, &p);
		if (n == -EXDEV)
			return by_kernel(
				c, fd,
				native(real.splice(from, NULL, fd, NULL, len - done,
						   flags | (done ? SPLICE_F_NONBLOCK : 0))),
				done);
		if (n <= 0)
			break;
		done += n;
	}
	return done ? (ssize_t)done : sent(n, 0);
}

static ssize_t splice_from_conn(int in, int out, size_t len, unsigned int flags)
{
	RECV_HOOK(in, 0, real.splice(in, NULL, out, NULL, len, flags),
		  ring_splice_out(c, in, out, len, flags));
}

static ssize_t splice_to_conn(int in, int out, size_t len, unsigned int flags)
{
	SEND_HOOK(out, 0, real.splice(in, NULL, out, NULL, len, flags),
		  ring_splice_in(c, out, in, len, flags));
}

/* With a position, with two connections or with nothing to do it is the kernel's error or 0. */
ISM_EXPORT ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t len,
			  unsigned int flags)
{
	int from = ISM_FD_KIND(ism_fd_get(in)) == ISM_FD_CONN;
	int to = ISM_FD_KIND(ism_fd_get(out)) == ISM_FD_CONN;

	if (likely(from == to) || in_at || out_at || !len ||
	    flags & ~(SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT))
		return REAL(splice)(in, in_at, out, out_at, len, flags);
	if (len > MAX_RW)
		len = MAX_RW;
	return from ? splice_from_conn(in, out, len, flags) : splice_to_conn(in, out, len, flags);
}
