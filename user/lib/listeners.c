// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Servers that listened before load: find them in every network namespace that the selected cgroups
 * use, arm them, and name their processes. The iterator sees the namespace of whoever opens it, so a
 * child process visits each.
 */
#define _GNU_SOURCE
#include "inspect.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "pins.h"
#include "view.skel.h"

#define MAX_NETNS 4096
#define OWN_NETNS "/proc/self/ns/net"

struct visit {
	struct view_bpf *skel;
	struct bpf_program *prog;
	const struct ism_cgroup *cg;
	unsigned int n_cg;
	ino_t seen[MAX_NETNS];
	unsigned int n_seen;
	unsigned int armed;
	unsigned int refused;
	int listeners_fd;
};

/* ---------------------------------------------------------------- whose socket is it */

struct owner {
	__u64 inode;
	struct ism_listener *l;
};

static int pid_owns(pid_t pid, void *arg)
{
	struct owner *o = arg;
	char dir[64], link[64], want[64];
	struct dirent *e;
	struct stat st;
	int found = 0;
	ssize_t n;
	DIR *d;
	FILE *f;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	snprintf(want, sizeof(want), "socket:[%llu]", (unsigned long long)o->inode);
	d = opendir(dir);
	if (!d)
		return 0;
	while (!found && (e = readdir(d))) {
		n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);
		if (n <= 0)
			continue;
		link[n] = 0;
		found = !strcmp(link, want);
	}
	closedir(d);
	if (!found)
		return 0;
	o->l->pid = pid;
	snprintf(dir, sizeof(dir), "/proc/%d", pid);
	if (!stat(dir, &st))
		o->l->uid = st.st_uid;
	snprintf(dir, sizeof(dir), "/proc/%d/comm", pid);
	f = fopen(dir, "re");
	if (f) {
		if (fgets(o->l->comm, sizeof(o->l->comm), f))
			o->l->comm[strcspn(o->l->comm, "\n")] = 0;
		fclose(f);
	}
	return 1;
}

static void name_owner(struct visit *v, const struct ism_listener_view *lv)
{
	struct ism_listener l;
	struct owner o = { lv->inode, &l };

	if (bpf_map_lookup_elem(v->listeners_fd, &lv->key, &l) || l.pid)
		return;
	for (unsigned int i = 0; i < v->n_cg; i++) {
		if (ism_cgroup_pids(v->cg[i].path, pid_owns, &o) <= 0)
			continue;
		bpf_map_update_elem(v->listeners_fd, &lv->key, &l, BPF_EXIST);
		return;
	}
}

/* ---------------------------------------------------------------- one namespace */

/* In the child: run the iterator here and hand its output to the parent. */
static int run_iterator(struct bpf_program *prog, int out)
{
	struct bpf_link *link = bpf_program__attach_iter(prog, NULL);
	char buf[4096];
	ssize_t n = 0;
	int fd;

	if (!link)
		return 1;
	fd = bpf_iter_create(bpf_link__fd(link));
	if (fd < 0)
		return 1;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (write(out, buf, n) != n)
			return 1;
	return n < 0;
}

static void read_listeners(struct visit *v, int fd)
{
	struct ism_listener_view lv;
	size_t have = 0;
	ssize_t n;

	while ((n = read(fd, (char *)&lv + have, sizeof(lv) - have)) > 0) {
		have += n;
		if (have < sizeof(lv))
			continue;
		have = 0;
		if (lv.err) {
			v->refused++;
			continue;
		}
		v->armed++;
		if (v->prog == v->skel->progs.ism_arm)
			name_owner(v, &lv);
	}
}

static int visit_netns(struct visit *v, int ns_fd)
{
	int p[2], status;
	pid_t child;

	if (pipe2(p, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child < 0) {
		close(p[0]);
		close(p[1]);
		return -errno;
	}
	if (!child) {
		close(p[0]);
		_exit(ns_fd >= 0 && setns(ns_fd, CLONE_NEWNET) ? 2 : run_iterator(v->prog, p[1]));
	}
	close(p[1]);
	read_listeners(v, p[0]);
	close(p[0]);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

static int visit_once(struct visit *v, const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0, own;

	if (fd < 0)
		return 0; /* the process is gone */
	if (fstat(fd, &st))
		goto out;
	own = !strcmp(path, OWN_NETNS);
	for (unsigned int i = 0; i < v->n_seen; i++)
		if (v->seen[i] == st.st_ino)
			goto out;
	if (v->n_seen == MAX_NETNS) {
		rc = -E2BIG;
		goto out;
	}
	v->seen[v->n_seen++] = st.st_ino;
	rc = visit_netns(v, own ? -1 : fd);
out:
	close(fd);
	return rc;
}

static int visit_pid(pid_t pid, void *arg)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	return visit_once(arg, path);
}

/* ---------------------------------------------------------------- all of them */

static int open_visit(struct visit *v, struct ism_err *err)
{
	int rc;

	v->listeners_fd = ism_pins_open_map("listeners");
	v->skel = view_bpf__open();
	if (!v->skel)
		return ism_err_set(err, -errno, "inspect programs: %s", strerror(errno));
	v->skel->rodata->n_scope = v->n_cg;
	for (unsigned int i = 0; i < v->n_cg; i++) {
		v->skel->rodata->scope_id[i] = v->cg[i].id;
		v->skel->rodata->scope_level[i] = v->cg[i].level;
	}
	rc = ism_pins_reuse_maps(v->skel->obj, err);
	if (!rc)
		rc = view_bpf__load(v->skel);
	if (rc)
		ism_err_set(err, rc, "inspect programs: %s; see -vv", strerror(-rc));
	return rc;
}

static int visit_all(const struct ism_cgroup *cg, unsigned int n, int disarm, struct visit *v,
		     struct ism_err *err)
{
	int rc;

	memset(v, 0, sizeof(*v));
	v->cg = cg;
	v->n_cg = n;
	rc = open_visit(v, err);
	if (rc)
		goto out;
	v->prog = disarm ? v->skel->progs.ism_disarm : v->skel->progs.ism_arm;
	rc = visit_once(v, OWN_NETNS);
	for (unsigned int i = 0; !rc && i < n; i++) {
		rc = ism_cgroup_pids(cg[i].path, visit_pid, v);
		if (rc == -ENOENT)
			rc = 0; /* the cgroup is gone, and its listeners with it */
	}
	if (rc < 0)
		ism_err_set(err, rc, "visiting listeners: %s", strerror(-rc));
out:
	view_bpf__destroy(v->skel);
	if (v->listeners_fd >= 0)
		close(v->listeners_fd);
	return rc;
}

int ism_listeners_arm(const struct ism_cgroup *cg, unsigned int n, unsigned int *ret_armed,
		      unsigned int *ret_refused, struct ism_err *err)
{
	struct visit *v = malloc(sizeof(*v));
	int rc = v ? visit_all(cg, n, 0, v, err) : -ENOMEM;

	if (!rc) {
		*ret_armed = v->armed;
		*ret_refused = v->refused;
	}
	free(v);
	return rc;
}

int ism_listeners_disarm(const struct ism_cgroup *cg, unsigned int n, struct ism_err *err)
{
	struct visit *v = malloc(sizeof(*v));
	int rc = v ? visit_all(cg, n, 1, v, err) : -ENOMEM;

	free(v);
	return rc;
}
