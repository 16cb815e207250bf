// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Cases about what a program tells and asks ismredir of its own sockets (sockctl.h): capabilities,
 * the record with its sequence numbers, and reports. No rings are needed for it.
 */
#define _GNU_SOURCE
#include "cases.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <ismredir/maps.h>
#include <ismredir/option.h>
#include <ismredir/reasons.h>
#include <ismredir/sockctl.h>

#ifndef TCP_FASTOPEN_NO_COOKIE
#define TCP_FASTOPEN_NO_COOKIE 34
#endif

#define PAIRED (ISM_SOCK_ESTABLISHED | ISM_SOCK_PAIRED)

/* ---------------------------------------------------------------- pieces */

/* 0 or the error. */
static int tell(int fd, int option, uint32_t value)
{
	socklen_t none = 0;

	return getsockopt(fd, ISM_SOL, ISM_SO(option, value), NULL, &none) ? errno : 0;
}

static void set_caps(int fd, uint32_t caps)
{
	int error = tell(fd, ISM_SO_CAPS, caps);

	EXPECT(!error, "ISM_SO_CAPS: %s", strerror(error));
}

static void can_direct(int fd)
{
	set_caps(fd, ISM_CAP_DIRECT);
}

static struct ism_sock_info info_of(int fd)
{
	struct ism_sock_info i;
	socklen_t len = sizeof(i);

	memset(&i, 0xa5, sizeof(i));
	EXPECT(!getsockopt(fd, ISM_SOL, ISM_SO_INFO, &i, &len), "ISM_SO_INFO: %s", strerror(errno));
	EXPECT(len == sizeof(i), "ISM_SO_INFO: %u bytes", len);
	EXPECT(i.word == ISM_WORD_ON, "word %u", i.word);
	return i;
}

/* 0 or the error. */
static int report(int fd, unsigned int plane, unsigned int reason)
{
	return tell(fd, ISM_SO_REPORT, ISM_SO_REPORT_OF(plane, reason));
}

static struct pair pair_on(int listener, void (*prepare)(int fd))
{
	static uint64_t seed = 70;
	struct pair p = { .listener = listener };

	p.c = connect_to(sock_port(listener, false), prepare);
	p.s = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (p.s < 0)
		fail_errno("accept");
	p.up = (struct lane){ .from = p.c, .to = p.s, .seed = seed++ };
	p.down = (struct lane){ .from = p.s, .to = p.c, .seed = seed++ };
	return p;
}

