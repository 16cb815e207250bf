// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * traffic: verified traffic in every way that applications make it.
 *
 * Server, client or a pair of both; every byte of both directions is checked against its position.
 * Nothing waits for ever: after --timeout seconds without progress it says where the streams stand.
 * Exit status: 0 all bytes verified, 1 wrong, 2 usage, 3 the peer ended early, 4 not possible here.
 */
#define _GNU_SOURCE
#include "traffic.h"

#include <errno.h>
#include <getopt.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct options opt;
struct shared *shared;
int own;
bool paired;

/* ---------------------------------------------------------------- where the streams stand */

static void say_dir(char *text, size_t room, const char *name, const struct dir *d)
{
	char total[32] = "?";

	if (d->total != UINT64_MAX)
		snprintf(total, sizeof(total), "%llu", (unsigned long long)d->total);
	snprintf(text, room, "%s %llu of %s%s", name, (unsigned long long)d->pos, total,
		 d->finished ? " (finished)" : "");
}

static void say_end(const struct end *e)
{
	char tx[96], rx[96];
	int queued = -1, unread = -1;

	say_dir(tx, sizeof(tx), "sent", &e->tx);
	say_dir(rx, sizeof(rx), "received", &e->rx);
	if (e->who == own && e->fd >= 0) {
		ioctl(e->fd, SIOCOUTQ, &queued);
		ioctl(e->fd, FIONREAD, &unread);
	}
	dprintf(STDERR_FILENO, "  %s of connection %u: %s, %s, outq %d, inq %d\n",
		e->who == CLIENT ? "client" : "server", e->index, tx, rx, queued, unread);
}

static bool incomplete(const struct end *e)
{
	return e->tx.seed && !(e->tx.finished && e->rx.finished);
}

static void say_all(void)
{
	int shown = 0;

	for (unsigned int i = 0; i < opt.conns && shown < 8; i++) {
		if (!incomplete(&shared->ends[CLIENT][i]) && !incomplete(&shared->ends[SERVER][i]))
			continue;
		say_end(&shared->ends[CLIENT][i]);
		say_end(&shared->ends[SERVER][i]);
		shown++;
	}
}

_Noreturn void peer_gone(const struct end *e, const char *doing, int err)
{
	say_end(e);
	give_up(EXIT_GONE, "%s of connection %u: the peer is gone (%s) while %s",
		e->who == CLIENT ? "client" : "server", e->index,
		err ? strerror(err) : "end of stream", doing);
}

/* Of both sides: who waits for a slow partner is not stuck. */
static uint64_t progress(void)
{
	uint64_t sum = 0;

	for (int who = 0; who < 2; who++) {
		sum += shared->extra[who] + shared->round[who];
		for (unsigned int i = 0; i < opt.conns; i++)
			sum += shared->ends[who][i].tx.pos + shared->ends[who][i].rx.pos +
			       shared->ends[who][i].zc_done;
	}
	return sum;
}

static void *watchdog(void *arg)
{
	uint64_t last = 0, since = now_ms();

	(void)arg;
	for (;;) {
		uint64_t now = progress();

		if (now != last || shared->hook) {
			last = now;
			since = now_ms();
		}
		if (now_ms() - since > opt.timeout * 1000ULL) {
			dprintf(STDERR_FILENO, "%s: no progress for %llu s; the streams stand at\n",
				own == CLIENT ? "client" : "server",
				(unsigned long long)opt.timeout);
			say_all();
			fail("gave up waiting");
		}
		sleep_ms(100);
	}
	return NULL;
}

/* ---------------------------------------------------------------- the options */

