// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Finding cgroups. Most needs no privilege; what makes a cgroup or a mount of its own is skipped
 * without. Nothing is ever attached to a cgroup here.
 */
#include "unit.h"
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include "cgroup.h"

static char mnt[512];

static void find_mount(void)
{
	if (ism_cgroup_mount(mnt, sizeof(mnt)))
		cr_skip_test("no cgroup v2 hierarchy is mounted");
}

/* A cgroup below the root, ours alone; skips the test where that is not allowed. */
static const char *own_cgroup(const char *what)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/ismredir-unit-%s-%d", mnt, what, getpid());
	if (mkdir(path, 0755))
		cr_skip_test("cannot make a cgroup: %s", strerror(errno));
	return path;
}

static void remove_cgroup(const char *path)
{
	for (int i = 0; rmdir(path) && errno == EBUSY && i < 200; i++)
		usleep(10 * 1000);
	cr_expect_eq(access(path, F_OK), -1, "%s was left behind", path);
}

TestSuite(cgroup, .init = find_mount);

Test(cgroup, mount_is_a_directory)
{
	struct stat st;

	cr_expect_eq(mnt[0], '/');
	cr_expect(!stat(mnt, &st) && S_ISDIR(st.st_mode));
}

Test(cgroup, mount_does_not_overrun)
{
	char buf[32];

	memset(buf, 0x5a, sizeof(buf));
	cr_expect_neq(ism_cgroup_mount(buf, 2), 0, "a path that does not fit");
	for (size_t i = 2; i < sizeof(buf); i++)
		cr_expect_eq(buf[i], 0x5a);
}

Test(cgroup, null_is_the_root)
{
	struct ism_cgroup cg, again;
	struct ism_err err = {};

	cr_assert_eq(ism_cgroup_find(NULL, &cg, &err), 0, "%s", err.text);
	cr_expect_str_eq(cg.path, mnt);
	cr_expect_eq(cg.level, 0);
	cr_expect_neq(cg.id, 0);
	cr_assert_eq(ism_cgroup_find(mnt, &again, &err), 0);
	cr_expect_eq(again.id, cg.id);
	cr_expect_str_empty(err.text);
}

Test(cgroup, the_path_is_made_plain)
{
	struct ism_cgroup cg;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/./", mnt);
	cr_assert_eq(ism_cgroup_find(path, &cg, NULL), 0);
	cr_expect_str_eq(cg.path, mnt);
	cr_expect_eq(cg.level, 0);
}

Test(cgroup, missing)
{
	struct ism_cgroup cg;
	struct ism_err err = {};
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/no-such-cgroup-%d", mnt, getpid());
	cr_expect_eq(ism_cgroup_find(path, &cg, &err), -ENOENT);
	cr_expect_not_null(strstr(err.text, path), "%s", err.text);
	cr_expect_not_null(strstr(err.text, "No such file"), "%s", err.text);
	cr_expect_eq(ism_cgroup_find("", &cg, NULL), -ENOENT);
}

Test(cgroup, not_a_cgroup)
{
	struct ism_cgroup cg;
	struct ism_err err = {};

	cr_expect_eq(ism_cgroup_find("/proc", &cg, &err), -EINVAL);
	cr_expect_not_null(strstr(err.text, "/proc is not a cgroup v2 directory"), "%s", err.text);
	cr_expect_not_null(strstr(err.text, mnt), "says where they are: %s", err.text);
}

/* A file on the cgroup file system is no cgroup: attaching to it could only fail later. */
Test(cgroup, a_file_is_not_a_cgroup)
{
	struct ism_cgroup cg;
	struct ism_err err = {};
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/cgroup.procs", mnt);
	if (access(path, F_OK))
		cr_skip_test("no %s", path);
	cr_expect_neq(ism_cgroup_find(path, &cg, &err), 0, "%s was taken for a cgroup", path);
}

