// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The single self-tests; see selftest.h for what they are for. */
#define _GNU_SOURCE
#include "selftest_cases.h"
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "loader.h"
#include <ismredir/option.h>
#include <ismredir/sockctl.h>
#include "ismredir.skel.h"

#define WAIT_MS 2000

/* ---------------------------------------------------------------- setup */

static int attach_all(struct ism_case_env *env, struct ism_policy *p, struct ism_err *err)
{
	struct ismredir_bpf *s = env->skel;
	int fd;

	fd = ism_loader_attach_sockmap(bpf_program__fd(s->progs.ism_redirect),
				       bpf_map__fd(s->maps.socks), err);
	if (fd < 0 && fd != -EOPNOTSUPP)
		return fd;
	env->sockmap_link = fd >= 0;
	env->links[0] = fd;
	fd = ism_loader_attach_cgroup(bpf_program__fd(s->progs.ism_sockopt), &env->cg,
				      BPF_CGROUP_SETSOCKOPT, err);
	if (fd < 0)
		return fd;
	env->links[1] = fd;
	fd = ism_loader_attach_cgroup(bpf_program__fd(s->progs.ism_handshake), &env->cg,
				      BPF_CGROUP_SOCK_OPS, err);
	if (fd < 0)
		return fd;
	env->links[2] = fd;
	fd = ism_loader_attach_cgroup(bpf_program__fd(s->progs.ism_sockinfo), &env->cg,
				      BPF_CGROUP_GETSOCKOPT, err);
	if (fd < 0)
		return fd;
	env->links[3] = fd;
	return ism_loader_fill_maps(bpf_map__fd(s->maps.rules), bpf_map__fd(s->maps.ctl), p,
				    ISM_WORD_ON, err);
}

int ism_case_setup(struct ism_case_env *env)
{
	struct ism_policy *p = malloc(sizeof(*p));
	struct ism_err own = {};
	int rc;

	memset(env->links, -1, sizeof(env->links));
	if (!p)
		return -ENOMEM;
	ism_policy_init(p);
	p->ctl.default_plane = ISM_PLANE_SKMSG;
	p->max_conns = 64;
	rc = ism_loader_open(p, &env->skel, &own);
	if (!rc) {
		rc = ismredir_bpf__load(env->skel);
		if (rc)
			ism_err_set(&own, rc, "the kernel refused the BPF programs: %s",
				    strerror(-rc));
	}
	if (!rc)
		rc = attach_all(env, p, &own);
	free(p);
	snprintf(env->setup_error, sizeof(env->setup_error), "%.190s", own.text);
	return rc;
}

void ism_case_teardown(struct ism_case_env *env)
{
	for (size_t i = 0; i < sizeof(env->links) / sizeof(env->links[0]); i++)
		if (env->links[i] >= 0)
			close(env->links[i]);
	ismredir_bpf__destroy(env->skel);
}

/* ---------------------------------------------------------------- a connection */

struct pair {
	int listener;
	int c;
	int s;
	__u64 token; /* of the client's end */
};

static void set_word(struct ism_case_env *env, __u32 word)
{
	int fd = bpf_map__fd(env->skel->maps.ctl);
	struct ism_ctl ctl;
	__u32 zero = 0;

	if (!bpf_map_lookup_elem(fd, &zero, &ctl)) {
		ctl.word = word;
		bpf_map_update_elem(fd, &zero, &ctl, BPF_ANY);
	}
}

static __u64 cookie_of(int fd)
{
	__u64 cookie = 0;
	socklen_t len = sizeof(cookie);

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	return cookie;
}

static int find_conn(struct ism_case_env *env, int fd, struct ism_conn *ret, __u64 *ret_token)
{
	int map = bpf_map__fd(env->skel->maps.conns);
	__u64 cookie = cookie_of(fd), token = 0, *prev = NULL, next;

	while (!bpf_map_get_next_key(map, prev, &next)) {
		token = next;
		prev = &token;
		if (!bpf_map_lookup_elem(map, &token, ret) && ret->cookie == cookie) {
			*ret_token = token;
			return 0;
		}
	}
	return -ENOENT;
}

