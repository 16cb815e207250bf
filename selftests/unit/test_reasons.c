// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The table of reasons: unique codes, names and map slots; and finding them. */
#include "unit.h"
#include <ismredir/maps.h>
#include <ismredir/reasons.h>
#include "reasons.h"

static const struct {
	const char *symbol;
	unsigned int code;
} symbols[] = {
#define SYMBOL(sym, code, name, text, todo) { #sym, ISM_R_##sym },
	ISM_REASONS(SYMBOL)
#undef SYMBOL
};

static size_t table_len(void)
{
	size_t n = 0;

	while (ism_reason_table()[n].name)
		n++;
	return n;
}

Test(reasons, table_has_every_symbol)
{
	const struct ism_reason_info *t = ism_reason_table();

	cr_assert_eq(table_len(), UNIT_SIZE(symbols));
	for (size_t i = 0; i < UNIT_SIZE(symbols); i++)
		cr_expect_eq(t[i].code, symbols[i].code, "%s", symbols[i].symbol);
}

Test(reasons, names_are_the_symbols_in_lower_case)
{
	const struct ism_reason_info *t = ism_reason_table();

	for (size_t i = 0; i < UNIT_SIZE(symbols); i++) {
		cr_expect(!strcasecmp(t[i].name, symbols[i].symbol), "%s", t[i].name);
		cr_expect_eq(t[i].name[strspn(t[i].name, "abcdefghijklmnopqrstuvwxyz_0123456789")],
			     0, "%s", t[i].name);
	}
}

Test(reasons, codes_names_and_slots_are_unique)
{
	const struct ism_reason_info *t = ism_reason_table();

	for (size_t i = 0; i < table_len(); i++)
		for (size_t j = 0; j < i; j++) {
			cr_expect_neq(t[i].code, t[j].code, "%s %s", t[i].name, t[j].name);
			cr_expect_str_neq(t[i].name, t[j].name);
			cr_expect_neq(ISM_REASON_SLOT(t[i].code), ISM_REASON_SLOT(t[j].code),
				      "%s %s share a slot", t[i].name, t[j].name);
		}
}

Test(reasons, codes_fit_their_slots)
{
	const struct ism_reason_info *t = ism_reason_table();

	for (size_t i = 0; i < table_len(); i++) {
		unsigned int code = t[i].code;

		cr_expect_lt(ISM_REASON_SLOT(code), ISM_REASON_SLOTS, "%s", t[i].name);
		cr_expect_eq((ISM_REASON_SLOT(code) >> 5 << 8 | (ISM_REASON_SLOT(code) & 31)), code,
			     "%s: the slot drops bits of the code", t[i].name);
		if (code)
			cr_expect(code >> 8 >= 1 && code >> 8 <= 5, "%s: group", t[i].name);
	}
	cr_expect_eq(ISM_REASON_SLOT(ISM_R_NONE), 0);
}

Test(reasons, texts)
{
	const struct ism_reason_info *t = ism_reason_table();

	for (size_t i = 0; i < table_len(); i++) {
		cr_expect(t[i].text && *t[i].text, "%s", t[i].name);
		cr_expect(t[i].todo && *t[i].todo, "%s", t[i].name);
		cr_expect_null(strpbrk(t[i].text, "\n\t"), "%s", t[i].name);
		cr_expect_null(strpbrk(t[i].todo, "\n\t"), "%s", t[i].name);
	}
}

/* Codes are part of the map format and of the JSON: these must never change. */
Test(reasons, numbers_that_are_out_in_the_world)
{
	cr_expect_eq(ISM_R_NONE, 0);
	cr_expect_eq(ISM_R_PENDING, 0x0101);
	cr_expect_eq(ISM_R_NO_ANSWER, 0x0102);
	cr_expect_eq(ISM_R_BAD_OPTION, 0x0105);
	cr_expect_eq(ISM_R_DIRECT_WAIT, 0x010f);
	cr_expect_eq(ISM_R_NOT_DIRECT, 0x0110);
	cr_expect_eq(ISM_R_UNREAD_TCP, 0x0201);
	cr_expect_eq(ISM_R_BUDGET, 0x0202);
	cr_expect_eq(ISM_R_URGENT, 0x0301);
	cr_expect_eq(ISM_R_MAP_FULL, 0x0401);
	cr_expect_eq(ISM_R_NO_STORAGE, 0x0404);
	cr_expect_eq(ISM_R_NO_DAEMON, 0x0405);
	cr_expect_eq(ISM_R_HOSTILE, 0x0407);
	cr_expect_eq(ISM_R_DRAIN, 0x0501);
	cr_expect_eq(ISM_R_OFF, 0x0502);
}

