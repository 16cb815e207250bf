/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Closing what came from clients, in threads: the last close() of a TCP socket with SO_LINGER, or of a
 * file on FUSE, lasts as long as whoever sent it likes. The daemon's only thread of its own must not be
 * the one that waits.
 */
#ifndef ISM_DAEMON_CLOSER_H
#define ISM_DAEMON_CLOSER_H

#include "account.h"

#define CLOSER_THREADS	32 /* at most, of all users together */
#define CLOSER_PER_USER 8 /* a user with so many closes pending is not served */

struct closer;

/** closer_new() - NULL without memory. Signals should be blocked already: threads inherit that */
struct closer *closer_new(void);

/** closer_close() - close @fd some time soon, on account of @a, which may be NULL */
void closer_close(struct closer *c, int fd, struct account *a);

/** closer_free() - wait a moment for what is pending; threads that hang are left to exit() */
void closer_free(struct closer *c);

#endif
