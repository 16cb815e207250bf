// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Pairs whose partner is of another kernel; see far.h. */
#define _GNU_SOURCE
#include "far.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "daemon.h"
#include "dmbs.h"
#include "log.h"
#include "memfd_mem.h"
#include "remote.h"

/**
 * struct far - the partner
 * @map, @dmb: its DMB, once @is_attached; @dmb is the same for who only looks
 * @was_attached: @map was given away: what the partner has of us may be in use
 * @bell: eventfd by which our holders ring for the partner; @io: that they did
 * @at_relay: the partner is a relay, so our FIN may have to wait; @is_watched: the relay here knows the rings
 * @asked_us: when somebody last asked for the rings
 * @holder: process that has descriptors of @map
 * @want_off, @want_ring: what a holder from before a restart has of the partner's DMB; @want_ring 0: none
 */
struct far {
	struct remote *r;
	struct pair *pair;
	struct ism_dmb_map map;
	struct ism_dmb dmb;
	int is_attached, was_attached;
	int at_relay, is_watched;
	pid_t holder;
	int bell;
	sd_event_source *io;
	__u64 asked_us;
	__u64 want_off;
	__u32 want_ring;
};

static __u64 now_us(const struct far *f)
{
	uint64_t now = 0;

	sd_event_now(f->r->d->event, CLOCK_MONOTONIC, &now);
	return now;
}

/* ---------------------------------------------------------------- bells */

/* A holder rings. However often it did since the last look, the partner looks once. */
static int on_bell(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct far *f = arg;
	__u64 n;
	int rc = 0;

	(void)revents;
	if (read(fd, &n, sizeof(n)) == sizeof(n) && f->is_attached)
		rc = ism_fabric_ring(f->r->fabric, f->dmb.token);
	else if (errno != EAGAIN && errno != EINTR && !f->is_attached)
		sd_event_source_set_enabled(s, SD_EVENT_OFF);
	if (rc)
		log_client(LOG_INFO, "ringing for token %016llx: %s",
			   (unsigned long long)f->dmb.token, strerror(-rc));
	return 0;
}

static int open_bell(struct far *f, int fd)
{
	int rc = sd_event_add_io(f->r->d->event, &f->io, fd, EPOLLIN, on_bell, f);

	if (rc < 0)
		return rc;
	f->bell = fd;
	return 0;
}

/* ---------------------------------------------------------------- making and ending */

/* A pair with nothing of the partner's, whose own ring has @ring bytes; not in the table yet. */
static int new_pair(struct pairs *t, struct remote *r, struct holder *who, __u64 token, __u64 peer,
		    __u32 ring, struct pair **ret)
{
	struct far *f = calloc(1, sizeof(*f));
	int rc = f ? pair_new(t, who, token, peer, ism_dmb_len(ring), ret) : -ENOMEM;

	if (rc) {
		free(f);
		return rc;
	}
	f->r = r;
	f->pair = *ret;
	f->bell = -1;
	(*ret)->far = f;
	return 0;
}

/* See relay_hold.h. When a daemon begins its relay may not be at work yet: far_waits() tries again. */
static void watch(struct far *f)
{
	const struct pair_end *e = f->pair->end;

	if (f->at_relay && f->is_attached && !f->is_watched)
		f->is_watched = relay_hold_rings(f->r->d->relay, e->token, e->dmb, &f->dmb);
}

static void unwatch(struct far *f)
{
	if (f->is_watched && !f->r->d->is_ending)
		relay_hold_rings(f->r->d->relay, f->pair->end[0].token, NULL, NULL);
	f->is_watched = 0;
}

static void detach(struct far *f)
{
	if (!f->is_attached)
		return;
	unwatch(f);
	ism_fabric_detach_dmb(f->r->fabric, &f->map);
	f->is_attached = 0;
	f->pair->end[1].dmb = NULL;
}

