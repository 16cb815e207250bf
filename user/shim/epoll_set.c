// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which descriptors are in which epoll sets, and what the kernel was told about them: epoll_ctl() and
 * everything that adds, changes or ends a registration. Waiting is in epoll.c; the map is in epoll.h.
 *
 * Errors are the kernel's: the real call comes first, what it accepted is mirrored.
 */
#include "epoll.h"
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#define EP_SPECIAL  (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE)
#define CHUNK_ITEMS 512
#define CHUNKS	    ((EP_ITEM_MASK + 1) / CHUNK_ITEMS)
#define CHUNK_EPS   64

static struct ism_lock big;
static struct ism_ep_item *_Atomic chunks[CHUNKS];
static uint32_t nchunks;
static struct ism_ep_item *free_items;
static struct ism_ep *free_eps, *all_eps;
/* Items by descriptor number, bound to a connection or not. */
static struct ism_ep_item *by_fd[ISM_FD_MAX];
/* TCP sockets that were not connected when they were added, linked by twins. */
static struct ep_link unbound = { &unbound, &unbound };
static _Atomic uint32_t nitems;
static uint32_t gen_bump = 1;

/* ---------------------------------------------------------------- pools; big held */

static void *pages(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int more_items(void)
{
	struct ism_ep_item *it;

	if (nchunks == CHUNKS)
		return -ENOMEM;
	it = pages(sizeof(*it) * CHUNK_ITEMS);
	if (!it)
		return -ENOMEM;
	for (uint32_t i = CHUNK_ITEMS; i-- > 0;) {
		it[i].index = nchunks * CHUNK_ITEMS + i;
		it[i].next_fd = free_items;
		free_items = &it[i];
	}
	atomic_store(&chunks[nchunks++], it);
	return 0;
}

static struct ism_ep_item *item_new(struct ism_ep *ep, int fd, const struct epoll_event *ev)
{
	struct ism_ep_item *it;
	uint32_t index, gen;

	if (!free_items && more_items())
		return NULL;
	it = free_items;
	free_items = it->next_fd;
	index = it->index;
	gen = it->gen + gen_bump;
	memset(it, 0, sizeof(*it));
	it->index = index;
	it->gen = gen & EP_GEN_MASK;
	it->ep = ep;
	it->fd = fd;
	it->events = ev->events;
	it->data = ev->data.u64;
	it->fresh = 1;
	ep_link_init(&it->all);
	ep_link_init(&it->hot);
	ep_link_init(&it->twins);
	atomic_fetch_add(&nitems, 1);
	return it;
}

static void item_drop(struct ism_ep_item *it)
{
	it->ep = NULL;
	it->next_fd = free_items;
	free_items = it;
	atomic_fetch_sub(&nitems, 1);
}

/* Neither a pointer nor a small number: the highest bit is set. splitmix64 over a random start. */
static uint32_t new_marker(void)
{
	static uint64_t seed;
	uint64_t z;

	if (!seed && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = ism_now_ns() ^ (uintptr_t)&seed;
	z = seed += 0x9e3779b97f4a7c15ULL;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return (uint32_t)(z ^ z >> 31) | 1u << 31;
}

static struct ism_ep *ep_new(int epfd)
{
	struct ism_ep *ep, *next;

	if (!free_eps) {
		ep = pages(sizeof(*ep) * CHUNK_EPS);
		for (int i = 0; ep && i < CHUNK_EPS; i++) {
			ep[i].next_free = free_eps;
			free_eps = &ep[i];
			ep[i].next_all = all_eps;
			all_eps = &ep[i];
		}
	}
	ep = free_eps;
	if (!ep)
		return NULL;
	free_eps = ep->next_free;
	next = ep->next_all;
	/* users is not reset: someone may just be finding out that it is not what he looked for */
	ep->live = ep->sleepers = ep->rings = 0;
	ep->pooled = ep->mute = 0;
	ep->round = ep->skipped = ep->foreign = ep->turn = ep->budget = 0;
	ep->looked = 0;
	ep->on = NULL;
	ep->next_all = next;
	ep_link_init(&ep->all);
	ep_link_init(&ep->hot);
	ep_link_init(&ep->nests);
	ep->epfd = epfd;
	ep->marker = new_marker();
	atomic_store(&ep->fds, 1);
	ism_fd_set(epfd, ISM_FD_EPOLL, ep);
	return ep;
}

static void ep_pool(struct ism_ep *ep)
{
	if (ep->pooled || atomic_load(&ep->fds) || atomic_load(&ep->users))
		return;
	ep->pooled = 1;
	ep->next_free = free_eps;
	free_eps = ep;
}

struct ism_ep *ep_get(int epfd)
{
	ism_fd_t e = ism_fd_get(epfd);
	struct ism_ep *ep = ISM_FD_PTR(e);

	if (ISM_FD_KIND(e) != ISM_FD_EPOLL)
		return NULL;
	if (likely(__libc_single_threaded)) {
		atomic_store_explicit(&ep->users, ep->users + 1, memory_order_relaxed);
		return ep;
	}
	atomic_fetch_add(&ep->users, 1);
	if (ism_fd_get(epfd) == e)
		return ep;
	ep_put(ep);
	return NULL;
}

void ep_put(struct ism_ep *ep)
{
	uint32_t users;

	if (likely(__libc_single_threaded)) {
		users = ep->users ? ep->users - 1 : 0; /* 0: fork() in a signal handler */
		atomic_store_explicit(&ep->users, users, memory_order_relaxed);
	} else {
		users = atomic_fetch_sub(&ep->users, 1) - 1;
	}
	if (likely(users || atomic_load(&ep->fds)) || ism_lock_take(&big))
		return;
	ep_pool(ep);
	ism_lock_drop(&big);
}

/* ---------------------------------------------------------------- what the kernel is told */

static uint64_t mark_of(const struct ism_ep_item *it)
{
	return (uint64_t)it->ep->marker << 32 | it->gen << EP_GEN_SHIFT | it->index;
}

struct ism_ep_item *ep_item_of(struct ism_ep *ep, uint64_t mark)
{
	uint32_t i = mark & EP_ITEM_MASK;
	struct ism_ep_item *it = atomic_load(&chunks[i / CHUNK_ITEMS]);

	if (!it)
		return NULL;
	it += i % CHUNK_ITEMS;
	if (it->ep != ep || it->gen != ((uint32_t)mark >> EP_GEN_SHIFT) || atomic_load(&it->dead))
		return NULL;
	return it;
}

/* What the kernel should have. Reported one-shot, or parked: nothing, not even EPOLLHUP. */
static struct epoll_event kernel_wants(const struct ism_ep_item *it)
{
	struct epoll_event ev = { .events = it->events };

	if (it->off || it->parked)
		ev.events = EPOLLONESHOT;
	else if (it->ring && conn_out_is_ring(it->c))
		ev.events &= ~EP_OUTS;
	ev.data.u64 = it->marked ? mark_of(it) : it->data;
	return ev;
}

static int kernel_call(struct ism_ep_item *it, int op, struct epoll_event *ev)
{
	if (real.epoll_ctl(it->ep->epfd, op, it->fd, ev))
		return -errno;
	it->kevents = ev->events;
	it->kdata = ev->data.u64;
	return 0;
}

int ep_kernel_set(struct ism_ep_item *it)
{
	struct epoll_event ev = kernel_wants(it);
	int saved = errno, rc;

	if (ev.events == it->kevents && ev.data.u64 == it->kdata)
		return 0;
	if (it->fd < 0) /* closed, kept alive by a dup(): out of reach */
		return 0;
	/* The kernel does not modify an exclusive one: do_epoll_ctl(). */
	if (it->kevents & EPOLLEXCLUSIVE) {
		rc = real.epoll_ctl(it->ep->epfd, EPOLL_CTL_DEL, it->fd, &ev) ? -errno : 0;
		if (!rc)
			rc = kernel_call(it, EPOLL_CTL_ADD, &ev);
	} else {
		rc = kernel_call(it, EPOLL_CTL_MOD, &ev);
	}
	errno = saved;
	return rc;
}

static int bell_call(struct ism_ep_item *it, int op)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	ev.data.u64 = mark_of(it) | EP_BELL;
	return real.epoll_ctl(it->ep->epfd, op, it->c->own_bell, &ev) ? -errno : 0;
}

/* One registration of the bell for all items of a connection in a set. */
static void bell_add(struct ism_ep_item *it)
{
	int saved = errno, rc;

	for (struct ism_ep_item *o = it->c->items; o; o = o->next_of) {
		if (o != it && o->ep == it->ep && o->ring) {
			ep_link_add(&o->twins, &it->twins);
			return;
		}
	}
	it->bell = 1;
	rc = bell_call(it, EPOLL_CTL_ADD);
	if (rc == -EEXIST) /* a set shared by fork(): the other one's */
		rc = bell_call(it, EPOLL_CTL_MOD);
	if (rc)
		it->ep->mute = 1;
	errno = saved;
}

static void bell_del(struct ism_ep_item *it)
{
	int saved = errno;

	if (!ep_link_empty(&it->twins)) {
		struct ism_ep_item *o = ep_of(it->twins.next, twins);

		o->bell = 1;
		bell_call(o, EPOLL_CTL_MOD);
	} else if (!it->inherited) {
		/* by hand: the partner holds the eventfd, too, so close() would not do it */
		bell_call(it, EPOLL_CTL_DEL);
	}
	it->bell = 0;
	errno = saved;
}

/* The application's own data looks like our marks: choose others, and tell the kernel. */
static void new_marks(struct ism_ep *ep, uint64_t data)
{
	struct ism_ep_item *it;

	if (likely(EP_MARKER(data) != ep->marker) || ism_lock_take(&big))
		return;
	if (!ism_lock_take(&ep->lock)) {
		while (EP_MARKER(data) == ep->marker)
			ep->marker = new_marker();
		for (struct ep_link *l = ep->all.next; l != &ep->all; l = l->next) {
			it = ep_of(l, all);
			ep_kernel_set(it);
			if (it->bell)
				bell_call(it, EPOLL_CTL_MOD);
		}
		ism_lock_drop(&ep->lock);
	}
	ism_lock_drop(&big);
}

/* ---------------------------------------------------------------- items; big and ep->lock held */

static struct ism_ep_item *find(struct ism_ep *ep, int fd)
{
	struct ism_ep_item *it = (unsigned)fd < ISM_FD_MAX ? by_fd[fd] : NULL;

	while (it && it->ep != ep)
		it = it->next_fd;
	return it;
}

static void set_marked(struct ism_ep_item *it, int on)
{
	if (it->marked == on)
		return;
	it->marked = on;
	atomic_fetch_add(&it->ep->live, on ? 1 : -1);
}

static void unlink_fd(struct ism_ep_item *it)
{
	struct ism_ep_item **p = it->fd >= 0 ? &by_fd[it->fd] : NULL;

	while (p && *p && *p != it)
		p = &(*p)->next_fd;
	if (p && *p)
		*p = it->next_fd;
	it->fd = -1;
}

static void unlink_of(struct ism_ep_item *it)
{
	struct ism_ep_item **p = it->c ? &it->c->items : it->inner ? &it->inner->on : NULL;

	while (p && *p && *p != it)
		p = &(*p)->next_of;
	if (p && *p)
		*p = it->next_of;
}

/* @kernel: the set lives on, so take the bell out */
static void item_free(struct ism_ep_item *it, int kernel)
{
	ep_unarm(it);
	if (it->bell && kernel)
		bell_del(it);
	if (it->ring)
		it->ep->rings--;
	set_marked(it, 0);
	if (it->inner && it->held)
		atomic_fetch_sub(&it->inner->sleepers, it->held);
	unlink_fd(it);
	unlink_of(it);
	ep_link_del(&it->all);
	ep_link_del(&it->hot);
	ep_link_del(&it->twins);
	item_drop(it);
}

static void bind_conn(struct ism_ep_item *it, struct conn *c)
{
	ep_link_del(&it->twins);
	it->c = c;
	it->next_of = c->items;
	c->items = it;
}

/* From now on the rings of its connection count. Nonzero: the kernel does not know it, nor do we now. */
static int start_ring(struct ism_ep_item *it)
{
	if (it->ring)
		return 0;
	it->ring = 1;
	it->ep->rings++;
	set_marked(it, 1);
	if (ep_kernel_set(it)) {
		item_free(it, 1);
		return -ENOENT;
	}
	bell_add(it);
	it->fresh = 1;
	ep_hot(it);
	ep_kick(it);
	return 0;
}

static void link_item(struct ism_ep_item *it, enum ism_fd_kind kind, void *ptr)
{
	struct ism_ep *ep = it->ep;

	it->next_fd = by_fd[it->fd];
	by_fd[it->fd] = it;
	ep_link_add(&ep->all, &it->all);
	if (kind == ISM_FD_CONN) {
		bind_conn(it, ptr);
		if (conn_attached(it->c))
			start_ring(it);
	} else if (kind == ISM_FD_EPOLL) {
		it->inner = ptr;
		it->next_of = it->inner->on;
		it->inner->on = it;
		ep_link_add(&ep->nests, &it->hot);
		/* calls asleep in this set sleep in the inner one, too, from now on */
		for (uint32_t n = atomic_load(&ep->sleepers); it->held < n; it->held++)
			ep_arm_all(it->inner, 1);
	} else {
		ep_link_add(&unbound, &it->twins);
	}
}

/* ---------------------------------------------------------------- epoll_ctl() */

struct ctl {
	struct ism_ep *ep;
	int epfd, op, fd;
	enum ism_fd_kind kind;
	void *ptr;
	struct epoll_event *ev;
};

/* No memory for the mirror: then the connection must not have rings that the set does not see. */
static int not_mirrored(struct ctl *k)
{
	int rc = real.epoll_ctl(k->epfd, k->op, k->fd, k->ev), saved = errno;

	if (k->kind == ISM_FD_CONN)
		conn_demote(k->ptr, k->fd, ISM_R_NO_STORAGE);
	errno = saved;
	return rc;
}

/* One-shot: we have to know what was reported. An inner set: to be looked at, too. */
static int wants_mark(const struct ctl *k)
{
	return k->kind == ISM_FD_EPOLL || k->ev->events & EPOLLONESHOT;
}

static int ctl_add(struct ctl *k)
{
	struct ism_ep_item *old = find(k->ep, k->fd), *it = item_new(k->ep, k->fd, k->ev);
	struct epoll_event ev;
	int rc;

	if (!it)
		return not_mirrored(k);
	if (k->kind == ISM_FD_CONN && conn_attached(k->ptr)) {
		/* at once as it has to be, so that no report comes under the application's data */
		it->c = k->ptr;
		it->ring = 1;
		it->marked = 1;
	}
	it->marked |= wants_mark(k);
	ev = kernel_wants(it);
	it->ring = 0;
	it->c = NULL;
	rc = real.epoll_ctl(k->epfd, EPOLL_CTL_ADD, k->fd, &ev);
	if (rc) {
		item_drop(it);
		return rc;
	}
	/* The kernel had none: what we remember was closed without our knowing. */
	if (old)
		item_free(old, 1);
	it->kevents = ev.events;
	it->kdata = ev.data.u64;
	if (it->marked)
		atomic_fetch_add(&k->ep->live, 1);
	link_item(it, k->kind, k->ptr);
	return 0;
}

/* Registered before we knew the descriptor, or the set. */
static int ctl_mod_unknown(struct ctl *k)
{
	struct ism_ep_item *it;
	int rc = real.epoll_ctl(k->epfd, k->op, k->fd, k->ev);

	if (rc)
		return rc;
	it = item_new(k->ep, k->fd, k->ev);
	if (!it) {
		if (k->kind == ISM_FD_CONN)
			conn_demote(k->ptr, k->fd, ISM_R_NO_STORAGE);
		return 0;
	}
	it->kevents = k->ev->events;
	it->kdata = k->ev->data.u64;
	link_item(it, k->kind, k->ptr);
	it = find(k->ep, k->fd);
	if (it && wants_mark(k)) {
		set_marked(it, 1);
		ep_kernel_set(it);
	}
	return 0;
}

/* Everything is due again, as after ep_modify(). */
static int ctl_mod(struct ctl *k, struct ism_ep_item *it)
{
	uint32_t events = it->events;
	uint64_t data = it->data;
	uint8_t off = it->off;
	struct epoll_event ev;
	int rc;

	it->events = k->ev->events;
	it->data = k->ev->data.u64;
	it->off = 0;
	if (wants_mark(k))
		set_marked(it, 1);
	ev = kernel_wants(it);
	/*
	 * Level-triggered, and the kernel has that, or more, already: event loops that ask for EPOLLOUT
	 * for each answer come here all the time, and ring space is none of the kernel's business. What
	 * it reports in vain makes us tell it, see filter().
	 */
	if (it->ring && !(ev.events & ~it->kevents) && ev.data.u64 == it->kdata &&
	    !((ev.events | it->kevents) & EP_SPECIAL))
		ev.events = it->kevents, rc = 0;
	else
		rc = real.epoll_ctl(k->epfd, EPOLL_CTL_MOD, k->fd, &ev);
	if (rc) {
		it->events = events;
		it->data = data;
		it->off = off;
		return rc;
	}
	it->kevents = ev.events;
	it->kdata = ev.data.u64;
	it->fresh = 1;
	it->was_in = 0;
	if (it->ring) {
		ep_unarm(it);
		ep_hot(it);
		ep_kick(it);
	}
	return 0;
}

/* A signal handler interrupted our own work on the sets. */
static int ctl_in_handler(struct ctl *k)
{
	struct ism_ep_item *it = find(k->ep, k->fd);

	if (k->op != EPOLL_CTL_DEL)
		return not_mirrored(k);
	if (real.epoll_ctl(k->epfd, k->op, k->fd, k->ev))
		return -1;
	if (it)
		atomic_store(&it->dead, 1);
	return 0;
}

/*
 * An event loop that deletes a connection to add it again with other events: twice for each message, and
 * each time for the socket and its bell. So a deletion is only noted, as long as the ring decides; the
 * kernel is told when it reports something, when something else than an addition comes, and at the end.
 */
static int park(struct ctl *k, struct ism_ep_item *it)
{
	if (k->op != EPOLL_CTL_DEL || !it || !it->ring || !it->bell || it->inherited ||
	    (it->events | it->kevents) & EP_SPECIAL || !ep_link_empty(&it->twins) ||
	    !conn_out_is_ring(it->c))
		return 0;
	it->parked = 1;
	ep_unarm(it);
	ep_link_del(&it->hot);
	return 1;
}

/* The item to use; NULL: there is none, as the application believes of a parked one. */
static struct ism_ep_item *unpark(struct ctl *k, struct ism_ep_item *it)
{
	struct epoll_event ev = {};

	if (!it || !it->parked)
		return it;
	it->parked = 0;
	if (k->op == EPOLL_CTL_ADD && k->kind == ISM_FD_CONN && k->ptr == it->c &&
	    !(k->ev->events & EP_SPECIAL)) {
		k->op = EPOLL_CTL_MOD;
		return it;
	}
	real.epoll_ctl(k->epfd, EPOLL_CTL_DEL, k->fd, &ev);
	item_free(it, 1);
	return NULL;
}

static int ctl_known(struct ctl *k)
{
	struct ism_ep_item *it;
	int rc;

	if (ism_lock_take(&big))
		return ctl_in_handler(k);
	if (ism_lock_take(&k->ep->lock)) {
		ism_lock_drop(&big);
		return ctl_in_handler(k);
	}
	it = unpark(k, find(k->ep, k->fd));
	if (park(k, it)) {
		ism_lock_drop(&k->ep->lock);
		ism_lock_drop(&big);
		return 0;
	}
	if (it && !it->c && !it->inner && k->kind == ISM_FD_CONN && k->op == EPOLL_CTL_MOD) {
		bind_conn(it, k->ptr);
		if (conn_attached(it->c) && start_ring(it))
			it = NULL;
	}
	if (k->op == EPOLL_CTL_MOD && it) {
		/* the frequent one, with EPOLLONESHOT; it changes nothing that needs the big lock */
		ism_lock_drop(&big);
		rc = ctl_mod(k, it);
		ism_lock_drop(&k->ep->lock);
		return rc;
	}
	if (k->op == EPOLL_CTL_ADD)
		rc = ctl_add(k);
	else if (k->op == EPOLL_CTL_MOD)
		rc = ctl_mod_unknown(k);
	else
		rc = real.epoll_ctl(k->epfd, k->op, k->fd, k->ev);
	if (k->op == EPOLL_CTL_DEL && !rc && it)
		item_free(it, 1);
	ism_lock_drop(&k->ep->lock);
	ism_lock_drop(&big);
	return rc;
}

/* A set from before an exec(), or made behind our back, gets a descriptor that we care about. */
static int ctl_adopt(struct ctl *k)
{
	int rc = real.epoll_ctl(k->epfd, k->op, k->fd, k->ev);

	if (rc || k->op == EPOLL_CTL_DEL || (unsigned)k->epfd >= ISM_FD_MAX || ism_lock_take(&big))
		return rc;
	if (ISM_FD_KIND(ism_fd_get(k->epfd)) == ISM_FD_NONE)
		ep_new(k->epfd);
	ism_lock_drop(&big);
	k->ep = ep_get(k->epfd);
	if (!k->ep)
		return rc;
	k->op = EPOLL_CTL_MOD;
	rc = ctl_known(k);
	ep_put(k->ep);
	return rc;
}

ISM_EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	ism_fd_t e = ism_fd_get(fd);
	struct ctl k = { .epfd = epfd, .op = op, .fd = fd, .ev = ev };
	int has_event = op == EPOLL_CTL_ADD || op == EPOLL_CTL_MOD, rc;

	k.kind = ISM_FD_KIND(e);
	k.ptr = ISM_FD_PTR(e);
	if (unlikely(k.kind == ISM_FD_PRIVATE)) {
		errno = EBADF;
		return -1;
	}
	if ((has_event && !ev) || (!has_event && op != EPOLL_CTL_DEL))
		return REAL(epoll_ctl)(epfd, op, fd, ev);
	k.ep = ep_get(epfd);
	if (!k.ep)
		return k.kind == ISM_FD_NONE ? REAL(epoll_ctl)(epfd, op, fd, ev) : ctl_adopt(&k);
	if (has_event)
		new_marks(k.ep, ev->data.u64);
	if (k.kind == ISM_FD_NONE) {
		rc = real.epoll_ctl(epfd, op, fd, ev);
		k.ep->foreign = 1; /* so ask the kernel next time, too */
	} else {
		rc = ctl_known(&k);
	}
	ep_put(k.ep);
	return rc;
}

