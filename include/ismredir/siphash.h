/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SipHash-2-4 over a few 64-bit words, for DMB tokens.
 *
 * In C that both the BPF verifier and a host compiler take, because no library reaches into BPF;
 * the unit tests hold it against libsodium's crypto_shorthash(). Aumasson and Bernstein, 2012.
 */
#ifndef ISMREDIR_SIPHASH_H
#define ISMREDIR_SIPHASH_H

#include <linux/types.h>

#define ISM_SIP_ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))

#define ISM_SIP_ROUND(v0, v1, v2, v3)                                                              \
	do {                                                                                       \
		(v0) += (v1);                                                                      \
		(v1) = ISM_SIP_ROTL(v1, 13) ^ (v0);                                                \
		(v0) = ISM_SIP_ROTL(v0, 32);                                                       \
		(v2) += (v3);                                                                      \
		(v3) = ISM_SIP_ROTL(v3, 16) ^ (v2);                                                \
		(v0) += (v3);                                                                      \
		(v3) = ISM_SIP_ROTL(v3, 21) ^ (v0);                                                \
		(v2) += (v1);                                                                      \
		(v1) = ISM_SIP_ROTL(v1, 17) ^ (v2);                                                \
		(v2) = ISM_SIP_ROTL(v2, 32);                                                       \
	} while (0)

/**
 * ism_siphash3() - SipHash-2-4 of three little-endian 64-bit words
 * @k0, @k1: the secret key
 * @a, @b, @c: the message, 24 bytes in all
 */
static inline __attribute__((always_inline)) __u64 ism_siphash3(__u64 k0, __u64 k1, __u64 a,
								__u64 b, __u64 c)
{
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL, v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL, v3 = k1 ^ 0x7465646279746573ULL;
	const __u64 word[4] = { a, b, c, 24ULL << 56 };

#pragma clang loop unroll(full)
	for (int i = 0; i < 4; i++) {
		v3 ^= word[i];
		ISM_SIP_ROUND(v0, v1, v2, v3);
		ISM_SIP_ROUND(v0, v1, v2, v3);
		v0 ^= word[i];
	}
	v2 ^= 0xff;
	ISM_SIP_ROUND(v0, v1, v2, v3);
	ISM_SIP_ROUND(v0, v1, v2, v3);
	ISM_SIP_ROUND(v0, v1, v2, v3);
	ISM_SIP_ROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif
