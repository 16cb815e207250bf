// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The layout of what is pinned (by the BTF of the built object), of what the programs that look write, and of
 * what goes through getsockopt(): an edit that moves a field shows up here as a
 * difference to layout.txt.
 */
#include "unit.h"
#include <stddef.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <ismredir/maps.h>
#include <ismredir/option.h>
#include <ismredir/relay.h>
#include <ismredir/sockctl.h>
#include <ismredir/view.h>

#define EXPECTED "selftests/unit/layout.txt"

/* The keys and values of maps, and how large the library thinks they are. */
static const struct {
	const char *name;
	size_t size;
} structs[] = {
#define SHOWN(tag)                                                                                 \
	{                                                                                          \
#tag, sizeof(struct tag)                                                           \
	}
	SHOWN(ism_conn),     SHOWN(ism_sk),	  SHOWN(ism_proc),  SHOWN(ism_lkey),
	SHOWN(ism_listener), SHOWN(ism_peer_key), SHOWN(ism_peer),  SHOWN(ism_neg),
	SHOWN(ism_rule),     SHOWN(ism_ctl),	  SHOWN(ism_stats), SHOWN(ism_relay),
	SHOWN(ism_relay_sk),
#undef SHOWN
};

/*
 * What such programs write and sockets answer is in no map, so BTF does not have it. A name without a field
 * is the struct.
 */
static const struct {
	const char *name;
	size_t offset, size;
} views[] = {
#define WHOLE(tag)                                                                                 \
	{                                                                                          \
		"struct " #tag, 0, sizeof(struct tag)                                              \
	}
#define FIELD(tag, field)                                                                          \
	{                                                                                          \
#field, offsetof(struct tag, field), sizeof(((struct tag *)0)->field)              \
	}
	WHOLE(ism_conn_view),
	FIELD(ism_conn_view, token),
	FIELD(ism_conn_view, conn),
	FIELD(ism_conn_view, mutual),
	FIELD(ism_conn_view, alive),
	FIELD(ism_conn_view, state),
	FIELD(ism_conn_view, backlog),
	FIELD(ism_conn_view, rx_queue),
	FIELD(ism_conn_view, tx_unread),
	FIELD(ism_conn_view, busy),
	FIELD(ism_conn_view, pad),
	WHOLE(ism_view_arg),
	FIELD(ism_view_arg, token),
	FIELD(ism_view_arg, n),
	FIELD(ism_view_arg, pad),
	FIELD(ism_view_arg, view),
	WHOLE(ism_listener_view),
	FIELD(ism_listener_view, key),
	FIELD(ism_listener_view, inode),
	FIELD(ism_listener_view, err),
	FIELD(ism_listener_view, pad),
	WHOLE(ism_sock_info),
	FIELD(ism_sock_info, token),
	FIELD(ism_sock_info, peer),
	FIELD(ism_sock_info, cookie),
	FIELD(ism_sock_info, write_seq),
	FIELD(ism_sock_info, copied_seq),
	FIELD(ism_sock_info, rcv_nxt),
	FIELD(ism_sock_info, flags),
	FIELD(ism_sock_info, word),
	FIELD(ism_sock_info, reason),
	FIELD(ism_sock_info, caps),
	FIELD(ism_sock_info, peer_caps),
#undef WHOLE
#undef FIELD
};

static struct btf *open_btf(void)
{
	const char *path = unit_object("ismredir.bpf.o");
	struct btf *btf = btf__parse_elf(path, NULL);

	cr_assert(btf && !libbpf_get_error(btf), "%s: %s", path, strerror(errno));
	return btf;
}

static const struct btf_type *find_struct(const struct btf *btf, const char *name)
{
	__s32 id = btf__find_by_name_kind(btf, name, BTF_KIND_STRUCT);

	cr_assert_gt(id, 0, "no BTF for struct %s", name);
	return btf__type_by_id(btf, id);
}

/* Size, then offset, size and name of each member. */
static void print_struct(FILE *out, const struct btf *btf, const char *name)
{
	const struct btf_type *t = find_struct(btf, name);
	const struct btf_member *m = btf_members(t);

	fprintf(out, "struct %s %u\n", name, t->size);
	for (int i = 0; i < btf_vlen(t); i++)
		fprintf(out, "%6u %4lld %s\n", btf_member_bit_offset(t, i) / 8,
			(long long)btf__resolve_size(btf, m[i].type),
			btf__name_by_offset(btf, m[i].name_off));
}

