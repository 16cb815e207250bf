// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Loads the naive sockmap accelerator on one cgroup, until standard input ends.
 *
 * Nothing is pinned: when this process ends, however it ends, the kernel takes everything away.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/naive.skel.h"

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int attach(struct naive_bpf *skel, const char *cgroup)
{
	int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct bpf_program *msg = skel->progs.naive_redirect;

	if (fd < 0)
		return fail(cgroup);
	if (bpf_prog_attach(bpf_program__fd(msg), bpf_map__fd(skel->maps.naive_socks),
			    BPF_SK_MSG_VERDICT, 0))
		return fail("attach sk_msg");
	skel->links.naive_sockops = bpf_program__attach_cgroup(skel->progs.naive_sockops, fd);
	close(fd);
	if (!skel->links.naive_sockops)
		return fail("attach sockops");
	return 0;
}

int main(int argc, char **argv)
{
	struct naive_bpf *skel;
	char c;

	if (argc != 2) {
		fputs("usage: naive CGROUP-DIRECTORY\n", stderr);
		return 2;
	}
	skel = naive_bpf__open_and_load();
	if (!skel)
		return fail("load");
	if (attach(skel, argv[1]))
		return 1;
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	naive_bpf__destroy(skel);
	return 0;
}
