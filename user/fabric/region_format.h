/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Geometry of a region: making it, checking it, and finding one's way in it. */
#ifndef ISM_FABRIC_REGION_FORMAT_H
#define ISM_FABRIC_REGION_FORMAT_H

#include <ismredir/fabric.h>
#include "err.h"
#include "region_mem.h"

/**
 * struct region_layout - where things are, from a checked superblock
 * @tails ... @bells: offsets within a control area
 */
struct region_layout {
	__u64 size;
	__u64 peers;
	__u64 dmbs;
	__u64 unit;
	__u64 control_off;
	__u64 control;
	__u64 arena_off;
	__u64 arena;
	__u64 tails;
	__u64 links;
	__u64 mails;
	__u64 dir;
	__u64 attach;
	__u64 bells;
};

#define REGION_PEERS 8 /* of region_format(), when not chosen */
#define REGION_DMBS  512

/**
 * struct region_geometry - what can be chosen; 0: as above, and a page
 */
struct region_geometry {
	__u64 peers;
	__u64 dmbs;
	__u64 unit;
};

/** region_layout_of() - the layout for that many bytes. -EINVAL: numbers out of range; -ENOSPC: no room */
int region_layout_of(__u64 size, const struct region_geometry *g, struct region_layout *ret);

/** region_format() - make a new region of all of @m; whoever has it open finds it damaged */
int region_format(const struct region_mem *m, const struct region_geometry *g, struct ism_err *err);

/**
 * region_check_super() - copy the superblock once, and check all of it
 * @super: gets the copy; may be NULL
 *
 * Return: 0; -EMEDIUMTYPE: none, or of another version; -EUCLEAN: damaged. With a text.
 */
int region_check_super(const struct region_mem *m, struct ism_region_super *super,
		       struct region_layout *ret, struct ism_err *err);

/** region_crc() - CRC-32C */
__u32 region_crc(const void *data, size_t len);

static inline char *region_control(const struct region_mem *m, const struct region_layout *l,
				   unsigned int peer)
{
	return m->base + l->control_off + peer * l->control;
}

static inline struct ism_region_peer *region_peer(const struct region_mem *m,
						  const struct region_layout *l, unsigned int peer)
{
	return (struct ism_region_peer *)region_control(m, l, peer);
}

static inline __le64 *region_tail(const struct region_mem *m, const struct region_layout *l,
				  unsigned int peer, unsigned int from)
{
	return (__le64 *)(region_control(m, l, peer) + l->tails) + from;
}

static inline struct ism_region_link *region_link(const struct region_mem *m,
						  const struct region_layout *l, unsigned int peer,
						  unsigned int to)
{
	return (struct ism_region_link *)(region_control(m, l, peer) + l->links) + to;
}

static inline struct ism_region_mail *region_mail(const struct region_mem *m,
						  const struct region_layout *l, unsigned int peer,
						  unsigned int to, __u64 number)
{
	return (struct ism_region_mail *)(region_control(m, l, peer) + l->mails) +
	       to * ISM_REGION_MAILS + number % ISM_REGION_MAILS;
}

static inline struct ism_region_dmb *region_dmb(const struct region_mem *m,
						const struct region_layout *l, unsigned int peer,
						__u64 index)
{
	return (struct ism_region_dmb *)(region_control(m, l, peer) + l->dir) + index;
}

static inline struct ism_region_attach *region_attach(const struct region_mem *m,
						      const struct region_layout *l,
						      unsigned int peer, __u64 index)
{
	return (struct ism_region_attach *)(region_control(m, l, peer) + l->attach) + index;
}

static inline struct ism_region_bell *region_bell(const struct region_mem *m,
						  const struct region_layout *l, unsigned int peer,
						  __u64 index)
{
	return (struct ism_region_bell *)(region_control(m, l, peer) + l->bells) + index;
}

static inline __u64 region_arena(const struct region_layout *l, unsigned int peer)
{
	return l->arena_off + peer * l->arena;
}

/* Copies of entries in host order, each word of it loaded once. */
struct region_peer_copy {
	__u64 state;
	__u64 gid[2];
	__u64 host[2];
	__u64 lease;
	__u64 pnetid[2];
	__u64 bell;
	__u64 addr[2];
	__u64 port;
	__u64 pid;
	__u64 start;
	__u64 number;
};

struct region_dmb_copy {
	__u64 state;
	__u64 peer_gen;
	__u64 token;
	__u64 partner_token;
	__u64 partner[2];
	__u64 off;
	__u64 len;
	__u64 flags;
};

struct region_attach_copy {
	__u64 state;
	__u64 peer_gen;
	__u64 dmb;
	__u64 dmb_state;
	__u64 off;
	__u64 len;
	__u64 pid;
	__u64 start;
};

/** region_read_peer() - 1: of one piece; 0: it changed meanwhile. All that is copied is still to be judged */
int region_read_peer(const struct region_mem *m, const struct region_layout *l, unsigned int peer,
		     struct region_peer_copy *ret);

/**
 * region_read_dmb() - an entry of the directory
 * @gen: generation of its peer
 *
 * Return: 1: valid, and what it says of its memory is possible; 0: it is not valid; -EAGAIN: it changes
 * right now; -EUCLEAN: it is valid and cannot be.
 */
int region_read_dmb(const struct region_mem *m, const struct region_layout *l, unsigned int peer,
		    __u64 gen, __u64 index, struct region_dmb_copy *ret);

/** region_read_attach() - an entry of an attach table; see region_read_dmb() */
int region_read_attach(const struct region_mem *m, const struct region_layout *l, unsigned int peer,
		       __u64 gen, __u64 index, struct region_attach_copy *ret);

/** region_high() - dmb_high or attach_high, within bounds */
static inline __u64 region_high(const struct region_layout *l, const __le64 *at)
{
	__u64 n = region_load(at);

	return n < l->dmbs ? n : l->dmbs;
}

/** region_bytes() - 16 bytes (a GID, a pnetid, an address) of the two words that they are in a region */
static inline void region_bytes(void *to, const __u64 words[2])
{
	const __le64 raw[2] = { htole64(words[0]), htole64(words[1]) };

	memcpy(to, raw, sizeof(raw));
}

/** region_words() - the two words of 16 bytes */
static inline void region_words(__u64 ret[2], const void *from)
{
	__le64 raw[2];

	memcpy(raw, from, sizeof(raw));
	ret[0] = le64toh(raw[0]);
	ret[1] = le64toh(raw[1]);
}

/** region_gid() - a GID of its words */
static inline struct ism_gid region_gid(const __u64 words[2])
{
	struct ism_gid gid;

	region_bytes(&gid, words);
	return gid;
}

#endif
