// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The sockopt hooks. Setting: a connection whose application asks for something that redirected bytes cannot
 * give stays on TCP from then on, with the reason in its record. Getting: a process that can use rings
 * talks to us at a level of our own, about its own sockets: sockctl.h.
 */
#include "common.bpf.h"
#include "passive.bpf.h"
#include <ismredir/sockctl.h>

#define ISM_SOL_SOCKET 1
#define ISM_SOL_TCP    6

/* asm-generic/socket.h, linux/tcp.h; the generic numbers hold on x86, arm64, s390 and riscv. */
#define ISM_SO_RCVLOWAT		18
#define ISM_SO_ATTACH_FILTER	26
#define ISM_SO_TIMESTAMP_OLD	29
#define ISM_SO_TIMESTAMPNS_OLD	35
#define ISM_SO_TIMESTAMPING_OLD 37
#define ISM_SO_PEEK_OFF		42
#define ISM_SO_MAX_PACING_RATE	47
#define ISM_SO_ATTACH_BPF	50
#define ISM_SO_ZEROCOPY		60
#define ISM_SO_TIMESTAMP_NEW	63
#define ISM_SO_TIMESTAMPNS_NEW	64
#define ISM_SO_TIMESTAMPING_NEW 65
#define ISM_TCP_REPAIR		19
#define ISM_TCP_ULP		31
#define ISM_TCP_INQ		36
#define ISM_ENOENT		2
#define ISM_ENOMEM		12
#define ISM_EINVAL		22
#define ISM_EOPNOTSUPP		95
#define ISM_PAGE		4096 /* of a value, the kernel shows no more than a page */

static __always_inline __u32 socket_reason(int optname, int val)
{
	switch (optname) {
	case ISM_SO_RCVLOWAT:
		return val > 1 ? ISM_R_RCVLOWAT : 0;
	case ISM_SO_ZEROCOPY:
		return val ? ISM_R_ZEROCOPY : 0;
	case ISM_SO_MAX_PACING_RATE:
		return val != -1 ? ISM_R_PACING : 0;
	case ISM_SO_TIMESTAMP_OLD:
	case ISM_SO_TIMESTAMPNS_OLD:
	case ISM_SO_TIMESTAMPING_OLD:
	case ISM_SO_TIMESTAMP_NEW:
	case ISM_SO_TIMESTAMPNS_NEW:
	case ISM_SO_TIMESTAMPING_NEW:
		return val ? ISM_R_TIMESTAMP : 0;
	case ISM_SO_PEEK_OFF:
		return val >= 0 ? ISM_R_PEEK_OFF : 0;
	case ISM_SO_ATTACH_FILTER:
	case ISM_SO_ATTACH_BPF:
		return ISM_R_FILTER;
	}
	return 0;
}

static __always_inline __u32 tcp_reason(int optname, int val)
{
	switch (optname) {
	case ISM_TCP_ULP:
		return ISM_R_ULP;
	case ISM_TCP_INQ:
		return val ? ISM_R_INQ : 0;
	case ISM_TCP_REPAIR:
		return val == 1 ? ISM_R_REPAIR : 0;
	}
	return 0;
}

/* Somebody asks about a passive end that may have no record yet: passive.bpf.h. Its token, or 0. */
static __noinline __u64 late_passive(const struct tcp_sock *tp)
{
	__u64 offered = ism_saved_offer(tp), token;
	struct ism_conn *a = offered ? bpf_map_lookup_elem(&conns, &offered) : 0;

	/* What the SYN says is a claim: the record must name this very socket. */
	if (!a || a->peer_cookie != ism_sk_cookie((const struct sock *)tp))
		return 0;
	token = ism_add_passive(offered);
	return token;
}

static __always_inline struct ism_conn *own_conn_of(struct bpf_sock *sk, __u64 *token)
{
	const struct tcp_sock *tp = ism_tcp_sock(sk);
	struct ism_conn *rec = ism_conn_of(tp, ism_sk_cookie((const struct sock *)tp), token);

	if (rec)
		return rec;
	*token = late_passive(tp);
	return *token ? bpf_map_lookup_elem(&conns, token) : 0;
}

/* Pin the socket: its record if it has one, its listener's connections if it listens. */
static __always_inline struct ism_conn *pin(struct bpf_sock *sk, struct ism_sk *st, __u32 reason,
					    __u64 netns, __u32 port)
{
	__u64 token;
	struct ism_conn *rec = own_conn_of(sk, &token);

	st->pin = reason;
	if (rec) {
		rec->reason = reason;
		/* Rings are the process's own business: it reports when it leaves them. */
		if (rec->plane != ISM_PLANE_DIRECT)
			rec->plane = ISM_PLANE_TCP;
		ism_set(rec, ISM_CONN_PINNED);
	}
	if (st->listens) {
		struct ism_lkey key = { .netns = netns, .port = port };
		struct ism_listener *l = bpf_map_lookup_elem(&listeners, &key);

		if (l)
			l->pin = reason;
	}
	ism_count_reason(reason);
	return rec;
}

