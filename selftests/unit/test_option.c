// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The TCP option: every field, every bad input, and the bytes that the documents promise. */
#include "unit.h"
#include <ismredir/option.h>

/* byte 6 is version:4 role:1 caps:3 */
static const __u8 sample[ISM_OPT_LEN] = { 254,	0x12, 0xc9, 0xe2, 0xd4, 0xd9, 0x1d, 0xab, 0xcd,
					  0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef };
static const struct ism_option sample_opt = {
	.role = ISM_ROLE_ANSWER,
	.caps = ISM_CAP_DIRECT | ISM_CAP_ZERO,
	.fabric = 0xabcdef,
	.token = 0x0123456789abcdefULL,
};

static int same(const struct ism_option *a, const struct ism_option *b)
{
	return a->role == b->role && a->caps == b->caps && a->fabric == b->fabric &&
	       a->token == b->token;
}

Test(option, constants)
{
	cr_expect_eq(ISM_OPT_KIND, 254);
	cr_expect_eq(ISM_OPT_LEN, 18);
	cr_expect_eq(ISM_OPT_ROOM, 20);
	cr_expect_eq(ISM_OPT_VERSION, 1);
	cr_expect_eq(ISM_OPT_EXID, 0xc9e2d4d9u);
	cr_expect_eq(ISM_SMC_OPT_EXID, 0xe2d4c3d9u);
	cr_expect_eq(ISM_ROLE_OFFER, 0);
	cr_expect_eq(ISM_ROLE_ANSWER, 1);
	cr_expect_eq(ISM_CAP_DIRECT, 1);
	cr_expect_eq(ISM_CAP_RELAY, 2);
	cr_expect_eq(ISM_CAP_ZERO, 4);
}

Test(option, encode_exact_bytes)
{
	__u8 buf[ISM_OPT_LEN];

	ism_option_encode(buf, &sample_opt);
	cr_expect_arr_eq(buf, sample, sizeof(buf));
}

Test(option, decode_exact_bytes)
{
	struct ism_option opt;

	cr_assert_eq(ism_option_decode(sample, &opt), ISM_OPT_OK);
	cr_expect_eq(opt.role, ISM_ROLE_ANSWER);
	cr_expect_eq(opt.caps, 5);
	cr_expect_eq(opt.fabric, 0xabcdefu);
	cr_expect_eq(opt.token, 0x0123456789abcdefULL);
}

Test(option, smallest_offer)
{
	static const __u8 want[ISM_OPT_LEN] = { 254, 18, 0xc9, 0xe2, 0xd4, 0xd9, 0x10, [17] = 1 };
	struct ism_option opt = { .token = 1 };
	__u8 buf[ISM_OPT_LEN];

	ism_option_encode(buf, &opt);
	cr_expect_arr_eq(buf, want, sizeof(buf));
}

Test(option, encode_stays_in_its_bytes)
{
	__u8 buf[ISM_OPT_LEN + 16];

	memset(buf, 0x5a, sizeof(buf));
	ism_option_encode(buf + 8, &sample_opt);
	for (int i = 0; i < 8; i++) {
		cr_expect_eq(buf[i], 0x5a);
		cr_expect_eq(buf[8 + ISM_OPT_LEN + i], 0x5a);
	}
}

Test(option, round_trip_all_roles_and_caps)
{
	static const __u32 fabrics[] = { 0, 1, 0x80, 0x100, 0x8000, 0x10000, 0x800000, 0xffffff };
	__u8 buf[ISM_OPT_LEN];

	for (__u8 role = 0; role < 2; role++)
		for (__u8 caps = 0; caps < 8; caps++)
			for (size_t f = 0; f < UNIT_SIZE(fabrics); f++) {
				struct ism_option in = { role, caps, fabrics[f], ~0ULL }, out = {};

				ism_option_encode(buf, &in);
				cr_assert_eq(ism_option_decode(buf, &out), ISM_OPT_OK);
				cr_assert(same(&in, &out), "role %u caps %u fabric %x", role, caps,
					  fabrics[f]);
			}
}

Test(option, round_trip_each_token_bit)
{
	__u8 buf[ISM_OPT_LEN];

	for (int bit = 0; bit < 64; bit++) {
		struct ism_option in = { .token = 1ULL << bit }, out = {};

		ism_option_encode(buf, &in);
		cr_assert_eq(ism_option_decode(buf, &out), ISM_OPT_OK);
		cr_assert(same(&in, &out), "bit %d", bit);
	}
}

