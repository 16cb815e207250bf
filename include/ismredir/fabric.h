/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The fabric: memory that one peer reads and another writes, whoever carries the bytes. What is behind
 * it (a memfd, a PCI BAR, a CXL region, an ISM device) is a *provider*: one file in user/fabric that
 * implements struct ism_fabric_ops. docs/fabric-provider.rst says how to write one.
 *
 * A peer is one open fabric and is named by its GID. A Direct Memory Buffer (DMB) has exactly one owner,
 * which reads it, and one partner, which writes it; the partner is named by its GID when the DMB is
 * registered and proves itself by being that peer and knowing the DMB token. What the bytes mean is no
 * business of a fabric (dmb.h says it).
 *
 * Names and meanings follow dibs (Linux 6.18, include/linux/dibs.h): get_gid, query_remote_gid,
 * register_dmb, attach_dmb, move_data, signal_event.
 *
 * Conventions: functions return 0 or a negative errno. Lengths and offsets are in bytes, integers in host
 * order. Calls on different fabrics may run at the same time; calls on one fabric are for the caller to
 * serialise. Providers never print and never exit.
 */
#ifndef ISMREDIR_FABRIC_H
#define ISMREDIR_FABRIC_H

#include <stddef.h>
#include <linux/types.h>

struct ism_err;
struct ism_fabric;

/** struct ism_gid - name of a peer on its fabric; all zero names nobody */
struct ism_gid {
	__u8 b[16];
};

enum ism_fabric_caps {
	ISM_FABRIC_ATTACH = 1, /* attach_dmb works: the partner's DMB can be mapped */
	ISM_FABRIC_DOORBELL = 2, /* a signal reaches a peer that sleeps in poll() on its event_fd */
	ISM_FABRIC_COHERENT =
		4, /* what one peer stored, the other loads, without flushing caches */
	ISM_FABRIC_PERSISTS = 8, /* a DMB outlives the process that registered it; see adopt_dmb */
	ISM_FABRIC_EXPORT = 16, /* export_dmb works: DMBs can be handed to other processes */
	ISM_FABRIC_BY_TOKEN =
		32, /* a partner may be named by its token: ism_dmb_params.partner_token */
	ISM_FABRIC_WHOLE =
		64, /* an exported descriptor reaches all DMBs of the fabric, not only its own:
				* it is for users only who may be trusted with that */
};

#define ISM_PNETID_LEN	      16
#define ISM_FABRIC_MAX_DIRECT 8 /* users of one fabric who are named */
#define ISM_FABRIC_MAX_PEERS  64 /* of one fabric, this one among them */
#define ISM_FABRIC_DIRECT_ALL 0xffffffffu /* n_direct: all users */
#define ISM_VLAN_NONE	      0
#define ISM_VLAN_MAX	      4094

/**
 * struct ism_fabric_info - what never changes while a fabric is open
 * @spec: as given to ism_fabric_open(), cut to the room
 * @gid: this peer
 * @uuid: the fabric: two peers with different uuids cannot reach each other
 * @fabric_id: short form of @uuid (a CHID). Different ones mean different fabrics, equal ones prove
 *             nothing: ask query_remote_gid
 * @caps: enum ism_fabric_caps
 * @max_dmbs: how many DMBs one peer can register
 * @max_dmb_len: the longest DMB
 * @pnetid: name of the physical network, "" when none is given; peers with different names never match
 * @direct, @n_direct: ISM_FABRIC_WHOLE: the users to whose programs exported descriptors may go; without it
 *                     nobody needs to be named
 */
struct ism_fabric_info {
	char spec[64];
	struct ism_gid gid;
	struct ism_gid uuid;
	__u32 fabric_id;
	__u32 caps;
	__u32 max_dmbs;
	__u64 max_dmb_len;
	char pnetid[ISM_PNETID_LEN + 1];
	__u32 n_direct;
	__u32 direct[ISM_FABRIC_MAX_DIRECT];
};

/**
 * ism_fabric_tag() - the 24 bits that stand for a fabric in the handshake; never 0
 */
