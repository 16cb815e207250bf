// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A snapshot of the daemon's DMBs, sorted by owner; see rings.h. */
#include "rings.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "control_client.h"

static int add(const struct ism_msg_dmb *m, void *arg)
{
	struct rings *r = arg;
	struct ism_msg_dmb *more;
	unsigned int room = r->room ? r->room * 2 : 64;

	if (r->n == r->room) {
		more = realloc(r->dmb, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->dmb = more;
		r->room = room;
	}
	r->dmb[r->n++] = *m;
	return 0;
}

static int by_token(const void *a, const void *b)
{
	__u64 x = ((const struct ism_msg_dmb *)a)->token,
	      y = ((const struct ism_msg_dmb *)b)->token;

	return x < y ? -1 : x > y;
}

void rings_load(struct rings *r)
{
	int fd = ism_control_open(NULL);

	memset(r, 0, sizeof(*r));
	if (fd < 0)
		return;
	if (ism_control_list(fd, add, r, NULL))
		rings_free(r);
	close(fd);
	if (r->n)
		qsort(r->dmb, r->n, sizeof(*r->dmb), by_token);
}

void rings_free(struct rings *r)
{
	free(r->dmb);
	memset(r, 0, sizeof(*r));
}

const struct ism_msg_dmb *rings_owned(const struct rings *r, __u64 token)
{
	struct ism_msg_dmb key = { .token = token };

	return r->n ? bsearch(&key, r->dmb, r->n, sizeof(*r->dmb), by_token) : NULL;
}

/* Each of the two names the other, so the way back leads over the owned one. */
const struct ism_msg_dmb *rings_written(const struct rings *r, __u64 token)
{
	const struct ism_msg_dmb *own = rings_owned(r, token);
	const struct ism_msg_dmb *out = own ? rings_owned(r, own->peer) : NULL;

	return out && out->peer == token ? out : NULL;
}
