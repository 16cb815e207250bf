// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The policy by file: good files, and for each bad one the file and line that is told. */
#include "unit.h"
#include "policy.h"

static struct ism_policy policy;
static struct ism_err err;

static void fresh(void)
{
	memset(&err, 0, sizeof(err));
	ism_policy_init(&policy);
}

TestSuite(config, .init = fresh);

static int read_file(const char *path)
{
	fresh();
	return ism_policy_file(&policy, path, &err);
}

static void good(const char *text)
{
	cr_assert_eq(read_file(unit_file(text)), 0, "%s", err.text);
	cr_expect_str_empty(err.text);
}

/* @text fails; the error names the file, line @line, and @why. */
static void bad(const char *text, int line, const char *why)
{
	const char *path = unit_file(text);
	char where[128];

	cr_expect_lt(read_file(path), 0, "was taken: \"%s\"", text);
	snprintf(where, sizeof(where), "%s:%d: ", path, line);
	cr_expect(!strncmp(err.text, where, strlen(where)), "\"%s\" for line %d of \"%s\"",
		  err.text, line, text);
	cr_expect_not_null(strstr(err.text, why), "\"%s\" does not say \"%s\"", err.text, why);
	cr_expect_null(strchr(err.text, '\n'));
}

static const char *rule_text(unsigned int i)
{
	static char buf[768];

	cr_assert_lt(i, policy.n_rules);
	ism_rule_format(&policy.rules[i], buf, sizeof(buf));
	return buf;
}

/* ---------------------------------------------------------------- good files */

Test(config, empty)
{
	good("");
	good("\n\n");
	good("# nothing\n; at all\n");
	good("[load]\n");
	cr_expect_eq(policy.n_rules, 0);
	cr_expect_eq(policy.n_cgroups, 0);
}

Test(config, load_section)
{
	good("[load]\n"
	     "port = 6379\n"
	     "port = 7000-7010\n"
	     "comm = redis-server\n"
	     "peer = 10.0.0.0/8\n"
	     "plane = skmsg\n"
	     "default = tcp\n"
	     "max-conns = 1000\n"
	     "budget-bytes = 64k\n"
	     "budget-msgs = 100\n"
	     "stream-run = 3\n"
	     "stream-size = 8k\n"
	     "spin = 5\n"
	     "negative-ttl = 60\n");
	cr_expect_eq(policy.n_ports, 2);
	cr_expect_eq(policy.ports[1].hi, 7010);
	cr_expect_eq(policy.n_comms, 1);
	cr_expect_eq(policy.n_peers, 1);
	cr_expect_eq(policy.default_set, 1);
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_TCP);
	cr_expect_eq(policy.max_conns, 1000);
	cr_expect_eq(policy.ctl.budget_bytes, 65536);
	cr_expect_eq(policy.ctl.budget_msgs, 100);
	cr_expect_eq(policy.ctl.stream_run, 3);
	cr_expect_eq(policy.ctl.stream_size, 8192);
	cr_expect_eq(policy.ctl.spin, 5);
	cr_expect_eq(policy.ctl.neg_ttl_ns, 60000000000ULL);
}

Test(config, rules_in_order)
{
	good("[rule cache]\nplane = skmsg\nport = 6379-6399\n\n"
	     "[rule no-proxy]\nplane = tcp\ncomm = envoy\n\n"
	     "[rule pods]\nplane = skmsg\npeer = 10.244.0.0/16\ndirection = out\n"
	     "[rule]\ndirection = in\n"
	     "[rule both]\ndirection = in\ndirection = both\n");
	cr_assert_eq(policy.n_rules, 5);
	cr_expect_str_eq(rule_text(0), "skmsg port 6379-6399 peer local");
	cr_expect_str_eq(rule_text(1), "tcp comm envoy peer local");
	cr_expect_str_eq(rule_text(2), "skmsg peer 10.244.0.0/16 direction out");
	cr_expect_str_eq(rule_text(3), "skmsg peer local direction in");
	cr_expect_str_eq(rule_text(4), "skmsg peer local");
}