Test(reasons, find_by_code)
{
	for (size_t i = 0; i < UNIT_SIZE(symbols); i++) {
		const struct ism_reason_info *r = ism_reason_find(symbols[i].code);

		cr_assert_not_null(r, "%s", symbols[i].symbol);
		cr_expect_eq(r->code, symbols[i].code);
		cr_expect_str_eq(ism_reason_name(symbols[i].code), r->name);
	}
	cr_expect_null(ism_reason_find(0x0100));
	cr_expect_null(ism_reason_find(0xffff));
	cr_expect_null(ism_reason_find(~0u));
	cr_expect_str_eq(ism_reason_name(0xffff), "unknown");
}

Test(reasons, parse_name_decimal_and_hex)
{
	char buf[32];

	for (size_t i = 0; i < UNIT_SIZE(symbols); i++) {
		const struct ism_reason_info *r = ism_reason_find(symbols[i].code);

		cr_expect_eq(ism_reason_parse(r->name), r);
		snprintf(buf, sizeof(buf), "%u", r->code);
		cr_expect_eq(ism_reason_parse(buf), r, "%s", buf);
		snprintf(buf, sizeof(buf), "0x%x", r->code);
		cr_expect_eq(ism_reason_parse(buf), r, "%s", buf);
		snprintf(buf, sizeof(buf), "%#06x", r->code); /* as explain shows it */
		cr_expect_eq(ism_reason_parse(buf), r, "%s", buf);
	}
}

Test(reasons, parse_refuses)
{
	static const char *const bad[] = {
		"",
		"nonsense",
		"budget ",
		"budge",
		"0x",
		"0x10201",
		"513x",
		"5 13",
		"66049",
		"-1",
		"0x0100",
		"1e3",
		"99999999999999999999",
		"all",
	};

	for (size_t i = 0; i < UNIT_SIZE(bad); i++)
		cr_expect_null(ism_reason_parse(bad[i]), "\"%s\"", bad[i]);
}

Test(reasons, planes)
{
	static const char *const names[] = { "tcp", "skmsg", "direct", "relay", "smc" };

	for (unsigned int i = 0; i < UNIT_SIZE(names); i++) {
		cr_expect_str_eq(ism_plane_name(i), names[i]);
		cr_expect_eq(ism_plane_parse(names[i]), (int)i);
	}
	cr_expect_eq(ISM_PLANE_TCP, 0);
	cr_expect_eq(ISM_PLANE_SKMSG, 1);
	cr_expect_str_eq(ism_plane_name(UNIT_SIZE(names)), "unknown");
	cr_expect_str_eq(ism_plane_name(~0u), "unknown");
	cr_expect_eq(ism_plane_parse(""), -EINVAL);
	cr_expect_eq(ism_plane_parse("TCP"), -EINVAL);
	cr_expect_eq(ism_plane_parse("skmsg "), -EINVAL);
	cr_expect_eq(ism_plane_parse("unknown"), -EINVAL);
}

Test(reasons, words)
{
	cr_expect_str_eq(ism_word_name(ISM_WORD_OFF), "off");
	cr_expect_str_eq(ism_word_name(ISM_WORD_ON), "on");
	cr_expect_str_eq(ism_word_name(ISM_WORD_DRAIN), "drain");
	cr_expect_str_eq(ism_word_name(3), "unknown");
	cr_expect_str_eq(ism_word_name(~0u), "unknown");
}
