/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who runs now. sockops programs have bpf_get_current_pid_tgid() and its kin only since Linux 6.16, the
 * task itself since 5.11.
 */
#ifndef ISMREDIR_CURRENT_BPF_H
#define ISMREDIR_CURRENT_BPF_H

#include "kernel_types.h"
#include <bpf/bpf_helpers.h>

static __always_inline __u32 ism_current_pid(void)
{
	return bpf_get_current_task_btf()->tgid;
}

static __always_inline __u32 ism_current_uid(void)
{
	const struct cred *cred = bpf_get_current_task_btf()->cred;

	return cred ? cred->uid.val : 0;
}

static __always_inline void ism_current_comm(char to[16])
{
	const struct task_struct *task = bpf_get_current_task_btf();

	__builtin_memcpy(to, task->comm, sizeof(task->comm));
}

#endif
