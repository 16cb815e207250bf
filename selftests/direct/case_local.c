// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs that can have no socket, such as cat, are started without the shim; all others, and their
 * environment, as they are. What a program is started with is what the caller said, natively; what is different
 * under the shim is expected where LD_PRELOAD names it.
 */
#include "posix.h"
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

#define LIBRARY "libismredir-preload.so"
#define PADDED	(256 << 10)

/* ---------------------------------------------------------------- starting something */

enum call { EXECVE, EXECV, EXECL, EXECLE, EXECVP, EXECVPE, SYSCALL, HANDLER, CALLS };
enum child { BY_FORK, BY_VFORK, BY_SPAWN, BY_SPAWNP, CHILDREN };

struct start {
	enum child child;
	enum call call;
	const char *path;
	char *argv[4];
	char **env;
	const char *dir; /* where spawn goes first; NULL: nowhere */
};

/* What a program has written. */
struct said {
	char text[128 << 10];
	size_t len;
};

static const struct start *handled;

static void exec_handler(int sig)
{
	(void)sig;
	execve(handled->path, handled->argv, handled->env);
}

static void exec_it(const struct start *s)
{
	char *const *a = s->argv;

	switch (s->call) {
	case EXECVE:
		execve(s->path, a, s->env);
		break;
	case EXECV:
		execv(s->path, a);
		break;
	case EXECL:
		execl(s->path, a[0], a[1], a[2], NULL);
		break;
	case EXECLE:
		execle(s->path, a[0], a[1], NULL, s->env);
		break;
	case EXECVP:
		execvp(s->path, a);
		break;
	case EXECVPE:
		execvpe(s->path, a, s->env);
		break;
	case SYSCALL:
		syscall(SYS_execve, s->path, a, s->env);
		break;
	case HANDLER:
		handled = s;
		signal(SIGUSR1, exec_handler);
		raise(SIGUSR1);
		break;
	case CALLS:
		break;
	}
}

static void in_child(const struct start *s, int out)
{
	if (dup2(out, 1) == 1)
		exec_it(s);
	_exit(127);
}

static pid_t spawn(const struct start *s, int out)
{
	posix_spawn_file_actions_t a;
	pid_t pid = -1;
	int rc;

	posix_spawn_file_actions_init(&a);
	IS(posix_spawn_file_actions_adddup2(&a, out, 1), 0);
	if (s->dir)
		IS(posix_spawn_file_actions_addchdir_np(&a, s->dir), 0);
	rc = (s->child == BY_SPAWN ? posix_spawn : posix_spawnp)(&pid, s->path, &a, NULL, s->argv,
								 s->env);
	IS(rc, 0);
	posix_spawn_file_actions_destroy(&a);
	return pid;
}

static void run(const struct start *s, struct said *got)
{
	int out[2], status = -1;
	pid_t pid = -1;
	ssize_t n;

	IS(pipe2(out, O_CLOEXEC), 0);
	switch (s->child) {
	case BY_FORK:
		pid = fork();
		if (!pid)
			in_child(s, out[1]);
		break;
	case BY_VFORK:
		pid = vfork();
		if (!pid)
			in_child(s, out[1]);
		break;
	default:
		pid = spawn(s, out[1]);
	}
	CHECK(pid > 0);
	close(out[1]);
	got->len = 0;
	while ((n = read(out[0], got->text + got->len, sizeof(got->text) - 1 - got->len)) > 0)
		got->len += n;
	IS(n, 0);
	close(out[0]);
	got->text[got->len] = 0;
	IS(waitpid(pid, &status, 0), pid);
	IS(status, 0);
}

/* ---------------------------------------------------------------- what is expected */

static const char *shim(void)
{
	return getenv("LD_PRELOAD");
}

static bool is_preload(const char *entry)
{
	return !strncmp(entry, "LD_PRELOAD=", 11);
}

/* The environment is @env, but without LD_PRELOAD where @spared. */
static void same_env(const struct said *got, char **env, bool spared)
{
	const char *at = got->text;

	for (; *env; env++) {
		if (spared && is_preload(*env))
			continue;
		if (at >= got->text + got->len || strcmp(at, *env))
			FAIL("\"%.80s\" is not \"%.80s\"", at, *env);
		at += strlen(at) + 1;
	}
	IS(at - got->text, got->len);
}

/* @s is cat: show what it was started with. */
static void cat_env(struct start *s, struct said *got)
{
	s->argv[0] = "cat";
	s->argv[1] = "/proc/self/environ";
	s->argv[2] = NULL;
	run(s, got);
}

static struct said said;

/* ---------------------------------------------------------------- by every way */

