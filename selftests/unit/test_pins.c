// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The pin directory: its name, paths below it, its lock, and taking it away. No BPF is pinned. */
#include "unit.h"
#include <limits.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <ismredir/maps.h>
#include "pins.h"

static char top[PATH_MAX];

/* ISMREDIR_PIN_DIR below a scratch directory; not made yet. */
static void use_scratch(void)
{
	char dir[PATH_MAX + 8];

	strcpy(top, unit_dir());
	snprintf(dir, sizeof(dir), "%s/pins", top);
	setenv("ISMREDIR_PIN_DIR", dir, 1);
}

static void drop_scratch(void)
{
	rmdir(ism_pin_dir());
	cr_expect_eq(rmdir(top), 0, "%s: %s", top, strerror(errno));
}

static void touch(const char *name)
{
	char path[PATH_MAX + 64];
	int fd;

	cr_assert_eq(ism_pin_path(path, sizeof(path), name), 0);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
	close(fd);
}

static int exists(const char *name)
{
	char path[PATH_MAX + 64];

	cr_assert_eq(ism_pin_path(path, sizeof(path), name), 0);
	return !access(path, F_OK);
}

Test(pins, the_directory)
{
	unsetenv("ISMREDIR_PIN_DIR");
	cr_expect_str_eq(ism_pin_dir(), ISM_PIN_DIR);
	setenv("ISMREDIR_PIN_DIR", "", 1);
	cr_expect_str_eq(ism_pin_dir(), ISM_PIN_DIR);
	setenv("ISMREDIR_PIN_DIR", "/some/where", 1);
	cr_expect_str_eq(ism_pin_dir(), "/some/where");
}

Test(pins, path_fits_or_is_refused)
{
	char buf[32];

	setenv("ISMREDIR_PIN_DIR", "/pin/dir", 1);
	cr_expect_eq(ism_pin_path(buf, sizeof(buf), "conns"), 0);
	cr_expect_str_eq(buf, "/pin/dir/conns");
	cr_expect_eq(ism_pin_path(buf, strlen("/pin/dir/conns") + 1, "conns"), 0);
	memset(buf, 0x5a, sizeof(buf));
	cr_expect_eq(ism_pin_path(buf, strlen("/pin/dir/conns"), "conns"), -ENAMETOOLONG);
	cr_expect_eq(buf[strlen("/pin/dir/conns")], 0x5a);
}

Test(pins, bpffs_wanted)
{
	struct ism_err err = {};

	use_scratch();
	cr_expect_eq(ism_pins_check_fs(&err), -ENODEV);
	cr_expect_not_null(strstr(err.text, "is not a bpffs"), "%s", err.text);
	cr_expect_not_null(strstr(err.text, "mount -t bpf"), "says what to do: %s", err.text);
	drop_scratch();
}

Test(pins, parent_missing)
{
	struct ism_err err = {};

	setenv("ISMREDIR_PIN_DIR", "/no/such/place/ismredir", 1);
	cr_expect_eq(ism_pins_check_fs(&err), -ENOENT);
	cr_expect_not_null(strstr(err.text, "/no/such/place"), "%s", err.text);
}

Test(pins, bpffs_found)
{
	struct ism_err err = {};
	struct statfs fs;

	unsetenv("ISMREDIR_PIN_DIR");
	if (statfs("/sys/fs/bpf", &fs) || (unsigned int)fs.f_type != BPF_FS_MAGIC)
		cr_skip_test("no bpffs at /sys/fs/bpf");
	cr_expect_eq(ism_pins_check_fs(&err), 0, "%s", err.text);
	cr_expect_str_empty(err.text);
}

Test(pins, nothing_there)
{
	struct ism_err err = {};

	use_scratch();
	cr_expect_eq(ism_pins_lock(0, &err), -ENOENT);
	cr_expect_not_null(strstr(err.text, "not loaded"), "%s", err.text);
	cr_expect_neq(access(ism_pin_dir(), F_OK), 0, "looking made the directory");
	cr_expect_eq(ism_pins_each_link(NULL, NULL), -ENOENT);
	cr_expect_eq(ism_pins_remove("conns"), 0);
	cr_expect_eq(ism_pins_remove_all(&err), 0);
	cr_expect_lt(ism_pins_open_map("conns"), 0);
	cr_expect_lt(ism_pins_open_link("link_skmsg"), 0);
	drop_scratch();
}

