// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The policy by options: values, limits, and which rules a selection becomes. */
#include "unit.h"
#include <arpa/inet.h>
#include "policy.h"
#include "reasons.h"

static struct ism_policy policy;
static struct ism_err err;

/* Each test begins with the defaults and a cgroup, so that the root is never looked up. */
static void fresh(void)
{
	memset(&err, 0, sizeof(err));
	ism_policy_init(&policy);
	policy.n_cgroups = 1;
	policy.cgroups[0].id = 4711;
	policy.cgroups[0].level = 1;
	strcpy(policy.cgroups[0].path, "/not/looked/at");
}

static int set(const char *key, const char *value)
{
	memset(&err, 0, sizeof(err));
	return ism_policy_set(&policy, key, value, &err);
}

static void must_set(const char *key, const char *value)
{
	cr_assert_eq(set(key, value), 0, "%s = %s: %s", key, value, err.text);
}

static void finish(void)
{
	cr_assert_eq(ism_policy_finish(&policy, &err), 0, "%s", err.text);
	cr_expect_eq(policy.ctl.n_rules, policy.n_rules);
}

static const char *rule_text(unsigned int i)
{
	static char buf[768];

	cr_assert_lt(i, policy.n_rules);
	ism_rule_format(&policy.rules[i], buf, sizeof(buf));
	return buf;
}

TestSuite(policy, .init = fresh);

/* ---------------------------------------------------------------- ports */

Test(policy, ports_good)
{
	static const struct {
		const char *text;
		__u16 lo, hi;
	} good[] = {
		{ "1", 1, 1 },
		{ "80", 80, 80 },
		{ "65535", 65535, 65535 },
		{ "1-65535", 1, 65535 },
		{ "9000-9100", 9000, 9100 },
		{ "7-7", 7, 7 },
		{ "0080", 80, 80 },
	};

	for (size_t i = 0; i < UNIT_SIZE(good); i++) {
		__u16 lo = 0, hi = 0;

		cr_expect_eq(ism_parse_ports(good[i].text, &lo, &hi), 0, "\"%s\"", good[i].text);
		cr_expect_eq(lo, good[i].lo, "\"%s\"", good[i].text);
		cr_expect_eq(hi, good[i].hi, "\"%s\"", good[i].text);
	}
}

Test(policy, ports_bad)
{
	static const char *const bad[] = {
		"",
		"0",
		"65536",
		"-1",
		"+1",
		"80-",
		"-80",
		"80-79",
		"1-65536",
		"0-80",
		"http",
		"80 ",
		" 80",
		"80-90-100",
		"1--2",
		"80,90",
		"0x50",
		"8o",
		"80.0",
		"1e3",
		"99999999999999999999",
		"-",
		"80- 90",
		"80 - 90",
		"65536-65537",
		"4294967376",
		"18446744073709551696",
	};

	for (size_t i = 0; i < UNIT_SIZE(bad); i++) {
		__u16 lo = 11, hi = 22;

		cr_expect_eq(ism_parse_ports(bad[i], &lo, &hi), -EINVAL, "\"%s\"", bad[i]);
		cr_expect(lo == 11 && hi == 22, "\"%s\" touched the result", bad[i]);
	}
}

/* A port is a number: 1k is a size. */
Test(policy, ports_have_no_units)
{
	__u16 lo, hi;

	cr_expect_eq(ism_parse_ports("1k", &lo, &hi), -EINVAL);
	cr_expect_eq(ism_parse_ports("1k-2K", &lo, &hi), -EINVAL);
}

/* ---------------------------------------------------------------- addresses */

