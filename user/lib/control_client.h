/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A blocking client of ismredird for commands that show something: open, ask, print, close. Every wait
 * has a limit. Programs whose connections are to use rings have a client of their own.
 */
#ifndef ISM_LIB_CONTROL_CLIENT_H
#define ISM_LIB_CONTROL_CLIENT_H

#include <ismredir/control.h>
#include "err.h"

/** ism_control_path() - ISMREDIR_SOCK from the environment, else ISM_CONTROL_SOCK; never NULL */
const char *ism_control_path(void);

/**
 * ism_control_open() - connect and say hello
 *
 * Return: a descriptor, the caller's to close(); -ENOENT or -ECONNREFUSED when no daemon runs;
 * -ETIMEDOUT when it does not answer within seconds; -EPROTO when it is no ismredird of this
 * version; another negative errno. One thread at a time may use one descriptor.
 */
int ism_control_open(struct ism_err *err);

/**
 * ism_control_list() - call @fn for each DMB that the caller may see
 *
 * The message is valid during the call only. DMBs may come and go meanwhile.
 * Return: 0, negative errno, or what @fn returned if not 0; then @fd is of no further use.
 */
int ism_control_list(int fd, int (*fn)(const struct ism_msg_dmb *m, void *arg), void *arg,
		     struct ism_err *err);

/** ism_control_fabrics() - the same for each open fabric and its @m->n_peers; the name is ended by a zero byte */
int ism_control_fabrics(int fd,
			int (*fn)(const struct ism_msg_fabric *m, const struct ism_msg_peer *peers,
				  void *arg),
			void *arg, struct ism_err *err);

/** ism_control_status() - counters of the daemon; 0 or negative errno */
int ism_control_status(int fd, struct ism_msg_status *ret, struct ism_err *err);

#endif
