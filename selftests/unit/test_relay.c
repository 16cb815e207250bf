// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The relay's core with two ends in one thread and random schedules: both relays, rings in memory, and a
 * model of the rest, which is sockets, verdicts (bpf/relay.bpf.h) and egress (bpf/relayd.bpf.c). Whatever
 * happens in which order, a reader gets the stream in order, and once.
 */
#include "unit.h"
#include <errno.h>
#include <ismredir/option.h>
#include <ismredir/reasons.h>
#include "../../user/daemon/relay_end.h"
#include "../ring/pattern.h"

#define RING	  ISM_RING_MIN
#define SEED	  7
#define QUEUE	  (1 << 20)
#define WINDOW	  (96 << 10)
#define BOUND	  (160 << 10)
#define BUDGET	  (64 << 10)
#define START_SEQ 0xfffff000u /* sequence numbers wrap early */
#define FAR	  1000000000000ULL

/* A queue of bytes. */
struct queue {
	uint8_t *b;
	size_t head, tail;
};

/* One kernel: an application's socket, its dummy, the relay's end. */
struct side {
	struct relay_end e;
	struct ism_relay slot;
	struct ism_dmb dmb;
	uint8_t *mem; /* the DMB as the fabric has it */
	uint8_t *seen; /* as this side sees it: another memory on a fabric without coherence */
	struct queue dummy; /* redirected and not taken */
	struct queue psock; /* pushed and not read */
	struct queue wire; /* given to TCP, not let out */
	struct queue tcp; /* at the partner's TCP */
	uint32_t write_seq, acked, copied;
	uint64_t sent, got, tcp_sent, relayed;
	int bells;
};

static struct side side[2];
static struct ism_fabric fabric[2];
static uint32_t rnd_state;
static uint64_t now;
static int stopped; /* of a partner whose relay does not run */

static uint32_t rnd(uint32_t below)
{
	rnd_state = rnd_state * 1664525 + 1013904223;
	return (rnd_state >> 8) % below;
}

/* ---------------------------------------------------------------- a fabric */

static int move(struct ism_fabric *f, __u64 token, __u64 offset, const void *data, size_t len,
		int signal)
{
	(void)token;
	(void)signal;
	memcpy(side[f != &fabric[1]].mem + offset, data, len);
	return 0;
}

static int ring_it(struct ism_fabric *f, __u64 token)
{
	(void)token;
	side[f != &fabric[1]].bells++;
	return 0;
}

static void fetch(struct ism_fabric *f, struct ism_dmb *dmb, __u64 offset, size_t len)
{
	struct side *s = &side[f == &fabric[1]];

	(void)dmb;
	memcpy(s->seen + offset, s->mem + offset, len);
}

static const struct ism_fabric_ops ops = {
	.scheme = "model", .move_data = move, .ring = ring_it, .fetch = fetch
};

/* ---------------------------------------------------------------- the model */

static void put(struct queue *q, const uint8_t *b, size_t n)
{
	cr_assert_leq(q->tail + n, (size_t)QUEUE * 8);
	memcpy(q->b + q->tail, b, n);
	q->tail += n;
}

static size_t left(const struct queue *q)
{
	return q->tail - q->head;
}

static void open_side(int i, int coherent)
{
	struct side *s = &side[i], *o = &side[!i];
	struct ism_dmb_map map = { .token = 2 - i,
				   .len = ism_dmb_len(RING),
				   .addr = coherent ? o->mem : NULL };

	s->dmb = (struct ism_dmb){ .token = 1 + i, .len = ism_dmb_len(RING), .addr = s->seen };
	s->e.token = 1 + i;
	s->e.peer = 2 - i;
	s->e.s = &s->slot;
	s->e.conn.peer_caps = ISM_CAP_RELAY;
	s->slot.token = s->e.token;
	s->slot.window = WINDOW;
	s->slot.bound = BOUND;
	s->slot.sk_state = 1;
	s->slot.copied = s->copied;
	cr_assert_eq(relay_ring_open(&s->e.ring, &fabric[i], &s->dmb, &map), 0);
	relay_end_open(&s->e);
}

static void open_model(int coherent, uint32_t seed)
{
	memset(side, 0, sizeof(side));
	rnd_state = seed;
	now = FAR;
	stopped = -1;
	for (int i = 0; i < 2; i++) {
		struct side *s = &side[i];

		fabric[i] = (struct ism_fabric){
			.ops = &ops,
			.info = { .caps = ISM_FABRIC_ATTACH | (coherent ? ISM_FABRIC_COHERENT : 0),
				  .max_dmb_len = 1 << 30 }
		};
		s->mem = calloc(1, ism_dmb_len(RING));
		s->seen = coherent ? s->mem : calloc(1, ism_dmb_len(RING));
		s->dummy.b = malloc(QUEUE * 8);
		s->psock.b = malloc(QUEUE * 8);
		s->wire.b = malloc(QUEUE * 8);
		s->tcp.b = malloc(QUEUE * 8);
		s->write_seq = s->acked = s->copied = START_SEQ;
	}
	for (int i = 0; i < 2; i++)
		open_side(i, coherent);
}