Test(policy, cidr_good)
{
	static const struct {
		const char *text, *addr;
		int prefix;
	} good[] = {
		{ "10.0.0.0/8", "::ffff:10.0.0.0", 104 },
		{ "127.0.0.1", "::ffff:127.0.0.1", 128 },
		{ "0.0.0.0/0", "::ffff:0.0.0.0", 96 },
		{ "192.168.1.2/32", "::ffff:192.168.1.2", 128 },
		{ "10.1.2.3/8", "::ffff:10.1.2.3", 104 },
		{ "::1", "::1", 128 },
		{ "::/0", "::", 0 },
		{ "fd00::/8", "fd00::", 8 },
		{ "2001:db8::1/64", "2001:db8::1", 64 },
		{ "::ffff:10.0.0.1", "::ffff:10.0.0.1", 128 },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128",
		  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128 },
	};

	for (size_t i = 0; i < UNIT_SIZE(good); i++) {
		__u8 addr[16], want[16], prefix = 200;

		cr_assert_eq(inet_pton(AF_INET6, good[i].addr, want), 1);
		cr_expect_eq(ism_parse_cidr(good[i].text, addr, &prefix), 0, "\"%s\"",
			     good[i].text);
		cr_expect_arr_eq(addr, want, 16, "\"%s\"", good[i].text);
		cr_expect_eq(prefix, good[i].prefix, "\"%s\"", good[i].text);
	}
}

Test(policy, cidr_bad)
{
	static const char *const bad[] = {
		"",
		"/8",
		"10.0.0.0/",
		"10.0.0.0/33",
		"10.0.0.0/-1",
		"10.0.0.0/ 8",
		"10.0.0.0/8/8",
		"10.0.0.0 /8",
		"10.0.0/8",
		"10.0.0.256",
		"010.0.0.1.2",
		"::/129",
		"::1::2",
		":1",
		"localhost",
		"fe80::1%lo",
		"10.0.0.0/255.0.0.0",
		"10.0.0.0/8x",
		"2001:0db8:0000:0000:0000:0000:0000:0001:0002/64",
		"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/1280000000000000000",
	};

	for (size_t i = 0; i < UNIT_SIZE(bad); i++) {
		__u8 addr[16], before[16], prefix = 200;

		memset(addr, 0x5a, 16);
		memset(before, 0x5a, 16);
		cr_expect_eq(ism_parse_cidr(bad[i], addr, &prefix), -EINVAL, "\"%s\"", bad[i]);
		cr_expect(prefix == 200 && !memcmp(addr, before, 16), "\"%s\" touched the result",
			  bad[i]);
	}
}

Test(policy, format_addr)
{
	static const char *const same[] = { "1.2.3.4", "0.0.0.0", "::1", "::", "2001:db8::5" };
	char buf[INET6_ADDRSTRLEN];
	__u8 addr[16], prefix;

	for (size_t i = 0; i < UNIT_SIZE(same); i++) {
		cr_assert_eq(ism_parse_cidr(same[i], addr, &prefix), 0);
		ism_format_addr(addr, buf, sizeof(buf));
		cr_expect_str_eq(buf, same[i]);
	}
	ism_parse_cidr("::ffff:9.8.7.6", addr, &prefix);
	ism_format_addr(addr, buf, sizeof(buf));
	cr_expect_str_eq(buf, "9.8.7.6");
	ism_format_addr(addr, buf, 4);
	cr_expect_str_eq(buf, "?", "no room");
}

/* ---------------------------------------------------------------- defaults */

Test(policy, defaults)
{
	ism_policy_init(&policy);
	cr_expect_eq(policy.n_cgroups, 0);
	cr_expect_eq(policy.n_rules, 0);
	cr_expect_eq(policy.n_ports + policy.n_comms + policy.n_peers, 0);
	cr_expect_eq(policy.plane, ISM_PLANE_SKMSG);
	cr_expect_eq(policy.default_set, 0);
	cr_expect_eq(policy.max_conns, 65536);
	cr_expect_eq(policy.ctl.word, ISM_WORD_OFF, "nothing is on before load says so");
	cr_expect_eq(policy.ctl.format, ISM_MAPS_FORMAT);
	cr_expect_eq(policy.ctl.loaded_ns, 0);
	cr_expect_eq(policy.ctl.neg_ttl_ns, 10000000000ULL);
	cr_expect_gt(policy.ctl.budget_bytes, 0);
	cr_expect_gt(policy.ctl.budget_msgs, 0);
	cr_expect_gt(policy.ctl.stream_run, 0);
}

/* ---------------------------------------------------------------- settings */