static void by_one_way(enum child child, enum call call)
{
	struct start s = { .child = child,
			   .call = call,
			   .path = "/bin/cat",
			   .argv = { "cat", "/proc/self/maps" },
			   .env = environ };

	run(&s, &said);
	CHECK(strstr(said.text, "libc.so.6") || strstr(said.text, "libc-2"));
	CHECK(!strstr(said.text, LIBRARY));
	cat_env(&s, &said);
	same_env(&said, environ, true);
}

static void ways(struct end *e)
{
	int fds = open_fds(256);

	(void)e;
	setenv("POSIX_ONE", "1", 1);
	setenv("POSIX_EMPTY", "", 1);
	setenv("LD_PRELOADED", "x", 1);
	by_one_way(BY_SPAWN, 0); /* first, so that it is this process that looks at the file */
	by_one_way(BY_SPAWNP, 0);
	for (int call = 0; call < CALLS; call++) {
		by_one_way(BY_FORK, call);
		if (call != HANDLER)
			by_one_way(BY_VFORK, call);
	}
	IS(open_fds(256), fds);
}

/* ---------------------------------------------------------------- what has it still */

static void sh(const char *command)
{
	struct start s = {
		.path = "/bin/sh",
		.argv = { "sh", "-c", (char *)command },
		.env = environ,
	};

	for (s.child = 0; s.child < CHILDREN; s.child++)
		run(&s, &said);
}

static void said_is(const char *text, const char *end)
{
	size_t n = strlen(text);

	if (strncmp(said.text, text, n) || strcmp(said.text + n, end))
		FAIL("\"%.100s\" is not \"%.100s\"", said.text, text);
}

static void shell(struct end *e)
{
	const char *ours = shim() ? shim() : "";

	(void)e;
	sh("echo \"$LD_PRELOAD\"");
	said_is(ours, "\n");
	sh("while read -r line; do echo \"$line\"; done </proc/self/maps");
	IS(strstr(said.text, LIBRARY) != NULL, shim() != NULL);
	sh("/bin/cat /proc/self/maps; exit 0");
	CHECK(said.len && !strstr(said.text, LIBRARY));
	sh("/bin/cat /proc/self/environ; exit 0");
	CHECK(said.len && !strstr(said.text, LIBRARY));
	sh("/bin/cat /proc/$$/maps; exit 0");
	IS(strstr(said.text, LIBRARY) != NULL, shim() != NULL);
	sh("/usr/bin/env sh -c 'echo \"$LD_PRELOAD\"'");
	said_is(ours, "\n");
}

/* ---------------------------------------------------------------- what is left alone */

/* A few entries, of which "@" stands for the shim's path. */
static void entries_of(char **env, char (*room)[4096], const char *const *from)
{
	int n = 0;

	for (; *from; from++, n++) {
		const char *at = strchr(*from, '@');

		env[n] = (char *)*from;
		if (!at)
			continue;
		snprintf(room[n], sizeof(room[n]), "%.*s%s%s", (int)(at - *from), *from,
			 shim() ? shim() : "/none/" LIBRARY, at + 1);
		env[n] = room[n];
	}
	env[n] = NULL;
}

static void other_libraries(struct end *e)
{
	static const struct {
		const char *from[6];
		bool spared;
	} cases[] = {
		{ { "A=1", "LD_PRELOAD=@", "B=2" }, true },
		{ { "LD_PRELOAD=@" }, true },
		{ { "LD_PRELOAD=@", "A=1", "LD_PRELOAD=@", "B=2" }, true },
		{ { "LD_PRELOAD=" LIBRARY, "A=1" }, true },
		{ { "A=1", "LD_PRELOAD=@:libm.so.6", "B=2" }, false },
		{ { "A=1", "LD_PRELOAD=@ libm.so.6", "B=2" }, false },
		{ { "A=1", "LD_PRELOAD=libm.so.6 @" }, false },
		{ { "A=1", "LD_PRELOAD=libm.so.6:@" }, false },
		{ { "A=1", "LD_PRELOAD=libm.so.6", "B=2" }, false },
		{ { "A=1", "LD_PRELOAD=" }, false },
		{ { "A=1", "LD_PRELOAD=/none/x" LIBRARY }, false },
		{ { "A=1", "LD_PRELOAD=/none/" LIBRARY ".1" }, false },
		{ { "A=1", "LD_PRELOAD=@", "LD_PRELOAD=libm.so.6", "B=2" }, false },
		{ { "A=1", "LD_PRELOAD=libm.so.6", "LD_PRELOAD=@", "B=2" }, false },
		{ { "LD_AUDIT=", "LD_PRELOAD=@" }, false },
		{ { "LD_PRELOAD=@", "LD_AUDIT=" }, false },
		{ { "A=1", "B=2" }, false },
		{ { NULL }, false },
	};
	static char room[6][4096], *env[7];
	struct start s = { .path = "/bin/cat", .env = env };

	(void)e;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		entries_of(env, room, cases[i].from);
		for (s.child = 0; s.child < CHILDREN; s.child++) {
			cat_env(&s, &said);
			same_env(&said, env, cases[i].spared && shim());
		}
	}
	s.env = NULL; /* Linux takes it for an empty one */
	s.child = BY_FORK;
	cat_env(&s, &said);
	IS(said.len, 0);
}

