/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the unit tests share: files made of text, a source of numbers, scratch directories. */
#ifndef ISM_UNIT_H
#define ISM_UNIT_H

#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNIT_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* The path of a file that holds @len bytes of @text and lives until the next call. */
static inline const char *unit_file_of(const char *text, size_t len)
{
	static char path[64];
	static int fd = -1;

	if (fd >= 0)
		close(fd);
	fd = memfd_create("unit", MFD_CLOEXEC);
	cr_assert(fd >= 0);
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, text + done, len - done);

		cr_assert(n > 0);
		done += n;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return path;
}

static inline const char *unit_file(const char *text)
{
	return unit_file_of(text, strlen(text));
}

/* A repeatable stream of 64-bit numbers (xorshift64*). */
static inline uint64_t unit_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dULL;
}

/* The path of something in the build, which run.sh names. */
static inline const char *unit_object(const char *name)
{
	static char path[4096];
	const char *build = getenv("ISM_UNIT_BUILD");

	snprintf(path, sizeof(path), "%s/%s", build ? build : "build", name);
	return path;
}

/* All of a file, ended by a zero byte; @ret_len may be NULL. To be freed. */
static inline char *unit_read(const char *path, size_t *ret_len)
{
	size_t room = 1 << 20, len;
	char *text = malloc(room);
	FILE *in = fopen(path, "re");

	cr_assert(text && in, "%s: %s", path, strerror(errno));
	while ((len = fread(text, 1, room - 1, in)) == room - 1) {
		rewind(in);
		room *= 2;
		text = realloc(text, room);
		cr_assert_not_null(text);
	}
	fclose(in);
	text[len] = 0;
	if (ret_len)
		*ret_len = len;
	return text;
}

/* A new directory below TMPDIR; the test removes it. */
static inline const char *unit_dir(void)
{
	static char path[256];
	const char *top = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%s/ismredir-unit-XXXXXX", top && *top ? top : "/tmp");
	cr_assert_not_null(mkdtemp(path));
	return path;
}

#endif
