// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The daemon's log; see log.h. */
#include "log.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PER_INTERVAL 20
#define INTERVAL     5 /* seconds */

/* One write, so that lines of several daemons in one file stay whole. */
static void vlog(int level, const char *fmt, va_list ap)
{
	char line[1024];
	int n = 0;

	if (getenv("JOURNAL_STREAM"))
		n = snprintf(line, sizeof(line), "<%d>", level);
	n += vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	fprintf(stderr, "%.*s\n", n < (int)sizeof(line) ? n : (int)sizeof(line) - 1, line);
}

void log_line(int level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(level, fmt, ap);
	va_end(ap);
}

void log_client(int level, const char *fmt, ...)
{
	static time_t since;
	static unsigned int lines, dropped;
	struct timespec now;
	va_list ap;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec - since >= INTERVAL) {
		if (dropped)
			log_line(LOG_NOTICE, "%u more lines about clients were dropped", dropped);
		since = now.tv_sec;
		lines = dropped = 0;
	}
	if (++lines > PER_INTERVAL) {
		dropped++;
		return;
	}
	va_start(ap, fmt);
	vlog(level, fmt, ap);
	va_end(ap);
}
