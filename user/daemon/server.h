/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The control socket: one daemon at a time listens on it, and new clients come in. */
#ifndef ISM_DAEMON_SERVER_H
#define ISM_DAEMON_SERVER_H

#include <limits.h>
#include "daemon.h"
#include "err.h"

/**
 * struct server - the listening socket
 * @lock_fd: holds the lock on @lock_path; who has it may bind and unlink the socket
 * @ino: of the socket in the file system
 * @retry: wakes up accepting after descriptors had run out
 */
struct server {
	struct daemon *d;
	int fd;
	int lock_fd;
	dev_t dev;
	ino_t ino;
	char lock_path[PATH_MAX];
	sd_event_source *io;
	sd_event_source *retry;
};

/**
 * server_open() - listen
 * Return: 0; -EADDRINUSE when another daemon does; negative errno. What a killed daemon left is removed.
 * server_close() also after a failure.
 */
int server_open(struct server *s, struct daemon *d, struct ism_err *err);

/** server_close() - and remove the socket, if it is still ours */
void server_close(struct server *s);

#endif
