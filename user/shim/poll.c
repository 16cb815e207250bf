// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * poll, select and their kin: the kernel's answer and what the rings have, as one.
 *
 * Without a connection of ours in the set this costs one table look-up per descriptor. With one that has
 * rings, the kernel is asked about a copy of the set, in which ring space decides instead of POLLOUT, and
 * which the bells of the connections are appended to while we sleep.
 */
#include "epoll.h"
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

/* Sets of connections only, one of them ready: the kernel is asked at least so often. */
#define LOOK_CALLS 8
#define LOOK_NS	   50000
#define SPIN_LOOK  16
#define SAFETY_NS  1000000000LL
#define SLICE_NS   1000000LL
/* In front of a sleep without rings: so many descriptors at most, and not before a sleep that is short itself. */
#define AWAIT_FDS 8
#define AWAIT_NS  1000000LL
/* What fits on the stack of the caller. */
#define ROOM 2048

#define RD_EVENTS  (POLLIN | POLLRDNORM | POLLRDHUP)
#define OUT_EVENTS (POLLOUT | POLLWRNORM | POLLWRBAND)

/**
 * struct ours - a descriptor in the set that is more than the kernel's
 * @c, @ep: held
 * @at: its place in the set
 * @bell: its place among the bells, -1: none
 * @counted: a candidate, told by conn_rx_begin()
 * @ring: the rings decide, too
 * @armed: ISM_WANT_* while we sleep
 */
struct ours {
	struct conn *c;
	struct ism_ep *ep;
	uint32_t at;
	int bell;
	uint8_t counted, ring, armed, rang;
	unsigned int ready;
};

struct set {
	struct pollfd *fds; /* the application's */
	struct pollfd *k; /* the kernel's, with room for the bells */
	struct ours *o;
	uint32_t n, no, rings, candidates, inner, hidden, bells;
	int bells_ep; /* all bells in one descriptor, -1 */
	int sliced; /* there was no room for bells at all */
	void *mem;
	size_t len;
	int64_t ns; /* as asked, -1: for ever */
	uint64_t until;
	const sigset_t *mask;
	uint32_t intr;
};

static __thread uint32_t poll_budget, poll_skipped;
static __thread uint64_t poll_looked;

/* ---------------------------------------------------------------- memory for big sets */

struct spare {
	size_t len;
};

static struct spare *_Atomic spare;

static void *room_get(size_t len)
{
	struct spare *s = atomic_exchange(&spare, NULL);

	len += sizeof(*s);
	if (s && s->len >= len)
		return s + 1;
	if (s)
		munmap(s, s->len);
	len = (len + 4095) & ~(size_t)4095;
	s = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return NULL;
	s->len = len;
	return s + 1;
}

static void room_put(void *p)
{
	struct spare *s = p;

	if (!p)
		return;
	s = atomic_exchange(&spare, s - 1);
	if (s)
		munmap(s, s->len);
}

/* ---------------------------------------------------------------- the set */

static int is_ours(int fd)
{
	enum ism_fd_kind kind = ISM_FD_KIND(ism_fd_get(fd));

	return kind > ISM_FD_TCP;
}

static uint32_t count_ours(const struct pollfd *fds, nfds_t n)
{
	uint32_t no = 0;

	for (nfds_t i = 0; i < n; i++)
		no += is_ours(fds[i].fd);
	return no;
}

static void begin_conn(struct set *s, struct ours *o, struct pollfd *p)
{
	o->c = conn_of(p->fd);
	if (!o->c)
		return;
	if (conn_attached(o->c))
		o->ring = 1;
	else if (!(p->events & RD_EVENTS))
		return;
	else if (conn_rx_begin(o->c, p->fd))
		o->ring = 1;
	else
		o->counted = 1;
	s->rings += o->ring;
	s->candidates += o->counted;
}