static int created(int epfd)
{
	int saved = errno;

	if (epfd >= 0 && epfd < ISM_FD_MAX && !ism_borrowed && !ism_lock_take(&big)) {
		ep_new(epfd);
		ism_lock_drop(&big);
	}
	errno = saved;
	return epfd;
}

ISM_EXPORT int epoll_create(int size)
{
	return created(REAL(epoll_create)(size));
}

ISM_EXPORT int epoll_create1(int flags)
{
	return created(REAL(epoll_create1)(flags));
}

/* ---------------------------------------------------------------- what others tell us */

/* Sockets that have become connections since they were added. */
static void bind_unbound(void)
{
	struct ep_link *l, *next;
	struct ism_ep_item *it;
	ism_fd_t e;

	for (l = unbound.next; l != &unbound; l = next) {
		next = l->next;
		it = ep_of(l, twins);
		e = ism_fd_get(it->fd);
		if (ISM_FD_KIND(e) == ISM_FD_CONN)
			bind_conn(it, ISM_FD_PTR(e));
	}
}

void epoll_conn_attached(struct conn *c)
{
	struct ism_ep_item *it, *next;
	struct ism_ep *ep;

	if (!atomic_load(&nitems) || ism_lock_take(&big))
		return;
	bind_unbound();
	for (it = c->items; it; it = next) {
		next = it->next_of;
		ep = it->ep;
		if (ism_lock_take(&ep->lock))
			continue;
		if (atomic_load(&it->dead))
			item_free(it, 1);
		else
			start_ring(it);
		ism_lock_drop(&ep->lock);
	}
	ism_lock_drop(&big);
}

