/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The only ways to store to a region and to load from it: little-endian words, and what has to be done to
 * the caches where the memory is not coherent. A test build (REGION_TEST) sees every store, flush and
 * fence, and may end the peer there.
 */
#ifndef ISM_FABRIC_REGION_MEM_H
#define ISM_FABRIC_REGION_MEM_H

#include <endian.h>
#include <string.h>
#include <linux/types.h>
#include <ismredir/region.h>

#if defined(__x86_64__)
#include <cpuid.h>
#define REGION_CAN_FLUSH 1
#else
#define REGION_CAN_FLUSH 0
#endif

/**
 * struct region_mem - how this peer reaches the memory
 * @is_coherent: stores are seen by the others without flushes
 * @has_opt: the CPU has CLFLUSHOPT
 */
struct region_mem {
	char *base;
	__u64 len;
	int is_coherent;
	int has_opt;
};

#ifdef REGION_TEST
/* Before the store: it may be the last one. */
void region_test_store(void *at, size_t len);
void region_test_flush(void *at, size_t len);
void region_test_fence(void);
#else
static inline void region_test_store(void *at, size_t len)
{
	(void)at;
	(void)len;
}
static inline void region_test_flush(void *at, size_t len)
{
	(void)at;
	(void)len;
}
static inline void region_test_fence(void)
{
}
#endif

/** region_has_clflushopt() - for @has_opt */
static inline int region_has_clflushopt(void)
{
#if REGION_CAN_FLUSH
	unsigned int a, b = 0, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 23 & 1);
#else
	return 0;
#endif
}

static inline __u64 region_load(const __le64 *at)
{
	return le64toh(__atomic_load_n(at, __ATOMIC_ACQUIRE));
}

static inline void region_store(const struct region_mem *m, __le64 *at, __u64 v)
{
	(void)m;
	region_test_store(at, sizeof(*at));
	__atomic_store_n(at, htole64(v), __ATOMIC_RELEASE);
}

/** region_copy() - bytes whose order does not matter; a line of them at a time in a test build */
static inline void region_copy(const struct region_mem *m, void *to, const void *from, size_t len)
{
	(void)m;
#ifdef REGION_TEST
	for (size_t n; len; to = (char *)to + n, from = (const char *)from + n, len -= n) {
		n = len < ISM_REGION_LINE ? len : ISM_REGION_LINE;
		region_test_store(to, n);
		memcpy(to, from, n);
	}
#else
	memcpy(to, from, len);
#endif
}

static inline void region_zero(const struct region_mem *m, void *to, size_t len)
{
	(void)m;
#ifdef REGION_TEST
	for (size_t n; len; to = (char *)to + n, len -= n) {
		n = len < ISM_REGION_PAGE ? len : ISM_REGION_PAGE;
		region_test_store(to, n);
		memset(to, 0, n);
	}
#else
	memset(to, 0, len);
#endif
}

/* What was stored before is visible to all before what is stored, or loaded, afterwards. */
static inline void region_fence(const struct region_mem *m)
{
	(void)m;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	region_test_fence();
}

/*
 * Write back and forget. To forget matters for the writer, too: a line that it keeps goes stale when the
 * memory becomes another DMB, and the next store would bring all of the old line back.
 */
static inline void region_flush(const struct region_mem *m, void *at, size_t len)
{
	region_test_flush(at, len);
	if (m->is_coherent)
		return;
#if REGION_CAN_FLUSH
	char *end = (char *)at + len;

	for (char *p = (char *)((__u64)at & ~(__u64)(ISM_REGION_LINE - 1)); p < end;
	     p += ISM_REGION_LINE)
		if (m->has_opt)
			__asm__ volatile("clflushopt %0" : "+m"(*p));
		else
			__asm__ volatile("clflush %0" : "+m"(*p));
#endif
}

/** region_publish() - what was stored there is visible before anything that follows */
static inline void region_publish(const struct region_mem *m, void *at, size_t len)
{
	region_flush(m, at, len);
	region_fence(m);
}

/** region_expect() - the loads that follow see what others have published there */
static inline void region_expect(const struct region_mem *m, const void *at, size_t len)
{
	if (m->is_coherent)
		return;
	region_fence(m);
	region_flush(m, (void *)at, len);
	region_fence(m);
}

#endif
