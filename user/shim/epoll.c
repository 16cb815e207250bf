// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Waiting in epoll: the kernel's answer and what the rings have, as one. See epoll.h for the map.
 *
 * A call looks at the hot items and now and then at the kernel, so that a busy ring costs no system call
 * and starves nobody. With nothing there it spins a little, arms the hot items, looks once more and
 * sleeps in the real epoll_wait(), which the bells wake.
 */
#include "epoll.h"
#include <pthread.h>

/* The kernel is asked at least once in so many answers, and after so long. */
#define LOOK_CALLS 8
#define LOOK_NS	   50000
/* An item that gave nothing in so many looks, or sleeps, is armed and left alone. */
#define COLD_LOOKS 64
#define COLD_NAPS  2
/* While rings gave nothing the kernel is asked at most once in so long: it costs a system call. */
#define SPIN_LOOK_NS 3000
/* A sleeper looks at everything once in so long. Finding something is a lost wake-up, and counted. */
#define SAFETY_NS 1000000000LL
#define MUTE_NS	  10000000LL

struct wait {
	struct ism_ep *ep;
	int epfd, max, fine;
	struct epoll_event *evs;
	int64_t ns; /* as asked, -1: for ever */
	uint64_t until; /* 0: not known yet */
	const sigset_t *mask;
	uint32_t intr;
};

/* ---------------------------------------------------------------- one item; ep->lock held */

void ep_hot(struct ism_ep_item *it)
{
	it->idle = 0;
	it->naps = 0;
	if (!it->inner && ep_link_empty(&it->hot))
		ep_link_add(&it->ep->hot, &it->hot);
}

struct seen {
	uint32_t ready;
	uint32_t blocked;
	uint64_t word;
};

/* The counters first: what changes after is due next time. */
static void look(struct ism_ep_item *it, struct seen *s)
{
	struct conn *c = it->c;

	if (unlikely(!conn_attached(c))) {
		*s = (struct seen){ 0 };
		return;
	}
	s->blocked = atomic_load_explicit(&c->slot->out_blocked, memory_order_acquire);
	s->word = conn_word(c, ISM_WANT_DATA);
	s->ready = ep_conn_ready(c) & it->events;
}

/*
 * What is to be reported for an item, 0: nothing. EPOLLET: something new must have come since the last
 * report, as ep_poll_callback() would have been called: bytes or an end, or room after a send that found
 * none (SOCK_NOSPACE); then all that is ready is reported, as ep_item_poll() does.
 */
static uint32_t due(struct ism_ep_item *it, struct seen *s)
{
	int edge;

	if (it->off || it->parked || atomic_load_explicit(&it->dead, memory_order_relaxed))
		return 0;
	look(it, s);
	if (!(s->ready & EP_INS))
		it->was_in = 0;
	if (!(it->events & EPOLLET) || !s->ready)
		return s->ready;
	edge = it->fresh || (s->ready & EP_INS && (!it->was_in || s->word != it->seen_word)) ||
	       (s->ready & EP_OUTS && s->blocked != it->seen_blocked);
	return edge ? s->ready : 0;
}

static uint32_t due_nest(struct ism_ep_item *it, struct seen *s, int depth)
{
	if (it->off || atomic_load(&it->dead) || depth >= EP_DEPTH)
		return 0;
	s->word = ep_is_ready(it->inner, depth + 1);
	s->ready = s->word ? (EPOLLIN | EPOLLRDNORM) & it->events : 0;
	if (!s->ready)
		it->seen_word = 0;
	return it->events & EPOLLET && !it->fresh && s->word == it->seen_word ? 0 : s->ready;
}

static int nothing_due(struct ism_ep_item *it)
{
	struct seen s;

	return !due(it, &s);
}

void ep_unarm(struct ism_ep_item *it)
{
	if (it->armed & ISM_WANT_DATA)
		atomic_fetch_sub(&it->c->slot->rx_waiters, 1);
	if (it->armed & ISM_WANT_SPACE)
		atomic_fetch_sub(&it->c->slot->tx_waiters, 1);
	it->armed = 0;
}

