/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The pin directory: where it is, one writer at a time, and opening what is pinned there. */
#ifndef ISM_LIB_PINS_H
#define ISM_LIB_PINS_H

#include <stddef.h>
#include "err.h"

struct bpf_object;

/** ism_pin_dir() - ISMREDIR_PIN_DIR from the environment, else ISM_PIN_DIR */
const char *ism_pin_dir(void);

/** ism_pin_path() - path of one pin; -ENAMETOOLONG */
int ism_pin_path(char *buf, size_t len, const char *name);

/** ism_pins_check_fs() - is the pin directory, or its parent, on a bpffs? */
int ism_pins_check_fs(struct ism_err *err);

/**
 * ism_pins_lock() - make the directory if @create, and keep other writers out
 * Return: a descriptor whose close() unlocks; -ENOENT when nothing is pinned and @create is 0;
 * -EBUSY when another ismredir is at work.
 */
int ism_pins_lock(int create, struct ism_err *err);

/** ism_pins_try_lock() - the same without making or waiting for anything */
int ism_pins_try_lock(struct ism_err *err);

/** ism_pins_open_map() - descriptor of a pinned map, or negative errno */
int ism_pins_open_map(const char *name);

/** ism_pins_open_link() - descriptor of a pinned link, or negative errno */
int ism_pins_open_link(const char *name);

/** ism_pins_each_link() - call @fn for each pinned link; stops at the first non-zero result */
int ism_pins_each_link(int (*fn)(const char *name, void *arg), void *arg);

/** ism_pins_remove() - unpin one name; a missing one is no error */
int ism_pins_remove(const char *name);

/** ism_pins_remove_all() - unpin everything and remove the directory */
int ism_pins_remove_all(struct ism_err *err);

/** ism_pins_pin_maps() - pin every map of @obj that is not pinned yet */
int ism_pins_pin_maps(struct bpf_object *obj, struct ism_err *err);

/** ism_pins_reuse_maps() - make @obj use the pinned maps; all must be there and fit */
int ism_pins_reuse_maps(struct bpf_object *obj, struct ism_err *err);

#endif
