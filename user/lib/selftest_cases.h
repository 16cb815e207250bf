/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The single self-tests and what they share; private to the self-test. */
#ifndef ISM_LIB_SELFTEST_CASES_H
#define ISM_LIB_SELFTEST_CASES_H

#include <stddef.h>
#include "cgroup.h"
#include "selftest.h"

struct ismredir_bpf;

/**
 * struct ism_case_env - the programs, loaded once and attached to the test's cgroup
 * @broken: setup failed with this errno: nothing can be tried
 */
struct ism_case_env {
	struct ism_cgroup cg;
	struct ismredir_bpf *skel;
	int links[4];
	int own_netns;
	int sockmap_link;
	int broken;
	char setup_error[200];
};

struct ism_case {
	const char *name;
	const char *what;
	const char *todo;
	enum ism_test_weight weight;
	enum ism_test_result (*run)(struct ism_case_env *env, char *detail, size_t len);
	int direct; /* the direct plane needs it too */
};

/** ism_cases - all of them, ended by an entry without a name */
extern const struct ism_case ism_cases[];

/** ism_case_load() - the first case: did the setup work? */
enum ism_test_result ism_case_load(struct ism_case_env *env, char *detail, size_t len);
/** ism_case_setup() - load and attach; what went wrong is in env->setup_error */
int ism_case_setup(struct ism_case_env *env);
/** ism_case_teardown() - detach and free */
void ism_case_teardown(struct ism_case_env *env);

#endif
