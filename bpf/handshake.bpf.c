// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The handshake (sockops): puts the offer on a SYN and the answer on a SYN-ACK, pairs the two ends
 * by their tokens, enrols their sockets, and keeps the connection table. docs/wire-format.rst.
 */
#include "common.bpf.h"
#include "current.bpf.h"
#include <bpf/bpf_endian.h>
#include "negative.bpf.h"
#include "passive.bpf.h"
#include "policy.bpf.h"
#include "relay_end.bpf.h"
#include "waiters.bpf.h"
#include <ismredir/option.h>

#define ISM_SOL_TCP	 6
#define ISM_TCP_SAVE_SYN 27
#define ISM_TCPHDR_SYN	 0x02
#define ISM_TCPHDR_ACK	 0x10
#define ISM_RTN_LOCAL	 2 /* linux/rtnetlink.h */
#define ISM_RTF_GATEWAY	 0x0002 /* linux/route.h */
#define ISM_EBUSY	 16
#define ISM_E2BIG	 7
#define ISM_ENOSPC	 28

#define ISM_CB_LISTEN (BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG)

/* ctl.key; libbpf freezes .rodata. A replace keeps it, as there are records that go by it. */
const volatile __u64 sip_key[2];

/* ---------------------------------------------------------------- small pieces */

static __always_inline void add_flags(struct bpf_sock_ops *skops, __u32 flags)
{
	bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | flags);
}

static __always_inline void drop_flags(struct bpf_sock_ops *skops, __u32 flags)
{
	bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags & ~flags);
}

