// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A peer to look at: `hold SPEC TOKEN` registers a DMB, writes to it, says so, and waits for the end of its input. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <ismredir/fabric.h>
#include "err.h"

int main(int argc, char **argv)
{
	struct ism_dmb_params p = { .len = 10000 };
	struct ism_err err = {};
	struct ism_fabric *f;
	struct ism_event e[4];
	struct ism_dmb *d;
	int rc;

	if (argc != 3)
		return 2;
	rc = ism_fabric_open(argv[1], &f, &err);
	if (rc) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	p.token = strtoull(argv[2], NULL, 16);
	p.partner = f->info.gid;
	if (ism_fabric_register_dmb(f, &p, &d) || ism_fabric_move_data(f, p.token, 0, "x", 1, 1))
		return 1;
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct pollfd fd[2] = { { .fd = ism_fabric_event_fd(f), .events = POLLIN },
					{ .fd = 0, .events = POLLIN } };

		if (poll(fd, 2, -1) < 0 || fd[1].revents)
			break;
		ism_fabric_read_events(f, e, 4);
	}
	ism_fabric_close(f);
	return 0;
}
