// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What looks from outside: a connection with the live state of its socket, and the iterators that arm or
 * disarm the listeners that were there before load. Loaded for the moment of use; never pinned.
 */
#include "common.bpf.h"
#include "passive.bpf.h"
#include "waiters.bpf.h"
#include <ismredir/view.h>

#define ISM_SOL_TCP		      6
#define ISM_TCP_SAVE_SYN	      27
#define ISM_TCP_BPF_SOCK_OPS_CB_FLAGS 1008
#define ISM_CB_LISTEN		      (BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG)
#define ISM_MAX_SCOPE		      16

/* Cgroups (id and depth) that the load covers: nothing outside them is touched. */
const volatile __u32 n_scope;
const volatile __u64 scope_id[ISM_MAX_SCOPE];
const volatile __u32 scope_level[ISM_MAX_SCOPE];

static __always_inline void view_socket(struct ism_conn_view *v)
{
	struct tcp_sock *tp = (struct tcp_sock *)v->conn.sk;
	struct sock *sk = (struct sock *)tp;
	__u32 seq = BPF_CORE_READ(tp, write_seq);

	if (!tp)
		return;
	v->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	v->rx_queue = BPF_CORE_READ(tp, rcv_nxt) - BPF_CORE_READ(tp, copied_seq);
	if (v->conn.start_seq)
		v->conn.tcp_bytes += ism_tcp_bytes_since(tp, v->conn.last_seq);
	v->tx_unread = seq - BPF_CORE_READ(tp, snd_una);
	if (v->conn.flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING)) {
		v->backlog = ism_unread(sk);
		/* unload must not take the socket out of the map under these */
		v->busy = ism_busy_tasks(v->conn.sk);
	}
	v->alive = ism_sk_cookie(sk) == v->conn.cookie;
}

/*
 * Called for each key. The iterator over map elements would be one call for all, but it may change what it
 * walks over, so there are kernels that refuse it where they allow the other iterators.
 */
SEC("syscall")
int ism_view(struct ism_view_arg *arg)
{
	const __u32 remote = ISM_CONN_REMOTE | ISM_CONN_ESTABLISHED;
	__u64 token = arg->token, peer_token;
	struct ism_conn *c = bpf_map_lookup_elem(&conns, &token), *peer;
	struct ism_conn_view v = {};

	arg->n = 0;
	if (!c)
		return 0;
	v.token = token;
	__builtin_memcpy(&v.conn, c, sizeof(v.conn));
	peer_token = v.conn.peer;
	peer = ism_peer_of(&v.conn);
	v.mutual = (peer && peer->peer == v.token) || v.conn.flags & ISM_CONN_LAZY ||
		   (v.conn.flags & remote) == remote;
	view_socket(&v);
	/* A passive end that is gone before its partner: passive.bpf.h. */
	if (!v.alive && peer && peer->peer_sk)
		return 0;
	__builtin_memcpy(&arg->view[0], &v, sizeof(v));
	arg->n = 1;
	if (!(c->flags & ISM_CONN_LAZY) || !ism_passive_alive(c))
		return 0;
	/* The end that has no record yet. */
	__builtin_memset(&v, 0, sizeof(v));
	v.token = peer_token;
	v.mutual = 1;
	ism_fill_passive(&v.conn, c, token);
	view_socket(&v);
	__builtin_memcpy(&arg->view[1], &v, sizeof(v));
	arg->n = 2;
	return 0;
}

static __always_inline int in_scope(const struct sock *sk)
{
	for (__u32 i = 0; i < ISM_MAX_SCOPE; i++) {
		if (i >= n_scope)
			break;
		if (ism_sk_in_cgroup(sk, scope_id[i], scope_level[i]))
			return 1;
	}
	return 0;
}

static __always_inline void listener_view(struct ism_listener_view *v, const struct sock *sk)
{
	struct socket_alloc *sa = (void *)BPF_CORE_READ(sk, sk_socket);

	v->key.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, net_cookie);
	v->key.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	v->inode = sa ? BPF_CORE_READ(sa, vfs_inode.i_ino) : 0;
}

