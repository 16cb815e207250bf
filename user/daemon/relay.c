// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The relay's thread: which ends there are, and their sockets, by io_uring. One recv() is always under
 * way for each end, straight into the partner's ring, so that a message costs one system call, and many
 * connections as well. What is to be done for an end is decided in relay_end.c.
 */
#define _GNU_SOURCE
#include "relay.h"
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <ismredir/option.h>
#include "clock.h"
#include "dmbs.h"
#include "log.h"
#include "reasons.h"
#include "relay_crowd.h"
#include "relay_dummy.h"
#include "relay_end.h"
#include "relay_guard.h"
#include "relay_hold.h"
#include "relay_maps.h"

#define ENTRIES	    1024
#define BUCKETS	    1024
#define EVENTS	    32
#define RING_MAX    (1u << 20)
#define WINDOW	    (2u << 20)
#define BOUND	    (4u << 20)
#define TICK_NS	    100000000ULL
#define LOOK_NS	    1000000ULL
#define WAIT_NS	    250000ULL
#define PATIENCE_NS 10000000000ULL /* for the partner's DMB */
#define STUCK_NS    1000000000ULL
#define DRAIN_NS    2000000000ULL /* at the end of the daemon */
#define SPIN_MISSES 6
#define SPIN_YIELD  4 /* rounds in which nothing was found */
#define YIELD_NS    5000ULL /* a yield that takes longer has let somebody run */

/* In the low bits of user_data; the rest is the end, or a number. */
enum what { W_RECV = 1, W_SEND, W_CANCEL, W_FABRIC, W_ASKS, W_WAKE };

struct relay {
	struct relay_config cfg;
	struct relay_guard guard;
	struct relay_maps maps;
	struct relay_holds holds;
	int loaded;
	pthread_t thread;
	int running;
	pthread_mutex_t lock;
	atomic_int wanted; /* others wait for the lock */
	atomic_int stop;
	int wake;
	struct io_uring uring;
	struct relay_end *bucket[BUCKETS];
	struct relay_end *all;
	struct relay_end *active;
	struct relay_end *slot[ISM_MAX_RELAYS];
	unsigned int high; /* no slot above is used */
	__u64 now, tick_ns, look_ns, load_ns, stop_ns;
	unsigned int misses, naps;
	struct relay_crowd crowd;
	int drain;
	int stays; /* the guard does */
	struct relay_stats st;
};

/* ---------------------------------------------------------------- the table */

static struct relay_end **bucket_of(struct relay *r, __u64 token)
{
	return &r->bucket[token % BUCKETS];
}

static struct relay_end *find(struct relay *r, __u64 token)
{
	struct relay_end *e = *bucket_of(r, token);

	while (e && e->token != token)
		e = e->next;
	return e;
}

/* One that waits for its partner may be rung, too; it has no slot to look at yet. */
static void activate(struct relay *r, struct relay_end *e)
{
	if (e->active || !e->s)
		return;
	e->active = 1;
	e->next_active = r->active;
	r->active = e;
}

static void link_end(struct relay *r, struct relay_end *e)
{
	struct relay_end **b = bucket_of(r, e->token);

	e->next = *b;
	*b = e;
	e->next_all = r->all;
	r->all = e;
	r->slot[e->slot] = e;
	if (e->slot >= r->high)
		r->high = e->slot + 1;
	r->st.ends++;
}

static void unlink_end(struct relay *r, struct relay_end *e)
{
	struct relay_end **at = bucket_of(r, e->token);

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	for (at = &r->all; *at != e;)
		at = &(*at)->next_all;
	*at = e->next_all;
	for (at = &r->active; *at && *at != e;)
		at = &(*at)->next_active;
	if (*at)
		*at = e->next_active;
	r->slot[e->slot] = NULL;
	while (r->high && !r->slot[r->high - 1])
		r->high--;
	r->st.ends--;
}

