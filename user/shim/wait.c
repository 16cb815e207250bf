// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Waiting: spin as long as a wake-up would cost, then arm, look once more, and sleep in the kernel on
 * the TCP socket and the bell together. docs/ring.rst, "waiting".
 */
#include "shim.h"
#include <sched.h>
#include <string.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>

/* Spinning: bounds in ns, and how often to look at the clock. */
#define SPIN_DEFAULT 50000
#define SPIN_MIN     1000
#define SPIN_MAX     100000
#define SPIN_REMOTE  500000 /* a partner in another kernel: an interrupt there and two daemons */
#define SPIN_PROBE   32 /* a waiter that gave up spinning tries again once in so many waits */
#define SPIN_CLOCK   8
#define YIELDS	     24
/*
 * Somebody else ran meanwhile, and it was not the partner: yielding costs a turn here. So no yield for a while, for
 * longer each time, and no spinning for long in front of another kernel. A short spin goes on: it takes nothing
 * that the scheduler would not give, and each sleep is a turn that may be lost, too.
 */
#define YIELD_SLOW_NS	  60000
#define YIELD_LOST_NS	  1000000 /* a whole turn at least: not the partner alone */
#define REMOTE_PATIENCE	  20 /* of that, where sleeping costs several turns anyway */
#define YIELD_REST_NS	  5000000
#define CROWDED_NS	  100000000
#define YIELD_REST_MAX_NS 1000000000
/* In a longer spin the CPU is offered to others once in so many rounds, first after a few. */
#define SPIN_YIELD	 256
#define SPIN_YIELD_FIRST 48

/* A sleeper looks by itself once in so long. Finding something then is a lost wake-up, and counted. */
#define SAFETY_NS 1000000000ULL

/* No producer word and no cursor: the cursor in a word has 56 bits. */
#define NOT_ARMED (~0ULL)

static __thread uint64_t crowded_until;
static __thread uint32_t crowded_ns;

/* ---------------------------------------------------------------- clocks */

uint64_t ism_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * A waiter reads the clock all the time, so it reads the cheapest: the time-stamp counter (a third of
 * clock_gettime()). Its rate is learnt by the way; a counter that jumps only makes a wait spin longer or
 * shorter. Elsewhere ticks are ns.
 */
#if defined(__x86_64__)
static uint64_t tick0, ns0, ticks_per_ms;

uint64_t ism_ticks(void)
{
	return __builtin_ia32_rdtsc();
}

/* The first wait starts the clock: a program that never waits here shall not pay for it. */
static void learn_rate(void)
{
	uint64_t rate, past;

	if (!ns0) {
		tick0 = ism_ticks();
		ns0 = ism_now_ns();
		return;
	}
	past = ism_now_ns() - ns0;
	if (past < 2000000)
		return;
	rate = (ism_ticks() - tick0) / (past / 1000000);
	ticks_per_ms = rate ? rate : 1;
}

uint64_t ism_to_ticks(uint64_t ns)
{
	if (unlikely(!ticks_per_ms))
		learn_rate();
	return ticks_per_ms ? ns * ticks_per_ms / 1000000 : ns * 2;
}
#else
uint64_t ism_ticks(void)
{
	return ism_now_ns();
}

uint64_t ism_to_ticks(uint64_t ns)
{
	return ns;
}
#endif

int ism_my_cpu(void)
{
	return sched_getcpu(); /* from the rseq area since glibc 2.35 */
}

/*
 * A bell between kernels goes through both their ismredirds, so there sleeping costs several wake-ups, and
 * spinning is worth it for longer; also with one CPU, as the partner has others.
 */
static uint32_t spin_cap(int partner_cpu)
{
	uint32_t wake = ism_host()->wake_ns;

	if (partner_cpu == ISM_CPU_ELSEWHERE)
		return SPIN_REMOTE;
	if (ism_host()->cpus == 1)
		return 0;
	if (!wake)
		return SPIN_DEFAULT;
	if (wake < SPIN_MIN)
		return SPIN_MIN;
	return wake > SPIN_MAX ? SPIN_MAX : wake;
}

/* ---------------------------------------------------------------- spinning */

/*
 * The adaptive state: the low 24 bits are the budget in ns, plus one so that 0 means "never used"; the
 * high 8 bits count waits since the budget shrank to nothing.
 */
