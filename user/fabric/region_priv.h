/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The core of regions, inside: one peer's private state, and what its parts need of each other. */
#ifndef ISM_FABRIC_REGION_PRIV_H
#define ISM_FABRIC_REGION_PRIV_H

#include <ismredir/fabric.h>
#include "region.h"
#include "region_alloc.h"
#include "region_format.h"
#include "util.h"

#define REGION_BUCKETS	 256
#define REGION_TICK_MS	 100 /* heartbeats and everything slow */
#define REGION_ORPHAN_MS 60000 /* for programs to give back what they had before a restart */
#define REGION_MAX_POLL                                                                            \
	4000 /* us: the longest pause while a DMB is registered and nobody rings bells */

/* What is known of an entry of somebody's directory; state 0: nothing valid is there. */
struct region_known {
	__u64 state;
	__u64 token;
	__u64 partner_token;
	__u64 announced; /* the state that was told as ISM_EVENT_DMB */
};

/**
 * struct region_view - another peer as this one sees it
 * @state, @id: its slot, copied; all else is of that state
 * @beat, @beat_ms: its last heartbeat, and when it was seen first
 * @gone: the state of which the device said that it is gone
 * @changes, @known, @n_known: its directory when it had @changes; @is_stale: to be read again
 * @has_news: some of @known may have to be announced
 * @rings: its rings that were looked after
 * @tail, @lost: its mails that were read, its losses that were told
 */
struct region_view {
	struct region_peer_copy id;
	__u64 beat;
	__u64 beat_ms;
	__u64 gone;
	__u64 changes;
	int is_stale;
	int has_news;
	struct region_known *known;
	__u64 n_known;
	__u64 room;
	__u64 rings;
	__u64 tail;
	__u64 lost;
};

/**
 * struct region_own - a DMB in the own directory
 * @state: of its entry; @off: from the start of the region
 * @bell: the value that was seen last; @bell_fd: where it goes to, -1: to read_events
 * @is_orphan: registered by a process before this one, and not adopted yet
 */
struct region_own {
	struct ism_dmb base;
	__u64 state;
	__u64 off;
	__u64 partner_token;
	__u64 bell;
	int bell_fd;
	int is_orphan;
};

/* Memory that is no DMB any more, but that somebody may still write to; and the index it had. */
struct region_held {
	__u64 off;
	__u64 len;
	__u64 index;
};

/**
 * struct region_att - an entry of the own attach table
 * @is_used: the entry is valid; @is_user: attach_dmb() made it, else move_data()
 * @is_orphan: made by a process before this one for a program that may still write
 * @state: of the entry; @dmb, @dmb_state, @owner_state: what is attached
 * @bell: the value of the last ring
 * @hint: where the own DMB was found that it takes
 * @next: index + 1 of the next in its bucket
 */
struct region_att {
	int is_used;
	int is_user;
	int is_orphan;
	__u64 state;
	__u64 token;
	__u64 dmb;
	__u64 dmb_state;
	__u64 owner_state;
	__u64 off;
	__u64 len;
	__u64 bell;
	__u64 pid;
	__u64 start;
	__u64 hint;
	__u32 next;
};

/**
 * struct region - an open fabric
 * @me, @state: the own slot, and its state in memory; @is_lost: it is not ours any more
 * @has_changed: a directory was read again
 * @is_rung: bells may have values that were not looked at
 * @tick_ms: when the next tick is due; @pause_us: until the next look at the bells
 * @orphans_ms: when orphans are given up
 */
struct region {
	struct ism_fabric base;
	struct region_dev dev;
	struct region_mem mem;
	struct region_layout l;
	unsigned int me;
	__u64 state;
	__u64 host[2];
	__u64 pid;
	__u64 start;
	int is_lost;
	__u64 lease;
	__u64 poll_us;
	__u64 pause_us;
	__u64 tick_ms;
	__u64 orphans_ms;
	unsigned int n_orphans;
	__u64 beat;
	__u64 changes;
	struct fabric_labels labels;
	struct region_alloc alloc;
	struct region_own **own;
	__u32 *n_held_of;
	__u64 own_high;
	struct region_held *held;
	unsigned int n_held, held_room;
	struct region_att *att;
	__u64 att_high;
	__u32 bucket[REGION_BUCKETS];
	struct region_view view[ISM_REGION_MAX_PEERS];
	int epoll_fd, timer_fd, more_fd, udp_fd, read_fd;
	int has_bell;
	int is_rung;
	int has_changed;
	__u64 udp_addr[2];
	__u64 udp_port;
};

