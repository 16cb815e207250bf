// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Provider "memfd": the loopback fabric. DMBs are sealed memfds, doorbells are eventfds; both can be
 * handed to other processes of this kernel, which is what ismredird does. Peers are the fabrics of this
 * scheme that one process has open; they find each other in a directory in its memory.
 *
 * Options: huge=SIZE (huge pages where there are some, else normal ones), pnetid=NAME, max-dmbs=N.
 */
#define _GNU_SOURCE
#include <ismredir/fabric.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "err.h"
#include "memfd_mem.h"
#include "providers.h"
#include "util.h"

#define MAX_DMBS    65536
#define MAX_DMB_LEN (128ULL << 20)
#define BUCKETS	    1024
#define MAX_EVENTS  64 /* unread signal_events of one peer */
#define QUEUE_TAG   (~0ULL) /* in epoll: the queue; else the index of a DMB */

struct memfd;

/* @serial tells a DMB from a later one with the same token. */
struct memfd_dmb {
	struct ism_dmb base;
	struct memfd *owner;
	struct memfd_dmb *next; /* in its bucket */
	struct ism_memfd mem;
	__u64 serial;
	int is_attached;
};

/* What an attachment remembers: a mapping of huge pages is longer than its DMB. */
struct attached {
	__u64 serial;
	size_t size;
};

struct pooled {
	struct pooled *next;
	struct ism_memfd mem;
	__u64 len;
};

/* @queue_lock: other peers' threads put events there. @slots: by index; @spare: indexes given back. */
struct memfd {
	struct ism_fabric base;
	struct memfd *next;
	unsigned int huge_shift;
	struct memfd_dmb **slots;
	__u32 *spare;
	__u32 n_slots, n_spare, room;
	struct pooled *pool;
	int epoll_fd, queue_fd;
	pthread_mutex_t queue_lock;
	struct ism_event queue[MAX_EVENTS];
	unsigned int n_queue;
	int is_lossy;
	struct fabric_labels labels;
};

/* All peers and DMBs of this process. move_data and attach_dmb read it, the rest writes. */
static struct {
	pthread_rwlock_t lock;
	struct memfd *peers;
	struct memfd_dmb *bucket[BUCKETS];
	__u64 serial;
} dir = { .lock = PTHREAD_RWLOCK_INITIALIZER };

static struct memfd *memfd_of(struct ism_fabric *f)
{
	return (struct memfd *)f;
}

/* Tokens are random, so their low bits spread well. */
static struct memfd_dmb **bucket_of(__u64 token)
{
	return &dir.bucket[token % BUCKETS];
}

static struct memfd_dmb *find_dmb(__u64 token)
{
	struct memfd_dmb *d = *bucket_of(token);

	while (d && d->base.token != token)
		d = d->next;
	return d;
}

static struct memfd *find_peer(const struct memfd *me, const struct ism_gid *gid)
{
	struct memfd *m = dir.peers;

	while (m && (!fabric_same_gid(&m->base.info.gid, gid) ||
		     strcmp(m->base.info.pnetid, me->base.info.pnetid)))
		m = m->next;
	return m;
}

static int refuse(struct memfd *m, int rc)
{
	m->base.counters.refused++;
	return rc;
}

/* ---------------------------------------------------------------- open and close */

static int parse_huge(const char *text, unsigned int *ret_shift)
{
	static const struct {
		const char *name;
		unsigned int shift;
	} sizes[] = { { "64k", 16 }, { "1M", 20 },  { "2M", 21 },
		      { "16M", 24 }, { "32M", 25 }, { "1G", 30 } };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (!strcmp(text, sizes[i].name)) {
			*ret_shift = sizes[i].shift;
			return 0;
		}
	return -EINVAL;
}

static int parse(struct memfd *m, const char *options, struct ism_err *err)
{
	static const char *const known[] = { "huge", "pnetid", "max-dmbs", NULL };
	struct ism_fabric_info *info = &m->base.info;
	__u64 count = info->max_dmbs;
	char value[32];
	int rc = ism_fabric_check_options(options, known, err);

	if (rc)
		return rc;
	rc = ism_fabric_option(options, "huge", value, sizeof(value));
	if (rc < 0 || (rc && parse_huge(value, &m->huge_shift)))
		return ism_err_set(err, -EINVAL, "huge: expected 64k, 1M, 2M, 16M, 32M or 1G");
	rc = ism_fabric_option(options, "max-dmbs", value, sizeof(value));
	if (rc < 0 || (rc && fabric_number(value, 1, MAX_DMBS, &count)))
		return ism_err_set(err, -EINVAL, "max-dmbs: expected 1 to %d", MAX_DMBS);
	info->max_dmbs = count;
	rc = ism_fabric_option(options, "pnetid", info->pnetid, sizeof(info->pnetid));
	if (rc < 0 || (rc && !info->pnetid[0]))
		return ism_err_set(err, -EINVAL, "pnetid: expected 1 to %d characters",
				   ISM_PNETID_LEN);
	return 0;
}

