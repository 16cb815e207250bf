// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Unit tests of the parts of a region: checksum, layout, superblock, allocator, leases, quarantine, options. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "box.h"

/* ---------------------------------------------------------------- format */

Test(format, crc_is_castagnoli)
{
	cr_expect_eq(region_crc("123456789", 9), 0xe3069283);
	cr_expect_eq(region_crc("", 0), 0);
}

Test(format, layout_has_room_for_everything)
{
	__u64 state = 1;

	for (int i = 0; i < 20000; i++) {
		struct region_geometry g = { 1 + box_random(&state) % 64,
					     1 + box_random(&state) % 2000,
					     4096ULL << box_random(&state) % 10 };
		__u64 size = box_random(&state) % (1 << 28);
		struct region_layout l;
		int rc = region_layout_of(size, &g, &l);

		if (rc) {
			cr_assert_eq(rc, -ENOSPC);
			continue;
		}
		cr_assert(l.tails >= sizeof(struct ism_region_peer) &&
			  l.links >= l.tails + 8 * g.peers);
		cr_assert(l.mails == l.links + g.peers * 64 &&
			  l.dir == l.mails + g.peers * 16 * 16);
		cr_assert(l.attach == l.dir + g.dmbs * 128 && l.bells == l.attach + g.dmbs * 64);
		cr_assert(l.control >= l.bells + g.dmbs * 64 && l.control % 4096 == 0);
		cr_assert((l.links | l.mails | l.dir | l.attach | l.bells) % 64 == 0);
		cr_assert(l.arena && l.arena % g.unit == 0 && l.arena_off % g.unit == 0);
		cr_assert(l.control_off + g.peers * l.control <= l.arena_off);
		cr_assert(l.arena_off + g.peers * l.arena <= size);
	}
}

Test(format, numbers_out_of_range)
{
	const struct region_geometry bad[] = { { 65, 1, 4096 },	     { 1, 65537, 4096 },
					       { 1, 1, 2048 },	     { 1, 1, 12288 },
					       { 1, 1, 1ULL << 31 }, { ~0ULL, ~0ULL, ~0ULL } };
	struct region_layout l;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(region_layout_of(1ULL << 40, &bad[i], &l), -EINVAL, "%zu", i);
	cr_expect_eq(region_layout_of(0, &(struct region_geometry){}, &l), -ENOSPC);
}

static int check(struct ism_err *err)
{
	struct region_layout l;

	return region_check_super(&box.map.mem, NULL, &l, err);
}

/* Each bit of the superblock: the checksum, the magic number or the version tell. */
Test(format, every_bit_of_the_superblock)
{
	box_open();
	for (unsigned int bit = 0; bit < sizeof(struct ism_region_super) * 8; bit++) {
		struct ism_err err = {};
		int rc;

		box.map.mem.base[bit / 8] ^= 1 << bit % 8;
		rc = check(&err);
		cr_expect(rc == -EUCLEAN || rc == -EMEDIUMTYPE, "bit %u: %d", bit, rc);
		cr_expect_str_not_empty(err.text);
		box.map.mem.base[bit / 8] ^= 1 << bit % 8;
		cr_assert_eq(check(NULL), 0, "bit %u", bit);
	}
}

/* Every field with a checksum that fits: it does not follow from the others. */
Test(format, every_field_of_the_geometry)
{
	static const size_t fields[] = {
		offsetof(struct ism_region_super, size),
		offsetof(struct ism_region_super, peers),
		offsetof(struct ism_region_super, dmbs),
		offsetof(struct ism_region_super, unit),
		offsetof(struct ism_region_super, control_off),
		offsetof(struct ism_region_super, control),
		offsetof(struct ism_region_super, arena_off),
		offsetof(struct ism_region_super, arena),
	};
	static const __u64 values[] = {
		0, 1, 4095, 4097, 1ULL << 20, 1ULL << 32, 1ULL << 63, ~0ULL
	};
	struct ism_region_super *s, was;

	box_open();
	s = (struct ism_region_super *)box.map.mem.base;
	was = *s;
	for (size_t f = 0; f < sizeof(fields) / sizeof(fields[0]); f++)
		for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
			struct ism_err err = {};
			int rc;

			if (fields[f] == offsetof(struct ism_region_super, dmbs) && values[v] == 1)
				continue; /* fits into the same pages */
			*(__le64 *)((char *)s + fields[f]) = htole64(values[v]);
			s->crc = htole64(region_crc(s, offsetof(struct ism_region_super, crc)));
			rc = check(&err);
			cr_expect(rc == -EUCLEAN, "field %zu, value %zu: %d", f, v, rc);
			cr_expect_str_not_empty(err.text);
			*s = was;
		}
	cr_expect_eq(check(NULL), 0);
}

