/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The end of a relayed connection, as far as the handshake program sees it. Its FIN must not come before
 * what it gave to the relay: egress holds it back (relayd.bpf.c), and here is how that becomes rare.
 */
#ifndef ISMREDIR_RELAY_END_BPF_H
#define ISMREDIR_RELAY_END_BPF_H

#include "common.bpf.h"

#define ISM_RELAY_END_NS    200000
#define ISM_RELAY_END_LOOPS 8192

/* The slot of an end while it has one: so long it stays in the sockhash, for the dummy has bytes for it. */
static __always_inline struct ism_relay *ism_slot_of(const struct ism_conn *rec, __u64 token)
{
	return rec->relay ? ism_relay_at(rec->relay - 1, token) : 0;
}

struct relay_end {
	struct ism_relay *r;
	__u64 end_ns;
};

static long relay_end_step(__u64 i, struct relay_end *w)
{
	struct ism_relay *r = w->r;

	return !r || *(volatile __u64 *)&r->delivered == r->redirected ||
	       bpf_ktime_get_ns() > w->end_ns;
}

/*
 * The socket was shut down, or the partner's FIN came. Nothing is redirected from now on, and the
 * remote relay needs no longer than a round trip: a moment is well spent, for TCP tries again after a
 * fifth of a second only.
 */
static __always_inline int ism_relay_shutdown(struct bpf_sock_ops *skops, struct ism_conn *rec,
					      __u64 token)
{
	struct relay_end w = { .r = ism_slot_of(rec, token) };

	if (!w.r)
		return 0;
	rec->reason = ISM_R_SHUTDOWN;
	if (w.r->delivered == w.r->redirected || skops->args[1] == BPF_TCP_CLOSE_WAIT)
		return 1;
	w.end_ns = bpf_ktime_get_ns() + ISM_RELAY_END_NS;
	bpf_loop(ISM_RELAY_END_LOOPS, relay_end_step, &w, 0);
	return 1;
}

#endif