Test(config, the_last_of_a_setting_wins_in_a_rule)
{
	good("[rule a]\nport = 1\nport = 2\ncomm = first-is-longer\ncomm = second\n");
	cr_assert_eq(policy.n_rules, 1);
	cr_expect_str_eq(rule_text(0), "skmsg port 2 comm second peer local");
	cr_expect_eq(policy.rules[0].comm[6], 0);
	cr_expect_eq(policy.rules[0].comm[14], 0, "bytes of the first are left");
}

Test(config, spaces_colons_comments_and_line_ends)
{
	good("\xef\xbb\xbf[load]\r\n"
	     "port=80\r\n"
	     "comm   =   two words   \r\n"
	     "port : 90 ; why not\r\n"
	     "; comment\r\n"
	     "# comment\r\n"
	     "[rule a]\r\n"
	     "port = 5");
	cr_expect_eq(policy.n_ports, 2);
	cr_expect_eq(policy.ports[1].lo, 90);
	cr_expect_str_eq(policy.comms[0], "two words");
	cr_assert_eq(policy.n_rules, 1);
	cr_expect_str_eq(rule_text(0), "skmsg port 5 peer local");
}

Test(config, as_many_rules_as_there_can_be)
{
	char text[ISM_MAX_RULES * 32];
	size_t n = 0;

	for (int i = 0; i < ISM_MAX_RULES; i++)
		n += snprintf(text + n, sizeof(text) - n, "[rule %d]\nport = %d\n", i, 100 + i);
	good(text);
	cr_expect_eq(policy.n_rules, ISM_MAX_RULES);
	cr_expect_str_eq(rule_text(63), "skmsg port 163 peer local");
}

/* Two sections are two rules, whatever they are called. */
Test(config, two_rules_of_one_name)
{
	fresh();
	if (ism_policy_file(&policy, unit_file("[rule]\nport = 80\n[rule]\nport = 90\n"), &err))
		return; /* refusing it is as good */
	cr_assert_eq(policy.n_rules, 2, "became one rule: %s", rule_text(0));
	cr_expect_eq(policy.rules[0].port_lo, 80);
	cr_expect_eq(policy.rules[1].port_lo, 90);
}

/* Names may be long; what they share at the beginning must not make them one rule. */
Test(config, two_rules_of_long_names)
{
	char text[512], name[120];

	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = 0;
	snprintf(text, sizeof(text), "[rule %s1]\nport = 80\n[rule %s2]\nport = 90\n", name, name);
	if (read_file(unit_file(text)))
		return; /* refusing it is as good */
	cr_assert_eq(policy.n_rules, 2, "became one rule: %s", rule_text(0));
}

/* The file that users copy. Its cgroup need not exist here. */
Test(config, the_example_is_right)
{
	char text[8192], mnt[512], line[1024];
	FILE *f = fopen("docs/ismredir.conf.example", "re");
	size_t n = 0;

	if (!f || ism_cgroup_mount(mnt, sizeof(mnt)))
		cr_skip_test("no example, or no cgroup v2 hierarchy");
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "cgroup = ", 9))
			snprintf(line, sizeof(line), "cgroup = %s\n", mnt);
		n += snprintf(text + n, sizeof(text) - n, "%s", line);
		cr_assert_lt(n, sizeof(text));
	}
	fclose(f);
	good(text);
	cr_expect_eq(policy.n_cgroups, 1);
	cr_expect_geq(policy.n_rules, 1);
	cr_expect_eq(ism_policy_finish(&policy, &err), 0, "%s", err.text);
}

Test(config, options_come_on_top_of_the_file)
{
	good("[load]\nport = 80\nmax-conns = 100\n");
	cr_assert_eq(ism_policy_set(&policy, "port", "90", &err), 0);
	cr_assert_eq(ism_policy_set(&policy, "max-conns", "200", &err), 0);
	cr_expect_eq(policy.n_ports, 2);
	cr_expect_eq(policy.max_conns, 200);
}

/* ---------------------------------------------------------------- bad files */

Test(config, missing_file)
{
	cr_expect_eq(read_file("/no/such/file.conf"), -ENOENT);
	cr_expect_not_null(strstr(err.text, "/no/such/file.conf"), "%s", err.text);
	cr_expect_not_null(strstr(err.text, "No such file"), "%s", err.text);
}