/* The option callbacks cost on every segment, so they go as soon as the handshake is over. */
static __always_inline void drop_write_flag(struct bpf_sock_ops *skops)
{
	drop_flags(skops, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

static __always_inline const struct tcp_sock *full_sock(struct bpf_sock_ops *skops)
{
	struct bpf_sock *sk = skops->sk;

	return sk ? ism_tcp_sock(sk) : 0;
}

static __always_inline struct ism_sk *own_storage(struct bpf_sock_ops *skops, __u64 flags)
{
	struct bpf_sock *sk = skops->sk;

	return sk ? bpf_sk_storage_get(&sk_conn, sk, 0, flags) : 0;
}

static __always_inline struct ism_conn *own_conn(struct bpf_sock_ops *skops, __u64 *token)
{
	const struct tcp_sock *tp = full_sock(skops);

	return tp ? ism_conn_of(tp, ism_sk_cookie((struct sock *)tp), token) : 0;
}

/* Where it can only be an active end. */
static __always_inline struct ism_conn *own_active(struct bpf_sock_ops *skops, __u64 *token)
{
	const struct tcp_sock *tp = full_sock(skops);

	return tp ? ism_active_conn(tp, ism_sk_cookie((struct sock *)tp), token) : 0;
}

/* Where it is in the sockhash. */
static __always_inline struct ism_conn *own_enrolled(struct bpf_sock_ops *skops, __u64 *token)
{
	*token = skops->sk ? ism_token_of(bpf_get_socket_cookie(skops)) : 0;
	return *token ? bpf_map_lookup_elem(&conns, token) : 0;
}

static __always_inline __u64 netns_of(const struct tcp_sock *tp)
{
	const struct net *net = KREAD(struct sock, tp, __sk_common.skc_net.net);

	return KREAD(struct net, net, net_cookie);
}

/* The way from the socket to its record. 0, or the map is full. */
static __always_inline long add_token(__u64 cookie, __u64 token)
{
	return bpf_map_update_elem(&tokens, &cookie, &token, BPF_ANY);
}

static __always_inline int is_v4(const struct bpf_sock_ops *skops)
{
	/* ::ffff:a.b.c.d: a v4 connection of a v6 socket. */
	return skops->family == ISM_AF_INET || (!skops->remote_ip6[0] && !skops->remote_ip6[1] &&
						skops->remote_ip6[2] == bpf_htonl(0xffff));
}

/*
 * The addresses are read field by field through barriers: left alone, the compiler picks a field by
 * arithmetic on the context pointer, which the verifier refuses.
 */
#define CTX_U32(field)                                                                             \
	({                                                                                         \
		__u32 __v = skops->field;                                                          \
		barrier_var(__v);                                                                  \
		__v;                                                                               \
	})

static __always_inline void put_addr(__u8 *to, const struct bpf_sock_ops *skops, __u32 v4,
				     const __u32 *v6, int mapped)
{
	__u32 a = skops->family == ISM_AF_INET ? v4 : v6[3];

	if (!is_v4(skops)) {
		__builtin_memcpy(to, v6, 16);
		return;
	}
	if (mapped) {
		ism_map_v4(to, a);
		return;
	}
	__builtin_memset(to, 0, 16);
	__builtin_memcpy(to, &a, 4);
}

static __always_inline void get_raddr(struct bpf_sock_ops *skops, __u8 *to, int mapped)
{
	__u32 v4 = CTX_U32(remote_ip4);
	__u32 v6[4] = { CTX_U32(remote_ip6[0]), CTX_U32(remote_ip6[1]), CTX_U32(remote_ip6[2]),
			CTX_U32(remote_ip6[3]) };

	put_addr(to, skops, v4, v6, mapped);
}

static __always_inline void get_laddr(struct bpf_sock_ops *skops, __u8 *to)
{
	__u32 v4 = CTX_U32(local_ip4);
	__u32 v6[4] = { CTX_U32(local_ip6[0]), CTX_U32(local_ip6[1]), CTX_U32(local_ip6[2]),
			CTX_U32(local_ip6[3]) };

	put_addr(to, skops, v4, v6, 0);
}

static __always_inline __u16 remote_port(const struct bpf_sock_ops *skops)
{
	return bpf_ntohl(skops->remote_port);
}

/* ---------------------------------------------------------------- tokens */

/*
 * The passive end's token. While the SYN-ACK is written there is no socket yet (skops->sk is NULL
 * beside a request_sock), so it must be computable again at ESTABLISHED: from the offered token and
 * the ports and sequence number @seq of the SYN. Somebody who replays a token that he saw still sends
 * another SYN and so gets another answer, which the token's owner does not name.
 */
static __always_inline __u64 passive_token(struct bpf_sock_ops *skops, __u64 offered, __u32 seq)
{
	__u64 syn = bpf_htons(remote_port(skops)) | (__u64)bpf_htons(skops->local_port) << 16 |
		    (__u64)bpf_htonl(seq) << 32;

	return ism_sip(offered, syn, ~bpf_get_netns_cookie(skops));
}

/*
 * The sequence number of the SYN that a SYN-ACK replies to; what that acknowledges is more with fast open. 0, or -1.
 * -ENOSPC says only that there was more than we want.
 */
static __always_inline int syn_seq(struct bpf_sock_ops *skops, __u32 *seq)
{
	__be32 head[2] = {}; /* ports, sequence number: RFC 9293, 3.1 */
	int rc = bpf_getsockopt(skops, ISM_SOL_TCP, TCP_BPF_SYN, head, sizeof(head));

	if (rc < 0 && rc != -ISM_ENOSPC)
		return -1;
	*seq = bpf_ntohl(head[1]);
	return 0;
}

/* ---------------------------------------------------------------- reading options */

/* 0, or enum ism_reason; ISM_R_NO_OFFER also stands for "no option at all". */
static __always_inline __u32 load_option(struct bpf_sock_ops *skops, __u64 flags,
					 struct ism_option *opt)
{
	__u8 buf[ISM_OPT_LEN] = { ISM_OPT_KIND,
				  6,
				  ISM_OPT_EXID >> 24,
				  (__u8)(ISM_OPT_EXID >> 16),
				  (__u8)(ISM_OPT_EXID >> 8),
				  (__u8)ISM_OPT_EXID };
	int len = bpf_load_hdr_opt(skops, buf, sizeof(buf), flags);

	if (len < 0)
		return len == -ISM_ENOSPC ? ISM_R_BAD_OPTION : ISM_R_NO_OFFER;
	if (len != ISM_OPT_LEN || ism_option_decode(buf, opt))
		return ISM_R_BAD_OPTION;
	return 0;
}

static __always_inline int has_smc_option(struct bpf_sock_ops *skops, __u64 flags)
{
	__u8 buf[8] = { ISM_OPT_KIND,
			6,
			ISM_SMC_OPT_EXID >> 24,
			(__u8)(ISM_SMC_OPT_EXID >> 16),
			(__u8)(ISM_SMC_OPT_EXID >> 8),
			(__u8)ISM_SMC_OPT_EXID };

	return bpf_load_hdr_opt(skops, buf, sizeof(buf), flags) > 0;
}

/* Times to a tick will do here: reading the clock itself is a good part of what these functions cost. */
static __always_inline void note_peer(struct bpf_sock_ops *skops, const struct tcp_sock *tp,
				      __u32 flag)
{
	struct ism_peer_key key = { .netns = netns_of(tp) };
	struct ism_peer fresh = { .last_ns = bpf_ktime_get_coarse_ns(), .count = 1, .flags = flag };
	struct ism_peer *p;

	get_raddr(skops, key.addr, 1);
	p = bpf_map_lookup_elem(&peers, &key);
	if (!p) {
		bpf_map_update_elem(&peers, &key, &fresh, BPF_ANY);
		return;
	}
	p->last_ns = fresh.last_ns;
	p->flags |= flag;
	__sync_fetch_and_add(&p->count, 1);
}

/* Our option and SMC's do not fit into one SYN, so this is asked only where ours is missing. */
static __always_inline void note_smc(struct bpf_sock_ops *skops, const struct tcp_sock *tp,
				     __u64 flags)
{
	if (!has_smc_option(skops, flags))
		return;
	note_peer(skops, tp, ISM_PEER_SMC);
	ism_count(smc_seen, 1);
}

/* ---------------------------------------------------------------- negative cache */

static __always_inline struct neg_dest dest_of(struct bpf_sock_ops *skops,
					       const struct tcp_sock *tp)
{
	struct neg_dest d = { .netns = netns_of(tp), .port = remote_port(skops) };

	get_raddr(skops, (__u8 *)d.addr, 1);
	return d;
}

/* ---------------------------------------------------------------- active end */

/* Loopback or without a gateway: by the route that this very connection takes. */
static __always_inline int is_local(const struct sock *sk, int v4)
{
	struct dst_entry *dst = KREAD(struct sock, sk, sk_dst_cache);

	if (!dst)
		return 0;
	if (v4) {
		struct rtable *rt = (void *)dst;

		return KREAD(struct rtable, rt, rt_type) == ISM_RTN_LOCAL ||
		       !KREAD(struct rtable, rt, rt_uses_gateway);
	}
	return !(KREAD(struct rt6_info, dst, rt6i_flags) & ISM_RTF_GATEWAY);
}

static __always_inline void fill_conn(struct bpf_sock_ops *skops, struct ism_conn *c,
				      const struct tcp_sock *tp)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;

	c->cookie = bpf_get_socket_cookie(skops);
	c->netns = netns_of(tp);
	c->cgroup = ism_sk_cgroup_id(sk);
	c->sk = (__u64)tp;
	c->born_ns = bpf_ktime_get_coarse_ns();
	c->family = is_v4(skops) ? ISM_AF_INET : ISM_AF_INET6;
	c->lport = skops->local_port;
	c->rport = remote_port(skops);
	get_laddr(skops, c->laddr);
	get_raddr(skops, c->raddr, 0);
}

static __always_inline void fill_task(struct ism_conn *c)
{
	c->pid = ism_current_pid();
	c->uid = ism_current_uid();
	ism_current_comm(c->comm);
}

/* The plane for which an offer is made: enum ism_plane, ISM_PLANE_TCP for none. */
static __noinline int wants_offer(struct bpf_sock_ops *skops, struct ism_ctl *c,
				  const struct tcp_sock *tp)
{
	struct ism_end active = { .known = 1, .dir = ISM_RULE_OUT }, passive = {};
	int plane;

	active.sk = &tp->inet_conn.icsk_inet.sk;
	active.local = is_local(active.sk, is_v4(skops));
	if (c->n_rules) {
		active.port = remote_port(skops);
		get_raddr(skops, active.raddr, 1);
		ism_current_comm(active.comm);
	}
	plane = ism_policy(c, &active, &passive, active.local);
	if (plane == ISM_PLANE_TCP)
		ism_count_reason(active.local ? ISM_R_POLICY : ISM_R_NOT_LOCAL);
	return plane;
}

/* What the process has said of all its sockets. Fast open is not connect(): see sockctl.h. */
static __always_inline __u8 process_caps(const struct tcp_sock *tp)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = ism_current_pid();
	struct ism_proc *p = bpf_map_lookup_elem(&procs, &tgid);

	if (!p || !ism_is_proc(p, task) || KREAD(struct tcp_sock, tp, fastopen_req))
		return 0;
	return p->caps;
}

