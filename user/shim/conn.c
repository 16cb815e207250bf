// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Life of a connection in the shim. A connection that both ends marked capable begins as a candidate:
 * plain TCP, its operations counted. Short ones never get further. After some messages ismredird is
 * asked for rings; when they have come, they are mapped by the next operation.
 */
#include "shim.h"
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <ismredir/option.h>
#include <ismredir/sockctl.h>

#define AFTER_MSGS  16
#define AFTER_BYTES (256u << 10)
/* A refusal that may pass: ask again after so many further messages. */
#define AGAIN_MSGS 2000
#define SOON_MSGS  16
/* No record of the connection, so many times: there is none. */
#define ASK_IN_VAIN	 4
#define EXIT_PATIENCE_NS 2000000000ULL

uint32_t ism_after_msgs = AFTER_MSGS;
uint64_t ism_after_bytes = AFTER_BYTES;

__attribute__((constructor(102))) static void read_environment(void)
{
	const char *v = getenv("ISMREDIR_AFTER");
	char *end;

	if (!v || !*v)
		return;
	ism_after_msgs = strtoul(v, &end, 10);
	if (*end == ',')
		ism_after_bytes = strtoull(end + 1, NULL, 10);
}

/* ---------------------------------------------------------------- talking to BPF */

int ism_tell(int fd, int option, uint32_t value)
{
	socklen_t none = 0;
	int saved = errno, rc;

	rc = real.getsockopt(fd, ISM_SOL, ISM_SO(option, value), NULL, &none) ? -errno : 0;
	errno = saved;
	return rc;
}

int ism_caps_mark(int fd)
{
	return atomic_load(&ism_disabled) ? -EOPNOTSUPP : ism_tell(fd, ISM_SO_CAPS, ISM_CAP_DIRECT);
}

/*
 * What this process said of itself last, and when: ms << 2 | REFUSED or SAID; 0: nothing, as in a new
 * child. It is said again now and then, because a load may have come or gone, and in a child of a raw
 * clone().
 */
static _Atomic uint64_t said;

enum {
	REFUSED = 1,
	SAID = 2,
};

uint64_t ism_coarse_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

int ism_caps_process(int fd)
{
	uint64_t last = atomic_load_explicit(&said, memory_order_relaxed), now;

	if (unlikely(atomic_load(&ism_disabled))) {
		if (last & SAID && !atomic_load(&ism_confined)) {
			ism_tell(fd, ISM_SO_CAPS_PROCESS, 0);
			atomic_store(&said, 0);
		}
		return -EOPNOTSUPP;
	}
	now = ism_coarse_ms();
	if (unlikely(!last || now - (last >> 2) >= ISM_REMARK_MS)) {
		last = now << 2 |
		       (ism_tell(fd, ISM_SO_CAPS_PROCESS, ISM_CAP_DIRECT) ? REFUSED : SAID);
		atomic_store(&said, last);
	}
	return last & SAID ? 0 : -EOPNOTSUPP;
}

void ism_caps_never(int fd)
{
	if (atomic_load(&said) & SAID && !atomic_load(&ism_confined))
		ism_tell(fd, ISM_SO_CAPS, 0);
}

void ism_caps_after_fork(void)
{
	atomic_store(&said, 0);
}

void conn_report(struct conn *c, int fd, uint32_t plane, uint32_t reason)
{
	if (atomic_exchange(&c->slot->plane_told, plane) != plane)
		ism_tell(fd, ISM_SO_REPORT, ISM_SO_REPORT_OF(plane, reason));
}

/* ---------------------------------------------------------------- descriptors */

int conn_any_fd(struct conn *c)
{
	int fd = atomic_load(&c->fd_hint);

	if (fd >= 0 && ISM_FD_PTR(ism_fd_get(fd)) == c)
		return fd;
	for (fd = 0; fd < ISM_FD_MAX / 16; fd++) {
		if (ISM_FD_KIND(ism_fd_get(fd)) == ISM_FD_CONN && ISM_FD_PTR(ism_fd_get(fd)) == c) {
			atomic_store(&c->fd_hint, fd);
			return fd;
		}
	}
	return -1;
}

