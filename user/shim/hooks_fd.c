// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Interposed: where descriptors come from, go to, and what is set on them. A TCP socket is marked capable
 * before it connects or listens; what comes out of that becomes a candidate. Whatever an application asks
 * of a socket that rings cannot give takes the connection back to TCP first.
 */
#include "shim.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* ---------------------------------------------------------------- table entries */

/* What the entry of an ISM_FD_TCP remembers, where the others have a pointer. */
#define TCP_NEVER                                                                                  \
	1UL /* an option was set that rings cannot honour, or it is no TCP socket at all */
#define TCP_LISTEN 2UL /* listens */
#define TCP_MARKED 4UL /* and its last mark worked */
#define TCP_WHEN   8UL /* time of that mark, ms, in the bits from here on */

static unsigned long tcp_bits(ism_fd_t e)
{
	return (uintptr_t)ISM_FD_PTR(e) >> 3;
}

static void *tcp_ptr(unsigned long bits)
{
	return (void *)(bits << 3);
}

static int is_tcp_type(int family, int type, int protocol)
{
	return (family == AF_INET || family == AF_INET6) && (type & 0xf) == SOCK_STREAM &&
	       (protocol == 0 || protocol == IPPROTO_TCP);
}

/*
 * @fd is new, says the kernel, so what the table has of it is stale: it was closed where we do not see
 * it, inside the C library or by a raw system call.
 */
static void fd_is_new(int fd)
{
	if (likely(!ism_fd_raw(fd)))
		return;
	conn_close(fd);
	ism_fd_set(fd, ISM_FD_NONE, NULL);
}

static int lends(uint32_t reason)
{
	return reason == ISM_R_FD_PASSED || reason == ISM_R_SPAWN || reason == ISM_R_EXEC;
}

int ism_fd_leave(int fd, uint32_t reason, int forget)
{
	ism_fd_t e = ism_fd_get(fd);
	struct conn *c;
	int rc;

	if (ISM_FD_KIND(e) == ISM_FD_TCP)
		ism_fd_swap(fd, e, ISM_FD_TCP, tcp_ptr(tcp_bits(e) | TCP_NEVER));
	c = conn_of(fd);
	if (likely(!c))
		return 0;
	rc = conn_demote(c, fd, reason);
	if (!rc && lends(reason))
		atomic_store(&c->slot->lent, 1);
	if (!rc && forget && !atomic_load(&c->closing))
		conn_plain(c);
	conn_done(c);
	return rc;
}

/* ---------------------------------------------------------------- socket, connect */

ISM_EXPORT int socket(int family, int type, int protocol)
{
	int fd = REAL(socket)(family, type, protocol);

	if (fd < 0)
		return fd;
	fd_is_new(fd);
	if (is_tcp_type(family, type, protocol) && !ism_borrowed)
		ism_fd_set(fd, ISM_FD_TCP, NULL);
	return fd;
}

ISM_EXPORT int socketpair(int family, int type, int protocol, int fd[2])
{
	int rc = REAL(socketpair)(family, type, protocol, fd);

	if (!rc) {
		fd_is_new(fd[0]);
		fd_is_new(fd[1]);
	}
	return rc;
}

static int connect_new(int fd, const struct sockaddr *to, socklen_t len)
{
	int rc, saved;

	if (ism_caps_process(fd))
		return real.connect(fd, to, len);
	rc = real.connect(fd, to, len);
	/* EINTR: it goes on without us, as with EINPROGRESS: connect(2) */
	if (rc && errno != EINPROGRESS && errno != EINTR)
		return rc;
	saved = errno;
	/* one that blocks comes back connected */
	conn_start(fd, rc && saved == EINPROGRESS);
	errno = saved;
	return rc;
}

