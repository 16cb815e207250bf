// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The contract of include/ismredir/fabric.h that every provider has to keep: one suite, run over all. */
#include "contract.h"

struct spec contract_specs[] = {
	{ "memfd:", "memfd:pnetid=OTHER", "memfd:max-dmbs=3", 3 },
	{ "memfd:pnetid=NET1", "memfd:", "memfd:pnetid=NET1,max-dmbs=1", 1 },
	{ "memfd:huge=2M", "memfd:huge=2M,pnetid=OTHER", "memfd:huge=2M,max-dmbs=2", 2 },
	{ "shm:@", "shm:@,pnetid=OTHER", "shm:@,max-dmbs=3", 3 },
	{ "shm:@,pnetid=N1", "shm:@", "shm:@,poll=1000,max-dmbs=1", 1 },
	{ "shm:@,peer=#,coherent=no", "shm:@,pnetid=OTHER", "shm:@,coherent=no,peer=#,max-dmbs=2",
	  2 },
	{ "cxl:@,peer=#", "cxl:@,peer=#,pnetid=OTHER", "cxl:@,peer=#,max-dmbs=2", 2 },
	{ "cxl:@,coherent=yes", "cxl:@,coherent=yes,pnetid=OTHER", "cxl:@,coherent=yes,max-dmbs=5",
	  5 },
	{ "ivshmem:unix:%", "ivshmem:unix:%,pnetid=OTHER", "ivshmem:unix:%,max-dmbs=3", 3 },
};
size_t contract_n_specs = sizeof(contract_specs) / sizeof(contract_specs[0]);

/* Whoever adds a provider adds a spec here. */
Test(contract, every_provider_is_tried)
{
	for (const struct ism_fabric_ops *const *p = ism_fabric_providers(); *p; p++) {
		size_t len = strlen((*p)->scheme), found = 0;

		for (size_t i = 0; i < contract_n_specs; i++)
			found += !strncmp(contract_specs[i].spec, (*p)->scheme, len) &&
				 contract_specs[i].spec[len] == ':';
		cr_expect_gt(found, 0, "no spec of %s is tried", (*p)->scheme);
	}
}

/* ---------------------------------------------------------------- who is there */

CONTRACT(identity)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	const struct ism_gid nobody = {};

	cr_expect_eq(strncmp(a->info.spec, spec->spec, strcspn(spec->spec, "@%$")), 0);
	cr_expect_neq(memcmp(&a->info.gid, &b->info.gid, sizeof(nobody)), 0, "two peers, one GID");
	cr_expect_neq(memcmp(&a->info.gid, &nobody, sizeof(nobody)), 0);
	cr_expect_eq(memcmp(&a->info.uuid, &b->info.uuid, sizeof(nobody)), 0);
	cr_expect_eq(a->info.fabric_id, b->info.fabric_id);
	cr_expect_gt(a->info.max_dmbs, 0);
	cr_expect_geq(a->info.max_dmb_len, LEN);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

CONTRACT(peers_find_each_other)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_gid gone = b->info.gid, nobody = {};

	cr_expect_eq(ism_fabric_query_remote_gid(a, &b->info.gid), 0);
	cr_expect_eq(ism_fabric_query_remote_gid(b, &a->info.gid), 0);
	cr_expect_eq(ism_fabric_query_remote_gid(a, &nobody), -EINVAL);
	ism_fabric_close(b);
	cr_expect_eq(ism_fabric_query_remote_gid(a, &gone), -EHOSTUNREACH);
	ism_fabric_close(a);
}

