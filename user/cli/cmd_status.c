// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ismredir status, peers, policy and explain: what is in force and what was seen. */
#define _GNU_SOURCE
#include "cli.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "control_client.h"
#include "inspect.h"
#include "pins.h"
#include "policy.h"
#include "reasons.h"

/* ---------------------------------------------------------------- status */

struct status {
	struct ism_ctl ctl;
	struct ism_stats stats;
	__u64 reasons[ISM_REASON_SLOTS];
	unsigned long long now;
	unsigned long long skmsg;
	unsigned long long direct;
	unsigned long long backlog;
	unsigned long long redir_bytes, redir_msgs, tcp_bytes;
	unsigned int held;
	struct json_object *cgroups;
	int daemon; /* it answers: */
	struct ism_msg_status d;
};

static int count_conn(const struct ism_conn_view *v, void *arg)
{
	struct status *s = arg;

	if (!v->alive)
		return 0;
	s->now++;
	s->skmsg += v->mutual && v->conn.plane == ISM_PLANE_SKMSG;
	s->direct += v->mutual && v->conn.plane == ISM_PLANE_DIRECT;
	s->backlog += v->backlog;
	s->redir_bytes += v->conn.redir_bytes;
	s->redir_msgs += v->conn.redir_msgs;
	s->tcp_bytes += v->conn.tcp_bytes;
	return 0;
}

static int add_cgroup(__u64 id, const char *path, void *arg)
{
	struct json_object *list = arg;
	char gone[64];

	if (!path) {
		snprintf(gone, sizeof(gone), "(removed, id %llu)", (unsigned long long)id);
		path = gone;
	}
	json_object_array_add(list, json_object_new_string(path));
	return 0;
}

static void ask_daemon(struct status *s)
{
	int fd = ism_control_open(NULL);

	if (fd < 0)
		return;
	s->daemon = !ism_control_status(fd, &s->d, NULL);
	close(fd);
}

static int collect(struct status *s, struct ism_err *err)
{
	int rc = ism_inspect_ctl(&s->ctl, err);

	ask_daemon(s);
	s->cgroups = json_object_new_array();
	if (!rc)
		rc = ism_inspect_stats(&s->stats, err);
	if (!rc)
		rc = ism_inspect_reasons(s->reasons, err);
	if (!rc)
		rc = ism_inspect_conns(count_conn, s, err);
	if (!rc)
		rc = ism_inspect_held(&s->held, err);
	if (!rc)
		rc = ism_inspect_cgroups(add_cgroup, s->cgroups, err);
	s->redir_bytes += s->stats.redir_bytes;
	s->redir_msgs += s->stats.redir_msgs;
	s->tcp_bytes += s->stats.tcp_bytes;
	return rc;
}

static struct json_object *relay_json(const struct ism_msg_status *d)
{
	struct json_object *o = json_object_new_object();

	put_u64(o, "ends", d->relay_ends);
	put_u64(o, "waiting", d->relay_waiting);
	put_u64(o, "total", d->relay_total);
	put_u64(o, "refused", d->relay_refused);
	put_u64(o, "broken", d->relay_broken);
	put_u64(o, "drained", d->relay_drained);
	put_u64(o, "tx_bytes", d->relay_tx_bytes);
	put_u64(o, "rx_bytes", d->relay_rx_bytes);
	put_u64(o, "doorbells", d->relay_doorbells);
	return o;
}

static struct json_object *daemon_json(const struct status *s)
{
	const struct ism_msg_status *d = &s->d;
	struct json_object *o;

