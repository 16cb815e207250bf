/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The TCP option that carries the offer (on SYN) and the answer (on SYN-ACK): layout and codec.
 *
 * Shared by the BPF programs, the library and the tests, so it uses nothing but fixed-width types.
 * Format: RFC 4727 experimental kind 254 with an RFC 6994 32-bit ExID; see docs/wire-format.rst.
 *
 *   byte 0      254
 *   byte 1      18
 *   bytes 2-5   ExID c9 e2 d4 d9
 *   byte 6      version:4 | role:1 | caps:3   (version in the high nibble)
 *   bytes 7-9   fabric tag, 0 = none
 *   bytes 10-17 DMB token, big endian
 */
#ifndef ISMREDIR_OPTION_H
#define ISMREDIR_OPTION_H

#include <linux/types.h>

#define ISM_OPT_KIND	254 /* TCPOPT_EXP */
#define ISM_OPT_LEN	18
#define ISM_OPT_ROOM	20 /* with the two NOPs that align it: all that a Linux SYN has left */
#define ISM_OPT_VERSION 1
#define ISM_OPT_EXID	0xc9e2d4d9u /* "ISMR" in EBCDIC */

/* The option of the kernel's own SMC (include/net/tcp.h TCPOPT_SMC_MAGIC): only ever read, never sent. */
#define ISM_SMC_OPT_EXID 0xe2d4c3d9u

enum ism_opt_role {
	ISM_ROLE_OFFER = 0, /* on a SYN */
	ISM_ROLE_ANSWER = 1, /* on a SYN-ACK */
};

enum ism_opt_caps {
	ISM_CAP_DIRECT = 1, /* the process itself can read and write rings */
	ISM_CAP_RELAY = 2, /* a daemon can move the bytes between socket and rings */
	ISM_CAP_ZERO = 4, /* reserved: the buffer may be handed over without a copy */
};

/**
 * ism_caps_agree() - can bytes take another way to a partner in another kernel? Not from a program to a relay where
 *                    no relay is at the program's end, too: who is killed there could not be kept from ending
 *                    before its bytes (docs/cross-kernel.rst, "Ends")
 */
static inline int ism_caps_agree(__u8 caps, __u8 peer_caps)
{
	return caps & peer_caps & (ISM_CAP_DIRECT | ISM_CAP_RELAY);
}

/**
 * struct ism_option - the decoded option
 * @role: enum ism_opt_role
 * @caps: bits of enum ism_opt_caps
 * @fabric: 24-bit fabric tag, 0 when the sender offers the same kernel only
 * @token: DMB token of the sender, never 0
 */
struct ism_option {
	__u8 role;
	__u8 caps;
	__u32 fabric;
	__u64 token;
};

/* What ism_option_decode() found wrong; 0 is a good option. */
enum ism_option_error {
	ISM_OPT_OK = 0,
	ISM_OPT_BAD_LENGTH = 1, /* kind, length or ExID are not ours */
	ISM_OPT_BAD_VERSION = 2, /* a version that this build does not speak */
	ISM_OPT_BAD_TOKEN = 3, /* token 0 */
};

/**
 * ism_option_encode() - write the option
 * @buf: ISM_OPT_LEN bytes
 * @opt: what to say; fields wider than their place on the wire are cut to it
 */
static inline void ism_option_encode(__u8 *buf, const struct ism_option *opt)
{
	buf[0] = ISM_OPT_KIND;
	buf[1] = ISM_OPT_LEN;
	buf[2] = (ISM_OPT_EXID >> 24) & 0xff;
	buf[3] = (ISM_OPT_EXID >> 16) & 0xff;
	buf[4] = (ISM_OPT_EXID >> 8) & 0xff;
	buf[5] = ISM_OPT_EXID & 0xff;
	buf[6] = ISM_OPT_VERSION << 4 | (opt->role & 1) << 3 | (opt->caps & 7);
	buf[7] = (opt->fabric >> 16) & 0xff;
	buf[8] = (opt->fabric >> 8) & 0xff;
	buf[9] = opt->fabric & 0xff;
	buf[10] = opt->token >> 56;
	buf[11] = opt->token >> 48;
	buf[12] = opt->token >> 40;
	buf[13] = opt->token >> 32;
	buf[14] = opt->token >> 24;
	buf[15] = opt->token >> 16;
	buf[16] = opt->token >> 8;
	buf[17] = opt->token;
}

/**
 * ism_option_decode() - read the option, trusting none of it
 * @buf: at least ISM_OPT_LEN bytes
 * @opt: filled only when 0 is returned
 *
 * Return: enum ism_option_error.
 */
static inline int ism_option_decode(const __u8 *buf, struct ism_option *opt)
{
	__u32 exid = (__u32)buf[2] << 24 | buf[3] << 16 | buf[4] << 8 | buf[5];
	__u64 token;

	if (buf[0] != ISM_OPT_KIND || buf[1] != ISM_OPT_LEN || exid != ISM_OPT_EXID)
		return ISM_OPT_BAD_LENGTH;
	if (buf[6] >> 4 != ISM_OPT_VERSION)
		return ISM_OPT_BAD_VERSION;
	token = (__u64)buf[10] << 56 | (__u64)buf[11] << 48 | (__u64)buf[12] << 40 |
		(__u64)buf[13] << 32 | (__u64)buf[14] << 24 | (__u64)buf[15] << 16 |
		(__u64)buf[16] << 8 | buf[17];
	if (!token)
		return ISM_OPT_BAD_TOKEN;
	opt->role = buf[6] >> 3 & 1;
	opt->caps = buf[6] & 7;
	opt->fabric = (__u32)buf[7] << 16 | buf[8] << 8 | buf[9];
	opt->token = token;
	return ISM_OPT_OK;
}

#endif