/* AF_UNSPEC: tcp_disconnect(). The socket may then be connected again, or listen. */
static int disconnect(struct conn *c, int fd, const struct sockaddr *to, socklen_t len)
{
	conn_demote_tx(c, ISM_R_SHUTDOWN);
	if (!atomic_load(&c->closing))
		conn_plain(c);
	ism_fd_set(fd, ISM_FD_TCP, NULL);
	return real.connect(fd, to, len);
}

/* Again on a candidate: asks how it went, or, after an error, tries anew: then it needs a mark. */
static int connect_again(int fd, const struct sockaddr *to, socklen_t len)
{
	struct conn *c = conn_of(fd);
	int rc;

	if (!c)
		return real.connect(fd, to, len);
	if (len >= sizeof(to->sa_family) && to->sa_family == AF_UNSPEC) {
		rc = disconnect(c, fd, to, len);
	} else {
		if (!conn_attached(c))
			ism_caps_process(fd);
		rc = real.connect(fd, to, len);
	}
	conn_done(c);
	return rc;
}

ISM_EXPORT int connect(int fd, const struct sockaddr *to, socklen_t len)
{
	ism_fd_t e = ism_fd_get(fd);

	if (ISM_FD_KIND(e) == ISM_FD_CONN)
		return connect_again(fd, to, len);
	if (ISM_FD_KIND(e) == ISM_FD_TCP && !(tcp_bits(e) & TCP_NEVER) &&
	    len >= sizeof(to->sa_family) && to->sa_family != AF_UNSPEC)
		return connect_new(fd, to, len);
	/* What is said of the process does not hold for a socket that we must not touch or do not know. */
	if (len >= sizeof(to->sa_family) && (to->sa_family == AF_INET || to->sa_family == AF_INET6))
		ism_caps_never(fd);
	return REAL(connect)(fd, to, len);
}
ISM_ALIAS(__connect, connect);

/* ---------------------------------------------------------------- listen, accept */

ISM_EXPORT int listen(int fd, int backlog)
{
	ism_fd_t e = ism_fd_get(fd);
	unsigned long bits = TCP_LISTEN | ism_coarse_ms() * TCP_WHEN;

	if (ISM_FD_KIND(e) == ISM_FD_TCP && !(tcp_bits(e) & TCP_NEVER)) {
		if (!ism_caps_mark(fd))
			bits |= TCP_MARKED;
		ism_fd_swap(fd, e, ISM_FD_TCP, tcp_ptr(bits));
	}
	return REAL(listen)(fd, backlog);
}

static int sockopt_int(int fd, int opt)
{
	int v = -1;
	socklen_t len = sizeof(v);

	return real.getsockopt(fd, SOL_SOCKET, opt, &v, &len) ? -1 : v;
}

/* A listener that we did not see made: inherited by exec, or received from another process. */
static unsigned long unknown_listener(int fd)
{
	if (is_tcp_type(sockopt_int(fd, SO_DOMAIN), sockopt_int(fd, SO_TYPE),
			sockopt_int(fd, SO_PROTOCOL)))
		return TCP_LISTEN;
	return TCP_NEVER;
}

/* Marked anew when the last time was ISM_REMARK_MS ago, and at once when we have never seen it. */
static int listener_is_marked(int fd)
{
	ism_fd_t e = ism_fd_get(fd);
	unsigned long bits = tcp_bits(e);
	uint64_t now;

	if (!e)
		bits = unknown_listener(fd);
	else if (ISM_FD_KIND(e) != ISM_FD_TCP)
		return 0;
	if (!(bits & TCP_NEVER)) {
		now = ism_coarse_ms();
		if (likely(now - bits / TCP_WHEN < ISM_REMARK_MS))
			return !!(bits & TCP_MARKED);
		bits = TCP_LISTEN | now * TCP_WHEN | (ism_caps_mark(fd) ? 0 : TCP_MARKED);
	}
	ism_fd_swap(fd, e, ISM_FD_TCP, tcp_ptr(bits));
	return (bits & (TCP_MARKED | TCP_NEVER)) == TCP_MARKED;
}

