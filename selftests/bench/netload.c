// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * netload: one measured load over TCP or AF_UNIX; command line, and client and server as a pair.
 */
#include "netload.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const nl_work_names[NL_WORKS] = {
	[NL_PING] = "ping",
	[NL_STREAM] = "stream",
	[NL_CONNECT] = "connect",
	[NL_HOLD] = "hold",
};

static const char usage_text[] =
	"usage: netload server ADDRESS [OPTIONS]\n"
	"       netload client ADDRESS WORK [OPTIONS]\n"
	"       netload pair ADDRESS WORK [OPTIONS]    both, the server ends with the client\n"
	"ADDRESS: 127.0.0.1:PORT, [::1]:PORT, unix:PATH or unix:@ABSTRACT\n"
	"WORK: ping     request and answer of --size bytes, latency\n"
	"      stream   one way in messages of --size bytes, rate\n"
	"      connect  connect, 32 bytes each way, close, rate\n"
	"      hold     to a reader that never reads, until blocked; memory\n"
	"  --size BYTES           message size (64)\n"
	"  --read-size BYTES      receive buffer of a stream's reader (65536, at least --size)\n"
	"  --ms N                 how long to measure (500)\n"
	"  --warm-ms N            run this long before measuring (20)\n"
	"  --count N              at most N operations or sends\n"
	"  --cap BYTES            hold: at most this many bytes (268435456)\n"
	"  --spread N             connect: rotate over N addresses from 127.0.0.1 on\n"
	"  --nodelay              stream, hold: set TCP_NODELAY (ping always does)\n"
	"  --server-cgroup DIR, --client-cgroup DIR    join this cgroup before making sockets\n"
	"  --server-cpu N, --client-cpu N              run on this CPU\n"
	"The client prints one line of JSON.\n";

static void __attribute__((noreturn)) usage(const char *wrong)
{
	if (wrong)
		fprintf(stderr, "netload: %s\n", wrong);
	fputs(usage_text, wrong ? stderr : stdout);
	exit(wrong ? 2 : 0);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || n < min || n > max)
		usage("a number is malformed or out of range");
	return n;
}

enum {
	OPT_SIZE = 256,
	OPT_READ,
	OPT_MS,
	OPT_WARM,
	OPT_COUNT,
	OPT_CAP,
	OPT_SPREAD,
	OPT_NODELAY,
	OPT_SCG,
	OPT_CCG,
	OPT_SCPU,
	OPT_CCPU,
	OPT_HELP
};

static const struct option long_options[] = {
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "read-size", required_argument, NULL, OPT_READ },
	{ "ms", required_argument, NULL, OPT_MS },
	{ "warm-ms", required_argument, NULL, OPT_WARM },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "cap", required_argument, NULL, OPT_CAP },
	{ "spread", required_argument, NULL, OPT_SPREAD },
	{ "nodelay", no_argument, NULL, OPT_NODELAY },
	{ "server-cgroup", required_argument, NULL, OPT_SCG },
	{ "client-cgroup", required_argument, NULL, OPT_CCG },
	{ "server-cpu", required_argument, NULL, OPT_SCPU },
	{ "client-cpu", required_argument, NULL, OPT_CCPU },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static void set_option(struct nl_opts *o, int opt, const char *arg)
{
	switch (opt) {
	case OPT_SIZE:
		o->size = number(arg, 1, 64 << 20);
		break;
	case OPT_READ:
		o->read_size = number(arg, 1, 64 << 20);
		break;
	case OPT_MS:
		o->ms = number(arg, 1, 60000);
		break;
	case OPT_WARM:
		o->warm_ms = number(arg, 0, 60000);
		break;
	case OPT_COUNT:
		o->count = number(arg, 0, UINT64_MAX);
		break;
	case OPT_CAP:
		o->cap = number(arg, 1, UINT64_MAX);
		break;
	case OPT_SPREAD:
		o->spread = number(arg, 1, 65536);
		break;
	case OPT_NODELAY:
		o->nodelay = true;
		break;
	case OPT_SCG:
		o->server_cgroup = arg;
		break;
	case OPT_CCG:
		o->client_cgroup = arg;
		break;
	case OPT_SCPU:
		o->server_cpu = number(arg, 0, CPU_SETSIZE - 1);
		break;
	case OPT_CCPU:
		o->client_cpu = number(arg, 0, CPU_SETSIZE - 1);
		break;
	case OPT_HELP:
		usage(NULL);
	default:
		usage("unknown option");
	}
}