static uint32_t budget_get(uint32_t *state, uint32_t cap)
{
	uint32_t b = *state & 0xffffff, n = *state >> 24;

	if (!b)
		return cap;
	b--;
	if (b >= SPIN_MIN)
		return b < cap ? b : cap;
	*state = (n + 1) % SPIN_PROBE << 24 | (*state & 0xffffff);
	return n + 1 == SPIN_PROBE ? cap : 0;
}

static void budget_set(uint32_t *state, uint32_t ns)
{
	*state = ns + 1;
}

void ism_spin_begin(struct ism_spin *s, uint32_t *budget, int partner_cpu)
{
	uint64_t now = ism_ticks();
	uint32_t ns = 0;

	s->budget = budget;
	s->intr = ism_interrupts;
	s->loops = 0;
	s->slow = 0;
	/* In front of a partner on this very CPU spinning only keeps it from running. */
	s->same_cpu = partner_cpu >= 0 && partner_cpu == ism_my_cpu();
	s->patience = partner_cpu == ISM_CPU_ELSEWHERE ? REMOTE_PATIENCE : 1;
	s->cap = 0;
	s->crowded = now < crowded_until;
	if (s->same_cpu) {
		s->yields = s->crowded ? 0 : YIELDS;
	} else if (!s->crowded || partner_cpu != ISM_CPU_ELSEWHERE) {
		s->cap = spin_cap(partner_cpu);
		ns = s->cap ? budget_get(budget, s->cap) : 0;
	}
	s->until = now + ism_to_ticks(ns);
	s->start = now;
}

static void yield_once(struct ism_spin *s)
{
	uint64_t before = ism_ticks(), took;

	sched_yield();
	took = ism_ticks() - before;
	if (took > ism_to_ticks(YIELD_SLOW_NS * s->patience)) {
		s->slow = took > ism_to_ticks(YIELD_LOST_NS * s->patience) ? 2 : 1;
		s->yields = 0;
		s->until = before;
	}
}

int ism_spin_more(struct ism_spin *s)
{
	uint64_t now;

	if (ism_interrupts != s->intr)
		return 0;
	if (s->same_cpu) {
		if (!s->yields)
			return 0;
		s->yields--;
		yield_once(s);
		return 1;
	}
	ism_pause();
	if (++s->loops % SPIN_CLOCK)
		return 1;
	now = ism_ticks();
	if (now >= s->until) {
		/* far beyond it: somebody else had the CPU, whom the kernel had to take it for from us */
		if (!s->crowded && now - s->until > ism_to_ticks(YIELD_LOST_NS * s->patience))
			s->slow = 2;
		return 0;
	}
	if (!s->crowded && s->loops % SPIN_YIELD == SPIN_YIELD_FIRST)
		yield_once(s);
	return 1;
}

/* Was it the partner that ran while we yielded? Then all is well. */
static void note_crowd(const struct ism_spin *s, int hit)
{
	if (!s->slow)
		return;
	if (hit && s->slow == 1) {
		crowded_ns = 0;
		return;
	}
	crowded_ns = crowded_ns ? crowded_ns * 2 : YIELD_REST_NS;
	if (s->slow > 1 && crowded_ns < CROWDED_NS)
		crowded_ns = CROWDED_NS;
	if (crowded_ns > YIELD_REST_MAX_NS)
		crowded_ns = YIELD_REST_MAX_NS;
	crowded_until = ism_ticks() + ism_to_ticks(crowded_ns);
}

/*
 * Like the kernel's halt polling (virt/kvm grow_halt_poll_ns()): grow when the event came while
 * spinning, or soon after; shrink when spinning was in vain.
 */
void ism_spin_end(struct ism_spin *s, int hit)
{
	uint32_t cap = s->cap, ns = (*s->budget & 0xffffff);

	note_crowd(s, hit);
	if (s->same_cpu || (s->crowded && !cap))
		return;
	ns = ns ? ns - 1 : cap;
	if (hit || ism_ticks() - s->start < ism_to_ticks(2ULL * cap))
		ns = ns < SPIN_MIN ? cap / 2 : ns + ns / 2;
	else
		ns /= 2;
	budget_set(s->budget, ns < cap ? ns : cap);
}

int conn_partner_cpu(const struct conn *c)
{
	if (c->slot->remote)
		return ISM_CPU_ELSEWHERE;
	return __atomic_load_n(&ism_dmb_tx(c->own)->cpu, __ATOMIC_RELAXED);
}

/* ---------------------------------------------------------------- fences */

