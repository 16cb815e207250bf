/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From a packet to a request: what is not exactly a message of control.h does not get past here. */
#ifndef ISM_DAEMON_PROTO_H
#define ISM_DAEMON_PROTO_H

#include <stddef.h>
#include <ismredir/control.h>

/**
 * struct request - a well-formed message from a client
 * @type: enum ism_msg_type, one that clients may send
 * @seq: to be repeated in the answer
 */
struct request {
	unsigned int type;
	__u32 seq;
	union {
		struct ism_msg_hello hello;
		struct ism_msg_attach attach;
		struct ism_msg_token token;
		struct ism_msg_resume resume;
	};
};

/**
 * proto_parse() - check a packet and copy it
 * @buf, @len: the packet, as received; may be modified by nobody meanwhile
 * @n_fds: descriptors that came with it
 *
 * Return: 0 or -EPROTO; then @ret->seq is that of the packet if it has a head, else 0.
 */
int proto_parse(const void *buf, size_t len, size_t n_fds, struct request *ret);

#endif
