// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What looks from outside, with what it calls, as one translation unit; see ismredir.bpf.c for why. */
#include "maps.bpf.h"
#include "waiters.bpf.c"
#include "inspect.bpf.c"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";