	if (!s->daemon)
		return NULL;
	o = json_object_new_object();
	put_u64(o, "pid", d->pid);
	put_str(o, "word", ism_word_name(d->word));
	put_u64(o, "uptime_ms", d->uptime_ms);
	put_u64(o, "clients", d->clients);
	put_u64(o, "pairs", d->pairs);
	put_u64(o, "attaches", d->attaches);
	put_u64(o, "detaches", d->detaches);
	put_u64(o, "resumes", d->resumes);
	put_u64(o, "refused", d->refused);
	put_u64(o, "malformed", d->malformed);
	put_u64(o, "ring_bytes", d->ring_bytes);
	put_u64(o, "ring_msgs", d->ring_msgs);
	put_u64(o, "tcp_bytes", d->tcp_bytes);
	put_u64(o, "doorbells", d->doorbells);
	put_u64(o, "spins", d->spins);
	put_u64(o, "sleeps", d->sleeps);
	put_u64(o, "timeouts", d->timeouts);
	put_u64(o, "mem_bytes", d->mem_bytes);
	put_u64(o, "mem_limit", d->mem_limit);
	json_object_object_add(o, "relay", relay_json(d));
	return o;
}

/* What the direct plane can do now: it takes the load and the daemon. */
static const char *direct_word(const struct status *s)
{
	if (!s->daemon)
		return "no_daemon";
	return ism_word_name(s->ctl.word == ISM_WORD_ON ? s->d.word : s->ctl.word);
}

/* What ismredird has told the load of fabrics that reach other kernels. */
static struct json_object *fabric_tags(const struct ism_ctl *ctl)
{
	struct json_object *a = json_object_new_array();
	char tag[8];

	for (int i = 0; i < ISM_MAX_FABRICS; i++) {
		if (!ctl->fabrics[i])
			continue;
		snprintf(tag, sizeof(tag), "%06x", ctl->fabrics[i] & 0xffffff);
		json_object_array_add(a, json_object_new_string(tag));
	}
	return a;
}

static void status_json(const struct cli *c, struct status *s)
{
	struct json_object *o = json_object_new_object(), *sub;
	const struct ism_reason_info *r;

	put_bool(o, "loaded", 1);
	put_str(o, "word", ism_word_name(s->ctl.word));
	put_bool(o, "complete", s->ctl.loaded_ns != 0);
	json_object_object_add(o, "cgroups", json_object_get(s->cgroups));
	sub = json_object_new_object();
	put_str(sub, "skmsg", ism_word_name(s->ctl.word));
	put_str(sub, "direct", direct_word(s));
	json_object_object_add(o, "planes", sub);
	json_object_object_add(o, "fabrics", fabric_tags(&s->ctl));
	sub = json_object_new_object();
	put_u64(sub, "now", s->now);
	put_u64(sub, "skmsg", s->skmsg);
	put_u64(sub, "direct", s->direct);
	put_u64(sub, "ever", s->stats.pairs + s->stats.direct);
	put_u64(sub, "held", s->held);
	json_object_object_add(o, "connections", sub);
	sub = json_object_new_object();
	put_u64(sub, "offers", s->stats.offers);
	put_u64(sub, "answers", s->stats.answers);
	put_u64(sub, "pairs", s->stats.pairs);
	put_u64(sub, "direct_pairs", s->stats.direct_pairs);
	put_u64(sub, "direct", s->stats.direct);
	put_u64(sub, "ended", s->stats.ended);
	put_u64(sub, "listeners", s->stats.listeners);
	put_u64(sub, "smc_seen", s->stats.smc_seen);
	put_u64(sub, "redir_bytes", s->redir_bytes);
	put_u64(sub, "redir_msgs", s->redir_msgs);
	put_u64(sub, "tcp_bytes", s->tcp_bytes);
	put_u64(sub, "backlog", s->backlog);
	json_object_object_add(o, "stats", sub);
	json_object_object_add(o, "daemon", daemon_json(s));
	sub = json_object_new_object();
	for (r = ism_reason_table(); r->name; r++)
		if (s->reasons[ISM_REASON_SLOT(r->code)])
			put_u64(sub, r->name, s->reasons[ISM_REASON_SLOT(r->code)]);
	json_object_object_add(o, "reasons", sub);
	cli_print_json(c, o);
}

