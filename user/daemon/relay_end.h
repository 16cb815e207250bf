/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One relayed end: what is to be done for it next, and what has become of it. Decides by looking at its
 * slot and its rings; does no system calls on sockets, that is relay.c. The relay's thread only.
 */
#ifndef ISM_DAEMON_RELAY_END_H
#define ISM_DAEMON_RELAY_END_H

#include <ismredir/maps.h>
#include <ismredir/relay.h>
#include <sys/socket.h>
#include "relay_ring.h"

enum relay_end_state {
	END_WAITING, /* the partner has no DMB yet */
	END_OPEN,
	END_DRAINING, /* towards TCP: no new bytes, both ways */
	END_BROKEN, /* bytes are lost: to be reset */
	END_DONE, /* nothing is left to be done for it */
};

/**
 * struct relay_end - an end
 * @next: of those with the same hash, @next_all: of all; @next_active, @active: in the list of those that are looked at
 * @slot, @s: its slot
 * @conn: its record, as it was when it began
 * @dmb: the own DMB
 * @dummy: the dummy socket
 * @recv_to, @recv_len: where a recv() is under way to, while @receiving
 * @pending: bytes that were received and cannot be published yet
 * @taken: received from the dummy, in all
 * @sending: a send() is under way, with @msg
 * @retry_ns, @retry_step: when a send is tried again, and after how long the next
 * @refused_ns: since when none was accepted, 0
 * @used_ns: when there was something to do
 * @closing_ns: since when it drains, or its application is gone
 * @held: struct ism_relay.held when it was last kicked
 * @kick: what was held may go now
 * @look: its slot is to be brought up to date, for what changes by itself
 * @frozen: the ring is not read any more: a direct partner takes back what is in it
 * @gate_ns: since when nothing more is redirected into the dummy
 * @peer_gone: the fabric does not know the partner's DMB any more
 * @reset, @reset_ns: how often a reset was asked for, and when
 * @was_used: @used_ns changed since its counters were shown
 * @why: what broke it, for the log
 */
struct relay_end {
	struct relay_end *next;
	struct relay_end *next_active;
	int active;
	enum relay_end_state state;
	unsigned int fabric;
	__u64 token, peer;
	__u32 slot;
	struct ism_relay *s;
	struct ism_conn conn;
	struct ism_dmb *dmb;
	struct relay_ring ring;
	int dummy;
	int receiving, cancelling;
	size_t pending;
	__u64 taken;
	int sending;
	struct msghdr msg;
	struct iovec iov[2];
	__u64 retry_ns, retry_step;
	__u64 refused_ns;
	__u64 used_ns, closing_ns;
	__u32 held;
	int kick;
	int look;
	int frozen;
	__u64 gate_ns;
	int peer_gone;
	int reset;
	int was_used;
	__u64 reset_ns;
	struct relay_end *next_all;
	const char *why;
};

/** relay_end_open() - rings, dummy and slot are there: begin */
void relay_end_open(struct relay_end *e);

/**
 * relay_end_step() - look at the partner and at the slot, and tell both what is new
 * @now: CLOCK_MONOTONIC
 *
 * Return: 1 when something had changed. @e->state may be another afterwards.
 */
int relay_end_step(struct relay_end *e, __u64 now);

/** relay_end_want_recv() - bytes that a recv() from the dummy may have at *@to; 0: none now */
size_t relay_end_want_recv(struct relay_end *e, void **to);

/** relay_end_received() - it is over: @n bytes, or negative errno */
void relay_end_received(struct relay_end *e, ssize_t n, __u64 now);

/** relay_end_want_send() - bytes that are to be sent by the dummy, in @e->msg; 0: none now */
size_t relay_end_want_send(struct relay_end *e, __u64 now);

/** relay_end_sent() - it is over: @n bytes, or negative errno */
void relay_end_sent(struct relay_end *e, ssize_t n, __u64 now);

/** relay_end_drain() - go back to TCP */
void relay_end_drain(struct relay_end *e, __u64 now);

/** relay_end_break() - bytes are lost; @why is for the log */
void relay_end_break(struct relay_end *e, const char *why);

/** relay_end_farewell() - the last words to the partner */
void relay_end_farewell(struct relay_end *e);

/** relay_end_stays_on_tcp() - it is done, and its partner has said that TCP has the connection for good */
int relay_end_stays_on_tcp(struct relay_end *e);

/** relay_end_arm() - as relay_ring_arm() */
int relay_end_arm(struct relay_end *e);

#endif