Test(cgroup, path_longer_than_any)
{
	struct ism_cgroup cg;
	struct ism_err err = {};
	char path[PATH_MAX + 200];

	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = 0;
	cr_expect_lt(ism_cgroup_find(path, &cg, &err), 0);
	cr_expect_str_not_empty(err.text);
	cr_expect_lt(strlen(err.text), sizeof(err.text));
}

Test(cgroup, id_to_path)
{
	struct ism_cgroup cg;
	char path[PATH_MAX];

	cr_assert_eq(ism_cgroup_find(NULL, &cg, NULL), 0);
	cr_assert_eq(ism_cgroup_path(cg.id, path, sizeof(path)), 0);
	cr_expect_str_eq(path, mnt);
	cr_expect_eq(ism_cgroup_path(~0ULL, path, sizeof(path)), -ENOENT);
	cr_expect_eq(ism_cgroup_path(0, path, sizeof(path)), -ENOENT);
	cr_expect_neq(ism_cgroup_path(cg.id, path, 2), 0, "a path that does not fit");
}

Test(cgroup, levels_ids_and_removal)
{
	char top[PATH_MAX], sub[PATH_MAX + 8], path[PATH_MAX];
	struct ism_cgroup a, b;

	strcpy(top, own_cgroup("level"));
	snprintf(sub, sizeof(sub), "%s/sub", top);
	cr_expect_eq(mkdir(sub, 0755), 0);
	cr_expect_eq(ism_cgroup_find(top, &a, NULL), 0);
	cr_expect_eq(ism_cgroup_find(sub, &b, NULL), 0);
	cr_expect_eq(a.level, 1);
	cr_expect_eq(b.level, 2);
	cr_expect_neq(a.id, b.id);
	cr_expect_eq(ism_cgroup_path(b.id, path, sizeof(path)), 0);
	cr_expect_str_eq(path, sub);
	remove_cgroup(sub);
	cr_expect_eq(ism_cgroup_path(b.id, path, sizeof(path)), -ENOENT);
	remove_cgroup(top);
}

/* The level of the root and of a cgroup below it, by the mount @dir. */
static void check_levels(const char *dir, const char *name)
{
	char path[PATH_MAX + 64];
	struct ism_cgroup cg;

	if (mount("none", dir, "cgroup2", 0, NULL))
		return; /* there is no such directory, or it is not allowed */
	if (!ism_cgroup_find(dir, &cg, NULL)) /* or it is refused */
		cr_expect_eq(cg.level, 0, "the root, by %s: level %u", dir, cg.level);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (!ism_cgroup_find(path, &cg, NULL))
		cr_expect_eq(cg.level, 1, "%s: level %u", path, cg.level);
	umount(dir);
}

/*
 * A cgroup given by another mount of the hierarchy: its level is that below the root, whatever the
 * lengths of the two mount points. Rules and programs compare by it.
 */
Test(cgroup, level_through_another_mount)
{
	char top[PATH_MAX], dir[PATH_MAX], deep[PATH_MAX + 16];

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		cr_skip_test("no mount namespace: %s", strerror(errno));
	strcpy(top, own_cgroup("mount"));
	strcpy(dir, unit_dir());
	snprintf(deep, sizeof(deep), "%s/a", dir);
	cr_expect_eq(mkdir(deep, 0755), 0);
	strcat(deep, "/b");
	cr_expect_eq(mkdir(deep, 0755), 0);
	check_levels("/mnt", strrchr(top, '/') + 1);
	check_levels(deep, strrchr(top, '/') + 1);
	for (int i = 0; i < 3; i++, *strrchr(deep, '/') = 0)
		cr_expect_eq(rmdir(deep), 0, "%s: %s", deep, strerror(errno));
	remove_cgroup(top);
}

/* ---------------------------------------------------------------- processes */

struct pids {
	pid_t want;
	int seen;
	int calls;
	int stop_at;
};

static int look_for(pid_t pid, void *arg)
{
	struct pids *p = arg;

	p->calls++;
	p->seen += pid == p->want;
	return p->stop_at && p->calls == p->stop_at ? 77 : 0;
}

