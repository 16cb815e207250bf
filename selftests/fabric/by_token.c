// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Partners that know only each other's tokens, bells without data, and maps as descriptors: for every
 * provider that has them.
 */
#include "contract.h"
#include <stdio.h>

#define A_TOKEN 0x1a1a
#define B_TOKEN 0x2b2b

static struct ism_dmb_params by_token(__u64 token, __u64 partner)
{
	return (struct ism_dmb_params){ .token = token, .len = LEN, .partner_token = partner };
}

static struct ism_dmb *offer(struct ism_fabric *f, __u64 token, __u64 partner)
{
	struct ism_dmb_params p = by_token(token, partner);
	struct ism_dmb *d;

	cr_assert_eq(ism_fabric_register_dmb(f, &p, &d), 0);
	return d;
}

static int is_there(struct ism_fabric *f, __u64 token)
{
	return ism_fabric_query_dmb(f, token, NULL, NULL);
}

CONTRACT(a_mutual_pair)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec), *c = peer(spec->spec);
	struct ism_dmb *d, *e, *other;
	struct ism_gid owner;
	__u64 len = 0;

	if (!has(a, ISM_FABRIC_BY_TOKEN)) {
		struct ism_dmb_params p = by_token(A_TOKEN, B_TOKEN);

		cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -EINVAL);
		goto out;
	}
	d = offer(a, A_TOKEN, B_TOKEN);
	cr_expect_eq(is_there(b, A_TOKEN), -EACCES, "its own DMB is not there yet");
	cr_expect_eq(ism_fabric_move_data(b, A_TOKEN, 0, "x", 1, 0), -EACCES);
	cr_expect_eq(is_there(b, B_TOKEN), -ENOENT);
	e = offer(b, B_TOKEN, A_TOKEN);
	cr_expect_eq(ism_fabric_query_dmb(b, A_TOKEN, &owner, &len), 0);
	cr_expect_eq(len, d->len);
	cr_expect_eq(memcmp(&owner, &a->info.gid, sizeof(owner)), 0);
	cr_expect_eq(is_there(a, B_TOKEN), 0);
	cr_expect_eq(ism_fabric_move_data(b, A_TOKEN, 0, "x", 1, 0), 0);
	cr_expect_eq(ism_fabric_move_data(a, B_TOKEN, 0, "y", 1, 0), 0);
	ism_fabric_fetch(a, d, 0, 1);
	ism_fabric_fetch(b, e, 0, 1);
	cr_expect(*(char *)d->addr == 'x' && *(char *)e->addr == 'y');
	/* who names it, and is not named */
	other = offer(c, 0x3c3c, A_TOKEN);
	cr_expect_eq(is_there(c, A_TOKEN), -EACCES);
	cr_expect_eq(ism_fabric_move_data(c, A_TOKEN, 0, "z", 1, 0), -EACCES);
	ism_fabric_unregister_dmb(c, other);
	/* one end goes: the other one is not its partner any more */
	ism_fabric_unregister_dmb(b, e);
	cr_expect_eq(ism_fabric_move_data(b, A_TOKEN, 0, "x", 1, 0), -EACCES);
	cr_expect_eq(ism_fabric_move_data(a, B_TOKEN, 0, "y", 1, 0), -ENOENT);
	ism_fabric_unregister_dmb(a, d);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
	ism_fabric_close(c);
}

/* A query asks and does nothing else. */
CONTRACT(a_query_is_not_a_refusal)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec), *c = peer(spec->spec);

	if (!a->ops->query_dmb) {
		cr_expect_eq(is_there(a, 9), -EOPNOTSUPP);
		goto out;
	}
	dmb_for(a, b, 9);
	cr_expect_eq(is_there(b, 9), 0);
	cr_expect_eq(is_there(c, 9), -EACCES);
	cr_expect_eq(is_there(b, 8), -ENOENT);
	cr_expect_eq(is_there(b, 0), -EINVAL);
	cr_expect_eq(b->counters.refused + c->counters.refused, 0);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
	ism_fabric_close(c);
}

