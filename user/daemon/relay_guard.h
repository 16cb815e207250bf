/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The guard of the relay: a process that keeps the privileges which ismredird gives up, resets and kicks
 * connections for it, also in other network namespaces, and outlives it: when ismredird dies it resets the
 * connections that have bytes in the relay, closes the rings towards the partners, and gives all other
 * connections back to TCP. Then it stays for as long as the FIN of a direct end may have to be let go or the end be
 * reset (relay_hold.h), or until another ismredird has shown that it knows the end.
 */
#ifndef ISM_DAEMON_RELAY_GUARD_H
#define ISM_DAEMON_RELAY_GUARD_H

#include <ismredir/maps.h>
#include <ismredir/relay.h>

struct ism_err;
struct relay_hold;

/**
 * struct relay_guard - the daemon's side of it
 * @fd: a socket to it
 * @peers: for each slot the mapped DMB of the partner, or NULL; in memory that both processes have. What
 *         is there has to be mapped before the guard starts: regions are, whole
 * @holds: for each slot what relay_hold.h keeps; the same memory, and the same about what it points to
 */
struct relay_guard {
	int fd;
	int pid;
	void **peers;
	struct relay_hold *holds;
};

/** relay_can_reset() - can this process reset connections? 0, or negative errno with a text */
int relay_can_reset(struct ism_err *err);

/** relay_guard_start() - while the process has one thread and all privileges; negative errno */
int relay_guard_start(struct relay_guard *g);

/**
 * relay_guard_stop() - nothing is in the relay any more: it shall end
 * @stays: there are direct ends to be looked after: it goes on alone, as when its daemon had been killed
 */
void relay_guard_stop(struct relay_guard *g, int stays);

/** relay_guard_load() - another load is in force */
void relay_guard_load(struct relay_guard *g);

/** relay_guard_kick() - send what was held of slots with @kick, in the namespace of @c */
void relay_guard_kick(struct relay_guard *g, const struct ism_conn *c);

/** relay_guard_reset() - reset the connection: its bytes are lost */
void relay_guard_reset(struct relay_guard *g, const struct ism_conn *c);

/**
 * relay_reset() - end a connection of this network namespace with a reset (SOCK_DESTROY)
 * Return: 0; -ENOENT when there is none, negative errno.
 */
int relay_reset(const struct ism_conn *c);

#endif
