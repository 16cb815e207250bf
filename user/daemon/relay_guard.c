// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The guard of the relay; see relay_guard.h. */
#define _GNU_SOURCE
#include "relay_guard.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <ismredir/dmb.h>
#include "clock.h"
#include "err.h"
#include "log.h"
#include "relay_hold.h"
#include "relay_maps.h"

enum guard_op { GUARD_LOAD = 1, GUARD_KICK, GUARD_RESET, GUARD_BYE };

struct guard_msg {
	__u32 op;
	__u32 pad;
	struct ism_conn conn;
};

/* ---------------------------------------------------------------- in the guard */

struct reset_request {
	struct nlmsghdr nlh;
	struct inet_diag_req_v2 req;
};

struct reset_answer {
	struct nlmsghdr nlh;
	struct nlmsgerr err;
};

static void fill_reset(struct reset_request *q, const struct ism_conn *c)
{
	memset(q, 0, sizeof(*q));
	q->nlh.nlmsg_len = sizeof(*q);
	q->nlh.nlmsg_type = SOCK_DESTROY;
	q->nlh.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	q->req.sdiag_family = c->family;
	q->req.sdiag_protocol = IPPROTO_TCP;
	q->req.idiag_states = ~0u;
	q->req.id.idiag_sport = htons(c->lport);
	q->req.id.idiag_dport = htons(c->rport);
	memcpy(q->req.id.idiag_src, c->laddr, 16);
	memcpy(q->req.id.idiag_dst, c->raddr, 16);
	q->req.id.idiag_cookie[0] = (__u32)c->cookie;
	q->req.id.idiag_cookie[1] = c->cookie >> 32;
}

/* By address and cookie, so nobody else is hit; the kernel tells both ends. */
int relay_reset(const struct ism_conn *c)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG), rc = 0;
	struct reset_request q;
	struct reset_answer a;

	if (fd < 0)
		return -errno;
	fill_reset(&q, c);
	if (sendto(fd, &q, sizeof(q), 0, (struct sockaddr *)&to, sizeof(to)) < 0 ||
	    recv(fd, &a, sizeof(a), 0) < 0)
		rc = -errno;
	else if (a.nlh.nlmsg_type == NLMSG_ERROR)
		rc = a.err.error;
	close(fd);
	return rc;
}

/*
 * Tried on a listener of our own. Without the kernel's modules for it (inet_diag, tcp_diag) the answer is
 * ENOENT, as for a socket that is gone; so it has to be known beforehand.
 */
int relay_can_reset(struct ism_err *err)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	struct ism_conn c = { .family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = 0;
	socklen_t len = sizeof(at), cookie_len = sizeof(c.cookie);

	if (fd < 0 || listen(fd, 1) || getsockname(fd, (struct sockaddr *)&at, &len) ||
	    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &c.cookie, &cookie_len))
		rc = -errno;
	c.lport = ntohs(at.sin_port);
	if (!rc)
		rc = relay_reset(&c);
	if (fd >= 0)
		close(fd);
	if (!rc)
		return 0;
	return ism_err_set(
		err, rc == -ENOENT ? -EOPNOTSUPP : rc,
		"--relay: this kernel resets no connection for us (%s): it needs "
		"CAP_NET_ADMIN, CONFIG_INET_DIAG_DESTROY, and the module tcp_diag loaded",
		strerror(-rc));
}

static __u64 own_netns(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(__u64);
	__u64 cookie = 0;

	if (fd < 0)
		return 0;
	getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len);
	close(fd);
	return cookie;
}

