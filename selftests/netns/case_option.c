// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Cases about socket options and flags that redirected bytes cannot honour by themselves. */
#define _GNU_SOURCE
#include "cases.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/net_tstamp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef TCP_INQ
#define TCP_INQ	   36
#define TCP_CM_INQ TCP_INQ
#endif

/* ---------------------------------------------------------------- urgent data */

static volatile sig_atomic_t urgent_signals;

static void on_urg(int sig)
{
	(void)sig;
	urgent_signals++;
}

static void recv_oob(int fd, char expected)
{
	char byte = 0;

	EXPECT(polled(fd, POLLPRI, 2000) & POLLPRI, "urgent data does not raise POLLPRI");
	EXPECT(recv(fd, &byte, 1, MSG_OOB) == 1, "recv(MSG_OOB): %s", strerror(errno));
	EXPECT(byte == expected, "urgent byte 0x%02x, expected 0x%02x", byte, expected);
}

/*
 * The urgent byte is out of the stream: what surrounds it is one stream without a gap. @unread: bytes
 * from before it lie there unread when it comes.
 */
static void oob_with(bool unread)
{
	struct pair p = pair_open();

	signal(SIGURG, on_urg);
	fcntl(p.s, F_SETOWN, getpid());
	warm_up(&p);
	step("urgent data between");
	for (int i = 0; i < 3; i++) {
		lane_send(&p.up, 1000);
		if (!unread)
			lane_drain(&p.up);
		EXPECT(send(p.c, "!", 1, MSG_OOB) == 1, "send(MSG_OOB): %s", strerror(errno));
		lane_send(&p.up, 1000);
		recv_oob(p.s, '!');
		lane_drain(&p.up);
		warm_up(&p);
	}
	EXPECT(urgent_signals >= 3, "%d SIGURG for 3 urgent bytes", (int)urgent_signals);
	check_live();
	pair_close(&p);
}

static void oob(void)
{
	oob_with(false);
}

static void oob_unread(void)
{
	oob_with(true);
}

/* Within the stream, and reads stop at the mark. */
static void oob_inline(void)
{
	struct pair p = pair_open();
	int mark = 0;

	set_int(p.s, SOL_SOCKET, SO_OOBINLINE, 1, "SO_OOBINLINE");
	warm_up(&p);
	step("urgent data inline");
	lane_send(&p.up, 99);
	EXPECT(lane_try_send(&p.up, 1, MSG_OOB) == 1, "send(MSG_OOB): %s", strerror(errno));
	lane_send(&p.up, 100);
	EXPECT(polled(p.s, POLLPRI, 2000) & POLLPRI, "urgent data does not raise POLLPRI");
	EXPECT(lane_try_recv(&p.up, 200, 0) == 99, "a read does not stop at the urgent mark");
	ioctl(p.s, SIOCATMARK, &mark);
	EXPECT(mark, "SIOCATMARK is false at the mark");
	lane_drain(&p.up);
	warm_up(&p);
	check_live();
	pair_close(&p);
}

/* ---------------------------------------------------------------- low-water mark */

static void expect_lowat(struct pair *p)
{
	step("below the low-water mark");
	lane_send(&p->up, 10);
	EXPECT(!(polled(p->s, POLLIN, 100) & POLLIN), "10 bytes are readable, SO_RCVLOWAT 1000");
	lane_send(&p->up, 990);
	EXPECT(polled(p->s, POLLIN, 5000) & POLLIN,
	       "1000 bytes are not readable, SO_RCVLOWAT 1000");
	lane_drain(&p->up);
}

static void lowat(void)
{
	struct pair p = pair_open();

	set_int(p.s, SOL_SOCKET, SO_RCVLOWAT, 1000, "SO_RCVLOWAT");
	expect_lowat(&p);
	lane_send(&p.down, 100000);
	lane_drain(&p.down);
	check_live();
	pair_close(&p);
}

/* Asked for in mid-connection, while redirected bytes lie unread. */
static void lowat_late(void)
{
	struct pair p = pair_open();

	warm_up(&p);
	lane_send(&p.up, 100);
	set_int(p.s, SOL_SOCKET, SO_RCVLOWAT, 1000, "SO_RCVLOWAT");
	lane_drain(&p.up);
	expect_lowat(&p);
	expect_lowat(&p);
	check_live();
	pair_close(&p);
}

/* ---------------------------------------------------------------- zero copy */

static unsigned int completions(int fd)
{
	char control[128];
	struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
	unsigned int n = 0;

	while (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0) {
		struct sock_extended_err *e = (void *)CMSG_DATA(CMSG_FIRSTHDR(&msg));

		EXPECT(e->ee_origin == SO_EE_ORIGIN_ZEROCOPY, "origin %d", e->ee_origin);
		n += e->ee_data - e->ee_info + 1;
		msg.msg_controllen = sizeof(control);
	}
	return n;
}

static void send_zerocopy(struct pair *p)
{
	unsigned int sent = 0, done = 0;

	step("zero-copy sends");
	for (int i = 0; i < 10; i++) {
		EXPECT(lane_try_send(&p->up, 20000, MSG_ZEROCOPY) > 0, "send(MSG_ZEROCOPY): %s",
		       strerror(errno));
		sent++;
		lane_drain(&p->up);
	}
	for (int i = 0; i < 200 && done < sent; i++) {
		done += completions(p->c);
		sleep_ms(10);
	}
	EXPECT(done == sent, "%u of %u zero-copy sends completed", done, sent);
}

