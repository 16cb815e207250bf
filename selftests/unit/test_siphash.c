// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* SipHash-2-4 of the tokens, held against libsodium and against the vectors of its authors. */
#include "unit.h"
#include <endian.h>
#include <sodium.h>
#include <ismredir/siphash.h>

/* The same message and key through libsodium. */
static uint64_t reference(uint64_t k0, uint64_t k1, const uint64_t *word)
{
	uint64_t key[2] = { htole64(k0), htole64(k1) };
	uint64_t in[3] = { htole64(word[0]), htole64(word[1]), htole64(word[2]) };
	uint64_t out;

	_Static_assert(crypto_shorthash_siphash24_BYTES == sizeof(out), "64 bits");
	_Static_assert(crypto_shorthash_siphash24_KEYBYTES == sizeof(key), "128 bits");
	crypto_shorthash_siphash24((unsigned char *)&out, (unsigned char *)in, sizeof(in),
				   (unsigned char *)key);
	return le64toh(out);
}

static uint64_t ours(uint64_t k0, uint64_t k1, const uint64_t *word)
{
	return ism_siphash3(k0, k1, word[0], word[1], word[2]);
}

Test(siphash, the_yardstick_is_right)
{
	unsigned char key[16], in[15];
	uint64_t out;

	for (unsigned int i = 0; i < sizeof(key); i++)
		key[i] = i;
	for (unsigned int i = 0; i < sizeof(in); i++)
		in[i] = i;
	crypto_shorthash_siphash24((unsigned char *)&out, in, sizeof(in), key);
	cr_expect_eq(le64toh(out), 0xa129ca6149be45e5ULL); /* the paper, appendix A */
}

Test(siphash, published_vector_of_24_bytes)
{
	static const uint64_t word[3] = { 0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL,
					  0x1716151413121110ULL };

	cr_expect_eq(ours(word[0], word[1], word), 0xb8ad50c6f649af94ULL);
	cr_expect_eq(reference(word[0], word[1], word), 0xb8ad50c6f649af94ULL);
}

Test(siphash, corners)
{
	static const uint64_t value[] = { 0, 1, 1ULL << 31, 1ULL << 32, 1ULL << 63, ~0ULL };

	for (size_t i = 0; i < UNIT_SIZE(value); i++)
		for (size_t j = 0; j < UNIT_SIZE(value); j++) {
			uint64_t word[3] = { value[i], value[j], value[i] ^ value[j] };

			cr_assert_eq(ours(value[j], value[i], word),
				     reference(value[j], value[i], word));
		}
}

Test(siphash, each_bit_counts)
{
	uint64_t in[5] = {}, base = ours(0, 0, in + 2);

	for (int bit = 0; bit < 5 * 64; bit++) {
		in[bit / 64] = 1ULL << bit % 64;
		cr_assert_neq(ours(in[0], in[1], in + 2), base, "bit %d", bit);
		in[bit / 64] = 0;
	}
}

Test(siphash, random_against_libsodium)
{
	uint64_t seed = 7;

	for (int i = 0; i < 200000; i++) {
		uint64_t in[5];

		for (int j = 0; j < 5; j++)
			in[j] = unit_random(&seed);
		cr_assert_eq(ours(in[0], in[1], in + 2), reference(in[0], in[1], in + 2),
			     "round %d", i);
	}
}
