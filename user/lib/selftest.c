// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Self-tests: the harness and the verdict; see selftest.h. The tests themselves are in
 * selftest_cases.c. They run in a child process with a network namespace and a cgroup of its own,
 * which share one block of memory with the parent for the reports.
 */
#define _GNU_SOURCE
#include "selftest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "cgroup.h"
#include "selftest_cases.h"

/* The child reports through this block only; the parent trusts its bounds, nothing else. */
struct shared {
	struct ism_selftest out;
	struct ism_err err;
	int rc;
};

static int loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;

	if (fd < 0)
		return -errno;
	if (ioctl(fd, SIOCGIFFLAGS, &ifr))
		rc = -errno;
	ifr.ifr_flags |= IFF_UP;
	if (!rc && ioctl(fd, SIOCSIFFLAGS, &ifr))
		rc = -errno;
	close(fd);
	return rc;
}

static int enter_cgroup(const char *path)
{
	char file[600];
	int fd, rc = 0;

	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, "0", 1) != 1)
		rc = -errno;
	close(fd);
	return rc;
}

static int forced(const char *name)
{
	const char *list = secure_getenv("ISMREDIR_FAIL_TEST"), *p = list;
	size_t len = strlen(name);

	while (p && (p = strstr(p, name))) {
		if ((p == list || p[-1] == ',') && (!p[len] || p[len] == ','))
			return 1;
		p += len;
	}
	return 0;
}

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

static void run_cases(struct ism_selftest *out, struct ism_case_env *env)
{
	const struct ism_case *c;

	for (c = ism_cases; c->name && out->n < ISM_MAX_TESTS; c++) {
		struct ism_test_report *r = &out->test[out->n++];
		double start = now_ms();

		r->name = c->name;
		r->what = c->what;
		r->todo = c->todo;
		r->weight = c->weight;
		r->direct = c->direct;
		r->result = env->broken ? ISM_TEST_SKIP : c->run(env, r->detail, sizeof(r->detail));
		if (env->broken && c->run == ism_case_load)
			r->result = ISM_TEST_FAIL;
		if (forced(c->name)) {
			r->result = ISM_TEST_FAIL;
			snprintf(r->detail, sizeof(r->detail), "forced by ISMREDIR_FAIL_TEST");
		}
		r->ms = now_ms() - start;
	}
}

static void child(struct shared *sh, const struct ism_cgroup *cg)
{
	struct ism_case_env env = { .cg = *cg };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	alarm(30);
	sh->rc = enter_cgroup(cg->path);
	if (sh->rc) {
		ism_err_set(&sh->err, sh->rc, "self-test: enter %s: %s", cg->path,
			    strerror(-sh->rc));
		return;
	}
	/* Without a namespace of its own the tests still work, on the host's loopback. */
	env.own_netns = !unshare(CLONE_NEWNET) && !loopback_up();
	env.broken = ism_case_setup(&env);
	run_cases(&sh->out, &env);
	ism_case_teardown(&env);
}

/* What one report means for the plane. A skipped essential test allows nothing either. */
static enum ism_verdict consequence(const struct ism_test_report *r)
{
	if (r->weight == ISM_TEST_ESSENTIAL && r->result != ISM_TEST_PASS)
		return ISM_REFUSED;
	if (r->weight == ISM_TEST_SELECTIVE && r->result == ISM_TEST_FAIL)
		return ISM_DEGRADED;
	return ISM_USABLE;
}

/* Rings need the handshake and the sockopts, and nothing of what can go wrong with a sockhash. */
static void conclude_direct(struct ism_selftest *st)
{
	st->direct = ISM_USABLE;
	for (unsigned int i = 0; i < st->n && st->direct == ISM_USABLE; i++) {
		const struct ism_test_report *r = &st->test[i];

		if (!r->direct || r->result == ISM_TEST_PASS)
			continue;
		st->direct = ISM_REFUSED;
		snprintf(st->direct_why, sizeof(st->direct_why), "%s: %s", r->name,
			 r->detail[0] ? r->detail : "failed");
	}
}

static void conclude(struct ism_selftest *st)
{
	size_t n = 0;

	conclude_direct(st);
	st->verdict = ISM_USABLE;
	for (unsigned int i = 0; i < st->n; i++)
		if (consequence(&st->test[i]) > st->verdict)
			st->verdict = consequence(&st->test[i]);
	for (unsigned int i = 0; i < st->n && st->verdict != ISM_USABLE; i++) {
		const struct ism_test_report *r = &st->test[i];

		if (consequence(r) != st->verdict || n >= sizeof(st->why))
			continue;
		n += snprintf(st->why + n, sizeof(st->why) - n, "%s%s: %s", n ? "; " : "", r->name,
			      r->detail[0] ? r->detail : "failed");
		if (st->verdict == ISM_REFUSED)
			break; /* what fails first makes the rest fail */
	}
}

#define CGROUP_PREFIX "ismredir-check-"

/* Cgroups of self-tests that were killed: their names say whose they were. */
static void sweep_dead(const char *mnt)
{
	DIR *d = opendir(mnt);
	struct dirent *e;
	int pid;

	if (!d)
		return;
	while ((e = readdir(d)))
		if (sscanf(e->d_name, CGROUP_PREFIX "%d", &pid) == 1 && kill(pid, 0) &&
		    errno == ESRCH)
			unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
	closedir(d);
}

static int make_cgroup(struct ism_cgroup *cg, struct ism_err *err)
{
	char mnt[400], path[512];
	int rc = ism_cgroup_mount(mnt, sizeof(mnt));

	if (rc)
		return ism_err_set(err, rc,
				   "no cgroup v2 hierarchy is mounted: "
				   "mount -t cgroup2 none /sys/fs/cgroup");
	sweep_dead(mnt);
	snprintf(path, sizeof(path), "%s/" CGROUP_PREFIX "%d", mnt, getpid());
	if (mkdir(path, 0755))
		return ism_err_set(err, -errno, "self-test: mkdir %s: %s", path, strerror(errno));
	return ism_cgroup_find(path, cg, err);
}

static void remove_cgroup(const struct ism_cgroup *cg)
{
	/* The kernel needs a moment after the last process is gone. */
	for (int i = 0; rmdir(cg->path) && errno == EBUSY && i < 100; i++)
		usleep(10 * 1000);
}

int ism_selftest_run(struct ism_selftest *ret, struct ism_err *err)
{
	struct shared *sh;
	struct ism_cgroup cg;
	int status, rc;
	pid_t pid;

	memset(ret, 0, sizeof(*ret));
	rc = make_cgroup(&cg, err);
	if (rc)
		return rc;
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED) {
		rc = ism_err_set(err, -errno, "self-test: %s", strerror(errno));
		goto out;
	}
	pid = fork();
	if (!pid) {
		child(sh, &cg);
		_exit(0);
	}
	if (pid < 0) {
		rc = ism_err_set(err, -errno, "self-test: fork: %s", strerror(errno));
		goto out_map;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	rc = sh->rc;
	if (rc)
		ism_err_set(err, rc, "%s", sh->err.text);
	else if (!WIFEXITED(status) || WEXITSTATUS(status))
		rc = ism_err_set(err, -EIO,
				 "self-test: the test process died (status %#x) in \"%s\"", status,
				 sh->out.n ? sh->out.test[sh->out.n - 1].name : "setup");
	*ret = sh->out;
	conclude(ret);
out_map:
	munmap(sh, sizeof(*sh));
out:
	remove_cgroup(&cg);
	return rc;
}
