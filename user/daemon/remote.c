// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The fabrics over which other kernels are reached; see remote.h. */
#define _GNU_SOURCE
#include "remote.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include "announce.h"
#include "daemon.h"
#include "far.h"
#include "log.h"

#define EVENTS 16

/* ---------------------------------------------------------------- who may use it */

static int is_for_all(const struct remote *r)
{
	const struct ism_fabric_info *info = &r->fabric->info;

	return !(info->caps & ISM_FABRIC_WHOLE) || info->n_direct == ISM_FABRIC_DIRECT_ALL;
}

int remote_allows(const struct remote *r, uid_t uid)
{
	const struct ism_fabric_info *info = &r->fabric->info;

	if (is_for_all(r))
		return 1;
	for (__u32 i = 0; i < info->n_direct; i++)
		if (info->direct[i] == uid)
			return 1;
	return 0;
}

/* Programs cannot flush caches as a fabric that is not coherent wants it. */
static int is_for_programs(const struct remote *r)
{
	const __u32 need = ISM_FABRIC_COHERENT | ISM_FABRIC_ATTACH | ISM_FABRIC_EXPORT;

	return (r->fabric->info.caps & need) == need;
}

/* ---------------------------------------------------------------- telling the load */

/* One list for all fabrics: a user counts who may use each of them. */
static void allowed_everywhere(const struct daemon *d, struct ism_announce *a)
{
	const struct remote *one = NULL;

	a->n_direct = d->n_remotes ? ISM_DIRECT_ALL : 0;
	for (unsigned int i = 0; i < d->n_remotes; i++) {
		if (!is_for_programs(d->remotes[i])) {
			a->n_direct = 0;
			return;
		}
		if (!is_for_all(d->remotes[i]))
			one = d->remotes[i];
	}
	if (!one)
		return;
	a->n_direct = 0;
	for (__u32 k = 0; k < one->fabric->info.n_direct; k++) {
		__u32 uid = one->fabric->info.direct[k];
		unsigned int in = 0;

		for (unsigned int i = 0; i < d->n_remotes; i++)
			in += remote_allows(d->remotes[i], uid);
		if (in == d->n_remotes)
			a->direct[a->n_direct++] = uid;
	}
}

static void announce(struct daemon *d)
{
	struct ism_announce a = { .relay = d->relays && d->n_remotes };
	struct ism_err err = {};
	int rc;

	for (unsigned int i = 0; i < d->n_remotes; i++)
		a.fabrics[i] = d->remotes[i]->tag;
	allowed_everywhere(d, &a);
	rc = ism_announce(&a, &err);
	if (rc > 0)
		log_line(LOG_INFO, "the load knows of %u fabrics", d->n_remotes);
	else if (rc && rc != -ENOENT && rc != -EBUSY)
		log_client(LOG_WARNING, "%s", err.text);
}

/* ---------------------------------------------------------------- events */

void remote_event(struct remote *r, const struct ism_event *e)
{
	if (e->type == ISM_EVENT_DMB)
		far_arrived(&r->d->pairs, r, e->token, e->info);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct ism_event events[EVENTS];
	struct remote *r = arg;
	int n = ism_fabric_read_events(r->fabric, events, EVENTS);

	(void)s;
	(void)fd;
	(void)revents;
	if (n < 0)
		log_client(LOG_WARNING, "events of fabric %s: %s", r->fabric->info.spec,
			   strerror(-n));
	for (int i = 0; i < n; i++)
		remote_event(r, &events[i]);
	return 0;
}

/* ---------------------------------------------------------------- life */

_Static_assert(ISM_MAX_DIRECT >= ISM_FABRIC_MAX_DIRECT, "all that a fabric names fit");

static int check_fabric(const struct daemon *d, const struct remote *r, const char *spec,
			struct ism_err *err)
{
	if (d->n_remotes == ISM_MAX_FABRICS)
		return ism_err_set(err, -E2BIG, "fabric %s: at most %d of this kind", spec,
				   ISM_MAX_FABRICS);
	if (remote_by_tag((struct daemon *)d, r->tag))
		return ism_err_set(err, -EEXIST, "fabric %s: opened twice", spec);
	if (ism_dmb_len(ring_far(&d->opt)) > r->fabric->info.max_dmb_len)
		return ism_err_set(err, -E2BIG, "fabric %s: rings of that size do not fit", spec);
	return 0;
}

static int open_sources(struct daemon *d, struct remote *r)
{
	int rc = 0, fd = ism_fabric_event_fd(r->fabric);

	if (fd < 0)
		return fd;
	/* A relay is who reads them first. */
	if (rc >= 0 && !d->relays)
		rc = sd_event_add_io(d->event, &r->io, fd, EPOLLIN, on_io, r);
	return rc < 0 ? rc : 0;
}

int remote_open(struct daemon *d, struct ism_fabric *f, const char *spec, struct ism_err *err)
{
	struct remote *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	r->d = d;
	r->fabric = f;
	r->tag = ism_fabric_tag(&f->info);
	r->index = d->n_remotes + 1;
	rc = check_fabric(d, r, spec, err);
	if (!rc) {
		rc = open_sources(d, r);
		if (rc)
			ism_err_set(err, rc, "fabric %s: %s", spec, strerror(-rc));
	}
	if (rc) {
		sd_event_source_disable_unref(r->io);
		free(r);
		return rc;
	}
	d->remotes[d->n_remotes++] = r;
	return 0;
}

void remotes_close(struct daemon *d)
{
	unsigned int n = d->n_remotes;

	if (!n)
		return;
	d->n_remotes = 0;
	announce(d);
	for (unsigned int i = 0; i < n; i++) {
		sd_event_source_disable_unref(d->remotes[i]->io);
		ism_fabric_close(d->remotes[i]->fabric);
		free(d->remotes[i]);
	}
}

void remotes_tick(struct daemon *d)
{
	if (d->n_remotes)
		announce(d);
}

struct remote *remote_by_tag(struct daemon *d, __u32 tag)
{
	for (unsigned int i = 0; i < d->n_remotes; i++)
		if (d->remotes[i]->tag == tag)
			return d->remotes[i];
	return NULL;
}