/*
 * A full fence behind each publication waits until the partner's CPU has given up the cache line: half of
 * the time of a small message. Where sleeping is rare the sleeper has the fence executed on the writers'
 * CPUs, by an interrupt, and the writers only keep their compiler from reordering. Both have to be
 * registered; a writer knows by ISM_RX_BARRIER that its reader does its part.
 *
 * Such an interrupt costs as much as some fifty fences, and disturbs whoever runs there. A reader that
 * sleeps for every few messages (a server of many clients, three processes on two CPUs) takes the claim
 * back and leaves fencing to the writer.
 */
static uint32_t registered;
static __thread uint32_t armed_anew; /* something was armed that wants a barrier */
static __thread uint32_t dense_seen; /* dense_turns at the last fence */

#define SPARSE_MSGS   32 /* for fewer messages a sleep is sparse */
#define SPARSE_SLEEPS 8 /* so many in a row, and the writer shall fence */
#define DENSE_MSGS    256 /* for that many it shall not any more */

/* How often a reader of this process took the fences back to itself. */
static _Atomic uint32_t dense_turns;

__attribute__((constructor(104))) void ism_barrier_init(void)
{
	/* while there is one thread only this is cheap: sync_runqueues_membarrier_state() */
	registered =
		real.syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

int ism_barrier_works(void)
{
	return registered;
}

void ism_barrier(void)
{
	int saved = errno;

	atomic_thread_fence(memory_order_seq_cst);
	/* A seccomp filter that came later may forbid it: from then on the writers have to fence. */
	if (registered && real.syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0))
		registered = 0;
	errno = saved;
}

/* Whatever a writer has read of the claim, after the barrier it fences or has been fenced. */
static void leave_fences_to_writer(struct conn *c)
{
	__atomic_store_n(&ism_dmb_rx(c->peer)->how, 0, __ATOMIC_RELAXED);
	ism_barrier();
	atomic_store(&c->slot->rx_sparse, SPARSE_SLEEPS);
}

/*
 * Another task may have looked at rx_sparse, armed, and count on its own fence. If it does not see the new
 * number behind that fence, then the fence, and what it armed, came before the claim does.
 */
static void take_fences_back(struct conn *c)
{
	atomic_store(&c->slot->rx_sparse, 0);
	atomic_fetch_add(&dense_turns, 1);
	__atomic_store_n(&ism_dmb_rx(c->peer)->how, ISM_RX_BARRIER, __ATOMIC_RELEASE);
	armed_anew = 1;
}

/*
 * want_data was armed anew: who fences? Processes that share the connection do not see each other's
 * dense_turns, so with them it stays as it is.
 */
static void choose_fence(struct conn *c)
{
	struct ism_slot *s = c->slot;
	uint64_t msgs = __atomic_load_n(&ism_dmb_stats(c->own)->tx_msgs, __ATOMIC_RELAXED);
	uint64_t since = msgs - s->armed_msgs;
	uint32_t sparse = atomic_load(&s->rx_sparse);

	s->armed_msgs = msgs;
	if (sparse >= SPARSE_SLEEPS) {
		if (since >= DENSE_MSGS && registered && atomic_load(&s->procs) == 1)
			take_fences_back(c);
		return;
	}
	armed_anew = 1;
	if (since >= SPARSE_MSGS)
		atomic_store(&s->rx_sparse, 0);
	else if (sparse == SPARSE_SLEEPS - 1 || unlikely(!registered))
		leave_fences_to_writer(c);
	else
		atomic_store(&s->rx_sparse, sparse + 1);
}

/* One at a time; whoever comes meanwhile has his own barrier, which is always right. */
static void armed_data(struct conn *c)
{
	if (c->slot->remote)
		return; /* both fence */
	if (atomic_exchange(&c->slot->choosing, 1)) {
		armed_anew = 1;
		return;
	}
	choose_fence(c);
	atomic_store(&c->slot->choosing, 0);
}

/* What was armed before, and found nobody writing, had its barrier then. */
void ism_sleep_fence(void)
{
	uint32_t turns;

	atomic_thread_fence(memory_order_seq_cst);
	turns = atomic_load(&dense_turns);
	if (!armed_anew && turns == dense_seen)
		return;
	armed_anew = 0;
	dense_seen = turns;
	ism_barrier();
}

static void publish_fence(const struct conn *c)
{
	/* no barrier of another kernel reaches us, whatever its partner claims */
	if (registered && !c->slot->remote &&
	    __atomic_load_n(&ism_dmb_rx(c->own)->how, __ATOMIC_RELAXED) & ISM_RX_BARRIER)
		atomic_signal_fence(memory_order_seq_cst);
	else
		atomic_thread_fence(memory_order_seq_cst);
}