static void direct_text(const struct status *s)
{
	const struct ism_msg_status *d = &s->d;
	unsigned int programs = d->clients ? d->clients - 1 : 0; /* without us */
	char a[16], b[16], m[16];

	if (!s->daemon) {
		printf("plane direct: ismredird is not running\n");
		return;
	}
	printf("plane direct: %s, ismredird is process %u, %u program%s, %u connection%s on rings\n",
	       direct_word(s), d->pid, programs, programs == 1 ? "" : "s", d->pairs,
	       d->pairs == 1 ? "" : "s");
	printf("  rings: %s in %llu messages, %s by TCP beside them, %llu doorbells, %s of memory\n",
	       cli_bytes(a, sizeof(a), d->ring_bytes), (unsigned long long)d->ring_msgs,
	       cli_bytes(b, sizeof(b), d->tcp_bytes), (unsigned long long)d->doorbells,
	       cli_bytes(m, sizeof(m), d->mem_bytes));
}

static void relay_text(const struct status *s)
{
	const struct ism_msg_status *d = &s->d;
	char a[16], b[16];

	if (!s->daemon || !d->relay_total)
		return;
	printf("plane relay: %u ends now, %u of them waiting; %llu ever, %llu refused, %llu drained, %llu reset\n",
	       d->relay_ends, d->relay_waiting, (unsigned long long)d->relay_total,
	       (unsigned long long)d->relay_refused, (unsigned long long)d->relay_drained,
	       (unsigned long long)d->relay_broken);
	printf("  rings: %s out, %s in, %llu doorbells\n",
	       cli_bytes(a, sizeof(a), d->relay_tx_bytes),
	       cli_bytes(b, sizeof(b), d->relay_rx_bytes), (unsigned long long)d->relay_doorbells);
}

static void held_text(const struct status *s)
{
	if (!s->held)
		return;
	printf("held back: the end of %u connection%s, until the other host has taken what is before it%s\n",
	       s->held, s->held == 1 ? "" : "s",
	       s->daemon ? "" : "; nobody may be there to see that: start ismredird");
}

static void status_text(struct status *s)
{
	char a[16], b[16], q[16];
	const struct ism_reason_info *r;
	int first = 1;

	printf("plane skmsg: %s%s, pinned at %s\n", ism_word_name(s->ctl.word),
	       s->ctl.loaded_ns ? "" : " (the load was interrupted: `ismredir load --replace`)",
	       ism_pin_dir());
	for (size_t i = 0; i < json_object_array_length(s->cgroups); i++)
		printf("  cgroup %s\n",
		       json_object_get_string(json_object_array_get_idx(s->cgroups, i)));
	direct_text(s);
	relay_text(s);
	held_text(s);
	printf("connections: %llu ends now, %llu accelerated; %llu accelerated ever\n", s->now,
	       s->skmsg + s->direct, (unsigned long long)(s->stats.pairs + s->stats.direct));
	if (s->stats.direct_pairs)
		printf("  between programs that can use rings: %llu ever, %llu of them did\n",
		       (unsigned long long)s->stats.direct_pairs,
		       (unsigned long long)s->stats.direct);
	printf("bytes: %s redirected in %llu messages, %s by TCP, %s unread\n",
	       cli_bytes(a, sizeof(a), s->redir_bytes), s->redir_msgs,
	       cli_bytes(b, sizeof(b), s->tcp_bytes), cli_bytes(q, sizeof(q), s->backlog));
	printf("handshake: %llu offers, %llu answers, %llu listeners armed, %llu SMC options seen\n",
	       (unsigned long long)s->stats.offers, (unsigned long long)s->stats.answers,
	       (unsigned long long)s->stats.listeners, (unsigned long long)s->stats.smc_seen);
	for (r = ism_reason_table(); r->name; r++) {
		__u64 n = s->reasons[ISM_REASON_SLOT(r->code)];

		if (!n)
			continue;
		printf("%s  %-16s %10llu  %s\n", first ? "TCP by reason:\n" : "", r->name,
		       (unsigned long long)n, r->text);
		first = 0;
	}
}