/* One with a token that is not ours is of a direct end, or holds back what relay_maps_give_up() could not reset. */
static int free_slot(const struct relay *r)
{
	for (int i = 0; i < ISM_MAX_RELAYS; i++)
		if (!r->slot[i] && !r->maps.slots[i].token)
			return i;
	return -ENOSPC;
}

/* ---------------------------------------------------------------- io_uring */

static struct io_uring_sqe *get_sqe(struct relay *r)
{
	struct io_uring_sqe *q = io_uring_get_sqe(&r->uring);

	if (!q) {
		io_uring_submit(&r->uring);
		q = io_uring_get_sqe(&r->uring);
	}
	return q;
}

static void set_data(struct io_uring_sqe *q, const void *p, enum what w)
{
	io_uring_sqe_set_data64(q, (__u64)(uintptr_t)p | w);
}

static void poll_fd(struct relay *r, int fd, enum what w, unsigned int i)
{
	struct io_uring_sqe *q = get_sqe(r);

	if (!q)
		return;
	io_uring_prep_poll_multishot(q, fd, POLLIN);
	set_data(q, (void *)(uintptr_t)(i << 3), w);
}

/* Its next recv() and send(), if there is anything for them. */
static int submit_end(struct relay *r, struct relay_end *e)
{
	struct io_uring_sqe *q;
	size_t len;
	void *to;

	len = relay_end_want_recv(e, &to);
	q = len ? get_sqe(r) : NULL;
	if (q) {
		io_uring_prep_recv(q, e->dummy, to, len, 0);
		set_data(q, e, W_RECV);
		e->receiving = 1;
	}
	len = relay_end_want_send(e, r->now);
	q = len ? get_sqe(r) : NULL;
	if (!q)
		return 0;
	io_uring_prep_sendmsg(q, e->dummy, &e->msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	set_data(q, e, W_SEND);
	e->sending = 1;
	return 1;
}

static void cancel_recv(struct relay *r, struct relay_end *e)
{
	struct io_uring_sqe *q = get_sqe(r);

	if (!q)
		return;
	io_uring_prep_cancel64(q, (__u64)(uintptr_t)e | W_RECV, 0);
	set_data(q, e, W_CANCEL);
	e->cancelling = 1;
}

/* ---------------------------------------------------------------- life of an end */

static struct ism_fabric *fabric_of(const struct relay *r, const struct relay_end *e)
{
	return r->cfg.fabrics[e->fabric];
}

/* What does not have to wait for anything any more goes; the record is told by @relay. */
static void free_end(struct relay *r, struct relay_end *e, __u32 relay)
{
	struct ism_fabric *f = fabric_of(r, e);

	unlink_end(r, e);
	r->st.doorbells += e->ring.bells;
	r->guard.peers[e->slot] = NULL;
	if (e->s) {
		relay_end_farewell(e);
		__atomic_store_n(&e->s->token, 0, __ATOMIC_RELEASE);
		e->s->state = ISM_RELAY_FREE;
	}
	if (r->loaded && e->s && relay_end_stays_on_tcp(e))
		relay_maps_leave(&r->maps, e->token);
	else if (r->loaded)
		relay_maps_bind(&r->maps, e->token, relay);
	if (e->dummy >= 0)
		close(e->dummy);
	relay_ring_close(&e->ring);
	if (e->ring.map.priv || e->ring.map.addr)
		ism_fabric_detach_dmb(f, &e->ring.map);
	ism_fabric_unregister_dmb(f, e->dmb);
	free(e);
}

static int find_fabric(const struct relay *r, __u32 tag, unsigned int *ret)
{
	for (unsigned int i = 0; i < r->cfg.n_fabrics; i++)
		if (r->cfg.tags[i] == tag) {
			*ret = i;
			return 0;
		}
	return -ENOENT;
}

/* Is this end the relay's at all? */
static int is_ours(const struct ism_conn *c)
{
	const __u32 not_now = ISM_CONN_PINNED | ISM_CONN_LEAVING | ISM_CONN_LEFT;

	return c->flags & ISM_CONN_REMOTE && c->flags & ISM_CONN_ENROLLED &&
	       !(c->flags & not_now) && c->caps & ISM_CAP_RELAY && !(c->caps & ISM_CAP_DIRECT);
}

static int make_dmb(struct relay *r, struct relay_end *e)
{
	struct ism_fabric *f = fabric_of(r, e);
	__u32 ring = r->cfg.ring_size < RING_MAX ? r->cfg.ring_size : RING_MAX;
	struct ism_dmb_params p = { .token = e->token,
				    .len = ism_dmb_len(ring),
				    .vlan = ISM_VLAN_NONE,
				    .partner_token = e->peer };

	return dmb_register(f, &p, &e->dmb);
}

static void set_slot(struct relay *r, struct relay_end *e, __u64 key)
{
	struct ism_relay *s = &r->maps.slots[e->slot];

	memset(s, 0, sizeof(*s));
	s->dummy = key;
	s->window = WINDOW;
	s->bound = BOUND;
	s->state = ISM_RELAY_CLOSED;
	__atomic_store_n(&s->token, e->token, __ATOMIC_RELEASE);
	e->s = s;
}

/* The partner's DMB is there: socket and slot. */
static int open_end(struct relay *r, struct relay_end *e, const struct ism_dmb_map *map)
{
	__u64 key = e->token ^ 0x5265ab6c79ULL << 24;
	int rc = relay_ring_open(&e->ring, fabric_of(r, e), e->dmb, map);

	e->ring.map = *map;
	if (rc)
		return rc;
	e->dummy = relay_dummy_new(r->maps.socks, r->maps.sk_relay, key, e->token, e->slot);
	if (e->dummy < 0)
		return e->dummy;
	set_slot(r, e, key);
	rc = relay_maps_bind(&r->maps, e->token, e->slot + 1);
	if (rc)
		return rc;
	r->guard.peers[e->slot] = map->addr;
	relay_end_open(e);
	activate(r, e);
	return 0;
}

static void refuse(struct relay *r, struct relay_end *e, int rc)
{
	log_client(LOG_INFO, "relay: a connection stays on TCP: %s",
		   rc < 0 ? strerror(-rc) : ism_reason_name(rc));
	r->st.refused++;
	free_end(r, e, ISM_RELAY_ASKED);
}

/* The partner's DMB: mapped, or where that cannot be its length, for move_data. */
static int reach_peer(struct ism_fabric *f, __u64 peer, struct ism_dmb_map *ret)
{
	if (f->info.caps & ISM_FABRIC_ATTACH)
		return ism_fabric_attach_dmb(f, peer, ret);
	ret->token = peer;
	return ism_fabric_query_dmb(f, peer, NULL, &ret->len);
}

static void try_attach(struct relay *r, struct relay_end *e)
{
	struct ism_dmb_map map = {};
	int rc = reach_peer(fabric_of(r, e), e->peer, &map);

	if (rc == -ENOENT || rc == -EAGAIN) {
		if (r->now - e->used_ns > PATIENCE_NS)
			refuse(r, e, -ETIMEDOUT);
		return;
	}
	if (!rc)
		rc = open_end(r, e, &map);
	if (rc)
		refuse(r, e, rc);
}

static void want_end(struct relay *r, __u64 token)
{
	struct ism_conn c;
	struct relay_end *e;
	int slot, rc;

	if (!r->loaded || r->drain || find(r, token) || relay_maps_conn(&r->maps, token, &c) ||
	    !is_ours(&c))
		return;
	slot = free_slot(r);
	e = slot < 0 ? NULL : calloc(1, sizeof(*e));
	if (!e) {
		r->st.refused++;
		return;
	}
	e->token = token;
	e->peer = c.peer;
	e->conn = c;
	e->slot = slot;
	e->dummy = -1;
	e->used_ns = r->now;
	rc = find_fabric(r, c.fabric, &e->fabric);
	if (!rc)
		rc = make_dmb(r, e);
	if (rc) {
		log_client(LOG_WARNING, "relay: %s", strerror(-rc));
		r->st.refused++;
		free(e);
		return;
	}
	link_end(r, e);
	r->st.total++;
	try_attach(r, e);
}

static int on_ask(void *arg, void *data, size_t len)
{
	const struct ism_relay_ask *a = data;
	struct relay *r = arg;

	if (len >= sizeof(*a) && !relay_holds_wake(&r->holds, a->token))
		want_end(r, a->token);
	return 0;
}

/* ---------------------------------------------------------------- ends of ends */

/* Until it is gone nothing of it may leave by TCP, so its slot stays. */
static void step_broken(struct relay *r, struct relay_end *e)
{
	if (!e->reset || r->now - e->reset_ns > STUCK_NS) {
		if (!e->reset++) {
			log_client(LOG_WARNING, "relay: a connection is reset: %s", e->why);
			r->st.broken++;
		}
		e->reset_ns = r->now;
		relay_guard_reset(&r->guard, &e->conn);
	}
	e->s->look = 1;
}

static void step_end_of_life(struct relay *r, struct relay_end *e)
{
	if (e->state == END_BROKEN) {
		step_broken(r, e);
		if (e->s->sk_state)
			return;
	}
	if (e->receiving && !e->cancelling)
		cancel_recv(r, e);
	if (e->receiving || e->sending || e->cancelling)
		return;
	if (e->state == END_DONE && e->s->sk_state)
		r->st.drained++;
	free_end(r, e, 0);
}

/* Returns 1 when there was something to do. */
static int work(struct relay *r, struct relay_end *e)
{
	int did = relay_end_step(e, r->now);

	if (e->kick) {
		e->kick = 0;
		relay_guard_kick(&r->guard, &e->conn);
	}
	if (e->state == END_BROKEN || e->state == END_DONE) {
		step_end_of_life(r, e);
		return did;
	}
	e->was_used |= did;
	return did | submit_end(r, e);
}

/* ---------------------------------------------------------------- what comes */

static void on_fabric(struct relay *r, unsigned int i)
{
	struct ism_fabric *f = r->cfg.fabrics[i];
	struct ism_event ev[EVENTS];
	struct relay_end *e;
	int n;

	while ((n = ism_fabric_read_events(f, ev, EVENTS)) > 0)
		for (int k = 0; k < n; k++) {
			e = find(r, ev[k].token);
			if (ev[k].type == ISM_EVENT_DOORBELL && e) {
				relay_ring_awake(&e->ring);
				activate(r, e);
				continue;
			}
			if (ev[k].type == ISM_EVENT_DMB && e && e->state == END_WAITING)
				try_attach(r, e);
			else if (ev[k].type == ISM_EVENT_DMB && !e)
				want_end(r, ev[k].token);
			else if (ev[k].type == ISM_EVENT_LOST)
				for (e = r->all; e; e = e->next_all)
					activate(r, e);
			if (r->cfg.on_event)
				r->cfg.on_event(r->cfg.arg, f, &ev[k]);
		}
}

static void on_cqe(struct relay *r, const struct io_uring_cqe *c)
{
	enum what w = c->user_data & 7;
	struct relay_end *e = (void *)(uintptr_t)(c->user_data & ~7ULL);
	unsigned int i = c->user_data >> 3;
	__u64 n;

	switch (w) {
	case W_RECV:
		if (c->res > 0)
			r->st.tx_bytes += c->res;
		relay_end_received(e, c->res, r->now);
		activate(r, e);
		return;
	case W_SEND:
		if (c->res > 0)
			r->st.rx_bytes += c->res;
		relay_end_sent(e, c->res, r->now);
		activate(r, e);
		return;
	case W_CANCEL:
		e->cancelling = 0;
		activate(r, e);
		return;
	case W_FABRIC:
		if (!(c->flags & IORING_CQE_F_MORE))
			poll_fd(r, ism_fabric_event_fd(r->cfg.fabrics[i]), W_FABRIC, i);
		on_fabric(r, i);
		return;
	case W_ASKS:
		/* one that ends belongs to an earlier load, or has to be asked for again */
		if (!(c->flags & IORING_CQE_F_MORE) && r->loaded)
			poll_fd(r, relay_maps_asks_fd(&r->maps), W_ASKS, 0);
		if (r->loaded)
			relay_maps_asks(&r->maps);
		return;
	case W_WAKE:
		if (!(c->flags & IORING_CQE_F_MORE))
			poll_fd(r, r->wake, W_WAKE, 0);
		if (read(r->wake, &n, sizeof(n)) < 0)
			return;
	}
}

static int harvest(struct relay *r)
{
	struct io_uring_cqe *c;
	unsigned int head, n = 0;

	if (*r->uring.sq.kflags & IORING_SQ_TASKRUN)
		io_uring_get_events(&r->uring);
	io_uring_for_each_cqe(&r->uring, head, c)
	{
		on_cqe(r, c);
		n++;
	}
	io_uring_cq_advance(&r->uring, n);
	return n;
}

/* ---------------------------------------------------------------- now and then */

static void reset_by_guard(const struct ism_conn *c, void *arg)
{
	relay_guard_reset(arg, c);
}

static void drop_load(struct relay *r)
{
	for (struct relay_end *e = r->all, *next; e; e = next) {
		next = e->next_all;
		if (e->state == END_WAITING)
			free_end(r, e, 0);
		else if (e->state != END_DONE)
			relay_end_break(e, "what it worked with was unloaded");
	}
	if (r->all)
		return;
	relay_maps_close(&r->maps);
	r->loaded = 0;
	r->holds.high = 0;
	relay_guard_load(&r->guard);
}

static void take_load(struct relay *r)
{
	struct ism_err err = {};
	int rc = relay_maps_open(&r->maps, on_ask, r, &err);

	if (!rc) {
		relay_maps_give_up(&r->maps, reset_by_guard, &r->guard);
		relay_maps_forget_asks(&r->maps);
		rc = relay_maps_guard_cgroups(&r->maps, &err);
		if (rc)
			relay_maps_close(&r->maps);
	}
	if (rc && rc != -ENOENT && rc != -EPROTO)
		log_client(LOG_WARNING, "relay: %s", err.text[0] ? err.text : strerror(-rc));
	if (rc)
		return;
	r->loaded = 1;
	relay_holds_open(&r->holds, &r->maps, &r->guard);
	relay_guard_load(&r->guard);
	poll_fd(r, relay_maps_asks_fd(&r->maps), W_ASKS, 0);
	log_line(LOG_INFO, "relay: at work");
}

static void check_load(struct relay *r)
{
	if (r->now - r->load_ns < 5 * TICK_NS)
		return;
	r->load_ns = r->now;
	if (r->loaded && !relay_maps_is_current(&r->maps))
		drop_load(r);
	if (!r->loaded && !r->drain)
		take_load(r);
	else if (r->loaded)
		relay_maps_guard_cgroups(&r->maps, NULL);
}

/* What the fabric knows of a partner that is not heard of. */
static void check_peer(struct relay *r, struct relay_end *e)
{
	if (r->now - e->used_ns > STUCK_NS && !e->peer_gone &&
	    ism_fabric_query_dmb(fabric_of(r, e), e->peer, NULL, NULL) == -ENOENT)
		e->peer_gone = 1;
}

static int is_small(const struct relay_end *e)
{
	return relay_crowd_is_small(e->ring.sent + e->ring.got, e->ring.puts + e->ring.gets);
}

/* What a relay with too much to do had better not have: ends with many small messages, which TCP puts together. */
static void thin_out(struct relay *r)
{
	unsigned int used = 0;
	__u64 idle, total;
	int crowded;

	for (const struct relay_end *e = r->all; e; e = e->next_all)
		used += e->was_used && is_small(e);
	if (relay_crowd_wants_cpus(&r->crowd, r->now, used) &&
	    !relay_crowd_read_cpus(&idle, &total))
		relay_crowd_cpus(&r->crowd, r->now, idle, total);
	crowded = relay_crowd_look(&r->crowd, r->now, used);
	for (struct relay_end *e = r->all; e; e = e->next_all)
		if (e->s)
			__atomic_store_n(&e->s->crowded, crowded && is_small(e), __ATOMIC_RELAXED);
}

static void tick_end(struct relay *r, struct relay_end *e)
{
	if (e->state == END_WAITING) {
		if (r->drain)
			free_end(r, e, 0);
		else
			try_attach(r, e);
		return;
	}
	if (r->drain)
		relay_end_drain(e, r->now);
	check_peer(r, e);
	e->s->look = 1;
	if (e->was_used) {
		e->was_used = 0;
		relay_ring_show_stats(&e->ring);
	}
	activate(r, e);
}

static int tick(struct relay *r)
{
	if (r->now < r->tick_ns)
		return 0;
	r->tick_ns = r->now + TICK_NS;
	r->drain = r->stop || (r->loaded && relay_maps_word(&r->maps) != ISM_WORD_ON);
	check_load(r);
	thin_out(r);
	for (struct relay_end *e = r->all, *next; e; e = next) {
		next = e->next_all;
		tick_end(r, e);
	}
	if (r->high)
		relay_maps_look(&r->maps, r->high);
	r->st.waiting = 0;
	for (struct relay_end *e = r->all; e; e = e->next_all)
		r->st.waiting += e->state == END_WAITING;
	return r->active != NULL;
}

/* Ends whose readers change something without anybody sending. */
static int look(struct relay *r)
{
	int any = 0;

	if (r->now < r->look_ns)
		return 0;
	r->look_ns = r->now + LOOK_NS;
	for (struct relay_end *e = r->active; e; e = e->next_active)
		if (e->s && (e->look || e->refused_ns)) {
			e->s->look = 1;
			any = 1;
		}
	if (any)
		relay_maps_look(&r->maps, r->high);
	return any;
}

/* ---------------------------------------------------------------- the loop */

static int work_all(struct relay *r)
{
	int did = 0;

	for (struct relay_end *e = r->active, *next; e; e = next) {
		next = e->next_active;
		if (e->s)
			did |= work(r, e);
	}
	return did;
}

/* The partner does not ring for what it has taken; the verdict and egress want to know of it soon. */
static int waits_for_partner(const struct relay_end *e)
{
	return e->s->redirected != e->s->delivered;
}

/* Must it be looked at again without a bell? */
static int is_restless(const struct relay_end *e)
{
	return e->look || waits_for_partner(e) || e->retry_ns || e->pending || e->state != END_OPEN;
}

/* Arm all. Returns 1 when something came meanwhile. */
static int arm_all(struct relay *r)
{
	struct relay_end **at = &r->active, *e;
	int found = 0;

	while ((e = *at)) {
		if (e->state == END_OPEN && !e->ring.armed && relay_end_arm(e))
			found = 1;
		if (!found && !is_restless(e)) {
			*at = e->next_active;
			e->active = 0;
			continue;
		}
		at = &e->next_active;
	}
	return found;
}

static __u64 sleep_ns(const struct relay *r)
{
	__u64 until = r->tick_ns;

	if (r->holds.high && r->holds.next_ns < until)
		until = r->holds.next_ns;
	for (const struct relay_end *e = r->active; e; e = e->next_active) {
		if (e->retry_ns > r->now && e->retry_ns < until)
			until = e->retry_ns;
		if ((e->look || e->pending) && r->look_ns < until)
			until = r->look_ns;
		if (waits_for_partner(e) && r->now + WAIT_NS < until)
			until = r->now + WAIT_NS;
	}
	return until > r->now ? until - r->now : 1;
}

static void nap(struct relay *r)
{
	__u64 ns = sleep_ns(r);
	struct __kernel_timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
	struct io_uring_cqe *c;

	r->st.sleeps++;
	pthread_mutex_unlock(&r->lock);
	io_uring_submit_and_wait_timeout(&r->uring, &c, 1, &ts, NULL);
	pthread_mutex_lock(&r->lock);
}

static void let_others(struct relay *r)
{
	if (!r->wanted)
		return;
	pthread_mutex_unlock(&r->lock);
	while (r->wanted)
		sched_yield();
	pthread_mutex_lock(&r->lock);
}

/* Look for more for a while? Less and less when it was in vain, but now and then. */
static int may_spin(struct relay *r, __u64 since)
{
	__u64 budget = r->cfg.spin_ns >> r->misses;

	if (r->misses >= SPIN_MISSES && r->naps++ & 15)
		return 0;
	return r->active && r->now - since < budget;
}

/* The program that we look for may want this very CPU. Then that is busy, and what others do on it counts as work. */
static void yield(struct relay *r)
{
	__u64 since = ism_clock_ns(), away;

	sched_yield();
	away = ism_clock_ns() - since;
	if (away > YIELD_NS)
		r->crowd.worked_ns += away;
}

static void loop(struct relay *r)
{
	__u64 since = 0, now;
	int spinning = 0, did = 0;

	while (!r->stop || r->all) {
		now = ism_clock_ns();
		if (did)
			r->crowd.worked_ns += now - r->now;
		r->now = now;
		if (r->stop && !r->stop_ns)
			r->stop_ns = r->now;
		if (r->stop_ns && r->now - r->stop_ns > DRAIN_NS)
			break;
		did = harvest(r);
		did |= work_all(r);
		if (io_uring_sq_ready(&r->uring))
			io_uring_submit(&r->uring);
		did |= tick(r) | look(r);
		relay_holds_run(&r->holds, r->now);
		let_others(r);
		if (did) {
			if (spinning && r->misses)
				r->misses--;
			r->st.spins += !!spinning;
			spinning = 0;
			since = r->now;
			continue;
		}
		if (may_spin(r, since)) {
			if (++spinning % SPIN_YIELD == 1)
				yield(r);
			continue;
		}
		if (spinning && r->misses < SPIN_MISSES)
			r->misses++;
		spinning = 0;
		if (!arm_all(r))
			nap(r);
	}
}

/* What could not be drained is reset, and the rest belongs to nobody any more. */
static void finish(struct relay *r)
{
	for (struct relay_end *e = r->all; e; e = e->next_all)
		if (e->s && e->s->redirected != e->s->delivered)
			relay_guard_reset(&r->guard, &e->conn);
	if (r->all)
		usleep(50000);
	io_uring_queue_exit(&r->uring);
	while (r->all)
		free_end(r, r->all, 0);
	r->holds.next_ns = 0;
	relay_holds_run(&r->holds, ism_clock_ns());
	r->stays = relay_holds_any(&r->holds);
	if (r->loaded && !r->stays)
		relay_maps_unguard();
	r->holds.high = 0;
	relay_maps_close(&r->maps);
}

static int open_uring(struct relay *r)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER |
					      IORING_SETUP_DEFER_TASKRUN |
					      IORING_SETUP_TASKRUN_FLAG };
	int rc = io_uring_queue_init_params(ENTRIES, &r->uring, &p);

	if (rc == -EINVAL) { /* before 6.1 */
		memset(&p, 0, sizeof(p));
		rc = io_uring_queue_init_params(ENTRIES, &r->uring, &p);
	}
	return rc;
}

