// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ismredir: the command table, global options, and help. */
#define _GNU_SOURCE
#include "cli.h"
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <ismredir/maps.h>
#include <ismredir/option.h>
#include "pins.h"

static int cmd_help(struct cli *c, int argc, char **argv);
static int cmd_version(struct cli *c, int argc, char **argv);

static const struct cli_command commands[] = {
	{ "check", "", "what this kernel can do, and why not", cmd_check, 0 },
	{ "load",
	  "[--cgroup PATH] [--port N[-M]] [--peer CIDR] [--comm NAME] [--plane tcp|skmsg|direct]\n"
	  "         [--default tcp|skmsg|direct] [--config FILE] [--max-conns N] [--set NAME=VALUE] [--replace] [--skip-tests]",
	  "accelerate what is selected", cmd_load, 0 },
	{ "unload", "[--timeout SECONDS]", "drain, detach and take everything away", cmd_unload,
	  0 },
	{ "run", "[--after MESSAGES[,BYTES]] [--quiet] [--] PROGRAM [ARGS...]",
	  "start a program whose connections may use rings (the direct plane)", cmd_run, 1 },
	{ "status", "", "planes, counters, fallbacks by reason", cmd_status, 0 },
	{ "conns", "[-l] [port N] [comm NAME] [plane PLANE] [netns COOKIE] [state STATE]",
	  "connections, with bytes by plane and the reason for TCP", cmd_conns, 0 },
	{ "dmbs", "", "the rings that ismredird knows", cmd_dmbs, 0 },
	{ "fabric",
	  "format SPEC [--size BYTES] [--peers N] [--dmbs N] [--unit BYTES] [--force]\n"
	  "         fabric show SPEC\n"
	  "         fabric fsck SPEC [--repair] [--evict PEER]",
	  "make, show and check memory that is shared by hosts", cmd_fabric, 0 },
	{ "fabrics", "", "what ismredird has open for rings", cmd_fabrics, 0 },
	{ "peers", "", "hosts that were seen capable", cmd_peers, 0 },
	{ "policy", "", "the rules in force", cmd_policy, 0 },
	{ "explain", "CODE|NAME|all", "what a reason means and how to get rid of it", cmd_explain,
	  0 },
	{ "version", "", "version and features", cmd_version, 0 },
	{ "help", "[COMMAND]", "this text", cmd_help, 0 },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* libbpf speaks only to those who ask twice. */
static int verbose;

static int libbpf_line(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	if (verbose < 2 || (level == LIBBPF_DEBUG && verbose < 3))
		return 0;
	return vfprintf(stderr, fmt, ap);
}

static void print_command(const struct cli_command *cmd)
{
	printf("  %-8s %s\n", cmd->name, cmd->help);
	if (*cmd->args)
		printf("         %s %s\n", cmd->name, cmd->args);
}

/* A unique prefix is enough; an exact name always wins. NULL with @other: the prefix is of two. */
static const struct cli_command *look_up(const char *name, const struct cli_command **first,
					 const struct cli_command **other)
{
	*first = *other = NULL;
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
		if (strncmp(commands[i].name, name, strlen(name)))
			continue;
		if (!*first)
			*first = &commands[i];
		else if (!*other)
			*other = &commands[i];
	}
	return *other ? NULL : *first;
}

static const struct cli_command *find_command(const struct cli *c, const char *name)
{
	const struct cli_command *first, *other, *found = look_up(name, &first, &other);

	if (!found && other)
		cli_usage(c, "\"%s\" is ambiguous: %s or %s", name, first->name, other->name);
	else if (!found)
		cli_usage(c, "unknown command \"%s\"", name);
	return found;
}

static int is_raw(const char *name)
{
	const struct cli_command *first, *other, *found = look_up(name, &first, &other);

	return found && found->raw;
}

static int cmd_help(struct cli *c, int argc, char **argv)
{
	if (argc > 1)
		return cli_usage(c, "unexpected argument \"%s\"", argv[1]);
	if (argc) {
		const struct cli_command *cmd = find_command(c, argv[0]);

		if (!cmd)
			return CLI_USAGE;
		print_command(cmd);
		printf("See ismredir(8).\n");
		return CLI_OK;
	}
	puts("Usage: ismredir [-j|-p] [-v] COMMAND [ARGS]\n\nCommands (a unique prefix is enough):");
	for (size_t i = 0; i < N_COMMANDS; i++)
		print_command(&commands[i]);
	puts("\nOptions:\n  -j  JSON   -p  pretty JSON   -vv  libbpf's messages, -vvv all of them\n"
	     "Exit status: 0 ok, 1 failed, 2 usage.");
	return CLI_OK;
}

static int cmd_version(struct cli *c, int argc, char **argv)
{
	struct json_object *o;

	if (cli_no_args(c, argc, argv))
		return CLI_USAGE;
	if (!c->json) {
		printf("ismredir %s\nmap format %d, option version %d, libbpf %s, planes: tcp skmsg direct\n",
		       ISM_VERSION, ISM_MAPS_FORMAT, ISM_OPT_VERSION, libbpf_version_string());
		return CLI_OK;
	}
	o = json_object_new_object();
	put_str(o, "version", ISM_VERSION);
	put_u64(o, "map_format", ISM_MAPS_FORMAT);
	put_u64(o, "option_version", ISM_OPT_VERSION);
	put_str(o, "libbpf", libbpf_version_string());
	put_str(o, "pin_dir", ism_pin_dir());
	cli_print_json(c, o);
	return CLI_OK;
}

/*
 * Take the global options out of what follows the verb: `conns -j` is as good as `-j conns`. An
 * argument that is the value of an option never looks like one of them.
 */
static int take_globals(struct cli *c, int argc, char **argv)
{
	int n = 0;

	for (int i = 0; i < argc; i++) {
		const char *a = argv[i];

		if (a[0] != '-' || !a[1] || strspn(a + 1, "jpv") != strlen(a + 1)) {
			argv[n++] = argv[i];
			continue;
		}
		for (a++; *a; a++) {
			c->json |= *a != 'v';
			c->pretty |= *a == 'p';
			c->verbose += *a == 'v';
		}
	}
	return n;
}

int main(int argc, char **argv)
{
	struct cli c = {};
	const struct cli_command *cmd;
	int opt, status;

	opterr = 0;

	while ((opt = getopt(argc, argv, "+jpvhV")) != -1) {
		switch (opt) {
		case 'p':
			c.pretty = 1;
			/* fall through */
		case 'j':
			c.json = 1;
			break;
		case 'v':
			c.verbose++;
			break;
		case 'h':
			return cmd_help(&c, 0, NULL);
		case 'V':
			return cmd_version(&c, 0, NULL);
		default:
			return cli_usage(&c, "unknown option \"-%c\"", optopt);
		}
	}
	if (optind < argc && !is_raw(argv[optind]))
		argc = optind + take_globals(&c, argc - optind, argv + optind);
	verbose = c.verbose;
	libbpf_set_print(libbpf_line);
	if (optind == argc) {
		cmd_help(&c, 0, NULL);
		return CLI_USAGE;
	}
	cmd = find_command(&c, argv[optind]);
	if (!cmd)
		return CLI_USAGE;
	status = cmd->run(&c, argc - optind - 1, argv + optind + 1);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "ismredir: standard output: %s\n", strerror(errno));
		return CLI_FAIL;
	}
	return status;
}
