// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Closing what came from clients, in threads; see closer.h. */
#include "closer.h"
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define IDLE_SECONDS 2 /* then a thread ends */
#define END_SECONDS  1 /* for what is pending when the daemon ends */

struct item {
	struct item *next;
	struct account *account;
	int fd;
};

struct closer {
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	struct item *first, **last;
	unsigned int queued, threads, idle;
	int is_ending;
};

struct closer *closer_new(void)
{
	struct closer *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->work, &attr);
	pthread_cond_init(&c->done, &attr);
	pthread_condattr_destroy(&attr);
	c->last = &c->first;
	return c;
}

static struct timespec in_seconds(int s)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += s;
	return ts;
}

/* Under the lock: the next item, or NULL when there was none for a while. */
static struct item *next_item(struct closer *c)
{
	struct timespec end = in_seconds(IDLE_SECONDS);
	struct item *i;
	int rc = 0;

	c->idle++;
	while (!c->first && !c->is_ending && !rc)
		rc = pthread_cond_timedwait(&c->work, &c->lock, &end);
	c->idle--;
	i = c->first;
	if (!i)
		return NULL;
	c->first = i->next;
	if (!c->first)
		c->last = &c->first;
	c->queued--;
	return i;
}

static void finish(int fd, struct account *a)
{
	close(fd);
	if (!a)
		return;
	atomic_fetch_sub(&a->closing, 1);
	account_put(a);
}

static void *run(void *arg)
{
	struct closer *c = arg;
	struct item *i;

	pthread_mutex_lock(&c->lock);
	while ((i = next_item(c))) {
		pthread_mutex_unlock(&c->lock);
		finish(i->fd, i->account);
		free(i);
		pthread_mutex_lock(&c->lock);
	}
	c->threads--;
	pthread_cond_signal(&c->done);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* Under the lock. Without a thread the item waits for the next one. */
static void start_thread(struct closer *c)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 128 << 10);
	if (!pthread_create(&t, &attr, run, c))
		c->threads++;
	pthread_attr_destroy(&attr);
}

void closer_close(struct closer *c, int fd, struct account *a)
{
	struct item *i = malloc(sizeof(*i));

	if (a) {
		atomic_fetch_add(&a->refs, 1);
		atomic_fetch_add(&a->closing, 1);
	}
	if (!i) {
		finish(fd, a);
		return;
	}
	*i = (struct item){ .fd = fd, .account = a };
	pthread_mutex_lock(&c->lock);
	*c->last = i;
	c->last = &i->next;
	c->queued++;
	if (c->queued > c->idle && c->threads < CLOSER_THREADS)
		start_thread(c);
	pthread_cond_signal(&c->work);
	pthread_mutex_unlock(&c->lock);
}

void closer_free(struct closer *c)
{
	struct timespec end = in_seconds(END_SECONDS);
	unsigned int left;
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	c->is_ending = 1;
	pthread_cond_broadcast(&c->work);
	while (c->threads && !rc)
		rc = pthread_cond_timedwait(&c->done, &c->lock, &end);
	left = c->threads;
	pthread_mutex_unlock(&c->lock);
	if (left)
		return;
	pthread_cond_destroy(&c->work);
	pthread_cond_destroy(&c->done);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
