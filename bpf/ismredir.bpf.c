// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What load pins, as one translation unit: libbpf 1.1 cannot link objects that name the same kernel
 * function or symbol. Each role has its own file.
 */
#include "maps.bpf.h"
#include "waiters.bpf.c"
#include "handshake.bpf.c"
#include "redirect.bpf.c"
#include "sockopt.bpf.c"

char LICENSE[] SEC("license")
= "Dual BSD/GPL";