static void arm(struct ism_ep_item *it)
{
	struct conn *c = it->c;
	struct ism_slot *s = c->slot;
	int want = 0;

	if (it->off || it->parked || !conn_attached(c))
		return;
	if (unlikely(!s->rx_ready) && it->fd >= 0)
		conn_try_rx(c, it->fd);
	if (it->events & EP_INS)
		want |= ISM_WANT_DATA;
	if (it->events & EP_OUTS && conn_out_is_ring(c)) {
		if (!(conn_ready(c) & POLLOUT))
			want |= ISM_WANT_SPACE;
		else if (c->ep_told == 1)
			/*
			 * EPOLLET and room was reported. A send that finds none makes the next one due:
			 * tx.c calls epoll_conn_changed() at the next send when this is not the state
			 * that it told last, and then we look again and arm for it.
			 */
			c->ep_told = 2;
	}
	if (want & ~it->armed & ISM_WANT_DATA)
		atomic_fetch_add(&s->rx_waiters, 1);
	if (want & ~it->armed & ISM_WANT_SPACE)
		atomic_fetch_add(&s->tx_waiters, 1);
	it->armed |= want;
	if (want)
		conn_arm(c, want);
}

void ep_kick(struct ism_ep_item *it)
{
	static const uint64_t one = 1;
	int saved = errno;

	if (!atomic_load(&it->ep->sleepers))
		return;
	arm(it);
	ism_sleep_fence();
	if (!nothing_due(it))
		real.write(it->c->own_bell, &one, sizeof(one));
	errno = saved;
}

/* It gave nothing for long: leave it to its bell. */
static void cool(struct ism_ep_item *it)
{
	it->idle = 0;
	if (it->ep->mute)
		return;
	arm(it);
	ism_sleep_fence();
	if (nothing_due(it))
		ep_link_del(&it->hot);
}

/* ---------------------------------------------------------------- the answer; ep->lock held */

static void told(struct ism_ep_item *it, const struct seen *s)
{
	it->fresh = 0;
	it->idle = 0;
	it->naps = 0;
	if (it->inner)
		it->seen_word = s->word;
	if (it->ring) {
		if (s->ready & EP_INS) {
			it->seen_word = s->word;
			it->was_in = 1;
		}
		if (s->ready & EP_OUTS)
			it->seen_blocked = s->blocked;
		ep_unarm(it);
		/* to the end, so that everybody has a turn: ep_send_events() */
		ep_link_del(&it->hot);
		if (!(it->events & EPOLLONESHOT))
			ep_link_add(&it->ep->hot, &it->hot);
	}
	/* The kernel may keep a one-shot armed: what it then reports is dropped, and that is its shot. */
	if (it->events & EPOLLONESHOT)
		it->off = 1;
}

static int answer(struct wait *w, struct ism_ep_item *it, uint32_t ready, const struct seen *s,
		  int n)
{
	if (it->round == w->ep->round) {
		w->evs[it->at].events |= ready;
	} else {
		it->round = w->ep->round;
		it->at = n;
		w->evs[n].events = ready;
		w->evs[n].data.u64 = it->data;
		n++;
	}
	told(it, s);
	return n;
}

static uint32_t filter(struct ism_ep_item *it, uint32_t events, struct seen *s)
{
	uint32_t r = conn_kernel_events(it->c, events);

	if (!(r & POLLOUT)) {
		r &= ~EP_OUTS;
		if (it->kevents & EP_OUTS)
			ep_kernel_set(it); /* or it would say so again and again */
	}
	/* The kernel may have more than the application wants now, see ctl_mod(). */
	if (it->kevents & ~it->events & events)
		ep_kernel_set(it);
	r &= it->events | EPOLLERR | EPOLLHUP;
	look(it, s);
	/* TCP's FIN comes after the one in the ring: the same edge once more. */
	if (it->events & EPOLLET && it->was_in && it->seen_word & ISM_PROD_FIN &&
	    it->seen_word == s->word && !(r & ~EP_INS))
		return 0;
	return r ? r | s->ready : 0;
}

