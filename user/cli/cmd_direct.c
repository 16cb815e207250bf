// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ismredir dmbs and fabrics: what ismredird has open. */
#define _GNU_SOURCE
#include "cli.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <ismredir/fabric.h>
#include "control_client.h"
#include "reasons.h"

/* @array, or @table and what else is shown, @peers */
struct sink {
	struct json_object *array;
	struct libscols_table *table;
	struct libscols_table *peers;
};

/* Names of the bits that are set, separated by commas. */
static const char *flag_names(__u32 flags, const char *const *names, size_t n_names, char *buf,
			      size_t len)
{
	size_t n = 0;

	buf[0] = 0;
	for (size_t i = 0; i < n_names && n < len; i++)
		if (flags & 1u << i)
			n += snprintf(buf + n, len - n, "%s%s", n ? "," : "", names[i]);
	return buf;
}

/* ---------------------------------------------------------------- dmbs */

static const char *const dmb_flags[] = { "owner", "partner", "resumed", "relay" };
static const char *const prod_flags[] = { "fin", "abort", "tcp", "rewind" };

#define N(a) (sizeof(a) / sizeof((a)[0]))

static void dmb_json(struct json_object *array, const struct ism_msg_dmb *m)
{
	const struct ism_dmb_stats *s = &m->stats;
	struct json_object *o = json_object_new_object(), *st = json_object_new_object();
	char buf[64];

	put_hex(o, "token", m->token);
	put_hex(o, "peer_token", m->peer);
	put_u64(o, "fabric", m->fabric);
	put_u64(o, "ring_size", m->ring_size);
	put_u64(o, "fill", m->fill);
	put_u64(o, "owner_pid", m->owner_pid);
	put_u64(o, "partner_pid", m->partner_pid);
	put_u64(o, "uid", m->uid);
	put_str(o, "attached", flag_names(m->flags, dmb_flags, N(dmb_flags), buf, sizeof(buf)));
	put_str(o, "flags", flag_names(m->prod_flags, prod_flags, N(prod_flags), buf, sizeof(buf)));
	put_u64(st, "bytes", s->tx_bytes);
	put_u64(st, "msgs", s->tx_msgs);
	put_u64(st, "tcp_bytes", s->tcp_tx_bytes);
	put_u64(st, "switches", s->switches);
	put_u64(st, "spins", s->spins);
	put_u64(st, "sleeps", s->sleeps);
	put_u64(st, "doorbells", s->doorbells);
	put_u64(st, "timeouts", s->timeouts);
	put_str(st, "reason", ism_reason_name(s->reason));
	put_u64(st, "pid", s->pid);
	json_object_object_add(o, "writer", st);
	json_object_array_add(array, o);
}

static int one_dmb(const struct ism_msg_dmb *m, void *arg)
{
	struct sink *k = arg;
	struct libscols_line *l;
	char a[16], b[16], c[16], f[64];

	if (k->array) {
		dmb_json(k->array, m);
		return 0;
	}
	l = cli_row(k->table);
	cli_cell(l, 0, "%016llx", (unsigned long long)m->token);
	cli_cell(l, 1, "%016llx", (unsigned long long)m->peer);
	cli_cell(l, 2, "%u", m->fabric);
	cli_cell(l, 3, "%s", cli_bytes(a, sizeof(a), m->ring_size));
	cli_cell(l, 4, "%s", cli_bytes(b, sizeof(b), m->fill));
	cli_cell(l, 5, "%s", cli_bytes(c, sizeof(c), m->stats.tx_bytes));
	cli_cell(l, 6, "%llu", (unsigned long long)m->stats.tx_msgs);
	cli_cell(l, 7, "%u", m->owner_pid);
	cli_cell(l, 8, "%u", m->partner_pid);
	cli_cell(l, 9, "%u", m->uid);
	cli_cell(l, 10, "%s", flag_names(m->flags, dmb_flags, N(dmb_flags), f, sizeof(f)));
	return 0;
}

/* ---------------------------------------------------------------- fabrics */

static const char *const fabric_caps[] = { "attach", "doorbell", "coherent", "persists",
					   "export", "by_token", "whole" };

static const char *life_name(__u32 life)
{
	static const char *const names[] = {
		[ISM_PEER_ALIVE] = "alive", [ISM_PEER_SILENT] = "silent", [ISM_PEER_GONE] = "gone"
	};

	return life < N(names) && names[life] ? names[life] : "?";
}

static int is_self(const struct ism_msg_fabric *m, const struct ism_msg_peer *p)
{
	return !memcmp(m->gid, p->gid, sizeof(p->gid));
}

static struct json_object *peers_json(const struct ism_msg_fabric *m,
				      const struct ism_msg_peer *peers)
{
	struct json_object *array = json_object_new_array();

	for (__u32 i = 0; i < m->n_peers; i++) {
		struct json_object *o = json_object_new_object();
		char gid[40], net[17];

		put_u64(o, "peer", peers[i].number);
		put_str(o, "state", life_name(peers[i].life));
		put_bool(o, "self", is_self(m, &peers[i]));
		put_str(o, "gid", cli_uuid(gid, sizeof(gid), peers[i].gid));
		put_str(o, "pnetid", cli_label(net, peers[i].network));
		put_u64(o, "lease_ms", peers[i].lease_ms);
		put_u64(o, "age_ms", peers[i].age_ms);
		json_object_array_add(array, o);
	}
	return array;
}

