// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which programs are local: real ones, and /bin/true with single things changed, cut and broken. */
#include "unit.h"
#include <elf.h>
#include "program.h"

static int judged(const char *path)
{
	int fd = open(path, ISM_PROGRAM_OPEN), rc;

	if (fd < 0)
		return -errno;
	rc = ism_program_is_local(fd);
	close(fd);
	return rc;
}

/* ---------------------------------------------------------------- programs as they are */

Test(program, of_every_system)
{
	static const char *const local[] = { "/bin/true", "/bin/cat", "/bin/dd" };
	static const char *const others[] = {
		"/bin/sh",   "/usr/bin/env", "/usr/bin/python3", "/bin/ls", "/proc/self/exe",
		"/dev/null", "/dev/zero",    "/etc/passwd",	 "/",	    "/proc/self/maps",
	};

	for (size_t i = 0; i < UNIT_SIZE(local); i++)
		cr_expect_eq(judged(local[i]), 1, "%s", local[i]);
	for (size_t i = 0; i < UNIT_SIZE(others); i++)
		cr_expect_eq(judged(others[i]), 0, "%s", others[i]);
	cr_expect_eq(judged("/does/not/exist"), -ENOENT);
}

Test(program, no_program)
{
	char fifo[300];
	const char *dir = unit_dir();

	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	cr_expect_eq(judged(fifo), 0);
	cr_expect_eq(judged(dir), 0);
	unlink(fifo);
	rmdir(dir);
	cr_expect_eq(judged(unit_file("")), 0);
	cr_expect_eq(judged(unit_file("#!/bin/true\n")), 0);
	cr_expect_eq(judged(unit_file("\177ELF")), 0);
	cr_expect_eq(ism_program_is_local(-1), 0);
}

/* Of memory, all that is mapped. */
static long pages(void)
{
	char *text = unit_read("/proc/self/statm", NULL);
	long n = strtol(text, NULL, 10);

	free(text);
	return n;
}

Test(program, nothing_stays)
{
	int fd = open("/bin/true", O_RDONLY);
	long before;

	cr_assert_eq(lseek(fd, 7, SEEK_SET), 7);
	pages();
	before = pages();
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(ism_program_is_local(fd), 1);
	cr_expect_lt(pages(), before + 1000);
	cr_expect_eq(lseek(fd, 0, SEEK_CUR), 7);
	close(fd);
}

/* ---------------------------------------------------------------- /bin/true, changed */

/**
 * struct image - a copy of /bin/true
 * @fd: a file with its bytes
 * @names, @len: its string table, an offset in @b
 */
static struct image {
	unsigned char *b;
	size_t size;
	int fd;
	ElfW(Ehdr) * h;
	ElfW(Phdr) * ph, *interp, *dynamic, *text;
	ElfW(Dyn) * dyn, *strtab, *strsz, *needed, *spare;
	size_t names, len;
} im;

static ElfW(Phdr) * segment(unsigned int type, unsigned int flag)
{
	for (int i = 0; i < im.h->e_phnum; i++)
		if (im.ph[i].p_type == type && (!flag || im.ph[i].p_flags & flag))
			return &im.ph[i];
	cr_assert(0, "no segment %u", type);
	return NULL;
}

static ElfW(Dyn) * entry(long tag)
{
	for (ElfW(Dyn) *d = im.dyn; d->d_tag != DT_NULL; d++)
		if (d->d_tag == tag)
			return d;
	cr_assert(0, "no entry %ld", tag);
	return NULL;
}

static size_t offset_of(uint64_t addr)
{
	for (int i = 0; i < im.h->e_phnum; i++)
		if (im.ph[i].p_type == PT_LOAD && addr >= im.ph[i].p_vaddr &&
		    addr < im.ph[i].p_vaddr + im.ph[i].p_filesz)
			return addr - im.ph[i].p_vaddr + im.ph[i].p_offset;
	cr_assert(0, "address %lx", addr);
	return 0;
}

