// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* ismredir fabric: making, showing, checking and mending of regions of shared memory. */
#define _GNU_SOURCE
#include "cli.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include "region_check.h"
#include "util.h"

#define A_SPEC "one fabric, as shm:PATH, cxl:PATH or ivshmem:DEVICE"

typedef unsigned long long ull;

static const char *const life_names[] = { "free", "alive", "silent", "dead" };

/* ---------------------------------------------------------------- format */

struct format_args {
	__u64 size;
	struct region_geometry g;
	int is_forced;
};

static int take_size(struct cli *c, const char *name, const char *text, __u64 min, __u64 max,
		     __u64 *ret)
{
	if (!fabric_size(text, min, max, ret))
		return CLI_OK;
	return cli_usage(c, "--%s: expected %llu to %llu, not \"%s\"", name, (ull)min, (ull)max,
			 text);
}

static int format_option(struct cli *c, int opt, struct format_args *a)
{
	switch (opt) {
	case 's':
		return take_size(c, "size", optarg, 64 << 10, 1ULL << 46, &a->size);
	case 'P':
		return take_size(c, "peers", optarg, 1, ISM_REGION_MAX_PEERS, &a->g.peers);
	case 'd':
		return take_size(c, "dmbs", optarg, 1, ISM_REGION_MAX_DMBS, &a->g.dmbs);
	case 'u':
		return take_size(c, "unit", optarg, ISM_REGION_PAGE, ISM_REGION_MAX_UNIT,
				 &a->g.unit);
	case 'f':
		a->is_forced = 1;
		return CLI_OK;
	case ':':
		return cli_usage(c, "fabric format: the last option needs a value");
	default:
		return cli_usage(c, "fabric format: unknown option");
	}
}

static int run_format(struct cli *c, const char *spec, const struct format_args *a)
{
	struct region_map map;
	struct ism_err err = {};
	struct json_object *o;
	char id[40], size[16], arena[16];
	int rc = region_format_spec(spec, a->size, &a->g, a->is_forced, &err);

	if (!rc)
		rc = region_map_open(spec, 0, &map, &err);
	if (rc)
		return cli_error(c, &err, rc);
	cli_uuid(id, sizeof(id), (const unsigned char *)map.super.uuid);
	if (c->json) {
		o = json_object_new_object();
		put_str(o, "uuid", id);
		put_u64(o, "size", map.l.size);
		put_u64(o, "peers", map.l.peers);
		put_u64(o, "dmbs", map.l.dmbs);
		put_u64(o, "arena", map.l.arena);
		cli_print_json(c, o);
	} else {
		printf("region %s of %s: %llu peers with %s for %llu DMBs each\n", id,
		       cli_bytes(size, sizeof(size), map.l.size), (ull)map.l.peers,
		       cli_bytes(arena, sizeof(arena), map.l.arena), (ull)map.l.dmbs);
	}
	region_map_close(&map);
	return CLI_OK;
}

/* The one argument that is no option, after getopt_long() has moved it to the end. */
static const char *only_spec(struct cli *c, const char *verb, int argc, char **argv)
{
	if (optind + 1 == argc)
		return argv[optind];
	cli_usage(c, "fabric %s: expected " A_SPEC, verb);
	return NULL;
}

static int cmd_format(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' }, { "peers", required_argument, NULL, 'P' },
		{ "dmbs", required_argument, NULL, 'd' }, { "unit", required_argument, NULL, 'u' },
		{ "force", no_argument, NULL, 'f' },	  {}
	};
	struct format_args a = {};
	const char *spec;
	int opt;

	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1)
		if (format_option(c, opt, &a))
			return CLI_USAGE;
	spec = only_spec(c, "format", argc, argv);
	return spec ? run_format(c, spec, &a) : CLI_USAGE;
}

/* ---------------------------------------------------------------- show */

