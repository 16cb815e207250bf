// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Fuzzes regions: the bytes overwrite words of a region, before and while it is used, as a hostile peer
 * does. Nothing may be read or written outside of it, take forever, or stay behind; and what the CLI looks
 * at is looked at, too.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "box.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_DMBS 4

static const uint8_t *at, *end;
static struct ism_fabric *peer[2];
static struct ism_dmb *dmb[MAX_DMBS];
static struct ism_dmb_map map[MAX_DMBS];

static void must(int cond)
{
	if (!cond)
		abort();
}

static uint8_t byte(void)
{
	return at < end ? *at++ : 0;
}

static uint64_t word(void)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | byte();
	return v;
}

/* Values that mean something are more likely than others. */
static uint64_t value(uint64_t was)
{
	uint8_t how = byte();

	switch (how >> 5) {
	case 0:
		return how;
	case 1:
		return was + (how & 31);
	case 2:
		return was - (how & 31);
	case 3:
		return ~0ULL >> (how & 31);
	case 4:
		return was ^ 1ULL << (how & 31);
	case 5:
		return (uint64_t)(how & 31) << 12;
	case 6:
		return box.map.l.arena_off + ((uint64_t)(how & 31) << 12);
	default:
		return word();
	}
}

/* The superblock is changed with a checksum that fits. */
static void overwrite(void)
{
	size_t n = box.map.l.arena_off / 8, i = (byte() << 8 | byte()) % n;
	__le64 *words = (__le64 *)box.map.mem.base;
	struct ism_region_super *s = (struct ism_region_super *)words;

	words[i] = value(words[i]);
	if (i < sizeof(*s) / 8 - 1)
		s->crc = region_crc(s, offsetof(struct ism_region_super, crc));
}

static void within(const void *p, uint64_t len)
{
	const char *base = box.map.mem.base, *mem = p;

	must(len <= BOX_SIZE && mem >= base + box.map.l.arena_off && mem + len <= base + BOX_SIZE);
}

static void found(void *arg, int who, const char *text)
{
	(void)arg;
	must(who >= -1 && who < ISM_REGION_MAX_PEERS && text[0]);
}

static void look(void)
{
	enum region_life life[ISM_REGION_MAX_PEERS] = {};
	struct region_map copy = box.map;
	struct ism_err err = {};

	if (region_check_super(&copy.mem, &copy.super, &copy.l, &err)) {
		must(err.text[0]);
		return;
	}
	for (unsigned int i = 0; i < copy.l.peers; i++)
		life[i] = byte() & 3;
	region_check(&copy, life, byte() & 1, found, NULL);
}

static void read_events(struct ism_fabric *f)
{
	struct ism_event e[8];
	int n;

	box_later(byte() * 4);
	n = ism_fabric_read_events(f, e, 8);
	must(n <= 8);
	for (int i = 0; i < n; i++)
		must(e[i].type >= ISM_EVENT_DOORBELL && e[i].type <= ISM_EVENT_DMB);
}

static void do_register(struct ism_fabric *f, unsigned int i)
{
	struct ism_dmb_params p = { .token = 1 + byte() % 8,
				    .len = 1 + byte() * 64,
				    .exported = byte() & 1 };

	if (byte() & 1)
		p.partner = peer[1] ? peer[1]->info.gid : f->info.gid;
	if (!(p.partner.b[0] | p.partner.b[1] | p.partner.b[2]))
		p.partner_token = 1 + byte() % 8;
	if (dmb[i] || ism_fabric_register_dmb(f, &p, &dmb[i])) {
		return;
	}
	within(dmb[i]->addr, dmb[i]->len);
	for (uint64_t k = 0; k < dmb[i]->len; k++)
		must(!((char *)dmb[i]->addr)[k]);
}

static void do_partner(struct ism_fabric *f, uint8_t op, unsigned int i)
{
	uint64_t token = 1 + byte() % 8;
	char data[64] = "data";

	if (op == 4 && !map[i].addr && !ism_fabric_attach_dmb(f, token, &map[i]))
		within(map[i].addr, map[i].len);
	else if (op == 5 && map[i].addr)
		ism_fabric_detach_dmb(f, &map[i]);
	else if (op == 6)
		ism_fabric_move_data(f, token, byte(), data, sizeof(data), 1);
	else
		ism_fabric_ring(f, token);
}

static void one(uint8_t op)
{
	struct ism_fabric *f = peer[op >> 7 & (peer[1] != NULL)];
	unsigned int i = byte() % MAX_DMBS;

	switch (op & 15) {
	case 0:
	case 1:
		read_events(f);
		break;
	case 2:
		do_register(peer[0], i);
		break;
	case 3:
		ism_fabric_unregister_dmb(peer[0], dmb[i]);
		dmb[i] = NULL;
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		do_partner(peer[1] ? peer[1] : peer[0], op & 15, i);
		break;
	case 8:
		look();
		break;
	case 9:
		ism_fabric_signal_event(f, &peer[0]->info.gid, 1, 2);
		break;
	default:
		overwrite();
	}
}

static void finish(void)
{
	struct ism_fabric *partner = peer[1] ? peer[1] : peer[0];

	for (int i = 0; i < MAX_DMBS; i++) {
		if (map[i].addr)
			ism_fabric_detach_dmb(partner, &map[i]);
		map[i].addr = NULL;
		dmb[i] = NULL;
	}
	for (int i = 0; i < 2; i++)
		if (peer[i])
			ism_fabric_close(peer[i]);
}

/* Half of the inputs damage the region before anybody opens it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int rc, n;

	if (!box.pristine)
		box_open();
	at = data;
	end = data + size;
	n = byte();
	box_reset(n & 1);
	for (n = n >> 1 & 15; n; n--)
		overwrite();
	peer[0] = box_peer(byte() & 1 ? -1 : 0, "", &rc);
	peer[1] = NULL;
	if (!peer[0])
		return 0;
	peer[1] = box_peer(byte() & 1 ? -1 : 1, "", &rc);
	for (int steps = 0; at < end && steps < 200; steps++)
		one(byte());
	finish();
	return 0;
}