CONTRACT(peers_are_listed)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec), *c = peer(spec->apart);
	struct ism_fabric *all[] = { a, b, c };
	struct ism_peer_info p[ISM_FABRIC_MAX_PEERS];
	char net[ISM_PNETID_LEN] = "OTHER";
	int n = ism_fabric_peers(a, p, ISM_FABRIC_MAX_PEERS), found = 0;

	if (!a->ops->peers) {
		cr_expect_eq(n, -EOPNOTSUPP);
		goto out;
	}
	cr_assert_eq(n, 3);
	for (int i = 0; i < n; i++) {
		for (int k = 0; k < 3; k++)
			found += !memcmp(&p[i].gid, &all[k]->info.gid, sizeof(p[i].gid));
		cr_expect_eq(p[i].life, ISM_PEER_ALIVE);
		cr_expect_gt(p[i].lease_ms, 0);
		cr_expect_leq(p[i].age_ms, p[i].lease_ms);
		cr_expect(i == 0 || p[i].number > p[i - 1].number);
		memset(net, 0, sizeof(net));
		for (int k = 0; k < 3; k++)
			if (!memcmp(&p[i].gid, &all[k]->info.gid, sizeof(p[i].gid)))
				memcpy(net, all[k]->info.pnetid, strlen(all[k]->info.pnetid));
		cr_expect_eq(memcmp(p[i].pnetid, net, sizeof(net)), 0);
	}
	cr_expect_eq(found, 3, "each of them once");
	cr_expect_eq(ism_fabric_peers(a, p, 2), 2, "as many as there is room for");
	cr_expect_eq(ism_fabric_peers(a, p, 0), -EINVAL);
	ism_fabric_close(b);
	b = NULL;
	cr_expect_eq(ism_fabric_peers(a, p, ISM_FABRIC_MAX_PEERS), 2, "who has left is not there");
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
	ism_fabric_close(c);
}

CONTRACT(other_networks_are_apart)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->apart);
	struct ism_dmb *d = dmb_for(a, b, 7);
	struct ism_dmb_map map;

	cr_expect_str_neq(a->info.pnetid, b->info.pnetid);
	cr_expect_eq(ism_fabric_query_remote_gid(a, &b->info.gid), -EHOSTUNREACH);
	cr_expect_eq(ism_fabric_query_remote_gid(b, &a->info.gid), -EHOSTUNREACH);
	cr_expect_eq(ism_fabric_move_data(b, 7, 0, "x", 1, 0), -EACCES);
	if (has(b, ISM_FABRIC_ATTACH))
		cr_expect_eq(ism_fabric_attach_dmb(b, 7, &map), -EACCES);
	cr_expect_gt(b->counters.refused, 0);
	ism_fabric_unregister_dmb(a, d);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* ---------------------------------------------------------------- register */

CONTRACT(a_dmb_is_empty_and_counted)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 0x1122334455667788);

	cr_expect_eq(d->token, 0x1122334455667788);
	cr_expect_eq(d->len, LEN);
	cr_expect_lt(d->index, a->info.max_dmbs);
	cr_expect_eq(memcmp(&d->partner, &b->info.gid, sizeof(b->info.gid)), 0);
	for (size_t i = 0; d->addr && i < LEN; i++)
		cr_assert_eq(((char *)d->addr)[i], 0, "byte %zu", i);
	cr_expect_eq(a->counters.dmbs, 1);
	cr_expect_eq(a->counters.dmb_bytes, LEN);
	ism_fabric_unregister_dmb(a, d);
	cr_expect_eq(a->counters.dmbs, 0);
	cr_expect_eq(a->counters.dmb_bytes, 0);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* Nobody sees the DMB without them, also in memory that was used before. */
CONTRACT(first_contents)
{
	static const char used[LEN] = { [0 ... LEN - 1] = 0x5a };
	const size_t lens[] = { 1, 64, 193, 5000, LEN };
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb_params p = params(9, b);
	struct ism_dmb_map map;
	static char want[LEN];

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		struct ism_dmb *d;

		memset(want, 0, LEN);
		memset(want, 'A' + i, lens[i]);
		p.init = want;
		p.init_len = lens[i];
		cr_assert_eq(ism_fabric_register_dmb(a, &p, &d), 0);
		ism_fabric_fetch(a, d, 0, LEN);
		cr_expect_eq(memcmp(d->addr, want, LEN), 0, "%zu bytes: the owner", lens[i]);
		if (has(b, ISM_FABRIC_ATTACH)) {
			cr_assert_eq(ism_fabric_attach_dmb(b, 9, &map), 0);
			cr_expect_eq(memcmp(map.addr, want, LEN), 0, "%zu bytes: the partner",
				     lens[i]);
			ism_fabric_detach_dmb(b, &map);
		}
		cr_expect_eq(ism_fabric_move_data(b, 9, 0, used, LEN, 0), 0);
		ism_fabric_unregister_dmb(a, d);
	}
	ism_fabric_close(a);
	ism_fabric_close(b);
}

