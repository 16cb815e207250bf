// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ismredird: hands the two ends of a connection the rings over which they talk. Options, start, end. */
#define _GNU_SOURCE
#include <cap-ng.h>
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>
#include <ismredir/relay.h>
#include "control_client.h"
#include "daemon.h"
#include "log.h"
#include "server.h"

enum {
	EXIT_FAIL = 1,
	EXIT_USAGE = 2,
};

enum {
	OPT_SOCKET = 256,
	OPT_MODE,
	OPT_GROUP,
	OPT_FABRIC,
	OPT_LIMIT_TOTAL,
	OPT_LIMIT_UID,
	OPT_RING_SIZE,
	OPT_POOL,
	OPT_MAX_CLIENTS,
	OPT_RELAY,
	OPT_CROWD,
	OPT_FOREGROUND,
};

static const struct option long_options[] = {
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "socket-mode", required_argument, NULL, OPT_MODE },
	{ "socket-group", required_argument, NULL, OPT_GROUP },
	{ "fabric", required_argument, NULL, OPT_FABRIC },
	{ "limit-total", required_argument, NULL, OPT_LIMIT_TOTAL },
	{ "limit-uid", required_argument, NULL, OPT_LIMIT_UID },
	{ "ring-size", required_argument, NULL, OPT_RING_SIZE },
	{ "pool", required_argument, NULL, OPT_POOL },
	{ "max-clients", required_argument, NULL, OPT_MAX_CLIENTS },
	{ "relay", no_argument, NULL, OPT_RELAY },
	{ "crowd", required_argument, NULL, OPT_CROWD },
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{},
};

static void print_help(void)
{
	printf("usage: ismredird [OPTIONS]\n"
	       "Hands rings in shared memory to the two ends of a connection.\n\n"
	       "  --socket PATH        where clients connect (ISMREDIR_SOCK, %s)\n"
	       "  --socket-mode MODE   octal, 0666: every user may prove its own connections\n"
	       "  --socket-group GROUP group of the socket\n"
	       "  --fabric SPEC        memory for the rings (memfd:); one that reaches other\n"
	       "                       kernels is used beside it, and may be repeated\n"
	       "  --relay              move bytes of programs that cannot use rings, too, where the\n"
	       "                       partner is of another kernel\n"
	       "  --crowd N            of more ends at once those with small messages go back to TCP\n"
	       "                       when the relay is always busy; 0: none (8)\n"
	       "  --ring-size SIZE     of each direction, a power of two, 64k to 64M (2M, smaller when\n"
	       "                       memory gets short; 1M to other kernels)\n"
	       "  --limit-total SIZE   memory of all rings (a quarter of the host's)\n"
	       "  --limit-uid SIZE     the same for one user (half of --limit-total)\n"
	       "  --pool N             buffers kept ready (16)\n"
	       "  --max-clients N      connected processes (4096)\n"
	       "  --foreground         the default; there is no other\n"
	       "  -h, --help           this\n"
	       "  -V, --version\n",
	       ISM_CONTROL_SOCK);
}

/* ---------------------------------------------------------------- options */

/* Digits and at most one of k, M, G. */
static int parse_size(const char *text, __u64 *ret)
{
	static const char units[] = "kMG";
	const char *unit;
	char *end;
	unsigned long long v;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	unit = *end ? strchr(units, *end) : NULL;
	if (errno || (*end && (!unit || end[1])))
		return -EINVAL;
	for (int i = unit ? unit - units + 1 : 0; i; i--)
		if (__builtin_mul_overflow(v, 1024, &v))
			return -ERANGE;
	*ret = v;
	return 0;
}

static int parse_number(const char *text, unsigned int base, unsigned int min, unsigned int max,
			unsigned int *ret)
{
	unsigned long v;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	v = strtoul(text, &end, base);
	if (*end || errno || v < min || v > max)
		return -EINVAL;
	*ret = v;
	return 0;
}

static int parse_group(const char *name, gid_t *ret)
{
	struct group *g = getgrnam(name);
	unsigned int id;

	if (g) {
		*ret = g->gr_gid;
		return 0;
	}
	if (parse_number(name, 10, 0, 0x7fffffff, &id))
		return -EINVAL;
	*ret = id;
	return 0;
}

