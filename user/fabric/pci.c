// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A PCI function used from user space: sysfs for its BARs, vfio for its interrupts. See pci.h. */
#include "pci.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "err.h"

#define SYSFS	    "/sys/bus/pci"
#define MAX_VECTORS 64

struct ism_pci {
	char bdf[13];
	int resource[ISM_PCI_BARS];
	__u64 len[ISM_PCI_BARS];
	int enabled; /* by us, through sysfs */
	int container, group, device; /* of vfio, -1 without */
	int can_irq;
	unsigned int irq_index, irqs; /* armed */
};

/* ---------------------------------------------------------------- sysfs */

static int is_bdf(const char *s)
{
	unsigned int dom, bus, slot, fn;
	char end;

	return strlen(s) == 12 && sscanf(s, "%4x:%2x:%2x.%1u%c", &dom, &bus, &slot, &fn, &end) == 4;
}

static void device_path(const struct ism_pci *pci, const char *file, char *to, size_t len)
{
	snprintf(to, len, SYSFS "/devices/%s/%s", pci->bdf, file);
}

/* Config space needs no driver; the list of capabilities is the device's word and may be a circle. */
int ism_pci_has_msix(const struct ism_pci *pci)
{
	__u8 config[256] = {}, at;
	char path[PATH_MAX];
	ssize_t n = -1;
	int fd;

	device_path(pci, "config", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = pread(fd, config, sizeof(config), 0);
		close(fd);
	}
	if (n != sizeof(config) || !(config[PCI_STATUS] & PCI_STATUS_CAP_LIST))
		return 0;
	at = config[PCI_CAPABILITY_LIST] & ~3;
	for (int i = 0; at >= PCI_STD_HEADER_SIZEOF && i < 48; i++) {
		if (config[at + PCI_CAP_LIST_ID] == PCI_CAP_ID_MSIX)
			return 1;
		at = config[at + PCI_CAP_LIST_NEXT] & ~3;
	}
	return 0;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

static int write_device(const struct ism_pci *pci, const char *file, const char *text)
{
	char path[PATH_MAX];

	device_path(pci, file, path, sizeof(path));
	return write_file(path, text);
}

/* The last part of a link of the device: "" when it has none, or none that fits. */
static void link_name(const struct ism_pci *pci, const char *file, char *to, size_t len)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *name = target;
	ssize_t n;

	device_path(pci, file, path, sizeof(path));
	n = readlink(path, target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = 0;
	if (strrchr(target, '/'))
		name = strrchr(target, '/') + 1;
	*to = 0;
	if (strlen(name) < len)
		memcpy(to, name, strlen(name) + 1);
}

static void open_bars(struct ism_pci *pci)
{
	for (int i = 0; i < ISM_PCI_BARS; i++) {
		char path[PATH_MAX], name[24];
		struct stat st;

		snprintf(name, sizeof(name), "resource%d", i);
		device_path(pci, name, path, sizeof(path));
		pci->resource[i] = open(path, O_RDWR | O_CLOEXEC);
		if (pci->resource[i] >= 0 && !fstat(pci->resource[i], &st))
			pci->len[i] = st.st_size;
	}
}

/* ---------------------------------------------------------------- vfio */

static void vfio_close(struct ism_pci *pci)
{
	int *fds[] = { &pci->device, &pci->group, &pci->container };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

/* @ret_noiommu: the group of a machine without an IOMMU, whose administrator allows it all the same. */
static int open_group(struct ism_pci *pci, int *ret_noiommu, struct ism_err *err)
{
	char group[64], path[96];

	link_name(pci, "iommu_group", group, sizeof(group));
	if (!group[0])
		return ism_err_set(err, -ENODEV,
				   "%s has no IOMMU group: without an IOMMU (a virtual "
				   "one will do) or vfio's enable_unsafe_noiommu_mode there are no "
				   "interrupts; irq=none polls",
				   pci->bdf);
	for (*ret_noiommu = 0; *ret_noiommu < 2; ++*ret_noiommu) {
		snprintf(path, sizeof(path), "/dev/vfio/%s%s", *ret_noiommu ? "noiommu-" : "",
			 group);
		pci->group = open(path, O_RDWR | O_CLOEXEC);
		if (pci->group >= 0)
			return 0;
		if (errno != ENOENT)
			break;
	}
	return ism_err_set(err, -errno, "%s: %s", path,
			   errno == EBUSY ? "another program has the device" : strerror(errno));
}

static int open_device(struct ism_pci *pci, int noiommu, struct ism_err *err)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };

	pci->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (pci->container < 0)
		return ism_err_set(err, -errno, "/dev/vfio/vfio: %s", strerror(errno));
	if (ioctl(pci->group, VFIO_GROUP_GET_STATUS, &status))
		return ism_err_set(err, -errno, "%s: vfio group: %s", pci->bdf, strerror(errno));
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return ism_err_set(err, -EBUSY,
				   "%s: other devices of its IOMMU group have other drivers",
				   pci->bdf);
	if (ioctl(pci->group, VFIO_GROUP_SET_CONTAINER, &pci->container) ||
	    ioctl(pci->container, VFIO_SET_IOMMU,
		  noiommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU))
		return ism_err_set(err, -errno, "%s: vfio IOMMU: %s", pci->bdf, strerror(errno));
	pci->device = ioctl(pci->group, VFIO_GROUP_GET_DEVICE_FD, pci->bdf);
	if (pci->device < 0)
		return ism_err_set(err, -errno, "%s: vfio device: %s", pci->bdf, strerror(errno));
	return 0;
}