static inline __u32 ism_fabric_tag(const struct ism_fabric_info *info)
{
	__u32 tag = info->fabric_id & 0xffffff;

	return tag ? tag : 1;
}

/**
 * struct ism_fabric_counters - kept by the provider, read by anybody
 * @dmbs, @dmb_bytes: registered now, and their lengths
 * @pooled: prepared and not registered yet
 * @refused: requests refused because of a wrong token, GID, label or state, at this peer's request
 * @moves, @moved_bytes: move_data calls that this peer made, and their bytes
 * @signals: doorbells and events that this peer sent
 * @fallbacks: DMBs without the kind of memory that the spec asked for
 */
struct ism_fabric_counters {
	__u32 dmbs;
	__u32 pooled;
	__u64 dmb_bytes;
	__u64 refused;
	__u64 moves;
	__u64 moved_bytes;
	__u64 signals;
	__u64 fallbacks;
};

/**
 * struct ism_dmb_params - what is to be registered
 * @token: DMB token, not 0, unused on this fabric
 * @len: bytes, more than 0
 * @partner: who may write. The owner itself on a fabric that is used by one process for many
 * @vlan: label, ISM_VLAN_NONE for none: the partner must have it too
 * @exported: the doorbell is for whoever gets the descriptors of export_dmb, not for read_events
 * @partner_token: ISM_FABRIC_BY_TOKEN, with @partner all zero: the partner is who owns a DMB with this
 *                 token whose own @partner_token is @token. For two peers that know of each other only
 *                 what the handshake of a connection said. 0 otherwise
 * @init, @init_len: how the DMB begins, @len bytes at most; the rest is zero. It is copied before anybody
 *                   can see the DMB. @init_len 0: all zero. Not looked at by adopt_dmb
 */
struct ism_dmb_params {
	__u64 token;
	__u64 len;
	struct ism_gid partner;
	__u16 vlan;
	__u16 exported;
	__u32 init_len;
	__u64 partner_token;
	const void *init;
};

/**
 * struct ism_dmb - a registered DMB, as its owner sees it; belongs to the provider
 * @token, @len, @partner, @vlan: as registered
 * @index: number of the DMB at its owner, below max_dmbs, unique while it is registered
 * @addr: the owner's view, @len bytes, which it only reads: its partner may have attached the DMB before
 *        register_dmb returns. NULL where memory cannot be mapped by a CPU
 */
struct ism_dmb {
	__u64 token;
	__u64 len;
	struct ism_gid partner;
	__u32 index;
	__u16 vlan;
	__u16 exported;
	void *addr;
};

/**
 * struct ism_dmb_map - the partner's view of an attached DMB
 * @addr: @len bytes to write
 * @priv: the provider's
 * @holder: set by the caller before export_map: the process that gets the descriptors; 0: nobody but this
 *          one writes
 */
struct ism_dmb_map {
	__u64 token;
	__u64 len;
	void *addr;
	void *priv;
	__u32 holder;
};

/**
 * struct ism_dmb_fds - a DMB as descriptors
 * @read: its memory, only to be mapped for reading
 * @write: its memory, to be mapped for reading and writing
 * @bell: eventfd, becomes readable when the partner signals
 * @off: where the DMB begins in @read and @write, a multiple of the page size
 */
struct ism_dmb_fds {
	int read;
	int write;
	int bell;
	__u64 off;
};

enum ism_peer_life {
	ISM_PEER_ALIVE = 1, /* it was heard within its lease */
	ISM_PEER_SILENT, /* it was not: it is stopped, or its host is, or it ended without a word */
	ISM_PEER_GONE, /* the device knows that it does not run any more */
};

/**
 * struct ism_peer_info - a peer of a fabric, as this peer sees it now
 * @pnetid: its network: what it says itself, any bytes, not always ended by a zero byte
 * @number: its place in the fabric, below ISM_FABRIC_MAX_PEERS
 * @life: enum ism_peer_life
 * @lease_ms: so long may it be silent; @age_ms: since a sign of life was seen, or since this peer looks
 */