void conn_start(int fd, int nonblock)
{
	struct conn *c;

	if (atomic_load(&ism_disabled) || (!nonblock && fresh_start(fd)))
		return;
	c = conn_alloc();
	if (!c)
		return;
	atomic_store_explicit(&c->slot->nonblock, nonblock, memory_order_relaxed);
	atomic_store_explicit(&c->fd_hint, fd, memory_order_relaxed);
	ism_fd_set(fd, ISM_FD_CONN, c);
}

void conn_dup(int oldfd, int newfd)
{
	ism_fd_t e = ism_fd_get(oldfd);

	if (oldfd == newfd)
		return;
	if (ISM_FD_KIND(e) == ISM_FD_CONN)
		atomic_fetch_add(&((struct conn *)ISM_FD_PTR(e))->fds, 1);
	if (ISM_FD_KIND(e) == ISM_FD_EPOLL)
		epoll_fd_duped(ISM_FD_PTR(e));
	if (ISM_FD_KIND(e) != ISM_FD_PRIVATE)
		ism_fd_set(newfd, ISM_FD_KIND(e), ISM_FD_PTR(e));
}

/* ---------------------------------------------------------------- end */

static _Atomic uint32_t mapped; /* connections with rings in this process */

static void unmap(struct conn *c)
{
	if (c->own) {
		munmap(c->own, c->own_len);
		atomic_fetch_sub(&mapped, 1);
	}
	if (c->peer)
		munmap(c->peer, c->peer_len);
	c->own = c->peer = NULL;
	ism_private_close(c->own_bell);
	ism_private_close(c->peer_bell);
	ism_private_close(c->own_fd);
	ism_private_close(c->peer_fd);
	c->own_bell = c->peer_bell = c->own_fd = c->peer_fd = -1;
}

void conn_release(struct conn *c)
{
	if (!atomic_exchange(&c->closing, 0))
		return;
	if (conn_attached(c)) {
		io_stats_tx(c);
		io_stats_rx(c);
		ism_daemon_detach(c->slot);
	}
	unmap(c);
	conn_free(c);
}

static void make_reset(int fd)
{
	struct linger l = { 1, 0 };

	real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

/* TCP resets a connection that is closed with bytes unread: tcp_close(). */
static int reset_if_unread(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;

	if (s->rx_frozen || ism_ring_rx_poll(&s->rx, c->own) <= 0)
		return 0;
	make_reset(fd);
	return 1;
}

static int lingers_zero(int fd)
{
	struct linger l = {};
	socklen_t len = sizeof(l);

	return !real.getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) && l.l_onoff && !l.l_linger;
}

/* An exit() with many connections waits for all of them together. */
static uint64_t exit_until;

static uint64_t relay_patience(const struct conn *c)
{
	uint64_t until = io_patience(c);

	return exit_until && exit_until < until ? exit_until : until;
}

/* tx_lock held. */
static void end_sending(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;

	if (atomic_load(&s->tx_state) == ISM_TX_RING) {
		s->tx.flags |= ISM_PROD_FIN;
		ism_ring_tx_publish(&s->tx, c->peer);
	}
	io_end_tx(c, fd, relay_patience(c));
}

/* The last holder goes: say so in the rings, ahead of TCP's own FIN or RST. */
static void end_rings(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;
	int abort;

	if (!conn_attached(c) || atomic_load(&s->procs) != 1 || atomic_load(&s->broken))
		return;
	abort = reset_if_unread(c, fd) || lingers_zero(fd);
	if (!ism_lock_take(&s->tx_lock)) {
		/* The kernel's RST says it all at once: error, poll events, SO_ERROR; a flag before it cannot. */
		if (!abort)
			end_sending(c, fd);
		atomic_store(&s->tx_state, ISM_TX_FOREVER);
		ism_lock_drop(&s->tx_lock);
	}
	io_set_rx(c, ISM_RX_CLOSED | (s->rx_ready ? ISM_RX_READY : 0) |
			     (s->rx_frozen ? ISM_RX_FROZEN : 0));
	conn_ring(c, ISM_WANT_DATA | ISM_WANT_SPACE);
}

/*
 * While a request lies unread in the queue of ismredird the socket that came with it is open there, so
 * close() ends nothing: a daemon that stands still would keep the partner waiting. Do what close() would.
 */
