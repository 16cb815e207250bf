// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Cgroups, rules and tunables of a load; see policy.h. */
#include "policy.h"
#include <arpa/inet.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "reasons.h"

/* ---------------------------------------------------------------- values */

/* Digits and nothing else. */
static int parse_u32(const char *text, unsigned long min, unsigned long max, __u32 *ret)
{
	char *end;
	unsigned long v;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno || *end || v < min || v > max)
		return -EINVAL;
	*ret = v;
	return 0;
}

/* Digits, and perhaps k or M for 2^10 or 2^20. */
static int parse_size(const char *text, unsigned long min, unsigned long max, __u32 *ret)
{
	size_t len = strlen(text);
	char buf[24];
	__u32 v;
	int shift = 0, rc;

	if (len >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, text, len + 1);
	if (len && strchr("kKmM", buf[len - 1])) {
		shift = strchr("kK", buf[len - 1]) ? 10 : 20;
		buf[len - 1] = 0;
	}
	rc = parse_u32(buf, (min + (1UL << shift) - 1) >> shift, max >> shift, &v);
	if (!rc)
		*ret = v << shift;
	return rc;
}

int ism_parse_ports(const char *text, __u16 *lo, __u16 *hi)
{
	char buf[16], *dash;
	__u32 a, b;

	if ((size_t)snprintf(buf, sizeof(buf), "%s", text) >= sizeof(buf))
		return -EINVAL;
	dash = strchr(buf, '-');
	if (dash)
		*dash++ = 0;
	if (parse_u32(buf, 1, 65535, &a) || (dash && parse_u32(dash, 1, 65535, &b)))
		return -EINVAL;
	if (!dash)
		b = a;
	if (b < a)
		return -EINVAL;
	*lo = a;
	*hi = b;
	return 0;
}

static const __u8 v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

int ism_parse_cidr(const char *text, __u8 *addr, __u8 *prefix)
{
	char buf[INET6_ADDRSTRLEN + 5], *slash;
	__u8 a[16];
	__u32 len, max;

	if ((size_t)snprintf(buf, sizeof(buf), "%s", text) >= sizeof(buf))
		return -EINVAL;
	slash = strchr(buf, '/');
	if (slash)
		*slash++ = 0;
	if (inet_pton(AF_INET, buf, a + 12) == 1) {
		memcpy(a, v4_prefix, sizeof(v4_prefix));
		max = 32;
	} else if (inet_pton(AF_INET6, buf, a) == 1) {
		max = 128;
	} else {
		return -EINVAL;
	}
	len = max;
	if (slash && parse_u32(slash, 0, max, &len))
		return -EINVAL;
	memcpy(addr, a, 16);
	*prefix = max == 32 ? len + 96 : len;
	return 0;
}

void ism_format_addr(const __u8 *addr, char *buf, size_t len)
{
	int v4 = !memcmp(addr, v4_prefix, sizeof(v4_prefix));

	if (!inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? addr + 12 : addr, buf, len))
		snprintf(buf, len, "?");
}

static int set_comm(char *to, const char *from)
{
	if (!*from || strlen(from) > 15)
		return -EINVAL;
	memset(to, 0, 16);
	memcpy(to, from, strlen(from));
	return 0;
}

/* ---------------------------------------------------------------- settings */

void ism_policy_init(struct ism_policy *p)
{
	memset(p, 0, sizeof(*p));
	p->plane = ISM_PLANE_SKMSG;
	p->max_conns = 65536;
	p->ctl.word = ISM_WORD_OFF;
	p->ctl.format = ISM_MAPS_FORMAT;
	p->ctl.budget_bytes = 2 << 20;
	p->ctl.budget_msgs = 256;
	p->ctl.stream_run = 16;
	p->ctl.stream_size = 32768;
	p->ctl.leave_run = 256;
	p->ctl.mix_bytes = 128 << 20;
	p->ctl.spin = 50;
	p->ctl.neg_ttl_ns = 10ULL * 1000 * 1000 * 1000;
}

static int add_port(struct ism_policy *p, const char *v)
{
	if (p->n_ports == ISM_MAX_SELECT)
		return -E2BIG;
	if (ism_parse_ports(v, &p->ports[p->n_ports].lo, &p->ports[p->n_ports].hi))
		return -EINVAL;
	p->n_ports++;
	return 0;
}

