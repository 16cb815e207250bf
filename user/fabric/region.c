// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Opening and closing a region, and the options that all providers of regions have; see region.h. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "region_priv.h"

#define MAX_OPTIONS 32
#define LEASE_MS    3000
#define POLL_US	    100

static const struct region_dev_ops no_ops;

#ifdef REGION_TEST
extern __u64 region_test_pid;
extern struct ism_fabric *region_test_opening; /* so that it can die before it is open */
#endif

/* ---------------------------------------------------------------- options */

static int check_names(const struct region_dev *dev, const char *options, struct ism_err *err)
{
	const char *known[MAX_OPTIONS] = { "peer",     "bell",	"direct", "poll",
					   "coherent", "lease", "pnetid", "max-dmbs" };
	size_t n = 8;

	for (const char *const *o = dev->options; o && *o && n < MAX_OPTIONS - 1; o++)
		known[n++] = *o;
	return ism_fabric_check_options(options, known, err);
}

/* "udp:ADDR:PORT", an IPv6 address in brackets. */
static int parse_bell(struct region *r, const char *text)
{
	char addr[INET6_ADDRSTRLEN + 8] = "::ffff:", *to = addr + 7;
	struct in6_addr bytes;
	const char *port = strrchr(text, ':');
	size_t len;

	if (strncmp(text, "udp:", 4) || port < text + 4)
		return -EINVAL;
	text += 4;
	len = port - text;
	if (*text == '[' && len > 2 && text[len - 1] == ']') {
		to = addr;
		text++;
		len -= 2;
	}
	if (len >= sizeof(addr) - 7)
		return -EINVAL;
	memcpy(to, text, len);
	to[len] = 0;
	if (inet_pton(AF_INET6, addr, &bytes) != 1)
		return -EINVAL;
	region_words(r->udp_addr, &bytes);
	return fabric_number(port + 1, 1, 65535, &r->udp_port);
}

static int parse_direct(struct ism_fabric_info *info, char *text)
{
	char *save = NULL;
	__u64 uid;

	info->n_direct = 0;
	if (!strcmp(text, "all")) {
		info->n_direct = ISM_FABRIC_DIRECT_ALL;
		return 0;
	}
	for (char *t = strtok_r(text, ":", &save); t; t = strtok_r(NULL, ":", &save)) {
		if (info->n_direct == ISM_FABRIC_MAX_DIRECT ||
		    fabric_number(t, 0, 0xfffffffe, &uid))
			return -EINVAL;
		info->direct[info->n_direct++] = uid;
	}
	return info->n_direct ? 0 : -EINVAL;
}

/* An option that is a number. */
static int take_number(const char *options, const char *name, __u64 min, __u64 max, __u64 *ret,
		       struct ism_err *err)
{
	char value[24];
	int rc = ism_fabric_option(options, name, value, sizeof(value));

	if (rc < 0 || (rc && fabric_number(value, min, max, ret)))
		return ism_err_set(err, -EINVAL, "%s: expected %llu to %llu", name,
				   (unsigned long long)min, (unsigned long long)max);
	return 0;
}

static int take_coherent(struct region *r, const char *options, struct ism_err *err)
{
	char value[8];
	int rc = ism_fabric_option(options, "coherent", value, sizeof(value));

	r->mem.is_coherent = r->dev.is_coherent;
	if (rc < 0 || (rc && strcmp(value, "yes") && strcmp(value, "no")))
		return ism_err_set(err, -EINVAL, "coherent: expected yes or no");
	if (rc)
		r->mem.is_coherent = !strcmp(value, "yes");
	r->mem.has_opt = region_has_clflushopt();
	if (!r->mem.is_coherent && !REGION_CAN_FLUSH)
		return ism_err_set(err, -EOPNOTSUPP,
				   "coherent=no: caches cannot be flushed on this architecture");
	return 0;
}

static int take_words(struct region *r, const char *options, struct ism_err *err)
{
	struct ism_fabric_info *info = &r->base.info;
	char value[128];
	int rc = ism_fabric_option(options, "pnetid", info->pnetid, sizeof(info->pnetid));

	if (rc < 0 || (rc && !info->pnetid[0]))
		return ism_err_set(err, -EINVAL, "pnetid: expected 1 to %d characters",
				   ISM_PNETID_LEN);
	rc = ism_fabric_option(options, "bell", value, sizeof(value));
	if (rc < 0 || (rc && parse_bell(r, value)))
		return ism_err_set(err, -EINVAL,
				   "bell: expected udp:ADDRESS:PORT, IPv6 in brackets");
	rc = ism_fabric_option(options, "direct", value, sizeof(value));
	if (rc < 0 || (rc && parse_direct(info, value)))
		return ism_err_set(err, -EINVAL, "direct: expected all, or up to %d UIDs",
				   ISM_FABRIC_MAX_DIRECT);
	return 0;
}

static int parse(struct region *r, const char *options, __u64 *ret_peer, __u64 *ret_dmbs,
		 struct ism_err *err)
{
	int rc = check_names(&r->dev, options, err);

	r->lease = LEASE_MS;
	r->poll_us = POLL_US;
	r->base.info.n_direct = 1; /* root */
	if (!rc)
		rc = take_words(r, options, err);
	if (!rc)
		rc = take_coherent(r, options, err);
	if (!rc)
		rc = take_number(options, "lease", ISM_REGION_MIN_LEASE, ISM_REGION_MAX_LEASE,
				 &r->lease, err);
	if (!rc)
		rc = take_number(options, "poll", 1, REGION_TICK_MS * 1000, &r->poll_us, err);
	if (!rc)
		rc = take_number(options, "peer", 0, ISM_REGION_MAX_PEERS - 1, ret_peer, err);
	if (!rc)
		rc = take_number(options, "max-dmbs", 1, ISM_REGION_MAX_DMBS, ret_dmbs, err);
	return rc;
}