static const char usage_text[] =
	"usage: traffic server|client|pair [OPTIONS]\n"
	"  --listen ADDR --connect ADDR --port N --connect-port N --bind-port N\n"
	"  --conns N --seed N --timeout S\n"
	"  --bytes N | --c2s N --s2c N   length of the streams (default 4 MiB each way)\n"
	"  --rounds N                    requests and responses instead of streams\n"
	"  --seconds S                   open-ended streams until then or SIGTERM (pair only)\n"
	"  --repeat                      whole connections again and again for --seconds\n"
	"  --end close|half|rst|unread  --tail N\n"
	"  --accept-delay MS --defer S --tfo --tfo-no-cookie --strict --eagain-ok\n"
	"  --on-listen CMD --on-connected CMD --on-verified CMD   run by the client at that point\n"
	"  --fault lose|double|flip|swap|hang|short   must end in a failure\n"
	"  --side server|client|both     whom the following options are for\n"
	"    --cgroup PATH --netns PATH --mptcp --io threads|fork|poll|lt|et\n"
	"    --send write|writev|more|oob|sendfile|splice|zerocopy|uring|mixed\n"
	"    --recv read|readv|peek|waitall|lowat|splice|uring|mixed\n"
	"    --sizes KIND --read-sizes KIND   mix|tiny|small|log|page|big|N\n"
	"    --pause-tx PERCENT:MS --pause-rx PERCENT:MS --sleep-rx MS\n"
	"    --sockopt NAME=N --late-sockopt NAME=N\n";

static _Noreturn void usage(const char *what, const char *arg)
{
	fprintf(stderr, "%s: %s\n%s", what, arg ? arg : "", usage_text);
	exit(EXIT_USAGE);
}

static int word(const char *text, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (!strcmp(names[i], text))
			return i;
	usage("no such word", text);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (!*text || *end)
		usage("not a number", text);
	return n;
}

static void parse_pause(struct pause *p, const char *text)
{
	if (sscanf(text, "%u:%u", &p->percent, &p->ms) != 2 || p->percent > 100 || !p->ms)
		usage("not PERCENT:MS", text);
}

static void parse_sockopt(struct side *s, const char *text, bool late)
{
	const char *eq = strchr(text, '=');
	struct sockopt_set *set = &s->sockopt[s->n_sockopt];

	if (!eq || s->n_sockopt == MAX_SOCKOPTS)
		usage("not NAME=N", text);
	set->name = sockopt_find(text, eq - text);
	if (!set->name)
		usage("no such socket option", text);
	set->value = number(eq + 1);
	set->late = late;
	s->n_sockopt++;
}

static const char *const io_names[] = { "threads", "fork", "poll", "lt", "et", NULL };
static const char *const send_names[] = { "write",  "writev",	"more",	 "oob",	  "sendfile",
					  "splice", "zerocopy", "uring", "mixed", NULL };
static const char *const recv_names[] = { "read",   "readv", "peek",  "waitall", "lowat",
					  "splice", "uring", "mixed", NULL };
static const char *const end_names[] = { "close", "half", "rst", "unread", NULL };
static const char *const fault_names[] = { "none", "lose", "double", "flip",
					   "swap", "hang", "short",  NULL };
static const char *const side_names[] = { "server", "client", "both", NULL };

enum value_kind { V_NUMBER, V_TEXT, V_FLAG, V_WORD, V_SIZES, V_PAUSE, V_SOCKOPT, V_LATE_SOCKOPT };

/* An option and where its value goes: into struct options, or into a struct side. */
struct option_name {
	const char *name;
	enum value_kind kind;
	bool per_side;
	size_t offset;
	const char *const *names;
};

#define COMMON(field) false, offsetof(struct options, field)
#define SIDE(field)   true, offsetof(struct side, field)

