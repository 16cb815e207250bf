/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What several providers need. */
#ifndef ISM_FABRIC_UTIL_H
#define ISM_FABRIC_UTIL_H

#include <sys/types.h>
#include <ismredir/fabric.h>

/** fabric_number() - a decimal number of digits only, from @min to @max; 0 or -EINVAL */
int fabric_number(const char *text, __u64 min, __u64 max, __u64 *ret);

/** fabric_size() - the same with K, M or G behind it */
int fabric_size(const char *text, __u64 min, __u64 max, __u64 *ret);

/** fabric_random_gid() - a random uuid, RFC 9562; 0 or -EIO */
int fabric_random_gid(struct ism_gid *ret);

/** fabric_boot_uuid() - names this kernel until its next boot; 0 or -ENODEV */
int fabric_boot_uuid(struct ism_gid *ret);

/** fabric_same_gid() - are they the same? */
int fabric_same_gid(const struct ism_gid *a, const struct ism_gid *b);

/** fabric_reopen() - another open file description of what @fd is; it, or negative errno */
int fabric_reopen(int fd, int flags);

/** fabric_ring_fd() - add to an eventfd; one that is full has been rung already */
void fabric_ring_fd(int fd);

/**
 * fabric_take_bell() - take from an eventfd what was rung, and never sleep: who else has it may have taken O_NONBLOCK
 *                      off, which all share. Bytes as read(2), or negative errno; -EAGAIN: not rung
 */
ssize_t fabric_take_bell(int fd);

/** struct fabric_labels - labels that a peer has; all zero is none */
struct fabric_labels {
	__u8 bits[(ISM_VLAN_MAX + 8) / 8];
};

int fabric_has_label(const struct fabric_labels *l, __u16 vlan);

/** fabric_add_label() - 0 or -EEXIST */
int fabric_add_label(struct fabric_labels *l, __u16 vlan);

/** fabric_del_label() - the label must be there */
void fabric_del_label(struct fabric_labels *l, __u16 vlan);

#endif