static int identify(struct memfd *m)
{
	struct ism_fabric_info *info = &m->base.info;
	int rc = fabric_boot_uuid(&info->uuid); /* the fabric is this kernel, from boot to boot */

	if (!rc)
		rc = fabric_random_gid(&info->gid);
	if (rc)
		return rc;
	info->fabric_id = info->uuid.b[0] << 8 | info->uuid.b[1];
	info->caps = ISM_FABRIC_ATTACH | ISM_FABRIC_DOORBELL | ISM_FABRIC_COHERENT |
		     ISM_FABRIC_PERSISTS | ISM_FABRIC_EXPORT;
	info->max_dmb_len = MAX_DMB_LEN;
	return 0;
}

static int open_events(struct memfd *m)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = QUEUE_TAG };

	m->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (m->epoll_fd < 0)
		return -errno;
	m->queue_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->queue_fd < 0 || epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, m->queue_fd, &ev))
		return -errno;
	return 0;
}

static void free_memfd(struct memfd *m)
{
	while (m->pool) {
		struct pooled *p = m->pool;

		m->pool = p->next;
		ism_memfd_drop(&p->mem);
		free(p);
	}
	if (m->queue_fd >= 0)
		close(m->queue_fd);
	if (m->epoll_fd >= 0)
		close(m->epoll_fd);
	pthread_mutex_destroy(&m->queue_lock);
	free(m->slots);
	free(m->spare);
	free(m);
}

static int memfd_open(const char *options, struct ism_fabric **ret, struct ism_err *err)
{
	struct memfd *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return -ENOMEM;
	m->epoll_fd = m->queue_fd = -1;
	m->base.info.max_dmbs = MAX_DMBS;
	pthread_mutex_init(&m->queue_lock, NULL);
	rc = parse(m, options, err);
	if (!rc)
		rc = identify(m);
	if (!rc)
		rc = open_events(m);
	if (rc) {
		free_memfd(m);
		return rc;
	}
	pthread_rwlock_wrlock(&dir.lock);
	m->next = dir.peers;
	dir.peers = m;
	pthread_rwlock_unlock(&dir.lock);
	*ret = &m->base;
	return 0;
}

static void memfd_unregister(struct ism_fabric *f, struct ism_dmb *dmb);

static void memfd_close(struct ism_fabric *f)
{
	struct memfd *m = memfd_of(f), **at = &dir.peers;

	for (__u32 i = 0; i < m->n_slots; i++)
		if (m->slots[i])
			memfd_unregister(f, &m->slots[i]->base);
	pthread_rwlock_wrlock(&dir.lock);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	pthread_rwlock_unlock(&dir.lock);
	free_memfd(m);
}

static int memfd_query_remote_gid(struct ism_fabric *f, const struct ism_gid *gid)
{
	int found;

	pthread_rwlock_rdlock(&dir.lock);
	found = find_peer(memfd_of(f), gid) != NULL;
	pthread_rwlock_unlock(&dir.lock);
	return found ? 0 : -EHOSTUNREACH;
}

/* ---------------------------------------------------------------- register and unregister */

static int memfd_prepare(struct ism_fabric *f, __u64 len, unsigned int want)
{
	struct memfd *m = memfd_of(f);
	unsigned int have = 0;
	struct pooled *p;
	int rc;

	for (p = m->pool; p; p = p->next)
		have += p->len == len;
	if (have >= want)
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	rc = ism_memfd_make(len, m->huge_shift, &p->mem);
	if (rc) {
		free(p);
		return rc;
	}
	p->len = len;
	p->next = m->pool;
	m->pool = p;
	m->base.counters.pooled++;
	return 1;
}

static int take_memory(struct memfd *m, __u64 len, struct ism_memfd *ret)
{
	for (struct pooled **at = &m->pool, *p; (p = *at); at = &p->next) {
		if (p->len != len)
			continue;
		*ret = p->mem;
		*at = p->next;
		m->base.counters.pooled--;
		free(p);
		return 0;
	}
	return ism_memfd_make(len, m->huge_shift, ret);
}

