// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The memory of connections that are over; see sweep.h. */
#include "sweep.h"
#include <errno.h>
#include "daemon.h"
#include "lookup.h"

#define SWEEP_US 20000ULL /* how long the memory of a connection outlives its holders at least */
#define SWEEPS	 10 /* then it is one that somebody keeps, and the daemon's tick is soon enough */

static int is_gone(void *arg, __u64 token)
{
	struct ism_conn c;

	return ism_lookup_conn(arg, token, &c) == -ENOENT;
}

static int nothing_loaded(void *arg, __u64 token)
{
	(void)arg;
	(void)token;
	return 1;
}

static void again(struct daemon *d)
{
	uint64_t now = 0;
	int on = SD_EVENT_OFF;

	sd_event_source_get_enabled(d->sweep, &on);
	if (on != SD_EVENT_OFF)
		return;
	sd_event_now(d->event, CLOCK_MONOTONIC, &now);
	sd_event_source_set_time(d->sweep, now + SWEEP_US);
	sd_event_source_set_enabled(d->sweep, SD_EVENT_ONESHOT);
}

static void sweep_soon(void *arg)
{
	struct daemon *d = arg;

	d->sweeps_left = SWEEPS;
	again(d);
}

void sweep(struct daemon *d)
{
	struct ism_lookup l;
	unsigned int waiting = 0;
	uint64_t now = 0;
	int rc;

	if (!d->pairs.n)
		return;
	rc = ism_lookup_open(&l, NULL);
	sd_event_now(d->event, CLOCK_MONOTONIC, &now);
	if (!rc) {
		waiting = pairs_sweep(&d->pairs, now, is_gone, &l);
		ism_lookup_close(&l);
	} else if (rc == -ENOENT || rc == -EPROTO) {
		waiting = pairs_sweep(&d->pairs, now, nothing_loaded, NULL);
	}
	if (waiting && d->sweeps_left) {
		d->sweeps_left--;
		again(d);
	}
}

static int on_sweep(sd_event_source *s, uint64_t usec, void *arg)
{
	(void)s;
	(void)usec;
	sweep(arg);
	return 0;
}

int sweep_open(struct daemon *d)
{
	int rc = sd_event_add_time(d->event, &d->sweep, CLOCK_MONOTONIC, 0, 0, on_sweep, d);

	if (rc >= 0)
		rc = sd_event_source_set_enabled(d->sweep, SD_EVENT_OFF);
	if (rc < 0)
		return rc;
	d->pairs.sweep_soon = sweep_soon;
	d->pairs.arg = d;
	return 0;
}

void sweep_close(struct daemon *d)
{
	d->pairs.sweep_soon = NULL;
	d->sweep = sd_event_source_disable_unref(d->sweep);
}