static void begin(struct set *s)
{
	for (uint32_t i = 0; i < s->n; i++) {
		ism_fd_t e = ism_fd_get(s->fds[i].fd);
		struct ours *o = &s->o[s->no];

		s->k[i] = s->fds[i];
		s->k[i].revents = 0;
		if (ISM_FD_KIND(e) == ISM_FD_PRIVATE) {
			s->k[i].fd = INT_MAX; /* POLLNVAL: it does not exist for the application */
			s->hidden = 1;
		}
		if (s->no == s->bells ||
		    (ISM_FD_KIND(e) != ISM_FD_CONN && ISM_FD_KIND(e) != ISM_FD_EPOLL))
			continue;
		memset(o, 0, sizeof(*o));
		o->at = i;
		o->bell = -1;
		s->no++;
		if (ISM_FD_KIND(e) == ISM_FD_CONN)
			begin_conn(s, o, &s->fds[i]);
		else
			o->ep = ep_get(s->fds[i].fd);
		s->inner += o->ep && (atomic_load(&o->ep->live) || !__libc_single_threaded);
	}
}

static void leave_conn(struct ours *o, int fd)
{
	if (!o->c)
		return;
	if (o->counted)
		conn_rx_end(o->c, fd, -1);
	conn_done(o->c);
	o->c = NULL;
	o->ring = 0;
	o->counted = 0;
}

static void end(struct set *s)
{
	for (uint32_t i = 0; i < s->no; i++) {
		leave_conn(&s->o[i], s->fds[s->o[i].at].fd);
		if (s->o[i].ep)
			ep_put(s->o[i].ep);
	}
	if (s->bells_ep >= 0)
		real.close(s->bells_ep);
	room_put(s->mem);
}

static int lay_out(struct set *s, uint32_t no, void *stack)
{
	size_t len = (s->n + no) * sizeof(*s->k) + no * sizeof(*s->o);
	void *p = stack;

	s->bells = no; /* for begin(): how many fit */
	s->bells_ep = -1;
	if (len > ROOM) {
		p = s->mem = room_get(len);
		if (!p)
			return -ENOMEM;
	}
	s->o = p;
	s->k = (struct pollfd *)(s->o + no);
	begin(s);
	s->bells = 0;
	return 0;
}

/* ---------------------------------------------------------------- looking */

/* What the rings have; counts descriptors. */
static uint32_t look(struct set *s, unsigned int *all)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->no; i++) {
		struct ours *o = &s->o[i];

		o->ready = 0;
		if (o->ring)
			o->ready = ep_conn_ready(o->c);
		else if (o->ep && ep_is_ready(o->ep, 0))
			o->ready = POLLIN | POLLRDNORM;
		o->ready &= (unsigned short)s->fds[o->at].events;
		n += !!o->ready;
		*all |= o->ready;
	}
	return n;
}

/* What the kernel has to watch for us changes with where a connection sends. */
static void refresh(struct set *s)
{
	for (uint32_t i = 0; i < s->no; i++) {
		struct ours *o = &s->o[i];
		short events = s->fds[o->at].events;

		if (o->ring && unlikely(atomic_load(&o->c->closing))) {
			/*
			 * The kernel's poll() keeps the file of a descriptor that is closed meanwhile and
			 * goes on; we have lost it. POLLNVAL, rather than to wait for nothing.
			 */
			leave_conn(o, -1);
			s->k[o->at].fd = INT_MAX;
		}
		if (o->ring && conn_out_is_ring(o->c))
			events &= ~OUT_EVENTS;
		s->k[o->at].events = events;
	}
}

static unsigned int filter(struct ours *o, unsigned int revents)
{
	unsigned int r = conn_kernel_events(o->c, revents);

	return r & POLLOUT ? r : r & ~OUT_EVENTS;
}

/* The answer. @asked: the kernel has filled in its part. Counts descriptors. */
static int merge(struct set *s, int asked)
{
	int n = 0;

	for (uint32_t i = 0; i < s->n; i++)
		s->fds[i].revents = asked ? s->k[i].revents : 0;
	for (uint32_t i = 0; i < s->no; i++) {
		struct ours *o = &s->o[i];
		struct pollfd *p = &s->fds[o->at];

		if (o->ring)
			p->revents = filter(o, (unsigned short)p->revents);
		else if (o->ep && p->revents && !o->ready && epoll_is_hollow(o->ep, p->fd))
			p->revents = 0;
		p->revents |= o->ready;
	}
	for (uint32_t i = 0; i < s->n; i++)
		n += !!s->fds[i].revents;
	return n;
}

