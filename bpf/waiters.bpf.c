// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Who sleeps on a socket, and in which way; see waiters.bpf.h. */
#include "waiters.bpf.h"

/* Strong: without its address no sleeper would be recognised, so nothing must load. */
extern const void woken_wake_function __ksym;

#define ISM_MAX_WAITERS 8

#ifndef MSG_WAITALL
#define MSG_WAITALL 0x100
#define MSG_OOB	    0x1
#endif

#if defined(__TARGET_ARCH_x86)
#define ISM_SYS_SENDTO	 44
#define ISM_SYS_RECVMMSG 299
#define ISM_SYS_RECVFROM 45
#define ISM_SYS_SENDMSG	 46
#define ISM_SYS_RECVMSG	 47
#define ISM_SYS_SPLICE	 275
#define ISM_SYS_SENDMMSG 307
#define ISM_HAVE_REGS	 1
static __always_inline long regs_nr(const struct pt_regs *regs)
{
	return KREAD(struct pt_regs, regs, orig_ax);
}
static __always_inline __u32 regs_arg(const struct pt_regs *regs, int fourth)
{
	return fourth ? KREAD(struct pt_regs, regs, r10) : KREAD(struct pt_regs, regs, dx);
}
#elif defined(__TARGET_ARCH_arm64)
#define ISM_SYS_SENDTO	 206
#define ISM_SYS_RECVMMSG 243
#define ISM_SYS_RECVFROM 207
#define ISM_SYS_SENDMSG	 211
#define ISM_SYS_RECVMSG	 212
#define ISM_SYS_SPLICE	 76
#define ISM_SYS_SENDMMSG 269
#define ISM_HAVE_REGS	 1
static __always_inline long regs_nr(const struct pt_regs *regs)
{
	return KREAD(struct pt_regs, regs, syscallno);
}
static __always_inline __u32 regs_arg(const struct pt_regs *regs, int fourth)
{
	return fourth ? KREAD(struct pt_regs, regs, regs[3]) : KREAD(struct pt_regs, regs, regs[2]);
}
#elif defined(__TARGET_ARCH_s390)
#define ISM_SYS_SENDTO	 369
#define ISM_SYS_RECVMMSG 357
#define ISM_SYS_RECVFROM 371
#define ISM_SYS_SENDMSG	 370
#define ISM_SYS_RECVMSG	 372
#define ISM_SYS_SPLICE	 306
#define ISM_SYS_SENDMMSG 358
#define ISM_HAVE_REGS	 1
static __always_inline long regs_nr(const struct pt_regs *regs)
{
	return KREAD(struct pt_regs, regs, int_code) & 0xffff;
}
static __always_inline __u32 regs_arg(const struct pt_regs *regs, int fourth)
{
	return fourth ? KREAD(struct pt_regs, regs, gprs[5]) : KREAD(struct pt_regs, regs, gprs[4]);
}
#endif

struct waiters {
	__u32 n; /* sleepers of the blocking kind */
	__u32 overrun; /* there were more than can be looked at */
	__u64 task; /* struct task_struct of the first */
};

/*
 * Count the blocking sleepers of @sk. The list is read without its lock: an entry that vanishes
 * meanwhile ends the walk early or makes it run to its bound, and no pointer is followed but by
 * fault-free reads.
 */
static __always_inline void look_at_waiters(const struct sock *sk, struct waiters *w)
{
	struct socket_wq *wq = KREAD(struct sock, sk, sk_wq);
	struct list_head *head, *pos;

	w->n = 0;
	w->overrun = 0;
	w->task = 0;
	if (!wq)
		return;
	head = (void *)wq + bpf_core_field_offset(struct socket_wq, wait.head);
	pos = KREAD(struct list_head, head, next);
	for (int i = 0; i < ISM_MAX_WAITERS; i++) {
		struct wait_queue_entry *e;

		if (pos == head || !pos)
			return;
		e = (void *)pos - bpf_core_field_offset(struct wait_queue_entry, entry);
		if (KREAD(struct wait_queue_entry, e, func) == &woken_wake_function) {
			if (!w->n)
				w->task = (__u64)KREAD(struct wait_queue_entry, e, private);
			w->n++;
		}
		pos = KREAD(struct list_head, pos, next);
	}
	w->overrun = pos != head;
}

__u32 ism_busy_tasks(__u64 sk_addr)
{
	const struct sock *sk = (const struct sock *)sk_addr;
	struct sk_psock *psock = ism_sk_psock(sk);
	struct waiters w;
	int refs;

	if (!psock)
		return 0;
	refs = KREAD(struct sk_psock, psock, refcnt.refs.counter);
	look_at_waiters(sk, &w);
	return refs - 1 > (int)w.n ? refs - 1 - w.n : 0;
}

#ifdef ISM_HAVE_REGS
/*
 * The saved user registers of a sleeping task. They lie at the same distance from the base of every
 * kernel stack, so the distance is taken from our own task instead of from the kernel's headers.
 */
static __always_inline const struct pt_regs *task_regs(__u64 task)
{
	struct task_struct *me = bpf_get_current_task_btf();
	long mine = bpf_task_pt_regs(me);
	unsigned long regs = 0;

	/* Through memory, because the verifier allows no arithmetic on the pointer itself. */
	bpf_probe_read_kernel(&regs, sizeof(regs), &mine);
	regs -= (unsigned long)KREAD(struct task_struct, me, stack);
	return KREAD(struct task_struct, task, stack) + regs;
}

/* Does that task sleep in a call that only TCP can serve? */
static __always_inline __u32 waiter_reason(__u64 task)
{
	const struct pt_regs *regs = task_regs(task);
	long nr = regs_nr(regs);

	if (nr == ISM_SYS_SPLICE)
		return ISM_R_SPLICE;
	if ((nr == ISM_SYS_RECVFROM || nr == ISM_SYS_RECVMMSG) && regs_arg(regs, 1) & MSG_WAITALL)
		return ISM_R_WAITALL;
	if (nr == ISM_SYS_RECVMSG && regs_arg(regs, 0) & MSG_WAITALL)
		return ISM_R_WAITALL;
	return 0;
}

/* Does the running system call send urgent data? sk_msg_md does not carry the flags. */
static __always_inline int current_sends_oob(void)
{
	const struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	long nr = regs_nr(regs);

	if (nr == ISM_SYS_SENDTO || nr == ISM_SYS_SENDMMSG)
		return regs_arg(regs, 1) & MSG_OOB;
	if (nr == ISM_SYS_SENDMSG)
		return regs_arg(regs, 0) & MSG_OOB;
	return 0;
}
#else
static __always_inline __u32 waiter_reason(__u64 task)
{
	return 0;
}
static __always_inline int current_sends_oob(void)
{
	return 0;
}
#endif

__u32 ism_plain_reader(__u64 sk_addr)
{
	const struct sock *sk = (const struct sock *)sk_addr;
	struct sk_psock *psock = ism_sk_psock(sk);
	struct waiters w;
	__u32 reason;

	look_at_waiters(sk, &w);
	if (!w.n)
		return 0;
	if (w.overrun || !psock)
		return ISM_R_PLAIN_READER;
	reason = waiter_reason(w.task);
	if (reason)
		return reason;
	return KREAD(struct sk_psock, psock, refcnt.refs.counter) - 1 < (int)w.n
		       ? ISM_R_PLAIN_READER
		       : 0;
}

__u32 ism_sleepers(__u64 sk_addr)
{
	struct waiters w;

	look_at_waiters((const struct sock *)sk_addr, &w);
	return w.n;
}

__u32 ism_sends_oob(void)
{
	return current_sends_oob() != 0;
}