/* A listing: rows of a table, or objects of an array. */
struct listing {
	struct json_object *array;
	struct libscols_table *table;
};

static struct listing begin(const struct cli *c, const char *const *columns)
{
	struct listing l = {};

	if (c->json)
		l.array = json_object_new_array();
	else
		l.table = cli_table(columns);
	return l;
}

static void end(struct listing *l, struct json_object *all, const char *name, const char *empty)
{
	if (l->array) {
		json_object_object_add(all, name, l->array);
		return;
	}
	printf("\n");
	cli_table_done(l->table, empty);
}

static const char *bell_text(const struct region_peer_copy *p, char *buf, size_t len)
{
	__le64 words[2] = { htole64(p->addr[0]), htole64(p->addr[1]) };
	char addr[INET6_ADDRSTRLEN];

	if (p->bell == ISM_BELL_DEVICE && p->number) {
		snprintf(buf, len, "device:%llu", (ull)p->number - 1);
		return buf;
	}
	if (p->bell != ISM_BELL_UDP || !inet_ntop(AF_INET6, words, addr, sizeof(addr)))
		return "-";
	snprintf(buf, len, "udp:[%s]:%llu", addr, (ull)p->port);
	return buf;
}

/* Of what the peer has: valid entries, and their bytes. */
struct usage {
	__u64 dmbs, bytes, attached;
};

static struct usage usage_of(const struct region_map *m, unsigned int i, __u64 state)
{
	struct region_attach_copy a;
	struct region_dmb_copy d;
	struct usage u = {};

	for (__u64 k = 0; ISM_PEER_WHAT(state) == ISM_PEER_LIVE && k < m->l.dmbs; k++) {
		if (region_read_dmb(&m->mem, &m->l, i, ISM_PEER_GEN(state), k, &d) == 1) {
			u.dmbs++;
			u.bytes += d.len;
		}
		u.attached +=
			region_read_attach(&m->mem, &m->l, i, ISM_PEER_GEN(state), k, &a) == 1;
	}
	return u;
}

static const char *network(const struct region_peer_copy *p, char buf[17])
{
	__le64 words[2] = { htole64(p->pnetid[0]), htole64(p->pnetid[1]) };

	return cli_label(buf, (const char *)words);
}

static void peer_json(struct json_object *array, unsigned int i, const struct region_peer_copy *p,
		      enum region_life life, const struct usage *u)
{
	__le64 gid[2] = { htole64(p->gid[0]), htole64(p->gid[1]) };
	struct json_object *o = json_object_new_object();
	char id[40], net[17], bell[80];

	put_u64(o, "peer", i);
	put_str(o, "state", life_names[life]);
	put_str(o, "gid", cli_uuid(id, sizeof(id), (const unsigned char *)gid));
	put_u64(o, "generation", ISM_PEER_GEN(p->state));
	put_u64(o, "lease_ms", p->lease);
	put_str(o, "pnetid", network(p, net));
	put_str(o, "bell", bell_text(p, bell, sizeof(bell)));
	put_u64(o, "pid", p->pid);
	put_u64(o, "dmbs", u->dmbs);
	put_u64(o, "bytes", u->bytes);
	put_u64(o, "attached", u->attached);
	json_object_array_add(array, o);
}

static void show_peer(struct listing *l, const struct region_map *m, unsigned int i,
		      enum region_life life)
{
	char id[40], net[17], bell[80], bytes[16];
	struct region_peer_copy p;
	struct libscols_line *row;
	struct usage u;
	__le64 gid[2];