static int ask_kernel(struct set *s)
{
	static const struct timespec zero;
	int r;

	/* With a mask a signal that it lets through counts, also without any time: do_poll(). */
	if (s->mask && !s->ns)
		r = real.ppoll(s->k, s->n, &zero, s->mask);
	else
		r = real.poll(s->k, s->n, 0);
	poll_skipped = 0;
	return r < 0 ? -errno : r;
}

/* The rings have an answer; can the kernel have something to add? */
static int kernel_turn(struct set *s, unsigned int ready)
{
	uint64_t now;

	/* A big set also because it may be bigger than the kernel allows: EINVAL. */
	if (s->rings != s->n || s->n > 64 || ready & POLLRDHUP || ++poll_skipped >= LOOK_CALLS)
		return 1;
	now = ism_now_ns();
	if (now - poll_looked < LOOK_NS)
		return 0;
	poll_looked = now;
	return 1;
}

static int try_all(struct set *s)
{
	unsigned int ready = 0;
	uint32_t n = look(s, &ready);
	int r;

	if (n && !kernel_turn(s, ready))
		return merge(s, 0);
	refresh(s);
	r = ask_kernel(s);
	if (r == -EINVAL || (r < 0 && !n))
		return r;
	return n || r > 0 ? merge(s, r >= 0) : 0;
}

static int64_t left(struct set *s)
{
	uint64_t now;

	if (s->ns <= 0)
		return s->ns;
	now = ism_now_ns();
	if (!s->until)
		s->until = now + s->ns;
	return now < s->until ? (int64_t)(s->until - now) : 0;
}

/* ---------------------------------------------------------------- spinning and sleeping */

static int spin(struct set *s)
{
	struct ism_spin sp;
	unsigned int ready = 0;
	int n = 0, loops = 0, cpu = -1;

	for (uint32_t i = 0; i < s->no && cpu < 0; i++)
		if (s->o[i].ring)
			cpu = conn_partner_cpu(s->o[i].c);
	ism_spin_begin(&sp, &poll_budget, cpu);
	while (!n && ism_spin_more(&sp)) {
		if (look(s, &ready) || !(++loops % SPIN_LOOK))
			n = try_all(s);
	}
	ism_spin_end(&sp, n > 0);
	if (!n && ism_interrupts != s->intr)
		return -EINTR;
	return n;
}

static void arm(struct set *s, struct ours *o)
{
	unsigned int events = (unsigned short)s->fds[o->at].events;
	struct ism_slot *slot = o->c->slot;

	if (unlikely(!slot->rx_ready))
		conn_try_rx(o->c, s->fds[o->at].fd);
	o->armed = events & RD_EVENTS ? ISM_WANT_DATA : 0;
	if (events & OUT_EVENTS && conn_out_is_ring(o->c))
		o->armed |= ISM_WANT_SPACE;
	if (o->armed & ISM_WANT_DATA)
		atomic_fetch_add(&slot->rx_waiters, 1);
	if (o->armed & ISM_WANT_SPACE)
		atomic_fetch_add(&slot->tx_waiters, 1);
	if (!o->armed)
		return;
	conn_arm(o->c, o->armed);
	s->k[s->n + s->bells] = (struct pollfd){ .fd = o->c->own_bell, .events = POLLIN };
	o->bell = s->bells++;
}

static void arm_all(struct set *s)
{
	s->bells = 0;
	for (uint32_t i = 0; i < s->no; i++) {
		struct ours *o = &s->o[i];

		o->rang = 0;
		o->bell = -1;
		if (o->ring)
			arm(s, o);
		else if (o->ep)
			ep_arm_all(o->ep, 0);
	}
	ism_sleep_fence();
}

