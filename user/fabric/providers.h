/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The providers that are built in: one line each, and one in registry.c. */
#ifndef ISM_FABRIC_PROVIDERS_H
#define ISM_FABRIC_PROVIDERS_H

#include <ismredir/fabric.h>

extern const struct ism_fabric_ops ism_fabric_memfd;
extern const struct ism_fabric_ops ism_fabric_shm;
extern const struct ism_fabric_ops ism_fabric_cxl;
extern const struct ism_fabric_ops ism_fabric_ivshmem;

#endif