/* May a process of this user use the rings of a fabric that reaches other kernels? */
static __always_inline int may_direct(const struct ism_ctl *c, __u32 uid)
{
	__u32 n = c->n_direct;

	if (n == ISM_DIRECT_ALL)
		return 1;
	for (__u32 i = 0; i < ISM_MAX_DIRECT; i++)
		if (i < n && c->direct[i] == uid)
			return 1;
	return 0;
}

/* What an end whose process has @caps can do when its partner is of another kernel. */
static __always_inline __u8 remote_caps(const struct ism_ctl *c, __u8 caps, __u32 uid, int plane)
{
	__u8 ret = caps & ISM_CAP_DIRECT && may_direct(c, uid) ? ISM_CAP_DIRECT : 0;

	if (c->relay && (ret || plane != ISM_PLANE_DIRECT))
		ret |= ISM_CAP_RELAY;
	return ret;
}

/*
 * connect(AF_UNSPEC) ends a connection and keeps the socket, and since 5.16 the socket stays in the
 * sockhash then (sock_map has no unhash handler): what was redirected and not read would be read as
 * the first bytes of the next connection. Taking it out drops it, as tcp_disconnect() drops the rest.
 */
static __always_inline void forget_earlier(struct ism_sk *st)
{
	__u64 token;

	if (!st)
		return;
	st->token = 0;
	if (!st->stale)
		return;
	token = st->stale;
	st->stale = 0;
	bpf_map_delete_elem(&socks, &token);
}

/*
 * The record of the active end. It and the policy's walk do not fit into one frame, as all frames
 * together have 512 bytes.
 */
static __noinline int add_active(struct bpf_sock_ops *skops, int plane)
{
	struct ism_conn rec = { .role = ISM_ACTIVE, .reason = ISM_R_PENDING };
	struct ism_ctl *c = ism_ctl();
	const struct tcp_sock *tp = full_sock(skops);
	struct ism_sk *st = own_storage(skops, 0);
	__u64 token;

	if (!tp || !c)
		return 0;
	fill_conn(skops, &rec, tp);
	fill_task(&rec);
	if (st && st->pin) {
		rec.reason = st->pin;
		rec.flags = ISM_CONN_PINNED;
	}
	rec.caps = st && st->claimed ? st->caps : process_caps(tp);
	if (c->fabrics[0]) {
		rec.offered = remote_caps(c, rec.caps, rec.uid, plane);
		rec.fabric = rec.offered ? c->fabrics[0] : 0;
	}
	/* tcp_connect_init() makes it the first that is not acknowledged: ism_first_seq() */
	token = ism_active_token(rec.cookie, KREAD(struct tcp_sock, tp, write_seq));
	if (bpf_map_update_elem(&conns, &token, &rec, BPF_NOEXIST))
		ism_count_reason(ISM_R_MAP_FULL);
	else
		add_flags(skops,
			  rec.flags & ISM_CONN_PINNED ? BPF_SOCK_OPS_STATE_CB_FLAG : ISM_CB_LISTEN);
	return 0;
}

static __always_inline void on_connect(struct bpf_sock_ops *skops)
{
	struct ism_ctl *c = ism_ctl();
	const struct tcp_sock *tp = full_sock(skops);
	struct neg_dest dest;
	int plane;

	if (tp && KREAD(struct sock, tp, sk_bpf_storage))
		forget_earlier(own_storage(skops, 0));
	if (!c || !tp || c->word != ISM_WORD_ON)
		return;
	/* First: with a partner that is not capable nothing more than this shall be paid. */
	dest = dest_of(skops, tp);
	if (ism_is_negative(&dest, c->epoch)) {
		ism_count_reason(ISM_R_NEGATIVE);
		return;
	}
	plane = wants_offer(skops, c, tp);
	/* The dummy of a relay connects, too, and to nowhere. */
	if (plane != ISM_PLANE_TCP && !KBITS(struct tcp_sock, tp, repair))
		add_active(skops, plane);
}

/* Only who made a record has asked to be called. */
static __always_inline void reserve_offer(struct bpf_sock_ops *skops)
{
	int again = !!skops->total_retrans;
	struct ism_conn *rec;
	__u64 token;

	if (!again && !bpf_reserve_hdr_opt(skops, ISM_OPT_LEN, 0))
		return;
	rec = own_active(skops, &token);
	if (rec)
		rec->reason = again ? ISM_R_SYN_RETRANS : ISM_R_NO_ROOM;
}

static __always_inline void write_offer(struct bpf_sock_ops *skops)
{
	struct ism_option opt = { .role = ISM_ROLE_OFFER };
	__u8 buf[ISM_OPT_LEN];
	struct ism_conn *rec;

	if (skops->total_retrans)
		return;
	rec = own_active(skops, &opt.token);
	/* Without room of our own this is somebody else's. */
	if (!rec || rec->reason == ISM_R_NO_ROOM)
		return;
	/* A partner of this kernel looks into the record. */
	opt.fabric = rec->fabric;
	opt.caps = opt.fabric ? rec->offered : rec->caps;
	ism_option_encode(buf, &opt);
	if (bpf_store_hdr_opt(skops, buf, sizeof(buf), 0)) {
		rec->reason = ISM_R_NO_ROOM;
		return;
	}
	ism_set(rec, ISM_CONN_OFFERED);
	ism_count(offers, 1);
}

/* ---------------------------------------------------------------- both ends, once established */

static __always_inline void enrol(struct bpf_sock_ops *skops, struct ism_conn *rec, __u64 token)
{
	__u64 cookie = rec->cookie;
	int err;

	/* a passive end's is there */
	if (rec->role == ISM_ACTIVE && add_token(cookie, token)) {
		rec->reason = ISM_R_MAP_FULL;
		ism_count_reason(rec->reason);
		return;
	}
	err = bpf_sock_hash_update(skops, &socks, &token, BPF_NOEXIST);
	if (!err) {
		ism_set(rec, ISM_CONN_ENROLLED);
		add_flags(skops, BPF_SOCK_OPS_RTT_CB_FLAG);
		rec->plane = ISM_PLANE_SKMSG;
		rec->last = ISM_PLANE_SKMSG;
		rec->reason = ISM_R_NONE;
		return;
	}
	if (rec->role == ISM_ACTIVE)
		bpf_map_delete_elem(&tokens, &cookie);
	rec->reason = err == -ISM_E2BIG	  ? ISM_R_MAP_FULL
		      : err == -ISM_EBUSY ? ISM_R_FOREIGN_SOCKMAP
					  : ISM_R_INSERT;
	ism_count_reason(rec->reason);
}