int ism_fd_listens(int fd)
{
	ism_fd_t e = ism_fd_get(fd);

	return ISM_FD_KIND(e) == ISM_FD_TCP && !(tcp_bits(e) & TCP_NEVER) &&
	       tcp_bits(e) & TCP_MARKED;
}

/* 0, or -1 with errno: it shall not be waited any more. */
static int await_client(int fd)
{
	if (likely(!ism_fd_listens(fd)) || !ism_await_client(fd))
		return 0;
	errno = EINTR;
	return -1;
}

static int accepted(int listener, int fd, int flags)
{
	int saved = errno;

	if (fd < 0)
		return fd;
	fd_is_new(fd);
	if (!ism_borrowed && listener_is_marked(listener))
		conn_start(fd, !!(flags & SOCK_NONBLOCK));
	errno = saved;
	return fd;
}

ISM_EXPORT int accept(int fd, struct sockaddr *from, socklen_t *len)
{
	return await_client(fd) ? -1 : accepted(fd, REAL(accept)(fd, from, len), 0);
}

ISM_EXPORT int accept4(int fd, struct sockaddr *from, socklen_t *len, int flags)
{
	return await_client(fd) ? -1 : accepted(fd, REAL(accept4)(fd, from, len, flags), flags);
}

ISM_EXPORT int shutdown(int fd, int how)
{
	struct conn *c = ism_fd_is_fresh(fd) ? NULL : conn_of(fd);

	if (c) {
		if (conn_attached(c))
			conn_shutdown(c, how);
		conn_done(c);
	}
	return REAL(shutdown)(fd, how);
}

/* ---------------------------------------------------------------- close */

static int bad_fd(void)
{
	errno = EBADF;
	return -1;
}

static void forget(int fd)
{
	conn_close(fd);
	ism_fd_set(fd, ISM_FD_NONE, NULL);
}

ISM_EXPORT int close(int fd)
{
	if (likely(!ism_fd_raw(fd)))
		return REAL(close)(fd);
	if (ism_daemon_owns(fd))
		return bad_fd();
	forget(fd);
	return real.close(fd);
}
ISM_ALIAS(__close, close);

/* All of them but ours, which lie among them as if they were not there. */
static long close_all(unsigned int first, unsigned int last, int flags)
{
	unsigned int at = first;
	int fd;

	for (fd = ism_fd_next(first, last); fd >= 0; fd = ism_fd_next(fd + 1, last)) {
		if (!ism_daemon_owns(fd)) {
			forget(fd);
			continue;
		}
		if ((unsigned int)fd > at)
			SYS(SYS_close_range, at, fd - 1, flags);
		at = fd + 1;
	}
	return at <= last ? SYS(SYS_close_range, at, last, flags) : 0;
}

ISM_EXPORT int close_range(unsigned int first, unsigned int last, int flags)
{
	long rc;

	/* ours are CLOEXEC already */
	if (first > last || flags & ~CLOSE_RANGE_UNSHARE)
		rc = SYS(SYS_close_range, first, last, flags);
	else
		rc = close_all(first, last, flags);
	if (rc < 0) {
		errno = -rc;
		return -1;
	}
	return 0;
}

ISM_EXPORT void closefrom(int first)
{
	close_all(first < 0 ? 0 : first, ~0U, 0);
}

/* ---------------------------------------------------------------- dup */

/*
 * 0, 1 and 2 are what stdio and shells use, behind our back: a connection that comes there goes to
 * TCP for good, and is not ours any more.
 */
static int may_become(int oldfd, int newfd)
{
	return newfd >= 0 && newfd <= STDERR_FILENO ? ism_fd_leave(oldfd, ISM_R_STDIO, 1) : 0;
}

static int dupped(int oldfd, int newfd)
{
	if (newfd < 0)
		return newfd;
	fd_is_new(newfd);
	if (likely(!ism_fd_get(oldfd)))
		return newfd;
	if (may_become(oldfd, newfd)) {
		real.close(newfd);
		errno = EAGAIN;
		return -1;
	}
	if (ism_fd_get(oldfd))
		conn_dup(oldfd, newfd);
	return newfd;
}

