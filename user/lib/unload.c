// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Unload without losing a byte; see loader.h.
 *
 * Taking a socket out of the sockhash drops what was redirected to it and not yet read
 * (net/core/skmsg.c sk_psock_drop()), silently. So: the word says drain, then every sender that might
 * still hold a redirect verdict from before has to be seen outside sendmsg(), then every receiver
 * with nothing unread; only then do links and maps go. What is in a relay is in ismredird's hands: it
 * gives up a slot when nothing of it is on its way any more, and lets a FIN go that is held for what is in a
 * ring. Rings are in no kernel's hands: ismredird tells the programs of the drain, they leave them with their
 * next send, and nobody waits for an idle one.
 */
#define _GNU_SOURCE
#include "loader.h"
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "clock.h"
#include "inspect.h"
#include "pins.h"
#include <ismredir/relay.h>

#define TCP_CLOSE 7 /* include/net/tcp_states.h */

/* Tokens already found safe, sorted is not worth it: scans are few. Open addressing. */
struct tokens {
	__u64 *slot;
	size_t size;
	size_t used;
};

static size_t tokens_find(const struct tokens *t, __u64 token)
{
	size_t i = (token * 0x9e3779b97f4a7c15ULL) & (t->size - 1);

	while (t->slot[i] && t->slot[i] != token)
		i = (i + 1) & (t->size - 1);
	return i;
}

static int tokens_grow(struct tokens *t)
{
	struct tokens bigger = { .size = t->size ? t->size * 2 : 1024 };

	bigger.slot = calloc(bigger.size, sizeof(*bigger.slot));
	if (!bigger.slot)
		return -ENOMEM;
	for (size_t i = 0; i < t->size; i++)
		if (t->slot[i])
			bigger.slot[tokens_find(&bigger, t->slot[i])] = t->slot[i];
	bigger.used = t->used;
	free(t->slot);
	*t = bigger;
	return 0;
}

static int tokens_has(const struct tokens *t, __u64 token)
{
	return t->size && t->slot[tokens_find(t, token)] == token;
}

static int tokens_add(struct tokens *t, __u64 token)
{
	size_t i;

	if (t->used * 2 >= t->size && tokens_grow(t))
		return -ENOMEM;
	i = tokens_find(t, token);
	if (!t->slot[i]) {
		t->slot[i] = token;
		t->used++;
	}
	return 0;
}

struct scan {
	struct tokens idle; /* no sender was inside since the drain began */
	struct tokens empty; /* and then nothing was unread */
	int senders_done; /* all senders were idle in an earlier scan */
	unsigned int live;
	unsigned int direct; /* ends on rings */
	unsigned int busy;
	unsigned int unread;
	unsigned long long unread_bytes;
	unsigned int relayed; /* slots in use */
	unsigned int held; /* FINs, which without our programs would overtake bytes in rings */
};

static int count_slot(const void *key, const void *value, void *arg)
{
	const struct ism_relay *r = value;
	struct scan *s = arg;

	(void)key;
	s->relayed += r->token && !r->owner; /* a direct end's holds no bytes */
	return 0;
}

static int scan_one(const struct ism_conn_view *v, void *arg)
{
	struct scan *s = arg;

	s->direct += v->alive && v->mutual && v->conn.plane == ISM_PLANE_DIRECT;
	if (!(v->conn.flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING)) || !v->alive ||
	    v->state == TCP_CLOSE)
		return 0;
	s->live++;
	if (!tokens_has(&s->idle, v->token)) {
		if (v->busy) {
			s->busy++;
			return 0;
		}
		if (tokens_add(&s->idle, v->token))
			return -ENOMEM;
	}
	if (!s->senders_done || tokens_has(&s->empty, v->token))
		return 0;
	if (!v->backlog)
		return tokens_add(&s->empty, v->token);
	s->unread++;
	s->unread_bytes += v->backlog;
	return 0;
}

static int drain(unsigned int timeout_ms, struct ism_unload_result *ret, struct ism_err *err)
{
	__u64 end = ism_clock_ms() + timeout_ms;
	struct scan s = {};
	unsigned int pause_us = 1000;
	int rc;

	for (;;) {
		int was_done = s.senders_done;

		s.live = s.direct = s.busy = s.unread = 0;
		s.unread_bytes = 0;
		rc = ism_inspect_conns(scan_one, &s, err);
		s.relayed = 0;
		if (!rc)
			rc = ism_inspect_map("relays", sizeof(__u32), sizeof(struct ism_relay),
					     count_slot, &s, err);
		if (!rc)
			rc = ism_inspect_held(&s.held, err);
		if (rc)
			break;
		if (!ret->conns)
			ret->conns = (s.live + 1) / 2; /* both ends are counted */
		ret->direct = (s.direct + 1) / 2;
		if (!s.busy)
			s.senders_done = 1;
		if (was_done && !s.unread && !s.relayed && !s.held)
			break;
		if (ism_clock_ms() >= end) {
			ret->left = s.unread + s.busy + s.relayed + s.held;
			ret->left_bytes = s.unread_bytes;
			rc = -ETIMEDOUT;
			break;
		}
		usleep(pause_us);
		if (pause_us < 32000)
			pause_us *= 2;
	}
	free(s.idle.slot);
	free(s.empty.slot);
	return rc;
}

struct attached {
	struct ism_cgroup cg[ISM_MAX_CGROUPS];
	unsigned int n;
};

static int collect(__u64 id, const char *path, void *arg)
{
	struct attached *a = arg;
	struct ism_cgroup *cg = &a->cg[a->n];

	if (!path || a->n == ISM_MAX_CGROUPS)
		return 0;
	cg->id = id;
	strncpy(cg->path, path, sizeof(cg->path) - 1);
	a->n++;
	return 0;
}

static int unload_locked(unsigned int timeout_ms, struct ism_unload_result *ret,
			 struct ism_err *err)
{
	struct attached *a = calloc(1, sizeof(*a));
	struct ism_ctl ctl;
	int rc = a ? 0 : -ENOMEM;

	/* Without ctl this is what an interrupted load or unload left: nothing was ever redirected. */
	if (!rc && !ism_inspect_ctl(&ctl, NULL)) {
		rc = ism_inspect_set_word(ISM_WORD_DRAIN, err);
		if (!rc)
			rc = drain(timeout_ms, ret, err);
		if (!rc) {
			ism_inspect_cgroups(collect, a, NULL);
			ism_listeners_disarm(a->cg, a->n, NULL);
		}
	}
	if (!rc)
		rc = ism_pins_remove_all(err);
	free(a);
	return rc;
}

int ism_loader_unload(unsigned int timeout_ms, struct ism_unload_result *ret, struct ism_err *err)
{
	int lock, rc;

	memset(ret, 0, sizeof(*ret));
	lock = ism_pins_lock(0, err);
	if (lock < 0)
		return lock;
	rc = unload_locked(timeout_ms, ret, err);
	if (rc == -ETIMEDOUT)
		ism_err_set(err, rc,
			    "draining: %u connection%s still with %llu redirected bytes that the "
			    "application has not read; new bytes take TCP. Run unload again later",
			    ret->left, ret->left == 1 ? "" : "s", ret->left_bytes);
	close(lock);
	return rc;
}