/* A poll() took the ring of the bell: the sets have to arm again, and their sleepers to look. */
void epoll_conn_rung(struct conn *c)
{
	struct ism_ep_item *it;
	struct ism_ep *ep;

	if (likely(!c->items) || ism_lock_take(&big))
		return;
	for (it = c->items; it; it = it->next_of) {
		ep = it->ep;
		if (ism_lock_take(&ep->lock))
			continue;
		if (it->ring && !it->off && !atomic_load(&it->dead)) {
			ep_hot(it);
			ep_kick(it);
		}
		ism_lock_drop(&ep->lock);
	}
	ism_lock_drop(&big);
}

void epoll_conn_changed(struct conn *c)
{
	static const uint64_t one = 1;
	struct ism_ep_item *it;
	struct ism_ep *ep;

	/* A poll() for ring space has to look at TCP now. */
	if (unlikely(atomic_load(&c->slot->tx_waiters)) && !conn_out_is_ring(c) && c->own_bell >= 0)
		real.write(c->own_bell, &one, sizeof(one));
	if (likely(!c->items) || ism_lock_take(&big))
		return;
	for (it = c->items; it; it = it->next_of) {
		ep = it->ep;
		if (!(it->events & EP_OUTS) || ism_lock_take(&ep->lock))
			continue;
		if (it->ring && !it->off && !atomic_load(&it->dead)) {
			ep_kernel_set(it);
			ep_hot(it);
			ep_kick(it);
		}
		ism_lock_drop(&ep->lock);
	}
	ism_lock_drop(&big);
}

