#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Level 1 of the tests, all parts: run as `run.sh BUILD` in the root of the tree, by `make check-unit`.

set -u
UNIT=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=counts.sh
. "$UNIT/counts.sh"

BUILD=${1:?usage: run.sh BUILD}
FUZZ_SECONDS=4
export ISM_UNIT_BUILD=$BUILD
unset ISMREDIR_PIN_DIR ISMREDIR_FAIL_TEST

# part NAME COMMAND... - a part of the tests that counts by itself
part()
{
	local status log="$BUILD/unit/${1// /-}.log"

	printf -- '--- %s\n' "$1"
	"${@:2}" 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	add_part "$1" "$status" "$log"
}

# criterion BINARY - all of its tests, each in a process of its own
criterion()
{
	local tap=$1.tap status

	rm -f "$tap"
	timeout -k 10 600 "$1" --timeout 120 --tap="$tap" </dev/null
	status=$?
	[ -e "$tap" ] || exit "$status"
	passed=$(grep '^ok ' "$tap" | grep -vci '# skip')
	skipped=$(grep '^ok ' "$tap" | grep -ci '# skip')
	failed=$(grep -c '^not ok ' "$tap")
	# a leak alone does not fail a test
	for log in "$BUILD"/unit-asan/asan.*; do
		[ -e "$log" ] || continue
		head -n 40 "$log"
		fail "the sanitizer found something, see $log"
	done
	[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || fail "$1 ended with status $status"
	print_counts
}

# criterion_asan BINARY - the same, with what the sanitizers say kept in files
criterion_asan()
{
	export ASAN_OPTIONS=log_path=$PWD/$BUILD/unit-asan/asan:detect_leaks=1
	case $BUILD in
	/*) ASAN_OPTIONS=log_path=$BUILD/unit-asan/asan:detect_leaks=1 ;;
	esac
	export UBSAN_OPTIONS=print_stacktrace=1
	criterion "$1"
}

rm -f "$BUILD"/unit-asan/asan.*
rm -rf "$BUILD/unit/fuzz" # what `make fuzz` has found is elsewhere: here every run is the same
part "criterion" criterion "$BUILD/unit/unit"
part "criterion with sanitizers" criterion_asan "$BUILD/unit-asan/unit"
part "command line" "$UNIT/cli.sh" "$BUILD/ismredir"
part "command line with sanitizers" "$UNIT/cli.sh" "$BUILD/unit-asan/ismredir"
part "completion" "$UNIT/completion.sh" "$BUILD/ismredir"
part "fuzzers" "$UNIT/fuzz.sh" "$BUILD" "$BUILD/unit/fuzz" "$FUZZ_SECONDS" -seed=1
printf -- '--- all of level 1\n'
print_counts