static void close_model(void)
{
	for (int i = 0; i < 2; i++) {
		struct side *s = &side[i];

		relay_ring_close(&s->e.ring);
		if (s->seen != s->mem)
			free(s->seen);
		free(s->mem);
		free(s->dummy.b);
		free(s->psock.b);
		free(s->wire.b);
		free(s->tcp.b);
	}
}

/* to_relay(): redirect, or TCP. */
static void app_send(struct side *s, size_t n)
{
	static uint8_t buf[64 << 10];
	uint64_t unread = s->slot.redirected - s->slot.read + n;
	int may = s->slot.state == ISM_RELAY_OPEN && s->write_seq == s->acked &&
		  (s->slot.redirected == s->slot.delivered || s->slot.after == s->write_seq);
	int want = unread <= WINDOW && rnd(16);

	pattern_fill(SEED, s->sent, buf, n);
	s->sent += n;
	if (may && !want && s->slot.redirected != s->slot.delivered && unread <= BOUND)
		want = 1;
	if (may && want) {
		s->slot.after = s->write_seq;
		s->slot.redirected += n;
		s->relayed += n;
		put(&s->dummy, buf, n);
		return;
	}
	s->write_seq += n;
	s->tcp_sent += n;
	put(&s->wire, buf, n);
}

/* ism_hold(): TCP gets through only while nothing is in the relay. */
static void tcp_out(struct side *s, size_t n)
{
	if (s->slot.redirected != s->slot.delivered || s->slot.state == ISM_RELAY_BROKEN) {
		s->slot.held += left(&s->wire) != 0;
		return;
	}
	if (n > left(&s->wire))
		n = left(&s->wire);
	put(&s->tcp, s->wire.b + s->wire.head, n);
	s->wire.head += n;
	s->acked += n;
}

/* tcp_bpf_recvmsg(): what was redirected first. */
static void app_read(struct side *s, struct side *from, size_t n)
{
	struct queue *q = left(&s->psock) ? &s->psock : &from->tcp;

	if (n > left(q))
		n = left(q);
	cr_assert_eq(pattern_check(SEED, s->got, q->b + q->head, n), -1, "byte %lu is wrong, by %s",
		     (unsigned long)s->got, q == &s->psock ? "relay" : "TCP");
	q->head += n;
	s->got += n;
	if (q != &s->psock)
		s->copied += n;
}

/* The daemon's recv() from the dummy. */
static void do_recv(struct side *s)
{
	size_t n = left(&s->dummy), len;
	void *to;

	if (!n)
		return;
	len = relay_end_want_recv(&s->e, &to);
	if (!len)
		return;
	s->e.receiving = 1;
	n = 1 + rnd(n < len ? n : len);
	memcpy(to, s->dummy.b + s->dummy.head, n);
	s->dummy.head += n;
	relay_end_received(&s->e, n, now);
}

/* Its send(), with from_relay(). */
static void do_send(struct side *s)
{
	size_t len = relay_end_want_send(&s->e, now), n;

	if (!len)
		return;
	s->e.sending = 1;
	s->slot.copied = s->copied;
	s->slot.unread = left(&s->psock);
	s->slot.why = 0;
	if (s->slot.after_in && (int32_t)(s->copied - (uint32_t)s->slot.after_in) < 0)
		s->slot.why = ISM_R_UNREAD_TCP;
	else if (s->slot.unread && s->slot.unread + len > BUDGET)
		s->slot.why = ISM_R_BUDGET;
	if (s->slot.why) {
		relay_end_sent(&s->e, -EINVAL, now);
		return;
	}
	n = 1 + rnd(len);
	for (size_t at = 0, k; at < n; at += k) {
		int piece = at >= s->e.iov[0].iov_len;
		size_t in = piece ? at - s->e.iov[0].iov_len : at;

		k = s->e.iov[piece].iov_len - in;
		if (k > n - at)
			k = n - at;
		put(&s->psock, (uint8_t *)s->e.iov[piece].iov_base + in, k);
	}
	s->slot.pushed += n;
	s->slot.unread += n;
	relay_end_sent(&s->e, n, now);
}

static void look(struct side *s)
{
	s->slot.copied = s->copied;
	s->slot.unread = left(&s->psock);
}

static void relay_runs(int i)
{
	struct side *s = &side[i];

	if (stopped == i || s->e.state == END_BROKEN || s->e.state == END_DONE)
		return;
	if (!rnd(4))
		look(s);
	relay_end_step(&s->e, now);
	do_recv(s);
	do_send(s);
}

