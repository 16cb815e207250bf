// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Looking into a running load; see inspect.h. Listeners are in listeners.c. */
#define _GNU_SOURCE
#include "inspect.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <ismredir/relay.h>
#include "pins.h"
#include "view.skel.h"

/* ---------------------------------------------------------------- connections */

/* At a time; a bucket of the map has to fit. */
#define BATCH 512

static int show_one(int prog, __u64 token, int (*fn)(const struct ism_conn_view *v, void *arg),
		    void *arg)
{
	struct ism_view_arg a = { .token = token };
	LIBBPF_OPTS(bpf_test_run_opts, o, .ctx_in = &a, .ctx_size_in = sizeof(a));
	int rc = bpf_prog_test_run_opts(prog, &o) ? -errno : 0;

	for (__u32 i = 0; !rc && i < a.n; i++)
		rc = fn(&a.view[i], arg);
	return rc;
}

/*
 * By batches: they take whole buckets, so that no record is met twice or left out because others come and go,
 * as it would be by bpf_map_get_next_key() (kernel/bpf/hashtab.c __htab_map_lookup_and_delete_batch()).
 */
static int each_conn(int map, int prog, __u64 *keys, struct ism_conn *values,
		     int (*fn)(const struct ism_conn_view *v, void *arg), void *arg)
{
	__u32 at = 0, n;
	int first = 1, last, rc = 0;

	do {
		n = BATCH;
		last = bpf_map_lookup_batch(map, first ? NULL : &at, &at, keys, values, &n, NULL);
		if (last && errno != ENOENT)
			return -errno;
		for (__u32 i = 0; !rc && i < n; i++)
			rc = show_one(prog, keys[i], fn, arg);
		first = 0;
	} while (!rc && !last);
	return rc;
}

static int show_conns(const struct view_bpf *skel,
		      int (*fn)(const struct ism_conn_view *v, void *arg), void *arg)
{
	struct ism_conn *values = calloc(BATCH, sizeof(*values));
	__u64 *keys = calloc(BATCH, sizeof(*keys));
	int rc = -ENOMEM;

	if (values && keys)
		rc = each_conn(bpf_map__fd(skel->maps.conns), bpf_program__fd(skel->progs.ism_view),
			       keys, values, fn, arg);
	free(values);
	free(keys);
	return rc;
}

int ism_inspect_conns(int (*fn)(const struct ism_conn_view *v, void *arg), void *arg,
		      struct ism_err *err)
{
	struct view_bpf *skel = view_bpf__open();
	int rc;

	if (!skel)
		return ism_err_set(err, -errno, "inspect programs: %s", strerror(errno));
	rc = ism_pins_reuse_maps(skel->obj, err);
	if (rc)
		goto out;
	rc = view_bpf__load(skel);
	if (rc) {
		ism_err_set(err, rc, "inspect programs: %s; see -vv", strerror(-rc));
		goto out;
	}
	rc = show_conns(skel, fn, arg);
	if (rc < 0)
		ism_err_set(err, rc, "listing connections: %s", strerror(-rc));
out:
	view_bpf__destroy(skel);
	return rc;
}

/* ---------------------------------------------------------------- single maps */

static int open_map(const char *name, struct ism_err *err)
{
	int fd = ism_pins_open_map(name);

	if (fd == -ENOENT)
		return ism_err_set(err, fd, "not loaded (no %s/%s)", ism_pin_dir(), name);
	if (fd < 0)
		return ism_err_set(err, fd, "%s/%s: %s", ism_pin_dir(), name, strerror(-fd));
	return fd;
}

int ism_inspect_ctl(struct ism_ctl *ret, struct ism_err *err)
{
	__u32 zero = 0;
	int fd = open_map("ctl", err), rc;

	if (fd < 0)
		return fd;
	rc = bpf_map_lookup_elem(fd, &zero, ret) ? -errno : 0;
	close(fd);
	if (rc)
		return ism_err_set(err, rc, "map ctl: %s", strerror(-rc));
	return 0;
}

