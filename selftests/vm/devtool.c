/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an ivshmem spec opens, without a region in it: its memory and its bells, step by step.
 *
 *   devtool SPEC STEP...
 *
 * Steps: info; put OFFSET TEXT; get OFFSET; ring PEER; wait MS (for a bell); sleep MS; gone PEER; look FD_MS (wait
 * for text at offset 0, by polling). Prints a line for each that has something to say; status 1 when a
 * bell or a text does not come.
 */
#include <ismredir/fabric.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "err.h"
#include "ivshmem_dev.h"
#include "region.h"

static struct region_dev dev;

static int fail(const char *what)
{
	printf("%s\n", what);
	return 1;
}

static char *at(const char *offset)
{
	size_t off = strtoull(offset, NULL, 0);

	if (off >= dev.len)
		exit(fail("beyond the end"));
	return (char *)dev.base + off;
}

static int wait_bell(const char *ms)
{
	struct pollfd p = { .fd = dev.bell_fd, .events = POLLIN };
	eventfd_t n;

	if (dev.bell_fd < 0)
		return fail("no bell");
	if (poll(&p, 1, atoi(ms)) != 1)
		return fail("not rung");
	if (dev.ops->drain)
		dev.ops->drain(&dev);
	else if (read(dev.bell_fd, &n, sizeof(n)) != sizeof(n))
		return fail("no count");
	if (poll(&p, 1, 0))
		return fail("rung again");
	puts("rung");
	return 0;
}

static int wait_text(const char *ms)
{
	volatile char *c = dev.base;

	for (int i = 0; i < atoi(ms); i++) {
		if (*c) {
			printf("%s\n", (char *)dev.base);
			return 0;
		}
		usleep(1000);
	}
	return fail("no text");
}

static void info(void)
{
	printf("peer %lld, %llu bytes, %s, %s, %s\n", dev.number, dev.len,
	       dev.bell_fd >= 0 ? "bell" : "no bell", dev.ops->ring ? "rings" : "silent",
	       dev.is_coherent ? "coherent" : "not coherent");
}

/* Returns how many words the step had, 0 for one that is not known; *@ret is its status. */
static int step(char **s, int n, int *ret)
{
	*ret = 0;
	if (!strcmp(s[0], "info")) {
		info();
		return 1;
	}
	if (n >= 3 && !strcmp(s[0], "put")) {
		strcpy(at(s[1]), s[2]);
		return 3;
	}
	if (n < 2)
		return 0;
	if (!strcmp(s[0], "get"))
		printf("%s\n", at(s[1]));
	else if (!strcmp(s[0], "ring"))
		dev.ops->ring(&dev, atoi(s[1]));
	else if (!strcmp(s[0], "wait"))
		*ret = wait_bell(s[1]);
	else if (!strcmp(s[0], "look"))
		*ret = wait_text(s[1]);
	else if (!strcmp(s[0], "sleep"))
		usleep(atoi(s[1]) * 1000);
	else if (!strcmp(s[0], "gone"))
		printf("gone %d\n", dev.ops->peer_gone ? dev.ops->peer_gone(&dev, atoi(s[1])) : -2);
	else
		return 0;
	return 2;
}

int main(int argc, char **argv)
{
	struct ism_err err = {};
	const char *options;
	int status = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2)
		return fail("usage: devtool SPEC STEP...");
	if (ism_ivshmem_open(argv[1], &dev, &options, &err))
		return fail(err.text);
	for (int i = 2, n; i < argc && !status; i += n) {
		n = step(argv + i, argc - i, &status);
		if (!n)
			return fail(argv[i]);
	}
	if (dev.lock_fd >= 0)
		close(dev.lock_fd);
	dev.ops->close(&dev);
	return status;
}
