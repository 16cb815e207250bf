/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What epoll_set.c (which descriptor is in which set), epoll.c (waiting) and poll.c share.
 *
 * The kernel's epoll instance stays the truth about everything that is not a ring, and the place to
 * sleep. For a connection with rings the kernel watches three things: the TCP socket, under a *mark*
 * instead of the application's data, so that its reports can be filtered; the bell, EPOLLET, also under
 * a mark; and nothing about EPOLLOUT while ring space decides about that. Readiness of the rings is
 * looked up by us, and only for *hot* items. A cold one is armed: whatever happens to it rings the bell,
 * whose event makes it hot again. So many idle connections cost nothing.
 *
 * Locks: `big` is for what connects several instances (the lists of a connection, of a descriptor number,
 * of an inner instance, the pools); ism_ep.lock for an instance. Order: big, outer instance, inner
 * instance, then the locks of a connection. Neither is held while sleeping or spinning.
 */
#ifndef ISM_SHIM_EPOLL_H
#define ISM_SHIM_EPOLL_H

#include "shim.h"

#define EP_INS	(EPOLLIN | EPOLLRDNORM | EPOLLRDHUP)
#define EP_OUTS (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)
/* The kernel nests no deeper: EP_MAX_NESTS in fs/eventpoll.c, plus the set itself. */
#define EP_DEPTH 5

/*
 * A mark in epoll_event.data: 32 bits of the instance, the highest one set, so that it is neither a
 * pointer nor a small number; 10 bits that change with each use of the item; bell or not; the item.
 */
#define EP_BELL	     (1u << 21)
#define EP_ITEM_MASK (EP_BELL - 1)
#define EP_GEN_SHIFT 22
#define EP_MARKER(m) ((uint32_t)((m) >> 32))
#define EP_GEN_MASK  0x3ffu

struct ep_link {
	struct ep_link *prev, *next;
};

static inline void ep_link_init(struct ep_link *l)
{
	l->prev = l->next = l;
}

static inline int ep_link_empty(const struct ep_link *l)
{
	return l->next == l;
}