/* What both ends must know: each other, the capabilities, and who moves the bytes. */
static void expect_info(const struct pair *p, unsigned int c_caps, unsigned int s_caps,
			unsigned int flags, unsigned int reason)
{
	struct ism_sock_info c = info_of(p->c), s = info_of(p->s);
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	getsockopt(p->c, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	EXPECT(c.token && s.token && c.token == s.peer && c.peer == s.token,
	       "tokens %llx-%llx and %llx-%llx", (unsigned long long)c.token,
	       (unsigned long long)c.peer, (unsigned long long)s.token, (unsigned long long)s.peer);
	EXPECT(c.cookie == cookie, "cookie");
	EXPECT(c.caps == c_caps && c.peer_caps == s_caps, "client: caps %u, peer's %u", c.caps,
	       c.peer_caps);
	EXPECT(s.caps == s_caps && s.peer_caps == c_caps, "server: caps %u, peer's %u", s.caps,
	       s.peer_caps);
	EXPECT(c.flags == flags && s.flags == flags, "flags %#x and %#x, expected %#x", c.flags,
	       s.flags, flags);
	EXPECT(c.reason == reason && s.reason == reason, "reasons %#x and %#x, expected %#x",
	       c.reason, s.reason, reason);
}

static void expect_direct(const struct pair *p)
{
	expect_info(p, ISM_CAP_DIRECT, ISM_CAP_DIRECT, PAIRED, ISM_R_DIRECT_WAIT);
}

static void close_conn(struct pair *p)
{
	close(p->c);
	close(p->s);
}

/* A connection to the listener: a client that can use rings finds a server that can or cannot. */
static void expect_of_listener(int listener, bool direct)
{
	struct pair p = pair_on(listener, can_direct);

	if (direct)
		expect_direct(&p);
	else
		expect_info(&p, ISM_CAP_DIRECT, 0, PAIRED | ISM_SOCK_ENROLLED, 0);
	warm_up(&p);
	close_conn(&p);
}

/* ---------------------------------------------------------------- sequence numbers */

/* Behind the last byte sent is behind the last byte read, once all is read: the switch rule's base. */
static void direct_seqs(void)
{
	struct pair p = pair_open_with(can_direct);
	struct ism_sock_info c, s;

	expect_direct(&p);
	for (int i = 0; i < 50; i++) {
		lane_send(&p.up, 1 + i * 997);
		lane_send(&p.down, 1 + i * 13);
		step("unread");
		c = info_of(p.c);
		s = info_of(p.s);
		EXPECT(c.write_seq - s.copied_seq == (uint32_t)(1 + i * 997), "%u bytes unread",
		       c.write_seq - s.copied_seq);
		EXPECT((int)(s.rcv_nxt - s.copied_seq) >= 0 && (int)(c.write_seq - s.rcv_nxt) >= 0,
		       "rcv_nxt is not between");
		lane_recv(&p.up, 1);
		EXPECT(info_of(p.s).copied_seq == s.copied_seq + 1, "one byte read");
		lane_drain(&p.up);
		lane_drain(&p.down);
		c = info_of(p.c);
		s = info_of(p.s);
		EXPECT(c.write_seq == s.copied_seq && s.write_seq == c.copied_seq,
		       "write_seq %u %u, copied_seq %u %u", c.write_seq, s.write_seq, s.copied_seq,
		       c.copied_seq);
		EXPECT(s.rcv_nxt == s.copied_seq, "rcv_nxt");
	}
	step("after a FIN");
	shutdown(p.c, SHUT_WR);
	expect_eof(p.s);
	EXPECT(info_of(p.c).write_seq == info_of(p.s).copied_seq, "a FIN counts at both ends");
	pair_close(&p);
}

/* ---------------------------------------------------------------- reports */

static void direct_report(void)
{
	struct pair p = pair_open_with(can_direct);

	warm_up(&p);
	expect_direct(&p);
	step("reports");
	EXPECT(report(p.c, ISM_PLANE_SKMSG, 0) == EINVAL, "plane skmsg reported");
	EXPECT(report(p.c, 77, 0) == EINVAL, "plane 77 reported");
	EXPECT(report(p.c, ISM_PLANE_TCP, 0xffff) == EINVAL, "reason 0xffff reported");
	EXPECT(report(p.listener, ISM_PLANE_TCP, 0) == ENOENT, "a listener reported");
	expect_direct(&p);
	EXPECT(!report(p.c, ISM_PLANE_DIRECT, 0) && !report(p.s, ISM_PLANE_DIRECT, 0),
	       "ISM_SO_REPORT: %s", strerror(errno));
	expect_info(&p, ISM_CAP_DIRECT, ISM_CAP_DIRECT, PAIRED, 0);
	check_live();
	EXPECT(!report(p.c, ISM_PLANE_TCP, ISM_R_EXEC) && info_of(p.c).reason == ISM_R_EXEC,
	       "back to TCP");
	EXPECT(!report(p.c, ISM_PLANE_DIRECT, 0), "and again");
	/* What would pin a redirected connection is the process's own business here. */
	set_int(p.c, SOL_SOCKET, SO_RCVLOWAT, 100, "SO_RCVLOWAT");
	EXPECT(info_of(p.c).flags & ISM_SOCK_PINNED && info_of(p.c).reason == ISM_R_RCVLOWAT,
	       "SO_RCVLOWAT left no trace");
	check_live();
	pair_close(&p);
}

/* ---------------------------------------------------------------- one side only */

static void direct_client_only(void)
{
	struct pair p = pair_on(listen_on(0, NULL), can_direct);

	expect_info(&p, ISM_CAP_DIRECT, 0, PAIRED | ISM_SOCK_ENROLLED, 0);
	EXPECT(report(p.c, ISM_PLANE_DIRECT, 0) == EOPNOTSUPP, "reported alone");
	EXPECT(report(p.s, ISM_PLANE_TCP, ISM_R_EXEC) == EOPNOTSUPP, "reported without the means");
	warm_up(&p);
	check_live();
	pair_close(&p);
}

static void direct_server_only(void)
{
	struct pair p = pair_on(listen_on(0, can_direct), NULL);

	expect_info(&p, 0, ISM_CAP_DIRECT, PAIRED | ISM_SOCK_ENROLLED, 0);
	EXPECT(report(p.s, ISM_PLANE_DIRECT, 0) == EOPNOTSUPP, "reported alone");
	warm_up(&p);
	check_live();
	pair_close(&p);
}

/* For a load that allows rings only. */
static void direct_or_nothing(void)
{
	struct pair p = pair_on(listen_on(0, can_direct), NULL);

	expect_info(&p, 0, ISM_CAP_DIRECT, PAIRED | ISM_SOCK_PINNED, ISM_R_NOT_DIRECT);
	warm_up(&p);
	check_live();
	close_conn(&p);
	p = pair_on(p.listener, can_direct);
	expect_direct(&p);
	warm_up(&p);
	pair_close(&p);
}

/* ---------------------------------------------------------------- said of a process */

static void cannot_direct(int fd)
{
	set_caps(fd, 0);
}

static void say_of_process(int fd, uint32_t caps)
{
	int error = tell(fd, ISM_SO_CAPS_PROCESS, caps);

	EXPECT(!error, "ISM_SO_CAPS_PROCESS: %s", strerror(error));
}

/* A client that says nothing of its socket: what is said of its process? */
static void expect_client(int listener, void (*prepare)(int fd), bool direct)
{
	struct pair p = pair_on(listener, prepare);

	if (direct)
		expect_direct(&p);
	else
		expect_info(&p, 0, ISM_CAP_DIRECT, PAIRED | ISM_SOCK_ENROLLED, 0);
	warm_up(&p);
	close_conn(&p);
}

static void expect_child(int listener, bool direct)
{
	pid_t child = fork();
	int status;

	if (!child) {
		expect_client(listener, NULL, direct);
		_exit(0);
	}
	EXPECT(child > 0 && waitpid(child, &status, 0) == child && !status, "the child");
}

static void direct_process(void)
{
	int l = listen_on(0, can_direct);

	step("nothing said");
	expect_client(l, NULL, false);
	step("said of the process");
	say_of_process(l, ISM_CAP_DIRECT);
	expect_client(l, NULL, true);
	step("a socket of which something else is said");
	expect_client(l, cannot_direct, false);
	step("a child says it for itself");
	expect_child(l, false);
	expect_client(l, NULL, true);
	step("taken back");
	say_of_process(l, 0);
	expect_client(l, NULL, false);
	close(l);
}

/* The passive end has no record before somebody asks, and nobody can tell. */
static void late_record(int listener, void (*prepare)(int fd), int shut)
{
	struct pair p = pair_on(listener, prepare);

	lane_send(&p.up, 5000);
	lane_drain(&p.up);
	lane_send(&p.down, 77);
	lane_drain(&p.down);
	step("not asked for");
	check_live();
	/* Half a connection is one still. */
	if (shut & 1)
		shutdown(p.c, SHUT_WR);
	if (shut & 2)
		shutdown(p.s, SHUT_WR);
	step("asked for");
	expect_direct(&p);
	if (!shut)
		check_live();
	close_conn(&p);
}

static void direct_late(void)
{
	int l = listen_on(0, can_direct);

	for (int shut = 0; shut < 3; shut++)
		late_record(l, can_direct, shut);
	close(l);
}

/* A server that takes the saved SYN away finds no record by itself; its partner makes it one. */
static void direct_saved_syn(void)
{
	struct pair p = pair_on(listen_on(0, can_direct), can_direct);
	char syn[256];
	socklen_t len = sizeof(syn);

	EXPECT(!getsockopt(p.s, IPPROTO_TCP, TCP_SAVED_SYN, syn, &len) && len > 0, "no SYN");
	EXPECT(!info_of(p.s).token, "a record without a SYN");
	EXPECT(info_of(p.c).flags == PAIRED, "the partner");
	expect_direct(&p);
	warm_up(&p);
	pair_close(&p);
}

static int listen_on_any6(void)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6 };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	can_direct(fd);
	if (bind(fd, (void *)&a, sizeof(a)) || listen(fd, 16))
		fail_errno("listen on ::");
	return fd;
}

