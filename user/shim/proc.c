// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Interposed: what makes and ends processes, what hands descriptors to code that we do not see, and signal
 * handlers, so that a wait in user space is interrupted where a system call would be.
 *
 * fork(): the child holds what the parent holds, in slots that both share. FILEs, aio and io_uring: the
 * connections in question go back to TCP first.
 */
#include "shim.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

/* ---------------------------------------------------------------- fork */

static pid_t
	my_pid; /* 0: a process that shares our memory, but was not made by fork(), see ism_is_me() */
static __thread int in_fork; /* fork_wrapped() will tell how it ended */

/*
 * Programs that only start others, such as shells, have nothing to share, and pay for each page of ours
 * that is written to after a fork().
 */
static void before_fork(void)
{
	ism_exec_before_fork();
	if (!ism_table_idle())
		ism_table_before_fork();
}

static void fork_done(int failed)
{
	if (!ism_table_idle())
		ism_table_fork_done(failed);
}

static void after_in_parent(void)
{
	if (!in_fork)
		fork_done(0);
}

static void after_in_child(void)
{
	my_pid = SYS(SYS_getpid);
	in_fork = 0;
	ism_borrowed = 0; /* this memory is our own, whoever made us */
	if (ism_table_idle())
		return;
	ism_daemon_after_fork();
	ism_table_after_fork();
	epoll_after_fork();
}

/*
 * Registered first, so before_fork() is the last and the others are the first to run. This way it is
 * also there when the C library itself forks: forkpty().
 */
__attribute__((constructor(103))) static void register_fork(void)
{
	if (my_pid)
		return;
	my_pid = SYS(SYS_getpid);
	pthread_atfork(before_fork, after_in_parent, after_in_child);
}

ISM_EXPORT pid_t fork(void)
{
	pid_t pid;

	register_fork(); /* the constructor of another library may fork before ours runs */
	in_fork = 1;
	pid = REAL(fork)();
	if (pid) {
		in_fork = 0;
		fork_done(pid < 0);
	}
	return pid;
}
ISM_ALIAS(__fork, fork);

/* Without atfork handlers, so ours have to be called. */
static pid_t fork_by(pid_t (*how)(void *arg), void *arg)
{
	pid_t pid;

	before_fork();
	pid = how(arg);
	if (pid)
		fork_done(pid < 0);
	else
		after_in_child();
	return pid;
}

static pid_t plain_fork(void *arg)
{
	(void)arg;
	return real._Fork();
}

ISM_EXPORT pid_t _Fork(void)
{
	if (!REAL(_Fork)) {
		errno = ENOSYS;
		return -1;
	}
	return fork_by(plain_fork, NULL);
}

/* As glibc's misc/daemon.c; that one forks and exits where we do not see it. */
ISM_EXPORT int daemon(int nochdir, int noclose)
{
	struct stat st;
	pid_t pid = fork();
	int fd;

	if (pid < 0)
		return -1;
	if (pid)
		_exit(0);
	if (setsid() < 0)
		return -1;
	if (!nochdir && chdir("/"))
		return -1;
	if (noclose)
		return 0;
	fd = open("/dev/null", O_RDWR);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
		real.close(fd);
		errno = ENODEV;
		return -1;
	}
	for (int i = 0; i <= STDERR_FILENO; i++)
		dup2(fd, i);
	if (fd > STDERR_FILENO)
		real.close(fd);
	return 0;
}

/* ---------------------------------------------------------------- end of the process */

int ism_is_me(void)
{
	return !ism_borrowed && SYS(SYS_getpid) == my_pid;
}

static void leave_process(void)
{
	static _Atomic uint32_t left;

	if (!ism_is_me() || atomic_exchange(&left, 1))
		return;
	conn_exit();
	ism_table_drop();
}

__attribute__((destructor(101))) static void at_exit(void)
{
	leave_process();
}

/* Registered first, so the last that quick_exit() calls. */
__attribute__((constructor(103))) static void register_quick_exit(void)
{
	(void)at_quick_exit(leave_process);
}

ISM_EXPORT void _exit(int status)
{
	leave_process();
	for (;;)
		SYS(SYS_exit_group, status);
}
ISM_ALIAS(_Exit, _exit);

/* ---------------------------------------------------------------- stdio, aio */

