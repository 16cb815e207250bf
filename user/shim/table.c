// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The tables: file descriptor to what we know of it, connections of this process, and slots, which are
 * the part of a connection that fork() relatives share. And the lock that they share.
 *
 * Everything here may run in a signal handler and in any thread, so pools are lock-free: a counter of
 * what was ever handed out, and a list of what came back, with a tag against ABA. Memory is never
 * returned: what was a conn stays one.
 */
#include "shim.h"
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>

/* ---------------------------------------------------------------- descriptors */

/* 8 MiB of address space; pages that no descriptor falls into are never touched. */
_Atomic ism_fd_t ism_fdtab[ISM_FD_MAX];

/* Which parts of the table were ever used, for those that walk it: a bit for each PART entries. */
#define PART 512
static _Atomic uint64_t parts[ISM_FD_MAX / PART / 64];

/* Was there ever an entry? Before, nothing here or elsewhere holds anything that fork() has to mend. */
static _Atomic uint32_t table_used;

static void note_part(unsigned int fd)
{
	_Atomic uint64_t *w = &parts[fd / PART / 64];
	uint64_t bit = 1ULL << (fd / PART % 64);

	if (atomic_load_explicit(w, memory_order_relaxed) & bit)
		return;
	atomic_store(&table_used, 1);
	atomic_fetch_or(w, bit);
}

int ism_table_idle(void)
{
	return !atomic_load(&table_used) && __libc_single_threaded;
}

static ism_fd_t entry(enum ism_fd_kind kind, void *ptr)
{
	return (uint64_t)(uintptr_t)ptr | kind;
}

/*
 * Sequentially consistent, as conn_get_slow() needs it: entry gone, then the users are looked at. One thread alone
 * has no such race. A short connection would else spend a good part of its time here in locked instructions.
 */
void ism_fd_set(int fd, enum ism_fd_kind kind, void *ptr)
{
	if ((unsigned int)fd >= ISM_FD_MAX)
		return;
	if (kind || ptr)
		note_part(fd);
	else if (!ism_fd_raw(fd))
		return;
	if (likely(__libc_single_threaded))
		atomic_store_explicit(&ism_fdtab[fd], entry(kind, ptr), memory_order_relaxed);
	else
		atomic_store(&ism_fdtab[fd], entry(kind, ptr));
}

int ism_fd_swap(int fd, ism_fd_t old, enum ism_fd_kind kind, void *ptr)
{
	if ((unsigned int)fd >= ISM_FD_MAX)
		return 0;
	note_part(fd);
	return atomic_compare_exchange_strong(&ism_fdtab[fd], &old, entry(kind, ptr));
}

int ism_fd_next(unsigned int fd, unsigned int last)
{
	if (last >= ISM_FD_MAX)
		last = ISM_FD_MAX - 1;
	while (fd <= last) {
		if (!(atomic_load(&parts[fd / PART / 64]) >> (fd / PART % 64) & 1)) {
			fd = (fd / PART + 1) * PART;
			continue;
		}
		if (ism_fd_raw(fd))
			return fd;
		fd++;
	}
	return -1;
}

/* ---------------------------------------------------------------- pools */

#define POOL_DIR 8192

/**
 * struct pool - items of one size that are found by number
 * @free: tag << 32 | number + 1 of the first that came back; 0 in the low half: none
 * @used: numbers below were handed out
 * @per: items of a chunk
 * @size: of an item
 * @link: where an item that is free has room for the number of the next
 * @map: make a chunk; its first item, or NULL
 */
struct pool {
	_Atomic uint64_t free;
	_Atomic uint32_t used;
	uint32_t per;
	uint32_t size;
	uint32_t link;
	void *(*map)(uint32_t chunk);
	char *_Atomic dir[POOL_DIR];
};

static void *pool_item(struct pool *p, uint32_t n)
{
	return atomic_load_explicit(&p->dir[n / p->per], memory_order_acquire) +
	       (size_t)(n % p->per) * p->size;
}

