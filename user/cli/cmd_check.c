// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ismredir check: run the self-tests and say what follows for each plane. */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "control_client.h"
#include "loader.h"
#include "pins.h"
#include "preload.h"
#include "selftest.h"

static const char *const verdicts[] = { "usable", "degraded", "refused" };
static const char *const results[] = { "pass", "fail", "skip" };

/* What a degraded or refused plane means for the user. */
static const char *advice(enum ism_verdict v)
{
	switch (v) {
	case ISM_DEGRADED:
		return "load only with --port, --comm or --cgroup, for programs that do not need it";
	case ISM_REFUSED:
		return "load refuses it; see the failed tests";
	default:
		return "";
	}
}

/* The direct plane takes the kernel, the library and the daemon. */
struct direct {
	enum ism_verdict verdict;
	struct ism_err why;
	const char *advice;
};

static void check_direct(const struct ism_selftest *st, struct direct *d)
{
	char path[PATH_MAX];
	int fd;

	memset(d, 0, sizeof(*d));
	d->verdict = ISM_REFUSED;
	d->advice = "the kernel's part does not work; see the failed tests";
	if (st->direct == ISM_REFUSED) {
		ism_err_set(&d->why, -EOPNOTSUPP, "%s", st->direct_why);
		return;
	}
	d->advice = "install " ISM_PRELOAD_NAME ", or say by ISMREDIR_PRELOAD where it is";
	if (preload_find(path, sizeof(path), &d->why))
		return;
	d->verdict = ISM_DEGRADED;
	d->advice = "start ismredird; until then connections between programs that `ismredir run` "
		    "started stay on TCP";
	fd = ism_control_open(&d->why);
	if (fd < 0)
		return;
	close(fd);
	d->verdict = ISM_USABLE;
	d->advice = "";
}

static void plane_json(struct json_object *planes, const char *name, enum ism_verdict v,
		       const char *why, const char *todo)
{
	struct json_object *p = json_object_new_object();

	put_str(p, "verdict", verdicts[v]);
	put_str(p, "why", why);
	put_str(p, "advice", todo);
	json_object_object_add(planes, name, p);
}

static void plane_text(const char *name, enum ism_verdict v, const char *why, const char *todo)
{
	printf("plane %s: %s%s%s\n", name, verdicts[v], *why ? ": " : "", why);
	if (*todo)
		printf("  %s\n", todo);
}

static void check_json(const struct cli *c, const struct ism_selftest *st, const char *bpffs)
{
	struct json_object *o = json_object_new_object(), *planes = json_object_new_object();
	struct json_object *tests = json_object_new_array(), *t;
	struct direct d;

	check_direct(st, &d);
	plane_json(planes, "skmsg", st->verdict, st->why, advice(st->verdict));
	plane_json(planes, "direct", d.verdict, d.why.text, d.advice);
	json_object_object_add(o, "planes", planes);
	put_str(o, "bpffs", bpffs);
	for (unsigned int i = 0; i < st->n; i++) {
		const struct ism_test_report *r = &st->test[i];

		t = json_object_new_object();
		put_str(t, "name", r->name);
		put_str(t, "what", r->what);
		put_str(t, "result", results[r->result]);
		json_object_object_add(t, "ms", json_object_new_double(r->ms));
		put_str(t, "detail", r->detail);
		put_str(t, "todo", r->result == ISM_TEST_FAIL ? r->todo : "");
		json_object_array_add(tests, t);
	}
	json_object_object_add(o, "tests", tests);
	cli_print_json(c, o);
}

static void check_text(const struct ism_selftest *st, const char *bpffs)
{
	static const char *const columns[] = { "Test", "Result", ">ms", "What", "Detail", NULL };
	struct libscols_table *t = cli_table(columns);
	struct libscols_line *l;
	struct direct d;

	for (unsigned int i = 0; i < st->n; i++) {
		const struct ism_test_report *r = &st->test[i];

		l = cli_row(t);
		cli_cell(l, 0, "%s", r->name);
		cli_cell(l, 1, "%s", results[r->result]);
		cli_cell(l, 2, "%.1f", r->ms);
		cli_cell(l, 3, "%s", r->what);
		cli_cell(l, 4, "%s", r->detail);
	}
	cli_table_done(t, NULL);
	putchar('\n');
	plane_text("skmsg", st->verdict, st->why, advice(st->verdict));
	for (unsigned int i = 0; i < st->n; i++)
		if (st->test[i].result == ISM_TEST_FAIL && *st->test[i].todo)
			printf("  %s: %s\n", st->test[i].name, st->test[i].todo);
	check_direct(st, &d);
	plane_text("direct", d.verdict, d.why.text, d.advice);
	if (*bpffs)
		printf("  bpffs: %s\n", bpffs);
}

int cmd_check(struct cli *c, int argc, char **argv)
{
	struct ism_err err = {}, fs = {};
	struct ism_selftest *st;
	int rc, status;

	if (cli_no_args(c, argc, argv))
		return CLI_USAGE;
	rc = ism_loader_privileges(&err);
	if (rc)
		return cli_error(c, &err, rc);
	st = malloc(sizeof(*st));
	if (!st)
		return cli_error(c, &err, -ENOMEM);
	ism_pins_check_fs(&fs);
	rc = ism_selftest_run(st, &err);
	if (rc) {
		free(st);
		return cli_error(c, &err, rc);
	}
	if (c->json)
		check_json(c, st, fs.text);
	else
		check_text(st, fs.text);
	status = st->verdict == ISM_REFUSED || fs.text[0] ? CLI_FAIL : CLI_OK;
	free(st);
	return status;
}
