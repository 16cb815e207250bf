// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The small things: the error of a library call, byte counts for people, the list of self-tests. */
#include "unit.h"
#include "err.h"
#include "selftest_cases.h"
#include "cli/cli.h"

Test(err, the_first_failure_wins)
{
	struct ism_err err = {};

	cr_expect_eq(ism_err_set(&err, -ENOENT, "first %d", 1), -ENOENT);
	cr_expect_eq(ism_err_set(&err, -EINVAL, "second"), -EINVAL);
	cr_expect_str_eq(err.text, "first 1");
}

Test(err, nobody_may_be_listening)
{
	cr_expect_eq(ism_err_set(NULL, -EIO, "%s", "text"), -EIO);
}

Test(err, errno_survives)
{
	struct ism_err err = {};

	errno = EXDEV;
	ism_err_set(&err, -1, "%s", "text");
	cr_expect_eq(errno, EXDEV);
}

Test(err, long_texts_are_cut)
{
	struct ism_err err = {};
	char text[2 * sizeof(err.text)];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	ism_err_set(&err, -1, "%s", text);
	cr_expect_eq(strlen(err.text), sizeof(err.text) - 1);
}

Test(bytes, for_people)
{
	static const struct {
		unsigned long long n;
		const char *text;
	} want[] = {
		{ 0, "0" },
		{ 1, "1" },
		{ 1023, "1023" },
		{ 1024, "1.0K" },
		{ 1536, "1.5K" },
		{ 10240, "10K" },
		{ 1ULL << 20, "1.0M" },
		{ 1ULL << 30, "1.0G" },
		{ 5ULL << 40, "5.0T" },
		{ 1ULL << 50, "1.0P" },
		{ ~0ULL, "16E" },
	};
	char buf[16];

	for (size_t i = 0; i < UNIT_SIZE(want); i++) {
		cr_expect_str_eq(cli_bytes(buf, sizeof(buf), want[i].n), want[i].text);
		cr_expect_eq(cli_bytes(buf, sizeof(buf), want[i].n), (const char *)buf);
	}
}

Test(selftests, the_list)
{
	size_t n = 0;

	for (const struct ism_case *c = ism_cases; c->name; c++, n++) {
		cr_expect_not_null(c->run, "%s", c->name);
		cr_expect(c->what && *c->what, "%s", c->name);
		cr_expect_not_null(c->todo, "%s", c->name);
		/* the names are given in a list with commas */
		cr_expect_null(strpbrk(c->name, ", \t\n"), "%s", c->name);
		for (const struct ism_case *d = ism_cases; d != c; d++)
			cr_expect_str_neq(c->name, d->name);
	}
	cr_expect_gt(n, 0);
	cr_expect_leq(n, ISM_MAX_TESTS, "%zu tests: the last ones would never run", n);
}