/* ---------------------------------------------------------------- our own level */

static __always_inline int is_tcp(const struct bpf_sock *sk)
{
	return sk && sk->type == 1 /* SOCK_STREAM */ && sk->protocol == 6 /* IPPROTO_TCP */;
}

/* A connection has the capabilities that its handshake said; only what comes later is changed. */
static __always_inline int set_caps(struct bpf_sockopt *opt, struct bpf_sock *sk, __u32 caps)
{
	struct ism_lkey key = {};
	struct ism_listener *l;
	struct ism_sk *st;
	int more;

	if (caps & ~(ISM_CAP_DIRECT | ISM_CAP_RELAY))
		return -ISM_EINVAL;
	st = bpf_sk_storage_get(&sk_conn, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st)
		return -ISM_ENOMEM;
	more = (int)(caps & ISM_CAP_DIRECT) - (int)(st->caps & ISM_CAP_DIRECT);
	st->caps = caps;
	st->claimed = 1;
	if (!st->listens || !more)
		return 0;
	key.netns = bpf_get_netns_cookie(opt);
	key.port = sk->src_port;
	l = bpf_map_lookup_elem(&listeners, &key);
	if (l)
		__sync_fetch_and_add(&l->direct, more);
	return 0;
}

/* Of all sockets that it will connect: see process_caps() in handshake.bpf.c. */
static __always_inline int set_process(__u32 caps)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct ism_proc p = { .caps = caps };

	if (caps & ~(ISM_CAP_DIRECT | ISM_CAP_RELAY))
		return -ISM_EINVAL;
	p.start_ns = task->group_leader->start_boottime;
	p.exec_id = task->self_exec_id;
	if (!p.caps)
		bpf_map_delete_elem(&procs, &tgid);
	else if (bpf_map_update_elem(&procs, &tgid, &p, BPF_ANY))
		return -ISM_ENOMEM;
	return 0;
}

static __always_inline int report(struct bpf_sock *sk, __u32 value)
{
	__u32 plane = value >> 16, reason = value & 0xffff;
	struct ism_conn *rec;
	__u64 token;

	if ((plane != ISM_PLANE_DIRECT && plane != ISM_PLANE_TCP) || reason >> 8 > 5)
		return -ISM_EINVAL;
	rec = own_conn_of(sk, &token);
	if (!rec || !(rec->flags & ISM_CONN_ESTABLISHED))
		return -ISM_ENOENT;
	/* Otherwise the kernel moves the bytes and knows better. */
	if (!ism_uses_rings(rec))
		return -ISM_EOPNOTSUPP;
	if (rec->plane != plane)
		rec->switches++;
	if (reason && rec->reason != reason)
		ism_count_reason(reason);
	if (plane == ISM_PLANE_DIRECT && !(rec->flags & ISM_CONN_ATTACHED)) {
		ism_set(rec, ISM_CONN_ATTACHED);
		if (rec->role == ISM_PASSIVE)
			ism_count(direct, 1);
	}
	rec->plane = plane;
	rec->last = plane;
	rec->reason = reason;
	return 0;
}

/* Its process has seen that a relay has all that it put into the ring. */
static __always_inline int let_fin(struct bpf_sock *sk)
{
	struct ism_relay_sk *own = bpf_sk_storage_get(&sk_relay, sk, 0, 0);
	struct ism_relay *r = own ? ism_relay_of(own) : 0;

	if (!r || !r->owner)
		return -ISM_ENOENT;
	r->fin_ok = 1;
	return 0;
}

static __always_inline void fill_info(struct ism_sock_info *info, const struct ism_conn *rec,
				      __u64 token)
{
	const struct tcp_sock *tp = (const struct tcp_sock *)rec->sk;
	const struct ism_conn *peer = ism_peer_of(rec);

	info->token = token;
	info->peer = rec->peer;
	info->cookie = rec->cookie;
	info->caps = rec->caps;
	info->peer_caps = rec->peer_caps;
	info->reason = rec->reason;
	if (rec->flags & ISM_CONN_ESTABLISHED)
		info->flags |= ISM_SOCK_ESTABLISHED;
	if (rec->flags & ISM_CONN_PINNED)
		info->flags |= ISM_SOCK_PINNED;
	if (rec->flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING))
		info->flags |= ISM_SOCK_ENROLLED;
	if (peer && peer->peer == token && (!rec->peer_sk || ism_passive_alive(rec)))
		info->flags |= ISM_SOCK_PAIRED;
	if (rec->flags & ISM_CONN_REMOTE)
		info->flags |= ISM_SOCK_REMOTE | ISM_SOCK_PAIRED;
	/* The record is this very socket's, and the hook holds its lock. */
	info->write_seq = KREAD(struct tcp_sock, tp, write_seq);
	info->copied_seq = KREAD(struct tcp_sock, tp, copied_seq);
	info->rcv_nxt = KREAD(struct tcp_sock, tp, rcv_nxt);
}