/* The connection becomes plain TCP: the kernel gets back what the application said. */
static void give_back(struct ism_ep_item *it)
{
	ep_unarm(it);
	if (it->bell)
		bell_del(it);
	if (it->ring)
		it->ep->rings--;
	it->ring = 0;
	set_marked(it, 0);
	ep_kernel_set(it);
}

/*
 * Then the kernel goes on reporting it: a child has it, and the mark is one that nobody knows any more; or
 * ismredird, which was asked for rings, has not closed it yet.
 */
static int held_elsewhere(const struct ism_ep_item *it)
{
	struct ism_slot *s = it->c->slot;

	return atomic_load(&s->procs) > 1 ? it->marked : s->token != 0;
}

static void end_item(struct ism_ep_item *it, int plain)
{
	struct ism_ep *ep = it->ep;

	if (ism_lock_take(&ep->lock)) {
		atomic_store(&it->dead, 1);
		return;
	}
	if (plain && !it->parked)
		give_back(it);
	else if (it->parked && !it->inherited)
		real.epoll_ctl(ep->epfd, EPOLL_CTL_DEL, it->fd, NULL);
	else if (it->fd >= 0 && !it->inherited && it->c && held_elsewhere(it))
		real.epoll_ctl(ep->epfd, EPOLL_CTL_DEL, it->fd, NULL);
	item_free(it, 1);
	ism_lock_drop(&ep->lock);
}