int ism_inspect_set_word(__u32 word, struct ism_err *err)
{
	struct ism_ctl ctl;
	__u32 zero = 0;
	int fd = open_map("ctl", err), rc;

	if (fd < 0)
		return fd;
	rc = bpf_map_lookup_elem(fd, &zero, &ctl) ? -errno : 0;
	if (!rc) {
		ctl.word = word;
		rc = bpf_map_update_elem(fd, &zero, &ctl, BPF_EXIST) ? -errno : 0;
	}
	close(fd);
	if (rc)
		return ism_err_set(err, rc, "map ctl: %s", strerror(-rc));
	/* Programs read the word inside an RCU section: MEMBARRIER_CMD_GLOBAL is synchronize_rcu(). */
	if (syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		usleep(100 * 1000);
	return 0;
}

/* Sum an array of per-CPU __u64 blocks. */
static int sum_percpu(const char *map, __u32 key, __u64 *ret, size_t words, struct ism_err *err)
{
	int cpus = libbpf_num_possible_cpus(), fd, rc;
	__u64 *v;

	if (cpus < 0)
		return ism_err_set(err, cpus, "number of CPUs: %s", strerror(-cpus));
	fd = open_map(map, err);
	if (fd < 0)
		return fd;
	v = calloc(cpus, words * sizeof(*v));
	rc = !v ? -ENOMEM : bpf_map_lookup_elem(fd, &key, v) ? -errno : 0;
	memset(ret, 0, words * sizeof(*ret));
	for (size_t i = 0; !rc && i < cpus * words; i++)
		ret[i % words] += v[i];
	free(v);
	close(fd);
	if (rc)
		return ism_err_set(err, rc, "map %s: %s", map, strerror(-rc));
	return 0;
}

int ism_inspect_stats(struct ism_stats *ret, struct ism_err *err)
{
	_Static_assert(sizeof(*ret) % sizeof(__u64) == 0, "only counters");
	return sum_percpu("stats", 0, (__u64 *)ret, sizeof(*ret) / sizeof(__u64), err);
}

int ism_inspect_reasons(__u64 *ret, struct ism_err *err)
{
	int rc = 0;

	for (__u32 i = 0; !rc && i < ISM_REASON_SLOTS; i++)
		rc = sum_percpu("reasons", i, &ret[i], 1, err);
	return rc;
}

static int walk_map(int fd, size_t key_size, size_t value_size,
		    int (*fn)(const void *key, const void *value, void *arg), void *arg)
{
	void *key = malloc(key_size), *next = malloc(key_size), *value = malloc(value_size);
	void *prev = NULL;
	int rc = key && next && value ? 0 : -ENOMEM;

	while (!rc && !bpf_map_get_next_key(fd, prev, next)) {
		if (!bpf_map_lookup_elem(fd, next, value))
			rc = fn(next, value, arg);
		memcpy(key, next, key_size);
		prev = key;
	}
	free(key);
	free(next);
	free(value);
	return rc;
}

int ism_inspect_map(const char *name, size_t key_size, size_t value_size,
		    int (*fn)(const void *key, const void *value, void *arg), void *arg,
		    struct ism_err *err)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	int fd = open_map(name, err), rc;

	if (fd < 0)
		return fd;
	rc = bpf_obj_get_info_by_fd(fd, &info, &len) ? -errno : 0;
	if (!rc && (info.key_size != key_size || info.value_size != value_size))
		rc = ism_err_set(err, -EPROTO,
				 "map %s has another layout: use the ismredir that "
				 "loaded it, or load --replace",
				 name);
	if (!rc)
		rc = walk_map(fd, key_size, value_size, fn, arg);
	close(fd);
	if (rc < 0)
		ism_err_set(err, rc, "map %s: %s", name, strerror(-rc));
	return rc;
}

/* ---------------------------------------------------------------- links */

struct cgroup_walk {
	int (*fn)(__u64 id, const char *path, void *arg);
	void *arg;
};

static int one_link(const char *name, void *arg)
{
	struct cgroup_walk *w = arg;
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);
	char path[512];
	int fd, rc;

	if (strncmp(name, "link_sockops_", 13))
		return 0;
	fd = ism_pins_open_link(name);
	if (fd < 0)
		return 0;
	rc = bpf_obj_get_info_by_fd(fd, &info, &len) ? -errno : 0;
	close(fd);
	if (rc)
		return rc;
	/* The kernel detaches a link and forgets the id when the cgroup is removed. */
	if (!info.cgroup.cgroup_id || ism_cgroup_path(info.cgroup.cgroup_id, path, sizeof(path)))
		return w->fn(info.cgroup.cgroup_id, NULL, w->arg);
	return w->fn(info.cgroup.cgroup_id, path, w->arg);
}

struct held {
	int conns; /* the map: what a slot says of a socket is only as new as the last look of an ismredird */
	unsigned int n;
};

static int count_held(const void *key, const void *value, void *arg)
{
	const struct ism_relay *r = value;
	struct held *h = arg;
	struct ism_conn c;

	(void)key;
	h->n += r->token && r->owner && r->state == ISM_RELAY_DIRECT && r->held && !r->fin_ok &&
		!bpf_map_lookup_elem(h->conns, &r->token, &c);
	return 0;
}

int ism_inspect_held(unsigned int *ret, struct ism_err *err)
{
	struct held h = { .conns = open_map("conns", err) };
	int rc;

	if (h.conns < 0)
		return h.conns;
	rc = ism_inspect_map("relays", sizeof(__u32), sizeof(struct ism_relay), count_held, &h,
			     err);
	close(h.conns);
	*ret = h.n;
	return rc;
}

int ism_inspect_cgroups(int (*fn)(__u64 id, const char *path, void *arg), void *arg,
			struct ism_err *err)
{
	struct cgroup_walk w = { fn, arg };
	int rc = ism_pins_each_link(one_link, &w);

	if (rc < 0)
		return ism_err_set(err, rc, "pinned links: %s", strerror(-rc));
	return rc;
}