/*
 * A daemon that ends withdraws nothing that programs have: they go on, and give it to the next one, which
 * finds it in the fabric.
 */
void far_free(struct pair *p)
{
	struct far *f = p->far;

	if (!f->was_attached || !f->r->d->is_ending) {
		detach(f);
		ism_fabric_unregister_dmb(f->r->fabric, p->end[0].dmb);
	}
	sd_event_source_disable_unref(f->io);
	if (f->bell >= 0)
		close(f->bell);
	free(f);
	p->far = NULL;
}

static struct ism_dmb_params own_params(const struct pair *p, __u32 ring_size)
{
	return (struct ism_dmb_params){ .token = p->end[0].token,
					.len = ism_dmb_len(ring_size),
					.partner_token = p->end[1].token,
					.exported = 1 };
}

/* With its own DMB, and waiting for the partner's. */
static int make_pair(struct pairs *t, struct remote *r, struct holder *who, __u64 token, __u64 peer,
		     struct pair **ret)
{
	struct ism_dmb_params params;
	struct pair *p;
	struct far *f;
	int rc = new_pair(t, r, who, token, peer, t->far_ring_size, &p), fd;

	if (rc)
		return rc;
	f = p->far;
	params = own_params(p, t->far_ring_size);
	rc = dmb_register(r->fabric, &params, &p->end[0].dmb);
	fd = rc ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!rc)
		rc = fd < 0 ? -errno : open_bell(f, fd);
	if (rc) {
		if (fd >= 0 && f->bell < 0)
			close(fd);
		far_free(p);
		free(p);
		return rc;
	}
	pair_link(t, p);
	*ret = p;
	return 0;
}

/* ---------------------------------------------------------------- the partner's DMB */

/* Is it what a daemon makes? */
static int check_far(const struct far *f)
{
	__u64 ring = f->dmb.len - ISM_DMB_RING_OFF; /* of a shorter one: far too much */

	return ism_is_ring_size(ring) ? dmb_check_static(&f->dmb, ring) : -EPERM;
}

static int export_far(struct far *f, struct ism_dmb_fds *ret)
{
	f->map.holder = f->holder;
	return ism_fabric_export_map(f->r->fabric, &f->map, ret);
}

/* A holder from before a restart goes on with what it had; anybody else begins with what nobody used. */
static int check_use(struct far *f)
{
	struct ism_dmb_fds peer;
	int rc;

	if (!f->want_ring)
		return dmb_was_used(&f->dmb) ? -EBUSY : 0;
	rc = export_far(f, &peer);
	if (rc)
		return rc;
	return f->dmb.len == ism_dmb_len(f->want_ring) && peer.off == f->want_off ? 0 : -ESTALE;
}

static int connect_far(struct far *f)
{
	__u64 peer = f->pair->end[1].token;
	int rc = ism_fabric_query_dmb(f->r->fabric, peer, NULL, NULL);

	if (!rc)
		rc = ism_fabric_attach_dmb(f->r->fabric, peer, &f->map);
	if (rc)
		return rc == -ENOENT ? -EAGAIN : rc == -EACCES ? -ENOENT : rc;
	f->dmb = (struct ism_dmb){ .token = peer, .len = f->map.len, .addr = f->map.addr };
	f->is_attached = 1;
	f->pair->end[1].dmb = &f->dmb;
	rc = check_far(f);
	if (!rc)
		rc = check_use(f);
	if (rc)
		detach(f);
	else
		watch(f);
	return rc;
}

int far_arrived(struct pairs *t, const struct remote *r, __u64 token, __u64 peer)
{
	struct pair_end *e = pairs_find(t, token);
	struct far *f = e ? e->pair->far : NULL;

	if (!f || f->r != r || e != &e->pair->end[0] || pair_partner(e)->token != peer)
		return 0;
	/* What is wrong with it, who asks next is told. */
	if (!f->is_attached)
		connect_far(f);
	return 1;
}