/*
 * The bell is one for both directions and all that wait on this end, and whoever drains it takes the
 * event from the others: a level-triggered poll() does not see it any more, nor does an epoll set whose
 * item is looked at again before it is reported. So those for whom there is something are rung again.
 * Disarming also races with one that has just begun to wait: it may count on the value that we took.
 */
static void disarm(struct ours *o)
{
	struct conn *c = o->c;
	struct ism_slot *slot = c->slot;

	if (o->rang)
		conn_take_bell(c);
	if (o->armed & ISM_WANT_DATA)
		atomic_fetch_sub(&slot->rx_waiters, 1);
	if (o->armed & ISM_WANT_SPACE)
		atomic_fetch_sub(&slot->tx_waiters, 1);
	conn_disarm(c, o->armed);
	o->armed = 0;
	ism_sleep_fence();
	conn_pass_bell(c);
}

static void disarm_all(struct set *s)
{
	for (uint32_t i = 0; i < s->no; i++) {
		struct ours *o = &s->o[i];

		if (o->ring && o->armed)
			disarm(o);
		else if (o->ep)
			ep_disarm_all(o->ep, 0);
	}
}

static void cancelled(void *arg)
{
	struct set *s = arg;

	disarm_all(s);
	end(s);
}

static int real_wait(struct set *s, struct pollfd *fds, uint32_t n, int64_t ns)
{
	struct timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
	int r;

	pthread_cleanup_push(cancelled, s);
	r = real.ppoll(fds, n, ns < 0 ? NULL : &ts, s->mask);
	pthread_cleanup_pop(0);
	return r < 0 ? -errno : r;
}

/*
 * With the bells there are more descriptors than RLIMIT_NOFILE allows in a poll(), do_sys_poll(): put
 * them into an epoll set of our own.
 */
static int wait_bells_in_set(struct set *s, int64_t ns)
{
	struct epoll_event ev = { .events = EPOLLIN }, got[16];
	int r, k;

	s->bells_ep = real.epoll_create1(EPOLL_CLOEXEC);
	if (s->bells_ep < 0)
		return -errno;
	for (uint32_t i = 0; i < s->no; i++) {
		ev.data.u32 = i;
		if (s->o[i].bell >= 0)
			real.epoll_ctl(s->bells_ep, EPOLL_CTL_ADD, s->o[i].c->own_bell, &ev);
	}
	s->k[s->n] = (struct pollfd){ .fd = s->bells_ep, .events = POLLIN };
	r = real_wait(s, s->k, s->n + 1, ns);
	while (r > 0 && (k = real.epoll_wait(s->bells_ep, got, 16, 0)) > 0)
		while (k-- > 0) {
			s->o[got[k].data.u32].rang = 1;
			real.epoll_ctl(s->bells_ep, EPOLL_CTL_DEL,
				       s->o[got[k].data.u32].c->own_bell, &ev);
		}
	real.close(s->bells_ep);
	s->bells_ep = -1;
	return r;
}

/* Not even one more is allowed: then by the clock. */
static int wait_in_slices(struct set *s, int64_t ns)
{
	uint64_t until = ism_now_ns() + (ns < 0 ? 0 : ns), now;
	unsigned int ready = 0;
	int64_t slice = SLICE_NS;
	int r;

	s->sliced = 1;
	for (;;) {
		now = ism_now_ns();
		if (ns >= 0 && now + slice > until)
			slice = now < until ? (int64_t)(until - now) : 0;
		r = real_wait(s, s->k, s->n, slice);
		if (r || look(s, &ready) || slice < SLICE_NS)
			return r;
	}
}

static int wait_armed(struct set *s, int64_t ns)
{
	int r = real_wait(s, s->k, s->n + s->bells, ns);

	if (r == -EINVAL && s->bells) {
		r = wait_bells_in_set(s, ns);
		return r == -EINVAL ? wait_in_slices(s, ns) : r;
	}
	for (uint32_t i = 0; i < s->no && r > 0; i++)
		if (s->o[i].bell >= 0)
			s->o[i].rang = !!s->k[s->n + s->o[i].bell].revents;
	return r;
}