Test(format, not_a_region)
{
	struct ism_err err = {};
	struct ism_fabric *f;
	int rc;

	box_open();
	memset(box.map.mem.base, 0, 4096);
	f = box_peer(-1, "", &rc);
	cr_expect_null(f);
	cr_expect_eq(rc, -EMEDIUMTYPE);
	box.map.mem.len = 100;
	cr_expect_eq(check(&err), -EMEDIUMTYPE);
}

/* ---------------------------------------------------------------- allocator */

#define UNITS 64

/* Against a map of units: found is free, and what is free is found. */
Test(alloc, as_a_map_of_units_says)
{
	struct region_alloc a = { .len = UNITS * 4096, .unit = 4096 };
	struct region_range used[UNITS];
	unsigned char map[UNITS] = {};
	unsigned int n = 0;
	__u64 state = 7;

	for (int i = 0; i < 50000; i++) {
		__u64 len = 1 + box_random(&state) % (8 * 4096), at, units = (len + 4095) / 4096;
		int run = 0, fits = 0;

		for (int u = 0; u < UNITS; u++) {
			run = map[u] ? 0 : run + 1;
			fits |= run >= (int)units;
		}
		if (n && (box_random(&state) & 1 || !fits)) {
			unsigned int k = box_random(&state) % n;

			region_alloc_give(&a, used[k].off, used[k].len);
			for (__u64 u = 0; u < (used[k].len + 4095) / 4096; u++)
				map[used[k].off / 4096 + u] = 0;
			used[k] = used[--n];
			continue;
		}
		cr_assert_eq(region_alloc_find(&a, len, &at), fits ? 0 : -ENOMEM);
		if (!fits)
			continue;
		cr_assert(at % 4096 == 0 && at + len <= a.len);
		cr_assert(region_alloc_is_free(&a, at, len));
		for (__u64 u = 0; u < units; u++)
			cr_assert_eq(map[at / 4096 + u]++, 0);
		cr_assert_eq(region_alloc_take(&a, at, len), 0);
		cr_assert_not(region_alloc_is_free(&a, at + len - 1, 1));
		used[n++] = (struct region_range){ at, len };
	}
	region_alloc_free(&a);
}

Test(alloc, what_is_held_twice_is_free_after_both)
{
	struct region_alloc a = { .len = 4 * 4096, .unit = 4096 };
	__u64 at;

	region_alloc_take(&a, 0, 4096);
	region_alloc_take(&a, 0, 4096);
	region_alloc_take(&a, 100, 8192);
	cr_expect_eq(region_alloc_find(&a, 4096, &at), 0);
	cr_expect_eq(at, 3 * 4096);
	cr_expect_eq(region_alloc_find(&a, 4097, &at), -ENOMEM);
	region_alloc_give(&a, 0, 4096);
	cr_expect_not(region_alloc_is_free(&a, 0, 1));
	region_alloc_give(&a, 0, 4096);
	cr_expect(region_alloc_is_free(&a, 0, 100));
	region_alloc_give(&a, 100, 8192);
	cr_expect(region_alloc_is_free(&a, 0, a.len));
	cr_expect_not(region_alloc_is_free(&a, 0, a.len + 1));
	cr_expect_not(region_alloc_is_free(&a, ~0ULL, 2));
	cr_expect_not(region_alloc_is_free(&a, 0, 0));
	cr_expect_eq(region_alloc_find(&a, 0, &at), -ENOMEM);
	cr_expect_eq(region_alloc_find(&a, ~0ULL, &at), -ENOMEM);
	region_alloc_free(&a);
}

/* ---------------------------------------------------------------- peers */