static unsigned long long value_of(const char *key)
{
	const struct {
		const char *key;
		const __u32 *at;
	} where[] = {
		{ "max-conns", &policy.max_conns },
		{ "budget-bytes", &policy.ctl.budget_bytes },
		{ "budget-msgs", &policy.ctl.budget_msgs },
		{ "stream-run", &policy.ctl.stream_run },
		{ "stream-size", &policy.ctl.stream_size },
		{ "leave-run", &policy.ctl.leave_run },
		{ "mix-bytes", &policy.ctl.mix_bytes },
		{ "spin", &policy.ctl.spin },
	};

	for (size_t i = 0; i < UNIT_SIZE(where); i++)
		if (!strcmp(where[i].key, key))
			return *where[i].at;
	cr_assert_str_eq(key, "negative-ttl");
	return policy.ctl.neg_ttl_ns / 1000000000;
}

static const struct {
	const char *key;
	unsigned long long min, max;
} numbers[] = {
	{ "max-conns", 2, 1 << 24 },   { "budget-bytes", 4096, 16 << 20 },
	{ "budget-msgs", 1, 16384 },   { "stream-run", 1, 0xffffffff },
	{ "stream-size", 0, 1 << 20 }, { "leave-run", 1, 0xffffffff },
	{ "mix-bytes", 0, 1 << 30 },   { "spin", 0, 1000 },
	{ "negative-ttl", 0, 86400 },
};

/* What is there without being asked for must be what could be asked for. */
Test(policy, defaults_are_in_bounds)
{
	char text[32];

	for (size_t i = 0; i < UNIT_SIZE(numbers); i++) {
		snprintf(text, sizeof(text), "%llu", value_of(numbers[i].key));
		must_set(numbers[i].key, text);
	}
}

Test(policy, numbers_at_their_bounds)
{
	char text[32];

	for (size_t i = 0; i < UNIT_SIZE(numbers); i++) {
		unsigned long long bound[2] = { numbers[i].min, numbers[i].max };

		for (int j = 0; j < 2; j++) {
			snprintf(text, sizeof(text), "%llu", bound[j]);
			must_set(numbers[i].key, text);
			cr_expect_eq(value_of(numbers[i].key), bound[j], "%s", numbers[i].key);
		}
		snprintf(text, sizeof(text), "%llu", numbers[i].max + 1);
		cr_expect_eq(set(numbers[i].key, text), -EINVAL, "%s %s", numbers[i].key, text);
		cr_expect_eq(value_of(numbers[i].key), numbers[i].max, "a bad value was stored");
		if (!numbers[i].min)
			continue;
		snprintf(text, sizeof(text), "%llu", numbers[i].min - 1);
		cr_expect_eq(set(numbers[i].key, text), -EINVAL, "%s %s", numbers[i].key, text);
	}
}

Test(policy, numbers_that_are_none)
{
	static const char *const bad[] = { "",	    "x",      "-1",
					   "+4096", " 4096",  "4096 ",
					   "4096x", "0x1000", "1e4",
					   "4.5",   "4kk",    "4k4",
					   "k",	    "4096b",  "99999999999999999999999" };

	for (size_t i = 0; i < UNIT_SIZE(numbers); i++)
		for (size_t j = 0; j < UNIT_SIZE(bad); j++) {
			unsigned long long before = value_of(numbers[i].key);

			cr_expect_eq(set(numbers[i].key, bad[j]), -EINVAL, "%s \"%s\"",
				     numbers[i].key, bad[j]);
			cr_expect_eq(value_of(numbers[i].key), before);
			cr_expect_not_null(strstr(err.text, numbers[i].key), "%s", err.text);
			cr_expect_not_null(strstr(err.text, "expected"), "%s", err.text);
			cr_expect_null(strstr(err.text, "something else"), "%s", err.text);
		}
}

Test(policy, numbers_with_units)
{
	must_set("budget-bytes", "64k");
	cr_expect_eq(policy.ctl.budget_bytes, 65536);
	must_set("budget-bytes", "64K");
	cr_expect_eq(policy.ctl.budget_bytes, 65536);
	must_set("budget-bytes", "16M");
	cr_expect_eq(policy.ctl.budget_bytes, 16 << 20);
	must_set("budget-bytes", "2m");
	cr_expect_eq(policy.ctl.budget_bytes, 2 << 20);
	cr_expect_eq(set("budget-bytes", "17M"), -EINVAL);
	cr_expect_eq(set("budget-bytes", "3k"), -EINVAL);
}