struct ism_peer_info {
	struct ism_gid gid;
	char pnetid[ISM_PNETID_LEN];
	__u32 number;
	__u32 life;
	__u64 lease_ms;
	__u64 age_ms;
};

enum ism_event_type {
	ISM_EVENT_DOORBELL = 1, /* @token was signalled, once or several times */
	ISM_EVENT_CODE, /* signal_event: @gid sent @code and @info */
	ISM_EVENT_LOST, /* events were lost, because nobody read them in time */
	ISM_EVENT_DMB, /* ISM_FABRIC_BY_TOKEN: @gid registered a DMB with token @info, whose partner is the
			* owner of the DMB with token @token, be it registered or not. May come twice, may
			* come for what is gone by now, and is sent to all peers: most are not meant */
};

/**
 * struct ism_event - something that a peer caused
 * @type: enum ism_event_type; fields that it does not name are 0
 */
struct ism_event {
	__u32 type;
	__u32 code;
	__u64 token;
	__u64 info;
	struct ism_gid gid;
};

/**
 * struct ism_fabric_ops - a provider
 * @scheme: what stands before the ':' in a spec
 *
 * Callers use the ism_fabric_* functions below. They check what is the same everywhere (NULL, length 0,
 * ranges that wrap around, lengths beyond max_dmb_len, labels beyond ISM_VLAN_MAX, a missing op) before
 * they call one of these. Ops marked optional may be NULL.
 */
struct ism_fabric_ops {
	const char *scheme;

	/*
	 * Open from the text behind the ':' ("" when nothing is there); see ism_fabric_option(). Allocates
	 * @ret with everything in struct ism_fabric filled except @ops and info.spec.
	 * -EINVAL: the text is wrong; -ENODEV: no such device; each with a text in @err.
	 */
	int (*open)(const char *options, struct ism_fabric **ret, struct ism_err *err);

	/*
	 * Unregister all DMBs of this peer, which its partners may still have attached, and free @f. With
	 * ISM_FABRIC_PERSISTS exported ones go on for who has their descriptors, to be adopted.
	 */
	void (*close)(struct ism_fabric *f);

	/* 0: @gid is a peer that can be reached now; -EHOSTUNREACH: it is not. */
	int (*query_remote_gid)(struct ism_fabric *f, const struct ism_gid *gid);

	/*
	 * Optional. Who takes part in the fabric, this peer among them and those of other networks too; up
	 * to @n. Returns how many are in @ret.
	 */
	int (*peers)(struct ism_fabric *f, struct ism_peer_info *ret, unsigned int n);

	/*
	 * Make a DMB: @p->init, and zero behind it. The caller is its owner, and gives it back by
	 * unregister_dmb.
	 * -EEXIST: the token is in use; -ENOSPC: max_dmbs are there; -ENOMEM, -EMFILE;
	 * -ENOENT: this peer does not have the label.
	 */
	int (*register_dmb)(struct ism_fabric *f, const struct ism_dmb_params *p,
			    struct ism_dmb **ret);

	/*
	 * From when this returns, move_data and attach_dmb with its token are refused. Memory that the
	 * partner has attached stays valid for it until it detaches, and is never used for another DMB.
	 */
	void (*unregister_dmb)(struct ism_fabric *f, struct ism_dmb *dmb);

	/*
	 * Optional, ISM_FABRIC_ATTACH. Map the partner's DMB: one attachment at a time.
	 * -ENOENT: no such token; -EACCES: this peer is not its partner, or lacks its label;
	 * -EBUSY: attached already. Each is counted as refused.
	 */
	int (*attach_dmb)(struct ism_fabric *f, __u64 token, struct ism_dmb_map *ret);

	/* Optional. Unmap; also when the DMB is not registered any more. */
	void (*detach_dmb)(struct ism_fabric *f, struct ism_dmb_map *map);

