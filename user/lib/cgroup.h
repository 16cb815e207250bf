/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Finding cgroups (v2): the mount, ids and depth of a directory, the processes below it. */
#ifndef ISM_LIB_CGROUP_H
#define ISM_LIB_CGROUP_H

#include <stddef.h>
#include <sys/types.h>
#include <linux/types.h>
#include "err.h"

/**
 * struct ism_cgroup - a cgroup v2 directory
 * @path: absolute
 * @id: its kernfs id, as BPF sees it
 * @level: depth below the root, 0 for the root
 */
struct ism_cgroup {
	char path[512];
	__u64 id;
	__u32 level;
};

/** ism_cgroup_mount() - where cgroup v2 is mounted; 0, -ENOENT when it is not */
int ism_cgroup_mount(char *path, size_t len);

/** ism_cgroup_find() - look a directory up; NULL @path is the root of the hierarchy */
int ism_cgroup_find(const char *path, struct ism_cgroup *ret, struct ism_err *err);

/** ism_cgroup_path() - path below the mount of a cgroup id; 0 or -ENOENT when it is gone */
int ism_cgroup_path(__u64 id, char *path, size_t len);

/**
 * ism_cgroup_pids() - call @fn for each process in the cgroup and below
 * Return: 0, negative errno, or the first non-zero value that @fn returned.
 */
int ism_cgroup_pids(const char *path, int (*fn)(pid_t pid, void *arg), void *arg);

#endif
