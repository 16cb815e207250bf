/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One error message that a failing library call leaves for its caller: the library never prints.
 */
#ifndef ISM_LIB_ERR_H
#define ISM_LIB_ERR_H

/**
 * struct ism_err - what failed, on what, why, and what to do about it
 * @text: one line without a newline; the first failure wins, later ones do not overwrite it
 */
struct ism_err {
	char text[640];
};

/**
 * ism_err_set() - record a failure
 * @err: may be NULL
 * @rc: negative errno
 * @fmt: printf format; the meaning of @rc is not appended
 *
 * Return: @rc, so that `return ism_err_set(...)` reads well.
 */
int ism_err_set(struct ism_err *err, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
