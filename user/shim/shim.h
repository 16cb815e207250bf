/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the files of libismredir-preload.so share. docs/shim.rst is the map.
 *
 *   real.c     the C library's own functions
 *   table.c    file descriptor -> what we know of it; slots in shared memory
 *   conn.c     life of a connection: candidate, attached, closed; what BPF is told
 *   daemon.c   the non-blocking client of ismredird
 *   rx.c, tx.c bytes: the switch rule, ring and TCP, one direction each
 *   io.c       what both need, and what is ready
 *   wait.c     spinning, sleeping, doorbells
 *   await.c    before there are rings: spinning in front of a sleep in the kernel
 *   demote.c   back to TCP at a byte position
 *   hooks_io.c read, write, send, recv and their kin
 *   hooks_fd.c socket, connect, accept, listen, close, dup, fcntl, ioctl, sockopts, shutdown
 *   poll.c     poll, select and their kin
 *   epoll.c    epoll
 *   fresh.c    connections of few messages
 *   vfork.c    vfork
 *   exec.c     exec, posix_spawn, system, popen
 *   proc.c     fork, the end, signals, io_uring, stdio
 *
 * A descriptor that is not ours costs one table look-up: conn_of() or ism_fd_get(). The kernel's file
 * descriptor stays the application's: numbers, dup(), /proc and fork() stay right, and everything that
 * is not interposed still works on the TCP connection.
 *
 * Errors inside are negative errno; only the interposed functions set errno. Nothing here calls malloc,
 * stdio or an interposed function: memory comes from mmap(), system calls from `real`.
 */
#ifndef ISM_SHIM_H
#define ISM_SHIM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <ismredir/control.h>
#include <ismredir/dmb.h>
#include <ismredir/maps.h>
#include <ismredir/reasons.h>
#include "real.h"
#include "ring.h"

#define ISM_EXPORT  __attribute__((visibility("default")))
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---------------------------------------------------------------- shared between fork() relatives */

/**
 * struct ism_lock - one task at a time in a direction, across processes
 * @owner: thread id, 0 when free; bit 31: somebody waits. A dead owner is found out and replaced:
 *         whatever it was doing left the state as it was before (cursors move after the copy).
 */
struct ism_lock {
	_Atomic uint32_t owner;
};

enum ism_slot_state {
	ISM_SLOT_FREE = 0,
	ISM_SLOT_CANDIDATE, /* marked capable; on TCP through the kernel, being counted */
	ISM_SLOT_ASKED, /* ismredird was asked for rings */
	ISM_SLOT_INIT, /* they have come and are being prepared */
	ISM_SLOT_ATTACHED, /* rings exist; processes map them at their next operation */
	ISM_SLOT_PLAIN, /* plain TCP for the rest of its life */
};

enum ism_tx_state {
	ISM_TX_TCP = 0, /* bytes take TCP; goes to the ring when the partner has read them all */
	ISM_TX_RING,
	ISM_TX_FOREVER, /* TCP for the rest of its life */
};

/* Who has not looked at it yet. */
enum {
	ISM_HINT_RX = 1,
	ISM_HINT_TX = 2,
};

/*
 * struct ism_stream - is this end the reader of a stream? See let_it_get_ahead()
 * @tx_msgs, @rx_msgs: counters when this end last sent something
 * @rx_bytes, @looked: counter and ticks when it last found the ring empty
 * @away: how long it looks away then, see ism_ring_away_ns()
 */
struct ism_stream {
	uint64_t tx_msgs, rx_msgs, rx_bytes, looked;
	struct ism_tune away;
};

/**
 * struct ism_slot - one connection end, in memory shared by the processes that hold it after a fork()
 *
 * Fields without a lock are atomic, or set before the slot is shared. @procs counts processes.
 */