static int add_comm(struct ism_policy *p, const char *v)
{
	if (p->n_comms == ISM_MAX_SELECT)
		return -E2BIG;
	if (set_comm(p->comms[p->n_comms], v))
		return -EINVAL;
	p->n_comms++;
	return 0;
}

static int add_peer(struct ism_policy *p, const char *v)
{
	if (p->n_peers == ISM_MAX_SELECT)
		return -E2BIG;
	if (ism_parse_cidr(v, p->peers[p->n_peers].addr, &p->peers[p->n_peers].prefix))
		return -EINVAL;
	p->n_peers++;
	return 0;
}

static int add_cgroup(struct ism_policy *p, const char *v, struct ism_err *err)
{
	struct ism_cgroup cg;
	int rc;

	if (p->n_cgroups == ISM_MAX_CGROUPS)
		return -E2BIG;
	rc = ism_cgroup_find(v, &cg, err);
	if (rc)
		return rc;
	for (unsigned int i = 0; i < p->n_cgroups; i++)
		if (p->cgroups[i].id == cg.id)
			return 0;
	p->cgroups[p->n_cgroups++] = cg;
	return 0;
}

static int set_plane(int *to, const char *v)
{
	int plane = ism_plane_parse(v);

	if (plane != ISM_PLANE_TCP && plane != ISM_PLANE_SKMSG && plane != ISM_PLANE_DIRECT)
		return -EINVAL;
	*to = plane;
	return 0;
}

static int set_default(struct ism_policy *p, const char *v)
{
	int plane;

	if (set_plane(&plane, v))
		return -EINVAL;
	p->ctl.default_plane = plane;
	p->default_set = 1;
	return 0;
}

static const char *const readers[] = { "safe", "any", "poll" };

static int set_readers(struct ism_policy *p, const char *v)
{
	for (__u32 i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
		if (strcmp(v, readers[i]))
			continue;
		p->ctl.readers = i;
		return 0;
	}
	return -EINVAL;
}

const char *ism_readers_name(__u32 r)
{
	return r < sizeof(readers) / sizeof(readers[0]) ? readers[r] : "unknown";
}

static int set_ttl(struct ism_policy *p, const char *v)
{
	__u32 s;

	if (parse_u32(v, 0, 86400, &s))
		return -EINVAL;
	p->ctl.neg_ttl_ns = s * 1000000000ULL;
	return 0;
}

/* Tunables that are one number: name, bounds, where it goes. */
static int set_number(struct ism_policy *p, const char *key, const char *v)
{
	const struct {
		const char *key;
		unsigned long min, max;
		__u32 *to;
	} num[] = {
		{ "max-conns", 2, 1 << 24, &p->max_conns },
		{ "budget-bytes", 4096, 16 << 20, &p->ctl.budget_bytes },
		{ "budget-msgs", 1, 16384, &p->ctl.budget_msgs },
		{ "stream-run", 1, UINT_MAX, &p->ctl.stream_run },
		{ "stream-size", 0, 1 << 20, &p->ctl.stream_size },
		{ "leave-run", 1, UINT_MAX, &p->ctl.leave_run },
		{ "mix-bytes", 0, 1 << 30, &p->ctl.mix_bytes },
		{ "spin", 0, 1000, &p->ctl.spin },
	};

	for (size_t i = 0; i < sizeof(num) / sizeof(num[0]); i++)
		if (!strcmp(key, num[i].key)) {
			p->max_conns_set |= num[i].to == &p->max_conns;
			return parse_size(v, num[i].min, num[i].max, num[i].to);
		}
	return -ENOENT;
}

static const char *expected(const char *key)
{
	static const char *const what[][2] = {
		{ "port", "N or N-M with 1 <= N <= M <= 65535" },
		{ "comm", "a command name of 1 to 15 characters" },
		{ "peer", "ADDRESS or ADDRESS/LENGTH" },
		{ "plane", "tcp, skmsg or direct" },
		{ "default", "tcp, skmsg or direct" },
		{ "direction", "in, out or both" },
		{ "max-conns", "2 to 16777216" },
		{ "budget-bytes", "4096 to 16M" },
		{ "budget-msgs", "1 to 16384" },
		{ "stream-run", "1 or more" },
		{ "stream-size", "0 to 1M" },
		{ "leave-run", "1 or more" },
		{ "mix-bytes", "0 to 1024M" },
		{ "readers", "safe, any or poll" },
		{ "spin", "microseconds, 0 to 1000" },
		{ "negative-ttl", "seconds, 0 to 86400" },
	};

	for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++)
		if (!strcmp(key, what[i][0]))
			return what[i][1];
	return "something else";
}

