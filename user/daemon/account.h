/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What each user has of the daemon: clients, memory of DMBs, descriptors that are being closed. */
#ifndef ISM_DAEMON_ACCOUNT_H
#define ISM_DAEMON_ACCOUNT_H

#include <stdatomic.h>
#include <sys/types.h>
#include <linux/types.h>

/**
 * struct account - one user
 * @bytes: of the DMBs of pairs that a client of this user had made
 * @clients: connected now
 * @closing: descriptors handed to the closer and not closed yet; other threads count it down
 * @refs: who points here
 */
struct account {
	struct account *next;
	uid_t uid;
	__u64 bytes;
	unsigned int clients;
	atomic_uint closing;
	atomic_uint refs;
};

struct accounts {
	struct account *first;
};

/** account_get() - the user's account, with one more reference; NULL without memory */
struct account *account_get(struct accounts *all, uid_t uid);

/** account_put() - give the reference back; any thread */
void account_put(struct account *a);

/** accounts_sweep() - free those that nobody points to */
void accounts_sweep(struct accounts *all);

#endif
