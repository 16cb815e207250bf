#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Level 1 of the tests, the ring at work: `run.sh BUILD SECONDS [random]`. Each part runs for SECONDS;
# with `random` its numbers differ each time, and the seed is shown.

set -u
RING=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=../unit/counts.sh
. "$RING/../unit/counts.sh"

BUILD=${1:?usage: run.sh BUILD SECONDS [random]}
SECS=${2:?usage: run.sh BUILD SECONDS [random]}
SEED=1
[ "${3:-}" != random ] || SEED=$((RANDOM * 32768 + RANDOM + 1))
OUT=$BUILD/ring
export TSAN_OPTIONS=halt_on_error=1 UBSAN_OPTIONS=print_stacktrace=1

# try NAME COMMAND... - a part; what it says is shown, all of it when it fails
try()
{
	local name=$1 log=$OUT/${1// /-}.log status=0

	shift
	# a sanitizer makes everything slow to start and to end
	timeout -k 10 $((SECS * 2 + 60)) "$@" </dev/null >"$log" 2>&1 || status=$?
	if [ $status = 0 ]; then
		ok
		printf 'ok    %-36s %s\n' "$name" "$(tail -n 1 "$log")"
	else
		tail -n 40 "$log"
		fail "$name: status $status, seed $SEED: see $log"
	fi
}

# The race detector wants to know where memory lies.
fixed=()
! setarch -R true 2>/dev/null || fixed=(setarch -R)

try "two processes" "$OUT/stress" processes "$SECS" "$SEED"
try "two processes, 1 MiB" "$OUT/stress" processes "$SECS" "$SEED" 1024
try "two processes, asan" "$OUT/stress-asan" processes "$SECS" "$SEED"
if [ -x "$OUT/stress-tsan" ]; then
	try "two threads, tsan" "${fixed[@]}" "$OUT/stress-tsan" threads "$SECS" "$SEED"
else
	skip "two threads, tsan: this clang has no thread sanitizer (on Debian: libclang-rt-14-dev)"
fi
try "hostile partner, asan" "$OUT/hostile-asan" "$SECS" "$SEED"
print_counts
