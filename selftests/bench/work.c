// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The client of the workload program: makes the load, measures, prints one line of JSON.
 */
#include "netload.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EAGAIN_MS    200 /* a writer that poll() does not wake for this long is blocked */
#define SETTLE_US    100000 /* caches of the kernel calm down */
#define CLOCK_STRIDE 16 /* sends of a stream between two looks at the clock */

static struct nl_req make_req(const struct nl_opts *o)
{
	return (struct nl_req){
		.magic = NL_MAGIC,
		.work = o->work,
		.epoll = o->epoll,
		.size = o->size,
		.read_size = o->read_size,
		.warm_ms = o->warm_ms,
		.msgs = o->msgs,
	};
}

static int open_work(const struct nl_opts *o)
{
	struct nl_req req = make_req(o);
	int fd = nl_connect(&o->addr);

	if (o->nodelay)
		nl_nodelay(fd);
	if (nl_send_all(fd, &req, sizeof(req)))
		nl_die("send request");
	return fd;
}

static void ping_once(int fd, char *buf, size_t size)
{
	if (nl_send_all(fd, buf, size))
		nl_die("send");
	if (nl_recv_all(fd, buf, size))
		nl_die("receive");
}

static void ping_in_loop(struct nl_loop *l, char *buf, size_t size)
{
	if (nl_loop_send(l, buf, size))
		nl_die("send");
	if (nl_loop_recv(l, buf, size))
		nl_die("receive");
}

static void work_ping(const struct nl_opts *o)
{
	uint64_t since, warm = nl_now() + o->warm_ms * 1000000ULL;
	char *buf = nl_alloc(o->size);
	int fd = open_work(o);
	struct samples s;

	do {
		ping_once(fd, buf, o->size);
	} while (nl_now() < warm);
	samples_begin(&s, o->ms, o->count);
	do {
		since = nl_now();
		ping_once(fd, buf, o->size);
	} while (samples_add(&s, since));
	close(fd);
	free(buf);
	samples_print(&s, "ping", o->size, nl_spurious);
}

/* The same for a program that waits in epoll_wait(). */
static void work_ping_loop(const struct nl_opts *o)
{
	uint64_t since, warm = nl_now() + o->warm_ms * 1000000ULL;
	char *buf = nl_alloc(o->size);
	struct nl_loop l;
	struct samples s;

	nl_loop_open(&l, open_work(o));
	do {
		ping_in_loop(&l, buf, o->size);
	} while (nl_now() < warm);
	samples_begin(&s, o->ms, o->count);
	do {
		since = nl_now();
		ping_in_loop(&l, buf, o->size);
	} while (samples_add(&s, since));
	nl_loop_close(&l);
	free(buf);
	samples_print(&s, "ping", o->size, nl_spurious);
}

/* The next destination: the given one, or one of @spread loopback addresses in turn. */
static struct nl_addr spread_addr(const struct nl_opts *o, uint64_t i)
{
	struct nl_addr addr = o->addr;
	struct sockaddr_in *in = (struct sockaddr_in *)&addr.ss;

	if (o->spread > 1 && in->sin_family == AF_INET)
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK + i % o->spread);
	return addr;
}

static void work_connect(const struct nl_opts *o)
{
	struct nl_req req = make_req(o), back;
	struct nl_addr addr;
	struct samples s;
	uint64_t since;
	int fd;

	samples_begin(&s, o->ms, o->count);
	do {
		addr = spread_addr(o, s.n);
		since = nl_now();
		fd = nl_connect(&addr);
		if (nl_send_all(fd, &req, sizeof(req)))
			nl_die("send request");
		if (nl_recv_all(fd, &back, sizeof(back)))
			nl_die("receive answer");
		close(fd);
	} while (samples_add(&s, since));
	samples_print(&s, nl_work_names[o->work], o->size, nl_spurious);
}

static void work_stream(const struct nl_opts *o)
{
	uint64_t until, sent = 0, sends = 0, cpu;
	char *buf = nl_alloc(o->size);
	int fd = open_work(o);
	struct nl_report rep;

	cpu = nl_cpu_ns();
	until = nl_now() + (o->ms + o->warm_ms) * 1000000ULL;
	do {
		for (int i = 0; i < CLOCK_STRIDE; i++) {
			if (nl_send_all(fd, buf, o->size))
				nl_die("send");
		}
		sends += CLOCK_STRIDE;
	} while (nl_now() < until && (!o->count || sends < o->count));
	sent = sends * o->size;
	if (shutdown(fd, SHUT_WR))
		nl_die("shutdown");
	if (nl_recv_all(fd, &rep, sizeof(rep)))
		nl_die("receive report");
	cpu = nl_cpu_ns() - cpu + rep.cpu_ns;
	close(fd);
	free(buf);
	printf("{\"work\":\"stream\",\"size\":%zu,\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ","
	       "\"secs\":%.6f,\"gb_per_sec\":%.6f,\"cpu_ns_per_byte\":%.6f,"
	       "\"spurious_eagain\":%" PRIu64 "}\n",
	       o->size, sent, rep.bytes, rep.ns / 1e9, rep.timed_bytes / (rep.ns + 1e-9),
	       (double)cpu / sent, nl_spurious + rep.spurious);
}

