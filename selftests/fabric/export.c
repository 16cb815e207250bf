// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * DMBs as descriptors: what they allow and what they do not, and that nothing but one of them can be
 * given back. For every provider that can hand DMBs out.
 */
#include "contract.h"
#include <stdio.h>
#include <sys/eventfd.h>

static struct ism_dmb_params exported(__u64 token, const struct ism_fabric *f)
{
	struct ism_dmb_params p = params(token, f);

	p.exported = 1;
	return p;
}

/* A fabric with one exported DMB; NULL when the provider cannot do that. */
static struct ism_fabric *export_one(const struct spec *spec, struct ism_dmb **ret,
				     struct ism_dmb_fds *fds)
{
	struct ism_fabric *a = peer(spec->spec);
	struct ism_dmb_params p = exported(9, a);

	if (!has(a, ISM_FABRIC_EXPORT)) {
		ism_fabric_close(a);
		return NULL;
	}
	cr_assert_eq(ism_fabric_register_dmb(a, &p, ret), 0);
	cr_assert_eq(ism_fabric_export_dmb(a, *ret, fds), 0);
	return a;
}

static struct ism_dmb_fds dup_fds(const struct ism_dmb_fds *fds)
{
	struct ism_dmb_fds copy = { dup(fds->read), dup(fds->write), dup(fds->bell), fds->off };

	cr_assert(copy.read >= 0 && copy.write >= 0 && copy.bell >= 0);
	return copy;
}

static void close_fds(struct ism_dmb_fds *fds)
{
	close(fds->read);
	close(fds->write);
	close(fds->bell);
}

CONTRACT(exported_memory)
{
	struct ism_dmb_fds fds;
	struct ism_dmb *d;
	struct ism_fabric *a = export_one(spec, &d, &fds);
	size_t map_len = 2 << 20;
	struct stat st;
	char *r, *w;

	if (!a)
		return;
	cr_assert_eq(fstat(fds.write, &st), 0);
	if (st.st_size - fds.off < map_len)
		map_len = st.st_size - fds.off;
	cr_expect_geq(st.st_size, LEN);
	w = mmap(NULL, map_len, PROT_READ | PROT_WRITE, MAP_SHARED, fds.write, fds.off);
	r = mmap(NULL, map_len, PROT_READ, MAP_SHARED, fds.read, fds.off);
	cr_assert(w != MAP_FAILED && r != MAP_FAILED);
	strcpy(w + LEN - 8, "written");
	cr_expect_str_eq(r + LEN - 8, "written");
	cr_expect_str_eq((char *)d->addr + LEN - 8, "written");
	cr_expect_eq(mmap(NULL, map_len, PROT_READ | PROT_WRITE, MAP_SHARED, fds.read, fds.off),
		     MAP_FAILED, "the owner could write");
	cr_expect_eq(mprotect(r, map_len, PROT_READ | PROT_WRITE), -1);
	cr_expect_lt(write(fds.read, "x", 1), 0);
	munmap(w, map_len);
	munmap(r, map_len);
	ism_fabric_close(a);
}

