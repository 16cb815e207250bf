// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Finding the preloaded library, and judging whether a program would take it; see preload.h. */
#define _GNU_SOURCE
#include "preload.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_SCRIPTS 4 /* interpreters that are scripts themselves, as in the kernel */

/* @local: NULL, or told about it */
static int read_program(const char *path, struct ism_program *p, int *local)
{
	int fd = open(path, ISM_PROGRAM_OPEN), rc;

	if (fd < 0)
		return -errno;
	rc = ism_program_read(fd, p);
	if (local)
		*local = !rc && ism_program_is_local(fd);
	close(fd);
	return rc;
}

/* ---------------------------------------------------------------- the library */

static int usable(const char *path, struct ism_err *err)
{
	struct ism_program lib, own;
	int rc = read_program(path, &lib, NULL);

	if (rc == -ENOEXEC || (!rc && (read_program("/proc/self/exe", &own, NULL) ||
				       lib.class != own.class || lib.machine != own.machine)))
		return ism_err_set(err, -ENOEXEC, "%s is no library for this machine", path);
	if (rc)
		return ism_err_set(err, rc, "%s: %s", path, strerror(-rc));
	/* LD_PRELOAD has no way to quote these. */
	if (strpbrk(path, ": \t\n"))
		return ism_err_set(err, -EINVAL, "\"%s\": LD_PRELOAD takes no such path", path);
	return 0;
}

int preload_find(char *buf, size_t len, struct ism_err *err)
{
	const char *env = secure_getenv("ISMREDIR_PRELOAD");
	char exe[PATH_MAX];
	ssize_t n;

	if (env && *env)
		return (size_t)snprintf(buf, len, "%s", env) < len
			       ? usable(buf, err)
			       : ism_err_set(err, -ENAMETOOLONG, "ISMREDIR_PRELOAD is too long");
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n > 0) {
		exe[n] = 0;
		if ((size_t)snprintf(buf, len, "%s/" ISM_PRELOAD_NAME, dirname(exe)) < len &&
		    !access(buf, F_OK))
			return usable(buf, err);
	}
	if ((size_t)snprintf(buf, len, "%s", ISM_LIBDIR "/" ISM_PRELOAD_NAME) >= len)
		return ism_err_set(err, -ENAMETOOLONG, "%s: the path is too long", ISM_LIBDIR);
	return usable(buf, err);
}

/* ---------------------------------------------------------------- the program */

/* The interpreter of a script, into @buf. 0 when it is none. */
static int script_interp(const char *path, char *buf, size_t len)
{
	char line[256];
	int fd = open(path, ISM_PROGRAM_OPEN);
	ssize_t n;
	char *start;

	if (fd < 0)
		return 0;
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (n < 3 || line[0] != '#' || line[1] != '!')
		return 0;
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	start = line + 2 + strspn(line + 2, " \t");
	start[strcspn(start, " \t")] = 0;
	return *start && (size_t)snprintf(buf, len, "%s", start) < len;
}

/* ld.so ignores LD_PRELOAD where exec() changes who the process is. */
static int gains_privilege(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return 0;
	if ((st.st_mode & S_ISUID && st.st_uid != getuid()) ||
	    ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getgid()))
		return 1;
	return getuid() && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* Another C library's loader would not find what ours needs, and would give up. */
static int same_loader(const char *a, const char *b)
{
	char x[PATH_MAX], y[PATH_MAX];

	return realpath(a, x) && realpath(b, y) && !strcmp(x, y);
}

enum preload_fit preload_fit(const char *path, char *why, size_t len)
{
	struct ism_program app, own;
	char file[PATH_MAX], next[PATH_MAX];
	int local = 0;

	if ((size_t)snprintf(file, sizeof(file), "%s", path) >= sizeof(file))
		return PRELOAD_FITS;
	for (int i = 0; i < MAX_SCRIPTS && script_interp(file, next, sizeof(next)); i++)
		memcpy(file, next, sizeof(file));
	if (gains_privilege(file)) {
		snprintf(why, len, "runs with more privileges than you have");
		return PRELOAD_IGNORED;
	}
	if (read_program(file, &app, &local) || read_program("/proc/self/exe", &own, NULL))
		return PRELOAD_FITS;
	if (app.class != own.class || app.machine != own.machine) {
		snprintf(why, len, "is for another machine or word size");
		return PRELOAD_HARMS;
	}
	if (!app.interp[0]) {
		snprintf(why, len, "is linked statically");
		return PRELOAD_IGNORED;
	}
	if (!same_loader(app.interp, own.interp)) {
		snprintf(why, len, "uses another C library (%.80s)", app.interp);
		return PRELOAD_HARMS;
	}
	return local ? PRELOAD_NEEDLESS : PRELOAD_FITS;
}
