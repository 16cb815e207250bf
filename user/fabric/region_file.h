/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Memory of a region that has a path: a file of a memory file system, or a character device. */
#ifndef ISM_FABRIC_REGION_FILE_H
#define ISM_FABRIC_REGION_FILE_H

#include "err.h"
#include "region.h"

enum region_file_flags {
	REGION_FILE_READ = 1, /* only to be looked at; no lock_fd */
	REGION_FILE_CREATE = 2, /* make a file of @size bytes where there is none */
};

/**
 * region_file_map() - map it
 * @text: "PATH" or "PATH,OPTIONS"
 * @size: with REGION_FILE_CREATE
 * @ret_options: gets where the options begin in @text, or ""; may be NULL
 *
 * Return: 0; negative errno with a text. @ret->ops->close gives it back, with @ret->lock_fd aside.
 */
int region_file_map(const char *text, unsigned int flags, __u64 size, struct region_dev *ret,
		    const char **ret_options, struct ism_err *err);

#endif
