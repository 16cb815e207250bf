// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The memory and the bells of ivshmem: those of a PCI device, or of an ivshmem server that this process
 * is a peer of. docs/fabric-provider.rst has specs and layouts.
 */
#define _GNU_SOURCE
#include <ismredir/region.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bar_layout.h"
#include "err.h"
#include "ivclient.h"
#include "ivshmem_dev.h"
#include "pci.h"
#include "region.h"
#include "util.h"

#define MAX_NUMBER 65535 /* of a peer, for any device */
#define MAX_WHERE  120 /* a path that fits into sun_path, and "unix:" */

static const char *const options_known[] = { ISM_BAR_OPTIONS, "irq", "bind", NULL };

/* ---------------------------------------------------------------- a PCI device */

struct bar_dev {
	struct ism_bar_layout layout;
	struct ism_pci *pci;
	struct ism_pci_map memory, bells;
	int bell;
};

static void bar_close(struct region_dev *dev)
{
	struct bar_dev *b = dev->priv;

	ism_pci_unmap(&b->memory);
	ism_pci_unmap(&b->bells);
	ism_pci_close(b->pci);
	if (b->bell >= 0)
		close(b->bell);
	free(b);
}

/* What was stored in the memory is there before the bell. */
static void bar_ring(struct region_dev *dev, __u64 number)
{
	struct bar_dev *b = dev->priv;
	volatile __u32 *reg;
	__u64 off;

	if (number > MAX_NUMBER)
		return;
	off = ism_bar_bell_offset(&b->layout, number);
	if (off + sizeof(*reg) > b->bells.len)
		return;
	reg = (volatile __u32 *)((char *)b->bells.addr + off);
	__sync_synchronize();
	*reg = htole32(ism_bar_bell_value(&b->layout, number));
}

static const struct region_dev_ops bar_ops = { .ring = bar_ring, .close = bar_close };
static const struct region_dev_ops bar_silent_ops = { .close = bar_close };

static int map_memory(struct bar_dev *b, struct region_dev *dev, struct ism_err *err)
{
	const struct ism_bar_layout *l = &b->layout;
	__u64 all = ism_pci_bar_len(b->pci, l->mem_bar);
	__u64 len = l->mem_len ? l->mem_len : all > l->mem_off ? all - l->mem_off : 0;
	int rc = ism_pci_map(b->pci, l->mem_bar, l->mem_off, len, &b->memory, err);

	if (rc)
		return rc;
	dev->base = b->memory.addr;
	dev->len = len;
	dev->fd = b->memory.fd;
	dev->fd_off = b->memory.off;
	if (dev->fd >= 0)
		dev->lock_fd = fabric_reopen(dev->fd, O_RDWR);
	return dev->lock_fd < 0 && dev->fd >= 0 ? dev->lock_fd : 0;
}

static int map_bells(struct bar_dev *b, struct ism_err *err)
{
	if (b->layout.bell_bar == ISM_BAR_NONE)
		return 0;
	return ism_pci_map(b->pci, b->layout.bell_bar, 0,
			   ism_bar_bell_offset(&b->layout, ISM_REGION_MAX_PEERS - 1) +
				   sizeof(__u32),
			   &b->bells, err);
}

/* QEMU's device without interrupts has the register of the number, too, and always 0 in it. */
static int own_number(struct bar_dev *b, struct region_dev *dev, struct ism_err *err)
{
	struct ism_pci_map map;
	__u32 id;
	int rc;

	if (b->layout.id_bar == ISM_BAR_NONE || !ism_pci_has_msix(b->pci))
		return 0;
	rc = ism_pci_map(b->pci, b->layout.id_bar, 0, b->layout.id_off + sizeof(id), &map, err);
	if (rc)
		return rc;
	id = le32toh(*(volatile __u32 *)((char *)map.addr + b->layout.id_off));
	ism_pci_unmap(&map);
	dev->number = id;
	dev->is_sole = 1;
	return 0;
}

static int arm(struct bar_dev *b, struct region_dev *dev, struct ism_err *err)
{
	if (!ism_pci_can_irq(b->pci))
		return 0;
	b->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->bell < 0)
		return -errno;
	dev->bell_fd = b->bell;
	return ism_pci_irqs(b->pci, &b->bell, 1, err);
}

