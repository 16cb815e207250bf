// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The limits: two processes that spin on two rings in memory that they share, without sockets,
 * waiting or a preloaded library; and copying alone, within one process.
 *
 * The ring, its layout, how bytes are copied and how the reader of a stream looks away from an empty ring are
 * those of the project (user/lib/ring.c, tune.c). On one CPU, and after a while of spinning, the CPU is
 * yielded: there is no limit to be had otherwise.
 */
#include "netload.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring.h"

#define RING_SIZE    (2u << 20)
#define COPY_SIZE    (1u << 20)
#define SPINS	     2000 /* pauses before the CPU is yielded */
#define CLOCK_STRIDE 16
#define TUNE_STRIDE  16384 /* bytes: reading the clock for each message costs too much */

/**
 * struct end - one of the two processes
 * @own, @peer: DMBs
 * @spins: looks before the CPU is yielded
 * @stream: only reads
 * @tune_at: cursor at which the clock is looked at again
 */
struct end {
	struct ism_ring_tx tx;
	struct ism_ring_rx rx;
	struct ism_tune away, bypass;
	uint64_t tune_at;
	void *own, *peer;
	unsigned int spins;
	bool stream;
};

struct options {
	size_t size;
	size_t read_size;
	unsigned int ms;
	unsigned int warm_ms;
	int server_cpu;
	int client_cpu;
};

/**
 * struct result - what the receiver of a stream has to say, in memory that both see
 */
struct result {
	uint64_t bytes, timed_bytes, ns, cpu_ns;
};

static struct result *result;

static void relax(const struct end *e, unsigned int *spins)
{
	if (++*spins < e->spins) {
#if defined(__x86_64__) || defined(__i386__)
		__builtin_ia32_pause();
#endif
		return;
	}
	*spins = 0;
	sched_yield();
}

static void *map_dmb(void)
{
	int fd = memfd_create("barering", MFD_CLOEXEC);
	size_t len = ism_dmb_len(RING_SIZE);
	void *p;

	if (fd < 0 || ftruncate(fd, len))
		nl_die("memfd");
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		nl_die("mmap");
	close(fd);
	return p;
}

static void end_init(struct end *e, void *own, void *peer, const struct options *o)
{
	ism_ring_tx_init(&e->tx, RING_SIZE);
	ism_ring_rx_init(&e->rx, RING_SIZE);
	e->tx.flags = 0;
	e->own = own;
	e->peer = peer;
	e->spins = o->server_cpu >= 0 && o->server_cpu == o->client_cpu ? 1 : SPINS;
}

/* As send(): all of it, published in pieces. */
static void ring_send(struct end *e, const void *buf, size_t len)
{
	const char *p = buf;
	unsigned int spins = 0;

	while (len) {
		ssize_t n = ism_ring_tx_write(&e->tx, e->own, e->peer, p,
					      len < ISM_RING_PIECE ? len : ISM_RING_PIECE);

		if (n < 0)
			nl_die("ring");
		if (!n) {
			relax(e, &spins);
			continue;
		}
		ism_ring_tx_publish(&e->tx, e->peer);
		if (n >= ISM_RING_BYPASS_MIN && e->spins > 1 && e->tx.tail >= e->tune_at) {
			e->tx.bypass = ism_tune(&e->bypass, &ism_ring_bypass, nl_now(), e->tx.tail,
						ISM_TUNE_WINDOW_NS, RING_SIZE);
			e->tune_at = e->tx.tail + TUNE_STRIDE;
		}
		p += n;
		len -= n;
	}
}

/* The reader of a stream that nobody answers. */
static void look_away(struct end *e)
{
	uint64_t now = nl_now(), until;

	until = now + ism_ring_away_ns(ism_tune(&e->away, &ism_ring_away, now, e->rx.head,
						ISM_TUNE_WINDOW_NS, 0));
	while (now < until)
		now = nl_now();
}

