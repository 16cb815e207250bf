/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the contract suite is run over: every provider, each with the specs that matter. */
#ifndef ISM_FABRIC_CONTRACT_H
#define ISM_FABRIC_CONTRACT_H

#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <ismredir/fabric.h>
#include "err.h"

/**
 * struct spec - one way to open fabrics of a provider
 * @spec: for peers that reach each other. '@' stands for a region of this test, '%' for an ivshmem server
 *        that has it, '#' for another slot at each peer(), '$' for one of the PCI devices that share
 *        memory and that $ISM_CONTRACT_DEVICES names
 * @apart: for one that must not reach them: another label of the network; NULL when there is no such
 * @small: with max_dmbs as small as @small_dmbs; NULL when it cannot be chosen
 */
struct spec {
	char spec[64];
	char apart[64];
	char small[64];
	unsigned int small_dmbs;
};

/** spec_text() - a spec with what '@', '%', '#' and '$' stand for; valid until the next call */
const char *spec_text(const char *spec);

extern struct spec contract_specs[];
extern size_t contract_n_specs;

/* A test that is run with each spec. */
#define CONTRACT(name)                                                                             \
	ParameterizedTestParameters(contract, name)                                                \
	{                                                                                          \
		return cr_make_param_array(struct spec, contract_specs, contract_n_specs);         \
	}                                                                                          \
	ParameterizedTest(struct spec *spec, contract, name)

#define LEN 100000 /* of a DMB: no multiple of anything */

/* A peer. Never fails. */
static inline struct ism_fabric *peer(const char *spec)
{
	struct ism_err err = {};
	struct ism_fabric *f;

	cr_assert_eq(ism_fabric_open(spec_text(spec), &f, &err), 0, "%s", err.text);
	return f;
}

static inline struct ism_dmb_params params(__u64 token, const struct ism_fabric *partner)
{
	return (struct ism_dmb_params){ .token = token, .len = LEN, .partner = partner->info.gid };
}

/* A DMB of @owner that @partner may write. Never fails. */
static inline struct ism_dmb *dmb_for(struct ism_fabric *owner, const struct ism_fabric *partner,
				      __u64 token)
{
	struct ism_dmb_params p = params(token, partner);
	struct ism_dmb *d;

	cr_assert_eq(ism_fabric_register_dmb(owner, &p, &d), 0);
	return d;
}

static inline int has(const struct ism_fabric *f, __u32 cap)
{
	return (f->info.caps & cap) != 0;
}

/** is_ready() - does anything happen at the peer within @ms, or a little more where bells are polled? */
int is_ready(struct ism_fabric *f, int ms);

/** take_events() - ism_fabric_read_events(), after what is_ready() has seen */
int take_events(struct ism_fabric *f, struct ism_event *ret, unsigned int n);

/* The only event that is there. */
static inline struct ism_event one_event(struct ism_fabric *f)
{
	struct ism_event e[2];

	cr_assert(is_ready(f, 5000), "nothing happens");
	cr_assert_eq(take_events(f, e, 2), 1);
	return e[0];
}

#endif
