/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the user asks of `load`: cgroups, rules and tunables, from options and from an INI file. */
#ifndef ISM_LIB_POLICY_H
#define ISM_LIB_POLICY_H

#include <ismredir/maps.h>
#include "cgroup.h"
#include "err.h"

#define ISM_MAX_CGROUPS 16
#define ISM_MAX_SELECT	32

/**
 * struct ism_policy - a complete request, see ism_policy_init() for the defaults
 * @cgroups: where to attach; none: the root of the hierarchy
 * @rules: in order, first match wins
 * @ctl: tunables; n_rules and default_plane are filled by ism_policy_finish()
 * @max_conns: entries of conns and socks
 * @ports, @comms, @peers: what --port, --comm and --peer selected, turned into rules at the end
 * @plane: plane of what is selected
 * @default_set, @max_conns_set: given explicitly
 */
struct ism_policy {
	struct ism_cgroup cgroups[ISM_MAX_CGROUPS];
	unsigned int n_cgroups;
	struct ism_rule rules[ISM_MAX_RULES];
	unsigned int n_rules;
	struct ism_ctl ctl;
	unsigned int max_conns;
	struct {
		__u16 lo, hi;
	} ports[ISM_MAX_SELECT];
	unsigned int n_ports;
	char comms[ISM_MAX_SELECT][16];
	unsigned int n_comms;
	struct {
		__u8 addr[16];
		__u8 prefix;
	} peers[ISM_MAX_SELECT];
	unsigned int n_peers;
	int plane;
	int default_set;
	int max_conns_set;
};

/** ism_policy_init() - nothing selected, tunables as measured best */
void ism_policy_init(struct ism_policy *p);

/**
 * ism_policy_set() - one setting by name, as on the command line without the dashes
 * @key: cgroup, port, comm, peer, plane, default, max-conns, budget-bytes, budget-msgs,
 *       stream-run, stream-size, leave-run, mix-bytes, readers, spin, negative-ttl
 * Return: 0; -EINVAL for a bad name or value; -E2BIG for too many; what ism_cgroup_find() returned.
 * @err says why.
 */
int ism_policy_set(struct ism_policy *p, const char *key, const char *value, struct ism_err *err);

/** ism_policy_file() - read an INI file; @err names file and line */
int ism_policy_file(struct ism_policy *p, const char *path, struct ism_err *err);

/** ism_policy_finish() - turn the selections into rules and fill ctl; call once, last */
int ism_policy_finish(struct ism_policy *p, struct ism_err *err);

/**
 * ism_policy_selective() - is what may be redirected selected by port, comm, rule or a cgroup below
 * the root?
 */
int ism_policy_selective(const struct ism_policy *p);

/** ism_policy_redirects() - may anything use the skmsg plane? */
int ism_policy_redirects(const struct ism_policy *p);

/** ism_rule_format() - a rule as one line of text */
void ism_rule_format(const struct ism_rule *r, char *buf, size_t len);

/** ism_readers_name() - name of an enum ism_readers; never NULL */
const char *ism_readers_name(__u32 r);

/** ism_parse_cidr() - "ADDR[/LEN]" to the 128-bit form; 0 or -EINVAL */
int ism_parse_cidr(const char *text, __u8 *addr, __u8 *prefix);

/** ism_parse_ports() - "N" or "N-M"; 0 or -EINVAL */
int ism_parse_ports(const char *text, __u16 *lo, __u16 *hi);

/** ism_format_addr() - an address in the 16-byte mapped form as text */
void ism_format_addr(const __u8 *addr, char *buf, size_t len);

#endif