	if (!region_read_peer(&m->mem, &m->l, i, &p) || life == REGION_FREE)
		return;
	u = usage_of(m, i, p.state);
	if (l->array) {
		peer_json(l->array, i, &p, life, &u);
		return;
	}
	gid[0] = htole64(p.gid[0]);
	gid[1] = htole64(p.gid[1]);
	row = cli_row(l->table);
	cli_cell(row, 0, "%u", i);
	cli_cell(row, 1, "%s", life_names[life]);
	cli_cell(row, 2, "%s", cli_uuid(id, sizeof(id), (const unsigned char *)gid));
	cli_cell(row, 3, "%llu", (ull)ISM_PEER_GEN(p.state));
	cli_cell(row, 4, "%llums", (ull)p.lease);
	cli_cell(row, 5, "%s", *network(&p, net) ? net : "-");
	cli_cell(row, 6, "%s", bell_text(&p, bell, sizeof(bell)));
	cli_cell(row, 7, "%llu", (ull)p.pid);
	cli_cell(row, 8, "%llu", (ull)u.dmbs);
	cli_cell(row, 9, "%s", cli_bytes(bytes, sizeof(bytes), u.bytes));
	cli_cell(row, 10, "%llu", (ull)u.attached);
}

static void show_dmb(struct listing *l, const struct region_map *m, unsigned int i, __u64 k,
		     const struct region_dmb_copy *d)
{
	__le64 gid[2] = { htole64(d->partner[0]), htole64(d->partner[1]) };
	__u64 bell = region_load(&region_bell(&m->mem, &m->l, i, k)->value);
	struct libscols_line *row;
	struct json_object *o;
	char partner[40], bytes[16];

	if (d->partner_token)
		snprintf(partner, sizeof(partner), "%016llx", (ull)d->partner_token);
	else
		cli_uuid(partner, sizeof(partner), (const unsigned char *)gid);
	if (l->array) {
		o = json_object_new_object();
		put_u64(o, "peer", i);
		put_u64(o, "index", k);
		put_hex(o, "token", d->token);
		put_str(o, "partner", partner);
		put_u64(o, "vlan", d->flags & ISM_REGION_DMB_VLAN);
		put_bool(o, "exported", !!(d->flags & ISM_REGION_DMB_EXPORTED));
		put_u64(o, "offset", d->off);
		put_u64(o, "length", d->len);
		put_u64(o, "bell", bell);
		json_object_array_add(l->array, o);
		return;
	}
	row = cli_row(l->table);
	cli_cell(row, 0, "%u", i);
	cli_cell(row, 1, "%llu", (ull)k);
	cli_cell(row, 2, "%016llx", (ull)d->token);
	cli_cell(row, 3, "%s", partner);
	cli_cell(row, 4, "%llu", (ull)(d->flags & ISM_REGION_DMB_VLAN));
	cli_cell(row, 5, "%#llx", (ull)d->off);
	cli_cell(row, 6, "%s", cli_bytes(bytes, sizeof(bytes), d->len));
	cli_cell(row, 7, "%llu", (ull)bell);
}

/* Is what it names still a DMB? If not, the memory waits for this entry to go. */
static int is_current(const struct region_map *m, const struct region_attach_copy *a)
{
	unsigned int owner = ISM_REGION_DMB_PEER(a->dmb);
	__u64 state = region_load(&region_peer(&m->mem, &m->l, owner)->state);
	struct region_dmb_copy d;

	return ISM_PEER_WHAT(state) == ISM_PEER_LIVE &&
	       region_read_dmb(&m->mem, &m->l, owner, ISM_PEER_GEN(state),
			       ISM_REGION_DMB_INDEX(a->dmb), &d) == 1 &&
	       d.state == a->dmb_state;
}

