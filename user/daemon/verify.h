/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose connection is this? The proof that a client may have the rings of a DMB token. */
#ifndef ISM_DAEMON_VERIFY_H
#define ISM_DAEMON_VERIFY_H

#include <linux/types.h>

/**
 * struct verdict - what verify_socket() found
 * @peer: token of the partner
 * @fabric: tag of the fabric that reaches it when it is of another kernel, else 0
 * @at_relay: and a relay moves that one's bytes
 * @reason: enum ism_reason of a refusal
 */
struct verdict {
	__u64 peer;
	__u32 fabric;
	__u32 at_relay;
	__u32 reason;
};

/**
 * verify_socket() - does this socket have this DMB token, and a partner?
 * @sock: came from a client: nothing about it is trusted, and nothing is called that it could delay
 * @token: what the client claims
 * @is_new: no rings yet: then what is loaded must be on
 *
 * Return: 0; -ESHUTDOWN nothing that this version can read is loaded, or it is not on; -ENOENT no such
 * connection, or it has no partner any more; -EAGAIN the partner's handshake is not over; -EPERM not a
 * TCP socket, or one with another token; -EOPNOTSUPP not both ends can use rings; -EMFILE, -ENOMEM.
 */
int verify_socket(int sock, __u64 token, int is_new, struct verdict *ret);

#endif