/* Into the namespace of the connection's process; home is where we were. -ENOENT: not found. */
static int enter(const struct ism_conn *c, int home)
{
	char path[64];
	int fd, rc;

	if (c->netns == own_netns())
		return 0;
	snprintf(path, sizeof(path), "/proc/%u/ns/net", c->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = setns(fd, CLONE_NEWNET) ? -errno : 0;
	close(fd);
	if (rc)
		return rc;
	if (c->netns == own_netns())
		return 0;
	setns(home, CLONE_NEWNET);
	return -ENOENT;
}

/* Once: it is asked for again and again. */
static void say_barred(int rc)
{
	static int is_said;

	if ((rc != -EPERM && rc != -EACCES) || is_said)
		return;
	is_said = 1;
	log_line(LOG_WARNING,
		 "relay: connections of other network namespaces cannot be reset: %s "
		 "(CAP_SYS_ADMIN, and CAP_SYS_PTRACE)",
		 strerror(-rc));
}

static void serve(struct relay_maps *m, const struct guard_msg *msg, int home)
{
	int rc = enter(&msg->conn, home);

	if (rc) {
		say_barred(rc);
		return;
	}
	if (msg->op == GUARD_KICK && m->skel)
		rc = relay_maps_kick(m);
	else if (msg->op == GUARD_RESET)
		rc = relay_reset(&msg->conn);
	if (rc && rc != -ENOENT)
		log_line(LOG_WARNING, "relay: %s: %s",
			 msg->op == GUARD_KICK ? "held segments" : "reset", strerror(-rc));
	setns(home, CLONE_NEWNET);
}

/* Is it mapped here? Asking the kernel to read it does not hurt. */
static int is_mapped(int pipe_wr, int pipe_rd, const void *p)
{
	char c;

	return write(pipe_wr, p, 1) == 1 && read(pipe_rd, &c, 1) == 1;
}

/* The partner's relay takes it from there: what it still has in that ring is lost, and it knows. */
static void close_rings(void **peers)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC))
		return;
	for (int i = 0; i < ISM_MAX_RELAYS; i++) {
		struct ism_dmb_rx *b = peers[i] ? ism_dmb_rx(peers[i]) : NULL;

		if (b && is_mapped(p[1], p[0], b))
			__atomic_store_n(
				&b->tcp,
				ISM_RX_RELAY | ISM_RX_CLOSED |
					ISM_RX_SEQ(__atomic_load_n(&b->tcp, __ATOMIC_RELAXED)),
				__ATOMIC_SEQ_CST);
	}
	close(p[0]);
	close(p[1]);
}

static void forget_relay(struct relay_maps *m)
{
	struct ism_ctl ctl;
	__u32 zero = 0;

	if (bpf_map_lookup_elem(m->ctl, &zero, &ctl))
		return;
	ctl.relay = 0;
	bpf_map_update_elem(m->ctl, &zero, &ctl, BPF_EXIST);
}

static void reset_there(const struct ism_conn *c, void *arg)
{
	struct guard_msg msg = { .op = GUARD_RESET, .conn = *c };

	serve(NULL, &msg, *(int *)arg);
}

/* Direct ends */

/* What a hold points to, if that can still be read. */
static const void *readable(const int probe[2], const void *dmb)
{
	return dmb && is_mapped(probe[1], probe[0], ism_dmb_tx(dmb)) ? dmb : NULL;
}

static void watch_one(struct relay_maps *m, struct relay_hold *h, struct ism_relay *s,
		      const int probe[2], int home)
{
	enum relay_hold_todo todo = relay_hold_step(h, s, readable(probe, h->own),
						    readable(probe, h->peer), ism_clock_ns());
	struct guard_msg msg = { .op = todo == HOLD_KICK ? GUARD_KICK : GUARD_RESET };

	if ((todo == HOLD_KICK || todo == HOLD_RESET) && !relay_maps_conn(m, s->token, &msg.conn))
		serve(m, &msg, home);
}

/* Returns how many are left to be looked after. */
static unsigned int watch_round(struct relay_maps *m, struct relay_hold *holds, const int probe[2],
				int home)
{
	const __u32 self = getpid();
	unsigned int left = 0;

	for (int i = 0; i < ISM_MAX_RELAYS; i++)
		if (m->slots[i].owner == self && relay_hold_is_on(&m->slots[i])) {
			m->slots[i].beat++;
			m->slots[i].look = 1;
		}
	relay_maps_look(m, ISM_MAX_RELAYS);
	for (int i = 0; i < ISM_MAX_RELAYS; i++)
		if (m->slots[i].owner == self && relay_hold_is_on(&m->slots[i])) {
			watch_one(m, &holds[i], &m->slots[i], probe, home);
			left++;
		}
	return left;
}

