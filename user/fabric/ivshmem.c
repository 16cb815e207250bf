// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Provider ivshmem: a region in memory that guests and the host share by QEMU's device, or one like it. */
#include "ivshmem_dev.h"
#include "providers.h"
#include "region.h"

static int ivshmem_open(const char *spec, struct ism_fabric **ret, struct ism_err *err)
{
	struct region_dev dev;
	const char *options;
	int rc = ism_ivshmem_open(spec, &dev, &options, err);

	return rc ? rc : region_open(&dev, options, ret, err);
}

const struct ism_fabric_ops ism_fabric_ivshmem = {
	.scheme = "ivshmem",
	.open = ivshmem_open,
	REGION_FABRIC_OPS,
};
