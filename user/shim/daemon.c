// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The client of ismredird. Nothing here ever waits for the daemon unless asked to: requests are sent
 * without blocking, answers are picked up by later operations. A daemon that is absent, dead, slow or
 * full just means that connections stay on TCP. include/ismredir/control.h is the protocol.
 */
#include "shim.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/un.h>

#define RETRY_MIN_NS 1000000000ULL
#define RETRY_MAX_NS 30000000000ULL
#define TICK_NS	     1000000000ULL
#define OWED	     1024

static struct {
	_Atomic uint32_t busy; /* one task at a time; nobody waits for it */
	int fd; /* + 1, so that 0 is "none" */
	_Atomic uint32_t waiting; /* requests without an answer yet */
	uint64_t retry_at;
	uint64_t backoff;
	_Atomic uint64_t tick_at;
	uint32_t settled; /* owed_seq when nothing was owed any more */
} d;

/* Tokens of DETACHs and LEAVEs that could not be sent yet, 0: none; owed_seq changes with each that comes. */
static _Atomic uint64_t owed[2][OWED];
static _Atomic uint32_t owed_seq;

static char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* empty: too long */

static struct ism_host_page no_daemon = { .word = ISM_WORD_ON };
static const struct ism_host_page *_Atomic host = &no_daemon;

const struct ism_host_page *ism_host(void)
{
	return atomic_load_explicit(&host, memory_order_relaxed);
}

/* At the start: nginx, for one, throws its environment away. */
__attribute__((constructor(102))) static void read_environment(void)
{
	const char *v = getenv("ISMREDIR_SOCK");

	if (!v)
		v = ISM_CONTROL_SOCK;
	if (strlen(v) < sizeof(path))
		strcpy(path, v);
}

/* ---------------------------------------------------------------- descriptors of our own */

/*
 * Out of the way: an application expects the lowest free number from its next open(), and select()
 * below FD_SETSIZE. Not far out either: the kernel's table grows with the highest number.
 */
int ism_private_fd(int fd)
{
	struct rlimit r;
	int base = 512, high;

	if (fd < 0)
		return -1;
	if (!getrlimit(RLIMIT_NOFILE, &r))
		base = r.rlim_cur / 2 < 16384 ? (int)(r.rlim_cur / 2) : 16384;
	high = real.fcntl(fd, F_DUPFD_CLOEXEC, base);
	real.close(fd);
	if (high >= 0)
		ism_fd_set(high, ISM_FD_PRIVATE, NULL);
	return high;
}

int ism_daemon_owns(int fd)
{
	return ISM_FD_KIND(ism_fd_raw(fd)) == ISM_FD_PRIVATE;
}

void ism_private_close(int fd)
{
	if (fd < 0)
		return;
	ism_fd_set(fd, ISM_FD_NONE, NULL);
	real.close(fd);
}

/* ---------------------------------------------------------------- connection */

static int take(void)
{
	uint32_t free = 0;

	return atomic_compare_exchange_strong(&d.busy, &free, 1) ? 0 : -EBUSY;
}

/* A daemon that is gone, or another one than that which was to hear it, needs none of them. */
static void forget_owed(void)
{
	uint32_t seq = atomic_load(&owed_seq);

	for (int i = 0; i < 2 * OWED; i++)
		atomic_store(&owed[i / OWED][i % OWED], 0);
	d.settled = seq;
}

static void fail_one(struct conn *c, void *arg)
{
	(void)arg;
	if (atomic_load(&c->asked) == ISM_ASKS)
		conn_answer(c->index, c->slot->token, -ECONNREFUSED, ISM_R_NO_DAEMON, NULL);
}

static void lost(void)
{
	if (d.fd)
		ism_private_close(d.fd - 1);
	d.fd = 0;
	forget_owed();
	atomic_store(&d.waiting, 0);
	d.backoff = d.backoff ? d.backoff * 2 : RETRY_MIN_NS;
	if (d.backoff > RETRY_MAX_NS)
		d.backoff = RETRY_MAX_NS;
	d.retry_at = ism_now_ns() + d.backoff;
	conn_each(fail_one, NULL);
}