/* A free index, with room for it in both arrays. */
static int take_index(struct memfd *m, __u32 *ret)
{
	__u32 room = m->room ? m->room * 2 : 64;
	void *slots, *spare;

	if (m->n_spare) {
		*ret = m->spare[--m->n_spare];
		return 0;
	}
	if (m->n_slots == m->base.info.max_dmbs)
		return -ENOSPC;
	if (m->n_slots == m->room) {
		slots = realloc(m->slots, room * sizeof(*m->slots));
		if (slots)
			m->slots = slots;
		spare = realloc(m->spare, room * sizeof(*m->spare));
		if (spare)
			m->spare = spare;
		if (!slots || !spare)
			return -ENOMEM;
		m->room = room;
	}
	*ret = m->n_slots++;
	m->slots[*ret] = NULL;
	return 0;
}

/* Make its token known; until then nobody else has seen it. */
static int publish(struct memfd *m, struct memfd_dmb *d)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = d->base.index };
	int rc = 0;

	if (!d->base.exported && epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, d->mem.fds.bell, &ev))
		return -errno;
	pthread_rwlock_wrlock(&dir.lock);
	if (find_dmb(d->base.token)) {
		rc = -EEXIST;
	} else {
		d->serial = ++dir.serial;
		d->next = *bucket_of(d->base.token);
		*bucket_of(d->base.token) = d;
	}
	pthread_rwlock_unlock(&dir.lock);
	return rc;
}

/* Turn memory into a DMB. On failure @mem stays the caller's. */
static int add_dmb(struct memfd *m, const struct ism_dmb_params *p, const struct ism_memfd *mem,
		   struct ism_dmb **ret)
{
	struct memfd_dmb *d = calloc(1, sizeof(*d));
	int rc = d ? take_index(m, &d->base.index) : -ENOMEM;

	if (rc)
		goto fail;
	d->owner = m;
	d->mem = *mem;
	d->base.token = p->token;
	d->base.len = p->len;
	d->base.partner = p->partner;
	d->base.vlan = p->vlan;
	d->base.exported = p->exported;
	d->base.addr = mem->addr;
	rc = publish(m, d);
	if (rc) {
		m->spare[m->n_spare++] = d->base.index;
		goto fail;
	}
	m->slots[d->base.index] = d;
	m->base.counters.dmbs++;
	m->base.counters.dmb_bytes += p->len;
	m->base.counters.fallbacks += mem->fallback;
	*ret = &d->base;
	return 0;
fail:
	free(d);
	return rc;
}

static int token_in_use(__u64 token)
{
	int used;

	pthread_rwlock_rdlock(&dir.lock);
	used = find_dmb(token) != NULL;
	pthread_rwlock_unlock(&dir.lock);
	return used;
}

static int may_register(struct memfd *m, const struct ism_dmb_params *p)
{
	if (!fabric_has_label(&m->labels, p->vlan))
		return -ENOENT;
	if (token_in_use(p->token))
		return -EEXIST;
	return m->base.counters.dmbs < m->base.info.max_dmbs ? 0 : -ENOSPC;
}

static int memfd_register(struct ism_fabric *f, const struct ism_dmb_params *p,
			  struct ism_dmb **ret)
{
	struct memfd *m = memfd_of(f);
	struct ism_memfd mem;
	int rc = may_register(m, p);

	if (!rc)
		rc = take_memory(m, p->len, &mem);
	if (rc)
		return rc;
	if (p->init_len)
		memcpy(mem.addr, p->init, p->init_len);
	rc = add_dmb(m, p, &mem, ret);
	if (rc)
		ism_memfd_drop(&mem);
	return rc;
}

static int memfd_adopt(struct ism_fabric *f, const struct ism_dmb_params *p,
		       const struct ism_dmb_fds *fds, struct ism_dmb **ret)
{
	struct memfd *m = memfd_of(f);
	struct ism_memfd mem;
	int rc = may_register(m, p);

	if (!rc)
		rc = ism_memfd_adopt(p->len, fds, &mem);
	if (rc)
		return rc == -EPERM ? refuse(m, rc) : rc;
	rc = add_dmb(m, p, &mem, ret);
	if (rc)
		ism_memfd_drop(&mem);
	return rc;
}

