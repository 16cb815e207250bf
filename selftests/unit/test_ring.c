// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The byte ring in one thread: cursors, spans, rewinding, re-sending, and a partner that lies. */
#include "unit.h"
#include "../ring/dmbs.h"

#define SIZE ISM_RING_MIN
#define SEED 42

/* Bytes go from end 0 to end 1; @w and @r are how many so far. */
static struct ring_mem mem;
static struct ring_end end[2];
static uint64_t w, r;

static void open_ring(void)
{
	ring_mem_make(&mem, SIZE, SIZE);
	ring_end_open(&end[0], &mem, 0);
	ring_end_open(&end[1], &mem, 1);
	w = r = 0;
}

static void close_ring(void)
{
	ring_end_close(&end[0]);
	ring_end_close(&end[1]);
	close(mem.fd[0]);
	close(mem.fd[1]);
}

TestSuite(ring, .init = open_ring, .fini = close_ring);

/* Write up to @len bytes of the stream and publish; how many there was room for. */
static ssize_t put(size_t len)
{
	static uint8_t buf[4 * SIZE];
	ssize_t n;

	cr_assert_leq(len, sizeof(buf));
	pattern_fill(SEED, w, buf, len);
	n = ism_ring_tx_write(&end[0].tx, end[0].own, end[0].peer, buf, len);
	if (n > 0)
		w += n;
	ism_ring_tx_publish(&end[0].tx, end[0].peer);
	return n;
}

static void check_spans(const struct iovec v[2])
{
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(pattern_check(SEED, r, v[i].iov_base, v[i].iov_len), -1);
		r += v[i].iov_len;
	}
}

/* Read and verify up to @len bytes, without telling the writer. */
static ssize_t get(size_t len)
{
	struct iovec v[2];
	ssize_t n = ism_ring_rx_poll(&end[1].rx, end[1].own);

	if (n < 0)
		return n;
	n = ism_ring_rx_spans(&end[1].rx, end[1].own, 0, len, v);
	check_spans(v);
	ism_ring_rx_advance(&end[1].rx, n);
	return n;
}

static void tell(void)
{
	ism_ring_rx_publish(&end[1].rx, end[1].peer);
}

static ssize_t room(size_t want)
{
	return ism_ring_tx_room(&end[0].tx, end[0].own, want);
}

static uint64_t *prod(void)
{
	return (uint64_t *)&ism_dmb_tx(end[0].peer)->prod;
}

static uint64_t *cons(void)
{
	return (uint64_t *)&ism_dmb_rx(end[1].peer)->cons;
}

Test(ring, a_new_one_is_empty_and_says_tcp)
{
	struct ism_ring_tx tx;
	struct ism_ring_rx rx;

	ism_ring_tx_init(&tx, SIZE);
	ism_ring_rx_init(&rx, SIZE);
	cr_expect_eq(tx.flags, ISM_PROD_TCP);
	cr_expect_eq(rx.word, ISM_PROD(0, ISM_PROD_TCP));
	cr_expect_eq(room(1), SIZE);
	cr_expect_eq(get(1), 0);
	cr_expect_eq(ism_ring_rx_due(&end[1].rx), 0);
}

/* Every place of both ends within a line, and around the end of the ring. */
Test(ring, copies_around_the_caches_are_the_same)
{
	end[0].tx.bypass = 1;
	for (size_t len = ISM_RING_BYPASS_MIN - 1; len < ISM_RING_BYPASS_MIN + 200; len += 3) {
		for (int i = 0; i < 70; i++) {
			cr_assert_eq(put(1), 1);
			cr_assert_eq(put(len), len);
			cr_assert_eq(put(63), 63);
			cr_assert_eq(get(SIZE), len + 64);
			tell();
			cr_assert_eq(room(SIZE), SIZE);
		}
	}
	cr_expect_eq(put(SIZE), SIZE);
	cr_expect_eq(get(SIZE), SIZE);
}

/* With bytes before and behind that are not to be touched, from any place to any place. */
Test(ring, copies_around_the_caches_touch_nothing_else)
{
	static uint8_t from[2048 + 64];
	const size_t len = 1100;
	uint8_t *ring = ism_dmb_ring(end[0].peer);
	struct ism_ring_tx *tx = &end[0].tx;

	pattern_fill(SEED, 0, from, sizeof(from));
	for (size_t i = 0; i < 64 * 64; i++) {
		size_t to = 64 + i / 64, at = i % 64;

		memset(ring, 0xa5, 4096);
		tx->bypass = 1;
		tx->tail = tx->cons = to;
		cr_assert_eq(ism_ring_tx_write(tx, end[0].own, end[0].peer, from + at, len), len);
		cr_assert_eq(memcmp(ring + to, from + at, len), 0, "%zu to %zu", at, to);
		for (size_t k = 0; k < 4096; k++)
			cr_assert(ring[k] == 0xa5 || (k >= to && k < to + len), "%zu", k);
	}
}

