/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The daemon's log: one line each to stderr, with levels that the journal understands. */
#ifndef ISM_DAEMON_LOG_H
#define ISM_DAEMON_LOG_H

#include <syslog.h>

/** log_line() - a line about the daemon itself; @level is LOG_ERR, LOG_WARNING, LOG_NOTICE or LOG_INFO */
void log_line(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** log_client() - a line that a client caused: so many per second at most, the rest is counted */
void log_client(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