static _Atomic uint64_t *pool_link(struct pool *p, uint32_t n)
{
	return (_Atomic uint64_t *)((char *)pool_item(p, n) + p->link);
}

static void pool_put(struct pool *p, uint32_t n)
{
	uint64_t head = atomic_load(&p->free), next;

	do {
		atomic_store_explicit(pool_link(p, n), (uint32_t)head, memory_order_relaxed);
		next = ((head >> 32) + 1) << 32 | (n + 1);
	} while (!ism_swap64(&p->free, &head, next));
}

/* A number that came back, or -1. */
static int64_t pool_pop(struct pool *p)
{
	uint64_t head = atomic_load(&p->free), next;

	do {
		if (!(uint32_t)head)
			return -1;
		/* garbage when somebody was faster: then the tag has changed */
		next = atomic_load_explicit(pool_link(p, (uint32_t)head - 1), memory_order_relaxed);
		next = ((head >> 32) + 1) << 32 | (uint32_t)next;
	} while (!ism_swap64(&p->free, &head, next));
	return (uint32_t)head - 1;
}

/* A number that was never handed out, or -1: no memory. */
static int64_t pool_fresh(struct pool *p)
{
	uint32_t n = atomic_load(&p->used), chunk;
	char *mem, *none;

	do {
		chunk = n / p->per;
		if (chunk >= POOL_DIR)
			return -1;
		if (atomic_load(&p->dir[chunk]))
			continue;
		mem = p->map(chunk);
		none = NULL;
		if (!mem)
			return -1;
		/* the loser of two threads wastes its chunk: address space that is never touched */
		atomic_compare_exchange_strong(&p->dir[chunk], &none, mem);
	} while (!atomic_compare_exchange_weak(&p->used, &n, n + 1));
	return n;
}

static void *map_pages(size_t len, int how)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, how | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* ---------------------------------------------------------------- slots */

/**
 * struct arena - slots of one process, mapped by its children, too; aligned to its size
 * @owner: the process that may hand out its slots
 * @id: its place in that process's pool
 * @orphans: slots that a relative was the last to hold: the owner finds them by looking through
 */
struct arena {
	uint64_t owner;
	uint32_t id;
	_Atomic uint32_t orphans;
};

#define ARENA_BYTES (128u << 10)
#define ARENA_SLOTS (ARENA_BYTES / sizeof(struct ism_slot) - 1)

_Static_assert(sizeof(struct arena) <= sizeof(struct ism_slot), "head of an arena");

static void *arena_map(uint32_t chunk);
static struct pool slots = { .per = ARENA_SLOTS,
			     .size = sizeof(struct ism_slot),
			     .link = offsetof(struct ism_slot, share),
			     .map = arena_map };

/* Who we are among fork() relatives: random, because pids repeat in pid namespaces. */
static _Atomic uint64_t self;

/* A page that all relatives share. */
static struct family {
	_Atomic uint32_t
		foreign_tids; /* some are in another pid namespace: their tids mean nothing to us */
} * _Atomic family;

static struct arena *arena_of(const void *slot)
{
	return (struct arena *)((uintptr_t)slot & ~(uintptr_t)(ARENA_BYTES - 1));
}

static struct ism_slot *arena_first(struct arena *a)
{
	return (struct ism_slot *)((char *)a + sizeof(struct ism_slot));
}

static int know_self(void)
{
	uint64_t id = 0, none = 0;
	struct family *f, *no_family = NULL;

	if (!atomic_load(&family)) {
		f = map_pages(sizeof(*f), MAP_SHARED);
		if (!f)
			return -ENOMEM;
		atomic_compare_exchange_strong(&family, &no_family, f);
	}
	while (!atomic_load(&self)) {
		if (SYS(SYS_getrandom, &id, sizeof(id), 0) != sizeof(id))
			return -ENOSYS;
		atomic_compare_exchange_strong(&self, &none, id);
		none = 0;
	}
	return 0;
}

