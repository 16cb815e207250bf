/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keys and values of the pinned maps: the interface between the BPF programs and everything that
 * looks at them (the library, bpftool, other people's tools).
 *
 * All integers are in host order unless a comment says otherwise; every struct is fixed-size and
 * without hidden padding. Pins: ISM_PIN_DIR/<map name>. Names fit the kernel's 15 characters.
 *
 *   conns      hash      __u64 DMB token        -> struct ism_conn      one per connection end
 *   socks      sockhash  __u64 DMB token        -> socket               what can be redirected to
 *   tokens     hash      __u64 socket cookie    -> __u64 DMB token      socket to record, of some
 *   sk_conn    sk_storage                       -> struct ism_sk        what few sockets have beside
 *   procs      LRU hash  __u32 process id       -> struct ism_proc      who can use rings
 *   listeners  hash      struct ism_lkey        -> struct ism_listener  who may answer offers
 *   peers      LRU hash  struct ism_peer_key    -> struct ism_peer      who was seen capable
 *   negative   array     place                  -> struct ism_neg       who did not answer
 *   rules      array     __u32 index            -> struct ism_rule      the policy, first match wins
 *   ctl        array     0                      -> struct ism_ctl       on/off/drain and budgets
 *   stats      percpu    0                      -> struct ism_stats     counters
 *   reasons    percpu    enum ism_reason slot   -> __u64                how often each reason decided
 */
#ifndef ISMREDIR_MAPS_H
#define ISMREDIR_MAPS_H

#include <linux/types.h>

#define ISM_PIN_DIR	"/sys/fs/bpf/ismredir"
#define ISM_MAPS_FORMAT 7 /* bumped when a layout below changes: --replace refuses another one */

/* Who moves the bytes. */
enum ism_plane {
	ISM_PLANE_TCP = 0,
	ISM_PLANE_SKMSG = 1,
	ISM_PLANE_DIRECT = 2,
	ISM_PLANE_RELAY = 3,
	ISM_PLANE_SMC = 4,
};

/* The word in struct ism_ctl that every verdict obeys. */
enum ism_word {
	ISM_WORD_OFF = 0,
	ISM_WORD_ON = 1,
	ISM_WORD_DRAIN = 2, /* no new redirects; queued bytes are left to their readers */
};

/* To which readers bytes are redirected; see docs/switch-rule.rst, "blocking readers". */
enum ism_readers {
	ISM_READERS_SAFE = 0, /* not where a task of the sending end sleeps in recv() meanwhile */
	ISM_READERS_ANY = 1,
	ISM_READERS_POLL = 2, /* as SAFE, and never to a reader that sleeps in recv() */
};

enum ism_role {
	ISM_ACTIVE = 0, /* this end connected */
	ISM_PASSIVE = 1, /* this end accepted */
};

enum ism_conn_flags {
	ISM_CONN_OFFERED = 1, /* the offer went out on the SYN */
	ISM_CONN_ESTABLISHED = 2, /* the handshake is over */
	ISM_CONN_ENROLLED = 4, /* the socket is in the sockhash */
	ISM_CONN_PINNED = 8, /* stays on TCP for the rest of its life, see @reason */
	ISM_CONN_ANSWERED = 64, /* its offer is being answered */
	ISM_CONN_LEAVING = 128, /* not redirected to any more, to be taken out of the sockhash */
	ISM_CONN_LEFT = 256, /* taken out: the kernel's plain TCP from now on */
	ISM_CONN_DIRECT_ONLY = 512, /* a rule says direct: never enrolled */
	ISM_CONN_ATTACHED = 1024, /* its process has attached rings, now or earlier */
	ISM_CONN_LAZY = 2048, /* the passive end has no record before someone asks: @peer_sk */
	ISM_CONN_REMOTE = 4096, /* the partner is of another kernel, reached by @fabric */
	ISM_CONN_PACED = 8192, /* its TCP takes no more than it can send at once: it has a relay */
};

/**
 * struct ism_conn - one end of a connection; key: its DMB token
 * @peer: the partner's token, 0 until the answer is known
 * @cookie: SO_COOKIE of the socket
 * @netns: network namespace cookie
 * @cgroup: cgroup id of the socket
 * @sk: kernel address of the socket; only meaningful while the socket there has @cookie
 * @peer_sk, @peer_cookie: of an active end both of whose ends can use rings: the passive socket
 * @born_ns: CLOCK_MONOTONIC
 * @redir_bytes, @redir_msgs: sent by redirection
 * @tcp_bytes: sent by TCP, as of the last send seen (listings add what came after)
 * @switches: how often this direction changed its plane
 * @mark_redir, @mark_tcp: @redir_bytes and @tcp_bytes when the mix was last judged
 * @start_seq: write_seq at ESTABLISHED
 * @last_seq: write_seq at the last verdict
 * @msgs: redirected messages since the partner was last seen empty
 * @run: sends in a row without having received anything
 * @seen_redir: the partner's redir_msgs when @run was last reset
 * @seen_rcv: this end's rcv_nxt when @run was last reset
 * @room_jiffy: when ample memory was last seen, in jiffies
 * @spins: debt of waits for a reader, see wait_for_reader() in bpf/redirect.bpf.c
 * @pid, @uid, @comm: the process that connected or listened
 * @reason: enum ism_reason why @plane, or while that is skmsg why the last message, is TCP
 * @family: AF_INET or AF_INET6 (a v4-mapped connection is AF_INET)
 * @lport, @rport: host order
 * @role: enum ism_role
 * @plane: enum ism_plane of the connection: skmsg while both ends are enrolled and not pinned, direct
 *         while its process says that rings are attached
 * @last: enum ism_plane that the last message sent by this end took
 * @caps, @peer_caps: enum ism_opt_caps of this end and of its partner, agreed on in the handshake;
 *       @peer_caps of an active end are the passive end's @caps from ISM_CONN_ANSWERED on
 * @offered: of an active end, its capabilities for a partner of another kernel, as the offer said them;
 *           they are its @caps if it gets one
 * @fabric: tag of the fabric that both ends have, 0 when the partner is of this kernel; before
 *          ISM_CONN_ESTABLISHED the tag that the offer carries
 * @relay: slot in the relays map + 1 while a relay has this end, else 0
 * @flags: enum ism_conn_flags
 * @laddr, @raddr: network order; IPv4 in the first 4 bytes
 */
struct ism_conn {
	__u64 peer;
	__u64 cookie;
	__u64 netns;
	__u64 cgroup;
	__u64 sk;
	__u64 peer_sk;
	__u64 peer_cookie;
	__u64 born_ns;
	__u64 redir_bytes;
	__u64 redir_msgs;
	__u64 tcp_bytes;
	__u64 switches;
	__u64 mark_redir;
	__u64 mark_tcp;
	__u32 start_seq;
	__u32 last_seq;
	__u32 msgs;
	__u32 run;
	__u32 seen_redir;
	__u32 seen_rcv;
	__u32 room_jiffy;
	__u32 spins;
	__u32 pid;
	__u32 uid;
	__u16 reason;
	__u16 family;
	__u16 lport;
	__u16 rport;
	__u8 role;
	__u8 plane;
	__u8 last;
	__u8 caps;
	__u8 peer_caps;
	__u8 offered;
	__u8 pad[2];
	__u32 fabric;
	__u32 relay;
	__u32 flags;
	__u32 pad2;
	__u8 laddr[16];
	__u8 raddr[16];
	char comm[16];
};

/**
 * struct ism_sk - what a socket remembers by itself. Making one costs a short connection more than all
 *                 else that is done for it, so only those have one that need it: listeners, sockets with
 *                 capabilities of their own or kept on TCP, connections that are used for longer.
 * @token: key of its record in conns, for those that cannot or need not find it anew; 0 if it is not known here
 * @pin: enum ism_reason that keeps it on TCP from the start, 0 if none
 * @stale: token of an earlier connection of this socket, under which it is still in the sockhash
 * @listens: it is counted in the listeners map
 * @caps: enum ism_opt_caps that were claimed for it by ISM_SO_CAPS (sockctl.h)
 * @claimed: by that, so @caps count even where its process can do more
 */
struct ism_sk {
	__u64 token;
	__u64 stale;
	__u32 pin;
	__u8 listens;
	__u8 caps;
	__u8 claimed;
	__u8 pad;
};

/**
 * struct ism_proc - what a process said by ISM_SO_CAPS_PROCESS. Its id may be used again, by another
 *                   one or after exec(), so the other two must be the same, too.
 * @start_ns: CLOCK_BOOTTIME when it started
 * @exec_id: the kernel's count of its exec()s
 * @caps: enum ism_opt_caps
 */
struct ism_proc {
	__u64 start_ns;
	__u64 exec_id;
	__u32 caps;
	__u32 pad;
};

/**
 * struct ism_lkey - a listening port of one network namespace
 */
struct ism_lkey {
	__u64 netns;
	__u32 port; /* host order */
	__u32 pad;
};

enum ism_listener_flags {
	ISM_LISTENER_APP_SAVE_SYN = 1, /* the application had set TCP_SAVE_SYN itself */
	ISM_LISTENER_EXISTING = 2, /* it listened before load */
};

/**
 * struct ism_listener - an armed listener
 * @cgroup: cgroup id
 * @sk: kernel address of the listening socket that came first
 * @answers: offers answered
 * @refs: listening sockets on this port
 * @pid, @uid, @comm: who listens
 * @pin: enum ism_reason that keeps its connections on TCP, 0 if none
 * @flags: enum ism_listener_flags
 * @direct: of @refs, sockets whose process can use rings; only when all can, connections may
 */
struct ism_listener {
	__u64 cgroup;
	__u64 sk;
	__u64 answers;
	__u32 refs;
	__u32 pid;
	__u32 uid;
	__u32 pin;
	__u32 flags;
	__u32 direct;
	char comm[16];
};

enum ism_peer_flags {
	ISM_PEER_ISMREDIR = 1,
	ISM_PEER_SMC = 2, /* its SYN or SYN-ACK carried the kernel's SMC option */
};

struct ism_peer_key {
	__u64 netns;
	__u8 addr[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
};

/**
 * struct ism_peer - a host that showed itself capable
 * @last_ns: CLOCK_MONOTONIC when last seen
 * @count: how often
 * @flags: enum ism_peer_flags
 */
struct ism_peer {
	__u64 last_ns;
	__u64 count;
	__u32 flags;
	__u32 pad;
};

#define ISM_NEGATIVE 4096 /* entries */

/**
 * struct ism_neg - a destination that did not answer, in one cache line; bpf/negative.bpf.h
 * @until_ns: CLOCK_MONOTONIC when it is asked again; 0 in an entry that was never used
 * @netns: cookie of the network namespace that asked
 * @addr: network order; IPv4 as ::ffff:a.b.c.d
 * @port: host order
 * @reason: enum ism_reason
 * @epoch: ctl epoch then: a newly armed listener makes every older entry void
 */
struct ism_neg {
	__u64 until_ns;
	__u64 netns;
	__u8 addr[16];
	__u32 port;
	__u32 reason;
	__u32 epoch;
	__u32 pad[5];
};

#define ISM_MAX_RULES	64
#define ISM_MAX_FABRICS 4
#define ISM_MAX_DIRECT	8
#define ISM_DIRECT_ALL	(~0u)

enum ism_rule_flags {
	ISM_RULE_PORT = 1,
	ISM_RULE_COMM = 2,
	ISM_RULE_CIDR = 4,
	ISM_RULE_CGROUP = 8,
	ISM_RULE_IN = 16, /* only connections that this end accepts */
	ISM_RULE_OUT = 32, /* only connections that this end makes */
	ISM_RULE_LOCAL = 64, /* only loopback and directly connected destinations */
};

/**
 * struct ism_rule - one line of the policy
 * @cgroup: cgroup id that the socket's cgroup is or lies under
 * @flags: which of the other fields apply
 * @cgroup_level: depth of @cgroup below the root of the hierarchy
 * @port_lo, @port_hi: the server's port, inclusive, host order
 * @plane: for a connection that matches: tcp; skmsg, the best plane that both ends can; direct, rings
 *         or nothing
 * @prefix: CIDR length in bits of the 128-bit form
 * @addr: CIDR address, network order; IPv4 as ::ffff:a.b.c.d
 * @comm: command name of either end
 */
struct ism_rule {
	__u64 cgroup;
	__u32 flags;
	__u32 cgroup_level;
	__u16 port_lo;
	__u16 port_hi;
	__u8 plane;
	__u8 prefix;
	__u16 pad;
	__u8 addr[16];
	char comm[16];
};

/**
 * struct ism_ctl - what the administrator decides; may be changed while programs run
 * @word: enum ism_word
 * @epoch: see struct ism_neg
 * @format: ISM_MAPS_FORMAT of whoever created the maps
 * @n_rules: rules in use
 * @default_plane: the same when no rule matches
 * @budget_bytes: redirected and unread bytes per direction before TCP takes over
 * @budget_msgs: the same in messages
 * @stream_run: sends in a row, nothing received between, after which small messages take TCP
 * @stream_size: a message of at least this size is not small
 * @leave_run: sends in a row after which such a stream leaves the sockhash for good
 * @mix_bytes: bytes sent after which the mix of planes is judged: a connection of which more than a
 *             third overflows to TCP leaves the sockhash; 0: never
 * @readers: enum ism_readers
 * @relay: nonzero while an ismredird runs that relays
 * @spin: microseconds that a writer waits for a reader when the budget is reached, now and then
 * @neg_ttl_ns: how long a destination that did not answer is left alone
 * @loaded_ns: CLOCK_BOOTTIME of load
 * @fabrics: tags of the fabrics that ismredird has open, 0 for none; the first goes onto offers. Set and
 *           cleared by ismredird
 * @n_direct: how many of @direct count; ISM_DIRECT_ALL: all users
 * @direct: users whose processes may use the rings of @fabrics themselves; those of others are relayed
 * @key: what tokens are made with. Secret, and the same as long as there are records: see bpf/tokens.bpf.h
 */
struct ism_ctl {
	__u32 word;
	__u32 epoch;
	__u32 format;
	__u32 n_rules;
	__u32 default_plane;
	__u32 budget_bytes;
	__u32 budget_msgs;
	__u32 stream_run;
	__u32 stream_size;
	__u32 spin;
	__u32 leave_run;
	__u32 mix_bytes;
	__u32 readers;
	__u32 relay;
	__u64 neg_ttl_ns;
	__u64 loaded_ns;
	__u32 fabrics[ISM_MAX_FABRICS];
	__u32 n_direct;
	__u32 direct[ISM_MAX_DIRECT];
	__u32 pad;
	__u64 key[2];
};

/**
 * struct ism_stats - counters of this load, per CPU
 * @redir_bytes, @redir_msgs, @tcp_bytes are added when a connection ends
 */
struct ism_stats {
	__u64 offers; /* options put on a SYN */
	__u64 answers; /* options put on a SYN-ACK */
	__u64 pairs; /* connections enrolled with a live partner, counted at the passive end */
	__u64 ended; /* records removed */
	__u64 listeners; /* listeners armed */
	__u64 smc_seen; /* SMC options seen */
	__u64 redir_bytes;
	__u64 redir_msgs;
	__u64 tcp_bytes;
	__u64 direct_pairs; /* connections whose ends can both use rings, counted at the passive end */
	__u64 direct; /* of these, those that ever attached them */
};

/* Slot of a reason in the `reasons` map: group and number packed into 8 bits. */
#define ISM_REASON_SLOT(r) (((r) >> 8 & 7) << 5 | ((r)&31))
#define ISM_REASON_SLOTS   256

#endif
