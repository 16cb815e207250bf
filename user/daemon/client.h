/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One client of the control socket: its requests, its answers, and what ends with it. */
#ifndef ISM_DAEMON_CLIENT_H
#define ISM_DAEMON_CLIENT_H

#include "daemon.h"

#define CLIENT_PATIENCE_US (10 * 1000000ULL) /* for a hello, and for reading answers */

struct client;

/**
 * client_new() - serve a connection
 * @fd: SOCK_SEQPACKET, non-blocking; the client's from now on, also on failure
 */
int client_new(struct daemon *d, int fd);

/** client_free() - end of a client: its holds end, its connection is closed */
void client_free(struct client *c);

/** clients_tick() - disconnect who lets the daemon wait; once in a while */
void clients_tick(struct daemon *d);

/** clients_free() - disconnect all */
void clients_free(struct daemon *d);

#endif
