// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Socket options, ioctls and what a descriptor says about itself. */
#include "posix.h"
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/time.h>

/* ---------------------------------------------------------------- counting bytes */

static void fionread_client(struct end *e)
{
	int n = -1;

	IS(inq(e->fd), 0);
	tell(e, 0);
	arrived(e->fd, 777);
	hear(e);
	IS(inq(e->fd), 777);
	IS(ioctl(e->fd, SIOCINQ, &n), 0);
	IS(n, 777);
	get(e, 700);
	IS(inq(e->fd), 77);
	tell(e, 0);
	arrived(e->fd, 30077);
	hear(e);
	IS(inq(e->fd), 30077);
	get(e, 30077);
	IS(inq(e->fd), 0);
	chat(e);
}

static void fionread_server(struct end *e)
{
	hear(e);
	put(e, 777);
	tell(e, 0);
	hear(e);
	put(e, 30000);
	tell(e, 0);
	chat(e);
}

/* Nothing is unsent when the partner has read all. */
static void siocoutq(struct end *e)
{
	uint64_t until = now_ms() + 10000;
	int n = -1;

	if (e->server) {
		get(e, 500000);
		meet(e);
		meet(e);
		return;
	}
	put(e, 500000);
	meet(e);
	for (;;) {
		IS(ioctl(e->fd, SIOCOUTQ, &n), 0);
		if (!n)
			break;
		CHECK(now_ms() < until);
		nap(1);
	}
	meet(e);
}

/* ---------------------------------------------------------------- time limits, low-water mark */

static void timeout_set(int fd, int name, int ms)
{
	struct timeval t = { ms / 1000, ms % 1000 * 1000 }, is = { 0 };
	socklen_t len = sizeof(is);

	IS(setsockopt(fd, SOL_SOCKET, name, &t, sizeof(t)), 0);
	IS(getsockopt(fd, SOL_SOCKET, name, &is, &len), 0);
	/* kept in ticks */
	CHECK(llabs((is.tv_sec - t.tv_sec) * 1000000LL + is.tv_usec - t.tv_usec) <= 10000);
}

static void rcvtimeo(struct end *e)
{
	uint64_t before;

	if (e->server) {
		hear(e);
		put(e, 50);
		hear(e);
		chat(e);
		return;
	}
	timeout_set(e->fd, SO_RCVTIMEO, 120);
	before = now_ms();
	FAILS(get1(e, 100, 0), EAGAIN);
	CHECK(now_ms() - before >= 100);
	tell(e, 0);
	IS(get1(e, 100, MSG_WAITALL), 50); /* what came before the time was up */
	FAILS(get1(e, 100, 0), EAGAIN);
	timeout_set(e->fd, SO_RCVTIMEO, 0);
	tell(e, 0);
	chat(e);
}

static void sndtimeo(struct end *e)
{
	uint64_t before;
	ssize_t n;

	if (e->server) {
		get(e, hear(e));
		chat(e);
		return;
	}
	timeout_set(e->fd, SO_SNDTIMEO, 120);
	do { /* a part may go, but who is late always waits for the time */
		before = now_ms();
		n = put1(e, 200000, 0);
		CHECK(e->tx.n < 512u << 20);
		CHECK(n == 200000 || now_ms() - before >= 100);
	} while (n > 0);
	IS(errno, EAGAIN);
	timeout_set(e->fd, SO_SNDTIMEO, 0);
	tell(e, e->tx.n);
	chat(e);
}

static void rcvlowat_client(struct end *e)
{
	setint(e->fd, SOL_SOCKET, SO_RCVLOWAT, 100);
	IS(getint(e->fd, SOL_SOCKET, SO_RCVLOWAT), 100);
	tell(e, 0);
	arrived(e->fd, 50);
	IS(polled(e->fd, POLLIN, 50), 0);
	tell(e, 0);
	IS(polled(e->fd, POLLIN, 10000), POLLIN);
	IS(get1(e, 40, 0), 40);
	IS(polled(e->fd, POLLIN, 50), 0); /* 70 are left */
	tell(e, 0);
	CHECK(get1(e, 500, 0) >= 100);
	hear(e);
	get(e, 210 - e->rx.n);
	tell(e, 0);
	IS(polled(e->fd, POLLIN, 10000), POLLIN); /* the end is enough */
	get_eof(e);
}

static void rcvlowat_server(struct end *e)
{
	hear(e);
	put(e, 50);
	hear(e);
	put(e, 60);
	hear(e);
	nap(50);
	put(e, 100);
	tell(e, 0);
	hear(e);
	IS(shutdown(e->fd, SHUT_WR), 0);
}

