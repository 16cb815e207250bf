// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What several providers need; see util.h. */
#define _GNU_SOURCE
#include "util.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---------------------------------------------------------------- numbers */

static int number(const char *text, char **ret_end, __u64 *ret)
{
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*ret = strtoull(text, ret_end, 10);
	return errno ? -EINVAL : 0;
}

int fabric_number(const char *text, __u64 min, __u64 max, __u64 *ret)
{
	char *end;
	__u64 v;

	if (number(text, &end, &v) || *end || v < min || v > max)
		return -EINVAL;
	*ret = v;
	return 0;
}

int fabric_size(const char *text, __u64 min, __u64 max, __u64 *ret)
{
	static const char units[] = "KMG";
	const char *unit;
	int shift = 0;
	char *end;
	__u64 v;

	if (number(text, &end, &v))
		return -EINVAL;
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unit - units + 1);
		end++;
	}
	if (*end || v > ~0ULL >> shift || v << shift < min || v << shift > max)
		return -EINVAL;
	*ret = v << shift;
	return 0;
}

/* ---------------------------------------------------------------- names */

int fabric_random_gid(struct ism_gid *ret)
{
	if (getrandom(ret, sizeof(*ret), 0) != sizeof(*ret))
		return -EIO;
	ret->b[6] = (ret->b[6] & 0x0f) | 0x40;
	ret->b[8] = (ret->b[8] & 0x3f) | 0x80;
	return 0;
}

int fabric_boot_uuid(struct ism_gid *ret)
{
	char text[64];
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC), digits = 0;
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	if (fd >= 0)
		close(fd);
	memset(ret, 0, sizeof(*ret));
	for (ssize_t i = 0; i < n && digits < 32; i++) {
		const char *hex = "0123456789abcdef", *at = text[i] ? strchr(hex, text[i]) : NULL;

		if (!at)
			continue;
		ret->b[digits / 2] |= (at - hex) << (digits % 2 ? 0 : 4);
		digits++;
	}
	return digits == 32 ? 0 : -ENODEV;
}

int fabric_same_gid(const struct ism_gid *a, const struct ism_gid *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/* ---------------------------------------------------------------- descriptors */

int fabric_reopen(int fd, int flags)
{
	char path[32];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

void fabric_ring_fd(int fd)
{
	const __u64 one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n;
}

ssize_t fabric_take_bell(int fd)
{
	__u64 count;
	struct iovec v = { &count, sizeof(count) };
	ssize_t n = preadv2(fd, &v, 1, -1, RWF_NOWAIT);

	/* what is no eventfd, or one of a kernel before 5.8 */
	if (n < 0 && errno == EOPNOTSUPP)
		n = read(fd, &count, sizeof(count));
	return n < 0 ? -errno : n;
}

/* ---------------------------------------------------------------- labels */

int fabric_has_label(const struct fabric_labels *l, __u16 vlan)
{
	return vlan == ISM_VLAN_NONE || (l->bits[vlan / 8] & 1 << vlan % 8);
}

int fabric_add_label(struct fabric_labels *l, __u16 vlan)
{
	if (fabric_has_label(l, vlan))
		return -EEXIST;
	l->bits[vlan / 8] |= 1 << vlan % 8;
	return 0;
}

void fabric_del_label(struct fabric_labels *l, __u16 vlan)
{
	l->bits[vlan / 8] &= ~(1 << vlan % 8);
}
