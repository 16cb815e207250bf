/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The C library's own functions behind the interposed ones. */
#ifndef ISM_SHIM_REAL_H
#define ISM_SHIM_REAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <aio.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/* R(return type, name, arguments) */
#define ISM_REAL(R)                                                                                \
	R(int, socket, (int, int, int))                                                            \
	R(int, connect, (int, const struct sockaddr *, socklen_t))                                 \
	R(int, listen, (int, int))                                                                 \
	R(int, accept, (int, struct sockaddr *, socklen_t *))                                      \
	R(int, accept4, (int, struct sockaddr *, socklen_t *, int))                                \
	R(int, shutdown, (int, int))                                                               \
	R(int, close, (int))                                                                       \
	R(int, close_range, (unsigned int, unsigned int, int))                                     \
	R(void, closefrom, (int))                                                                  \
	R(int, dup, (int))                                                                         \
	R(int, dup2, (int, int))                                                                   \
	R(int, dup3, (int, int, int))                                                              \
	R(int, fcntl, (int, int, ...))                                                             \
	R(int, fcntl64, (int, int, ...))                                                           \
	R(int, ioctl, (int, unsigned long, ...))                                                   \
	R(int, getsockopt, (int, int, int, void *, socklen_t *))                                   \
	R(int, setsockopt, (int, int, int, const void *, socklen_t))                               \
	R(ssize_t, read, (int, void *, size_t))                                                    \
	R(ssize_t, readv, (int, const struct iovec *, int))                                        \
	R(ssize_t, preadv2, (int, const struct iovec *, int, off_t, int))                          \
	R(ssize_t, write, (int, const void *, size_t))                                             \
	R(ssize_t, writev, (int, const struct iovec *, int))                                       \
	R(ssize_t, pwritev2, (int, const struct iovec *, int, off_t, int))                         \
	R(ssize_t, recv, (int, void *, size_t, int))                                               \
	R(ssize_t, recvfrom, (int, void *, size_t, int, struct sockaddr *, socklen_t *))           \
	R(ssize_t, recvmsg, (int, struct msghdr *, int))                                           \
	R(int, recvmmsg, (int, struct mmsghdr *, unsigned int, int, struct timespec *))            \
	R(ssize_t, send, (int, const void *, size_t, int))                                         \
	R(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))   \
	R(ssize_t, sendmsg, (int, const struct msghdr *, int))                                     \
	R(int, sendmmsg, (int, struct mmsghdr *, unsigned int, int))                               \
	R(ssize_t, sendfile, (int, int, off_t *, size_t))                                          \
	R(ssize_t, splice, (int, off64_t *, int, off64_t *, size_t, unsigned int))                 \
	R(int, poll, (struct pollfd *, nfds_t, int))                                               \
	R(int, ppoll, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))        \
	R(int, select, (int, fd_set *, fd_set *, fd_set *, struct timeval *))                      \
	R(int, pselect,                                                                            \
	  (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *))          \
	R(int, epoll_create, (int))                                                                \
	R(int, epoll_create1, (int))                                                               \
	R(int, epoll_ctl, (int, int, int, struct epoll_event *))                                   \
	R(int, epoll_wait, (int, struct epoll_event *, int, int))                                  \
	R(int, epoll_pwait, (int, struct epoll_event *, int, int, const sigset_t *))               \
	R(int, epoll_pwait2,                                                                       \
	  (int, struct epoll_event *, int, const struct timespec *, const sigset_t *))             \
	R(pid_t, fork, (void))                                                                     \
	R(pid_t, vfork, (void))                                                                    \
	R(int, prctl, (int, ...))                                                                  \
	R(int, execve, (const char *, char *const[], char *const[]))                               \
	R(int, execvpe, (const char *, char *const[], char *const[]))                              \
	R(int, execveat, (int, const char *, char *const[], char *const[], int))                   \
	R(int, fexecve, (int, char *const[], char *const[]))                                       \
	R(int, posix_spawn,                                                                        \
	  (pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,   \
	   char *const[], char *const[]))                                                          \
	R(int, posix_spawnp,                                                                       \
	  (pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,   \
	   char *const[], char *const[]))                                                          \
	R(int, posix_spawn_file_actions_adddup2, (posix_spawn_file_actions_t *, int, int))         \
	R(pid_t, _Fork, (void))                                                                    \
	R(int, system, (const char *))                                                             \
	R(FILE *, popen, (const char *, const char *))                                             \
	R(int, vdprintf, (int, const char *, va_list))                                             \
	R(int, __vdprintf_chk, (int, int, const char *, va_list))                                  \
	R(int, aio_read, (struct aiocb *))                                                         \
	R(int, aio_write, (struct aiocb *))                                                        \
	R(int, lio_listio, (int, struct aiocb *const[], int, struct sigevent *))                   \
	R(int, sigaction, (int, const struct sigaction *, struct sigaction *))                     \
	R(FILE *, fdopen, (int, const char *))                                                     \
	R(long, syscall, (long, ...))                                                              \
	R(int, socketpair, (int, int, int, int[2]))

/**
 * real - filled by ism_real_init(). A function that this C library does not have is NULL.
 *
 * Interposed functions can run before our constructor does: they call ism_real_init() first, by REAL().
 */
struct ism_real {
#define ISM_REAL_MEMBER(ret, name, args) ret(*name) args;
	ISM_REAL(ISM_REAL_MEMBER)
#undef ISM_REAL_MEMBER
	int ready;
};

extern struct ism_real real;

/** ism_real_init() - look everything up; cheap when done. Safe from any constructor. */
void ism_real_init(void);

/* REAL(name)(args): the C library's function, also before our constructor ran. */
#define REAL(name) (__builtin_expect(!real.ready, 0) ? (ism_real_init(), real.name) : real.name)

/* SYS(number, arguments): a system call that leaves errno alone: its result, or -errno. */
#define SYS(...)                                                                                   \
	({                                                                                         \
		int saved_errno = errno;                                                           \
		long sys_rc = REAL(syscall)(__VA_ARGS__);                                          \
		if (sys_rc < 0)                                                                    \
			sys_rc = -errno;                                                           \
		errno = saved_errno;                                                               \
		sys_rc;                                                                            \
	})

/* ISM_ALIAS(name, target): export @target, defined in the same file, under another name too. */
#if defined(__has_attribute) && __has_attribute(copy)
#define ISM_COPY_ATTR(target) __attribute__((copy(target)))
#else
#define ISM_COPY_ATTR(target)
#endif
#define ISM_ALIAS(name, target)                                                                    \
	extern __typeof__(target) name ISM_COPY_ATTR(target)                                       \
		__attribute__((alias(#target), visibility("default")))

#endif