struct ism_slot {
	_Atomic uint32_t procs;
	_Atomic uint32_t state; /* enum ism_slot_state */
	uint64_t share; /* random: proves kinship to ismredird */
	uint64_t token;
	uint64_t peer_token;
	uint32_t remote; /* the partner is of another kernel: believe no CPU, clock, barrier */
	uint32_t put_off; /* how often rings were asked for in vain: see until_then() */
	uint64_t mark; /* the rings that this is the state of: struct ism_dmb_stats */
	_Atomic uint32_t nonblock; /* O_NONBLOCK of the open file description */
	_Atomic uint32_t shut; /* 1: SHUT_RD done, 2: SHUT_WR done */
	_Atomic uint32_t
		lent; /* programs without us may have the socket, too: closing it ends nothing */
	_Atomic uint64_t rcvtimeo; /* ns, 0: none */
	_Atomic uint64_t sndtimeo;
	_Atomic uint32_t rcvlowat;
	_Atomic uint32_t msgs; /* operations while a candidate */
	_Atomic uint64_t bytes;
	_Atomic uint32_t
		kernel_rx; /* tasks that may be inside a kernel receive or poll of a candidate */
	_Atomic uint32_t kernel_tx; /* tasks that may be inside a kernel send of a candidate */
	uint32_t asked_in_vain; /* BPF knew nothing of the connection */

	/* receiving side: under rx_lock, or atomic */
	struct ism_lock rx_lock __attribute__((aligned(64)));
	uint32_t rx_ready; /* ISM_RX_READY was published */
	uint32_t rx_seq; /* TCP position up to which the application has read */
	uint32_t rx_eof; /* end of stream was seen */
	int32_t rx_err; /* negative errno to report once */
	uint32_t rx_frozen;
	struct ism_ring_rx rx;
	_Atomic uint32_t tcp_hint; /* ISM_HINT_*: the kernel reported something on the TCP socket */
	_Atomic uint32_t want_data; /* value in the partner's DMB now, 0: not armed */
	_Atomic uint32_t want_seq; /* last value used for want_data and want_space */
	_Atomic uint64_t armed_word; /* producer word when want_data was armed */
	_Atomic uint32_t rx_waiters; /* tasks and epoll sets that sleep for data */
	_Atomic uint32_t rx_sparse; /* sleeps in a row for few messages each: choose_fence() */
	_Atomic uint32_t choosing; /* a task is in choose_fence() */
	uint64_t armed_msgs; /* messages of the partner when want_data was armed */
	uint64_t rx_bytes, rx_msgs, tcp_rx_bytes;
	uint32_t rx_budget; /* ns to spin, adapts */
	struct ism_stream stream; /* let it get ahead: wait.c */
	_Atomic uint32_t in_order; /* the partner was asked for stamps: epoll.c */
	uint32_t empty_reads;

	/* sending side: under tx_lock, or atomic */
	struct ism_lock tx_lock __attribute__((aligned(64)));
	_Atomic uint32_t tx_state; /* enum ism_tx_state */
	uint32_t tx_known; /* tx_seq is valid */
	uint32_t tx_seq; /* TCP position behind the last byte given to TCP */
	uint32_t rung_data; /* partner's want_data for which we rang */
	_Atomic uint32_t rung_space; /* partner's want_space for which we rang */
	uint32_t tx_reason; /* enum ism_reason while on TCP */
	struct ism_ring_tx tx;
	_Atomic uint32_t want_space;
	_Atomic uint64_t armed_cons; /* partner's consumer cursor when want_space was armed */
	_Atomic uint32_t
		out_blocked; /* counts: a send found no room; an edge for EPOLLOUT follows */
	_Atomic uint32_t tx_waiters;
	uint64_t tx_bytes, tx_msgs, tcp_tx_bytes, switches;
	struct ism_tune tx_bypass; /* does tx.bypass pay? */
	uint64_t tx_tuned; /* tx_bytes when that was last looked at */
	uint32_t tx_budget;
	uint32_t sends_unchecked; /* since the clock was last looked at */
	uint64_t tcp_looked; /* ticks: when the TCP connection was last looked at */
	uint64_t drain_at, drain_wait; /* when a stream may be held back again; ns */

	_Atomic uint64_t spins, sleeps, doorbells, timeouts;
	_Atomic uint32_t broken; /* partner wrote nonsense: ECONNRESET */
	int32_t cpu_told; /* CPU last published */
	_Atomic uint32_t plane_told; /* enum ism_plane that BPF was told */
} __attribute__((aligned(128)));

/* ---------------------------------------------------------------- of this process */

/* How soon rings are asked for: operations or bytes of a connection, from ISMREDIR_AFTER. */
extern uint32_t ism_after_msgs;
extern uint64_t ism_after_bytes;

struct ism_ep_item; /* epoll.c */

