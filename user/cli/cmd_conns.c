// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ismredir conns: the connection table, and with -l the armed listeners. */
#define _GNU_SOURCE
#include "cli.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <ismredir/option.h>
#include "clock.h"
#include "inspect.h"
#include "policy.h"
#include "reasons.h"
#include "rings.h"

struct filter {
	int listeners;
	unsigned int port;
	const char *comm;
	int plane; /* -1: any */
	unsigned long long netns;
	const char *state;
};

struct listing {
	const struct filter *f;
	struct json_object *array; /* one of the two */
	struct libscols_table *table;
	struct rings rings; /* asked for when the first connection on rings is met */
	int asked;
};

/* One line: the record, and for the direct plane what the daemon knows of the two rings. */
struct shown {
	const struct ism_conn_view *v;
	unsigned int plane;
	const struct ism_msg_dmb *in; /* the ring that this end reads, or NULL */
	const struct ism_msg_dmb *out; /* the ring that it writes, with its counters, or NULL */
	char local[80];
	char peer[80];
};

/* include/net/tcp_states.h */
static const char *state_name(unsigned int state)
{
	static const char *const names[] = { "GONE",	    "ESTABLISHED", "SYN_SENT",	"SYN_RECV",
					     "FIN_WAIT1",   "FIN_WAIT2",   "TIME_WAIT", "CLOSE",
					     "CLOSE_WAIT",  "LAST_ACK",	   "LISTEN",	"CLOSING",
					     "NEW_SYN_RECV" };

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "UNKNOWN";
}

static unsigned int view_state(const struct ism_conn_view *v)
{
	return v->alive ? v->state : 0;
}

static void format_endpoint(const struct ism_conn *c, const __u8 *addr, unsigned int port,
			    char *buf, size_t len)
{
	char text[INET6_ADDRSTRLEN];

	if (!inet_ntop(c->family, addr, text, sizeof(text)))
		strcpy(text, "?");
	snprintf(buf, len, c->family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, port);
}

/* Another plane than TCP takes two: the partner's record has to agree. */
static unsigned int view_plane(const struct ism_conn_view *v)
{
	return v->mutual ? v->conn.plane : ISM_PLANE_TCP;
}

static int wanted(const struct filter *f, const struct ism_conn_view *v)
{
	const struct ism_conn *c = &v->conn;

	if (f->port && c->lport != f->port && c->rport != f->port)
		return 0;
	if (f->comm && strncmp(f->comm, c->comm, sizeof(c->comm)))
		return 0;
	if (f->plane >= 0 && view_plane(v) != (unsigned int)f->plane)
		return 0;
	if (f->netns && c->netns != f->netns)
		return 0;
	return !f->state || !strcasecmp(f->state, state_name(view_state(v)));
}

static unsigned long long age_ms(const struct ism_conn *c)
{
	__u64 now = ism_clock_ns();

	return now > c->born_ns ? (now - c->born_ns) / 1000000 : 0;
}

static void put_token(struct json_object *o, const char *key, unsigned long long token)
{
	char buf[20];

	snprintf(buf, sizeof(buf), "%016llx", token);
	put_str(o, key, buf);
}

static void put_comm(struct json_object *o, const char *comm)
{
	json_object_object_add(o, "comm", json_object_new_string_len(comm, strnlen(comm, 16)));
}

/* The kernel's view of switches and reason ends where the rings begin. */
static unsigned long long shown_switches(const struct shown *s)
{
	return s->v->conn.switches + (s->out ? s->out->stats.switches : 0);
}

static unsigned int shown_reason(const struct shown *s)
{
	return s->out ? s->out->stats.reason : s->v->conn.reason;
}

static unsigned long long shown_backlog(const struct shown *s)
{
	return s->in ? s->in->fill : s->v->backlog;
}

static void add_rings(struct json_object *o, const struct shown *s)
{
	const struct ism_dmb_stats *st;

	if (s->in) {
		put_u64(o, "ring_size", s->in->ring_size);
		put_u64(o, "ring_fill", s->in->fill);
	}
	if (!s->out)
		return;
	st = &s->out->stats;
	put_u64(o, "ring_bytes", st->tx_bytes);
	put_u64(o, "ring_msgs", st->tx_msgs);
	put_u64(o, "spins", st->spins);
	put_u64(o, "sleeps", st->sleeps);
	put_u64(o, "doorbells", st->doorbells);
	put_u64(o, "timeouts", st->timeouts);
}

