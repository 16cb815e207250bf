/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tokens, and the way from a socket to its record. docs/wire-format.rst, "Tokens".
 *
 * The token of an active end is computed from its socket whenever it is wanted: a map entry for it would be
 * made and deleted for each connection, and most are short. The map tokens has the others: passive ends, whose
 * tokens hang on a SYN that is gone, and the sockets in the sockhash, of which one is asked for with each message.
 */
#ifndef ISMREDIR_TOKENS_BPF_H
#define ISMREDIR_TOKENS_BPF_H

#include "common.bpf.h"
#include <ismredir/siphash.h>

/* In handshake.bpf.c. */
extern const volatile __u64 sip_key[2];

static __always_inline __u64 ism_sip(__u64 a, __u64 b, __u64 c)
{
	__u64 token = ism_siphash3(sip_key[0], sip_key[1], a, b, c);

	return token ? token : 1;
}

/*
 * write_seq as it was at ESTABLISHED, of an active end at connect(). Both change together, in
 * tcp_snd_una_update() alone; the SYN counts as a byte where it is sent.
 */
static __always_inline __u32 ism_first_seq(const struct tcp_sock *tp)
{
	return KREAD(struct tcp_sock, tp, snd_una) - (__u32)KREAD(struct tcp_sock, tp, bytes_acked);
}

/*
 * Secret, and another one for each connect() of a socket: then it has another initial sequence number
 * (tcp_disconnect()). No connection that began as a passive one gets the same, as nobody gives its token this form.
 */
static __always_inline __u64 ism_active_token(__u64 cookie, __u32 first_seq)
{
	return ism_sip(cookie, first_seq, 0);
}

/* Key in conns of the record of the socket with that cookie, by the map; 0 if it is not there. */
static __always_inline __u64 ism_token_of(__u64 cookie)
{
	__u64 *token = bpf_map_lookup_elem(&tokens, &cookie);

	return token ? *token : 0;
}

static __always_inline struct ism_conn *ism_active_conn_at(__u64 cookie, __u32 first_seq,
							   __u64 *token)
{
	struct ism_conn *rec;

	*token = ism_active_token(cookie, first_seq);
	rec = bpf_map_lookup_elem(&conns, token);
	return rec && rec->cookie == cookie ? rec : 0;
}

/* The record of an active end, by its socket, which is locked. */
static __always_inline struct ism_conn *ism_active_conn(const struct tcp_sock *tp, __u64 cookie,
							__u64 *token)
{
	return ism_active_conn_at(cookie, ism_first_seq(tp), token);
}

/* Of either end. */
static __always_inline struct ism_conn *ism_conn_of(const struct tcp_sock *tp, __u64 cookie,
						    __u64 *token)
{
	struct ism_conn *rec = ism_active_conn(tp, cookie, token);

	if (rec)
		return rec;
	*token = ism_token_of(cookie);
	return *token ? bpf_map_lookup_elem(&conns, token) : 0;
}

/* Has the map an entry for it? */
static __always_inline int ism_in_tokens(const struct ism_conn *rec)
{
	return rec->role == ISM_PASSIVE ||
	       rec->flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING | ISM_CONN_LEFT);
}

#endif