/* A report of the kernel under a mark. */
static int kernel_report(struct wait *w, struct ism_ep_item *it, uint32_t events, int n)
{
	struct seen s = { .word = it->inner ? 1 : 0 };

	if (it->off)
		return n;
	if (it->parked) {
		ep_kernel_set(it); /* or it would say so again and again */
		return n;
	}
	if (it->ring) {
		events = filter(it, events, &s);
		if (!events) {
			ep_hot(it);
			return n;
		}
	}
	if (it->inner)
		s.word = it->seen_word;
	return answer(w, it, events, &s, n);
}

static void bell_rang(struct ism_ep_item *it)
{
	struct ep_link *l = &it->twins;

	conn_heard_bell(it->c);
	do {
		struct ism_ep_item *o = ep_of(l, twins);

		ep_hot(o);
		l = l->next;
	} while (l != &it->twins);
}

/* @k events of the kernel lie at @from; what is left of them stays there. Returns the new end. */
static int translate(struct wait *w, int from, int k)
{
	struct ism_ep *ep = w->ep;
	struct ism_ep_item *it;
	int n = from;

	for (int i = from; i < from + k; i++) {
		struct epoll_event ev = w->evs[i];

		if (EP_MARKER(ev.data.u64) != ep->marker) {
			w->evs[n++] = ev;
			continue;
		}
		it = ep_item_of(ep, ev.data.u64);
		if (!it)
			continue;
		if (ev.data.u64 & EP_BELL)
			bell_rang(it);
		else
			n = kernel_report(w, it, ev.events, n);
	}
	ep->foreign = n > from;
	return n;
}

/* Sending is on TCP, but it is a ring that gave the event: is there room, too? ep_item_poll() says all. */
static uint32_t tcp_out(struct ism_ep_item *it, uint32_t r)
{
	struct pollfd p = { .fd = it->fd, .events = POLLOUT | POLLWRNORM };

	if (r & EP_OUTS || !(it->events & EP_OUTS) || it->fd < 0 || conn_out_is_ring(it->c))
		return r;
	if (real.poll(&p, 1, 0) == 1)
		r |= p.revents & (it->events | EPOLLHUP | EPOLLERR);
	return r;
}

static int scan_nests(struct wait *w, int n)
{
	struct ep_link *l = w->ep->nests.next, *next;
	struct seen s;
	uint32_t r;

	for (; l != &w->ep->nests && n < w->max; l = next) {
		struct ism_ep_item *it = ep_of(l, hot);

		next = l->next;
		r = due_nest(it, &s, 0);
		if (r)
			n = answer(w, it, r, &s, n);
	}
	return n;
}

/* So many hot items are reported in the order in which their bytes were sent. */
#define SORTED 64

struct found {
	struct ism_ep_item *it;
	struct seen s;
	uint64_t stamp;
	uint32_t ready;
};

/* Asks for stamps the first time: a writer does not read the clock for nobody. */
static uint64_t stamp_of(const struct ism_ep_item *it, uint32_t ready)
{
	struct ism_slot *s = it->c->slot;

	/* the clock of another kernel says nothing */
	if (!(ready & EP_INS) || s->remote)
		return 0;
	if (unlikely(!s->in_order)) {
		s->in_order = 1;
		__atomic_store_n(&ism_dmb_rx(it->c->peer)->order, 1, __ATOMIC_RELAXED);
	}
	return ism_dmb_tx(it->c->own)->stamp;
}

/* What is due, in the order of the list. */
static int first_pass(struct ism_ep *ep, struct found *f, int max)
{
	struct ep_link *l = ep->hot.next, *last = ep->hot.prev, *next;
	int end = ep_link_empty(&ep->hot), k = 0;

	for (; !end && k < max; l = next) {
		struct ism_ep_item *it = ep_of(l, hot);

		end = l == last;
		next = l->next;
		if (it->off || it->parked ||
		    atomic_load_explicit(&it->dead, memory_order_relaxed)) {
			ep_link_del(l);
			continue;
		}
		f[k].ready = due(it, &f[k].s);
		if (f[k].ready) {
			f[k].it = it;
			f[k].stamp = stamp_of(it, f[k].ready);
			k++;
		} else if (++it->idle >= COLD_LOOKS) {
			cool(it);
		}
	}
	return k;
}