/* 2^44 M and 2^54 k are 2^64: not 0. */
Test(policy, numbers_do_not_wrap)
{
	__u32 before = policy.ctl.budget_bytes;

	cr_expect_eq(set("stream-size", "17592186044416m"), -EINVAL);
	cr_expect_eq(set("stream-size", "18014398509481984k"), -EINVAL);
	cr_expect_eq(set("budget-bytes", "17592186044417M"), -EINVAL);
	cr_expect_eq(policy.ctl.budget_bytes, before, "%u", policy.ctl.budget_bytes);
	cr_expect_eq(set("spin", "18446744073709551616"), -EINVAL);
}

Test(policy, unknown_setting)
{
	static const char *const bad[] = { "",	    "ports", "Port",  "max_conns",
					   "port ", "word",  "config" };

	for (size_t i = 0; i < UNIT_SIZE(bad); i++) {
		cr_expect_eq(set(bad[i], "1"), -EINVAL, "\"%s\"", bad[i]);
		cr_expect_not_null(strstr(err.text, "unknown setting"), "%s", err.text);
	}
}

Test(policy, nobody_listens_to_the_error)
{
	cr_expect_eq(ism_policy_set(&policy, "port", "x", NULL), -EINVAL);
	cr_expect_eq(ism_policy_set(&policy, "nonsense", "x", NULL), -EINVAL);
}

Test(policy, comm_lengths)
{
	must_set("comm", "x");
	must_set("comm", "exactly15chars_");
	cr_expect_str_eq(policy.comms[1], "exactly15chars_");
	cr_expect_eq(set("comm", "this_is_16_chars"), -EINVAL);
	cr_expect_eq(set("comm", ""), -EINVAL);
	cr_expect_eq(policy.n_comms, 2);
}

/* The rest of the field is zero: BPF compares all 16 bytes. */
Test(policy, comm_is_padded_with_zeroes)
{
	static const char zero[16];

	memset(policy.comms, 0x5a, sizeof(policy.comms));
	must_set("comm", "redis");
	cr_expect_arr_eq(policy.comms[0] + 5, zero, 11);
}

Test(policy, planes)
{
	must_set("plane", "tcp");
	cr_expect_eq(policy.plane, ISM_PLANE_TCP);
	must_set("plane", "direct");
	cr_expect_eq(policy.plane, ISM_PLANE_DIRECT);
	must_set("plane", "skmsg");
	cr_expect_eq(policy.plane, ISM_PLANE_SKMSG);
	for (const char *const *p = (const char *const[]){ "relay", "smc", "TCP", "Direct",
							   "skmsg-only", "", "x", NULL };
	     *p; p++) {
		cr_expect_eq(set("plane", *p), -EINVAL, "%s", *p);
		cr_expect_eq(set("default", *p), -EINVAL, "%s", *p);
	}
	cr_expect_eq(policy.plane, ISM_PLANE_SKMSG);
	cr_expect_eq(policy.default_set, 0);
}

Test(policy, readers)
{
	static const char *const names[] = { "safe", "any", "poll" };

	cr_expect_eq(policy.ctl.readers, ISM_READERS_SAFE, "the default");
	for (__u32 i = 0; i < UNIT_SIZE(names); i++) {
		must_set("readers", names[i]);
		cr_expect_eq(policy.ctl.readers, i);
		cr_expect_str_eq(ism_readers_name(i), names[i]);
	}
	cr_expect_eq(set("readers", "all"), -EINVAL);
	cr_expect_not_null(strstr(err.text, "safe, any or poll"), "%s", err.text);
	cr_expect_eq(set("readers", ""), -EINVAL);
	cr_expect_str_eq(ism_readers_name(UNIT_SIZE(names)), "unknown");
	cr_expect_str_eq(ism_readers_name(~0u), "unknown");
}

