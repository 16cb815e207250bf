/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The table of pairs: for each connection whose rings somebody holds, its two DMBs and who holds them.
 *
 * A pair begins with the first attach of either end. It ends when nobody holds either end: at once if the last
 * holders of both said that nobody else has the connection, else with that, as a process that inherited it may
 * not have used it yet. Its DMBs are made for it and are never used again. Which client may have an end is
 * decided before (verify.h), here only who among those who may.
 *
 * A pair whose partner is of another kernel is in the same table (far.h): its end[0] is ours, end[1] is
 * the partner's, which nobody here holds.
 */
#ifndef ISM_DAEMON_PAIRS_H
#define ISM_DAEMON_PAIRS_H

#include <sys/types.h>
#include <ismredir/control.h>
#include <ismredir/fabric.h>
#include "account.h"

#define PAIR_BUCKETS 4096

struct far;

/**
 * struct holder - a client, as far as pairs know it
 * @holds: what it holds
 */
struct holder {
	pid_t pid;
	uid_t uid;
	struct account *account;
	struct hold *holds;
};

/**
 * struct hold - one client holds one end
 * @was_given: it has the descriptors; of a partner in another kernel they may still have to come
 */
struct hold {
	struct holder *who;
	struct pair *pair;
	int end;
	int was_given;
	struct hold *next_of_end;
	struct hold *next_of_holder;
};

/**
 * struct pair_end - one end of the connection
 * @token: its DMB token
 * @share: what all its holders know, once there was one (@has_share)
 * @is_left: its last holder has not said that there is nobody else
 * @dmb: the DMB that it reads and its partner writes; of a partner in another kernel the part that is
 *       attached here, NULL until it is
 */
struct pair_end {
	__u64 token;
	__u64 share;
	int has_share;
	int is_left;
	struct ism_dmb *dmb;
	struct hold *holds;
	struct pair *pair;
	struct pair_end *next;
};

/**
 * struct pair - a connection with rings
 * @serial: order of making, for listings
 * @account: who is charged @bytes
 * @is_resumed: known from ISM_MSG_RESUME
 * @far: what end[1] needs when it is of another kernel, else NULL
 */
struct pair {
	struct pair *prev, *next;
	__u64 serial;
	struct pair_end end[2];
	struct account *account;
	__u64 bytes;
	int is_resumed;
	struct far *far;
};

/*
 * Rings whose size nobody has chosen. A stream is quickest when its ring is larger than second-level caches
 * are: then the lines that a writer comes back to have left the reader's. But each page of the first lap is a page
 * fault, so it is not much larger. Small traffic stays at the start of a ring.
 */
#define PAIRS_RING_MOST	 (2u << 20)
#define PAIRS_RING_LEAST (256u << 10)

/**
 * struct pairs - the table
 * @ended: counters of pairs that ended; only the sums that ISM_MSG_STATUS_OK has
 * @ring_size: of all, 0: pairs_ring_size() chooses
 * @far_ring_size: of rings to other kernels
 * @limit_total, @limit_uid: bytes of DMBs
 * @sweep_soon: called with @arg when nobody holds a pair any more: pairs_sweep() is to be called. NULL: such pairs
 *		end at once
 */
struct pairs {
	struct ism_fabric *fabric;
	__u32 ring_size;
	__u32 far_ring_size;
	__u64 limit_total, limit_uid;
	__u64 bytes;
	unsigned int n;
	__u64 serial;
	struct pair *first, *last;
	struct pair_end *bucket[PAIR_BUCKETS];
	struct ism_msg_status ended;
	void (*sweep_soon)(void *arg);
	void *arg;
};

/**
 * pairs_ring_size() - of the next pair in this kernel that is on @a
 * Return: what was asked for, or PAIRS_RING_MOST, half of it when a quarter of either limit is used, and so on, down
 * to PAIRS_RING_LEAST.
 */