/* ---------------------------------------------------------------- doorbells */

static uint32_t next_want(struct ism_slot *s)
{
	uint32_t v = atomic_fetch_add(&s->want_seq, 1) + 1;

	return v ? v : atomic_fetch_add(&s->want_seq, 1) + 1;
}

uint64_t conn_word(const struct conn *c, int want)
{
	if (want & ISM_WANT_DATA)
		return ism_ring_word(c->own);
	return __atomic_load_n(&ism_dmb_rx(c->own)->cons, __ATOMIC_ACQUIRE);
}

/*
 * A value that was armed is good for one ring. While the word has not moved since and no bell was heard
 * there is nothing to do. The word is read before the value is stored, so that what comes in between
 * makes the next arming effective.
 *
 * The word alone would not do: a writer may be preempted between publishing and looking whether we
 * sleep. By then we may have read what it published and armed again, and it rings for a word that we
 * know: the value is used up, and nothing but the bell tells.
 */
static int arm(_Atomic uint32_t *mine, _Atomic uint64_t *armed, uint32_t *theirs, uint64_t word,
	       struct ism_slot *s)
{
	uint32_t v;

	if (atomic_load(mine) && atomic_load(armed) == word)
		return 0;
	v = next_want(s);
	atomic_store(armed, word);
	atomic_store(mine, v);
	__atomic_store_n(theirs, v, __ATOMIC_RELEASE);
	return 1;
}

/*
 * A stream's reader that goes to sleep tells what it has left untold: that the ring is empty. No writer waits for
 * it: who waits for a quarter of the ring was told when there was one.
 */
static void tell_idle(struct conn *c)
{
	struct ism_slot *s = c->slot;

	if (likely(s->rx.told == s->rx.head) || ism_lock_take(&s->rx_lock))
		return;
	if (ism_ring_rx_due(&s->rx))
		ism_ring_rx_publish(&s->rx, c->peer);
	ism_lock_drop(&s->rx_lock);
}

void conn_arm(struct conn *c, int want)
{
	struct ism_slot *s = c->slot;

	if (want & ISM_WANT_DATA &&
	    arm(&s->want_data, &s->armed_word, &ism_dmb_rx(c->peer)->want_data,
		conn_word(c, ISM_WANT_DATA), s)) {
		tell_idle(c);
		armed_data(c);
	}
	if (want & ISM_WANT_SPACE)
		arm(&s->want_space, &s->armed_cons, &ism_dmb_tx(c->peer)->want_space,
		    conn_word(c, ISM_WANT_SPACE), s);
}

void conn_heard_bell(struct conn *c)
{
	atomic_store(&c->slot->armed_word, NOT_ARMED);
	atomic_store(&c->slot->armed_cons, NOT_ARMED);
}

static void wake_own(struct conn *c)
{
	static const uint64_t one = 1;

	real.write(c->own_bell, &one, sizeof(one));
}

static int disarm(_Atomic uint32_t *mine, uint32_t *theirs, _Atomic uint32_t *waiters)
{
	/* Others that sleep on this connection count on the value. */
	if (!atomic_load(mine) || atomic_load(waiters))
		return 0;
	atomic_store_explicit(mine, 0, memory_order_relaxed);
	__atomic_store_n(theirs, 0, __ATOMIC_RELEASE);
	return 1;
}

int conn_disarm_begin(struct conn *c, int want)
{
	struct ism_slot *s = c->slot;
	int gone = 0;

	if (want & ISM_WANT_DATA &&
	    disarm(&s->want_data, &ism_dmb_rx(c->peer)->want_data, &s->rx_waiters))
		gone |= ISM_WANT_DATA;
	if (want & ISM_WANT_SPACE &&
	    disarm(&s->want_space, &ism_dmb_tx(c->peer)->want_space, &s->tx_waiters))
		gone |= ISM_WANT_SPACE;
	return gone;
}

/*
 * One may have begun to sleep, and to count on the value, while we took it: he armed before our fence, or
 * looks at the value after it.
 */
void conn_disarm_end(struct conn *c, int gone)
{
	struct ism_slot *s = c->slot;
	int again = (atomic_load(&s->rx_waiters) ? ISM_WANT_DATA : 0) |
		    (atomic_load(&s->tx_waiters) ? ISM_WANT_SPACE : 0);

	again &= gone;
	if (likely(!again))
		return;
	conn_arm(c, again);
	ism_sleep_fence();
	if (io_may_have(c, again))
		wake_own(c);
}

