/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control protocol of ismredird: SOCK_SEQPACKET at ISM_CONTROL_SOCK (or $ISMREDIR_SOCK), one
 * message per packet: a struct ism_msg, then the body that its type says. Host order: both ends are
 * on one kernel. Anything malformed, unknown or out of order is answered by ISM_MSG_ERROR or by
 * closing the connection, counted, and harmless. docs/control-protocol.rst describes it.
 *
 * A client may send requests without waiting; answers to one client come in order and name the token
 * that they are about.
 */
#ifndef ISMREDIR_CONTROL_H
#define ISMREDIR_CONTROL_H

#include <linux/types.h>
#include <ismredir/dmb.h>

#define ISM_CONTROL_SOCK    "/run/ismredir/control.sock"
#define ISM_CONTROL_MAGIC   0x4c435349u /* "ISCL" */
#define ISM_CONTROL_VERSION 3
#define ISM_MSG_MAX	    4096 /* bytes of one packet; longer is refused */
#define ISM_MSG_FDS	    5 /* descriptors of one packet at most */

enum ism_msg_type {
	ISM_MSG_HELLO = 1, /* -> struct ism_msg_hello. Must be first */
	ISM_MSG_HELLO_OK, /* <- struct ism_msg_hello_ok + fd of the host page (read only) */
	ISM_MSG_ATTACH, /* -> struct ism_msg_attach + fd of the socket itself */
	ISM_MSG_ATTACH_OK, /* <- struct ism_msg_attach_ok + 4 fds, see enum ism_attach_fd */
	ISM_MSG_DETACH, /* -> struct ism_msg_token. No answer */
	ISM_MSG_RESUME, /* -> struct ism_msg_resume + 5 fds: socket, then enum ism_attach_fd. After a
			 *    restart of the daemon: it learns of rings that live on in the clients.
			 * <- ISM_MSG_RESUME_OK (struct ism_msg_token) or ISM_MSG_ERROR */
	ISM_MSG_RESUME_OK,
	ISM_MSG_LIST, /* -> no body. <- ISM_MSG_DMB for each DMB that the caller may see (root: all; else
		       *    those of its own uid), then ISM_MSG_LIST_END */
	ISM_MSG_DMB, /* <- struct ism_msg_dmb */
	ISM_MSG_LIST_END, /* <- no body */
	ISM_MSG_FABRICS, /* -> no body. <- ISM_MSG_FABRIC for each, then ISM_MSG_LIST_END */
	ISM_MSG_FABRIC, /* <- struct ism_msg_fabric, then struct ism_msg_peer for each of its peers */
	ISM_MSG_STATUS, /* -> no body. <- ISM_MSG_STATUS_OK */
	ISM_MSG_STATUS_OK, /* <- struct ism_msg_status */
	ISM_MSG_ERROR, /* <- struct ism_msg_error */
	ISM_MSG_LEAVE, /* -> struct ism_msg_token: DETACH of one that leaves relatives behind. No answer */
};

/* The descriptors of ISM_MSG_ATTACH_OK, in this order. */
enum ism_attach_fd {
	ISM_FD_OWN_DMB = 0, /* read only */
	ISM_FD_PEER_DMB, /* read and write */
	ISM_FD_OWN_BELL, /* eventfd on which this end sleeps */
	ISM_FD_PEER_BELL, /* eventfd of the partner, to ring */
	ISM_FD_COUNT,
};

/**
 * struct ism_msg - head of every message
 * @magic, @version: ISM_CONTROL_MAGIC, ISM_CONTROL_VERSION
 * @type: enum ism_msg_type
 * @len: bytes of the body, exactly what the packet holds behind this head
 * @seq: chosen by the client, repeated in the answer
 */
struct ism_msg {
	__u32 magic;
	__u16 version;
	__u16 type;
	__u32 len;
	__u32 seq;
};

struct ism_msg_hello {
	__u32 flags; /* 0 */
	__u32 pad;
};

/**
 * struct ism_msg_hello_ok
 * @instance: random, another one for each start of the daemon
 * @gid: GID of this host on the loopback fabric
 */
struct ism_msg_hello_ok {
	__u64 instance;
	__u8 gid[16];
};

/**
 * struct ism_msg_attach - give me the rings of this connection
 * @token: DMB token of this end, as ISM_SO_INFO says (sockctl.h); must be the passed socket's. Asking
 *         ISM_SO_INFO also leaves the token with the socket, where ismredird looks for it
 * @share: secret number of this connection end in this client. Processes that share the end after a
 *         fork() know the same number and get the same DMBs; somebody else who holds the same socket
 *         does not, and is refused with -EBUSY.
 */
struct ism_msg_attach {
	__u64 token;
	__u64 share;
};

/**
 * struct ism_msg_attach_ok
 * @token, @peer: this end and its partner
 * @own_ring, @peer_ring: ring sizes of the two DMBs
 * @own_off, @peer_off: where they begin in what the descriptors name, multiples of the page size
 */
struct ism_msg_attach_ok {
	__u64 token;
	__u64 peer;
	__u32 own_ring;
	__u32 peer_ring;
	__u64 own_off;
	__u64 peer_off;
};

struct ism_msg_token {
	__u64 token;
};

struct ism_msg_resume {
	__u64 token;
	__u64 peer;
	__u64 share;
	__u32 own_ring;
	__u32 peer_ring;
	__u64 own_off;
	__u64 peer_off;
};