static inline void ep_link_add(struct ep_link *head, struct ep_link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

static inline void ep_link_del(struct ep_link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	ep_link_init(l);
}

#define ep_of(l, member) ((struct ism_ep_item *)((char *)(l)-offsetof(struct ism_ep_item, member)))

/**
 * struct ism_ep_item - a descriptor in a set: the kernel's struct epitem. Type-stable.
 * @ep: the set, NULL: unused
 * @c: its connection; NULL: an inner set, or a TCP socket that was not connected when it was added
 * @inner: the inner set
 * @fd: its number; -1: closed, while a dup() keeps the open file, and so the registration, alive.
 *      Such an item goes on reporting, as the kernel does; nobody can change it any more.
 * @events, @data: as the application gave them
 * @kevents, @kdata: as the kernel has them
 * @index, @gen: the mark
 * @marked: the kernel has our mark instead of @data
 * @ring: the connection's rings are watched
 * @bell: this item is the one of its connection in this set that the bell is registered for
 * @off: EPOLLONESHOT, reported
 * @parked: deleted by the application while its ring decided: the kernel's registration is kept for a
 *          while, because event loops delete and add the same connection for every message
 * @inherited: came by fork(): the kernel's registration is the parent's, too, so closing leaves it alone
 * @dead: closed by a signal handler in the middle of something; to be swept
 * @fresh: EPOLLET: added or modified, so that everything is due: ep_insert(), ep_modify()
 * @was_in: EPOLLET: readable when last looked at
 * @armed: ISM_WANT_*, counted among the sleepers of the connection; @gone: see stand_down()
 * @seen_word, @seen_blocked: EPOLLET: producer word and out_blocked of the last report
 * @idle: looks without result; @naps: sleeps without result
 * @round, @at: where in the current answer it is
 * @held: inner set: how many sleepers of this set it counts
 */
struct ism_ep_item {
	struct ism_ep *ep;
	struct conn *c;
	struct ism_ep *inner;
	int fd;
	uint32_t events, kevents;
	uint64_t data, kdata;
	uint32_t index, gen;
	uint8_t marked, ring, bell, off, parked, inherited, fresh, was_in, armed, gone, naps;
	_Atomic uint8_t dead;
	uint16_t idle;
	uint64_t seen_word;
	uint32_t seen_blocked;
	uint32_t round;
	int at;
	uint32_t held;
	struct ism_ep_item *next_fd, *next_of; /* same number; same connection or inner set: big */
	struct ep_link all, hot, twins; /* of the set; to look at; same connection in this set */
};

/**
 * struct ism_ep - an epoll instance of this process. Type-stable.
 * @fds: descriptors that refer to it
 * @users: calls in progress
 * @sleepers: calls that are, or may be, in the kernel's epoll_wait(), also by way of an outer set
 * @live: items that need more than the kernel's answer: marked ones and inner sets
 * @epfd: one of its descriptors
 * @marker: see EP_MARKER
 * @all, @hot, @nests: items; those to be looked at; inner sets
 * @on: items of outer sets that this one is in
 * @round: number of the current answer
 * @skipped, @looked: answers and time since the kernel was asked
 * @foreign: it had something; @turn: who comes first when there is room for one event only
 * @budget: for spinning
 * @rings: items whose rings are watched
 * @mute: the kernel took a bell not on (no watches are left): never trust a sleep for long
 */
struct ism_ep {
	_Atomic uint32_t fds;
	_Atomic uint32_t users;
	_Atomic uint32_t sleepers;
	_Atomic uint32_t live;
	struct ism_lock lock;
	int epfd;
	uint32_t marker, rings;
	uint8_t pooled, mute;
	struct ep_link all, hot, nests;
	struct ism_ep_item *on;
	uint32_t round, skipped, foreign, turn, budget;
	uint64_t looked;
	struct ism_ep *next_free, *next_all;
};

/* What tcp_poll() would say of the rings: its aliases, too. */
static inline uint32_t ep_conn_ready(struct conn *c)
{
	uint32_t r = conn_ready(c);

	return r | (r & POLLIN ? EPOLLRDNORM : 0) | (r & POLLOUT ? EPOLLWRNORM : 0);
}

/* epoll_set.c */

/** ep_get() - the instance behind a descriptor, NULL: not known; pair with ep_put() */
struct ism_ep *ep_get(int epfd);
void ep_put(struct ism_ep *ep);
/** ep_item_of() - what a mark names, NULL when that is gone. ep->lock held. */
struct ism_ep_item *ep_item_of(struct ism_ep *ep, uint64_t mark);
/** ep_kernel_set() - bring the kernel's registration in line with the item; 0 or -errno */
int ep_kernel_set(struct ism_ep_item *it);

/* epoll.c; ep->lock held where not said otherwise */

/** ep_hot() - look at it from now on */
void ep_hot(struct ism_ep_item *it);
/** ep_unarm() - it is not among the sleepers of its connection any more */
void ep_unarm(struct ism_ep_item *it);
/** ep_kick() - somebody may sleep in the set while @it became ready, or may: wake one */
void ep_kick(struct ism_ep_item *it);
/** ep_is_ready() - lock not held. Nonzero: what makes it ready, changes with it */
uint64_t ep_is_ready(struct ism_ep *ep, int depth);
/** ep_arm_all(), ep_disarm_all() - around a sleep on the set or on one around it; lock not held */
void ep_arm_all(struct ism_ep *ep, int depth);
void ep_disarm_all(struct ism_ep *ep, int depth);

/* epoll_hollow.c */

/**
 * epoll_is_hollow() - the kernel calls the set @epfd ready: is that nothing but bells that we know of? They are
 * taken then, so that the kernel sees it, too. No lock held.
 */
int epoll_is_hollow(struct ism_ep *ep, int epfd);

#endif
