/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The record of a passive end whose connection may get rings. Most such connections end before anybody
 * asks for any, and two map entries for nothing are what a short connection feels most. So the active
 * end's record says where the passive socket is (ISM_CONN_LAZY), and the other record is made when
 * either end asks (ISM_SO_INFO), or shown without being made (ismredir conns). It goes with the active
 * end's, so the passive socket needs no callbacks.
 */
#ifndef ISMREDIR_PASSIVE_BPF_H
#define ISMREDIR_PASSIVE_BPF_H

#include "tokens.bpf.h"
#include <bpf/bpf_endian.h>

#define ISM_TCP_HEADER 20
#define ISM_SYN_OPTS   40 /* at most so many bytes, so many options */

struct syn_walk {
	__u64 at, end;
	__u64 token;
};

static long syn_step(__u64 i, struct syn_walk *w)
{
	struct ism_option opt = {};
	__u8 buf[ISM_OPT_LEN] = {};

	if (w->at + ISM_OPT_LEN > w->end ||
	    bpf_probe_read_kernel(buf, sizeof(buf), (const void *)w->at))
		return 1;
	if (!ism_option_decode(buf, &opt) && opt.role == ISM_ROLE_OFFER) {
		w->token = opt.token;
		return 1;
	}
	if (!buf[0]) /* TCPOPT_EOL */
		return 1;
	w->at += buf[0] == 1 /* TCPOPT_NOP */ ? 1 : buf[1];
	return buf[0] != 1 && buf[1] < 2;
}

/*
 * The token that was offered on the SYN that led to @tp, 0 if there was none. The listener has
 * TCP_SAVE_SYN, so the SYN is there until an application asks for it (TCP_SAVED_SYN).
 */
static __always_inline __u64 ism_saved_offer(const struct tcp_sock *tp)
{
	struct saved_syn *known = KREAD(struct tcp_sock, tp, saved_syn), *syn;
	struct syn_walk w = {};

	/* The verifier shall know nothing of it: otherwise it follows the pointer from option to option. */
	if (!known || bpf_probe_read_kernel(&syn, sizeof(syn), &known))
		return 0;
	w.at = (__u64)syn->data + KREAD(struct saved_syn, syn, mac_hdrlen) +
	       KREAD(struct saved_syn, syn, network_hdrlen);
	w.end = w.at + KREAD(struct saved_syn, syn, tcp_hdrlen);
	w.at += ISM_TCP_HEADER;
	bpf_loop(ISM_SYN_OPTS, syn_step, &w, 0);
	return w.token;
}

/* Is the passive end of this record still that socket, and open? */
static __always_inline int ism_passive_alive(const struct ism_conn *a)
{
	const struct sock *sk = (const struct sock *)a->peer_sk;

	return sk && KREAD(struct sock, sk, __sk_common.skc_state) != BPF_TCP_CLOSE &&
	       ism_sk_cookie(sk) == a->peer_cookie;
}

static __always_inline void ism_passive_addrs(struct ism_conn *p, const struct sock *sk)
{
	__u32 *l = (__u32 *)p->laddr, *r = (__u32 *)p->raddr;

	p->lport = KREAD(struct sock, sk, __sk_common.skc_num);
	p->rport = bpf_ntohs(KREAD(struct sock, sk, __sk_common.skc_dport));
	p->family = KREAD(struct sock, sk, __sk_common.skc_family);
	if (p->family == ISM_AF_INET6) {
		BPF_CORE_READ_INTO((struct in6_addr *)r, sk, __sk_common.skc_v6_daddr);
		BPF_CORE_READ_INTO((struct in6_addr *)l, sk, __sk_common.skc_v6_rcv_saddr);
		if (r[0] || r[1] || r[2] != bpf_htonl(0xffff))
			return;
		__builtin_memset(l, 0, 16);
		__builtin_memset(r, 0, 16);
		p->family = ISM_AF_INET;
	}
	l[0] = KREAD(struct sock, sk, __sk_common.skc_rcv_saddr);
	r[0] = KREAD(struct sock, sk, __sk_common.skc_daddr);
}

/* What pair_passive() in handshake.bpf.c would have made. @p is all zero. */
static __always_inline void ism_fill_passive(struct ism_conn *p, const struct ism_conn *a,
					     __u64 a_token)
{
	const struct sock *sk = (const struct sock *)a->peer_sk;
	struct net *net = KREAD(struct sock, sk, __sk_common.skc_net.net);
	struct ism_lkey key = {};
	struct ism_listener *l;

	p->role = ISM_PASSIVE;
	p->peer = a_token;
	p->caps = a->peer_caps;
	p->peer_caps = a->caps;
	p->flags = ISM_CONN_ESTABLISHED | (a->flags & ISM_CONN_DIRECT_ONLY);
	p->reason = ISM_R_DIRECT_WAIT;
	p->cookie = a->peer_cookie;
	p->netns = KREAD(struct net, net, net_cookie);
	p->cgroup = ism_sk_cgroup_id(sk);
	p->sk = a->peer_sk;
	p->born_ns = a->born_ns;
	p->start_seq = ism_first_seq((const struct tcp_sock *)sk);
	p->last_seq = p->start_seq;
	ism_passive_addrs(p, sk);
	key.netns = p->netns;
	key.port = p->lport;
	l = bpf_map_lookup_elem(&listeners, &key);
	if (!l)
		return;
	p->pid = l->pid;
	p->uid = l->uid;
	__builtin_memcpy(p->comm, l->comm, 16);
}

/* The socket may have another connection by now. */
static __always_inline void ism_forget_passive(__u64 token, __u64 cookie)
{
	if (ism_token_of(cookie) == token)
		bpf_map_delete_elem(&tokens, &cookie);
	bpf_map_delete_elem(&conns, &token);
}

/*
 * Make the record of the passive end of the connection that offered @a_token; 0, or its token. Both
 * ends may do so at once: then one of them is late, and all is well.
 */
static __noinline __attribute__((unused)) __u64 ism_add_passive(__u64 a_token)
{
	struct ism_conn *a = bpf_map_lookup_elem(&conns, &a_token);
	struct ism_conn p = {};
	__u64 token, cookie;

	if (!a || !(a->flags & ISM_CONN_LAZY) || !ism_passive_alive(a))
		return 0;
	token = a->peer;
	cookie = a->peer_cookie;
	ism_fill_passive(&p, a, a_token);
	if (!bpf_map_update_elem(&conns, &token, &p, BPF_NOEXIST) &&
	    bpf_map_update_elem(&tokens, &cookie, &token, BPF_ANY)) {
		bpf_map_delete_elem(&conns, &token);
		return 0;
	}
	ism_clear(a, ISM_CONN_LAZY);
	/* The active end may have gone meanwhile, and has not found what is new. */
	if (bpf_map_lookup_elem(&conns, &a_token))
		return token;
	ism_forget_passive(token, cookie);
	return 0;
}

#endif