/* One sleep: descriptors that are ready, 0: none yet, or a negative errno. */
static int doze(struct set *s)
{
	int64_t ns = left(s);
	int cut = s->rings && (ns < 0 || ns > SAFETY_NS), r = 0, n;
	unsigned int ready = 0;

	refresh(s);
	arm_all(s);
	if (!look(s, &ready)) {
		r = wait_armed(s, cut ? SAFETY_NS : ns);
		n = look(s, &ready);
		/* A second without an event, and then there is something: a lost wake-up. */
		for (uint32_t i = 0; n && !r && cut && !s->sliced && i < s->no; i++)
			if (s->o[i].ring && s->o[i].ready)
				atomic_fetch_add(&s->o[i].c->slot->timeouts, 1);
	} else {
		for (uint32_t i = 0; i < s->n; i++)
			s->k[i].revents = 0;
	}
	disarm_all(s);
	if (r < 0)
		return r;
	if (!r && cut)
		ism_daemon_tick();
	return merge(s, 1);
}

static int wait_rings(struct set *s)
{
	int n = try_all(s);

	if (n)
		return n;
	if (!s->ns)
		return merge(s, 1); /* nothing, and that is said of each descriptor */
	left(s);
	if (!s->mask && s->rings)
		n = spin(s);
	while (!n) {
		n = doze(s);
		if (!n && !left(s))
			break;
	}
	return n;
}

/* Is it worth to look before this sleep? */
static int may_await(nfds_t n, int64_t ns, const sigset_t *mask)
{
	return n <= AWAIT_FDS && !mask && (ns < 0 || ns >= AWAIT_NS);
}

/* A set of none of ours, but with a listener: as ism_await(). */
static int await_clients(struct pollfd *fds, nfds_t n, int64_t ns, const sigset_t *mask)
{
	for (nfds_t i = 0; may_await(n, ns, mask) && i < n; i++)
		if (ism_fd_listens(fds[i].fd))
			return ism_await(fds, n, ISM_AWAIT_SET);
	return 0;
}

/* @no: count_ours(), not 0 */
static int do_poll(struct pollfd *fds, nfds_t n, int64_t ns, const sigset_t *mask, uint32_t no)
{
	char stack[ROOM] __attribute__((aligned(16)));
	struct set s = { .fds = fds, .n = n, .ns = ns, .mask = mask, .intr = ism_interrupts };
	int r = lay_out(&s, no, stack);

	if (r)
		return r;
	if (s.rings || s.inner || s.hidden)
		r = wait_rings(&s);
	else if (!s.candidates || !may_await(n, ns, mask) ||
		 !(r = ism_await(fds, n, ISM_AWAIT_SET)))
		r = real_wait(&s, fds, n, ns);
	end(&s);
	return r;
}

/* ---------------------------------------------------------------- poll() */

static int result(int r, int saved)
{
	errno = r < 0 ? -r : saved;
	return r < 0 ? -1 : r;
}

ISM_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	int64_t ns = timeout < 0 ? -1 : timeout * 1000000LL;
	uint32_t no = count_ours(fds, n);
	int saved = errno, r;

	if (unlikely(no))
		return result(do_poll(fds, n, ns, NULL, no), saved);
	r = await_clients(fds, n, ns, NULL);
	return unlikely(r) ? result(r, saved) : REAL(poll)(fds, n, timeout);
}

static int valid(const struct timespec *ts)
{
	return !ts || (ts->tv_sec >= 0 && ts->tv_nsec >= 0 && ts->tv_nsec < 1000000000);
}

static int64_t to_ns(const struct timespec *ts)
{
	if (!ts || ts->tv_sec > 9000000000LL)
		return -1;
	return ts->tv_sec * 1000000000LL + ts->tv_nsec;
}