/*
 * Somebody may have written to X, which we had passed, and then to Y, which we then found. Kernel epoll
 * would report X first, and programs count on that. So look again at those before the last find, and take
 * what was sent before now: what came later may have such a predecessor, too, and has time.
 */
static int second_pass(struct ism_ep *ep, struct found *f, int k, int max)
{
	struct ism_ep_item *last = f[k - 1].it;
	uint64_t now = ism_ticks();
	int known = 0, n = k;

	for (struct ep_link *l = ep->hot.next; n < max && ep_of(l, hot) != last; l = l->next) {
		struct ism_ep_item *it = ep_of(l, hot);

		if (known < k && f[known].it == it) {
			known++;
			continue;
		}
		f[n].ready = due(it, &f[n].s);
		if (!f[n].ready)
			continue;
		f[n].it = it;
		f[n].stamp = stamp_of(it, f[n].ready);
		if ((int64_t)(f[n].stamp - now) <= 0)
			n++;
	}
	return n;
}

static void by_stamp(struct found *f, int n)
{
	for (int i = 1, j; i < n; i++) {
		struct found x = f[i];

		for (j = i; j && (int64_t)(f[j - 1].stamp - x.stamp) > 0; j--)
			f[j] = f[j - 1];
		f[j] = x;
	}
}

static int scan(struct wait *w, int n)
{
	struct found f[SORTED];
	int max = w->max - n < SORTED ? w->max - n : SORTED, k;

	k = first_pass(w->ep, f, max);
	if (k && w->ep->hot.next != &f[k - 1].it->hot) {
		k = second_pass(w->ep, f, k, max);
		by_stamp(f, k);
	}
	for (int i = 0; i < k; i++)
		n = answer(w, f[i].it, tcp_out(f[i].it, f[i].ready), &f[i].s, n);
	return n;
}

/* The answer from @k events of the kernel and all that the rings have. */
static int collect(struct wait *w, int k)
{
	int n;

	if (unlikely(!++w->ep->round))
		w->ep->round = 1;
	n = translate(w, 0, k);
	n = scan_nests(w, n);
	return scan(w, n);
}

/* The inner set that a report of the kernel is about, held; NULL: it is about something else. */
static struct ism_ep *reported_set(struct ism_ep *ep, uint64_t mark, int *fd)
{
	struct ism_ep_item *it = NULL;
	struct ism_ep *inner = NULL;

	if (EP_MARKER(mark) != ep->marker || mark & EP_BELL || ism_lock_take(&ep->lock))
		return NULL;
	it = ep_item_of(ep, mark);
	/* a one-shot is used up: the kernel is believed */
	if (it && it->inner && !(it->events & EPOLLONESHOT)) {
		inner = it->inner;
		*fd = it->fd;
		atomic_fetch_add(&inner->users, 1);
	}
	ism_lock_drop(&ep->lock);
	return inner;
}

/* Of @k reports of the kernel: how many are left without inner sets that only a bell has rung in. */
static int drop_hollow(struct wait *w, int k)
{
	struct ism_ep *inner;
	int n = 0, fd = -1, hollow;

	for (int i = 0; i < k; i++) {
		inner = reported_set(w->ep, w->evs[i].data.u64, &fd);
		hollow = inner && epoll_is_hollow(inner, fd);
		if (inner)
			ep_put(inner);
		if (!hollow)
			w->evs[n++] = w->evs[i];
	}
	return n;
}