/* A FILE reads, writes and closes inside the C library. */
ISM_EXPORT FILE *fdopen(int fd, const char *mode)
{
	int rc = ism_fd_leave(fd, ISM_R_STDIO, 1);

	if (rc) {
		errno = -rc;
		return NULL;
	}
	return REAL(fdopen)(fd, mode);
}
ISM_ALIAS(_IO_fdopen, fdopen);

static void leave_tx(int fd, uint32_t reason)
{
	struct conn *c = conn_of(fd);

	if (!c)
		return;
	if (conn_tx_begin(c, fd))
		conn_demote_tx(c, reason);
	else
		conn_tx_end(c, fd, 0);
	conn_done(c);
}

ISM_EXPORT int vdprintf(int fd, const char *fmt, va_list ap)
{
	leave_tx(fd, ISM_R_STDIO);
	return REAL(vdprintf)(fd, fmt, ap);
}

ISM_EXPORT int dprintf(int fd, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vdprintf(fd, fmt, ap);
	va_end(ap);
	return n;
}

ISM_EXPORT int __vdprintf_chk(int fd, int flag, const char *fmt, va_list ap)
{
	leave_tx(fd, ISM_R_STDIO);
	return REAL(__vdprintf_chk)(fd, flag, fmt, ap);
}

ISM_EXPORT int __dprintf_chk(int fd, int flag, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = __vdprintf_chk(fd, flag, fmt, ap);
	va_end(ap);
	return n;
}

/* The C library's threads do these. */
static int leave_aio(const struct aiocb *cb)
{
	int rc = cb ? ism_fd_leave(cb->aio_fildes, ISM_R_SHARED, 0) : 0;

	if (rc)
		errno = -rc;
	return rc;
}

ISM_EXPORT int aio_read(struct aiocb *cb)
{
	return leave_aio(cb) ? -1 : REAL(aio_read)(cb);
}

ISM_EXPORT int aio_write(struct aiocb *cb)
{
	return leave_aio(cb) ? -1 : REAL(aio_write)(cb);
}

ISM_EXPORT int lio_listio(int mode, struct aiocb *const list[], int n, struct sigevent *sig)
{
	for (int i = 0; i < n; i++)
		if (leave_aio(list[i]))
			return -1;
	return REAL(lio_listio)(mode, list, n, sig);
}

/* One layout on 64 bits, two types in the header. */
ISM_EXPORT int aio_read64(struct aiocb64 *cb)
{
	return aio_read((struct aiocb *)cb);
}

ISM_EXPORT int aio_write64(struct aiocb64 *cb)
{
	return aio_write((struct aiocb *)cb);
}

ISM_EXPORT int lio_listio64(int mode, struct aiocb64 *const list[], int n, struct sigevent *sig)
{
	return lio_listio(mode, (struct aiocb *const *)list, n, sig);
}
_Static_assert(sizeof(struct aiocb) == sizeof(struct aiocb64), "one layout");

/* ---------------------------------------------------------------- signals */

__thread volatile uint32_t ism_interrupts;

typedef void (*handler_fn)(int sig, siginfo_t *info, void *uc);

/* The application's own handlers behind the trampoline. */
static _Atomic(handler_fn) handlers[_NSIG];

/*
 * Handlers without SA_RESTART end a wait: they are counted for the thread that they run in. The kernel
 * hands all three arguments to a handler without SA_SIGINFO, too.
 */
static void trampoline(int sig, siginfo_t *info, void *uc)
{
	handler_fn fn = atomic_load(&handlers[sig]);

	ism_interrupts++;
	if (fn)
		fn(sig, info, uc);
}

static int is_interrupting(const struct sigaction *a)
{
	return !(a->sa_flags & SA_RESTART) && a->sa_handler != SIG_DFL &&
	       a->sa_handler != SIG_IGN && a->sa_handler != SIG_ERR;
}

/* sa_handler and sa_sigaction are one place: the kernel has one pointer. */
ISM_EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction ours, was = { 0 };
	handler_fn before;
	int rc, wrap;

	if (sig <= 0 || sig >= _NSIG)
		return REAL(sigaction)(sig, act, old);
	before = atomic_load(&handlers[sig]);
	wrap = act && is_interrupting(act) && !ism_borrowed;
	if (wrap) {
		ours = *act;
		ours.sa_sigaction = trampoline;
		/* first, because it may run as soon as it is installed */
		atomic_store(&handlers[sig], act->sa_sigaction);
		act = &ours;
	}
	rc = REAL(sigaction)(sig, act, old ? &was : NULL);
	if (rc && wrap)
		atomic_store(&handlers[sig], before);
	if (rc || !old)
		return rc;
	if (was.sa_sigaction == trampoline)
		was.sa_sigaction = before;
	*old = was;
	return 0;
}
ISM_ALIAS(__sigaction, sigaction);