static int send_msg(uint16_t type, uint32_t seq, const void *body, uint32_t len, const int *fds,
		    int n)
{
	struct ism_msg m = { .magic = ISM_CONTROL_MAGIC,
			     .version = ISM_CONTROL_VERSION,
			     .type = type,
			     .len = len,
			     .seq = seq };
	struct iovec v[2] = { { &m, sizeof(m) }, { (void *)body, len } };
	union {
		struct cmsghdr h;
		char buf[CMSG_SPACE(sizeof(int) * ISM_MSG_FDS)];
	} u = {};
	struct msghdr h = { .msg_iov = v, .msg_iovlen = 2 };

	if (n) {
		h.msg_control = &u;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		u.h.cmsg_level = SOL_SOCKET;
		u.h.cmsg_type = SCM_RIGHTS;
		u.h.cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(&u.h), fds, sizeof(int) * n);
	}
	return real.sendmsg(d.fd - 1, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void settle(void)
{
	uint32_t seq = atomic_load(&owed_seq);

	if (d.settled == seq)
		return;
	if (!d.fd)
		forget_owed();
	for (int i = 0; d.fd && i < 2 * OWED; i++) {
		_Atomic uint64_t *at = &owed[i / OWED][i % OWED];
		struct ism_msg_token t = { .token = atomic_load(at) };

		if (t.token && send_msg(i < OWED ? ISM_MSG_DETACH : ISM_MSG_LEAVE, 0, &t, sizeof(t),
					NULL, 0) == -EAGAIN)
			return;
		if (t.token)
			atomic_store(at, 0);
	}
	d.settled = seq;
}

/* Who owes and finds the daemon busy leaves it to who is: that one looks again behind its last store. */
static void drop(void)
{
	uint32_t seq;

	do {
		seq = atomic_load(&owed_seq);
		settle();
		atomic_store(&d.busy, 0);
	} while (atomic_load(&owed_seq) != seq && !take());
}

/* A new daemon does not know the rings that live on in us. */
static void resume_one(struct conn *c, void *arg)
{
	struct ism_slot *s = c->slot;
	struct ism_msg_resume r = { .token = s->token,
				    .peer = s->peer_token,
				    .share = s->share,
				    .own_ring = s->rx.size,
				    .peer_ring = s->tx.size,
				    .own_off = c->own_off,
				    .peer_off = c->peer_off };
	int fd = conn_any_fd(c);
	int fds[ISM_MSG_FDS] = { fd, c->own_fd, c->peer_fd, c->own_bell, c->peer_bell };

	(void)arg;
	if (!conn_attached(c) || fd < 0 || c->own_fd < 0 || c->peer_fd < 0)
		return;
	if (!send_msg(ISM_MSG_RESUME, c->index, &r, sizeof(r), fds, ISM_MSG_FDS))
		atomic_fetch_add(&d.waiting, 1);
}

static int connect_daemon(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct ism_msg_hello hello = {};
	int fd, rc;

	if (d.fd)
		return 0;
	if (ism_now_ns() < d.retry_at)
		return -ECONNREFUSED;
	if (!path[0])
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, path);
	fd = ism_private_fd(real.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return -EMFILE;
	d.fd = fd + 1;
	rc = real.connect(fd, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
	if (!rc)
		rc = send_msg(ISM_MSG_HELLO, 0, &hello, sizeof(hello), NULL, 0);
	if (rc) {
		lost();
		return rc;
	}
	atomic_fetch_add(&d.waiting, 1);
	conn_each(resume_one, NULL);
	return 0;
}

int ism_daemon_ask(int fd, uint64_t token, uint64_t share, uint32_t index)
{
	struct ism_msg_attach a = { .token = token, .share = share };
	int rc = take();

	if (rc)
		return rc;
	rc = connect_daemon();
	if (!rc)
		rc = send_msg(ISM_MSG_ATTACH, index, &a, sizeof(a), &fd, 1);
	if (!rc)
		atomic_fetch_add(&d.waiting, 1);
	else if (rc != -EAGAIN && d.fd)
		lost();
	drop();
	return rc;
}

/* What there is no room for the daemon hears of at our end: it only costs memory. */
static void owe(uint64_t token, int leaves)
{
	for (int i = 0; i < OWED; i++) {
		uint64_t free = 0;

		if (atomic_compare_exchange_strong(&owed[leaves][i], &free, token))
			break;
	}
	atomic_fetch_add(&owed_seq, 1);
}

void ism_daemon_detach(const struct ism_slot *s)
{
	owe(s->token, atomic_load(&((struct ism_slot *)s)->procs) != 1);
	if (!take())
		drop();
}

/* ---------------------------------------------------------------- answers */

static void map_host(int fd)
{
	void *p = mmap(NULL, sizeof(struct ism_host_page), PROT_READ, MAP_SHARED, fd, 0);

	real.close(fd);
	if (p == MAP_FAILED)
		return;
	/* The page of a daemon before stays: a thread may be looking at it. */
	atomic_store(&host, p);
	d.backoff = 0;
}

static void close_all(const int *fds, int n)
{
	for (int i = 0; i < n; i++)
		real.close(fds[i]);
}

static void got_attach(uint32_t index, const struct ism_msg_attach_ok *m, const int *fds)
{
	struct ism_attach a = { .token = m->token,
				.own_ring = m->own_ring,
				.peer_ring = m->peer_ring,
				.own_off = m->own_off,
				.peer_off = m->peer_off };

	for (int i = 0; i < ISM_FD_COUNT; i++)
		a.fd[i] = fds[i];
	conn_answer(index, m->token, 0, 0, &a);
}

static void dispatch(const struct ism_msg *m, const void *body, const int *fds, int n)
{
	const struct ism_msg_error *e = body;

	if (m->type == ISM_MSG_HELLO_OK && n == 1) {
		map_host(fds[0]);
		return;
	}
	if (m->type == ISM_MSG_ATTACH_OK && n == ISM_FD_COUNT &&
	    m->len == sizeof(struct ism_msg_attach_ok)) {
		got_attach(m->seq, body, fds);
		return;
	}
	close_all(fds, n);
	if (m->type == ISM_MSG_ERROR && m->len == sizeof(*e))
		conn_answer(m->seq, e->token, e->error ? e->error : -EPROTO,
			    e->reason ? e->reason : ISM_R_DAEMON_REFUSED, NULL);
}

static int cmsg_fds(struct msghdr *h, int *fds)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(h);
	int n = 0;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	}
	return n;
}

