// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The error message of a failing library call; see err.h. */
#include "err.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int ism_err_set(struct ism_err *err, int rc, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (err && !err->text[0]) {
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	errno = saved;
	return rc;
}
