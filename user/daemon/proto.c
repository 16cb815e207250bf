// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* From a packet to a request; see proto.h. */
#include "proto.h"
#include <errno.h>
#include <string.h>

/* What clients may send: bytes of the body and descriptors, exactly. */
static const struct {
	size_t len;
	size_t fds;
	int is_request;
} requests[] = {
	[ISM_MSG_HELLO] = { sizeof(struct ism_msg_hello), 0, 1 },
	[ISM_MSG_ATTACH] = { sizeof(struct ism_msg_attach), 1, 1 },
	[ISM_MSG_DETACH] = { sizeof(struct ism_msg_token), 0, 1 },
	[ISM_MSG_LEAVE] = { sizeof(struct ism_msg_token), 0, 1 },
	[ISM_MSG_RESUME] = { sizeof(struct ism_msg_resume), 1 + ISM_FD_COUNT, 1 },
	[ISM_MSG_LIST] = { 0, 0, 1 },
	[ISM_MSG_FABRICS] = { 0, 0, 1 },
	[ISM_MSG_STATUS] = { 0, 0, 1 },
};

static int check_body(const struct request *r)
{
	switch (r->type) {
	case ISM_MSG_HELLO:
		return r->hello.flags || r->hello.pad ? -EPROTO : 0;
	case ISM_MSG_ATTACH:
		return r->attach.token ? 0 : -EPROTO;
	case ISM_MSG_DETACH:
	case ISM_MSG_LEAVE:
		return r->token.token ? 0 : -EPROTO;
	case ISM_MSG_RESUME:
		return r->resume.token && r->resume.peer && r->resume.token != r->resume.peer &&
				       ism_is_ring_size(r->resume.own_ring) &&
				       ism_is_ring_size(r->resume.peer_ring)
			       ? 0
			       : -EPROTO;
	}
	return 0;
}

int proto_parse(const void *buf, size_t len, size_t n_fds, struct request *ret)
{
	struct ism_msg head;

	memset(ret, 0, sizeof(*ret));
	if (len < sizeof(head) || len > ISM_MSG_MAX)
		return -EPROTO;
	memcpy(&head, buf, sizeof(head));
	if (head.magic != ISM_CONTROL_MAGIC || head.version != ISM_CONTROL_VERSION)
		return -EPROTO;
	ret->seq = head.seq;
	if (head.len != len - sizeof(head) || head.type >= sizeof(requests) / sizeof(requests[0]) ||
	    !requests[head.type].is_request || head.len != requests[head.type].len ||
	    n_fds != requests[head.type].fds)
		return -EPROTO;
	ret->type = head.type;
	memcpy(&ret->hello, (const char *)buf + sizeof(head), head.len);
	return check_body(ret);
}
