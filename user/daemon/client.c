// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * One client of the control socket; see client.h.
 *
 * Nothing is queued for a client but by the kernel: a request is only read while there is room for its
 * answer (unix_writable(): three quarters of the send buffer are free), a listing goes on when there is
 * room again, and who reads nothing for long is disconnected. Its descriptors are closed by the closer.
 */
#define _GNU_SOURCE
#include "client.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <ismredir/reasons.h>
#include "far.h"
#include "log.h"
#include "proto.h"

#define MAX_SCM_FDS 253 /* SCM_MAX_FD: so many can come, and all must be seen to be closed */

/*
 * @listing: ISM_MSG_LIST while a listing goes on, that got to pair @shown, and then to @relay_shown of the
 *           relay; @listing_seq is its request's
 * @waits_since_us: since when it lets us wait, 0 when it does not
 */
struct client {
	struct daemon *d;
	struct client *prev, *next;
	struct holder holder;
	sd_event_source *io;
	int fd;
	int is_welcome;
	int listing;
	__u32 listing_seq;
	__u64 shown;
	unsigned int relay_shown;
	__u64 waits_since_us;
};

static __u64 now_us(struct client *c)
{
	uint64_t now = 0;

	sd_event_now(c->d->event, CLOCK_MONOTONIC, &now);
	return now;
}

/* ---------------------------------------------------------------- answers */

