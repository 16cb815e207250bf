// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Fuzzes the ring: the bytes say what two ends do, and what a hostile partner writes into the DMBs.
 * Until the first lie every byte must arrive as it was sent; after it nothing may leave the ring.
 */
#define _GNU_SOURCE
#include "../ring/dmbs.h"

#define SIZE ISM_RING_MIN
#define SEED 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct ring_end end[2]; /* 0 writes, 1 reads */
static uint64_t sent, got;
static int honest;

static void must(int cond)
{
	if (!cond)
		abort();
}

static void within(const struct iovec v[2], void *dmb, size_t len)
{
	uint8_t *ring = ism_dmb_ring(dmb);

	must(v[0].iov_len <= SIZE && v[1].iov_len <= SIZE);
	must(v[0].iov_len + v[1].iov_len == len && len <= SIZE);
	for (int i = 0; i < 2; i++)
		must((uint8_t *)v[i].iov_base >= ring &&
		     (uint8_t *)v[i].iov_base + v[i].iov_len <= ring + SIZE);
}

static void do_write(size_t len)
{
	struct ring_end *e = &end[0];
	struct ism_ring_tx was = e->tx;
	ssize_t room = ism_ring_tx_room(&e->tx, e->own, len);
	struct iovec v[2];
	size_t n, at = sent;

	must(room <= (ssize_t)SIZE);
	if (room < 0) {
		must(!honest && !memcmp(&was, &e->tx, sizeof(was)));
		return;
	}
	n = ism_ring_tx_spans(&e->tx, e->peer, len, v);
	must(n <= len && n <= (size_t)room);
	within(v, e->peer, n);
	for (int i = 0; i < 2; i++) {
		pattern_fill(SEED, at, v[i].iov_base, v[i].iov_len);
		at += v[i].iov_len;
	}
	ism_ring_tx_advance(&e->tx, n);
	must(e->tx.tail >= was.tail && e->tx.tail - e->tx.cons <= SIZE);
	sent += n;
}

static void do_read(size_t off, size_t len)
{
	struct ring_end *e = &end[1];
	struct ism_ring_rx was = e->rx;
	ssize_t n = ism_ring_rx_poll(&e->rx, e->own);
	struct iovec v[2];

	if (n < 0) {
		must(!honest && !memcmp(&was, &e->rx, sizeof(was)));
		return;
	}
	must(n <= (ssize_t)SIZE && e->rx.head >= was.head && e->rx.tail >= was.tail);
	must(!honest || got + n <= sent);
	n = ism_ring_rx_spans(&e->rx, e->own, off, len, v);
	must(n <= (ssize_t)len);
	within(v, e->own, n);
	for (int i = 0, at = got + off; i < 2; at += v[i].iov_len, i++) {
		int64_t bad = pattern_check(SEED, at, v[i].iov_base, v[i].iov_len);

		must(bad < 0 || !honest);
	}
	if (off)
		return;
	ism_ring_rx_advance(&e->rx, n);
	got += n;
}

static void do_unread(uint64_t back)
{
	struct ring_end *e = &end[0];
	struct iovec v[2];
	ssize_t n = ism_ring_tx_unread(&e->tx, e->peer, e->tx.tail - back, v);
	uint64_t at = sent - n;

	if (n < 0)
		return;
	within(v, e->peer, n);
	for (int i = 0; i < 2 && honest; at += v[i].iov_len, i++)
		must(pattern_check(SEED, at, v[i].iov_base, v[i].iov_len) < 0);
}

/* The partner of either end writes one of its words. */
static void do_lie(int which, uint64_t value)
{
	struct ism_dmb_tx *tx = ism_dmb_tx(end[0].peer);
	struct ism_dmb_rx *rx = ism_dmb_rx(end[1].peer);

	honest = 0;
	switch (which & 3) {
	case 0:
		tx->prod = value;
		break;
	case 1:
		tx->prod += value << ISM_PROD_SHIFT;
		break;
	case 2:
		rx->cons = value;
		break;
	case 3:
		rx->cons += value;
		break;
	}
}

static void one(uint8_t op, uint64_t arg)
{
	switch (op & 7) {
	case 0:
	case 1:
		do_write(arg & 0x1ffff);
		break;
	case 2:
		do_read(0, arg & 0x1ffff);
		break;
	case 3:
		do_read(arg >> 16 & 0xffff, arg & 0xffff);
		break;
	case 4:
		end[0].tx.flags ^= arg & ~(uint64_t)ISM_PROD_REWIND & ISM_PROD_FLAGS;
		ism_ring_tx_publish(&end[0].tx, end[0].peer);
		break;
	case 5:
		if (arg & 1 || ism_ring_rx_due(&end[1].rx))
			ism_ring_rx_publish(&end[1].rx, end[1].peer);
		break;
	case 6:
		do_unread(arg & 0x3ffff);
		break;
	case 7:
		do_lie(op >> 3, op & 0x80 ? arg : (uint64_t)(int64_t)(int16_t)arg);
		break;
	}
}

static void prepare(void)
{
	static struct ring_mem mem;

	if (!mem.size[0]) {
		ring_mem_make(&mem, SIZE, SIZE);
		ring_end_open(&end[0], &mem, 0);
		ring_end_open(&end[1], &mem, 1);
	}
	for (int i = 0; i < 2; i++) {
		ring_end_init(&end[i], &mem, i);
		memset(end[!i].peer, 0, ISM_DMB_RING_OFF);
		ism_ring_tx_publish(&end[i].tx, end[i].peer);
	}
	sent = got = 0;
	honest = 1;
}

/* An operation is a byte and its argument: two bytes, or eight where the top bit is set. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	prepare();
	while (size) {
		uint8_t op = *data++;
		size_t n = op & 0x80 ? 8 : 2;
		uint64_t arg = 0;

		if (--size < n)
			break;
		memcpy(&arg, data, n);
		data += n;
		size -= n;
		one(op, arg);
	}
	return 0;
}