Test(ring, a_reader_sees_only_what_is_published)
{
	cr_assert_eq(ism_ring_tx_write(&end[0].tx, end[0].own, end[0].peer, "abc", 3), 3);
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), 0);
	ism_ring_tx_publish(&end[0].tx, end[0].peer);
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), 3);
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), 3, "polling consumes nothing");
}

Test(ring, full_then_empty)
{
	cr_assert_eq(put(SIZE + 1), SIZE);
	cr_expect_eq(room(1), 0);
	cr_expect_eq(put(1), 0);
	cr_assert_eq(get(SIZE + 1), SIZE);
	cr_expect_eq(get(1), 0);
	cr_expect_eq(room(1), 0, "nothing was told yet");
	tell();
	cr_expect_eq(room(1), SIZE);
}

Test(ring, full_by_single_bytes)
{
	for (unsigned int i = 0; i < SIZE; i++)
		cr_assert_eq(put(1), 1);
	cr_expect_eq(put(1), 0);
	for (unsigned int i = 0; i < SIZE; i++)
		cr_assert_eq(get(1), 1);
	cr_expect_eq(get(1), 0);
}

Test(ring, spans_split_at_the_end)
{
	struct iovec v[2];

	cr_assert_eq(put(SIZE - 100), SIZE - 100);
	cr_assert_eq(get(SIZE - 1100), SIZE - 1100);
	tell();
	cr_assert_eq(room(SIZE), SIZE - 1000);
	cr_assert_eq(ism_ring_tx_spans(&end[0].tx, end[0].peer, 300, v), 300);
	cr_expect_eq(v[0].iov_len, 100);
	cr_expect_eq(v[0].iov_base, ism_dmb_ring(end[0].peer) + SIZE - 100);
	cr_expect_eq(v[1].iov_len, 200);
	cr_expect_eq(v[1].iov_base, ism_dmb_ring(end[0].peer));
	cr_assert_eq(put(300), 300);
	cr_assert_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), 1300);
	/* from the middle, as MSG_PEEK with an offset does */
	cr_assert_eq(ism_ring_rx_spans(&end[1].rx, end[1].own, 1050, 100, v), 100);
	cr_expect_eq(v[0].iov_len, 50);
	cr_expect_eq(v[1].iov_len, 50);
	cr_assert_eq(ism_ring_rx_spans(&end[1].rx, end[1].own, 1250, 100, v), 50);
	cr_expect_eq(v[0].iov_len, 50);
	cr_expect_eq(v[1].iov_len, 0);
	cr_expect_eq(ism_ring_rx_spans(&end[1].rx, end[1].own, 5000, 100, v), 0);
	cr_assert_eq(get(SIZE), 1300);
}

Test(ring, spans_are_cut_to_the_known_room)
{
	struct iovec v[2];

	cr_assert_eq(put(SIZE - 10), SIZE - 10);
	cr_expect_eq(ism_ring_tx_spans(&end[0].tx, end[0].peer, 100, v), 10);
	cr_expect_eq(v[0].iov_len + v[1].iov_len, 10);
	cr_expect_eq(ism_ring_tx_spans(&end[0].tx, end[0].peer, 0, v), 0);
	cr_expect_eq(v[0].iov_len + v[1].iov_len, 0);
}

Test(ring, the_cursor_is_due_at_a_quarter_or_when_idle)
{
	struct ism_ring_rx *rx = &end[1].rx;

	put(ISM_RING_TELL - 1);
	get(SIZE);
	cr_expect_eq(ism_ring_rx_due(rx), 0, "too little for telling");
	put(1);
	get(1);
	cr_expect_neq(ism_ring_rx_due(rx), 0, "idle with enough untold");
	tell();
	cr_expect_eq(ism_ring_rx_due(rx), 0);
	put(SIZE / 2);
	get(SIZE / 4 - 1);
	cr_expect_eq(ism_ring_rx_due(rx), 0);
	get(1);
	cr_expect_neq(ism_ring_rx_due(rx), 0);
	tell();
	cr_expect_eq(ism_ring_rx_due(rx), 0);
}