/* ---------------------------------------------------------------- open and close */

static void describe(struct region *r, const struct ism_region_super *s, __u64 max_dmbs)
{
	struct ism_fabric_info *info = &r->base.info;

	memcpy(&info->uuid, s->uuid, sizeof(info->uuid));
	info->fabric_id = info->uuid.b[0] << 16 | info->uuid.b[1] << 8 | info->uuid.b[2];
	info->max_dmbs = max_dmbs && max_dmbs < r->l.dmbs ? max_dmbs : r->l.dmbs;
	info->max_dmb_len = r->l.arena;
	info->caps = ISM_FABRIC_DOORBELL | ISM_FABRIC_BY_TOKEN;
	if (!r->mem.is_coherent)
		return;
	info->caps |= ISM_FABRIC_COHERENT | ISM_FABRIC_ATTACH;
	if (r->dev.fd >= 0 && r->dev.align <= r->l.unit)
		info->caps |= ISM_FABRIC_EXPORT | ISM_FABRIC_PERSISTS | ISM_FABRIC_WHOLE;
}

/* A device that cannot be opened again is exported as it is: to users who may be trusted with it. */
static int open_read_fd(struct region *r)
{
	if (r->dev.fd < 0)
		return 0;
	r->read_fd = fabric_reopen(r->dev.fd, O_RDONLY);
	if (r->read_fd < 0)
		r->read_fd = fcntl(r->dev.fd, F_DUPFD_CLOEXEC, 0);
	return r->read_fd < 0 ? -errno : 0;
}

static int make_tables(struct region *r)
{
	r->own = calloc(r->l.dmbs, sizeof(*r->own));
	r->n_held_of = calloc(r->l.dmbs, sizeof(*r->n_held_of));
	r->att = calloc(r->l.dmbs, sizeof(*r->att));
	r->alloc.len = r->l.arena;
	r->alloc.unit = r->l.unit;
	return r->own && r->n_held_of && r->att ? 0 : -ENOMEM;
}

/* Everything that only takes and frees what is this process's. */
static void free_region(struct region *r)
{
	for (__u64 i = 0; r->own && i < r->l.dmbs; i++) {
		if (r->own[i] && r->own[i]->bell_fd >= 0)
			close(r->own[i]->bell_fd);
		free(r->own[i]);
	}
	for (unsigned int i = 0; i < ISM_REGION_MAX_PEERS; i++)
		free(r->view[i].known);
	free(r->own);
	free(r->n_held_of);
	free(r->held);
	free(r->att);
	region_alloc_free(&r->alloc);
	region_close_events(r);
	if (r->read_fd >= 0)
		close(r->read_fd);
	if (r->dev.ops->close)
		r->dev.ops->close(&r->dev);
	if (r->dev.lock_fd >= 0)
		close(r->dev.lock_fd);
	free(r);
}

static int identify(struct region *r)
{
#ifdef REGION_TEST
	r->pid = region_test_pid;
	region_test_opening = &r->base;
#else
	r->pid = getpid();
#endif
	r->start = region_process_start(r->pid);
	return region_host_id(r->host);
}

static int join(struct region *r, const char *options, struct ism_err *err)
{
	__u64 peer = ISM_REGION_MAX_PEERS, max_dmbs = 0;
	struct ism_region_super super;
	int rc = parse(r, options, &peer, &max_dmbs, err);

	if (!rc)
		rc = region_check_super(&r->mem, &super, &r->l, err);
	if (!rc)
		rc = make_tables(r);
	if (!rc)
		rc = identify(r);
	if (!rc)
		rc = open_read_fd(r);
	if (!rc)
		rc = region_open_events(r, err);
	if (rc)
		return rc;
	describe(r, &super, max_dmbs);
	rc = region_claim(r, peer < ISM_REGION_MAX_PEERS ? (int)peer : -1, err);
	if (rc)
		return rc;
	region_sync(r);
	region_find_attached(r);
	rc = region_find_orphans(r);
	region_sync(r);
	return rc;
}

int region_open(const struct region_dev *dev, const char *options, struct ism_fabric **ret,
		struct ism_err *err)
{
	struct region *r = calloc(1, sizeof(*r));
	struct region_dev copy = *dev;
	int rc;

	if (!r) {
		if (dev->ops && dev->ops->close)
			dev->ops->close(&copy);
		if (dev->lock_fd >= 0)
			close(dev->lock_fd);
		return -ENOMEM;
	}
	r->dev = copy;
	if (!r->dev.ops)
		r->dev.ops = &no_ops;
	r->mem.base = dev->base;
	r->mem.len = dev->len;
	r->epoll_fd = r->timer_fd = r->more_fd = r->udp_fd = r->read_fd = -1;
	rc = join(r, options, err);
	if (rc) {
		free_region(r);
		return rc;
	}
	*ret = &r->base;
	return 0;
}

/* What programs still have stays as it is, for the next process of this host. */
void region_close(struct ism_fabric *f)
{
	struct region *r = region_of(f);
	unsigned int left = region_drop_attached(r);

	left += region_drop_own(r);
	region_leave(r, left > 0);
	free_region(r);
}

#ifdef REGION_TEST
/* The process is gone at this point: nothing is stored any more. */
void region_test_die(struct ism_fabric *f)
{
	free_region(region_of(f));
}
#endif
