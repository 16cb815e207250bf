// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The control socket; see server.h. */
#define _GNU_SOURCE
#include "server.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "client.h"
#include "log.h"

#define BACKLOG	 256
#define RETRY_US 500000ULL

static int make_dir(const char *socket, struct ism_err *err)
{
	char buf[PATH_MAX], *dir;

	snprintf(buf, sizeof(buf), "%s", socket);
	dir = dirname(buf);
	if (!mkdir(dir, 0755)) {
		if (chmod(dir, 0755)) /* whatever the umask */
			return ism_err_set(err, -errno, "chmod %s: %s", dir, strerror(errno));
		return 0;
	}
	if (errno == EEXIST)
		return 0;
	return ism_err_set(err, -errno, "mkdir %s: %s", dir, strerror(errno));
}

/* The file is removed by who holds the lock, so after locking it must still be the one in the directory. */
static int lock(struct server *s, struct ism_err *err)
{
	struct stat mine, there;

	for (;;) {
		s->lock_fd = open(s->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (s->lock_fd < 0)
			return ism_err_set(err, -errno, "%s: %s", s->lock_path, strerror(errno));
		if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
			close(s->lock_fd);
			s->lock_fd = -1;
			return ism_err_set(err, -EADDRINUSE, "another ismredird serves %s",
					   s->d->opt.socket);
		}
		if (!fstat(s->lock_fd, &mine) && !stat(s->lock_path, &there) &&
		    mine.st_dev == there.st_dev && mine.st_ino == there.st_ino)
			return 0;
		close(s->lock_fd);
	}
}

/* Only a socket is in the way: other things are not ours to remove. */
static int remove_stale(const char *path, struct ism_err *err)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0
				       : ism_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return ism_err_set(err, -EEXIST, "%s is there and is no socket", path);
	if (unlink(path) && errno != ENOENT)
		return ism_err_set(err, -errno, "unlink %s: %s", path, strerror(errno));
	return 0;
}

/* Nobody can connect before listen(), and by then it has its mode. */
static int bind_socket(struct server *s, struct ism_err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const struct options *o = &s->d->opt;
	struct stat st;

	strcpy(addr.sun_path, o->socket);
	s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    (o->group != (gid_t)-1 && chown(o->socket, -1, o->group)) ||
	    chmod(o->socket, o->mode) || lstat(o->socket, &st) || listen(s->fd, BACKLOG))
		return ism_err_set(err, -errno, "socket %s: %s", o->socket, strerror(errno));
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

static int on_retry(sd_event_source *src, uint64_t usec, void *arg)
{
	struct server *s = arg;

	(void)src;
	(void)usec;
	sd_event_source_set_enabled(s->io, SD_EVENT_ON);
	return 0;
}

/* Without descriptors the queue would stay readable and the loop would spin. */
static void pause_accepting(struct server *s)
{
	uint64_t now;

	log_client(LOG_ERR, "accept: %s", strerror(errno));
	if (sd_event_now(s->d->event, CLOCK_MONOTONIC, &now) < 0)
		return;
	sd_event_source_set_enabled(s->io, SD_EVENT_OFF);
	sd_event_source_set_time(s->retry, now + RETRY_US);
	sd_event_source_set_enabled(s->retry, SD_EVENT_ONESHOT);
}

static int on_connect(sd_event_source *src, int fd, uint32_t revents, void *arg)
{
	struct server *s = arg;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), rc;

	(void)src;
	(void)revents;
	if (client < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			pause_accepting(s);
		return 0;
	}
	rc = client_new(s->d, client);
	if (rc && rc != -EUSERS)
		log_client(LOG_ERR, "new client: %s", strerror(-rc));
	return 0;
}

int server_open(struct server *s, struct daemon *d, struct ism_err *err)
{
	const char *path = d->opt.socket;
	int rc;

	*s = (struct server){ .d = d, .fd = -1, .lock_fd = -1 };
	if (!*path || strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return ism_err_set(err, -ENAMETOOLONG, "%s: path of a socket is too long", path);
	snprintf(s->lock_path, sizeof(s->lock_path), "%s.lock", path);
	rc = make_dir(path, err);
	if (!rc)
		rc = lock(s, err);
	if (!rc)
		rc = remove_stale(path, err);
	if (!rc)
		rc = bind_socket(s, err);
	if (rc)
		return rc;
	rc = sd_event_add_io(d->event, &s->io, s->fd, EPOLLIN, on_connect, s);
	if (rc >= 0)
		rc = sd_event_add_time(d->event, &s->retry, CLOCK_MONOTONIC, 0, 0, on_retry, s);
	if (rc >= 0)
		rc = sd_event_source_set_enabled(s->retry, SD_EVENT_OFF);
	return rc < 0 ? ism_err_set(err, rc, "event loop: %s", strerror(-rc)) : 0;
}

void server_close(struct server *s)
{
	struct stat st;

	sd_event_source_disable_unref(s->io);
	sd_event_source_disable_unref(s->retry);
	if (s->ino && !lstat(s->d->opt.socket, &st) && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->d->opt.socket);
	if (s->fd >= 0)
		close(s->fd);
	if (s->lock_fd < 0)
		return;
	unlink(s->lock_path);
	close(s->lock_fd);
}