static void close_pair(struct pair *p)
{
	close(p->c);
	close(p->s);
	close(p->listener);
}

static int tell(int fd, int option, __u32 value)
{
	socklen_t none = 0;

	return getsockopt(fd, ISM_SOL, ISM_SO(option, value), NULL, &none);
}

static int claim(int fd, __u32 caps)
{
	return caps ? tell(fd, ISM_SO_CAPS, caps) : 0;
}

/* @caps: what both sockets say of themselves. */
static int open_pair(struct pair *p, __u32 caps)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval tv = { WAIT_MS / 1000, 0 };
	socklen_t len = sizeof(a);

	p->c = p->s = -1;
	p->token = 0;
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->listener < 0 || bind(p->listener, (void *)&a, len) || claim(p->listener, caps) ||
	    listen(p->listener, 4) || getsockname(p->listener, (void *)&a, &len))
		goto fail;
	p->c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->c < 0 || claim(p->c, caps) || connect(p->c, (void *)&a, sizeof(a)))
		goto fail;
	p->s = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
	if (p->s < 0)
		goto fail;
	setsockopt(p->c, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(p->s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return 0;
fail:
	close_pair(p);
	return -1;
}

/* Open a pair, and say in @detail when that fails. */
static int need_pair(struct pair *p, char *detail, size_t len)
{
	if (!open_pair(p, 0))
		return 0;
	snprintf(detail, len, "no connection on 127.0.0.1: %s", strerror(errno));
	return -1;
}

static __u64 redirected(struct ism_case_env *env, int fd)
{
	struct ism_conn c;
	__u64 token;

	return find_conn(env, fd, &c, &token) ? 0 : c.redir_bytes;
}

static enum ism_test_result verdict(int ok)
{
	return ok ? ISM_TEST_PASS : ISM_TEST_FAIL;
}

static int wait_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, WAIT_MS) == 1;
}

/* ---------------------------------------------------------------- tests */

enum ism_test_result ism_case_load(struct ism_case_env *env, char *detail, size_t len)
{
	snprintf(detail, len, "%s", env->setup_error);
	return verdict(!env->broken);
}

static enum ism_test_result case_link(struct ism_case_env *env, char *detail, size_t len)
{
	if (!env->sockmap_link)
		snprintf(detail, len, "the sk_msg program hangs on the map, not on a link");
	return verdict(env->sockmap_link);
}

static enum ism_test_result case_option(struct ism_case_env *env, char *detail, size_t len)
{
	struct ism_conn c = {}, s = {};
	__u64 ct = 0, st = 0;
	struct pair p;
	int ok;

	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	ok = !find_conn(env, p.c, &c, &ct) && !find_conn(env, p.s, &s, &st) && c.peer == st &&
	     s.peer == ct;
	if (!ok)
		snprintf(detail, len, "offer and answer did not pair the two ends (reason %#x)",
			 c.reason);
	close_pair(&p);
	return verdict(ok);
}

static enum ism_test_result case_insert(struct ism_case_env *env, char *detail, size_t len)
{
	struct ism_conn c = {}, s = {};
	struct pair p;
	__u64 t;
	int ok;

	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	ok = !find_conn(env, p.c, &c, &t) && !find_conn(env, p.s, &s, &t) &&
	     c.flags & s.flags & ISM_CONN_ENROLLED;
	if (!ok)
		snprintf(detail, len, "sockops could not put the sockets into the sockhash");
	close_pair(&p);
	return verdict(ok);
}

static enum ism_test_result case_redirect(struct ism_case_env *env, char *detail, size_t len)
{
	char out[1000], in[1000];
	struct pair p;
	__u64 n;
	int ok;

	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	memset(out, 'r', sizeof(out));
	ok = send(p.c, out, sizeof(out), 0) == sizeof(out) &&
	     recv(p.s, in, sizeof(in), 0) == sizeof(in) && !memcmp(in, out, sizeof(in));
	n = redirected(env, p.c);
	if (!ok || n != sizeof(out))
		snprintf(detail, len, "%llu of 1000 bytes redirected, content %s",
			 (unsigned long long)n, ok ? "right" : "wrong");
	close_pair(&p);
	return verdict(ok && n == sizeof(out));
}

