// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * posix: what Linux TCP sockets do, case by case, between a client and a server process.
 *
 *   posix [-m MODE] [-C COMMAND] [-S COMMAND] [-t SECONDS] [-j CASES] [-v] [CASE|PREFIX*...]
 *   posix -l
 *
 * -C, -S: words in front of the client's and the server's command, to run them under the shim
 * MODE: native, both, client or server: which of them are; in both, bytes must take rings
 * -j: so many cases at once
 * One line for each case; exit status 1 when one has failed.
 */
#include "posix.h"
#include <getopt.h>
#include <sys/mman.h>
#include <sys/wait.h>

static const struct test *const groups[] = {
	tests_stream, tests_flags, tests_iov,  tests_opts,  tests_close,  tests_kill,
	tests_signal, tests_fd,	   tests_fork, tests_exec,  tests_thread, tests_epoll,
	tests_edge,   tests_file,  tests_conn, tests_vfork, tests_await,  tests_local,
	tests_fresh,  tests_shims, NULL,
};

struct run {
	const char *mode, *wrap[2]; /* of the client, of the server */
	int seconds, jobs;
	bool verbose;
	int passed, failed, skipped;
	char *self;
};

/* A case that runs: both its roles. */
struct pair {
	const struct test *t; /* NULL: none */
	pid_t pid[2];
	int status[2], out[2];
	bool over[2], hurry, hang;
	uint64_t begin, end;
};

#define MAX_JOBS 16

static const struct test *find(const char *name)
{
	for (int g = 0; groups[g]; g++)
		for (const struct test *t = groups[g]; t->name; t++)
			if (!strcmp(t->name, name))
				return t;
	return NULL;
}

/* Become `WRAP posix --ROLE NAME`, with the control channel as descriptor 3. */
static _Noreturn void become(const struct run *r, const struct test *t, int role, int ctl, int out)
{
	char words[512], *argv[40], *save = NULL;
	int n = 0, null = open("/dev/null", O_RDONLY);

	setpgid(0, 0);
	if (dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 || dup2(ctl, 3) < 0)
		_exit(126);
	close_range(4, ~0U, 0);
	snprintf(words, sizeof(words), "%s", r->wrap[role] ? r->wrap[role] : "");
	for (char *w = strtok_r(words, " ", &save); w && n < 30; w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	argv[n++] = r->self;
	argv[n++] = role ? "--server" : "--client";
	argv[n++] = (char *)t->name;
	argv[n] = NULL;
	execvp(argv[0], argv);
	dprintf(2, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(126);
}

static void start(const struct run *r, const struct test *t, struct pair *p)
{
	int ctl[2];

	*p = (struct pair){ .t = t, .begin = now_ms() };
	p->end = p->begin + r->seconds * 1000ULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ctl))
		exit(2);
	for (int i = 0; i < 2; i++) {
		p->out[i] = memfd_create("out", MFD_CLOEXEC);
		p->over[i] = i == 1 && t->flags & SOLO;
		if (p->over[i])
			continue;
		p->pid[i] = fork();
		if (p->pid[i] < 0)
			exit(2);
		if (!p->pid[i])
			become(r, t, i, ctl[i], p->out[i]);
		setpgid(p->pid[i], p->pid[i]);
	}
	close(ctl[0]);
	close(ctl[1]);
}

static void kill_both(struct pair *p)
{
	for (int i = 0; i < 2; i++)
		if (!p->over[i])
			kill(-p->pid[i], SIGKILL);
}

/* Who outlives the other by two seconds after a failure, or the time limit, is killed. */
static bool look(struct pair *p)
{
	uint64_t now = now_ms();

	for (int i = 0; i < 2; i++)
		if (!p->over[i] && waitpid(p->pid[i], &p->status[i], WNOHANG) == p->pid[i])
			p->over[i] = true;
	if (p->over[0] && p->over[1])
		return true;
	if (!p->hurry && ((p->over[0] && p->status[0]) || (p->over[1] && p->status[1]))) {
		p->hurry = true;
		if (p->end > now + 2000)
			p->end = now + 2000;
	}
	if (now > p->end) {
		p->hang |= !p->hurry;
		p->hurry = true;
		kill_both(p);
	}
	return false;
}

/* Children that a role has left. */
static void clean(struct pair *p)
{
	for (int i = 0; i < 2; i++)
		if (i == 0 || !(p->t->flags & SOLO))
			kill(-p->pid[i], SIGKILL);
}

static void show(struct pair *p)
{
	char buf[4096];

	fflush(stdout);
	for (int i = 0; i < 2; i++) {
		ssize_t n = pread(p->out[i], buf, sizeof(buf) - 1, 0);

		buf[n > 0 ? n : 0] = 0;
		for (char *save = NULL, *l = strtok_r(buf, "\n", &save); l;
		     l = strtok_r(NULL, "\n", &save))
			printf("      | %s\n", l);
	}
}

