// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sets in sets, and in poll() and select(): is one ready, or has only a bell rung in it?
 *
 * A bell may ring after its bytes were read: the reader was spinning, or the writer lost its CPU between the two.
 * The set that it is registered in sorts that out when it is waited for (epoll.c, bell_rang()). But for whoever
 * looks at that set from outside the kernel calls it ready, and it stays so until somebody waits for it. A
 * program that then does, without a timeout, would sleep.
 */
#include "epoll.h"

/* So many bells are looked at; with more the kernel is believed. */
#define MOST 64

struct bells {
	struct conn *c[MOST]; /* held */
	struct pollfd p[MOST];
	int n;
};

/* Those of a set, and of all in it. */
static void list(struct ism_ep *ep, struct bells *b, int depth)
{
	if (depth >= EP_DEPTH || ism_lock_take(&ep->lock))
		return;
	for (struct ep_link *l = ep->all.next; l != &ep->all && b->n < MOST; l = l->next) {
		struct ism_ep_item *it = ep_of(l, all);

		if (it->inner) {
			list(it->inner, b, depth + 1);
		} else if (it->bell && !atomic_load(&it->dead)) {
			atomic_fetch_add(&it->c->users, 1);
			b->c[b->n] = it->c;
			b->p[b->n++] = (struct pollfd){ .fd = it->c->own_bell, .events = POLLIN };
		}
	}
	ism_lock_drop(&ep->lock);
}

static void take(struct bells *b)
{
	if (b->n)
		real.poll(b->p, b->n, 0);
	for (int i = 0; i < b->n; i++) {
		if (b->p[i].revents && conn_take_bell(b->c[i]))
			conn_pass_bell(b->c[i]);
		conn_done_slow(b->c[i]);
	}
}

int epoll_is_hollow(struct ism_ep *ep, int epfd)
{
	struct pollfd p = { .fd = epfd, .events = POLLIN };
	struct bells b;
	int saved = errno, r;

	b.n = 0;
	if (epfd < 0 || ep_is_ready(ep, 0))
		return 0;
	list(ep, &b, 0);
	take(&b);
	r = b.n && real.poll(&p, 1, 0) == 0;
	errno = saved;
	return r;
}
