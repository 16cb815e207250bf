/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One end of two that hand messages to and fro over a fabric and check every byte; the ends know of each
 * other only their tokens, as after the handshake of a connection.
 *
 *   fabpair SPEC TOKEN PARTNER-TOKEN ROUNDS first|second
 *
 * Every message is ROUND, and a pattern of it, in a DMB that the partner has attached; odd rounds go by
 * move_data with its signal, even ones by own stores and ring. Prints "exact N rounds".
 */
#include <ismredir/fabric.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "err.h"

#define WORDS	 1000
#define LEN	 ((WORDS) * sizeof(__u64))
#define PATIENCE 30000 /* ms */

struct end {
	struct ism_fabric *f;
	struct ism_dmb *own;
	struct ism_dmb_map map;
	__u64 token, partner;
};

static void fail(const char *what, __s64 detail)
{
	printf("%s: %lld\n", what, (long long)detail);
	exit(1);
}

static __u64 word(__u64 sender, __u64 round, unsigned int i)
{
	return i ? (sender * 31 + round) * 0x9e3779b97f4a7c15ULL + i : round;
}

static void send_message(struct end *e, __u64 round)
{
	static __u64 data[WORDS];
	int rc;

	for (unsigned int i = 0; i < WORDS; i++)
		data[i] = word(e->token, round, i);
	/* The reader looks at word 0, also before the bell: the others come first. */
	if (round % 2) {
		rc = ism_fabric_move_data(e->f, e->partner, sizeof(__u64), data + 1,
					  LEN - sizeof(__u64), 0);
		if (!rc)
			rc = ism_fabric_move_data(e->f, e->partner, 0, data, sizeof(__u64), 1);
	} else {
		memcpy((__u64 *)e->map.addr + 1, data + 1, LEN - sizeof(__u64));
		__atomic_store_n((__u64 *)e->map.addr, data[0], __ATOMIC_RELEASE);
		rc = ism_fabric_ring(e->f, e->partner);
	}
	if (rc)
		fail("sending", rc);
}

/* Sleeps until the own token was signalled. */
static void wait_signal(struct end *e)
{
	struct pollfd p = { .fd = ism_fabric_event_fd(e->f), .events = POLLIN };
	struct ism_event ev[8];

	for (;;) {
		int n = ism_fabric_read_events(e->f, ev, 8);

		if (n < 0)
			fail("events", n);
		for (int i = 0; i < n; i++)
			if (ev[i].type == ISM_EVENT_DOORBELL && ev[i].token == e->token)
				return;
		if (!n && poll(&p, 1, PATIENCE) != 1)
			fail("nothing happens", PATIENCE);
	}
}

/* A signal may come twice, or for a message that was read already. */
static void take_message(struct end *e, __u64 round)
{
	volatile __u64 *m = e->own->addr;

	while (__atomic_load_n(&m[0], __ATOMIC_ACQUIRE) != round)
		wait_signal(e);
	for (unsigned int i = 0; i < WORDS; i++)
		if (m[i] != word(e->partner, round, i))
			fail("wrong word", i);
}

static void meet(struct end *e)
{
	struct ism_dmb_params p = {
		.token = e->token, .len = LEN, .vlan = ISM_VLAN_NONE, .partner_token = e->partner
	};
	int rc = ism_fabric_register_dmb(e->f, &p, &e->own);

	if (rc)
		fail("register", rc);
	for (int i = 0; i < PATIENCE / 10; i++) {
		rc = ism_fabric_attach_dmb(e->f, e->partner, &e->map);
		if (rc != -ENOENT && rc != -EACCES)
			break;
		usleep(10000);
	}
	if (rc)
		fail("attach", rc);
}

int main(int argc, char **argv)
{
	struct ism_err err = {};
	struct end e = {};
	__u64 rounds;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 6)
		fail("usage: fabpair SPEC TOKEN PARTNER-TOKEN ROUNDS first|second", argc);
	e.token = strtoull(argv[2], NULL, 0);
	e.partner = strtoull(argv[3], NULL, 0);
	rounds = strtoull(argv[4], NULL, 0);
	if (ism_fabric_open(argv[1], &e.f, &err))
		fail(err.text, 0);
	meet(&e);
	for (__u64 i = 1; i <= rounds; i++) {
		if (!strcmp(argv[5], "first"))
			send_message(&e, i);
		take_message(&e, i);
		if (strcmp(argv[5], "first"))
			send_message(&e, i);
	}
	printf("exact %llu rounds\n", (unsigned long long)rounds);
	/* The partner may still be about to read the last message. */
	if (strcmp(argv[5], "first"))
		usleep(200000);
	ism_fabric_detach_dmb(e.f, &e.map);
	ism_fabric_unregister_dmb(e.f, e.own);
	ism_fabric_close(e.f);
	return 0;
}
