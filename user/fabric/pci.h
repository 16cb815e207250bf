/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A PCI function used from user space: BARs, and interrupts as eventfds.
 *
 * BARs are mapped by the resource files of sysfs, one descriptor for each, so that a descriptor of
 * shared memory says nothing about the rest of the device. Interrupts need vfio-pci; to bind a device to
 * it is the administrator's act. Not thread-safe for one struct; functions return 0 or a negative errno.
 */
#ifndef ISM_FABRIC_PCI_H
#define ISM_FABRIC_PCI_H

#include <stddef.h>
#include <linux/types.h>

struct ism_err;
struct ism_pci;

#define ISM_PCI_BARS 6

/**
 * enum ism_pci_how - what is wanted of the device
 * @ISM_PCI_AUTO: vfio where the device is bound to it, else without interrupts
 * @ISM_PCI_VFIO: vfio or failure
 * @ISM_PCI_BIND: as VFIO, and bind a device without a driver to vfio-pci before
 * @ISM_PCI_PLAIN: no interrupts
 * @ISM_PCI_BESIDE: as PLAIN, and also while another program has the device by vfio
 */
enum ism_pci_how {
	ISM_PCI_AUTO,
	ISM_PCI_VFIO,
	ISM_PCI_BIND,
	ISM_PCI_PLAIN,
	ISM_PCI_BESIDE,
};

/**
 * struct ism_pci_map - a mapped part of a BAR
 * @addr, @len: the mapping
 * @fd: what was mapped, for others to map; -1 when only this process can
 * @off: where @addr begins in @fd
 */
struct ism_pci_map {
	void *addr;
	size_t len;
	int fd;
	__u64 off;
};

/**
 * ism_pci_open() - take a device
 * @bdf: "0000:00:05.0"
 * @ret: to be given to ism_pci_close()
 *
 * Return: -EINVAL: @bdf is no such name; -ENODEV: no such device; -EBUSY: another driver or program has it;
 * what vfio says. @err tells what to do.
 */
int ism_pci_open(const char *bdf, enum ism_pci_how how, struct ism_pci **ret, struct ism_err *err);

/** ism_pci_close() - give it back; mappings must be gone. NULL is allowed */
void ism_pci_close(struct ism_pci *pci);

/** ism_pci_can_irq() - will ism_pci_irqs() work? */
int ism_pci_can_irq(const struct ism_pci *pci);

/** ism_pci_has_msix() - does the device say so? */
int ism_pci_has_msix(const struct ism_pci *pci);

/** ism_pci_bar_len() - bytes of a BAR, 0 when it is none of memory */
__u64 ism_pci_bar_len(const struct ism_pci *pci, unsigned int bar);

/**
 * ism_pci_map() - map @len bytes at @off of a BAR, for reading and writing
 * @off: a multiple of the page size. @len is rounded up to pages
 *
 * Return: -ERANGE: not all of it is in the BAR.
 */
int ism_pci_map(struct ism_pci *pci, unsigned int bar, __u64 off, size_t len,
		struct ism_pci_map *ret, struct ism_err *err);

/** ism_pci_unmap() - undo; also of a zeroed struct */
void ism_pci_unmap(struct ism_pci_map *map);

/**
 * ism_pci_irqs() - let MSI-X (or MSI) vectors 0 to @n - 1 fire @fds, and let the device write them
 *
 * Return: -EOPNOTSUPP: no vfio; -ENODEV: the device has no such vectors; what vfio says.
 */
int ism_pci_irqs(struct ism_pci *pci, const int *fds, unsigned int n, struct ism_err *err);

#endif
