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
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_BUSY 64

const char *const nl_work_names[NL_WORKS] = {
	[NL_PING] = "ping", [NL_STREAM] = "stream", [NL_CONNECT] = "connect",
	[NL_HOLD] = "hold", [NL_IDLE] = "idle",
};

static const char usage_text[] =
	"usage: netload server ADDRESS [WORK] [OPTIONS]\n"
	"       netload client ADDRESS WORK [OPTIONS]\n"
	"       netload pair ADDRESS WORK [OPTIONS]    both, the server ends with the client\n"
	"       netload local pipe|file [OPTIONS]      no sockets: through pipes, or a file\n"
	"ADDRESS: 127.0.0.1:PORT, [::1]:PORT, unix:PATH or unix:@ABSTRACT\n"
	"WORK: ping     request and answer of --size bytes, latency\n"
	"      stream   one way in messages of --size bytes, rate\n"
	"      connect  connect, 32 bytes each way, close, rate\n"
	"      hold     to a reader that never reads, until blocked; memory\n"
	"      idle     --conns connections with --msgs messages each, left open; memory\n"
	"  --size BYTES           message size (64)\n"
	"  --read-size BYTES      receive buffer of a stream's reader (65536, at least --size)\n"
	"  --ms N                 how long to measure (500)\n"
	"  --warm-ms N            run this long before measuring (20)\n"
	"  --count N              at most N operations or sends\n"
	"  --cap BYTES            hold: at most this many bytes (268435456)\n"
	"  --spread N             connect: rotate over N addresses from 127.0.0.1 on\n"
	"  --conns N, --msgs N    idle: connections (500), messages on each (20)\n"
	"  --epoll                ping: wait in epoll_wait(), on non-blocking sockets\n"
	"  --nodelay              stream, hold: set TCP_NODELAY (ping always does)\n"
	"  --server-cgroup DIR, --client-cgroup DIR    join this cgroup before making sockets\n"
	"  --server-cpu N, --client-cpu N              run on this CPU (local: the client's)\n"
	"  --server-run PATH, --client-run PATH        pair: start this end by PATH run --\n"
	"  --busy N               pair: so many processes beside it that only burn CPU time\n"
	"  --ready-fd N           server: write a byte there once clients may come\n"
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
	OPT_SRUN,
	OPT_CRUN,
	OPT_CONNS,
	OPT_MSGS,
	OPT_EPOLL,
	OPT_BUSY,
	OPT_READY,
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
	{ "server-run", required_argument, NULL, OPT_SRUN },
	{ "client-run", required_argument, NULL, OPT_CRUN },
	{ "conns", required_argument, NULL, OPT_CONNS },
	{ "msgs", required_argument, NULL, OPT_MSGS },
	{ "epoll", no_argument, NULL, OPT_EPOLL },
	{ "busy", required_argument, NULL, OPT_BUSY },
	{ "ready-fd", required_argument, NULL, OPT_READY },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

/* Options that say where the ends run, and beside what. Return: whether it was one. */
static bool set_place(struct nl_opts *o, int opt, const char *arg)
{
	switch (opt) {
	case OPT_SCG:
		o->server_cgroup = arg;
		return true;
	case OPT_CCG:
		o->client_cgroup = arg;
		return true;
	case OPT_SCPU:
		o->server_cpu = number(arg, 0, CPU_SETSIZE - 1);
		return true;
	case OPT_CCPU:
		o->client_cpu = number(arg, 0, CPU_SETSIZE - 1);
		return true;
	case OPT_SRUN:
		o->server_run = arg;
		return true;
	case OPT_CRUN:
		o->client_run = arg;
		return true;
	case OPT_BUSY:
		o->busy = number(arg, 0, MAX_BUSY);
		return true;
	case OPT_READY:
		o->ready_fd = number(arg, 3, INT_MAX);
		return true;
	}
	return false;
}

/* Options that say what the work is. */
static void set_work(struct nl_opts *o, int opt, const char *arg)
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
	case OPT_CONNS:
		o->conns = number(arg, 1, 65536);
		break;
	case OPT_MSGS:
		o->msgs = number(arg, 1, 1 << 20);
		break;
	case OPT_NODELAY:
		o->nodelay = true;
		break;
	case OPT_EPOLL:
		o->epoll = true;
		break;
	case OPT_HELP:
		usage(NULL);
	default:
		usage("unknown option");
	}
}

static enum nl_work work_named(const char *name)
{
	int w = 0;

	while (w < NL_WORKS && strcmp(name, nl_work_names[w]))
		w++;
	if (w == NL_WORKS)
		usage("unknown work");
	return w;
}

