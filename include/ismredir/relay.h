/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the BPF programs and the relay of ismredird tell each other about a relayed connection end:
 * values of the maps of the plane relay. docs/cross-kernel.rst, "The relay".
 *
 *   relays      array, mmapable  slot                  -> struct ism_relay     one per relayed end, and
 *                                                                               per direct end at a relay
 *   sk_relay    sk_storage       socket                -> struct ism_relay_sk  their sockets, and dummies
 *   relay_asks  ringbuf          struct ism_relay_ask                          ends worth relaying; FINs held
 *
 * Byte counts only grow. Each word has one writer, and is loaded and stored as a whole.
 */
#ifndef ISMREDIR_RELAY_H
#define ISMREDIR_RELAY_H

#include <linux/types.h>

#define ISM_MAX_RELAYS 4096

/* In struct ism_conn.relay beside slot + 1: the end was announced in relay_asks, or is not to be. */
#define ISM_RELAY_ASKED (~0u)

/* The state of a slot; ismredird sets it. */
enum ism_relay_state {
	ISM_RELAY_FREE = 0,
	ISM_RELAY_CLOSED = 1, /* nothing is redirected into the dummy any more */
	ISM_RELAY_OPEN = 2, /* the partner reads its ring: redirect */
	ISM_RELAY_BROKEN =
		3, /* bytes are lost: nothing more may leave by TCP, the end is to be reset */
	ISM_RELAY_DIRECT =
		4, /* the end is direct: its FIN is held until @fin_ok, and nothing else */
};

/**
 * struct ism_relay - a slot: of an end that is relayed, or of a direct one whose partner is a relay (@owner)
 *
 * Of the latter only @token, @state, @owner and @beat count, @fin_ok and @held, @kick, and the third line as of
 * ism_relay_look.
 *
 * First line, written by the verdict on what the application sends:
 * @redirected: bytes given to the relay
 * @msgs: the same in messages, since @taken last was @redirected
 * @after: write_seq at the last redirect: TCP bytes before it are to be read first
 * @held: segments that were not let out, because @delivered was behind
 * @turns: how often the stream went from the relay to TCP
 * @fin_ok: of a direct end: its process has said that the FIN may go (ISM_SO_FIN)
 *
 * Second line, written by ismredird:
 * @token: of the end
 * @dummy: key of the dummy socket in socks
 * @taken: bytes received from the dummy
 * @delivered: bytes that lie in the remote socket, or were read; by a direct partner: were read, and it
 *             was told that TCP follows
 * @read: bytes that the remote application has read
 * @state: enum ism_relay_state
 * @window: bytes that may be redirected and not read before TCP is preferred
 * @bound: the same, but for the time until TCP may be used
 * @after_in: ISM_RELAY_AFTER | TCP sequence number up to which the application has to have read before
 *            bytes are given to it; 0 for none
 * @owner: of a direct end, process id of the guard (and so the ismredird) that looks after it; else 0
 *
 * Third line, written by the verdict on what the dummy sends, and by ism_relay_look:
 * @pushed: bytes given to the application
 * @push_msgs: the same in messages, since @unread was last 0
 * @copied: copied_seq of the application's socket
 * @unread: bytes given and not read
 * @drops: sends of the dummy that were refused
 * @why: enum ism_reason of the last
 * @sk_state: TCP state of the socket, 0 when it is gone
 * @sk_flags: ISM_RELAY_SK_*
 * @write_seq, @snd_una: of the application's socket, as of the last look
 * @after_pushed: low half of @after_in when bytes were last given
 *
 * Fourth line:
 * @look: ismredird wants the third line brought up to date; cleared by ism_relay_look
 * @kick: ismredird wants what was held to be sent now; cleared by ism_relay_kick
 * @crowded: ismredird has too much to do, and small messages of this end had better take TCP
 * @beat: of a direct end: changes while its owner is at work without an ismredird
 */
struct ism_relay {
	__u64 redirected;
	__u32 msgs;
	__u32 after;
	__u32 held;
	__u32 turns;
	__u32 fin_ok;
	__u32 pad0[9];

	__u64 token;
	__u64 dummy;
	__u64 taken;
	__u64 delivered;
	__u64 read;
	__u64 after_in;
	__u32 state;
	__u32 window;
	__u32 bound;
	__u32 owner;

	__u64 pushed;
	__u32 push_msgs;
	__u32 copied;
	__u32 unread;
	__u32 drops;
	__u32 why;
	__u32 sk_state;
	__u32 sk_flags;
	__u32 write_seq;
	__u32 snd_una;
	__u32 after_pushed;
	__u32 pad2[4];

	__u32 look;
	__u32 kick;
	__u32 beat;
	__u32 crowded;
	__u32 pad4[12];
};

#define ISM_RELAY_AFTER (1ULL << 32)

#define ISM_RELAY_SK_PINNED 1 /* is to stay on TCP, as its record says */
#define ISM_RELAY_SK_ORPHAN 2 /* no process has it any more */

/**
 * struct ism_relay_sk - what a socket remembers
 * @token: of the end; the slot is this socket's only while it has the same
 * @slot: in relays
 * @dummy: it is the dummy
 */
struct ism_relay_sk {
	__u64 token;
	__u32 slot;
	__u32 dummy;
};

/** struct ism_relay_ask - an end has been used for a while; or the FIN of a direct one was held */
struct ism_relay_ask {
	__u64 token;
};

/**
 * struct ism_relay_bind - argument of ism_relay_bind: let the record of @token have the slot
 * @relay: slot + 1, ISM_RELAY_ASKED or 0
 * @leave: with 0: never again, as the partner stays on TCP, so the socket leaves the sockhash
 */
struct ism_relay_bind {
	__u64 token;
	__u32 relay;
	__u32 leave;
};

_Static_assert(sizeof(struct ism_relay) == 256, "four cache lines");

#endif