ISM_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	uint32_t no = valid(ts) ? count_ours(fds, n) : 0;
	int saved = errno, r;

	if (unlikely(no))
		return result(do_poll(fds, n, to_ns(ts), mask, no), saved);
	r = valid(ts) ? await_clients(fds, n, to_ns(ts), mask) : 0;
	return unlikely(r) ? result(r, saved) : REAL(ppoll)(fds, n, ts, mask);
}

/* What programs built with _FORTIFY_SOURCE call. */
extern void __chk_fail(void) __attribute__((noreturn));
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t len);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask,
		size_t len);

ISM_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t len)
{
	if (len / sizeof(*fds) < n)
		__chk_fail();
	return poll(fds, n, timeout);
}

ISM_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *ts,
			   const sigset_t *mask, size_t len)
{
	if (len / sizeof(*fds) < n)
		__chk_fail();
	return ppoll(fds, n, ts, mask);
}

/* ---------------------------------------------------------------- select() */

#define SEL_IN	(POLLIN | POLLRDNORM | POLLRDBAND)
#define SEL_OUT (POLLOUT | POLLWRNORM | POLLWRBAND)
#define SEL_EX	POLLPRI
/* fs/select.c: POLLIN_SET, POLLOUT_SET, POLLEX_SET */
#define SET_IN	(SEL_IN | POLLHUP | POLLERR)
#define SET_OUT (SEL_OUT | POLLERR)
#define SET_EX	POLLPRI

struct sets {
	int nfds;
	__fd_mask *in, *out, *ex;
};

/*
 * The sets as words: programs use bigger ones than FD_SETSIZE, and FD_ISSET() would end them. Bits
 * behind nfds do not count.
 */
static __fd_mask word(const struct sets *s, const __fd_mask *set, int w)
{
	__fd_mask bits = set ? set[w] : 0;
	int last = s->nfds - w * __NFDBITS;

	return last < __NFDBITS ? bits & (((__fd_mask)1 << last) - 1) : bits;
}

static __fd_mask any(const struct sets *s, int w)
{
	return word(s, s->in, w) | word(s, s->out, w) | word(s, s->ex, w);
}

static int words(const struct sets *s)
{
	return (s->nfds + __NFDBITS - 1) / __NFDBITS;
}

/* Descriptors in the sets; 0 when none is ours. */
static uint32_t count_set(const struct sets *s, uint32_t *ours)
{
	uint32_t n = 0;

	for (int w = 0; w < words(s); w++)
		for (__fd_mask m = any(s, w); m; m &= m - 1, n++)
			*ours += is_ours(w * __NFDBITS + __builtin_ctzl(m));
	return *ours ? n : 0;
}

static short events_of(const struct sets *s, int w, __fd_mask bit)
{
	return (word(s, s->in, w) & bit ? SEL_IN : 0) | (word(s, s->out, w) & bit ? SEL_OUT : 0) |
	       (word(s, s->ex, w) & bit ? SEL_EX : 0);
}

static void to_poll(const struct sets *s, struct pollfd *p)
{
	for (int w = 0; w < words(s); w++) {
		for (__fd_mask m = any(s, w); m; m &= m - 1, p++) {
			p->fd = w * __NFDBITS + __builtin_ctzl(m);
			p->events = events_of(s, w, m & -m);
		}
	}
}

static int set_bits(const struct pollfd *p)
{
	return !!(p->events & SEL_IN && p->revents & SET_IN) +
	       !!(p->events & SEL_OUT && p->revents & SET_OUT) +
	       !!(p->events & SEL_EX && p->revents & SET_EX);
}

/* How many bits; negative errno; 0 also when poll() reports only what select() does not know. */
static int count_bits(struct pollfd *p, uint32_t n)
{
	int bits = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (p[i].revents & POLLNVAL)
			return -EBADF;
		bits += set_bits(&p[i]);
	}
	for (uint32_t i = 0; i < n && !bits; i++)
		if (p[i].revents)
			p[i].fd = -1; /* POLLHUP, not asked for: it stays, so do not wait for it */
	return bits;
}

