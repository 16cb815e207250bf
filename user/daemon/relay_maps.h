/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The relay's side of a load: its slots, and the programs that ismredird adds to it (bpf/relayd.bpf.c).
 * A load that is taken away leaves all this usable, and without effect.
 */
#ifndef ISM_DAEMON_RELAY_MAPS_H
#define ISM_DAEMON_RELAY_MAPS_H

#include <stddef.h>
#include <ismredir/maps.h>
#include <ismredir/relay.h>
#include "err.h"

struct relayd_bpf;
struct ring_buffer;

/**
 * struct relay_maps - one load
 * @slots: ISM_MAX_RELAYS of them, shared with the programs
 * @asks: delivers what is in relay_asks
 */
struct relay_maps {
	struct relayd_bpf *skel;
	struct ism_relay *slots;
	struct ring_buffer *asks;
	int conns, socks, sk_relay, ctl;
	int bind, look, kick, hold, calm;
};

/**
 * relay_maps_open() - for the load that is pinned now. Needs what `load` needs
 * @ask: called by relay_maps_asks() for each
 * Return: 0; -ENOENT: nothing is loaded, or nothing of this version; negative errno.
 */
int relay_maps_open(struct relay_maps *m, int (*ask)(void *arg, void *data, size_t len), void *arg,
		    struct ism_err *err);
void relay_maps_close(struct relay_maps *m);

/** relay_maps_guard_cgroups() - attach and pin the programs for egress and ingress where the load is attached */
int relay_maps_guard_cgroups(struct relay_maps *m, struct ism_err *err);

/** relay_maps_unguard() - take them away from all; nothing may be in any relay */
void relay_maps_unguard(void);

/** relay_maps_asks_fd() - readable when there are asks */
int relay_maps_asks_fd(const struct relay_maps *m);
void relay_maps_asks(struct relay_maps *m);

/** relay_maps_conn() - the record of an end; -ENOENT */
int relay_maps_conn(const struct relay_maps *m, __u64 token, struct ism_conn *ret);

/**
 * relay_maps_bind() - give the record a slot (slot + 1), or ISM_RELAY_ASKED, or 0
 * Return: 0; -ENOENT no record; -EOPNOTSUPP stays on TCP; or enum ism_reason of a reader who must not
 * be given redirected bytes.
 */
int relay_maps_bind(const struct relay_maps *m, __u64 token, __u32 relay);

/** relay_maps_leave() - take its slot away; it is plain TCP from now on */
int relay_maps_leave(const struct relay_maps *m, __u64 token);

/** relay_maps_look() - bring those of the first @n slots up to date that have @look set */
int relay_maps_look(const struct relay_maps *m, unsigned int n);

/** relay_maps_kick() - send what was held, for slots with @kick, in the caller's network namespace */
int relay_maps_kick(const struct relay_maps *m);

/**
 * relay_maps_give_up() - the daemon of these slots is gone: free those of relayed ends
 * @reset: called for the connections that have bytes in the relay. One that could not be reset keeps its
 *         slot: what it sends by TCP stays held then, so that nothing wrong is read
 */
void relay_maps_give_up(struct relay_maps *m, void (*reset)(const struct ism_conn *c, void *arg),
			void *arg);

/** relay_maps_forget_asks() - what another ismredird was asked for, and has not come to or refused, is asked again */
void relay_maps_forget_asks(const struct relay_maps *m);

/** relay_maps_word() - enum ism_word */
__u32 relay_maps_word(const struct relay_maps *m);

/** relay_maps_is_current() - is it still this load that is pinned? */
int relay_maps_is_current(const struct relay_maps *m);

#endif