void conn_disarm(struct conn *c, int want)
{
	int gone = conn_disarm_begin(c, want);

	if (!gone)
		return;
	atomic_thread_fence(memory_order_seq_cst);
	conn_disarm_end(c, gone);
}

static void ring_bell(struct conn *c)
{
	static const uint64_t one = 1;
	int saved = errno;

	if (real.write(c->peer_bell, &one, sizeof(one)) == sizeof(one))
		atomic_fetch_add_explicit(&c->slot->doorbells, 1, memory_order_relaxed);
	errno = saved;
}

/*
 * Publish, full fence, look whether the other side sleeps: with the sleeper's store, fence, look this
 * is Dekker's scheme; without either fence a wake-up is lost now and then.
 */
void conn_ring(struct conn *c, int what)
{
	struct ism_slot *s = c->slot;
	uint32_t v;

	if (what & ISM_WANT_SPACE)
		atomic_thread_fence(memory_order_seq_cst);
	else
		publish_fence(c);
	if (what & ISM_WANT_DATA) {
		v = __atomic_load_n(&ism_dmb_rx(c->own)->want_data, __ATOMIC_RELAXED);
		if (v && v != s->rung_data) {
			s->rung_data = v;
			ring_bell(c);
		}
	}
	if (what & ISM_WANT_SPACE) {
		v = __atomic_load_n(&ism_dmb_tx(c->own)->want_space, __ATOMIC_RELAXED);
		if (v && atomic_exchange(&s->rung_space, v) != v)
			ring_bell(c);
	}
}

/* ---------------------------------------------------------------- sleeping */

/*
 * The bell is one for both directions and all tasks of this end. Who drains it may take a ring that was
 * meant for another one that is about to sleep, and what that one armed is used up. So arm for those
 * that are left, and ring again if there is something for them. The caller does not count any more.
 */
void conn_pass_bell(struct conn *c)
{
	struct ism_slot *s = c->slot;

	if (atomic_load(&s->rx_waiters))
		conn_arm(c, ISM_WANT_DATA);
	if (atomic_load(&s->tx_waiters))
		conn_arm(c, ISM_WANT_SPACE);
	ism_sleep_fence();
	if ((atomic_load(&s->rx_waiters) && io_may_have(c, ISM_WANT_DATA)) ||
	    (atomic_load(&s->tx_waiters) && io_may_have(c, ISM_WANT_SPACE)))
		wake_own(c);
}

int conn_take_bell(struct conn *c)
{
	uint64_t n;

	if (real.read(c->own_bell, &n, sizeof(n)) != sizeof(n))
		return 0;
	conn_heard_bell(c);
	epoll_conn_rung(c);
	return 1;
}

/*
 * What of the TCP socket ends a sleep. A writer on the ring wants to know of the partner's death only: a
 * FIN that its shim announced is a half-close and no reason to wake.
 */
static short tcp_events(struct conn *c, int want)
{
	if (want & ISM_WANT_DATA)
		return POLLIN | POLLRDHUP;
	if (atomic_load(&c->slot->tx_state) != ISM_TX_RING)
		return POLLOUT;
	/* What it sends by TCP ends there: also a half-close. See partner_died(). */
	return ism_ring_word(c->own) & (ISM_PROD_FIN | ISM_PROD_TCP) ? 0 : POLLRDHUP;
}

/* One sleep. 1: look again, 3: also, and the bell rang; 0: nothing happened; negative errno. */
static int sleep_once(struct conn *c, int fd, int want, uint64_t ns)
{
	struct pollfd p[2] = { { .fd = fd, .events = tcp_events(c, want) },
			       { .fd = c->own_bell, .events = POLLIN } };
	struct timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
	int n = real.ppoll(p, 2, &ts, NULL);

	if (n < 0)
		return -errno;
	if (p[0].revents)
		atomic_store(&c->slot->tcp_hint, ISM_HINT_RX | ISM_HINT_TX);
	if (p[1].revents)
		return 3;
	return n > 0;
}