static enum ism_test_result case_rmem(struct ism_case_env *env, char *detail, size_t len)
{
	__u32 mem[SK_MEMINFO_VARS] = {};
	socklen_t mlen = sizeof(mem);
	char out[1000] = {};
	struct pair p;
	int ok;

	(void)env;
	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	ok = send(p.c, out, sizeof(out), 0) == sizeof(out) &&
	     !getsockopt(p.s, SOL_SOCKET, SO_MEMINFO, mem, &mlen) &&
	     mem[SK_MEMINFO_RMEM_ALLOC] >= sizeof(out);
	if (!ok)
		snprintf(detail, len,
			 "1000 redirected bytes are charged as %u: nothing would bound "
			 "what a slow reader piles up",
			 mem[SK_MEMINFO_RMEM_ALLOC]);
	close_pair(&p);
	return verdict(ok);
}

static int read_exact(int fd, char *buf, size_t len)
{
	size_t have = 0;
	ssize_t n;

	while (have < len) {
		n = recv(fd, buf + have, len - have, 0);
		if (n <= 0)
			return -1;
		have += n;
	}
	return 0;
}

static enum ism_test_result case_order(struct ism_case_env *env, char *detail, size_t len)
{
	char in[13] = {};
	struct pair p;
	int ok;

	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	set_word(env, ISM_WORD_OFF);
	ok = send(p.c, "TCP1", 4, 0) == 4;
	set_word(env, ISM_WORD_ON);
	/* This must follow over TCP, because TCP1 is not read yet. */
	ok = ok && send(p.c, "MSG2", 4, 0) == 4 && !read_exact(p.s, in, 8);
	ok = ok && send(p.c, "MSG3", 4, 0) == 4 && !read_exact(p.s, in + 8, 4);
	ok = ok && !strcmp(in, "TCP1MSG2MSG3");
	if (!ok)
		snprintf(detail, len, "read \"%s\", expected \"TCP1MSG2MSG3\"", in);
	if (ok && redirected(env, p.c) != 4) {
		snprintf(detail, len, "the third message was not redirected");
		ok = 0;
	}
	close_pair(&p);
	return verdict(ok);
}

static enum ism_test_result case_shutdown(struct ism_case_env *env, char *detail, size_t len)
{
	struct pair p;
	char b[8];
	int ok;

	(void)env;
	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	ok = send(p.c, "x", 1, 0) == 1 && !shutdown(p.c, SHUT_WR) &&
	     send(p.c, "y", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE &&
	     recv(p.s, b, sizeof(b), 0) == 1 && recv(p.s, b, sizeof(b), 0) == 0;
	if (!ok)
		snprintf(detail, len, "send after shutdown(SHUT_WR) must fail with EPIPE");
	close_pair(&p);
	return verdict(ok);
}

static enum ism_test_result case_backpressure(struct ism_case_env *env, char *detail, size_t len)
{
	const size_t limit = 32 << 20;
	static char block[65536];
	struct pair p;
	size_t sent = 0;
	ssize_t n = 1;