/* What the application asked for before load, which its connections inherit; see sockopt.bpf.c. */
static __always_inline __u32 earlier_pin(const struct sock *sk)
{
	if (BPF_CORE_READ(sk, sk_rcvlowat) > 1)
		return ISM_R_RCVLOWAT;
	if (BPF_CORE_READ(sk, __sk_common.skc_flags) &
	    1UL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY))
		return ISM_R_ZEROCOPY;
	if (BPF_CORE_READ(sk, sk_max_pacing_rate) != ~0UL)
		return ISM_R_PACING;
	return BPF_CORE_READ(sk, sk_filter) ? ISM_R_FILTER : 0;
}

static __always_inline int arm(struct tcp_sock *tp, struct ism_listener_view *v)
{
	struct sock *sk = (struct sock *)tp;
	struct ism_listener fresh = { .refs = 1, .flags = ISM_LISTENER_EXISTING, .sk = (__u64)tp };
	struct ism_listener *l;
	struct ism_sk *st;
	int flags, save = 1, had = 0;

	st = bpf_sk_storage_get(&sk_conn, tp, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st)
		return -12; /* ENOMEM */
	if (st->listens)
		return 0;
	bpf_getsockopt(tp, ISM_SOL_TCP, ISM_TCP_SAVE_SYN, &had, sizeof(had));
	flags = BPF_CORE_READ(tp, bpf_sock_ops_cb_flags) | ISM_CB_LISTEN;
	if (bpf_setsockopt(tp, ISM_SOL_TCP, ISM_TCP_SAVE_SYN, &save, sizeof(save)))
		return -95; /* EOPNOTSUPP */
	if (bpf_setsockopt(tp, ISM_SOL_TCP, ISM_TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags))) {
		if (!had)
			bpf_setsockopt(tp, ISM_SOL_TCP, ISM_TCP_SAVE_SYN, &had, sizeof(had));
		return -95;
	}
	fresh.cgroup = ism_sk_cgroup_id(sk);
	fresh.pin = earlier_pin(sk);
	fresh.flags |= had ? ISM_LISTENER_APP_SAVE_SYN : 0;
	fresh.direct = !!(st->caps & ISM_CAP_DIRECT);
	l = bpf_map_lookup_elem(&listeners, &v->key);
	if (l) {
		__sync_fetch_and_add(&l->refs, 1);
		__sync_fetch_and_add(&l->direct, fresh.direct);
	} else if (bpf_map_update_elem(&listeners, &v->key, &fresh, BPF_NOEXIST)) {
		return -28; /* ENOSPC */
	}
	st->listens = 1;
	ism_count(listeners, 1);
	return 0;
}

SEC("iter/tcp")
int ism_arm(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct ism_listener_view v = {};
	struct tcp_sock *tp;

	if (!skc || skc->skc_state != BPF_TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp || !in_scope((struct sock *)tp))
		return 0;
	listener_view(&v, (struct sock *)tp);
	v.err = arm(tp, &v);
	bpf_seq_write(ctx->meta->seq, &v, sizeof(v));
	return 0;
}

/* Undo what arming or on_listen() did, but for a TCP_SAVE_SYN that was the application's own. */
SEC("iter/tcp")
int ism_disarm(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct ism_listener_view v = {};
	struct ism_listener *l;
	struct tcp_sock *tp;
	struct ism_sk *st;
	int flags, save = 0;

	if (!skc || skc->skc_state != BPF_TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	st = bpf_sk_storage_get(&sk_conn, tp, 0, 0);
	if (!st || !st->listens)
		return 0;
	listener_view(&v, (struct sock *)tp);
	l = bpf_map_lookup_elem(&listeners, &v.key);
	flags = BPF_CORE_READ(tp, bpf_sock_ops_cb_flags) & ~ISM_CB_LISTEN;
	v.err = bpf_setsockopt(tp, ISM_SOL_TCP, ISM_TCP_BPF_SOCK_OPS_CB_FLAGS, &flags,
			       sizeof(flags));
	if (!l || !(l->flags & ISM_LISTENER_APP_SAVE_SYN))
		bpf_setsockopt(tp, ISM_SOL_TCP, ISM_TCP_SAVE_SYN, &save, sizeof(save));
	st->listens = 0;
	bpf_seq_write(ctx->meta->seq, &v, sizeof(v));
	return 0;
}