Test(config, not_a_file)
{
	cr_expect_lt(read_file("/"), 0, "a directory was read as an empty file");
	cr_expect_str_not_empty(err.text);
}

Test(config, not_readable)
{
	char path[64] = "/tmp/ismredir-unit-XXXXXX";
	int fd = mkstemp(path), rc;

	cr_assert(fd >= 0);
	fchmod(fd, 0);
	close(fd);
	rc = read_file(path);
	unlink(path);
	if (!geteuid())
		cr_skip_test("root reads everything");
	cr_expect_eq(rc, -EACCES);
	cr_expect_not_null(strstr(err.text, path), "%s", err.text);
}

Test(config, sections)
{
	bad("[laod]\nport = 80\n", 2, "unknown section [laod]");
	bad("port = 80\n", 1, "unknown section []");
	bad("[rules]\nport = 80\n", 2, "unknown section [rules]");
	bad("[rule-a]\nport = 80\n", 2, "unknown section [rule-a]");
	bad("[Rule a]\nport = 80\n", 2, "expected [load] or [rule NAME]");
	bad("[load\nport = 80\n", 1, "expected NAME = VALUE or [SECTION]");
	bad("[load x]\nport = 80\n", 2, "unknown section");
}

Test(config, settings)
{
	bad("[load]\nprot = 80\n", 2, "unknown setting \"prot\"");
	bad("[load]\ndirection = in\n", 2, "unknown setting \"direction\"");
	bad("[rule a]\nmax-conns = 80\n", 2, "unknown setting \"max-conns\"");
	bad("[rule a]\nplanes = tcp\n", 2, "unknown setting \"planes\"");
	bad("[load]\n= 80\n", 2, "unknown setting \"\"");
}

Test(config, values)
{
	bad("[load]\n\n# x\nport = 0\n", 4, "bad port \"0\": expected N or N-M");
	bad("[load]\nport = 80 90\n", 2, "bad port");
	bad("[load]\nport = 80 # not a comment\n", 2, "bad port");
	bad("[load]\ncomm = sixteen_chars___\n", 2, "1 to 15 characters");
	bad("[load]\npeer = nowhere\n", 2, "bad peer \"nowhere\"");
	bad("[load]\nplane = relay\n", 2, "expected tcp, skmsg or direct");
	bad("[load]\ndefault = on\n", 2, "bad default \"on\"");
	bad("[load]\nmax-conns = 1\n", 2, "2 to 16777216");
	bad("[load]\nnegative-ttl = 1d\n", 2, "seconds");
	bad("[rule a]\nport = 9-8\n", 2, "bad port");
	bad("[rule a]\ncomm = sixteen_chars___\n", 2, "1 to 15 characters");
	bad("[rule a]\npeer = 10.0.0.0/33\n", 2, "bad peer");
	bad("[rule a]\nplane = x\n", 2, "bad plane");
	bad("[rule a]\nport = 1\ndirection = up\n", 3, "in, out or both");
}

Test(config, values_missing)
{
	bad("[load]\nport =\n", 2, "\"port\" has no value");
	bad("[load]\nport = \n", 2, "\"port\" has no value");
	bad("[load]\nport = ; 80\n", 2, "\"port\" has no value");
	bad("[load]\nport\n", 2, "expected NAME = VALUE");
	bad("[rule a]\ncomm =\n", 2, "\"comm\" has no value");
	bad("[load]\ngarbage\n", 2, "expected NAME = VALUE");
}

Test(config, cgroups)
{
	char mnt[512];

	if (ism_cgroup_mount(mnt, sizeof(mnt)))
		cr_skip_test("no cgroup v2 hierarchy is mounted");
	bad("[load]\ncgroup = /no/such/cgroup\n", 2, "/no/such/cgroup");
	bad("[load]\ncgroup = /proc\n", 2, "not a cgroup v2 directory");
	bad("[rule a]\ncgroup = /no/such/cgroup\n", 2, "/no/such/cgroup");
	bad("[rule a]\nport = 1\ncgroup = /proc\n", 3, "not a cgroup v2 directory");
}

Test(config, the_first_fault_is_told)
{
	bad("[load]\nport = 80\nport = x\nplane = y\n[bogus]\nz = 1\n", 3, "bad port \"x\"");
	bad("[load]\ngarbage\nport = x\n", 2, "expected NAME = VALUE");
	bad("[load]\nport = x\ngarbage\n", 2, "bad port \"x\"");
}