CONTRACT(bad_parameters)
{
	struct ism_fabric *a = peer(spec->spec);
	struct ism_dmb_params p;
	struct ism_dmb *d;

	p = params(0, a);
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -EINVAL);
	p = params(1, a);
	p.len = 0;
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -EINVAL);
	p.len = a->info.max_dmb_len + 1;
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -EINVAL);
	p = params(1, a);
	memset(&p.partner, 0, sizeof(p.partner));
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -EINVAL);
	p = params(1, a);
	p.vlan = ISM_VLAN_MAX + 1;
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -EINVAL);
	p.vlan = 5;
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -ENOENT, "a label that it has not");
	p = params(1, a);
	p.init_len = 1;
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -EINVAL);
	p.len = 16;
	p.init = "longer than the DMB";
	p.init_len = 17;
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -EINVAL);
	cr_expect_eq(a->counters.dmbs, 0);
	ism_fabric_close(a);
}

/* Of the whole fabric, not of one peer. */
CONTRACT(a_token_is_there_once)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 42), *e;
	struct ism_dmb_params p = params(42, a);

	cr_expect_eq(ism_fabric_register_dmb(a, &p, &e), -EEXIST);
	cr_expect_eq(ism_fabric_register_dmb(b, &p, &e), -EEXIST);
	cr_expect_eq(a->counters.dmbs + b->counters.dmbs, 1);
	ism_fabric_unregister_dmb(a, d);
	e = dmb_for(b, a, 42);
	ism_fabric_unregister_dmb(b, e);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

CONTRACT(so_many_and_no_more)
{
	struct ism_fabric *a = peer(spec->small);
	struct ism_dmb *d[8], *more;
	struct ism_dmb_params p = params(100, a);
	unsigned int n = spec->small_dmbs;

	cr_assert_eq(a->info.max_dmbs, n);
	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < n; i++) {
			d[i] = dmb_for(a, a, i + 1);
			cr_expect_lt(d[i]->index, n);
			for (unsigned int j = 0; j < i; j++)
				cr_expect_neq(d[i]->index, d[j]->index);
		}
		cr_expect_eq(ism_fabric_register_dmb(a, &p, &more), -ENOSPC);
		for (unsigned int i = 0; i < n; i++)
			ism_fabric_unregister_dmb(a, d[i]);
	}
	ism_fabric_close(a);
}

CONTRACT(closing_takes_the_dmbs_along)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);

	for (__u64 t = 1; t <= 100; t++)
		dmb_for(a, b, t);
	ism_fabric_close(a);
	cr_expect_eq(ism_fabric_move_data(b, 1, 0, "x", 1, 0), -ENOENT);
	for (__u64 t = 1; t <= 100; t++)
		ism_fabric_unregister_dmb(b, dmb_for(b, b, t));
	ism_fabric_close(b);
}

/* ---------------------------------------------------------------- move_data */

static void fill(unsigned char *data, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		data[i] = i * 131 + (i >> 8) * 17 + seed;
}

