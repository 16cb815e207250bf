/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Dummy sockets: TCP sockets in TCP_REPAIR, connected to nowhere, that never send a packet. What is
 * redirected into one is received from it, and what is sent by it is redirected, so it is the daemon's
 * end of an application's socket. Needs CAP_NET_ADMIN, and a loopback device that is up.
 */
#ifndef ISM_DAEMON_RELAY_DUMMY_H
#define ISM_DAEMON_RELAY_DUMMY_H

#include <ismredir/relay.h>

/**
 * relay_dummy_new() - one for a slot
 * @socks, @sk_relay: descriptors of the maps; the socket is put into @socks under @key
 * @token: of the application's end
 *
 * Return: a descriptor, blocking, of a socket that goes from @socks when it is closed; negative errno.
 */
int relay_dummy_new(int socks, int sk_relay, __u64 key, __u64 token, __u32 slot);

#endif
