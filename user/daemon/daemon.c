// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The daemon's parts put together, and what it does by itself: poll the load, keep the pool filled. */
#define _GNU_SOURCE
#include "daemon.h"
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <systemd/sd-daemon.h>
#include <ismredir/maps.h>
#include "client.h"
#include "log.h"
#include "lookup.h"
#include "reasons.h"
#include "sweep.h"

#define TICK_US 200000ULL

static void say_status(struct daemon *d, __u32 word)
{
	sd_notifyf(0, "STATUS=load: %s; %u clients, %u connections with rings, %llu kB of memory",
		   ism_word_name(word), d->n_clients, d->pairs.n,
		   (unsigned long long)d->pairs.bytes >> 10);
}

/* Clients leave their rings when the word is not "on": unload waits for that. */
static int on_tick(sd_event_source *s, uint64_t usec, void *arg)
{
	struct daemon *d = arg;
	__u32 word = d->host.page->word, before = word;

	/* What cannot be looked up has not changed: clients would leave their rings for nothing. */
	ism_lookup_word(&word);
	host_set_word(&d->host, word);
	if (word != before)
		log_line(LOG_NOTICE, "load: %s", ism_word_name(word));
	say_status(d, word);
	remotes_tick(d);
	sweep(d);
	clients_tick(d);
	sd_event_source_set_time(s, usec + TICK_US);
	sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	return 0;
}

/* One at a time, with the lowest priority: requests go first. */
static int on_refill(sd_event_source *s, void *arg)
{
	struct daemon *d = arg;
	int rc = ism_fabric_prepare(d->fabric, ism_dmb_len(ring_most(&d->opt)), d->opt.pool);

	for (unsigned int i = 0; !rc && i < d->n_remotes; i++)
		rc = ism_fabric_prepare(d->remotes[i]->fabric, ism_dmb_len(ring_far(&d->opt)),
					d->opt.pool);
	if (rc == -EOPNOTSUPP)
		rc = 0;
	if (rc < 0)
		log_client(LOG_WARNING, "cannot keep DMBs ready: %s", strerror(-rc));
	if (rc <= 0)
		sd_event_source_set_enabled(s, SD_EVENT_OFF);
	return 0;
}

void daemon_refill(struct daemon *d)
{
	sd_event_source_set_enabled(d->refill, SD_EVENT_ON);
}

static int open_sources(struct daemon *d)
{
	uint64_t now;
	int rc = sd_event_now(d->event, CLOCK_MONOTONIC, &now);

	if (rc < 0)
		return rc;
	d->started_us = now;
	rc = sd_event_add_time(d->event, &d->tick, CLOCK_MONOTONIC, now, 0, on_tick, d);
	if (rc >= 0)
		rc = sd_event_add_defer(d->event, &d->refill, on_refill, d);
	if (rc >= 0)
		rc = sd_event_source_set_priority(d->refill, SD_EVENT_PRIORITY_IDLE);
	if (rc >= 0)
		rc = sd_event_source_set_enabled(d->refill, SD_EVENT_ON);
	return rc < 0 ? rc : sweep_open(d);
}

/* Those whose partners are named by their tokens reach other kernels; one is for this kernel alone. */
static int take_fabric(struct daemon *d, struct ism_fabric *f, const char *spec,
		       struct ism_err *err)
{
	if (f->info.caps & ISM_FABRIC_BY_TOKEN)
		return remote_open(d, f, spec, err);
	if (d->fabric)
		return ism_err_set(err, -EEXIST, "fabric %s: %s is for this kernel already", spec,
				   d->fabric->info.spec);
	if (!(f->info.caps & ISM_FABRIC_EXPORT))
		return ism_err_set(err, -EOPNOTSUPP, "fabric %s cannot be handed to programs",
				   spec);
	if (ism_dmb_len(ring_most(&d->opt)) > f->info.max_dmb_len)
		return ism_err_set(err, -E2BIG, "fabric %s: rings of that size do not fit", spec);
	d->fabric = f;
	return 0;
}

static int open_fabric(struct daemon *d, const char *spec, struct ism_err *err)
{
	struct ism_fabric *f;
	int rc = ism_fabric_open(spec, &f, err);

	if (rc)
		return rc;
	rc = take_fabric(d, f, spec, err);
	if (rc)
		ism_fabric_close(f);
	return rc;
}

static int open_fabrics(struct daemon *d, struct ism_err *err)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < d->opt.n_fabrics; i++)
		rc = open_fabric(d, d->opt.fabrics[i], err);
	return rc || d->fabric ? rc : open_fabric(d, "memfd:", err);
}

static int open_parts(struct daemon *d, struct ism_err *err)
{
	int rc = sd_event_new(&d->event);

	if (rc < 0)
		return rc;
	d->closer = closer_new();
	if (!d->closer)
		return -ENOMEM;
	if (getrandom(&d->instance, sizeof(d->instance), 0) != sizeof(d->instance))
		return -EIO;
	rc = open_fabrics(d, err);
	return rc ? rc : host_open(&d->host, d->instance);
}

/* What comes from another kernel is worth looking for as long as an interrupt and two wake-ups take. */
#define RELAY_SPIN_NS 500000

static void on_relay_event(void *arg, struct ism_fabric *f, const struct ism_event *e)
{
	struct daemon *d = arg;

	for (unsigned int i = 0; i < d->n_remotes; i++)
		if (d->remotes[i]->fabric == f)
			remote_event(d->remotes[i], e);
}

static int open_relay(struct daemon *d, struct ism_err *err)
{
	struct relay_config cfg = { .ring_size = ring_far(&d->opt),
				    .spin_ns = RELAY_SPIN_NS,
				    .crowd = d->opt.crowd,
				    .n_fabrics = d->n_remotes,
				    .on_event = on_relay_event,
				    .arg = d };

	for (unsigned int i = 0; i < d->n_remotes; i++) {
		cfg.fabrics[i] = d->remotes[i]->fabric;
		cfg.tags[i] = d->remotes[i]->tag;
	}
	if (!d->n_remotes)
		return ism_err_set(err, -EINVAL,
				   "--relay: needs a fabric that reaches other kernels");
	return relay_new(&d->relay, &cfg, err);
}

int daemon_init(struct daemon *d, const struct options *opt, struct ism_err *err)
{
	int rc;

	memset(d, 0, sizeof(*d));
	d->opt = *opt;
	d->host.fd = -1;
	d->verify = verify_socket;
	d->relays = opt->relay;
	rc = open_parts(d, err);
	if (!rc)
		rc = open_sources(d);
	if (!rc && d->relays)
		rc = open_relay(d, err);
	if (rc)
		return ism_err_set(err, rc, "%s", strerror(-rc));
	d->pairs.fabric = d->fabric;
	d->pairs.ring_size = opt->ring_size;
	d->pairs.far_ring_size = ring_far(opt);
	d->pairs.limit_total = opt->limit_total;
	d->pairs.limit_uid = opt->limit_uid;
	return 0;
}

void daemon_free(struct daemon *d)
{
	d->is_ending = 1;
	relay_free(d->relay);
	sweep_close(d);
	clients_free(d);
	pairs_clear(&d->pairs);
	remotes_close(d);
	ism_fabric_close(d->fabric);
	host_close(&d->host);
	sd_event_source_disable_unref(d->tick);
	sd_event_source_disable_unref(d->refill);
	sd_event_unref(d->event);
	if (d->closer)
		closer_free(d->closer);
	accounts_sweep(&d->accounts);
}
