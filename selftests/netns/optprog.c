// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * optprog MODE CGROUP: attach one of the programs of optprog.bpf.c to a cgroup of a test.
 *
 * Prints "attached" and stays until SIGTERM; then detaches and prints how often the program acted.
 * Nothing is pinned, so nothing can stay behind.
 */
#define _GNU_SOURCE
#include "optprog.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { SYN = 1, SYNACK = 2 };

#define EXID  0xc9, 0xe2, 0xd4, 0xd9
#define TOKEN 0x5a, 0xa5, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc

/* Options that are written as they stand. */
static const struct option_mode {
	const char *name;
	int where;
	unsigned char len, bytes[20];
} option_modes[] = {
	{ "smc", SYN | SYNACK, 6, { 254, 6, 0xe2, 0xd4, 0xc3, 0xd9 } },
	{ "fill", SYN | SYNACK, 20, { 254, 20, 0xde, 0xad, 0xbe, 0xef } },
	{ "fill-syn", SYN, 20, { 254, 20, 0xde, 0xad, 0xbe, 0xef } },
	{ "fill-synack", SYNACK, 20, { 254, 20, 0xde, 0xad, 0xbe, 0xef } },
	{ "answer-version", SYNACK, 18, { 254, 18, EXID, 0x28, 0, 0, 0, TOKEN } },
	{ "answer-token", SYNACK, 18, { 254, 18, EXID, 0x18, 0, 0, 0, TOKEN } },
	{ "answer-zero", SYNACK, 18, { 254, 18, EXID, 0x18, 0, 0, 0 } },
	{ "answer-short", SYNACK, 10, { 254, 10, EXID, 0x18, 0, 0, 0 } },
	{ "answer-long", SYNACK, 20, { 254, 20, EXID, 0x18, 0, 0, 0, TOKEN } },
	{ "offer-version", SYN, 18, { 254, 18, EXID, 0x20, 0, 0, 0, TOKEN } },
	{ "offer-token", SYN, 18, { 254, 18, EXID, 0x10, 0, 0, 0, TOKEN } },
	{ "offer-role", SYN, 18, { 254, 18, EXID, 0x18, 0, 0, 0, TOKEN } },
	{ "offer-short", SYN, 10, { 254, 10, EXID, 0x10, 0, 0, 0 } },
	{ NULL, 0, 0, { 0 } },
};

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static const struct option_mode *find_option(const char *name)
{
	for (const struct option_mode *m = option_modes; m->name; m++)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}

static struct bpf_program *choose(struct optprog_bpf *skel, const char *mode)
{
	const struct option_mode *m = find_option(mode);

	if (m) {
		memcpy((void *)skel->rodata->option, m->bytes, sizeof(m->bytes));
		/* Another token in every run. */
		if (m->len >= 18 && m->bytes[17])
			skel->rodata->option[17] = 1 + (getpid() ^ time(NULL)) % 255;
		skel->rodata->option_len = m->len;
		skel->rodata->on_syn = !!(m->where & SYN);
		skel->rodata->on_synack = !!(m->where & SYNACK);
		return skel->progs.opt_write;
	}
	if (!strcmp(mode, "echo"))
		return skel->progs.opt_echo;
	if (!strcmp(mode, "foreign") || !strcmp(mode, "naive"))
		return skel->progs.opt_insert;
	fprintf(stderr, "no such mode: %s\n", mode);
	exit(2);
}

static void attach_msg(struct optprog_bpf *skel, const char *mode)
{
	struct bpf_program *prog = NULL;

	if (!strcmp(mode, "foreign"))
		prog = skel->progs.msg_pass;
	if (!strcmp(mode, "naive"))
		prog = skel->progs.msg_naive;
	if (prog && bpf_prog_attach(bpf_program__fd(prog), bpf_map__fd(skel->maps.theirs),
				    BPF_SK_MSG_VERDICT, 0))
		die("attach to the sockhash");
}

static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigprocmask(SIG_BLOCK, set, NULL);
}

int main(int argc, char **argv)
{
	struct optprog_bpf *skel;
	struct bpf_program *prog;
	struct bpf_link *link;
	int cgroup, sig;
	sigset_t set;

	if (argc != 3) {
		fprintf(stderr, "usage: optprog MODE CGROUP\n");
		return 2;
	}
	block_signals(&set);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	skel = optprog_bpf__open();
	if (!skel)
		die("open the programs");
	prog = choose(skel, argv[1]);
	if (optprog_bpf__load(skel))
		die("load the programs");
	attach_msg(skel, argv[1]);
	cgroup = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cgroup < 0)
		die(argv[2]);
	link = bpf_program__attach_cgroup(prog, cgroup);
	if (!link)
		die("attach to the cgroup");
	printf("attached\n");
	fflush(stdout);
	sigwait(&set, &sig);
	bpf_link__destroy(link);
	printf("done %llu failed %llu\n", (unsigned long long)skel->bss->done,
	       (unsigned long long)skel->bss->failed);
	optprog_bpf__destroy(skel);
	return 0;
}