/* One answer. 0: handled; -EAGAIN: none there; other: the daemon is gone. */
static int read_one(void)
{
	struct {
		struct ism_msg m;
		char body[512];
	} in;
	struct iovec v = { &in, sizeof(in) };
	union {
		struct cmsghdr h;
		char buf[CMSG_SPACE(sizeof(int) * ISM_MSG_FDS)];
	} u;
	struct msghdr h = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u)
	};
	int fds[ISM_MSG_FDS + 1], nfds;
	ssize_t n = real.recvmsg(d.fd - 1, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
	if (n == 0)
		return -EPIPE;
	nfds = cmsg_fds(&h, fds);
	if ((size_t)n < sizeof(in.m) || in.m.magic != ISM_CONTROL_MAGIC ||
	    in.m.version != ISM_CONTROL_VERSION || in.m.len != n - sizeof(in.m)) {
		close_all(fds, nfds);
		return -EPROTO;
	}
	if (atomic_load(&d.waiting))
		atomic_fetch_sub(&d.waiting, 1);
	dispatch(&in.m, in.body, fds, nfds);
	return 0;
}

void ism_daemon_poll(int wait_ms)
{
	struct pollfd p = { .events = POLLIN };
	int rc;

	if (!atomic_load(&d.waiting) || take())
		return;
	if (wait_ms && d.fd) {
		p.fd = d.fd - 1;
		real.poll(&p, 1, wait_ms);
	}
	while (d.fd && atomic_load(&d.waiting)) {
		rc = read_one();
		if (rc == -EAGAIN)
			break;
		if (rc) {
			lost();
			d.retry_at = 0; /* it ended, so it was there: its successor may be, too */
		}
	}
	drop();
}

/* Now and then: has the daemon been restarted? Then it has to learn of our rings. */
void ism_daemon_tick(void)
{
	uint64_t now = ism_now_ns(), at = atomic_load(&d.tick_at);
	struct pollfd p = { .events = POLLIN };

	if (now < at || !atomic_compare_exchange_strong(&d.tick_at, &at, now + TICK_NS) || take())
		return;
	p.fd = d.fd - 1;
	if (d.fd && real.poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR))
		lost();
	if (!d.fd && host != &no_daemon)
		connect_daemon();
	drop();
	ism_daemon_poll(0);
}

static void inherit_one(struct conn *c, void *arg)
{
	(void)arg;
	if (atomic_load(&c->asked) == ISM_ASKS)
		atomic_store(&c->asked, ISM_ASKED_BEFORE);
}

void ism_daemon_after_fork(void)
{
	conn_each(inherit_one, NULL);
	ism_barrier_init();
	if (d.fd)
		ism_private_close(d.fd - 1);
	d.fd = 0;
	d.retry_at = 0;
	d.backoff = 0;
	forget_owed();
	atomic_store(&d.busy, 0);
	atomic_store(&d.waiting, 0);
}