/* @n entries with LD_PRELOAD among them. */
static void of_length(int n, bool spared)
{
	static char room[2100][24], *env[2101];
	struct start s = { .path = "/bin/cat", .env = env };

	for (int i = 0; i < n; i++) {
		snprintf(room[i], sizeof(room[i]), "ENTRY_%d=%d", i, i * 7);
		env[i] = room[i];
	}
	env[n] = NULL;
	if (shim())
		env[n / 2] = (char *)shim() - strlen("LD_PRELOAD=");
	for (s.child = 0; s.child < CHILDREN; s.child++) {
		cat_env(&s, &said);
		same_env(&said, env, spared);
	}
}

static void long_environments(struct end *e)
{
	(void)e;
	of_length(100, true);
	of_length(1000, true);
	of_length(1001, false);
	of_length(2000, false);
}

/* What is found in PATH may be anything. */
static void searched(struct end *e)
{
	struct start s = { .path = "cat", .env = environ };

	(void)e;
	IS(chdir("/bin"), 0); /* where one of this name is */
	s.call = EXECVP;
	cat_env(&s, &said);
	same_env(&said, environ, false);
	s.call = EXECVPE;
	cat_env(&s, &said);
	same_env(&said, environ, false);
	s.child = BY_SPAWNP;
	cat_env(&s, &said);
	same_env(&said, environ, false);
}

static char dir[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

/* @body, in a child, with a directory that goes however that ends. */
static void with_dir(void (*body)(void))
{
	int status = -1;
	pid_t pid;

	snprintf(dir, sizeof(dir), "/tmp/posix-local-XXXXXX");
	CHECK(mkdtemp(dir));
	pid = child();
	if (!pid) {
		body();
		done();
	}
	IS(waitpid(pid, &status, 0), pid);
	IS(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
	IS(status, 0);
}

static char *in_dir(const char *name)
{
	static char path[4][128];
	static int next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static void fails(struct end *e)
{
	char *argv[] = { "cat", NULL };
	pid_t pid;

	(void)e;
	FAILS(execve("/does/not/exist", argv, environ), ENOENT);
	FAILS(execv("/", argv), EACCES);
	FAILS(execvp("/etc/passwd", argv), EACCES);
	FAILS(execve("/bin/cat/x", argv, environ), ENOTDIR);
	FAILS(execl("", "cat", NULL), ENOENT);
	IS(posix_spawn(&pid, "/does/not/exist", NULL, NULL, argv, environ), ENOENT);
	IS(posix_spawnp(&pid, "/does/not/exist", NULL, NULL, argv, environ), ENOENT);
}

/* Who waits for a reader of a FIFO has none by this. */
static void opens_no_fifo(void)
{
	char *argv[] = { "cat", NULL };
	pid_t pid;

	IS(mkfifo(in_dir("fifo"), 0700), 0);
	pid = child();
	if (!pid)
		_exit(open(in_dir("fifo"), O_WRONLY) < 0);
	nap(50);
	FAILS(execve(in_dir("fifo"), argv, environ), EACCES);
	nap(50);
	IS(waitpid(pid, NULL, WNOHANG), 0);
	kill(pid, SIGKILL);
	IS(waitpid(pid, NULL, 0), pid);
}

/* A filter that kills for stat() of a path, which is nothing that cat or its loader does. */
static void confine(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_newfstatat, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	IS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	IS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0), 0);
}

/* Behind a filter, no system call but what the program itself makes. */
static void confined(struct end *e)
{
	struct start s = { .path = "/bin/cat", .env = environ };

	(void)e;
	confine();
	for (s.child = 0; s.child < CHILDREN; s.child++) {
		cat_env(&s, &said);
		same_env(&said, environ, false);
	}
}

/* ---------------------------------------------------------------- files that change */

/* A copy of a program, as long as any other one; where there is a file, in it. */
static void copy_program(const char *from, const char *to)
{
	static char bytes[PADDED];
	int in = open(from, O_RDONLY | O_CLOEXEC),
	    out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);

	memset(bytes, 0, sizeof(bytes));
	CHECK(in >= 0 && out >= 0);
	CHECK(read(in, bytes, sizeof(bytes)) > 0);
	IS(write(out, bytes, sizeof(bytes)), sizeof(bytes));
	close(in);
	close(out);
}