static void show_attached(struct listing *l, const struct region_map *m, unsigned int i,
			  const struct region_attach_copy *a)
{
	const char *state = is_current(m, a) ? "attached" : "quarantine";
	struct libscols_line *row;
	struct json_object *o;
	char bytes[16];

	if (l->array) {
		o = json_object_new_object();
		put_u64(o, "peer", i);
		put_u64(o, "owner", ISM_REGION_DMB_PEER(a->dmb));
		put_u64(o, "index", ISM_REGION_DMB_INDEX(a->dmb));
		put_u64(o, "offset", a->off);
		put_u64(o, "length", a->len);
		put_u64(o, "pid", a->pid);
		put_str(o, "state", state);
		json_object_array_add(l->array, o);
		return;
	}
	row = cli_row(l->table);
	cli_cell(row, 0, "%u", i);
	cli_cell(row, 1, "%llu", (ull)ISM_REGION_DMB_PEER(a->dmb));
	cli_cell(row, 2, "%llu", (ull)ISM_REGION_DMB_INDEX(a->dmb));
	cli_cell(row, 3, "%#llx", (ull)a->off);
	cli_cell(row, 4, "%s", cli_bytes(bytes, sizeof(bytes), a->len));
	cli_cell(row, 5, "%llu", (ull)a->pid);
	cli_cell(row, 6, "%s", state);
}

static void show_peers(const struct cli *c, const struct region_map *m,
		       const enum region_life *life, struct json_object *all)
{
	static const char *const columns[] = { ">Peer",	 "State",   "GID",	 ">Gen",
					       ">Lease", "Network", "Bell",	 ">PID",
					       ">DMBs",	 ">Memory", ">Attached", NULL };
	struct listing l = begin(c, columns);

	for (unsigned int i = 0; i < m->l.peers; i++)
		show_peer(&l, m, i, life[i]);
	end(&l, all, "peers", "no peers");
}

static void show_dmbs(const struct cli *c, const struct region_map *m, struct json_object *all)
{
	static const char *const columns[] = { ">Owner",  ">#",	     "Token", "Partner", ">Label",
					       ">Offset", ">Length", ">Bell", NULL };
	struct listing l = begin(c, columns);
	struct region_dmb_copy d;

	for (unsigned int i = 0; i < m->l.peers; i++) {
		__u64 state = region_load(&region_peer(&m->mem, &m->l, i)->state);

		for (__u64 k = 0; ISM_PEER_WHAT(state) == ISM_PEER_LIVE && k < m->l.dmbs; k++)
			if (region_read_dmb(&m->mem, &m->l, i, ISM_PEER_GEN(state), k, &d) == 1)
				show_dmb(&l, m, i, k, &d);
	}
	end(&l, all, "dmbs", "no DMBs");
}

static void show_attach_tables(const struct cli *c, const struct region_map *m,
			       struct json_object *all)
{
	static const char *const columns[] = { ">Writer", ">Owner", ">#",    ">Offset",
					       ">Length", ">PID",   "State", NULL };
	struct listing l = begin(c, columns);
	struct region_attach_copy a;

	for (unsigned int i = 0; i < m->l.peers; i++) {
		__u64 state = region_load(&region_peer(&m->mem, &m->l, i)->state);

		for (__u64 k = 0; ISM_PEER_WHAT(state) == ISM_PEER_LIVE && k < m->l.dmbs; k++)
			if (region_read_attach(&m->mem, &m->l, i, ISM_PEER_GEN(state), k, &a) == 1)
				show_attached(&l, m, i, &a);
	}
	end(&l, all, "attached", "nothing is attached");
}

static void show_super(const struct cli *c, const struct region_map *m, struct json_object *all)
{
	char id[40], size[16], arena[16], unit[16];

	cli_uuid(id, sizeof(id), (const unsigned char *)m->super.uuid);
	if (c->json) {
		put_str(all, "uuid", id);
		put_u64(all, "version", le64toh(m->super.version));
		put_u64(all, "size", m->l.size);
		put_u64(all, "max_peers", m->l.peers);
		put_u64(all, "max_dmbs", m->l.dmbs);
		put_u64(all, "unit", m->l.unit);
		put_u64(all, "arena", m->l.arena);
		put_u64(all, "created", le64toh(m->super.created));
		return;
	}
	printf("region %s, version %llu, %s\n%llu peers, each with %llu DMBs in %s, in units of %s\n",
	       id, (ull)le64toh(m->super.version), cli_bytes(size, sizeof(size), m->l.size),
	       (ull)m->l.peers, (ull)m->l.dmbs, cli_bytes(arena, sizeof(arena), m->l.arena),
	       cli_bytes(unit, sizeof(unit), m->l.unit));
}