ISM_EXPORT int dup(int fd)
{
	if (unlikely(ism_daemon_owns(fd)))
		return bad_fd();
	return dupped(fd, REAL(dup)(fd));
}

/*
 * Before @newfd is replaced. When that will fail anyway it must stay what it is, so @oldfd is looked at.
 * One of ours in the way looks like the race that dup(2) has EBUSY for.
 */
static int dup_over(int oldfd, int newfd)
{
	if (unlikely(ism_daemon_owns(oldfd)))
		return -EBADF;
	if (likely(!ism_fd_get(newfd) && !ism_fd_get(oldfd)))
		return 0;
	if (ism_daemon_owns(newfd))
		return -EBUSY;
	if (REAL(fcntl)(oldfd, F_GETFD) < 0)
		return -errno;
	if (may_become(oldfd, newfd))
		return -EAGAIN;
	forget(newfd);
	return 0;
}

static int dup_to(int oldfd, int newfd, int flags, int use_dup3)
{
	int rc;

	if (oldfd != newfd && newfd >= 0 && !(flags & ~O_CLOEXEC)) {
		rc = dup_over(oldfd, newfd);
		if (unlikely(rc)) {
			errno = -rc;
			return -1;
		}
	}
	rc = use_dup3 ? REAL(dup3)(oldfd, newfd, flags) : REAL(dup2)(oldfd, newfd);
	if (rc >= 0 && oldfd != newfd && unlikely(ism_fd_get(oldfd)))
		conn_dup(oldfd, newfd);
	return rc;
}

ISM_EXPORT int dup2(int oldfd, int newfd)
{
	return dup_to(oldfd, newfd, 0, 0);
}
ISM_ALIAS(__dup2, dup2);

ISM_EXPORT int dup3(int oldfd, int newfd, int flags)
{
	return dup_to(oldfd, newfd, flags, 1);
}

/* ---------------------------------------------------------------- fcntl, ioctl */

/* SIGIO comes from the kernel, which does not see what is in a ring. */
static int leave_for_sigio(int fd)
{
	int rc = ism_fd_leave(fd, ISM_R_PLAIN_READER, 0);

	if (rc)
		errno = -rc;
	return rc;
}

static void set_nonblock(int fd, int on)
{
	struct conn *c = conn_of(fd);

	if (!c)
		return;
	atomic_store(&c->slot->nonblock, !!on);
	conn_done(c);
}

static int fcntl_setfl(int fd, long flags)
{
	int rc;

	if (flags & O_ASYNC && leave_for_sigio(fd))
		return -1;
	rc = real.fcntl(fd, F_SETFL, flags);
	if (!rc)
		set_nonblock(fd, !!(flags & O_NONBLOCK));
	return rc;
}

ISM_EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) {
		if (unlikely(ism_daemon_owns(fd)))
			return bad_fd();
		return dupped(fd, REAL(fcntl)(fd, cmd, arg));
	}
	if (cmd == F_SETFL && unlikely(ism_fd_get(fd)))
		return fcntl_setfl(fd, (long)arg);
	return REAL(fcntl)(fd, cmd, arg);
}
ISM_ALIAS(fcntl64, fcntl);
ISM_ALIAS(__fcntl, fcntl);

static int ioctl_inq(struct conn *c, int fd, unsigned long req, int *arg)
{
	int n;

	if (conn_rx_begin(c, fd)) {
		n = conn_inq(c, fd);
		if (n < 0) {
			errno = -n;
			return -1;
		}
		*arg = n;
		return 0;
	}
	n = real.ioctl(fd, req, arg);
	conn_rx_end(c, fd, 0);
	return n;
}

