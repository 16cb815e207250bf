// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A peer of an ivshmem server: the greeting, bells, peers that come and go, and servers that die, talk
 * nonsense, or talk without end. The server is a thread that greets; then the test itself speaks for it.
 */
#include "unit.h"
#include <dirent.h>
#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "err.h"
#include "ivclient.h"

#define OWN   3
#define OTHER 1

static struct server {
	struct sockaddr_un at;
	int listener, conn;
	int memory, own, other, other_second;
	void (*greet)(void);
	pthread_t thread;
} server;

static struct ism_ivclient *client;

/* ---------------------------------------------------------------- the server */

/* @bytes of a message from its byte @from on, with @n descriptors; 0 when nobody is there any more. */
static int put_part(__s64 value, size_t from, size_t bytes, const int *fds, int n)
{
	const __u64 raw = htole64(value);
	char control[CMSG_SPACE(4 * sizeof(int))] = {};
	struct iovec iov = { (char *)&raw + from, bytes };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n) {
		struct cmsghdr *h = (struct cmsghdr *)control;

		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n * sizeof(int));
		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
	}
	return sendmsg(server.conn, &m, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static int put_fd(__s64 value, int fd)
{
	return put_part(value, 0, 8, &fd, 1);
}

static int put(__s64 value)
{
	return put_part(value, 0, 8, NULL, 0);
}

static void greet_start(void)
{
	put(0);
	put(OWN);
	put_fd(-1, server.memory);
}

/* What a server says that has another peer, of two vectors. */
static void greet(void)
{
	greet_start();
	put_fd(OTHER, server.other);
	put_fd(OTHER, server.other_second);
	put_fd(OWN, server.own);
}

static void *serve(void *unused)
{
	(void)unused;
	server.conn = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(server.conn, 0);
	server.greet();
	return NULL;
}

static void open_server(void)
{
	server.at.sun_family = AF_UNIX;
	snprintf(server.at.sun_path, sizeof(server.at.sun_path), "%.80s/server", unit_dir());
	server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(server.listener, (struct sockaddr *)&server.at, sizeof(server.at)), 0);
	cr_assert_eq(listen(server.listener, 1), 0);
	server.conn = -1;
	server.memory = memfd_create("unit", MFD_CLOEXEC);
	/* blocking, which the client must not rely on */
	server.own = eventfd(0, EFD_CLOEXEC);
	server.other = eventfd(0, EFD_CLOEXEC);
	server.other_second = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	cr_assert(server.memory >= 0 && server.own >= 0 && server.other >= 0);
}

static void close_server(void)
{
	char *slash = strrchr(server.at.sun_path, '/');

	ism_ivclient_close(client);
	unlink(server.at.sun_path);
	*slash = 0;
	rmdir(server.at.sun_path);
}

/* Open a client while @how greets it. */
static int open_client(void (*how)(void), struct ism_err *err)
{
	int rc;

	server.greet = how;
	cr_assert_eq(pthread_create(&server.thread, NULL, serve, NULL), 0);
	rc = ism_ivclient_open(server.at.sun_path, &client, err);
	if (rc) /* whoever still talks */
		shutdown(server.listener, SHUT_RDWR);
	pthread_join(server.thread, NULL);
	return rc;
}

static void open_both(void)
{
	struct ism_err err = {};

	open_server();
	cr_assert_eq(open_client(greet, &err), 0, "%s", err.text);
}

/* ---------------------------------------------------------------- what the client shows */

