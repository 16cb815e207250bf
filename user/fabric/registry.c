// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* From a spec to a provider, and the checks in front of every op; see include/ismredir/fabric.h. */
#include <ismredir/fabric.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "err.h"
#include "providers.h"

static const struct ism_fabric_ops *const providers[] = {
	&ism_fabric_memfd, &ism_fabric_shm, &ism_fabric_cxl, &ism_fabric_ivshmem, NULL,
};

const struct ism_fabric_ops *const *ism_fabric_providers(void)
{
	return providers;
}

/* ---------------------------------------------------------------- opening */

int ism_fabric_open(const char *spec, struct ism_fabric **ret, struct ism_err *err)
{
	const char *colon = strchr(spec, ':');
	int rc;

	*ret = NULL;
	if (!colon)
		return ism_err_set(err, -EINVAL, "fabric \"%s\": expected SCHEME:OPTIONS", spec);
	for (const struct ism_fabric_ops *const *p = providers; *p; p++) {
		size_t len = strlen((*p)->scheme);

		if (len != (size_t)(colon - spec) || memcmp(spec, (*p)->scheme, len))
			continue;
		rc = (*p)->open(colon + 1, ret, err);
		if (rc)
			return ism_err_set(err, rc, "fabric %s: %s", spec, strerror(-rc));
		(*ret)->ops = *p;
		snprintf((*ret)->info.spec, sizeof((*ret)->info.spec), "%s", spec);
		return 0;
	}
	return ism_err_set(err, -EINVAL, "fabric \"%s\": there is no provider \"%.*s\"", spec,
			   (int)(colon - spec), spec);
}

void ism_fabric_close(struct ism_fabric *f)
{
	if (f)
		f->ops->close(f);
}

/* The next NAME[=VALUE] at @p, up to a ',' or the end; returns what follows, or NULL. */
static const char *next_option(const char *p, size_t *ret_name, const char **ret_value,
			       size_t *ret_len)
{
	size_t all = strcspn(p, ",");

	*ret_name = strcspn(p, "=,");
	*ret_value = *ret_name < all ? p + *ret_name + 1 : p + all;
	*ret_len = p + all - *ret_value;
	return p[all] ? p + all + 1 : NULL;
}

int ism_fabric_option(const char *options, const char *name, char *buf, size_t len)
{
	const char *p = *options ? options : NULL, *value, *here;
	size_t name_len, value_len;

	while (p) {
		here = p;
		p = next_option(p, &name_len, &value, &value_len);
		if (name_len != strlen(name) || memcmp(here, name, name_len))
			continue;
		if (value_len >= len)
			return -ENAMETOOLONG;
		memcpy(buf, value, value_len);
		buf[value_len] = 0;
		return 1;
	}
	return 0;
}

/* How often the option of @len bytes at @name stands in the text. */
static unsigned int count_option(const char *options, const char *name, size_t len)
{
	const char *p = *options ? options : NULL, *value, *here;
	size_t name_len, value_len;
	unsigned int n = 0;

	while (p) {
		here = p;
		p = next_option(p, &name_len, &value, &value_len);
		n += name_len == len && !memcmp(here, name, len);
	}
	return n;
}

int ism_fabric_check_options(const char *options, const char *const *known, struct ism_err *err)
{
	const char *p = *options ? options : NULL, *value, *here;
	size_t name_len, value_len;

	while (p) {
		const char *const *k = known;

		here = p;
		p = next_option(p, &name_len, &value, &value_len);
		while (*k && (strlen(*k) != name_len || memcmp(*k, here, name_len)))
			k++;
		if (!*k)
			return ism_err_set(err, -EINVAL, "unknown fabric option \"%.*s\"",
					   (int)name_len, here);
		if (count_option(options, here, name_len) > 1)
			return ism_err_set(err, -EINVAL, "fabric option \"%.*s\" is there twice",
					   (int)name_len, here);
	}
	return 0;
}

/* ---------------------------------------------------------------- the ops, checked */

static int is_nobody(const struct ism_gid *gid)
{
	static const struct ism_gid nobody;

	return !memcmp(gid, &nobody, sizeof(nobody));
}

int ism_fabric_query_remote_gid(struct ism_fabric *f, const struct ism_gid *gid)
{
	return is_nobody(gid) ? -EINVAL : f->ops->query_remote_gid(f, gid);
}

int ism_fabric_peers(struct ism_fabric *f, struct ism_peer_info *ret, unsigned int n)
{
	if (!f->ops->peers)
		return -EOPNOTSUPP;
	return n ? f->ops->peers(f, ret, n) : -EINVAL;
}

static int check_params(struct ism_fabric *f, const struct ism_dmb_params *p)
{
	int by_token = is_nobody(&p->partner);

	if (!p->token || !p->len || p->len > f->info.max_dmb_len || p->vlan > ISM_VLAN_MAX ||
	    by_token != !!p->partner_token)
		return -EINVAL;
	return by_token && !(f->info.caps & ISM_FABRIC_BY_TOKEN) ? -EINVAL : 0;
}