static void read_all(struct ism_fabric *f)
{
	struct ism_event e[BOX_EVENTS];

	box_later(150);
	ism_fabric_read_events(f, e, BOX_EVENTS);
}

static struct ism_dmb *offer(struct ism_fabric *f, __u64 token, __u64 len,
			     const struct ism_fabric *partner)
{
	struct ism_dmb_params p = { .token = token, .len = len, .partner = partner->info.gid };
	struct ism_dmb *d;

	cr_assert_eq(ism_fabric_register_dmb(f, &p, &d), 0);
	return d;
}

Test(peers, a_lease_ends_and_comes_back)
{
	struct ism_peer_info p[3];
	struct ism_fabric *a, *b;
	struct ism_gid gone;

	box_open();
	box_reset(1);
	a = box_peer(0, "", NULL);
	b = box_peer(1, "", NULL);
	gone = a->info.gid;
	read_all(a);
	read_all(b);
	cr_expect_eq(ism_fabric_query_remote_gid(b, &a->info.gid), 0);
	box_later(99);
	cr_expect_eq(ism_fabric_query_remote_gid(b, &a->info.gid), -EHOSTUNREACH,
		     "its 100 ms are over");
	cr_expect_eq(ism_fabric_query_remote_gid(a, &a->info.gid), 0, "it reaches itself");
	cr_expect_eq(ism_fabric_peers(b, p, 3), 2);
	cr_expect_eq(p[0].life, ISM_PEER_SILENT);
	cr_expect_gt(p[0].age_ms, p[0].lease_ms);
	cr_expect_eq(p[1].life, ISM_PEER_ALIVE, "of itself no sign of life is waited for");
	read_all(a);
	cr_expect_eq(ism_fabric_query_remote_gid(b, &a->info.gid), 0, "its heart beats again");
	cr_expect_eq(ism_fabric_peers(b, p, 3), 2);
	cr_expect_eq(p[0].life, ISM_PEER_ALIVE);
	cr_expect_leq(p[0].age_ms, p[0].lease_ms);
	ism_fabric_close(a);
	cr_expect_eq(ism_fabric_query_remote_gid(b, &gone), -EHOSTUNREACH);
	ism_fabric_close(b);
}

Test(peers, slots)
{
	struct ism_fabric *f[BOX_PEERS];
	int rc;

	box_open();
	box_reset(1);
	for (int i = 0; i < BOX_PEERS; i++)
		f[i] = box_peer(-1, "", NULL);
	cr_expect_null(box_peer(-1, "", &rc));
	cr_expect_eq(rc, -EUSERS);
	cr_expect_null(box_peer(1, "", &rc));
	cr_expect_eq(rc, -EBUSY, "a process of this host has it");
	cr_expect_null(box_peer(3, "", &rc));
	cr_expect_eq(rc, -EINVAL);
	ism_fabric_close(f[1]);
	f[1] = box_peer(1, "", &rc);
	cr_expect_eq(rc, 0);
	for (int i = 0; i < BOX_PEERS; i++)
		ism_fabric_close(f[i]);
	box_reset(0);
	cr_expect_null(box_peer(-1, "", &rc));
	cr_expect_eq(rc, -EINVAL, "a slot has to be chosen where nothing is coherent");
}

/* Who is evicted while it sleeps does nothing more when it wakes up. */
Test(peers, eviction)
{
	struct ism_fabric *a, *b;
	struct ism_dmb_params p;
	struct ism_dmb *d;

	box_open();
	box_reset(1);
	a = box_peer(0, "", NULL);
	b = box_peer(1, "", NULL);
	offer(b, 5, 4096, a);
	cr_expect_eq(ism_fabric_move_data(a, 5, 0, "x", 1, 0), 0);
	region_store(&box.map.mem, &region_peer(&box.map.mem, &box.map.l, 0)->state,
		     ISM_PEER_STATE(1, ISM_PEER_FREE));
	read_all(a);
	p = (struct ism_dmb_params){ .token = 6, .len = 10, .partner = b->info.gid };
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -ESTALE);
	offer(b, 7, 4096, a);
	cr_expect_eq(ism_fabric_move_data(a, 7, 0, "x", 1, 0), -ESTALE);
	ism_fabric_close(a);
	cr_expect_eq(region_load(&region_peer(&box.map.mem, &box.map.l, 0)->state),
		     ISM_PEER_STATE(1, ISM_PEER_FREE), "it took its slot back");
	ism_fabric_close(b);
}

