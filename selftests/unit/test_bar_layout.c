// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Where a device has its memory and doorbells: presets, options that change them, and options that are wrong. */
#include "unit.h"
#include "bar_layout.h"
#include "err.h"

static struct ism_bar_layout parsed(const char *options)
{
	struct ism_bar_layout l;
	struct ism_err err = {};

	memset(&l, 0xaa, sizeof(l));
	cr_assert_eq(ism_bar_layout_parse(options, &l, &err), 0, "%s: %s", options, err.text);
	cr_expect_str_empty(err.text);
	return l;
}

static void expect_refused(const char *options, const char *name)
{
	struct ism_bar_layout l;
	struct ism_err err = {};

	cr_expect_eq(ism_bar_layout_parse(options, &l, &err), -EINVAL, "%s", options);
	cr_expect(strstr(err.text, name), "%s: \"%s\" does not name it", options, err.text);
	cr_expect_eq(ism_bar_layout_parse(options, &l, NULL), -EINVAL);
}

/* ---------------------------------------------------------------- presets */

/* The registers of QEMU's device, docs/specs/ivshmem-spec of QEMU: IVPosition 8, Doorbell 12. */
Test(bar_layout, qemu_is_the_first)
{
	static const char *const same[] = { "", "preset=ivshmem", "irq=none,name=x,poll=1" };

	for (size_t i = 0; i < UNIT_SIZE(same); i++) {
		struct ism_bar_layout l = parsed(same[i]);

		cr_expect_str_eq(l.name, "ivshmem");
		cr_expect(l.mem_bar == 2 && !l.mem_off && !l.mem_len);
		cr_expect(l.id_bar == 0 && l.id_off == 8);
		cr_expect_eq(l.bell_bar, 0);
		for (unsigned int peer = 0; peer < 65536; peer += 4369) {
			cr_expect_eq(ism_bar_bell_offset(&l, peer), 12);
			cr_expect_eq(ism_bar_bell_value(&l, peer), peer << 16);
		}
	}
}

Test(bar_layout, a_register_for_each_peer)
{
	struct ism_bar_layout soc = parsed("preset=soc"), vntb = parsed("preset=vntb");

	cr_expect(soc.mem_bar == 2 && soc.bell_bar == 0 && soc.id_bar == ISM_BAR_NONE);
	cr_expect(vntb.mem_bar == 4 && vntb.bell_bar == 2 && vntb.id_bar == ISM_BAR_NONE);
	cr_expect_eq(ism_bar_bell_offset(&soc, 0), 0);
	cr_expect_eq(ism_bar_bell_offset(&soc, 63), 63 * 4);
	for (unsigned int peer = 0; peer < 64; peer++) {
		cr_expect_eq(ism_bar_bell_value(&soc, peer), 1);
		cr_expect_eq(ism_bar_bell_value(&vntb, peer), 1);
		cr_expect_geq(ism_bar_bell_offset(&vntb, peer), 4, "the link's");
	}
}

Test(bar_layout, memory_and_nothing_else)
{
	struct ism_bar_layout l = parsed("preset=memory");

	cr_expect(l.mem_bar == 2 && l.bell_bar == ISM_BAR_NONE && l.id_bar == ISM_BAR_NONE);
}

Test(bar_layout, no_such_preset)
{
	static const char *const wrong[] = {
		"preset",
		"preset=",
		"preset=x",
		"preset=ivshmem2",
		"preset=soc ",
		"preset=none",
		"preset=0123456789012345678901234567890123456789",
	};

	for (size_t i = 0; i < UNIT_SIZE(wrong); i++)
		expect_refused(wrong[i], "preset");
}

/* ---------------------------------------------------------------- options */

Test(bar_layout, options_change_a_preset)
{
	struct ism_bar_layout l = parsed("mem=1:0x10000:4096,preset=soc,doorbell=3:64:8,"
					 "bell-value=0x80000000,bell-shift=4,id=5:16,unit=4K");

	cr_expect_str_eq(l.name, "soc");
	cr_expect(l.mem_bar == 1 && l.mem_off == 0x10000 && l.mem_len == 4096);
	cr_expect(l.id_bar == 5 && l.id_off == 16);
	cr_expect_eq(l.bell_bar, 3);
	cr_expect_eq(ism_bar_bell_offset(&l, 7), 64 + 7 * 8);
	cr_expect_eq(ism_bar_bell_value(&l, 7), 0x80000070);
}

