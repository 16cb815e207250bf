/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The daemon's state: one thread works on it, in the event loop. */
#ifndef ISM_DAEMON_DAEMON_H
#define ISM_DAEMON_DAEMON_H

#include <sys/types.h>
#include <systemd/sd-event.h>
#include "account.h"
#include "closer.h"
#include "host.h"
#include "pairs.h"
#include "relay.h"
#include "remote.h"
#include "verify.h"

#define MAX_FABRICS (1 + ISM_MAX_FABRICS)

/**
 * struct options - the command line
 * @fabrics, @n_fabrics: specs; the loopback fabric is opened also when it is none of them
 * @group: owner group of the socket, (gid_t)-1 to leave it
 * @ring_size: of all rings; 0: see ring_most() and ring_far()
 */
struct options {
	const char *socket;
	const char *fabrics[MAX_FABRICS];
	unsigned int n_fabrics;
	mode_t mode;
	gid_t group;
	__u64 limit_total;
	__u64 limit_uid;
	__u64 ring_size;
	unsigned int pool;
	unsigned int max_clients;
	int relay;
	unsigned int crowd;
};

/** ring_most() - the largest rings in this kernel, where memory is not short: pairs_ring_size() */
static inline __u32 ring_most(const struct options *o)
{
	return o->ring_size ? o->ring_size : PAIRS_RING_MOST;
}

/** ring_far() - rings to other kernels; regions are small */
static inline __u32 ring_far(const struct options *o)
{
	return o->ring_size ? o->ring_size : 1 << 20;
}

/**
 * struct daemon - everything
 * @fabric: the loopback fabric; @remotes, @n_remotes: those that reach other kernels
 * @verify: verify_socket(), but in fuzzers
 * @is_ending: daemon_free() is at work
 * @relays: this daemon moves bytes of programs without rings, by @relay; @pairs, @remotes and their fabrics
 *          are then used under its lock
 * @instance: another one for each start
 * @started_us: CLOCK_MONOTONIC
 * @clients, @n_clients: connected now
 * @tick: polls the load, looks after slow clients
 * @sweep, @sweeps_left: ends pairs whose connection is over; so often before it is left to @tick
 * @refill: makes DMBs ready while there is nothing else to do
 * @attaches, ...: as struct ism_msg_status
 */
struct daemon {
	struct options opt;
	sd_event *event;
	struct ism_fabric *fabric;
	struct remote *remotes[ISM_MAX_FABRICS];
	unsigned int n_remotes;
	struct pairs pairs;
	struct accounts accounts;
	struct closer *closer;
	struct host host;
	int (*verify)(int sock, __u64 token, int is_new, struct verdict *ret);
	int is_ending;
	int relays;
	struct relay *relay;
	__u64 instance;
	__u64 started_us;
	struct client *clients;
	unsigned int n_clients;
	sd_event_source *tick;
	sd_event_source *refill;
	sd_event_source *sweep;
	unsigned int sweeps_left;
	__u64 attaches, detaches, resumes, refused, malformed;
};

/** daemon_init() - what does not depend on the control socket; daemon_free() also after a failure */
int daemon_init(struct daemon *d, const struct options *opt, struct ism_err *err);
void daemon_free(struct daemon *d);

/** daemon_refill() - some DMBs were taken: make others ready soon */
void daemon_refill(struct daemon *d);

#endif
