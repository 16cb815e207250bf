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
	NL_IDLE, /* the server sends some messages back and leaves the connection open */
	NL_WORKS,
};

/**
 * struct nl_req - what every client sends first; it is also the small request of NL_CONNECT
 * @epoll: the server of NL_PING waits in epoll_wait()
 * @size: message size
 * @read_size: the server's receive buffer in NL_STREAM
 * @warm_ms: the server's clock in NL_STREAM starts this long after the first byte
 * @msgs: messages of a connection of NL_IDLE
 */
struct nl_req {
	uint32_t magic;
	uint16_t work;
	uint16_t epoll;
	uint64_t size;
	uint64_t read_size;
	uint32_t warm_ms;
	uint32_t msgs;
};

_Static_assert(sizeof(struct nl_req) == 32, "the report says how long the small request is");

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
 * @conns, @msgs: connections of NL_IDLE, and messages on each
 * @epoll: both ends of NL_PING wait in epoll_wait() on non-blocking sockets
 * @server_cgroup, @client_cgroup: cgroup directories joined before any socket is made, or NULL
 * @server_cpu, @client_cpu: CPU to run on, or -1
 * @server_run, @client_run: of a pair: start this end by "PATH run --", or NULL
 * @busy: of a pair: so many processes that only burn CPU time beside it
 * @ready_fd: of a server: closed once clients may come, -1 for none
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
	unsigned int conns;
	unsigned int msgs;
	bool nodelay;
	bool epoll;
	const char *server_cgroup;
	const char *client_cgroup;
	int server_cpu;
	int client_cpu;
	const char *server_run;
	const char *client_run;
	unsigned int busy;
	int ready_fd;
};

/**
 * struct samples - how long each of many operations took
 * @until: when to stop
 */
struct samples {
	uint32_t *ns;
	size_t n;
	uint64_t begin, until, end;
	uint64_t count; /* at most so many, 0 for no limit */
};

extern const char *const nl_work_names[NL_WORKS];

/* sock.c */
extern uint64_t nl_spurious; /* EAGAIN that a blocking socket had no right to give */
void nl_die(const char *what) __attribute__((noreturn));
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

/* samples.c */
void samples_begin(struct samples *s, unsigned int ms, uint64_t count);
bool samples_add(struct samples *s, uint64_t since);
void samples_print(struct samples *s, const char *work, size_t size, uint64_t spurious);

/* loop.c */
struct nl_loop {
	int fd;
	int ep;
};

void nl_loop_open(struct nl_loop *l, int fd);
void nl_loop_close(struct nl_loop *l);
int nl_loop_send(struct nl_loop *l, const void *buf, size_t len);
int nl_loop_recv(struct nl_loop *l, void *buf, size_t len);

/* local.c */
int nl_local(const char *what, const struct nl_opts *o);

/* serve.c */
void nl_serve(const struct nl_opts *o);

/* work.c */
void nl_work(const struct nl_opts *o);

#endif