/* As recv(): what is there, at most @len; 0 at the end. */
static size_t ring_recv(struct end *e, void *buf, size_t len)
{
	unsigned int spins = 0;
	struct iovec v[2];
	ssize_t n;
	size_t got;

	if (e->stream && !ism_ring_rx_poll(&e->rx, e->own))
		look_away(e);
	while (!(n = ism_ring_rx_poll(&e->rx, e->own))) {
		if (e->rx.word & ISM_PROD_FIN)
			return 0;
		relax(e, &spins);
	}
	if (n < 0)
		nl_die("ring");
	got = ism_ring_rx_spans(&e->rx, e->own, 0, len, v);
	memcpy(buf, v[0].iov_base, v[0].iov_len);
	if (v[1].iov_len)
		memcpy((char *)buf + v[0].iov_len, v[1].iov_base, v[1].iov_len);
	ism_ring_rx_advance(&e->rx, got);
	if (ism_ring_rx_due(&e->rx))
		ism_ring_rx_publish(&e->rx, e->peer);
	return got;
}

static bool ring_recv_all(struct end *e, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		size_t n = ring_recv(e, p, len);

		if (!n)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

static void ring_end(struct end *e)
{
	e->tx.flags |= ISM_PROD_FIN;
	ism_ring_tx_publish(&e->tx, e->peer);
}

/* ---------------------------------------------------------------- work */

static void serve_ping(struct end *e, const struct options *o)
{
	char *buf = nl_alloc(o->size);

	while (ring_recv_all(e, buf, o->size))
		ring_send(e, buf, o->size);
}

static void ping(struct end *e, const struct options *o)
{
	uint64_t since, warm = nl_now() + o->warm_ms * 1000000ULL;
	char *buf = nl_alloc(o->size);
	struct samples s;

	do {
		ring_send(e, buf, o->size);
		ring_recv_all(e, buf, o->size);
	} while (nl_now() < warm);
	samples_begin(&s, o->ms, 0);
	do {
		since = nl_now();
		ring_send(e, buf, o->size);
		ring_recv_all(e, buf, o->size);
	} while (samples_add(&s, since));
	ring_end(e);
	samples_print(&s, "ping", o->size, 0);
}

static void serve_stream(struct end *e, const struct options *o)
{
	uint64_t first = 0, start = 0, now, cpu = nl_cpu_ns();
	char *buf = nl_alloc(o->read_size);
	size_t n;

	e->stream = e->spins > 1;
	while ((n = ring_recv(e, buf, o->read_size))) {
		result->bytes += n;
		if (start) {
			result->timed_bytes += n;
			continue;
		}
		now = nl_now();
		if (!first)
			first = now;
		if (now - first >= o->warm_ms * 1000000ULL)
			start = now;
	}
	if (start)
		result->ns = nl_now() - start;
	result->cpu_ns = nl_cpu_ns() - cpu;
}

static uint64_t stream(struct end *e, const struct options *o, uint64_t *cpu)
{
	uint64_t until = nl_now() + (o->ms + o->warm_ms) * 1000000ULL, sends = 0;
	char *buf = nl_alloc(o->size);

	*cpu = nl_cpu_ns();
	do {
		for (int i = 0; i < CLOCK_STRIDE; i++)
			ring_send(e, buf, o->size);
		sends += CLOCK_STRIDE;
	} while (nl_now() < until);
	ring_end(e);
	*cpu = nl_cpu_ns() - *cpu;
	return sends * o->size;
}

static void stream_print(const struct options *o, uint64_t sent, uint64_t cpu)
{
	printf("{\"work\":\"stream\",\"size\":%zu,\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ","
	       "\"secs\":%.6f,\"gb_per_sec\":%.6f,\"cpu_ns_per_byte\":%.6f}\n",
	       o->size, sent, result->bytes, result->ns / 1e9,
	       result->timed_bytes / (result->ns + 1e-9), (double)(cpu + result->cpu_ns) / sent);
}

/* Each message once into memory that a cache holds: what one of two CPUs has to do at least. */
static void copy(const struct options *o)
{
	size_t at = 0, len = o->size > COPY_SIZE ? o->size : COPY_SIZE;
	char *buf = nl_alloc(o->size), *ring = nl_alloc(len);
	uint64_t begin, until, sent = 0, cpu;

	begin = nl_now();
	cpu = nl_cpu_ns();
	until = begin + o->ms * 1000000ULL;
	do {
		for (int i = 0; i < CLOCK_STRIDE; i++) {
			memcpy(ring + at, buf, o->size);
			/* the copy is wanted, whatever a compiler can prove */
			__asm__ volatile("" : : "r"(ring + at) : "memory");
			at += o->size;
			if (at + o->size > len)
				at = 0;
		}
		sent += CLOCK_STRIDE * o->size;
	} while (nl_now() < until);
	*result = (struct result){ .bytes = sent, .timed_bytes = sent, .ns = nl_now() - begin };
	stream_print(o, sent, nl_cpu_ns() - cpu);
}

/* ---------------------------------------------------------------- start */

static void pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		nl_die("sched_setaffinity");
}