Test(config, too_many_rules)
{
	char text[(ISM_MAX_RULES + 1) * 32];
	size_t n = 0;

	for (int i = 0; i <= ISM_MAX_RULES; i++)
		n += snprintf(text + n, sizeof(text) - n, "[rule %d]\nport = %d\n", i, 100 + i);
	bad(text, 2 * (ISM_MAX_RULES + 1), "too many rules, at most 64");
	cr_expect_leq(policy.n_rules, ISM_MAX_RULES);
}

Test(config, too_many_values)
{
	char text[(ISM_MAX_SELECT + 2) * 16] = "[load]\n";
	size_t n = strlen(text);

	for (int i = 0; i <= ISM_MAX_SELECT; i++)
		n += snprintf(text + n, sizeof(text) - n, "port = %d\n", 100 + i);
	bad(text, ISM_MAX_SELECT + 2, "too many values of port, at most 32");
}

/* ---------------------------------------------------------------- lines that are not lines */

/* A comment is a comment to its end, wherever a reader's buffer ends. */
Test(config, a_long_comment_is_a_comment)
{
	char text[1024];

	for (int len = 150; len < 450; len++) {
		snprintf(text, sizeof(text), "[load]\n#%*s port = 80\n", len, "");
		cr_assert_eq(read_file(unit_file(text)), 0, "comment of %d: %s", len, err.text);
		cr_assert_eq(policy.n_ports, 0, "comment of %d became a setting", len);
	}
}

Test(config, a_long_line_is_taken_whole_or_refused)
{
	char text[1024];

	for (int len = 150; len < 450; len++) {
		snprintf(text, sizeof(text), "[load]\ncomm = %*s\nport = 90\n", len, "port = 80");
		if (read_file(unit_file(text)))
			continue;
		cr_assert_eq(policy.n_ports, 1, "value after %d spaces became a setting", len);
	}
}

/* Paths of containers: pods in slices in slices. */
Test(config, a_long_path_is_told_whole)
{
	char text[700], path[400];

	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = 0;
	for (int i = 90; i < 399; i += 90)
		path[i] = '/';
	snprintf(text, sizeof(text), "[load]\ncgroup = %s\n", path);
	cr_expect_lt(read_file(unit_file(text)), 0);
	cr_expect_not_null(strstr(err.text, ":2: "), "%s", err.text);
	cr_expect(strstr(err.text, path) || strstr(err.text, "long"), "%s", err.text);
}

/* Indented settings are settings, or an error, but never a second value of the line above. */
Test(config, indentation_does_not_change_the_meaning)
{
	if (!read_file(unit_file("[load]\ncomm = redis\n  port = 80\n"))) {
		cr_expect_eq(policy.n_comms, 1, "\"%s\" became a comm", policy.comms[1]);
		cr_expect_eq(policy.n_ports, 1);
	}
	if (!read_file(unit_file("[rule a]\n  comm = redis\n  port = 80\n"))) {
		cr_assert_eq(policy.n_rules, 1);
		cr_expect_str_eq(rule_text(0), "skmsg port 80 comm redis peer local");
	}
}

/* A comment below a setting, indented or not, adds nothing to it. */
Test(config, an_indented_comment_is_a_comment)
{
	good("[load]\ncomm = redis\n  # port = 80\n  ; more\n");
	cr_expect_eq(policy.n_comms, 1);
	cr_expect_eq(policy.n_ports, 0);
}

Test(config, zero_bytes)
{
	static const char text[] = "[load]\nport = 80\0 90\ncomm = a\n";
	int rc = read_file(unit_file_of(text, sizeof(text) - 1));

	cr_expect(rc < 0 || policy.n_ports == 1);
}

Test(config, one_endless_line)
{
	size_t len = 1 << 20;
	char *text = malloc(len);

	cr_assert_not_null(text);
	memset(text, 'x', len);
	cr_expect_lt(read_file(unit_file_of(text, len)), 0);
	cr_expect_not_null(strstr(err.text, ":1: "), "%s", err.text);
	free(text);
}
