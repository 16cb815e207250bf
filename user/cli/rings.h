/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The DMBs that ismredird knows, found by the token of a connection end. */
#ifndef ISM_CLI_RINGS_H
#define ISM_CLI_RINGS_H

#include <ismredir/control.h>

struct rings {
	struct ism_msg_dmb *dmb;
	unsigned int n;
	unsigned int room;
};

/** rings_load() - ask the daemon; without one, or on any error, there are none */
void rings_load(struct rings *r);

void rings_free(struct rings *r);

/** rings_owned() - the DMB that the end @token reads, or NULL */
const struct ism_msg_dmb *rings_owned(const struct rings *r, __u64 token);

/** rings_written() - the DMB that the end @token writes; its stats are that end's. Or NULL */
const struct ism_msg_dmb *rings_written(const struct rings *r, __u64 token);

#endif
