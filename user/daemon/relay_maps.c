// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The relay's side of a load; see relay_maps.h. */
#include "relay_maps.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "inspect.h"
#include "log.h"
#include "loader.h"
#include "pins.h"
#include "relayd.skel.h"

#define LINK "link_relay_"

static int run(int prog, void *arg, size_t len)
{
	LIBBPF_OPTS(bpf_test_run_opts, o, .ctx_in = arg, .ctx_size_in = len);

	return bpf_prog_test_run_opts(prog, &o) ? -errno : (int)o.retval;
}

/*
 * Who may not see addresses is shown 0, which libbpf takes as it is: then no sleeper would be recognised
 * (bpf/waiters.bpf.c), and bytes be given to readers that do not see them.
 */
static int check_symbols(struct ism_err *err)
{
	FILE *f = fopen("/proc/kallsyms", "re");
	__u64 addr = 0;
	char line[512];

	if (!f)
		return ism_err_set(err, -errno, "/proc/kallsyms: %s", strerror(errno));
	while (!addr && fgets(line, sizeof(line), f))
		if (strstr(line, " woken_wake_function\n"))
			addr = strtoull(line, NULL, 16);
	fclose(f);
	return addr ? 0
		    : ism_err_set(err, -EPERM,
				  "the kernel does not show addresses: CAP_SYSLOG is needed");
}

static int load(struct relay_maps *m, struct ism_err *err)
{
	int rc = check_symbols(err);

	if (rc)
		return rc;
	m->skel = relayd_bpf__open();
	if (!m->skel)
		return ism_err_set(err, -errno, "BPF object: %s", strerror(errno));
	rc = ism_pins_reuse_maps(m->skel->obj, err);
	if (rc)
		return rc;
	rc = relayd_bpf__load(m->skel);
	if (rc)
		return ism_err_set(err, rc, "the kernel refused the programs of the relay: %s",
				   strerror(-rc));
	m->conns = bpf_map__fd(m->skel->maps.conns);
	m->socks = bpf_map__fd(m->skel->maps.socks);
	m->sk_relay = bpf_map__fd(m->skel->maps.sk_relay);
	m->ctl = bpf_map__fd(m->skel->maps.ctl);
	m->bind = bpf_program__fd(m->skel->progs.ism_relay_bind);
	m->look = bpf_program__fd(m->skel->progs.ism_relay_look);
	m->hold = bpf_program__fd(m->skel->progs.ism_hold);
	m->calm = bpf_program__fd(m->skel->progs.ism_calm);
	m->kick = bpf_link_create(bpf_program__fd(m->skel->progs.ism_relay_kick), 0, BPF_TRACE_ITER,
				  NULL);
	return m->kick < 0 ? ism_err_set(err, -errno, "iterator: %s", strerror(errno)) : 0;
}

int relay_maps_open(struct relay_maps *m, int (*ask)(void *arg, void *data, size_t len), void *arg,
		    struct ism_err *err)
{
	int rc;

	memset(m, 0, sizeof(*m));
	m->kick = -1;
	rc = load(m, err);
	if (rc)
		goto fail;
	m->slots = mmap(NULL, ISM_MAX_RELAYS * sizeof(*m->slots), PROT_READ | PROT_WRITE,
			MAP_SHARED, bpf_map__fd(m->skel->maps.relays), 0);
	if (m->slots == MAP_FAILED) {
		m->slots = NULL;
		rc = ism_err_set(err, -errno, "map relays: %s", strerror(errno));
		goto fail;
	}
	m->asks = ring_buffer__new(bpf_map__fd(m->skel->maps.relay_asks), ask, arg, NULL);
	if (!m->asks) {
		rc = ism_err_set(err, -errno, "map relay_asks: %s", strerror(errno));
		goto fail;
	}
	return 0;
fail:
	relay_maps_close(m);
	return rc;
}

void relay_maps_close(struct relay_maps *m)
{
	ring_buffer__free(m->asks);
	if (m->slots)
		munmap(m->slots, ISM_MAX_RELAYS * sizeof(*m->slots));
	if (m->kick >= 0)
		close(m->kick);
	relayd_bpf__destroy(m->skel);
	memset(m, 0, sizeof(*m));
	m->kick = -1;
}

/* ---------------------------------------------------------------- on its cgroups */

struct guarding {
	struct relay_maps *m;
	struct ism_err *err;
};

/* @kind: before the id in the name of the pin */
static int guard_way(const struct guarding *g, int prog, enum bpf_attach_type type,
		     const char *kind, const struct ism_cgroup *cg)
{
	char name[64], pin[4096];
	int fd, rc;

	snprintf(name, sizeof(name), LINK "%s%llu", kind, (unsigned long long)cg->id);
	fd = ism_pins_open_link(name);
	if (fd >= 0) {
		rc = bpf_link_update(fd, prog, NULL) ? -errno : 0;
		close(fd);
		return rc;
	}
	fd = ism_loader_attach_cgroup(prog, cg, type, g->err);
	if (fd < 0)
		return fd;
	rc = ism_pin_path(pin, sizeof(pin), name);
	if (!rc && bpf_obj_pin(fd, pin))
		rc = ism_err_set(g->err, -errno, "pin %s: %s", pin, strerror(errno));
	close(fd);
	return rc;
}

static int guard_one(__u64 id, const char *path, void *arg)
{
	const struct guarding *g = arg;
	struct ism_cgroup cg = { .id = id };
	int rc;

	if (!path)
		return 0;
	snprintf(cg.path, sizeof(cg.path), "%s", path);
	rc = guard_way(g, g->m->hold, BPF_CGROUP_INET_EGRESS, "", &cg);
	return rc ? rc : guard_way(g, g->m->calm, BPF_CGROUP_INET_INGRESS, "in_", &cg);
}

