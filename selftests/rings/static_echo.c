// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A client that is linked statically: what stdin has goes to PORT of
 * ISMREDIR_TEST_HOST, or 127.0.0.1, what comes back to stdout.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static char buf[1 << 16];

static ssize_t pump(int from, int to)
{
	ssize_t n = read(from, buf, sizeof(buf)), m;

	if (n < 0) {
		perror("read");
		exit(1);
	}
	for (ssize_t at = 0; at < n; at += m) {
		m = write(to, buf + at, n - at);
		if (m < 0) {
			perror("write");
			exit(1);
		}
	}
	return n;
}

int main(int argc, char **argv)
{
	const char *host = getenv("ISMREDIR_TEST_HOST");
	struct sockaddr_in sa = { .sin_family = AF_INET };
	int sock = socket(AF_INET, SOCK_STREAM, 0);
	struct pollfd p[2] = { { .fd = sock, .events = POLLIN },
			       { .fd = STDIN_FILENO, .events = POLLIN } };

	sa.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
	if (inet_pton(AF_INET, host ? host : "127.0.0.1", &sa.sin_addr) != 1) {
		fprintf(stderr, "bad address %s\n", host);
		return 1;
	}
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa))) {
		perror("connect");
		return 1;
	}
	/* The echo is read before more is sent: two full buffers would stand in each other's way. */
	for (;;) {
		poll(p, 2, -1);
		if (p[0].revents) {
			if (!pump(sock, STDOUT_FILENO))
				return 0;
		} else if (p[1].revents && !pump(STDIN_FILENO, sock)) {
			shutdown(sock, SHUT_WR);
			p[1].fd = -1;
		}
	}
}