static int cmd_show(struct cli *c, int argc, char **argv)
{
	struct json_object *all = NULL;
	enum region_life life[ISM_REGION_MAX_PEERS];
	struct ism_err err = {};
	struct region_map m;
	int rc;

	if (argc != 2)
		return cli_usage(c, "fabric show: expected " A_SPEC);
	rc = region_map_open(argv[1], 0, &m, &err);
	if (rc)
		return cli_error(c, &err, rc);
	region_look(&m, life);
	if (c->json)
		all = json_object_new_object();
	show_super(c, &m, all);
	show_peers(c, &m, life, all);
	show_dmbs(c, &m, all);
	show_attach_tables(c, &m, all);
	if (c->json)
		cli_print_json(c, all);
	region_map_close(&m);
	return CLI_OK;
}

/* ---------------------------------------------------------------- fsck */

static void found(void *arg, int peer, const char *text)
{
	struct json_object *array = arg, *o;

	if (!array) {
		printf("peer %d: %s\n", peer, text);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "peer", json_object_new_int(peer));
	put_str(o, "problem", text);
	json_object_array_add(array, o);
}

static int run_fsck(struct cli *c, const char *spec, int is_repaired, int evicted)
{
	struct json_object *o = NULL, *array = NULL;
	enum region_life life[ISM_REGION_MAX_PEERS];
	struct ism_err err = {};
	struct region_map m;
	unsigned int n;
	int rc = region_map_open(spec, is_repaired || evicted >= 0, &m, &err);

	if (rc)
		return cli_error(c, &err, rc);
	rc = evicted >= 0 ? region_evict(&m, evicted, &err) : 0;
	if (rc) {
		region_map_close(&m);
		return cli_error(c, &err, rc);
	}
	if (c->json)
		array = json_object_new_array();
	region_look(&m, life);
	n = region_check(&m, life, is_repaired, found, array);
	if (c->json) {
		o = json_object_new_object();
		json_object_object_add(o, "problems", array);
		cli_print_json(c, o);
	} else {
		printf("%u problem%s\n", n, n == 1 ? "" : "s");
	}
	region_map_close(&m);
	return n ? CLI_FAIL : CLI_OK;
}

static int cmd_fsck(struct cli *c, int argc, char **argv)
{
	static const struct option options[] = { { "repair", no_argument, NULL, 'r' },
						 { "evict", required_argument, NULL, 'e' },
						 {} };
	int opt, is_repaired = 0, evicted = -1;
	const char *spec;
	__u64 peer;

	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1)
		switch (opt) {
		case 'r':
			is_repaired = 1;
			break;
		case 'e':
			if (fabric_number(optarg, 0, ISM_REGION_MAX_PEERS - 1, &peer))
				return cli_usage(c, "--evict: expected the number of a peer");
			evicted = peer;
			break;
		default:
			return cli_usage(c, "fabric fsck: unknown option, or one without value");
		}
	spec = only_spec(c, "fsck", argc, argv);
	return spec ? run_fsck(c, spec, is_repaired, evicted) : CLI_USAGE;
}

/* ---------------------------------------------------------------- the verb */

int cmd_fabric(struct cli *c, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct cli *c, int argc, char **argv);
	} verbs[] = { { "format", cmd_format }, { "show", cmd_show }, { "fsck", cmd_fsck } };

	optind = 0; /* this is the second list of arguments */
	for (size_t i = 0; argc && i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (!strcmp(argv[0], verbs[i].name))
			return verbs[i].run(c, argc, argv);
	return cli_usage(c, "fabric: expected format, show or fsck");
}