Test(policy, lists_have_an_end)
{
	static const struct {
		const char *key, *value;
	} list[] = { { "port", "80" }, { "comm", "x" }, { "peer", "10.0.0.0/8" } };

	for (size_t i = 0; i < UNIT_SIZE(list); i++) {
		for (int n = 0; n < ISM_MAX_SELECT; n++)
			must_set(list[i].key, list[i].value);
		cr_expect_eq(set(list[i].key, list[i].value), -E2BIG);
		cr_expect_not_null(strstr(err.text, "at most 32"), "%s", err.text);
		cr_expect_not_null(strstr(err.text, list[i].key), "%s", err.text);
	}
	cr_expect_eq(policy.n_ports, ISM_MAX_SELECT);
	cr_expect_eq(policy.n_comms, ISM_MAX_SELECT);
	cr_expect_eq(policy.n_peers, ISM_MAX_SELECT);
}

/* ---------------------------------------------------------------- cgroups */

static void need_hierarchy(char *mnt, size_t len)
{
	if (ism_cgroup_mount(mnt, len))
		cr_skip_test("no cgroup v2 hierarchy is mounted");
}

Test(policy, cgroup_once)
{
	char mnt[512];

	need_hierarchy(mnt, sizeof(mnt));
	policy.n_cgroups = 0;
	must_set("cgroup", mnt);
	must_set("cgroup", mnt);
	cr_expect_eq(policy.n_cgroups, 1);
	cr_expect_str_eq(policy.cgroups[0].path, mnt);
}

Test(policy, cgroup_missing)
{
	char mnt[512];

	need_hierarchy(mnt, sizeof(mnt));
	cr_expect_lt(set("cgroup", "/no/such/cgroup"), 0);
	cr_expect_not_null(strstr(err.text, "/no/such/cgroup"), "%s", err.text);
	cr_expect_null(strstr(err.text, "unknown setting"), "%s", err.text);
	cr_expect_eq(policy.n_cgroups, 1);
}

Test(policy, cgroup_that_is_none)
{
	char mnt[512];

	need_hierarchy(mnt, sizeof(mnt));
	cr_expect_eq(set("cgroup", "/proc"), -EINVAL);
	cr_expect_not_null(strstr(err.text, "is not a cgroup v2 directory"), "%s", err.text);
	cr_expect_eq(policy.n_cgroups, 1);
}

Test(policy, cgroups_have_an_end)
{
	char mnt[512];

	need_hierarchy(mnt, sizeof(mnt));
	policy.n_cgroups = ISM_MAX_CGROUPS;
	cr_expect_eq(set("cgroup", mnt), -E2BIG);
	cr_expect_not_null(strstr(err.text, "at most 16"), "%s", err.text);
}

Test(policy, without_a_cgroup_it_is_the_root)
{
	char mnt[512];

	need_hierarchy(mnt, sizeof(mnt));
	policy.n_cgroups = 0;
	finish();
	cr_assert_eq(policy.n_cgroups, 1);
	cr_expect_str_eq(policy.cgroups[0].path, mnt);
	cr_expect_eq(policy.cgroups[0].level, 0);
}

/* ---------------------------------------------------------------- selections to rules */

Test(policy, nothing_selected)
{
	finish();
	cr_expect_eq(policy.n_rules, 0);
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_SKMSG);
}

Test(policy, one_port)
{
	must_set("port", "6379");
	finish();
	cr_assert_eq(policy.n_rules, 1);
	cr_expect_str_eq(rule_text(0), "skmsg port 6379 peer local");
	cr_expect_eq(policy.rules[0].flags, ISM_RULE_PORT | ISM_RULE_LOCAL);
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_TCP);
}

Test(policy, one_comm)
{
	must_set("comm", "redis-server");
	finish();
	cr_assert_eq(policy.n_rules, 1);
	cr_expect_str_eq(rule_text(0), "skmsg comm redis-server peer local");
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_TCP);
}

