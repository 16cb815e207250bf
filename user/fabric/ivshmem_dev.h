/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The memory and the bells of an ivshmem spec, whatever lies in them. */
#ifndef ISM_FABRIC_IVSHMEM_DEV_H
#define ISM_FABRIC_IVSHMEM_DEV_H

struct ism_err;
struct region_dev;

/**
 * ism_ivshmem_open() - map what a spec names
 * @spec: without the scheme: "0000:00:05.0" or "unix:PATH", and ",NAME=VALUE" as often as wanted
 * @dev: filled; to be ended by its close op, unless it is given to region_open()
 * @ret_options: the options in @spec
 *
 * Return: 0 or a negative errno, with a text in @err. Nothing is left open then.
 */
int ism_ivshmem_open(const char *spec, struct region_dev *dev, const char **ret_options,
		     struct ism_err *err);

/** ism_ivshmem_map() - only the memory: not a peer of it, and also while a process of this kernel is one */
int ism_ivshmem_map(const char *spec, struct region_dev *dev, struct ism_err *err);

#endif