static void take_apart(void)
{
	im.b = (void *)unit_read("/bin/true", &im.size);
	im.fd = memfd_create("unit", MFD_CLOEXEC);
	im.h = (void *)im.b;
	im.ph = (void *)(im.b + im.h->e_phoff);
	im.interp = segment(PT_INTERP, 0);
	im.dynamic = segment(PT_DYNAMIC, 0);
	im.text = segment(PT_LOAD, PF_X);
	im.dyn = (void *)(im.b + offset_of(im.dynamic->p_vaddr));
	im.strtab = entry(DT_STRTAB);
	im.strsz = entry(DT_STRSZ);
	im.needed = entry(DT_NEEDED);
	im.spare = entry(DT_DEBUG);
	im.names = offset_of(im.strtab->d_un.d_ptr);
	im.len = im.strsz->d_un.d_val;
	cr_assert_eq(pwrite(im.fd, im.b, im.size, 0), (ssize_t)im.size);
	cr_assert_eq(ism_program_is_local(im.fd), 1);
}

/* What a change of @len bytes at @at, a place in the image, does. The file is as before then. */
static int changed(void *at, const void *to, size_t len)
{
	size_t off = (unsigned char *)at - im.b;
	int rc;

	cr_assert_eq(pwrite(im.fd, to, len, off), (ssize_t)len);
	rc = ism_program_is_local(im.fd);
	cr_assert_eq(pwrite(im.fd, at, len, off), (ssize_t)len);
	return rc;
}

/* With another value in a member of a header. */
#define WITH(member, value)                                                                        \
	({                                                                                         \
		__typeof__(member) v_ = (value);                                                   \
		changed(&(member), &v_, sizeof(v_));                                               \
	})
#define NOT_LOCAL(member, value)   cr_expect_eq(WITH(member, value), 0, #member " " #value)
#define STILL_LOCAL(member, value) cr_expect_eq(WITH(member, value), 1, #member " " #value)

Test(program, of_this_machine_only, .init = take_apart)
{
	NOT_LOCAL(im.h->e_ident[EI_MAG3], 'G');
	NOT_LOCAL(im.h->e_ident[EI_CLASS], ELFCLASS32);
	NOT_LOCAL(im.h->e_ident[EI_CLASS], 9);
	NOT_LOCAL(im.h->e_ident[EI_DATA], ELFDATA2MSB);
	NOT_LOCAL(im.h->e_machine, EM_68K);
	NOT_LOCAL(im.h->e_machine, EM_NONE);
	NOT_LOCAL(im.h->e_phentsize, sizeof(ElfW(Phdr)) + 8);
	NOT_LOCAL(im.h->e_phnum, 0);
	NOT_LOCAL(im.h->e_phnum, ISM_PROGRAM_PHDRS + 1);
	NOT_LOCAL(im.h->e_phoff, im.size - 1);
	NOT_LOCAL(im.h->e_phoff, ~0ULL);
	NOT_LOCAL(im.h->e_phoff, INT64_MAX - 100);
	STILL_LOCAL(im.h->e_shnum, 0);
}

/* Without PT_INTERP it is linked statically; other loaders have other rules. */
Test(program, of_this_loader_only, .init = take_apart)
{
	char *path = (char *)im.b + im.interp->p_offset, *base = strrchr(path, '/') + 1;

	NOT_LOCAL(im.interp->p_type, PT_NULL);
	NOT_LOCAL(im.interp->p_filesz, 0);
	NOT_LOCAL(im.interp->p_filesz, PATH_MAX);
	NOT_LOCAL(im.interp->p_filesz, 6);
	NOT_LOCAL(im.interp->p_offset, im.size - 4);
	NOT_LOCAL(im.interp->p_offset, ~0ULL);
	NOT_LOCAL(*base, 'x');
	STILL_LOCAL(path[1], 'x');
}