/* Which way to interrupts: irq=, bind=. */
static int parse_how(const char *options, enum ism_pci_how *ret, struct ism_err *err)
{
	char text[16];
	int rc = ism_fabric_option(options, "bind", text, sizeof(text));

	*ret = ISM_PCI_AUTO;
	if (rc < 0 || (rc && strcmp(text, "vfio")))
		return ism_err_set(err, -EINVAL, "bind=vfio is all that there is");
	if (rc)
		*ret = ISM_PCI_BIND;
	rc = ism_fabric_option(options, "irq", text, sizeof(text));
	if (!rc)
		return 0;
	if (rc > 0 && !strcmp(text, "none"))
		*ret = ISM_PCI_PLAIN;
	else if (rc > 0 && !strcmp(text, "vfio"))
		*ret = *ret == ISM_PCI_BIND ? ISM_PCI_BIND : ISM_PCI_VFIO;
	else if (rc < 0 || strcmp(text, "auto"))
		return ism_err_set(err, -EINVAL, "irq=: expected auto, vfio or none");
	return 0;
}

/* Before anybody else has it. */
static void give_up(struct region_dev *dev)
{
	if (dev->lock_fd >= 0)
		close(dev->lock_fd);
	dev->ops->close(dev);
}

static struct bar_dev *new_bar(struct region_dev *dev, const char *options, struct ism_err *err)
{
	struct bar_dev *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->bell = -1;
	dev->priv = b;
	dev->ops = &bar_silent_ops;
	if (!ism_bar_layout_parse(options, &b->layout, err)) {
		/* A board's memory is what its makers say it is: coherent=yes. */
		dev->is_coherent = !strcmp(b->layout.name, "ivshmem");
		return b;
	}
	bar_close(dev);
	return NULL;
}

static int open_bar(const char *bdf, const char *options, struct region_dev *dev,
		    struct ism_err *err)
{
	struct bar_dev *b = new_bar(dev, options, err);
	enum ism_pci_how how;
	int rc;

	if (!b)
		return -EINVAL;
	rc = parse_how(options, &how, err);
	if (!rc)
		rc = ism_pci_open(bdf, how, &b->pci, err);
	if (!rc)
		rc = map_memory(b, dev, err);
	if (!rc)
		rc = map_bells(b, err);
	if (!rc)
		rc = own_number(b, dev, err);
	if (!rc)
		rc = arm(b, dev, err);
	if (rc) {
		give_up(dev);
		return rc;
	}
	if (b->bells.addr)
		dev->ops = &bar_ops;
	return 0;
}

static int map_bar(const char *bdf, const char *options, struct region_dev *dev,
		   struct ism_err *err)
{
	struct bar_dev *b = new_bar(dev, options, err);
	int rc;

	if (!b)
		return -EINVAL;
	rc = ism_pci_open(bdf, ISM_PCI_BESIDE, &b->pci, err);
	if (!rc)
		rc = map_memory(b, dev, err);
	if (rc)
		give_up(dev);
	return rc;
}

/* ---------------------------------------------------------------- a server */

struct client_dev {
	struct ism_ivclient *client;
	void *base;
	size_t len;
	int fd; /* of this process' own */
};

/*
 * A byte of the memory's file for each number, locked through the descriptor that programs get: as long
 * as one of them has it mapped it stays locked, whatever became of us. The core's own bytes are below.
 */
#define IN_USE(number) (2 * 4096 + (number))

static struct flock in_use(unsigned int number, short type)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = IN_USE(number), .l_len = 1
	};
}

static void client_close(struct region_dev *dev)
{
	struct client_dev *c = dev->priv;

	if (c->base)
		munmap(c->base, c->len);
	if (c->fd >= 0)
		close(c->fd);
	ism_ivclient_close(c->client);
	free(c);
}

static void client_ring(struct region_dev *dev, __u64 number)
{
	struct client_dev *c = dev->priv;

	ism_ivclient_ring(c->client, number);
}

static void client_drain(struct region_dev *dev)
{
	struct client_dev *c = dev->priv;

	ism_ivclient_drain(c->client);
}

