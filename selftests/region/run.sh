#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# All of the tests of regions: `run.sh BUILD SEEDS KILLS`, by `make check-region`. As any user.

set -u
REGION=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=../unit/counts.sh
. "$REGION/../unit/counts.sh"

BUILD=${1:?usage: run.sh BUILD SEEDS KILLS}
SEEDS=${2:?usage: run.sh BUILD SEEDS KILLS}
KILLS=${3:?usage: run.sh BUILD SEEDS KILLS}
OUT=$BUILD/region
PART_LOGS=$OUT
export UBSAN_OPTIONS=print_stacktrace=1
# a peer that dies in the middle of a call leaves what the call had
export ASAN_OPTIONS=detect_leaks=0

# tap COMMAND... - a program that prints a line for each of its checks
tap()
{
	local line status

	passed=0 failed=0 skipped=0
	timeout -k 10 600 "$@" </dev/null >"$OUT/tap.$$" 2>&1
	status=$?
	while read -r line; do
		case $line in
		'ok - '*) ok ;;
		'not ok - '*) fail "${line#not ok - }" ;;
		esac
		printf '%s\n' "$line"
	done <"$OUT/tap.$$"
	rm -f "$OUT/tap.$$"
	[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || fail "$1 ended with status $status"
	print_counts
}

part "unit" criterion "$OUT/test_region"
part "unit with sanitizers" criterion "$OUT/test_region-asan"
part "deaths at any store" tap "$OUT/crash" "$SEEDS"
part "deaths with sanitizers" tap "$OUT/crash-asan" 3 5000
part "killed" tap "$OUT/kill" "$KILLS"
part "command line" "$REGION/show.sh" "$BUILD"
printf -- '--- all of the regions\n'
print_counts
