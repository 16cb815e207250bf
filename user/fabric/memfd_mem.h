/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Memory of one DMB as sealed memfd, with its doorbell: making it, taking it back, letting it go. */
#ifndef ISM_FABRIC_MEMFD_MEM_H
#define ISM_FABRIC_MEMFD_MEM_H

#include <stddef.h>
#include <ismredir/fabric.h>

/**
 * struct ism_memfd - memory and doorbell
 * @fds: all three are open; close-on-exec
 * @addr: mapped for reading and writing, @size bytes
 * @fallback: it should have been huge pages, and is not
 */
struct ism_memfd {
	struct ism_dmb_fds fds;
	void *addr;
	size_t size;
	int fallback;
};

/**
 * ism_memfd_make() - memory for @len bytes, all zero, its first page present
 * @huge_shift: log2 of the size of huge pages, 0 for normal ones
 */
int ism_memfd_make(size_t len, unsigned int huge_shift, struct ism_memfd *ret);

/**
 * ism_memfd_adopt() - memory that somebody claims was made by ism_memfd_make()
 * @given: @given->read or @given->write may be -1
 *
 * Asks only questions that no file behind a descriptor can delay. On success the descriptors are
 * @ret's, else the caller's.
 * Return: 0; -EPERM: it was not made by this user for @len bytes, or is no eventfd; other negative errno.
 */
int ism_memfd_adopt(size_t len, const struct ism_dmb_fds *given, struct ism_memfd *ret);

/** ism_check_eventfd() - 0, or -EPERM: a descriptor that somebody sent is none */
int ism_check_eventfd(int fd);

/** ism_memfd_map() - one more mapping for reading and writing; NULL on failure, with errno */
void *ism_memfd_map(const struct ism_memfd *m);

/** ism_memfd_drop() - unmap and close */
void ism_memfd_drop(struct ism_memfd *m);

#endif
