// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Finding the preloaded library, and judging a program by its ELF headers; see preload.h. Only what the
 * file says is looked at, in bounds that the file cannot stretch.
 */
#define _GNU_SOURCE
#include "preload.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_PHDRS   128
#define MAX_SCRIPTS 4 /* interpreters that are scripts themselves, as in the kernel */

/* ---------------------------------------------------------------- ELF */

/**
 * struct image - what matters of an ELF file
 * @elf: it is one
 * @class, @machine: of its header
 * @interp: PT_INTERP, empty when it has none
 */
struct image {
	int elf;
	int class;
	int machine;
	char interp[PATH_MAX];
};

/* One program header; 32-bit files have the members in another order. */
static int read_interp(int fd, const unsigned char *phdr, int class, struct image *im)
{
	Elf64_Phdr p64;
	Elf32_Phdr p32;
	__u64 off, len;

	if (class == ELFCLASS64) {
		memcpy(&p64, phdr, sizeof(p64));
		if (p64.p_type != PT_INTERP)
			return 0;
		off = p64.p_offset;
		len = p64.p_filesz;
	} else {
		memcpy(&p32, phdr, sizeof(p32));
		if (p32.p_type != PT_INTERP)
			return 0;
		off = p32.p_offset;
		len = p32.p_filesz;
	}
	if (!len || len >= sizeof(im->interp) || off > LLONG_MAX - len ||
	    pread(fd, im->interp, len, off) != (ssize_t)len)
		return -ENOEXEC;
	im->interp[len] = 0;
	return 1;
}

static int read_phdrs(int fd, __u64 off, unsigned int size, unsigned int n, struct image *im)
{
	size_t want = im->class == ELFCLASS64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	unsigned char buf[sizeof(Elf64_Phdr)];
	int rc = 0;

	if (size != want || off > LLONG_MAX - (__u64)MAX_PHDRS * want)
		return -ENOEXEC;
	for (unsigned int i = 0; !rc && i < n && i < MAX_PHDRS; i++) {
		if (pread(fd, buf, want, off + i * want) != (ssize_t)want)
			return -ENOEXEC;
		rc = read_interp(fd, buf, im->class, im);
	}
	return rc < 0 ? rc : 0;
}

/* Files of the other byte order are left alone: their machine differs anyway. */
static int read_image(int fd, struct image *im)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf64_Ehdr e64;
		Elf32_Ehdr e32;
	} h = {};
	ssize_t n = pread(fd, &h, sizeof(h), 0);

	memset(im, 0, sizeof(*im));
	if (n < (ssize_t)sizeof(h.e32) || memcmp(h.ident, ELFMAG, SELFMAG))
		return -ENOEXEC;
	im->elf = 1;
	im->class = h.ident[EI_CLASS];
	im->machine = h.e32.e_machine; /* at the same place in both */
	if (im->class == ELFCLASS64)
		return read_phdrs(fd, h.e64.e_phoff, h.e64.e_phentsize, h.e64.e_phnum, im);
	if (im->class == ELFCLASS32)
		return read_phdrs(fd, h.e32.e_phoff, h.e32.e_phentsize, h.e32.e_phnum, im);
	return -ENOEXEC;
}

static int open_image(const char *path, struct image *im)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc;

	if (fd < 0)
		return -errno;
	rc = read_image(fd, im);
	close(fd);
	return rc;
}

/* ---------------------------------------------------------------- the library */

static int usable(const char *path, struct ism_err *err)
{
	struct image lib = {}, own = {};
	int rc = open_image(path, &lib);

	if (rc == -ENOEXEC || (!rc && (open_image("/proc/self/exe", &own) ||
				       lib.class != own.class || lib.machine != own.machine)))
		return ism_err_set(err, -ENOEXEC, "%s is no library for this machine", path);
	if (rc)
		return ism_err_set(err, rc, "%s: %s", path, strerror(-rc));
	/* LD_PRELOAD has no way to quote these. */
	if (strpbrk(path, ": \t\n"))
		return ism_err_set(err, -EINVAL, "\"%s\": LD_PRELOAD takes no such path", path);
	return 0;
}

int preload_find(char *buf, size_t len, struct ism_err *err)
{
	const char *env = secure_getenv("ISMREDIR_PRELOAD");
	char exe[PATH_MAX];
	ssize_t n;

	if (env && *env)
		return (size_t)snprintf(buf, len, "%s", env) < len
			       ? usable(buf, err)
			       : ism_err_set(err, -ENAMETOOLONG, "ISMREDIR_PRELOAD is too long");
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n > 0) {
		exe[n] = 0;
		if ((size_t)snprintf(buf, len, "%s/" ISM_PRELOAD_NAME, dirname(exe)) < len &&
		    !access(buf, F_OK))
			return usable(buf, err);
	}
	if ((size_t)snprintf(buf, len, "%s", ISM_LIBDIR "/" ISM_PRELOAD_NAME) >= len)
		return ism_err_set(err, -ENAMETOOLONG, "%s: the path is too long", ISM_LIBDIR);
	return usable(buf, err);
}

/* ---------------------------------------------------------------- the program */

/* The interpreter of a script, into @buf. 0 when it is none. */
static int script_interp(const char *path, char *buf, size_t len)
{
	char line[256];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	ssize_t n;
	char *start;

	if (fd < 0)
		return 0;
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (n < 3 || line[0] != '#' || line[1] != '!')
		return 0;
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	start = line + 2 + strspn(line + 2, " \t");
	start[strcspn(start, " \t")] = 0;
	return *start && (size_t)snprintf(buf, len, "%s", start) < len;
}

/* ld.so ignores LD_PRELOAD where exec() changes who the process is. */
static int gains_privilege(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return 0;
	if ((st.st_mode & S_ISUID && st.st_uid != getuid()) ||
	    ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getgid()))
		return 1;
	return getuid() && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* Another C library's loader would not find what ours needs, and would give up. */
static int same_loader(const char *a, const char *b)
{
	char x[PATH_MAX], y[PATH_MAX];

	return realpath(a, x) && realpath(b, y) && !strcmp(x, y);
}

enum preload_fit preload_fit(const char *path, char *why, size_t len)
{
	struct image app, own;
	char file[PATH_MAX], next[PATH_MAX];

	if ((size_t)snprintf(file, sizeof(file), "%s", path) >= sizeof(file))
		return PRELOAD_FITS;
	for (int i = 0; i < MAX_SCRIPTS && script_interp(file, next, sizeof(next)); i++)
		memcpy(file, next, sizeof(file));
	if (gains_privilege(file)) {
		snprintf(why, len, "runs with more privileges than you have");
		return PRELOAD_IGNORED;
	}
	if (open_image(file, &app) || open_image("/proc/self/exe", &own))
		return PRELOAD_FITS;
	if (app.class != own.class || app.machine != own.machine) {
		snprintf(why, len, "is for another machine or word size");
		return PRELOAD_HARMS;
	}
	if (!app.interp[0]) {
		snprintf(why, len, "is linked statically");
		return PRELOAD_IGNORED;
	}
	if (!same_loader(app.interp, own.interp)) {
		snprintf(why, len, "uses another C library (%.80s)", app.interp);
		return PRELOAD_HARMS;
	}
	return PRELOAD_FITS;
}