/* --peer adds to the local default and does not narrow it. */
Test(policy, one_peer)
{
	must_set("peer", "10.0.0.0/8");
	finish();
	cr_assert_eq(policy.n_rules, 2);
	cr_expect_str_eq(rule_text(0), "skmsg peer local");
	cr_expect_str_eq(rule_text(1), "skmsg peer 10.0.0.0/8");
	cr_expect_eq(policy.rules[1].flags, ISM_RULE_CIDR);
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_TCP);
}

Test(policy, cross_product)
{
	static const char *const want[] = {
		"skmsg port 80 comm a peer local",
		"skmsg port 80 comm a peer 10.0.0.0/8",
		"skmsg port 80 comm a peer ::1/128",
		"skmsg port 80 comm b peer local",
		"skmsg port 80 comm b peer 10.0.0.0/8",
		"skmsg port 80 comm b peer ::1/128",
		"skmsg port 90-99 comm a peer local",
		"skmsg port 90-99 comm a peer 10.0.0.0/8",
		"skmsg port 90-99 comm a peer ::1/128",
		"skmsg port 90-99 comm b peer local",
		"skmsg port 90-99 comm b peer 10.0.0.0/8",
		"skmsg port 90-99 comm b peer ::1/128",
	};

	must_set("comm", "a");
	must_set("port", "80");
	must_set("peer", "10.0.0.0/8");
	must_set("comm", "b");
	must_set("port", "90-99");
	must_set("peer", "::1");
	finish();
	cr_assert_eq(policy.n_rules, UNIT_SIZE(want));
	for (unsigned int i = 0; i < UNIT_SIZE(want); i++)
		cr_expect_str_eq(rule_text(i), want[i]);
}

static void ports_times_comms(int ports, int comms)
{
	char text[16];

	for (int i = 0; i < ports; i++) {
		snprintf(text, sizeof(text), "%d", 8000 + i);
		must_set("port", text);
	}
	for (int i = 0; i < comms; i++) {
		snprintf(text, sizeof(text), "c%d", i);
		must_set("comm", text);
	}
}

Test(policy, product_that_just_fits)
{
	ports_times_comms(8, 8);
	finish();
	cr_expect_eq(policy.n_rules, ISM_MAX_RULES);
	cr_expect_str_eq(rule_text(63), "skmsg port 8007 comm c7 peer local");
}

Test(policy, product_that_does_not_fit)
{
	ports_times_comms(13, 5);
	cr_expect_eq(ism_policy_finish(&policy, &err), -E2BIG);
	cr_expect_not_null(strstr(err.text, "more than 64 rules"), "%s", err.text);
	cr_expect_leq(policy.n_rules, ISM_MAX_RULES);
}

Test(policy, rules_of_the_file_come_first)
{
	policy.n_rules = 1;
	policy.rules[0].plane = ISM_PLANE_TCP;
	policy.rules[0].flags = ISM_RULE_COMM;
	strcpy(policy.rules[0].comm, "envoy");
	must_set("port", "80");
	finish();
	cr_assert_eq(policy.n_rules, 2);
	cr_expect_str_eq(rule_text(0), "tcp comm envoy");
	cr_expect_str_eq(rule_text(1), "skmsg port 80 peer local");
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_TCP);
}

Test(policy, plane_tcp_alone_is_all_of_it)
{
	must_set("plane", "tcp");
	finish();
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_TCP);
	for (unsigned int i = 0; i < policy.n_rules; i++)
		cr_expect_eq(policy.rules[i].plane, ISM_PLANE_TCP);
}

Test(policy, plane_tcp_takes_a_selection_out)
{
	must_set("plane", "tcp");
	must_set("port", "22");
	finish();
	cr_assert_eq(policy.n_rules, 1);
	cr_expect_str_eq(rule_text(0), "tcp port 22 peer local");
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_SKMSG);
}

/* Rings or nothing: what can have none is TCP, as is what was not selected. */
Test(policy, plane_direct_alone_is_all_of_it)
{
	must_set("plane", "direct");
	finish();
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_TCP);
	cr_assert_eq(policy.n_rules, 1);
	cr_expect_str_eq(rule_text(0), "direct peer local");
	cr_expect(!ism_policy_redirects(&policy));
}