Test(program, the_dynamic_section, .init = take_apart)
{
	ElfW(Dyn) *end = im.dyn;

	while (end->d_tag != DT_NULL)
		end++;
	NOT_LOCAL(im.dynamic->p_type, PT_NULL);
	cr_expect_eq(changed(segment(PT_NOTE, 0), im.dynamic, sizeof(*im.dynamic)), 0, "two");
	NOT_LOCAL(im.dynamic->p_vaddr, 0x7f0000000000);
	NOT_LOCAL(im.dynamic->p_vaddr, ~0ULL);
	NOT_LOCAL(im.dynamic->p_filesz, 0);
	NOT_LOCAL(im.dynamic->p_filesz, (end - im.dyn) * sizeof(*end));
	NOT_LOCAL(im.dynamic->p_filesz, 1 << 20);
	NOT_LOCAL(im.dynamic->p_filesz, ~0ULL);
	STILL_LOCAL(im.dynamic->p_filesz, (end - im.dyn + 1) * sizeof(*end));
	STILL_LOCAL(im.dynamic->p_offset, 0); /* not what a loader looks at */
}

/* No more than what there is room for: a table of that many harmless entries in place of the code. */
Test(program, a_long_dynamic_section, .init = take_apart)
{
	enum { MOST = 256 };
	static ElfW(Dyn) many[MOST + 1];
	uint64_t size;

	cr_assert_geq(im.text->p_filesz, sizeof(many));
	for (int i = 0; i <= MOST; i++)
		many[i].d_tag = DT_DEBUG;
	many[0] = *im.needed;
	many[1] = *im.strtab;
	many[2] = *im.strsz;
	many[MOST - 1].d_tag = DT_NULL;
	many[MOST].d_tag = DT_NULL;
	cr_assert_eq(pwrite(im.fd, many, sizeof(many), im.text->p_offset), sizeof(many));
	size = MOST * sizeof(many[0]);
	cr_assert_eq(pwrite(im.fd, &size, 8, (unsigned char *)&im.dynamic->p_filesz - im.b), 8);
	STILL_LOCAL(im.dynamic->p_vaddr, im.text->p_vaddr);
	size = sizeof(many);
	cr_assert_eq(pwrite(im.fd, &size, 8, (unsigned char *)&im.dynamic->p_filesz - im.b), 8);
	NOT_LOCAL(im.dynamic->p_vaddr, im.text->p_vaddr);
}

Test(program, libraries_from_elsewhere, .init = take_apart)
{
	static const long tags[] = { DT_RPATH,	DT_RUNPATH, DT_AUXILIARY, DT_FILTER,
				     DT_CONFIG, DT_AUDIT,   DT_DEPAUDIT };

	for (size_t i = 0; i < UNIT_SIZE(tags); i++)
		cr_expect_eq(WITH(im.spare->d_tag, tags[i]), 0, "tag %lx", tags[i]);
	STILL_LOCAL(im.spare->d_tag, DT_BIND_NOW);
}

/* The C library must be there, and others that are part of it may be. */
Test(program, libraries, .init = take_apart)
{
	static const struct {
		const char *name;
		int local;
	} also[] = {
		{ "libm.so.6", 1 },
		{ "libpthread.so.0", 1 },
		{ "librt.so.1", 1 },
		{ "libdl.so.2", 1 },
		{ "ld-linux-x.so.2", 1 },
		{ "ld64.so.1", 1 },
		{ "libselinux.so.1", 0 },
		{ "libm.so.60", 0 },
		{ "xlibm.so.6", 0 },
		{ "/tmp/libm.so.6", 0 },
		{ "", 0 },
		{ "libresolv.so.2", 0 },
		{ "libismredir-preload.so", 0 },
	};
	ElfW(Dyn) more = { .d_tag = DT_NEEDED, .d_un.d_val = 1 };
	char *name = (char *)im.b + im.names + im.needed->d_un.d_val;

	for (size_t i = 0; i < UNIT_SIZE(also); i++) {
		char was[32];

		cr_assert_lt(strlen(also[i].name) + 2, im.needed->d_un.d_val);
		memcpy(was, im.b + im.names + 1, sizeof(was));
		cr_assert_eq(pwrite(im.fd, also[i].name, strlen(also[i].name) + 1, im.names + 1),
			     (ssize_t)strlen(also[i].name) + 1);
		cr_expect_eq(changed(im.spare, &more, sizeof(more)), also[i].local, "\"%s\"",
			     also[i].name);
		cr_assert_eq(pwrite(im.fd, was, sizeof(was), im.names + 1), sizeof(was));
	}
	cr_assert_str_eq(name, "libc.so.6");
	NOT_LOCAL(name[8], '7');
	NOT_LOCAL(im.needed->d_tag, DT_DEBUG);
	NOT_LOCAL(im.needed->d_un.d_val, im.len);
	NOT_LOCAL(im.needed->d_un.d_val, im.len + 1);
	NOT_LOCAL(im.needed->d_un.d_val, ~0ULL);
}

