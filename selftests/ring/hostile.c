// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * hostile: a process that may write a DMB writes whatever it likes there, while its owner goes on reading
 * and writing through the ring; beside it the same owner has an honest partner.
 *
 *   hostile SECONDS [SEED]
 *
 * The owner must never touch a byte outside of its mappings (there are guard pages around them, and the
 * sanitizers look on). A connection is given up at the first refusal and begun anew; the honest one must
 * stay exact. Exit status 1: it did not, or nothing was refused, or nothing was taken.
 */
#define _GNU_SOURCE
#include "dmbs.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define SIZE ISM_RING_MIN

struct counts {
	uint64_t refused_rx, refused_tx, taken, sent, honest;
};

static void die(const char *what)
{
	fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* ---------------------------------------------------------------- the partners */

/* A word near one that would be right, or anything. */
static uint64_t lie(uint64_t truth, uint64_t x)
{
	switch (x & 7) {
	case 0:
		return x;
	case 1:
		return ~0ULL >> (x >> 58);
	case 2:
		return truth + (1ULL << (x >> 58));
	case 3:
		return truth - ((x >> 8) & 0xffff);
	case 4:
		return truth ^ (x >> 56);
	case 5:
		return truth + (((x >> 8) % (SIZE + 10)) << ISM_PROD_SHIFT);
	default:
		return truth + ((x >> 8) & 0xfff);
	}
}

/* Write nonsense into the victim's DMB, now and then all over it. */
static _Noreturn void lie_on(void *peer, uint64_t seed)
{
	uint64_t state = seed | 1, *word = peer;
	size_t words = ism_dmb_len(SIZE) / 8;

	for (;;) {
		uint64_t x = pattern_random(&state), y = pattern_random(&state);

		if (x % 7 < 3)
			word = (uint64_t *)&ism_dmb_tx(peer)->prod;
		else if (x % 7 < 5)
			word = (uint64_t *)&ism_dmb_rx(peer)->cons;
		else if (x % 7 < 6)
			word = (uint64_t *)peer + 16 + (x >> 8) % 32; /* any control word */
		else
			word = (uint64_t *)peer + (x >> 8) % words;
		__atomic_store_n(word, lie(__atomic_load_n(word, __ATOMIC_RELAXED), y),
				 __ATOMIC_RELAXED);
		if ((x & 0xff00) == 0)
			sched_yield();
	}
}

/* Send back what comes, as an honest partner. */
static _Noreturn void echo(struct ring_end *e)
{
	static uint8_t buf[SIZE];

	for (;;) {
		ssize_t n = ism_ring_rx_poll(&e->rx, e->own), done = 0;
		struct iovec v[2];

		if (n < 0)
			_exit(1);
		if (!n)
			sched_yield();
		n = ism_ring_rx_spans(&e->rx, e->own, 0, n, v);
		memcpy(buf, v[0].iov_base, v[0].iov_len);
		memcpy(buf + v[0].iov_len, v[1].iov_base, v[1].iov_len);
		ism_ring_rx_advance(&e->rx, n);
		ism_ring_rx_publish(&e->rx, e->peer);
		while (done < n) {
			ssize_t k =
				ism_ring_tx_write(&e->tx, e->own, e->peer, buf + done, n - done);

			if (k < 0)
				_exit(1);
			done += k;
			ism_ring_tx_publish(&e->tx, e->peer);
		}
	}
}

/* ---------------------------------------------------------------- the victim */

/* Reset both directions: a new connection in the same memory. */
static void begin_anew(struct ring_end *e, const struct ring_mem *m, void *own_rw)
{
	ring_end_init(e, m, 0);
	__atomic_store_n(&ism_dmb_tx(own_rw)->prod, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&ism_dmb_rx(own_rw)->cons, 0, __ATOMIC_RELEASE);
}

/* One look at the ring and one message; 0, or 1 when the partner's lie was noticed. */
static int suffer(struct ring_end *e, uint64_t *state, struct counts *n)
{
	static uint8_t buf[2 * SIZE];
	uint64_t x = pattern_random(state);
	ssize_t k = ism_ring_rx_poll(&e->rx, e->own);
	struct iovec v[2];

	if (k < 0)
		n->refused_rx++;
	if (k > 0) {
		k = ism_ring_rx_spans(&e->rx, e->own, x % 7 ? 0 : x >> 40, x & 1 ? SIZE : x % 5000,
				      v);
		memcpy(buf, v[0].iov_base, v[0].iov_len);
		memcpy(buf + v[0].iov_len, v[1].iov_base, v[1].iov_len);
		ism_ring_rx_advance(&e->rx, x % 7 ? k : 0);
		n->taken += k;
	}
	if (k >= 0 && ism_ring_rx_due(&e->rx))
		ism_ring_rx_publish(&e->rx, e->peer);
	if (k < 0)
		return 1;
	k = ism_ring_tx_write(&e->tx, e->own, e->peer, buf, x >> 20 & 0x1ffff);
	if (k < 0) {
		n->refused_tx++;
		return 1;
	}
	n->sent += k;
	ism_ring_tx_publish(&e->tx, e->peer);
	k = ism_ring_tx_unread(&e->tx, e->peer, e->tx.cons + (x >> 50), v);
	if (k > 0)
		memcpy(buf, v[0].iov_base, v[0].iov_len);
	return 0;
}

/* The honest connection: what comes back is what was sent. */
static void converse(struct ring_end *e, uint64_t *state, uint64_t *sent, struct counts *n)
{
	static uint8_t buf[4096];
	size_t len = pattern_random(state) % sizeof(buf);
	struct iovec v[2];
	ssize_t k;

	pattern_fill(7, *sent, buf, len);
	k = ism_ring_tx_write(&e->tx, e->own, e->peer, buf, *sent - n->honest > SIZE ? 0 : len);
	if (k < 0)
		die("the honest ring is refused (writing)");
	*sent += k;
	ism_ring_tx_publish(&e->tx, e->peer);
	k = ism_ring_rx_poll(&e->rx, e->own);
	if (k < 0)
		die("the honest ring is refused (reading)");
	ism_ring_rx_spans(&e->rx, e->own, 0, k, v);
	for (int i = 0; i < 2; i++) {
		if (pattern_check(7, n->honest, v[i].iov_base, v[i].iov_len) >= 0)
			die("a wrong byte on the honest ring");
		n->honest += v[i].iov_len;
	}
	ism_ring_rx_advance(&e->rx, k);
	ism_ring_rx_publish(&e->rx, e->peer);
}

static pid_t partner(const struct ring_mem *m, uint64_t seed)
{
	pid_t pid = fork();
	struct ring_end e;

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ring_end_open(&e, m, 1);
	if (seed)
		lie_on(e.peer, seed);
	echo(&e);
}

static void end_partner(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		die("a partner ended by itself");
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, state = seed * 2 + 1, sent = 0;
	struct ring_mem bad, good;
	struct ring_end victim, calm;
	struct counts n = { 0 };
	pid_t liar, friend;
	void *own_rw;
	double end;

	if (argc < 2 || atoi(argv[1]) <= 0) {
		fprintf(stderr, "usage: hostile SECONDS [SEED]\n");
		return 2;
	}
	ring_mem_make(&bad, SIZE, SIZE);
	ring_mem_make(&good, SIZE, SIZE);
	ring_end_open(&victim, &bad, 0);
	ring_end_open(&calm, &good, 0);
	own_rw = dmb_map(bad.fd[0], SIZE, PROT_READ | PROT_WRITE);
	liar = partner(&bad, seed + 1);
	friend = partner(&good, 0);
	for (end = now() + atoi(argv[1]); now() < end;) {
		for (int i = 0; i < 1000; i++) {
			if (suffer(&victim, &state, &n))
				begin_anew(&victim, &bad, own_rw);
			if (i % 16 == 0)
				converse(&calm, &state, &sent, &n);
		}
	}
	end_partner(liar);
	end_partner(friend);
	printf("%llu refusals reading, %llu writing; %llu MB taken, %llu MB sent; %llu MB exact beside\n",
	       (unsigned long long)n.refused_rx, (unsigned long long)n.refused_tx,
	       (unsigned long long)n.taken >> 20, (unsigned long long)n.sent >> 20,
	       (unsigned long long)n.honest >> 20);
	return !n.refused_rx || !n.refused_tx || !n.taken || !n.sent || !n.honest;
}