static void one_thing(int sends)
{
	int i = rnd(2);
	struct side *s = &side[i], *o = &side[!i];

	now += rnd(100000);
	switch (rnd(sends ? 6 : 5)) {
	case 0:
	case 1:
		relay_runs(i);
		break;
	case 2:
		app_read(s, o, 1 + rnd(32 << 10));
		break;
	case 3:
		if (!rnd(8))
			for (int k = 0; k < 20; k++)
				app_read(s, o, 64 << 10);
		break;
	case 4:
		tcp_out(s, 1 + rnd(16 << 10));
		break;
	case 5:
		if (s->sent - o->got < QUEUE)
			app_send(s, 1 + rnd(rnd(2) ? 100 : 32 << 10));
	}
}

/* The applications send no more: all that was sent arrives. */
static void settle(void)
{
	for (int k = 0; k < 200000; k++)
		if (side[0].sent == side[1].got && side[1].sent == side[0].got)
			break;
		else
			one_thing(0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(side[i].sent, side[!i].got, "side %d: %lu sent, %lu arrived", i,
			     (unsigned long)side[i].sent, (unsigned long)side[!i].got);
}

/* Phases in which nobody sends let TCP run empty, so that the stream changes its way often. */
static void streams(int coherent, uint32_t first)
{
	uint64_t relayed = 0, tcp = 0, held = 0;

	for (uint32_t seed = first; seed < first + 60; seed++) {
		open_model(coherent, seed);
		for (int k = 0; k < 6000; k++)
			one_thing(k % 600 < 300);
		settle();
		for (int i = 0; i < 2; i++) {
			relayed += side[i].relayed;
			tcp += side[i].tcp_sent;
			held += side[i].slot.held;
			cr_expect_eq(side[i].e.state, END_OPEN);
		}
		close_model();
	}
	cr_expect_gt(relayed, 0);
	cr_expect_gt(tcp, 0);
	cr_expect_gt(held, 0);
}

Test(relay, streams_over_mapped_memory_arrive_in_order)
{
	streams(1, 1);
}

Test(relay, streams_over_memory_that_is_only_moved_arrive_in_order)
{
	streams(0, 100);
}

/* ---------------------------------------------------------------- bounds and ends */

/* A writer whose reader does not read: what is redirected and unread stays within the bound. */
Test(relay, memory_is_bounded_without_a_reader)
{
	open_model(1, 5);
	for (int k = 0; k < 20000; k++) {
		now += 1000;
		relay_runs(0);
		relay_runs(1);
		if (side[0].sent < 4 * QUEUE)
			app_send(&side[0], 1 + rnd(16 << 10));
		tcp_out(&side[0], 64 << 10);
	}
	cr_expect_gt(side[0].relayed, 0);
	cr_expect_leq(side[0].relayed, BOUND);
	cr_expect_leq(left(&side[1].psock), BUDGET + RELAY_PIECE);
	settle();
	close_model();
}

/* The partner's relay stands still: nothing may overtake what is in its ring. */
Test(relay, tcp_waits_for_a_relay_that_stands_still)
{
	open_model(1, 6);
	for (int k = 0; k < 50; k++) {
		relay_runs(0);
		relay_runs(1);
	}
	stopped = 1;
	for (int k = 0; k < 2000; k++) {
		now += 100000;
		relay_runs(0);
		if (side[0].sent < 2 * QUEUE)
			app_send(&side[0], 1 + rnd(16 << 10));
		tcp_out(&side[0], 64 << 10);
		app_read(&side[1], &side[0], 64 << 10);
	}
	cr_expect_gt(left(&side[0].wire), 0);
	cr_expect_gt(side[0].slot.held, 0);
	cr_expect_neq(side[0].slot.redirected, side[0].slot.delivered);
	cr_expect_eq(side[0].e.state, END_OPEN);
	stopped = -1;
	settle();
	close_model();
}

static void both_drain(void)
{
	for (int k = 0; k < 20000; k++) {
		now += 1000000;
		one_thing(k < 1000);
		if (side[0].e.state == END_DONE && side[1].e.state == END_DONE)
			break;
		/* a partner that drained says goodbye, as relay.c does */
		for (int i = 0; i < 2; i++)
			if (side[i].e.state == END_DONE)
				relay_end_farewell(&side[i].e);
	}
}

Test(relay, a_drain_goes_back_to_tcp_without_losing_a_byte)
{
	for (uint32_t seed = 1; seed < 40; seed++) {
		open_model(seed & 1, seed);
		for (int k = 0; k < 500; k++)
			one_thing(1);
		relay_end_drain(&side[0].e, now);
		both_drain();
		cr_assert_eq(side[0].e.state, END_DONE, "seed %u", seed);
		cr_assert_eq(side[1].e.state, END_DONE, "seed %u", seed);
		settle();
		close_model();
	}
}

/* A relay that died: what its ring holds is lost, so the writer's connection must not go on. */
Test(relay, a_partner_that_is_gone_with_bytes_breaks_the_connection)
{
	open_model(1, 9);
	for (int k = 0; k < 50; k++) {
		relay_runs(0);
		relay_runs(1);
	}
	stopped = 1;
	app_send(&side[0], 1000);
	while (!side[0].relayed)
		app_send(&side[0], 1000);
	for (int k = 0; k < 10; k++)
		relay_runs(0);
	relay_end_farewell(&side[1].e);
	for (int k = 0; k < 100; k++) {
		now += 1000000;
		relay_runs(0);
	}
	cr_expect_eq(side[0].e.state, END_BROKEN);
	cr_expect_eq(side[0].slot.state, ISM_RELAY_BROKEN);
	close_model();
}

Test(relay, a_partner_that_is_gone_without_bytes_leaves_the_connection_to_tcp)
{
	open_model(1, 10);
	for (int k = 0; k < 200; k++)
		one_thing(1);
	settle();
	for (int k = 0; k < 50; k++) {
		relay_runs(0);
		relay_runs(1);
	}
	relay_end_farewell(&side[1].e);
	stopped = 1;
	for (int k = 0; k < 100; k++) {
		now += 1000000;
		relay_runs(0);
	}
	cr_expect_eq(side[0].e.state, END_DONE);
	close_model();
}

/* So long that the kernel gives up the FIN that is held back: the reader gets all bytes, and a reset behind them. */
Test(relay, an_end_that_never_left_is_a_reset_behind_the_last_byte)
{
	open_model(1, 12);
	for (int k = 0; k < 50; k++) {
		relay_runs(0);
		relay_runs(1);
	}
	stopped = 1;
	while (!side[0].relayed)
		app_send(&side[0], 1000);
	relay_runs(0);
	side[0].slot.held++;
	side[0].slot.sk_state = 0;
	for (int k = 0; k < 10; k++)
		relay_runs(0);
	cr_expect_eq(side[0].e.state, END_DRAINING);
	stopped = -1;
	for (int k = 0; k < 50; k++) {
		relay_runs(1);
		relay_runs(0);
	}
	cr_expect_eq(side[0].e.state, END_BROKEN);
	cr_expect_eq(side[0].e.kick, 0);
	relay_end_farewell(&side[0].e);
	for (int k = 0; k < 100; k++) {
		now += 1000000;
		relay_runs(1);
	}
	cr_expect_eq(side[1].e.state, END_BROKEN);
	app_read(&side[1], &side[0], QUEUE);
	cr_expect_eq(side[1].got, side[0].relayed);
	close_model();
}

Test(relay, a_cursor_beyond_what_was_written_breaks_the_connection)
{
	open_model(1, 11);
	for (int k = 0; k < 10; k++) {
		relay_runs(0);
		relay_runs(1);
	}
	__atomic_store_n(&ism_dmb_rx(side[0].mem)->cons, 1000, __ATOMIC_RELEASE);
	while (!side[0].relayed)
		app_send(&side[0], 10);
	for (int k = 0; k < 4; k++)
		relay_runs(0);
	cr_expect_eq(side[0].e.state, END_BROKEN);
	close_model();
}

Test(relay, a_reader_that_claims_more_than_it_was_given_is_not_believed)
{
	open_model(1, 12);
	relay_runs(0);
	relay_runs(1);
	__atomic_store_n(&ism_dmb_rx(side[0].mem)->read, ~0ULL, __ATOMIC_RELEASE);
	relay_end_step(&side[0].e, now);
	cr_expect_leq(side[0].slot.read, side[0].e.ring.sent);
	close_model();
}

Test(relay, a_sleeper_is_rung_for_once)
{
	open_model(1, 13);
	for (int k = 0; k < 10; k++) {
		relay_runs(0);
		relay_runs(1);
	}
	side[1].bells = 0;
	cr_expect_eq(relay_end_arm(&side[1].e), 0);
	stopped = 1;
	side[0].slot.state = ISM_RELAY_OPEN;
	for (int k = 0; k < 10; k++) {
		app_send(&side[0], 100);
		relay_runs(0);
	}
	cr_expect_gt(side[0].e.ring.sent, 0);
	cr_expect_eq(side[1].bells, 1);
	close_model();
}

Test(relay, what_comes_between_looking_and_sleeping_is_seen)
{
	open_model(1, 14);
	for (int k = 0; k < 10; k++) {
		relay_runs(0);
		relay_runs(1);
	}
	stopped = 1;
	while (!side[0].e.ring.sent) {
		app_send(&side[0], 100);
		relay_runs(0);
	}
	cr_expect_eq(relay_end_arm(&side[1].e), 1);
	close_model();
}