/* The kernel's mark is in TCP's bytes, which come after those in the ring. */
static int ioctl_atmark(struct conn *c, int fd, int *arg)
{
	int tcp = 0, rc = real.ioctl(fd, FIONREAD, &tcp);

	if (rc || !conn_attached(c) || conn_inq(c, fd) <= tcp)
		return real.ioctl(fd, SIOCATMARK, arg);
	*arg = 0;
	return 0;
}

static int ioctl_ours(int fd, unsigned long req, void *arg)
{
	struct conn *c;
	int rc;

	if (req == FIOASYNC && arg && *(int *)arg && leave_for_sigio(fd))
		return -1;
	c = conn_of(fd);
	if (c && req == FIONREAD)
		rc = ioctl_inq(c, fd, req, arg);
	else if (c && req == SIOCATMARK)
		rc = ioctl_atmark(c, fd, arg);
	else
		rc = real.ioctl(fd, req, arg);
	if (c)
		conn_done(c);
	if (!rc && req == FIONBIO)
		set_nonblock(fd, *(int *)arg);
	return rc;
}

ISM_EXPORT int ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (unlikely(ism_fd_get(fd)) &&
	    (req == FIONREAD || req == FIONBIO || req == FIOASYNC || req == SIOCATMARK))
		return ioctl_ours(fd, req, arg);
	return REAL(ioctl)(fd, req, arg);
}

/* ---------------------------------------------------------------- socket options */

#ifndef TCP_ZEROCOPY_RECEIVE
#define TCP_ZEROCOPY_RECEIVE 35
#endif
/* Option names that 32-bit time has twice; asm-generic/socket.h, and not in every C library's. */
#define RCVTIMEO_OLD	 20
#define SNDTIMEO_OLD	 21
#define RCVTIMEO_NEW	 66
#define SNDTIMEO_NEW	 67
#define TIMESTAMP_NEW	 63
#define TIMESTAMPNS_NEW	 64
#define TIMESTAMPING_NEW 65

/* What takes a connection back to TCP, and why; unless the value is @off. @tx: only the sending side. */
struct leaver {
	uint32_t reason; /* 0: it does not */
	int off, tx;
};

#define WHATEVER INT32_MIN

static struct leaver socket_leaver(int name)
{
	switch (name) {
	case SO_ZEROCOPY:
		return (struct leaver){ ISM_R_ZEROCOPY, 0, 1 };
	case SO_MAX_PACING_RATE:
		return (struct leaver){ ISM_R_PACING, -1, 1 };
	case SO_TXTIME:
		return (struct leaver){ ISM_R_PACING, WHATEVER, 1 };
	case SO_TIMESTAMP:
	case SO_TIMESTAMPNS:
	case SO_TIMESTAMPING:
	case TIMESTAMP_NEW:
	case TIMESTAMPNS_NEW:
	case TIMESTAMPING_NEW:
		return (struct leaver){ ISM_R_TIMESTAMP, 0, 0 };
	case SO_PEEK_OFF:
		return (struct leaver){ ISM_R_PEEK_OFF, -1, 0 };
	case SO_ATTACH_FILTER:
	case SO_ATTACH_BPF:
		return (struct leaver){ ISM_R_FILTER, WHATEVER, 0 };
	}
	return (struct leaver){ 0 };
}

static struct leaver tcp_leaver(int name)
{
	switch (name) {
	case TCP_ULP:
		return (struct leaver){ ISM_R_ULP, WHATEVER, 0 };
	case TCP_REPAIR:
		return (struct leaver){ ISM_R_REPAIR, 0, 0 };
	case TCP_INQ:
		return (struct leaver){ ISM_R_INQ, 0, 0 };
	case TCP_FASTOPEN_CONNECT:
		return (struct leaver){ ISM_R_NO_ROOM, 0, 0 };
	}
	return (struct leaver){ 0 };
}

static struct leaver leaver_of(int level, int name, const void *val, socklen_t len)
{
	struct leaver none = { 0 }, l = none;
	int v;