static int set_option(struct options *o, int opt, const char *arg)
{
	switch (opt) {
	case OPT_SOCKET:
		o->socket = arg;
		return *arg ? 0 : -EINVAL;
	case OPT_MODE:
		return parse_number(arg, 8, 0, 0777, &o->mode);
	case OPT_GROUP:
		return parse_group(arg, &o->group);
	case OPT_RELAY:
		o->relay = 1;
		return 0;
	case OPT_CROWD:
		return parse_number(arg, 10, 0, ISM_MAX_RELAYS, &o->crowd);
	case OPT_FABRIC:
		if (o->n_fabrics == MAX_FABRICS)
			return -E2BIG;
		o->fabrics[o->n_fabrics++] = arg;
		return 0;
	case OPT_LIMIT_TOTAL:
		return parse_size(arg, &o->limit_total);
	case OPT_LIMIT_UID:
		return parse_size(arg, &o->limit_uid);
	case OPT_RING_SIZE:
		return parse_size(arg, &o->ring_size) ?: o->ring_size ? 0 : -EINVAL;
	case OPT_POOL:
		return parse_number(arg, 10, 0, 4096, &o->pool);
	case OPT_MAX_CLIENTS:
		return parse_number(arg, 10, 1, 1 << 20, &o->max_clients);
	}
	return 0;
}

static int usage(const char *fmt, const char *what)
{
	fprintf(stderr, "ismredird: ");
	fprintf(stderr, fmt, what);
	fprintf(stderr, "; see ismredird --help\n");
	return EXIT_USAGE;
}

static int check_sizes(struct options *o)
{
	__u64 pair;

	if (o->ring_size && !ism_is_ring_size(o->ring_size))
		return usage("--ring-size: %s", "expected a power of two from 64k to 64M");
	pair = 2 * ism_dmb_len(o->ring_size ? o->ring_size : PAIRS_RING_LEAST);
	if (!o->limit_uid)
		o->limit_uid = o->limit_total / 2 > pair ? o->limit_total / 2 : o->limit_total;
	if (o->limit_total < pair || o->limit_uid < pair)
		return usage("%s: less than the rings of one connection",
			     o->limit_total < pair ? "--limit-total" : "--limit-uid");
	return -1;
}

/* Returns an exit status, or -1 to go on. */
static int parse_options(int argc, char **argv, struct options *o)
{
	int opt, at = 0;

	while ((opt = getopt_long(argc, argv, "hV", long_options, &at)) != -1) {
		if (opt == '?')
			return usage("%s", "bad usage");
		if (opt == 'h') {
			print_help();
			return 0;
		}
		if (opt == 'V') {
			printf("ismredird %s\n", ISM_VERSION);
			return 0;
		}
		if (set_option(o, opt, optarg)) {
			fprintf(stderr, "ismredird: --%s: \"%s\" is not understood\n",
				long_options[at].name, optarg);
			return EXIT_USAGE;
		}
	}
	if (optind < argc)
		return usage("unexpected argument \"%s\"", argv[optind]);
	return check_sizes(o);
}

/* ---------------------------------------------------------------- start */

/* Three descriptors for each DMB. */
static void raise_nofile(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return;
	lim.rlim_cur = lim.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &lim))
		log_line(LOG_WARNING, "RLIMIT_NOFILE: %s", strerror(errno));
}

/*
 * What is left is CAP_BPF, for reading maps where kernel.unprivileged_bpf_disabled forbids it to others.
 * A relay also makes sockets in TCP_REPAIR, and loads programs, which look up a kernel symbol, when a load
 * comes. The pins are for root only, so the user stays root.
 */
static void drop_privileges(int relay)
{
	static const int keep[] = { CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYSLOG };
	const int n = relay ? sizeof(keep) / sizeof(keep[0]) : 1;
	int may[sizeof(keep) / sizeof(keep[0])];
	int may_bound = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);

	for (int i = 0; i < n; i++)
		may[i] = capng_have_capability(CAPNG_PERMITTED, keep[i]);
	capng_clear(CAPNG_SELECT_BOTH);
	for (int i = 0; i < n; i++)
		if (may[i])
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, keep[i]);
	if (capng_apply(may_bound ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS))
		log_line(LOG_WARNING, "capabilities cannot be dropped");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		log_line(LOG_WARNING, "PR_SET_NO_NEW_PRIVS: %s", strerror(errno));
}

