/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A region whose peers live in one process, can be killed at any store, and lose what they have not made
 * visible. For builds of the core with REGION_TEST.
 */
#ifndef ISM_REGION_BOX_H
#define ISM_REGION_BOX_H

#include <ismredir/fabric.h>
#include <setjmp.h>
#include "region_check.h"
#include "region_priv.h"

#define BOX_SIZE   (256 << 10)
#define BOX_PEERS  3
#define BOX_DMBS   8
#define BOX_EVENTS 16

/**
 * struct box - memory, and what is done with the stores of the peer that is watched
 * @is_coherent: of all peers
 * @is_watched: stores that are made now are those of the peer
 * @steps: stores and fences that it made; @die_at: before which of them it dies, 0: never
 * @at: called there instead of dying, when set
 */
struct box {
	struct region_map map;
	char *pristine;
	int fd;
	int is_coherent;
	int is_watched;
	__u64 steps;
	__u64 die_at;
	void (*at)(void);
	jmp_buf dead;
};

extern struct box box;

/** box_open() - once: make and format the memory */
void box_open(void);

/** box_reset() - as it was formatted; no peer may be open */
void box_reset(int is_coherent);

/** box_peer() - become a peer; -1: any slot. NULL on failure, with the error in @ret_rc, which may be NULL */
struct ism_fabric *box_peer(int slot, const char *options, int *ret_rc);

/** box_close() - as ism_fabric_close(), of a peer that may die in it */
void box_close(struct ism_fabric *f);

/** box_kill() - the process of the peer is gone: nothing is stored any more. NULL: one that opened or closed */
void box_kill(struct ism_fabric *f);

/** box_lose() - of what the watched peer stored and had not made visible, a random part gets lost */
void box_lose(unsigned int seed);

/** box_pending() - stores that are not visible for sure */
unsigned int box_pending(void);

/** box_new_process(), box_new_boot() - what the next peers run in */
void box_new_process(void);
void box_new_boot(void);

/** box_later() - time goes by */
void box_later(__u64 ms);

/** box_random() - the next number of a sequence that @state is the seed of */
unsigned int box_random(__u64 *state);

#endif
