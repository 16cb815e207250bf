/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parts of the traffic program: options (traffic.c), one send or receive (io.c), ways of driving
 * many of them (engine.c), the life of a connection (session.c).
 */
#ifndef NETNS_TRAFFIC_H
#define NETNS_TRAFFIC_H

#include "net.h"
#include "stream.h"

#include <stdatomic.h>

#define MAX_CONNS    256
#define MAX_SOCKOPTS 8

/* Which thread or loop makes the calls. */
enum io_kind {
	IO_THREADS, /* blocking, a thread for each direction */
	IO_FORK, /* blocking, a forked child writes, the parent reads */
	IO_POLL,
	IO_EPOLL_LT,
	IO_EPOLL_ET,
};

enum send_kind {
	SEND_WRITE,
	SEND_WRITEV,
	SEND_MORE, /* MSG_MORE now and then */
	SEND_OOB, /* MSG_OOB now and then; the reader has SO_OOBINLINE */
	SEND_SENDFILE,
	SEND_SPLICE, /* pipe to socket */
	SEND_ZEROCOPY, /* and every completion must arrive */
	SEND_URING,
	SEND_MIXED, /* write, writev, MSG_MORE and sendfile in turn */
};

enum recv_kind {
	RECV_READ,
	RECV_READV,
	RECV_PEEK, /* MSG_PEEK, then the same bytes again */
	RECV_WAITALL, /* short returns are counted, see --strict */
	RECV_LOWAT, /* SO_RCVLOWAT set to another value before each call */
	RECV_SPLICE, /* socket to pipe */
	RECV_URING,
	RECV_MIXED, /* read, readv and MSG_PEEK in turn */
};

/* How a connection ends once both streams are verified. */
enum end_kind {
	END_CLOSE,
	END_HALF, /* the client shuts down writing, the server then streams --tail bytes */
	END_RST, /* the client sends --tail bytes and resets (SO_LINGER 0) */
	END_UNREAD, /* the client sends --tail bytes, the server closes without reading them */
};

/* What the writer does wrong in the middle of its stream, to see that it is noticed. */
enum fault_kind {
	FAULT_NONE,
	FAULT_LOSE, /* a byte is left out */
	FAULT_DOUBLE, /* a byte comes twice */
	FAULT_FLIP, /* a byte is altered */
	FAULT_SWAP, /* later bytes come first */
	FAULT_HANG, /* nothing is sent any more */
	FAULT_SHORT, /* the stream ends early */
};

struct pause {
	unsigned int percent; /* of the calls are followed by a pause */
	unsigned int ms; /* of at most this length */
};

struct sockopt_set {
	const struct sockopt_name *name;
	int value;
	bool late; /* once connected, instead of before */
};

/* What may differ between the two sides. */
struct side {
	enum io_kind io;
	enum send_kind send;
	enum recv_kind recv;
	struct sizes send_sizes, recv_sizes;
	struct pause pause_tx, pause_rx;
	uint64_t sleep_rx; /* ms before the first read */
	struct sockopt_set sockopt[MAX_SOCKOPTS];
	unsigned int n_sockopt;
	const char *cgroup, *netns;
	bool mptcp;
};

struct options {
	struct side side[2]; /* SERVER, CLIENT */
	const char *listen, *connect;
	const char *hook_listen, *hook_connected, *hook_verified;
	uint64_t port, connect_port, bind_port;
	uint64_t conns;
	uint64_t rounds; /* request/response rounds instead of streams */
	uint64_t seconds; /* streams go on so long, or until SIGTERM */
	uint64_t bytes[2]; /* what each side sends */
	uint64_t tail, seed;
	uint64_t timeout; /* seconds without progress */
	uint64_t accept_delay, defer;
	enum end_kind end;
	enum fault_kind fault; /* by the client */
	bool repeat; /* whole connections again and again for @seconds */
	bool tfo, tfo_no_cookie, strict;
	bool eagain_ok; /* blocking receives that fail with EAGAIN are counted and repeated */
};

enum { SERVER, CLIENT };

/* One direction of one connection at one end. */
struct dir {
	uint64_t seed;
	_Atomic uint64_t pos; /* bytes done */
	uint64_t total; /* UINT64_MAX while not known */
	uint64_t not_before; /* a pause ends then */
	struct rng rng;
	uint8_t *buf;
	int pipe[2];
	size_t in_pipe;
	bool ready; /* by the last event */
	bool finished;
	uint32_t shorts; /* MSG_WAITALL and SO_RCVLOWAT that gave less */
	uint32_t eagains;
	void *ring; /* struct io_uring */
};

struct end {
	int fd;
	int who; /* SERVER or CLIENT */
	unsigned int index;
	struct dir tx, rx;
	uint8_t *image; /* the whole stream, where the kernel keeps references to it */
	int image_fd;
	uint32_t zc_sent, zc_done;
	bool peer_may_end; /* sending may fail from here on */
};

/* Seen by both processes of a pair, and by forked writers. */
struct shared {
	_Atomic int stop; /* the streams may end */
	_Atomic int hook; /* a hook is running: nobody is late meanwhile */
	_Atomic int client_done;
	_Atomic int port; /* what the server listens on */
	_Atomic unsigned int round[2];
	_Atomic uint64_t extra[2]; /* progress that is not a byte */
	struct end ends[2][MAX_CONNS];
};

extern struct options opt;
extern struct shared *shared;
extern int own; /* SERVER or CLIENT */
extern bool paired;

/* Called when the peer is gone too early: says where the streams stand, exits EXIT_GONE. */
_Noreturn void peer_gone(const struct end *e, const char *doing, int err);
_Noreturn void stuck(const struct end *e, const char *what);

/* io.c: one call; 1 progress, 0 would block, -1 the stream ended */
void io_prepare(struct end *e);
void io_release(struct end *e);
int tx_step(struct end *e);
int rx_step(struct end *e);
bool tx_finished(struct end *e);
bool rx_finished(struct end *e);
/* All zero-copy completions of @e, or fail. */
void zerocopy_settle(struct end *e);
bool spurious_eagain(struct end *e);
/* A verified read of at most @max bytes in the plainest way: > 0, 0 at EOF, -1 with errno */
ssize_t read_verified(struct end *e, size_t max);

/* engine.c: drive until both directions of all ends are finished */
void engine_run(struct end *ends, unsigned int n);
void engine_rounds(struct end *ends, unsigned int n);

/* session.c */
int session_server(void);
int session_client(void);
const struct sockopt_name *sockopt_find(const char *name, size_t len);

#endif