/* Both are told of the other's DMB, whoever comes first, also when it was there before. */
CONTRACT(dmbs_are_announced)
{
	struct ism_fabric *a = peer(spec->spec), *b;
	struct ism_event e[8];
	int told = 0, n;

	if (!has(a, ISM_FABRIC_BY_TOKEN)) {
		ism_fabric_close(a);
		return;
	}
	offer(a, A_TOKEN, B_TOKEN);
	b = peer(spec->spec);
	offer(b, B_TOKEN, A_TOKEN);
	for (int i = 0; i < 2; i++) {
		struct ism_fabric *f = i ? a : b, *other = i ? b : a;

		cr_assert(is_ready(f, 5000));
		n = take_events(f, e, 8);
		for (int k = 0; k < n; k++) {
			cr_assert_eq(e[k].type, ISM_EVENT_DMB);
			told += !memcmp(&e[k].gid, &other->info.gid, sizeof(e[k].gid)) &&
				e[k].token == (i ? A_TOKEN : B_TOKEN) &&
				e[k].info == (i ? B_TOKEN : A_TOKEN);
		}
	}
	cr_expect_eq(told, 2);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

CONTRACT(ringing_alone)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec), *c = peer(spec->spec);
	struct ism_event e;

	if (!a->ops->ring) {
		cr_expect_eq(ism_fabric_ring(b, 9), -EOPNOTSUPP);
		goto out;
	}
	dmb_for(a, b, 9);
	cr_expect_eq(ism_fabric_ring(b, 8), -ENOENT);
	cr_expect_eq(ism_fabric_ring(c, 9), -EACCES);
	cr_expect_eq(ism_fabric_ring(b, 0), -EINVAL);
	cr_expect_not(is_ready(a, 0), "a refused ring rang");
	cr_expect_eq(ism_fabric_ring(b, 9), 0);
	e = one_event(a);
	cr_expect(e.type == ISM_EVENT_DOORBELL && e.token == 9);
	cr_expect_eq(b->counters.signals, 1);
	cr_expect_eq(b->counters.moves, 0);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
	ism_fabric_close(c);
}

/* A partner's bell for a program: its eventfd, and no event. */
CONTRACT(a_bell_for_a_program)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb_params p = params(9, b);
	struct ism_dmb_fds fds;
	struct ism_event e;
	struct ism_dmb *d;
	struct pollfd bell;

	if (!has(a, ISM_FABRIC_EXPORT) || !a->ops->ring)
		goto out;
	p.exported = 1;
	cr_assert_eq(ism_fabric_register_dmb(a, &p, &d), 0);
	cr_assert_eq(ism_fabric_export_dmb(a, d, &fds), 0);
	bell = (struct pollfd){ .fd = fds.bell, .events = POLLIN };
	cr_expect_eq(ism_fabric_ring(b, 9), 0);
	for (int i = 0; i < 100 && poll(&bell, 1, 20) != 1; i++)
		cr_expect_eq(ism_fabric_read_events(a, &e, 1), 0);
	cr_expect_eq(poll(&bell, 1, 0), 1);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
}

CONTRACT(a_map_for_a_program)
{
	struct ism_fabric *a = peer(spec->spec), *b = peer(spec->spec);
	struct ism_dmb *d = dmb_for(a, b, 9);
	struct ism_dmb_map map;
	struct ism_dmb_fds fds;
	char *w;

	if (!has(b, ISM_FABRIC_ATTACH))
		goto out;
	cr_assert_eq(ism_fabric_attach_dmb(b, 9, &map), 0);
	map.holder = getpid();
	if (!b->ops->export_map) {
		cr_expect_eq(ism_fabric_export_map(b, &map, &fds), -EOPNOTSUPP);
		ism_fabric_detach_dmb(b, &map);
		goto out;
	}
	cr_assert_eq(ism_fabric_export_map(b, &map, &fds), 0);
	cr_expect(fds.read == -1 && fds.bell == -1 && fds.off % getpagesize() == 0);
	cr_expect_eq(fcntl(fds.write, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	w = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fds.write, fds.off);
	cr_assert_neq(w, MAP_FAILED);
	strcpy(w + LEN - 8, "program");
	cr_expect_str_eq((char *)d->addr + LEN - 8, "program");
	munmap(w, LEN);
	ism_fabric_detach_dmb(b, &map);
out:
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* Two who come at the same time make one region. */
Test(shm, made_when_it_is_not_there)
{
	char spec[80], path[48], bad[96];
	struct ism_fabric *a, *b;
	struct ism_err err = {};

	snprintf(path, sizeof(path), "/dev/shm/ismredir-made-%d", getpid());
	snprintf(spec, sizeof(spec), "shm:%s,size=4M", path);
	snprintf(bad, sizeof(bad), "shm:%s,size=4X", path);
	unlink(path);
	cr_expect_eq(ism_fabric_open(bad, &a, &err), -EINVAL);
	cr_expect_neq(access(path, F_OK), 0);
	a = peer(spec);
	b = peer(spec);
	unlink(path);
	cr_expect_eq(memcmp(&a->info.uuid, &b->info.uuid, sizeof(a->info.uuid)), 0);
	cr_expect_eq(ism_fabric_query_remote_gid(a, &b->info.gid), 0);
	ism_fabric_close(a);
	ism_fabric_close(b);
}