/* A load that was taken away holds nothing, and does not say what ends. */
static void watch_holds(struct relay_maps *m, struct relay_hold *holds, int home)
{
	int probe[2];

	if (pipe2(probe, O_CLOEXEC))
		return;
	while (watch_round(m, holds, probe, home) && relay_maps_is_current(m))
		usleep(10000);
	close(probe[0]);
	close(probe[1]);
}

/*
 * Nothing of the daemon's shall stay open because the guard has it: sockets that are bound, locks. The
 * memory of fabrics stays mapped.
 */
static void close_others(int fd)
{
	close_range(3, fd - 1, 0);
	close_range(fd + 1, ~0u, 0);
}

static void guard_main(int fd, void **peers, struct relay_hold *holds)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct relay_maps m = { .kick = -1 };
	struct guard_msg msg;
	ssize_t n;

	while ((n = recv(fd, &msg, sizeof(msg), 0)) > 0 || (n < 0 && errno == EINTR)) {
		if (n != sizeof(msg))
			continue;
		if (msg.op == GUARD_BYE)
			_exit(0);
		if (msg.op != GUARD_LOAD) {
			serve(&m, &msg, home);
			continue;
		}
		relay_maps_close(&m);
		relay_maps_open(&m, NULL, NULL, NULL);
	}
	close_rings(peers);
	if (m.skel) {
		forget_relay(&m);
		relay_maps_give_up(&m, reset_there, &home);
		watch_holds(&m, holds, home);
	}
	_exit(0);
}

/* ---------------------------------------------------------------- in the daemon */

static void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int relay_guard_start(struct relay_guard *g)
{
	int sv[2];

	g->fd = -1;
	g->peers = shared(ISM_MAX_RELAYS * sizeof(*g->peers));
	g->holds = shared(ISM_MAX_RELAYS * sizeof(*g->holds));
	if (!g->peers || !g->holds)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return -errno;
	g->pid = fork();
	if (g->pid < 0) {
		close(sv[0]);
		close(sv[1]);
		return -errno;
	}
	if (!g->pid) {
		close(sv[0]);
		prctl(PR_SET_NAME, "ismredir-guard");
		/* It ends with its daemon, not with what ends that. */
		signal(SIGTERM, SIG_IGN);
		signal(SIGINT, SIG_IGN);
		signal(SIGHUP, SIG_IGN);
		signal(SIGABRT, SIG_IGN); /* of a service manager's watchdog */
		close_others(sv[1]);
		guard_main(sv[1], g->peers, g->holds);
	}
	close(sv[1]);
	g->fd = sv[0];
	return 0;
}

static void say(struct relay_guard *g, __u32 op, const struct ism_conn *c)
{
	struct guard_msg msg = { .op = op };

	if (c)
		msg.conn = *c;
	if (g->fd >= 0 && send(g->fd, &msg, sizeof(msg), MSG_NOSIGNAL) < 0)
		log_line(LOG_ERR, "relay: its guard does not answer: %s", strerror(errno));
}

void relay_guard_stop(struct relay_guard *g, int stays)
{
	if (g->fd >= 0) {
		if (!stays)
			say(g, GUARD_BYE, NULL);
		close(g->fd);
		if (!stays)
			waitpid(g->pid, NULL, 0);
	}
	if (g->peers)
		munmap(g->peers, ISM_MAX_RELAYS * sizeof(*g->peers));
	if (g->holds)
		munmap(g->holds, ISM_MAX_RELAYS * sizeof(*g->holds));
	g->fd = -1;
	g->peers = NULL;
	g->holds = NULL;
}

void relay_guard_load(struct relay_guard *g)
{
	say(g, GUARD_LOAD, NULL);
}

void relay_guard_kick(struct relay_guard *g, const struct ism_conn *c)
{
	say(g, GUARD_KICK, c);
}

void relay_guard_reset(struct relay_guard *g, const struct ism_conn *c)
{
	say(g, GUARD_RESET, c);
}