/* A guest has gone when its QEMU has left the server; a process' programs may have stayed behind. */
static int client_peer_gone(struct region_dev *dev, __u64 number)
{
	struct client_dev *c = dev->priv;
	struct flock lock = in_use(number & MAX_NUMBER, F_WRLCK);
	int known = ism_ivclient_knows(c->client, number);

	if (known)
		return known < 0 ? -1 : 0;
	if (fcntl(c->fd, F_OFD_GETLK, &lock))
		return -1;
	return lock.l_type == F_UNLCK;
}

static const struct region_dev_ops client_ops = {
	.ring = client_ring,
	.drain = client_drain,
	.peer_gone = client_peer_gone,
	.close = client_close,
};

static int map_file(struct client_dev *c, struct region_dev *dev, struct ism_err *err)
{
	struct stat st;

	if (fstat(c->fd, &st) || !st.st_size)
		return ism_err_set(err, -EPROTO, "the server's memory is empty");
	dev->base = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (dev->base == MAP_FAILED)
		return ism_err_set(err, -errno, "the server's memory cannot be mapped: %s",
				   strerror(errno));
	c->base = dev->base;
	c->len = dev->len = st.st_size;
	dev->fd = c->fd;
	dev->lock_fd = fabric_reopen(c->fd, O_RDWR);
	return dev->lock_fd < 0 ? dev->lock_fd : 0;
}

/* Join, and mark the number; several may, an heir and what is left of who was killed. */
static int join(const char *path, struct client_dev *c, struct ism_err *err)
{
	int rc = ism_ivclient_open(path, &c->client, err);
	struct flock lock;

	if (rc)
		return rc;
	/* All peers have got the same open file; a lock needs one of our own. */
	c->fd = fabric_reopen(ism_ivclient_memory(c->client), O_RDWR);
	if (c->fd < 0)
		return ism_err_set(err, c->fd, "the server's memory cannot be opened: %s",
				   strerror(-c->fd));
	lock = in_use(ism_ivclient_id(c->client), F_RDLCK);
	if (fcntl(c->fd, F_OFD_SETLK, &lock))
		return ism_err_set(err, -errno, "the server's memory cannot be locked: %s",
				   strerror(errno));
	return 0;
}

static int open_client(const char *path, struct region_dev *dev, struct ism_err *err)
{
	struct client_dev *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->fd = -1;
	dev->priv = c;
	rc = join(path, c, err);
	if (!rc)
		rc = map_file(c, dev, err);
	if (rc) {
		client_close(dev);
		return rc;
	}
	dev->number = ism_ivclient_id(c->client);
	dev->bell_fd = ism_ivclient_fd(c->client);
	dev->is_coherent = 1;
	dev->ops = &client_ops;
	return 0;
}

/* ---------------------------------------------------------------- from outside */

/* What is before the first ',' of a spec, and what is behind it. */
static int split(const char *spec, char *where, size_t len, const char **ret_options,
		 struct region_dev *dev, struct ism_err *err)
{
	size_t n = strcspn(spec, ",");

	*ret_options = spec[n] ? spec + n + 1 : "";
	*dev = (struct region_dev){ .fd = -1, .lock_fd = -1, .number = -1, .bell_fd = -1 };
	if (n >= len)
		return ism_err_set(err, -ENAMETOOLONG, "%.40s...: too long", spec);
	memcpy(where, spec, n);
	where[n] = 0;
	return 0;
}

int ism_ivshmem_open(const char *spec, struct region_dev *dev, const char **ret_options,
		     struct ism_err *err)
{
	char where[MAX_WHERE];
	int rc = split(spec, where, sizeof(where), ret_options, dev, err);

	if (rc)
		return rc;
	if (!strncmp(where, "unix:", 5))
		return open_client(where + 5, dev, err);
	dev->options = options_known;
	return open_bar(where, *ret_options, dev, err);
}

int ism_ivshmem_map(const char *spec, struct region_dev *dev, struct ism_err *err)
{
	char where[MAX_WHERE];
	const char *options;
	int rc = split(spec, where, sizeof(where), &options, dev, err);

	if (rc)
		return rc;
	if (!strncmp(where, "unix:", 5))
		return open_client(where + 5, dev, err);
	return map_bar(where, options, dev, err);
}
