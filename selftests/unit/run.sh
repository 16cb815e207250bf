#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Level 1 of the tests, all parts: run as `run.sh BUILD` in the root of the tree, by `make check-unit`.

set -u
UNIT=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=counts.sh
. "$UNIT/counts.sh"

BUILD=${1:?usage: run.sh BUILD}
PART_LOGS=$BUILD/unit
FUZZ_SECONDS=4
export ISM_UNIT_BUILD=$BUILD
unset ISMREDIR_PIN_DIR ISMREDIR_FAIL_TEST

# criterion_asan BINARY - the same, with what the sanitizers say kept in files
criterion_asan()
{
	local logs=$BUILD/unit-asan/asan

	[[ $logs = /* ]] || logs=$PWD/$logs
	export ASAN_OPTIONS=log_path=$logs:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
	criterion "$1" "$logs"
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