/* Signals for which siginterrupt() was asked to interrupt: what signal() then does. */
static _Atomic uint64_t interrupting;

static uint64_t sig_bit(int sig)
{
	return sig > 0 && sig < _NSIG ? 1ULL << (sig - 1) : 0;
}

static sighandler_t set_handler(int sig, sighandler_t fn, int flags, int mask_itself)
{
	struct sigaction a = { .sa_flags = flags }, old;

	if (fn == SIG_ERR || !sig_bit(sig)) {
		errno = EINVAL;
		return SIG_ERR;
	}
	a.sa_handler = fn;
	if (mask_itself)
		sigaddset(&a.sa_mask, sig);
	return sigaction(sig, &a, &old) ? SIG_ERR : old.sa_handler;
}

/* The C library has these on top of its own sigaction(): signal/signal.c, sysdeps/posix/signal.c. */
ISM_EXPORT sighandler_t signal(int sig, sighandler_t fn)
{
	return set_handler(sig, fn, atomic_load(&interrupting) & sig_bit(sig) ? 0 : SA_RESTART, 1);
}
ISM_ALIAS(bsd_signal, signal);
ISM_ALIAS(ssignal, signal);

ISM_EXPORT sighandler_t sysv_signal(int sig, sighandler_t fn)
{
	return set_handler(sig, fn, SA_RESETHAND | SA_NODEFER | SA_INTERRUPT, 0);
}
ISM_ALIAS(__sysv_signal, sysv_signal);

ISM_EXPORT int siginterrupt(int sig, int on)
{
	struct sigaction a;

	if (sigaction(sig, NULL, &a))
		return -1;
	if (on) {
		atomic_fetch_or(&interrupting, sig_bit(sig));
		a.sa_flags &= ~SA_RESTART;
	} else {
		atomic_fetch_and(&interrupting, ~sig_bit(sig));
		a.sa_flags |= SA_RESTART;
	}
	return sigaction(sig, &a, NULL);
}

ISM_EXPORT sighandler_t sigset(int sig, sighandler_t fn)
{
	sigset_t set, was;
	struct sigaction old;
	sighandler_t before;

	sigemptyset(&set);
	if (sigaddset(&set, sig))
		return SIG_ERR;
	if (fn == SIG_HOLD) {
		if (sigprocmask(SIG_BLOCK, &set, &was) || sigaction(sig, NULL, &old))
			return SIG_ERR;
		return sigismember(&was, sig) ? SIG_HOLD : old.sa_handler;
	}
	before = set_handler(sig, fn, 0, 0);
	if (before == SIG_ERR || sigprocmask(SIG_UNBLOCK, &set, &was))
		return SIG_ERR;
	return sigismember(&was, sig) ? SIG_HOLD : before;
}

/* ---------------------------------------------------------------- io_uring */

struct io_uring;
struct io_uring_params;

/*
 * liburing does its system calls itself. It may have come by dlopen() of something else, outside of what
 * RTLD_NEXT sees.
 */
static void *uring_next(const char *name)
{
	static const char *const libs[] = { "liburing.so.2", "liburing.so.1" };
	void *fn = dlsym(RTLD_NEXT, name), *lib;

	for (int i = 0; !fn && i < 2; i++) {
		lib = dlopen(libs[i], RTLD_LAZY | RTLD_NOLOAD);
		fn = lib ? dlsym(lib, name) : NULL;
	}
	return fn;
}