/* ---------------------------------------------------------------- attach */

static int is_end(const struct pair_end *e, const struct remote *r, __u64 peer)
{
	return e->pair->far && e->pair->far->r == r && e == &e->pair->end[0] &&
	       pair_partner(e)->token == peer;
}

/* Before the program can write anything into the ring. */
static int hold_fin(struct far *f, int sock)
{
	int rc = relay_hold(f->r->d->relay, sock, f->pair->end[0].token);

	f->at_relay = 1;
	f->is_watched = 0;
	if (!rc)
		watch(f);
	return rc;
}

int far_attach(struct pairs *t, struct remote *r, struct holder *who, __u64 token, __u64 peer,
	       __u64 share, int sock, struct pair_end **ret)
{
	struct pair_end *e = pairs_find(t, token);
	struct pair *p = e ? e->pair : NULL;
	int rc, holds = 0;

	if (e && !is_end(e, r, peer))
		return -ESTALE;
	rc = e ? pair_may_hold(e, who, share) : make_pair(t, r, who, token, peer, &p);
	if (rc == -EALREADY && !pair_was_given(e, who))
		holds = 1; /* asks again, and a relative may have been given it meanwhile */
	else if (rc)
		return rc;
	e = &p->end[0];
	rc = holds ? 0 : pair_hold(t, e, who, share);
	if (rc)
		return rc;
	p->far->holder = who->pid;
	p->far->asked_us = now_us(p->far);
	rc = p->far->is_attached ? 0 : connect_far(p->far);
	if (!rc && sock >= 0)
		rc = hold_fin(p->far, sock);
	if (rc && rc != -EAGAIN) {
		pairs_detach(t, who, token, 0);
		return rc;
	}
	if (!rc) {
		p->far->was_attached = 1;
		pair_is_given(e, who);
	}
	*ret = e;
	return rc;
}

int far_fds(const struct pair_end *e, int fds[ISM_FD_COUNT], __u64 off[2])
{
	struct far *f = e->pair->far;
	struct ism_dmb_fds own, peer;
	int rc = ism_fabric_export_dmb(f->r->fabric, e->dmb, &own);

	if (!rc)
		rc = export_far(f, &peer);
	if (rc)
		return rc;
	fds[ISM_FD_OWN_DMB] = own.read;
	fds[ISM_FD_PEER_DMB] = peer.write;
	fds[ISM_FD_OWN_BELL] = own.bell;
	fds[ISM_FD_PEER_BELL] = f->bell;
	off[0] = own.off;
	off[1] = peer.off;
	return 0;
}

/* ---------------------------------------------------------------- resume */

/* The holder's own DMB, and the bell that it goes on ringing. What is taken of @fds is set to -1. */
static int adopt(struct far *f, const struct ism_msg_resume *m, int *fds)
{
	struct ism_dmb_params params = own_params(f->pair, m->own_ring);
	struct ism_dmb_fds own = { fds[ISM_FD_OWN_DMB], -1, fds[ISM_FD_OWN_BELL], m->own_off };
	int rc;

	/* reading anything else might not return */
	rc = ism_check_eventfd(fds[ISM_FD_PEER_BELL]);
	if (!rc)
		rc = open_bell(f, fds[ISM_FD_PEER_BELL]);
	if (rc)
		return rc;
	fds[ISM_FD_PEER_BELL] = -1;
	rc = ism_fabric_adopt_dmb(f->r->fabric, &params, &own, &f->pair->end[0].dmb);
	if (rc)
		return rc;
	fds[ISM_FD_OWN_DMB] = fds[ISM_FD_OWN_BELL] = -1;
	return dmb_check_static(f->pair->end[0].dmb, m->own_ring);
}