/* Memory on; and bus master, without which a device cannot send its interrupts, which are writes. */
static int set_command(struct ism_pci *pci, struct ism_err *err)
{
	struct vfio_region_info config = { .argsz = sizeof(config),
					   .index = VFIO_PCI_CONFIG_REGION_INDEX };
	__u16 command;

	if (ioctl(pci->device, VFIO_DEVICE_GET_REGION_INFO, &config) ||
	    pread(pci->device, &command, sizeof(command), config.offset + PCI_COMMAND) !=
		    sizeof(command))
		return ism_err_set(err, -EIO, "%s: config space cannot be read", pci->bdf);
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	if (pwrite(pci->device, &command, sizeof(command), config.offset + PCI_COMMAND) !=
	    sizeof(command))
		return ism_err_set(err, -EIO, "%s: config space cannot be written", pci->bdf);
	return 0;
}

static int vfio_open(struct ism_pci *pci, struct ism_err *err)
{
	int noiommu = 0, rc = open_group(pci, &noiommu, err);

	if (!rc)
		rc = open_device(pci, noiommu, err);
	if (!rc)
		rc = set_command(pci, err);
	if (rc)
		vfio_close(pci);
	return rc;
}

static int vfio_bind(struct ism_pci *pci, struct ism_err *err)
{
	int rc = write_device(pci, "driver_override", "vfio-pci");

	if (!rc)
		rc = write_file(SYSFS "/drivers_probe", pci->bdf);
	if (rc)
		return ism_err_set(err, rc,
				   "%s cannot be bound to vfio-pci: %s; is the module loaded?",
				   pci->bdf, strerror(-rc));
	return 0;
}

/* ---------------------------------------------------------------- open and close */

/* Without a driver nobody has switched it on. */
static int plain_open(struct ism_pci *pci, struct ism_err *err)
{
	int rc = write_device(pci, "enable", "1");

	if (rc)
		return ism_err_set(err, rc, "%s cannot be enabled: %s", pci->bdf, strerror(-rc));
	pci->enabled = 1;
	return 0;
}

static int take(struct ism_pci *pci, enum ism_pci_how how, struct ism_err *err)
{
	char driver[64];
	int rc;

	link_name(pci, "driver", driver, sizeof(driver));
	if (how == ISM_PCI_BIND && !driver[0]) {
		rc = vfio_bind(pci, err);
		if (rc)
			return rc;
		link_name(pci, "driver", driver, sizeof(driver));
	}
	/* Also without interrupts: what is bound to a driver cannot be enabled otherwise. */
	if (!strcmp(driver, "vfio-pci")) {
		rc = vfio_open(pci, how == ISM_PCI_BESIDE ? NULL : err);
		return rc == -EBUSY && how == ISM_PCI_BESIDE ? 0 : rc;
	}
	if (how == ISM_PCI_VFIO || how == ISM_PCI_BIND)
		return ism_err_set(err, -ENODEV,
				   "%s is not bound to vfio-pci: modprobe vfio-pci; echo vfio-pci "
				   ">" SYSFS "/devices/%s/driver_override; echo %s >" SYSFS
				   "/drivers_probe; or bind=vfio",
				   pci->bdf, pci->bdf, pci->bdf);
	if (driver[0])
		return ism_err_set(err, -EBUSY, "%s has the driver %s", pci->bdf, driver);
	return plain_open(pci, err);
}

int ism_pci_open(const char *bdf, enum ism_pci_how how, struct ism_pci **ret, struct ism_err *err)
{
	struct ism_pci *pci;
	char path[PATH_MAX];
	int rc;

	if (!is_bdf(bdf))
		return ism_err_set(err, -EINVAL,
				   "\"%.20s\" is no PCI device; expected 0000:00:05.0", bdf);
	pci = calloc(1, sizeof(*pci));
	if (!pci)
		return -ENOMEM;
	memcpy(pci->bdf, bdf, sizeof(pci->bdf));
	pci->container = pci->group = pci->device = -1;
	for (int i = 0; i < ISM_PCI_BARS; i++)
		pci->resource[i] = -1;
	device_path(pci, "config", path, sizeof(path));
	if (access(path, F_OK))
		rc = ism_err_set(err, -ENODEV, "there is no PCI device %s", bdf);
	else
		rc = take(pci, how, err);
	if (rc) {
		ism_pci_close(pci);
		return rc;
	}
	open_bars(pci);
	pci->can_irq = pci->device >= 0 && how != ISM_PCI_PLAIN && how != ISM_PCI_BESIDE;
	*ret = pci;
	return 0;
}