Test(program, the_string_table, .init = take_apart)
{
	unsigned char *last = im.b + im.names + im.len - 1;

	NOT_LOCAL(im.strsz->d_un.d_val, 0);
	NOT_LOCAL(im.strsz->d_un.d_val, (32 << 10) + 1);
	NOT_LOCAL(im.strsz->d_un.d_val, 0x7fffffffffffffff);
	NOT_LOCAL(im.strsz->d_un.d_val, ~0ULL);
	NOT_LOCAL(im.strsz->d_tag, DT_DEBUG);
	NOT_LOCAL(im.strtab->d_tag, DT_DEBUG);
	NOT_LOCAL(im.strtab->d_un.d_ptr, im.strtab->d_un.d_ptr + 1);
	NOT_LOCAL(im.strtab->d_un.d_ptr, 0x7f0000000000);
	NOT_LOCAL(im.strtab->d_un.d_ptr, ~0ULL);
	NOT_LOCAL(*last, 'x');
}

/* Said twice, a loader takes the last one. */
Test(program, said_twice, .init = take_apart)
{
	ElfW(Dyn) again = *im.strtab;

	cr_expect_eq(changed(im.spare, &again, sizeof(again)), 0, "DT_STRTAB");
	again = *im.strsz;
	cr_expect_eq(changed(im.spare, &again, sizeof(again)), 0, "DT_STRSZ");
}

/* From now on. */
static void keep(void *at, const void *to, size_t len)
{
	memcpy(at, to, len);
	cr_assert_eq(pwrite(im.fd, to, len, (unsigned char *)at - im.b), (ssize_t)len);
}

#define KEEP(member, value)                                                                        \
	({                                                                                         \
		__typeof__(member) v_ = (value);                                                   \
		keep(&(member), &v_, sizeof(v_));                                                  \
	})

/* At the end of the file, and in memory apart from everything, so that it has room. */
Test(program, a_long_string_table, .init = take_apart)
{
	enum { MOST = 32 << 10, AT = 1 << 20 };

	cr_assert_eq(ftruncate(im.fd, AT + 2 * MOST), 0);
	cr_assert_eq(pwrite(im.fd, im.b + im.names, im.len, AT), (ssize_t)im.len);
	KEEP(im.text->p_vaddr, 0x10000000);
	KEEP(im.text->p_offset, AT);
	KEEP(im.text->p_filesz, 2 * MOST);
	KEEP(im.strtab->d_un.d_ptr, 0x10000000);
	STILL_LOCAL(im.strsz->d_un.d_val, MOST);
	NOT_LOCAL(im.strsz->d_un.d_val, MOST + 1);
	cr_assert_eq(pwrite(im.fd, "exec", 4, AT + MOST - 5), 4);
	NOT_LOCAL(im.strsz->d_un.d_val, MOST);
}