Test(ring, the_cursor_is_read_again_only_when_needed)
{
	put(8000);
	get(8000);
	tell();
	cr_expect_eq(room(1), SIZE - 8000, "known to be enough");
	cr_expect_eq(room(SIZE), SIZE);
	/* far enough in, it is read at once: an empty ring may be rewound */
	put(ISM_RING_REWIND);
	get(ISM_RING_REWIND);
	tell();
	cr_expect_eq(room(1), SIZE);
}

Test(ring, rewind_of_an_empty_ring)
{
	struct ism_ring_tx *tx = &end[0].tx;

	for (int i = 0; i < 5; i++) {
		unsigned int flags = tx->flags;

		put(ISM_RING_REWIND + 5);
		get(SIZE);
		tell();
		cr_assert_eq(room(1), SIZE);
		put(10);
		cr_expect_eq(tx->tail & (SIZE - 1), 10, "round %d", i);
		cr_expect_eq(tx->flags ^ flags, ISM_PROD_REWIND, "it toggles");
		cr_assert_eq(get(SIZE), 10);
		tell();
	}
	cr_expect_eq(room(SIZE), SIZE);
}

Test(ring, no_rewind_before_the_threshold)
{
	put(ISM_RING_REWIND - 1);
	get(SIZE);
	tell();
	room(SIZE);
	put(1);
	cr_expect_eq(end[0].tx.tail, ISM_RING_REWIND);
	cr_expect_eq(end[0].tx.flags, 0);
}

Test(ring, no_rewind_while_bytes_are_unread)
{
	put(ISM_RING_REWIND + 100);
	get(ISM_RING_REWIND + 99);
	tell();
	room(1);
	put(1);
	cr_expect_eq(end[0].tx.tail, ISM_RING_REWIND + 101);
	cr_expect_eq(end[0].tx.flags, 0);
	cr_assert_eq(get(SIZE), 2);
}

Test(ring, a_reader_that_lags_behind_a_rewind)
{
	put(20000);
	get(20000);
	tell();
	room(1);
	/* rewound; the reader has not looked and still says 20000 */
	put(SIZE);
	cr_expect_eq(end[0].tx.tail, 2 * SIZE);
	cr_expect_eq(room(1), 0);
	cr_expect_eq(room(SIZE), 0);
	cr_assert_eq(get(SIZE), SIZE);
	cr_expect_eq(room(1), 0);
	tell();
	cr_expect_eq(room(1), SIZE);
	cr_expect_eq(end[0].tx.cons, 2 * SIZE);
}

Test(ring, a_reader_that_tells_before_it_reads_what_came_after_a_rewind)
{
	put(20000);
	get(20000);
	tell();
	room(1);
	put(100);
	cr_assert_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), 100);
	tell();
	cr_expect_eq(*cons(), SIZE);
	cr_expect_eq(room(SIZE), SIZE - 100);
	cr_assert_eq(get(100), 100);
	tell();
	cr_expect_eq(room(SIZE), SIZE);
}

Test(ring, a_rewind_that_carries_no_byte)
{
	struct iovec v[2];

	put(20000);
	get(20000);
	tell();
	room(1);
	/* the spans were asked for, but then nothing was written (EFAULT, say): only a flag goes out */
	ism_ring_tx_spans(&end[0].tx, end[0].peer, 1, v);
	end[0].tx.flags |= ISM_PROD_FIN;
	ism_ring_tx_publish(&end[0].tx, end[0].peer);
	cr_expect_eq(get(1), 0);
	cr_expect_neq(end[1].rx.word & ISM_PROD_FIN, 0);
	cr_expect_eq(end[1].rx.head, SIZE);
}

Test(ring, flags_come_with_the_cursor)
{
	put(10);
	end[0].tx.flags |= ISM_PROD_FIN;
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), 10);
	cr_expect_eq(end[1].rx.word & ISM_PROD_FLAGS, 0, "not published");
	put(5);
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), 15);
	cr_expect_eq(end[1].rx.word & ISM_PROD_FLAGS, ISM_PROD_FIN);
	end[0].tx.flags = ISM_PROD_TCP | ISM_PROD_ABORT;
	ism_ring_tx_publish(&end[0].tx, end[0].peer);
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), 15);
	cr_expect_eq(end[1].rx.word & ISM_PROD_FLAGS, ISM_PROD_TCP | ISM_PROD_ABORT);
	cr_expect_eq(ism_ring_word(end[1].own), end[1].rx.word);
	cr_assert_eq(get(SIZE), 15);
}

