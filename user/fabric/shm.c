// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Providers "shm" and "cxl": a region that has a path. shm:PATH is a file of tmpfs or hugetlbfs, shared by
 * peers of one kernel, or by guests whose memory it is, and coherent. cxl:/dev/daxX.Y is memory of several
 * hosts, and not coherent unless coherent=yes says so; a file will do to try it.
 *
 * Options: those of region_open().
 */
#define _GNU_SOURCE
#include "providers.h"
#include "region_file.h"

static int open_path(const char *options, int is_coherent, struct ism_fabric **ret,
		     struct ism_err *err)
{
	struct region_dev dev;
	const char *rest;
	int rc = region_file_map(options, 0, 0, &dev, &rest, err);

	if (rc)
		return rc;
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
