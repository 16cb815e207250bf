// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* First fit in a list of used ranges; see region_alloc.h. */
#include "region_alloc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static __u64 in_units(const struct region_alloc *a, __u64 len)
{
	return (len + a->unit - 1) / a->unit * a->unit;
}

int region_alloc_find(const struct region_alloc *a, __u64 len, __u64 *ret)
{
	__u64 at = 0;

	if (!len || len > a->len)
		return -ENOMEM;
	len = in_units(a, len);
	for (unsigned int i = 0; i < a->n; i++) {
		const struct region_range *u = &a->used[i];

		if (u->off >= at && u->off - at >= len)
			break;
		if (u->off + u->len > at)
			at = in_units(a, u->off + u->len);
	}
	if (at > a->len || len > a->len - at)
		return -ENOMEM;
	*ret = at;
	return 0;
}

int region_alloc_is_free(const struct region_alloc *a, __u64 off, __u64 len)
{
	if (!len || off > a->len || len > a->len - off)
		return 0;
	for (unsigned int i = 0; i < a->n; i++)
		if (a->used[i].off < off + len && off < a->used[i].off + a->used[i].len)
			return 0;
	return 1;
}

int region_alloc_take(struct region_alloc *a, __u64 off, __u64 len)
{
	unsigned int at = a->n;

	if (a->n == a->room) {
		unsigned int room = a->room ? 2 * a->room : 32;
		void *used = realloc(a->used, room * sizeof(*a->used));

		if (!used)
			return -ENOMEM;
		a->used = used;
		a->room = room;
	}
	while (at && a->used[at - 1].off > off)
		at--;
	memmove(a->used + at + 1, a->used + at, (a->n - at) * sizeof(*a->used));
	a->used[at] = (struct region_range){ off, len };
	a->n++;
	return 0;
}

void region_alloc_give(struct region_alloc *a, __u64 off, __u64 len)
{
	for (unsigned int i = 0; i < a->n; i++) {
		if (a->used[i].off != off || a->used[i].len != len)
			continue;
		a->n--;
		memmove(a->used + i, a->used + i + 1, (a->n - i) * sizeof(*a->used));
		return;
	}
}

void region_alloc_free(struct region_alloc *a)
{
	free(a->used);
	a->used = NULL;
	a->n = a->room = 0;
}
