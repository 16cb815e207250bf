// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Events of a region: bells, mails, DMBs that appear; and the timer by which a peer without interrupts
 * looks after them, and every peer shows that it is alive.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "region_priv.h"

/* ---------------------------------------------------------------- descriptors */

static int watch(struct region *r, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	return fd < 0 || epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static void set_timer(struct region *r, __u64 us)
{
	struct itimerspec t = { .it_value = { us / 1000000, us % 1000000 * 1000 } };

	timerfd_settime(r->timer_fd, 0, &t, NULL);
}

static struct sockaddr_in6 address(const __u64 addr[2], __u64 port)
{
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	region_bytes(&to.sin6_addr, addr);
	return to;
}

/* Everybody has one to send; who has a bell receives there, too. */
static int open_udp(struct region *r, struct ism_err *err)
{
	struct sockaddr_in6 at = address(r->udp_addr, r->udp_port);
	int off = 0;

	r->udp_fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (r->udp_fd < 0)
		return r->udp_port ? ism_err_set(err, -errno, "bell: no UDP socket") : 0;
	setsockopt(r->udp_fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (!r->udp_port)
		return 0;
	if (bind(r->udp_fd, (struct sockaddr *)&at, sizeof(at)))
		return ism_err_set(err, -errno, "bell: its UDP address cannot be bound: %s",
				   strerror(errno));
	return watch(r, r->udp_fd);
}

int region_open_events(struct region *r, struct ism_err *err)
{
	int rc;

	r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	r->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	r->more_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->epoll_fd < 0 || r->timer_fd < 0 || r->more_fd < 0)
		return -errno;
	rc = watch(r, r->timer_fd);
	if (!rc)
		rc = watch(r, r->more_fd);
	if (!rc && r->dev.bell_fd >= 0)
		rc = watch(r, r->dev.bell_fd);
	if (!rc)
		rc = open_udp(r, err);
	r->has_bell = r->dev.bell_fd >= 0 || r->udp_port;
	r->pause_us = REGION_TICK_MS * 1000;
	set_timer(r, r->pause_us);
	return rc;
}

void region_close_events(struct region *r)
{
	const int fds[] = { r->epoll_fd, r->timer_fd, r->more_fd, r->udp_fd };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

int region_event_fd(struct ism_fabric *f)
{
	return region_of(f)->epoll_fd;
}

void region_more(struct region *r)
{
	r->is_rung = 1;
	fabric_ring_fd(r->more_fd);
}

void region_wake(struct region *r)
{
	if (r->has_bell || r->pause_us <= r->poll_us)
		return;
	r->pause_us = r->poll_us;
	set_timer(r, r->pause_us);
}

void region_knock(struct region *r, unsigned int peer)
{
	const struct region_peer_copy *p = &r->view[peer].id;
	struct sockaddr_in6 to;
	ssize_t n;

	if (p->bell == ISM_BELL_DEVICE && p->number && r->dev.ops->ring)
		r->dev.ops->ring(&r->dev, p->number - 1);
	if (p->bell != ISM_BELL_UDP || !p->port || p->port > 65535 || r->udp_fd < 0)
		return;
	to = address(p->addr, p->port);
	n = sendto(r->udp_fd, "", 1, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to));
	(void)n; /* a lost one costs the peer one slow look */
}

/* Before looking: what comes meanwhile makes it readable again. */
static void drain(struct region *r)
{
	char buf[64];
	__u64 n;
	ssize_t rc = read(r->timer_fd, &n, sizeof(n));

	rc += read(r->more_fd, &n, sizeof(n));
	if (r->dev.ops->drain)
		r->dev.ops->drain(&r->dev);
	else if (r->dev.bell_fd >= 0)
		rc += read(r->dev.bell_fd, &n, sizeof(n));
	for (int i = 0; r->udp_port && i < 64 && recv(r->udp_fd, buf, sizeof(buf), 0) >= 0; i++)
		;
	(void)rc;
}

/* ---------------------------------------------------------------- bells */

int region_hear(struct region_own *o, __u64 value)
{
	if (o->is_orphan)
		return 0;
	if (o->bell_fd < 0)
		return 1;
	o->bell = value;
	fabric_ring_fd(o->bell_fd);
	return 0;
}

/* Who rings stores the bell first. */
static void look_for_rings(struct region *r)
{

	for (unsigned int i = 0; i < r->l.peers; i++) {
		struct ism_region_link *l = region_link(&r->mem, &r->l, i, r->me);
		__u64 rings;

		if (i == r->me || ISM_PEER_WHAT(r->view[i].id.state) != ISM_PEER_LIVE)
			continue;
		region_expect(&r->mem, &l->rings, sizeof(l->rings));
		rings = region_load(&l->rings);
		r->is_rung |= rings != r->view[i].rings;
		r->view[i].rings = rings;
	}
}

/* All own bells that have another value; exported ones are passed on and are no events. */
static unsigned int take_bells(struct region *r, struct ism_event *ret, unsigned int n)
{
	unsigned int done = 0;
	__u64 i;

	for (i = 0; i < r->own_high && done < n; i++) {
		struct region_own *o = r->own[i];
		struct ism_region_bell *b = region_bell(&r->mem, &r->l, r->me, i);
		__u64 value;

		if (!o || o->is_orphan)
			continue;
		region_expect(&r->mem, b, sizeof(*b));
		value = region_load(&b->value);
		if (value == o->bell || !region_hear(o, value))
			continue;
		o->bell = value;
		ret[done++] =
			(struct ism_event){ .type = ISM_EVENT_DOORBELL, .token = o->base.token };
	}
	r->is_rung = i < r->own_high;
	return done;
}

/* ---------------------------------------------------------------- mails */

int region_signal_event(struct ism_fabric *f, const struct ism_gid *gid, __u32 code, __u64 info)
{
	struct region *r = region_of(f);
	struct ism_region_link *l;
	struct ism_region_mail *m;
	unsigned int to;
	__u64 head, tail;

	if (region_find_peer(r, gid, &to))
		return region_refuse(r, -EHOSTUNREACH);
	f->counters.signals++;
	l = region_link(&r->mem, &r->l, r->me, to);
	region_expect(&r->mem, region_tail(&r->mem, &r->l, to, r->me), sizeof(__le64));
	tail = region_load(region_tail(&r->mem, &r->l, to, r->me));
	head = region_load(&l->head);
	if (head - tail >= ISM_REGION_MAILS) {
		region_set(r, &l->lost, region_load(&l->lost) + 1);
		region_knock(r, to);
		return -ENOBUFS;
	}
	m = region_mail(&r->mem, &r->l, r->me, to, head);
	region_store(&r->mem, &m->code, code);
	region_store(&r->mem, &m->info, info);
	region_publish(&r->mem, m, sizeof(*m));
	region_set(r, &l->head, head + 1);
	if (to == r->me)
		region_more(r);
	else
		region_knock(r, to);
	return 0;
}

static struct ism_event take_mail(struct region *r, unsigned int from)
{
	struct region_view *v = &r->view[from];
	struct ism_region_mail *m = region_mail(&r->mem, &r->l, from, r->me, v->tail);
	struct ism_event e = { .type = ISM_EVENT_CODE };

	region_expect(&r->mem, m, sizeof(*m));
	e.code = region_load(&m->code);
	e.info = region_load(&m->info);
	e.gid = region_gid(v->id.gid);
	return e;
}

static unsigned int take_mails_of(struct region *r, unsigned int from, struct ism_event *ret,
				  unsigned int n)
{
	struct ism_region_link *l = region_link(&r->mem, &r->l, from, r->me);
	struct region_view *v = &r->view[from];
	__u64 head, lost, was = v->tail;
	unsigned int done = 0;

	region_expect(&r->mem, l, sizeof(*l));
	lost = region_load(&l->lost);
	head = region_load(&l->head);
	if (head - v->tail > ISM_REGION_MAILS) { /* it does not keep to the rules */
		v->tail = head;
		lost = v->lost + 1;
	}
	for (; done < n && v->tail != head; v->tail++)
		ret[done++] = take_mail(r, from);
	if (v->tail != was)
		region_set(r, region_tail(&r->mem, &r->l, r->me, from), v->tail);
	if (lost != v->lost && v->tail == head && done < n) {
		ret[done++] = (struct ism_event){ .type = ISM_EVENT_LOST };
		v->lost = lost;
	}
	return done;
}

static unsigned int take_mails(struct region *r, struct ism_event *ret, unsigned int n)
{
	unsigned int done = 0;

	for (unsigned int i = 0; i < r->l.peers && done < n; i++)
		if (ISM_PEER_WHAT(r->view[i].id.state) == ISM_PEER_LIVE)
			done += take_mails_of(r, i, ret + done, n - done);
	return done;
}

/* ---------------------------------------------------------------- DMBs that appear */

static unsigned int take_news_of(struct region *r, unsigned int peer, struct ism_event *ret,
				 unsigned int n)
{
	struct region_view *v = &r->view[peer];
	unsigned int done = 0;
	__u64 i;

	for (i = 0; i < v->n_known && done < n; i++) {
		struct region_known *k = &v->known[i];

		if (!k->state || k->announced == k->state || !k->partner_token)
			continue;
		k->announced = k->state;
		ret[done++] = (struct ism_event){ .type = ISM_EVENT_DMB,
						  .token = k->partner_token,
						  .info = k->token,
						  .gid = region_gid(v->id.gid) };
	}
	v->has_news = i < v->n_known;
	return done;
}

static unsigned int take_news(struct region *r, struct ism_event *ret, unsigned int n)
{
	unsigned int done = 0;

	for (unsigned int i = 0; i < r->l.peers && done < n; i++)
		if (r->view[i].has_news)
			done += take_news_of(r, i, ret + done, n - done);
	return done;
}

/* ---------------------------------------------------------------- the loop */

static void tick(struct region *r)
{
	__u64 now = region_now_ms();

	if (now < r->tick_ms)
		return;
	r->tick_ms = now + REGION_TICK_MS;
	r->is_rung = 1; /* to be sure */
	region_beat(r);
	region_drop_stale(r, 1);
	region_release_held(r);
	if (r->n_orphans && now >= r->orphans_ms)
		region_drop_orphans(r);
}

/* Soon while something comes, then at growing pauses; where somebody rings, only to be sure. */
static void wind_up(struct region *r, int was_busy)
{
	const __u64 slow = REGION_TICK_MS * 1000;

	if (r->has_bell || !r->base.counters.dmbs)
		r->pause_us = slow;
	else if (was_busy)
		r->pause_us = r->poll_us;
	else
		r->pause_us = 2 * r->pause_us < REGION_MAX_POLL ? 2 * r->pause_us : REGION_MAX_POLL;
	if (r->pause_us < r->poll_us)
		r->pause_us = r->poll_us;
	set_timer(r, r->pause_us < slow ? r->pause_us : slow);
}

int region_read_events(struct ism_fabric *f, struct ism_event *ret, unsigned int n)
{
	struct region *r = region_of(f);
	unsigned int done;
	int rung;

	drain(r);
	region_sync(r);
	tick(r);
	if (r->has_changed) { /* owners wait for the memory of what they unregistered */
		r->has_changed = 0;
		region_drop_stale(r, 0);
	}
	look_for_rings(r);
	rung = r->is_rung;
	done = take_mails(r, ret, n);
	done += take_news(r, ret + done, n - done);
	if (r->is_rung)
		done += take_bells(r, ret + done, n - done);
	if (done == n)
		region_more(r); /* there may be more */
	wind_up(r, rung || done);
	return done;
}
