/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a relay needs to know of the application's socket, into its slot. */
#ifndef ISMREDIR_RELAY_LOOK_BPF_H
#define ISMREDIR_RELAY_LOOK_BPF_H

#include "common.bpf.h"
#include "waiters.bpf.h"
#include <ismredir/relay.h>

static __always_inline void relay_look(struct ism_relay *r, const struct ism_conn *rec)
{
	const struct tcp_sock *tp = rec ? (const struct tcp_sock *)rec->sk : 0;
	const struct sock *sk = (const struct sock *)tp;
	__u32 flags = 0;

	if (!rec || ism_sk_cookie(sk) != rec->cookie) {
		r->sk_state = 0;
		return;
	}
	if (rec->flags & (ISM_CONN_PINNED | ISM_CONN_LEAVING))
		flags |= ISM_RELAY_SK_PINNED;
	if (!KREAD(struct sock, sk, sk_socket))
		flags |= ISM_RELAY_SK_ORPHAN;
	r->copied = KREAD(struct tcp_sock, tp, copied_seq);
	r->write_seq = KREAD(struct tcp_sock, tp, write_seq);
	r->snd_una = KREAD(struct tcp_sock, tp, snd_una);
	r->unread = ism_unread(sk);
	r->sk_flags = flags;
	r->sk_state = KREAD(struct sock, sk, __sk_common.skc_state);
}

#endif