/* A signal handler closes it in the middle of our own work: leave a note, the item is not used again. */
static void end_later(struct conn *c)
{
	for (struct ism_ep_item *it = c->items; it; it = it->next_of)
		atomic_store(&it->dead, 1);
}

void epoll_conn_closed(struct conn *c, int fd)
{
	int last = fd < 0 || atomic_load(&c->fds) <= 1, saved = errno;
	struct ism_ep_item *it, *next;

	if (!atomic_load(&nitems))
		return;
	if (ism_lock_take(&big)) {
		if (last)
			end_later(c);
		return;
	}
	for (it = fd >= 0 && fd < ISM_FD_MAX ? by_fd[fd] : NULL; it; it = next) {
		next = it->next_fd;
		if (it->c == c && !last && it->parked)
			end_item(it, 0);
		else if (it->c == c && !last)
			unlink_fd(it); /* a dup() keeps it: epoll(7), question 6 */
		else if (!it->c && !it->inner)
			end_item(it, 0);
	}
	for (it = last ? c->items : NULL; it; it = next) {
		next = it->next_of;
		end_item(it, fd < 0);
	}
	ism_lock_drop(&big);
	errno = saved;
}

void epoll_fd_duped(void *ep)
{
	atomic_fetch_add(&((struct ism_ep *)ep)->fds, 1);
}