static void *arena_map(uint32_t chunk)
{
	char *p, *at;
	struct arena *a;

	if (know_self())
		return NULL;
	p = map_pages(2 * ARENA_BYTES, MAP_SHARED);
	if (!p)
		return NULL;
	at = (char *)(((uintptr_t)p + ARENA_BYTES - 1) & ~(uintptr_t)(ARENA_BYTES - 1));
	if (at > p)
		munmap(p, at - p);
	if (at < p + ARENA_BYTES)
		munmap(at + ARENA_BYTES, p + ARENA_BYTES - at);
	a = (struct arena *)at;
	a->owner = atomic_load(&self);
	a->id = chunk;
	return arena_first(a);
}

static int is_ours(const struct ism_slot *s)
{
	return arena_of(s)->owner == atomic_load(&self);
}

/*
 * Most connections never get beyond a candidate, and use the first part of their slot only. The rest is all zero in a
 * slot that is free: whoever has used it pays for that.
 */
#define CANDIDATE_PART offsetof(struct ism_slot, rx_lock)

static void clear_rest(struct ism_slot *s)
{
	if (s->tx.size || atomic_load(&s->broken))
		memset((char *)s + CANDIDATE_PART, 0, sizeof(*s) - CANDIDATE_PART);
}

/* Nobody holds @s: take it back once. A slot that was taken back is FREE. */
static int slot_reclaim(struct ism_slot *s)
{
	struct arena *a = arena_of(s);
	uint32_t state = atomic_load(&s->state);

	if (state == ISM_SLOT_FREE ||
	    !atomic_compare_exchange_strong(&s->state, &state, ISM_SLOT_FREE))
		return 0;
	clear_rest(s);
	pool_put(&slots, a->id * ARENA_SLOTS + (s - arena_first(a)));
	return 1;
}

static void slot_put(struct ism_slot *s)
{
	if (atomic_fetch_sub(&s->procs, 1) != 1)
		return;
	if (is_ours(s))
		slot_reclaim(s);
	else
		atomic_fetch_add(&arena_of(s)->orphans, 1);
}

/* Slots whose last holder was a relative. Return: how many came back. */
static uint32_t adopt_orphans(void)
{
	uint32_t chunks = atomic_load(&slots.used) / ARENA_SLOTS + 1, all = 0, n;
	struct ism_slot *first;

	for (uint32_t i = 0; i < chunks && i < POOL_DIR; i++) {
		first = (struct ism_slot *)atomic_load(&slots.dir[i]);
		if (!first || !atomic_load(&arena_of(first)->orphans))
			continue;
		n = 0;
		for (uint32_t k = 0; k < ARENA_SLOTS; k++)
			if (!atomic_load(&first[k].procs))
				n += slot_reclaim(&first[k]);
		atomic_fetch_sub(&arena_of(first)->orphans, n);
		all += n;
	}
	return all;
}

static struct ism_slot *slot_get(void)
{
	int64_t n = pool_pop(&slots);
	struct ism_slot *s;

	if (n < 0 && adopt_orphans())
		n = pool_pop(&slots);
	if (n < 0)
		n = pool_fresh(&slots);
	if (n < 0)
		return NULL;
	s = pool_item(&slots, n);
	memset(s, 0, CANDIDATE_PART);
	/* in this order: adopt_orphans() takes what nobody holds and is not FREE */
	atomic_store_explicit(&s->procs, 1, memory_order_relaxed);
	atomic_store_explicit(&s->state, ISM_SLOT_CANDIDATE, memory_order_release);
	return s;
}

/* ---------------------------------------------------------------- connections */

#define CONN_CHUNK 512

static void *conn_map(uint32_t chunk)
{
	(void)chunk;
	return map_pages(CONN_CHUNK * sizeof(struct conn), MAP_PRIVATE);
}

static struct pool conns = { .per = CONN_CHUNK,
			     .size = sizeof(struct conn),
			     .link = offsetof(struct conn, next_free),
			     .map = conn_map };

