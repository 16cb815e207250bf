/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which parts of an arena are used. In private memory: nothing of it can be damaged by others. */
#ifndef ISM_FABRIC_REGION_ALLOC_H
#define ISM_FABRIC_REGION_ALLOC_H

#include <linux/types.h>

struct region_range {
	__u64 off;
	__u64 len;
};

/**
 * struct region_alloc - one arena; zero but for @len and @unit is an empty one
 * @used: ordered by @off; they may overlap, and be there several times
 */
struct region_alloc {
	__u64 len;
	__u64 unit;
	struct region_range *used;
	unsigned int n;
	unsigned int room;
};

/** region_alloc_find() - the first free place for @len bytes. 0 or -ENOMEM. It is not taken yet */
int region_alloc_find(const struct region_alloc *a, __u64 len, __u64 *ret);

/** region_alloc_is_free() - is all of it in the arena, and none of it used? */
int region_alloc_is_free(const struct region_alloc *a, __u64 off, __u64 len);

/** region_alloc_take() - use it, be it used already or not. 0 or -ENOMEM */
int region_alloc_take(struct region_alloc *a, __u64 off, __u64 len);

/** region_alloc_give() - take back one region_alloc_take() of exactly this */
void region_alloc_give(struct region_alloc *a, __u64 off, __u64 len);

void region_alloc_free(struct region_alloc *a);

#endif