/* ep->lock held, but perhaps not all the time. */
static int ask_kernel(struct wait *w, int max)
{
	struct ism_ep *ep = w->ep;
	int k = real.epoll_wait(w->epfd, w->evs, max, 0);

	ep->skipped = 0;
	ep->looked = ism_ticks();
	if (likely(k <= 0 || ep_link_empty(&ep->nests)))
		return k < 0 ? -errno : k;
	ism_lock_drop(&ep->lock);
	k = drop_hollow(w, k);
	while (ism_lock_take(&ep->lock))
		ism_pause();
	return k;
}

static int looked_within(const struct ism_ep *ep, uint64_t ns)
{
	return ism_ticks() - ep->looked < ism_to_ticks(ns);
}

/* How many events the kernel may give now, 0: not its turn. */
static int kernel_turn(struct wait *w)
{
	struct ism_ep *ep = w->ep;

	if (ep_link_empty(&ep->hot) && ep_link_empty(&ep->nests))
		return w->max;
	if (!ep->foreign && ++ep->skipped < LOOK_CALLS && looked_within(ep, LOOK_NS))
		return 0;
	if (w->max == 1) {
		ep->turn ^= 1;
		return ep->turn;
	}
	return w->max - w->max / 2;
}

/* What is there now. */
static int gather(struct wait *w)
{
	int turn = kernel_turn(w), k = 0, n;

	if (turn) {
		k = ask_kernel(w, turn);
		if (k < 0)
			return k;
	}
	n = collect(w, k);
	if (n || turn || (w->ns && !w->mask && looked_within(w->ep, SPIN_LOOK_NS)))
		return n;
	k = ask_kernel(w, w->max);
	return k > 0 ? collect(w, k) : k;
}

/* ---------------------------------------------------------------- sets in sets; ep->lock not held */

/* Any change of what is ready changes the result: an edge for an EPOLLET registration of the set. */
uint64_t ep_is_ready(struct ism_ep *ep, int depth)
{
	uint64_t sum = 0;
	struct seen s;

	if (!atomic_load(&ep->live) || ism_lock_take(&ep->lock))
		return 0;
	for (struct ep_link *l = ep->hot.next; l != &ep->hot; l = l->next) {
		struct ism_ep_item *it = ep_of(l, hot);

		if (due(it, &s))
			sum = sum * 31 + s.word + s.blocked + s.ready;
	}
	for (struct ep_link *l = ep->nests.next; l != &ep->nests; l = l->next)
		if (due_nest(ep_of(l, hot), &s, depth))
			sum = sum * 31 + s.word;
	ism_lock_drop(&ep->lock);
	return sum;
}

void ep_arm_all(struct ism_ep *ep, int depth)
{
	atomic_fetch_add(&ep->sleepers, 1);
	if (depth >= EP_DEPTH || ism_lock_take(&ep->lock))
		return;
	for (struct ep_link *l = ep->hot.next; l != &ep->hot; l = l->next)
		arm(ep_of(l, hot));
	for (struct ep_link *l = ep->nests.next; l != &ep->nests; l = l->next) {
		struct ism_ep_item *it = ep_of(l, hot);

		it->held++;
		ep_arm_all(it->inner, depth + 1);
	}
	ism_lock_drop(&ep->lock);
}

static void awake(struct ism_ep *ep)
{
	uint32_t n = atomic_load(&ep->sleepers);

	/* 0: fork() in a signal handler that ended the sleep */
	while (n && !atomic_compare_exchange_weak(&ep->sleepers, &n, n - 1))
		;
}

void ep_disarm_all(struct ism_ep *ep, int depth)
{
	awake(ep);
	if (depth >= EP_DEPTH || ism_lock_take(&ep->lock))
		return;
	for (struct ep_link *l = ep->nests.next; l != &ep->nests; l = l->next) {
		struct ism_ep_item *it = ep_of(l, hot);

		if (it->held) {
			it->held--;
			ep_disarm_all(it->inner, depth + 1);
		}
	}
	ism_lock_drop(&ep->lock);
}

int epoll_ready(int epfd)
{
	struct ism_ep *ep = ep_get(epfd);
	int r;

	if (!ep)
		return 0;
	r = ep_is_ready(ep, 0) != 0;
	ep_put(ep);
	return r;
}

