/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Looking into a running load: its connections, listeners, counters, and the state of its links. */
#ifndef ISM_LIB_INSPECT_H
#define ISM_LIB_INSPECT_H

#include <ismredir/maps.h>
#include <ismredir/view.h>
#include "cgroup.h"
#include "err.h"

/**
 * ism_inspect_conns() - call @fn for each record, with the live state of its socket
 * Return: 0, -ENOENT when nothing is loaded, negative errno, or what @fn returned if not 0.
 * The view is valid during the call only. Records may come and go meanwhile.
 */
int ism_inspect_conns(int (*fn)(const struct ism_conn_view *v, void *arg), void *arg,
		      struct ism_err *err);

/** ism_inspect_ctl() - the control block; -ENOENT when nothing is loaded */
int ism_inspect_ctl(struct ism_ctl *ret, struct ism_err *err);

/** ism_inspect_set_word() - switch on, off, or to drain; in force when this returns */
int ism_inspect_set_word(__u32 word, struct ism_err *err);

/** ism_inspect_stats() - counters, summed over CPUs */
int ism_inspect_stats(struct ism_stats *ret, struct ism_err *err);

/** ism_inspect_reasons() - ISM_REASON_SLOTS counters, summed over CPUs */
int ism_inspect_reasons(__u64 *ret, struct ism_err *err);

/**
 * ism_inspect_map() - call @fn with each key and value of a pinned map
 * @key_size, @value_size: what the caller expects; -EPROTO when the map has others
 */
int ism_inspect_map(const char *name, size_t key_size, size_t value_size,
		    int (*fn)(const void *key, const void *value, void *arg), void *arg,
		    struct ism_err *err);

/** ism_inspect_held() - direct ends whose FIN is held back until a remote relay has taken their bytes */
int ism_inspect_held(unsigned int *ret, struct ism_err *err);

/** ism_inspect_cgroups() - call @fn with each attached cgroup; @path is NULL when it is gone */
int ism_inspect_cgroups(int (*fn)(__u64 id, const char *path, void *arg), void *arg,
			struct ism_err *err);

/**
 * ism_listeners_arm() - cover servers that listened before load, in all namespaces found below
 * the given cgroups
 * @ret_armed: how many
 * @ret_refused: how many this kernel would not let us arm
 */
int ism_listeners_arm(const struct ism_cgroup *cg, unsigned int n, unsigned int *ret_armed,
		      unsigned int *ret_refused, struct ism_err *err);

/** ism_listeners_disarm() - the reverse, for all listeners of this load */
int ism_listeners_disarm(const struct ism_cgroup *cg, unsigned int n, struct ism_err *err);

#endif