static void by_address(int listener, const char *address)
{
	struct pair p = { .listener = listener };
	struct addr a;

	addr_parse(&a, address, sock_port(listener, false));
	p.c = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	can_direct(p.c);
	if (connect(p.c, (void *)&a.ss, a.len))
		fail_errno("connect to %s", address);
	p.s = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	step(address);
	check_live();
	expect_direct(&p);
	check_live();
	close_conn(&p);
}

/* What is read from the passive socket later is what its handshake would have shown. */
static void direct_families(void)
{
	int l = listen_on_any6();

	by_address(l, "127.0.0.1");
	by_address(l, "::1");
	close(l);
}

/* ---------------------------------------------------------------- listeners */

static int another_listener(int port, void (*prepare)(int fd))
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct addr a;

	addr_parse(&a, "127.0.0.2", port);
	if (prepare)
		prepare(fd);
	if (fd < 0 || bind(fd, (void *)&a.ss, a.len) || listen(fd, 16))
		fail_errno("second listener on port %d", port);
	return fd;
}

/* Capabilities come and go while it listens; connections keep what they had. */
static void direct_listener(void)
{
	int l = listen_on(0, NULL), other;
	struct ism_sock_info i;
	struct pair p;

	step("a listener changes its mind");
	i = info_of(l);
	EXPECT(i.flags == ISM_SOCK_LISTENS && !i.token && !i.caps, "flags %#x caps %u", i.flags,
	       i.caps);
	expect_of_listener(l, false);
	can_direct(l);
	can_direct(l);
	EXPECT(info_of(l).caps == ISM_CAP_DIRECT, "caps of the listener");
	p = pair_on(l, can_direct);
	set_caps(l, 0);
	set_caps(p.s, 0);
	expect_direct(&p);
	close_conn(&p);
	expect_of_listener(l, false);

	step("two sockets listen on the port");
	can_direct(l);
	other = another_listener(sock_port(l, false), NULL);
	expect_of_listener(l, false);
	can_direct(other);
	expect_of_listener(l, true);
	close(other);
	expect_of_listener(l, true);
	other = another_listener(sock_port(l, false), NULL);
	expect_of_listener(l, false);
	close(other);
	expect_of_listener(l, true);
	other = another_listener(sock_port(l, false), can_direct);
	expect_of_listener(l, true);
	close(l);
	close(other);
}

