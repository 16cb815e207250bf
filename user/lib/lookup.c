// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Looking up single things in a running load; see lookup.h. */
#define _GNU_SOURCE
#include "lookup.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "pins.h"

/* The kernel writes as much as the map's values have, so their size is checked first. */
static int open_map(const char *name, size_t value_size, struct ism_err *err)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	int fd = ism_pins_open_map(name), rc;

	if (fd == -ENOENT)
		return ism_err_set(err, fd, "not loaded (no %s/%s)", ism_pin_dir(), name);
	if (fd < 0)
		return ism_err_set(err, fd, "%s/%s: %s", ism_pin_dir(), name, strerror(-fd));
	rc = bpf_obj_get_info_by_fd(fd, &info, &len) ? -errno : 0;
	if (!rc && info.value_size != value_size)
		rc = -EPROTO;
	if (!rc)
		return fd;
	close(fd);
	return ism_err_set(err, rc, "map %s of the running load: %s", name,
			   rc == -EPROTO ? "another version made it" : strerror(-rc));
}

int ism_lookup_open(struct ism_lookup *ret, struct ism_err *err)
{
	int rc;

	*ret = (struct ism_lookup){ -1, -1 };
	rc = ret->conns = open_map("conns", sizeof(struct ism_conn), err);
	if (rc >= 0)
		rc = ret->sk_conn = open_map("sk_conn", sizeof(struct ism_sk), err);
	if (rc >= 0)
		return 0;
	ism_lookup_close(ret);
	return rc;
}

void ism_lookup_close(struct ism_lookup *l)
{
	if (l->conns >= 0)
		close(l->conns);
	if (l->sk_conn >= 0)
		close(l->sk_conn);
	*l = (struct ism_lookup){ -1, -1 };
}

int ism_lookup_socket(const struct ism_lookup *l, int sock, struct ism_sk *ret)
{
	return bpf_map_lookup_elem(l->sk_conn, &sock, ret) ? -errno : 0;
}

int ism_lookup_conn(const struct ism_lookup *l, __u64 token, struct ism_conn *ret)
{
	return bpf_map_lookup_elem(l->conns, &token, ret) ? -errno : 0;
}

int ism_lookup_ctl(struct ism_ctl *ret)
{
	int fd = open_map("ctl", sizeof(*ret), NULL), rc;
	__u32 zero = 0;

	if (fd < 0)
		return fd;
	rc = bpf_map_lookup_elem(fd, &zero, ret) ? -errno : 0;
	close(fd);
	return !rc && ret->format != ISM_MAPS_FORMAT ? -EPROTO : rc;
}

int ism_lookup_word(__u32 *ret)
{
	struct ism_ctl ctl;
	int rc = ism_lookup_ctl(&ctl);

	if (rc && rc != -ENOENT && rc != -EPROTO)
		return rc;
	*ret = rc ? ISM_WORD_OFF : ctl.word;
	return 0;
}
