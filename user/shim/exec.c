// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Interposed: what starts other programs. Connections that they inherit go back to TCP first; and programs
 * that have no use for this library are started without it.
 *
 * All of this may run in a child of vfork() or fork(), and in a signal handler.
 */
#include "shim.h"
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "program.h"

/* ---------------------------------------------------------------- connections that are inherited */

/* Connections that stay open in another program. 0 or -EAGAIN. */
static int leave_inherited(uint32_t reason, unsigned int last)
{
	enum ism_fd_kind kind;
	int rc, fl;

	for (int fd = ism_fd_next(0, last); fd >= 0; fd = ism_fd_next(fd + 1, last)) {
		kind = ISM_FD_KIND(ism_fd_raw(fd));
		if (kind != ISM_FD_CONN && kind != ISM_FD_FRESH)
			continue;
		fl = real.fcntl(fd, F_GETFD);
		if (fl < 0 || fl & FD_CLOEXEC)
			continue;
		rc = ism_fd_leave(fd, reason, 0);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---------------------------------------------------------------- programs that have no use for us */

#define ENV_MAX	 1000 /* pointers, of which the copy is on the stack */
#define VERDICTS 16

/* Of a file, as long as it is the same. */
struct verdict {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtim, ctim;
	int local;
};

/*
 * What was last asked for: a shell in a loop asks for few programs, often, and in a new process each time. So
 * relatives share it. Who finds it taken does without it; it stays taken if somebody dies who has it.
 */
struct known {
	_Atomic uint32_t taken;
	unsigned int next;
	struct verdict v[VERDICTS];
};

static struct known *_Atomic known;

/* Or NULL. Made by a child of vfork(), it is its parent's. */
static struct known *get_known(void)
{
	struct known *k = atomic_load(&known), *other = NULL;

	if (k)
		return k;
	k = mmap(NULL, sizeof(*k), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (k == MAP_FAILED)
		return NULL;
	if (atomic_compare_exchange_strong(&known, &other, k))
		return k;
	munmap(k, sizeof(*k));
	return other;
}

void ism_exec_before_fork(void)
{
	int saved = errno;

	if (!atomic_load(&ism_confined))
		get_known();
	errno = saved;
}

static struct known *take_known(void)
{
	struct known *k = get_known();

	return k && !atomic_exchange(&k->taken, 1) ? k : NULL;
}

static int same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static int same_file(const struct verdict *a, const struct verdict *b)
{
	return a->ino == b->ino && a->dev == b->dev && a->size == b->size &&
	       same_time(&a->mtim, &b->mtim) && same_time(&a->ctim, &b->ctim);
}

/* Is it known? Then @v->local is filled in. */
static int recall(struct verdict *v)
{
	struct known *k = take_known();
	int found = 0;

	if (!k)
		return 0;
	for (int i = 0; !found && i < VERDICTS; i++) {
		found = same_file(&k->v[i], v);
		if (found)
			v->local = k->v[i].local;
	}
	atomic_store(&k->taken, 0);
	return found;
}

static void remember(const struct verdict *v)
{
	struct known *k = take_known();

	if (!k)
		return;
	k->v[k->next++ % VERDICTS] = *v;
	atomic_store(&k->taken, 0);
}

static void identify(const struct stat *st, struct verdict *v)
{
	*v = (struct verdict){ .dev = st->st_dev,
			       .ino = st->st_ino,
			       .size = st->st_size,
			       .mtim = st->st_mtim,
			       .ctim = st->st_ctim };
}

static int is_local(const char *path)
{
	struct verdict v, opened;
	struct stat st;
	int fd;

	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return 0;
	identify(&st, &v);
	if (recall(&v))
		return v.local;
	fd = SYS(SYS_openat, AT_FDCWD, path, ISM_PROGRAM_OPEN);
	if (fd < 0)
		return 0;
	v.local = ism_program_is_local(fd);
	if (!fstat(fd, &st)) {
		identify(&st, &opened);
		if (same_file(&opened, &v))
			remember(&v);
	}
	SYS(SYS_close, fd);
	return v.local;
}

static const char *after(const char *s, const char *start)
{
	size_t len = strlen(start);

	return strncmp(s, start, len) ? NULL : s + len;
}

/* LD_PRELOAD with nothing else in it. */
static int is_ours(const char *entry)
{
	const char *path = after(entry, "LD_PRELOAD="), *slash;

	if (!path || strpbrk(path, ": "))
		return 0;
	slash = strrchr(path, '/');
	return !strcmp(slash ? slash + 1 : path, ISM_PRELOAD_NAME);
}

/*
 * How long the array is that the program at @path shall get in place of @envp, with the NULL; 0: it gets @envp.
 * Other libraries that somebody loads into it may have uses that its own file does not tell. The system calls
 * that are made are those that the dynamic linker makes, too.
 */
static size_t count_spare(const char *path, char *const envp[])
{
	size_t n = 0, ours = 0;
	int saved = errno, local;

	if (!path || !envp || atomic_load(&ism_confined))
		return 0;
	for (; envp[n]; n++) {
		if (n == ENV_MAX || after(envp[n], "LD_AUDIT="))
			return 0;
		if (is_ours(envp[n]))
			ours++;
		else if (after(envp[n], "LD_PRELOAD="))
			return 0;
	}
	local = ours && is_local(path);
	errno = saved;
	return local ? n - ours + 1 : 0;
}

/* Another thread may change the environment meanwhile: no more than @n. */
static char *const *copy_spare(char *const envp[], char **to, size_t n)
{
	size_t used = 0;

	if (!n)
		return envp;
	for (; *envp && used < n - 1; envp++)
		if (!is_ours(*envp))
			to[used++] = *envp;
	to[used] = NULL;
	return to;
}

/* Declares @env: the environment for the program at @path, which is @envp or a copy on the stack. */
#define SPARE_ENV(env, path, envp)                                                                 \
	size_t n_##env = count_spare(path, envp);                                                  \
	char *copy_##env[n_##env + 1];                                                             \
	char *const *env = copy_spare(envp, copy_##env, n_##env)

/* What is searched in PATH is the C library's to find. */
static const char *if_path(const char *file)
{
	return strchr(file, '/') ? file : NULL;
}

/* Where a program is started from may be changed by @fa first. */
static const char *if_fixed(const char *path, const posix_spawn_file_actions_t *fa)
{
	return path[0] == '/' || !fa ? if_path(path) : NULL;
}

/* ---------------------------------------------------------------- exec, spawn */

static int exec_begin(void)
{
	int rc;

	if (!ism_is_me())
		return 0;
	rc = leave_inherited(ISM_R_EXEC, ~0U);
	if (rc) {
		errno = -rc;
		return rc;
	}
	ism_table_drop();
	return 0;
}

/* It returned, so it failed. */
static int exec_end(int rc)
{
	int saved = errno;

	if (ism_is_me())
		ism_table_retake();
	errno = saved;
	return rc;
}

#define EXEC(call) (REAL(execve), exec_begin() ? -1 : exec_end(call))

ISM_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	SPARE_ENV(env, path, envp);

	return EXEC(real.execve(path, argv, env));
}

ISM_EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

ISM_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	SPARE_ENV(env, if_path(file), envp);

	return EXEC(real.execvpe(file, argv, env));
}

ISM_EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

ISM_EXPORT int execveat(int dir, const char *path, char *const argv[], char *const envp[],
			int flags)
{
	return EXEC((int)real.syscall(SYS_execveat, dir, path, argv, envp, flags));
}

ISM_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	return EXEC(real.fexecve(fd, argv, envp));
}

/* Arguments from the second to the NULL, and that. */
static size_t count_args(va_list ap)
{
	size_t n = 1;
	va_list count;

	va_copy(count, ap);
	while (va_arg(count, char *))
		n++;
	va_end(count);
	return n;
}

static void take_args(char **argv, const char *first, size_t n, va_list *ap)
{
	argv[0] = (char *)first;
	for (size_t i = 1; i <= n; i++)
		argv[i] = va_arg(*ap, char *);
}

/* As an array on the stack, because malloc() in a child of fork() may wait for ever. */
#define EXEC_LIST(first, ap, argv)                                                                 \
	size_t n_##argv = count_args(ap);                                                          \
	char *argv[n_##argv + 1];                                                                  \
	take_args(argv, first, n_##argv, &(ap))

ISM_EXPORT int execl(const char *path, const char *arg, ...)
{
	va_list ap;

	va_start(ap, arg);
	EXEC_LIST(arg, ap, argv);
	va_end(ap);
	return execv(path, argv);
}

ISM_EXPORT int execlp(const char *file, const char *arg, ...)
{
	va_list ap;

	va_start(ap, arg);
	EXEC_LIST(arg, ap, argv);
	va_end(ap);
	return execvp(file, argv);
}

ISM_EXPORT int execle(const char *path, const char *arg, ...)
{
	char **envp;
	va_list ap;

	va_start(ap, arg);
	EXEC_LIST(arg, ap, argv);
	envp = va_arg(ap, char **);
	va_end(ap);
	return execve(path, argv, envp);
}

/* The child is made inside the C library, without our hooks, and shares nothing with us. */
ISM_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
			   const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	int rc = leave_inherited(ISM_R_SPAWN, ~0U);
	SPARE_ENV(env, if_fixed(path, fa), envp);

	return rc ? -rc : REAL(posix_spawn)(pid, path, fa, attr, argv, env);
}

ISM_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *fa,
			    const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	int rc = leave_inherited(ISM_R_SPAWN, ~0U);
	SPARE_ENV(env, if_fixed(file, fa), envp);

	return rc ? -rc : REAL(posix_spawnp)(pid, file, fa, attr, argv, env);
}

/* Who asks for this will spawn, and mean it. */
ISM_EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *fa, int fd, int newfd)
{
	int rc = ism_fd_leave(fd, ISM_R_SPAWN, 0);

	return rc ? -rc : REAL(posix_spawn_file_actions_adddup2)(fa, fd, newfd);
}

/*
 * A shell uses 0, 1 and 2 without being told. Other connections without FD_CLOEXEC are inherited, too,
 * but commands do not know of them, and it would cost each of them its rings.
 */
ISM_EXPORT int system(const char *command)
{
	int rc = command ? leave_inherited(ISM_R_SPAWN, STDERR_FILENO) : 0;

	if (rc) {
		errno = -rc;
		return -1;
	}
	return REAL(system)(command);
}

ISM_EXPORT FILE *popen(const char *command, const char *mode)
{
	int rc = leave_inherited(ISM_R_SPAWN, STDERR_FILENO);

	if (rc) {
		errno = -rc;
		return NULL;
	}
	return REAL(popen)(command, mode);
}