int cmd_status(struct cli *c, int argc, char **argv)
{
	struct status *s;
	struct ism_err err = {};
	struct json_object *o;
	int rc;

	if (cli_no_args(c, argc, argv))
		return CLI_USAGE;
	s = calloc(1, sizeof(*s));
	if (!s)
		return cli_error(c, &err, -ENOMEM);
	rc = collect(s, &err);
	if (rc == -ENOENT) {
		/* Not loaded is a state, not an error. */
		o = json_object_new_object();
		put_bool(o, "loaded", 0);
		if (c->json) {
			cli_print_json(c, o);
		} else {
			json_object_put(o);
			printf("not loaded\n");
		}
		rc = 0;
	} else if (!rc && c->json) {
		status_json(c, s);
	} else if (!rc) {
		status_text(s);
	}
	json_object_put(s->cgroups);
	free(s);
	return rc ? cli_error(c, &err, rc) : CLI_OK;
}

/* ---------------------------------------------------------------- peers */

struct sink {
	struct json_object *array;
	struct libscols_table *table;
	unsigned int limit;
	unsigned int n;
};

static void peer_caps(__u32 flags, char *buf, size_t len)
{
	snprintf(buf, len, "%s%s%s", flags & ISM_PEER_ISMREDIR ? "ismredir" : "",
		 flags == (ISM_PEER_ISMREDIR | ISM_PEER_SMC) ? "," : "",
		 flags & ISM_PEER_SMC ? "smc" : "");
}

static int one_peer(const void *key, const void *value, void *arg)
{
	const struct ism_peer_key *k = key;
	const struct ism_peer *p = value;
	struct sink *s = arg;
	char addr[INET6_ADDRSTRLEN], caps[32];
	struct libscols_line *row;
	struct json_object *o;
	struct timespec ts;
	double ago;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ago = ts.tv_sec + ts.tv_nsec / 1e9 - p->last_ns / 1e9;
	ism_format_addr(k->addr, addr, sizeof(addr));
	peer_caps(p->flags, caps, sizeof(caps));
	if (s->array) {
		o = json_object_new_object();
		put_str(o, "address", addr);
		put_u64(o, "netns", k->netns);
		put_bool(o, "ismredir", p->flags & ISM_PEER_ISMREDIR);
		put_bool(o, "smc", p->flags & ISM_PEER_SMC);
		put_u64(o, "seen", p->count);
		json_object_object_add(o, "last_seen_s", json_object_new_double(ago));
		json_object_array_add(s->array, o);
		return 0;
	}
	row = cli_row(s->table);
	cli_cell(row, 0, "%s", addr);
	cli_cell(row, 1, "%llu", (unsigned long long)k->netns);
	cli_cell(row, 2, "%s", caps);
	cli_cell(row, 3, "%llu", (unsigned long long)p->count);
	cli_cell(row, 4, "%.0fs", ago);
	return 0;
}

static int finish(const struct cli *c, struct sink *s, const char *name, const char *empty, int rc,
		  const struct ism_err *err)
{
	struct json_object *o;

	if (rc) {
		json_object_put(s->array);
		scols_unref_table(s->table);
		return cli_error(c, err, rc);
	}
	if (!c->json) {
		cli_table_done(s->table, empty);
		return CLI_OK;
	}
	o = json_object_new_object();
	json_object_object_add(o, name, s->array);
	cli_print_json(c, o);
	return CLI_OK;
}

int cmd_peers(struct cli *c, int argc, char **argv)
{
	static const char *const columns[] = { "Address", "Netns", "Capable of",
					       ">Seen",	  ">Last", NULL };
	struct sink s = {};
	struct ism_err err = {};
	int rc;

	if (cli_no_args(c, argc, argv))
		return CLI_USAGE;
	if (c->json)
		s.array = json_object_new_array();
	else
		s.table = cli_table(columns);
	rc = ism_inspect_map("peers", sizeof(struct ism_peer_key), sizeof(struct ism_peer),
			     one_peer, &s, &err);
	return finish(c, &s, "peers", "no capable peers seen", rc, &err);
}

/* ---------------------------------------------------------------- policy */