/**
 * struct ism_msg_error
 * @token: what the refused request was about, or 0
 * @error: negative errno: -EPROTO malformed, -EPERM not your connection, -EBUSY attached by another
 *         process, -EALREADY attached by you, -ENOENT no such connection, -EOPNOTSUPP the partner is
 *         not capable, -EDQUOT limit of the uid, -ENOSPC total limit, -ENOMEM, -ESHUTDOWN unloading;
 *         -EAGAIN the partner's handshake is not over, ask again; -ESTALE (RESUME) the connection has
 *         other DMBs by now, leave yours; -EUSERS too many clients, said without a request (seq 0)
 * @reason: enum ism_reason
 */
struct ism_msg_error {
	__u64 token;
	__s32 error;
	__u32 reason;
};

enum ism_dmb_flags {
	ISM_DMB_OWNER_ATTACHED = 1,
	ISM_DMB_PARTNER_ATTACHED = 2,
	ISM_DMB_RESUMED = 4, /* known from ISM_MSG_RESUME */
	ISM_DMB_RELAYED = 8, /* ismredird itself reads or writes it for the program */
};

/**
 * struct ism_msg_dmb - one DMB, as `ismredir dmbs` and `conns` show it
 * @token, @peer: the owner's and the partner's token
 * @ring_size, @fill: bytes of the ring, and of it unread
 * @owner_pid, @partner_pid, @uid: who holds it; 0 when nobody yet
 * @flags: enum ism_dmb_flags
 * @fabric: index of its fabric
 * @stats: the *partner's* counters, written by the partner: of the end with token @peer
 * @prod_flags: ISM_PROD_* of the ring now
 */
struct ism_msg_dmb {
	__u64 token;
	__u64 peer;
	__u32 ring_size;
	__u32 fill;
	__u32 owner_pid;
	__u32 partner_pid;
	__u32 uid;
	__u32 flags;
	__u32 fabric;
	__u32 prod_flags;
	struct ism_dmb_stats stats;
};

/**
 * struct ism_msg_fabric - one open fabric
 * @name: provider and spec, e.g. "memfd:"
 * @gid, @uuid: who this host is there, which fabric it is
 * @caps: enum ism_fabric_caps
 * @dmbs, @dmb_bytes: registered now; @pooled: ready in the pool
 * @index: as struct ism_msg_dmb has it
 * @tag: what names it in handshakes and in struct ism_conn; 0 when it reaches this kernel only
 * @n_peers: how many struct ism_msg_peer follow, this host among them; 0 when its peers cannot be listed
 */
struct ism_msg_fabric {
	char name[64];
	__u8 gid[16];
	__u8 uuid[16];
	__u32 caps;
	__u32 dmbs;
	__u64 dmb_bytes;
	__u32 pooled;
	__u32 index;
	__u32 tag;
	__u32 n_peers;
};

/**
 * struct ism_msg_peer - who else has that fabric
 * @gid, @network: as the peer says itself; @network is not always ended by a zero byte
 * @number: its slot
 * @life: enum ism_peer_life
 * @lease_ms: how long it may be silent; @age_ms: since it was heard last
 */
struct ism_msg_peer {
	__u8 gid[16];
	char network[16];
	__u32 number;
	__u32 life;
	__u64 lease_ms;
	__u64 age_ms;
};

/**
 * struct ism_msg_status - counters of ismredird
 * @attached_*, @ring_bytes*, ...: ever, with what detached connections had counted
 * @relay_*: of --relay, and 0 without. @relay_ends: connection ends relayed now; @relay_waiting: of these,
 *           without a partner yet; all others ever. @relay_broken: reset, because bytes were lost;
 *           @relay_drained: given back to TCP; @relay_tx_bytes, @relay_rx_bytes: put into rings, taken out
 */
struct ism_msg_status {
	__u64 uptime_ms;
	__u32 clients;
	__u32 pairs;
	__u64 attaches;
	__u64 detaches;
	__u64 resumes;
	__u64 refused; /* requests answered by ISM_MSG_ERROR */
	__u64 malformed; /* packets that were no message */
	__u64 ring_bytes; /* through rings, both directions, live and ended connections */
	__u64 ring_msgs;
	__u64 tcp_bytes; /* on TCP after the rings were attached */
	__u64 doorbells;
	__u64 spins;
	__u64 sleeps;
	__u64 timeouts;
	__u64 mem_bytes; /* of DMBs now */
	__u64 mem_limit;
	__u32 pid;
	__u32 word; /* enum ism_word that clients see */
	__u32 relay_ends;
	__u32 relay_waiting;
	__u64 relay_total;
	__u64 relay_refused;
	__u64 relay_broken;
	__u64 relay_drained;
	__u64 relay_tx_bytes;
	__u64 relay_rx_bytes;
	__u64 relay_doorbells;
};

/**
 * struct ism_host_page - a page that ismredird shares read-only with its clients
 * @magic: ISM_DMB_MAGIC
 * @word: enum ism_word: clients leave their rings when it is not ISM_WORD_ON
 * @instance: as in hello
 * @wake_ns: what waking a task on another CPU costs here, measured at start: how long to spin
 * @cpus: CPUs of the host
 */
struct ism_host_page {
	__u32 magic;
	__u32 word;
	__u64 instance;
	__u32 wake_ns;
	__u32 cpus;
};

_Static_assert(sizeof(struct ism_msg) == 16, "head");
_Static_assert(sizeof(struct ism_msg_dmb) <= ISM_MSG_MAX - 16, "fits a packet");

#endif
