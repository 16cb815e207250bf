// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ismredir load and unload. */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "inspect.h"
#include "loader.h"
#include "pins.h"
#include "reasons.h"
#include "selftest.h"

struct load_args {
	struct ism_policy policy;
	int replace;
	int skip_tests;
};

/* "--set NAME=VALUE": the tunables that are not worth an option of their own. */
static int set_tunable(struct ism_policy *p, const char *text, struct ism_err *err)
{
	char key[64];
	const char *eq = strchr(text, '=');

	if (!eq || eq == text || (size_t)(eq - text) >= sizeof(key))
		return ism_err_set(err, -EINVAL, "bad --set \"%s\": expected NAME=VALUE", text);
	memcpy(key, text, eq - text);
	key[eq - text] = 0;
	return ism_policy_set(p, key, eq + 1, err);
}

/* The value of an option: "--name=value" or the next argument. */
static const char *option_value(int argc, char **argv, int *i, size_t name_len)
{
	if (argv[*i][name_len] == '=')
		return argv[*i] + name_len + 1;
	return *i + 1 < argc ? argv[++*i] : NULL;
}

static int one_option(struct load_args *a, int argc, char **argv, int *i, struct ism_err *err)
{
	static const char *const with_value[] = { "cgroup", "port",	 "peer",    "comm", "plane",
						  "config", "max-conns", "default", "set" };
	const char *arg = argv[*i], *value;

	if (!strcmp(arg, "--replace"))
		return (a->replace = 1, 0);
	if (!strcmp(arg, "--skip-tests"))
		return (a->skip_tests = 1, 0);
	for (size_t n = 0; n < sizeof(with_value) / sizeof(with_value[0]); n++) {
		size_t len = strlen(with_value[n]);

		if (strncmp(arg, "--", 2) || strncmp(arg + 2, with_value[n], len) ||
		    (arg[2 + len] && arg[2 + len] != '='))
			continue;
		value = option_value(argc, argv, i, 2 + len);
		if (!value)
			return ism_err_set(err, -EINVAL, "%s needs a value", arg);
		if (!strcmp(with_value[n], "config"))
			return ism_policy_file(&a->policy, value, err);
		if (!strcmp(with_value[n], "set"))
			return set_tunable(&a->policy, value, err);
		return ism_policy_set(&a->policy, with_value[n], value, err);
	}
	return ism_err_set(err, -EINVAL, "unknown option \"%s\"", arg);
}

static int parse_load(struct load_args *a, int argc, char **argv, struct ism_err *err)
{
	int rc = 0;

	ism_policy_init(&a->policy);
	for (int i = 0; !rc && i < argc; i++)
		rc = one_option(a, argc, argv, &i, err);
	return rc ? rc : ism_policy_finish(&a->policy, err);
}

/* What the self-tests allow: 0, or a negative errno with the reason. */
static int allowed_by_tests(const struct load_args *a, char *warning, size_t len,
			    struct ism_err *err)
{
	struct ism_selftest *st = malloc(sizeof(*st));
	int rc = st ? ism_selftest_run(st, err) : -ENOMEM;

	warning[0] = 0;
	if (rc)
		goto out;
	if (!ism_policy_redirects(&a->policy)) {
		if (st->direct == ISM_REFUSED)
			rc = ism_err_set(
				err, -EOPNOTSUPP,
				"plane direct is refused on this kernel: %s; see `ismredir "
				"check`",
				st->direct_why);
		goto out;
	}
	if (st->verdict == ISM_USABLE)
		goto out;
	if (st->verdict == ISM_REFUSED) {
		rc = ism_err_set(err, -EOPNOTSUPP,
				 "plane skmsg is refused on this kernel: %s; see `ismredir check`",
				 st->why);
		goto out;
	}
	if (!ism_policy_selective(&a->policy)) {
		rc = ism_err_set(err, -EOPNOTSUPP,
				 "plane skmsg is degraded on this kernel (%s): select with --port, "
				 "--comm or --cgroup which programs may use it",
				 st->why);
		goto out;
	}
	snprintf(
		warning, len,
		"plane skmsg is degraded on this kernel: %s. Only what you selected uses it; leave "
		"out programs that depend on this (nginx, Java and .NET use FIONREAD)",
		st->why);
out:
	free(st);
	return rc;
}