static int one_rule(const void *key, const void *value, void *arg)
{
	const struct ism_rule *r = value;
	const __u32 *i = key;
	struct sink *s = arg;
	struct libscols_line *row;
	struct json_object *o;
	char text[768];

	if (*i >= s->limit)
		return 0;
	ism_rule_format(r, text, sizeof(text));
	if (s->array) {
		o = json_object_new_object();
		put_u64(o, "index", *i);
		put_str(o, "plane", ism_plane_name(r->plane));
		put_str(o, "rule", text);
		json_object_array_add(s->array, o);
		return 0;
	}
	row = cli_row(s->table);
	cli_cell(row, 0, "%u", *i);
	cli_cell(row, 1, "%s", text);
	return 0;
}

int cmd_policy(struct cli *c, int argc, char **argv)
{
	static const char *const columns[] = { ">#", "Rule (first match wins)", NULL };
	struct ism_err err = {};
	struct sink s = {};
	struct ism_ctl ctl;
	struct json_object *o;
	int rc;

	if (cli_no_args(c, argc, argv))
		return CLI_USAGE;
	rc = ism_inspect_ctl(&ctl, &err);
	if (rc)
		return cli_error(c, &err, rc);
	s.limit = ctl.n_rules;
	if (c->json)
		s.array = json_object_new_array();
	else
		s.table = cli_table(columns);
	rc = ism_inspect_map("rules", sizeof(__u32), sizeof(struct ism_rule), one_rule, &s, &err);
	if (rc || !c->json) {
		rc = finish(c, &s, "rules", "no rules", rc, &err);
		if (!rc)
			printf("default: %s%s\n", ism_plane_name(ctl.default_plane),
			       ctl.default_plane == ISM_PLANE_TCP ? ""
								  : " for local peers, else tcp");
		return rc;
	}
	o = json_object_new_object();
	json_object_object_add(o, "rules", s.array);
	put_str(o, "default", ism_plane_name(ctl.default_plane));
	put_u64(o, "budget_bytes", ctl.budget_bytes);
	put_u64(o, "budget_msgs", ctl.budget_msgs);
	put_u64(o, "stream_run", ctl.stream_run);
	put_u64(o, "stream_size", ctl.stream_size);
	put_u64(o, "leave_run", ctl.leave_run);
	put_u64(o, "mix_bytes", ctl.mix_bytes);
	put_str(o, "readers", ism_readers_name(ctl.readers));
	put_u64(o, "spin", ctl.spin);
	put_u64(o, "negative_ttl_s", ctl.neg_ttl_ns / 1000000000ULL);
	cli_print_json(c, o);
	return CLI_OK;
}

/* ---------------------------------------------------------------- explain */

static void explain_one(const struct cli *c, const struct ism_reason_info *r,
			struct json_object *array)
{
	struct json_object *o;

	if (!c->json) {
		printf("0x%04x %s\n  meaning: %s\n  remedy:  %s\n", r->code, r->name, r->text,
		       r->todo);
		return;
	}
	o = json_object_new_object();
	put_u64(o, "code", r->code);
	put_str(o, "name", r->name);
	put_str(o, "meaning", r->text);
	put_str(o, "remedy", r->todo);
	json_object_array_add(array, o);
}

int cmd_explain(struct cli *c, int argc, char **argv)
{
	const struct ism_reason_info *r;
	struct json_object *o, *array;

	if (argc != 1)
		return cli_usage(c, "explain: expected one reason, by name or code, or \"all\"");
	r = ism_reason_parse(argv[0]);
	if (!r && strcmp(argv[0], "all"))
		return cli_usage(
			c, "explain: unknown reason \"%s\"; `ismredir explain all` lists them",
			argv[0]);
	array = json_object_new_array();
	if (r)
		explain_one(c, r, array);
	else
		for (r = ism_reason_table(); r->name; r++)
			explain_one(c, r, array);
	if (c->json) {
		o = json_object_new_object();
		json_object_object_add(o, "reasons", array);
		cli_print_json(c, o);
	} else {
		json_object_put(array);
	}
	return CLI_OK;
}
