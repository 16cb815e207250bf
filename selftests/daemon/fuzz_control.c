// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Fuzzes what clients send: the daemon itself, on socket pairs, without a load. Four clients send packets
 * that the input describes, well-formed or not, with any descriptors, among them those that they were
 * given. Afterwards nothing may be left of them: no pair, no memory, no descriptor.
 *
 * Of each packet the first byte says which client (0x03), whether it is raw (0x04) and how many descriptors
 * come with it (0xf0); a byte with each of these says which. Then a byte of length and so many bytes; in a
 * packet that is not raw the first byte is the type, and the head is made to fit.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "client.h"
#include "err.h"
#include "sweep.h"

#define CLIENTS	 4
#define RING	 (64 << 10)
#define MAX_SEND 15 /* descriptors of one packet */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct daemon d;
static int null_fd, bell_fd, memory_fd;
static int given[ISM_FD_COUNT] = { -1, -1, -1, -1 }; /* by the last ATTACH_OK */
static int ends[CLIENTS];

struct input {
	const uint8_t *at;
	size_t left;
};

#define check(good)                                                                                \
	do {                                                                                       \
		if (!(good)) {                                                                     \
			fprintf(stderr, "line %d: not true: %s\n", __LINE__, #good);               \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static uint8_t take(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

/* Tokens 2 to 9 are connections of 2 and 3, 4 and 5, ... */
static int verify_fake(int sock, __u64 token, int is_new, struct verdict *ret)
{
	(void)sock;
	(void)is_new;
	*ret = (struct verdict){ .peer = token ^ 1 };
	if (token >= 2 && token < 10)
		return 0;
	return token % 3 ? -EPERM : -ENOENT;
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	check(dir != NULL);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct options opt = { .socket = "",
				     .fabrics = { "memfd:" },
				     .n_fabrics = 1,
				     .limit_total = 6 * (RING + 4096ULL),
				     .limit_uid = 6 * (RING + 4096ULL),
				     .ring_size = RING,
				     .max_clients = CLIENTS };
	struct ism_err err = {};

	(void)argc;
	(void)argv;
	setenv("ISMREDIR_PIN_DIR", "/nonexistent/pins", 1);
	check(!daemon_init(&d, &opt, &err));
	d.verify = verify_fake;
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	memory_fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	check(null_fd >= 0 && bell_fd >= 0 && memory_fd >= 0);
	check(!ftruncate(memory_fd, RING + 4096) && !fchmod(memory_fd, 0600));
	check(!fcntl(memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
	return 0;
}

static void connect_client(int i)
{
	int sv[2];

	check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv));
	ends[i] = sv[0];
	check(!client_new(&d, sv[1]));
}

static int pick_fd(uint8_t which, int client)
{
	switch (which % 8) {
	case 0:
		return null_fd;
	case 1:
		return bell_fd;
	case 2:
		return memory_fd;
	case 3:
		return ends[client];
	}
	return given[which % 4] >= 0 ? given[which % 4] : null_fd;
}

/* Keep the four of an ATTACH_OK: whoever resumes sends them back. */
static void keep(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (n == ISM_FD_COUNT) {
			if (given[i] >= 0)
				close(given[i]);
			given[i] = fds[i];
		} else {
			close(fds[i]);
		}
}

static void read_answers(int fd)
{
	char buf[ISM_MSG_MAX],
		control[CMSG_SPACE(ISM_MSG_FDS * sizeof(int))] __attribute__((aligned(8)));
	struct ism_msg *head = (void *)buf;
	ssize_t n;

	for (;;) {
		struct iovec iov = { buf, sizeof(buf) };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = control,
				      .msg_controllen = sizeof(control) };
		struct cmsghdr *c;

		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n <= 0)
			return;
		check(n >= (ssize_t)sizeof(*head) && head->magic == ISM_CONTROL_MAGIC &&
		      head->len == n - sizeof(*head) && !(msg.msg_flags & MSG_CTRUNC));
		c = CMSG_FIRSTHDR(&msg);
		if (c)
			keep((const int *)CMSG_DATA(c), (c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	}
}

static void send_packet(int fd, const void *buf, size_t len, const int *fds, size_t n_fds)
{
	char control[CMSG_SPACE(MAX_SEND * sizeof(int))] __attribute__((aligned(8))) = {};
	struct iovec iov = { (void *)buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void run_loop(void)
{
	while (sd_event_run(d.event, 0) > 0)
		;
}

static void one_packet(struct input *in)
{
	uint8_t what = take(in), len, raw[sizeof(struct ism_msg) + 256];
	struct ism_msg head = { ISM_CONTROL_MAGIC, ISM_CONTROL_VERSION, 0, 0, 7 };
	int client = what & 3, is_raw = what & 4, fds[MAX_SEND];
	size_t n_fds = what >> 4, off = 0;

	for (size_t i = 0; i < n_fds; i++)
		fds[i] = pick_fd(take(in), client);
	len = take(in);
	if (!is_raw) {
		head.type = take(in);
		head.len = len;
		memcpy(raw, &head, sizeof(head));
		off = sizeof(head);
	}
	for (size_t i = 0; i < len; i++)
		raw[off + i] = take(in);
	send_packet(ends[client], raw, off + len, fds, n_fds);
	run_loop();
	read_answers(ends[client]);
	check(d.pairs.bytes <= d.pairs.limit_total);
}

/* The closer's threads are done, and the accounts are gone. */
static void settle(void)
{
	while (d.accounts.first) {
		accounts_sweep(&d.accounts);
		sched_yield();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static unsigned int runs;
	int fds_before = runs++ % 16 ? 0 : count_fds();
	struct input in = { data, size };

	for (int i = 0; i < CLIENTS; i++)
		connect_client(i);
	while (in.left)
		one_packet(&in);
	for (int i = 0; i < CLIENTS; i++)
		close(ends[i]);
	/* A client whose own end is on its way to the daemon ends when that is read, maybe after a pause. */
	for (int i = 0; d.n_clients && i < 1000; i++)
		sd_event_run(d.event, 10000);
	sweep(&d); /* nothing is loaded: no connection lives */
	check(!d.n_clients && !d.clients && !d.pairs.n && !d.pairs.first && !d.pairs.bytes);
	check(!d.fabric->counters.dmbs && !d.fabric->counters.dmb_bytes);
	for (int i = 0; i < ISM_FD_COUNT; i++) {
		if (given[i] >= 0)
			close(given[i]);
		given[i] = -1;
	}
	settle();
	check(!fds_before || count_fds() == fds_before);
	return 0;
}
