// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The built BPF objects: what bpftool will show of them. Names fit the kernel's 15 characters, every
 * map has BTF for key and value, and those are the structs that maps.h documents.
 */
#include "unit.h"
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <ismredir/maps.h>
#include <ismredir/relay.h>

#define NAME_MAX_BPF 15

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)fmt;
	(void)ap;
	return 0;
}

static struct bpf_object *open_object(const char *name)
{
	const char *path = unit_object(name);
	struct bpf_object *obj;

	libbpf_set_print(quiet);
	obj = bpf_object__open_file(path, NULL);
	cr_assert(obj && !libbpf_get_error(obj), "%s: %s", path, strerror(errno));
	return obj;
}

static int is_internal(const struct bpf_map *map)
{
	return strchr(bpf_map__name(map), '.') != NULL;
}

/* ---------------------------------------------------------------- names */

static void check_names(const char *file)
{
	struct bpf_object *obj = open_object(file);
	struct bpf_program *prog;
	struct bpf_map *map;
	int progs = 0, maps = 0;

	bpf_object__for_each_program(prog, obj)
	{
		const char *name = bpf_program__name(prog);

		cr_expect_leq(strlen(name), NAME_MAX_BPF, "program %s", name);
		cr_expect(!strncmp(name, "ism_", 4), "program %s: no prefix", name);
		progs++;
	}
	bpf_object__for_each_map(map, obj)
	{
		if (is_internal(map))
			continue;
		cr_expect_leq(strlen(bpf_map__name(map)), NAME_MAX_BPF, "%s", bpf_map__name(map));
		maps++;
	}
	cr_expect_gt(progs, 0);
	cr_expect_gt(maps, 0);
	bpf_object__close(obj);
}

Test(bpf_object, names_fit)
{
	check_names("ismredir.bpf.o");
	check_names("view.bpf.o");
}

/* ---------------------------------------------------------------- maps */

static const struct {
	const char *name;
	enum bpf_map_type type;
	const char *key, *value; /* struct tag, or NULL for an integer */
	size_t key_size, value_size;
} expected[] = {
	{ "conns", BPF_MAP_TYPE_HASH, NULL, "ism_conn", 8, sizeof(struct ism_conn) },
	{ "socks", BPF_MAP_TYPE_SOCKHASH, NULL, NULL, 8, 8 },
	{ "tokens", BPF_MAP_TYPE_HASH, NULL, NULL, 8, 8 },
	{ "procs", BPF_MAP_TYPE_LRU_HASH, NULL, "ism_proc", 4, sizeof(struct ism_proc) },
	{ "sk_conn", BPF_MAP_TYPE_SK_STORAGE, NULL, "ism_sk", 4, sizeof(struct ism_sk) },
	{ "listeners", BPF_MAP_TYPE_HASH, "ism_lkey", "ism_listener", sizeof(struct ism_lkey),
	  sizeof(struct ism_listener) },
	{ "peers", BPF_MAP_TYPE_LRU_HASH, "ism_peer_key", "ism_peer", sizeof(struct ism_peer_key),
	  sizeof(struct ism_peer) },
	{ "negative", BPF_MAP_TYPE_ARRAY, NULL, "ism_neg", 4, sizeof(struct ism_neg) },
	{ "rules", BPF_MAP_TYPE_ARRAY, NULL, "ism_rule", 4, sizeof(struct ism_rule) },
	{ "ctl", BPF_MAP_TYPE_ARRAY, NULL, "ism_ctl", 4, sizeof(struct ism_ctl) },
	{ "stats", BPF_MAP_TYPE_PERCPU_ARRAY, NULL, "ism_stats", 4, sizeof(struct ism_stats) },
	{ "reasons", BPF_MAP_TYPE_PERCPU_ARRAY, NULL, NULL, 4, 8 },
	{ "relays", BPF_MAP_TYPE_ARRAY, NULL, "ism_relay", 4, sizeof(struct ism_relay) },
	{ "sk_relay", BPF_MAP_TYPE_SK_STORAGE, NULL, "ism_relay_sk", 4,
	  sizeof(struct ism_relay_sk) },
	{ "relay_asks", BPF_MAP_TYPE_RINGBUF, NULL, NULL, 0, 0 },
};

/* The type that BTF gives for a key or value, with typedefs and qualifiers taken off. */
static const struct btf_type *bare_type(const struct btf *btf, __u32 id)
{
	const struct btf_type *t = btf__type_by_id(btf, id);

	while (t && (btf_is_mod(t) || btf_is_typedef(t)))
		t = btf__type_by_id(btf, t->type);
	return t;
}