/* The partner is of another kernel: all that is known of it is what it said. */
static __always_inline void make_remote(struct ism_conn *rec, const struct ism_option *opt,
					__u8 caps)
{
	rec->caps = caps;
	rec->peer_caps = opt->caps;
	rec->fabric = opt->fabric;
	ism_set(rec, ISM_CONN_REMOTE);
}

/* Until the rings of both ends are there it is TCP in any case; what a relay shall take is enrolled. */
static __always_inline void settle_remote(struct bpf_sock_ops *skops, struct ism_conn *rec,
					  __u64 token)
{
	switch (ism_remote_plane(rec)) {
	case ISM_PLANE_DIRECT:
		rec->reason = ISM_R_DIRECT_WAIT;
		return;
	case ISM_PLANE_RELAY:
		enrol(skops, rec, token);
		rec->plane = ISM_PLANE_TCP;
		rec->last = ISM_PLANE_TCP;
		if (rec->flags & ISM_CONN_ENROLLED)
			rec->reason = ISM_R_RELAY_WAIT;
		return;
	default:
		rec->reason = ISM_R_NO_PLANE;
		ism_set(rec, ISM_CONN_PINNED);
		ism_count_reason(rec->reason);
	}
}

/*
 * Which plane a new connection gets. Both records hold the same capabilities, so both ends come to
 * the same result. Where the processes can use rings the sockets stay out of the sockhash, which costs
 * a connection more than all else: it is plain TCP until they attach some.
 */
static __always_inline void settle(struct bpf_sock_ops *skops, struct ism_conn *rec, __u64 token,
				   const struct tcp_sock *tp)
{
	rec->start_seq = KREAD(struct tcp_sock, tp, write_seq);
	rec->last_seq = rec->start_seq;
	if (rec->flags & ISM_CONN_PINNED)
		return;
	if (rec->flags & ISM_CONN_REMOTE) {
		settle_remote(skops, rec, token);
	} else if (ism_both_direct(rec)) {
		rec->reason = ISM_R_DIRECT_WAIT;
	} else if (rec->flags & ISM_CONN_DIRECT_ONLY) {
		rec->reason = ISM_R_NOT_DIRECT;
		ism_set(rec, ISM_CONN_PINNED);
		ism_count_reason(rec->reason);
	} else {
		enrol(skops, rec, token);
	}
}

/*
 * What the SYN-ACK says about our offer, which named the fabric @tag: 0, or why not. Whoever is of this
 * kernel has noted in our record that he answers.
 */
static __always_inline __u32 read_answer(struct bpf_sock_ops *skops, const struct ism_conn *rec,
					 __u64 token, __u32 tag, struct ism_option *opt)
{
	__u32 reason = load_option(skops, 0, opt);

	if (reason)
		return reason == ISM_R_NO_OFFER ? ISM_R_NO_ANSWER : reason;
	/* An echo is not an answer: SYN-cookie proxies and option-copying servers exist. */
	if (opt->role != ISM_ROLE_ANSWER || opt->token == token)
		return ISM_R_ECHO;
	if (!(rec->flags & ISM_CONN_ANSWERED) && (!tag || opt->fabric != tag))
		return ISM_R_OTHER_FABRIC;
	return 0;
}

static __always_inline void on_active(struct bpf_sock_ops *skops)
{
	struct ism_ctl *c = ism_ctl();
	const struct tcp_sock *tp = full_sock(skops);
	struct ism_option opt = {};
	struct neg_dest dest;
	struct ism_conn *rec;
	__u32 reason, tag;
	__u64 token;

	/* Whoever made an offer has asked for callbacks. Most others pay for no look-up. */
	if (!skops->bpf_sock_ops_cb_flags)
		return;
	rec = own_active(skops, &token);
	if (!rec || !tp || !c)
		return;
	drop_write_flag(skops);
	tag = rec->fabric;
	rec->fabric = 0;
	rec->lport = skops->local_port;
	get_laddr(skops, rec->laddr);
	ism_set(rec, ISM_CONN_ESTABLISHED);
	if (!(rec->flags & ISM_CONN_OFFERED)) {
		note_smc(skops, tp, 0);
		ism_count_reason(rec->reason);
		return;
	}
	reason = read_answer(skops, rec, token, tag, &opt);
	if (reason) {
		note_smc(skops, tp, 0);
		/* 6.18 does not even ask for options on a SYN that it sends again. */
		if (reason == ISM_R_NO_ANSWER && skops->total_retrans)
			reason = ISM_R_SYN_RETRANS;
		if (rec->reason == ISM_R_PENDING || reason != ISM_R_NO_ANSWER)
			rec->reason = reason;
		ism_count_reason(rec->reason);
		dest = dest_of(skops, tp);
		ism_set_negative(&dest, c, rec->reason);
		return;
	}
	rec->peer = opt.token;
	/* What the passive end wrote into our record is worth more than what came over the wire. */
	if (!(rec->flags & ISM_CONN_ANSWERED))
		make_remote(rec, &opt, rec->offered);
	settle(skops, rec, token, tp);
	note_peer(skops, tp, ISM_PEER_ISMREDIR);
}

/* ---------------------------------------------------------------- passive end */

static __always_inline void listener_key(struct bpf_sock_ops *skops, struct ism_lkey *key)
{
	key->netns = bpf_get_netns_cookie(skops);
	key->port = skops->local_port;
	key->pad = 0;
}

static __always_inline void on_listen(struct bpf_sock_ops *skops)
{
	struct ism_ctl *c = ism_ctl();
	const struct tcp_sock *tp = full_sock(skops);
	struct ism_listener fresh = { .refs = 1 }, *l;
	struct ism_lkey key;
	struct ism_sk *st;
	int one = 1, had = 0;

	st = own_storage(skops, BPF_SK_STORAGE_GET_F_CREATE);
	forget_earlier(st);
	if (!c || !tp || !st || c->word != ISM_WORD_ON)
		return;
	bpf_getsockopt(skops, ISM_SOL_TCP, ISM_TCP_SAVE_SYN, &had, sizeof(had));
	if (bpf_setsockopt(skops, ISM_SOL_TCP, ISM_TCP_SAVE_SYN, &one, sizeof(one)))
		return;
	listener_key(skops, &key);
	fresh.cgroup = ism_sk_cgroup_id(&tp->inet_conn.icsk_inet.sk);
	fresh.sk = (__u64)tp;
	fresh.pid = ism_current_pid();
	fresh.uid = ism_current_uid();
	fresh.pin = st->pin;
	fresh.flags = had ? ISM_LISTENER_APP_SAVE_SYN : 0;
	fresh.direct = !!(st->caps & ISM_CAP_DIRECT);
	ism_current_comm(fresh.comm);
	l = bpf_map_lookup_elem(&listeners, &key);
	if (l) {
		__sync_fetch_and_add(&l->refs, 1);
		__sync_fetch_and_add(&l->direct, fresh.direct);
	} else if (bpf_map_update_elem(&listeners, &key, &fresh, BPF_NOEXIST)) {
		return;
	}
	st->listens = 1;
	/* Whoever did not answer a moment ago may answer now. */
	__sync_fetch_and_add(&c->epoch, 1);
	ism_count(listeners, 1);
	add_flags(skops, ISM_CB_LISTEN);
}

