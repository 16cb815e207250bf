// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Fuzzes what reads single values: ports, addresses, numbers, reasons. The first byte picks which. What
 * is taken must read back from how it is shown, and a number must be what a slow reader makes of it.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ismredir/reasons.h>
#include "policy.h"
#include "reasons.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int good)
{
	if (!good)
		abort();
}

static void ports(const char *text)
{
	__u16 lo, hi, lo2, hi2;
	char again[32];

	if (ism_parse_ports(text, &lo, &hi))
		return;
	check(lo >= 1 && lo <= hi);
	snprintf(again, sizeof(again), "%u-%u", lo, hi);
	check(!ism_parse_ports(again, &lo2, &hi2) && lo == lo2 && hi == hi2);
}

static void cidr(const char *text)
{
	struct ism_rule r = { .flags = ISM_RULE_CIDR };
	__u8 addr[16], prefix = 0;
	char buf[128];

	if (ism_parse_cidr(text, r.addr, &r.prefix))
		return;
	check(r.prefix <= 128);
	ism_rule_format(&r, buf, sizeof(buf));
	check(!strncmp(buf, "tcp peer ", 9) && !ism_parse_cidr(buf + 9, addr, &prefix));
	check(prefix == r.prefix && !memcmp(addr, r.addr, 16));
}

/* Digits and at most one of k, K, m, M; saturating. Returns 0 when it is a number. */
static int slow_number(const char *text, unsigned long long *ret)
{
	unsigned __int128 v = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++)
		if (v < (unsigned __int128)1 << 100)
			v = v * 10 + (*p - '0');
	if (p == text)
		return -1;
	if (*p == 'k' || *p == 'K' || *p == 'm' || *p == 'M')
		v <<= *p++ & 2 ? 10 : 20; /* k is ....1011, m is ....1101 */
	*ret = v > ~0ULL ? ~0ULL : (unsigned long long)v;
	return *p ? -1 : 0;
}

static void number(const char *text)
{
	static struct ism_policy p;
	const struct {
		const char *key;
		unsigned long long min, max;
		__u32 *to;
	} num[] = {
		{ "max-conns", 2, 1 << 24, &p.max_conns },
		{ "budget-bytes", 4096, 16 << 20, &p.ctl.budget_bytes },
		{ "stream-run", 1, 0xffffffff, &p.ctl.stream_run },
		{ "stream-size", 0, 1 << 20, &p.ctl.stream_size },
		{ "spin", 0, 1000, &p.ctl.spin },
	};
	unsigned long long want;

	for (size_t i = 0; i < sizeof(num) / sizeof(num[0]); i++) {
		struct ism_err err = {};
		int rc, is_good;

		ism_policy_init(&p);
		rc = ism_policy_set(&p, num[i].key, text, &err);
		is_good = !slow_number(text, &want) && want >= num[i].min && want <= num[i].max;
		if (rc && strlen(text) > 20)
			continue; /* so many zeroes need not be read */
		check((rc == 0) == is_good);
		check(rc ? err.text[0] != 0 : *num[i].to == want);
	}
}

static void reason(const char *text)
{
	const struct ism_reason_info *r = ism_reason_parse(text);
	char buf[16];

	if (!r)
		return;
	snprintf(buf, sizeof(buf), "%u", r->code);
	check(ism_reason_parse(buf) == r && ism_reason_parse(r->name) == r);
}

static void any_setting(const char *text)
{
	static struct ism_policy p;
	struct ism_err err = {};
	char key[32] = "";
	const char *value = strchr(text, '=');

	if (!value || (size_t)(value - text) >= sizeof(key))
		return;
	memcpy(key, text, value - text);
	ism_policy_init(&p);
	check((ism_policy_set(&p, key, value + 1, &err) == 0) == (err.text[0] == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const what[])(const char *) = { ports, cidr, number, reason, any_setting };
	char *text;

	if (!size)
		return 0;
	text = strndup((const char *)data + 1, size - 1);
	if (!text)
		return 0;
	what[data[0] % (sizeof(what) / sizeof(what[0]))](text);
	free(text);
	return 0;
}
