/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What lies in a region: memory that the fabrics shm, cxl and ivshmem share among peers of different
 * kernels. docs/region.rst says how it is used, and why a peer may die at any store.
 *
 * Everything is made of 64-bit little-endian words. Each word has one peer that stores to it (the bells
 * aside, see there), and no cache line has two. Order of publication: all words of an entry, then, behind
 * a fence, its @state. A reader copies: @state, the words, @state again; and uses the copy if both
 * states are the same and valid.
 *
 * Offsets are from the start of the region. Layout: the superblock; the control area of each peer, @control
 * bytes; the arena of each peer, @arena bytes. A control area: struct ism_region_peer; tails; links; mails;
 * directory; attach table; bells. Each of these begins on a cache line; see region_layout_of().
 */
#ifndef ISMREDIR_REGION_H
#define ISMREDIR_REGION_H

#include <linux/types.h>

#define ISM_REGION_MAGIC     0x314e474552d1a5ffULL
#define ISM_REGION_VERSION   1
#define ISM_REGION_LINE	     64
#define ISM_REGION_PAGE	     4096
#define ISM_REGION_MAX_PEERS 64
#define ISM_REGION_MAX_DMBS  65536 /* of one peer */
#define ISM_REGION_MAX_UNIT  (1ULL << 30)
#define ISM_REGION_MAILS     16 /* unread events from one peer to one other */
#define ISM_REGION_MIN_LEASE 100 /* ms */
#define ISM_REGION_MAX_LEASE 60000

/**
 * struct ism_region_super - the first page; written when the region is formatted, never afterwards
 * @magic: stored last
 * @uuid: random
 * @size: bytes of the region
 * @peers, @dmbs: slots for peers; DMBs, and attached DMBs, of each
 * @unit: DMBs begin at multiples of it, and take whole ones: a power of two, at least a page
 * @control_off, @control: where the control areas begin, and bytes of one
 * @arena_off, @arena: the same of the arenas, multiples of @unit
 * @created: seconds since 1970
 * @crc: CRC-32C of all above
 */
struct ism_region_super {
	__le64 magic;
	__le64 version;
	__le64 uuid[2];
	__le64 size;
	__le64 peers;
	__le64 dmbs;
	__le64 unit;
	__le64 control_off;
	__le64 control;
	__le64 arena_off;
	__le64 arena;
	__le64 created;
	__le64 crc;
};

enum ism_region_peer_state {
	ISM_PEER_FREE = 0,
	ISM_PEER_CLAIMED = 1, /* somebody is about to become this peer */
	ISM_PEER_LIVE = 2,
};

/* A state is a generation and what it is in; every claim of the slot is a new generation. */
#define ISM_PEER_STATE(gen, what) ((gen) << 8 | (what))
#define ISM_PEER_WHAT(state)	  ((state)&0xff)
#define ISM_PEER_GEN(state)	  ((state) >> 8)

enum ism_region_bell_kind {
	ISM_BELL_NONE = 0, /* it polls */
	ISM_BELL_UDP = 1,
	ISM_BELL_DEVICE = 2, /* it is rung by its number */
};

/**
 * struct ism_region_peer - one slot; written by the peer that has it
 * @state: ISM_PEER_STATE. What a peer of another generation left in the slot is void
 * @gid, @pnetid: see struct ism_fabric_info
 * @host: names the kernel since its last boot, and the network namespace: a peer that finds its own in a
 *        slot that nobody serves goes on where its predecessor was killed
 * @lease: ms; a peer whose @beat has not changed for so long is asleep, or gone
 * @bell: enum ism_region_bell_kind; @addr: IPv6 address, v4-mapped, in network order; @port
 * @number: 1 and what the device calls the peer, which is not its slot; 0: nothing
 * @pid, @start: the process, in its own kernel: number, and start time as /proc/PID/stat tells it
 * @beat: changes while the peer runs
 * @changes: changes with each DMB that the peer registered or unregistered
 * @dmb_high, @attach_high: entries from here on were never used by this generation
 */
struct ism_region_peer {
	__le64 state;
	__le64 gid[2];
	__le64 host[2];
	__le64 lease;
	__le64 pnetid[2];

	__le64 bell;
	__le64 addr[2];
	__le64 port;
	__le64 pid;
	__le64 start;
	__le64 number;
	__le64 pad1;

	__le64 beat;
	__le64 changes;
	__le64 dmb_high;
	__le64 attach_high;
	__le64 pad2[4];
};

/**
 * struct ism_region_link - from the peer in whose control area it lies to one other; written by the sender
 * @head: events put into its mails; those up to the receiver's tail have been read
 * @lost: events for which there was no room
 * @rings: bells of DMBs rung at the receiver
 */
struct ism_region_link {
	__le64 head;
	__le64 lost;
	__le64 rings;
	__le64 pad[5];
};

struct ism_region_mail {
	__le64 code;
	__le64 info;
};

/* State of an entry: a generation of its own, and whether it is valid. */
#define ISM_ENTRY_VALID	  1ULL
#define ISM_ENTRY_NEXT(s) (((s) | ISM_ENTRY_VALID) + 2) /* the next that is valid */

/**
 * struct ism_region_dmb - entry of the directory: a DMB that its peer owns
 * @peer_gen: generation of the peer: of another one, the entry is void
 * @token, @partner_token, @partner: see struct ism_dmb_params
 * @off, @len: in the arena of the peer; @off from the start of the region
 * @flags: label, and ISM_REGION_DMB_EXPORTED
 */
struct ism_region_dmb {
	__le64 state;
	__le64 peer_gen;
	__le64 token;
	__le64 partner_token;
	__le64 partner[2];
	__le64 off;
	__le64 len;

	__le64 flags;
	__le64 pad[7];
};

#define ISM_REGION_DMB_VLAN	0xffffULL
#define ISM_REGION_DMB_EXPORTED (1ULL << 16)

/**
 * struct ism_region_attach - entry of the attach table: memory that this peer writes to
 * @peer_gen: its own generation
 * @dmb: slot of the owner, and index of the DMB in its directory: ISM_REGION_DMB_ID
 * @dmb_state: state of that entry when it was attached
 * @off, @len: the memory. While an entry names it, its owner does not use it again
 * @pid, @start: who writes, in the kernel of this peer: it, or a program that it gave the descriptor
 */
struct ism_region_attach {
	__le64 state;
	__le64 peer_gen;
	__le64 dmb;
	__le64 dmb_state;
	__le64 off;
	__le64 len;
	__le64 pid;
	__le64 start;
};

#define ISM_REGION_DMB_ID(peer, index) ((__u64)(index) << 8 | (peer))
#define ISM_REGION_DMB_PEER(id)	       ((id)&0xff)
#define ISM_REGION_DMB_INDEX(id)       ((id) >> 8)

/**
 * struct ism_region_bell - of one DMB, in the control area of its owner; written by who has it attached
 * @value: another one for each ring
 */
struct ism_region_bell {
	__le64 value;
	__le64 pad[7];
};

_Static_assert(sizeof(struct ism_region_peer) == 3 * ISM_REGION_LINE, "peer");
_Static_assert(sizeof(struct ism_region_link) == ISM_REGION_LINE, "link");
_Static_assert(sizeof(struct ism_region_dmb) == 2 * ISM_REGION_LINE, "dmb");
_Static_assert(sizeof(struct ism_region_attach) == ISM_REGION_LINE, "attach");
_Static_assert(sizeof(struct ism_region_bell) == ISM_REGION_LINE, "bell");

#endif