/*
 * An offer that is going to be answered: who made it, to whom, and the plane of the policy. Where @a is
 * of another kernel it is NULL, @caps are what this end can do with such a partner, and @far says that
 * the partner is known to be behind a gateway.
 */
struct offer {
	struct ism_conn *a;
	struct ism_listener *l;
	int plane;
	__u8 caps;
	__u8 far;
};

/*
 * The decision to answer, into the offering end's record, where both ends find it. A SYN-ACK that is
 * sent again says the same as the first.
 */
static __always_inline void note_answer(struct offer *o)
{
	if (!o->a || !o->l || o->a->flags & ISM_CONN_ANSWERED)
		return;
	o->a->peer_caps = ism_listener_caps(o->l);
	ism_set(o->a, o->plane == ISM_PLANE_DIRECT ? ISM_CONN_ANSWERED | ISM_CONN_DIRECT_ONLY
						   : ISM_CONN_ANSWERED);
}

static __always_inline void fill_active_end(struct ism_end *e, const struct ism_conn *a)
{
	__u32 v4;

	e->sk = (struct sock *)a->sk;
	e->port = a->rport;
	if (a->family == ISM_AF_INET) {
		__builtin_memcpy(&v4, a->raddr, 4);
		ism_map_v4(e->raddr, v4);
	} else {
		__builtin_memcpy(e->raddr, a->raddr, 16);
	}
	__builtin_memcpy(e->comm, a->comm, 16);
}

static __always_inline void fill_passive_end(struct bpf_sock_ops *skops, struct ism_end *e,
					     const struct ism_listener *l, __u32 port)
{
	e->sk = (struct sock *)l->sk;
	e->port = port;
	get_raddr(skops, e->raddr, 1);
	__builtin_memcpy(e->comm, l->comm, 16);
}

/*
 * Would we answer this offer? 0, or why not. One that names a token of our table comes from this kernel;
 * another one is for us when it names a fabric of ours, and then the policy of this end is all there is.
 */
static __noinline __u32 answerable(struct bpf_sock_ops *skops, const struct ism_option *opt,
				   struct offer *o)
{
	struct ism_end active = { .known = 1, .dir = ISM_RULE_OUT };
	struct ism_end passive = { .known = 1, .dir = ISM_RULE_IN, .local = !o->far };
	struct ism_ctl *c = ism_ctl();
	struct ism_conn *a = bpf_map_lookup_elem(&conns, &opt->token);
	struct ism_listener *l;
	struct ism_lkey key;

	if (opt->role != ISM_ROLE_OFFER)
		return ISM_R_ECHO;
	if (a && !(a->flags & ISM_CONN_OFFERED))
		a = 0;
	if (!a && (!c || !ism_has_fabric(c, opt->fabric)))
		return opt->fabric ? ISM_R_OTHER_FABRIC : ISM_R_UNKNOWN_TOKEN;
	listener_key(skops, &key);
	l = bpf_map_lookup_elem(&listeners, &key);
	if (!c || c->word != ISM_WORD_ON || !l)
		return ISM_R_OFF;
	o->l = l;
	o->a = a;
	if (l->pin)
		return l->pin;
	active.local = 1; /* it offered, so its own policy found it so */
	if (c->n_rules) {
		if (a)
			fill_active_end(&active, a);
		fill_passive_end(skops, &passive, l, key.port);
	}
	o->plane = ism_policy(c, a ? &active : &passive, &passive, passive.local);
	if (o->plane == ISM_PLANE_TCP)
		return passive.local ? ISM_R_POLICY : ISM_R_NOT_LOCAL;
	if (a)
		return 0;
	o->caps = remote_caps(c, ism_listener_caps(l), l->uid, o->plane);
	return ism_caps_agree(o->caps, opt->caps) ? 0 : ISM_R_NO_PLANE;
}

/* The offer on the SYN that a SYN-ACK replies to; 0, or why there is none that counts. */
static __always_inline __u32 read_offer(struct bpf_sock_ops *skops, struct ism_option *opt)
{
	return load_option(skops, BPF_LOAD_HDR_OPT_TCP_SYN, opt);
}

/*
 * Linux sends no SYN without an MSS (tcp_syn_options()), so one of no more than this has no room for an offer and needs
 * no search, which costs more than all else that a connection without one does here.
 */
#define ISM_USUAL_SYN 40
_Static_assert(20 + 4 + ISM_OPT_LEN > ISM_USUAL_SYN, "header, MSS and offer");

/* Is that so of the SYN that a SYN-ACK replies to? */
static __always_inline int replies_to_usual(struct bpf_sock_ops *skops)
{
	struct bpf_sock_ops_kern *ctx;
	struct sk_buff *syn;

	if (!bpf_cast_to_kern_ctx)
		return 0;
	ctx = bpf_cast_to_kern_ctx(skops);
	syn = KREAD(struct bpf_sock_ops_kern, ctx, syn_skb);
	/* at its TCP header: bpf_sock_ops_get_syn() */
	return syn &&
	       KBITS(struct tcphdr, KREAD(struct sk_buff, syn, data), doff) * 4 <= ISM_USUAL_SYN;
}

