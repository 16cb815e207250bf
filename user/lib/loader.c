// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Load and replace; see loader.h. Unload is in unload.c.
 *
 * Everything hangs on pins, so the loader's end changes nothing. The order makes a kill at any point
 * harmless: the word in ctl is OFF, and programs obey it, until all links are pinned; loaded_ns is
 * set last of all and tells a complete load from an interrupted one.
 */
#define _GNU_SOURCE
#include "loader.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "inspect.h"
#include "pins.h"
#include "ismredir.skel.h"

int ism_loader_privileges(struct ism_err *err)
{
	static const int need[] = { CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYSLOG };
	size_t n = sizeof(need) / sizeof(need[0]);

	for (size_t i = 0; i < n; i++)
		if (!capng_have_capability(CAPNG_EFFECTIVE, need[i]))
			return ism_err_set(
				err, -EPERM,
				"not permitted: run as root, or with CAP_BPF, CAP_PERFMON, "
				"CAP_NET_ADMIN and CAP_SYSLOG (kernel symbols)");
	return 0;
}

/* ---------------------------------------------------------------- pieces */

/* Before 5.11 map memory counted against RLIMIT_MEMLOCK. */
static void raise_memlock(void)
{
	struct rlimit r = { RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_MEMLOCK, &r);
}

int ism_loader_open(const struct ism_policy *p, struct ismredir_bpf **ret, struct ism_err *err)
{
	struct ismredir_bpf *skel;
	__u64 key[2];

	raise_memlock();
	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		return ism_err_set(err, -EIO, "getrandom: %s", strerror(errno));
	skel = ismredir_bpf__open();
	if (!skel)
		return ism_err_set(err, -errno, "BPF object: %s; see -vv", strerror(errno));
	skel->rodata->sip_key[0] = key[0];
	skel->rodata->sip_key[1] = key[1];
	bpf_map__set_max_entries(skel->maps.conns, p->max_conns);
	bpf_map__set_max_entries(skel->maps.socks, p->max_conns);
	bpf_map__set_max_entries(skel->maps.tokens, p->max_conns);
	*ret = skel;
	return 0;
}

int ism_loader_fill_maps(int rules_fd, int ctl_fd, const struct ism_policy *p, __u32 word,
			 struct ism_err *err)
{
	struct ism_ctl ctl = p->ctl, old;
	__u32 zero = 0;

	/* While rules change, new connections stay on TCP. */
	if (!bpf_map_lookup_elem(ctl_fd, &zero, &old) && old.format == ISM_MAPS_FORMAT) {
		ctl.epoch = old.epoch + 1;
		ctl.loaded_ns = old.loaded_ns;
		/* what a running ismredird has said */
		ctl.relay = old.relay;
		ctl.n_direct = old.n_direct;
		memcpy(ctl.fabrics, old.fabrics, sizeof(ctl.fabrics));
		memcpy(ctl.direct, old.direct, sizeof(ctl.direct));
		memcpy(ctl.key, old.key, sizeof(ctl.key));
		old.n_rules = 0;
		old.default_plane = ISM_PLANE_TCP;
		bpf_map_update_elem(ctl_fd, &zero, &old, BPF_ANY);
	}
	for (__u32 i = 0; i < p->n_rules; i++)
		if (bpf_map_update_elem(rules_fd, &i, &p->rules[i], BPF_ANY))
			return ism_err_set(err, -errno, "map rules: %s", strerror(errno));
	ctl.word = word;
	if (bpf_map_update_elem(ctl_fd, &zero, &ctl, BPF_ANY))
		return ism_err_set(err, -errno, "map ctl: %s", strerror(errno));
	return 0;
}