static int bad_value(struct ism_err *err, int rc, const char *key, const char *v)
{
	if (err && err->text[0])
		return rc; /* a cgroup that was looked up in vain says so itself */
	if (rc == -ENOENT)
		return ism_err_set(err, -EINVAL, "unknown setting \"%s\"", key);
	if (rc == -E2BIG)
		return ism_err_set(err, -E2BIG, "too many values of %s, at most %d", key,
				   strcmp(key, "cgroup") ? ISM_MAX_SELECT : ISM_MAX_CGROUPS);
	return ism_err_set(err, rc, "bad %s \"%s\": expected %s", key, v, expected(key));
}

int ism_policy_set(struct ism_policy *p, const char *key, const char *v, struct ism_err *err)
{
	int rc;

	if (!strcmp(key, "port"))
		rc = add_port(p, v);
	else if (!strcmp(key, "comm"))
		rc = add_comm(p, v);
	else if (!strcmp(key, "peer"))
		rc = add_peer(p, v);
	else if (!strcmp(key, "cgroup"))
		rc = add_cgroup(p, v, err);
	else if (!strcmp(key, "plane"))
		rc = set_plane(&p->plane, v);
	else if (!strcmp(key, "default"))
		rc = set_default(p, v);
	else if (!strcmp(key, "readers"))
		rc = set_readers(p, v);
	else if (!strcmp(key, "negative-ttl"))
		rc = set_ttl(p, v);
	else
		rc = set_number(p, key, v);
	return rc ? bad_value(err, rc, key, v) : 0;
}

/* ---------------------------------------------------------------- the file */

struct ini_ctx {
	struct ism_policy *p;
	FILE *f;
	struct ism_err err;
	int line; /* read so far */
	int bad; /* the first line with a fault; 0 if none */
	struct ism_rule *rule; /* of the section, once it has a setting */
};

static int rule_set(struct ism_rule *r, const char *key, const char *v, struct ism_err *err)
{
	struct ism_cgroup cg;
	int plane, rc = 0;

	if (!strcmp(key, "plane")) {
		rc = set_plane(&plane, v);
		r->plane = rc ? r->plane : plane;
	} else if (!strcmp(key, "port")) {
		rc = ism_parse_ports(v, &r->port_lo, &r->port_hi);
		r->flags |= ISM_RULE_PORT;
	} else if (!strcmp(key, "comm")) {
		rc = set_comm(r->comm, v);
		r->flags |= ISM_RULE_COMM;
	} else if (!strcmp(key, "peer")) {
		rc = ism_parse_cidr(v, r->addr, &r->prefix);
		r->flags = (r->flags | ISM_RULE_CIDR) & ~ISM_RULE_LOCAL;
	} else if (!strcmp(key, "cgroup")) {
		rc = ism_cgroup_find(v, &cg, err);
		r->cgroup = rc ? 0 : cg.id;
		r->cgroup_level = rc ? 0 : cg.level;
		r->flags |= ISM_RULE_CGROUP;
	} else if (!strcmp(key, "direction")) {
		r->flags &= ~(ISM_RULE_IN | ISM_RULE_OUT);
		if (!strcmp(v, "in"))
			r->flags |= ISM_RULE_IN;
		else if (!strcmp(v, "out"))
			r->flags |= ISM_RULE_OUT;
		else if (strcmp(v, "both"))
			rc = -EINVAL;
	} else {
		rc = -ENOENT;
	}
	return rc ? bad_value(err, rc, key, v) : 0;
}

static int rule_open(struct ini_ctx *c)
{
	if (c->rule)
		return 0;
	if (c->p->n_rules == ISM_MAX_RULES)
		return ism_err_set(&c->err, -E2BIG, "too many rules, at most %d", ISM_MAX_RULES);
	c->rule = &c->p->rules[c->p->n_rules++];
	memset(c->rule, 0, sizeof(*c->rule));
	c->rule->plane = ISM_PLANE_SKMSG;
	c->rule->flags = ISM_RULE_LOCAL;
	return 0;
}

