// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Names and texts of planes and fallback reasons; see reasons.h. */
#include "reasons.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <ismredir/maps.h>
#include <ismredir/reasons.h>

static const struct ism_reason_info table[] = {
#define ISM_REASON_ROW(sym, code, name, text, todo) { code, name, text, todo },
	ISM_REASONS(ISM_REASON_ROW)
#undef ISM_REASON_ROW
		{ 0, NULL, NULL, NULL },
};

static const char *const planes[] = { "tcp", "skmsg", "direct", "relay", "smc" };
static const char *const words[] = { "off", "on", "drain" };

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

const struct ism_reason_info *ism_reason_table(void)
{
	return table;
}

const struct ism_reason_info *ism_reason_find(unsigned int code)
{
	for (const struct ism_reason_info *r = table; r->name; r++)
		if (r->code == code)
			return r;
	return NULL;
}

const struct ism_reason_info *ism_reason_parse(const char *what)
{
	char *end;
	unsigned long code;

	for (const struct ism_reason_info *r = table; r->name; r++)
		if (!strcmp(r->name, what))
			return r;
	if (*what < '0' || *what > '9')
		return NULL;
	errno = 0;
	code = strtoul(what, &end, strncmp(what, "0x", 2) ? 10 : 16);
	if (errno || end == what || *end || code > 0xffff)
		return NULL;
	return ism_reason_find(code);
}

const char *ism_reason_name(unsigned int code)
{
	const struct ism_reason_info *r = ism_reason_find(code);

	return r ? r->name : "unknown";
}

const char *ism_plane_name(unsigned int plane)
{
	return plane < ARRAY_SIZE(planes) ? planes[plane] : "unknown";
}

int ism_plane_parse(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(planes); i++)
		if (!strcmp(planes[i], name))
			return i;
	return -EINVAL;
}

const char *ism_word_name(unsigned int word)
{
	return word < ARRAY_SIZE(words) ? words[word] : "unknown";
}
