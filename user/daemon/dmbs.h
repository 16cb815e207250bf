/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is in a DMB, for the daemon: making the head, the last word, and reading what clients wrote. Each word
 * is read once, and nothing read is used for more than showing it, or for refusing what it contradicts.
 */
#ifndef ISM_DAEMON_DMBS_H
#define ISM_DAEMON_DMBS_H

#include <ismredir/control.h>
#include <ismredir/fabric.h>

/**
 * dmb_register() - ism_fabric_register_dmb() of a DMB with a ring and an empty stream
 * @p: @len is ism_dmb_len() of the ring; @init is not looked at
 *
 * Its head is there before anybody can see the DMB, and is the partner's to write from then on.
 */
int dmb_register(struct ism_fabric *f, const struct ism_dmb_params *p, struct ism_dmb **ret);

/** dmb_check_static() - is it a DMB of this version, token and ring? 0 or -EPERM */
int dmb_check_static(const struct ism_dmb *dmb, __u32 ring_size);

/** dmb_was_used() - has its partner ever written here? */
int dmb_was_used(const struct ism_dmb *dmb);

/**
 * dmb_say_closed() - for an owner of @own that is gone: its partner, if that is a relay, gets to know in @peer
 *                    that nobody reads @own any more
 */
void dmb_say_closed(const struct ism_dmb *own, const struct ism_dmb *peer);

/** dmb_is_memfd() - is it memory that can be sealed? Asks nothing that another process could delay */
int dmb_is_memfd(int fd);

/** dmb_show() - ring, fill, flags and counters of @own; @peer is the DMB of the other end, or NULL */
void dmb_show(const struct ism_dmb *own, const struct ism_dmb *peer, struct ism_msg_dmb *ret);

/** dmb_add_stats() - add the partner's counters to the sums of @ret */
void dmb_add_stats(const struct ism_dmb *dmb, struct ism_msg_status *ret);

#endif
