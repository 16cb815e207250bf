// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Fuzzes the option decoder: it reads its 18 bytes and no more, and what it takes encodes to the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ismredir/option.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ism_option untouched = { 0x55, 0x55, 0x55555555, 0x5555555555555555ULL };
	struct ism_option opt = untouched;
	__u8 again[ISM_OPT_LEN], *buf;

	if (size < ISM_OPT_LEN)
		return 0;
	buf = malloc(ISM_OPT_LEN); /* a read past it is seen */
	if (!buf)
		return 0;
	memcpy(buf, data, ISM_OPT_LEN);
	if (ism_option_decode(buf, &opt) == ISM_OPT_OK) {
		if (opt.role > 1 || opt.caps > 7 || opt.fabric > 0xffffff || !opt.token)
			abort();
		ism_option_encode(again, &opt);
		if (memcmp(again, buf, sizeof(again)))
			abort();
	} else if (opt.role != untouched.role || opt.caps != untouched.caps ||
		   opt.fabric != untouched.fabric || opt.token != untouched.token) {
		abort();
	}
	free(buf);
	return 0;
}
