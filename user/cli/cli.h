/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the commands share: global options, exit statuses, output. */
#ifndef ISM_CLI_H
#define ISM_CLI_H

#include <json-c/json.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include "err.h"

/* Exit statuses, the same for every command. */
enum {
	CLI_OK = 0,
	CLI_FAIL = 1,
	CLI_USAGE = 2,
};

/**
 * struct cli - global options
 * @json: -j; @pretty: -p, which implies -j
 * @verbose: number of -v; libbpf's own lines from 2 on
 */
struct cli {
	int json;
	int pretty;
	int verbose;
};

/**
 * struct cli_command - one verb
 * @run: gets argv after the verb; returns an exit status
 * @raw: what follows belongs to another program: no global options are looked for in it
 */
struct cli_command {
	const char *name;
	const char *args;
	const char *help;
	int (*run)(struct cli *c, int argc, char **argv);
	int raw;
};

int cmd_check(struct cli *c, int argc, char **argv);
int cmd_conns(struct cli *c, int argc, char **argv);
int cmd_dmbs(struct cli *c, int argc, char **argv);
int cmd_explain(struct cli *c, int argc, char **argv);
int cmd_fabric(struct cli *c, int argc, char **argv);
int cmd_fabrics(struct cli *c, int argc, char **argv);
int cmd_load(struct cli *c, int argc, char **argv);
int cmd_peers(struct cli *c, int argc, char **argv);
int cmd_policy(struct cli *c, int argc, char **argv);
int cmd_run(struct cli *c, int argc, char **argv);
int cmd_status(struct cli *c, int argc, char **argv);
int cmd_unload(struct cli *c, int argc, char **argv);

/** cli_error() - print the error of a failed call (as JSON under -j); returns CLI_FAIL */
int cli_error(const struct cli *c, const struct ism_err *err, int rc);

/** cli_usage() - print what is wrong with the arguments; returns CLI_USAGE */
int cli_usage(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** cli_print_json() - print and release @obj */
void cli_print_json(const struct cli *c, struct json_object *obj);

/** cli_no_args() - complain about arguments where none are taken; 0 or CLI_USAGE */
int cli_no_args(const struct cli *c, int argc, char **argv);

/* Shorthands: json-c takes ownership of the value. */
void put_u64(struct json_object *o, const char *key, unsigned long long v);
void put_str(struct json_object *o, const char *key, const char *v);
void put_bool(struct json_object *o, const char *key, int v);
/** put_hex() - a token, as text of 16 digits */
void put_hex(struct json_object *o, const char *key, unsigned long long v);
void put_tag(struct json_object *o, const char *key, unsigned int tag); /* of a fabric */

/** cli_table() - an empty table with the given column names; ended by NULL; '>' aligns right */
struct libscols_table *cli_table(const char *const *columns);

/** cli_row() - a new row; fill it with cli_cell() */
struct libscols_line *cli_row(struct libscols_table *t);
void cli_cell(struct libscols_line *l, int column, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** cli_table_done() - print and release; @empty is printed when there is no row */
void cli_table_done(struct libscols_table *t, const char *empty);

/** cli_uuid() - 16 bytes in the usual form of 8-4-4-4-12; returns @buf, which has 37 bytes */
const char *cli_uuid(char *buf, size_t len, const unsigned char *id);

/** cli_label() - a name of 16 bytes that somebody else has written, what is not printable as '?'; returns @buf */
const char *cli_label(char buf[17], const char name[16]);

/** cli_bytes() - "1.5M"; returns @buf */
const char *cli_bytes(char *buf, size_t len, unsigned long long n);

#endif