static void end_asked(struct conn *c, int fd)
{
	static const struct sockaddr nobody = { .sa_family = AF_UNSPEC };
	int unread = 0;

	if (conn_attached(c) || !atomic_load(&c->asked) || atomic_load(&c->slot->procs) != 1 ||
	    atomic_load(&c->slot->lent))
		return;
	if (lingers_zero(fd) || (!real.ioctl(fd, FIONREAD, &unread) && unread))
		real.connect(fd, &nobody, sizeof(nobody)); /* RST */
	else
		real.shutdown(fd, SHUT_RDWR);
}

/* Ask again after @msgs further messages. */
static void ask_later(struct ism_slot *s, uint32_t msgs)
{
	atomic_store(&s->bytes, 0);
	atomic_store(&s->msgs, ism_after_msgs - msgs);
}

/* There is an answer, or none will be waited for. Return: did this process wait? */
static int was_answered(struct conn *c)
{
	uint32_t asks = ISM_ASKS;

	return atomic_compare_exchange_strong(&c->asked, &asks, 0);
}

/* Who asked goes, and relatives that have the connection, too, would wait for an answer that comes here. */
static void leave_asking(struct conn *c)
{
	uint32_t state = ISM_SLOT_ASKED;

	if (conn_attached(c) || atomic_load(&c->slot->procs) == 1 || !was_answered(c))
		return;
	ask_later(c->slot, SOON_MSGS);
	atomic_compare_exchange_strong(&c->slot->state, &state, ISM_SLOT_CANDIDATE);
}

static void last_fd(struct conn *c, int fd)
{
	end_rings(c, fd);
	end_asked(c, fd);
	leave_asking(c);
	atomic_store(&c->closing, 1);
	if (!atomic_load(&c->users))
		conn_release(c);
	else if (c->own_bell >= 0)
		real.write(c->own_bell, &(uint64_t){ 1 }, 8);
}

/* The end of most: rings were never asked for, and there is nobody else that could be looking at it. */
static int is_only_here(const struct conn *c)
{
	return __libc_single_threaded && !conn_attached(c) && !c->slot->token &&
	       atomic_load_explicit(&c->slot->procs, memory_order_relaxed) == 1 &&
	       atomic_load_explicit(&c->fds, memory_order_relaxed) == 1 &&
	       !atomic_load_explicit(&c->users, memory_order_relaxed) && !c->items;
}

void conn_close(int fd)
{
	ism_fd_t e = ism_fd_raw(fd);
	struct conn *c = ISM_FD_PTR(e); /* where it is one */
	int saved = errno;

	switch (ISM_FD_KIND(e)) {
	case ISM_FD_NONE:
	case ISM_FD_PRIVATE:
		return;
	case ISM_FD_TCP:
	case ISM_FD_FRESH:
		ism_fd_set(fd, ISM_FD_NONE, NULL);
		break;
	case ISM_FD_EPOLL:
		epoll_fd_closed(fd);
		break;
	case ISM_FD_CONN:
		epoll_conn_closed(c, fd);
		ism_fd_set(fd, ISM_FD_NONE, NULL);
		if (is_only_here(c))
			conn_free(c);
		else if (atomic_fetch_sub(&c->fds, 1) == 1)
			last_fd(c, fd);
		break;
	}
	errno = saved;
}

void conn_plain(struct conn *c)
{
	int left = atomic_load(&c->fds), fd;

	atomic_store(&c->slot->state, ISM_SLOT_PLAIN);
	while (left-- > 0 && (fd = conn_any_fd(c)) >= 0) {
		ism_fd_set(fd, ISM_FD_NONE, NULL);
		atomic_fetch_sub(&c->fds, 1);
	}
	epoll_conn_closed(c, -1);
	atomic_store(&c->closing, 1);
	if (!atomic_load(&c->users))
		conn_release(c);
}

static void exit_one(struct conn *c, void *arg)
{
	int fd = conn_any_fd(c);

	(void)arg;
	if (fd < 0)
		return;
	end_asked(c, fd);
	leave_asking(c);
	if (!conn_attached(c))
		return;
	io_stats_tx(c);
	io_stats_rx(c);
	end_rings(c, fd);
	ism_daemon_detach(c->slot);
}

void conn_exit(void)
{
	exit_until = ism_now_ns() + EXIT_PATIENCE_NS;
	conn_each(exit_one, NULL);
}