/* Bytes that a loader would take from one of two places, or from none. */
Test(program, segments, .init = take_apart)
{
	ElfW(Phdr) *note = segment(PT_NOTE, 0), *load = segment(PT_LOAD, 0);
	uint64_t upto = im.strtab->d_un.d_ptr + im.len - load->p_vaddr;

	cr_expect_eq(changed(note, load, sizeof(*load)), 0, "two");
	NOT_LOCAL(load->p_offset, ~0ULL);
	NOT_LOCAL(load->p_offset, INT64_MAX);
	NOT_LOCAL(load->p_filesz, 16);
	NOT_LOCAL(load->p_filesz, upto - 1);
	STILL_LOCAL(load->p_filesz, upto);
}

/* One for all bytes: if numbers could go round at 2^64, they would be found in it. */
Test(program, segments_past_the_end_of_numbers, .init = take_apart)
{
	uint64_t shift = offset_of(im.dynamic->p_vaddr) - im.dynamic->p_vaddr;
	ElfW(Phdr) all = { .p_type = PT_LOAD, .p_offset = shift, .p_filesz = ~0ULL };

	for (int i = 0; i < im.h->e_phnum; i++)
		if (im.ph[i].p_type == PT_LOAD)
			KEEP(im.ph[i].p_type, PT_NULL);
	KEEP(im.strtab->d_un.d_ptr, im.names - shift);
	cr_assert_gt(shift, (uint64_t)INT64_MAX, "what is in memory is further apart");
	cr_expect_eq(changed(im.text, &all, sizeof(all)), 0, "the offset");
	all.p_vaddr = 0x7f0000000000;
	all.p_offset = shift + all.p_vaddr;
	cr_expect_eq(changed(im.text, &all, sizeof(all)), 0, "the address");
	all.p_vaddr = 0x1000;
	all.p_offset = shift + all.p_vaddr;
	if (all.p_offset < im.size)
		cr_expect_eq(changed(im.text, &all, sizeof(all)), 1, "else it is fine");
}

Test(program, large_programs, .init = take_apart)
{
	ElfW(Phdr) *note = segment(PT_NOTE, 0), more = *im.text;

	KEEP(im.text->p_vaddr, 0x10000000); /* so that it can grow without being over others */
	NOT_LOCAL(im.text->p_filesz, (256 << 10) + 1);
	NOT_LOCAL(im.text->p_filesz, ~0ULL);
	STILL_LOCAL(im.text->p_filesz, 256 << 10);
	STILL_LOCAL(im.interp->p_flags, PF_X | PF_R); /* not mapped by this header */
	KEEP(im.text->p_filesz, 128 << 10);
	more.p_vaddr = 0x20000000;
	more.p_filesz = 128 << 10;
	cr_expect_eq(changed(note, &more, sizeof(more)), 1);
	more.p_filesz++;
	cr_expect_eq(changed(note, &more, sizeof(more)), 0);
}

/* What the C library has to start programs, get sockets and load code. */
static const char *const telling[] = {
	"execve",	   "fexecve",	     "rexec_af",     "posix_spawnp",   "popen",
	"_IO_proc_open",   "__libc_system",  "wordexp",	     "syscall",	       "socket",
	"socketpair",	   "getsockopt",     "accept4",	     "__connect",      "listen",
	"recvmsg",	   "__recv_chk",     "pidfd_getfd",  "rcmd_af",	       "rresvport",
	"clnttcp_create",  "svc_run",	     "callrpc",	     "pmap_getmaps",   "dlopen",
	"dlmopen",	   "dlsym",	     "dlvsym",	     "getaddrinfo",    "getnameinfo",
	"gethostbyname_r", "sethostent",     "getpwuid_r",   "getgrnam",       "getgrgid_r",
	"getgrent",	   "getspnam",	     "getgrouplist", "initgroups",     "innetgr",
	"getservbyport",   "getprotobyname", "getnetbyname", "getaliasbyname", "ether_hostton",
	"getlogin_r",	   "cuserid",	     "iruserok",     "glob64",
};

