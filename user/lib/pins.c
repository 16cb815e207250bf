// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The pin directory; see pins.h. */
#define _GNU_SOURCE
#include "pins.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <ismredir/maps.h>

#define LINK_PREFIX "link_"

const char *ism_pin_dir(void)
{
	const char *dir = secure_getenv("ISMREDIR_PIN_DIR");

	return dir && *dir ? dir : ISM_PIN_DIR;
}

int ism_pin_path(char *buf, size_t len, const char *name)
{
	return (size_t)snprintf(buf, len, "%s/%s", ism_pin_dir(), name) < len ? 0 : -ENAMETOOLONG;
}

int ism_pins_check_fs(struct ism_err *err)
{
	char buf[PATH_MAX], *parent;
	struct statfs fs;

	if (!statfs(ism_pin_dir(), &fs) && (unsigned int)fs.f_type == BPF_FS_MAGIC)
		return 0;
	snprintf(buf, sizeof(buf), "%s", ism_pin_dir());
	parent = dirname(buf);
	if (statfs(parent, &fs))
		return ism_err_set(err, -errno, "%s: %s; mount -t bpf bpf /sys/fs/bpf", parent,
				   strerror(errno));
	if ((unsigned int)fs.f_type != BPF_FS_MAGIC)
		return ism_err_set(err, -ENODEV,
				   "%s is not a bpffs, so nothing can stay loaded: "
				   "mount -t bpf bpf /sys/fs/bpf",
				   parent);
	return 0;
}

/* At most @tries times, a tenth of a second apart. */
static int lock_dir(int tries, struct ism_err *err)
{
	const char *dir = ism_pin_dir();
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		if (errno == ENOENT)
			return ism_err_set(err, -ENOENT, "not loaded (no %s)", dir);
		return ism_err_set(err, -errno, "%s: %s", dir, strerror(errno));
	}
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (--tries <= 0) {
			close(fd);
			return ism_err_set(err, -EBUSY, "another ismredir is at work on %s", dir);
		}
		usleep(100 * 1000);
	}
	return fd;
}

int ism_pins_lock(int create, struct ism_err *err)
{
	const char *dir = ism_pin_dir();

	if (create && mkdir(dir, 0700) && errno != EEXIST)
		return ism_err_set(err, -errno, "mkdir %s: %s", dir, strerror(errno));
	return lock_dir(100, err);
}

int ism_pins_try_lock(struct ism_err *err)
{
	return lock_dir(1, err);
}

static int open_pin(const char *name)
{
	char path[PATH_MAX];
	int fd, rc = ism_pin_path(path, sizeof(path), name);

	if (rc)
		return rc;
	fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

int ism_pins_open_map(const char *name)
{
	return open_pin(name);
}

int ism_pins_open_link(const char *name)
{
	return open_pin(name);
}

int ism_pins_each_link(int (*fn)(const char *name, void *arg), void *arg)
{
	DIR *d = opendir(ism_pin_dir());
	struct dirent *e;
	int rc = 0;

	if (!d)
		return -errno;
	while (!rc && (e = readdir(d)))
		if (!strncmp(e->d_name, LINK_PREFIX, strlen(LINK_PREFIX)))
			rc = fn(e->d_name, arg);
	closedir(d);
	return rc;
}

int ism_pins_remove(const char *name)
{
	char path[PATH_MAX];
	int rc = ism_pin_path(path, sizeof(path), name);

	if (rc)
		return rc;
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

/* Links first: a program must not run beside maps that are half gone. */
static int remove_matching(const char *dir, int links, struct ism_err *err)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(d))) {
		int is_link = !strncmp(e->d_name, LINK_PREFIX, strlen(LINK_PREFIX));

		if (e->d_name[0] == '.' || is_link != links)
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0) && errno != ENOENT)
			rc = ism_err_set(err, -errno, "unpin %s/%s: %s", dir, e->d_name,
					 strerror(errno));
	}
	closedir(d);
	return rc;
}

int ism_pins_remove_all(struct ism_err *err)
{
	const char *dir = ism_pin_dir();
	int rc = remove_matching(dir, 1, err);

	if (!rc)
		rc = remove_matching(dir, 0, err);
	/* EBUSY: a bpffs is mounted exactly here, and the empty directory may stay. */
	if (!rc && rmdir(dir) && errno != ENOENT && errno != EBUSY)
		rc = ism_err_set(err, -errno, "rmdir %s: %s", dir, strerror(errno));
	return rc;
}

/* libbpf's own maps (.rodata) belong to the program, not to the interface. */
static int is_internal(const struct bpf_map *map)
{
	return strchr(bpf_map__name(map), '.') != NULL;
}

int ism_pins_pin_maps(struct bpf_object *obj, struct ism_err *err)
{
	char path[PATH_MAX];
	struct bpf_map *map;
	int rc;

	bpf_object__for_each_map(map, obj)
	{
		if (is_internal(map))
			continue;
		rc = ism_pin_path(path, sizeof(path), bpf_map__name(map));
		if (!rc)
			rc = bpf_map__pin(map, path);
		if (rc)
			return ism_err_set(err, rc, "pin map %s: %s", path, strerror(-rc));
	}
	return 0;
}

int ism_pins_reuse_maps(struct bpf_object *obj, struct ism_err *err)
{
	struct bpf_map *map;
	int fd, rc;

	bpf_object__for_each_map(map, obj)
	{
		if (is_internal(map))
			continue;
		fd = open_pin(bpf_map__name(map));
		if (fd == -ENOENT)
			return ism_err_set(err, fd, "not loaded (no %s/%s)", ism_pin_dir(),
					   bpf_map__name(map));
		if (fd < 0)
			return ism_err_set(err, fd, "%s/%s: %s", ism_pin_dir(), bpf_map__name(map),
					   strerror(-fd));
		rc = bpf_map__reuse_fd(map, fd);
		close(fd);
		if (rc)
			return ism_err_set(err, rc,
					   "map %s of the running load does not fit this version: "
					   "unload it first",
					   bpf_map__name(map));
	}
	return 0;
}