Test(bar_layout, none)
{
	struct ism_bar_layout l = parsed("doorbell=none,id=none");

	cr_expect(l.bell_bar == ISM_BAR_NONE && l.id_bar == ISM_BAR_NONE && l.mem_bar == 2);
	l = parsed("preset=memory,doorbell=0:4:4,id=0:0");
	cr_expect(l.bell_bar == 0 && l.id_bar == 0);
}

Test(bar_layout, a_length_may_be_missing)
{
	struct ism_bar_layout l = parsed("mem=0:4096");

	cr_expect(l.mem_bar == 0 && l.mem_off == 4096 && !l.mem_len);
}

Test(bar_layout, numbers_are_decimal_or_hexadecimal)
{
	cr_expect_eq(parsed("mem=0:0xABCdef").mem_off, 0xabcdef);
	cr_expect_eq(parsed("mem=0:010").mem_off, 10, "never octal");
	cr_expect_eq(parsed("mem=0:18446744073709551615").mem_off, ~0ULL);
	cr_expect_eq(parsed("mem=0:0:0xffffffffffffffff").mem_len, ~0ULL);
}

Test(bar_layout, the_largest)
{
	struct ism_bar_layout l = parsed("doorbell=5:0x7ffffffc:0xffffc,bell-value=0xffffffff,"
					 "bell-shift=26,id=5:0x7ffffffc");

	/* no offset of any peer wraps around, so what is refused is refused by the BAR's length */
	cr_expect_eq(ism_bar_bell_offset(&l, 65535), 0x7ffffffcULL + 65535ULL * 0xffffcULL);
	cr_expect_eq(ism_bar_bell_value(&l, 63), 0xffffffff);
	cr_expect_eq(l.id_off, 0x7ffffffc);
	l = parsed("bell-value=0,bell-shift=26");
	cr_expect_eq(ism_bar_bell_value(&l, 63), 63U << 26);
	l = parsed("bell-value=7,bell-shift=0");
	cr_expect_eq(ism_bar_bell_value(&l, 63), 7);
}

Test(bar_layout, malformed)
{
	static const struct {
		const char *name, *value[24];
	} wrong[] = {
		{ "mem",
		  { "",
		    "2",
		    "6:0",
		    "255:0",
		    "256:0",
		    "none",
		    "2:none",
		    "2:",
		    ":0",
		    "2:0:",
		    "2:0:0:0",
		    "2:-1",
		    "-2:0",
		    "+2:0",
		    " 2:0",
		    "2: 0",
		    "2:0x",
		    "2:0xg",
		    "2:4K",
		    "a:b",
		    "2:0x0x1",
		    "2:18446744073709551616",
		    "18446744073709551618:0" } },
		{ "doorbell",
		  { "", "0", "0:12", "255", "255:0:0", "6:0:0", "0:2:4", "0:4:2", "0:0x80000000:4",
		    "0:0:0x100000", "none:0:4", "0:none:4", "None", "0:0:4:0", "0:-4:4",
		    "0:0:18446744073709551616", "4294967296:0:4" } },
		{ "bell-value",
		  { "", "none", "0x100000000", "-1", "1:1", "x", "1 ", "18446744073709551616" } },
		{ "bell-shift", { "", "none", "27", "256", "-1", "0:0", "4294967296" } },
		{ "id",
		  { "", "0", "255", "255:0", "6:8", "0:2", "0:0x80000000", "0:8:0", "0:none",
		    "none:8", "0:18446744073709551616" } },
	};
	char options[128];

	for (size_t i = 0; i < UNIT_SIZE(wrong); i++)
		for (size_t v = 0; wrong[i].value[v]; v++) {
			snprintf(options, sizeof(options), "%s=%s", wrong[i].name,
				 wrong[i].value[v]);
			expect_refused(options, wrong[i].name);
		}
}

/* What is longer than any number is refused, and what is said of it is text. */
Test(bar_layout, too_long)
{
	static const char *const names[] = { "mem", "doorbell", "bell-value", "bell-shift", "id" };
	char options[512];

	for (size_t i = 0; i < UNIT_SIZE(names); i++) {
		int n = snprintf(options, sizeof(options), "%s=", names[i]);

		memset(options + n, '0', sizeof(options) - n);
		options[sizeof(options) - 1] = 0;
		expect_refused(options, names[i]);
	}
}
