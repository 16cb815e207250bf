/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Process 1 of a test guest: runs what the host asks for, and tells output and exit status.
 *
 * The channel is the virtio-serial port "ismredir.cmd". Both directions carry messages: struct head,
 * then @len bytes. Commands run side by side, each in a process group of its own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum kind {
	HELLO = 1, /* to the host: ready */
	RUN, /* to the guest: shell text */
	KILL, /* to the guest: end this command and all that it started */
	OUTPUT, /* to the host */
	END, /* to the host: wait status, uint32_t */
	POWEROFF, /* to the guest */
};

struct head {
	uint32_t kind;
	uint32_t id;
	uint32_t len;
};

#define MAX_JOBS 64
#define MAX_TEXT 65536

struct job {
	pid_t pid;
	int out;
	uint32_t id;
};

static struct job jobs[MAX_JOBS];
static int port;

static void die(const char *what)
{
	dprintf(2, "agent: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
	exit(1);
}

static void put(const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(port, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("channel");
		p += n;
		len -= (size_t)n;
	}
}

static void tell(uint32_t kind, uint32_t id, const void *data, uint32_t len)
{
	struct head h = { kind, id, len };

	put(&h, sizeof(h));
	put(data, len);
}

/* The host's end may not be open yet: such a port reads as ended. */
static void get(void *data, size_t len)
{
	char *p = data;

	while (len) {
		ssize_t n = read(port, p, len);

		if (n < 0 && errno != EINTR)
			die("channel");
		if (n == 0)
			usleep(10000);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
}

static int open_port(void)
{
	const char *dir = "/sys/class/virtio-ports";
	DIR *d = opendir(dir);
	struct dirent *e;
	int fd = -1;

	while (d && fd < 0 && (e = readdir(d))) {
		char path[512], name[64] = "";
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s/name", dir, e->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (!fgets(name, sizeof(name), f))
			name[0] = 0;
		fclose(f);
		snprintf(path, sizeof(path), "/dev/%s", e->d_name);
		if (!strcmp(name, "ismredir.cmd\n"))
			fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (d)
		closedir(d);
	return fd;
}

static void child(const char *text, int out)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	dup2(null, 0);
	dup2(out, 1);
	dup2(out, 2);
	execl("/bin/sh", "sh", "-c", text, (char *)NULL);
	_exit(127);
}

static void start(uint32_t id, const char *text)
{
	struct job *j = jobs;
	int pipefd[2];

	while (j < jobs + MAX_JOBS && j->pid)
		j++;
	if (j == jobs + MAX_JOBS || pipe2(pipefd, O_CLOEXEC))
		die("too many commands");
	j->pid = fork();
	if (j->pid < 0)
		die("fork");
	if (!j->pid)
		child(text, pipefd[1]);
	close(pipefd[1]);
	fcntl(pipefd[0], F_SETFL, O_NONBLOCK);
	j->out = pipefd[0];
	j->id = id;
}

static void stop(uint32_t id)
{
	for (struct job *j = jobs; j < jobs + MAX_JOBS; j++) {
		if (j->pid && j->id == id)
			kill(-j->pid, SIGKILL);
	}
}

static void obey(void)
{
	static char text[MAX_TEXT + 1];
	struct head h;

	get(&h, sizeof(h));
	if (h.len > MAX_TEXT) {
		errno = EMSGSIZE;
		die("command");
	}
	get(text, h.len);
	text[h.len] = 0;
	if (h.kind == RUN)
		start(h.id, text);
	else if (h.kind == KILL)
		stop(h.id);
	else if (h.kind == POWEROFF)
		die("power off"); /* errno means nothing then */
}

/* Returns 0 when the pipe has ended. */
static int forward(struct job *j)
{
	static char buf[16384];
	ssize_t n;

	while ((n = read(j->out, buf, sizeof(buf))) > 0)
		tell(OUTPUT, j->id, buf, (uint32_t)n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	close(j->out);
	j->out = -1;
	return 0;
}

/* A command ends with its shell: what it left running keeps its pipe, and is not waited for. */
static void reap(void)
{
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (struct job *j = jobs; j < jobs + MAX_JOBS; j++) {
			uint32_t s = (uint32_t)status;

			if (j->pid != pid)
				continue;
			if (j->out >= 0 && forward(j))
				close(j->out);
			tell(END, j->id, &s, sizeof(s));
			j->pid = 0;
		}
	}
}

static void serve(int sigs)
{
	struct pollfd p[MAX_JOBS + 2];

	for (;;) {
		p[0] = (struct pollfd){ .fd = port, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = sigs, .events = POLLIN };
		for (int i = 0; i < MAX_JOBS; i++)
			p[i + 2] = (struct pollfd){ .fd = jobs[i].pid ? jobs[i].out : -1,
						    .events = POLLIN };
		if (poll(p, MAX_JOBS + 2, -1) < 0)
			continue;
		for (int i = 0; i < MAX_JOBS; i++) {
			if (p[i + 2].revents)
				forward(&jobs[i]);
		}
		if (p[1].revents) {
			struct signalfd_siginfo si;

			if (read(sigs, &si, sizeof(si)) > 0)
				reap();
		}
		if (p[0].revents & POLLIN)
			obey();
		else if (p[0].revents)
			usleep(10000);
	}
}

int main(void)
{
	sigset_t set;
	int sigs;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigs = signalfd(-1, &set, SFD_CLOEXEC);
	port = open_port();
	if (sigs < 0 || port < 0)
		die("no channel");
	tell(HELLO, 0, "", 0);
	serve(sigs);
	return 0;
}