/* What is unread is where the writer left it, whatever was told meanwhile. */
static void expect_unread(uint64_t from, size_t len)
{
	struct iovec v[2];
	uint64_t at = w - len;

	cr_assert_eq(ism_ring_tx_unread(&end[0].tx, end[0].peer, from, v), (ssize_t)len);
	cr_assert_eq(v[0].iov_len + v[1].iov_len, len);
	for (int i = 0; i < 2; i++) {
		cr_expect_eq(pattern_check(SEED, at, v[i].iov_base, v[i].iov_len), -1);
		at += v[i].iov_len;
	}
}

Test(ring, unread_bytes_can_be_sent_again)
{
	put(50000);
	expect_unread(0, 50000);
	expect_unread(49999, 1);
	expect_unread(50000, 0);
	get(45000);
	tell();
	room(SIZE);
	put(30000); /* wraps */
	expect_unread(45000, 35000);
	expect_unread(66000, 14000);
}

Test(ring, unread_bytes_of_a_reader_that_lags_behind_a_rewind)
{
	put(20000);
	get(20000);
	tell();
	room(1);
	put(300);
	expect_unread(20000, 300);
	expect_unread(SIZE, 300);
	expect_unread(SIZE + 100, 200);
}

Test(ring, unread_outside_of_the_window_is_refused)
{
	struct iovec v[2];

	put(50000);
	get(40000);
	tell();
	room(SIZE);
	cr_expect_eq(ism_ring_tx_unread(&end[0].tx, end[0].peer, 39999, v), -EPROTO);
	cr_expect_eq(ism_ring_tx_unread(&end[0].tx, end[0].peer, 50001, v), -EPROTO);
	cr_expect_eq(ism_ring_tx_unread(&end[0].tx, end[0].peer, ~0ULL, v), -EPROTO);
}

/* ---------------------------------------------------------------- a partner that lies */

static void expect_bad_word(uint64_t word)
{
	struct ism_ring_rx before = end[1].rx;

	*prod() = word;
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), -EPROTO, "word %#llx",
		     (unsigned long long)word);
	cr_expect_arr_eq(&before, &end[1].rx, sizeof(before), "the state is as it was");
}

Test(ring, producer_words_that_are_nonsense)
{
	put(30000);
	get(20000);
	expect_bad_word(ISM_PROD(29999, 0)); /* backwards */
	expect_bad_word(ISM_PROD(0, 0));
	expect_bad_word(ISM_PROD(20000 + SIZE + 1, 0)); /* more than fits */
	expect_bad_word(ISM_PROD(1ULL << 40, 0));
	expect_bad_word(~0ULL);
	expect_bad_word(~0ULL ^ ISM_PROD_REWIND);
	expect_bad_word(ISM_PROD(30000, ISM_PROD_REWIND)); /* rewind of a ring that is not empty */
	expect_bad_word(ISM_PROD(SIZE + 10, ISM_PROD_REWIND));
	*prod() = ISM_PROD(20000 + SIZE, 0); /* exactly full is not nonsense */
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), SIZE);
}

Test(ring, rewinds_that_are_nonsense)
{
	put(20000);
	get(20000);
	expect_bad_word(ISM_PROD(SIZE, ISM_PROD_REWIND)); /* empty, but the writer was not told */
	tell();
	expect_bad_word(ISM_PROD(20010, ISM_PROD_REWIND)); /* not rounded up */
	expect_bad_word(ISM_PROD(SIZE - 1, ISM_PROD_REWIND));
	expect_bad_word(ISM_PROD(2 * SIZE + 1, ISM_PROD_REWIND));
	expect_bad_word(ISM_PROD(20000 + SIZE + 1, 0)); /* rounded up, not said */
	*prod() = ISM_PROD(2 * SIZE, ISM_PROD_REWIND);
	cr_expect_eq(ism_ring_rx_poll(&end[1].rx, end[1].own), SIZE);
}

static void expect_bad_cons(uint64_t c)
{
	struct ism_ring_tx before = end[0].tx;

	*cons() = c;
	cr_expect_eq(room(SIZE), -EPROTO, "cursor %llu", (unsigned long long)c);
	cr_expect_eq(ism_ring_tx_write(&end[0].tx, end[0].own, end[0].peer, "x", SIZE), -EPROTO);
	cr_expect_arr_eq(&before, &end[0].tx, sizeof(before), "the state is as it was");
}