	(void)env;
	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	while (n > 0 && sent < limit) {
		n = send(p.c, block, sizeof(block), MSG_DONTWAIT);
		sent += n > 0 ? n : 0;
	}
	if (sent >= limit || errno != EAGAIN)
		snprintf(detail, len, "a writer without a reader was given %zu bytes and errno %d",
			 sent, errno);
	close_pair(&p);
	return verdict(sent < limit && errno == EAGAIN);
}

/* Bytes that a redirect leaves to TCP, and FIONREAD on them. */
static int fionread(struct ism_case_env *env, int by_tcp, char *detail, size_t len)
{
	char out[100] = {};
	int n = -1, ok;
	struct pair p;

	if (need_pair(&p, detail, len))
		return 0;
	if (by_tcp)
		set_word(env, ISM_WORD_OFF);
	ok = send(p.c, out, sizeof(out), 0) == sizeof(out) && wait_readable(p.s) &&
	     !ioctl(p.s, FIONREAD, &n) && n == sizeof(out);
	set_word(env, ISM_WORD_ON);
	if (!ok)
		snprintf(detail, len, "100 bytes in the %s queue, FIONREAD says %d",
			 by_tcp ? "TCP" : "redirect", n);
	close_pair(&p);
	return ok;
}

static enum ism_test_result case_fionread_tcp(struct ism_case_env *env, char *detail, size_t len)
{
	return verdict(fionread(env, 1, detail, len));
}

static enum ism_test_result case_fionread_msg(struct ism_case_env *env, char *detail, size_t len)
{
	return verdict(fionread(env, 0, detail, len));
}

static enum ism_test_result case_splice(struct ism_case_env *env, char *detail, size_t len)
{
	int pipefd[2], ok = 0;
	char out[100] = {};
	struct pair p;
	ssize_t n = -1;

	(void)env;
	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	if (!pipe2(pipefd, O_CLOEXEC)) {
		fcntl(p.s, F_SETFL, O_NONBLOCK);
		if (send(p.c, out, sizeof(out), 0) == sizeof(out) && wait_readable(p.s))
			n = splice(p.s, NULL, pipefd[1], NULL, sizeof(out), SPLICE_F_NONBLOCK);
		ok = n == sizeof(out);
		close(pipefd[0]);
		close(pipefd[1]);
	}
	if (!ok)
		snprintf(detail, len,
			 "splice(2) does not see redirected bytes: exclude programs "
			 "that splice from sockets without blocking (Go's io.Copy)");
	close_pair(&p);
	return verdict(ok);
}

/* A task asleep in recv(); what it got is read after join. */
struct sleeper {
	pthread_t thread;
	int fd;
	int flags;
	_Atomic int tid;
	ssize_t got;
	int err;
};

static void *sleep_in_recv(void *arg)
{
	struct sleeper *w = arg;
	char buf[200];

	w->tid = gettid();
	w->got = recv(w->fd, buf, sizeof(buf), w->flags);
	w->err = errno;
	return NULL;
}

/* Until it sleeps, as a reader that waits for a request does; a second at most. */
static void wait_asleep(const struct sleeper *w)
{
	char path[64], line[256], *p;
	FILE *f;

	for (int i = 0; i < 1000; i++) {
		usleep(1000);
		if (!w->tid)
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", w->tid);
		f = fopen(path, "re");
		if (!f)
			return;
		p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
		fclose(f);
		if (p && p[1] && p[2] == 'S')
			return;
	}
}

static int start_sleeper(struct sleeper *w, int fd, int flags)
{
	w->fd = fd;
	w->flags = flags;
	if (pthread_create(&w->thread, NULL, sleep_in_recv, w))
		return -1;
	wait_asleep(w);
	return 0;
}

static enum ism_test_result case_waitall(struct ism_case_env *env, char *detail, size_t len)
{
	struct sleeper w = {};
	char out[100] = {};
	struct pair p;

	(void)env;
	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	if (start_sleeper(&w, p.s, MSG_WAITALL)) {
		close_pair(&p);
		return ISM_TEST_SKIP;
	}
	send(p.c, out, sizeof(out), 0);
	wait_asleep(&w);
	send(p.c, out, sizeof(out), 0);
	pthread_join(w.thread, NULL);
	if (w.got != 200)
		snprintf(detail, len, "recv(200, MSG_WAITALL) returned %zd", w.got);
	close_pair(&p);
	return verdict(w.got == 200);
}

static enum ism_test_result case_reset(struct ism_case_env *env, char *detail, size_t len)
{
	struct linger hard = { .l_onoff = 1 };
	struct sleeper w = {};
	struct pair p;
	int ok;

