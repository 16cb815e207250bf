#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# The tests of ismredird and of its fabrics: run as `run.sh [PATTERN]` with B the build directory, by
# `make check-daemon`, as root. The contract suite, the daemon in a box of its own, plain and with
# sanitizers, and its parser under the fuzzer.

set -u
DAEMON=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../unit/counts.sh
. "$DAEMON/../unit/counts.sh"
B=${B:?the build directory}
export B
ISMREDIR=$B/ismredir
# shellcheck source-path=SCRIPTDIR source=../apps/lib.sh
. "$DAEMON/../apps/lib.sh"

PART_LOGS=$B/daemon
PATTERN=${1:-}
FUZZ_SECONDS=${FUZZ_SECONDS:-5}
RUN=ismd.$$
TOP=

# daemon BINARY - the tests against it
daemon()
{
	(enter env CG="$CG" ISMREDIRD="$1" PYTHONDONTWRITEBYTECODE=1 \
		ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
		timeout -k 10 900 python3 "$DAEMON/tests.py" "$PATTERN")
}

fuzz()
{
	passed=0 failed=0 skipped=0 # of this part
	if [ ! -x "$B/daemon/fuzz_control" ]; then
		skip "fuzz_control: this clang has no libFuzzer (on Debian: libclang-rt-14-dev)"
	elif "$DAEMON/fuzz.sh" "$B" "$FUZZ_SECONDS" -seed=1; then
		ok
	else
		fail "fuzz_control"
	fi
	print_counts
}

finish()
{
	trap '' INT TERM
	box_close
	[ ! -e "${ISMREDIR_PIN_DIR:-/nowhere}" ] || ism unload --timeout 1 >/dev/null 2>&1
	[ -z "$TOP" ] || umount "$TOP/bpf" 2>/dev/null
	[ -z "$TOP" ] || rm -rf "$TOP"
	trap - EXIT
}

[ "$(id -u)" = 0 ] || { echo "the daemon's tests must run as root" >&2; exit 1; }
have python3 ip nsenter || { echo "$MISSING is missing: run \`make deps\`" >&2; exit 1; }
mkdir -p "$B/daemon"
trap finish EXIT
trap 'exit 130' INT TERM HUP
TOP=$(mktemp -d "${TMPDIR:-/tmp}/ismd.XXXXXX") && chmod 755 "$TOP" && mkdir "$TOP/bpf" &&
	mount -t bpf "$RUN" "$TOP/bpf" || exit 1
export ISMREDIR_PIN_DIR=$TOP/bpf/pins
box_open "$RUN" "$TOP" || exit 1
ism load --cgroup "$CG" --skip-tests >"$TOP/load.log" 2>&1 || { cat "$TOP/load.log"; exit 1; }

if [ -z "$PATTERN" ]; then
	part "fabric contract" criterion "$B/fabric/contract"
	part "fabric contract with sanitizers" criterion "$B/fabric-asan/contract"
fi
part "ismredird" daemon "$B/ismredird"
part "ismredird with sanitizers" daemon "$B/daemon-asan/ismredird"
[ -n "$PATTERN" ] || part "control fuzzer" fuzz
printf -- '--- all of the daemon\n'
print_counts
