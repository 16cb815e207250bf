// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * stress: verified traffic through two rings, both ways at once, between two threads or two processes
 * that sleep as docs/ring.rst says.
 *
 *   stress threads|processes SECONDS [SEED [RING_KIB]]
 *
 * Each end has a writer and a reader; a writer sends messages of 1 byte to 300 KiB, a reader checks each
 * byte. Who finds nothing to do arms its waiting word and sleeps on its eventfd; a sleep of LOST_MS for
 * something that is there all the time is a lost wake-up. Exit status 1: a wrong byte, a refusal of the
 * ring, or a lost wake-up.
 */
#define _GNU_SOURCE
#include "dmbs.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>

#define MSG_MAX (300u << 10)
#define LOST_MS 8000

/* What a side of a direction counts; summed over processes in shared memory. */
struct counts {
	uint64_t bytes, msgs, wraps, rewinds, sleeps, rings, lost;
};

/**
 * struct side - one writer or one reader
 * @bell: what it sleeps on; @other: what wakes its partner
 * @want: the value of its waiting word, another one for each sleep; @rung: the partner's last one that
 *        was answered
 */
struct side {
	struct ring_end *end;
	int bell, other;
	uint32_t want, rung;
	uint64_t seed, random;
	struct counts n;
};

/**
 * struct run - what both ends know
 * @stop: writers finish their message, say FIN and leave
 * @total: sums of all sides
 */
struct run {
	struct ring_mem mem;
	int data_bell[2], space_bell[2]; /* of the reader and of the writer at end i */
	_Atomic int *stop;
	struct counts *total;
	uint64_t seed;
	int seconds;
};