static void add_peers(struct libscols_table *t, const struct ism_msg_fabric *m,
		      const struct ism_msg_peer *peers)
{
	for (__u32 i = 0; i < m->n_peers; i++) {
		struct libscols_line *l = cli_row(t);
		char gid[40], net[17];

		cli_label(net, peers[i].network);
		cli_cell(l, 0, "%u", m->index);
		cli_cell(l, 1, "%u", peers[i].number);
		cli_cell(l, 2, "%s%s", life_name(peers[i].life),
			 is_self(m, &peers[i]) ? ",self" : "");
		cli_cell(l, 3, "%s", cli_uuid(gid, sizeof(gid), peers[i].gid));
		cli_cell(l, 4, "%s", *net ? net : "-");
		cli_cell(l, 5, "%llums", (unsigned long long)peers[i].lease_ms);
		cli_cell(l, 6, "%llums", (unsigned long long)peers[i].age_ms);
	}
}

static int one_fabric(const struct ism_msg_fabric *m, const struct ism_msg_peer *peers, void *arg)
{
	char id[40], gid[40], caps[64], a[16];
	struct sink *k = arg;
	struct libscols_line *l;
	struct json_object *o;

	cli_uuid(id, sizeof(id), m->uuid);
	cli_uuid(gid, sizeof(gid), m->gid);
	flag_names(m->caps, fabric_caps, N(fabric_caps), caps, sizeof(caps));
	if (k->array) {
		o = json_object_new_object();
		put_u64(o, "index", m->index);
		put_str(o, "name", m->name);
		put_str(o, "uuid", id);
		put_str(o, "gid", gid);
		put_str(o, "caps", caps);
		if (m->tag)
			put_tag(o, "tag", m->tag);
		put_u64(o, "dmbs", m->dmbs);
		put_u64(o, "dmb_bytes", m->dmb_bytes);
		put_u64(o, "pooled", m->pooled);
		json_object_object_add(o, "peers", peers_json(m, peers));
		json_object_array_add(k->array, o);
		return 0;
	}
	l = cli_row(k->table);
	cli_cell(l, 0, "%u", m->index);
	cli_cell(l, 1, "%s", m->name);
	cli_cell(l, 2, "%s", id);
	cli_cell(l, 3, "%s", gid);
	cli_cell(l, 4, "%s", caps);
	cli_cell(l, 5, "%u", m->dmbs);
	cli_cell(l, 6, "%s", cli_bytes(a, sizeof(a), m->dmb_bytes));
	cli_cell(l, 7, "%u", m->pooled);
	add_peers(k->peers, m, peers);
	return 0;
}

/* ---------------------------------------------------------------- commands */

static int show(const struct cli *c, struct sink *k, const char *name, const char *empty, int rc,
		const struct ism_err *err)
{
	struct json_object *o;

	if (rc) {
		json_object_put(k->array);
		scols_unref_table(k->table);
		scols_unref_table(k->peers);
		return cli_error(c, err, rc);
	}
	if (!c->json) {
		cli_table_done(k->table, empty);
		if (scols_table_get_nlines(k->peers))
			printf("\n");
		cli_table_done(k->peers, NULL);
		return CLI_OK;
	}
	o = json_object_new_object();
	json_object_object_add(o, name, k->array);
	cli_print_json(c, o);
	return CLI_OK;
}

/* What ismredird has of one kind: @fetch fills the sink. */
static int list(struct cli *c, int argc, char **argv, const char *name, const char *empty,
		const char *const *columns,
		int (*fetch)(int fd, struct sink *k, struct ism_err *err))
{
	static const char *const of_peers[] = { ">#",	   ">Peer",  "State",  "GID",
						"Network", ">Lease", ">Heard", NULL };
	struct ism_err err = {};
	struct sink k = {};
	int fd, rc;

	if (cli_no_args(c, argc, argv))
		return CLI_USAGE;
	fd = ism_control_open(&err);
	if (fd < 0)
		return cli_error(c, &err, fd);
	if (c->json) {
		k.array = json_object_new_array();
	} else {
		k.table = cli_table(columns);
		k.peers = cli_table(of_peers);
	}
	rc = fetch(fd, &k, &err);
	close(fd);
	return show(c, &k, name, empty, rc, &err);
}

static int fetch_dmbs(int fd, struct sink *k, struct ism_err *err)
{
	return ism_control_list(fd, one_dmb, k, err);
}

static int fetch_fabrics(int fd, struct sink *k, struct ism_err *err)
{
	return ism_control_fabrics(fd, one_fabric, k, err);
}

int cmd_dmbs(struct cli *c, int argc, char **argv)
{
	static const char *const columns[] = { "Owner Token", "Peer Token", ">Fabric",	">Ring",
					       ">Fill",	      ">Written",   ">Msgs",	">Owner",
					       ">Writer",     ">UID",	    "Attached", NULL };

	return list(c, argc, argv, "dmbs", "no DMBs", columns, fetch_dmbs);
}

int cmd_fabrics(struct cli *c, int argc, char **argv)
{
	static const char *const columns[] = { ">#",	"Name",	   "Fabric",  "GID", "Capable of",
					       ">DMBs", ">Memory", ">Pooled", NULL };

	return list(c, argc, argv, "fabrics", "no fabrics", columns, fetch_fabrics);
}