/* The runner's command loads, replaces, and unloads and loads again, in this order. */
static void direct_reload(void)
{
	int l = listen_on(0, NULL);

	EXPECT(tell(l, ISM_SO_CAPS, ISM_CAP_DIRECT) == EOPNOTSUPP, "ISM_SO_CAPS before load");
	step("load");
	check_live();
	expect_of_listener(l, false);
	can_direct(l);
	expect_of_listener(l, true);
	step("replace");
	check_live();
	expect_of_listener(l, true);
	step("unload and load");
	check_live();
	expect_of_listener(l, false);
	can_direct(l);
	expect_of_listener(l, true);
	close(l);
}

/* ---------------------------------------------------------------- fast open */

static void tfo_listener(int fd)
{
	set_int(fd, IPPROTO_TCP, TCP_FASTOPEN, 16, "TCP_FASTOPEN");
	set_int(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1, "TCP_FASTOPEN_NO_COOKIE");
	can_direct(fd);
}

/* Connections, one accepted end of which nobody has asked about, over a replace: their tokens stay what they are. */
static void direct_outlives(void)
{
	int l = listen_on(0, NULL);
	struct pair asked, unasked;
	uint64_t token;

	can_direct(l);
	asked = pair_on(l, can_direct);
	unasked = pair_on(l, can_direct);
	expect_direct(&asked);
	token = info_of(asked.c).token;
	step("replace");
	check_live();
	EXPECT(info_of(asked.c).token == token, "another token than before");
	expect_direct(&asked);
	warm_up(&asked);
	expect_direct(&unasked);
	close_conn(&asked);
	close_conn(&unasked);
	close(l);
}

