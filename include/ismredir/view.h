/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs that look from outside hand to user space: one fixed-size struct per item, in host order.
 */
#ifndef ISMREDIR_VIEW_H
#define ISMREDIR_VIEW_H

#include <ismredir/maps.h>

/**
 * struct ism_conn_view - a record of `conns` with what its socket looks like right now
 * @token: key of the record
 * @conn: the record; tcp_bytes brought up to date
 * @mutual: the partner's record exists and names this one; where the partner is of another kernel: it
 *          answered
 * @alive: the socket was found; the fields below are only then filled
 * @state: TCP state
 * @backlog: redirected bytes not yet read by this end; all receive memory where the kernel does
 *           not count them
 * @rx_queue: TCP bytes not yet read by this end
 * @tx_unread: TCP bytes of this end that the partner has not read yet
 * @busy: tasks inside sendmsg() or recvmsg() of this socket that are not asleep in them
 */
struct ism_conn_view {
	__u64 token;
	struct ism_conn conn;
	__u32 mutual;
	__u32 alive;
	__u32 state;
	__u32 backlog;
	__u32 rx_queue;
	__u32 tx_unread;
	__u32 busy;
	__u32 pad;
};

/**
 * struct ism_view_arg - argument of ism_view: show the end @token
 * @n: how many of @view it filled: none when the end is gone, and two when the other end has no record of its own
 */
struct ism_view_arg {
	__u64 token;
	__u32 n;
	__u32 pad;
	struct ism_conn_view view[2];
};

/**
 * struct ism_listener_view - a listening socket that the arming iterator touched
 * @key: of the listeners map
 * @inode: of the socket, to find its process
 * @err: 0, or the negative errno of what could not be set
 */
struct ism_listener_view {
	struct ism_lkey key;
	__u64 inode;
	__s32 err;
	__u32 pad;
};

#endif
