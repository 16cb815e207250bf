/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the parts of the workload program share: options, sockets, the request a client opens with.
 */
#ifndef NETLOAD_H
#define NETLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define NL_MAGIC      0x6c6f6164u
#define NL_IO_SECONDS 10 /* no socket operation waits longer */

enum nl_work {
	NL_PING, /* the server sends every message back */
	NL_STREAM, /* the server reads to the end, then says how much came and how fast */
	NL_CONNECT, /* the server sends the request back */
	NL_HOLD, /* the server never reads */
	NL_WORKS,
};

/**
 * struct nl_req - what every client sends first; it is also the small request of NL_CONNECT
 * @size: message size
 * @read_size: the server's receive buffer in NL_STREAM
 * @warm_ms: the server's clock in NL_STREAM starts this long after the first byte
 */
struct nl_req {
	uint32_t magic;
	uint32_t work;
	uint64_t size;
	uint64_t read_size;
	uint64_t warm_ms;
};

/**
 * struct nl_report - the server's answer at the end of NL_STREAM
 * @bytes: all bytes received
 * @timed_bytes, @ns: bytes received while the clock ran, and how long that was
 * @cpu_ns: CPU time of the server
 * @spurious: nl_spurious of the server
 */
struct nl_report {
	uint64_t bytes;
	uint64_t timed_bytes;
	uint64_t ns;
	uint64_t cpu_ns;
	uint64_t spurious;
};

struct nl_addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

/**
 * struct nl_opts - the command line
 * @addr: where the server listens and the client connects
 * @spread: the client rotates over this many addresses from 127.0.0.1 on
 * @ms: how long the client measures
 * @count: at most this many operations or sends, 0 for no limit
 * @cap: at most this many bytes in NL_HOLD
 * @server_cgroup, @client_cgroup: cgroup directories joined before any socket is made, or NULL
 * @server_cpu, @client_cpu: CPU to run on, or -1
 */
struct nl_opts {
	enum nl_work work;
	struct nl_addr addr;
	unsigned int spread;
	size_t size;
	size_t read_size;
	unsigned int ms;
	unsigned int warm_ms;
	uint64_t count;
	uint64_t cap;
	bool nodelay;
	const char *server_cgroup;
	const char *client_cgroup;
	int server_cpu;
	int client_cpu;
};

extern const char *const nl_work_names[NL_WORKS];

/* sock.c */
extern uint64_t nl_spurious; /* EAGAIN that a blocking socket had no right to give */
void nl_die(const char *what);
uint64_t nl_now(void);
uint64_t nl_cpu_ns(void);
void *nl_alloc(size_t size);
int nl_parse_addr(const char *text, struct nl_addr *addr);
int nl_listen(const struct nl_addr *addr);
int nl_accept(int fd);
int nl_connect(const struct nl_addr *addr);
void nl_nodelay(int fd);
int nl_send_all(int fd, const void *buf, size_t len);
ssize_t nl_recv(int fd, void *buf, size_t len);
int nl_recv_all(int fd, void *buf, size_t len);

/* serve.c */
void nl_serve(const struct nl_opts *o, int ready_fd);

/* work.c */
void nl_work(const struct nl_opts *o);

#endif