/* The passive end is established before its SYN-ACK is sent: it decides all the same. */
static void direct_tfo(void)
{
	struct pair p = { .listener = listen_on(0, tfo_listener) };
	struct addr a;
	char byte;

	addr_parse(&a, case_address, sock_port(p.listener, false));
	p.c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	can_direct(p.c);
	set_int(p.c, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1, "TCP_FASTOPEN_NO_COOKIE");
	if (sendto(p.c, "x", 1, MSG_FASTOPEN, (void *)&a.ss, a.len) != 1)
		fail_errno("sendto(MSG_FASTOPEN)");
	p.s = accept4(p.listener, NULL, NULL, SOCK_CLOEXEC);
	if (p.s < 0)
		fail_errno("accept");
	EXPECT(recv(p.s, &byte, 1, 0) == 1 && byte == 'x', "the byte of the SYN");
	expect_direct(&p);
	EXPECT(info_of(p.c).write_seq == info_of(p.s).copied_seq, "sequence numbers");
	pair_close(&p);
}

/* ---------------------------------------------------------------- bad requests */

static int get(int fd, int level, int name, socklen_t len)
{
	char buf[256];

	return getsockopt(fd, level, name, buf, &len) ? errno : 0;
}

static void direct_bad(void)
{
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int un = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int others[] = { udp, un };
	uint32_t v = 1;
	struct pair p;

	step("bad requests");
	EXPECT(tell(tcp, ISM_SO_CAPS, 64) == EINVAL, "unknown caps");
	EXPECT(tell(tcp, ISM_SO_CAPS, 1 << 22 | 1) == EINVAL, "unknown caps far up");
	EXPECT(tell(tcp, ISM_SO_CAPS_PROCESS, 64) == EINVAL, "unknown caps of a process");
	EXPECT(tell(tcp, ISM_SO_FIN, 1) == EINVAL, "a FIN with a value");
	EXPECT(tell(tcp, 99, 1) == EOPNOTSUPP, "unknown option");
	for (int i = 0; i < 2; i++) {
		EXPECT(tell(others[i], ISM_SO_CAPS, 1) == EOPNOTSUPP, "not TCP, %d", i);
		EXPECT(tell(others[i], ISM_SO_CAPS_PROCESS, 1) == EOPNOTSUPP, "of it, %d", i);
		EXPECT(get(others[i], ISM_SOL, ISM_SO_INFO, 64) == EOPNOTSUPP, "asked, %d", i);
	}
	EXPECT(setsockopt(tcp, ISM_SOL, ISM_SO_CAPS, &v, 4) && errno == ENOPROTOOPT, "set: %s",
	       strerror(errno));
	EXPECT(get(tcp, ISM_SOL, ISM_SO_INFO, sizeof(struct ism_sock_info) - 1) == EINVAL, "short");
	EXPECT(get(tcp, ISM_SOL, ISM_SO(ISM_SO_INFO, 1), 256) == EINVAL, "info with a value");
	EXPECT(get(tcp, ISM_SOL, -ISM_SO_INFO, 256) == EOPNOTSUPP, "a negative number");
	EXPECT(!get(tcp, ISM_SOL, ISM_SO_INFO, 256), "a longer buffer is fine");
	EXPECT(!info_of(tcp).flags && !info_of(tcp).token, "a socket without a connection");
	EXPECT(report(tcp, ISM_PLANE_DIRECT, 0) == ENOENT, "report without a connection");

	step("a capability too late");
	p = pair_open();
	can_direct(p.c);
	expect_info(&p, 0, 0, PAIRED | ISM_SOCK_ENROLLED, 0);
	pair_close(&p);
	close(udp);
	close(un);
	close(tcp);
}