CONTRACT(bytes_arrive_where_they_should)
{
	static const struct {
		size_t offset, len;
	} moves[] = {
		{ 0, 1 }, { 1, 7 }, { 4095, 2 }, { 8192, 65536 }, { LEN - 1, 1 }, { 0, LEN }
	};
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 9);
	static unsigned char want[LEN], data[LEN];
	__u64 bytes = 0;

	cr_assert_not_null(d->addr, "a fabric that the suite cannot look into");
	for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
		fill(data, moves[i].len, i);
		memcpy(want + moves[i].offset, data, moves[i].len);
		cr_assert_eq(ism_fabric_move_data(b, 9, moves[i].offset, data, moves[i].len, 0), 0);
		memset(data, 0x55, sizeof(data)); /* it may be reused */
		ism_fabric_fetch(a, d, 0, LEN);
		cr_expect_eq(memcmp(d->addr, want, LEN), 0, "after move %zu", i);
		bytes += moves[i].len;
	}
	cr_expect_eq(b->counters.moves, sizeof(moves) / sizeof(moves[0]));
	cr_expect_eq(b->counters.moved_bytes, bytes);
	ism_fabric_unregister_dmb(a, d);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

CONTRACT(beyond_the_end)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 9), *next = dmb_for(a, b, 10);
	static unsigned char data[2 * LEN];

	memset(data, 0xff, sizeof(data));
	cr_expect_eq(ism_fabric_move_data(b, 9, LEN, data, 1, 0), -ERANGE);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, data, LEN + 1, 0), -ERANGE);
	cr_expect_eq(ism_fabric_move_data(b, 9, 1, data, LEN, 0), -ERANGE);
	cr_expect_eq(ism_fabric_move_data(b, 9, ~0ULL, data, 1, 0), -ERANGE);
	cr_expect_eq(ism_fabric_move_data(b, 9, ~0ULL - 5, data, 10, 0), -ERANGE);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, data, ~(size_t)0, 0), -ERANGE);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, data, 0, 0), -EINVAL);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, NULL, 1, 0), -EINVAL);
	for (size_t i = 0; i < LEN; i++) {
		cr_assert_eq(((char *)d->addr)[i], 0, "byte %zu was written", i);
		cr_assert_eq(((char *)next->addr)[i], 0, "byte %zu of its neighbour", i);
	}
	cr_expect_eq(b->counters.moves, 0);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* ---------------------------------------------------------------- access */

CONTRACT(only_the_partner_writes)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec), *c = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 9);

	cr_expect_eq(ism_fabric_move_data(c, 9, 0, "x", 1, 1), -EACCES, "a third peer");
	cr_expect_eq(ism_fabric_move_data(a, 9, 0, "x", 1, 1), -EACCES, "the owner itself");
	cr_expect_eq(ism_fabric_move_data(b, 8, 0, "x", 1, 1), -ENOENT, "a wrong token");
	cr_expect_eq(ism_fabric_move_data(b, 0, 0, "x", 1, 1), -EINVAL);
	cr_expect_eq(*(char *)d->addr, 0);
	cr_expect_not(is_ready(a, 0), "a refused write rang");
	cr_expect_eq(a->counters.refused, 1);
	cr_expect_eq(b->counters.refused, 1);
	cr_expect_eq(c->counters.refused, 1);
	ism_fabric_unregister_dmb(a, d);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, "x", 1, 1), -ENOENT, "after unregister");
	cr_expect_eq(b->counters.refused, 2);
	ism_fabric_close(a);
	ism_fabric_close(b);
	ism_fabric_close(c);
}

/* One process for many: owner and partner are the same peer. */
CONTRACT(loopback_with_oneself)
{
	struct ism_fabric *a = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, a, 9);

	cr_expect_eq(ism_fabric_query_remote_gid(a, &a->info.gid), 0);
	cr_expect_eq(ism_fabric_move_data(a, 9, 3, "abc", 3, 0), 0);
	cr_expect_eq(memcmp((char *)d->addr + 3, "abc", 3), 0);
	ism_fabric_close(a);
}

