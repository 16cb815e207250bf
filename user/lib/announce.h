/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What ismredird tells a running load: the fabrics that it has, who may use them, and that it relays. */
#ifndef ISM_LIB_ANNOUNCE_H
#define ISM_LIB_ANNOUNCE_H

#include <ismredir/maps.h>
#include "err.h"

/**
 * struct ism_announce - the fields of struct ism_ctl that belong to ismredird
 */
struct ism_announce {
	__u32 fabrics[ISM_MAX_FABRICS];
	__u32 relay;
	__u32 n_direct;
	__u32 direct[ISM_MAX_DIRECT];
};

/**
 * ism_announce() - see that the load says this; all zero when nobody is there any more
 *
 * Changes nothing when it does. After a change destinations that did not answer are asked again. Never
 * waits.
 * Return: 1 changed, 0 said before; -ENOENT nothing is loaded, or nothing of this version; -EBUSY another
 * ismredir is at work, try again; negative errno.
 */
int ism_announce(const struct ism_announce *a, struct ism_err *err);

#endif