static void memfd_unregister(struct ism_fabric *f, struct ism_dmb *dmb)
{
	struct memfd_dmb *d = (struct memfd_dmb *)dmb, **at = bucket_of(dmb->token);
	struct memfd *m = memfd_of(f);

	pthread_rwlock_wrlock(&dir.lock);
	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	pthread_rwlock_unlock(&dir.lock);
	if (!dmb->exported)
		epoll_ctl(m->epoll_fd, EPOLL_CTL_DEL, d->mem.fds.bell, NULL);
	m->slots[dmb->index] = NULL;
	m->spare[m->n_spare++] = dmb->index;
	m->base.counters.dmbs--;
	m->base.counters.dmb_bytes -= dmb->len;
	ism_memfd_drop(&d->mem);
	free(d);
}

static int memfd_export(struct ism_fabric *f, struct ism_dmb *dmb, struct ism_dmb_fds *ret)
{
	(void)f;
	if (!dmb->exported)
		return -EINVAL;
	*ret = ((struct memfd_dmb *)dmb)->mem.fds;
	return 0;
}

/* ---------------------------------------------------------------- the partner's side */

/* The DMB, if this peer may write it. Under the lock of the directory. */
static int as_partner(struct memfd *m, __u64 token, struct memfd_dmb **ret)
{
	struct memfd_dmb *d = find_dmb(token);

	if (!d)
		return -ENOENT;
	if (!fabric_same_gid(&d->base.partner, &m->base.info.gid) ||
	    !fabric_has_label(&m->labels, d->base.vlan) ||
	    strcmp(d->owner->base.info.pnetid, m->base.info.pnetid))
		return -EACCES;
	*ret = d;
	return 0;
}

static int map_dmb(struct memfd_dmb *d, struct ism_dmb_map *ret)
{
	struct attached *a = malloc(sizeof(*a));

	if (!a)
		return -ENOMEM;
	ret->addr = ism_memfd_map(&d->mem);
	if (!ret->addr) {
		free(a);
		return -ENOMEM;
	}
	a->serial = d->serial;
	a->size = d->mem.size;
	ret->token = d->base.token;
	ret->len = d->base.len;
	ret->priv = a;
	d->is_attached = 1;
	return 0;
}

static int memfd_attach(struct ism_fabric *f, __u64 token, struct ism_dmb_map *ret)
{
	struct memfd *m = memfd_of(f);
	struct memfd_dmb *d;
	int rc;

	pthread_rwlock_wrlock(&dir.lock);
	rc = as_partner(m, token, &d);
	if (!rc && d->is_attached)
		rc = -EBUSY;
	if (rc)
		refuse(m, rc);
	else
		rc = map_dmb(d, ret);
	pthread_rwlock_unlock(&dir.lock);
	return rc;
}

static void memfd_detach(struct ism_fabric *f, struct ism_dmb_map *map)
{
	struct attached *a = map->priv;
	struct memfd_dmb *d;

	(void)f;
	munmap(map->addr, a->size);
	pthread_rwlock_wrlock(&dir.lock);
	d = find_dmb(map->token);
	if (d && d->serial == a->serial)
		d->is_attached = 0;
	pthread_rwlock_unlock(&dir.lock);
	free(a);
	*map = (struct ism_dmb_map){};
}

static int memfd_move_data(struct ism_fabric *f, __u64 token, __u64 offset, const void *data,
			   size_t len, int signal)
{
	struct memfd *m = memfd_of(f);
	struct memfd_dmb *d;
	int rc;

	pthread_rwlock_rdlock(&dir.lock);
	rc = as_partner(m, token, &d);
	if (rc) {
		refuse(m, rc);
		goto out;
	}
	if (offset > d->base.len || len > d->base.len - offset) {
		rc = -ERANGE;
		goto out;
	}
	memcpy((char *)d->mem.addr + offset, data, len);
	m->base.counters.moves++;
	m->base.counters.moved_bytes += len;
	if (signal) {
		m->base.counters.signals++;
		fabric_ring_fd(
			d->mem.fds.bell); /* a system call: the bytes are visible before it */
	}
out:
	pthread_rwlock_unlock(&dir.lock);
	return rc;
}

/* ---------------------------------------------------------------- events */

static int put_event(struct memfd *to, const struct ism_event *e)
{
	int rc = 0;

	pthread_mutex_lock(&to->queue_lock);
	if (to->n_queue == MAX_EVENTS) {
		to->is_lossy = 1;
		rc = -ENOBUFS;
	} else {
		to->queue[to->n_queue++] = *e;
	}
	fabric_ring_fd(to->queue_fd);
	pthread_mutex_unlock(&to->queue_lock);
	return rc;
}