static int adopt_pair(struct pairs *t, struct remote *r, struct holder *who,
		      const struct ism_msg_resume *m, int *fds, struct pair **ret)
{
	struct pair *p;
	struct far *f;
	int rc = new_pair(t, r, who, m->token, m->peer, m->own_ring, &p);

	if (rc)
		return rc;
	f = p->far;
	f->was_attached = 1;
	f->holder = who->pid;
	f->want_off = m->peer_off;
	f->want_ring = m->peer_ring;
	p->is_resumed = 1;
	rc = adopt(f, m, fds);
	if (!rc)
		rc = connect_far(f);
	if (rc && rc != -EAGAIN) {
		far_free(p);
		free(p);
		return rc;
	}
	pair_link(t, p);
	*ret = p;
	return 0;
}

/* Whoever shares the end has resumed before: its secret is known, and the places must be the same. */
static int compare(const struct pair_end *e, const struct ism_msg_resume *m)
{
	const struct far *f = e->pair->far;
	struct ism_dmb_fds own;
	int rc = ism_fabric_export_dmb(f->r->fabric, e->dmb, &own);

	if (rc)
		return rc;
	if (own.off != m->own_off || e->dmb->len != ism_dmb_len(m->own_ring))
		return -ESTALE;
	return f->want_ring && (f->want_off != m->peer_off || f->want_ring != m->peer_ring)
		       ? -ESTALE
		       : 0;
}

int far_resume(struct pairs *t, struct remote *r, struct holder *who,
	       const struct ism_msg_resume *m, int *fds, int sock)
{
	struct pair_end *e = pairs_find(t, m->token);
	struct pair *p;
	int rc;

	if (e) {
		rc = is_end(e, r, m->peer) ? pair_may_resume(e, who, m->peer, m->share) : -ESTALE;
		if (!rc)
			rc = compare(e, m);
	} else {
		rc = adopt_pair(t, r, who, m, fds, &p);
		e = rc ? NULL : &p->end[0];
	}
	rc = rc ? rc : pair_hold(t, e, who, m->share);
	/* Whoever has its rings keeps them: it was marked by an earlier daemon, unless that did not know of this. */
	if (!rc)
		pair_is_given(e, who);
	if (!rc && sock >= 0)
		hold_fin(e->pair->far, sock);
	return rc;
}

/* ---------------------------------------------------------------- staying and going */

int far_stays(const struct pair *p)
{
	return p->far->was_attached;
}

__u32 far_index(const struct pair *p)
{
	return p->far->r->index;
}

/* Does it still have a use? Asked of those that wait for something. */
static int is_over(const struct far *f, __u64 now, int (*is_gone)(void *arg, __u64 token),
		   void *arg)
{
	if (is_gone(arg, f->pair->end[0].token))
		return 1;
	return !f->was_attached && now - f->asked_us > FAR_PATIENCE_US;
}

/*
 * A program that was killed has not said that it reads no more. Another program hears of its end by TCP; a
 * relay with bytes in our ring does not, for what it then holds back are also the segments that its kernel
 * acknowledges our FIN with, and so both sockets would stay until TCP gives up. That nobody holds the pair is no
 * such end: whoever has a descriptor of the socket, from a process that is gone, may come for its rings later.
 */
static void close_unheld(struct far *f)
{
	const struct pair_end *e = f->pair->end;

	if (f->at_relay && f->is_attached && relay_hold_is_orphan(f->r->d->relay, e->token))
		dmb_say_closed(e->dmb, &f->dmb);
}

int far_waits(struct pairs *t, struct pair *p, __u64 now, int (*is_gone)(void *arg, __u64 token),
	      void *arg)
{
	struct far *f = p->far;

	if (p->end[0].holds && !f->is_attached && f->was_attached)
		connect_far(f);
	watch(f);
	if (p->end[0].holds && f->was_attached)
		return 0;
	if (is_over(f, now, is_gone, arg)) {
		pair_drop(t, p);
		return 0;
	}
	if (p->end[0].holds)
		return 0;
	close_unheld(f);
	return 1;
}