/* Nobody can take memory away under somebody else's mapping, or lock it. */
CONTRACT(exported_memory_is_sealed)
{
	struct ism_dmb_fds fds;
	struct ism_dmb *d;
	struct ism_fabric *a = export_one(spec, &d, &fds);
	struct stat st;

	if (!a)
		return;
	cr_assert_eq(fstat(fds.write, &st), 0);
	if (!has(a, ISM_FABRIC_WHOLE)) { /* else it goes to users only who are trusted with it */
		cr_expect_eq(ftruncate(fds.write, 0), -1);
		cr_expect_eq(ftruncate(fds.write, 2 * st.st_size), -1);
		cr_expect_eq(fcntl(fds.write, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
		cr_expect_eq(fcntl(fds.write, F_ADD_SEALS, F_SEAL_WRITE), -1);
	}
	cr_expect_eq(fcntl(fds.write, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	cr_expect_eq(fcntl(fds.read, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	cr_expect_eq(fcntl(fds.bell, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ism_fabric_close(a);
}

/* As another user, in a child: 0 when neither way to write works. */
static int try_as_nobody(int fd)
{
	char path[32];

	if (setgid(65534) || setuid(65534))
		return 77;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (open(path, O_RDWR) >= 0 || open(path, O_WRONLY) >= 0)
		return 1;
	if (!fchmod(fd, 0777))
		return 2;
	return 0;
}

CONTRACT(read_only_stays_read_only)
{
	struct ism_dmb_fds fds;
	struct ism_dmb *d;
	struct ism_fabric *a = export_one(spec, &d, &fds);
	int status;
	pid_t pid;

	if (!a)
		return;
	pid = fork();
	if (!pid)
		_exit(try_as_nobody(fds.read));
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	ism_fabric_close(a);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		cr_skip_test("only root can become somebody else");
	cr_expect(WIFEXITED(status) && !WEXITSTATUS(status), "way %d works", WEXITSTATUS(status));
}

CONTRACT(exported_bell)
{
	struct ism_dmb_fds fds;
	struct ism_dmb *d, *plain;
	struct ism_fabric *a = export_one(spec, &d, &fds);
	struct pollfd p;
	__u64 n;

	if (!a)
		return;
	p = (struct pollfd){ .fd = fds.bell, .events = POLLIN };
	cr_expect_eq(poll(&p, 1, 0), 0);
	cr_expect_eq(ism_fabric_move_data(a, 9, 0, "x", 1, 1), 0);
	cr_expect_not(is_ready(a, 0), "it is for who got the descriptor");
	cr_expect_eq(poll(&p, 1, 0), 1);
	cr_expect_eq(read(fds.bell, &n, sizeof(n)), (ssize_t)sizeof(n));
	cr_expect_eq(read(fds.bell, &n, sizeof(n)), -1, "it does not block");
	plain = dmb_for(a, a, 10);
	cr_expect_eq(ism_fabric_export_dmb(a, plain, &fds), -EINVAL, "its bell is read_events'");
	ism_fabric_close(a);
}

/* What an earlier owner handed out comes back, with all or with some descriptors. */
CONTRACT(adopt)
{
	static const int given[][2] = { { 1, 1 }, { 1, 0 }, { 0, 1 } };
	struct ism_dmb_fds fds, copy, back, again;
	struct ism_dmb_params p;
	struct ism_dmb *d;
	struct ism_fabric *a = export_one(spec, &d, &fds), *b;
	struct stat before, after;

	if (!a || !has(a, ISM_FABRIC_PERSISTS))
		return;
	strcpy((char *)d->addr + 5000, "kept");
	cr_assert_eq(fstat(fds.read, &before), 0);
	copy = dup_fds(&fds);
	ism_fabric_close(a);
	for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
		b = peer(spec->spec);
		p = exported(9, b);
		back = dup_fds(&copy);
		for (int j = 0; j < 2; j++)
			if (!given[i][j]) {
				close(j ? back.write : back.read);
				*(j ? &back.write : &back.read) = -1;
			}
		cr_assert_eq(ism_fabric_adopt_dmb(b, &p, &back, &d), 0, "way %zu", i);
		cr_expect_eq(fcntl(back.bell, F_GETFD), -1, "it belongs to the provider now");
		cr_expect_str_eq((char *)d->addr + 5000, "kept");
		cr_assert_eq(ism_fabric_export_dmb(b, d, &again), 0);
		cr_expect_eq(fcntl(again.read, F_GETFL) & O_ACCMODE, O_RDONLY);
		cr_expect_eq(fcntl(again.write, F_GETFL) & O_ACCMODE, O_RDWR);
		cr_expect_eq(fstat(again.write, &after), 0);
		cr_expect_eq(after.st_ino, before.st_ino);
		cr_expect_eq(b->counters.dmbs, 1);
		ism_fabric_close(b);
	}
	close_fds(&copy);
}

/* A memfd with everything right but what the case names. */
static int almost(size_t len, int seals, mode_t mode)
{
	int fd = memfd_create("almost", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	cr_assert(fd >= 0 && !ftruncate(fd, len) && !fchmod(fd, mode) &&
		  !fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

static void refused(struct ism_fabric *f, struct ism_dmb_fds fds, const char *why)
{
	struct ism_dmb_params p = exported(77, f);
	__u64 before = f->counters.refused;
	struct ism_dmb *d;

	cr_expect_eq(ism_fabric_adopt_dmb(f, &p, &fds, &d), -EPERM, "%s", why);
	cr_expect_eq(f->counters.refused, before + 1, "%s", why);
	cr_expect_eq(f->counters.dmbs, 0, "%s", why);
	cr_expect_geq(fcntl(fds.bell, F_GETFD), 0, "%s: the caller's descriptors were closed", why);
}

CONTRACT(adopt_takes_nothing_else)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	const size_t len = (LEN + 4095) / 4096 * 4096;
	int bell = eventfd(0, EFD_CLOEXEC), pipes[2], fd;
	struct ism_fabric *f = peer(spec->spec);

	if (!has(f, ISM_FABRIC_PERSISTS))
		goto out;
	cr_assert(bell >= 0 && !pipe(pipes));
	fd = open("/dev/null", O_RDWR);
	refused(f, (struct ism_dmb_fds){ fd, -1, bell, 0 }, "a device");
	refused(f, (struct ism_dmb_fds){ pipes[0], -1, bell, 0 }, "a pipe");
	refused(f, (struct ism_dmb_fds){ -1, bell, bell, 0 }, "an eventfd as memory");
	close(fd);
	fd = almost(len, F_SEAL_SHRINK, 0600);
	refused(f, (struct ism_dmb_fds){ -1, fd, bell, 0 }, "it can grow, and be sealed more");
	close(fd);
	fd = almost(len, seals | F_SEAL_FUTURE_WRITE, 0600);
	refused(f, (struct ism_dmb_fds){ -1, fd, bell, 0 }, "it cannot be written");
	close(fd);
	fd = almost(len, seals, 0644);
	refused(f, (struct ism_dmb_fds){ -1, fd, bell, 0 }, "others can open it");
	close(fd);
	fd = almost(len + 4096, seals, 0600);
	refused(f, (struct ism_dmb_fds){ -1, fd, bell, 0 }, "too long");
	close(fd);
	fd = almost(len - 4096, seals, 0600);
	refused(f, (struct ism_dmb_fds){ -1, fd, bell, 0 }, "too short");
	close(fd);
	fd = almost(len, seals, 0600);
	refused(f, (struct ism_dmb_fds){ -1, fd, pipes[1], 0 }, "a pipe as bell");
	refused(f, (struct ism_dmb_fds){ -1, fd, fd, 0 }, "memory as bell");
	pipes[1] = almost(len, seals, 0600);
	refused(f, (struct ism_dmb_fds){ fd, pipes[1], bell, 0 }, "two memories");
	close(fd);
out:
	ism_fabric_close(f);
}

/* Somebody who is not this user made it: everything else about it is right. */
CONTRACT(adopt_knows_its_own)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	struct ism_fabric *f = peer(spec->spec);
	int bell = eventfd(0, EFD_CLOEXEC), fd;

	if (!has(f, ISM_FABRIC_PERSISTS) || has(f, ISM_FABRIC_WHOLE) || getuid())
		goto out;
	fd = almost((LEN + 4095) / 4096 * 4096, seals, 0600);
	cr_assert_eq(fchown(fd, 65534, 65534), 0);
	refused(f, (struct ism_dmb_fds){ -1, fd, bell, 0 }, "of another user");
	cr_assert_eq(fchown(fd, 0, 0), 0);
	{
		struct ism_dmb_params p = exported(77, f);
		struct ism_dmb_fds fds = { -1, fd, bell, 0 };
		struct ism_dmb *d;

		cr_expect_eq(ism_fabric_adopt_dmb(f, &p, &fds, &d), 0, "and it was only that");
	}
out:
	ism_fabric_close(f);
}

/* Descriptors neither leak nor are closed twice. */
CONTRACT(descriptors_are_given_back)
{
	int lowest = dup(0), now;

	close(lowest);
	for (int i = 0; i < 20; i++) {
		struct ism_fabric *a = peer(spec->spec);
		struct ism_dmb_map map;

		while (ism_fabric_prepare(a, LEN, 2) == 1)
			;
		for (__u64 t = 1; t < 6; t++)
			dmb_for(a, a, t);
		if (has(a, ISM_FABRIC_ATTACH)) {
			cr_assert_eq(ism_fabric_attach_dmb(a, 3, &map), 0);
			ism_fabric_detach_dmb(a, &map);
		}
		ism_fabric_close(a);
	}
	now = dup(0);
	cr_expect_eq(now, lowest);
	close(now);
}