static const struct option_name option_names[] = {
	{ "listen", V_TEXT, COMMON(listen), NULL },
	{ "connect", V_TEXT, COMMON(connect), NULL },
	{ "port", V_NUMBER, COMMON(port), NULL },
	{ "connect-port", V_NUMBER, COMMON(connect_port), NULL },
	{ "bind-port", V_NUMBER, COMMON(bind_port), NULL },
	{ "conns", V_NUMBER, COMMON(conns), NULL },
	{ "seed", V_NUMBER, COMMON(seed), NULL },
	{ "timeout", V_NUMBER, COMMON(timeout), NULL },
	{ "c2s", V_NUMBER, COMMON(bytes[CLIENT]), NULL },
	{ "s2c", V_NUMBER, COMMON(bytes[SERVER]), NULL },
	{ "rounds", V_NUMBER, COMMON(rounds), NULL },
	{ "seconds", V_NUMBER, COMMON(seconds), NULL },
	{ "repeat", V_FLAG, COMMON(repeat), NULL },
	{ "end", V_WORD, COMMON(end), end_names },
	{ "fault", V_WORD, COMMON(fault), fault_names },
	{ "tail", V_NUMBER, COMMON(tail), NULL },
	{ "accept-delay", V_NUMBER, COMMON(accept_delay), NULL },
	{ "defer", V_NUMBER, COMMON(defer), NULL },
	{ "tfo", V_FLAG, COMMON(tfo), NULL },
	{ "tfo-no-cookie", V_FLAG, COMMON(tfo_no_cookie), NULL },
	{ "strict", V_FLAG, COMMON(strict), NULL },
	{ "eagain-ok", V_FLAG, COMMON(eagain_ok), NULL },
	{ "on-listen", V_TEXT, COMMON(hook_listen), NULL },
	{ "on-connected", V_TEXT, COMMON(hook_connected), NULL },
	{ "on-verified", V_TEXT, COMMON(hook_verified), NULL },
	{ "cgroup", V_TEXT, SIDE(cgroup), NULL },
	{ "netns", V_TEXT, SIDE(netns), NULL },
	{ "mptcp", V_FLAG, SIDE(mptcp), NULL },
	{ "io", V_WORD, SIDE(io), io_names },
	{ "send", V_WORD, SIDE(send), send_names },
	{ "recv", V_WORD, SIDE(recv), recv_names },
	{ "sizes", V_SIZES, SIDE(send_sizes), NULL },
	{ "read-sizes", V_SIZES, SIDE(recv_sizes), NULL },
	{ "pause-tx", V_PAUSE, SIDE(pause_tx), NULL },
	{ "pause-rx", V_PAUSE, SIDE(pause_rx), NULL },
	{ "sleep-rx", V_NUMBER, SIDE(sleep_rx), NULL },
	{ "sockopt", V_SOCKOPT, SIDE(sockopt), NULL },
	{ "late-sockopt", V_LATE_SOCKOPT, SIDE(sockopt), NULL },
};

#define N_OPTIONS (sizeof(option_names) / sizeof(*option_names))

static void set_value(void *base, const struct option_name *o, const char *arg)
{
	void *to = (char *)base + o->offset;

	switch (o->kind) {
	case V_NUMBER:
		*(uint64_t *)to = number(arg);
		break;
	case V_TEXT:
		*(const char **)to = arg;
		break;
	case V_FLAG:
		*(bool *)to = true;
		break;
	case V_WORD:
		*(int *)to = word(arg, o->names);
		break;
	case V_SIZES:
		if (sizes_parse(to, arg))
			usage("no such sizes", arg);
		break;
	case V_PAUSE:
		parse_pause(to, arg);
		break;
	case V_SOCKOPT:
	case V_LATE_SOCKOPT:
		parse_sockopt(base, arg, o->kind == V_LATE_SOCKOPT);
		break;
	}
}

/* getopt's table: ours, then two that set several values or choose the side. */
enum { O_BYTES = N_OPTIONS, O_SIDE };

static void fill_long_options(struct option *to)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		to[i] = (struct option){ option_names[i].name, option_names[i].kind != V_FLAG, NULL,
					 i };
	to[O_BYTES] = (struct option){ "bytes", 1, NULL, O_BYTES };
	to[O_SIDE] = (struct option){ "side", 1, NULL, O_SIDE };
}

static void defaults(void)
{
	opt.listen = opt.connect = "127.0.0.1";
	opt.conns = 1;
	opt.seed = 1;
	opt.timeout = 30;
	opt.bytes[0] = opt.bytes[1] = 4 << 20;
	opt.tail = 300000;
}