static void print_loaded(const struct cli *c, const struct load_args *a,
			 const struct ism_load_result *r, const char *warning)
{
	const struct ism_policy *p = &a->policy;
	struct json_object *o, *list;
	char line[768];

	if (c->json) {
		o = json_object_new_object();
		list = json_object_new_array();
		for (unsigned int i = 0; i < p->n_cgroups; i++)
			json_object_array_add(list, json_object_new_string(p->cgroups[i].path));
		put_str(o, r->replaced ? "replaced" : "loaded", ism_pin_dir());
		json_object_object_add(o, "cgroups", list);
		put_u64(o, "rules", p->n_rules);
		put_u64(o, "listeners_armed", r->armed);
		put_u64(o, "listeners_refused", r->refused);
		put_bool(o, "sockmap_link", r->sockmap_link);
		put_str(o, "warning", warning);
		cli_print_json(c, o);
		return;
	}
	printf("%s plane %s, pinned at %s\n",
	       r->replaced ? "replaced:" : "loaded:", ism_policy_redirects(p) ? "skmsg" : "direct",
	       ism_pin_dir());
	for (unsigned int i = 0; i < p->n_cgroups; i++)
		printf("  cgroup  %s\n", p->cgroups[i].path);
	for (unsigned int i = 0; i < p->n_rules; i++) {
		ism_rule_format(&p->rules[i], line, sizeof(line));
		printf("  rule    %s\n", line);
	}
	printf("  default %s%s\n", ism_plane_name(p->ctl.default_plane),
	       p->ctl.default_plane == ISM_PLANE_TCP ? "" : ", peer local");
	printf("  listeners armed: %u\n", r->armed);
	if (r->refused)
		printf("  listeners that this kernel cannot arm: %u (restart those servers)\n",
		       r->refused);
}

int cmd_load(struct cli *c, int argc, char **argv)
{
	struct load_args *a = calloc(1, sizeof(*a));
	struct ism_load_result result;
	struct ism_err err = {};
	char warning[512] = "";
	int rc, status = CLI_OK;

	if (!a)
		return cli_error(c, &err, -ENOMEM);
	rc = parse_load(a, argc, argv, &err);
	if (rc) {
		status = rc == -EINVAL || rc == -E2BIG ? cli_usage(c, "%s", err.text)
						       : cli_error(c, &err, rc);
		goto out;
	}
	rc = ism_loader_privileges(&err);
	if (!rc)
		rc = ism_pins_check_fs(&err);
	if (!rc && !a->skip_tests)
		rc = allowed_by_tests(a, warning, sizeof(warning), &err);
	if (!rc)
		rc = ism_loader_load(&a->policy, a->replace, &result, &err);
	if (rc) {
		status = cli_error(c, &err, rc);
		goto out;
	}
	if (warning[0])
		fprintf(stderr, "ismredir: warning: %s\n", warning);
	print_loaded(c, a, &result, warning);
out:
	free(a);
	return status;
}

static int parse_timeout(const struct cli *c, int argc, char **argv, unsigned int *ms)
{
	char *end;
	double s;

	for (int i = 0; i < argc; i++) {
		const char *v;

		if (strncmp(argv[i], "--timeout", 9) || (argv[i][9] && argv[i][9] != '='))
			return cli_usage(c, "unknown option \"%s\"", argv[i]);
		v = option_value(argc, argv, &i, 9);
		if (!v)
			return cli_usage(c, "--timeout needs a value");
		s = strtod(v, &end);
		if (end == v || *end || !(s >= 0 && s <= 86400))
			return cli_usage(c, "bad --timeout \"%s\": expected seconds, 0 to 86400",
					 v);
		*ms = s * 1000;
	}
	return CLI_OK;
}

int cmd_unload(struct cli *c, int argc, char **argv)
{
	struct ism_unload_result r;
	struct ism_err err = {};
	unsigned int timeout_ms = 10000;
	struct json_object *o;
	int rc;

	if (parse_timeout(c, argc, argv, &timeout_ms))
		return CLI_USAGE;
	rc = ism_loader_privileges(&err);
	if (!rc)
		rc = ism_loader_unload(timeout_ms, &r, &err);
	if (rc)
		return cli_error(c, &err, rc);
	if (!c->json) {
		printf("unloaded; %u connection%s went back to TCP", r.conns,
		       r.conns == 1 ? "" : "s");
		if (r.direct)
			printf("; %u on rings leave%s them with the next send", r.direct,
			       r.direct == 1 ? "s" : "");
		putchar('\n');
		return CLI_OK;
	}
	o = json_object_new_object();
	put_str(o, "unloaded", ism_pin_dir());
	put_u64(o, "connections", r.conns);
	put_u64(o, "direct", r.direct);
	cli_print_json(c, o);
	return CLI_OK;
}