	(void)env;
	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	if (start_sleeper(&w, p.s, 0)) {
		close_pair(&p);
		return ISM_TEST_SKIP;
	}
	setsockopt(p.c, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(p.c);
	p.c = -1;
	pthread_join(w.thread, NULL);
	ok = w.got < 0 && w.err == ECONNRESET;
	if (!ok)
		snprintf(detail, len, "a task asleep in recv() sees \"%s\" before the reset",
			 w.got < 0 ? strerror(w.err) : "data");
	close_pair(&p);
	return verdict(ok);
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = -1;

	if (fd >= 0) {
		rc = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
		close(fd);
	}
	return rc;
}

static enum ism_test_result case_cookie(struct ism_case_env *env, char *detail, size_t len)
{
	const char *file = "/proc/sys/net/ipv4/tcp_syncookies";
	struct ism_conn c = {};
	char b[4] = {};
	struct pair p;
	__u64 token;
	int ok;

	if (!env->own_netns || write_file(file, "2")) {
		snprintf(detail, len, "no network namespace of its own to set %s in", file);
		return ISM_TEST_SKIP;
	}
	ok = !need_pair(&p, detail, len);
	write_file(file, "1");
	if (!ok)
		return ISM_TEST_FAIL;
	ok = !find_conn(env, p.c, &c, &token) && !c.peer && send(p.c, "abc", 3, 0) == 3 &&
	     recv(p.s, b, 3, 0) == 3 && !redirected(env, p.c);
	if (!ok)
		snprintf(detail, len, "a SYN cookie was answered, or the connection does not work");
	close_pair(&p);
	return verdict(ok);
}

static enum ism_test_result case_sockopt(struct ism_case_env *env, char *detail, size_t len)
{
	struct ism_conn c = {};
	struct pair p;
	char b[64] = {};
	__u64 token;
	int low = 32, ok;

	if (need_pair(&p, detail, len))
		return ISM_TEST_FAIL;
	ok = !setsockopt(p.s, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low)) &&
	     send(p.c, b, sizeof(b), 0) == sizeof(b) && recv(p.s, b, sizeof(b), 0) == sizeof(b) &&
	     !find_conn(env, p.s, &c, &token) && c.flags & ISM_CONN_PINNED && !redirected(env, p.c);
	if (!ok)
		snprintf(detail, len, "SO_RCVLOWAT did not keep the connection on TCP");
	close_pair(&p);
	return verdict(ok);
}

static int sock_info(int fd, struct ism_sock_info *ret)
{
	socklen_t len = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	return getsockopt(fd, ISM_SOL, ISM_SO_INFO, ret, &len) || len != sizeof(*ret) ? -1 : 0;
}

/* Do the two ends know each other, on TCP, with capabilities that both can use? */
static int paired_for_rings(const struct pair *p, char *detail, size_t len)
{
	const __u32 want = ISM_SOCK_ESTABLISHED | ISM_SOCK_PAIRED;
	struct ism_sock_info c, s;

	if (sock_info(p->c, &c) || sock_info(p->s, &s)) {
		snprintf(detail, len, "getsockopt(ISM_SO_INFO): %s", strerror(errno));
		return 0;
	}
	if (c.flags == want && s.flags == want && c.token && c.token == s.peer &&
	    s.token == c.peer && c.caps & c.peer_caps & s.caps & s.peer_caps & ISM_CAP_DIRECT)
		return 1;
	snprintf(detail, len, "the ends are not paired for rings: flags %#x %#x, caps %u-%u %u-%u",
		 c.flags, s.flags, c.caps, c.peer_caps, s.caps, s.peer_caps);
	return 0;
}

/* The sequence numbers by which rings and TCP keep their order. */
static int sequences_meet(const struct pair *p, char *detail, size_t len)
{
	struct ism_sock_info c, s;
	char b[100] = {};

	if (send(p->c, b, sizeof(b), 0) == sizeof(b) && !read_exact(p->s, b, sizeof(b)) &&
	    !sock_info(p->c, &c) && !sock_info(p->s, &s) && c.write_seq &&
	    c.write_seq == s.copied_seq && c.copied_seq == s.write_seq)
		return 1;
	snprintf(detail, len, "sequence numbers of the two ends do not meet");
	return 0;
}

static enum ism_test_result case_sockctl(struct ism_case_env *env, char *detail, size_t len)
{
	struct ism_conn c = {};
	struct pair p;
	__u64 token;
	int ok;