static int is_readable(void)
{
	struct pollfd p = { .fd = ism_ivclient_fd(client), .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* Drain until there is nothing; how often that was. */
static int drain(void)
{
	int n = 0;

	for (; is_readable(); n++) {
		cr_assert_lt(n, 1000, "readable for ever");
		ism_ivclient_drain(client);
	}
	return n;
}

static int rung(int bell)
{
	eventfd_t n = 0;

	fcntl(bell, F_SETFL, O_NONBLOCK);
	return eventfd_read(bell, &n) ? 0 : (int)n;
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	cr_assert_not_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void expect_file(int fd, int same_as)
{
	struct stat a, b;

	cr_assert(!fstat(fd, &a) && !fstat(same_as, &b));
	cr_expect(a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

TestSuite(ivclient, .fini = close_server);

/* ---------------------------------------------------------------- as it should be */

Test(ivclient, greeting)
{
	open_both();
	cr_expect_eq(ism_ivclient_id(client), OWN);
	expect_file(ism_ivclient_memory(client), server.memory);
	cr_expect_eq(ism_ivclient_knows(client, OTHER), 1);
	cr_expect_eq(ism_ivclient_knows(client, OWN), 1);
	cr_expect_eq(ism_ivclient_knows(client, 2), 0);
	cr_expect_eq(ism_ivclient_knows(client, 65535), 0);
	cr_expect_eq(ism_ivclient_knows(client, 65536), -1);
	cr_expect_eq(ism_ivclient_knows(client, ~0ULL), -1);
	cr_expect_not(is_readable());
}

Test(ivclient, bells)
{
	open_both();
	cr_expect_eq(ism_ivclient_ring(client, OTHER), 0);
	cr_expect_eq(ism_ivclient_ring(client, OTHER), 0);
	cr_expect_eq(rung(server.other), 2);
	cr_expect_eq(rung(server.other_second), 0, "only the first vector");
	cr_expect_eq(ism_ivclient_ring(client, 2), -EHOSTUNREACH);
	cr_expect_eq(ism_ivclient_ring(client, ~0ULL), -EHOSTUNREACH);
	cr_assert_eq(eventfd_write(server.own, 5), 0);
	cr_expect(is_readable());
	cr_expect_eq(drain(), 1);
	cr_expect_eq(rung(server.own), 0);
	cr_expect_eq(ism_ivclient_ring(client, OWN), 0);
	cr_expect(is_readable());
}

/* The eventfd came in blocking mode; its file description is shared with whoever made it. */
Test(ivclient, a_full_bell_stops_nobody, .timeout = 30)
{
	open_both();
	cr_assert_eq(eventfd_write(server.other, 0xfffffffffffffffeULL), 0);
	cr_expect_eq(ism_ivclient_ring(client, OTHER), 0);
	ism_ivclient_drain(client); /* the own one is empty */
}

/* QEMU takes O_NONBLOCK off each bell that it receives, and the description is shared. */
Test(ivclient, a_bell_made_blocking_stops_nobody, .timeout = 30)
{
	open_both();
	cr_assert_eq(fcntl(server.own, F_SETFL, 0), 0);
	put(OTHER);
	drain();
	cr_expect_eq(ism_ivclient_knows(client, OTHER), 0);
	cr_assert_eq(eventfd_write(server.own, 3), 0);
	cr_expect_eq(drain(), 1);
	cr_expect_eq(rung(server.own), 0);
}

Test(ivclient, peers_come_and_go)
{
	int first = eventfd(0, EFD_CLOEXEC), second = eventfd(0, EFD_CLOEXEC), fds;

	open_both();
	fds = count_fds();
	put_fd(7, first);
	put_fd(65535, first);
	cr_expect_eq(ism_ivclient_knows(client, 7), 0, "not before it is told");
	drain();
	cr_expect_eq(ism_ivclient_knows(client, 7), 1);
	cr_expect_eq(ism_ivclient_knows(client, 65535), 1);
	put(7);
	drain();
	cr_expect_eq(ism_ivclient_knows(client, 7), 0);
	cr_expect_eq(ism_ivclient_ring(client, 7), -EHOSTUNREACH);
	put_fd(7, second);
	drain();
	cr_expect_eq(ism_ivclient_ring(client, 7), 0);
	cr_expect(rung(second) == 1 && rung(first) == 0);
	put(7);
	put(65535);
	drain();
	cr_expect_eq(count_fds(), fds);
	cr_expect_eq(ism_ivclient_knows(client, OTHER), 1, "of whom nobody spoke");
}

Test(ivclient, who_leaves_need_not_have_been_there)
{
	open_both();
	put(9);
	put(65535);
	put(OWN); /* we are here, whatever it says */
	drain();
	cr_expect_eq(ism_ivclient_knows(client, 9), 0);
	cr_expect_eq(ism_ivclient_knows(client, OWN), 1);
	cr_expect_eq(ism_ivclient_ring(client, OWN), 0);
	cr_expect_eq(drain(), 1);
}

/* ---------------------------------------------------------------- odd, but allowed */

Test(ivclient, messages_in_pieces)
{
	int bell = eventfd(0, EFD_CLOEXEC);

	open_both();
	for (size_t cut = 1; cut < 8; cut++) {
		put_part(7, 0, cut, &bell, 1);
		drain();
		cr_expect_eq(ism_ivclient_knows(client, 7), 0);
		put_part(7, cut, 8 - cut, NULL, 0);
		drain();
		cr_expect_eq(ism_ivclient_ring(client, 7), 0);
		cr_expect_eq(rung(bell), 1);
		put_part(7, 0, cut, NULL, 0);
		drain();
		cr_expect_eq(ism_ivclient_knows(client, 7), 1);
		put_part(7, cut, 8 - cut, NULL, 0);
		drain();
		cr_expect_eq(ism_ivclient_knows(client, 7), 0);
	}
}

Test(ivclient, more_descriptors_than_wanted)
{
	int bells[4], fds;

	open_both();
	for (int i = 0; i < 4; i++)
		bells[i] = eventfd(0, EFD_CLOEXEC);
	fds = count_fds();
	put_part(7, 0, 8, bells, 4);
	put_fd(7, bells[1]);
	put_part(OTHER, 0, 8, bells, 2);
	drain();
	cr_expect_eq(count_fds(), fds + 1);
	cr_expect_eq(ism_ivclient_ring(client, 7), 0);
	cr_expect(rung(bells[0]) == 1 && rung(bells[1]) == 0);
}

#define TALK 600 /* peers; more than one drain, fewer than descriptors */

static void *talk(void *unused)
{
	(void)unused;
	for (int i = 0; i < TALK; i++)
		put_fd(100 + i, server.other_second);
	return NULL;
}

/* One drain is bounded; what is left keeps the descriptor readable. */
Test(ivclient, a_server_with_much_to_say)
{
	const int room = 1 << 20;
	pthread_t thread;

	open_both();
	pthread_create(&thread, NULL, talk, NULL);
	while (!ism_ivclient_knows(client, 100 + TALK - 1))
		ism_ivclient_drain(client);
	pthread_join(thread, NULL);
	for (int i = 0; i < TALK; i++)
		cr_expect_eq(ism_ivclient_knows(client, 100 + i), 1, "%d", 100 + i);
	setsockopt(server.conn, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	for (int i = 0; i < 270; i++)
		put(100 + i % 64);
	ism_ivclient_drain(client);
	cr_expect(is_readable());
	cr_expect_eq(drain(), 1);
}

/* ---------------------------------------------------------------- no room for descriptors */

static struct rlimit limit_before;

/* This process cannot have another descriptor until it has room again. */
static void no_room(void)
{
	struct rlimit l;
	int next = dup(STDERR_FILENO);

	cr_assert_geq(next, 0);
	close(next);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit_before), 0);
	l = limit_before;
	l.rlim_cur = next;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
	cr_assert_lt(dup(STDERR_FILENO), 0);
}

static void room_again(void)
{
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit_before), 0);
}

/* Who comes then is nobody who leaves, and is known once there is room; nothing is readable in between. */
Test(ivclient, who_comes_while_there_is_no_room)
{
	int bell = eventfd(0, EFD_CLOEXEC), fds;

	open_both();
	fds = count_fds();
	no_room();
	put_fd(7, bell);
	put_fd(OTHER, bell); /* another vector of it */
	put(8);
	drain();
	cr_expect_eq(ism_ivclient_knows(client, 7), -1);
	cr_expect_eq(ism_ivclient_knows(client, 8), -1);
	cr_expect_eq(ism_ivclient_knows(client, OTHER), 1);
	cr_expect_eq(ism_ivclient_ring(client, OTHER), 0);
	cr_expect_eq(rung(server.other), 1);
	cr_assert_eq(eventfd_write(server.own, 1), 0);
	cr_expect_eq(drain(), 1, "bells go on");
	room_again();
	cr_expect_not(is_readable());
	ism_ivclient_drain(client);
	cr_expect_eq(ism_ivclient_knows(client, 7), 1);
	cr_expect_eq(ism_ivclient_knows(client, 8), 0);
	cr_expect_eq(ism_ivclient_ring(client, 7), 0);
	cr_expect_eq(rung(bell), 1);
	cr_expect_eq(count_fds(), fds + 1);
	put(7);
	cr_expect_eq(drain(), 1);
	cr_expect_eq(ism_ivclient_knows(client, 7), 0);
	cr_expect_eq(count_fds(), fds);
}

/* A message without a descriptor needs no room. */
Test(ivclient, who_leaves_while_there_is_no_room)
{
	open_both();
	no_room();
	put(OTHER);
	drain();
	room_again();
	cr_expect_eq(ism_ivclient_knows(client, OTHER), 0);
}

Test(ivclient, the_server_dies_while_there_is_no_room)
{
	open_both();
	no_room();
	put_fd(7, server.own);
	drain();
	close(server.conn);
	cr_expect_eq(drain(), 0);
	room_again();
	ism_ivclient_drain(client);
	cr_expect_eq(ism_ivclient_ring(client, 7), 0);
	cr_expect_eq(drain(), 1);
	cr_expect_eq(ism_ivclient_knows(client, 7), -1);
}

static void hello_no_room(void)
{
	put(0);
	put(OWN);
	no_room();
	put_fd(-1, server.memory);
}

Test(ivclient, no_room_for_the_memory)
{
	struct ism_err err = {};

	open_server();
	cr_expect_eq(open_client(hello_no_room, &err), -EMFILE);
	room_again();
	cr_expect_str_not_empty(err.text);
}

/* ---------------------------------------------------------------- servers that end or are mad */

/* Nobody is known to have left any more; bells go on, and nothing wakes us for ever. */
static void expect_deaf(void)
{
	cr_expect_eq(ism_ivclient_knows(client, OTHER), -1);
	cr_expect_eq(ism_ivclient_knows(client, 2), -1);
	cr_expect_eq(ism_ivclient_ring(client, OTHER), 0);
	cr_expect_eq(rung(server.other), 1);
	eventfd_write(server.own, 1);
	cr_expect_eq(drain(), 1);
	ism_ivclient_drain(client);
}

Test(ivclient, the_server_dies)
{
	open_both();
	close(server.conn);
	cr_expect_eq(drain(), 1);
	expect_deaf();
}

Test(ivclient, the_server_dies_within_a_message)
{
	int fds = count_fds();

	open_both();
	put_part(7, 0, 5, &server.other, 1);
	close(server.conn);
	drain();
	expect_deaf();
	ism_ivclient_close(client);
	client = NULL;
	close(server.listener);
	close(server.memory);
	close(server.own);
	close(server.other);
	close(server.other_second);
	cr_expect_eq(count_fds(), fds);
}

static const __s64 nonsense[] = {
	-1, -2, 65536, 1LL << 32, (1LL << 32) + OTHER, INT64_MAX, INT64_MIN,
};

Test(ivclient, nonsense)
{
	for (size_t i = 0; i < 2 * UNIT_SIZE(nonsense); i++) {
		int fds;

		open_both();
		fds = count_fds();
		if (i % 2)
			put_fd(nonsense[i / 2], server.own);
		else
			put(nonsense[i / 2]);
		put_fd(7, server.own); /* of which nothing is believed */
		drain();
		cr_expect_eq(count_fds(), fds - 1, "all but the socket");
		cr_expect_eq(ism_ivclient_ring(client, 7), -EHOSTUNREACH);
		expect_deaf();
		close_server();
		client = NULL;
	}
	open_both(); /* for .fini */
}

/* Descriptors that are no bells at all: they cost neither a busy loop nor what the server says. */
static void expect_listening_with(int own)
{
	open_server();
	server.own = own;
	cr_assert_eq(open_client(greet, NULL), 0);
	put_fd(7, server.other);
	cr_expect_leq(drain(), 2);
	cr_expect_eq(ism_ivclient_knows(client, 7), 1);
}

Test(ivclient, the_own_bell_cannot_be_read)
{
	struct epoll_event e = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC), always = eventfd(1, EFD_CLOEXEC);

	epoll_ctl(set, EPOLL_CTL_ADD, always, &e);
	expect_listening_with(set);
}

Test(ivclient, the_own_bell_has_ended)
{
	int ends[2];

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	close(ends[1]);
	expect_listening_with(ends[0]);
}

/* ---------------------------------------------------------------- no greeting */

static void hello_version(void)
{
	put(1);
}

static void hello_version_with_fd(void)
{
	put_fd(0, server.own);
}

static void hello_negative(void)
{
	put(0);
	put(-1);
}

static void hello_large(void)
{
	put(0);
	put(65536);
}

static void hello_number_with_fd(void)
{
	put(0);
	put_fd(OWN, server.own);
}

static void hello_no_memory(void)
{
	put(0);
	put(OWN);
	put(-1);
}

static void hello_other_memory(void)
{
	put(0);
	put(OWN);
	put_fd(-2, server.memory);
}

static void hello_nonsense(void)
{
	greet_start();
	put_fd(OTHER, server.other);
	put_fd(-7, server.own);
}

/* A file cannot be waited for. */
static void hello_file(void)
{
	greet_start();
	put_fd(OWN, server.memory);
}

static void hello_nothing(void)
{
	shutdown(server.conn, SHUT_RDWR);
}

static void hello_half(void)
{
	put_part(0, 0, 3, &server.own, 1);
	shutdown(server.conn, SHUT_RDWR);
}

static void hello_no_bell(void)
{
	greet_start();
	put_fd(OTHER, server.other);
	shutdown(server.conn, SHUT_RDWR);
}

Test(ivclient, no_greeting)
{
	static const struct {
		void (*how)(void);
		int rc;
	} bad[] = {
		{ hello_version, -EPROTO },
		{ hello_version_with_fd, -EPROTO },
		{ hello_negative, -EPROTO },
		{ hello_large, -EPROTO },
		{ hello_number_with_fd, -EPROTO },
		{ hello_no_memory, -EPROTO },
		{ hello_other_memory, -EPROTO },
		{ hello_nonsense, -EPROTO },
		{ hello_file, -EPERM },
		{ hello_nothing, -ECONNRESET },
		{ hello_half, -ECONNRESET },
		{ hello_no_bell, -ECONNRESET },
	};

	open_server();
	for (size_t i = 0; i < UNIT_SIZE(bad); i++) {
		struct ism_err err = {};
		int fds = count_fds();

		cr_expect_eq(open_client(bad[i].how, &err), bad[i].rc, "%zu", i);
		cr_expect_str_not_empty(err.text, "%zu", i);
		close(server.conn);
		cr_expect_eq(count_fds(), fds, "%zu", i);
		close(server.listener);
		server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		unlink(server.at.sun_path);
		bind(server.listener, (struct sockaddr *)&server.at, sizeof(server.at));
		listen(server.listener, 1);
	}
}

static void hello_endless(void)
{
	greet_start();
	while (put_fd(OTHER, server.other))
		;
}

static void hello_silent(void)
{
	put(0);
	put_part(OWN, 0, 4, NULL, 0);
}

/* A server that never comes to the end, or stops: open() does not wait for ever. */
Test(ivclient, a_greeting_without_end, .timeout = 60)
{
	open_server();
	cr_expect_eq(open_client(hello_endless, NULL), -ETIMEDOUT);
}

Test(ivclient, a_greeting_that_stops, .timeout = 60)
{
	open_server();
	cr_expect_eq(open_client(hello_silent, NULL), -ETIMEDOUT);
}

/* One that accepts nobody: sooner or later its backlog is full, and connect() would sleep. */
Test(ivclient, a_server_that_stands_still, .timeout = 60)
{
	struct ism_err err = {};

	open_server();
	for (;;) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (connect(fd, (struct sockaddr *)&server.at, sizeof(server.at)))
			break;
	}
	cr_expect_eq(errno, EAGAIN);
	cr_expect_eq(ism_ivclient_open(server.at.sun_path, &client, &err), -ETIMEDOUT);
	cr_expect_str_not_empty(err.text);
}

Test(ivclient, no_server)
{
	char path[200];
	struct ism_err err = {};

	open_server();
	close(server.listener);
	cr_expect_eq(ism_ivclient_open(server.at.sun_path, &client, &err), -ECONNREFUSED);
	unlink(server.at.sun_path);
	cr_expect_eq(ism_ivclient_open(server.at.sun_path, &client, NULL), -ENOENT);
	memset(path, 'x', sizeof(path));
	path[sizeof(path) - 1] = 0;
	cr_expect_eq(ism_ivclient_open(path, &client, NULL), -ENAMETOOLONG);
	ism_ivclient_close(NULL);
}
