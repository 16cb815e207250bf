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
#include "verify.h"

/**
 * struct options - the command line
 * @group: owner group of the socket, (gid_t)-1 to leave it
 */
struct options {
	const char *socket;
	const char *fabric;
	mode_t mode;
	gid_t group;
	__u64 limit_total;
	__u64 limit_uid;
	__u64 ring_size;
	unsigned int pool;
	unsigned int max_clients;
};

/**
 * struct daemon - everything
 * @verify: verify_socket(), but in fuzzers
 * @instance: another one for each start
 * @started_us: CLOCK_MONOTONIC
 * @clients, @n_clients: connected now
 * @tick: polls the load, looks after slow clients
 * @refill: makes DMBs ready while there is nothing else to do
 * @attaches, ...: as struct ism_msg_status
 */
struct daemon {
	struct options opt;
	sd_event *event;
	struct ism_fabric *fabric;
	struct pairs pairs;
	struct accounts accounts;
	struct closer *closer;
	struct host host;
	int (*verify)(int sock, __u64 token, int is_new, struct verdict *ret);
	__u64 instance;
	__u64 started_us;
	struct client *clients;
	unsigned int n_clients;
	sd_event_source *tick;
	sd_event_source *refill;
	__u64 attaches, detaches, resumes, refused, malformed;
};

/** daemon_init() - what does not depend on the control socket; daemon_free() also after a failure */
int daemon_init(struct daemon *d, const struct options *opt, struct ism_err *err);
void daemon_free(struct daemon *d);

/** daemon_refill() - some DMBs were taken: make others ready soon */
void daemon_refill(struct daemon *d);

#endif