CONTRACT(attach)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec), *c = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 9);
	struct ism_dmb_map map, other;

	if (!has(a, ISM_FABRIC_ATTACH)) {
		cr_expect_eq(ism_fabric_attach_dmb(b, 9, &map), -EOPNOTSUPP);
		goto out;
	}
	cr_expect_eq(ism_fabric_attach_dmb(c, 9, &other), -EACCES);
	cr_expect_eq(ism_fabric_attach_dmb(b, 8, &other), -ENOENT);
	cr_expect_eq(ism_fabric_attach_dmb(b, 0, &other), -EINVAL);
	cr_assert_eq(ism_fabric_attach_dmb(b, 9, &map), 0);
	cr_expect_eq(map.token, 9);
	cr_expect_eq(map.len, LEN);
	cr_expect_neq(map.addr, d->addr, "a view of its own");
	cr_expect_eq(ism_fabric_attach_dmb(b, 9, &other), -EBUSY, "a second attach");
	strcpy((char *)map.addr + LEN - 6, "hello");
	cr_expect_str_eq((char *)d->addr + LEN - 6, "hello");
	cr_expect_eq(b->counters.refused, 2);
	cr_expect_eq(c->counters.refused, 1);
	ism_fabric_detach_dmb(b, &map);
	cr_assert_eq(ism_fabric_attach_dmb(b, 9, &map), 0, "after detach");
	ism_fabric_detach_dmb(b, &map);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
	ism_fabric_close(c);
}

/* The partner may be in the middle of a store: its memory stays, and stays its own. */
CONTRACT(attached_when_unregistered)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 9), *e;
	struct ism_dmb_map map, again;

	if (!has(a, ISM_FABRIC_ATTACH))
		goto out;
	cr_assert_eq(ism_fabric_attach_dmb(b, 9, &map), 0);
	ism_fabric_unregister_dmb(a, d);
	memset(map.addr, 0xaa, LEN);
	cr_expect_eq(ism_fabric_attach_dmb(b, 9, &again), -ENOENT, "attach after unregister");
	e = dmb_for(a, b, 9);
	for (size_t i = 0; i < LEN; i++)
		cr_assert_eq(((char *)e->addr)[i], 0, "memory was used again");
	cr_assert_eq(ism_fabric_attach_dmb(b, 9, &again), 0);
	memset(map.addr, 0xbb, LEN);
	cr_expect_eq(*(char *)e->addr, 0);
	/* giving the old one back must not let a third one in */
	ism_fabric_detach_dmb(b, &map);
	cr_expect_eq(ism_fabric_attach_dmb(b, 9, &map), -EBUSY);
	ism_fabric_detach_dmb(b, &again);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* ---------------------------------------------------------------- doorbells and events */

CONTRACT(doorbells)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_event e;

	dmb_for(a, b, 9);
	dmb_for(a, b, 10);
	cr_expect_not(is_ready(a, 0));
	cr_expect_eq(ism_fabric_read_events(a, &e, 1), 0);
	cr_expect_eq(ism_fabric_read_events(a, &e, 0), -EINVAL);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, "x", 1, 0), 0);
	cr_expect_not(is_ready(a, 0), "a silent write rang");
	for (int i = 0; i < 5; i++)
		cr_expect_eq(ism_fabric_move_data(b, 10, 0, "x", 1, 1), 0);
	e = one_event(a);
	cr_expect_eq(e.type, ISM_EVENT_DOORBELL);
	cr_expect_eq(e.token, 10);
	cr_expect_not(is_ready(a, 0), "an event is read once");
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, "x", 1, 1), 0);
	cr_expect_eq(one_event(a).token, 9);
	cr_expect_eq(b->counters.signals, 6);
	cr_expect_not(is_ready(b, 0), "the writer rang itself");
	ism_fabric_close(a);
	ism_fabric_close(b);
}