static int memfd_signal_event(struct ism_fabric *f, const struct ism_gid *gid, __u32 code,
			      __u64 info)
{
	struct ism_event e = { .type = ISM_EVENT_CODE, .code = code, .info = info };
	struct memfd *m = memfd_of(f), *to;
	int rc = -EHOSTUNREACH;

	e.gid = m->base.info.gid;
	pthread_rwlock_rdlock(&dir.lock);
	to = find_peer(m, gid);
	if (to)
		rc = put_event(to, &e);
	pthread_rwlock_unlock(&dir.lock);
	if (rc == -EHOSTUNREACH)
		return refuse(m, rc);
	m->base.counters.signals++;
	return rc;
}

static int memfd_event_fd(struct ism_fabric *f)
{
	return memfd_of(f)->epoll_fd;
}

/* Move up to @n queued events to @ret; the queue's eventfd stays readable while some are left. */
static unsigned int take_queued(struct memfd *m, struct ism_event *ret, unsigned int n)
{
	unsigned int taken, given = 0;
	__u64 count;
	ssize_t rc;

	pthread_mutex_lock(&m->queue_lock);
	taken = n < m->n_queue ? n : m->n_queue;
	memcpy(ret, m->queue, taken * sizeof(*ret));
	m->n_queue -= taken;
	memmove(m->queue, m->queue + taken, m->n_queue * sizeof(*ret));
	given = taken;
	if (m->is_lossy && !m->n_queue && given < n) {
		ret[given++] = (struct ism_event){ .type = ISM_EVENT_LOST };
		m->is_lossy = 0;
	}
	if (!m->n_queue && !m->is_lossy) {
		rc = read(m->queue_fd, &count, sizeof(count));
		(void)rc;
	}
	pthread_mutex_unlock(&m->queue_lock);
	return given;
}

static unsigned int take_bell(struct memfd *m, __u64 index, struct ism_event *ret)
{
	struct memfd_dmb *d = index < m->n_slots ? m->slots[index] : NULL;

	if (!d || fabric_take_bell(d->mem.fds.bell) != sizeof(__u64))
		return 0;
	*ret = (struct ism_event){ .type = ISM_EVENT_DOORBELL, .token = d->base.token };
	return 1;
}

static int memfd_read_events(struct ism_fabric *f, struct ism_event *ret, unsigned int n)
{
	struct epoll_event ev[MAX_EVENTS];
	struct memfd *m = memfd_of(f);
	unsigned int done = 0;
	int ready = epoll_wait(m->epoll_fd, ev, n < MAX_EVENTS ? n : MAX_EVENTS, 0);

	if (ready < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < ready && done < n; i++)
		if (ev[i].data.u64 != QUEUE_TAG)
			done += take_bell(m, ev[i].data.u64, ret + done);
		else
			done += take_queued(m, ret + done, n - done);
	return done;
}

/* ---------------------------------------------------------------- labels */

static int memfd_add_vlan(struct ism_fabric *f, __u16 vlan)
{
	return fabric_add_label(&memfd_of(f)->labels, vlan);
}

static int memfd_del_vlan(struct ism_fabric *f, __u16 vlan)
{
	struct memfd *m = memfd_of(f);

	if (!fabric_has_label(&m->labels, vlan))
		return -ENOENT;
	for (__u32 i = 0; i < m->n_slots; i++)
		if (m->slots[i] && m->slots[i]->base.vlan == vlan)
			return -EBUSY;
	fabric_del_label(&m->labels, vlan);
	return 0;
}

const struct ism_fabric_ops ism_fabric_memfd = {
	.scheme = "memfd",
	.open = memfd_open,
	.close = memfd_close,
	.query_remote_gid = memfd_query_remote_gid,
	.register_dmb = memfd_register,
	.unregister_dmb = memfd_unregister,
	.attach_dmb = memfd_attach,
	.detach_dmb = memfd_detach,
	.move_data = memfd_move_data,
	.signal_event = memfd_signal_event,
	.event_fd = memfd_event_fd,
	.read_events = memfd_read_events,
	.add_vlan = memfd_add_vlan,
	.del_vlan = memfd_del_vlan,
	.prepare = memfd_prepare,
	.export_dmb = memfd_export,
	.adopt_dmb = memfd_adopt,
};