static void print_views(FILE *out)
{
	for (size_t i = 0; i < UNIT_SIZE(views); i++)
		if (!strncmp(views[i].name, "struct ", 7))
			fprintf(out, "%s %zu\n", views[i].name, views[i].size);
		else
			fprintf(out, "%6zu %4zu %s\n", views[i].offset, views[i].size,
				views[i].name);
}

Test(layout, as_documented)
{
	struct btf *btf = open_btf();
	char path[4096], *want, *got;
	FILE *out;

	snprintf(path, sizeof(path), "%s", unit_object("unit/layout.txt"));
	out = fopen(path, "we");
	cr_assert_not_null(out, "%s: %s", path, strerror(errno));
	fprintf(out, "format %d\n", ISM_MAPS_FORMAT);
	for (size_t i = 0; i < UNIT_SIZE(structs); i++)
		print_struct(out, btf, structs[i].name);
	print_views(out);
	fclose(out);
	btf__free(btf);
	want = unit_read(EXPECTED, NULL);
	got = unit_read(path, NULL);
	cr_expect(!strcmp(want, got),
		  "the layout has changed: see `diff %s %s`. If it is meant: count ISM_MAPS_FORMAT "
		  "up, and copy the second over the first",
		  EXPECTED, path);
	free(want);
	free(got);
}

Test(layout, both_sides_agree)
{
	struct btf *btf = open_btf();

	for (size_t i = 0; i < UNIT_SIZE(structs); i++)
		cr_expect_eq(find_struct(btf, structs[i].name)->size, structs[i].size, "struct %s",
			     structs[i].name);
	btf__free(btf);
}

/* Each member begins where the one before it ended, and the last ends with the struct. */
static void check_no_padding(const struct btf *btf, const char *name)
{
	const struct btf_type *t = find_struct(btf, name);
	const struct btf_member *m = btf_members(t);
	__u32 at = 0;

	for (int i = 0; i < btf_vlen(t); i++) {
		const char *field = btf__name_by_offset(btf, m[i].name_off);

		cr_expect_eq(btf_member_bit_offset(t, i), at * 8, "hole before %s.%s", name, field);
		cr_expect_eq(btf_member_bitfield_size(t, i), 0, "%s.%s: bit field", name, field);
		at += btf__resolve_size(btf, m[i].type);
	}
	cr_expect_eq(at, t->size, "padding at the end of %s", name);
}

Test(layout, no_hidden_padding)
{
	struct btf *btf = open_btf();

	for (size_t i = 0; i < UNIT_SIZE(structs); i++)
		check_no_padding(btf, structs[i].name);
	btf__free(btf);
}

Test(layout, no_hidden_padding_in_views)
{
	size_t at = 0, end = 0;

	for (size_t i = 0; i < UNIT_SIZE(views); i++) {
		if (!strncmp(views[i].name, "struct ", 7)) {
			cr_expect_eq(at, end, "before %s", views[i].name);
			end = views[i].size;
			at = 0;
			continue;
		}
		cr_expect_eq(views[i].offset, at, "hole before %s", views[i].name);
		at += views[i].size;
	}
	cr_expect_eq(at, end, "at the end");
}

Test(layout, values_of_the_format)
{
	cr_expect_eq(ISM_WORD_OFF, 0, "a map full of zeroes must mean off");
	cr_expect_eq(ISM_WORD_ON, 1);
	cr_expect_eq(ISM_WORD_DRAIN, 2);
	cr_expect_eq(ISM_ACTIVE, 0);
	cr_expect_eq(ISM_PASSIVE, 1);
	cr_expect_eq(ISM_PLANE_TCP, 0);
	cr_expect_eq(ISM_PLANE_DIRECT, 2);
	cr_expect_eq(ISM_CAP_DIRECT, 1, "as on the wire");
	cr_expect_str_eq(ISM_PIN_DIR, "/sys/fs/bpf/ismredir");
}

Test(layout, flags_are_single_bits)
{
	static const unsigned int rule[] = { ISM_RULE_PORT,   ISM_RULE_COMM, ISM_RULE_CIDR,
					     ISM_RULE_CGROUP, ISM_RULE_IN,   ISM_RULE_OUT,
					     ISM_RULE_LOCAL };
	unsigned int all = 0;

	for (size_t i = 0; i < UNIT_SIZE(rule); i++) {
		cr_expect(rule[i] && !(rule[i] & (rule[i] - 1)) && !(all & rule[i]));
		all |= rule[i];
	}
}