CONTRACT(a_bell_goes_with_its_dmb)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 9);

	cr_expect_eq(ism_fabric_move_data(b, 9, 0, "x", 1, 1), 0);
	ism_fabric_unregister_dmb(a, d);
	cr_expect_not(is_ready(a, 0));
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* All of many, in any number of reads. */
CONTRACT(many_bells)
{
	enum { N = 150 };
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	int rung[N + 1] = {}, n;
	struct ism_event e[7];

	for (__u64 t = 1; t <= N; t++) {
		struct ism_dmb_params p = params(t, b);
		struct ism_dmb *d;

		p.len = 100;
		cr_assert_eq(ism_fabric_register_dmb(a, &p, &d), 0);
		cr_assert_eq(ism_fabric_move_data(b, t, 0, "x", 1, 1), 0);
	}
	while ((n = ism_fabric_read_events(a, e, 7)) > 0)
		for (int i = 0; i < n; i++) {
			cr_assert(e[i].type == ISM_EVENT_DOORBELL && e[i].token <= N);
			rung[e[i].token]++;
		}
	cr_expect_eq(n, 0);
	for (int t = 1; t <= N; t++)
		cr_expect_eq(rung[t], 1, "DMB %d", t);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

CONTRACT(events_out_of_band)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_gid stranger = { { 1 } }, nobody = {};
	struct ism_event e;

	if (!a->ops->signal_event)
		goto out;
	cr_expect_eq(ism_fabric_signal_event(a, &b->info.gid, 5, 0xabcdef0123456789), 0);
	e = one_event(b);
	cr_expect_eq(e.type, ISM_EVENT_CODE);
	cr_expect_eq(e.code, 5);
	cr_expect_eq(e.info, 0xabcdef0123456789);
	cr_expect_eq(memcmp(&e.gid, &a->info.gid, sizeof(e.gid)), 0);
	cr_expect_not(is_ready(b, 0));
	cr_expect_eq(ism_fabric_signal_event(a, &stranger, 1, 1), -EHOSTUNREACH);
	cr_expect_eq(ism_fabric_signal_event(a, &nobody, 1, 1), -EINVAL);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* Who does not read is told that it lost something, and the sender is told too. */
CONTRACT(too_many_events)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	unsigned int sent = 0, got = 0, lost = 0;
	struct ism_event e;
	int rc = 0;

	if (!a->ops->signal_event)
		goto out;
	while (!rc && sent < 1 << 20)
		if (!(rc = ism_fabric_signal_event(a, &b->info.gid, sent, 0)))
			sent++;
	cr_expect_eq(rc, -ENOBUFS);
	while (is_ready(b, 0)) {
		cr_assert_eq(take_events(b, &e, 1), 1);
		if (e.type == ISM_EVENT_LOST)
			lost++;
		else
			cr_expect_eq(e.code, got++, "in order");
	}
	cr_expect_eq(got, sent);
	cr_expect_eq(lost, 1);
	cr_expect_eq(ism_fabric_signal_event(a, &b->info.gid, 77, 0), 0, "there is room again");
	cr_expect_eq(one_event(b).code, 77);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* ---------------------------------------------------------------- labels */

CONTRACT(labels_must_match)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb_params p = params(9, b);
	struct ism_dmb *d;

	if (!a->ops->add_vlan)
		goto out;
	cr_expect_eq(ism_fabric_add_vlan(a, 0), -EINVAL);
	cr_expect_eq(ism_fabric_add_vlan(a, ISM_VLAN_MAX + 1), -EINVAL);
	cr_expect_eq(ism_fabric_add_vlan(a, ISM_VLAN_MAX), 0);
	cr_expect_eq(ism_fabric_add_vlan(a, ISM_VLAN_MAX), -EEXIST);
	cr_expect_eq(ism_fabric_del_vlan(a, 7), -ENOENT);
	p.vlan = ISM_VLAN_MAX;
	cr_assert_eq(ism_fabric_register_dmb(a, &p, &d), 0);
	cr_expect_eq(ism_fabric_del_vlan(a, ISM_VLAN_MAX), -EBUSY);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, "x", 1, 0), -EACCES);
	cr_expect_eq(ism_fabric_add_vlan(b, ISM_VLAN_MAX - 1), 0);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, "x", 1, 0), -EACCES);
	cr_expect_eq(ism_fabric_add_vlan(b, ISM_VLAN_MAX), 0);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, "x", 1, 0), 0);
	cr_expect_eq(ism_fabric_del_vlan(b, ISM_VLAN_MAX), 0);
	cr_expect_eq(ism_fabric_move_data(b, 9, 0, "x", 1, 0), -EACCES);
	ism_fabric_unregister_dmb(a, d);
	cr_expect_eq(ism_fabric_del_vlan(a, ISM_VLAN_MAX), 0);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* ---------------------------------------------------------------- ready ones */

