/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How a process talks to the BPF programs about one of its own sockets: getsockopt() at a level that no protocol
 * has, answered by ism_sockinfo (bpf/sockopt.bpf.c) in loaded cgroups. Where nothing is loaded, and for what is
 * not listed here, the kernel says EOPNOTSUPP. EINVAL: a value that nobody knows, or too small a buffer.
 *
 * What is told, and not asked, is a getsockopt(), too, with the value in the option's number and no buffer:
 *
 *	socklen_t none = 0;
 *	getsockopt(fd, ISM_SOL, ISM_SO(ISM_SO_CAPS, ISM_CAP_DIRECT), NULL, &none);
 *
 * A setsockopt() would be more usual. But a program on that hook costs each setsockopt() of every program in the
 * cgroup a quarter of a microsecond, and where no socket can be on the skmsg plane there is no other use for it.
 */
#ifndef ISMREDIR_SOCKCTL_H
#define ISMREDIR_SOCKCTL_H

#include <linux/types.h>

#define ISM_SOL 0x49534d52 /* "ISMR" */

/* An option's number: which one, and for those that tell something a value of 23 bits. */
#define ISM_SO(option, value) ((option) | (int)(value) << 8)
#define ISM_SO_OPTION(number) ((number)&0xff)
#define ISM_SO_VALUE(number)  ((__u32)(number) >> 8)

enum {
	/*
	 * tell, enum ism_opt_caps: what this socket can do. Before connect() or listen(); a
	 * listener's value counts for what it accepts from then on, where all sockets that listen on
	 * the port have it. May be repeated; a connection keeps what its handshake said.
	 */
	ISM_SO_CAPS = 1,
	/* ask, struct ism_sock_info: the connection's record and the kernel's byte positions */
	ISM_SO_INFO = 2,
	/*
	 * tell, ISM_SO_REPORT_OF(): what `ismredir conns` shall show of this connection. ENOENT:
	 * it has no record; EOPNOTSUPP: not both ends can use rings.
	 */
	ISM_SO_REPORT = 3,
	/*
	 * tell, enum ism_opt_caps: what every connect() of this process can do with its socket, but for those with
	 * an ISM_SO_CAPS of their own and for TCP fast open. By any TCP socket; 0 takes it back. Ends with
	 * exec() and with the load, is not inherited by fork(), and may be forgotten when very many
	 * processes say it: so say it again now and then.
	 */
	ISM_SO_CAPS_PROCESS = 4,
	/*
	 * tell, nothing: nothing is in the ring of this direct end, and nothing will be. Where its partner
	 * is a relay in another kernel the FIN is held until then, or until ismredird has seen the same. ENOENT:
	 * it is not held.
	 */
	ISM_SO_FIN = 5,
};

/*
 * ISM_SO_REPORT_OF() - the value of ISM_SO_REPORT
 * @plane: ISM_PLANE_DIRECT while rings are attached, ISM_PLANE_TCP after
 * @reason: enum ism_reason while on TCP
 */
#define ISM_SO_REPORT_OF(plane, reason) ((plane) << 16 | (reason))

enum ism_sock_info_flags {
	ISM_SOCK_ESTABLISHED = 1,
	ISM_SOCK_PAIRED = 2, /* the partner's record exists and names this one */
	ISM_SOCK_PINNED = 4, /* stays on TCP, see reason */
	ISM_SOCK_ENROLLED = 8, /* in the sockhash: the skmsg plane has it */
	ISM_SOCK_LISTENS = 16, /* an armed listener */
	ISM_SOCK_REMOTE =
		32, /* the partner is of another kernel: PAIRED says that it answered, not that it
			       * still is there */
};

/**
 * struct ism_sock_info - answer to ISM_SO_INFO
 * @token, @peer: DMB tokens of this end and its partner; 0 when there is no record, and then the
 *                next four are 0 too. A FIN counts as one byte in sequence numbers.
 * @cookie: SO_COOKIE
 * @write_seq: TCP sequence number behind the last byte given to TCP by this end
 * @copied_seq: TCP sequence number behind the last byte that the application has read
 * @rcv_nxt: behind the last byte that has arrived
 * @caps, @peer_caps: enum ism_opt_caps of this end and of its partner, the same at both ends
 * @flags: enum ism_sock_info_flags
 * @word: enum ism_word of the load
 * @reason: enum ism_reason
 */
struct ism_sock_info {
	__u64 token;
	__u64 peer;
	__u64 cookie;
	__u32 write_seq;
	__u32 copied_seq;
	__u32 rcv_nxt;
	__u32 flags;
	__u32 word;
	__u16 reason;
	__u8 caps;
	__u8 peer_caps;
};

#endif