static inline struct region *region_of(struct ism_fabric *f)
{
	return (struct region *)f;
}

static inline int region_refuse(struct region *r, int rc)
{
	r->base.counters.refused++;
	return rc;
}

static inline struct ism_region_peer *region_self(struct region *r)
{
	return region_peer(&r->mem, &r->l, r->me);
}

/* A word and its publication. */
static inline void region_set(struct region *r, __le64 *at, __u64 v)
{
	region_store(&r->mem, at, v);
	region_publish(&r->mem, at, sizeof(*at));
}

/* region_peer.c */

/** region_now_ms() - of a clock that never goes back */
__u64 region_now_ms(void);

/** region_process_start() - start time of a process of this kernel; 0: there is none */
__u64 region_process_start(__u64 pid);

/** region_is_process() - does this very process run? */
int region_is_process(__u64 pid, __u64 start);

/** region_has_programs() - does a process of this kernel run that may write by what the peer has attached? */
int region_has_programs(const struct region_mem *m, const struct region_layout *l,
			unsigned int peer, __u64 gen);

/** region_host_id() - names this kernel and network namespace until the next boot */
int region_host_id(__u64 ret[2]);

/**
 * region_claim() - become a peer
 * @want: the slot, or -1
 * @addr, @port: UDP bell, @port 0: none
 */
int region_claim(struct region *r, int want, struct ism_err *err);

/** region_leave() - give the slot up, unless programs go on with what is in it */
void region_leave(struct region *r, int keep);

/** region_sync() - look at all peers, and at the directories that changed */
void region_sync(struct region *r);

/** region_find_peer() - who has this GID, is there, and has our pnetid; looks at all peers. -EHOSTUNREACH */
int region_find_peer(struct region *r, const struct ism_gid *gid, unsigned int *ret);

/** region_is_there() - has that peer a slot, and not lost its lease? */
int region_is_there(const struct region *r, unsigned int peer);

/** region_counts() - may what the peer attached still be written by it? */
int region_counts(const struct region *r, unsigned int peer, __u64 state);

/** region_check_self() - 0, or -ESTALE: this peer was evicted */
int region_check_self(struct region *r);

/** region_beat() - heartbeat, and what the device knows of silent peers */
void region_beat(struct region *r);

/** region_state_of() - state of a slot, now */
__u64 region_state_of(const struct region *r, unsigned int peer);

/* region_dmb.c */

/** region_find_orphans() - at open: what is in the own directory, and what others may write to */
int region_find_orphans(struct region *r);

/** region_release_held() - memory that nobody can write any more becomes free */
void region_release_held(struct region *r);

/** region_drop_orphans() - unregister those that were not adopted */
void region_drop_orphans(struct region *r);

/** region_drop_own() - unregister what is not exported, at close; returns how many are left */
unsigned int region_drop_own(struct region *r);

/* region_attach.c */

/** region_find_attached() - at open: the own attach table, as an earlier process left it */
void region_find_attached(struct region *r);

/** region_drop_stale() - entries for what is not there any more; @with_orphans: and of programs that ended */
void region_drop_stale(struct region *r, int with_orphans);

/** region_drop_attached() - at close; returns how many are left, because programs may write by them */
unsigned int region_drop_attached(struct region *r);

/** region_drop_loops() - what move_data() attached of an own DMB that is being unregistered */
void region_drop_loops(struct region *r, __u64 index);

/* region_event.c */

int region_open_events(struct region *r, struct ism_err *err);
void region_close_events(struct region *r);

/** region_wake() - look at the bells soon: there is something to wait for */
void region_wake(struct region *r);

/** region_more() - read_events() has something already */
void region_more(struct region *r);

/** region_knock() - make a peer look: by its device, or a datagram */
void region_knock(struct region *r, unsigned int peer);

/** region_hear() - a bell of an own DMB has a new value; 1: it is for read_events() */
int region_hear(struct region_own *o, __u64 value);

#endif