/* Who asks is about to show the socket to ismredird, which reads the token from the storage. */
static __always_inline int get_info(struct bpf_sockopt *opt, struct bpf_sock *sk)
{
	struct ism_sock_info *info = opt->optval;
	struct ism_ctl *c = ism_ctl();
	struct ism_conn *rec;
	struct ism_sk *st;
	__u64 token;

	if ((void *)(info + 1) > opt->optval_end || !c)
		return -ISM_EINVAL;
	__builtin_memset(info, 0, sizeof(*info));
	info->word = c->word;
	rec = own_conn_of(sk, &token);
	if (rec && rec->flags & ISM_CONN_LAZY)
		ism_add_passive(token);
	st = bpf_sk_storage_get(&sk_conn, sk, 0, rec ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (st) {
		info->caps = st->caps;
		info->reason = st->pin;
		info->flags = st->listens ? ISM_SOCK_LISTENS : 0;
		st->token = rec ? token : 0;
	}
	if (rec)
		fill_info(info, rec, token);
	return sizeof(*info);
}

/* The length of the answer, or negative errno; the kernel's own for what is no option of ours. */
static __always_inline int own_option(struct bpf_sockopt *opt, struct bpf_sock *sk)
{
	__u32 value = ISM_SO_VALUE(opt->optname);

	if (!is_tcp(sk))
		return -ISM_EOPNOTSUPP;
	switch (ISM_SO_OPTION(opt->optname)) {
	case ISM_SO_INFO:
		return value ? -ISM_EINVAL : get_info(opt, sk);
	case ISM_SO_CAPS:
		return set_caps(opt, sk, value);
	case ISM_SO_CAPS_PROCESS:
		return set_process(value);
	case ISM_SO_REPORT:
		return report(sk, value);
	case ISM_SO_FIN:
		return value ? -ISM_EINVAL : let_fin(sk);
	}
	return -ISM_EOPNOTSUPP;
}

/* ---------------------------------------------------------------- the hooks */

/*
 * Every getsockopt() in the cgroup comes here, so what is not ours has to pass at once. A value longer
 * than the kernel shows would be refused as truncated unless told to be left alone.
 */
SEC("cgroup/getsockopt")
int ism_sockinfo(struct bpf_sockopt *opt)
{
	int rc;

	if (opt->level == ISM_SOL) {
		rc = own_option(opt, opt->sk);
		bpf_set_retval(rc < 0 ? rc : 0);
		opt->optlen = rc < 0 ? 0 : rc;
		return 1;
	}
	if (opt->optlen > ISM_PAGE)
		opt->optlen = 0;
	return 1;
}

SEC("cgroup/setsockopt")
int ism_sockopt(struct bpf_sockopt *opt)
{
	struct bpf_sock *sk = opt->sk;
	int *optval = opt->optval;
	struct ism_conn *rec;
	struct ism_sk *st;
	__u32 reason = 0;
	int val = 0;

	/* The kernel shows at most a page of the value; one of 0 bytes or of pages is not ours. */
	if ((opt->level != ISM_SOL_SOCKET && opt->level != ISM_SOL_TCP) || !is_tcp(sk))
		goto out;
	if ((void *)(optval + 1) <= opt->optval_end)
		val = *optval;
	reason = opt->level == ISM_SOL_TCP ? tcp_reason(opt->optname, val)
					   : socket_reason(opt->optname, val);
	if (!reason)
		goto out;
	st = bpf_sk_storage_get(&sk_conn, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st)
		goto out;
	rec = pin(sk, st, reason, bpf_get_netns_cookie(opt), sk->src_port);
	/*
	 * kTLS on a socket in a sockhash would read redirected bytes as plain text and run the sk_msg
	 * verdict on it (net/tls/tls_sw.c). Refuse as a kernel without the tls module does: every
	 * TLS library then goes on by itself.
	 */
	if (reason == ISM_R_ULP && rec && rec->flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING)) {
		bpf_set_retval(-ISM_ENOENT);
		return 0;
	}
out:
	/* As in ism_sockinfo(). */
	if (opt->optlen > ISM_PAGE)
		opt->optlen = 0;
	return 1;
}
