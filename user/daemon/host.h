/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The host page: what the daemon tells all its clients without a message, and what it measures for it. */
#ifndef ISM_DAEMON_HOST_H
#define ISM_DAEMON_HOST_H

#include <ismredir/control.h>

/**
 * struct host - the page
 * @fd: read only, for clients; its memory is sealed
 * @page: the daemon's own view
 */
struct host {
	int fd;
	struct ism_host_page *page;
};

/** host_open() - make and fill the page; negative errno */
int host_open(struct host *h, __u64 instance);

/** host_set_word() - enum ism_word for all clients */
void host_set_word(struct host *h, __u32 word);

void host_close(struct host *h);

/**
 * host_measure_wake() - nanoseconds from waking a task that sleeps on an eventfd on another CPU until
 * it runs; the median of some. 0 when there is one CPU, or it could not be measured.
 */
__u32 host_measure_wake(void);

#endif