static void add_json(struct json_object *array, const struct shown *s)
{
	const struct ism_conn_view *v = s->v;
	const struct ism_conn *c = &v->conn;
	struct json_object *o = json_object_new_object();

	put_token(o, "token", v->token);
	put_token(o, "peer_token", c->peer);
	put_str(o, "state", state_name(view_state(v)));
	put_str(o, "family", c->family == AF_INET6 ? "inet6" : "inet");
	put_str(o, "local", s->local);
	put_str(o, "peer", s->peer);
	put_str(o, "role", c->role == ISM_PASSIVE ? "passive" : "active");
	put_str(o, "plane", ism_plane_name(s->plane));
	put_str(o, "last", ism_plane_name(c->last));
	put_str(o, "reason", ism_reason_name(shown_reason(s)));
	put_bool(o, "direct", c->caps & ISM_CAP_DIRECT);
	put_bool(o, "peer_direct", c->peer_caps & ISM_CAP_DIRECT);
	put_bool(o, "remote", !!(c->flags & ISM_CONN_REMOTE));
	if (c->flags & ISM_CONN_REMOTE)
		put_tag(o, "fabric", c->fabric);
	put_u64(o, "redir_bytes", c->redir_bytes);
	put_u64(o, "redir_msgs", c->redir_msgs);
	put_u64(o, "tcp_bytes", c->tcp_bytes);
	put_u64(o, "switches", shown_switches(s));
	add_rings(o, s);
	put_u64(o, "backlog", shown_backlog(s));
	put_u64(o, "rx_queue", v->rx_queue);
	put_u64(o, "pid", c->pid);
	put_u64(o, "uid", c->uid);
	put_comm(o, c->comm);
	put_u64(o, "cookie", c->cookie);
	put_u64(o, "netns", c->netns);
	put_u64(o, "cgroup", c->cgroup);
	put_u64(o, "age_ms", age_ms(c));
	json_object_array_add(array, o);
}

static void add_row(struct libscols_table *t, const struct shown *s)
{
	const struct ism_conn *c = &s->v->conn;
	struct libscols_line *l = cli_row(t);
	char a[16], b[16], q[16];

	cli_cell(l, 0, "%s", state_name(view_state(s->v)));
	cli_cell(l, 1, "%s", s->local);
	cli_cell(l, 2, "%s", s->peer);
	cli_cell(l, 3, "%s", ism_plane_name(s->plane));
	cli_cell(l, 4, "%s",
		 cli_bytes(a, sizeof(a), s->out ? s->out->stats.tx_bytes : c->redir_bytes));
	cli_cell(l, 5, "%s", cli_bytes(b, sizeof(b), c->tcp_bytes));
	cli_cell(l, 6, "%s", cli_bytes(q, sizeof(q), shown_backlog(s)));
	cli_cell(l, 7, "%llu", shown_switches(s));
	cli_cell(l, 8, "%s", ism_reason_name(shown_reason(s)));
	cli_cell(l, 9, "%016llx", (unsigned long long)s->v->token);
	cli_cell(l, 10, "%u", c->pid);
	cli_cell(l, 11, "%.16s", c->comm);
}

static const char *const conn_columns[] = { "State",  "Local Address", "Peer Address", "Plane",
					    ">Redir", ">TCP",	       ">Backlog",     ">Switches",
					    "Reason", "Token",	       ">PID",	       "Command",
					    NULL };

static void find_rings(struct listing *l, struct shown *s)
{
	if (!l->asked)
		rings_load(&l->rings);
	l->asked = 1;
	s->in = rings_owned(&l->rings, s->v->token);
	s->out = rings_written(&l->rings, s->v->token);
}

static int one_conn(const struct ism_conn_view *v, void *arg)
{
	struct listing *l = arg;
	struct shown s = { .v = v, .plane = view_plane(v) };

	if (!wanted(l->f, v))
		return 0;
	if (s.plane == ISM_PLANE_DIRECT || s.plane == ISM_PLANE_RELAY)
		find_rings(l, &s);
	format_endpoint(&v->conn, v->conn.laddr, v->conn.lport, s.local, sizeof(s.local));
	format_endpoint(&v->conn, v->conn.raddr, v->conn.rport, s.peer, sizeof(s.peer));
	if (l->array)
		add_json(l->array, &s);
	else
		add_row(l->table, &s);
	return 0;
}

