/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where the preloaded library is, and whether a program would take it. */
#ifndef ISM_CLI_PRELOAD_H
#define ISM_CLI_PRELOAD_H

#include <stddef.h>
#include "err.h"
#include "program.h"

/**
 * preload_find() - path of the library
 *
 * That is ISMREDIR_PRELOAD from the environment, else the one beside this executable, else the
 * installed one. Return: 0; negative errno, with @err saying where it was looked for and what is wrong.
 */
int preload_find(char *buf, size_t len, struct ism_err *err);

/* What becomes of LD_PRELOAD in a program. */
enum preload_fit {
	PRELOAD_FITS,
	PRELOAD_NEEDLESS, /* it would, and make no use of it: see ism_program_is_local() */
	PRELOAD_IGNORED, /* the program itself does not look; those that it starts may */
	PRELOAD_HARMS, /* its loader would complain or give up */
};

/**
 * preload_fit() - would the program at @path take the library?
 * @why: a few words, if it would not
 *
 * A script is judged by its interpreter. What cannot be read or understood fits: exec() will say.
 */
enum preload_fit preload_fit(const char *path, char *why, size_t len);

#endif
