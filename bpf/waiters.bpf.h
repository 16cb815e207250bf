/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who sleeps on a socket, and in which way: the question behind every hang of sockmap redirection.
 *
 * A reader that sleeps inside tcp_bpf_recvmsg() is woken by redirected bytes and holds a reference
 * on the psock (net/ipv4/tcp_bpf.c). A reader that sleeps inside plain tcp_recvmsg() or
 * tcp_splice_read() looks at sk_receive_queue only, holds none, and would sleep for ever
 * beside redirected bytes. Both wait with woken_wake_function() (net/core/sock.c sk_wait_data());
 * poll and epoll wait with other functions and do not matter here.
 */
#ifndef ISMREDIR_WAITERS_BPF_H
#define ISMREDIR_WAITERS_BPF_H

#include "common.bpf.h"

/*
 * Tasks that are inside sendmsg() or recvmsg() of an enrolled socket hold a reference on its psock;
 * those asleep in it are on its wait queue. The rest may hold a redirect verdict whose bytes are not
 * queued yet, since tcp_bpf_sendmsg_redir() runs after the verdict and without the socket lock.
 */
__u32 ism_busy_tasks(__u64 sk);

/*
 * Does somebody sleep on @sk whom redirected bytes would not serve? 0, or ISM_R_PLAIN_READER, or
 * ISM_R_WAITALL or ISM_R_SPLICE when its system call says that it will do so again.
 */
__u32 ism_plain_reader(__u64 sk);

/* How many tasks sleep in a blocking call on @sk; at the bound, "that many or more". */
__u32 ism_sleepers(__u64 sk);

/* Does the running system call send urgent data? sk_msg_md does not carry the flags. */
__u32 ism_sends_oob(void);

/* Redirected bytes that the owner of @sk has not read; all its receive memory on older kernels. */
static __always_inline __u32 ism_unread(const struct sock *sk)
{
	struct sk_psock *psock = ism_sk_psock(sk);

	if (!psock)
		return 0;
	if (bpf_core_field_exists(psock->msg_tot_len))
		return KREAD(struct sk_psock, psock, msg_tot_len);
	if (KREAD(struct sk_psock, psock, ingress_msg.next) ==
	    (void *)psock + bpf_core_field_offset(struct sk_psock, ingress_msg))
		return 0;
	return KREAD(struct sock, sk, sk_backlog.rmem_alloc.counter);
}

#endif
