#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Runs every fuzzer for SECONDS. Run as `fuzz.sh BUILD OUT SECONDS [OPTIONS OF LIBFUZZER]`. The corpus of
# the tree is only read; what is found to be new goes to OUT/NAME, an input that breaks something to
# OUT/NAME-crash-*.

set -u
UNIT=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=counts.sh
. "$UNIT/counts.sh"

BUILD=${1:?usage: fuzz.sh BUILD OUT SECONDS [OPTIONS]}
OUT=${2:?usage: fuzz.sh BUILD OUT SECONDS [OPTIONS]}
SECS=${3:?usage: fuzz.sh BUILD OUT SECONDS [OPTIONS]}
shift 3

# fuzz NAME OPTIONS...
fuzz()
{
	local name=$1 out=$OUT/$1

	shift
	if [ ! -x "$BUILD/unit/fuzz_$name" ]; then
		skip "fuzz_$name: this clang has no libFuzzer (on Debian: libclang-rt-14-dev)"
		return
	fi
	mkdir -p "$out"
	# twice the time and a minute is a hang; one input gets ten seconds
	if timeout -k 10 $((SECS * 2 + 60)) "$BUILD/unit/fuzz_$name" -max_total_time="$SECS" -timeout=10 \
		-rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$out-" \
		-dict="$UNIT/config.dict" "$@" "$out" "$UNIT/corpus/$name" >"$out.log" 2>&1; then
		ok
		printf 'ok    fuzz_%-8s %s inputs\n' "$name" \
			"$(sed -n 's/^stat::number_of_executed_units: *//p' "$out.log")"
	else
		tail -n 40 "$out.log"
		fail "fuzz_$name: see $out.log"
	fi
}

fuzz option -max_len=64 "$@"
fuzz config -max_len=4096 "$@"
fuzz values -max_len=128 "$@"
fuzz ring -max_len=512 "$@"
fuzz region -max_len=256 "$@"
print_counts