static int can_send(const struct client *c)
{
	struct pollfd p = { .fd = c->fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

static int send_fds(struct client *c, unsigned int type, __u32 seq, const void *body, size_t len,
		    const int *fds, size_t n_fds)
{
	struct ism_msg head = { ISM_CONTROL_MAGIC, ISM_CONTROL_VERSION, type, len, seq };
	char control[CMSG_SPACE(ISM_MSG_FDS * sizeof(int))] __attribute__((aligned(8))) = {};
	struct iovec iov[] = { { &head, sizeof(head) }, { (void *)body, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };
	struct cmsghdr *cmsg;
	ssize_t n;

	if (n_fds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int answer(struct client *c, const struct request *r, unsigned int type, const void *body,
		  size_t len)
{
	return send_fds(c, type, r->seq, body, len, NULL, 0);
}

static int refuse(struct client *c, const struct request *r, __u64 token, int error, __u32 reason)
{
	struct ism_msg_error e = { token, error, reason };

	c->d->refused++;
	return answer(c, r, ISM_MSG_ERROR, &e, sizeof(e));
}

/* ---------------------------------------------------------------- requests */

static int on_hello(struct client *c, const struct request *r)
{
	struct ism_msg_hello_ok ok = { .instance = c->d->instance };

	c->is_welcome = 1;
	c->waits_since_us = 0;
	memcpy(ok.gid, &c->d->fabric->info.gid, sizeof(ok.gid));
	return send_fds(c, ISM_MSG_HELLO_OK, r->seq, &ok, sizeof(ok), &c->d->host.fd, 1);
}

/* What went wrong inside is no business of the client. */
static int public_error(int rc)
{
	switch (rc) {
	case -EMFILE:
	case -ENFILE:
	case -EIO:
	case -ETOOMANYREFS:
		return -ENOMEM;
	case -EEXIST:
		return -EBUSY;
	}
	return rc;
}

static int refuse_rings(struct client *c, const struct request *r, const char *what, __u64 token,
			int rc, __u32 reason)
{
	int shown = public_error(rc);

	log_client(shown == -EPERM || shown != rc ? LOG_WARNING : LOG_INFO,
		   "%s of token %016llx by pid %d uid %u refused: %s", what,
		   (unsigned long long)token, c->holder.pid, c->holder.uid, strerror(-rc));
	return refuse(c, r, token, shown, reason ? reason : ISM_R_DAEMON_REFUSED);
}

/* The fabric of a partner in another kernel; 0, or why its rings are not for this client. */
static int find_remote(struct client *c, struct verdict *v, struct remote **ret)
{
	*ret = remote_by_tag(c->d, v->fabric);
	v->reason = ISM_R_OTHER_FABRIC;
	if (!*ret)
		return -EOPNOTSUPP;
	v->reason = ISM_R_NOT_ALLOWED;
	if (!remote_allows(*ret, c->holder.uid))
		return -EPERM;
	v->reason = ISM_R_NONE;
	return 0;
}

static int attach(struct client *c, const struct ism_msg_attach *m, int sock, struct verdict *v,
		  struct pair_end **ret)
{
	struct remote *r;
	int rc;

	if (!v->fabric)
		return pairs_attach(&c->d->pairs, &c->holder, m->token, v->peer, m->share, ret);
	rc = find_remote(c, v, &r);
	if (!rc)
		rc = far_attach(&c->d->pairs, r, &c->holder, m->token, v->peer, m->share,
				v->at_relay ? sock : -1, ret);
	return rc;
}

static int on_attach(struct client *c, const struct request *r, int *fds)
{
	const struct ism_msg_attach *m = &r->attach;
	struct ism_msg_attach_ok ok = { .token = m->token };
	struct ism_msg_error wait = { m->token, -EAGAIN, ISM_R_DIRECT_WAIT };
	struct verdict v = {};
	struct pair_end *e;
	__u64 off[2];
	int out[ISM_FD_COUNT], rc = c->d->verify(fds[0], m->token, 1, &v);

	if (!rc) {
		rc = attach(c, m, fds[0], &v, &e);
		if (rc == -EAGAIN) /* the partner will come: nothing to complain of */
			return answer(c, r, ISM_MSG_ERROR, &wait, sizeof(wait));
	}
	if (rc)
		return refuse_rings(c, r, "attach", m->token, rc, v.reason);
	ok.peer = v.peer;
	ok.own_ring = e->dmb->len - ISM_DMB_RING_OFF;
	ok.peer_ring = pair_partner(e)->dmb->len - ISM_DMB_RING_OFF;
	rc = pair_end_fds(&c->d->pairs, e, out, off);
	ok.own_off = off[0];
	ok.peer_off = off[1];
	if (!rc)
		rc = send_fds(c, ISM_MSG_ATTACH_OK, r->seq, &ok, sizeof(ok), out, ISM_FD_COUNT);
	daemon_refill(c->d);
	if (rc == -ETOOMANYREFS) { /* too many descriptors are on their way to clients */
		pairs_detach(&c->d->pairs, &c->holder, m->token, 1);
		return refuse_rings(c, r, "attach", m->token, rc, ISM_R_DAEMON_REFUSED);
	}
	c->d->attaches++;
	return rc;
}

static int on_detach(struct client *c, const struct request *r, int leaves)
{
	if (pairs_detach(&c->d->pairs, &c->holder, r->token.token, leaves))
		return refuse(c, r, r->token.token, -ENOENT, ISM_R_DAEMON_REFUSED);
	c->d->detaches++;
	return 0;
}

static int on_resume(struct client *c, const struct request *r, int *fds)
{
	const struct ism_msg_resume *m = &r->resume;
	struct ism_msg_token ok = { m->token };
	struct verdict v = {};
	struct remote *far = NULL;
	int rc = c->d->verify(fds[0], m->token, 0, &v);

	if (!rc && v.peer != m->peer)
		rc = -EPERM;
	if (!rc && v.fabric)
		rc = find_remote(c, &v, &far);
	if (!rc)
		rc = far ? far_resume(&c->d->pairs, far, &c->holder, m, fds + 1,
				      v.at_relay ? fds[0] : -1)
			 : pairs_resume(&c->d->pairs, &c->holder, m, fds + 1);
	if (rc)
		return refuse_rings(c, r, "resume", m->token, rc, v.reason);
	c->d->resumes++;
	return answer(c, r, ISM_MSG_RESUME_OK, &ok, sizeof(ok));
}

static int list_peers(struct ism_fabric *f, struct ism_msg_peer *ret)
{
	struct ism_peer_info peers[ISM_FABRIC_MAX_PEERS];
	int n = ism_fabric_peers(f, peers, ISM_FABRIC_MAX_PEERS);

	for (int i = 0; i < n; i++) {
		memcpy(ret[i].gid, &peers[i].gid, sizeof(ret[i].gid));
		memcpy(ret[i].network, peers[i].pnetid, sizeof(ret[i].network));
		ret[i].number = peers[i].number;
		ret[i].life = peers[i].life;
		ret[i].lease_ms = peers[i].lease_ms;
		ret[i].age_ms = peers[i].age_ms;
	}
	return n < 0 ? 0 : n;
}

static int show_fabric(struct client *c, const struct request *r, struct ism_fabric *f, __u32 index,
		       __u32 tag)
{
	struct {
		struct ism_msg_fabric m;
		struct ism_msg_peer peers[ISM_FABRIC_MAX_PEERS];
	} body = { .m = { .caps = f->info.caps,
			  .dmbs = f->counters.dmbs,
			  .dmb_bytes = f->counters.dmb_bytes,
			  .pooled = f->counters.pooled,
			  .index = index,
			  .tag = tag } };

	_Static_assert(sizeof(body) <= ISM_MSG_MAX - sizeof(struct ism_msg), "fits a packet");
	memcpy(body.m.name, f->info.spec, sizeof(body.m.name));
	memcpy(body.m.gid, &f->info.gid, sizeof(body.m.gid));
	memcpy(body.m.uuid, &f->info.uuid, sizeof(body.m.uuid));
	body.m.n_peers = list_peers(f, body.peers);
	return answer(c, r, ISM_MSG_FABRIC, &body,
		      sizeof(body.m) + body.m.n_peers * sizeof(body.peers[0]));
}

static int on_fabrics(struct client *c, const struct request *r)
{
	int rc = show_fabric(c, r, c->d->fabric, 0, 0);

	for (unsigned int i = 0; !rc && i < c->d->n_remotes; i++)
		rc = show_fabric(c, r, c->d->remotes[i]->fabric, c->d->remotes[i]->index,
				 c->d->remotes[i]->tag);
	return rc ? rc : answer(c, r, ISM_MSG_LIST_END, NULL, 0);
}

static void add_relay(struct relay *r, struct ism_msg_status *m)
{
	struct relay_stats st;

	relay_stats(r, &st);
	m->relay_ends = st.ends;
	m->relay_waiting = st.waiting;
	m->relay_total = st.total;
	m->relay_refused = st.refused;
	m->relay_broken = st.broken;
	m->relay_drained = st.drained;
	m->relay_tx_bytes = st.tx_bytes;
	m->relay_rx_bytes = st.rx_bytes;
	m->relay_doorbells = st.doorbells;
}

static int on_status(struct client *c, const struct request *r)
{
	const struct daemon *d = c->d;
	struct ism_msg_status m = {
		.uptime_ms = (now_us(c) - d->started_us) / 1000,
		.clients = d->n_clients,
		.pairs = d->pairs.n,
		.attaches = d->attaches,
		.detaches = d->detaches,
		.resumes = d->resumes,
		.refused = d->refused,
		.malformed = d->malformed,
		.mem_bytes = d->pairs.bytes,
		.mem_limit = d->pairs.limit_total,
		.pid = getpid(),
		.word = d->host.page->word,
	};

	pairs_totals(&d->pairs, &m);
	add_relay(d->relay, &m);
	return answer(c, r, ISM_MSG_STATUS_OK, &m, sizeof(m));
}

/* The relay's ends come after all pairs. */
static int list_relay(struct client *c, const struct request *r)
{
	const uid_t uid = c->holder.uid;
	struct ism_msg_dmb m[2];
	int rc = 0;

	while (!rc && can_send(c)) {
		if (!relay_list(c->d->relay, &c->relay_shown, m)) {
			c->listing = 0;
			return answer(c, r, ISM_MSG_LIST_END, NULL, 0);
		}
		if (uid && m->uid != uid)
			continue;
		rc = answer(c, r, ISM_MSG_DMB, &m[0], sizeof(m[0]));
		if (!rc)
			rc = answer(c, r, ISM_MSG_DMB, &m[1], sizeof(m[1]));
	}
	return rc;
}

/* As much as there is room for. What was made before a pause stays shown, whatever ended meanwhile. */
static int go_on_listing(struct client *c)
{
	struct request r = { .seq = c->listing_seq };
	const struct pair *p;
	struct ism_msg_dmb m;
	int rc = 0;

	while (!rc && can_send(c)) {
		p = pairs_after(&c->d->pairs, c->shown);
		if (!p)
			return list_relay(c, &r);
		c->shown = p->serial;
		for (int i = 0; !rc && i < 2; i++) {
			if (!p->end[i].dmb || !pair_end_visible(&p->end[i], c->holder.uid))
				continue;
			pair_end_show(&p->end[i], &m);
			rc = answer(c, &r, ISM_MSG_DMB, &m, sizeof(m));
		}
	}
	return rc;
}

static int on_list(struct client *c, const struct request *r)
{
	c->listing = 1;
	c->listing_seq = r->seq;
	c->shown = 0;
	c->relay_shown = 0;
	return go_on_listing(c);
}

/* Descriptors that are taken are set to -1 in @fds. */
static int serve(struct client *c, const struct request *r, int *fds)
{
	if (!c->is_welcome && r->type != ISM_MSG_HELLO)
		return -EPROTO;
	switch (r->type) {
	case ISM_MSG_HELLO:
		return c->is_welcome ? -EPROTO : on_hello(c, r);
	case ISM_MSG_ATTACH:
		return on_attach(c, r, fds);
	case ISM_MSG_DETACH:
		return on_detach(c, r, 0);
	case ISM_MSG_LEAVE:
		return on_detach(c, r, 1);
	case ISM_MSG_RESUME:
		return on_resume(c, r, fds);
	case ISM_MSG_LIST:
		return on_list(c, r);
	case ISM_MSG_FABRICS:
		return on_fabrics(c, r);
	case ISM_MSG_STATUS:
		return on_status(c, r);
	}
	return -EPROTO;
}

/* ---------------------------------------------------------------- packets */

static size_t take_fds(struct msghdr *msg, int *fds)
{
	size_t n = 0;

	for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m; m = CMSG_NXTHDR(msg, m)) {
		size_t here = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds + n, CMSG_DATA(m), here * sizeof(int));
		n += here;
	}
	return n;
}

/* A packet that is no message: say so, and end the connection. */
static int malformed(struct client *c, const struct request *r)
{
	struct ism_msg_error e = { .error = -EPROTO };

	c->d->malformed++;
	log_client(LOG_WARNING, "malformed packet from pid %d uid %u", c->holder.pid,
		   c->holder.uid);
	answer(c, r, ISM_MSG_ERROR, &e, sizeof(e));
	return -EPROTO;
}

/*
 * Descriptors were dropped, for want of room in our table: all that can come fit into the buffer. Those
 * requests that have any begin with a token.
 */
static int out_of_fds(struct client *c, const struct request *r, const char *buf, size_t len)
{
	__u64 token = 0;

	if (!c->is_welcome)
		return -EPROTO;
	if (len >= sizeof(struct ism_msg) + sizeof(token))
		memcpy(&token, buf + sizeof(struct ism_msg), sizeof(token));
	return refuse_rings(c, r, "request", token, -EMFILE, ISM_R_DAEMON_REFUSED);
}

/* One packet. An error ends the client. */
static int read_packet(struct client *c)
{
	char control[CMSG_SPACE(MAX_SCM_FDS * sizeof(int))] __attribute__((aligned(8)));
	static char buf[ISM_MSG_MAX];
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fds[MAX_SCM_FDS], rc;
	struct request r;
	size_t n_fds;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	n_fds = take_fds(&msg, fds);
	if (!n && !n_fds)
		return -ECONNRESET; /* the end, or a packet of no bytes, which looks the same */
	rc = proto_parse(buf, n, n_fds, &r);
	if (msg.msg_flags & MSG_CTRUNC)
		rc = out_of_fds(c, &r, buf, n);
	else if ((msg.msg_flags & MSG_TRUNC) || rc)
		rc = -EPROTO;
	else
		rc = serve(c, &r, fds);
	if (rc == -EPROTO)
		malformed(c, &r);
	for (size_t i = 0; i < n_fds; i++)
		if (fds[i] >= 0)
			closer_close(c->d->closer, fds[i], c->holder.account);
	return rc;
}

/* A user whose descriptors do not close is not served until they do: clients_tick(). */
static int is_paused(const struct client *c)
{
	return atomic_load(&c->holder.account->closing) >= CLOSER_PER_USER;
}

/* What to wait for next; reading only while there is room for an answer. */
static void update(struct client *c)
{
	__u32 events = EPOLLIN;

	if (c->listing || !can_send(c))
		events = EPOLLOUT;
	else if (is_paused(c))
		events = 0;
	if (events != EPOLLIN && !c->waits_since_us)
		c->waits_since_us = now_us(c);
	if (events == EPOLLIN && c->is_welcome)
		c->waits_since_us = 0;
	sd_event_source_set_io_events(c->io, events);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct client *c = arg;
	int rc = 0;

	(void)s;
	(void)fd;
	if (c->listing) {
		__u64 before = c->shown + c->relay_shown;

		rc = go_on_listing(c);
		if (c->shown + c->relay_shown != before)
			c->waits_since_us = 0;
	} else if (revents & EPOLLIN) {
		rc = read_packet(c);
	}
	/* With input left, the end is read after it. */
	if (!rc && (revents & (EPOLLHUP | EPOLLERR)) && !(revents & EPOLLIN))
		rc = -ECONNRESET;
	if (rc)
		client_free(c);
	else
		update(c);
	return 0;
}

/* ---------------------------------------------------------------- clients */

static int identify(struct client *c)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return -errno;
	c->holder.pid = cred.pid;
	c->holder.uid = cred.uid;
	c->holder.account = account_get(&c->d->accounts, cred.uid);
	return c->holder.account ? 0 : -ENOMEM;
}

/* One user must not take all places; the superuser may. */
static int has_place(const struct client *c)
{
	const struct options *o = &c->d->opt;

	if (c->d->n_clients >= o->max_clients)
		return 0;
	return !c->holder.uid || c->holder.account->clients < (o->max_clients + 3) / 4;
}

int client_new(struct daemon *d, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	struct request nothing = {};
	int rc;

	if (!c) {
		closer_close(d->closer, fd, NULL);
		return -ENOMEM;
	}
	c->d = d;
	c->fd = fd;
	rc = identify(c);
	if (!rc && !has_place(c)) {
		log_client(LOG_WARNING, "too many clients: pid %d uid %u refused", c->holder.pid,
			   c->holder.uid);
		refuse(c, &nothing, 0, -EUSERS, ISM_R_DAEMON_REFUSED);
		rc = -EUSERS;
	}
	if (!rc)
		rc = sd_event_add_io(d->event, &c->io, fd, EPOLLIN, on_io, c);
	if (rc < 0) {
		closer_close(d->closer, fd, c->holder.account);
		if (c->holder.account)
			account_put(c->holder.account);
		free(c);
		return rc;
	}
	c->waits_since_us = now_us(c);
	c->next = d->clients;
	if (c->next)
		c->next->prev = c;
	d->clients = c;
	d->n_clients++;
	c->holder.account->clients++;
	return 0;
}

void client_free(struct client *c)
{
	struct daemon *d = c->d;

	sd_event_source_disable_unref(c->io);
	d->detaches += pairs_drop_holder(&d->pairs, &c->holder);
	if (c->prev)
		c->prev->next = c->next;
	else
		d->clients = c->next;
	if (c->next)
		c->next->prev = c->prev;
	d->n_clients--;
	c->holder.account->clients--;
	/* What it sent and nobody read goes with the socket, so that close() may last too. */
	closer_close(d->closer, c->fd, c->holder.account);
	account_put(c->holder.account);
	free(c);
}

void clients_tick(struct daemon *d)
{
	struct client *c = d->clients, *next;

	for (; c; c = next) {
		next = c->next;
		if (!c->waits_since_us)
			continue;
		if (now_us(c) - c->waits_since_us > CLIENT_PATIENCE_US) {
			log_client(LOG_WARNING, "pid %d uid %u is too slow: disconnected",
				   c->holder.pid, c->holder.uid);
			client_free(c);
		} else if (c->is_welcome && !is_paused(c)) {
			/* EPOLLOUT may stand already; what a pause held back is read now */
			sd_event_source_set_io_events(c->io, c->listing || !can_send(c) ? EPOLLOUT
											: EPOLLIN);
		}
	}
	accounts_sweep(&d->accounts);
}

void clients_free(struct daemon *d)
{
	while (d->clients)
		client_free(d->clients);
}