/* ---------------------------------------------------------------- attaching */

static uint64_t timeo(int fd, int opt)
{
	struct timeval tv = {};
	socklen_t len = sizeof(tv);

	/* as the kernel has rounded it */
	if (real.getsockopt(fd, SOL_SOCKET, opt, &tv, &len))
		return 0;
	return tv.tv_sec * 1000000000ULL + tv.tv_usec * 1000ULL;
}

void conn_read_option(struct ism_slot *s, int fd, int name)
{
	int low = 1;
	socklen_t len = sizeof(low);

	switch (name) {
	case SO_RCVTIMEO:
		atomic_store(&s->rcvtimeo, timeo(fd, name));
		break;
	case SO_SNDTIMEO:
		atomic_store(&s->sndtimeo, timeo(fd, name));
		break;
	case SO_RCVLOWAT:
		real.getsockopt(fd, SOL_SOCKET, name, &low, &len);
		atomic_store(&s->rcvlowat, low > 0 ? low : 1);
		break;
	}
}

/* What the application has set before we cared. */
static void read_options(struct ism_slot *s, int fd)
{
	int fl = real.fcntl(fd, F_GETFL);

	atomic_store(&s->nonblock, fl >= 0 && fl & O_NONBLOCK);
	conn_read_option(s, fd, SO_RCVTIMEO);
	conn_read_option(s, fd, SO_SNDTIMEO);
	conn_read_option(s, fd, SO_RCVLOWAT);
}

/*
 * What has no size, a device, knows itself what can be mapped: whole pages, which may be huge ones. What a
 * fabric exports of it begins at one and has it to itself. A refusal is a line in the kernel's log, so what
 * went well is tried first the next time.
 */
static void *map_device(int fd, uint64_t off, int prot, uint32_t *len)
{
	static const uint32_t pages[] = { 4096, 2 << 20, 1 << 30 };
	static atomic_uint usual;
	unsigned int first = atomic_load(&usual), n = sizeof(pages) / sizeof(pages[0]);

	for (unsigned int i = 0; i < n; i++) {
		unsigned int k = (first + i) % n;
		size_t whole = (*len + (size_t)pages[k] - 1) & ~((size_t)pages[k] - 1);
		void *p;

		if (off & (pages[k] - 1))
			continue;
		p = mmap(NULL, whole, prot, MAP_SHARED, fd, off);
		if (p == MAP_FAILED)
			continue;
		*len = whole;
		atomic_store(&usual, k);
		return p;
	}
	return NULL;
}

static void *map_dmb(int fd, uint32_t ring, uint64_t off, int prot, uint32_t *len)
{
	struct stat st;
	void *p;

	if (!ism_is_ring_size(ring) || fstat(fd, &st))
		return NULL;
	*len = ism_dmb_len(ring);
	if (S_ISCHR(st.st_mode))
		return map_device(fd, off, prot, len);
	if (*len > (uint64_t)st.st_size || off > (uint64_t)st.st_size - *len)
		return NULL;
	p = mmap(NULL, *len, prot, MAP_SHARED, fd, off);
	return p == MAP_FAILED ? NULL : p;
}

/* The memfds are wanted again only when ismredird restarts; scarce descriptors are the application's. */
static int keep_memfd(int fd)
{
	int high = ism_private_fd(fd);
	struct rlimit r = {};

	getrlimit(RLIMIT_NOFILE, &r);
	if (high >= 0 && atomic_load(&mapped) > r.rlim_cur / 16) {
		ism_private_close(high);
		high = -1;
	}
	return high;
}

/*
 * Who is not the first goes on where others are: in no other rings. An ismredird that began while only processes that
 * are gone had them knows nothing of them, and gives out new ones.
 */
static int is_marked(struct ism_slot *s, void *peer, int first)
{
	if (first) {
		s->mark = ism_now_ns() | 1;
		__atomic_store_n(&ism_dmb_stats(peer)->mark, s->mark, __ATOMIC_RELEASE);
	}
	return __atomic_load_n(&ism_dmb_stats(peer)->mark, __ATOMIC_ACQUIRE) == s->mark;
}