/* ---------------------------------------------------------------- what the socket says */

static void port_is(const struct sockaddr_storage *a, int family, int port)
{
	IS(a->ss_family, family);
	IS(ntohs(((const struct sockaddr_in *)a)->sin_port), port);
}

static void names(struct end *e)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	struct stat st;

	for (int i = 0; i < 2; i++) {
		len = sizeof(a);
		IS(e->server ? getsockname(e->fd, (void *)&a, &len)
			     : getpeername(e->fd, (void *)&a, &len),
		   0);
		port_is(&a, AF_INET, e->port);
		IS(len, sizeof(struct sockaddr_in));
		IS(getint(e->fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
		IS(getint(e->fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
		IS(getint(e->fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
		IS(getint(e->fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
		IS(getint(e->fd, SOL_SOCKET, SO_ERROR), 0);
		IS(fstat(e->fd, &st), 0);
		CHECK(S_ISSOCK(st.st_mode));
		CHECK(!isatty(e->fd));
		chat(e);
	}
	len = 4; /* cut, and the true length is told */
	IS(getpeername(e->fd, (void *)&a, &len), 0);
	IS(len, sizeof(struct sockaddr_in));
	FAILS(getpeername(e->fd, (void *)&a, NULL), EFAULT);
	if (e->server)
		FAILS(getpeername(e->listener, (void *)&a, &len), ENOTCONN);
}

static void tcp_states(struct end *e)
{
	IS(tcp_state(e->fd), TCP_ESTABLISHED);
	meet(e);
	if (!e->server)
		IS(shutdown(e->fd, SHUT_WR), 0);
	meet(e);
	if (e->server) {
		get_eof(e);
		IS(tcp_state(e->fd), TCP_CLOSE_WAIT);
	} else {
		int state = tcp_state(e->fd);

		CHECK(state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2);
	}
	meet(e);
}

/* Options that change nothing for the bytes. */
static void options(struct end *e)
{
	char name[32] = "";
	socklen_t len = sizeof(name);

	setint(e->fd, IPPROTO_TCP, TCP_NODELAY, 1);
	IS(getint(e->fd, IPPROTO_TCP, TCP_NODELAY), 1);
	setint(e->fd, IPPROTO_TCP, TCP_QUICKACK, 1);
	setint(e->fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
	IS(getint(e->fd, IPPROTO_TCP, TCP_KEEPIDLE), 30);
	setint(e->fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	setint(e->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
	setint(e->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384);
	setint(e->fd, IPPROTO_IP, IP_TOS, 16);
	setint(e->fd, SOL_SOCKET, SO_PRIORITY, 3);
	setint(e->fd, SOL_SOCKET, SO_RCVBUF, 100000);
	IS(getint(e->fd, SOL_SOCKET, SO_RCVBUF), 200000);
	IS(getsockopt(e->fd, IPPROTO_TCP, TCP_CONGESTION, name, &len), 0);
	CHECK(*name);
	chat(e);
	FAILS(setsockopt(e->fd, SOL_SOCKET, 9999, name, 4), ENOPROTOOPT);
	FAILS(getsockopt(e->fd, SOL_SOCKET, 9999, name, &len), ENOPROTOOPT);
	FAILS(setsockopt(e->fd, SOL_SOCKET, SO_KEEPALIVE, name, 1), EINVAL);
	FAILS(setsockopt(e->fd, SOL_SOCKET, SO_KEEPALIVE, NULL, 4), EFAULT);
	chat(e);
}

static void fionbio(struct end *e)
{
	int on = 1;

	IS(ioctl(e->fd, FIONBIO, &on), 0);
	CHECK(fcntl(e->fd, F_GETFL) & O_NONBLOCK);
	FAILS(get1(e, 10, 0), EAGAIN);
	meet(e);
	on = 0;
	IS(ioctl(e->fd, FIONBIO, &on), 0);
	CHECK(!(fcntl(e->fd, F_GETFL) & O_NONBLOCK));
	chat(e);
	FAILS(ioctl(e->fd, 0x12345678, &on), ENOTTY);
}

/* ---------------------------------------------------------------- rarer ones */

static void so_error_client(struct end *e)
{
	tell(e, 0);
	CHECK(polled(e->fd, POLLIN, 10000) & POLLERR);
	IS(getint(e->fd, SOL_SOCKET, SO_ERROR), ECONNRESET);
	IS(getint(e->fd, SOL_SOCKET, SO_ERROR), 0);
	get_eof(e);
	FAILS(put1(e, 1, 0), EPIPE);
}

static void so_error_server(struct end *e)
{
	struct linger l = { 1, 0 };

	hear(e);
	IS(setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	conn_close(e);
}

static void peek_off(struct end *e)
{
	int zero = 0;

	if (e->server) {
		put(e, 100);
		chat(e);
		return;
	}
	if (setsockopt(e->fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero)))
		skip("no SO_PEEK_OFF for TCP here");
	arrived(e->fd, 100);
	IS(get1(e, 30, MSG_PEEK), 30);
	e->rx.n = 30;
	IS(get1(e, 30, MSG_PEEK), 30);
	e->rx.n = 0;
	get(e, 100);
	setint(e->fd, SOL_SOCKET, SO_PEEK_OFF, -1);
	chat(e);
}

static void tcp_inq(struct end *e)
{
	char buf[40], space[100];
	struct iovec v = { buf, sizeof(buf) };
	struct msghdr m = { .msg_iov = &v,
			    .msg_iovlen = 1,
			    .msg_control = space,
			    .msg_controllen = sizeof(space) };
	struct cmsghdr *c;
	int left = -1;

	if (e->server) {
		put(e, 100);
		chat(e);
		return;
	}
	setint(e->fd, IPPROTO_TCP, TCP_INQ, 1);
	arrived(e->fd, 100);
	IS(recvmsg(e->fd, &m, 0), 40);
	took(e, buf, 40);
	c = CMSG_FIRSTHDR(&m);
	CHECK(c && c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_CM_INQ);
	memcpy(&left, CMSG_DATA(c), sizeof(left));
	IS(left, 60);
	get(e, 60);
	chat(e);
}

static volatile sig_atomic_t signals;

static void count(int sig)
{
	(void)sig;
	signals++;
}

/* A signal for each message, for who asked for it. */
static void sigio(struct end *e)
{
	if (e->server) {
		for (int i = 0; i < 5; i++) {
			hear(e);
			put(e, 10);
		}
		chat(e);
		return;
	}
	catch_signal(SIGIO, count, SA_RESTART);
	IS(fcntl(e->fd, F_SETOWN, getpid()), 0);
	IS(fcntl(e->fd, F_GETOWN), getpid());
	IS(fcntl(e->fd, F_SETFL, fcntl(e->fd, F_GETFL) | O_ASYNC), 0);
	for (int i = 0; i < 5; i++) {
		signals = 0;
		tell(e, 0);
		for (int k = 0; k < 1000 && !signals; k++)
			nap(10);
		CHECK(signals > 0);
		get(e, 10);
	}
	IS(fcntl(e->fd, F_SETFL, fcntl(e->fd, F_GETFL) & ~O_ASYNC), 0);
	chat(e);
}

/* Another protocol on top: the name is unknown, or known and then refused by nobody's fault. */
static void ulp(struct end *e)
{
	if (!e->server)
		FAILS(setsockopt(e->fd, IPPROTO_TCP, TCP_ULP, "nosuchulp", 9), ENOENT);
	chat(e);
}

/* A time limit that was set while there were no rings yet holds on them, too. */
static void early(struct end *e)
{
	uint64_t before;

	conn_open(e, AF_INET);
	timeout_set(e->fd, SO_RCVTIMEO, e->server ? 0 : 120);
	warm_up(e);
	if (e->server) {
		hear(e);
		chat(e);
		return;
	}
	before = now_ms();
	FAILS(get1(e, 100, 0), EAGAIN);
	CHECK(now_ms() - before >= 100);
	timeout_set(e->fd, SO_RCVTIMEO, 0);
	tell(e, 0);
	chat(e);
}

const struct test tests_opts[] = {
	{ "fionread", fionread_client, fionread_server, 0, 0 },
	{ "siocoutq", siocoutq, NULL, 0, 0 },
	{ "rcvtimeo", rcvtimeo, NULL, 0, 0 },
	{ "sndtimeo", sndtimeo, NULL, 0, 0 },
	{ "rcvlowat", rcvlowat_client, rcvlowat_server, 0, 0 },
	{ "rcvtimeo_early", early, NULL, RAW, 0 },
	{ "names", names, NULL, 0, 0 },
	{ "tcp_states", tcp_states, NULL, 0, 0 },
	{ "options", options, NULL, 0, 0 },
	{ "fionbio", fionbio, NULL, 0, 0 },
	{ "so_error", so_error_client, so_error_server, 0, 0 },
	{ "peek_off", peek_off, NULL, 0, 0 },
	{ "tcp_inq", tcp_inq, NULL, 0, 0 },
	{ "sigio", sigio, NULL, 0, 0 },
	{ "ulp", ulp, NULL, 0, 0 },
	{ 0 },
};