_Static_assert(sizeof(struct conn *) == sizeof(uint64_t) && sizeof(struct conn) % 8 == 0,
	       "a number fits the link, a kind the low bits of a pointer");

static struct ism_slot *slot_of(struct conn *c)
{
	return __atomic_load_n(&c->slot, __ATOMIC_ACQUIRE);
}

/*
 * The gate: connections come and go on one side of fork() or on the other. @forker is the thread that
 * forks; it may pass, as its own atfork handlers may close descriptors.
 */
static _Atomic uint32_t gate_forker, gate_inside;

static uint32_t my_tid(void);

/* Return: what gate_leave() takes; 0: there is nobody to keep out. */
static uint32_t gate_enter(void)
{
	uint32_t forker;

	if (likely(__libc_single_threaded))
		return 0;
	for (;;) {
		atomic_fetch_add(&gate_inside, 1);
		forker = atomic_load(&gate_forker);
		if (likely(!forker) || forker == my_tid())
			return 1;
		atomic_fetch_sub(&gate_inside, 1);
		sched_yield();
	}
}

static void gate_leave(uint32_t entered)
{
	if (unlikely(entered))
		atomic_fetch_sub(&gate_inside, entered);
}

struct conn *conn_alloc(void)
{
	struct ism_slot *s;
	struct conn *c = NULL;
	uint32_t gate = gate_enter();
	int64_t n;

	n = pool_pop(&conns);
	if (n < 0)
		n = pool_fresh(&conns);
	if (n < 0)
		goto out;
	s = slot_get();
	if (!s) {
		pool_put(&conns, n);
		goto out;
	}
	c = pool_item(&conns, n);
	/* not @users: somebody may just be finding out that this is not what he looked for */
	c->index = n;
	c->own = c->peer = NULL;
	c->own_len = c->peer_len = 0;
	c->own_bell = c->peer_bell = c->own_fd = c->peer_fd = -1;
	c->items = NULL;
	c->gen = 0;
	c->ep_told = 0;
	atomic_store_explicit(&c->fd_hint, -1, memory_order_relaxed);
	atomic_store_explicit(&c->asked, 0, memory_order_relaxed);
	atomic_store_explicit(&c->closing, 0, memory_order_relaxed);
	atomic_store_explicit(&c->fds, 1, memory_order_relaxed);
	__atomic_store_n(&c->slot, s, __ATOMIC_RELEASE);
out:
	gate_leave(gate);
	return c;
}

void conn_free(struct conn *c)
{
	uint32_t gate = gate_enter();
	struct ism_slot *s = slot_of(c);

	__atomic_store_n(&c->slot, NULL, __ATOMIC_RELEASE);
	slot_put(s);
	pool_put(&conns, c->index);
	gate_leave(gate);
}

struct conn *conn_by_index(uint32_t index)
{
	struct conn *c;

	if (index >= atomic_load(&conns.used))
		return NULL;
	c = pool_item(&conns, index);
	return slot_of(c) ? c : NULL;
}

void conn_each(void (*fn)(struct conn *c, void *arg), void *arg)
{
	uint32_t used = atomic_load(&conns.used);
	struct conn *c;

	for (uint32_t i = 0; i < used; i++) {
		c = conn_by_index(i);
		if (c)
			fn(c, arg);
	}
}

/*
 * The table may have changed between reading the entry and counting ourselves in, and the conn may even
 * be another one by now: so look again, and only then believe it.
 */
struct conn *conn_get_slow(int fd, ism_fd_t e)
{
	struct conn *c;

	while (ISM_FD_KIND(e) == ISM_FD_CONN) {
		c = ISM_FD_PTR(e);
		atomic_fetch_add(&c->users, 1);
		if (likely(atomic_load(&ism_fdtab[fd]) == e))
			return c;
		conn_done_slow(c);
		e = ism_fd_get(fd);
	}
	return NULL;
}

