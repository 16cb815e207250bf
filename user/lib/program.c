// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Judging a program by its ELF file; see program.h. Only what the file says is looked at, in bounds that the
 * file cannot stretch, and each part of it is read once.
 */
#define _GNU_SOURCE
#include "program.h"
#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NATIVE_CLASS (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)
#define NATIVE_DATA  (__BYTE_ORDER == __LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB)

/* EM_NONE: no program is local. */
#if defined(__x86_64__)
#define NATIVE_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define NATIVE_MACHINE EM_AARCH64
#elif defined(__riscv)
#define NATIVE_MACHINE EM_RISCV
#elif defined(__s390x__)
#define NATIVE_MACHINE EM_S390
#else
#define NATIVE_MACHINE EM_NONE
#endif

/* ---------------------------------------------------------------- headers */

/* All of it or nothing; the kernel refuses what is no offset. pread() would be a cancellation point. */
static int read_at(int fd, void *buf, size_t len, uint64_t off)
{
	_Static_assert(sizeof(long) == sizeof(off), "an offset is one argument");
	return syscall(SYS_pread64, fd, buf, len, off) == (long)len ? 0 : -ENOEXEC;
}

static int read_interp(int fd, struct ism_program *p)
{
	for (unsigned int i = 0; i < p->phdrs; i++) {
		const ElfW(Phdr) *h = &p->phdr[i];

		if (h->p_type != PT_INTERP)
			continue;
		if (!h->p_filesz || h->p_filesz >= sizeof(p->interp))
			return -ENOEXEC;
		p->interp[h->p_filesz] = 0;
		return read_at(fd, p->interp, h->p_filesz, h->p_offset);
	}
	p->interp[0] = 0;
	return 0;
}

/* Files of the other byte order are left alone: their machine differs anyway. */
int ism_program_read(int fd, struct ism_program *p)
{
	ElfW(Ehdr) h = {};
	long n = syscall(SYS_pread64, fd, &h, sizeof(h), 0L);

	p->phdrs = 0;
	p->interp[0] = 0;
	if (n < (long)sizeof(Elf32_Ehdr) || memcmp(h.e_ident, ELFMAG, SELFMAG) ||
	    h.e_ident[EI_DATA] != NATIVE_DATA)
		return -ENOEXEC;
	p->class = h.e_ident[EI_CLASS];
	p->machine = h.e_machine; /* at the same place in both classes */
	if (p->class != NATIVE_CLASS)
		return p->class == ELFCLASS32 || p->class == ELFCLASS64 ? 0 : -ENOEXEC;
	if (n < (long)sizeof(h) || h.e_phentsize != sizeof(p->phdr[0]) ||
	    h.e_phnum > ISM_PROGRAM_PHDRS ||
	    read_at(fd, p->phdr, h.e_phnum * sizeof(p->phdr[0]), h.e_phoff))
		return -ENOEXEC;
	p->phdrs = h.e_phnum;
	return read_interp(fd, p);
}

/* ---------------------------------------------------------------- is it local? */

#define DYNS_MAX  256
#define NAMES_MAX (32 << 10)
#define TEXT_MAX  (256 << 10) /* bytes of code; a program of Go has more */

/*
 * In a name that a program links to, one of these may mean that it starts another program, gets a socket, or
 * runs code that it does not link to: then it needs us. Some names have one by chance, regexec() for one,
 * and that program has us for nothing.
 */
static const char *const words[] = {
	"exec", "spawn", "popen", "proc_open", "system", "wordexp", "syscall", "sock", "accept",
	"connect", "listen", "recv", "pidfd", "rcmd", "resvport", "clnt", "svc", "rpc", "pmap_",
	"dlopen", "dlmopen", "dlsym", "dlvsym",
	/* modules of the name service are code, too, and may ask a server */
	"addrinfo", "nameinfo", "gethostby", "hostent", "getpw", "getgrnam", "getgrgid", "getgrent",
	"getsp", "grouplist", "initgroups", "netgr", "getserv", "getproto", "getnet", "getalias",
	"ether_", "getlogin", "cuserid", "ruserok", "glob"
};

#define WORDS (sizeof(words) / sizeof(words[0]))
_Static_assert(WORDS <= 64, "a bit for each");

/**
 * struct scratch - all that is read of a file
 * @first: by a byte, which words begin with it
 */
struct scratch {
	uint64_t first[256];
	struct ism_program prog;
	ElfW(Dyn) dyn[DYNS_MAX];
	char names[NAMES_MAX];
};

/* What the dynamic section tells. */
struct links {
	size_t dyns;
	uint64_t names; /* address of the string table */
	uint64_t names_len;
};

static int starts(const char *name, const char *word)
{
	return !strncmp(name, word, strlen(word));
}

static int is_loader(const char *name)
{
	return starts(name, "ld-linux") || starts(name, "ld64.so");
}

static int is_c_library(const char *name)
{
	static const char *const parts[] = { "libm.so.6", "libpthread.so.0", "librt.so.1",
					     "libdl.so.2" };

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!strcmp(name, parts[i]))
			return 1;
	return is_loader(name);
}