static void is_cat(const char *path)
{
	struct start s = { .path = path, .env = environ };

	for (s.child = 0; s.child < CHILDREN; s.child++) {
		cat_env(&s, &said);
		same_env(&said, environ, true);
	}
}

/* env(1) can start others. */
static void is_env(const char *path)
{
	struct start s = { .path = path, .argv = { "env" }, .env = environ };

	for (s.child = 0; s.child < CHILDREN; s.child++) {
		run(&s, &said);
		IS(strstr(said.text, "LD_PRELOAD=") != NULL, shim() != NULL);
	}
}

static void files_change(void)
{
	char *p;

	p = in_dir("p");
	copy_program("/bin/cat", p);
	is_cat(p);
	is_cat(p);
	copy_program("/usr/bin/env", in_dir("q"));
	IS(rename(in_dir("q"), p), 0);
	is_env(p);
	is_env(p);
	nap(20); /* of the same length, and the same file */
	copy_program("/bin/cat", p);
	is_cat(p);
	nap(20);
	copy_program("/usr/bin/env", p);
	is_env(p);
}

static char *nth(int i)
{
	char name[16];

	snprintf(name, sizeof(name), "%d", i);
	return in_dir(name);
}

/* More than anybody remembers, and again; made at once, so that some have all of their times in common. */
static void many_files(void)
{
	enum { FILES = 20, ROUNDS = 4 };

	for (int i = 0; i < FILES; i++)
		copy_program(i % 2 ? "/bin/cat" : "/usr/bin/env", nth(i));
	for (int i = 0; i < FILES * ROUNDS; i++) {
		if (i % 2)
			is_cat(nth(i % FILES));
		else
			is_env(nth(i % FILES));
	}
}

/* A path that means something else where the child is. */
static void elsewhere(void)
{
	struct start s = { .child = BY_SPAWN, .path = "./p", .env = environ };

	IS(symlink("/bin/cat", in_dir("p")), 0);
	IS(mkdir(in_dir("d"), 0755), 0);
	IS(symlink("/usr/bin/env", in_dir("d/p")), 0);
	IS(chdir(dir), 0);
	s.dir = "d";
	s.argv[0] = "env";
	for (s.child = BY_SPAWN; s.child <= BY_SPAWNP; s.child++) {
		run(&s, &said);
		IS(strstr(said.text, "LD_PRELOAD=") != NULL, shim() != NULL);
	}
}

static void (*const with_files[])(void) = { opens_no_fifo, files_change, many_files, elsewhere };

static void files(struct end *e)
{
	with_dir(with_files[e->arg]);
}

/* ---------------------------------------------------------------- threads */

static void *starter(void *arg)
{
	struct said *got = malloc(sizeof(*got));
	struct start s = { .env = environ };

	CHECK(got);
	for (int i = 0; i < 12; i++) {
		s.child = (i + (int)(intptr_t)arg) % CHILDREN;
		s.path = "/bin/cat";
		cat_env(&s, got);
		same_env(got, environ, true);
		s.path = "/usr/bin/env";
		s.argv[0] = "env";
		s.argv[1] = NULL;
		run(&s, got);
		IS(strstr(got->text, "LD_PRELOAD=") != NULL, shim() != NULL);
	}
	free(got);
	return NULL;
}

static void threads(struct end *e)
{
	pthread_t t[4];

	(void)e;
	for (int i = 0; i < 4; i++)
		IS(pthread_create(&t[i], NULL, starter, (void *)(intptr_t)i), 0);
	for (int i = 0; i < 4; i++)
		IS(pthread_join(t[i], NULL), 0);
}

const struct test tests_local[] = {
	{ "local_ways", ways, NULL, RAW, 0 },
	{ "local_shell", shell, NULL, RAW, 0 },
	{ "local_other_libraries", other_libraries, NULL, RAW, 0 },
	{ "local_long_environments", long_environments, NULL, RAW, 0 },
	{ "local_searched", searched, NULL, RAW, 0 },
	{ "local_fails", fails, NULL, RAW, 0 },
	{ "local_no_fifo", files, NULL, RAW, 0 },
	{ "local_confined", confined, NULL, RAW, 0 },
	{ "local_files_change", files, NULL, RAW, 1 },
	{ "local_many_files", files, NULL, RAW, 2 },
	{ "local_elsewhere", files, NULL, RAW, 3 },
	{ "local_threads", threads, NULL, RAW, 0 },
	{ 0 },
};