/* As long as it is not 0 ismredird may have the socket, too. */
enum ism_asked {
	ISM_ASKS = 1, /* this process has asked for rings and has no answer yet */
	ISM_ASKED_BEFORE, /* that process had that forked this one */
};

/**
 * struct conn - a connection end in this process. Type-stable: never returned to the system.
 * @slot: its shared part
 * @users: operations in progress (only counted when the process has threads), so that nothing is
 *         unmapped below them
 * @fds: descriptors of this process that refer to it
 * @own, @peer: the two DMBs as mapped here, NULL until attached in this process
 * @own_bell, @peer_bell: eventfds
 * @items: epoll registrations of this connection, under the epoll lock
 */
struct conn {
	struct ism_slot *slot;
	_Atomic uint32_t users;
	_Atomic uint32_t fds;
	_Atomic uint32_t closing;
	void *own;
	void *peer;
	uint32_t own_len, peer_len;
	uint64_t own_off, peer_off; /* where they are in own_fd and peer_fd */
	int own_bell, peer_bell;
	int own_fd,
		peer_fd; /* the DMBs' memfds, kept for a restart of ismredird; -1 when fds are scarce */
	_Atomic int fd_hint; /* a descriptor that referred to it last; see conn_any_fd() */
	_Atomic uint32_t asked; /* enum ism_asked */
	uint32_t tick; /* ism_daemon_tick() is due */
	uint32_t ep_told; /* epoll was told that the ring decides about EPOLLOUT */
	struct ism_ep_item *items;
	struct conn *next_free;
	uint32_t index; /* place in the pool: names the connection in epoll data */
	uint32_t gen; /* of the FRESH entry that it was, 0: it was none */
};

enum ism_fd_kind {
	ISM_FD_NONE = 0, /* not ours */
	ISM_FD_TCP, /* a TCP socket without a connection: new, or listening */
	ISM_FD_CONN, /* a connection that is a candidate or attached */
	ISM_FD_EPOLL, /* an epoll instance that we know */
	ISM_FD_PRIVATE, /* a descriptor of the shim itself: does not exist for the application */
	ISM_FD_FRESH, /* a connection of which there is only this entry yet: fresh.c */
};

/* What the table holds for a descriptor: kind in the low bits of a pointer; of FRESH numbers instead. */
typedef uint64_t ism_fd_t;
#define ISM_FD_KIND(e) ((enum ism_fd_kind)((e)&7))
#define ISM_FD_PTR(e)  ((void *)((e) & ~(uintptr_t)7))

#define ISM_FD_MAX (1 << 20)
extern _Atomic ism_fd_t ism_fdtab[ISM_FD_MAX];

/** ism_fd_raw() - the entry as it is; for those who treat FRESH as it is */
static inline ism_fd_t ism_fd_raw(int fd)
{
	if (unlikely((unsigned)fd >= ISM_FD_MAX))
		return 0;
	return atomic_load_explicit(&ism_fdtab[fd], memory_order_acquire);
}

/** ism_fd_settle() - @e, found in the table, is FRESH: make a candidate of it. Return: the entry now. */
ism_fd_t ism_fd_settle(int fd, ism_fd_t e);

/** ism_fd_get() - the entry, which is never FRESH */
static inline ism_fd_t ism_fd_get(int fd)
{
	ism_fd_t e = ism_fd_raw(fd);

	return unlikely(ISM_FD_KIND(e) == ISM_FD_FRESH) ? ism_fd_settle(fd, e) : e;
}

static inline int ism_fd_is_fresh(int fd)
{
	return ISM_FD_KIND(ism_fd_raw(fd)) == ISM_FD_FRESH;
}

/* fresh.c */

enum fresh_way {
	FRESH_RX,
	FRESH_TX,
};

/** fresh_start() - @fd was connected, is marked and blocks: note it as FRESH. Return: done? */
int fresh_start(int fd);
/** fresh_settle_all() - candidates of all; before fork(), and when ism_disabled was set, nothing of all */
void fresh_settle_all(void);
/** fresh_enter() - see fresh_begin(); @e was found in the table */
uint32_t fresh_enter(int fd, ism_fd_t e, enum fresh_way way);

/**
 * fresh_begin() - @fd is about to be read or written
 *
 * Return: 0, go on with conn_of(); or it is FRESH: call the kernel, then fresh_leave() with this as @was.
 */