/* The number that we use is closed, others are left: find one. */
static void other_epfd(struct ism_ep *ep)
{
	for (int fd = 0; fd < ISM_FD_MAX; fd++) {
		ism_fd_t e = ism_fd_get(fd);

		if (ISM_FD_KIND(e) == ISM_FD_EPOLL && ISM_FD_PTR(e) == ep) {
			ep->epfd = fd;
			return;
		}
	}
}

/* Where it is an inner set. */
static void leave_outer_sets(struct ism_ep *ep, int epfd, int last)
{
	struct ism_ep_item *it, *next;

	for (it = ep->on; it; it = next) {
		next = it->next_of;
		if (last)
			end_item(it, 0);
		else if (it->fd == epfd)
			unlink_fd(it);
	}
}

void epoll_fd_closed(int epfd)
{
	ism_fd_t e = ism_fd_get(epfd);
	struct ism_ep *ep = ISM_FD_PTR(e);
	int last;

	if (ISM_FD_KIND(e) != ISM_FD_EPOLL)
		return;
	ism_fd_set(epfd, ISM_FD_NONE, NULL);
	if (ism_lock_take(&big)) {
		atomic_fetch_sub(&ep->fds, 1);
		return;
	}
	last = atomic_load(&ep->fds) <= 1;
	leave_outer_sets(ep, epfd, last);
	if (last && !ism_lock_take(&ep->lock)) {
		while (!ep_link_empty(&ep->all))
			item_free(ep_of(ep->all.next, all), 0);
		ism_lock_drop(&ep->lock);
	}
	atomic_fetch_sub(&ep->fds, 1);
	if (!last && ep->epfd == epfd)
		other_epfd(ep);
	ep_pool(ep);
	ism_lock_drop(&big);
}

/*
 * In the child: the kernel's instances are shared with the parent, our memory is a copy. Other threads
 * are gone, with their locks and sleeps; what the parent's items count among the sleepers is its own.
 */
void epoll_after_fork(void)
{
	struct ism_ep_item *it;

	atomic_store(&big.owner, 0);
	gen_bump = (getpid() * 2 + 1) & EP_GEN_MASK;
	for (struct ism_ep *ep = all_eps; ep; ep = ep->next_all) {
		if (!atomic_load(&ep->fds))
			continue;
		atomic_store(&ep->lock.owner, 0);
		atomic_store(&ep->users, 0);
		atomic_store(&ep->sleepers, 0);
		for (struct ep_link *l = ep->all.next; l != &ep->all; l = l->next) {
			it = ep_of(l, all);
			it->inherited = 1;
			it->armed = 0;
			it->held = 0;
			if (it->ring)
				ep_hot(it);
		}
	}
}