void epoll_arm(int epfd)
{
	struct ism_ep *ep = ep_get(epfd);

	if (!ep)
		return;
	ep_arm_all(ep, 0);
	ep_put(ep);
}

void epoll_disarm(int epfd)
{
	struct ism_ep *ep = ep_get(epfd);

	if (!ep)
		return;
	ep_disarm_all(ep, 0);
	ep_put(ep);
}

/* ---------------------------------------------------------------- spinning and sleeping */

static int hot_due(struct ism_ep *ep)
{
	struct seen s;

	for (struct ep_link *l = ep->hot.next; l != &ep->hot; l = l->next)
		if (due(ep_of(l, hot), &s))
			return 1;
	for (struct ep_link *l = ep->nests.next; l != &ep->nests; l = l->next)
		if (due_nest(ep_of(l, hot), &s, 0))
			return 1;
	return 0;
}

static int partner_cpu(struct ism_ep *ep)
{
	struct ism_ep_item *it = ep_link_empty(&ep->hot) ? NULL : ep_of(ep->hot.prev, hot);

	return it && conn_attached(it->c) ? conn_partner_cpu(it->c) : -1;
}

/* Wait a little without sleeping. ep->lock held, but not while it pauses. */
static int spin(struct wait *w)
{
	struct ism_ep *ep = w->ep;
	struct ism_spin s;
	int n = 0, k;

	ism_spin_begin(&s, &ep->budget, partner_cpu(ep));
	ism_lock_drop(&ep->lock);
	while (ism_spin_more(&s)) {
		if (ism_lock_take(&ep->lock))
			continue;
		k = looked_within(ep, SPIN_LOOK_NS) ? 0 : ask_kernel(w, w->max);
		if (k > 0 || hot_due(ep))
			n = collect(w, k > 0 ? k : 0);
		ism_lock_drop(&ep->lock);
		if (n)
			break;
	}
	ism_spin_end(&s, n > 0);
	while (ism_lock_take(&ep->lock))
		ism_pause();
	if (!n && ism_interrupts != w->intr)
		return -EINTR;
	return n;
}

static int real_wait(struct wait *w, int64_t ns)
{
	struct timespec ts;
	int64_t ms = -1;
	int n;

	if (w->fine && real.epoll_pwait2) {
		ts.tv_sec = ns / 1000000000;
		ts.tv_nsec = ns % 1000000000;
		n = real.epoll_pwait2(w->epfd, w->evs, w->max, ns < 0 ? NULL : &ts, w->mask);
		return n < 0 ? -errno : n;
	}
	if (ns >= 0)
		ms = (ns + 999999) / 1000000;
	if (ms > 2147483647)
		ms = 2147483647;
	if (w->mask)
		n = real.epoll_pwait(w->epfd, w->evs, w->max, ms, w->mask);
	else
		n = real.epoll_wait(w->epfd, w->evs, w->max, ms);
	return n < 0 ? -errno : n;
}

/* Time left, -1: no end. */
static int64_t left(struct wait *w)
{
	uint64_t now;

	if (w->ns <= 0)
		return w->ns;
	now = ism_now_ns();
	if (!w->until)
		w->until = now + w->ns;
	return now < w->until ? (int64_t)(w->until - now) : 0;
}

/* pthread_cancel() in the sleep: epoll_wait() is a cancellation point. */
static void cancelled(void *arg)
{
	struct ism_ep *ep = arg;

	ep_disarm_all(ep, 0);
	ep_put(ep);
}

static int cancellable_wait(struct wait *w, int64_t ns)
{
	int k;

	pthread_cleanup_push(cancelled, w->ep);
	k = real_wait(w, ns);
	pthread_cleanup_pop(0);
	return k;
}

/* Everything is armed; is nothing due now? Items that came to nothing in some sleeps get cold. */
static int still_nothing(struct ism_ep *ep)
{
	struct ep_link *l, *next;
	struct seen s;

	for (l = ep->hot.next; l != &ep->hot; l = next) {
		struct ism_ep_item *it = ep_of(l, hot);

		next = l->next;
		if (due(it, &s))
			return 0;
		if (++it->naps > COLD_NAPS && !ep->mute)
			ep_link_del(l);
	}
	for (l = ep->nests.next; l != &ep->nests; l = l->next)
		if (due_nest(ep_of(l, hot), &s, 0))
			return 0;
	return 1;
}

