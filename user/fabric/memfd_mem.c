// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Memory of one DMB as sealed memfd, with its doorbell; see memfd_mem.h. */
#define _GNU_SOURCE
#include "memfd_mem.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "util.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

/*
 * Nobody can change its size, so no access to a mapping ends in SIGBUS, and nobody can add F_SEAL_WRITE
 * and lock the partner out.
 */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/*
 * A descriptor opened O_RDONLY can be opened again for writing through /proc/self/fd by whom the inode's
 * mode allows to write; memfd_create() makes it 0777.
 */
#define MODE 0600

static size_t round_up(size_t len, size_t unit)
{
	return (len + unit - 1) / unit * unit;
}

static int create(unsigned int flags)
{
	int fd = memfd_create("ismredir-dmb",
			      MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | flags);

	if (fd < 0 && errno == EINVAL) /* before 6.3 */
		fd = memfd_create("ismredir-dmb", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
	return fd < 0 ? -errno : fd;
}

void *ism_memfd_map(const struct ism_memfd *m)
{
	void *addr = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fds.write, 0);

	return addr == MAP_FAILED ? NULL : addr;
}

static void forget(struct ism_memfd *m)
{
	*m = (struct ism_memfd){ .fds = { -1, -1, -1, 0 } };
}

void ism_memfd_drop(struct ism_memfd *m)
{
	if (m->addr)
		munmap(m->addr, m->size);
	if (m->fds.read >= 0)
		close(m->fds.read);
	if (m->fds.write >= 0)
		close(m->fds.write);
	if (m->fds.bell >= 0)
		close(m->fds.bell);
	forget(m);
}

static int make(size_t size, unsigned int flags, struct ism_memfd *m)
{
	int rc;

	forget(m);
	m->size = size;
	rc = m->fds.write = create(flags);
	if (rc < 0)
		return rc;
	if (ftruncate(m->fds.write, size) || fchmod(m->fds.write, MODE) ||
	    fcntl(m->fds.write, F_ADD_SEALS, SEALS))
		goto fail;
	rc = m->fds.read = fabric_reopen(m->fds.write, O_RDONLY);
	if (rc < 0)
		goto out;
	m->fds.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->fds.bell < 0)
		goto fail;
	/* Huge pages are reserved by the first mapping: later ones cannot fail. */
	m->addr = ism_memfd_map(m);
	if (!m->addr)
		goto fail;
	*(volatile char *)m->addr = 0;
	return 0;
fail:
	rc = -errno;
out:
	ism_memfd_drop(m);
	return rc;
}

int ism_memfd_make(size_t len, unsigned int huge_shift, struct ism_memfd *ret)
{
	int rc;

	if (huge_shift) {
		rc = make(round_up(len, (size_t)1 << huge_shift),
			  MFD_HUGETLB | huge_shift << MFD_HUGE_SHIFT, ret);
		if (!rc)
			return 0;
	}
	rc = make(round_up(len, sysconf(_SC_PAGESIZE)), 0, ret);
	if (!rc)
		ret->fallback = huge_shift != 0;
	return rc;
}

/* ---------------------------------------------------------------- taking it back */

/*
 * The seals come first: fcntl() answers at once, and with EINVAL for anything but shmem and hugetlb
 * (memfd_fcntl()), while fstat() of, say, a FUSE file is as slow as its server wants. Only this user can
 * have made a memfd that belongs to it, so who cannot become this user can only give back what it got.
 */
static int check_memfd(int fd, size_t len, size_t *ret_size, struct stat *ret)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	size_t unit = sysconf(_SC_PAGESIZE);

	if (seals < 0 || (seals & SEALS) != SEALS || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
		return -EPERM;
	if (fstat(fd, ret) || fstatfs(fd, &fs))
		return -errno;
	if (fs.f_type == HUGETLBFS_MAGIC)
		unit = ret->st_blksize;
	if (!S_ISREG(ret->st_mode) || (ret->st_mode & 07777) != MODE || ret->st_uid != geteuid() ||
	    (size_t)ret->st_size != round_up(len, unit))
		return -EPERM;
	*ret_size = ret->st_size;
	return 0;
}

int ism_check_eventfd(int fd)
{
	char path[32], to[32];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, to, sizeof(to) - 1);
	if (n < 0)
		return -errno;
	to[n] = 0;
	/* Names of real files begin with a '/'. */
	return strcmp(to, "anon_inode:[eventfd]") ? -EPERM : 0;
}

static int check_given(size_t len, const struct ism_dmb_fds *given, size_t *ret_size)
{
	struct stat r, w;
	int rc = ism_check_eventfd(given->bell);

	if (!rc && given->read >= 0)
		rc = check_memfd(given->read, len, ret_size, &r);
	if (!rc && given->write >= 0)
		rc = check_memfd(given->write, len, ret_size, &w);
	if (!rc && given->read >= 0 && given->write >= 0 &&
	    (r.st_dev != w.st_dev || r.st_ino != w.st_ino))
		rc = -EPERM;
	return rc;
}

/* Open what is missing, and what is given but with other rights than it should have. */
static int complete(const struct ism_dmb_fds *given, struct ism_memfd *m)
{
	int from = given->write >= 0 ? given->write : given->read;

	m->fds.read = fabric_reopen(from, O_RDONLY);
	if (m->fds.read < 0)
		return m->fds.read;
	m->fds.write = fabric_reopen(from, O_RDWR);
	if (m->fds.write < 0)
		return m->fds.write;
	m->fds.bell = fcntl(given->bell, F_DUPFD_CLOEXEC, 0);
	if (m->fds.bell < 0)
		return -errno;
	m->addr = ism_memfd_map(m);
	return m->addr ? 0 : -errno;
}

int ism_memfd_adopt(size_t len, const struct ism_dmb_fds *given, struct ism_memfd *ret)
{
	int rc;

	forget(ret);
	rc = check_given(len, given, &ret->size);
	if (!rc)
		rc = complete(given, ret);
	if (rc) {
		ism_memfd_drop(ret);
		return rc;
	}
	if (given->read >= 0)
		close(given->read);
	if (given->write >= 0)
		close(given->write);
	close(given->bell);
	return 0;
}
