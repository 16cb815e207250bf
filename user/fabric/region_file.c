// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Mapping of a region that has a path; see region_file.h. */
#define _GNU_SOURCE
#include "region_file.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <ismredir/region.h>
#include "util.h"

static void unmap(struct region_dev *dev)
{
	if (dev->base)
		munmap(dev->base, dev->len);
	if (dev->fd >= 0)
		close(dev->fd);
	dev->base = NULL;
	dev->fd = -1;
}

static const struct region_dev_ops file_ops = { .close = unmap };

static int split(const char *text, char *path, size_t len, const char **ret_options,
		 struct ism_err *err)
{
	size_t n = strcspn(text, ",");

	if (!n)
		return ism_err_set(err, -EINVAL, "expected a path");
	if (n >= len)
		return ism_err_set(err, -ENAMETOOLONG, "the path is too long");
	memcpy(path, text, n);
	path[n] = 0;
	if (ret_options)
		*ret_options = text[n] ? text + n + 1 : "";
	return 0;
}

/* All of its memory is taken now: a store that finds none later would kill who stores. */
static int create(const char *path, __u64 size, struct ism_err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc = 0;

	if (fd < 0)
		return ism_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (ftruncate(fd, size))
		rc = -errno;
	else if (fallocate(fd, 0, 0, size) && errno != EOPNOTSUPP)
		rc = -errno;
	if (rc) {
		unlink(path);
		close(fd);
		return ism_err_set(err, rc, "%s: %s", path, strerror(-rc));
	}
	return fd;
}

/* A device has no length of its own; sysfs knows it, and what else there is. 0: it does not say. */
static __u64 device_number(const struct stat *st, const char *name)
{
	char path[64];
	unsigned long long n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/%s", major(st->st_rdev),
		 minor(st->st_rdev), name);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%llu", &n) != 1)
		n = 0;
	fclose(f);
	return n;
}

static int measure(int fd, const char *path, struct region_dev *ret, struct ism_err *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return ism_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
		return ism_err_set(err, -ENODEV, "%s: neither a file nor a character device", path);
	if (st.st_mode & S_IWOTH)
		return ism_err_set(err, -EPERM, "%s: everybody may write to it; `chmod o-w` first",
				   path);
	ret->len = S_ISREG(st.st_mode) ? (__u64)st.st_size : device_number(&st, "size");
	ret->len &= ~(__u64)(ISM_REGION_PAGE - 1);
	ret->align = S_ISREG(st.st_mode) ? 0 : device_number(&st, "align");
	return ret->len ? 0 : ism_err_set(err, -ENODEV, "%s: it has no memory", path);
}

static int open_path(const char *path, unsigned int flags, __u64 size, struct ism_err *err)
{
	int mode = flags & REGION_FILE_READ ? O_RDONLY : O_RDWR;
	int fd = open(path, mode | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 && errno == ENOENT && flags & REGION_FILE_CREATE)
		return create(path, size, err);
	return fd < 0 ? ism_err_set(err, -errno, "%s: %s", path, strerror(errno)) : fd;
}

int region_file_map(const char *text, unsigned int flags, __u64 size, struct region_dev *ret,
		    const char **ret_options, struct ism_err *err)
{
	int prot = PROT_READ | (flags & REGION_FILE_READ ? 0 : PROT_WRITE);
	char path[PATH_MAX];
	int rc = split(text, path, sizeof(path), ret_options, err);

	*ret = (struct region_dev){
		.ops = &file_ops, .fd = -1, .lock_fd = -1, .number = -1, .bell_fd = -1
	};
	if (rc)
		return rc;
	rc = ret->fd = open_path(path, flags, size, err);
	if (rc >= 0)
		rc = measure(ret->fd, path, ret, err);
	if (!rc && !(flags & REGION_FILE_READ))
		rc = ret->lock_fd = fabric_reopen(ret->fd, O_RDWR);
	if (rc < 0)
		goto fail;
	ret->base = mmap(NULL, ret->len, prot, MAP_SHARED, ret->fd, 0);
	if (ret->base != MAP_FAILED)
		return 0;
	ret->base = NULL;
	rc = ism_err_set(err, -errno, "%s: cannot be mapped: %s", path, strerror(errno));
fail:
	unmap(ret);
	if (ret->lock_fd >= 0)
		close(ret->lock_fd);
	return rc;
}