/* Pinned, because it has to stay when ismredird dies with bytes in the relay. */
int relay_maps_guard_cgroups(struct relay_maps *m, struct ism_err *err)
{
	struct guarding g = { .m = m, .err = err };

	return ism_inspect_cgroups(guard_one, &g, err);
}

static int unguard_one(const char *name, void *arg)
{
	(void)arg;
	return strncmp(name, LINK, strlen(LINK)) ? 0 : ism_pins_remove(name);
}

void relay_maps_unguard(void)
{
	ism_pins_each_link(unguard_one, NULL);
}

/* ---------------------------------------------------------------- single things */

int relay_maps_asks_fd(const struct relay_maps *m)
{
	return ring_buffer__epoll_fd(m->asks);
}

void relay_maps_asks(struct relay_maps *m)
{
	ring_buffer__consume(m->asks);
}

int relay_maps_conn(const struct relay_maps *m, __u64 token, struct ism_conn *ret)
{
	return bpf_map_lookup_elem(m->conns, &token, ret) ? -errno : 0;
}

int relay_maps_bind(const struct relay_maps *m, __u64 token, __u32 relay)
{
	struct ism_relay_bind b = { .token = token, .relay = relay };

	return run(m->bind, &b, sizeof(b));
}

int relay_maps_leave(const struct relay_maps *m, __u64 token)
{
	struct ism_relay_bind b = { .token = token, .leave = 1 };

	return run(m->bind, &b, sizeof(b));
}

int relay_maps_look(const struct relay_maps *m, unsigned int n)
{
	__u32 arg = n;

	return run(m->look, &arg, sizeof(arg));
}

int relay_maps_kick(const struct relay_maps *m)
{
	int fd = bpf_iter_create(m->kick), rc = 0;
	char none[16];

	if (fd < 0)
		return -errno;
	while ((rc = read(fd, none, sizeof(none))) > 0)
		;
	close(fd);
	return rc;
}

/* Records come and go meanwhile, and where the walk's own goes it begins anew, so it is bounded. */
void relay_maps_forget_asks(const struct relay_maps *m)
{
	const __u32 max = bpf_map__max_entries(m->skel->maps.conns);
	struct ism_conn c;
	__u64 token;
	int more = !bpf_map_get_next_key(m->conns, NULL, &token);

	for (__u32 i = 0; more && i < max; i++) {
		if (!relay_maps_conn(m, token, &c) && c.relay == ISM_RELAY_ASKED)
			relay_maps_bind(m, token, 0);
		more = !bpf_map_get_next_key(m->conns, &token, &token);
	}
}

__u32 relay_maps_word(const struct relay_maps *m)
{
	struct ism_ctl ctl;
	__u32 zero = 0;

	return bpf_map_lookup_elem(m->ctl, &zero, &ctl) ? ISM_WORD_OFF : ctl.word;
}

static __u32 map_id(int fd)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) ? 0 : info.id;
}

int relay_maps_is_current(const struct relay_maps *m)
{
	int fd = ism_pins_open_map("ctl"), same;

	if (fd < 0)
		return 0;
	same = map_id(fd) == map_id(m->ctl);
	close(fd);
	return same;
}

/* A slot of a direct end stays: rings and programs outlive a daemon. */
static int is_relayed(const struct ism_relay *s)
{
	return s->token && !s->owner;
}

static int is_lost(const struct ism_relay *s)
{
	return s->redirected != s->delivered;
}

static void free_slot(struct relay_maps *m, struct ism_relay *s)
{
	__u64 token = s->token;

	s->token = 0;
	relay_maps_bind(m, token, 0);
}

/* All at once: a verdict that is under way when the state changes adds what is seen a moment later. */
static unsigned int close_slots(struct relay_maps *m)
{
	unsigned int n = 0;

	for (int i = 0; i < ISM_MAX_RELAYS; i++) {
		if (!is_relayed(&m->slots[i]))
			continue;
		m->slots[i].state = ISM_RELAY_CLOSED;
		n++;
	}
	if (n)
		usleep(20000);
	return n;
}

/* Slots of connections that are reset by now are freed. While the record is there the socket is, too. */
static unsigned int count_stuck(struct relay_maps *m)
{
	unsigned int stuck = 0;
	struct ism_conn c;

	for (int i = 0; i < ISM_MAX_RELAYS; i++) {
		struct ism_relay *s = &m->slots[i];

		if (!is_relayed(s))
			continue;
		if (relay_maps_conn(m, s->token, &c))
			free_slot(m, s);
		else
			stuck++;
	}
	return stuck;
}

void relay_maps_give_up(struct relay_maps *m, void (*reset)(const struct ism_conn *c, void *arg),
			void *arg)
{
	unsigned int all = close_slots(m), lost = 0, stuck;
	struct ism_conn c;

	if (!all)
		return;
	for (int i = 0; i < ISM_MAX_RELAYS; i++) {
		struct ism_relay *s = &m->slots[i];

		if (!is_relayed(s))
			continue;
		if (!is_lost(s)) {
			free_slot(m, s);
		} else {
			s->state = ISM_RELAY_BROKEN;
			lost++;
			if (!relay_maps_conn(m, s->token, &c))
				reset(&c, arg);
		}
	}
	stuck = count_stuck(m);
	for (int i = 0; stuck && i < 50; i++) {
		usleep(10000);
		stuck = count_stuck(m);
	}
	log_line(LOG_NOTICE, "relay: %u connections had bytes in it and are reset, %u go on by TCP",
		 lost, all - lost);
	if (stuck)
		log_line(LOG_ERR, "relay: %u of them could not be reset: they stand still", stuck);
}