int ism_loader_attach_sockmap(int prog_fd, int map_fd, struct ism_err *err)
{
	/* bpf_program__attach_sockmap() is in libbpf since 1.5; the link itself in Linux since 6.10. */
	int fd = bpf_link_create(prog_fd, map_fd, BPF_SK_MSG_VERDICT, NULL);

	if (fd >= 0)
		return fd;
	if (bpf_prog_attach(prog_fd, map_fd, BPF_SK_MSG_VERDICT, 0))
		return ism_err_set(err, -errno, "attach sk_msg to the sockhash: %s",
				   strerror(errno));
	return -EOPNOTSUPP;
}

int ism_loader_attach_cgroup(int prog_fd, const struct ism_cgroup *cg, int type,
			     struct ism_err *err)
{
	int dir = open(cg->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd, saved;

	if (dir < 0)
		return ism_err_set(err, -errno, "cgroup %s: %s", cg->path, strerror(errno));
	fd = bpf_link_create(prog_fd, dir, type, NULL);
	saved = errno;
	close(dir);
	if (fd < 0)
		return ism_err_set(err, -saved, "attach to cgroup %s: %s%s", cg->path,
				   strerror(saved),
				   saved == EPERM ? "; a program attached there without "
						    "BPF_F_ALLOW_MULTI keeps others out"
						  : "");
	return fd;
}

static int pin_fd(int fd, const char *name, struct ism_err *err)
{
	char path[PATH_MAX];
	int rc = ism_pin_path(path, sizeof(path), name);

	if (!rc && bpf_obj_pin(fd, path))
		rc = -errno;
	if (rc)
		return ism_err_set(err, rc, "pin %s: %s", path, strerror(-rc));
	return 0;
}

static void link_name(char *buf, size_t len, const char *what, __u64 cgroup_id)
{
	snprintf(buf, len, "link_%s_%llu", what, (unsigned long long)cgroup_id);
}

/* ---------------------------------------------------------------- links */

/* Update the pinned link of that name to the program, or create and pin it. */
static int place_cgroup_link(int prog_fd, const struct ism_cgroup *cg, const char *what, int type,
			     struct ism_err *err)
{
	char name[64];
	int fd, rc;

	link_name(name, sizeof(name), what, cg->id);
	fd = ism_pins_open_link(name);
	if (fd >= 0) {
		rc = bpf_link_update(fd, prog_fd, NULL) ? -errno : 0;
		close(fd);
		if (rc)
			return ism_err_set(err, rc, "replace the program of %s: %s", name,
					   strerror(-rc));
		return 0;
	}
	fd = ism_loader_attach_cgroup(prog_fd, cg, type, err);
	if (fd < 0)
		return fd;
	rc = pin_fd(fd, name, err);
	close(fd);
	return rc;
}

static int place_sockmap_link(int prog_fd, int map_fd, int *ret_link, struct ism_err *err)
{
	int fd = ism_pins_open_link("link_skmsg"), rc;

	*ret_link = 1;
	if (fd >= 0) {
		rc = bpf_link_update(fd, prog_fd, NULL) ? -errno : 0;
		close(fd);
		if (rc)
			return ism_err_set(err, rc, "replace the sk_msg program: %s",
					   strerror(-rc));
		return 0;
	}
	fd = ism_loader_attach_sockmap(prog_fd, map_fd, err);
	if (fd == -EOPNOTSUPP) {
		*ret_link = 0;
		return 0;
	}
	if (fd < 0)
		return fd;
	rc = pin_fd(fd, "link_skmsg", err);
	close(fd);
	return rc;
}

/*
 * The hook on setsockopt() looks after sockets on the skmsg plane. Where none can be it would cost each
 * setsockopt() in the cgroup a quarter of a microsecond for nothing: most of what a load costs short connections.
 * Connections of the load that is replaced may still be there, though.
 */
static int place_sockopt(struct ismredir_bpf *skel, const struct ism_policy *p,
			 const struct ism_cgroup *cg, struct ism_err *err)
{
	char name[64];
	int fd;

	link_name(name, sizeof(name), "sockopt", cg->id);
	fd = ism_pins_open_link(name);
	if (fd >= 0)
		close(fd);
	else if (!ism_policy_redirects(p))
		return 0;
	return place_cgroup_link(bpf_program__fd(skel->progs.ism_sockopt), cg, "sockopt",
				 BPF_CGROUP_SETSOCKOPT, err);
}

/* sk_msg and the sockopt hooks come before the handshake that feeds them. */
static int place_links(struct ismredir_bpf *skel, const struct ism_policy *p, int *ret_link,
		       struct ism_err *err)
{
	int rc = place_sockmap_link(bpf_program__fd(skel->progs.ism_redirect),
				    bpf_map__fd(skel->maps.socks), ret_link, err);

