/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The memory of connections that are over. Nobody may hold a connection's rings while it lives: who inherited it
 * has not used it yet, or is killed and its partner does not know. So only the load's table tells the end.
 */
#ifndef ISM_DAEMON_SWEEP_H
#define ISM_DAEMON_SWEEP_H

struct daemon;

/** sweep_open() - what the event loop needs; -errno */
int sweep_open(struct daemon *d);
void sweep_close(struct daemon *d);

/** sweep() - end the pairs whose connection is over */
void sweep(struct daemon *d);

#endif