static void run_pair(const struct options *o, bool is_ping)
{
	void *a = map_dmb(), *b = map_dmb();
	uint64_t sent = 0, cpu = 0;
	pid_t server = fork();
	struct end e;

	if (server < 0)
		nl_die("fork");
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm((o->ms + o->warm_ms) / 1000 + NL_IO_SECONDS);
		pin(o->server_cpu);
		end_init(&e, a, b, o);
		is_ping ? serve_ping(&e, o) : serve_stream(&e, o);
		_exit(0);
	}
	pin(o->client_cpu);
	end_init(&e, b, a, o);
	if (is_ping)
		ping(&e, o);
	else
		sent = stream(&e, o, &cpu);
	waitpid(server, NULL, 0);
	if (!is_ping)
		stream_print(o, sent, cpu);
}

static void __attribute__((noreturn)) usage(void)
{
	fputs("usage: barering ping|stream|memcpy [--size BYTES] [--read-size BYTES] [--ms N]\n"
	      "                [--warm-ms N] [--server-cpu N] [--client-cpu N]\n",
	      stderr);
	exit(2);
}

static const struct option long_options[] = {
	{ "size", required_argument, NULL, 's' },
	{ "read-size", required_argument, NULL, 'r' },
	{ "ms", required_argument, NULL, 'm' },
	{ "warm-ms", required_argument, NULL, 'w' },
	{ "server-cpu", required_argument, NULL, 'S' },
	{ "client-cpu", required_argument, NULL, 'C' },
	{ 0 },
};

static void parse(struct options *o, int argc, char **argv)
{
	int opt;

	*o = (struct options){
		.size = 64,
		.read_size = 65536,
		.ms = 500,
		.warm_ms = 20,
		.server_cpu = -1,
		.client_cpu = -1,
	};
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == 's')
			o->size = strtoul(optarg, NULL, 10);
		else if (opt == 'r')
			o->read_size = strtoul(optarg, NULL, 10);
		else if (opt == 'm')
			o->ms = strtoul(optarg, NULL, 10);
		else if (opt == 'w')
			o->warm_ms = strtoul(optarg, NULL, 10);
		else if (opt == 'S')
			o->server_cpu = atoi(optarg);
		else if (opt == 'C')
			o->client_cpu = atoi(optarg);
		else
			usage();
	}
	if (o->read_size < o->size)
		o->read_size = o->size;
	if (optind != argc - 1 || !o->size || o->size > 64 << 20 || !o->ms || o->ms > 60000)
		usage();
}

int main(int argc, char **argv)
{
	struct options o;

	parse(&o, argc, argv);
	alarm((o.ms + o.warm_ms) / 1000 + NL_IO_SECONDS);
	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (result == MAP_FAILED)
		nl_die("mmap");
	if (!strcmp(argv[optind], "memcpy"))
		copy(&o);
	else if (!strcmp(argv[optind], "ping") || !strcmp(argv[optind], "stream"))
		run_pair(&o, argv[optind][0] == 'p');
	else
		usage();
	return 0;
}