static void put_bits(__fd_mask *set, int nfds, const struct pollfd *p, uint32_t n, int want,
		     int got)
{
	if (!set)
		return;
	for (int w = 0; w * __NFDBITS < nfds; w++)
		set[w] = 0;
	for (uint32_t i = 0; i < n; i++)
		if (p[i].events & want && p[i].revents & got)
			set[p[i].fd / __NFDBITS] |= (__fd_mask)1 << p[i].fd % __NFDBITS;
}

static int select_poll(const struct sets *s, struct pollfd *p, uint32_t n, uint32_t ours,
		       int64_t ns, const sigset_t *mask)
{
	uint64_t until = ns > 0 ? ism_now_ns() + ns : 0, now;
	int r, bits = 0;

	to_poll(s, p);
	do {
		r = do_poll(p, n, ns, mask, ours);
		if (r > 0)
			r = bits = count_bits(p, n);
		now = ns > 0 ? ism_now_ns() : 0;
		if (ns > 0)
			ns = now < until ? (int64_t)(until - now) : 0;
		else if (!r && !ns)
			break;
	} while (!r && ns);
	if (r < 0)
		return r;
	put_bits(s->in, s->nfds, p, n, SEL_IN, SET_IN);
	put_bits(s->out, s->nfds, p, n, SEL_OUT, SET_OUT);
	put_bits(s->ex, s->nfds, p, n, SEL_EX, SET_EX);
	return bits;
}

static int do_select(const struct sets *s, uint32_t n, uint32_t ours, int64_t ns,
		     const sigset_t *mask)
{
	struct pollfd stack[ROOM / sizeof(struct pollfd)], *p = stack;
	void *mem = NULL;
	int r;

	if (n > ROOM / sizeof(*p))
		p = mem = room_get(n * sizeof(*p));
	r = p ? select_poll(s, p, n, ours, ns, mask) : -ENOMEM;
	room_put(mem);
	return r;
}

ISM_EXPORT int select(int nfds, fd_set *in, fd_set *out, fd_set *ex, struct timeval *tv)
{
	struct sets s = { nfds, (__fd_mask *)in, (__fd_mask *)out, (__fd_mask *)ex };
	int bad = nfds < 0 || (tv && (tv->tv_sec < 0 || tv->tv_usec < 0));
	uint32_t ours = 0, n = bad ? 0 : count_set(&s, &ours);
	int64_t ns = -1, rest;
	int saved = errno, r;
	uint64_t start;

	if (likely(!n))
		return REAL(select)(nfds, in, out, ex, tv);
	if (tv && tv->tv_sec < 9000000000LL && tv->tv_usec < 9000000000000000LL)
		ns = tv->tv_sec * 1000000000LL + tv->tv_usec * 1000LL;
	start = ns > 0 ? ism_now_ns() : 0;
	r = do_select(&s, n, ours, ns, NULL);
	if (ns > 0) {
		/* Linux says how much was left: select(2) */
		rest = start + ns - ism_now_ns();
		rest = rest > 0 ? rest : 0;
		tv->tv_sec = rest / 1000000000;
		tv->tv_usec = rest % 1000000000 / 1000;
	}
	return result(r, saved);
}

ISM_EXPORT int pselect(int nfds, fd_set *in, fd_set *out, fd_set *ex, const struct timespec *ts,
		       const sigset_t *mask)
{
	struct sets s = { nfds, (__fd_mask *)in, (__fd_mask *)out, (__fd_mask *)ex };
	uint32_t ours = 0, n = nfds < 0 || !valid(ts) ? 0 : count_set(&s, &ours);
	int saved = errno;

	if (likely(!n))
		return REAL(pselect)(nfds, in, out, ex, ts, mask);
	return result(do_select(&s, n, ours, to_ns(ts), mask), saved);
}

/* Other names of the same in the C library. */
extern __typeof(poll) __poll __attribute__((alias("poll"), visibility("default")));
extern __typeof(select) __select __attribute__((alias("select"), visibility("default")));
