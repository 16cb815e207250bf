/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Load, replace and unload: programs, maps, links and pins. */
#ifndef ISM_LIB_LOADER_H
#define ISM_LIB_LOADER_H

#include "err.h"
#include "policy.h"

/**
 * struct ism_load_result - what load did
 * @armed: listeners that were there before and are covered now
 * @refused: listeners that this kernel does not let us cover
 * @sockmap_link: the sk_msg program hangs on a bpf_link (else on the map itself)
 * @replaced: an earlier load was replaced
 */
struct ism_load_result {
	unsigned int armed;
	unsigned int refused;
	int sockmap_link;
	int replaced;
};

/** ism_loader_privileges() - are the capabilities there? 0 or -EPERM with a text */
int ism_loader_privileges(struct ism_err *err);

/**
 * ism_loader_load() - load and pin, or with @replace swap the programs and policy of a running load
 *
 * Nothing is active, and nothing is left behind, unless 0 is returned. -EEXIST: something is loaded
 * and @replace is 0. When the caller is killed in between, the next load or unload cleans up.
 */
int ism_loader_load(const struct ism_policy *p, int replace, struct ism_load_result *ret,
		    struct ism_err *err);

/**
 * struct ism_unload_result - what unload found
 * @conns: redirected connections when it began
 * @direct: connections on rings when it ended, which leave them with their next send
 * @left: connections whose redirected bytes nobody has read, when -ETIMEDOUT is returned
 * @left_bytes: and how many bytes
 */
struct ism_unload_result {
	unsigned int conns;
	unsigned int direct;
	unsigned int left;
	unsigned long long left_bytes;
};

/**
 * ism_loader_unload() - drain, detach, unpin
 * @timeout_ms: how long readers get for what was redirected to them
 *
 * Return: 0; -ENOENT when nothing is loaded; -ETIMEDOUT when a reader did not read: then all stays
 * in the state "drain", where new bytes take TCP, and unload may be called again.
 */
int ism_loader_unload(unsigned int timeout_ms, struct ism_unload_result *ret, struct ism_err *err);

struct ismredir_bpf;

/** ism_loader_fill_maps() - put rules and tunables in place; @word is set last */
int ism_loader_fill_maps(int rules_fd, int ctl_fd, const struct ism_policy *p, __u32 word,
			 struct ism_err *err);

/** ism_loader_open() - the programs, with a fresh secret and the map sizes of @p */
int ism_loader_open(const struct ism_policy *p, struct ismredir_bpf **ret, struct ism_err *err);

/**
 * ism_loader_attach_sockmap() - attach the sk_msg program to the sockhash
 * Return: descriptor of a link; -EOPNOTSUPP when it was attached to the map without one; other
 * negative errno.
 */
int ism_loader_attach_sockmap(int prog_fd, int map_fd, struct ism_err *err);

/** ism_loader_attach_cgroup() - attach to a cgroup; descriptor of the link, or negative errno */
int ism_loader_attach_cgroup(int prog_fd, const struct ism_cgroup *cg, int type,
			     struct ism_err *err);

#endif