#define URING_HOOK(name, args, call)                                                               \
	int name args;                                                                             \
	ISM_EXPORT int name args                                                                   \
	{                                                                                          \
		int(*next) args = (int(*) args)uring_next(#name);                                  \
		ism_disable(ISM_R_IO_URING);                                                       \
		return next ? next call : -ENOSYS;                                                 \
	}

URING_HOOK(io_uring_queue_init, (unsigned int n, struct io_uring *r, unsigned int flags),
	   (n, r, flags))
URING_HOOK(io_uring_queue_init_params,
	   (unsigned int n, struct io_uring *r, struct io_uring_params *p), (n, r, p))
URING_HOOK(io_uring_queue_init_mem,
	   (unsigned int n, struct io_uring *r, struct io_uring_params *p, void *buf, size_t len),
	   (n, r, p, buf, len))

/* ---------------------------------------------------------------- seccomp */

/*
 * A filter may kill for what the application itself never calls, and ours are sendmsg(), getsockopt(),
 * ppoll() and others. sshd's child without privileges is such a one.
 */
ISM_EXPORT int prctl(int op, ...)
{
	unsigned long a[4];
	va_list ap;

	va_start(ap, op);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	if (op == PR_SET_SECCOMP)
		ism_confine(ISM_R_SECCOMP);
	return REAL(prctl)(op, a[0], a[1], a[2], a[3]);
}

/* Without the arguments of a filter it is a question what the kernel can: libseccomp asks. */
static int confines(long op, long flags, long filter)
{
	return (op == SECCOMP_SET_MODE_STRICT && !flags) ||
	       (op == SECCOMP_SET_MODE_FILTER && filter);
}

/* ---------------------------------------------------------------- syscall() */

#define CLONE_VM_FLAG 0x100UL

struct raw {
	long nr, a[6];
};

static long raw_call(const struct raw *r)
{
	return real.syscall(r->nr, r->a[0], r->a[1], r->a[2], r->a[3], r->a[4], r->a[5]);
}

static pid_t raw_fork(void *arg)
{
	return raw_call(arg);
}

/* A child with its own memory is one of fork(); one that shares ours is a thread, or about to exec. */
static long raw_clone(struct raw *r)
{
	uint64_t flags = SIGCHLD;

	if (r->nr == SYS_clone)
		flags = r->a[0];
	else if (r->nr == SYS_clone3)
		memcpy(&flags, (void *)r->a[0], sizeof(flags)); /* struct clone_args.flags */
	return flags & CLONE_VM_FLAG ? raw_call(r) : fork_by(raw_fork, r);
}

static long raw_recv(const struct raw *r)
{
	const long *a = r->a;

	switch (r->nr) {
	case SYS_read:
		return read(a[0], (void *)a[1], a[2]);
	case SYS_readv:
		return readv(a[0], (void *)a[1], a[2]);
	case SYS_recvfrom:
		return recvfrom(a[0], (void *)a[1], a[2], a[3], (void *)a[4], (void *)a[5]);
	case SYS_recvmsg:
		return recvmsg(a[0], (void *)a[1], a[2]);
	default:
		return recvmmsg(a[0], (void *)a[1], a[2], a[3], (void *)a[4]);
	}
}

static long raw_send(const struct raw *r)
{
	const long *a = r->a;

	switch (r->nr) {
	case SYS_write:
		return write(a[0], (void *)a[1], a[2]);
	case SYS_writev:
		return writev(a[0], (void *)a[1], a[2]);
	case SYS_sendto:
		return sendto(a[0], (void *)a[1], a[2], a[3], (void *)a[4], a[5]);
	case SYS_sendmsg:
		return sendmsg(a[0], (void *)a[1], a[2]);
	case SYS_sendmmsg:
		return sendmmsg(a[0], (void *)a[1], a[2], a[3]);
	case SYS_sendfile:
		return sendfile(a[0], a[1], (void *)a[2], a[3]);
	default:
		return splice(a[0], (void *)a[1], a[2], (void *)a[3], a[4], a[5]);
	}
}

static long raw_fd(const struct raw *r)
{
	const long *a = r->a;

	switch (r->nr) {
	case SYS_socket:
		return socket(a[0], a[1], a[2]);
	case SYS_connect:
		return connect(a[0], (void *)a[1], a[2]);
	case SYS_listen:
		return listen(a[0], a[1]);
	case SYS_accept:
		return accept(a[0], (void *)a[1], (void *)a[2]);
	case SYS_accept4:
		return accept4(a[0], (void *)a[1], (void *)a[2], a[3]);
	case SYS_shutdown:
		return shutdown(a[0], a[1]);
	case SYS_close:
		return close(a[0]);
	case SYS_close_range:
		return close_range(a[0], a[1], a[2]);
	case SYS_dup:
		return dup(a[0]);
	case SYS_dup3:
		return dup3(a[0], a[1], a[2]);
	case SYS_fcntl:
		return fcntl(a[0], a[1], (void *)a[2]);
	case SYS_ioctl:
		return ioctl(a[0], a[1], (void *)a[2]);
	case SYS_setsockopt:
		return setsockopt(a[0], a[1], a[2], (void *)a[3], a[4]);
	default:
		return getsockopt(a[0], a[1], a[2], (void *)a[3], (void *)a[4]);
	}
}

struct raw_sigset {
	const sigset_t *set;
	size_t len;
};

static long raw_wait(const struct raw *r)
{
	const long *a = r->a;
	const struct raw_sigset *s = (void *)a[5];

	switch (r->nr) {
	case SYS_epoll_create1:
		return epoll_create1(a[0]);
	case SYS_epoll_ctl:
		return epoll_ctl(a[0], a[1], a[2], (void *)a[3]);
	case SYS_epoll_pwait:
		return epoll_pwait(a[0], (void *)a[1], a[2], a[3], (void *)a[4]);
	case SYS_epoll_pwait2:
		return epoll_pwait2(a[0], (void *)a[1], a[2], (void *)a[3], (void *)a[4]);
	case SYS_ppoll:
		return ppoll((void *)a[0], a[1], (void *)a[2], (void *)a[3]);
	default:
		return pselect(a[0], (void *)a[1], (void *)a[2], (void *)a[3], (void *)a[4],
			       s ? s->set : NULL);
	}
}

/* The older calls, which newer architectures do not have. */
static long raw_old(struct raw *r)
{
#ifdef SYS_poll
	const long *a = r->a;

	switch (r->nr) {
	case SYS_fork:
	case SYS_vfork: /* its child would return into a frame that the parent uses: as fork() */
		r->nr = SYS_fork;
		return raw_clone(r);
	case SYS_dup2:
		return dup2(a[0], a[1]);
	case SYS_poll:
		return poll((void *)a[0], a[1], a[2]);
	case SYS_select:
		return select(a[0], (void *)a[1], (void *)a[2], (void *)a[3], (void *)a[4]);
	case SYS_epoll_create:
		return epoll_create(a[0]);
	case SYS_epoll_wait:
		return epoll_wait(a[0], (void *)a[1], a[2], a[3]);
	}
#endif
	return raw_call(r);
}

static long raw_process(struct raw *r)
{
	const long *a = r->a;

	switch (r->nr) {
	case SYS_clone:
	case SYS_clone3:
		return raw_clone(r);
	case SYS_execve:
		return execve((void *)a[0], (void *)a[1], (void *)a[2]);
	case SYS_execveat:
		return execveat(a[0], (void *)a[1], (void *)a[2], (void *)a[3], a[4]);
	case SYS_exit_group:
		_exit(a[0]);
	case SYS_prctl:
		return prctl(a[0], a[1], a[2], a[3], a[4]);
	case SYS_seccomp:
		if (confines(a[0], a[1], a[2]))
			ism_confine(ISM_R_SECCOMP);
		return raw_call(r);
	default: /* SYS_io_uring_setup */
		ism_disable(ISM_R_IO_URING);
		return raw_call(r);
	}
}

/*
 * System calls by number go where the functions of the same name go. More arguments than were passed are
 * read, and not used, as the C library's own syscall() does it.
 */
ISM_EXPORT long syscall(long nr, ...)
{
	struct raw r = { .nr = nr };
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		r.a[i] = va_arg(ap, long);
	va_end(ap);
	ism_real_init();
	switch (nr) {
	case SYS_read:
	case SYS_readv:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_recvmmsg:
		return raw_recv(&r);
	case SYS_write:
	case SYS_writev:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_sendmmsg:
	case SYS_sendfile:
	case SYS_splice:
		return raw_send(&r);
	case SYS_socket:
	case SYS_connect:
	case SYS_listen:
	case SYS_accept:
	case SYS_accept4:
	case SYS_shutdown:
	case SYS_close:
	case SYS_close_range:
	case SYS_dup:
	case SYS_dup3:
	case SYS_fcntl:
	case SYS_ioctl:
	case SYS_setsockopt:
	case SYS_getsockopt:
		return raw_fd(&r);
	case SYS_epoll_create1:
	case SYS_epoll_ctl:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_ppoll:
	case SYS_pselect6:
		return raw_wait(&r);
	case SYS_clone:
	case SYS_clone3:
	case SYS_execve:
	case SYS_execveat:
	case SYS_exit_group:
	case SYS_prctl:
	case SYS_seccomp:
	case SYS_io_uring_setup:
		return raw_process(&r);
	default:
		return raw_old(&r);
	}
}
