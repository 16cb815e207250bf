// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * ismredir run: start a program with the preloaded library. It becomes the program by exec(), so process
 * id, descriptors, signals and exit status are the program's own; and whatever is missing, it runs.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "preload.h"

/* As of env(1), nice(1) and their kin. */
enum {
	RUN_CANNOT_EXEC = 126,
	RUN_NOT_FOUND = 127,
};

struct run_args {
	char after[48]; /* empty: the library's own choice */
	int quiet;
};

/* "MSGS[,BYTES]"; BYTES may end in k or M. Stored as plain numbers. */
static int parse_after(struct run_args *a, const char *v)
{
	unsigned long long msgs, bytes = 0;
	const char *start;
	char *end;

	if (*v < '0' || *v > '9')
		return -EINVAL;
	errno = 0;
	msgs = strtoull(v, &end, 10);
	if (*end == ',') {
		start = end + 1;
		if (*start < '0' || *start > '9')
			return -EINVAL;
		bytes = strtoull(start, &end, 10);
		if (*end == 'k' || *end == 'K')
			bytes <<= 10, end++;
		else if (*end == 'm' || *end == 'M')
			bytes <<= 20, end++;
		snprintf(a->after, sizeof(a->after), "%llu,%llu", msgs, bytes);
	} else {
		snprintf(a->after, sizeof(a->after), "%llu", msgs);
	}
	return errno || *end || msgs > UINT_MAX || bytes > UINT_MAX ? -EINVAL : 0;
}

/* Options up to the program or "--"; the index of the program, or negative after a message. */
static int parse(const struct cli *c, struct run_args *a, int argc, char **argv)
{
	int i;

	for (i = 0; i < argc && argv[i][0] == '-'; i++) {
		const char *v = NULL;

		if (!strcmp(argv[i], "--"))
			return i + 1;
		if (!strcmp(argv[i], "--quiet")) {
			a->quiet = 1;
			continue;
		}
		if (strncmp(argv[i], "--after", 7) || (argv[i][7] && argv[i][7] != '=')) {
			cli_usage(c, "run: unknown option \"%s\"", argv[i]);
			return -1;
		}
		if (argv[i][7])
			v = argv[i] + 8;
		else if (i + 1 < argc)
			v = argv[++i];
		if (!v || parse_after(a, v)) {
			cli_usage(c, "run: bad --after \"%s\": expected MESSAGES or MESSAGES,BYTES",
				  v ?: "");
			return -1;
		}
	}
	return i;
}

static int is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

/* The file that execvp() will take. */
static int find_program(const char *name, char *buf, size_t len)
{
	const char *path = getenv("PATH") ?: "/bin:/usr/bin", *end;

	if (strchr(name, '/'))
		return (size_t)snprintf(buf, len, "%s", name) < len ? 0 : -ENAMETOOLONG;
	for (;; path = end + 1) {
		end = strchrnul(path, ':');
		if ((size_t)snprintf(buf, len, "%.*s%s%s", (int)(end - path), path,
				     end > path ? "/" : "", name) < len &&
		    is_program(buf))
			return 0;
		if (!*end)
			return -ENOENT;
	}
}

/* Put the library before what is preloaded already, if it is not there. */
static int add_preload(const char *lib)
{
	const char *old = getenv("LD_PRELOAD");
	size_t len = strlen(lib);
	char *both;
	int rc;

	if (!old || !*old)
		return setenv("LD_PRELOAD", lib, 1);
	if (!strncmp(old, lib, len) && (!old[len] || strchr(": ", old[len])))
		return 0;
	if (asprintf(&both, "%s:%s", lib, old) < 0)
		return -1;
	rc = setenv("LD_PRELOAD", both, 1);
	free(both);
	return rc;
}

/* Set up the environment; what the program cannot have is said once, and is no reason not to run. */
static void prepare(const struct run_args *a, const char *name)
{
	char lib[PATH_MAX], file[PATH_MAX], why[160] = "";
	enum preload_fit fit = PRELOAD_FITS;
	struct ism_err err = {};
	int rc = preload_find(lib, sizeof(lib), &err);

	if (!rc && !find_program(name, file, sizeof(file)))
		fit = preload_fit(file, why, sizeof(why));
	if (!rc && (fit == PRELOAD_FITS || fit == PRELOAD_IGNORED) && add_preload(lib))
		rc = ism_err_set(&err, -errno, "LD_PRELOAD: %s", strerror(errno));
	if (a->after[0])
		setenv("ISMREDIR_AFTER", a->after, 1);
	if (a->quiet || (!rc && (fit == PRELOAD_FITS || fit == PRELOAD_NEEDLESS)))
		return;
	fprintf(stderr, "ismredir: %s %s%s, so it runs without the direct plane\n", name,
		rc ? "gets no library: " : "", rc ? err.text : why);
}

int cmd_run(struct cli *c, int argc, char **argv)
{
	struct run_args a = {};
	int at = parse(c, &a, argc, argv), err;

	if (at < 0)
		return CLI_USAGE;
	if (at >= argc)
		return cli_usage(c, "run: expected a program");
	prepare(&a, argv[at]);
	execvp(argv[at], argv + at);
	err = errno;
	fprintf(stderr, "ismredir: run %s: %s\n", argv[at], strerror(err));
	return err == ENOENT ? RUN_NOT_FOUND : RUN_CANNOT_EXEC;
}