static __always_inline void reserve_answer(struct bpf_sock_ops *skops)
{
	struct ism_option opt = {};
	struct offer o = {};
	__u32 reason;

	/* A SYN cookie keeps no state: we would answer and then not know of it. */
	if (skops->args[0] == BPF_WRITE_HDR_TCP_SYNACK_COOKIE) {
		ism_count_reason(ISM_R_SYN_COOKIE);
		return;
	}
	if (replies_to_usual(skops))
		return;
	reason = read_offer(skops, &opt);
	if (reason == ISM_R_NO_OFFER)
		return;
	if (!reason)
		reason = answerable(skops, &opt, &o);
	if (!reason && bpf_reserve_hdr_opt(skops, ISM_OPT_LEN, 0))
		reason = ISM_R_NO_ROOM;
	if (reason) {
		ism_count_reason(reason);
		return;
	}
	note_answer(&o);
	if (o.l)
		__sync_fetch_and_add(&o.l->answers, 1);
}

/*
 * The decision was taken when the room was reserved; somebody else may have reserved it alone. It is in
 * the offering end's record, and is taken again where that is in another kernel.
 */
static __always_inline void write_answer(struct bpf_sock_ops *skops)
{
	struct ism_option opt = {}, answer = { .role = ISM_ROLE_ANSWER };
	__u8 buf[ISM_OPT_LEN];
	struct offer o = {};
	struct ism_conn *a;
	__u32 seq;

	if (skops->args[0] == BPF_WRITE_HDR_TCP_SYNACK_COOKIE || syn_seq(skops, &seq) ||
	    read_offer(skops, &opt))
		return;
	a = bpf_map_lookup_elem(&conns, &opt.token);
	if (a) {
		if (!(a->flags & ISM_CONN_ANSWERED))
			return;
		answer.caps = a->peer_caps;
	} else {
		if (!opt.fabric || answerable(skops, &opt, &o))
			return;
		answer.caps = o.caps;
		answer.fabric = opt.fabric;
	}
	answer.token = passive_token(skops, opt.token, seq);
	ism_option_encode(buf, &answer);
	if (!bpf_store_hdr_opt(skops, buf, sizeof(buf), 0))
		ism_count(answers, 1);
}

/* What does not depend on the partner in the record of a passive end. */
static __always_inline void fill_passive(struct bpf_sock_ops *skops, struct ism_conn *rec,
					 const struct tcp_sock *tp)
{
	struct ism_lkey key;
	struct ism_listener *l;

	fill_conn(skops, rec, tp);
	rec->flags |= ISM_CONN_ESTABLISHED;
	listener_key(skops, &key);
	l = bpf_map_lookup_elem(&listeners, &key);
	if (!l)
		return;
	rec->pid = l->pid;
	rec->uid = l->uid;
	__builtin_memcpy(rec->comm, l->comm, 16);
}

/* Store it and choose its plane. The stored record, or NULL. */
static __always_inline struct ism_conn *add_passive(struct bpf_sock_ops *skops,
						    const struct ism_conn *rec, __u64 token,
						    const struct tcp_sock *tp)
{
	struct ism_conn *stored;

	if (bpf_map_update_elem(&conns, &token, rec, BPF_NOEXIST)) {
		ism_count_reason(ISM_R_MAP_FULL);
		return 0;
	}
	if (add_token(rec->cookie, token)) {
		bpf_map_delete_elem(&conns, &token);
		ism_count_reason(ISM_R_MAP_FULL);
		return 0;
	}
	add_flags(skops, BPF_SOCK_OPS_STATE_CB_FLAG);
	stored = bpf_map_lookup_elem(&conns, &token);
	if (!stored)
		return 0;
	settle(skops, stored, token, tp);
	if (ism_both_direct(stored))
		ism_count(direct_pairs, 1);
	return stored;
}

/* The record of the passive end, once its offer is found good. A frame of its own: see add_active(). */
static __noinline int pair_passive(struct bpf_sock_ops *skops, const struct tcp_sock *tp,
				   __u64 offered, __u64 token, const struct ism_conn *a)
{
	struct ism_conn rec = { .role = ISM_PASSIVE,
				.peer = offered,
				.caps = a->peer_caps,
				.peer_caps = a->caps },
			*stored;

	rec.flags = a->flags & ISM_CONN_DIRECT_ONLY;
	fill_passive(skops, &rec, tp);
	stored = add_passive(skops, &rec, token, tp);
	if (stored && stored->flags & ISM_CONN_ENROLLED && a->flags & ISM_CONN_ENROLLED)
		ism_count(pairs, 1);
	return 0;
}

/*
 * The same when the offering end is of another kernel. This is all that this kernel will ever know of
 * the connection, so the record is made now, rings or not.
 */
static __noinline int pair_remote(struct bpf_sock_ops *skops, const struct tcp_sock *tp,
				  const struct ism_option *opt, __u64 token, const struct offer *o)
{
	struct ism_conn rec = { .role = ISM_PASSIVE, .peer = opt->token };

	if (o->plane == ISM_PLANE_DIRECT)
		rec.flags = ISM_CONN_DIRECT_ONLY;
	make_remote(&rec, opt, o->caps);
	fill_passive(skops, &rec, tp);
	add_passive(skops, &rec, token, tp);
	return 0;
}

/* As pair_passive(), for a connection that may get rings but more likely ends before: passive.bpf.h. */
static __always_inline void pair_later(struct bpf_sock_ops *skops, struct ism_conn *a)
{
	a->peer_cookie = bpf_get_socket_cookie(skops);
	a->peer_sk = (__u64)full_sock(skops);
	ism_set(a, ISM_CONN_LAZY);
	ism_count(direct_pairs, 1);
}

/* With timestamps and window scaling, 13 bytes more, there is none for SMC's option, either. */
static __always_inline int is_usual_syn(const struct tcp_sock *tp)
{
	const struct saved_syn *syn = KREAD(struct tcp_sock, tp, saved_syn);

	return syn && KREAD(struct saved_syn, syn, tcp_hdrlen) <= ISM_USUAL_SYN &&
	       KBITS(struct tcp_sock, tp, rx_opt.tstamp_ok) &&
	       KBITS(struct tcp_sock, tp, rx_opt.wscale_ok);
}