static inline uint32_t fresh_begin(int fd, enum fresh_way way)
{
	ism_fd_t e = ism_fd_raw(fd);

	return likely(ISM_FD_KIND(e) != ISM_FD_FRESH) ? 0 : fresh_enter(fd, e, way);
}

/** fresh_leave() - @n: what the kernel said, bytes or negative */
void fresh_leave(int fd, uint32_t was, enum fresh_way way, ssize_t n);

/* table.c */

/*
 * ism_swap64() - compare and exchange what only this process sees. Against a signal handler of the only thread one
 * instruction is enough, without the lock that others need. May fail for no reason. Return: done?
 */
static inline int ism_swap64(_Atomic uint64_t *p, uint64_t *old, uint64_t next)
{
#if defined(__x86_64__)
	int done;

	if (likely(__libc_single_threaded)) {
		__asm__ volatile("cmpxchgq %3, %1"
				 : "=@ccz"(done), "+m"(*p), "+a"(*old)
				 : "r"(next)
				 : "memory");
		return done;
	}
#endif
	return atomic_compare_exchange_weak(p, old, next);
}

/** conn_get_slow() - with threads: take a reference that holds what the table names */
struct conn *conn_get_slow(int fd, ism_fd_t e);

/**
 * conn_of() - the connection behind a descriptor, NULL for everybody else's
 * Pair with conn_done().
 */
static inline struct conn *conn_of(int fd)
{
	ism_fd_t e = ism_fd_get(fd);

	if (likely(ISM_FD_KIND(e) != ISM_FD_CONN))
		return NULL;
	if (likely(__libc_single_threaded)) {
		struct conn *c = ISM_FD_PTR(e);

		/* also here: a signal handler may close() what we are waiting on */
		atomic_store_explicit(&c->users, c->users + 1, memory_order_relaxed);
		return c;
	}
	return conn_get_slow(fd, e);
}

/** conn_release() - nobody is in it any more: unmap, detach, back to the pool. Once. */
void conn_release(struct conn *c);

/** conn_done_slow() - as conn_done(), with threads */
void conn_done_slow(struct conn *c);

/** conn_done() - the operation is over; the last one out releases a closed connection */
static inline void conn_done(struct conn *c)
{
	uint32_t users;

	if (!likely(__libc_single_threaded)) {
		conn_done_slow(c);
		return;
	}
	users = c->users - 1;
	atomic_store_explicit(&c->users, users, memory_order_relaxed);
	if (unlikely(!users && atomic_load_explicit(&c->closing, memory_order_relaxed)))
		conn_release(c);
}

/** ism_table_idle() - no entry was ever made, and no other thread can be about to make one */
int ism_table_idle(void);

/** ism_fd_set() - @ptr must be aligned to 8; the caller owns the meaning of the old entry */
void ism_fd_set(int fd, enum ism_fd_kind kind, void *ptr);

/** ism_fd_swap() - as ism_fd_set(), unless the entry is not @old any more. Return: was it? */
int ism_fd_swap(int fd, ism_fd_t old, enum ism_fd_kind kind, void *ptr);
/** ism_fd_next() - the next descriptor from @fd to @last that has an entry, or -1 */
int ism_fd_next(unsigned int fd, unsigned int last);

/** conn_alloc() - a conn with one fd reference and a fresh candidate slot; NULL: no memory */
struct conn *conn_alloc(void);
/** conn_by_index() - see struct conn.index; NULL when there is none */
struct conn *conn_by_index(uint32_t index);
/** conn_free() - both parts back to their pools; the slot only when no process holds it */
void conn_free(struct conn *c);
/** conn_each() - call @fn for every conn in use, in no order */
void conn_each(void (*fn)(struct conn *c, void *arg), void *arg);

/*
 * Around fork(): the child holds every slot that the parent holds. before_fork() counts it in, and lets
 * no connection come or go until fork_done() (in the parent; @failed: there is no child) or
 * after_fork() (in the child: the parent's free slots are not ours to take).
 */
void ism_table_before_fork(void);
void ism_table_fork_done(int failed);
void ism_table_after_fork(void);
/** ism_table_drop() - exit, or exec about to be tried: this process holds its slots no more */
void ism_table_drop(void);
/** ism_table_retake() - exec failed */
void ism_table_retake(void);

/** ism_lock_take(): 0, or -EDEADLK when this very thread holds it (a signal handler interrupted it) */
int ism_lock_take(struct ism_lock *l);
void ism_lock_drop(struct ism_lock *l);