static bool as_expected(const struct test *t, int role, int status)
{
	if (t->flags & (role ? SERVER_DIES : CLIENT_DIES))
		return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	return status == 0;
}

static const char *describe(int status, char *buf, size_t len)
{
	if (WIFSIGNALED(status))
		snprintf(buf, len, "signal %d", WTERMSIG(status));
	else
		snprintf(buf, len, "status %d", WEXITSTATUS(status));
	return buf;
}

static bool skips(const struct pair *p, int role)
{
	return WIFEXITED(p->status[role]) && WEXITSTATUS(p->status[role]) == 77;
}

static void report(struct run *r, struct pair *p)
{
	const struct test *t = p->t;
	char a[32], b[32];

	clean(p);
	if (skips(p, 0) || skips(p, 1)) {
		r->skipped++;
		printf("skip  %s\n", t->name);
		show(p);
	} else if (!p->hang && as_expected(t, 0, p->status[0]) && as_expected(t, 1, p->status[1])) {
		r->passed++;
		if (r->verbose)
			printf("ok    %-28s %llu ms\n", t->name,
			       (unsigned long long)(now_ms() - p->begin));
	} else {
		r->failed++;
		printf("FAIL  %-28s %s: %sclient: %s, server: %s\n", t->name, r->mode,
		       p->hang ? "hangs; " : "", describe(p->status[0], a, sizeof(a)),
		       describe(p->status[1], b, sizeof(b)));
		show(p);
	}
	fflush(stdout);
	close(p->out[0]);
	close(p->out[1]);
	p->t = NULL;
}

/* Report what is over, until fewer than @n cases run. */
static void wait_below(struct run *r, struct pair *p, int n)
{
	for (;;) {
		int running = 0;

		for (int i = 0; i < r->jobs; i++) {
			if (p[i].t && look(&p[i]))
				report(r, &p[i]);
			running += p[i].t != NULL;
		}
		if (running < n)
			return;
		usleep(500);
	}
}

static void begin(struct run *r, struct pair *p, const struct test *t)
{
	wait_below(r, p, r->jobs);
	while (p->t)
		p++;
	start(r, t, p);
}

static bool chosen(const char *name, char **want)
{
	if (!*want)
		return true;
	for (; *want; want++) {
		size_t n = strlen(*want);

		if (!strcmp(*want, name) ||
		    (n && (*want)[n - 1] == '*' && !strncmp(*want, name, n - 1)))
			return true;
	}
	return false;
}

static int run_all(struct run *r, char **want)
{
	struct pair p[MAX_JOBS] = { 0 };
	bool one_sided = !strcmp(r->mode, "client") || !strcmp(r->mode, "server");

	for (int g = 0; groups[g]; g++)
		for (const struct test *t = groups[g]; t->name; t++)
			if (chosen(t->name, want) && !(one_sided && t->flags & SOLO))
				begin(r, p, t);
	wait_below(r, p, 1);
	printf("%d passed, %d failed", r->passed, r->failed);
	if (r->skipped)
		printf(", %d skipped", r->skipped);
	printf("\n");
	return r->failed || !r->passed;
}

static int list(void)
{
	for (int g = 0; groups[g]; g++)
		for (const struct test *t = groups[g]; t->name; t++)
			puts(t->name);
	return 0;
}

static void role(int argc, char **argv)
{
	const struct test *t;

	if (argc < 3 || (strcmp(argv[1], "--client") && strcmp(argv[1], "--server")))
		return;
	role_argv = argv;
	t = find(argv[2]);
	if (!t)
		exit(2);
	role_main(t, !strcmp(argv[1], "--server"));
}

int main(int argc, char **argv)
{
	struct run r = { .mode = "native", .seconds = 30, .jobs = 1 };
	char self[4096] = "";
	int opt;

	early_main();
	role(argc, argv);
	while ((opt = getopt(argc, argv, "m:C:S:t:j:vl")) != -1) {
		switch (opt) {
		case 'm':
			r.mode = optarg;
			break;
		case 'C':
			r.wrap[0] = optarg;
			break;
		case 'S':
			r.wrap[1] = optarg;
			break;
		case 't':
			r.seconds = atoi(optarg);
			break;
		case 'j':
			r.jobs = atoi(optarg);
			break;
		case 'v':
			r.verbose = true;
			break;
		case 'l':
			return list();
		default:
			fprintf(stderr,
				"usage: posix [-m MODE] [-C COMMAND] [-S COMMAND] [-t SECONDS] "
				"[-j CASES] [-v] [CASE...] | -l\n");
			return 2;
		}
	}
	if (r.jobs < 1 || r.jobs > MAX_JOBS)
		return 2;
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 2;
	r.self = self;
	unsetenv("ISMREDIR_TEST_EXPECT_RING");
	if (!strcmp(r.mode, "both"))
		setenv("ISMREDIR_TEST_EXPECT_RING", "1", 1);
	setenv("POSIX_MODE", r.mode, 1);
	return run_all(&r, argv + optind);
}