Test(ring, consumer_cursors_that_are_nonsense)
{
	put(50000);
	get(40000);
	tell();
	room(SIZE);
	expect_bad_cons(39999); /* backwards */
	expect_bad_cons(1);
	expect_bad_cons(50001); /* beyond what was written */
	expect_bad_cons(50000 + SIZE);
	expect_bad_cons(~0ULL);
	expect_bad_cons(1ULL << 63);
	*cons() = 50000;
	cr_expect_eq(room(SIZE), SIZE);
}

Test(ring, consumer_cursors_that_are_nonsense_after_a_rewind)
{
	put(20000);
	get(20000);
	tell();
	room(1);
	put(100);
	expect_bad_cons(19999);
	expect_bad_cons(20001);
	expect_bad_cons(SIZE - 1);
	expect_bad_cons(SIZE + 101);
	*cons() = 20000; /* has not looked yet */
	cr_expect_eq(room(SIZE), SIZE - 100);
	*cons() = SIZE + 50;
	cr_expect_eq(room(SIZE), SIZE - 50);
}

/* Any words at all: what comes out is a refusal or lies within the ring, and cursors never go back. */
Test(ring, garbage_words)
{
	uint64_t state = 77;
	int refused = 0;

	for (int i = 0; i < 200000; i++) {
		uint64_t x = unit_random(&state), head = end[1].rx.head;
		struct iovec v[2];
		ssize_t n;

		*prod() = x & 3 ? x >> (x >> 58) : end[1].rx.word + (x >> (x >> 58) >> 32);
		n = ism_ring_rx_poll(&end[1].rx, end[1].own);
		refused += n == -EPROTO;
		if (n < 0)
			continue;
		cr_assert_leq(n, (ssize_t)SIZE);
		cr_assert_geq(end[1].rx.head, head);
		n = ism_ring_rx_spans(&end[1].rx, end[1].own, 0, n, v);
		for (int k = 0; k < 2; k++) {
			volatile uint8_t *p = v[k].iov_base;

			cr_assert(v[k].iov_len <= SIZE && p >= ism_dmb_ring(end[1].own) &&
				  p + v[k].iov_len <= ism_dmb_ring(end[1].own) + SIZE);
			if (v[k].iov_len)
				(void)(p[0] + p[v[k].iov_len - 1]);
		}
		ism_ring_rx_advance(&end[1].rx, n);
		if (x & 4)
			tell();
	}
	cr_expect_gt(refused, 1000);
	cr_expect_gt(end[1].rx.head, 0, "some of it was plausible");
}

/* ---------------------------------------------------------------- long runs */

Test(ring, random_sizes_stay_exact)
{
	uint64_t state = 5, rewinds = 0;

	for (int i = 0; i < 60000; i++) {
		unsigned int flags = end[0].tx.flags;
		uint64_t x = unit_random(&state);
		size_t len = (x >> 8) % ((x & 7) == 0 ? 2 * SIZE : 3000);

		if (x & 64) {
			cr_assert_geq(put(len), 0);
			rewinds += (flags ^ end[0].tx.flags) != 0;
		} else {
			cr_assert_geq(get(x & 128 ? SIZE : len), 0);
			if (ism_ring_rx_due(&end[1].rx))
				tell();
		}
		cr_assert_leq(w - r, SIZE);
	}
	while (get(SIZE) > 0)
		;
	cr_expect_eq(w, r);
	cr_expect_gt(w, 50ULL * SIZE, "many rounds");
	cr_expect_gt(rewinds, 100);
}

Test(ring, the_rest_of_the_dmb_is_untouched)
{
	uint8_t *head = end[0].peer, was[ISM_DMB_RING_OFF];

	memset(head, 0xa5, ISM_DMB_TX_OFF);
	memset(head + ISM_DMB_RX_OFF, 0xa5, ISM_DMB_RING_OFF - ISM_DMB_RX_OFF);
	memcpy(was, head, sizeof(was));
	for (int i = 0; i < 100; i++) {
		put(SIZE - i);
		get(SIZE);
		tell();
		room(SIZE);
	}
	*prod() = ((struct ism_dmb_tx *)(was + ISM_DMB_TX_OFF))->prod;
	cr_expect_arr_eq(head, was, sizeof(was));
}