/* conn.c */

/* What BPF was told is told again when it was longer ago: ismredir may have been loaded since. */
#define ISM_REMARK_MS 64

/** ism_tell() - tell BPF something of the socket @fd, see sockctl.h; 0 or -errno, which stays as it was */
int ism_tell(int fd, int option, uint32_t value);
/** ism_caps_mark() - tell BPF what the listener @fd can do; 0, or -EOPNOTSUPP where nothing is loaded */
int ism_caps_mark(int fd);
/** ism_caps_process() - the same for all that this process connects, by @fd, and at most now and then */
int ism_caps_process(int fd);
/** ism_caps_never() - but not @fd, about to be connected */
void ism_caps_never(int fd);
void ism_caps_after_fork(void);
/** ism_coarse_ms() - CLOCK_MONOTONIC, a tick old */
uint64_t ism_coarse_ms(void);
/** conn_start() - a descriptor was connected or accepted and is marked: make it a candidate */
void conn_start(int fd, int nonblock);
/** conn_dup() - @newfd now refers to what @oldfd does (any kind but none) */
void conn_dup(int oldfd, int newfd);
/**
 * conn_close() - @fd is about to be closed: forget it, and when it is the last reference, end the rings
 * (flags, reset for unread bytes as TCP does, detach). The caller then really closes @fd.
 */
void conn_close(int fd);
/** conn_plain() - never mind this one: plain TCP for good, all its fds become unknown */
void conn_plain(struct conn *c);
/** conn_report() - tell BPF, for `ismredir conns`, which plane the connection is on */
void conn_report(struct conn *c, int fd, uint32_t plane, uint32_t reason);
/**
 * conn_read_option() - what waits in user space needs to know an option, read back from the kernel
 * @name: SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVLOWAT; others do not matter
 */
void conn_read_option(struct ism_slot *s, int fd, int name);
/** conn_any_fd() - a descriptor of the connection in this process, -1 when there is none */
int conn_any_fd(struct conn *c);
/** conn_exit() - the process exits: end all connections that only it holds */
void conn_exit(void);

/*
 * Every operation on a connection begins with one of these. Return 1: the rings are attached, use
 * conn_recv() and so on. 0: call the kernel, then the matching _end() with its result. They count
 * candidates, ask ismredird, and map rings that have come.
 */
int conn_rx_begin(struct conn *c, int fd);
void conn_rx_end(struct conn *c, int fd, ssize_t n);
int conn_tx_begin(struct conn *c, int fd);
void conn_tx_end(struct conn *c, int fd, ssize_t n);

/** conn_attached() - are rings mapped in this process? */
static inline int conn_attached(const struct conn *c)
{
	return c->own != NULL;
}

/* daemon.c: never blocks */

struct ism_attach {
	uint64_t token;
	uint32_t own_ring, peer_ring;
	uint64_t own_off, peer_off;
	int fd[ISM_FD_COUNT];
};

/** ism_daemon_ask() - 0 or -errno; the answer comes by ism_daemon_poll() and names @index */
int ism_daemon_ask(int fd, uint64_t token, uint64_t share, uint32_t index);
/**
 * ism_daemon_poll() - read answers that are there; calls conn.c's conn_answer() for each
 * @wait_ms: wait so long for the first one
 */
void ism_daemon_poll(int wait_ms);
/** ism_daemon_detach() - this process has its rings no more; it is still counted in @s->procs */
void ism_daemon_detach(const struct ism_slot *s);
void ism_daemon_after_fork(void);
/** ism_daemon_fds() - our own descriptors, for close_range() and closefrom(): is @fd one of them? */
int ism_daemon_owns(int fd);
/** conn_answer() - takes over the descriptors of @a, which is NULL when @error is set */
void conn_answer(uint32_t index, uint64_t token, int error, uint32_t reason,
		 const struct ism_attach *a);
/** ism_daemon_tick() - call now and then: notices a restarted daemon */
void ism_daemon_tick(void);
/** ism_private_close() - close one; -1 is fine */
void ism_private_close(int fd);
/** ism_private_fd() - move a descriptor of ours out of the application's way, CLOEXEC */
int ism_private_fd(int fd);

/** ism_host() - the page that ismredird shares, or a default that says OFF */
const struct ism_host_page *ism_host(void);

