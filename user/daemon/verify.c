// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Whose connection is this? See verify.h.
 *
 * The client passes the socket itself, and the programs have noted its token in the socket's own storage
 * (sk_conn; by ISM_SO_INFO, with which the client learned the token): so the proof is the kernel's, for this very socket, and neither SO_COOKIE nor SO_PROTOCOL
 * would add to it. They would cost something: with ism_sockinfo attached each getsockopt() takes the
 * socket's lock (__cgroup_bpf_run_filter_getsockopt()), which a client can hold for as long as it likes,
 * in a send() of memory whose pages come from a file system of its own.
 */
#include "verify.h"
#include <errno.h>
#include <ismredir/option.h>
#include <ismredir/reasons.h>
#include "log.h"
#include "lookup.h"

static int can_rings(const struct ism_conn *c)
{
	return (c->caps & c->peer_caps & ISM_CAP_DIRECT) != 0;
}

/* Of a partner in another kernel there is no record: the fabric will show whether it means us. */
static int verify_remote(const struct ism_conn *own, struct verdict *ret)
{
	if (!(own->flags & ISM_CONN_ESTABLISHED)) {
		ret->reason = ISM_R_PENDING;
		return -EAGAIN;
	}
	ret->reason = ISM_R_NO_PLANE;
	if (!(own->caps & ISM_CAP_DIRECT) || !ism_caps_agree(own->caps, own->peer_caps))
		return -EOPNOTSUPP;
	ret->peer = own->peer;
	ret->fabric = own->fabric;
	ret->at_relay = !(own->peer_caps & ISM_CAP_DIRECT);
	ret->reason = ISM_R_NONE;
	return 0;
}

/* The two records name each other and agree on rings. */
static int verify_records(const struct ism_lookup *l, __u64 token, struct verdict *ret)
{
	struct ism_conn own, peer;

	ret->reason = ISM_R_PEER_GONE;
	if (ism_lookup_conn(l, token, &own))
		return -ENOENT;
	if (!own.peer) {
		ret->reason = ISM_R_NO_ANSWER;
		return own.flags & ISM_CONN_ESTABLISHED ? -ENOENT : -EAGAIN;
	}
	if (own.flags & ISM_CONN_REMOTE)
		return verify_remote(&own, ret);
	if (ism_lookup_conn(l, own.peer, &peer))
		return -ENOENT;
	if (peer.peer != token) {
		ret->reason = peer.peer ? ISM_R_NOT_MUTUAL : ISM_R_PENDING;
		return peer.peer ? -ENOENT : -EAGAIN;
	}
	ret->reason = ISM_R_NOT_DIRECT;
	if (!can_rings(&own) || !can_rings(&peer))
		return -EOPNOTSUPP;
	ret->peer = own.peer;
	ret->reason = ISM_R_NONE;
	return 0;
}

/* Running out of something passes; what else is wrong with a load is the administrator's to mend. */
static int cannot_look(int rc)
{
	return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM ? rc : -ESHUTDOWN;
}

static int verify_loaded(struct ism_lookup *l, int is_new, struct verdict *ret)
{
	__u32 word = ISM_WORD_ON;
	struct ism_err err = {};
	int rc = ism_lookup_open(l, &err);

	*ret = (struct verdict){ .reason = ISM_R_OFF };
	if (rc) {
		if (rc != -ENOENT)
			log_client(LOG_ERR, "%s", err.text);
		return cannot_look(rc);
	}
	rc = is_new ? ism_lookup_word(&word) : 0;
	if (!rc && word == ISM_WORD_ON)
		return 0;
	ism_lookup_close(l);
	if (!rc && word == ISM_WORD_DRAIN)
		ret->reason = ISM_R_DRAIN;
	return rc ? cannot_look(rc) : -ESHUTDOWN;
}

int verify_socket(int sock, __u64 token, int is_new, struct verdict *ret)
{
	struct ism_lookup l;
	struct ism_sk sk;
	int rc = verify_loaded(&l, is_new, ret);

	if (rc)
		return rc;
	ret->reason = ISM_R_DAEMON_REFUSED;
	rc = ism_lookup_socket(&l, sock, &sk);
	if (rc)
		rc = rc == -ENOENT ? -ENOENT : -EPERM;
	else if (sk.token != token)
		rc = sk.token ? -EPERM : -ENOENT;
	else
		rc = verify_records(&l, token, ret);
	ism_lookup_close(&l);
	return rc;
}