static void one_option(int c, int which, const char *arg)
{
	const struct option_name *o = &option_names[c];

	if (c == O_BYTES) {
		opt.bytes[SERVER] = opt.bytes[CLIENT] = number(arg);
		return;
	}
	if (!o->per_side) {
		set_value(&opt, o, arg);
		return;
	}
	for (int i = 0; i < 2; i++)
		if (which == 2 || which == i)
			set_value(&opt.side[i], o, arg);
}

static void parse(int argc, char **argv)
{
	struct option long_options[N_OPTIONS + 3] = {};
	int which = 2, c; /* both */

	defaults();
	fill_long_options(long_options);
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (c == '?')
			usage("unknown option", NULL);
		if (c == O_SIDE)
			which = word(optarg, side_names);
		else
			one_option(c, which, optarg);
	}
	if (optind != argc - 1)
		usage("expected one of server, client, pair", NULL);
	opt.tfo |= opt.tfo_no_cookie;
	if (!opt.conns || opt.conns > MAX_CONNS || !opt.timeout)
		usage("--conns or --timeout out of range", NULL);
	if (opt.seconds && !opt.repeat && strcmp(argv[optind], "pair"))
		usage("--seconds without --repeat needs", "pair");
}

/* ---------------------------------------------------------------- processes */

static void on_term(int sig)
{
	(void)sig;
	shared->stop = 1;
}

static void *stop_timer(void *arg)
{
	uint64_t until = now_ms() + opt.seconds * 1000;

	(void)arg;
	while (now_ms() < until && !shared->stop)
		sleep_ms(20);
	shared->stop = 1;
	return NULL;
}

static int run_side(int who)
{
	const struct side *s = &opt.side[who];
	pthread_t t;

	own = who;
	if (s->cgroup)
		join_cgroup(s->cgroup);
	if (s->netns)
		join_netns(s->netns);
	if (pthread_create(&t, NULL, watchdog, NULL))
		fail("cannot start a thread");
	if (opt.seconds && who == CLIENT && pthread_create(&t, NULL, stop_timer, NULL))
		fail("cannot start a thread");
	return who == CLIENT ? session_client() : session_server();
}

static pid_t start_side(int who)
{
	pid_t pid = fork();

	if (pid < 0)
		fail_errno("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (who == CLIENT)
		while (!shared->port)
			sleep_ms(1);
	exit(run_side(who));
}

static int status_of(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	dprintf(STDERR_FILENO, "a side was killed by signal %d\n", WTERMSIG(status));
	return EXIT_BAD;
}

/* Once one side has failed the other gets 2 seconds to say what it saw. */
static int reap(const pid_t *pid)
{
	bool left[2] = { true, true };
	uint64_t kill_at = 0;
	int worst = 0, status;

	while (left[0] || left[1]) {
		for (int i = 0; i < 2; i++) {
			if (!left[i] || waitpid(pid[i], &status, WNOHANG) <= 0)
				continue;
			left[i] = false;
			if (!worst)
				worst = status_of(status);
			if (worst && !kill_at)
				kill_at = now_ms() + 2000;
		}
		if (kill_at && now_ms() > kill_at)
			for (int i = 0; i < 2; i++)
				if (left[i])
					kill(pid[i], SIGKILL);
		sleep_ms(2);
	}
	return worst;
}

static int run_pair(void)
{
	pid_t pid[2];

	paired = true;
	pid[SERVER] = start_side(SERVER);
	pid[CLIENT] = start_side(CLIENT);
	return reap(pid);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		fail_errno("mmap");
	signal(SIGTERM, on_term);
	if (!strcmp(argv[optind], "pair"))
		return run_pair();
	if (!strcmp(argv[optind], "server"))
		return run_side(SERVER);
	if (!strcmp(argv[optind], "client"))
		return run_side(CLIENT);
	usage("expected one of server, client, pair, not", argv[optind]);
}