/* A second without any event: has a cold one been forgotten? */
static void check_all(struct ism_ep *ep)
{
	struct seen s;

	for (struct ep_link *l = ep->all.next; l != &ep->all; l = l->next) {
		struct ism_ep_item *it = ep_of(l, all);

		if (!it->ring || !ep_link_empty(&it->hot) || !due(it, &s))
			continue;
		ep_hot(it);
		atomic_fetch_add(&it->c->slot->timeouts, 1);
	}
	ism_daemon_tick();
}

/*
 * Awake, and the hot ones are looked at anyway: without this the partners would ring for each of them
 * once more, and a bell costs them a system call, and us an event.
 */
static void stand_down(struct ism_ep *ep)
{
	struct ep_link *l;

	for (l = ep->hot.next; l != &ep->hot; l = l->next) {
		struct ism_ep_item *it = ep_of(l, hot);
		int want = it->armed;

		if (!want)
			continue;
		ep_unarm(it);
		it->gone = conn_disarm_begin(it->c, want);
	}
	atomic_thread_fence(memory_order_seq_cst);
	for (l = ep->hot.next; l != &ep->hot; l = l->next) {
		struct ism_ep_item *it = ep_of(l, hot);

		if (it->gone)
			conn_disarm_end(it->c, it->gone);
		it->gone = 0;
	}
}

/*
 * One sleep. ep->lock held, but not while asleep. Events of the kernel, untranslated; 0 also when rings
 * became ready in between; negative errno.
 */
static int doze(struct wait *w)
{
	struct ism_ep *ep = w->ep;
	int64_t ns = left(w), slice = ep->mute ? MUTE_NS : SAFETY_NS;
	int k = 0, cut = ep->rings && (ns < 0 || ns > slice);

	ism_lock_drop(&ep->lock);
	ep_arm_all(ep, 0);
	ism_sleep_fence();
	while (ism_lock_take(&ep->lock))
		ism_pause();
	if (still_nothing(ep)) {
		ism_lock_drop(&ep->lock);
		k = cancellable_wait(w, cut ? slice : ns);
		if (k > 0 && unlikely(!ep_link_empty(&ep->nests))) {
			k = drop_hollow(w, k);
			cut = 0; /* woken, so nothing was forgotten */
		}
	} else {
		ism_lock_drop(&ep->lock);
		cut = 0; /* nobody slept, so nothing was forgotten */
	}
	ep_disarm_all(ep, 0);
	while (ism_lock_take(&ep->lock))
		ism_pause();
	if (!atomic_load(&ep->sleepers))
		stand_down(ep);
	if (!k && cut)
		check_all(ep);
	return k;
}

/*
 * We leave while others sleep in the set. The kernel wakes the next one when more is ready,
 * ep_done_scan(); and what we were woken for is not armed any more.
 */
static void pass_on(struct ism_ep *ep)
{
	static const uint64_t one = 1;
	struct ep_link *l;

	for (l = ep->hot.next; l != &ep->hot; l = l->next)
		arm(ep_of(l, hot));
	ism_sleep_fence();
	for (l = ep->hot.next; l != &ep->hot; l = l->next) {
		struct ism_ep_item *it = ep_of(l, hot);

		if (it->round == ep->round || nothing_due(it))
			continue;
		real.write(it->c->own_bell, &one, sizeof(one));
		return;
	}
}

