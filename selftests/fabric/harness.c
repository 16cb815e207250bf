// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the contract suite needs for fabrics that are regions: one for each test, and patience. */
#include "contract.h"
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>
#include "region_check.h"

#define REGION_FD    500 /* out of the way of tests that look which descriptors are free */
#define REGION_SIZE  (256 << 20) /* sparse */
#define REGION_SLOTS 8
#define LINGER_MS    250 /* a peer without interrupts looks after mails that often, and more */

/* ---------------------------------------------------------------- specs */

static void make_region(void)
{
	int fd = memfd_create("region", MFD_CLOEXEC);
	struct region_geometry g = { .peers = REGION_SLOTS, .dmbs = 160 };
	struct region_mem m = { .len = REGION_SIZE, .is_coherent = 1 };
	struct ism_err err = {};

	cr_assert(fd >= 0 && !fchmod(fd, 0600) && !ftruncate(fd, REGION_SIZE));
	m.base = mmap(NULL, m.len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq((void *)m.base, MAP_FAILED);
	cr_assert_eq(region_format(&m, &g, &err), 0, "%s", err.text);
	munmap(m.base, m.len);
	cr_assert_eq(fcntl(fd, F_DUPFD_CLOEXEC, REGION_FD), REGION_FD);
	close(fd);
}

/* In a guest that has them all specs are replaced by this one. */
static __attribute__((constructor)) void take_devices(void)
{
	static const struct spec of_devices = { "ivshmem:$", "ivshmem:$,pnetid=OTHER",
						"ivshmem:$,max-dmbs=3", 3 };

	if (!getenv("ISM_CONTRACT_DEVICES"))
		return;
	contract_specs[0] = of_devices;
	contract_n_specs = 1;
}

/* Has this process the device? One can be opened once. */
static int is_open(const char *bdf)
{
	char path[80], group[256] = "", name[300], target[300];
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	cr_assert_gt(readlink(path, group, sizeof(group) - 1), 0);
	snprintf(name, sizeof(name), "/dev/vfio/%s", strrchr(group, '/') + 1);
	for (int fd = 0; fd < 256; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = 0;
		if (!strcmp(target, name))
			return 1;
	}
	return 0;
}

/* The first that is not open. All of them have the same memory, which is new in each test. */
static const char *free_device(void)
{
	static char list[256];
	static int has_region;
	struct region_geometry g = { .peers = REGION_SLOTS, .dmbs = 160 };
	struct ism_err err = {};
	char spec[64], *bdf;

	snprintf(list, sizeof(list), "%s", getenv("ISM_CONTRACT_DEVICES"));
	bdf = strtok(list, " ");
	snprintf(spec, sizeof(spec), "ivshmem:%s", bdf);
	if (!has_region)
		cr_assert_eq(region_format_spec(spec, 0, &g, 1, &err), 0, "%s", err.text);
	has_region = 1;
	while (bdf && is_open(bdf))
		bdf = strtok(NULL, " ");
	cr_assert_not_null(bdf, "too few devices");
	return bdf;
}

static void exec_server(const char *memory, const char *path, int out)
{
	char size[16];

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	dup2(out, STDOUT_FILENO);
	snprintf(size, sizeof(size), "%d", REGION_SIZE);
	execlp("python3", "python3", ISM_SELFTESTS "/vm/ivshmem_server.py", "--size", size,
	       "--memory", memory, path, NULL);
	_exit(127);
}

/* An ivshmem server with the region as its memory; it ends with the test. Returns its socket. */
static const char *start_server(void)
{
	static char path[64];
	char memory[48], line[8];
	int out[2];
	pid_t pid;

	if (path[0])
		return path;
	snprintf(path, sizeof(path), "/tmp/ism-contract-%d.sock", getpid());
	snprintf(memory, sizeof(memory), "/proc/%d/fd/%d", getpid(), REGION_FD);
	cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid)
		exec_server(memory, path, out[1]);
	close(out[1]);
	cr_assert_gt(read(out[0], line, sizeof(line)), 0, "the server does not start");
	cr_assert_eq(fcntl(out[0], F_DUPFD_CLOEXEC, REGION_FD + 1), REGION_FD + 1);
	close(out[0]);
	return path;
}

const char *spec_text(const char *spec)
{
	static char text[128];
	static unsigned int slot;
	int has_slot = 0;
	size_t n = 0;

	if (strpbrk(spec, "@%") && fcntl(REGION_FD, F_GETFD) < 0)
		make_region();
	for (; *spec; spec++)
		if (*spec == '@') {
			n += sprintf(text + n, "/proc/self/fd/%d", REGION_FD);
		} else if (*spec == '$') {
			n += sprintf(text + n, "%s", free_device());
		} else if (*spec == '%') {
			n += sprintf(text + n, "%s", start_server());
		} else if (*spec == '#') {
			n += sprintf(text + n, "%u", slot);
			has_slot = 1;
		} else {
			text[n++] = *spec;
		}
	text[n] = 0;
	if (has_slot)
		slot = (slot + 1) % REGION_SLOTS;
	return text;
}

/* ---------------------------------------------------------------- events */

static struct ism_event seen;
static struct ism_fabric *seen_by;

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* event_fd may be ready for what is only the fabric's: an event has to be there as well. */
int is_ready(struct ism_fabric *f, int ms)
{
	int is_polling = has(f, ISM_FABRIC_BY_TOKEN), rc = 0;
	int64_t until = now_ms() + (is_polling && ms < LINGER_MS ? LINGER_MS : ms);
	struct pollfd p = { .fd = ism_fabric_event_fd(f), .events = POLLIN };

	if (seen_by == f)
		return 1;
	cr_assert_null(seen_by, "two fabrics are looked at in turn");
	do {
		int64_t left = until - now_ms();

		if (poll(&p, 1, left > 0 ? left : 0) != 1)
			return 0;
		if (!is_polling)
			return 1;
		rc = ism_fabric_read_events(f, &seen, 1);
		cr_assert_geq(rc, 0);
	} while (!rc);
	seen_by = f;
	return 1;
}

int take_events(struct ism_fabric *f, struct ism_event *ret, unsigned int n)
{
	int rc;

	if (seen_by != f)
		return ism_fabric_read_events(f, ret, n);
	seen_by = NULL;
	*ret = seen;
	rc = n > 1 ? ism_fabric_read_events(f, ret + 1, n - 1) : 0;
	return rc < 0 ? rc : rc + 1;
}
