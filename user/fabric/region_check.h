/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Looking at a region from outside, while its peers run or after they died: for `ismredir fabric`. */
#ifndef ISM_FABRIC_REGION_CHECK_H
#define ISM_FABRIC_REGION_CHECK_H

#include "region.h"
#include "region_format.h"

/**
 * struct region_map - a region that is only mapped: this is no peer
 */
struct region_map {
	struct region_dev dev;
	struct region_mem mem;
	struct region_layout l;
	struct ism_region_super super;
};

/**
 * region_map_open() - map what a spec of shm:, cxl: or ivshmem: names, and check its superblock
 * @is_writable: for region_evict() and region_check() with repair
 */
int region_map_open(const char *spec, int is_writable, struct region_map *ret, struct ism_err *err);

void region_map_close(struct region_map *map);

/**
 * region_format_spec() - make a new region
 * @size: of the file, where there is none yet; 0: it must be there
 * @is_forced: there may be one already. Never while a process of this host has it
 */
int region_format_spec(const char *spec, __u64 size, const struct region_geometry *g, int is_forced,
		       struct ism_err *err);

enum region_life {
	REGION_FREE, /* nobody has the slot */
	REGION_ALIVE, /* its heartbeat was seen */
	REGION_SILENT, /* nothing was heard; it may be asleep, on another host, or a program goes on */
	REGION_DEAD, /* of this kernel, and neither the process nor programs that it named run */
};

/**
 * region_look() - how all peers are; listens for two heartbeats
 * @ret: of ISM_REGION_MAX_PEERS
 */
void region_look(const struct region_map *map, enum region_life *ret);

/**
 * region_check() - everything that can be checked
 * @life: what region_look() said
 * @found: called for each problem; @peer: whose it is, -1: of the region
 * @is_repaired: also take away dead peers, whose problems do not count then
 *
 * Return: how many problems are left.
 */
unsigned int region_check(const struct region_map *map, enum region_life *life, int is_repaired,
			  void (*found)(void *arg, int peer, const char *text), void *arg);

/** region_evict() - free the slot of a peer that surely does not run. -EBUSY: it does; -ENOENT: nobody is there */
int region_evict(const struct region_map *map, unsigned int peer, struct ism_err *err);

#endif