CONTRACT(prepared_ones_are_as_empty)
{
	struct ism_fabric *a = peer(spec->spec);
	struct ism_dmb *d[4];
	int made = 0;

	if (!a->ops->prepare)
		goto out;
	while (ism_fabric_prepare(a, LEN, 3) == 1)
		made++;
	cr_expect_eq(made, 3);
	cr_expect_eq(a->counters.pooled, 3);
	cr_expect_eq(a->counters.dmbs, 0, "nobody has them");
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 4; i++) {
			d[i] = dmb_for(a, a, i + 1);
			for (size_t j = 0; j < LEN; j++)
				cr_assert_eq(((char *)d[i]->addr)[j], 0);
			memset(d[i]->addr, 0xcc, LEN);
		}
		for (int i = 0; i < 4; i++)
			ism_fabric_unregister_dmb(a, d[i]);
	}
	cr_expect_eq(a->counters.pooled, 0);
	cr_expect_eq(ism_fabric_prepare(a, 2 * LEN, 1), 1);
	ism_fabric_unregister_dmb(a, dmb_for(a, a, 1));
	cr_expect_eq(a->counters.pooled, 1, "one of another length");
out:
	ism_fabric_close(a);
}

/* ---------------------------------------------------------------- registry */

Test(registry, bad_specs)
{
	static const char *const bad[] = { "",
					   "memfd",
					   "memf:",
					   "memfds:",
					   ":",
					   "nosuch:",
					   "memfd:what",
					   "memfd:what=1",
					   "memfd:,",
					   "memfd:huge",
					   "memfd:huge=3M",
					   "memfd:max-dmbs=0",
					   "memfd:max-dmbs=-1",
					   "memfd:max-dmbs=65537",
					   "memfd:max-dmbs=1x",
					   "memfd:pnetid=",
					   "memfd:pnetid=seventeen-letters",
					   "memfd:max-dmbs=1,max-dmbs=2",
					   "memfd:huge=2M,huge=2M" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct ism_fabric *f = (void *)1;
		struct ism_err err = {};

		cr_expect_eq(ism_fabric_open(bad[i], &f, &err), -EINVAL, "%s", bad[i]);
		cr_expect_null(f, "%s", bad[i]);
		cr_expect_str_not_empty(err.text, "%s", bad[i]);
	}
}

Test(registry, options)
{
	char buf[8];

	cr_expect_eq(ism_fabric_option("a=1,bc=xyz,d", "bc", buf, sizeof(buf)), 1);
	cr_expect_str_eq(buf, "xyz");
	cr_expect_eq(ism_fabric_option("a=1,bc=xyz,d", "d", buf, sizeof(buf)), 1);
	cr_expect_str_empty(buf);
	cr_expect_eq(ism_fabric_option("a=1,bc=xyz,d", "b", buf, sizeof(buf)), 0);
	cr_expect_eq(ism_fabric_option("", "a", buf, sizeof(buf)), 0);
	cr_expect_eq(ism_fabric_option("a=12345678", "a", buf, sizeof(buf)), -ENAMETOOLONG);
	cr_expect_eq(ism_fabric_option("a=1234567", "a", buf, sizeof(buf)), 1);
}

Test(registry, nothing_to_close)
{
	struct ism_fabric *f = peer("memfd:");

	ism_fabric_close(NULL);
	ism_fabric_unregister_dmb(f, NULL);
	ism_fabric_close(f);
}