static int map_rings(struct conn *c, const struct ism_attach *a, int first)
{
	void *own = map_dmb(a->fd[ISM_FD_OWN_DMB], a->own_ring, a->own_off, PROT_READ, &c->own_len);
	void *peer = map_dmb(a->fd[ISM_FD_PEER_DMB], a->peer_ring, a->peer_off,
			     PROT_READ | PROT_WRITE, &c->peer_len);
	int rc = -ENOMEM;

	c->own_bell = ism_private_fd(a->fd[ISM_FD_OWN_BELL]);
	c->peer_bell = ism_private_fd(a->fd[ISM_FD_PEER_BELL]);
	c->own_fd = keep_memfd(a->fd[ISM_FD_OWN_DMB]);
	c->peer_fd = keep_memfd(a->fd[ISM_FD_PEER_DMB]);
	c->own_off = a->own_off;
	c->peer_off = a->peer_off;
	c->peer = peer;
	if (own && peer && c->own_bell >= 0 && c->peer_bell >= 0)
		rc = is_marked(c->slot, peer, first) ? 0 : -ESTALE;
	if (!rc) {
		atomic_fetch_add(&mapped, 1);
		__atomic_store_n(&c->own, own, __ATOMIC_RELEASE);
		return 0;
	}
	if (own)
		munmap(own, c->own_len);
	unmap(c);
	return rc;
}

/* The first of the relatives prepares the shared state; the others find it done. */
static int init_slot(struct ism_slot *s, const struct ism_attach *a, int fd)
{
	uint32_t state = ISM_SLOT_ASKED;

	if (!atomic_compare_exchange_strong(&s->state, &state, ISM_SLOT_INIT))
		return state == ISM_SLOT_ATTACHED ? 0 : -ESTALE;
	ism_ring_tx_init(&s->tx, a->peer_ring);
	ism_ring_rx_init(&s->rx, a->own_ring);
	atomic_store(&s->tx_state, ISM_TX_TCP);
	s->tx_reason = ISM_R_DIRECT_WAIT;
	s->cpu_told = -1;
	read_options(s, fd);
	return 1;
}

static void drop_answer(const struct ism_attach *a)
{
	for (int i = 0; a && i < ISM_FD_COUNT; i++)
		real.close(a->fd[i]);
}

/*
 * For what may pass at once or never: so often at first, then seldom. The partner of another kernel asks its own
 * ismredird, about when we do; an ismredird that is gone may be back in a moment.
 */
static uint32_t until_then(struct ism_slot *s)
{
	uint32_t msgs = s->put_off < 8 ? SOON_MSGS << s->put_off : AGAIN_MSGS;

	s->put_off++;
	return msgs < AGAIN_MSGS ? msgs : AGAIN_MSGS;
}

static void refused(struct conn *c, int error)
{
	struct ism_slot *s = c->slot;
	uint32_t state = ISM_SLOT_ASKED;
	int again = error == -ECONNREFUSED || error == -EDQUOT || error == -ENOSPC ||
		    error == -ENOMEM || error == -ESHUTDOWN || error == -EAGAIN;

	if (again)
		ask_later(s, error == -ECONNREFUSED || (error == -EAGAIN && s->remote)
				     ? until_then(s)
				     : AGAIN_MSGS);
	atomic_compare_exchange_strong(&s->state, &state,
				       again ? ISM_SLOT_CANDIDATE : ISM_SLOT_PLAIN);
}

/* Our rings are gone, and what was in them. */
static void lose(struct ism_slot *s)
{
	atomic_store(&s->broken, 1);
	ism_daemon_detach(s);
}

static void take_answer(struct conn *c, int error, const struct ism_attach *a)
{
	int fd = conn_any_fd(c), first;

	if (error || fd < 0 || atomic_load(&c->closing) || atomic_load(&ism_disabled)) {
		drop_answer(a);
		refused(c, error ? error : -ESTALE);
		return;
	}
	first = init_slot(c->slot, a, fd);
	if (first < 0) {
		drop_answer(a);
		return;
	}
	error = map_rings(c, a, first);
	if (error) {
		if (first)
			atomic_store(&c->slot->state, ISM_SLOT_PLAIN);
		if (error == -ESTALE)
			lose(c->slot);
		return;
	}
	ism_dmb_stats(c->peer)->pid = getpid();
	ism_dmb_rx(c->peer)->how = ism_barrier_works() && !c->slot->remote ? ISM_RX_BARRIER : 0;
	if (first)
		io_set_rx(c, 0);
	io_stats_tx(c);
	if (first)
		atomic_store(&c->slot->state, ISM_SLOT_ATTACHED);
	conn_report(c, fd, ISM_PLANE_DIRECT, 0);
	epoll_conn_attached(c);
}