static void zerocopy(void)
{
	struct pair p = pair_open();

	set_int(p.c, SOL_SOCKET, SO_ZEROCOPY, 1, "SO_ZEROCOPY");
	send_zerocopy(&p);
	check_live();
	pair_close(&p);
}

static void zerocopy_late(void)
{
	struct pair p = pair_open();

	warm_up(&p);
	set_int(p.c, SOL_SOCKET, SO_ZEROCOPY, 1, "SO_ZEROCOPY");
	send_zerocopy(&p);
	check_live();
	pair_close(&p);
}

/* ---------------------------------------------------------------- the others */

/* Traffic both ways with the option set, then the runner looks for the reason. */
static void go_on(struct pair *p)
{
	for (int i = 0; i < 5; i++) {
		lane_send(&p->up, 30000);
		lane_drain(&p->up);
		lane_send(&p->down, 30000);
		lane_drain(&p->down);
	}
	check_live();
	pair_close(p);
}

static void pacing(void)
{
	struct pair p = pair_open();

	set_int(p.c, SOL_SOCKET, SO_MAX_PACING_RATE, 100 << 20, "SO_MAX_PACING_RATE");
	go_on(&p);
}

/* Refused or not, with the tls module or without: bytes go on as before. */
static void ulp(void)
{
	struct pair p = pair_open();

	warm_up(&p);
	if (!setsockopt(p.c, IPPROTO_TCP, TCP_ULP, "tls", 3)) {
		/* No keys are set: kTLS passes everything through. */
		printf("the tls module is there\n");
	}
	go_on(&p);
}

/* One recvmsg() of @len bytes: is there a control message of this kind? */
static bool recv_with_control(struct lane *l, size_t len, int level, int type)
{
	static uint8_t buf[65536];
	char control[512];
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(l->to, &msg, 0);

	if (n <= 0)
		fail_errno("recvmsg");
	lane_took(l, buf, n);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == level && c->cmsg_type == type)
			return true;
	return false;
}

static void expect_control(int option_level, int option, int value, int level, int type)
{
	struct pair p = pair_open();

	set_int(p.s, option_level, option, value, "the option");
	step("a control message");
	/* The kernel switches packet timestamps on with a delay. */
	for (int i = 0;; i++) {
		lane_send(&p.up, 500);
		if (recv_with_control(&p.up, 500, level, type))
			break;
		EXPECT(i < 200, "no control message came along");
		sleep_ms(10);
	}
	go_on(&p);
}

static void timestamp(void)
{
	expect_control(SOL_SOCKET, SO_TIMESTAMP, 1, SOL_SOCKET, SO_TIMESTAMP);
}

static void timestamping(void)
{
	expect_control(SOL_SOCKET, SO_TIMESTAMPING,
		       SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE, SOL_SOCKET,
		       SO_TIMESTAMPING);
}

static void inq(void)
{
	expect_control(IPPROTO_TCP, TCP_INQ, 1, IPPROTO_TCP, TCP_CM_INQ);
}

/* Each peek goes on where the last one ended. */
static void peek_off(void)
{
	struct pair p = pair_open();
	uint8_t buf[100];
	int zero = 0;

	if (setsockopt(p.s, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero)))
		give_up(EXIT_SKIP, "no SO_PEEK_OFF on TCP in this kernel");
	step("peeking on");
	lane_send(&p.up, 100);
	for (int i = 0; i < 10; i++) {
		EXPECT(recv(p.s, buf + 10 * i, 10, MSG_PEEK) == 10, "peek %d: %s", i,
		       strerror(errno));
	}
	EXPECT(stream_verify(p.up.seed, p.up.got, buf, 100) < 0, "wrong bytes peeked at an offset");
	lane_drain(&p.up);
	go_on(&p);
}

static void filter(void)
{
	struct sock_filter pass_all[] = { { BPF_RET | BPF_K, 0, 0, 0xffffffff } };
	struct sock_fprog prog = { 1, pass_all };
	struct pair p = pair_open();

	if (setsockopt(p.s, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)))
		fail_errno("SO_ATTACH_FILTER");
	go_on(&p);
}

static void fionread(void)
{
	struct pair p = pair_open();
	int n = -1;

	warm_up(&p);
	step("FIONREAD");
	lane_send(&p.up, 700);
	polled(p.s, POLLIN, 2000);
	ioctl(p.s, FIONREAD, &n);
	EXPECT(n == 700, "FIONREAD says %d, 700 bytes lie there", n);
	lane_drain(&p.up);
	go_on(&p);
}

const struct test_case option_cases[] = {
	{ "oob", oob },
	{ "oob_unread", oob_unread },
	{ "oob_inline", oob_inline },
	{ "lowat", lowat },
	{ "lowat_late", lowat_late },
	{ "zerocopy", zerocopy },
	{ "zerocopy_late", zerocopy_late },
	{ "pacing", pacing },
	{ "ulp", ulp },
	{ "timestamp", timestamp },
	{ "timestamping", timestamping },
	{ "inq", inq },
	{ "peek_off", peek_off },
	{ "filter", filter },
	{ "fionread", fionread },
	{ NULL, NULL },
};