/* ---------------------------------------------------------------- quarantine */

Test(quarantine, until_the_writer_lets_go)
{
	struct ism_fabric *a, *b;
	struct ism_dmb_params p;
	struct ism_dmb_map map;
	struct ism_dmb *d;
	__u64 len;

	box_open();
	box_reset(1);
	a = box_peer(0, "", NULL);
	b = box_peer(1, "", NULL);
	len = a->info.max_dmb_len;
	d = offer(a, 1, len, b);
	cr_assert_eq(ism_fabric_attach_dmb(b, 1, &map), 0);
	ism_fabric_unregister_dmb(a, d);
	p = (struct ism_dmb_params){ .token = 2, .len = 1, .partner = b->info.gid };
	for (int i = 0; i < 50; i++) {
		read_all(a); /* b is long silent */
		cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), -ENOMEM);
	}
	ism_fabric_detach_dmb(b, &map);
	cr_expect_eq(ism_fabric_register_dmb(a, &p, &d), 0);
	ism_fabric_close(a);
	ism_fabric_close(b);
}

/* ---------------------------------------------------------------- options */

Test(options, bad_ones)
{
	static const char *const bad[] = {
		",what=1",
		",lease=1",
		",poll=0",
		",poll=x",
		",peer=64",
		",peer=",
		",max-dmbs=0",
		",coherent=maybe",
		",pnetid=",
		",bell=udp:1.2.3.4:0",
		",bell=udp:1.2.3.4",
		",bell=tcp:1.2.3.4:5",
		",bell=udp:x:5",
		",bell=udp:[::1:5",
		",direct=",
		",direct=root",
		",direct=1:2:x",
		",direct=1:2:3:4:5:6:7:8:9",
		",bell=udp:1111:2222:3333:4444:5555:6666:7777:8888:9999:1111:2222:3333:5",
		",pnetid=12345678901234567",
	};
	int rc;

	box_open();
	box_reset(1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_expect_null(box_peer(-1, bad[i], &rc));
		cr_expect_eq(rc, -EINVAL, "%s: %d", bad[i], rc);
	}
}

Test(options, direct)
{
	struct ism_fabric *f;

	box_open();
	box_reset(1);
	f = box_peer(0, "", NULL);
	cr_expect(f->info.n_direct == 1 && f->info.direct[0] == 0);
	ism_fabric_close(f);
	f = box_peer(0, ",direct=1000:33", NULL);
	cr_expect(f->info.n_direct == 2 && f->info.direct[0] == 1000 && f->info.direct[1] == 33);
	ism_fabric_close(f);
	f = box_peer(0, ",direct=all", NULL);
	cr_expect_eq(f->info.n_direct, ISM_FABRIC_DIRECT_ALL);
	ism_fabric_close(f);
}

/* A datagram wakes who has a bell. */
Test(options, bell_by_udp)
{
	char option[32], text[80];
	struct ism_fabric *a = NULL, *b;
	struct ism_event e[4];
	int rc = -1;

	box_open();
	box_reset(1);
	for (int port = 20000 + getpid() % 20000, i = 0; rc && i < 100; i++) {
		snprintf(option, sizeof(option), ",bell=udp:127.0.0.1:%d", port + i);
		a = box_peer(0, option, &rc);
	}
	cr_assert_eq(rc, 0);
	b = box_peer(1, "", NULL);
	offer(a, 1, 100, b);
	while (ism_fabric_read_events(a, e, 4) > 0)
		;
	region_of(a)->tick_ms = ~0ULL; /* nothing but the bell may lead to a look */
	cr_expect_eq(ism_fabric_move_data(b, 1, 0, "x", 1, 1), 0);
	cr_expect_gt(recv(region_of(a)->udp_fd, text, sizeof(text), MSG_PEEK), 0, "no datagram");
	cr_expect_eq(ism_fabric_read_events(a, e, 4), 1);
	cr_expect_eq(e[0].token, 1);
	ism_fabric_close(a);
	ism_fabric_close(b);
}
