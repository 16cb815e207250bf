/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the ELF file of a program says: which machine and loader it is for, and whether it is local, so that
 * the preloaded library is of no use to it.
 *
 * No malloc(), no stdio, no cancellation point, and little stack but for what the caller passes: all of it
 * may run in signal handlers and in children of vfork(), and in several threads at once. The file is not
 * trusted, and may change at any time.
 */
#ifndef ISM_LIB_PROGRAM_H
#define ISM_LIB_PROGRAM_H

#include <fcntl.h>
#include <limits.h>
#include <link.h>

#define ISM_PRELOAD_NAME "libismredir-preload.so"

/* How to open a file that may turn out to be no program: nothing waits, and nothing is taken over. */
#define ISM_PROGRAM_OPEN (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

#define ISM_PROGRAM_PHDRS 128

/**
 * struct ism_program - what matters of an ELF file
 * @class, @machine: of its header
 * @phdrs: how many program headers are in @phdr; none are read of another class than ours
 * @interp: PT_INTERP, empty when it has none
 */
struct ism_program {
	int class;
	int machine;
	unsigned int phdrs;
	ElfW(Phdr) phdr[ISM_PROGRAM_PHDRS];
	char interp[PATH_MAX];
};

/**
 * ism_program_read() - read the headers of the file @fd, whose position stays
 *
 * Return: 0, or -ENOEXEC: not an ELF file of our byte order, cut short, or not understood.
 */
int ism_program_read(int fd, struct ism_program *p);

/**
 * ism_program_is_local() - can this program neither make or take a socket nor start another program?
 * @fd: its file, whose position stays
 *
 * Judged by the names that it links to, in the C library and nothing else. Whoever makes system calls by
 * instructions of his own has none, and is not seen; but run-time systems that do so are large, and what is
 * large is not local.
 *
 * Return: 1; 0 also for whatever cannot be read or is not understood. errno may change.
 */
int ism_program_is_local(int fd);

#endif
