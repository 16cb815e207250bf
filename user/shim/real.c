// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Looks up the C library's own functions; see real.h. */
#include "real.h"
#include <dlfcn.h>

struct ism_real real;

/* dlsym() allocates only to report an error, and none of these lookups may fail but for new names. */
void ism_real_init(void)
{
	if (real.ready)
		return;
#define ISM_REAL_LOOKUP(ret, name, args) real.name = dlsym(RTLD_NEXT, #name);
	ISM_REAL(ISM_REAL_LOOKUP)
#undef ISM_REAL_LOOKUP
	real.ready = 1;
}

/* Before the constructors of the program, and alone: only the dynamic linker runs. */
__attribute__((constructor(101))) static void init_early(void)
{
	ism_real_init();
}