	/*
	 * Copy @len bytes to @offset of a DMB whose partner this peer is. When this returns @data may be
	 * reused and the bytes are visible to the owner, all calls in order. @signal: ring afterwards;
	 * signals may coalesce, but the last one is never lost.
	 * -ENOENT, -EACCES as attach_dmb; -ERANGE: beyond the end of the DMB, nothing was written.
	 */
	int (*move_data)(struct ism_fabric *f, __u64 token, __u64 offset, const void *data,
			 size_t len, int signal);

	/*
	 * Optional. Ring for the DMB @token of a partner without moving anything: what move_data does
	 * with @signal, for who writes by himself into what he attached. Refusals as move_data.
	 */
	int (*ring)(struct ism_fabric *f, __u64 token);

	/*
	 * Needed without ISM_FABRIC_COHERENT, else NULL: make what the partner has moved to @len bytes at
	 * @offset of an own DMB until now visible to the loads that follow.
	 */
	void (*fetch)(struct ism_fabric *f, struct ism_dmb *dmb, __u64 offset, size_t len);

	/*
	 * Optional. Would attach_dmb and move_data with this token be accepted (being attached already
	 * aside)? The errors are theirs, and are not counted. @owner gets the owner, @len the length of the
	 * DMB, which who cannot attach it has no other way to know; both may be NULL.
	 */
	int (*query_dmb)(struct ism_fabric *f, __u64 token, struct ism_gid *owner, __u64 *len);

	/*
	 * Optional. Send a number out of band. -EHOSTUNREACH: no such peer; -ENOBUFS: it reads too
	 * slowly, and will read ISM_EVENT_LOST.
	 */
	int (*signal_event)(struct ism_fabric *f, const struct ism_gid *gid, __u32 code,
			    __u64 info);

	/*
	 * A descriptor that polls readable while read_events has something, and now and then when it has
	 * nothing but wants to be called. It belongs to @f.
	 */
	int (*event_fd)(struct ism_fabric *f);

	/* Up to @n events, without waiting. Returns how many, 0 when there is none, or an error. */
	int (*read_events)(struct ism_fabric *f, struct ism_event *ret, unsigned int n);

	/* Optional. Take a label. -EEXIST: this peer has it. */
	int (*add_vlan)(struct ism_fabric *f, __u16 vlan);

	/* Optional. Give it up. -ENOENT: this peer has it not; -EBUSY: a DMB of it is registered. */
	int (*del_vlan)(struct ism_fabric *f, __u16 vlan);

	/*
	 * Optional. See that @want DMBs of @len bytes lie ready, so that register_dmb is quick. Makes one
	 * at most, so that the caller can do other things in between.
	 * Returns 1 when it made one, 0 when there were enough. Never makes what was registered before
	 * ready again.
	 */
	int (*prepare)(struct ism_fabric *f, __u64 len, unsigned int want);

	/*
	 * Optional, ISM_FABRIC_EXPORT. Descriptors of an own DMB, valid until it is unregistered; the
	 * caller duplicates what it gives away. Who gets @read cannot write, unless it could become the
	 * user that registered the DMB.
	 */
	int (*export_dmb)(struct ism_fabric *f, struct ism_dmb *dmb, struct ism_dmb_fds *ret);

	/*
	 * Optional, ISM_FABRIC_EXPORT. The same of a partner's DMB that is attached here: @write and @off;
	 * the others are -1. Valid until it is detached.
	 */
	int (*export_map)(struct ism_fabric *f, const struct ism_dmb_map *map,
			  struct ism_dmb_fds *ret);

	/*
	 * Optional, ISM_FABRIC_PERSISTS. Register a DMB that an earlier process exported and that
	 * somebody gives back. One of @read and @write may be -1. Nothing about the descriptors is
	 * trusted. On success they belong to the provider, else to the caller. Never blocks.
	 * -EPERM: not an exported DMB, or of another length; -EEXIST, -ENOSPC as register_dmb.
	 */
	int (*adopt_dmb)(struct ism_fabric *f, const struct ism_dmb_params *p,
			 const struct ism_dmb_fds *fds, struct ism_dmb **ret);
};