/* Return: has this end a record of its own, so that something is to be done when it ends? */
static __always_inline int pair(struct bpf_sock_ops *skops)
{
	struct ism_option opt = {};
	const struct tcp_sock *tp = full_sock(skops);
	struct offer o = {};
	struct ism_conn *a;
	__u64 token;
	__u32 reason;

	if (!tp)
		return 0;
	if (is_usual_syn(tp)) {
		ism_count_reason(ISM_R_NO_OFFER);
		return 0;
	}
	reason = read_offer(skops, &opt);
	if (reason) {
		note_smc(skops, tp, BPF_LOAD_HDR_OPT_TCP_SYN);
		ism_count_reason(reason);
		return 0;
	}
	a = bpf_map_lookup_elem(&conns, &opt.token);
	/* nothing was read yet, and with fast open nothing was queued */
	token = passive_token(skops, opt.token, KREAD(struct tcp_sock, tp, copied_seq) - 1);
	if (!a) {
		o.far = !is_local((struct sock *)tp, is_v4(skops));
		reason = answerable(skops, &opt, &o);
		if (reason) {
			ism_count_reason(reason);
			return 0;
		}
		note_peer(skops, tp, ISM_PEER_ISMREDIR);
		pair_remote(skops, tp, &opt, token, &o);
		return 1;
	}
	/*
	 * The active end names us exactly if we answered and the answer arrived. With fast open we
	 * come first: then it is still waiting for its SYN-ACK.
	 */
	if (a->peer != token && (a->peer || a->flags & ISM_CONN_ESTABLISHED))
		return 0;
	if (!(a->flags & ISM_CONN_ANSWERED)) {
		reason = answerable(skops, &opt, &o);
		if (reason) {
			ism_count_reason(reason);
			return 0;
		}
		note_answer(&o);
	}
	note_peer(skops, tp, ISM_PEER_ISMREDIR);
	/* With fast open the active end does not know our token yet, by which it finds our record. */
	if (!ism_both_direct(a) || a->peer != token) {
		pair_passive(skops, tp, opt.token, token, a);
		return 1;
	}
	pair_later(skops, a);
	return 0;
}

static __always_inline void on_passive(struct bpf_sock_ops *skops)
{
	/* both from its listener */
	__u32 unused = pair(skops) ? 0 : BPF_SOCK_OPS_STATE_CB_FLAG;

	/* With TCP fast open the SYN-ACK is still to be written; on_hdr_len() clears the flag later. */
	if (!(skops->skb_tcp_flags & ISM_TCPHDR_SYN))
		unused |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	drop_flags(skops, unused);
}

/* ---------------------------------------------------------------- leaving the sockhash */

/*
 * Take a LEAVING socket out. sk_psock_drop() throws away what was redirected here and not read, so
 * that must be nothing, and nobody may be about to add to it: the partner obeys LEAVING since before,
 * and is seen outside sendmsg() now.
 */
static __always_inline void try_leave(struct bpf_sock_ops *skops, struct ism_conn *rec, __u64 token)
{
	struct ism_conn *peer = ism_peer_of(rec);

	if (ism_slot_of(rec, token) ||
	    (peer && ism_sk_cookie((struct sock *)peer->sk) == peer->cookie &&
	     ism_busy_tasks(peer->sk)))
		return;
	if (ism_unread((struct sock *)rec->sk) || bpf_map_delete_elem(&socks, &token))
		return;
	ism_set(rec, ISM_CONN_LEFT | ISM_CONN_PINNED);
	ism_clear(rec, ISM_CONN_LEAVING);
	rec->plane = ISM_PLANE_TCP;
	drop_flags(skops, BPF_SOCK_OPS_RTT_CB_FLAG);
}

/*
 * A stream on TCP always has bytes that are not sent yet, and with those it cannot go (back) to its relay:
 * relay_tcp_is_out() in relay.bpf.h. So while it has one, its TCP takes no more than it can send at once, and
 * whoever sends waits for that first (sk_stream_memory_free()). Not a stream of small messages: TCP is the better
 * way for it, and puts them together while they wait. An application that set the option itself is left alone.
 */
#define ISM_TCP_NOTSENT_LOWAT 25 /* linux/tcp.h */
#define ISM_PACED_LOWAT	      2 /* bytes; twice what is unsent must be below */

/*
 * Setting the option wakes whoever sleeps on the socket (sk_stream_write_space()). A writer looks again; a reader
 * in tcp_bpf_recvmsg() who is woken for nothing gets EAGAIN, so not while there is one. Who waits for room to write
 * has SOCK_NOSPACE set: then the kernel wakes all of them by itself.
 */
#define ISM_SOCK_NOSPACE 2 /* linux/net.h */

static __always_inline int reader_sleeps(const struct ism_conn *rec)
{
	const struct socket *sock = KREAD(struct sock, rec->sk, sk_socket);

	return ism_sleepers(rec->sk) && sock &&
	       !(KREAD(struct socket, sock, flags) & 1 << ISM_SOCK_NOSPACE);
}

static __always_inline void pace(struct bpf_sock_ops *skops, struct ism_conn *rec, __u64 token)
{
	int open = ism_slot_of(rec, token) && rec->reason != ISM_R_STREAM &&
		   !(rec->flags & (ISM_CONN_PINNED | ISM_CONN_LEAVING));
	int paced = !!(rec->flags & ISM_CONN_PACED), val = 0;

	if (open == paced || reader_sleeps(rec) ||
	    bpf_getsockopt(skops, ISM_SOL_TCP, ISM_TCP_NOTSENT_LOWAT, &val, sizeof(val)) ||
	    val != (paced ? ISM_PACED_LOWAT : 0))
		return;
	val = open ? ISM_PACED_LOWAT : 0;
	if (bpf_setsockopt(skops, ISM_SOL_TCP, ISM_TCP_NOTSENT_LOWAT, &val, sizeof(val)))
		return;
	if (open)
		ism_set(rec, ISM_CONN_PACED);
	else
		ism_clear(rec, ISM_CONN_PACED);
}

/* An ACK for bytes that took TCP: the usual occasion. */
static __always_inline void on_rtt(struct bpf_sock_ops *skops)
{
	__u64 token;
	struct ism_conn *rec = own_enrolled(skops, &token);

	if (!rec)
		return;
	if (rec->flags & ISM_CONN_REMOTE)
		pace(skops, rec, token);
	if (rec->flags & ISM_CONN_LEAVING)
		try_leave(skops, rec, token);
}

/* ---------------------------------------------------------------- end of life */

static __always_inline void end_listener(struct bpf_sock_ops *skops)
{
	struct ism_sk *st = own_storage(skops, 0);
	struct ism_lkey key;
	struct ism_listener *l;

	if (!st || !st->listens)
		return;
	listener_key(skops, &key);
	st->listens = 0;
	l = bpf_map_lookup_elem(&listeners, &key);
	if (l && st->caps & ISM_CAP_DIRECT)
		__sync_fetch_and_add(&l->direct, -1);
	if (l && __sync_fetch_and_add(&l->refs, -1) <= 1)
		bpf_map_delete_elem(&listeners, &key);
}