__u32 pairs_ring_size(const struct pairs *t, const struct account *a);

/**
 * pairs_attach() - let @who hold the end @token, whose partner is @peer
 * @ret: the end
 *
 * Return: 0; -EALREADY it holds it; -EBUSY others hold it, or may again; -EDQUOT, -ENOSPC limits;
 * -ENOMEM, -EMFILE. A failure leaves the table as it was.
 */
int pairs_attach(struct pairs *t, struct holder *who, __u64 token, __u64 peer, __u64 share,
		 struct pair_end **ret);

/*
 * For far.c, the parts of attach and resume: pairs_find() a token; pair_new() not in the table yet, within
 * the limits; pair_link() it; pair_may_hold(); pair_hold() it, and when that fails end the pair unless somebody
 * else does; pair_is_given() says that @who, who holds it, has its descriptors.
 */
struct pair_end *pairs_find(struct pairs *t, __u64 token);
int pair_new(struct pairs *t, struct holder *who, __u64 token, __u64 peer, __u64 bytes,
	     struct pair **ret);
void pair_link(struct pairs *t, struct pair *p);
int pair_may_hold(const struct pair_end *e, const struct holder *who, __u64 share);
int pair_may_resume(const struct pair_end *e, const struct holder *who, __u64 peer, __u64 share);
int pair_hold(struct pairs *t, struct pair_end *e, struct holder *who, __u64 share);
int pair_was_given(const struct pair_end *e, const struct holder *who);
void pair_is_given(struct pair_end *e, const struct holder *who);

/** pair_drop() - end it, whoever holds it */
void pair_drop(struct pairs *t, struct pair *p);

/**
 * pairs_resume() - the same for an end that @who had from an earlier daemon
 * @fds: enum ism_attach_fd. Those that it takes are set to -1, the rest stay the caller's
 *
 * Return: as pairs_attach(); -EPERM when the descriptors are not what an earlier daemon gave out;
 * -ESTALE when the pair has other DMBs by now.
 */
int pairs_resume(struct pairs *t, struct holder *who, const struct ism_msg_resume *m, int *fds);

/** pairs_detach() - end the hold of @who, who leaves others behind or does not; -ENOENT when it has none */
int pairs_detach(struct pairs *t, struct holder *who, __u64 token, int leaves);

/** pairs_drop_holder() - end all holds of @who; returns how many */
unsigned int pairs_drop_holder(struct pairs *t, struct holder *who);

/**
 * pairs_sweep() - now and then: end pairs that nobody holds and whose connection is over
 * @is_gone: is there no connection with this token any more?
 * Return: how many pairs wait for their connection to end
 */
unsigned int pairs_sweep(struct pairs *t, __u64 now_us, int (*is_gone)(void *arg, __u64 token),
			 void *arg);

/** pairs_clear() - forget everything, whoever holds it; at exit */
void pairs_clear(struct pairs *t);

/**
 * pair_end_fds() - the descriptors of ISM_MSG_ATTACH_OK for an end; they stay the pair's
 * @off: own_off and peer_off
 */
int pair_end_fds(struct pairs *t, const struct pair_end *e, int fds[ISM_FD_COUNT], __u64 off[2]);

/** pair_partner() - the other end */
struct pair_end *pair_partner(const struct pair_end *e);

/** pairs_after() - the pair that follows @serial in order of making; NULL at the end */
const struct pair *pairs_after(const struct pairs *t, __u64 serial);

/** pair_end_visible() - may a user see this end in a listing? */
int pair_end_visible(const struct pair_end *e, uid_t uid);

/** pair_end_show() - what a listing shows of the DMB that this end reads */
void pair_end_show(const struct pair_end *e, struct ism_msg_dmb *ret);

/** pairs_totals() - add the counters of all pairs, ended and live, to @ret */
void pairs_totals(const struct pairs *t, struct ism_msg_status *ret);

#endif