static void parse(struct nl_opts *o, int argc, char **argv)
{
	int opt, rest;

	*o = (struct nl_opts){
		.size = 64,
		.read_size = 65536,
		.ms = 500,
		.warm_ms = 20,
		.cap = 256 << 20,
		.conns = 500,
		.msgs = 20,
		.server_cpu = -1,
		.client_cpu = -1,
		.ready_fd = -1,
	};
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (!set_place(o, opt, optarg))
			set_work(o, opt, optarg);
	}
	rest = argc - optind;
	if (!strcmp(argv[0], "local")) {
		if (rest != 1)
			usage("give the work");
		return;
	}
	if (rest != 2 && (rest != 1 || strcmp(argv[0], "server")))
		usage("give an address, and to a client or pair also the work");
	if (nl_parse_addr(argv[optind], &o->addr))
		usage("the address is none that is understood");
	o->work = rest == 2 ? work_named(argv[optind + 1]) : NL_PING;
	if (o->work == NL_PING || o->work == NL_IDLE)
		o->nodelay = true;
	if (o->read_size < o->size)
		o->read_size = o->size;
}

/* NL_IDLE holds many descriptors, and more of them where rings belong to a connection. */
static void raise_nofile(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
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

static void run_client(const struct nl_opts *o)
{
	alarm((o->ms + o->warm_ms) / 1000 + NL_IO_SECONDS + 2);
	enter(o->client_cgroup, o->client_cpu);
	nl_work(o);
	fflush(stdout);
}

static void run_server(const struct nl_opts *o)
{
	enter(o->server_cgroup, o->server_cpu);
	nl_serve(o);
}

static void run_local(const struct nl_opts *o, const char *what)
{
	enter(o->client_cgroup, o->client_cpu);
	if (nl_local(what, o))
		usage("the work is pipe or file");
}

/* Become one end: this very program with the options of the pair, perhaps by "PATH run --". */
static void __attribute__((noreturn))
become(const char *role, const char *run, int argc, char **argv, int ready_fd)
{
	char **args = calloc(argc + 8, sizeof(*args)), self[PATH_MAX] = "", fd[16];
	int n = 0;

	if (!args || readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		nl_die("netload");
	if (run) {
		args[n++] = (char *)run;
		args[n++] = "run";
		args[n++] = "--";
	}
	args[n++] = self;
	args[n++] = (char *)role;
	for (int i = 2; i < argc; i++)
		args[n++] = argv[i];
	if (ready_fd >= 0) {
		snprintf(fd, sizeof(fd), "%d", ready_fd);
		args[n++] = "--ready-fd";
		args[n++] = fd;
	}
	execv(args[0], args);
	nl_die(args[0]);
}

static pid_t fork_end(void)
{
	pid_t pid = fork();

	if (pid < 0)
		nl_die("fork");
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static pid_t spawn_server(const struct nl_opts *o, int argc, char **argv, int *ready)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		nl_die("pipe");
	pid = fork_end();
	if (!pid) {
		if (fcntl(fds[1], F_SETFD, 0))
			nl_die("fcntl");
		become("server", o->server_run, argc, argv, fds[1]);
	}
	close(fds[1]);
	*ready = fds[0];
	return pid;
}

static pid_t spawn_busy(void)
{
	pid_t pid = fork_end();
	volatile unsigned long n = 0;

	while (!pid)
		n++;
	return pid;
}

static int run_pair(const struct nl_opts *o, int argc, char **argv)
{
	pid_t server, client, busy[MAX_BUSY];
	int ready, status = -1;
	char c;

	server = spawn_server(o, argc, argv, &ready);
	for (unsigned int i = 0; i < o->busy; i++)
		busy[i] = spawn_busy();
	if (read(ready, &c, 1) == 1) {
		client = fork_end();
		if (!client)
			become("client", o->client_run, argc, argv, -1);
		waitpid(client, &status, 0);
	}
	close(ready);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	for (unsigned int i = 0; i < o->busy; i++) {
		kill(busy[i], SIGKILL);
		waitpid(busy[i], NULL, 0);
	}
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
	if (strcmp(role, "server") && strcmp(role, "client") && strcmp(role, "pair") &&
	    strcmp(role, "local"))
		usage("the first argument is server, client, pair or local");
	parse(&o, argc - 1, argv + 1);
	raise_nofile();
	if (!strcmp(role, "pair"))
		return run_pair(&o, argc, argv);
	if (!strcmp(role, "client"))
		run_client(&o);
	else if (!strcmp(role, "server"))
		run_server(&o);
	else
		run_local(&o, argv[argc - 1]);
	return 0;
}