void conn_done_slow(struct conn *c)
{
	uint32_t users = atomic_fetch_sub(&c->users, 1);

	if (unlikely(!users)) /* counted before a fork(), which forgot it */
		atomic_fetch_add(&c->users, 1);
	else if (users == 1 && unlikely(atomic_load(&c->closing)))
		conn_release(c);
}

/* ---------------------------------------------------------------- fork and exec */

/* The slots may be shared with other processes: see ism_lock_take(). */
static _Atomic uint32_t have_relatives;

static void hold_one(struct conn *c, void *arg)
{
	(void)arg;
	atomic_fetch_add(&slot_of(c)->procs, 1);
}

static void unhold_one(struct conn *c, void *arg)
{
	(void)arg;
	atomic_fetch_sub(&slot_of(c)->procs, 1);
}

void ism_table_before_fork(void)
{
	uint32_t none = 0, me = my_tid();

	fresh_settle_all(); /* parent and child have to share what they count */
	while (!atomic_compare_exchange_strong(&gate_forker, &none, me) && none != me) {
		none = 0;
		sched_yield();
	}
	/* bounded: a signal handler that forks may have interrupted one of these in its own thread */
	for (int i = 0; i < 10000 && atomic_load(&gate_inside); i++)
		sched_yield();
	if (atomic_load(&conns.used))
		atomic_store(&have_relatives, 1);
	conn_each(hold_one, NULL);
}

void ism_table_fork_done(int failed)
{
	if (failed)
		conn_each(unhold_one, NULL);
	atomic_store(&gate_forker, 0);
}

/* Operations of other threads ended with those. Of this thread's, if any, conn_done_slow() knows. */
static void forget_users(struct conn *c, void *arg)
{
	(void)arg;
	if (!atomic_exchange(&c->users, 0) || !atomic_load(&c->closing))
		return;
	conn_release(c);
}

static __thread uint32_t cached_tid;

void ism_table_after_fork(void)
{
	uint32_t chunks = atomic_load(&slots.used) / ARENA_SLOTS + 1;
	int threads = !__libc_single_threaded;

	cached_tid = 0;
	ism_caps_after_fork();
	for (uint32_t i = 0; i < chunks && i < POOL_DIR; i++)
		atomic_store(&slots.dir[i], NULL);
	atomic_store(&slots.used, 0);
	atomic_store(&slots.free, 0);
	atomic_store(&self, 0);
	/* a parent that cannot be seen from here cannot see us, either */
	if (atomic_load(&family) && SYS(SYS_getppid) == 0)
		atomic_store(&atomic_load(&family)->foreign_tids, 1);
	atomic_store(&gate_inside, 0);
	atomic_store(&gate_forker, 0);
	if (threads)
		conn_each(forget_users, NULL);
}

/*
 * Before exec. A slot of our own that nobody else holds goes with the memory; dropping it would only
 * offer it to other threads while it is not known whether exec succeeds.
 */
static void drop_one(struct conn *c, void *arg)
{
	struct ism_slot *s = slot_of(c);

	(void)arg;
	if (is_ours(s) && atomic_load(&s->procs) == 1)
		return;
	if (atomic_fetch_sub(&s->procs, 1) == 1)
		atomic_fetch_add(&arena_of(s)->orphans, 1);
}

void ism_table_drop(void)
{
	conn_each(drop_one, NULL);
}

static void retake_one(struct conn *c, void *arg)
{
	struct ism_slot *s = slot_of(c), *fresh;
	uint32_t n = atomic_load(&s->procs);

	(void)arg;
	if (is_ours(s) && n == 1)
		return;
	while (n)
		if (atomic_compare_exchange_weak(&s->procs, &n, n + 1))
			return;
	/* All relatives closed it meanwhile, so it may be another's already. Nothing in it is safe. */
	fresh = slot_get();
	if (!fresh)
		return;
	fresh->token = s->token;
	fresh->rx_err = -ECONNRESET;
	atomic_store(&fresh->broken, 1);
	atomic_store(&fresh->state, ISM_SLOT_PLAIN);
	__atomic_store_n(&c->slot, fresh, __ATOMIC_RELEASE);
}

