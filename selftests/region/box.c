// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Peers that die at a store; see box.h. */
#define _GNU_SOURCE
#include "box.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util.h"

#define MAX_PENDING 4096

struct box box;
__u64 region_test_pid = 1000;
__u64 region_test_host[2] = { 1, 1 };
struct ism_fabric *region_test_opening;
void region_test_die(struct ism_fabric *f);
__u64 region_test_now(void);
__u64 region_test_process(__u64 pid);

/* A store that others may not see yet. */
struct pending {
	char *at;
	size_t len;
	int is_flushed, is_new_known;
	char old[ISM_REGION_PAGE], new[ISM_REGION_PAGE];
};

static const struct ism_fabric_ops ops = { .scheme = "box", REGION_FABRIC_OPS };
static struct pending *pending;
static unsigned int n_pending;
static __u64 now = 1000;
static __u64 dead_pids[16];
static unsigned int n_dead;

/* ---------------------------------------------------------------- what the core calls */

__u64 region_test_now(void)
{
	return ++now;
}

__u64 region_test_process(__u64 pid)
{
	for (unsigned int i = 0; i < n_dead && i < 16; i++)
		if (dead_pids[i] == pid)
			return 0;
	return pid;
}

static void know_new(void)
{
	if (n_pending && !pending[n_pending - 1].is_new_known) {
		struct pending *p = &pending[n_pending - 1];

		memcpy(p->new, p->at, p->len);
		p->is_new_known = 1;
	}
}

/* One more step of the watched peer, if it comes to that. */
static void step(void)
{
	know_new();
	if (++box.steps != box.die_at)
		return;
	box.is_watched = 0;
	if (!box.at)
		longjmp(box.dead, 1);
	box.at();
	box.is_watched = 1;
}

void region_test_store(void *at, size_t len)
{
	struct pending *p;

	if (!box.is_watched)
		return;
	step();
	if (n_pending == MAX_PENDING)
		abort();
	p = &pending[n_pending++];
	p->at = at;
	p->len = len;
	p->is_flushed = p->is_new_known = 0;
	memcpy(p->old, at, len);
}

void region_test_flush(void *at, size_t len)
{
	char *from = (char *)((__u64)at & ~63ULL), *to = (char *)(((__u64)at + len + 63) & ~63ULL);

	if (!box.is_watched)
		return;
	know_new();
	for (unsigned int i = 0; i < n_pending; i++)
		if (pending[i].at >= from && pending[i].at + pending[i].len <= to)
			pending[i].is_flushed = 1;
}

/* Coherent memory has what was stored before a fence; other memory what was flushed before it, too. */
void region_test_fence(void)
{
	unsigned int kept = 0;

	if (!box.is_watched || !n_pending)
		return;
	step();
	for (unsigned int i = 0; i < n_pending; i++)
		if (!box.is_coherent && !pending[i].is_flushed) {
			if (kept != i)
				pending[kept] = pending[i];
			kept++;
		}
	n_pending = kept;
}

/* ---------------------------------------------------------------- losing */

unsigned int box_pending(void)
{
	return n_pending;
}

unsigned int box_random(__u64 *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

/* All of it is undone; then some of its lines come, in any order. */
void box_lose(unsigned int seed)
{
	__u64 state = seed;

	know_new();
	for (unsigned int i = n_pending; i; i--)
		memcpy(pending[i - 1].at, pending[i - 1].old, pending[i - 1].len);
	for (unsigned int i = n_pending; i > 1; i--) {
		unsigned int j = box_random(&state) % i;
		struct pending p = pending[i - 1];

		pending[i - 1] = pending[j];
		pending[j] = p;
	}
	for (unsigned int i = 0; i < n_pending; i++)
		for (size_t off = 0; off < pending[i].len; off += 64) {
			size_t n = pending[i].len - off < 64 ? pending[i].len - off : 64;

			if (box_random(&state) & 1)
				memcpy(pending[i].at + off, pending[i].new + off, n);
		}
	n_pending = 0;
}

/* ---------------------------------------------------------------- memory and peers */

void box_open(void)
{
	struct region_geometry g = { .peers = BOX_PEERS, .dmbs = BOX_DMBS };
	struct ism_err err = {};

	box.fd = memfd_create("box", MFD_CLOEXEC);
	pending = malloc(MAX_PENDING * sizeof(*pending));
	box.pristine = malloc(BOX_SIZE);
	if (box.fd < 0 || ftruncate(box.fd, BOX_SIZE) || !pending || !box.pristine)
		abort();
	box.map.mem.len = BOX_SIZE;
	box.map.mem.is_coherent = 1;
	box.map.mem.base = mmap(NULL, BOX_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, box.fd, 0);
	box.map.dev.fd = box.fd;
	if (box.map.mem.base == MAP_FAILED || region_format(&box.map.mem, &g, &err) ||
	    region_check_super(&box.map.mem, &box.map.super, &box.map.l, &err)) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	/* what was there before is not zero */
	memset(box.map.mem.base + box.map.l.arena_off, 0xee, BOX_SIZE - box.map.l.arena_off);
	memcpy(box.pristine, box.map.mem.base, BOX_SIZE);
}

void box_reset(int is_coherent)
{
	memcpy(box.map.mem.base, box.pristine, BOX_SIZE);
	box.is_coherent = is_coherent;
	box.is_watched = 0;
	box.steps = box.die_at = 0;
	box.at = NULL;
	n_pending = n_dead = 0;
	now = 1000;
	region_test_pid = 1000;
	region_test_host[0] = region_test_host[1] = 1;
	region_test_opening = NULL;
}

struct ism_fabric *box_peer(int slot, const char *options, int *ret_rc)
{
	struct region_dev dev = { .base = box.map.mem.base,
				  .len = BOX_SIZE,
				  .fd = box.fd,
				  .is_coherent = box.is_coherent,
				  .number = -1,
				  .bell_fd = -1 };
	struct ism_err err = {};
	struct ism_fabric *f = NULL;
	char text[128];
	int rc;

	dev.lock_fd = fabric_reopen(box.fd, O_RDWR);
	if (slot >= 0)
		snprintf(text, sizeof(text), "peer=%d,lease=100%s", slot, options);
	else
		snprintf(text, sizeof(text), "lease=100%s", options);
	rc = region_open(&dev, text, &f, &err);
	region_test_opening = NULL;
	if (ret_rc)
		*ret_rc = rc;
	else if (rc)
		fprintf(stderr, "# open: %s\n", err.text);
	if (rc)
		return NULL;
	f->ops = &ops;
	return f;
}

void box_close(struct ism_fabric *f)
{
	region_test_opening = f;
	ism_fabric_close(f);
	region_test_opening = NULL;
}

void box_kill(struct ism_fabric *f)
{
	box.is_watched = 0;
	if (!f)
		f = region_test_opening;
	region_test_opening = NULL;
	if (f)
		region_test_die(f);
}

void box_new_process(void)
{
	dead_pids[n_dead++ % 16] = region_test_pid++;
}

void box_new_boot(void)
{
	box_new_process();
	region_test_host[0]++;
}

void box_later(__u64 ms)
{
	now += ms;
}