static int sleep_armed(struct conn *c, int fd, int want, uint64_t deadline, uint32_t intr,
		       int *rang)
{
	struct ism_slot *s = c->slot;
	uint64_t now, ns;
	int rc;

	for (;;) {
		conn_arm(c, want);
		ism_sleep_fence();
		if (io_may_have(c, want))
			return 0;
		now = ism_now_ns();
		if (deadline && now >= deadline)
			return -EAGAIN;
		ns = deadline && deadline - now < SAFETY_NS ? deadline - now : SAFETY_NS;
		atomic_fetch_add_explicit(&s->sleeps, 1, memory_order_relaxed);
		rc = sleep_once(c, fd, want, ns);
		*rang = rc == 3;
		if (rc > 0)
			return 0;
		/* recv() is restarted after handlers with SA_RESTART, unless a timeout is set: signal(7) */
		if (rc == -EINTR && ((deadline && !(want & ISM_WANT_OURS)) ||
				     want & ISM_WANT_PARTIAL || ism_interrupts != intr))
			return -EINTR;
		if (rc < 0 && rc != -EINTR)
			return rc;
		if (rc == 0 && ns == SAFETY_NS) {
			if (io_may_have(c, want)) {
				atomic_fetch_add(&s->timeouts, 1);
				return 0;
			}
			ism_daemon_tick();
		}
	}
}

/*
 * In a stream the reader may look away from an empty ring for a moment: see ism_ring_away_ns(). Latency
 * does not matter where this end has received many messages and sent none, and they come so quickly that
 * there are some in each such moment. A signal meanwhile is heard.
 */
#define BULK_NS_PER_BYTE 5

static void let_it_get_ahead(struct conn *c, int partner_cpu, uint32_t intr)
{
	struct ism_slot *s = c->slot;
	struct ism_stream *st = &s->stream;
	uint64_t now, until;
	uint32_t ns;
	int bulk;

	if (st->tx_msgs != s->tx_msgs) {
		st->tx_msgs = s->tx_msgs;
		st->rx_msgs = s->rx_msgs;
	}
	if (!conn_streams(s) || partner_cpu == ism_my_cpu())
		return;
	now = ism_ticks();
	bulk = s->rx_bytes - st->rx_bytes >= (now - st->looked) / ism_to_ticks(BULK_NS_PER_BYTE);
	st->rx_bytes = s->rx_bytes;
	st->looked = now;
	if (!bulk)
		return;
	ns = ism_ring_away_ns(ism_tune(&st->away, &ism_ring_away, now, s->rx_bytes,
				       ism_to_ticks(ISM_TUNE_WINDOW_NS), 0));
	for (until = now + ism_to_ticks(ns); ism_ticks() < until && ism_interrupts == intr;)
		ism_pause();
}

int conn_wait(struct conn *c, int fd, int want, uint64_t deadline)
{
	struct ism_slot *s = c->slot;
	int data = want & ISM_WANT_DATA, rc, hit = 0, rang = 0, cpu = conn_partner_cpu(c);
	_Atomic uint32_t *waiters = data ? &s->rx_waiters : &s->tx_waiters;
	uint32_t intr = ism_interrupts;
	struct ism_spin spin;

	if (data && ism_host()->cpus != 1)
		let_it_get_ahead(c, cpu, intr);
	ism_spin_begin(&spin, data ? &s->rx_budget : &s->tx_budget, cpu);
	spin.intr = intr;
	do {
		hit = io_may_have(c, want);
	} while (!hit && ism_spin_more(&spin));
	if (hit) {
		ism_spin_end(&spin, 1);
		atomic_fetch_add_explicit(&s->spins, 1, memory_order_relaxed);
		return 0;
	}
	if (ism_interrupts != intr)
		return -EINTR;
	atomic_fetch_add(waiters, 1);
	rc = sleep_armed(c, fd, want, deadline, intr, &rang);
	atomic_fetch_sub(waiters, 1);
	conn_disarm(c, want);
	if (rang && conn_take_bell(c))
		conn_pass_bell(c);
	ism_spin_end(&spin, 0);
	return rc;
}

int io_wait_tcp_out(int fd, uint64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	uint32_t intr = ism_interrupts;
	struct timespec ts;
	uint64_t now, ns;
	int n;

	for (;;) {
		now = ism_now_ns();
		if (deadline && now >= deadline)
			return -EAGAIN;
		ns = deadline ? deadline - now : SAFETY_NS;
		ts.tv_sec = ns / 1000000000;
		ts.tv_nsec = ns % 1000000000;
		n = real.ppoll(&p, 1, &ts, NULL);
		if (n > 0)
			return 0;
		if (n < 0 && (errno != EINTR || deadline || ism_interrupts != intr))
			return -errno;
	}
}
