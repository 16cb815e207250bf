// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Dummy sockets; see relay_dummy.h. */
#include "relay_dummy.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

/* RFC 863 discard: below 1024, so that no user can make a connection that a dummy would take for its own. */
#define DISCARD 9

/* Each slot has a remote address of its own, so local ports are not used up. */
static int connect_nowhere(int fd, __u32 slot)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(DISCARD) };

	to.sin_addr.s_addr = htonl(0x7f520000u | (slot + 1)); /* 127.82.0.0/16 */
	return connect(fd, (struct sockaddr *)&to, sizeof(to));
}

int relay_dummy_new(int socks, int sk_relay, __u64 key, __u64 token, __u32 slot)
{
	struct ism_relay_sk own = { .token = token, .slot = slot, .dummy = 1 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, rc;
	__u64 value = fd;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) || connect_nowhere(fd, slot) ||
	    bpf_map_update_elem(sk_relay, &fd, &own, BPF_NOEXIST) ||
	    bpf_map_update_elem(socks, &key, &value, BPF_NOEXIST)) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}