/* rx.c, tx.c, io.c: only after conn_rx_begin() / conn_tx_begin() returned 1 */

/**
 * conn_recv() - receive with the meaning of recvmsg(2)
 * @flags: MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL, MSG_TRUNC, MSG_OOB, MSG_ERRQUEUE ...
 *
 * Return: bytes, 0 at the end, or negative errno (-EAGAIN, -EINTR, -ECONNRESET ...).
 */
ssize_t conn_recv(struct conn *c, int fd, const struct iovec *iov, int iovcnt, int flags);

/** conn_send() - send with the meaning of sendmsg(2); the caller raises SIGPIPE at -EPIPE */
ssize_t conn_send(struct conn *c, int fd, const struct iovec *iov, int iovcnt, int flags);

/**
 * conn_send_from() - move up to @len bytes from another descriptor into the connection (sendfile,
 * splice from a pipe): @fill reads into the pieces that it is given and returns bytes, 0 or -errno
 *
 * Return: bytes, 0, negative errno, or -EXDEV: sending is on TCP; let the kernel do it (the real
 * sendfile() or splice()), then call conn_tx_end() with its result.
 */
ssize_t conn_send_from(struct conn *c, int fd, size_t len, int flags,
		       ssize_t (*fill)(void *arg, const struct iovec *v, int n), void *arg);

/** conn_recv_to() - move received bytes to another descriptor: @drain writes and returns bytes taken */
ssize_t conn_recv_to(struct conn *c, int fd, size_t len, int flags,
		     ssize_t (*drain)(void *arg, const struct iovec *v, int n), void *arg);

/** conn_shutdown() - before the kernel's shutdown() is called */
void conn_shutdown(struct conn *c, int how);

/** conn_inq() - FIONREAD: bytes in ring and, where they are next, on TCP; or -errno */
int conn_inq(struct conn *c, int fd);

/*
 * Readiness without system calls: POLLIN, POLLOUT, POLLRDHUP as far as the rings decide. The kernel's
 * own report of the descriptor is to be filtered by conn_kernel_events() and added.
 */
unsigned int conn_ready(struct conn *c);
/**
 * conn_kernel_events() - which of the events that the kernel reports for the TCP socket count now:
 * POLLOUT only while sending is on TCP. Notes that TCP has something to say.
 */
unsigned int conn_kernel_events(struct conn *c, unsigned int revents);
/** conn_out_is_ring() - POLLOUT is decided by ring space: do not ask the kernel for it */
int conn_out_is_ring(struct conn *c);
/** conn_try_rx() - outside of any receive: let the ring become readable (ISM_RX_READY) if it can */
void conn_try_rx(struct conn *c, int fd);

/* wait.c */

enum {
	ISM_WANT_DATA = 1,
	ISM_WANT_SPACE = 2,
	/* for conn_wait(): something was moved already, so a handler with SA_RESTART ends the wait, too */
	ISM_WANT_PARTIAL = 4,
	/* for conn_wait(): the deadline is ours and none of the application's, as to restarting */
	ISM_WANT_OURS = 8,
};

/** conn_word() - changes when conn_ready() may have changed for the better: cheap, for spinning */
uint64_t conn_word(const struct conn *c, int want);

/**
 * conn_arm() - ask the partner to ring own_bell when there is data or space
 *
 * After arming all connections of interest: ism_sleep_fence(), look at conn_ready() once
 * more, and only then sleep on own_bell and the TCP socket. Arming again while nothing has happened
 * since is free. One armed value, one ring at most. Whoever sees own_bell reported must call
 * conn_heard_bell().
 */
void conn_arm(struct conn *c, int want);
void conn_disarm(struct conn *c, int want);
/** conn_disarm_begin() - for many: then one full fence, then conn_disarm_end() for each with the result */
int conn_disarm_begin(struct conn *c, int want);
void conn_disarm_end(struct conn *c, int gone);
/** ism_barrier() - a full fence here and in every process that writes into rings without one */
void ism_barrier(void);
/** ism_sleep_fence() - between arming and the last look: a fence here and, as it were, in the writers */
void ism_sleep_fence(void);
/** ism_barrier_init() - register this process for that; also in the child of fork() */
void ism_barrier_init(void);
/** ism_barrier_works() - for ISM_RX_BARRIER */
int ism_barrier_works(void);
/** conn_heard_bell() - own_bell was reported: what was armed is used up, whatever the words say */
void conn_heard_bell(struct conn *c);
/** conn_take_bell() - empty own_bell, and tell the epoll sets; no lock held. 0: it had not rung */
int conn_take_bell(struct conn *c);
/** conn_pass_bell() - somebody else may count on what was taken: arm, and ring if there is something */
void conn_pass_bell(struct conn *c);
/** conn_ring() - the partner sleeps for what we have just published? then wake it. Fence inside. */
void conn_ring(struct conn *c, int what);