static void *thread_main(void *arg)
{
	struct relay *r = arg;
	int rc = open_uring(r);

	prctl(PR_SET_NAME, "relay");
	if (rc) {
		log_line(LOG_ERR, "relay: io_uring: %s", strerror(-rc));
		return NULL;
	}
	pthread_mutex_lock(&r->lock);
	poll_fd(r, r->wake, W_WAKE, 0);
	for (unsigned int i = 0; i < r->cfg.n_fabrics; i++)
		poll_fd(r, ism_fabric_event_fd(r->cfg.fabrics[i]), W_FABRIC, i);
	loop(r);
	finish(r);
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* ---------------------------------------------------------------- for the daemon */

int relay_new(struct relay **ret, const struct relay_config *cfg, struct ism_err *err)
{
	struct relay *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return ism_err_set(err, -ENOMEM, "%s", strerror(ENOMEM));
	/* What it has begun, it may have to break off. */
	rc = relay_can_reset(err);
	if (rc) {
		free(r);
		return rc;
	}
	r->cfg = *cfg;
	r->crowd.limit = cfg->crowd;
	r->maps.kick = -1;
	pthread_mutex_init(&r->lock, NULL);
	r->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = r->wake < 0 ? -errno : relay_guard_start(&r->guard);
	if (rc) {
		if (r->wake >= 0)
			close(r->wake);
		free(r);
		return ism_err_set(err, rc, "relay: %s", strerror(-rc));
	}
	*ret = r;
	return 0;
}

int relay_start(struct relay *r)
{
	int rc = -pthread_create(&r->thread, NULL, thread_main, r);

	r->running = !rc;
	return rc;
}

void relay_free(struct relay *r)
{
	const __u64 one = 1;

	if (!r)
		return;
	r->stop = 1;
	if (r->running && write(r->wake, &one, sizeof(one)) == sizeof(one))
		pthread_join(r->thread, NULL);
	relay_guard_stop(&r->guard, r->stays);
	close(r->wake);
	free(r);
}

void relay_lock(struct relay *r)
{
	if (!r)
		return;
	r->wanted++;
	pthread_mutex_lock(&r->lock);
	r->wanted--;
}

void relay_unlock(struct relay *r)
{
	if (r)
		pthread_mutex_unlock(&r->lock);
}

/* ---------------------------------------------------------------- direct ends */

int relay_hold(struct relay *r, int sock, __u64 token)
{
	int slot;

	if (!r || !r->loaded)
		return -EAGAIN;
	slot = relay_holds_find(&r->holds, token);
	if (slot < 0)
		slot = free_slot(r);
	return slot < 0 ? slot : relay_holds_add(&r->holds, slot, sock, token);
}

int relay_hold_rings(struct relay *r, __u64 token, const struct ism_dmb *own,
		     const struct ism_dmb *peer)
{
	if (!r || !r->loaded)
		return 0;
	return relay_holds_rings(&r->holds, token, own ? own->addr : NULL,
				 peer ? peer->addr : NULL);
}

int relay_hold_is_orphan(struct relay *r, __u64 token)
{
	return r && r->loaded && relay_holds_is_orphan(&r->holds, token);
}

/* ---------------------------------------------------------------- to be shown */

void relay_stats(struct relay *r, struct relay_stats *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (!r)
		return;
	*ret = r->st;
	ret->broken += r->holds.resets;
	for (const struct relay_end *e = r->all; e; e = e->next_all)
		ret->doorbells += e->ring.bells;
}

static void show_end(const struct relay_end *e, struct ism_msg_dmb ret[2])
{
	const struct ism_dmb peer = { .len = e->ring.map.len, .addr = e->ring.peer };

	memset(ret, 0, 2 * sizeof(*ret));
	ret[0].token = ret[1].peer = e->token;
	ret[0].peer = ret[1].token = e->peer;
	ret[0].owner_pid = ret[1].partner_pid = e->conn.pid;
	ret[0].uid = ret[1].uid = e->conn.uid;
	ret[0].flags = ISM_DMB_OWNER_ATTACHED | ISM_DMB_RELAYED;
	ret[1].flags = ISM_DMB_PARTNER_ATTACHED | ISM_DMB_RELAYED;
	ret[0].fabric = ret[1].fabric = e->fabric + 1;
	dmb_show(e->dmb, &peer, &ret[0]);
	dmb_show(&peer, e->dmb, &ret[1]);
}

int relay_list(struct relay *r, unsigned int *at, struct ism_msg_dmb ret[2])
{
	while (r && *at < r->high) {
		const struct relay_end *e = r->slot[(*at)++];

		if (!e || !e->s)
			continue;
		show_end(e, ret);
		return 1;
	}
	return 0;
}