/* ---------------------------------------------------------------- other getsockopts */

/* One line with what the kernel gave: errno, length and a sum of the bytes, or of the first @sum. */
static void show_opt(int fd, const char *what, int level, int name, socklen_t size, socklen_t sum)
{
	static unsigned char buf[3 * 4096];
	unsigned int total = 0;
	socklen_t len = size;
	int err;

	memset(buf, 0x5a, sizeof(buf));
	err = getsockopt(fd, level, name, buf, &len) ? errno : 0;
	for (socklen_t i = 0; i < sum; i++)
		total = total * 31 + buf[i];
	printf("%s %d/%d size %u: errno %d len %u sum %u\n", what, level, name, size, err, len,
	       total);
}

/* Printed with and without a load: the lines have to be the same. */
static void getsockopts(void)
{
	struct pair p = pair_open();
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int un = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int fds[] = { p.c, p.listener, udp, un };
	const char *const names[] = { "tcp", "listener", "udp", "unix" };

	for (int i = 0; i < 4; i++) {
		for (socklen_t size = 0; size <= 8192; size = size ? size * 4 : 1) {
			show_opt(fds[i], names[i], SOL_SOCKET, SO_RCVLOWAT, size, 64);
			show_opt(fds[i], names[i], SOL_SOCKET, SO_PROTOCOL, size, 64);
			show_opt(fds[i], names[i], SOL_SOCKET, SO_LINGER, size, 64);
			show_opt(fds[i], names[i], SOL_SOCKET, SO_PEERNAME, size, 2);
			show_opt(fds[i], names[i], IPPROTO_TCP, TCP_CONGESTION, size, 64);
			show_opt(fds[i], names[i], IPPROTO_TCP, TCP_INFO, size, 1);
			show_opt(fds[i], names[i], IPPROTO_IP, IP_TTL, size, 64);
			show_opt(fds[i], names[i], IPPROTO_IP, IP_OPTIONS, size, 64);
			show_opt(fds[i], names[i], SOL_SOCKET, 9999, size, 64);
			show_opt(fds[i], names[i], 4711, 1, size, 64);
			show_opt(fds[i], names[i], ISM_SOL + 1, ISM_SO_INFO, size, 64);
		}
	}
	pair_close(&p);
}

const struct test_case direct_cases[] = {
	{ "direct_seqs", direct_seqs },
	{ "direct_report", direct_report },
	{ "direct_client_only", direct_client_only },
	{ "direct_server_only", direct_server_only },
	{ "direct_or_nothing", direct_or_nothing },
	{ "direct_process", direct_process },
	{ "direct_late", direct_late },
	{ "direct_saved_syn", direct_saved_syn },
	{ "direct_families", direct_families },
	{ "direct_listener", direct_listener },
	{ "direct_reload", direct_reload },
	{ "direct_outlives", direct_outlives },
	{ "direct_tfo", direct_tfo },
	{ "direct_bad", direct_bad },
	{ "getsockopts", getsockopts },
	{ NULL, NULL },
};
