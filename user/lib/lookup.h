/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Looking up single things in a running load: whose connection is this socket, does it have a partner. */
#ifndef ISM_LIB_LOOKUP_H
#define ISM_LIB_LOOKUP_H

#include <ismredir/maps.h>
#include "err.h"

/**
 * struct ism_lookup - maps of one load; of use as long as that load is in force
 */
struct ism_lookup {
	int conns;
	int sk_conn;
};

/**
 * ism_lookup_open() - open what is pinned now; to be closed by ism_lookup_close()
 * Return: 0; -ENOENT when nothing is loaded; -EPROTO when it is of another version; negative errno.
 */
int ism_lookup_open(struct ism_lookup *ret, struct ism_err *err);
void ism_lookup_close(struct ism_lookup *l);

/**
 * ism_lookup_socket() - what the programs have noted about a socket
 *
 * Asks the storage of the socket behind the descriptor, so nothing that its holder says is believed, and
 * no lock is taken that a holder of the socket could keep (bpf_fd_sk_storage_lookup_elem()).
 * Return: 0; -ENOENT when there is nothing; -ENOTSOCK; negative errno.
 */
int ism_lookup_socket(const struct ism_lookup *l, int sock, struct ism_sk *ret);

/** ism_lookup_conn() - the record of a DMB token; -ENOENT when there is none */
int ism_lookup_conn(const struct ism_lookup *l, __u64 token, struct ism_conn *ret);

/** ism_lookup_ctl() - the control block; -ENOENT nothing is loaded, -EPROTO nothing of this version */
int ism_lookup_ctl(struct ism_ctl *ret);

/**
 * ism_lookup_word() - enum ism_word in force
 * Return: 0; ISM_WORD_OFF is also when nothing is loaded, or nothing of this version. A negative errno
 * says that it is not known, as when descriptors are used up.
 */
int ism_lookup_word(__u32 *ret);

#endif