static void disarm(struct ism_pci *pci)
{
	struct vfio_irq_set set = { .argsz = sizeof(set),
				    .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
				    .index = pci->irq_index };

	if (pci->irqs)
		ioctl(pci->device, VFIO_DEVICE_SET_IRQS, &set);
	pci->irqs = 0;
}

void ism_pci_close(struct ism_pci *pci)
{
	if (!pci)
		return;
	disarm(pci);
	vfio_close(pci);
	for (int i = 0; i < ISM_PCI_BARS; i++)
		if (pci->resource[i] >= 0)
			close(pci->resource[i]);
	if (pci->enabled)
		write_device(pci, "enable", "0");
	free(pci);
}

int ism_pci_can_irq(const struct ism_pci *pci)
{
	return pci->can_irq;
}

/* ---------------------------------------------------------------- BARs */

__u64 ism_pci_bar_len(const struct ism_pci *pci, unsigned int bar)
{
	return bar < ISM_PCI_BARS ? pci->len[bar] : 0;
}

/* Where a BAR is in the descriptor of vfio, for kernels that forbid sysfs (lockdown). */
static int vfio_bar(const struct ism_pci *pci, unsigned int bar, __u64 *ret)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = bar };

	if (pci->device < 0 || ioctl(pci->device, VFIO_DEVICE_GET_REGION_INFO, &info) ||
	    !(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return -EOPNOTSUPP;
	*ret = info.offset;
	return 0;
}

int ism_pci_map(struct ism_pci *pci, unsigned int bar, __u64 off, size_t len,
		struct ism_pci_map *ret, struct ism_err *err)
{
	__u64 page = sysconf(_SC_PAGESIZE), all = ism_pci_bar_len(pci, bar), base;
	size_t pages = (len + page - 1) & ~(page - 1);
	int prot = PROT_READ | PROT_WRITE;

	*ret = (struct ism_pci_map){ .fd = -1 };
	if (off % page)
		return ism_err_set(err, -EINVAL, "%s: BAR %u: offset %llu is no multiple of a page",
				   pci->bdf, bar, off);
	if (!len || pages < len || off > all || len > all - off)
		return ism_err_set(err, -ERANGE, "%s: BAR %u has %llu bytes", pci->bdf, bar, all);
	ret->addr = mmap(NULL, pages, prot, MAP_SHARED, pci->resource[bar], off);
	if (ret->addr != MAP_FAILED) {
		ret->fd = pci->resource[bar];
		ret->off = off;
	} else if (!vfio_bar(pci, bar, &base)) {
		ret->addr = mmap(NULL, pages, prot, MAP_SHARED, pci->device, base + off);
	}
	if (ret->addr == MAP_FAILED) {
		ret->addr = NULL;
		return ism_err_set(err, -errno, "%s: BAR %u cannot be mapped: %s", pci->bdf, bar,
				   strerror(errno));
	}
	ret->len = pages;
	return 0;
}

void ism_pci_unmap(struct ism_pci_map *map)
{
	if (map->addr)
		munmap(map->addr, map->len);
	*map = (struct ism_pci_map){ .fd = -1 };
}

/* ---------------------------------------------------------------- interrupts */

static unsigned int count_vectors(struct ism_pci *pci, unsigned int index)
{
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = index };

	return ioctl(pci->device, VFIO_DEVICE_GET_IRQ_INFO, &info) ? 0 : info.count;
}

int ism_pci_irqs(struct ism_pci *pci, const int *fds, unsigned int n, struct ism_err *err)
{
	_Alignas(struct vfio_irq_set) char
		room[sizeof(struct vfio_irq_set) + MAX_VECTORS * sizeof(int)];
	struct vfio_irq_set *set = (struct vfio_irq_set *)room;
	unsigned int index = VFIO_PCI_MSIX_IRQ_INDEX;

	if (!pci->can_irq)
		return ism_err_set(err, -EOPNOTSUPP, "%s: no interrupts without vfio-pci",
				   pci->bdf);
	if (!n || n > MAX_VECTORS)
		return ism_err_set(err, -EINVAL, "vectors=%u: 1 to %d", n, MAX_VECTORS);
	if (count_vectors(pci, index) < n)
		index = VFIO_PCI_MSI_IRQ_INDEX;
	if (count_vectors(pci, index) < n)
		return ism_err_set(err, -ENODEV, "%s has no %u interrupt vectors", pci->bdf, n);
	disarm(pci);
	*set = (struct vfio_irq_set){
		.argsz = sizeof(*set) + n * sizeof(int),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = index,
		.count = n,
	};
	memcpy(room + sizeof(*set), fds, n * sizeof(int));
	if (ioctl(pci->device, VFIO_DEVICE_SET_IRQS, set))
		return ism_err_set(err, -errno, "%s: interrupts: %s", pci->bdf, strerror(errno));
	pci->irq_index = index;
	pci->irqs = n;
	return 0;
}