void conn_answer(uint32_t index, uint64_t token, int error, uint32_t reason,
		 const struct ism_attach *a)
{
	struct conn *c = conn_by_index(index);
	struct ism_slot *s;

	(void)reason;
	if (!c) {
		drop_answer(a);
		return;
	}
	/* Another thread may close it meanwhile, or has. */
	atomic_fetch_add(&c->users, 1);
	s = c->slot;
	if (!s || atomic_load(&c->closing) || s->token != token || !was_answered(c))
		drop_answer(a);
	else
		take_answer(c, error, a);
	conn_done_slow(c);
}

static int random_share(struct ism_slot *s)
{
	while (!s->share)
		if (getrandom(&s->share, sizeof(s->share), 0) != sizeof(s->share))
			return -errno;
	return 0;
}

/* Who moves the bytes was settled when the connection was made; see docs/cross-kernel.rst. */
static int no_rings(const struct ism_sock_info *i)
{
	if (i->flags & (ISM_SOCK_PINNED | ISM_SOCK_ENROLLED))
		return 1;
	if (!i->token || !(i->flags & ISM_SOCK_ESTABLISHED))
		return 0;
	if (i->flags & ISM_SOCK_REMOTE)
		return !(i->caps & ISM_CAP_DIRECT) || !ism_caps_agree(i->caps, i->peer_caps);
	return !(i->peer_caps & ISM_CAP_DIRECT);
}

/* Is the partner capable? Then ask for rings. */
static void ask(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;
	struct ism_sock_info i = {};
	socklen_t len = sizeof(i);
	uint32_t state = ISM_SLOT_CANDIDATE;
	int saved = errno, rc;

	if (real.getsockopt(fd, ISM_SOL, ISM_SO_INFO, &i, &len) || no_rings(&i) ||
	    (!i.token && ++s->asked_in_vain >= ASK_IN_VAIN)) {
		atomic_compare_exchange_strong(&s->state, &state, ISM_SLOT_PLAIN);
		goto out;
	}
	/* The record of an accepted connection is made when it is asked for, and may not be there at once. */
	if (!i.token) {
		ask_later(s, SOON_MSGS);
		goto out;
	}
	if (!(i.flags & ISM_SOCK_PAIRED) || i.word != ISM_WORD_ON || random_share(s)) {
		ask_later(s, AGAIN_MSGS);
		goto out;
	}
	s->token = i.token;
	s->peer_token = i.peer;
	s->remote = !!(i.flags & ISM_SOCK_REMOTE);
	atomic_store(&c->asked, ISM_ASKS);
	ask_later(s, AGAIN_MSGS); /* by a relative, should we be killed: ask_too() */
	atomic_compare_exchange_strong(&s->state, &state, ISM_SLOT_ASKED);
	rc = ism_daemon_ask(fd, s->token, s->share, c->index);
	if (!rc)
		goto out;
	atomic_store(&c->asked, 0);
	state = ISM_SLOT_ASKED;
	atomic_compare_exchange_strong(&s->state, &state, ISM_SLOT_CANDIDATE);
	/* Another thread is talking to the daemon, or its queue is full: soon. */
	ask_later(s, rc == -EBUSY ? 0 : rc == -EAGAIN ? SOON_MSGS : until_then(s));
out:
	errno = saved;
}

/* A relative has asked before us. */
static void ask_too(struct conn *c, int fd)
{
	uint32_t was = atomic_exchange(&c->asked, ISM_ASKS);

	if (was != ISM_ASKS && ism_daemon_ask(fd, c->slot->token, c->slot->share, c->index))
		atomic_store(&c->asked, was);
}

