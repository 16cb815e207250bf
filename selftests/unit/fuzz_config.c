// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Fuzzes the configuration file: whatever is in it, the policy stays in its bounds or an error says why. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int good)
{
	if (!good)
		abort();
}

static int ended(const char *comm)
{
	return strnlen(comm, 16) >= 1 && strnlen(comm, 16) <= 15;
}

static void check_rule(const struct ism_rule *r)
{
	char buf[768];

	check(r->plane == ISM_PLANE_TCP || r->plane == ISM_PLANE_SKMSG ||
	      r->plane == ISM_PLANE_DIRECT);
	check(!(r->flags & ISM_RULE_PORT) || (r->port_lo >= 1 && r->port_lo <= r->port_hi));
	check(!(r->flags & ISM_RULE_COMM) || ended(r->comm));
	check(!(r->flags & ISM_RULE_CIDR) || r->prefix <= 128);
	check(!(r->flags & ISM_RULE_CIDR) || !(r->flags & ISM_RULE_LOCAL));
	check((r->flags & (ISM_RULE_IN | ISM_RULE_OUT)) != (ISM_RULE_IN | ISM_RULE_OUT));
	if (r->flags & ISM_RULE_CGROUP)
		return; /* its text needs a walk over all cgroups */
	memset(buf, 0x5a, sizeof(buf));
	ism_rule_format(r, buf, sizeof(buf));
	check(strnlen(buf, sizeof(buf)) < sizeof(buf));
}

static void check_bounds(const struct ism_policy *p)
{
	check(p->n_rules <= ISM_MAX_RULES && p->n_cgroups <= ISM_MAX_CGROUPS);
	check(p->n_ports <= ISM_MAX_SELECT && p->n_comms <= ISM_MAX_SELECT);
	check(p->n_peers <= ISM_MAX_SELECT);
	check(p->max_conns >= 2 && p->max_conns <= 1 << 24);
	check(p->ctl.budget_bytes >= 4096 && p->ctl.budget_bytes <= 16 << 20);
	check(p->ctl.budget_msgs >= 1 && p->ctl.budget_msgs <= 16384);
	check(p->ctl.stream_run >= 1 && p->ctl.stream_size <= 1 << 20);
	check(p->ctl.leave_run >= 1 && p->ctl.mix_bytes <= 1 << 30 && p->ctl.readers <= 2);
	check(p->ctl.spin <= 1000 && p->ctl.neg_ttl_ns <= 86400ULL * 1000000000);
	check(p->ctl.word == ISM_WORD_OFF && p->ctl.format == ISM_MAPS_FORMAT);
}

static void check_contents(const struct ism_policy *p)
{
	for (unsigned int i = 0; i < p->n_comms; i++)
		check(ended(p->comms[i]));
	for (unsigned int i = 0; i < p->n_rules; i++)
		check_rule(&p->rules[i]);
}

static int write_all(int fd, const uint8_t *data, size_t size)
{
	return ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ism_policy p;
	static int fd = -1;
	struct ism_err err = {};
	char path[64];
	int rc;

	if (fd < 0)
		fd = memfd_create("config", MFD_CLOEXEC);
	if (fd < 0 || write_all(fd, data, size))
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ism_policy_init(&p);
	rc = ism_policy_file(&p, path, &err);
	check((rc == 0) == (err.text[0] == 0));
	check(rc <= 0 && strnlen(err.text, sizeof(err.text)) < sizeof(err.text));
	check(!rc || !strncmp(err.text, path, strlen(path)) || strstr(err.text, path));
	check_bounds(&p);
	if (rc)
		return 0;
	check_contents(&p);
	if (!p.n_cgroups)
		p.n_cgroups = 1; /* never the root of this machine */
	rc = ism_policy_finish(&p, &err);
	check((rc == 0) == (err.text[0] == 0));
	check(rc || p.ctl.n_rules == p.n_rules);
	check_bounds(&p);
	check_contents(&p);
	return 0;
}
