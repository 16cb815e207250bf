// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * vfork(). Its child runs in the parent's memory and on its stack until it calls exec or _exit, while the
 * parent stands still. Where nothing of ours is in that memory yet, and no other thread could put something
 * there, the child may be a real one: then ism_borrowed is set, and the hooks note nothing. A program that
 * only starts others, such as a shell, gets its children at the price that it is used to. In all other
 * cases it is fork(), which POSIX allows.
 */
#include "shim.h"

volatile uint32_t ism_borrowed;

/* With -fcf-protection the library claims to get on with a shadow stack, which the child would overwrite. */
#if defined(__x86_64__) && !defined(__CET__)

/*
 * Where vfork() was called from. Not on the stack, as the child returns there first and then uses it; and
 * not overwritten by a vfork() of the child's, because that is fork().
 */
__attribute__((used)) static const void *volatile return_to;
__attribute__((used)) static pid_t (*real_vfork)(void);

__attribute__((used)) static int vfork_begin(void)
{
	if (ism_borrowed || !ism_table_idle() || !REAL(vfork))
		return 0;
	real_vfork = real.vfork;
	ism_borrowed = 1;
	return 1;
}

/* In the parent, when the child has gone, or there was none. */
__attribute__((used)) static pid_t vfork_end(pid_t pid)
{
	ism_borrowed = 0;
	return pid;
}

/*
 * The C library's vfork() takes its return address off the stack before the system call and puts it back
 * behind it, in both processes; so whoever calls it may have nothing else there that it needs.
 */
__asm__(".text\n"
	".globl vfork\n"
	".type vfork, @function\n"
	"vfork:\n"
	".cfi_startproc\n"
	"	subq $8, %rsp\n"
	".cfi_adjust_cfa_offset 8\n"
	"	call vfork_begin\n"
	"	addq $8, %rsp\n"
	".cfi_adjust_cfa_offset -8\n"
	"	testl %eax, %eax\n"
	"	jz 2f\n"
	"	popq %rcx\n"
	".cfi_adjust_cfa_offset -8\n"
	".cfi_undefined %rip\n"
	"	movq %rcx, return_to(%rip)\n"
	"	call *real_vfork(%rip)\n"
	"	pushq return_to(%rip)\n"
	".cfi_adjust_cfa_offset 8\n"
	".cfi_offset %rip, -8\n"
	"	testl %eax, %eax\n"
	"	jz 1f\n"
	"	movl %eax, %edi\n"
	"	jmp vfork_end\n"
	"1:	ret\n"
	"2:	jmp fork@PLT\n"
	".cfi_endproc\n"
	".size vfork, . - vfork\n"
	".globl __vfork\n"
	".set __vfork, vfork\n");

#else

ISM_EXPORT pid_t vfork(void)
{
	return fork();
}
ISM_ALIAS(__vfork, vfork);

#endif