	for (unsigned int i = 0; !rc && i < p->n_cgroups; i++)
		rc = place_sockopt(skel, p, &p->cgroups[i], err);
	for (unsigned int i = 0; !rc && i < p->n_cgroups; i++)
		rc = place_cgroup_link(bpf_program__fd(skel->progs.ism_sockinfo), &p->cgroups[i],
				       "sockinfo", BPF_CGROUP_GETSOCKOPT, err);
	for (unsigned int i = 0; !rc && i < p->n_cgroups; i++)
		rc = place_cgroup_link(bpf_program__fd(skel->progs.ism_handshake), &p->cgroups[i],
				       "sockops", BPF_CGROUP_SOCK_OPS, err);
	return rc;
}

/* After a replace: links of cgroups that are no longer wanted. */
static int drop_stale(const char *name, void *arg)
{
	const struct ism_policy *p = arg;
	unsigned long long id;

	if (sscanf(name, "link_sockops_%llu", &id) != 1 &&
	    sscanf(name, "link_sockopt_%llu", &id) != 1 &&
	    sscanf(name, "link_sockinfo_%llu", &id) != 1)
		return 0;
	for (unsigned int i = 0; i < p->n_cgroups; i++)
		if (p->cgroups[i].id == id)
			return 0;
	return ism_pins_remove(name);
}

/* ---------------------------------------------------------------- load */

static __u64 boot_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Where a replace finds it. */
static int keep_key(int ctl_fd, const volatile __u64 key[2], struct ism_err *err)
{
	struct ism_ctl ctl = { .format = ISM_MAPS_FORMAT, .key = { key[0], key[1] } };
	__u32 zero = 0;

	if (bpf_map_update_elem(ctl_fd, &zero, &ctl, BPF_ANY))
		return ism_err_set(err, -errno, "map ctl: %s", strerror(errno));
	return 0;
}

/* The records of the load that is replaced go by its key. */
static int take_key(struct ismredir_bpf *skel, struct ism_err *err)
{
	struct ism_ctl ctl;
	int rc = ism_inspect_ctl(&ctl, err);

	if (rc)
		return rc;
	skel->rodata->sip_key[0] = ctl.key[0];
	skel->rodata->sip_key[1] = ctl.key[1];
	return 0;
}

static int mark_complete(int ctl_fd, struct ism_err *err)
{
	struct ism_ctl ctl;
	__u32 zero = 0;

	if (bpf_map_lookup_elem(ctl_fd, &zero, &ctl))
		return ism_err_set(err, -errno, "map ctl: %s", strerror(errno));
	ctl.loaded_ns = boot_ns();
	if (bpf_map_update_elem(ctl_fd, &zero, &ctl, BPF_ANY))
		return ism_err_set(err, -errno, "map ctl: %s", strerror(errno));
	return 0;
}

static int load_locked(const struct ism_policy *p, int reuse, struct ism_load_result *ret,
		       struct ism_err *err)
{
	struct ismredir_bpf *skel;
	int rc = ism_loader_open(p, &skel, err), ctl_fd;