int ism_fabric_register_dmb(struct ism_fabric *f, const struct ism_dmb_params *p,
			    struct ism_dmb **ret)
{
	int rc = check_params(f, p);

	if (!rc && (p->init_len > p->len || (p->init_len && !p->init)))
		rc = -EINVAL;
	return rc ? rc : f->ops->register_dmb(f, p, ret);
}

void ism_fabric_unregister_dmb(struct ism_fabric *f, struct ism_dmb *dmb)
{
	if (dmb)
		f->ops->unregister_dmb(f, dmb);
}

int ism_fabric_attach_dmb(struct ism_fabric *f, __u64 token, struct ism_dmb_map *ret)
{
	if (!f->ops->attach_dmb)
		return -EOPNOTSUPP;
	return token ? f->ops->attach_dmb(f, token, ret) : -EINVAL;
}

void ism_fabric_detach_dmb(struct ism_fabric *f, struct ism_dmb_map *map)
{
	if (f->ops->detach_dmb)
		f->ops->detach_dmb(f, map);
}

int ism_fabric_move_data(struct ism_fabric *f, __u64 token, __u64 offset, const void *data,
			 size_t len, int signal)
{
	if (!token || !len || !data)
		return -EINVAL;
	if (len > f->info.max_dmb_len || offset > f->info.max_dmb_len - len)
		return -ERANGE;
	return f->ops->move_data(f, token, offset, data, len, signal);
}

int ism_fabric_ring(struct ism_fabric *f, __u64 token)
{
	if (!f->ops->ring)
		return -EOPNOTSUPP;
	return token ? f->ops->ring(f, token) : -EINVAL;
}

void ism_fabric_fetch(struct ism_fabric *f, struct ism_dmb *dmb, __u64 offset, size_t len)
{
	if (f->ops->fetch)
		f->ops->fetch(f, dmb, offset, len);
}

int ism_fabric_query_dmb(struct ism_fabric *f, __u64 token, struct ism_gid *owner, __u64 *len)
{
	if (!f->ops->query_dmb)
		return -EOPNOTSUPP;
	return token ? f->ops->query_dmb(f, token, owner, len) : -EINVAL;
}

int ism_fabric_signal_event(struct ism_fabric *f, const struct ism_gid *gid, __u32 code, __u64 info)
{
	if (!f->ops->signal_event)
		return -EOPNOTSUPP;
	return is_nobody(gid) ? -EINVAL : f->ops->signal_event(f, gid, code, info);
}

int ism_fabric_event_fd(struct ism_fabric *f)
{
	return f->ops->event_fd(f);
}

int ism_fabric_read_events(struct ism_fabric *f, struct ism_event *ret, unsigned int n)
{
	return n ? f->ops->read_events(f, ret, n) : -EINVAL;
}

int ism_fabric_add_vlan(struct ism_fabric *f, __u16 vlan)
{
	if (!f->ops->add_vlan)
		return -EOPNOTSUPP;
	return vlan && vlan <= ISM_VLAN_MAX ? f->ops->add_vlan(f, vlan) : -EINVAL;
}

int ism_fabric_del_vlan(struct ism_fabric *f, __u16 vlan)
{
	if (!f->ops->del_vlan)
		return -EOPNOTSUPP;
	return vlan && vlan <= ISM_VLAN_MAX ? f->ops->del_vlan(f, vlan) : -EINVAL;
}

int ism_fabric_prepare(struct ism_fabric *f, __u64 len, unsigned int want)
{
	if (!f->ops->prepare)
		return 0;
	return len && len <= f->info.max_dmb_len ? f->ops->prepare(f, len, want) : -EINVAL;
}

int ism_fabric_export_dmb(struct ism_fabric *f, struct ism_dmb *dmb, struct ism_dmb_fds *ret)
{
	return f->ops->export_dmb ? f->ops->export_dmb(f, dmb, ret) : -EOPNOTSUPP;
}

int ism_fabric_export_map(struct ism_fabric *f, const struct ism_dmb_map *map,
			  struct ism_dmb_fds *ret)
{
	return f->ops->export_map ? f->ops->export_map(f, map, ret) : -EOPNOTSUPP;
}

int ism_fabric_adopt_dmb(struct ism_fabric *f, const struct ism_dmb_params *p,
			 const struct ism_dmb_fds *fds, struct ism_dmb **ret)
{
	int rc = check_params(f, p);

	if (!f->ops->adopt_dmb)
		return -EOPNOTSUPP;
	if (rc || fds->bell < 0 || (fds->read < 0 && fds->write < 0))
		return -EINVAL;
	return f->ops->adopt_dmb(f, p, fds, ret);
}