static void check_type(const struct btf *btf, const char *map, __u32 id, const char *tag,
		       size_t size)
{
	const struct btf_type *t;

	cr_assert_neq(id, 0, "map %s: a key or value without BTF", map);
	t = bare_type(btf, id);
	cr_assert_not_null(t, "map %s", map);
	cr_expect_eq(btf__resolve_size(btf, id), (__s64)size, "map %s", map);
	if (tag) {
		cr_assert(btf_is_struct(t), "map %s", map);
		cr_expect_str_eq(btf__name_by_offset(btf, t->name_off), tag);
	} else {
		cr_expect(btf_is_int(t), "map %s", map);
	}
}

Test(bpf_object, every_map_has_btf_and_the_documented_types)
{
	struct bpf_object *obj = open_object("ismredir.bpf.o");
	const struct btf *btf = bpf_object__btf(obj);
	struct bpf_map *map;

	cr_assert_not_null(btf);
	for (size_t i = 0; i < UNIT_SIZE(expected); i++) {
		const char *name = expected[i].name;

		map = bpf_object__find_map_by_name(obj, name);
		cr_assert_not_null(map, "map %s is not there", name);
		cr_expect_eq(bpf_map__type(map), expected[i].type, "map %s", name);
		cr_expect_eq(bpf_map__key_size(map), expected[i].key_size, "map %s", name);
		cr_expect_eq(bpf_map__value_size(map), expected[i].value_size, "map %s", name);
		if (expected[i].key_size)
			check_type(btf, name, bpf_map__btf_key_type_id(map), expected[i].key,
				   expected[i].key_size);
		if (expected[i].value_size)
			check_type(btf, name, bpf_map__btf_value_type_id(map), expected[i].value,
				   expected[i].value_size);
	}
	bpf_object__close(obj);
}

Test(bpf_object, no_map_but_the_documented_ones)
{
	struct bpf_object *obj = open_object("ismredir.bpf.o");
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj)
	{
		size_t i = 0;

		if (is_internal(map))
			continue;
		while (i < UNIT_SIZE(expected) && strcmp(expected[i].name, bpf_map__name(map)))
			i++;
		cr_expect_lt(i, UNIT_SIZE(expected), "map %s is not in maps.h", bpf_map__name(map));
	}
	bpf_object__close(obj);
}

Test(bpf_object, sizes_of_maps)
{
	struct bpf_object *obj = open_object("ismredir.bpf.o");
	const struct {
		const char *name;
		__u32 entries;
	} want[] = { { "rules", ISM_MAX_RULES },
		     { "ctl", 1 },
		     { "stats", 1 },
		     { "reasons", ISM_REASON_SLOTS } };

	for (size_t i = 0; i < UNIT_SIZE(want); i++)
		cr_expect_eq(bpf_map__max_entries(bpf_object__find_map_by_name(obj, want[i].name)),
			     want[i].entries, "map %s", want[i].name);
	cr_expect_eq(bpf_map__max_entries(bpf_object__find_map_by_name(obj, "conns")),
		     bpf_map__max_entries(bpf_object__find_map_by_name(obj, "socks")));
	bpf_object__close(obj);
}

/* The inspector reuses the pinned maps, so its view of them must be the same. */
Test(bpf_object, inspector_has_the_same_maps)
{
	struct bpf_object *a = open_object("ismredir.bpf.o"), *b = open_object("view.bpf.o");
	struct bpf_map *map, *other;

	bpf_object__for_each_map(map, b)
	{
		if (is_internal(map))
			continue;
		other = bpf_object__find_map_by_name(a, bpf_map__name(map));
		cr_assert_not_null(other, "map %s", bpf_map__name(map));
		cr_expect_eq(bpf_map__type(map), bpf_map__type(other));
		cr_expect_eq(bpf_map__key_size(map), bpf_map__key_size(other));
		cr_expect_eq(bpf_map__value_size(map), bpf_map__value_size(other));
		cr_expect_eq(bpf_map__max_entries(map), bpf_map__max_entries(other));
		cr_expect_eq(bpf_map__map_flags(map), bpf_map__map_flags(other));
	}
	bpf_object__close(a);
	bpf_object__close(b);
}

/* ---------------------------------------------------------------- the rest of an object */

/* libbpf keeps the license to itself, so look at the file. */
static void check_license(const char *file)
{
	size_t len;
	char *text = unit_read(unit_object(file), &len);

	cr_expect_not_null(memmem(text, len, "Dual BSD/GPL", sizeof("Dual BSD/GPL")), "%s", file);
	free(text);
}

Test(bpf_object, license_is_one_that_the_verifier_takes)
{
	check_license("ismredir.bpf.o");
	check_license("view.bpf.o");
}