	if (rc)
		return rc;
	if (reuse)
		rc = ism_pins_reuse_maps(skel->obj, err);
	if (!rc && reuse)
		rc = take_key(skel, err);
	if (!rc && reuse && p->max_conns_set &&
	    bpf_map__max_entries(skel->maps.conns) != p->max_conns)
		rc = ism_err_set(err, -EINVAL,
				 "max-conns of a running load is %u and cannot change: "
				 "`ismredir unload` first",
				 bpf_map__max_entries(skel->maps.conns));
	if (rc)
		goto out;
	rc = ismredir_bpf__load(skel);
	if (rc) {
		ism_err_set(err, rc,
			    "the kernel refused the BPF programs: %s; see `ismredir check` "
			    "and -vv",
			    strerror(-rc));
		goto out;
	}
	ctl_fd = bpf_map__fd(skel->maps.ctl);
	if (!reuse) {
		rc = keep_key(ctl_fd, skel->rodata->sip_key, err);
		if (!rc)
			rc = ism_loader_fill_maps(bpf_map__fd(skel->maps.rules), ctl_fd, p,
						  ISM_WORD_OFF, err);
		if (!rc)
			rc = ism_pins_pin_maps(skel->obj, err);
	}
	if (!rc)
		rc = place_links(skel, p, &ret->sockmap_link, err);
	if (!rc)
		rc = ism_loader_fill_maps(bpf_map__fd(skel->maps.rules), ctl_fd, p, ISM_WORD_ON,
					  err);
	if (!rc && reuse)
		ism_pins_each_link(drop_stale, (void *)p);
	if (!rc)
		rc = ism_listeners_arm(p->cgroups, p->n_cgroups, &ret->armed, &ret->refused, err);
	if (!rc)
		rc = mark_complete(ctl_fd, err);
out:
	ismredir_bpf__destroy(skel);
	return rc;
}

/* What lies in the pin directory: 0 nothing usable, 1 an interrupted load, 2 a complete one. */
static int find_earlier(struct ism_ctl *ctl)
{
	if (ism_inspect_ctl(ctl, NULL))
		return 0;
	return ctl->loaded_ns ? 2 : 1;
}

static int check_earlier(int replace, int *ret_reuse, struct ism_err *err)
{
	struct ism_ctl ctl;
	int earlier = find_earlier(&ctl);

	*ret_reuse = 0;
	if (earlier == 2 && !replace)
		return ism_err_set(err, -EEXIST,
				   "already loaded%s: `ismredir load --replace` changes it, "
				   "`ismredir unload` takes it away",
				   ctl.word == ISM_WORD_DRAIN ? " (draining)" : "");
	if (earlier && ctl.format != ISM_MAPS_FORMAT)
		return ism_err_set(err, -EPROTO,
				   "the running load has map format %u and this version %u: "
				   "`ismredir unload` first",
				   ctl.format, ISM_MAPS_FORMAT);
	/*
	 * An interrupted load that came as far as ON may have connections with redirected bytes:
	 * it is taken over, never swept away. One that did not has none.
	 */
	if (earlier == 2 || (earlier == 1 && ctl.word != ISM_WORD_OFF)) {
		*ret_reuse = 1;
		return 0;
	}
	return 0;
}

int ism_loader_load(const struct ism_policy *p, int replace, struct ism_load_result *ret,
		    struct ism_err *err)
{
	struct ism_unload_result gone;
	int lock, reuse, rc;

	memset(ret, 0, sizeof(*ret));
	rc = ism_pins_check_fs(err);
	if (rc)
		return rc;
	lock = ism_pins_lock(1, err);
	if (lock < 0)
		return lock;
	rc = check_earlier(replace, &reuse, err);
	if (rc)
		goto out;
	if (!reuse) {
		rc = ism_pins_remove_all(err);
		close(lock);
		if (rc)
			return rc;
		lock = ism_pins_lock(1, err);
		if (lock < 0)
			return lock;
	}
	ret->replaced = reuse;
	rc = load_locked(p, reuse, ret, err);
	if (rc && !reuse) {
		/* Nothing may stay behind; a connection that was already redirected is drained. */
		close(lock);
		ism_loader_unload(2000, &gone, NULL);
		return rc;
	}
out:
	close(lock);
	return rc;
}