Test(program, names, .init = take_apart)
{
	unsigned char *first = im.b + im.names + 1, *end = im.b + im.names + im.len;
	unsigned char *needed = im.b + im.names + im.needed->d_un.d_val;

	for (size_t i = 0; i < UNIT_SIZE(telling); i++) {
		size_t len = strlen(telling[i]);

		cr_assert(first + len < needed || first > needed + 9);
		cr_expect_eq(changed(first, telling[i], len), 0, "%s", telling[i]);
		cr_expect_eq(changed(end - 1 - len, telling[i], len), 0, "%s at the end",
			     telling[i]);
	}
	cr_expect_eq(changed(first, "exe\0vec\0soc\0ket", 15), 1);
	cr_expect_eq(changed(first, "send\0fork\0clone\0open", 20), 1);
}

/* ---------------------------------------------------------------- cut and broken */

Test(program, cut, .init = take_apart)
{
	size_t need = im.names + im.len,
	       end = offset_of(im.dynamic->p_vaddr) + im.dynamic->p_filesz;

	if (need < end)
		need = end;
	for (size_t len = im.size; len; len = (len - 1) & ~63UL) {
		cr_assert_eq(ftruncate(im.fd, len), 0);
		cr_expect_eq(ism_program_is_local(im.fd), len >= need, "%zu bytes of %zu", len,
			     im.size);
	}
}

/* Each byte of a part, three ways. How many of these are local? */
static int broken(void *from, size_t len)
{
	unsigned char *b = from;
	int local = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char other[] = { b[i] ^ 0xff, b[i] + 1, b[i] ^ 0x80 };

		for (int k = 0; k < 3; k++)
			local += changed(b + i, &other[k], 1);
	}
	return local;
}

/* Whatever is wrong with the rest: a program that has execve() is not local. */
Test(program, broken, .init = take_apart)
{
	size_t phdrs = im.h->e_phnum * sizeof(*im.ph);

	cr_expect_gt(broken(im.h, sizeof(*im.h)), 0, "e_shoff does not matter");
	broken(im.ph, phdrs);
	broken(im.dyn, im.dynamic->p_filesz);
	cr_assert_eq(pwrite(im.fd, "execve", 6, im.names + 1), 6);
	cr_expect_eq(broken(im.h, sizeof(*im.h)), 0);
	cr_expect_eq(broken(im.ph, phdrs), 0);
	cr_expect_eq(broken(im.dyn, im.dynamic->p_filesz), 0);
}

/* ---------------------------------------------------------------- the headers alone */

Test(program, headers, .init = take_apart)
{
	static struct ism_program p;
	unsigned char class = ELFCLASS32;

	cr_assert_eq(ism_program_read(im.fd, &p), 0);
	cr_expect_eq(p.class, im.h->e_ident[EI_CLASS]);
	cr_expect_eq(p.machine, im.h->e_machine);
	cr_expect_eq(p.phdrs, im.h->e_phnum);
	cr_expect_str_eq(p.interp, (char *)im.b + im.interp->p_offset);
	cr_expect_eq(judged(p.interp), 0, "the loader starts any program");
	KEEP(im.interp->p_filesz, 6);
	cr_assert_eq(ism_program_read(im.fd, &p), 0);
	cr_expect_eq(strlen(p.interp), 6);
	KEEP(im.interp->p_filesz, 0);
	cr_assert_eq(ism_program_read(im.fd, &p), -ENOEXEC);
	cr_assert_eq(ftruncate(im.fd, sizeof(Elf32_Ehdr) + 4), 0);
	cr_assert_eq(ism_program_read(im.fd, &p), -ENOEXEC);
	cr_assert_eq(pwrite(im.fd, &class, 1, EI_CLASS), 1);
	cr_assert_eq(ism_program_read(im.fd, &p), 0);
	cr_expect_eq(p.class, ELFCLASS32);
	cr_expect_eq(p.machine, im.h->e_machine);
	cr_expect_eq(p.phdrs, 0);
	cr_expect_str_eq(p.interp, "");
}