/* @k: events of the kernel that are there already. ep->lock held. */
static int wait_live(struct wait *w, int k)
{
	struct ism_ep *ep = w->ep;
	int n = 0;

	if (k > 0)
		n = collect(w, k);
	else if (!w->ns || !ep_link_empty(&ep->hot) || !ep_link_empty(&ep->nests))
		n = gather(w);
	if (!n && w->ns && !w->mask && !ep_link_empty(&ep->hot)) {
		left(w);
		n = spin(w);
	}
	while (!n && w->ns) {
		k = doze(w);
		n = k < 0 ? k : collect(w, k);
		if (!n && k == 0 && !left(w))
			break;
	}
	if (unlikely(atomic_load(&ep->sleepers)))
		pass_on(ep);
	return n;
}

/* Nothing but the kernel's answer is needed, unless rings are attached while we sleep. */
static int wait_plain(struct wait *w)
{
	struct ism_ep *ep = w->ep;
	int n;

	left(w);
	atomic_fetch_add(&ep->sleepers, 1);
	n = atomic_load(&ep->live) ? 0 : cancellable_wait(w, w->ns);
	awake(ep);
	return n;
}

static int wait_for(struct wait *w)
{
	struct ism_ep *ep = w->ep;
	int saved = errno, n = 0;

	w->intr = ism_interrupts;
	if (likely(!atomic_load_explicit(&ep->live, memory_order_acquire)))
		n = wait_plain(w);
	if (unlikely(n >= 0 && atomic_load(&ep->live))) {
		/* -EDEADLK: called by a signal handler in the middle of our own work */
		if (ism_lock_take(&ep->lock)) {
			n = n ? n : real_wait(w, w->ns);
			n = n > 0 ? translate(w, 0, n) : n;
		} else {
			n = wait_live(w, n);
			ism_lock_drop(&ep->lock);
		}
	}
	ep_put(ep);
	errno = n < 0 ? -n : saved;
	return n < 0 ? -1 : n;
}

/* The instance when more than the kernel's answer is needed, or may be while we sleep; NULL: it is not. */
static struct ism_ep *ep_of_wait(int epfd, int max)
{
	ism_fd_t e = ism_fd_get(epfd);
	struct ism_ep *ep = ISM_FD_PTR(e);

	if (likely(ISM_FD_KIND(e) != ISM_FD_EPOLL) || max <= 0)
		return NULL;
	if (likely(__libc_single_threaded) &&
	    !atomic_load_explicit(&ep->live, memory_order_relaxed))
		return NULL;
	return ep_get(epfd);
}

ISM_EXPORT int epoll_wait(int epfd, struct epoll_event *evs, int max, int timeout)
{
	struct wait w = { .epfd = epfd, .evs = evs, .max = max };

	w.ep = ep_of_wait(epfd, max);
	if (!w.ep)
		return REAL(epoll_wait)(epfd, evs, max, timeout);
	w.ns = timeout < 0 ? -1 : timeout * 1000000LL;
	return wait_for(&w);
}

ISM_EXPORT int epoll_pwait(int epfd, struct epoll_event *evs, int max, int timeout,
			   const sigset_t *mask)
{
	struct wait w = { .epfd = epfd, .evs = evs, .max = max, .mask = mask };

	w.ep = ep_of_wait(epfd, max);
	if (!w.ep)
		return REAL(epoll_pwait)(epfd, evs, max, timeout, mask);
	w.ns = timeout < 0 ? -1 : timeout * 1000000LL;
	return wait_for(&w);
}

ISM_EXPORT int epoll_pwait2(int epfd, struct epoll_event *evs, int max, const struct timespec *ts,
			    const sigset_t *mask)
{
	struct wait w = { .epfd = epfd, .evs = evs, .max = max, .mask = mask, .fine = 1 };
	int bad = ts && (ts->tv_sec < 0 || ts->tv_nsec < 0 || ts->tv_nsec >= 1000000000);

	if (!REAL(epoll_pwait2)) {
		errno = ENOSYS;
		return -1;
	}
	w.ep = bad ? NULL : ep_of_wait(epfd, max);
	if (!w.ep)
		return real.epoll_pwait2(epfd, evs, max, ts, mask);
	w.ns = !ts || ts->tv_sec > 9000000000LL ? -1 : ts->tv_sec * 1000000000LL + ts->tv_nsec;
	return wait_for(&w);
}
