// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What ismredird tells a running load; see announce.h. */
#define _GNU_SOURCE
#include "announce.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "lookup.h"
#include "pins.h"

static int says(const struct ism_ctl *ctl, const struct ism_announce *a)
{
	return !memcmp(ctl->fabrics, a->fabrics, sizeof(ctl->fabrics)) && ctl->relay == a->relay &&
	       ctl->n_direct == a->n_direct && !memcmp(ctl->direct, a->direct, sizeof(ctl->direct));
}

/* Under the lock that keeps `ismredir load` out; the programs themselves only count epoch up. */
static int change(int fd, const struct ism_announce *a)
{
	struct ism_ctl ctl;
	__u32 zero = 0;

	if (bpf_map_lookup_elem(fd, &zero, &ctl))
		return -errno;
	memcpy(ctl.fabrics, a->fabrics, sizeof(ctl.fabrics));
	ctl.relay = a->relay;
	ctl.n_direct = a->n_direct;
	memcpy(ctl.direct, a->direct, sizeof(ctl.direct));
	ctl.epoch++;
	return bpf_map_update_elem(fd, &zero, &ctl, BPF_ANY) ? -errno : 1;
}

int ism_announce(const struct ism_announce *a, struct ism_err *err)
{
	struct ism_ctl ctl;
	int lock, fd, rc = ism_lookup_ctl(&ctl);

	if (rc || says(&ctl, a))
		return rc == -EPROTO ? -ENOENT : rc;
	lock = ism_pins_try_lock(err);
	if (lock < 0)
		return lock;
	fd = ism_pins_open_map("ctl");
	rc = fd < 0 ? fd : change(fd, a);
	if (fd >= 0)
		close(fd);
	close(lock);
	return rc < 0 ? ism_err_set(err, rc, "map ctl: %s", strerror(-rc)) : rc;
}
