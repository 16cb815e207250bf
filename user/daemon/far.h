/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pairs whose partner is of another kernel: our DMB is registered for whoever owns the partner's token, the
 * partner's DMB is attached when it is there, and bells are carried between holders and the fabric.
 *
 * Such a pair lives on without holders until the connection is gone: its partner may still write into our
 * DMB, and a second one for the same connection would be read by nobody who wrote into the first.
 */
#ifndef ISM_DAEMON_FAR_H
#define ISM_DAEMON_FAR_H

#include "pairs.h"

struct remote;

#define FAR_PATIENCE_US                                                                            \
	60000000ULL /* a DMB waits so long for its partner, after it was asked for last */

/**
 * far_attach() - as pairs_attach(), over a fabric that the partner is reached by
 * @sock: the connection, when the partner is a relay: relay_hold(); else -1
 *
 * Return: as pairs_attach(); -EAGAIN the partner's DMB is not there yet: @who holds the end already, and
 * asks again; or, for @sock, no relay is at work here; -EPERM the partner's DMB is not one; -ENOENT it is somebody
 * else's.
 */
int far_attach(struct pairs *t, struct remote *r, struct holder *who, __u64 token, __u64 peer,
	       __u64 share, int sock, struct pair_end **ret);

/** far_resume() - as pairs_resume(). The partner's DMB may come back later. @sock: as above */
int far_resume(struct pairs *t, struct remote *r, struct holder *who,
	       const struct ism_msg_resume *m, int *fds, int sock);

/** far_free() - what belongs to @p->far, with the pair's DMBs */
void far_free(struct pair *p);

/** far_stays() - nobody holds the pair any more: may its partner still write to it? */
int far_stays(const struct pair *p);

/** far_fds() - as pair_end_fds() */
int far_fds(const struct pair_end *e, int fds[ISM_FD_COUNT], __u64 off[2]);

/** far_index() - of its fabric, for listings */
__u32 far_index(const struct pair *p);

/**
 * far_arrived() - a DMB with token @peer was registered, whose partner owns @token
 * Return: 1 when that is an end of a pair here, else 0.
 */
int far_arrived(struct pairs *t, const struct remote *r, __u64 token, __u64 peer);

/**
 * far_waits() - pairs_sweep() of one pair: end it if nobody needs it any more, attach what came back, speak for the
 *		 dead
 * Return: 1 if it waits for its connection to end, else 0.
 */
int far_waits(struct pairs *t, struct pair *p, __u64 now_us, int (*is_gone)(void *arg, __u64 token),
	      void *arg);

#endif
