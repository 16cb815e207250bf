// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Two processes share a region; one is killed again and again at any instruction, and starts again. Each
 * checks every byte that it gets from the other, and the region is checked after each death.
 * Run as `kill ROUNDS`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "region_check.h"

#define SIZE	  (8 << 20)
#define LEN	  20000
#define DMBS	  16
#define EVENTS	  32
#define ANSWER(t) ((t) | 1ULL << 40) /* the token of the other end */

/* What both processes count; in memory that they share besides the region. */
static struct shared {
	__u64 token, heard, answered, wrong, failed;
} * shared;

static char spec[64];

static void fill(char *data, __u64 token)
{
	for (int i = 0; i < LEN; i++)
		data[i] = token * 7 + i * 13;
}

static int is_right(const char *data, __u64 token)
{
	char want[LEN];

	fill(want, token);
	return !memcmp(data, want, LEN);
}

static struct ism_fabric *join(void)
{
	struct ism_err err = {};
	struct ism_fabric *f;

	if (!ism_fabric_open(spec, &f, &err))
		return f;
	fprintf(stderr, "# %s\n", err.text);
	__atomic_fetch_add(&shared->failed, 1, __ATOMIC_RELAXED);
	_exit(1);
}

static struct ism_dmb *offer(struct ism_fabric *f, __u64 token, __u64 partner)
{
	struct ism_dmb_params p = { .token = token, .len = LEN, .partner_token = partner };
	struct ism_dmb *d;

	return ism_fabric_register_dmb(f, &p, &d) ? NULL : d;
}

static int events(struct ism_fabric *f, struct ism_event *e, int ms)
{
	struct pollfd p = { .fd = ism_fabric_event_fd(f), .events = POLLIN };

	return poll(&p, 1, ms) == 1 ? ism_fabric_read_events(f, e, EVENTS) : 0;
}

/* ---------------------------------------------------------------- who is killed */

static void one_try(struct ism_fabric *f)
{
	__u64 token = __atomic_add_fetch(&shared->token, 1, __ATOMIC_RELAXED);
	struct ism_dmb *d = offer(f, token, ANSWER(token));
	struct ism_event e[EVENTS];
	char data[LEN];

	if (!d) {
		__atomic_fetch_add(&shared->failed, 1, __ATOMIC_RELAXED);
		return;
	}
	for (int tries = 0, done = 0; tries < 200 && !done; tries++) {
		int n = events(f, e, 10);

		for (int i = 0; i < n; i++)
			done |= e[i].type == ISM_EVENT_DOORBELL && e[i].token == token;
		if (done) {
			__atomic_fetch_add(is_right(d->addr, token) ? &shared->heard
								    : &shared->wrong,
					   1, __ATOMIC_RELAXED);
			fill(data, ANSWER(token));
			ism_fabric_move_data(f, ANSWER(token), 0, data, LEN, 1);
		}
	}
	ism_fabric_unregister_dmb(f, d);
}

static pid_t start(void)
{
	pid_t pid = fork();

	if (!pid)
		for (struct ism_fabric *f = join();;)
			one_try(f);
	return pid;
}

/* ---------------------------------------------------------------- who stays */

static struct ism_dmb *dmbs[DMBS];
static unsigned int next;

static void answer(struct ism_fabric *f, const struct ism_event *e)
{
	char data[LEN];

	if (e->type == ISM_EVENT_DMB && e->token == ANSWER(e->info)) {
		ism_fabric_unregister_dmb(f, dmbs[next % DMBS]);
		dmbs[next++ % DMBS] = offer(f, e->token, e->info);
		fill(data, e->info);
		ism_fabric_move_data(f, e->info, 0, data, LEN, 1);
	}
	for (int i = 0; e->type == ISM_EVENT_DOORBELL && i < DMBS; i++) {
		if (!dmbs[i] || dmbs[i]->token != e->token)
			continue;
		if (is_right(dmbs[i]->addr, e->token))
			shared->answered++;
		else
			shared->wrong++;
		ism_fabric_unregister_dmb(f, dmbs[i]);
		dmbs[i] = NULL;
	}
}

static void serve(struct ism_fabric *f, int ms)
{
	struct ism_event e[EVENTS];
	struct timespec t;
	long long end;

	clock_gettime(CLOCK_MONOTONIC, &t);
	end = t.tv_sec * 1000LL + t.tv_nsec / 1000000 + ms;
	do {
		int n = events(f, e, 1);

		for (int i = 0; i < n; i++)
			answer(f, &e[i]);
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while (t.tv_sec * 1000LL + t.tv_nsec / 1000000 < end);
}

static void found(void *arg, int peer, const char *text)
{
	(void)arg;
	if (strstr(text, "was killed") || strstr(text, "never finished"))
		return;
	shared->failed++;
	printf("# peer %d: %s\n", peer, text);
}

static void check(const struct region_map *map)
{
	enum region_life life[ISM_REGION_MAX_PEERS] = { REGION_ALIVE, REGION_SILENT };

	region_check(map, life, 0, found, NULL);
}

/* All of an arena, once the other one has let go of it. */
static int take_all(struct ism_fabric *f, struct ism_fabric *other)
{
	struct ism_dmb_params p = { .token = 77,
				    .len = f->info.max_dmb_len,
				    .partner = f->info.gid };
	struct ism_dmb *d;

	for (int i = 0; i < 50; i++) {
		if (!ism_fabric_register_dmb(f, &p, &d)) {
			ism_fabric_unregister_dmb(f, d);
			return 1;
		}
		serve(other, 20);
		serve(f, 20);
	}
	return 0;
}

static int make(const char *path, struct region_map *map)
{
	struct region_geometry g = { .peers = 2, .dmbs = 32 };
	struct ism_err err = {};

	unlink(path);
	snprintf(spec, sizeof(spec), "shm:%s", path);
	if (region_format_spec(spec, SIZE, &g, 0, &err) || region_map_open(spec, 0, map, &err)) {
		fprintf(stderr, "# %s\n", err.text);
		return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 100, ok;
	struct ism_fabric *f, *back;
	struct region_map map;
	char path[48];

	snprintf(path, sizeof(path), "/dev/shm/ismredir-kill-%d", getpid());
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || make(path, &map))
		return 1;
	shared->token = 1000;
	f = join();
	srand(1);
	for (int i = 0; i < rounds; i++) {
		pid_t pid = start();

		serve(f, 5 + rand() % 40);
		usleep(rand() % 1000);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		check(&map);
	}
	for (int i = 0; i < DMBS; i++)
		ism_fabric_unregister_dmb(f, dmbs[i]);
	memset(dmbs, 0, sizeof(dmbs));
	back = join();
	ok = !shared->wrong && !shared->failed && shared->heard && shared->answered &&
	     take_all(back, f) && take_all(f, back);
	printf("%s - killed %d times: %llu of %llu DMBs heard, %llu answered, %llu wrong, %llu failed\n",
	       ok ? "ok" : "not ok", rounds, (unsigned long long)shared->heard,
	       (unsigned long long)shared->token - 1000, (unsigned long long)shared->answered,
	       (unsigned long long)shared->wrong, (unsigned long long)shared->failed);
	ism_fabric_close(back);
	ism_fabric_close(f);
	region_map_close(&map);
	unlink(path);
	return !ok;
}