static void parse(struct nl_opts *o, int argc, char **argv, bool want_work)
{
	int opt, w;

	*o = (struct nl_opts){
		.size = 64,
		.read_size = 65536,
		.ms = 500,
		.warm_ms = 20,
		.cap = 256 << 20,
		.server_cpu = -1,
		.client_cpu = -1,
	};
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		set_option(o, opt, optarg);
	if (argc - optind != 1 + want_work)
		usage("give an address, and to a client or pair also the work");
	if (nl_parse_addr(argv[optind], &o->addr))
		usage("the address is none that is understood");
	for (w = 0; want_work && w < NL_WORKS && strcmp(argv[optind + 1], nl_work_names[w]); w++)
		;
	if (w == NL_WORKS)
		usage("unknown work");
	o->work = w;
	if (o->work == NL_PING)
		o->nodelay = true;
	if (o->read_size < o->size)
		o->read_size = o->size;
}

static void enter(const char *cgroup, int cpu)
{
	char path[PATH_MAX];
	cpu_set_t set;
	int fd;

	if (cgroup) {
		snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) != 1)
			nl_die(path);
		close(fd);
	}
	if (cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			nl_die("sched_setaffinity");
	}
}

static unsigned int client_seconds(const struct nl_opts *o)
{
	return (o->ms + o->warm_ms) / 1000 + NL_IO_SECONDS + 2;
}

static void run_client(const struct nl_opts *o)
{
	alarm(client_seconds(o));
	enter(o->client_cgroup, o->client_cpu);
	nl_work(o);
	fflush(stdout);
}

static pid_t spawn_server(const struct nl_opts *o, int *ready)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		nl_die("pipe");
	pid = fork();
	if (pid < 0)
		nl_die("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		enter(o->server_cgroup, o->server_cpu);
		nl_serve(o, fds[1]);
		_exit(0);
	}
	close(fds[1]);
	*ready = fds[0];
	return pid;
}

static pid_t spawn_client(const struct nl_opts *o)
{
	pid_t pid = fork();

	if (pid < 0)
		nl_die("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_client(o);
		_exit(0);
	}
	return pid;
}

static int run_pair(const struct nl_opts *o)
{
	int ready, status = -1;
	pid_t server, client;
	char c;

	server = spawn_server(o, &ready);
	if (read(ready, &c, 1) == 1) {
		client = spawn_client(o);
		waitpid(client, &status, 0);
	}
	close(ready);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	if (WIFSIGNALED(status))
		fprintf(stderr, "netload: client ended by signal %d\n", WTERMSIG(status));
	return status ? 1 : 0;
}

int main(int argc, char **argv)
{
	const char *role = argc > 1 ? argv[1] : "";
	struct nl_opts o;

	if (!strcmp(role, "--help"))
		usage(NULL);
	if (strcmp(role, "server") && strcmp(role, "client") && strcmp(role, "pair"))
		usage("the first argument is server, client or pair");
	parse(&o, argc - 1, argv + 1, strcmp(role, "server"));
	if (!strcmp(role, "pair"))
		return run_pair(&o);
	if (!strcmp(role, "client")) {
		run_client(&o);
		return 0;
	}
	enter(o.server_cgroup, o.server_cpu);
	nl_serve(&o, -1);
	return 0;
}