void ism_table_retake(void)
{
	conn_each(retake_one, NULL);
}

/* ---------------------------------------------------------------- the lock */

#define LOCK_WAITERS 0x80000000u
#define LOCK_SPINS   100
#define LOCK_NS	     100000000

static uint32_t my_tid(void)
{
	if (unlikely(!cached_tid))
		cached_tid = SYS(SYS_gettid);
	return cached_tid;
}

/* A process that ended is a zombie until its parent, who may be us, looks: kill() still finds it. */
static int is_zombie(uint32_t tid)
{
	struct pollfd p = { .events = POLLIN };
	int n;

	p.fd = SYS(SYS_pidfd_open, tid, 0);
	if (p.fd < 0)
		return 0; /* a thread other than the first; those do not become zombies */
	n = SYS(SYS_ppoll, &p, 1, &(struct timespec){ 0 }, NULL, 0);
	SYS(SYS_close, p.fd);
	return n > 0;
}

static int is_dead(uint32_t owner)
{
	uint32_t tid = owner & ~LOCK_WAITERS;

	if (!tid || (atomic_load(&family) && atomic_load(&atomic_load(&family)->foreign_tids)))
		return 0;
	return SYS(SYS_tkill, tid, 0) == -ESRCH || is_zombie(tid);
}

/* futex(2)'s mutex: with waiters, who takes it says so again, because he cannot know of the others. */
static int lock_slow(struct ism_lock *l, uint32_t me)
{
	struct timespec ts = { .tv_nsec = LOCK_NS };
	uint32_t v, none;
	int spins = 0;

	for (;;) {
		v = atomic_load(&l->owner);
		none = 0;
		if (!v && atomic_compare_exchange_strong(&l->owner, &none, me | LOCK_WAITERS))
			return 0;
		if (!v)
			continue;
		if ((v & ~LOCK_WAITERS) == me)
			return -EDEADLK;
		if (spins++ < LOCK_SPINS) {
			__asm__ volatile("" ::: "memory");
			continue;
		}
		if (!(v & LOCK_WAITERS) &&
		    !atomic_compare_exchange_strong(&l->owner, &v, v | LOCK_WAITERS))
			continue;
		v |= LOCK_WAITERS;
		if (SYS(SYS_futex, &l->owner, FUTEX_WAIT, v, &ts, NULL, 0) == -ETIMEDOUT &&
		    is_dead(v) && atomic_compare_exchange_strong(&l->owner, &v, me | LOCK_WAITERS))
			return 0;
	}
}

/*
 * Without threads and without relatives only a signal handler can come in between, and it leaves the
 * lock as it found it: plain stores do, at a third of the price.
 */
static int alone(void)
{
	return __libc_single_threaded &&
	       !atomic_load_explicit(&have_relatives, memory_order_relaxed);
}

int ism_lock_take(struct ism_lock *l)
{
	uint32_t me = my_tid(), v = 0;

	if (likely(alone())) {
		v = atomic_load_explicit(&l->owner, memory_order_relaxed);
		if (likely(!v)) {
			atomic_store_explicit(&l->owner, me, memory_order_relaxed);
			atomic_signal_fence(memory_order_acquire);
			return 0;
		}
	} else if (likely(atomic_compare_exchange_strong(&l->owner, &v, me))) {
		return 0;
	}
	return lock_slow(l, me);
}

void ism_lock_drop(struct ism_lock *l)
{
	uint32_t v;

	if (likely(alone()) &&
	    !(atomic_load_explicit(&l->owner, memory_order_relaxed) & LOCK_WAITERS)) {
		atomic_signal_fence(memory_order_release);
		atomic_store_explicit(&l->owner, 0, memory_order_relaxed);
		return;
	}
	v = atomic_exchange(&l->owner, 0);
	if (v & LOCK_WAITERS)
		SYS(SYS_futex, &l->owner, FUTEX_WAKE, 1, NULL, NULL, 0);
}
