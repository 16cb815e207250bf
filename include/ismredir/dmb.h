/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The Direct Memory Buffer: what lies where in the memory that one side reads and the other writes.
 *
 * One DMB per connection and direction. The *owner* reads it and never writes; its *partner* writes it
 * and never reads, so it works on fabrics where a remote peer can only write (ISM move_data) and on
 * mapped memory alike. Integers are little-endian; every field that changes is stored and loaded as a
 * whole. docs/ring.rst describes the protocol.
 *
 *   0     128  static   struct ism_dmb_static, there before the DMB is registered
 *   128    64  line A   struct ism_dmb_tx, written by the partner's sending side
 *   192    64  line B   struct ism_dmb_rx, written by the partner's receiving side
 *   256   128  stats    struct ism_dmb_stats, the partner's counters, for display only
 *   4096   ..  ring     ring_size bytes, a power of two
 *
 * Nothing in here is trusted by the owner: the geometry it uses comes from ismredird, each shared word
 * is read once, and a cursor outside its window ends the ring (user/lib/ring.h).
 */
#ifndef ISMREDIR_DMB_H
#define ISMREDIR_DMB_H

#include <linux/types.h>

#define ISM_DMB_MAGIC	  0x42444d49u /* "IMDB", little endian */
#define ISM_DMB_VERSION	  1
#define ISM_DMB_TX_OFF	  128
#define ISM_DMB_RX_OFF	  192
#define ISM_DMB_STATS_OFF 256
#define ISM_DMB_RING_OFF  4096
#define ISM_RING_MIN	  (64u << 10)
#define ISM_RING_MAX	  (64u << 20)

/**
 * struct ism_dmb_static - written once, before anybody else sees the DMB
 * @magic, @version: ISM_DMB_MAGIC, ISM_DMB_VERSION
 * @header_len: ISM_DMB_RING_OFF
 * @length: bytes of the whole DMB
 * @ring_off, @ring_size: the ring
 * @token: DMB token of the owner's connection end
 * @owner_gid, @partner_gid: who may read, who may write
 */
struct ism_dmb_static {
	__u32 magic;
	__u16 version;
	__u16 header_len;
	__u64 length;
	__u32 ring_off;
	__u32 ring_size;
	__u64 token;
	__u8 owner_gid[16];
	__u8 partner_gid[16];
	__u8 reserved[64];
};

/* The producer word: cursor and flags in one store, so data and end can never be seen apart. */
#define ISM_PROD_FIN   0x01 /* no byte will follow: the writer shut down or closed */
#define ISM_PROD_ABORT 0x02 /* the connection was aborted by the writer: reset after the data */
#define ISM_PROD_TCP   0x04 /* the bytes that follow the cursor are on the TCP connection */
#define ISM_PROD_REWIND                                                                            \
	0x08 /* toggles each time the writer, seeing the ring empty, rounds the cursor up */
#define ISM_PROD_FLAGS		0xff
#define ISM_PROD_SHIFT		8
#define ISM_PROD(cursor, flags) ((__u64)(cursor) << ISM_PROD_SHIFT | ((flags)&ISM_PROD_FLAGS))

/* The state in the high half of struct ism_dmb_rx.tcp. */
#define ISM_RX_READY (1ULL << 32) /* reads the ring; until then everything takes TCP */
#define ISM_RX_READING                                                                             \
	(1ULL << 33) /* may be inside recv() on the TCP socket: do not go back to the ring */
#define ISM_RX_FROZEN (1ULL << 34) /* will never read the ring again from its consumer cursor on */
#define ISM_RX_CLOSED (1ULL << 35) /* closed: nobody will read */
/*
 * A relay reads: what it has consumed lies in the receive queue of a socket, before everything that comes
 * by TCP later. So its partner goes to TCP only once all of the ring is consumed; see docs/cross-kernel.rst.
 */
#define ISM_RX_RELAY (1ULL << 36)
/*
 * Has attached this DMB. Said first of all when the partner is of another kernel, and without it in the own
 * DMB nobody says READY to such a partner: a daemon that was restarted may have made another DMB than
 * the one that the partner writes to.
 */
#define ISM_RX_HERE   (1ULL << 37)
#define ISM_RX_PINNED (1ULL << 38) /* with CLOSED, of a relay: TCP has the connection for good */
#define ISM_RX_SEQ(w) ((__u32)(w))

/*
 * In @how: between arming and its last look it runs membarrier(2) over all registered processes, so a
 * writer that is registered needs no fence between publishing and looking at want_data.
 */
#define ISM_RX_BARRIER 1

