// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Creates the maps that the other programs name as extern. */
#define ISM_MAP
#include "maps.bpf.h"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";
