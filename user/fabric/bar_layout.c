// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The presets, and options that change them; see bar_layout.h. */
#include "bar_layout.h"
#include <ismredir/fabric.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "err.h"

/* docs/fabric-provider.rst has the same table in words. */
static const struct ism_bar_layout presets[] = {
	/* QEMU's: number and vector in one register */
	{ .name = "ivshmem",
	  .mem_bar = 2,
	  .bell_bar = 0,
	  .bell_off = 12,
	  .bell_shift = 16,
	  .id_bar = 0,
	  .id_off = 8 },
	/* a board that shows its memory, and has a mailbox register for each peer */
	{ .name = "soc",
	  .mem_bar = 2,
	  .bell_bar = 0,
	  .bell_stride = 4,
	  .bell_value = 1,
	  .id_bar = ISM_BAR_NONE },
	/* an endpoint with Linux' pci-epf-vntb: words of doorbells, the first one is of the link */
	{ .name = "vntb",
	  .mem_bar = 4,
	  .bell_bar = 2,
	  .bell_off = 4,
	  .bell_value = 1,
	  .id_bar = ISM_BAR_NONE },
	/* memory and nothing else */
	{ .name = "memory", .mem_bar = 2, .bell_bar = ISM_BAR_NONE, .id_bar = ISM_BAR_NONE },
};

#define NONE 100 /* what option() says of "none": no count of numbers */

static int bad(struct ism_err *err, const char *name, const char *value, const char *expected)
{
	return ism_err_set(err, -EINVAL, "%s=%s: expected %s", name, value, expected);
}

/* "A:B:C" into at most @n numbers, decimal or 0x. Returns how many, or -EINVAL. */
static int numbers(const char *s, __u64 *ret, int n)
{
	for (int i = 0; i < n; i++) {
		char *end;

		if (*s < '0' || *s > '9')
			return -EINVAL;
		errno = 0;
		ret[i] = strtoull(s, &end, s[0] == '0' && s[1] == 'x' ? 16 : 10);
		if (errno)
			return -EINVAL;
		if (!*end)
			return i + 1;
		if (*end != ':')
			return -EINVAL;
		s = end + 1;
	}
	return -EINVAL;
}

static int find_preset(const char *name, struct ism_bar_layout *ret)
{
	for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
		if (strcmp(presets[i].name, name))
			continue;
		*ret = presets[i];
		return 0;
	}
	return -EINVAL;
}

/* Negative errno, 0: it is not there, NONE, or the count of numbers. @text is a string whatever it returns. */
static int option(const char *options, const char *name, __u64 *n, int max, char *text, size_t len)
{
	int rc;

	*text = 0;
	rc = ism_fabric_option(options, name, text, len);
	if (rc <= 0)
		return rc;
	return strcmp(text, "none") ? numbers(text, n, max) : NONE;
}

static int parse_mem(const char *options, struct ism_bar_layout *l, struct ism_err *err)
{
	char text[80];
	__u64 n[3] = {};
	int got = option(options, "mem", n, 3, text, sizeof(text));

	if (!got)
		return 0;
	if (got < 2 || got == NONE || n[0] > 5)
		return bad(err, "mem", text, "BAR:OFFSET[:LENGTH]");
	l->mem_bar = n[0];
	l->mem_off = n[1];
	l->mem_len = n[2];
	return 0;
}

static int parse_bell(const char *options, struct ism_bar_layout *l, struct ism_err *err)
{
	char text[80];
	__u64 n[3] = {};
	int got = option(options, "doorbell", n, 3, text, sizeof(text));

	if (got == NONE) {
		l->bell_bar = ISM_BAR_NONE;
	} else if (got) {
		if (got != 3 || n[0] > 5 || n[1] % 4 || n[1] >> 31 || n[2] % 4 || n[2] >> 20)
			return bad(err, "doorbell", text, "BAR:OFFSET:STRIDE in words, or none");
		l->bell_bar = n[0];
		l->bell_off = n[1];
		l->bell_stride = n[2];
	}
	got = option(options, "bell-value", n, 1, text, sizeof(text));
	if (got && (got != 1 || n[0] >> 32))
		return bad(err, "bell-value", text, "32 bits");
	if (got)
		l->bell_value = n[0];
	got = option(options, "bell-shift", n, 1, text, sizeof(text));
	if (got && (got != 1 || n[0] > 26))
		return bad(err, "bell-shift", text, "0 to 26");
	if (got)
		l->bell_shift = n[0];
	return 0;
}

static int parse_id(const char *options, struct ism_bar_layout *l, struct ism_err *err)
{
	char text[80];
	__u64 n[2] = {};
	int got = option(options, "id", n, 2, text, sizeof(text));

	if (!got)
		return 0;
	if (got == NONE) {
		l->id_bar = ISM_BAR_NONE;
		return 0;
	}
	if (got != 2 || n[0] > 5 || n[1] % 4 || n[1] >> 31)
		return bad(err, "id", text, "BAR:OFFSET of a word, or none");
	l->id_bar = n[0];
	l->id_off = n[1];
	return 0;
}

int ism_bar_layout_parse(const char *options, struct ism_bar_layout *ret, struct ism_err *err)
{
	char name[32];
	int rc = ism_fabric_option(options, "preset", name, sizeof(name));

	*ret = presets[0];
	if (rc < 0 || (rc && find_preset(name, ret)))
		return ism_err_set(err, -EINVAL,
				   "there is no such preset; ivshmem, soc, vntb, memory");
	rc = parse_mem(options, ret, err);
	if (!rc)
		rc = parse_bell(options, ret, err);
	if (!rc)
		rc = parse_id(options, ret, err);
	return rc;
}