/**
 * struct ism_dmb_tx - line A, what the partner says as a sender; one cache line
 * @prod: ISM_PROD(cursor, flags) of the ring in this DMB; at first ISM_PROD(0, ISM_PROD_TCP)
 * @cpu: CPU on which the partner last ran
 * @want_space: nonzero while the partner sleeps for space in this ring: changes with each sleep, and
 *              the owner rings once for each value. 0: does not sleep.
 * @stamp: the clock of its CPU (time-stamp counter) when it published last: lets a reader of many
 *         rings serve them in order. Only a hint, and only if ism_dmb_rx.order asks for it.
 * @after: of a relay: ISM_TX_AFTER | TCP sequence number: what it gave to TCP before that is to be read
 *         before the bytes in the ring. It changes only while the ring is consumed. 0: nothing
 */
struct ism_dmb_tx {
	__u64 prod;
	__u32 cpu;
	__u32 want_space;
	__u64 stamp;
	__u64 after;
	__u8 reserved[32];
};

#define ISM_TX_AFTER (1ULL << 32)

/**
 * struct ism_dmb_rx - line B, what the partner says as a receiver; one cache line
 * @cons: its consumer cursor in the ring of *its own* DMB
 * @tcp: low half: TCP sequence number up to which its application has read; high half: ISM_RX_*
 * @want_data: nonzero while it sleeps for data, a new value for each sleep; 0: does not sleep
 * @how: ISM_RX_BARRIER
 * @order: not 0: it reads many rings and wants ism_dmb_tx.stamp of each message
 * @read: ISM_RX_RELAY: how many bytes of the ring the application itself has read (a count, which a
 *        rewind does not change); bounds what lies in the socket
 */
struct ism_dmb_rx {
	__u64 cons;
	__u64 tcp;
	__u32 want_data;
	__u32 how;
	__u64 read;
	__u32 order;
	__u8 reserved[28];
};

/**
 * struct ism_dmb_stats - the partner's own counters; shown, never acted on
 *
 * First line, written by its sending side:
 * @tx_bytes, @tx_msgs: sent through this ring
 * @tcp_tx_bytes: sent on TCP since the rings were attached
 * @switches: how often its sending side changed between TCP and ring
 * @doorbells: doorbells that it rang
 * @reason: enum ism_reason why its sending side is on TCP, 0 on the ring
 * @pid: the process that wrote last
 * @mark: of its first process, not 0: by it those that inherited the end know that these are the rings whose state
 *        they inherited, and no others of the same connection
 *
 * Second line, written by its receiving side and its waits:
 * @rx_bytes, @rx_msgs: received through the ring of the partner's own DMB
 * @tcp_rx_bytes: received on TCP since the rings were attached
 * @spins: waits that ended while spinning; @sleeps: waits that slept
 * @timeouts: sleeps that only the safety timeout ended: must be 0
 */
struct ism_dmb_stats {
	__u64 tx_bytes;
	__u64 tx_msgs;
	__u64 tcp_tx_bytes;
	__u64 switches;
	__u64 doorbells;
	__u32 reason;
	__u32 pid;
	__u64 mark;
	__u8 reserved_tx[8];
	__u64 rx_bytes;
	__u64 rx_msgs;
	__u64 tcp_rx_bytes;
	__u64 spins;
	__u64 sleeps;
	__u64 timeouts;
	__u8 reserved_rx[16];
};

/* Where the parts are. @dmb is the start of the mapping. */
static inline struct ism_dmb_tx *ism_dmb_tx(const void *dmb)
{
	return (struct ism_dmb_tx *)((__u8 *)dmb + ISM_DMB_TX_OFF);
}

static inline struct ism_dmb_rx *ism_dmb_rx(const void *dmb)
{
	return (struct ism_dmb_rx *)((__u8 *)dmb + ISM_DMB_RX_OFF);
}

static inline struct ism_dmb_stats *ism_dmb_stats(const void *dmb)
{
	return (struct ism_dmb_stats *)((__u8 *)dmb + ISM_DMB_STATS_OFF);
}

static inline __u8 *ism_dmb_ring(const void *dmb)
{
	return (__u8 *)dmb + ISM_DMB_RING_OFF;
}

/* Can a ring have that many bytes? */
static inline int ism_is_ring_size(__u64 size)
{
	return size >= ISM_RING_MIN && size <= ISM_RING_MAX && !(size & (size - 1));
}

/* Bytes of a whole DMB with a ring of @ring_size. */
static inline __u64 ism_dmb_len(__u32 ring_size)
{
	return (__u64)ISM_DMB_RING_OFF + ring_size;
}

_Static_assert(sizeof(struct ism_dmb_static) == 128, "static part");
_Static_assert(sizeof(struct ism_dmb_tx) == 64, "line A is one cache line");
_Static_assert(sizeof(struct ism_dmb_rx) == 64, "line B is one cache line");
_Static_assert(sizeof(struct ism_dmb_stats) == 128, "stats");

#endif