Test(cgroup, pids_of_a_missing_cgroup)
{
	struct pids p = {};

	cr_expect_eq(ism_cgroup_pids("/no/such/cgroup", look_for, &p), -ENOENT);
	cr_expect_eq(p.calls, 0);
}

Test(cgroup, pids_finds_this_process)
{
	struct pids p = { .want = getpid() };

	cr_expect_eq(ism_cgroup_pids(mnt, look_for, &p), 0);
	if (!p.calls)
		cr_skip_test("no process of the hierarchy can be seen");
	cr_expect_eq(p.seen, 1);
}

Test(cgroup, pids_stops_when_told)
{
	struct pids p = { .stop_at = 1 };

	if (ism_cgroup_pids(mnt, look_for, &p) == 0)
		cr_skip_test("no process of the hierarchy can be seen");
	cr_expect_eq(p.calls, 1);
	p = (struct pids){ .stop_at = 1 };
	cr_expect_eq(ism_cgroup_pids(mnt, look_for, &p), 77);
}

#define SLEEPERS 3

struct box {
	char path[PATH_MAX];
	pid_t pid[SLEEPERS];
};

static void fill_box(struct box *b)
{
	char file[PATH_MAX + 16];

	strcpy(b->path, own_cgroup("pids"));
	snprintf(file, sizeof(file), "%s/cgroup.procs", b->path);
	for (int i = 0; i < SLEEPERS; i++) {
		FILE *f = fopen(file, "we");

		b->pid[i] = fork();
		if (!b->pid[i]) {
			alarm(60);
			pause();
			_exit(0);
		}
		if (f) {
			fprintf(f, "%d", b->pid[i]);
			fclose(f);
		}
	}
}

static void empty_box(struct box *b)
{
	for (int i = 0; i < SLEEPERS; i++) {
		kill(b->pid[i], SIGKILL);
		waitpid(b->pid[i], NULL, 0);
	}
	remove_cgroup(b->path);
}

Test(cgroup, pids_below)
{
	struct pids p = {};
	struct box b;

	fill_box(&b);
	p.want = b.pid[1];
	cr_expect_eq(ism_cgroup_pids(b.path, look_for, &p), 0);
	cr_expect_eq(p.calls, SLEEPERS);
	cr_expect_eq(p.seen, 1);
	empty_box(&b);
}

struct outer {
	const char *path;
	int calls;
	int inner;
	int nested_result;
};

static int walk_again(pid_t pid, void *arg)
{
	struct pids p = { .want = pid, .stop_at = 1 };
	struct outer *o = arg;

	o->calls++;
	o->nested_result += ism_cgroup_pids(o->path, look_for, &p) == 77;
	o->inner += p.calls;
	return 0;
}

/* Arming listeners walks a cgroup's processes from inside such a walk. */
Test(cgroup, a_walk_inside_a_walk)
{
	struct outer o = {};
	struct box b;
	int rc;

	fill_box(&b);
	o.path = b.path;
	rc = ism_cgroup_pids(b.path, walk_again, &o);
	empty_box(&b);
	cr_expect_eq(rc, 0);
	cr_expect_eq(o.calls, SLEEPERS, "the outer walk made %d calls of %d", o.calls, SLEEPERS);
	cr_expect_eq(o.nested_result, SLEEPERS);
	cr_expect_eq(o.inner, SLEEPERS);
}

/* The same with a walk for an id, which shares the tree walk. */
static int path_again(pid_t pid, void *arg)
{
	struct outer *o = arg;
	char path[PATH_MAX];

	(void)pid;
	o->calls++;
	ism_cgroup_path(~0ULL, path, sizeof(path));
	return 0;
}

Test(cgroup, a_lookup_inside_a_walk)
{
	struct outer o = {};
	struct box b;
	int rc;

	fill_box(&b);
	rc = ism_cgroup_pids(b.path, path_again, &o);
	empty_box(&b);
	cr_expect_eq(rc, 0);
	cr_expect_eq(o.calls, SLEEPERS);
}