/*
 * The file of a region was truncated. To go on with zeros in its place would be to hand them to programs as
 * bytes of their partners, so this ends us, and the guard resets what loses bytes. Say why; SA_RESETHAND
 * and the same access again do the rest.
 */
static void on_bus(int sig)
{
	static const char text[] =
		"memory of a fabric is gone (SIGBUS): was the file of a region truncated?\n";
	ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);

	(void)sig;
	(void)n;
}

/* Before any thread is there: threads inherit the mask. */
static void block_signals(void)
{
	const struct sigaction bus = { .sa_handler = on_bus, .sa_flags = SA_RESETHAND };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGBUS, &bus, NULL);
}

static int add_signals(struct daemon *d)
{
	int rc = sd_event_add_signal(d->event, NULL, SIGTERM, NULL, NULL);

	if (rc >= 0)
		rc = sd_event_add_signal(d->event, NULL, SIGINT, NULL, NULL);
	if (rc >= 0)
		rc = sd_event_set_watchdog(d->event, 1);
	return rc;
}

static const char *fabric_names(const struct daemon *d, char *buf, size_t len)
{
	int n = snprintf(buf, len, "%s", d->fabric->info.spec);

	for (unsigned int i = 0; i < d->n_remotes && n < (int)len; i++)
		n += snprintf(buf + n, len - n, " %s", d->remotes[i]->fabric->info.spec);
	return buf;
}

/* sd_event_loop(), but that the relay may work while this thread sleeps. */
static int event_loop(struct daemon *d)
{
	int rc = 0;

	while (rc >= 0 && sd_event_get_state(d->event) != SD_EVENT_FINISHED) {
		rc = sd_event_prepare(d->event);
		if (!rc)
			rc = sd_event_wait(d->event, UINT64_MAX);
		if (rc <= 0)
			continue;
		relay_lock(d->relay);
		rc = sd_event_dispatch(d->event);
		relay_unlock(d->relay);
	}
	return rc;
}

static int serve(struct daemon *d)
{
	char names[MAX_FABRICS * sizeof(d->fabric->info.spec)];
	const struct options *o = &d->opt;
	int rc;

	log_line(LOG_NOTICE,
		 "ismredird %s at %s: fabric %s, rings of %u kB, limit %llu MB, %llu MB per user, "
		 "a wake-up costs %u ns",
		 ISM_VERSION, o->socket, fabric_names(d, names, sizeof(names)), ring_most(o) >> 10,
		 (unsigned long long)o->limit_total >> 20, (unsigned long long)o->limit_uid >> 20,
		 d->host.page->wake_ns);
	sd_notify(0, "READY=1");
	rc = d->relay ? relay_start(d->relay) : 0;
	if (!rc)
		rc = event_loop(d);
	sd_notify(0, "STOPPING=1");
	if (rc < 0) {
		log_line(LOG_ERR, "event loop: %s", strerror(-rc));
		return EXIT_FAIL;
	}
	log_line(LOG_NOTICE, "stopped; %u connections keep their rings", d->pairs.n);
	return 0;
}

static int run(const struct options *o)
{
	static struct daemon d;
	static struct server s;
	struct ism_err err = {};
	int rc, status = EXIT_FAIL;

	block_signals();
	raise_nofile();
	rc = daemon_init(&d, o, &err);
	if (!rc) {
		rc = server_open(&s, &d, &err);
		if (!rc)
			rc = add_signals(&d);
		if (rc < 0)
			ism_err_set(&err, rc, "%s", strerror(-rc));
		drop_privileges(d.relays);
		if (rc >= 0)
			status = serve(&d);
		server_close(&s);
	}
	if (rc < 0)
		log_line(LOG_ERR, "ismredird: %s", err.text);
	daemon_free(&d);
	return status;
}

int main(int argc, char **argv)
{
	struct options o = {
		.socket = ism_control_path(),
		.mode = 0666,
		.group = (gid_t)-1,
		.limit_total = (__u64)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) / 4,
		.pool = 16,
		.max_clients = 4096,
		.crowd = 8,
	};
	int status = parse_options(argc, argv, &o);

	return status >= 0 ? status : run(&o);
}