/* A line "Name:   123 kB" of a file in /proc. Return: the number, or 0 when there is none. */
static int64_t proc_number(const char *path, const char *name)
{
	FILE *f = fopen(path, "re");
	int64_t value = 0;
	char line[256], *at;

	while (f && fgets(line, sizeof(line), f)) {
		at = strstr(line, name);
		if (!at)
			continue;
		value = strtoll(at + strlen(name), NULL, 10);
		break;
	}
	if (f)
		fclose(f);
	return value;
}

struct memory {
	int64_t available_kib, slab_kib, shmem_kib, anon_kib, tables_kib, tcp_kib;
};

static struct memory memory_now(void)
{
	return (struct memory){
		.available_kib = proc_number("/proc/meminfo", "MemAvailable:"),
		.slab_kib = proc_number("/proc/meminfo", "Slab:"),
		.shmem_kib = proc_number("/proc/meminfo", "Shmem:"),
		.anon_kib = proc_number("/proc/meminfo", "AnonPages:"),
		.tables_kib = proc_number("/proc/meminfo", "PageTables:"),
		.tcp_kib = proc_number("/proc/net/sockstat", " mem ") * (getpagesize() / 1024),
	};
}

struct flood {
	uint64_t sends, bytes;
	bool blocked;
};

/* Send without ever waiting for the reader, until blocked, capped or out of time. */
static struct flood flood(int fd, const struct nl_opts *o)
{
	uint64_t until = nl_now() + o->ms * 1000000ULL;
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	char *buf = nl_alloc(o->size);
	struct flood f = { 0 };
	ssize_t n;

	while ((!o->count || f.sends < o->count) && f.bytes < o->cap && nl_now() < until) {
		n = send(fd, buf, o->size, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			f.sends++;
			f.bytes += n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			nl_die("send");
		if (poll(&p, 1, EAGAIN_MS) == 0) {
			f.blocked = true;
			break;
		}
	}
	free(buf);
	return f;
}

static void work_hold(const struct nl_opts *o)
{
	struct linger reset = { .l_onoff = 1 };
	struct memory before, after;
	int fd = open_work(o);
	struct flood f;
	char ready;

	if (nl_recv_all(fd, &ready, 1))
		nl_die("receive ready");
	before = memory_now();
	f = flood(fd, o);
	after = memory_now();
	printf("{\"work\":\"hold\",\"size\":%zu,\"sends\":%" PRIu64 ",\"accepted\":%" PRIu64 ","
	       "\"blocked\":%s,\"available_kib\":%" PRId64 ",\"slab_kib\":%" PRId64
	       ",\"tcp_kib\":%" PRId64 "}\n",
	       o->size, f.sends, f.bytes, f.blocked ? "true" : "false",
	       before.available_kib - after.available_kib, after.slab_kib - before.slab_kib,
	       after.tcp_kib - before.tcp_kib);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
}

static int64_t used(const struct memory *m)
{
	return m->shmem_kib + m->slab_kib + m->anon_kib + m->tables_kib;
}

static double per_conn(const struct nl_opts *o, int64_t kib)
{
	return (double)kib / o->conns;
}

/* Many connections that have all been used a little and are left open. */
static void work_idle(const struct nl_opts *o)
{
	struct memory before = memory_now(), after;
	char *buf = nl_alloc(o->size);
	int fd;

	for (unsigned int i = 0; i < o->conns; i++) {
		fd = open_work(o);
		for (unsigned int n = 0; n < o->msgs; n++)
			ping_once(fd, buf, o->size);
	}
	usleep(SETTLE_US);
	after = memory_now();
	printf("{\"work\":\"idle\",\"size\":%zu,\"conns\":%u,\"total_kib\":%.3f,"
	       "\"shmem_kib\":%.3f,\"slab_kib\":%.3f,\"anon_kib\":%.3f,\"tables_kib\":%.3f}\n",
	       o->size, o->conns, per_conn(o, used(&after) - used(&before)),
	       per_conn(o, after.shmem_kib - before.shmem_kib),
	       per_conn(o, after.slab_kib - before.slab_kib),
	       per_conn(o, after.anon_kib - before.anon_kib),
	       per_conn(o, after.tables_kib - before.tables_kib));
	free(buf);
}

void nl_work(const struct nl_opts *o)
{
	static void (*const works[NL_WORKS])(const struct nl_opts *o) = {
		[NL_PING] = work_ping, [NL_STREAM] = work_stream, [NL_CONNECT] = work_connect,
		[NL_HOLD] = work_hold, [NL_IDLE] = work_idle,
	};

	if (o->work == NL_PING && o->epoll)
		work_ping_loop(o);
	else
		works[o->work](o);
}
