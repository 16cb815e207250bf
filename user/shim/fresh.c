// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Connections that have not said much yet. Most end before rings are asked for, so until then there is nothing
 * of them but their entry in the table of descriptors: no conn, no slot. Only what moves bytes or closes treats
 * them so, and only while this process has one thread; whoever else looks up such a descriptor, before fork(),
 * in dup(), for a set, with a second thread, makes it a candidate first (ism_fd_get()).
 *
 * An entry changes by compare-and-exchange, as a signal handler may use, close or settle what its thread is in
 * the middle of.
 */
#include "shim.h"

/* The entry: kind, tasks inside the kernel, messages, bytes, generation. */
#define RX_SHIFT    4
#define TX_SHIFT    8
#define INSIDE_MAX  15
#define MSGS_SHIFT  12
#define MSGS_MAX    0xfffu
#define BYTES_SHIFT 24
#define BYTES_MAX   0xffffffu
#define GEN_SHIFT   48

_Static_assert(sizeof(ism_fd_t) == 8, "an entry has 64 bits");

static uint32_t generation;

static uint32_t inside_shift(enum fresh_way way)
{
	return way == FRESH_RX ? RX_SHIFT : TX_SHIFT;
}

static uint32_t inside(ism_fd_t e, enum fresh_way way)
{
	return e >> inside_shift(way) & INSIDE_MAX;
}

static uint32_t msgs(ism_fd_t e)
{
	return e >> MSGS_SHIFT & MSGS_MAX;
}

static uint32_t bytes(ism_fd_t e)
{
	return e >> BYTES_SHIFT & BYTES_MAX;
}

static uint32_t gen(ism_fd_t e)
{
	return e >> GEN_SHIFT;
}

/* As conn.c's due(), or counted as far as there is room. */
static int is_due(ism_fd_t e)
{
	return msgs(e) >= ism_after_msgs || bytes(e) >= ism_after_bytes || msgs(e) == MSGS_MAX ||
	       bytes(e) == BYTES_MAX;
}

int fresh_start(int fd)
{
	if (!__libc_single_threaded || (unsigned int)fd >= ISM_FD_MAX)
		return 0;
	generation = generation % 0xffff + 1; /* never 0 */
	ism_fd_set(fd, ISM_FD_FRESH, (void *)((uintptr_t)generation << GEN_SHIFT));
	return 1;
}

ism_fd_t ism_fd_settle(int fd, ism_fd_t e)
{
	struct ism_slot *s;
	struct conn *c;

	while (ISM_FD_KIND(e) == ISM_FD_FRESH) {
		c = atomic_load(&ism_disabled) ? NULL : conn_alloc();
		if (c) {
			s = c->slot;
			c->gen = gen(e);
			atomic_store_explicit(&c->fd_hint, fd, memory_order_relaxed);
			atomic_store_explicit(&s->msgs, msgs(e), memory_order_relaxed);
			atomic_store_explicit(&s->bytes, bytes(e), memory_order_relaxed);
			atomic_store_explicit(&s->kernel_rx, inside(e, FRESH_RX),
					      memory_order_relaxed);
			atomic_store_explicit(&s->kernel_tx, inside(e, FRESH_TX),
					      memory_order_relaxed);
		}
		if (ism_fd_swap(fd, e, c ? ISM_FD_CONN : ISM_FD_NONE, c))
			return ism_fd_raw(fd);
		if (c)
			conn_free(c);
		e = ism_fd_raw(fd);
	}
	return e;
}

void fresh_settle_all(void)
{
	ism_fd_t e;

	for (int fd = ism_fd_next(0, ISM_FD_MAX); fd >= 0; fd = ism_fd_next(fd + 1, ISM_FD_MAX)) {
		e = ism_fd_raw(fd);
		if (ISM_FD_KIND(e) == ISM_FD_FRESH)
			ism_fd_settle(fd, e);
	}
}

uint32_t fresh_enter(int fd, ism_fd_t e, enum fresh_way way)
{
	ism_fd_t next;

	do {
		if (ISM_FD_KIND(e) != ISM_FD_FRESH || !__libc_single_threaded || is_due(e) ||
		    inside(e, way) == INSIDE_MAX)
			return 0;
		next = e + (1ULL << inside_shift(way));
	} while (!ism_swap64(&ism_fdtab[fd], &e, next));
	return gen(e);
}

static ism_fd_t counted(ism_fd_t e, ssize_t n)
{
	uint64_t all = bytes(e);

	if (n <= 0)
		return e;
	if (msgs(e) < MSGS_MAX)
		e += 1ULL << MSGS_SHIFT;
	all = (uint64_t)n < BYTES_MAX - all ? all + n : BYTES_MAX;
	return (e & ~((uint64_t)BYTES_MAX << BYTES_SHIFT)) | all << BYTES_SHIFT;
}

void fresh_leave(int fd, uint32_t was, enum fresh_way way, ssize_t n)
{
	ism_fd_t e = ism_fd_raw(fd), next;
	struct conn *c;

	while (ISM_FD_KIND(e) == ISM_FD_FRESH && gen(e) == was) {
		next = counted(e, n) - (1ULL << inside_shift(way));
		if (ism_swap64(&ism_fdtab[fd], &e, next))
			return;
	}
	/* It became a candidate meanwhile, and counts us; or was closed, and the number is another's. */
	if (ISM_FD_KIND(e) != ISM_FD_CONN)
		return;
	c = conn_of(fd);
	if (!c)
		return;
	if (c->gen == was && way == FRESH_RX)
		conn_rx_end(c, fd, n);
	else if (c->gen == was)
		conn_tx_end(c, fd, n);
	conn_done(c);
}
