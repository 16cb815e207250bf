// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The host page; see host.h. Measuring is in wake.c. */
#define _GNU_SOURCE
#include "host.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <ismredir/maps.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

static int make_memfd(void)
{
	int fd = memfd_create("ismredir-host", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before 6.3 */
		fd = memfd_create("ismredir-host", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

/* After this mapping nobody can make another writable one, nor change the size. */
static int map_and_seal(int fd, struct host *h)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
	size_t len = sysconf(_SC_PAGESIZE);
	char path[32];
	void *page;

	if (ftruncate(fd, len) || fchmod(fd, 0600))
		return -errno;
	page = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	h->page = page;
	if (fcntl(fd, F_ADD_SEALS, seals))
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	h->fd = open(path, O_RDONLY | O_CLOEXEC);
	return h->fd < 0 ? -errno : 0;
}

int host_open(struct host *h, __u64 instance)
{
	int fd = make_memfd(), rc;

	*h = (struct host){ .fd = -1 };
	if (fd < 0)
		return -errno;
	rc = map_and_seal(fd, h);
	close(fd);
	if (rc) {
		host_close(h);
		return rc;
	}
	h->page->word = ISM_WORD_OFF;
	h->page->instance = instance;
	h->page->cpus = sysconf(_SC_NPROCESSORS_ONLN);
	h->page->wake_ns = host_measure_wake();
	__atomic_store_n(&h->page->magic, ISM_DMB_MAGIC, __ATOMIC_RELEASE);
	return 0;
}

void host_set_word(struct host *h, __u32 word)
{
	__atomic_store_n(&h->page->word, word, __ATOMIC_SEQ_CST);
}

void host_close(struct host *h)
{
	if (h->page)
		munmap(h->page, sysconf(_SC_PAGESIZE));
	if (h->fd >= 0)
		close(h->fd);
	*h = (struct host){ .fd = -1 };
}