	if (open_pair(&p, ISM_CAP_DIRECT)) {
		snprintf(detail, len, "telling capabilities, or a connection: %s", strerror(errno));
		return ISM_TEST_FAIL;
	}
	ok = paired_for_rings(&p, detail, len) && sequences_meet(&p, detail, len);
	if (ok && (tell(p.c, ISM_SO_REPORT, ISM_SO_REPORT_OF(ISM_PLANE_DIRECT, 0)) ||
		   find_conn(env, p.c, &c, &token) || c.plane != ISM_PLANE_DIRECT)) {
		snprintf(detail, len, "a report changed nothing");
		ok = 0;
	}
	close_pair(&p);
	return verdict(ok);
}

#define FIX_KERNEL                                                                                 \
	"run a kernel with the mend of 2026-07 (bpf: account for the receive queue in FIONREAD)"

const struct ism_case ism_cases[] = {
	{ "load", "load and attach the programs", "Linux 5.17 or newer with BTF",
	  ISM_TEST_ESSENTIAL, ism_case_load, 1 },
	{ "link", "attach the sk_msg program by a bpf_link", "Linux 6.10 or newer; not needed",
	  ISM_TEST_KNOWN, case_link, 0 },
	{ "option", "offer and answer on SYN and SYN-ACK", "Linux 5.10 or newer",
	  ISM_TEST_ESSENTIAL, case_option, 1 },
	{ "sockctl", "a program asks about its sockets (for rings)",
	  "Linux 5.18 or newer; another program on the cgroup's sockopt hooks may interfere",
	  ISM_TEST_KNOWN, case_sockctl, 1 },
	{ "syn_cookie", "a SYN cookie is not answered", "", ISM_TEST_SELECTIVE, case_cookie, 0 },
	{ "insert", "put sockets into the sockhash at ESTABLISHED",
	  "another sockmap tool may hold them", ISM_TEST_ESSENTIAL, case_insert, 0 },
	{ "redirect", "redirect a message into the partner's socket", "", ISM_TEST_ESSENTIAL,
	  case_redirect, 0 },
	{ "rmem", "redirected bytes are charged to the receiver",
	  "Linux 6.13, or a stable kernel with tcp_bpf: charge receive socket buffer",
	  ISM_TEST_ESSENTIAL, case_rmem, 0 },
	{ "order", "TCP bytes and redirected bytes keep their order", "", ISM_TEST_ESSENTIAL,
	  case_order, 0 },
	{ "shutdown", "send after shutdown(SHUT_WR) fails", "", ISM_TEST_ESSENTIAL, case_shutdown,
	  0 },
	{ "backpressure", "a writer without a reader is stopped", "", ISM_TEST_ESSENTIAL,
	  case_backpressure, 0 },
	{ "sockopt", "setsockopt keeps a connection on TCP", "", ISM_TEST_ESSENTIAL, case_sockopt,
	  0 },
	{ "waitall", "a reader that sleeps where only TCP can wake it is served by TCP",
	  "CAP_SYSLOG and kernel.kptr_restrict below 2, so that kernel symbols are readable",
	  ISM_TEST_ESSENTIAL, case_waitall, 0 },
	{ "fionread_tcp", "FIONREAD counts bytes in the TCP queue", FIX_KERNEL, ISM_TEST_SELECTIVE,
	  case_fionread_tcp, 0 },
	{ "fionread_redirected", "FIONREAD counts redirected bytes", FIX_KERNEL, ISM_TEST_SELECTIVE,
	  case_fionread_msg, 0 },
	{ "reset", "a task asleep in recv() sees the connection reset",
	  "no kernel does yet; programs that cannot bear it: --set readers=poll, or exclude them",
	  ISM_TEST_KNOWN, case_reset, 0 },
	{ "splice", "splice(2) sees redirected bytes",
	  "no kernel can; exclude programs that splice from sockets (Go proxies)",
	  ISM_TEST_SELECTIVE, case_splice, 0 },
	{ NULL, NULL, NULL, ISM_TEST_KNOWN, NULL, 0 },
};