/* inih: 1 is "go on", 0 is "error on this line". */
static int on_line(void *user, const char *section, const char *name, const char *value)
{
	struct ini_ctx *c = user;
	int rc;

	if (c->bad)
		return 1; /* only the first error is reported */
	if (!value || !*value)
		rc = ism_err_set(&c->err, -EINVAL, "\"%s\" has no value", name);
	else if (!strcmp(section, "load"))
		rc = ism_policy_set(c->p, name, value, &c->err);
	else if (!strncmp(section, "rule", 4) && (!section[4] || section[4] == ' '))
		rc = rule_open(c) ?: rule_set(c->rule, name, value, &c->err);
	else
		rc = ism_err_set(&c->err, -EINVAL,
				 "unknown section [%s]: expected [load] or [rule NAME]", section);
	c->bad = rc ? c->line : 0;
	return 1;
}

static char *bad_line(struct ini_ctx *c, const char *why)
{
	c->bad = c->line;
	ism_err_set(&c->err, -EINVAL, "%s", why);
	return NULL;
}

/*
 * What inih itself would get wrong: it cuts lines at its buffer and reads on in the middle, takes an
 * indented line for more of the one above, and does not tell a section from the next of that name.
 */
static char *next_line(char *buf, int len, void *user)
{
	struct ini_ctx *c = user;
	char *text = NULL, *start;
	size_t room = 0;
	ssize_t n;

	if (c->bad)
		return NULL;
	n = getline(&text, &room, c->f);
	if (n < 0) {
		free(text);
		c->line++;
		if (ferror(c->f))
			bad_line(c, strerror(errno));
		return NULL;
	}
	c->line++;
	start = text + strspn(text, " \t\r\f\v");
	if (*start == '#' || *start == ';')
		start = (char *)"\n";
	if (*start == '[')
		c->rule = NULL;
	if (strlen(start) >= (size_t)len)
		buf = bad_line(c, "line too long");
	else if (c->line > 1 && *start != '[' && *start != '\n' && !strpbrk(start, "=:"))
		buf = bad_line(c, "expected NAME = VALUE or [SECTION]");
	else if (*start == '[' && !strchr(start, ']'))
		buf = bad_line(c, "expected NAME = VALUE or [SECTION]");
	else
		strcpy(buf, start);
	free(text);
	return buf;
}

int ism_policy_file(struct ism_policy *p, const char *path, struct ism_err *err)
{
	struct ini_ctx c = { .p = p, .f = fopen(path, "re") };
	int line;

	if (!c.f)
		return ism_err_set(err, -errno, "config %s: %s", path, strerror(errno));
	line = ini_parse_stream(next_line, &c, on_line, &c);
	fclose(c.f);
	if (line < 0)
		return ism_err_set(err, -EIO, "config %s: cannot be read", path);
	if (c.bad || line > 0)
		return ism_err_set(err, -EINVAL, "%s:%d: %s", path, c.bad ?: line,
				   c.err.text[0] ? c.err.text
						 : "expected NAME = VALUE or [SECTION]");
	return 0;
}

/* ---------------------------------------------------------------- selections to rules */

static int add_rule(struct ism_policy *p, int port, int comm, int peer, struct ism_err *err)
{
	struct ism_rule *r;

	if (p->n_rules == ISM_MAX_RULES)
		return ism_err_set(
			err, -E2BIG,
			"the selection needs more than %d rules: ports times comms times "
			"peers; use ranges",
			ISM_MAX_RULES);
	r = &p->rules[p->n_rules++];
	memset(r, 0, sizeof(*r));
	r->plane = p->plane;
	r->flags = ISM_RULE_LOCAL;
	if (port >= 0) {
		r->flags |= ISM_RULE_PORT;
		r->port_lo = p->ports[port].lo;
		r->port_hi = p->ports[port].hi;
	}
	if (comm >= 0) {
		r->flags |= ISM_RULE_COMM;
		memcpy(r->comm, p->comms[comm], 16);
	}
	if (peer >= 0) {
		r->flags = (r->flags & ~ISM_RULE_LOCAL) | ISM_RULE_CIDR;
		memcpy(r->addr, p->peers[peer].addr, 16);
		r->prefix = p->peers[peer].prefix;
	}
	return 0;
}

