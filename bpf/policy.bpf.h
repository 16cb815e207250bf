/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The policy in the kernel: which plane do the rules want for a connection?
 *
 * A rule matches when its port and one of the two ends match; an end matches when cgroup, comm,
 * CIDR and direction all match that end. At connect() only the active end is known: a rule that
 * could still match by the other end asks for an offer, and the passive end decides.
 */
#ifndef ISMREDIR_POLICY_BPF_H
#define ISMREDIR_POLICY_BPF_H

#include "common.bpf.h"

/**
 * struct ism_end - what the policy knows of one end
 * @sk: its socket, for the cgroup
 * @known: 0 when nothing is known yet
 * @dir: ISM_RULE_IN or ISM_RULE_OUT
 * @port: the server's port as this end sees it
 * @local: the other end is loopback or directly connected
 * @raddr: the other end's address, IPv4 mapped
 */
struct ism_end {
	const struct sock *sk;
	__u32 known;
	__u32 dir;
	__u16 port;
	__u16 local;
	__u32 pad;
	__u8 raddr[16];
	char comm[16];
};

static __always_inline int prefix_match(const __u8 *addr, const __u8 *net, __u32 prefix)
{
	__u64 a[2], n[2], mask;

	__builtin_memcpy(a, addr, 16);
	__builtin_memcpy(n, net, 16);
	if (prefix <= 64) {
		mask = prefix ? ~0ULL << (64 - prefix) : 0;
		return !((bpf_be64_to_cpu(a[0]) ^ bpf_be64_to_cpu(n[0])) & mask);
	}
	mask = prefix < 128 ? ~0ULL << (128 - prefix) : ~0ULL;
	return a[0] == n[0] && !((bpf_be64_to_cpu(a[1]) ^ bpf_be64_to_cpu(n[1])) & mask);
}

static __always_inline int comm_match(const char *a, const char *b)
{
	__u64 x[2], y[2];

	__builtin_memcpy(x, a, 16);
	__builtin_memcpy(y, b, 16);
	return x[0] == y[0] && x[1] == y[1];
}

static __noinline int end_match(const struct ism_rule *r, const struct ism_end *e)
{
	if (!r || !e)
		return 0;
	if (r->flags & (ISM_RULE_IN | ISM_RULE_OUT) && !(r->flags & e->dir))
		return 0;
	if (r->flags & ISM_RULE_PORT && (e->port < r->port_lo || e->port > r->port_hi))
		return 0;
	if (r->flags & ISM_RULE_LOCAL && !e->local)
		return 0;
	if (r->flags & ISM_RULE_COMM && !comm_match(r->comm, e->comm))
		return 0;
	if (r->flags & ISM_RULE_CIDR && !prefix_match(e->raddr, r->addr, r->prefix))
		return 0;
	if (r->flags & ISM_RULE_CGROUP && !ism_sk_in_cgroup(e->sk, r->cgroup, r->cgroup_level))
		return 0;
	return 1;
}

/* Could the rule match by the passive end, of which nothing is known but the port? */
static __always_inline int may_match(const struct ism_rule *r, const struct ism_end *active)
{
	if (r->plane == ISM_PLANE_TCP || !active->local)
		return 0;
	if (r->flags & (ISM_RULE_IN | ISM_RULE_OUT) && !(r->flags & ISM_RULE_IN))
		return 0;
	/* DNAT may change the port on the way, so only rules about who serves can still match. */
	if (!(r->flags & (ISM_RULE_COMM | ISM_RULE_CGROUP | ISM_RULE_IN)))
		return 0;
	return !(r->flags & ISM_RULE_PORT) ||
	       (active->port >= r->port_lo && active->port <= r->port_hi);
}

struct policy_walk {
	const struct ism_end *active;
	const struct ism_end *passive;
	int plane;
};

static long policy_step(__u64 i, struct policy_walk *w)
{
	__u32 idx = i;
	struct ism_rule *r = bpf_map_lookup_elem(&rules, &idx);

	if (!r)
		return 1;
	if (end_match(r, w->active) || (w->passive->known && end_match(r, w->passive))) {
		w->plane = r->plane;
		return 1;
	}
	if (!w->passive->known && may_match(r, w->active)) {
		w->plane = ISM_PLANE_SKMSG; /* some plane; the passive end knows which */
		return 1;
	}
	return 0;
}

/*
 * The plane that the policy wants: enum ism_plane; @local: what the default depends on. Without rules
 * nobody looks at most of @active. Where one end is all that can be known it is given as both.
 */
static __always_inline int ism_policy(struct ism_ctl *c, const struct ism_end *active,
				      const struct ism_end *passive, int local)
{
	struct policy_walk w = { .active = active, .passive = passive, .plane = -1 };
	__u32 n = c->n_rules;

	if (n > ISM_MAX_RULES)
		n = ISM_MAX_RULES;
	if (n)
		bpf_loop(n, policy_step, &w, 0);
	if (w.plane >= 0)
		return w.plane;
	return local ? c->default_plane : ISM_PLANE_TCP;
}

#endif
