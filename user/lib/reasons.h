/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Names and texts of planes and fallback reasons (include/ismredir/reasons.h). */
#ifndef ISM_LIB_REASONS_H
#define ISM_LIB_REASONS_H

#include <stddef.h>

/**
 * struct ism_reason_info - one reason
 * @code: enum ism_reason
 * @name: as shown in listings
 * @text: what it means
 * @todo: how to get rid of it
 */
struct ism_reason_info {
	unsigned int code;
	const char *name;
	const char *text;
	const char *todo;
};

/** ism_reason_table() - all reasons, ended by an entry without a name */
const struct ism_reason_info *ism_reason_table(void);

/** ism_reason_find() - by code; NULL if unknown */
const struct ism_reason_info *ism_reason_find(unsigned int code);

/** ism_reason_parse() - by name, decimal or 0x code; NULL if unknown */
const struct ism_reason_info *ism_reason_parse(const char *what);

/** ism_reason_name() - never NULL */
const char *ism_reason_name(unsigned int code);

/** ism_plane_name() - never NULL */
const char *ism_plane_name(unsigned int plane);

/** ism_plane_parse() - enum ism_plane, or -EINVAL */
int ism_plane_parse(const char *name);

/** ism_word_name() - "off", "on", "drain"; never NULL */
const char *ism_word_name(unsigned int word);

#endif