	if (level == SOL_SOCKET)
		l = socket_leaver(name);
	else if (level == IPPROTO_TCP)
		l = tcp_leaver(name);
	if (likely(!l.reason) || l.off == WHATEVER)
		return l;
	if (len < sizeof(v) || !val)
		return none; /* the kernel's EINVAL */
	__builtin_memcpy(&v, val, sizeof(v));
	return v == l.off ? none : l;
}

static int leave_for_option(int fd, struct leaver l)
{
	ism_fd_t e = ism_fd_get(fd);
	struct conn *c;

	if (!l.tx || ISM_FD_KIND(e) == ISM_FD_TCP)
		return ism_fd_leave(fd, l.reason, 0);
	c = conn_of(fd);
	if (!c)
		return 0;
	if (conn_tx_begin(c, fd)) {
		conn_demote_tx(c, l.reason);
		conn_done(c);
		return 0;
	}
	/* a candidate has nothing to lose by staying one of TCP in both directions */
	conn_tx_end(c, fd, 0);
	conn_done(c);
	return ism_fd_leave(fd, l.reason, 0);
}

/* The name that the C library has for what the kernel knows by two. */
static int usual_name(int name)
{
	if (name == RCVTIMEO_OLD || name == RCVTIMEO_NEW)
		return SO_RCVTIMEO;
	return name == SNDTIMEO_OLD || name == SNDTIMEO_NEW ? SO_SNDTIMEO : name;
}

/*
 * What waits in user space needs to know, read back from the kernel. Before there are rings nobody does, and
 * whoever prepares them goes to INIT first and reads all of it then: conn.c.
 */
static void note_option(int fd, int level, int name)
{
	struct conn *c;
	uint32_t state;

	if (level != SOL_SOCKET || ism_fd_is_fresh(fd))
		return;
	c = conn_of(fd);
	if (!c)
		return;
	state = atomic_load(&c->slot->state);
	if (state == ISM_SLOT_INIT || state == ISM_SLOT_ATTACHED)
		conn_read_option(c->slot, fd, usual_name(name));
	conn_done(c);
}

ISM_EXPORT int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	struct leaver l;
	int rc;

	if (likely(!ism_fd_raw(fd)))
		return REAL(setsockopt)(fd, level, name, val, len);
	l = leaver_of(level, name, val, len);
	rc = unlikely(l.reason) ? leave_for_option(fd, l) : 0;
	if (rc) {
		errno = -rc;
		return -1;
	}
	rc = real.setsockopt(fd, level, name, val, len);
	if (!rc)
		note_option(fd, level, name);
	return rc;
}

/* An error that the rings met and nobody has been told of yet: sock_error(). */
static void own_error(struct conn *c, int *val)
{
	int e = __atomic_load_n(&c->slot->rx_err, __ATOMIC_RELAXED);

	if (*val || !e)
		return;
	*val = -__atomic_exchange_n(&c->slot->rx_err, 0, __ATOMIC_RELAXED);
}

ISM_EXPORT int getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	enum ism_fd_kind kind = ISM_FD_KIND(ism_fd_raw(fd));
	int zerocopy = level == IPPROTO_TCP && name == TCP_ZEROCOPY_RECEIVE;
	struct conn *c;
	int rc;

	if (likely(kind != ISM_FD_CONN && (kind != ISM_FD_FRESH || !zerocopy)))
		return REAL(getsockopt)(fd, level, name, val, len);
	/* receives without copying, straight from TCP's queue */
	if (zerocopy) {
		rc = ism_fd_leave(fd, ISM_R_ZEROCOPY, 0);
		if (rc) {
			errno = -rc;
			return -1;
		}
	}
	rc = real.getsockopt(fd, level, name, val, len);
	if (rc || level != SOL_SOCKET || name != SO_ERROR || *len < sizeof(int))
		return rc;
	c = conn_of(fd);
	if (c) {
		own_error(c, val);
		conn_done(c);
	}
	return rc;
}