Test(option, round_trip_random)
{
	uint64_t seed = 42;

	for (int i = 0; i < 100000; i++) {
		uint64_t r = unit_random(&seed);
		struct ism_option in = { r & 1, r >> 1 & 7, r >> 8 & 0xffffff, unit_random(&seed) };
		struct ism_option out = {};
		__u8 buf[ISM_OPT_LEN];

		if (!in.token)
			continue;
		ism_option_encode(buf, &in);
		cr_assert_eq(ism_option_decode(buf, &out), ISM_OPT_OK);
		cr_assert(same(&in, &out));
	}
}

Test(option, wide_fields_are_cut)
{
	struct ism_option in = { .role = 0xfe, .caps = 0xfa, .fabric = 0xff123456, .token = 7 };
	struct ism_option out = {}, want = { .caps = 2, .fabric = 0x123456, .token = 7 };
	__u8 buf[ISM_OPT_LEN];

	ism_option_encode(buf, &in);
	cr_assert_eq(ism_option_decode(buf, &out), ISM_OPT_OK);
	cr_expect(same(&out, &want));
}

/* Every value of byte @at but the good one gives @error and leaves the result alone. */
static void expect_bad_byte(int at, int error)
{
	for (int v = 0; v < 256; v++) {
		struct ism_option out = sample_opt;
		__u8 buf[ISM_OPT_LEN];

		memcpy(buf, sample, sizeof(buf));
		if (v == buf[at])
			continue;
		buf[at] = v;
		buf[ISM_OPT_LEN - 1] ^= 0xff; /* would show if the token were stored */
		cr_assert_eq(ism_option_decode(buf, &out), error, "byte %d = %d", at, v);
		cr_assert(same(&out, &sample_opt), "byte %d = %d: the result was touched", at, v);
	}
}

Test(option, bad_kind)
{
	expect_bad_byte(0, ISM_OPT_BAD_LENGTH);
}

Test(option, bad_length)
{
	expect_bad_byte(1, ISM_OPT_BAD_LENGTH);
}

Test(option, bad_exid)
{
	for (int at = 2; at < 6; at++)
		expect_bad_byte(at, ISM_OPT_BAD_LENGTH);
}

Test(option, exid_of_smc_is_not_ours)
{
	struct ism_option out;
	__u8 buf[ISM_OPT_LEN];

	memcpy(buf, sample, sizeof(buf));
	for (int i = 0; i < 4; i++)
		buf[2 + i] = ISM_SMC_OPT_EXID >> (24 - 8 * i);
	cr_expect_eq(ism_option_decode(buf, &out), ISM_OPT_BAD_LENGTH);
}

Test(option, bad_version)
{
	for (int version = 0; version < 16; version++) {
		struct ism_option out = sample_opt;
		__u8 buf[ISM_OPT_LEN];

		memcpy(buf, sample, sizeof(buf));
		buf[6] = version << 4 | (buf[6] & 0x0f);
		cr_assert_eq(ism_option_decode(buf, &out),
			     version == ISM_OPT_VERSION ? ISM_OPT_OK : ISM_OPT_BAD_VERSION,
			     "version %d", version);
		cr_assert(same(&out, &sample_opt));
	}
}

Test(option, bad_token)
{
	struct ism_option out = sample_opt;
	__u8 buf[ISM_OPT_LEN];

	memcpy(buf, sample, sizeof(buf));
	memset(buf + 10, 0, 8);
	cr_expect_eq(ism_option_decode(buf, &out), ISM_OPT_BAD_TOKEN);
	cr_expect(same(&out, &sample_opt));
}

Test(option, the_first_fault_is_told)
{
	struct ism_option out;
	__u8 buf[ISM_OPT_LEN] = {};

	cr_expect_eq(ism_option_decode(buf, &out), ISM_OPT_BAD_LENGTH);
	memcpy(buf, sample, 6);
	cr_expect_eq(ism_option_decode(buf, &out), ISM_OPT_BAD_VERSION);
	buf[6] = ISM_OPT_VERSION << 4;
	cr_expect_eq(ism_option_decode(buf, &out), ISM_OPT_BAD_TOKEN);
}
