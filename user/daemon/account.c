// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What each user has of the daemon; see account.h. */
#include "account.h"
#include <stdlib.h>

struct account *account_get(struct accounts *all, uid_t uid)
{
	struct account *a = all->first;

	while (a && a->uid != uid)
		a = a->next;
	if (!a) {
		a = calloc(1, sizeof(*a));
		if (!a)
			return NULL;
		a->uid = uid;
		a->next = all->first;
		all->first = a;
	}
	atomic_fetch_add(&a->refs, 1);
	return a;
}

/* Only the main thread takes accounts off the list, so other threads may put theirs at any time. */
void account_put(struct account *a)
{
	atomic_fetch_sub(&a->refs, 1);
}

void accounts_sweep(struct accounts *all)
{
	struct account **at = &all->first, *a;

	while ((a = *at)) {
		if (atomic_load(&a->refs)) {
			at = &a->next;
			continue;
		}
		*at = a->next;
		free(a);
	}
}