/* A list that is empty stands for "any", which is index -1. --peer adds to the local default. */
static int add_product(struct ism_policy *p, struct ism_err *err)
{
	int rc = 0;

	for (int a = p->n_ports ? 0 : -1; !rc && a < (int)p->n_ports; a++)
		for (int b = p->n_comms ? 0 : -1; !rc && b < (int)p->n_comms; b++)
			for (int c = -1; !rc && c < (int)p->n_peers; c++)
				rc = add_rule(p, a, b, c, err);
	return rc;
}

int ism_policy_finish(struct ism_policy *p, struct ism_err *err)
{
	int narrowed = p->n_ports || p->n_comms;
	int rc = 0;

	if (narrowed || p->n_peers || p->plane != ISM_PLANE_SKMSG)
		rc = add_product(p, err);
	if (rc)
		return rc;
	if (!p->default_set) {
		/* What is not selected stays as it is: TCP if something was selected for another. */
		if (p->plane != ISM_PLANE_TCP)
			p->ctl.default_plane =
				narrowed || p->n_rules ? ISM_PLANE_TCP : ISM_PLANE_SKMSG;
		else
			p->ctl.default_plane = narrowed ? ISM_PLANE_SKMSG : ISM_PLANE_TCP;
	}
	p->ctl.n_rules = p->n_rules;
	if (!p->n_cgroups)
		rc = ism_cgroup_find(NULL, &p->cgroups[p->n_cgroups++], err);
	return rc;
}

int ism_policy_selective(const struct ism_policy *p)
{
	int root = !p->n_cgroups;

	for (unsigned int i = 0; i < p->n_cgroups; i++)
		root |= !p->cgroups[i].level;
	if (!root)
		return 1;
	if (p->ctl.default_plane == ISM_PLANE_SKMSG)
		return 0;
	for (unsigned int i = 0; i < p->n_rules; i++)
		if (p->rules[i].plane == ISM_PLANE_SKMSG &&
		    !(p->rules[i].flags & (ISM_RULE_PORT | ISM_RULE_COMM | ISM_RULE_CGROUP)))
			return 0;
	return 1;
}

int ism_policy_redirects(const struct ism_policy *p)
{
	for (unsigned int i = 0; i < p->n_rules; i++)
		if (p->rules[i].plane == ISM_PLANE_SKMSG)
			return 1;
	return p->ctl.default_plane == ISM_PLANE_SKMSG;
}

void ism_rule_format(const struct ism_rule *r, char *buf, size_t len)
{
	char addr[INET6_ADDRSTRLEN], cg[512];
	size_t n = 0;

#define PUT(...) n += n < len ? (size_t)snprintf(buf + n, len - n, __VA_ARGS__) : 0
	PUT("%s", ism_plane_name(r->plane));
	if (r->flags & ISM_RULE_PORT && r->port_lo == r->port_hi)
		PUT(" port %u", r->port_lo);
	else if (r->flags & ISM_RULE_PORT)
		PUT(" port %u-%u", r->port_lo, r->port_hi);
	if (r->flags & ISM_RULE_COMM)
		PUT(" comm %.15s", r->comm);
	if (r->flags & ISM_RULE_CIDR) {
		int v4 = !memcmp(r->addr, v4_prefix, sizeof(v4_prefix)) && r->prefix >= 96;

		if (v4)
			ism_format_addr(r->addr, addr, sizeof(addr));
		else if (!inet_ntop(AF_INET6, r->addr, addr, sizeof(addr)))
			strcpy(addr, "?");
		PUT(" peer %s/%u", addr, v4 ? r->prefix - 96 : r->prefix);
	}
	if (r->flags & ISM_RULE_LOCAL)
		PUT(" peer local");
	if (r->flags & ISM_RULE_CGROUP) {
		if (ism_cgroup_path(r->cgroup, cg, sizeof(cg)))
			snprintf(cg, sizeof(cg), "id:%llu", (unsigned long long)r->cgroup);
		PUT(" cgroup %s", cg);
	}
	if (r->flags & ISM_RULE_IN)
		PUT(" direction in");
	if (r->flags & ISM_RULE_OUT)
		PUT(" direction out");
#undef PUT
}
