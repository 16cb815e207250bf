// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Tables by libsmartcols, JSON by json-c, and the one way errors are shown. stdout is data. */
#define _GNU_SOURCE
#include "cli.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void print_error(const struct cli *c, const char *text)
{
	struct json_object *o;

	if (!c->json) {
		fprintf(stderr, "ismredir: %s\n", text);
		return;
	}
	o = json_object_new_object();
	put_str(o, "error", text);
	cli_print_json(c, o);
}

int cli_error(const struct cli *c, const struct ism_err *err, int rc)
{
	print_error(c, err->text[0] ? err->text : strerror(-rc));
	return CLI_FAIL;
}

int cli_usage(const struct cli *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	print_error(c, text);
	if (!c->json)
		fprintf(stderr, "Try `ismredir help`.\n");
	return CLI_USAGE;
}

int cli_no_args(const struct cli *c, int argc, char **argv)
{
	return argc ? cli_usage(c, "unexpected argument \"%s\"", argv[0]) : CLI_OK;
}

void cli_print_json(const struct cli *c, struct json_object *obj)
{
	int flags = JSON_C_TO_STRING_NOSLASHESCAPE;

	flags |= c->pretty ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED
			   : JSON_C_TO_STRING_PLAIN;
	puts(json_object_to_json_string_ext(obj, flags));
	json_object_put(obj);
}

void put_u64(struct json_object *o, const char *key, unsigned long long v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

void put_str(struct json_object *o, const char *key, const char *v)
{
	json_object_object_add(o, key, json_object_new_string(v));
}

void put_tag(struct json_object *o, const char *key, unsigned int tag)
{
	char buf[8];

	snprintf(buf, sizeof(buf), "%06x", tag & 0xffffff);
	put_str(o, key, buf);
}

void put_bool(struct json_object *o, const char *key, int v)
{
	json_object_object_add(o, key, json_object_new_boolean(v));
}

void put_hex(struct json_object *o, const char *key, unsigned long long v)
{
	char buf[20];

	snprintf(buf, sizeof(buf), "%016llx", v);
	put_str(o, key, buf);
}

struct libscols_table *cli_table(const char *const *columns)
{
	struct libscols_table *t = scols_new_table();

	if (!t)
		abort();
	for (; *columns; columns++) {
		int right = **columns == '>';

		scols_table_new_column(t, *columns + right, 0, right ? SCOLS_FL_RIGHT : 0);
	}
	return t;
}

struct libscols_line *cli_row(struct libscols_table *t)
{
	struct libscols_line *l = scols_table_new_line(t, NULL);

	if (!l)
		abort();
	return l;
}

void cli_cell(struct libscols_line *l, int column, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	scols_line_refer_data(l, column, text);
}

void cli_table_done(struct libscols_table *t, const char *empty)
{
	if (scols_table_get_nlines(t))
		scols_print_table(t);
	else if (empty)
		puts(empty);
	scols_unref_table(t);
}

const char *cli_bytes(char *buf, size_t len, unsigned long long n)
{
	static const char unit[] = " KMGTPE";
	double v = n;
	int u = 0;

	while (v >= 1024 && unit[u + 1]) {
		v /= 1024;
		u++;
	}
	if (u)
		snprintf(buf, len, v < 10 ? "%.1f%c" : "%.0f%c", v, unit[u]);
	else
		snprintf(buf, len, "%llu", n);
	return buf;
}

const char *cli_uuid(char *buf, size_t len, const unsigned char *id)
{
	size_t n = 0;

	for (int i = 0; i < 16 && n < len; i++)
		n += snprintf(buf + n, len - n,
			      i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
	return buf;
}

const char *cli_label(char buf[17], const char name[16])
{
	memcpy(buf, name, 16);
	buf[16] = 0;
	for (char *at = buf; *at; at++)
		if (*at < 0x21 || *at > 0x7e)
			*at = '?';
	return buf;
}