/**
 * struct ism_fabric - one open fabric; providers put it first in a struct of their own
 */
struct ism_fabric {
	const struct ism_fabric_ops *ops;
	struct ism_fabric_info info;
	struct ism_fabric_counters counters;
};

/**
 * ism_fabric_providers() - all that are built in, ended by NULL
 */
const struct ism_fabric_ops *const *ism_fabric_providers(void);

/**
 * ism_fabric_open() - open a fabric
 * @spec: "SCHEME:" or "SCHEME:NAME=VALUE,..." or what else the provider documents
 * @ret: to be given to ism_fabric_close()
 *
 * Return: 0; -EINVAL for a spec that no provider understands; what the provider says. @err has a text.
 */
int ism_fabric_open(const char *spec, struct ism_fabric **ret, struct ism_err *err);

/** ism_fabric_close() - see ops.close; NULL is allowed */
void ism_fabric_close(struct ism_fabric *f);

/*
 * The ops, behind the checks that are the same everywhere. -EINVAL: an argument that no provider takes;
 * -EOPNOTSUPP: the provider does not have this op. ism_fabric_unregister_dmb() takes NULL.
 */
int ism_fabric_query_remote_gid(struct ism_fabric *f, const struct ism_gid *gid);
int ism_fabric_peers(struct ism_fabric *f, struct ism_peer_info *ret, unsigned int n);
int ism_fabric_register_dmb(struct ism_fabric *f, const struct ism_dmb_params *p,
			    struct ism_dmb **ret);
void ism_fabric_unregister_dmb(struct ism_fabric *f, struct ism_dmb *dmb);
int ism_fabric_attach_dmb(struct ism_fabric *f, __u64 token, struct ism_dmb_map *ret);
void ism_fabric_detach_dmb(struct ism_fabric *f, struct ism_dmb_map *map);
int ism_fabric_move_data(struct ism_fabric *f, __u64 token, __u64 offset, const void *data,
			 size_t len, int signal);
int ism_fabric_ring(struct ism_fabric *f, __u64 token);
void ism_fabric_fetch(struct ism_fabric *f, struct ism_dmb *dmb, __u64 offset, size_t len);
int ism_fabric_query_dmb(struct ism_fabric *f, __u64 token, struct ism_gid *owner, __u64 *len);
int ism_fabric_signal_event(struct ism_fabric *f, const struct ism_gid *gid, __u32 code,
			    __u64 info);
int ism_fabric_event_fd(struct ism_fabric *f);
int ism_fabric_read_events(struct ism_fabric *f, struct ism_event *ret, unsigned int n);
int ism_fabric_add_vlan(struct ism_fabric *f, __u16 vlan);
int ism_fabric_del_vlan(struct ism_fabric *f, __u16 vlan);
int ism_fabric_prepare(struct ism_fabric *f, __u64 len, unsigned int want);
int ism_fabric_export_dmb(struct ism_fabric *f, struct ism_dmb *dmb, struct ism_dmb_fds *ret);
int ism_fabric_export_map(struct ism_fabric *f, const struct ism_dmb_map *map,
			  struct ism_dmb_fds *ret);
int ism_fabric_adopt_dmb(struct ism_fabric *f, const struct ism_dmb_params *p,
			 const struct ism_dmb_fds *fds, struct ism_dmb **ret);

/**
 * ism_fabric_option() - for providers: the value of NAME in "NAME=VALUE,NAME=VALUE"
 * @buf: gets the value, ended by a zero byte; "" when NAME stands there without '='
 *
 * Return: 1 when it is there, 0 when not, -ENAMETOOLONG.
 */
int ism_fabric_option(const char *options, const char *name, char *buf, size_t len);

/**
 * ism_fabric_check_options() - for providers: 0 when all names are in @known, ended by NULL, and none
 * is there twice; else -EINVAL with a text
 */
int ism_fabric_check_options(const char *options, const char *const *known, struct ism_err *err);

#endif