Test(policy, plane_direct_for_a_selection)
{
	must_set("plane", "direct");
	must_set("port", "80");
	finish();
	cr_assert_eq(policy.n_rules, 1);
	cr_expect_str_eq(rule_text(0), "direct port 80 peer local");
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_TCP);
}

Test(policy, what_may_be_redirected)
{
	finish();
	cr_expect(ism_policy_redirects(&policy), "everything");
	fresh();
	must_set("port", "80");
	finish();
	cr_expect(ism_policy_redirects(&policy), "a port");
	fresh();
	must_set("plane", "tcp");
	finish();
	cr_expect(!ism_policy_redirects(&policy), "nothing");
	fresh();
	must_set("plane", "direct");
	must_set("default", "skmsg");
	must_set("port", "80");
	finish();
	cr_expect(ism_policy_redirects(&policy), "all but a port");
	fresh();
	must_set("default", "direct");
	finish();
	cr_expect(!ism_policy_redirects(&policy), "rings only");
}

Test(policy, an_explicit_default_wins)
{
	static const char *const planes[] = { "tcp", "skmsg", "direct" };

	for (int plane = 0; plane < 3; plane++)
		for (int def = 0; def < 3; def++)
			for (int narrow = 0; narrow < 2; narrow++) {
				fresh();
				must_set("plane", planes[plane]);
				must_set("default", planes[def]);
				if (narrow)
					must_set("port", "80");
				finish();
				cr_expect_eq(policy.ctl.default_plane, (unsigned int)def,
					     "plane %s default %s narrowed %d", planes[plane],
					     planes[def], narrow);
			}
}

/* ---------------------------------------------------------------- is it a selection? */

static void expect_selective(int want, const char *why)
{
	cr_expect_eq(!!ism_policy_selective(&policy), want, "%s", why);
}

Test(policy, selective_by_cgroup)
{
	policy.ctl.default_plane = ISM_PLANE_SKMSG;
	policy.cgroups[0].level = 0;
	expect_selective(0, "the root and no rule");
	policy.n_cgroups = 0;
	expect_selective(0, "no cgroup is the root");
	policy.n_cgroups = 1;
	policy.cgroups[0].level = 2;
	expect_selective(1, "a cgroup below the root");
	policy.n_cgroups = 2;
	policy.cgroups[1].level = 0;
	expect_selective(0, "one of them is the root");
}

Test(policy, selective_by_rule)
{
	static const int by[] = { ISM_RULE_PORT, ISM_RULE_COMM, ISM_RULE_CGROUP };

	policy.ctl.default_plane = ISM_PLANE_TCP;
	policy.cgroups[0].level = 0;
	policy.n_rules = 1;
	policy.rules[0].plane = ISM_PLANE_SKMSG;
	policy.rules[0].flags = ISM_RULE_LOCAL | ISM_RULE_CIDR | ISM_RULE_IN;
	expect_selective(0, "peers and direction do not select");
	for (size_t i = 0; i < UNIT_SIZE(by); i++) {
		policy.rules[0].flags = by[i];
		expect_selective(1, "port, comm or cgroup");
	}
}

/* A rule that takes something off the plane does not select anything for it. */
Test(policy, a_tcp_rule_does_not_select)
{
	policy.cgroups[0].level = 0;
	must_set("plane", "tcp");
	must_set("port", "22");
	finish();
	cr_expect_eq(policy.ctl.default_plane, ISM_PLANE_SKMSG);
	expect_selective(0, "all of the root's programs but port 22");
}

/* Rings do without what the self-tests of the other plane find. */
Test(policy, direct_needs_no_selection)
{
	policy.cgroups[0].level = 0;
	must_set("default", "direct");
	finish();
	expect_selective(1, "nothing is redirected");
	policy.n_rules = 1;
	policy.rules[0].plane = ISM_PLANE_DIRECT;
	expect_selective(1, "nor by a rule");
}

/* Nor does a selection when everything else is on the plane as well. */
Test(policy, default_skmsg_does_not_select)
{
	policy.cgroups[0].level = 0;
	must_set("default", "skmsg");
	must_set("port", "80");
	finish();
	expect_selective(0, "all of the root's programs");
}

/* ---------------------------------------------------------------- rules as text */