/**
 * conn_wait() - until data or space may be there: spin, then sleep
 * @deadline: CLOCK_MONOTONIC ns, 0: none
 *
 * Return: 0 look again, -EINTR, -EAGAIN at the deadline.
 */
int conn_wait(struct conn *c, int fd, int want, uint64_t deadline);

/* So many messages received and none sent are a stream. */
#define ISM_STREAM_AFTER 64

/** conn_streams() - is this the reading end of a stream? Latency does not matter then */
static inline int conn_streams(const struct ism_slot *s)
{
	return s->rx_msgs - s->stream.rx_msgs >= ISM_STREAM_AFTER &&
	       s->stream.tx_msgs == s->tx_msgs;
}

/**
 * struct ism_spin - how long a waiter may spin
 * Use: ism_spin_begin(); while (ism_spin_more()) look; ism_spin_end(hit).
 */
struct ism_spin {
	uint64_t until; /* ticks, see wait.c */
	uint64_t start;
	uint32_t *budget; /* ns, adapts */
	uint32_t intr; /* ism_interrupts at the start */
	uint32_t yields;
	uint32_t loops;
	uint32_t same_cpu;
	uint32_t slow; /* somebody else had the CPU for long */
	uint64_t patience; /* how many times longer is long */
	uint32_t cap; /* ns, of the budget */
	uint32_t crowded; /* others want this CPU: no yields */
};

#define ISM_CPU_UNKNOWN	  -1
#define ISM_CPU_ELSEWHERE -2 /* of another kernel */

/** ism_spin_begin() - @budget is the adaptive state of this kind of wait; @partner_cpu may be ISM_CPU_* */
void ism_spin_begin(struct ism_spin *s, uint32_t *budget, int partner_cpu);
/** ism_spin_more() - pauses or yields once; 0 when it is time to sleep */
int ism_spin_more(struct ism_spin *s);
void ism_spin_end(struct ism_spin *s, int hit);

/** ism_pause() - be nice to the other hyperthread for a moment */
static inline void ism_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#endif
}

/** conn_partner_cpu() - where the partner last ran, or ISM_CPU_ELSEWHERE */
int conn_partner_cpu(const struct conn *c);
uint64_t ism_now_ns(void);
/** ism_ticks() - the cheapest clock there is, for waiters; ism_to_ticks() - so many ns in it, about */
uint64_t ism_ticks(void);
uint64_t ism_to_ticks(uint64_t ns);
int ism_my_cpu(void);

/* await.c */

/* Kinds of waits, each with a habit of its own. */
enum ism_await {
	ISM_AWAIT_DATA,
	ISM_AWAIT_CLIENT,
	ISM_AWAIT_SET,
	ISM_AWAIT_KINDS,
};

/**
 * ism_await() - about to sleep in poll(@fds): ask for a while without sleeping, where that has been worth it
 *
 * Return: as poll() with @fds filled in; 0: nothing yet; -EINTR: a handler ran that ends a wait.
 */
int ism_await(struct pollfd *fds, nfds_t n, enum ism_await kind);
/** ism_await_data() - about to receive in the kernel from a socket that blocks; 0 or -EINTR */
int ism_await_data(int fd);
/** ism_await_client() - about to accept from a marked listener; 0 or -EINTR */
int ism_await_client(int fd);

/* Between rx.c, tx.c, io.c, wait.c and demote.c */

/** io_serve() - the partner froze its ring or closed: send again what it has not read. tx_lock held. */
void io_serve(struct conn *c, int fd);
/** io_tx_forever() - from now on bytes take TCP, for @reason. tx_lock held. */
void io_tx_forever(struct conn *c, uint32_t reason);
/** io_may_have() - cheap and without locks: is there something to do for a waiter? */
int io_may_have(struct conn *c, int want);
/** io_break() - the partner wrote nonsense: end this connection */
void io_break(struct conn *c, int fd);
/**
 * io_end_tx() - nothing will be put into the ring any more, and TCP goes on or ends: a relay must have taken
 *               everything out of it before, and then the FIN is let go
 *
 * At most until @until; at once where the partner is no relay. tx_lock held.
 * Return: 0; -ETIMEDOUT: the FIN stays behind the ring; -ECONNRESET the connection is gone.
 */
