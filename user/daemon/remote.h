/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The fabrics over which other kernels are reached: opening them, telling the load about them, who may use
 * them, and what comes from them.
 */
#ifndef ISM_DAEMON_REMOTE_H
#define ISM_DAEMON_REMOTE_H

#include <sys/types.h>
#include <systemd/sd-event.h>
#include <ismredir/fabric.h>
#include <ismredir/maps.h>
#include "err.h"

struct daemon;

/**
 * struct remote - one such fabric
 * @tag: its name in the handshake, 24 bits, not 0
 * @index: as in listings; the loopback fabric has 0
 * @io: its events
 */
struct remote {
	struct daemon *d;
	struct ism_fabric *fabric;
	__u32 tag;
	__u32 index;
	sd_event_source *io;
};

/**
 * remote_open() - take over an open fabric that knows partners by token, and tell the load
 * @spec: as it was opened
 * On failure the fabric is still the caller's.
 */
int remote_open(struct daemon *d, struct ism_fabric *f, const char *spec, struct ism_err *err);

/** remotes_close() - all of them, and tell the load; no pairs are there any more */
void remotes_close(struct daemon *d);

/** remotes_tick() - now and then: has a load come? */
void remotes_tick(struct daemon *d);

/** remote_event() - an event of its fabric that is not the relay's */
void remote_event(struct remote *r, const struct ism_event *e);

/** remote_by_tag() - NULL when there is none */
struct remote *remote_by_tag(struct daemon *d, __u32 tag);

/** remote_allows() - may this user's programs have descriptors of the fabric? */
int remote_allows(const struct remote *r, uid_t uid);

#endif