Test(policy, format_rule)
{
	static const struct {
		struct ism_rule r;
		const char *text;
	} want[] = {
		{ { .plane = ISM_PLANE_TCP }, "tcp" },
		{ { .plane = ISM_PLANE_SKMSG, .flags = ISM_RULE_PORT, .port_lo = 1, .port_hi = 1 },
		  "skmsg port 1" },
		{ { .flags = ISM_RULE_PORT, .port_lo = 1, .port_hi = 65535 }, "tcp port 1-65535" },
		{ { .flags = ISM_RULE_COMM, .comm = "exactly15chars_" },
		  "tcp comm exactly15chars_" },
		{ { .flags = ISM_RULE_COMM, .comm = "all-16-unended!!" },
		  "tcp comm all-16-unended!" },
		{ { .flags = ISM_RULE_IN }, "tcp direction in" },
		{ { .flags = ISM_RULE_OUT }, "tcp direction out" },
		{ { .flags = ISM_RULE_LOCAL }, "tcp peer local" },
		{ { .plane = 200 }, "unknown" },
	};
	char buf[768];

	for (size_t i = 0; i < UNIT_SIZE(want); i++) {
		ism_rule_format(&want[i].r, buf, sizeof(buf));
		cr_expect_str_eq(buf, want[i].text);
	}
}

Test(policy, format_peer_reads_back)
{
	static const char *const peers[] = {
		"10.0.0.0/8", "0.0.0.0/0",     "127.0.0.1/32",	     "::/0",
		"::1/128",    "2001:db8::/32", "::ffff:10.0.0.0/90", "::ffff:0.0.0.0/95",
	};

	for (size_t i = 0; i < UNIT_SIZE(peers); i++) {
		struct ism_rule r = { .flags = ISM_RULE_CIDR };
		__u8 addr[16], prefix;
		char buf[768];

		cr_assert_eq(ism_parse_cidr(peers[i], r.addr, &r.prefix), 0);
		ism_rule_format(&r, buf, sizeof(buf));
		cr_assert_eq(strncmp(buf, "tcp peer ", 9), 0, "%s", buf);
		cr_expect_eq(ism_parse_cidr(buf + 9, addr, &prefix), 0, "%s shows as \"%s\"",
			     peers[i], buf);
		cr_expect_eq(prefix, r.prefix, "%s shows as \"%s\"", peers[i], buf);
		cr_expect_arr_eq(addr, r.addr, 16, "%s shows as \"%s\"", peers[i], buf);
	}
}

Test(policy, format_cgroup)
{
	struct ism_rule r = { .flags = ISM_RULE_CGROUP, .cgroup = ~0ULL };
	char mnt[512], buf[768], want[600];
	struct ism_cgroup cg;

	need_hierarchy(mnt, sizeof(mnt));
	ism_rule_format(&r, buf, sizeof(buf));
	cr_expect_str_eq(buf, "tcp cgroup id:18446744073709551615", "a cgroup that is gone");
	cr_assert_eq(ism_cgroup_find(NULL, &cg, NULL), 0);
	r.cgroup = cg.id;
	snprintf(want, sizeof(want), "tcp cgroup %s", mnt);
	ism_rule_format(&r, buf, sizeof(buf));
	cr_expect_str_eq(buf, want);
}

Test(policy, format_into_little_room)
{
	struct ism_rule r = {
		.flags = ISM_RULE_PORT | ISM_RULE_COMM | ISM_RULE_LOCAL | ISM_RULE_IN,
		.port_lo = 8000,
		.port_hi = 9000,
		.comm = "redis-server",
	};
	char all[256], buf[256];

	ism_rule_format(&r, all, sizeof(all));
	for (size_t room = 1; room <= strlen(all) + 1; room++) {
		memset(buf, 0x5a, sizeof(buf));
		ism_rule_format(&r, buf, room);
		cr_expect_eq(strlen(buf), room - 1, "room %zu: \"%s\"", room, buf);
		cr_expect_eq(strncmp(buf, all, room - 1), 0);
		cr_expect_eq(buf[room], 0x5a, "room %zu: overrun", room);
	}
}