Test(pins, lock_makes_a_private_directory)
{
	struct ism_err err = {};
	struct stat st;
	int fd;

	use_scratch();
	fd = ism_pins_lock(1, &err);
	cr_assert(fd >= 0, "%s", err.text);
	cr_expect(!stat(ism_pin_dir(), &st) && S_ISDIR(st.st_mode));
	cr_expect_eq(st.st_mode & 0077, 0);
	cr_expect_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
	fd = ism_pins_lock(0, &err);
	cr_expect(fd >= 0, "closing did not unlock: %s", err.text);
	close(fd);
	drop_scratch();
}

#ifndef __SANITIZE_ADDRESS__ /* it waits for ten seconds, once is enough */
Test(pins, one_writer_at_a_time)
{
	struct ism_err err = {};
	int first, second;

	use_scratch();
	first = ism_pins_lock(1, &err);
	cr_assert(first >= 0, "%s", err.text);
	second = ism_pins_lock(1, &err);
	cr_expect_eq(second, -EBUSY);
	cr_expect_not_null(strstr(err.text, "another ismredir"), "%s", err.text);
	close(first);
	drop_scratch();
}
#endif

Test(pins, lock_where_a_file_is)
{
	struct ism_err err = {};

	use_scratch();
	close(open(ism_pin_dir(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	cr_expect_eq(ism_pins_lock(1, &err), -ENOTDIR, "%s", err.text);
	cr_expect_str_not_empty(err.text);
	unlink(ism_pin_dir());
	drop_scratch();
}

struct names {
	unsigned int n;
	unsigned int other;
	int stop;
};

static int count_link(const char *name, void *arg)
{
	struct names *c = arg;

	c->n++;
	c->other += strncmp(name, "link_", 5) != 0;
	return c->stop;
}

Test(pins, links_are_told_by_their_names)
{
	struct names c = {};

	use_scratch();
	cr_assert_eq(mkdir(ism_pin_dir(), 0700), 0);
	touch("conns");
	touch("links");
	touch("link_skmsg");
	touch("link_sockops_1");
	cr_expect_eq(ism_pins_each_link(count_link, &c), 0);
	cr_expect_eq(c.n, 2);
	cr_expect_eq(c.other, 0);
	c = (struct names){ .stop = 5 };
	cr_expect_eq(ism_pins_each_link(count_link, &c), 5);
	cr_expect_eq(c.n, 1);
	cr_expect_eq(ism_pins_remove_all(NULL), 0);
	drop_scratch();
}

Test(pins, remove_one)
{
	use_scratch();
	cr_assert_eq(mkdir(ism_pin_dir(), 0700), 0);
	touch("conns");
	touch("socks");
	cr_expect_eq(ism_pins_remove("conns"), 0);
	cr_expect_not(exists("conns"));
	cr_expect(exists("socks"));
	cr_expect_eq(ism_pins_remove("conns"), 0, "a missing one is no error");
	cr_expect_eq(ism_pins_remove_all(NULL), 0);
	drop_scratch();
}

Test(pins, remove_all)
{
	struct ism_err err = {};

	use_scratch();
	cr_assert_eq(mkdir(ism_pin_dir(), 0700), 0);
	touch("conns");
	touch("link_skmsg");
	touch("link_sockops_42");
	touch("ctl");
	cr_expect_eq(ism_pins_remove_all(&err), 0, "%s", err.text);
	cr_expect_neq(access(ism_pin_dir(), F_OK), 0);
	drop_scratch();
}

/* Something that is not ours in the directory: told, and nothing of it removed. */
Test(pins, remove_all_meets_a_directory)
{
	struct ism_err err = {};
	char sub[PATH_MAX + 64];

	use_scratch();
	cr_assert_eq(mkdir(ism_pin_dir(), 0700), 0);
	cr_assert_eq(ism_pin_path(sub, sizeof(sub), "foreign"), 0);
	cr_assert_eq(mkdir(sub, 0700), 0);
	cr_expect_lt(ism_pins_remove_all(&err), 0);
	cr_expect_not_null(strstr(err.text, "foreign"), "%s", err.text);
	cr_expect_eq(rmdir(sub), 0);
	drop_scratch();
}