static void die(const char *what)
{
	fprintf(stderr, "stress: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void wrong(const char *what, uint64_t at)
{
	fprintf(stderr, "stress: %s at byte %llu\n", what, (unsigned long long)at);
	_exit(1);
}

/* ---------------------------------------------------------------- sleeping and waking */

static void ring_bell(struct side *s, const uint32_t *word)
{
	uint32_t want;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	want = __atomic_load_n(word, __ATOMIC_SEQ_CST);
	if (!want || want == s->rung)
		return;
	s->rung = want;
	s->n.rings++;
	if (eventfd_write(s->other, 1))
		die("ring");
}

/* Sleep until the bell; @ready is asked after arming, because the partner may have looked before. */
static void sleep_for(struct side *s, uint32_t *word, int (*ready)(struct side *s))
{
	struct pollfd p = { .fd = s->bell, .events = POLLIN };
	eventfd_t rung;

	if (!++s->want)
		s->want = 1;
	__atomic_store_n(word, s->want, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!ready(s)) {
		s->n.sleeps++;
		while (!poll(&p, 1, LOST_MS))
			if (ready(s)) {
				s->n.lost++;
				break;
			}
	}
	__atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
	eventfd_read(s->bell, &rung);
}

/* ---------------------------------------------------------------- writer */

static int has_room(struct side *s)
{
	return ism_ring_tx_room(&s->end->tx, s->end->own, s->end->tx.size) != 0;
}

static void publish(struct side *s)
{
	struct ring_end *e = s->end;

	ism_ring_tx_publish(&e->tx, e->peer);
	ring_bell(s, &ism_dmb_rx(e->own)->want_data);
}

static void send_message(struct side *s, const uint8_t *buf, size_t len)
{
	struct ring_end *e = s->end;

	while (len) {
		uint64_t round = e->tx.tail / e->tx.size;
		unsigned int flags = e->tx.flags;
		size_t piece = len < ISM_RING_PIECE ? len : ISM_RING_PIECE;
		ssize_t n;

		e->tx.bypass = s->n.msgs & 1;
		n = ism_ring_tx_write(&e->tx, e->own, e->peer, buf, piece);
		if (n < 0)
			wrong("the writer's ring is refused", s->n.bytes);
		if (!n) {
			sleep_for(s, &ism_dmb_tx(e->peer)->want_space, has_room);
			continue;
		}
		s->n.rewinds += (flags ^ e->tx.flags) == ISM_PROD_REWIND;
		s->n.wraps += e->tx.tail / e->tx.size != round;
		s->n.bytes += n;
		buf += n;
		len -= n;
		publish(s);
	}
	s->n.msgs++;
}

/* Mostly small, sometimes much more than the ring holds. */
static size_t random_size(uint64_t *state)
{
	uint64_t x = pattern_random(state);

	switch (x & 7) {
	case 0:
		return 1 + (x >> 8) % MSG_MAX;
	case 1:
	case 2:
		return 1 + (x >> 8) % 20000;
	default:
		return 1 + (x >> 8) % 600;
	}
}

static void *write_all(struct side *s, _Atomic int *stop)
{
	static __thread uint8_t buf[MSG_MAX];

	while (!*stop) {
		size_t len = random_size(&s->random);

		pattern_fill(s->seed, s->n.bytes, buf, len);
		send_message(s, buf, len);
		if (pattern_random(&s->random) % 4096 == 0)
			usleep(1000); /* let the reader run dry */
	}
	s->end->tx.flags |= ISM_PROD_FIN;
	publish(s);
	return NULL;
}

/* ---------------------------------------------------------------- reader */

static int has_news(struct side *s)
{
	return ism_ring_word(s->end->own) != s->end->rx.word;
}

static void tell(struct side *s)
{
	ism_ring_rx_publish(&s->end->rx, s->end->peer);
	ring_bell(s, &ism_dmb_tx(s->end->own)->want_space);
}

static void take(struct side *s, size_t max)
{
	struct ring_end *e = s->end;
	struct iovec v[2];
	size_t n = ism_ring_rx_spans(&e->rx, e->own, 0, max, v);

	for (int i = 0; i < 2; i++) {
		int64_t bad = pattern_check(s->seed, s->n.bytes, v[i].iov_base, v[i].iov_len);

		if (bad >= 0)
			wrong("wrong byte", bad);
		s->n.bytes += v[i].iov_len;
	}
	ism_ring_rx_advance(&e->rx, n);
	s->n.msgs++;
}

static void *read_all(struct side *s)
{
	struct ring_end *e = s->end;

	for (;;) {
		ssize_t n = ism_ring_rx_poll(&e->rx, e->own);

		if (n < 0)
			wrong("the reader's ring is refused", s->n.bytes);
		if (n)
			take(s, random_size(&s->random));
		if (ism_ring_rx_due(&e->rx))
			tell(s);
		if (n)
			continue;
		if (e->rx.word & ISM_PROD_FIN)
			return NULL;
		sleep_for(s, &ism_dmb_rx(e->peer)->want_data, has_news);
		if (pattern_random(&s->random) % 4096 == 0)
			usleep(1000); /* let the writer fill the ring */
	}
}

/* ---------------------------------------------------------------- the ends */

static void add(struct run *r, const struct counts *n)
{
	const uint64_t *from = (const uint64_t *)n;
	uint64_t *to = (uint64_t *)r->total;

	for (size_t i = 0; i < sizeof(*n) / sizeof(*from); i++)
		__atomic_fetch_add(&to[i], from[i], __ATOMIC_RELAXED);
}

struct task {
	struct run *run;
	struct ring_end end;
	int which;
	int reads;
};

static void *task_main(void *arg)
{
	struct task *t = arg;
	struct run *r = t->run;
	int i = t->which;
	struct side s = {
		.end = &t->end,
		.bell = t->reads ? r->data_bell[i] : r->space_bell[i],
		.other = t->reads ? r->space_bell[!i] : r->data_bell[!i],
		.seed = r->seed + (t->reads ? !i : i),
		.random = r->seed * 4 + i * 2 + t->reads + 1,
	};

	if (t->reads)
		read_all(&s);
	else
		write_all(&s, r->stop);
	if (t->reads)
		s.n.bytes = s.n.msgs = 0; /* counted by the writer */
	add(r, &s.n);
	return NULL;
}

/* The writer and the reader of an end have nothing in common: each has its own state, as under a lock. */
static void end_start(struct run *r, int which, pthread_t id[2], struct task t[2])
{
	for (int i = 0; i < 2; i++) {
		t[i].run = r;
		t[i].which = which;
		t[i].reads = i;
		ring_end_init(&t[i].end, &r->mem, which);
		if (pthread_create(&id[i], NULL, task_main, &t[i]))
			die("thread");
	}
}

static void join(pthread_t *id, int n)
{
	while (n--)
		pthread_join(id[n], NULL);
}

/* All at the same addresses: a race detector knows memory by its address. */
static void run_threads(struct run *r)
{
	void *dmb[2] = { dmb_map(r->mem.fd[0], r->mem.size[0], PROT_READ | PROT_WRITE),
			 dmb_map(r->mem.fd[1], r->mem.size[1], PROT_READ | PROT_WRITE) };
	struct task t[4];
	pthread_t id[4];

	for (int i = 0; i < 4; i++) {
		t[i].end.own = dmb[i / 2];
		t[i].end.peer = dmb[!(i / 2)];
	}
	end_start(r, 0, id, t);
	end_start(r, 1, id + 2, t + 2);
	sleep(r->seconds);
	*r->stop = 1;
	join(id, 4);
}

static _Noreturn void process_main(struct run *r, int which)
{
	void *own = dmb_map(r->mem.fd[which], r->mem.size[which], PROT_READ);
	void *peer = dmb_map(r->mem.fd[!which], r->mem.size[!which], PROT_READ | PROT_WRITE);
	struct task t[2] = { { .end = { .own = own, .peer = peer } },
			     { .end = { .own = own, .peer = peer } } };
	pthread_t id[2];

	end_start(r, which, id, t);
	join(id, 2);
	exit(0);
}

static void run_processes(struct run *r)
{
	pid_t pid[2];
	int status, bad = 0;

	for (int i = 0; i < 2; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			die("fork");
		if (!pid[i])
			process_main(r, i);
	}
	sleep(r->seconds);
	*r->stop = 1;
	for (int i = 0; i < 2; i++)
		bad |= waitpid(pid[i], &status, 0) != pid[i] || status;
	if (bad)
		exit(1);
}

/* ---------------------------------------------------------------- main */

static void setup(struct run *r, uint32_t ring)
{
	struct ring_end e[2];

	ring_mem_make(&r->mem, ring, ring);
	for (int i = 0; i < 2; i++) {
		ring_end_open(&e[i], &r->mem, i); /* both rings now say: not TCP */
		r->data_bell[i] = eventfd(0, EFD_NONBLOCK);
		r->space_bell[i] = eventfd(0, EFD_NONBLOCK);
		if (r->data_bell[i] < 0 || r->space_bell[i] < 0)
			die("eventfd");
	}
	ring_end_close(&e[0]);
	ring_end_close(&e[1]);
	r->total = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r->total == MAP_FAILED)
		die("mmap");
	r->stop = (_Atomic int *)(r->total + 1);
}

static int verdict(const struct run *r, const char *mode)
{
	const struct counts *n = r->total;

	printf("%s: %llu MB in %llu messages, %llu wraps, %llu rewinds, %llu sleeps, %llu doorbells, "
	       "%llu lost wake-ups\n",
	       mode, (unsigned long long)n->bytes >> 20, (unsigned long long)n->msgs,
	       (unsigned long long)n->wraps, (unsigned long long)n->rewinds,
	       (unsigned long long)n->sleeps, (unsigned long long)n->rings,
	       (unsigned long long)n->lost);
	/* a run that has not tried what it is for says nothing */
	return n->lost || n->wraps < 10 || n->rewinds < 10 || n->sleeps < 10;
}

int main(int argc, char **argv)
{
	struct run r = { .seed = 1 };
	uint32_t ring = ISM_RING_MIN;

	if (argc < 3 || argc > 5)
		goto usage;
	r.seconds = atoi(argv[2]);
	if (argc > 3)
		r.seed = strtoull(argv[3], NULL, 0);
	if (argc > 4)
		ring = (uint32_t)atoi(argv[4]) << 10;
	if (r.seconds <= 0 || ring < ISM_RING_MIN || ring & (ring - 1))
		goto usage;
	setup(&r, ring);
	if (!strcmp(argv[1], "threads"))
		run_threads(&r);
	else if (!strcmp(argv[1], "processes"))
		run_processes(&r);
	else
		goto usage;
	return verdict(&r, argv[1]);
usage:
	fprintf(stderr, "usage: stress threads|processes SECONDS [SEED [RING_KIB]]\n");
	return 2;
}
