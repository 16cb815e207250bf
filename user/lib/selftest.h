/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Self-tests: what this kernel does with redirected bytes, found by trying it on a loopback pair in
 * a private cgroup and network namespace, never by its version.
 */
#ifndef ISM_LIB_SELFTEST_H
#define ISM_LIB_SELFTEST_H

#include "err.h"

enum ism_test_result {
	ISM_TEST_PASS,
	ISM_TEST_FAIL,
	ISM_TEST_SKIP,
};

/* What a failure means for the skmsg plane. */
enum ism_test_weight {
	ISM_TEST_ESSENTIAL, /* refused: bytes could be lost, reordered or held back */
	ISM_TEST_SELECTIVE, /* degraded: only what the user selects explicitly */
	ISM_TEST_KNOWN, /* a limit that programs may meet; told, not acted on */
};

enum ism_verdict {
	ISM_USABLE,
	ISM_DEGRADED,
	ISM_REFUSED,
};

/**
 * struct ism_test_report - outcome of one test
 * @name, @what: what was tried
 * @todo: what helps when it fails
 * @direct: the direct plane needs it too
 * @detail: what was seen
 */
struct ism_test_report {
	const char *name;
	const char *what;
	const char *todo;
	enum ism_test_weight weight;
	int direct;
	enum ism_test_result result;
	double ms;
	char detail[160];
};

#define ISM_MAX_TESTS 24

/**
 * struct ism_selftest - outcome of all
 * @verdict: of the plane skmsg
 * @why: one sentence behind the verdict, empty when usable
 * @direct, @direct_why: the same for the plane direct, as far as the kernel goes
 */
struct ism_selftest {
	enum ism_verdict verdict;
	char why[256];
	enum ism_verdict direct;
	char direct_why[256];
	struct ism_test_report test[ISM_MAX_TESTS];
	unsigned int n;
};

/**
 * ism_selftest_run() - run all self-tests
 *
 * Takes well under a second; leaves nothing behind. ISMREDIR_FAIL_TEST=NAME[,NAME...] in the
 * environment makes the named tests report a failure, to try out what follows from it.
 * Return: 0 when they could run, whatever they found; negative errno otherwise.
 */
int ism_selftest_run(struct ism_selftest *ret, struct ism_err *err);

#endif