/* A relative attached the connection: we must have the rings, too, before we touch it. */
static void join(struct conn *c, int fd)
{
	struct ism_slot *s = c->slot;

	for (int i = 0; i < 50 && !conn_attached(c) && !atomic_load(&s->broken); i++) {
		ask_too(c, fd);
		if (atomic_load(&c->asked) == ISM_ASKS)
			ism_daemon_poll(100);
		/* Not asked, as its queue is full or it has just begun again; or refused for now. */
		if (!conn_attached(c) && atomic_load(&c->asked) != ISM_ASKS)
			real.poll(NULL, 0, 100);
	}
	/* Bytes may lie in rings that we cannot get: better an end than a stream with a hole. */
	if (!conn_attached(c) && (s->rx_ready || atomic_load(&s->tx_state) == ISM_TX_RING))
		real.shutdown(fd, SHUT_RDWR);
}

static int due(const struct ism_slot *s)
{
	int32_t msgs = atomic_load(&((struct ism_slot *)s)->msgs);

	return msgs >= (int32_t)ism_after_msgs ||
	       (msgs >= 0 && atomic_load(&((struct ism_slot *)s)->bytes) >= ism_after_bytes);
}

/* Nobody else can count here: one thread, no relative. A handler that interrupts takes back what it added. */
static int is_sole(struct ism_slot *s)
{
	return __libc_single_threaded && atomic_load_explicit(&s->procs, memory_order_relaxed) == 1;
}

static void add(struct ism_slot *s, _Atomic uint32_t *count, uint32_t n)
{
	if (likely(is_sole(s)))
		atomic_store_explicit(count, *count + n, memory_order_relaxed);
	else
		atomic_fetch_add(count, n);
}

static int begin(struct conn *c, int fd, _Atomic uint32_t *inside)
{
	struct ism_slot *s = c->slot;
	uint32_t state;

	for (;;) {
		if (conn_attached(c))
			return 1;
		if (atomic_load_explicit(&c->fd_hint, memory_order_relaxed) != fd)
			atomic_store(&c->fd_hint, fd);
		state = atomic_load(&s->state);
		if (state == ISM_SLOT_CANDIDATE && due(s))
			ask(c, fd);
		else if (unlikely(state == ISM_SLOT_ASKED) && due(s)) {
			ask_later(s, AGAIN_MSGS);
			ask_too(c, fd);
		}
		if (atomic_load(&c->asked) == ISM_ASKS)
			ism_daemon_poll(0);
		if (atomic_load(&s->state) == ISM_SLOT_ATTACHED && !conn_attached(c)) {
			join(c, fd);
			if (!conn_attached(c))
				return add(s, inside, 1), 0;
		}
		if (conn_attached(c))
			return 1;
		/* Whoever attaches looks for tasks in the kernel after; we look for an attach after. */
		add(s, inside, 1);
		state = atomic_load(&s->state);
		if (state != ISM_SLOT_ATTACHED && state != ISM_SLOT_INIT)
			return 0;
		add(s, inside, -1);
	}
}

static void end(struct conn *c, int fd, ssize_t n, _Atomic uint32_t *inside)
{
	struct ism_slot *s = c->slot;

	(void)fd;
	add(s, inside, -1);
	if (n > 0) {
		add(s, &s->msgs, 1);
		/* of threads at once one may get lost: then rings are asked for a little later */
		atomic_store_explicit(&s->bytes, s->bytes + n, memory_order_relaxed);
	}
	/*
	 * As long as ismredird may have the socket, close() ends less than the application thinks: an epoll set
	 * would go on reporting it, and the partner not see an end. So what was asked for is not forgotten.
	 */
	if (atomic_load(&s->state) == ISM_SLOT_PLAIN && !s->token && !conn_attached(c) &&
	    !atomic_load(&c->closing))
		conn_plain(c);
}

int conn_rx_begin(struct conn *c, int fd)
{
	if (likely(conn_attached(c)))
		return 1;
	return begin(c, fd, &c->slot->kernel_rx);
}

void conn_rx_end(struct conn *c, int fd, ssize_t n)
{
	end(c, fd, n, &c->slot->kernel_rx);
}

int conn_tx_begin(struct conn *c, int fd)
{
	if (likely(conn_attached(c)))
		return 1;
	return begin(c, fd, &c->slot->kernel_tx);
}

void conn_tx_end(struct conn *c, int fd, ssize_t n)
{
	end(c, fd, n, &c->slot->kernel_tx);
}
