/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The core of all fabrics that are one stretch of memory: what a provider of such memory (shm, cxl,
 * ivshmem) has to bring, and what it gets. The core does the format (include/ismredir/region.h), peers,
 * leases, directory, attach tables, allocator, bells and events; docs/region.rst says why it is safe.
 *
 * A provider's open() maps its memory, fills a struct region_dev, calls region_open(), and lists the
 * region_* functions below in its struct ism_fabric_ops: REGION_FABRIC_OPS does that.
 */
#ifndef ISM_FABRIC_REGION_H
#define ISM_FABRIC_REGION_H

#include <ismredir/fabric.h>

struct region_dev;

/**
 * struct region_dev_ops - what only the device knows; each may be NULL
 * @ring: make the peer that the device calls @number look at its bell words: an interrupt. May coalesce,
 *        may be lost. @number is what that peer says: it may be anything
 * @drain: take from bell_fd what made it readable. Without it an eventfd is assumed
 * @peer_gone: 1: who was called @number surely does not run any more, or cannot reach the memory; 0: it
 *             does; -1: unknown, as without this op. @number may be anything
 * @close: unmap, close @fd and @bell_fd, free @priv. Called once, also when region_open() fails
 */
struct region_dev_ops {
	void (*ring)(struct region_dev *dev, __u64 number);
	void (*drain)(struct region_dev *dev);
	int (*peer_gone)(struct region_dev *dev, __u64 number);
	void (*close)(struct region_dev *dev);
};

/**
 * struct region_dev - memory, and how to reach its other peers
 * @ops: see there
 * @base, @len: the memory, mapped for reading and writing, on a page boundary
 * @fd, @fd_off: what it is mapped from and where: it is exported to programs, who map parts of it.
 *               -1: it cannot be exported. /proc/self/fd/N is opened for a read-only descriptor; where
 *               that fails the same one is used for both
 * @align: parts can be mapped at multiples of it only, and whole ones; nothing is exported from a region
 *         whose unit is smaller. 0: pages
 * @lock_fd: for an open file description lock on the byte 4096 + slot, so that two processes of one
 *           kernel do not take the same slot; not duplicated to anybody, closed by the core. -1: there is
 *           only one opener anyway
 * @is_coherent: what one peer stores the others load without flushes; the option coherent= overrides it
 * @number: what the device calls this peer; -1: it does not, and the slot is used for it
 * @is_sole: @number goes with this kernel: of who had it before nothing can run any more
 * @bell_fd: becomes readable when a peer rang; -1: none, bell words are polled
 * @options: names of options that the provider has looked at itself, ended by NULL; may be NULL
 * @priv: the provider's
 */
struct region_dev {
	const struct region_dev_ops *ops;
	void *base;
	__u64 len;
	int fd;
	__u64 fd_off;
	__u64 align;
	int lock_fd;
	int is_coherent;
	__s64 number;
	int is_sole;
	int bell_fd;
	const char *const *options;
	void *priv;
};

/**
 * region_open() - take part in a formatted region
 * @dev: copied. From now on it is the core's: on failure, too, ops->close has been called
 * @options: "NAME=VALUE,...", behind the provider's own address
 *
 * Options: peer=N, bell=udp:ADDR:PORT, direct=UID[:UID...], poll=US, coherent=yes|no, lease=MS,
 * pnetid=NAME, max-dmbs=N.
 *
 * Return: 0; -EINVAL: options; -EMEDIUMTYPE: not formatted, or of another version; -EUCLEAN: damaged;
 * -EBUSY: the slot is taken; -EUSERS: no slot is free; others. @err has a text.
 */
int region_open(const struct region_dev *dev, const char *options, struct ism_fabric **ret,
		struct ism_err *err);

/* The ops; see struct ism_fabric_ops. */
void region_close(struct ism_fabric *f);
int region_query_remote_gid(struct ism_fabric *f, const struct ism_gid *gid);
int region_peers(struct ism_fabric *f, struct ism_peer_info *ret, unsigned int n);
int region_register_dmb(struct ism_fabric *f, const struct ism_dmb_params *p, struct ism_dmb **ret);
void region_unregister_dmb(struct ism_fabric *f, struct ism_dmb *dmb);
int region_attach_dmb(struct ism_fabric *f, __u64 token, struct ism_dmb_map *ret);
void region_detach_dmb(struct ism_fabric *f, struct ism_dmb_map *map);
int region_move_data(struct ism_fabric *f, __u64 token, __u64 offset, const void *data, size_t len,
		     int signal);
int region_ring(struct ism_fabric *f, __u64 token);
void region_fetch(struct ism_fabric *f, struct ism_dmb *dmb, __u64 offset, size_t len);
int region_query_dmb(struct ism_fabric *f, __u64 token, struct ism_gid *owner, __u64 *len);
int region_signal_event(struct ism_fabric *f, const struct ism_gid *gid, __u32 code, __u64 info);
int region_event_fd(struct ism_fabric *f);
int region_read_events(struct ism_fabric *f, struct ism_event *ret, unsigned int n);
int region_add_vlan(struct ism_fabric *f, __u16 vlan);
int region_del_vlan(struct ism_fabric *f, __u16 vlan);
int region_export_dmb(struct ism_fabric *f, struct ism_dmb *dmb, struct ism_dmb_fds *ret);
int region_export_map(struct ism_fabric *f, const struct ism_dmb_map *map, struct ism_dmb_fds *ret);
int region_adopt_dmb(struct ism_fabric *f, const struct ism_dmb_params *p,
		     const struct ism_dmb_fds *fds, struct ism_dmb **ret);

/* All of struct ism_fabric_ops but .scheme and .open. */
#define REGION_FABRIC_OPS                                                                          \
	.close = region_close, .query_remote_gid = region_query_remote_gid, .peers = region_peers, \
	.register_dmb = region_register_dmb, .unregister_dmb = region_unregister_dmb,              \
	.attach_dmb = region_attach_dmb, .detach_dmb = region_detach_dmb,                          \
	.move_data = region_move_data, .ring = region_ring, .fetch = region_fetch,                 \
	.query_dmb = region_query_dmb, .signal_event = region_signal_event,                        \
	.event_fd = region_event_fd, .read_events = region_read_events,                            \
	.add_vlan = region_add_vlan, .del_vlan = region_del_vlan, .export_dmb = region_export_dmb, \
	.export_map = region_export_map, .adopt_dmb = region_adopt_dmb

#endif
