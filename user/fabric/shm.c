// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Providers "shm" and "cxl": a region that has a path. shm:PATH is a file of tmpfs or hugetlbfs, shared by
 * peers of one kernel, or by guests whose memory it is, and coherent. cxl:/dev/daxX.Y is memory of several
 * hosts, and not coherent unless coherent=yes says so; a file will do to try it.
 *
 * Options: those of region_open(), and size=BYTES: make a region of that size where there is no file yet.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "providers.h"
#include "region_check.h"
#include "region_file.h"
#include "util.h"

/* Under another name first: nobody ever sees a region that is half made. Of two who do it one is later. */
static int make(const char *path, int len, __u64 size, struct ism_err *err)
{
	const struct region_geometry usual = {};
	char spec[PATH_MAX + 32], *new = spec + 4, old[PATH_MAX];
	int rc;

	if (len >= PATH_MAX)
		return ism_err_set(err, -ENAMETOOLONG, "the path is too long");
	snprintf(old, sizeof(old), "%.*s", len, path);
	if (!access(old, F_OK))
		return 0;
	snprintf(spec, sizeof(spec), "shm:%s.new-%d", old, getpid());
	rc = region_format_spec(spec, size, &usual, 0, err);
	if (!rc && link(new, old) && errno != EEXIST)
		rc = ism_err_set(err, -errno, "%s: %s", old, strerror(errno));
	unlink(new);
	return rc;
}

static int make_if_asked(const char *options, struct ism_err *err)
{
	int len = strcspn(options, ",");
	char value[24];
	__u64 size;
	int rc = options[len] ? ism_fabric_option(options + len + 1, "size", value, sizeof(value))
			      : 0;

	if (!rc)
		return 0;
	if (rc < 0 || fabric_size(value, 64 << 10, 1ULL << 46, &size))
		return ism_err_set(err, -EINVAL,
				   "size: expected a number of bytes, or with K, M, G");
	return make(options, len, size, err);
}

static int open_path(const char *options, int is_coherent, struct ism_fabric **ret,
		     struct ism_err *err)
{
	static const char *const own[] = { "size", NULL };
	struct region_dev dev;
	const char *rest;
	int rc = make_if_asked(options, err);

	if (!rc)
		rc = region_file_map(options, 0, 0, &dev, &rest, err);
	if (rc)
		return rc;
	dev.options = own;
	dev.is_coherent = is_coherent;
	return region_open(&dev, rest, ret, err);
}

static int shm_open_fabric(const char *options, struct ism_fabric **ret, struct ism_err *err)
{
	return open_path(options, 1, ret, err);
}

static int cxl_open_fabric(const char *options, struct ism_fabric **ret, struct ism_err *err)
{
	return open_path(options, 0, ret, err);
}

const struct ism_fabric_ops ism_fabric_shm = {
	.scheme = "shm",
	.open = shm_open_fabric,
	REGION_FABRIC_OPS,
};

const struct ism_fabric_ops ism_fabric_cxl = {
	.scheme = "cxl",
	.open = cxl_open_fabric,
	REGION_FABRIC_OPS,
};