int io_end_tx(struct conn *c, int fd, uint64_t until);
/** io_patience() - until when the end of a connection may wait for that */
uint64_t io_patience(const struct conn *c);
/** io_set_rx() - publish the receiving state: TCP position and ISM_RX_* bits. rx_lock held. */
void io_set_rx(struct conn *c, uint64_t bits);
/** io_wait_tcp_out() - until the TCP socket takes bytes; as conn_wait() */
int io_wait_tcp_out(int fd, uint64_t deadline);
/** io_stats_tx(), io_stats_rx() - show our counters in the partner's DMB */
void io_stats_tx(struct conn *c);
void io_stats_rx(struct conn *c);

/* demote.c */

/**
 * conn_demote() - both directions on TCP for good, in order, nothing lost
 * @reason: enum ism_reason
 *
 * What the ring still holds for us is sent again by the partner, as soon as it is in its shim; waits
 * for that up to 2 s. Return: 0, or -EAGAIN when the partner did not: then nothing has changed.
 */
int conn_demote(struct conn *c, int fd, uint32_t reason);
/**
 * conn_demote_tx() - only the sending side: the reader reads the ring out first. A relay that has not done so for
 * 2 s ends it: EPIPE from then on
 */
void conn_demote_tx(struct conn *c, uint32_t reason);
/** ism_disable() - no more rings in this process; demote all. For io_uring and the like. */
void ism_disable(uint32_t reason);
/** ism_confine() - as ism_disable(), and from now on no system call but what the application makes */
void ism_confine(uint32_t reason);
extern _Atomic uint32_t ism_disabled, ism_confined;

/* hooks_fd.c */

/**
 * ism_fd_leave() - from now on @fd must be right for code that we do not see: conn_demote()
 * @forget: and our hooks will not see its end, so it becomes unknown to us
 *
 * Return: 0 (also when it is no connection of ours), or -EAGAIN.
 */
int ism_fd_leave(int fd, uint32_t reason, int forget);
/** ism_fd_listens() - is it a listener that BPF knows to be capable? */
int ism_fd_listens(int fd);

/* vfork.c */

/**
 * ism_borrowed - this is a child of vfork(), and the memory is its parent's: whatever hook notes something in
 * it looks here first. Its parent stands still and has one thread, so nobody else is meant.
 */
extern volatile uint32_t ism_borrowed;

/* exec.c */

/** ism_exec_before_fork() - make what children are to share, so that they tell each other about programs */
void ism_exec_before_fork(void);

/* proc.c */

/** ism_is_me() - not in a process that only borrows our memory, as vfork() and clone(CLONE_VM) make */
int ism_is_me(void);
/** ism_interrupts - signal handlers without SA_RESTART that have run in this thread */
extern __thread volatile uint32_t ism_interrupts;

/* poll.c / epoll.c */

/** epoll_conn_attached() - rings came: add the bell to every set that has the connection */
void epoll_conn_attached(struct conn *c);
/** epoll_conn_closed() - an fd, or (fd -1) the whole connection goes */
void epoll_conn_closed(struct conn *c, int fd);
/** epoll_conn_rung() - somebody drained the bell of @c, which sets count on, too */
void epoll_conn_rung(struct conn *c);
/** epoll_conn_changed() - sending moved between ring and TCP: the kernel must (not) report EPOLLOUT */
void epoll_conn_changed(struct conn *c);
void epoll_fd_closed(int epfd);
/** epoll_fd_duped() - one more descriptor refers to the instance @ep of the table entry */
void epoll_fd_duped(void *ep);
void epoll_after_fork(void);
/** epoll_ready() - user-level readiness of an epoll instance, for nested use: nonzero when it is */
int epoll_ready(int epfd);
/** epoll_arm() - arm every connection in the set (and sets in it) before someone sleeps on @epfd */
void epoll_arm(int epfd);
/** epoll_disarm() - the sleep is over */
void epoll_disarm(int epfd);

#endif
