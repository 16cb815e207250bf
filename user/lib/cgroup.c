// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Finding cgroups (v2); see cgroup.h. */
#define _GNU_SOURCE
#include "cgroup.h"
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

int ism_cgroup_mount(char *path, size_t len)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096], root[1024], mnt[1024];
	int rc = -ENOENT;

	if (!f)
		return -errno;
	while (rc && fgets(line, sizeof(line), f)) {
		if (!strstr(line, " - cgroup2 "))
			continue;
		if (sscanf(line, "%*s %*s %*s %1023s %1023s", root, mnt) != 2)
			continue;
		if ((size_t)snprintf(path, len, "%s", mnt) < len)
			rc = 0;
	}
	fclose(f);
	return rc;
}

/* The id that BPF sees is the file handle of the directory (kernfs_node.id). */
static int handle_id(const char *path, __u64 *id)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + 16];
	} u = { .h = { .handle_bytes = 8 } };
	int mnt;

	if (name_to_handle_at(AT_FDCWD, path, &u.h, &mnt, 0))
		return -errno;
	memcpy(id, u.h.f_handle, sizeof(*id));
	return 0;
}

/* Levels between @path and the root, whatever mount it was reached by. */
static int depth_below(const char *mnt, const char *path, __u32 *ret)
{
	char up[PATH_MAX], *slash;
	__u64 root, id;
	int rc = handle_id(mnt, &root);

	*ret = 0;
	snprintf(up, sizeof(up), "%s", path);
	while (!rc && !(rc = handle_id(up, &id)) && id != root) {
		slash = strrchr(up, '/');
		if (!slash || slash == up)
			return -EXDEV;
		*slash = 0;
		++*ret;
	}
	return rc;
}

int ism_cgroup_find(const char *path, struct ism_cgroup *ret, struct ism_err *err)
{
	char mnt[512], real[PATH_MAX];
	struct statfs fs;
	struct stat st;
	int rc = ism_cgroup_mount(mnt, sizeof(mnt));

	if (rc)
		return ism_err_set(err, rc,
				   "no cgroup v2 hierarchy is mounted: mount -t cgroup2 none "
				   "/sys/fs/cgroup");
	if (!path)
		path = mnt;
	if (!realpath(path, real))
		return ism_err_set(err, -errno,
				   "cgroup %s: %s; give the path of an existing cgroup", path,
				   strerror(errno));
	if (statfs(real, &fs) || stat(real, &st))
		return ism_err_set(err, -errno, "cgroup %s: %s", path, strerror(errno));
	if (fs.f_type != CGROUP2_SUPER_MAGIC || !S_ISDIR(st.st_mode))
		return ism_err_set(err, -EINVAL,
				   "%s is not a cgroup v2 directory; they are below %s", path, mnt);
	if (strlen(real) >= sizeof(ret->path))
		return ism_err_set(err, -ENAMETOOLONG, "cgroup %s: path too long", path);
	memset(ret, 0, sizeof(*ret));
	strcpy(ret->path, real);
	rc = handle_id(real, &ret->id);
	if (!rc)
		rc = depth_below(mnt, real, &ret->level);
	if (rc)
		return ism_err_set(err, rc, "cgroup %s: no id: %s", path, strerror(-rc));
	return 0;
}

/*
 * Call @fn for each directory from @path down. A callback may start a walk of its own, so this is
 * fts(3), which keeps its state apart, and not nftw(3).
 */
static int walk_dirs(const char *path, int (*fn)(const char *dir, void *arg), void *arg)
{
	char *const roots[] = { (char *)path, NULL };
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT | FTS_XDEV, NULL);
	FTSENT *e;
	int rc = 0;

	if (!fts)
		return -errno;
	while (!rc && (e = fts_read(fts))) {
		if (e->fts_info == FTS_D)
			rc = fn(e->fts_path, arg);
		else if (e->fts_info == FTS_NS && e->fts_level == 0)
			rc = -e->fts_errno;
	}
	fts_close(fts);
	return rc;
}

struct id_search {
	__u64 id;
	char *out;
	size_t len;
};

static int match_id(const char *dir, void *arg)
{
	struct id_search *s = arg;
	__u64 id;

	if (handle_id(dir, &id) || id != s->id)
		return 0;
	return (size_t)snprintf(s->out, s->len, "%s", dir) < s->len ? 1 : -ENAMETOOLONG;
}

int ism_cgroup_path(__u64 id, char *path, size_t len)
{
	struct id_search s = { id, path, len };
	char mnt[512];
	int rc = ism_cgroup_mount(mnt, sizeof(mnt));

	if (!rc)
		rc = walk_dirs(mnt, match_id, &s);
	return rc == 1 ? 0 : rc ? rc : -ENOENT;
}

struct pid_walk {
	int (*fn)(pid_t pid, void *arg);
	void *arg;
};

static int each_pid(const char *dir, void *arg)
{
	struct pid_walk *w = arg;
	char file[PATH_MAX];
	int pid, rc = 0;
	FILE *f;

	if ((size_t)snprintf(file, sizeof(file), "%s/cgroup.procs", dir) >= sizeof(file))
		return 0;
	f = fopen(file, "re");
	if (!f)
		return 0; /* a cgroup that went away, or a threaded one */
	while (!rc && fscanf(f, "%d", &pid) == 1)
		rc = w->fn(pid, w->arg);
	fclose(f);
	return rc;
}

int ism_cgroup_pids(const char *path, int (*fn)(pid_t pid, void *arg), void *arg)
{
	struct pid_walk w = { fn, arg };

	return walk_dirs(path, each_pid, &w);
}