/* Where in the file @len bytes at @addr of the program come from. */
static int find_in_file(const struct ism_program *p, uint64_t addr, uint64_t len, uint64_t *off)
{
	int found = 0;

	for (unsigned int i = 0; i < p->phdrs; i++) {
		const ElfW(Phdr) *h = &p->phdr[i];
		uint64_t at = addr - h->p_vaddr;

		if (h->p_type != PT_LOAD || addr < h->p_vaddr || at > h->p_filesz ||
		    len > h->p_filesz - at)
			continue;
		if (h->p_offset > (uint64_t)LLONG_MAX - at)
			return 0;
		*off = h->p_offset + at;
		found++;
	}
	return found == 1;
}

static int is_small(const struct ism_program *p)
{
	uint64_t room = TEXT_MAX;

	for (unsigned int i = 0; i < p->phdrs; i++) {
		if (p->phdr[i].p_type != PT_LOAD || !(p->phdr[i].p_flags & PF_X))
			continue;
		if (p->phdr[i].p_filesz > room)
			return 0;
		room -= p->phdr[i].p_filesz;
	}
	return 1;
}

static int read_dyns(int fd, struct scratch *s, struct links *l)
{
	const ElfW(Phdr) *dynamic = NULL;
	uint64_t off;

	for (unsigned int i = 0; i < s->prog.phdrs; i++) {
		if (s->prog.phdr[i].p_type != PT_DYNAMIC)
			continue;
		if (dynamic)
			return 0;
		dynamic = &s->prog.phdr[i];
	}
	if (!dynamic || dynamic->p_filesz > sizeof(s->dyn) ||
	    !find_in_file(&s->prog, dynamic->p_vaddr, dynamic->p_filesz, &off) ||
	    read_at(fd, s->dyn, dynamic->p_filesz, off))
		return 0;
	l->dyns = dynamic->p_filesz / sizeof(s->dyn[0]);
	return 1;
}

/* Up to the end mark, which must be there: then @l->dyns is what comes before it. */
static int understand_dyns(const struct scratch *s, struct links *l)
{
	for (size_t i = 0; i < l->dyns; i++) {
		const ElfW(Dyn) *d = &s->dyn[i];

		switch (d->d_tag) {
		case DT_NULL:
			l->dyns = i;
			return 1;
		case DT_STRTAB:
			if (l->names)
				return 0;
			l->names = d->d_un.d_ptr;
			break;
		case DT_STRSZ:
			if (l->names_len)
				return 0;
			l->names_len = d->d_un.d_val;
			break;
		/* libraries from elsewhere, or more of them */
		case DT_RPATH:
		case DT_RUNPATH:
		case DT_AUXILIARY:
		case DT_FILTER:
		case DT_CONFIG:
		case DT_AUDIT:
		case DT_DEPAUDIT:
			return 0;
		}
	}
	return 0;
}

static int read_names(int fd, struct scratch *s, const struct links *l)
{
	uint64_t off;

	return l->names_len && l->names_len <= sizeof(s->names) &&
	       find_in_file(&s->prog, l->names, l->names_len, &off) &&
	       !read_at(fd, s->names, l->names_len, off) && !s->names[l->names_len - 1];
}

static int needs_only_c(const struct scratch *s, const struct links *l)
{
	int c = 0;

	for (size_t i = 0; i < l->dyns; i++) {
		const char *name;

		if (s->dyn[i].d_tag != DT_NEEDED)
			continue;
		if (s->dyn[i].d_un.d_val >= l->names_len)
			return 0;
		name = s->names + s->dyn[i].d_un.d_val;
		if (!strcmp(name, "libc.so.6"))
			c = 1;
		else if (!is_c_library(name))
			return 0;
	}
	return c;
}

/* Names may be ends of others, and are not told apart: whatever the table has counts. */
static int has_a_word(struct scratch *s, const struct links *l)
{
	for (size_t i = 0; i < WORDS; i++)
		s->first[(unsigned char)words[i][0]] |= 1ULL << i;
	for (size_t at = 0; at < l->names_len; at++) {
		uint64_t left = s->first[(unsigned char)s->names[at]];

		for (; left; left &= left - 1)
			if (starts(s->names + at, words[__builtin_ctzll(left)]))
				return 1;
	}
	return 0;
}

static int judge(int fd, struct scratch *s)
{
	const char *loader;
	struct links l = {};

	if (NATIVE_MACHINE == EM_NONE || ism_program_read(fd, &s->prog) ||
	    s->prog.machine != NATIVE_MACHINE)
		return 0;
	loader = strrchr(s->prog.interp, '/');
	return loader && is_loader(loader + 1) && is_small(&s->prog) && read_dyns(fd, s, &l) &&
	       understand_dyns(s, &l) && read_names(fd, s, &l) && needs_only_c(s, &l) &&
	       !has_a_word(s, &l);
}

/* Given back at once, because in a child of vfork() it is the parent's memory. */
int ism_program_is_local(int fd)
{
	struct scratch *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int rc;

	if (s == MAP_FAILED)
		return 0;
	rc = judge(fd, s);
	munmap(s, sizeof(*s));
	return rc;
}