/* ---------------------------------------------------------------- listeners */

static const char *const listener_columns[] = { ">Port", "Netns", ">Sockets", ">Answers", "Reason",
						"Since", ">PID",  "Command",  NULL };

static int one_listener(const void *key, const void *value, void *arg)
{
	const struct ism_lkey *k = key;
	const struct ism_listener *v = value;
	struct listing *l = arg;
	int before = v->flags & ISM_LISTENER_EXISTING;
	struct libscols_line *row;
	struct json_object *o;

	if ((l->f->port && l->f->port != k->port) || (l->f->netns && l->f->netns != k->netns) ||
	    (l->f->comm && strncmp(l->f->comm, v->comm, sizeof(v->comm))))
		return 0;
	if (l->array) {
		o = json_object_new_object();
		put_u64(o, "port", k->port);
		put_u64(o, "netns", k->netns);
		put_u64(o, "sockets", v->refs);
		put_u64(o, "direct", v->direct);
		put_u64(o, "answers", v->answers);
		put_str(o, "reason", ism_reason_name(v->pin));
		put_bool(o, "before_load", before);
		put_u64(o, "pid", v->pid);
		put_comm(o, v->comm);
		put_u64(o, "cgroup", v->cgroup);
		json_object_array_add(l->array, o);
		return 0;
	}
	row = cli_row(l->table);
	cli_cell(row, 0, "%u", k->port);
	cli_cell(row, 1, "%llu", (unsigned long long)k->netns);
	cli_cell(row, 2, "%u", v->refs);
	cli_cell(row, 3, "%llu", (unsigned long long)v->answers);
	cli_cell(row, 4, "%s", ism_reason_name(v->pin));
	cli_cell(row, 5, "%s", before ? "before load" : "load");
	cli_cell(row, 6, "%u", v->pid);
	cli_cell(row, 7, "%.16s", v->comm);
	return 0;
}

/* ---------------------------------------------------------------- arguments */

static int set_filter(const struct cli *c, struct filter *f, const char *key, const char *value)
{
	__u16 lo, hi;
	char *end;

	if (!value)
		return cli_usage(c, "conns: \"%s\" needs a value", key);
	if (!strcmp(key, "port")) {
		if (ism_parse_ports(value, &lo, &hi) || lo != hi)
			return cli_usage(c, "conns: bad port \"%s\"", value);
		f->port = lo;
	} else if (!strcmp(key, "comm")) {
		f->comm = value;
	} else if (!strcmp(key, "state")) {
		f->state = value;
	} else if (!strcmp(key, "plane")) {
		f->plane = ism_plane_parse(value);
		if (f->plane < 0)
			return cli_usage(c, "conns: bad plane \"%s\"", value);
	} else if (!strcmp(key, "netns")) {
		f->netns = strtoull(value, &end, 0);
		if (end == value || *end)
			return cli_usage(c, "conns: bad netns cookie \"%s\"", value);
	} else {
		return cli_usage(c, "conns: unknown filter \"%s\"", key);
	}
	return CLI_OK;
}

int cmd_conns(struct cli *c, int argc, char **argv)
{
	struct filter f = { .plane = -1 };
	struct listing l = { .f = &f };
	struct json_object *o = NULL;
	struct ism_err err = {};
	int rc;

	for (int i = 0; i < argc; i++) {
		if (!strcmp(argv[i], "-l")) {
			f.listeners = 1;
			continue;
		}
		if (set_filter(c, &f, argv[i], i + 1 < argc ? argv[i + 1] : NULL))
			return CLI_USAGE;
		i++;
	}
	if (c->json)
		l.array = json_object_new_array();
	else
		l.table = cli_table(f.listeners ? listener_columns : conn_columns);
	if (f.listeners)
		rc = ism_inspect_map("listeners", sizeof(struct ism_lkey),
				     sizeof(struct ism_listener), one_listener, &l, &err);
	else
		rc = ism_inspect_conns(one_conn, &l, &err);
	rings_free(&l.rings);
	if (rc) {
		json_object_put(l.array);
		scols_unref_table(l.table);
		return cli_error(c, &err, rc);
	}
	if (c->json) {
		o = json_object_new_object();
		json_object_object_add(o, f.listeners ? "listeners" : "conns", l.array);
		cli_print_json(c, o);
	} else {
		cli_table_done(l.table, f.listeners ? "no armed listeners" : "no connections");
	}
	return CLI_OK;
}