/*
 * A socket that the process still has may be connected again: see forget_earlier(). One that is in the
 * sockhash and no file's any more is taken out by the kernel.
 */
static __always_inline void end_storage(struct bpf_sock_ops *skops, const struct ism_conn *rec,
					__u64 token)
{
	int stale = rec->flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING) &&
		    KREAD(struct sock, rec->sk, sk_socket);
	struct ism_sk *st = own_storage(skops, stale ? BPF_SK_STORAGE_GET_F_CREATE : 0);

	if (!st)
		return;
	st->token = 0;
	if (stale)
		st->stale = token;
}

/* What counts of a connection when it ends: @tcp_bytes since the record was last brought up to date. */
static __always_inline void count_end(const struct ism_conn *rec, __u32 tcp_bytes)
{
	const struct tcp_sock *ptp = (const struct tcp_sock *)rec->peer_sk;
	struct ism_stats *s = ism_stats();

	if (!s)
		return;
	s->ended++;
	s->redir_bytes += rec->redir_bytes;
	s->redir_msgs += rec->redir_msgs;
	s->tcp_bytes += rec->tcp_bytes + tcp_bytes;
	if (!ptp)
		return;
	s->ended++; /* the passive end, which has no callbacks: passive.bpf.h */
	if (ism_passive_alive(rec))
		s->tcp_bytes += ism_tcp_bytes_since(ptp, ism_first_seq(ptp));
}

/* Once deleted, the memory of a record may be another's. */
static __always_inline void end_conn(struct bpf_sock_ops *skops, struct ism_conn *rec, __u64 token,
				     __u32 tcp_bytes)
{
	__u64 cookie = rec->cookie, peer = rec->peer, peer_sk = rec->peer_sk;
	__u64 peer_cookie = rec->peer_cookie;
	int lazy = !!(rec->flags & ISM_CONN_LAZY);

	end_storage(skops, rec, token);
	count_end(rec, tcp_bytes);
	if (ism_in_tokens(rec))
		bpf_map_delete_elem(&tokens, &cookie);
	bpf_map_delete_elem(&conns, &token);
	/* LAZY: there is none yet, and who is about to make one looks whether we are still there. */
	if (peer_sk && !lazy && bpf_map_lookup_elem(&conns, &peer))
		ism_forget_passive(peer, peer_cookie);
}

/* @unsent: the SYN may not have been: tcp_connect() says EHOSTUNREACH between connect's callback and the rest. */
static __always_inline void on_closed(struct bpf_sock_ops *skops, int unsent)
{
	const struct tcp_sock *tp = full_sock(skops);
	__u32 tcp_bytes = 0;
	__u64 token;
	struct ism_conn *rec = own_conn(skops, &token);

	if (!rec && tp && unsent)
		rec = ism_active_conn_at(bpf_get_socket_cookie(skops),
					 KREAD(struct tcp_sock, tp, write_seq), &token);
	if (!rec)
		return;
	if (tp && rec->start_seq)
		tcp_bytes = ism_tcp_bytes_since(tp, rec->last_seq);
	end_conn(skops, rec, token, tcp_bytes);
}

/* Has the other process closed, too? Then no rings will come. Of another kernel nobody knows. */
static __always_inline int partner_closed(const struct ism_conn *rec)
{
	if (rec->flags & ISM_CONN_REMOTE)
		return 0;
	if (rec->peer_sk)
		return !ism_passive_alive(rec) ||
		       KREAD(struct sock, rec->peer_sk, sk_shutdown) == ISM_SHUTDOWN_MASK;
	return rec->peer && !ism_peer_of(rec);
}

/*
 * Nothing is redirected once a side is shut down. Leaving right then spares a reader that goes on to
 * sleep the EAGAIN that it would get when the ACK of its own FIN wakes it.
 *
 * A short connection that was never more than plain TCP ends for us as soon as both directions do: by
 * close(), or when the partner's has arrived. That spares it the callbacks of its last states.
 */
static __always_inline void on_shutdown(struct bpf_sock_ops *skops)
{
	const struct tcp_sock *tp = full_sock(skops);
	__u64 token;
	struct ism_conn *rec = own_conn(skops, &token);

	if (!rec || !tp)
		return;
	if (rec->flags & (ISM_CONN_ENROLLED | ISM_CONN_LEAVING)) {
		if (ism_relay_shutdown(skops, rec, token))
			return;
		ism_leave(rec);
		rec->reason = ISM_R_SHUTDOWN;
		try_leave(skops, rec, token);
		return;
	}
	if (rec->flags & (ISM_CONN_ATTACHED | ISM_CONN_LEFT))
		return;
	if (KREAD(struct sock, tp, sk_shutdown) != ISM_SHUTDOWN_MASK && !partner_closed(rec))
		return;
	/* The FIN is still to be sent. */
	end_conn(skops, rec, token,
		 rec->start_seq ? KREAD(struct tcp_sock, tp, write_seq) - rec->last_seq : 0);
	drop_flags(skops, BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Each state of each connection comes here: most are of no interest. */
static __always_inline void on_state(struct bpf_sock_ops *skops)
{
	__u32 from = skops->args[0], to = skops->args[1];

	if (from == BPF_TCP_LISTEN)
		end_listener(skops);
	else if (to == BPF_TCP_CLOSE)
		on_closed(skops, from == BPF_TCP_SYN_SENT);
	else if (from == BPF_TCP_ESTABLISHED)
		on_shutdown(skops);
}

/* ---------------------------------------------------------------- dispatch */

static __always_inline void on_hdr_len(struct bpf_sock_ops *skops)
{
	__u32 f = skops->skb_tcp_flags;

	if (!(f & ISM_TCPHDR_SYN))
		drop_write_flag(skops);
	else if (f & ISM_TCPHDR_ACK)
		reserve_answer(skops);
	else
		reserve_offer(skops);
}

static __always_inline void on_hdr_write(struct bpf_sock_ops *skops)
{
	__u32 f = skops->skb_tcp_flags;

	if (!(f & ISM_TCPHDR_SYN))
		return;
	if (f & ISM_TCPHDR_ACK)
		write_answer(skops);
	else
		write_offer(skops);
}

SEC("sockops")
int ism_handshake(struct bpf_sock_ops *skops)
{
	switch (skops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		on_connect(skops);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		on_listen(skops);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		on_hdr_len(skops);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		on_hdr_write(skops);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		on_active(skops);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		on_passive(skops);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		on_rtt(skops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		on_state(skops);
		break;
	}
	return 1;
}
