#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Runs all levels of the tests and sums what they counted: `check.sh BUILD`, by `make check`. Each
# part's output is shown and kept in BUILD/check-PART.log; the last line is also in BUILD/check.log.

set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# shellcheck source-path=SCRIPTDIR source=unit/counts.sh
. selftests/unit/counts.sh

BUILD=${1:?usage: check.sh BUILD}
PARTS=(unit ring region netns apps direct daemon rings cross)

# One make at a time and none of its jobs: the parts measure nothing, but they share the machine.
MAKEFLAGS=$(printf '%s' "${MAKEFLAGS:-}" | sed -E 's/ --jobserver-[a-z]+=[^ ]*//g; s/ -j[0-9]*( |$)/ /g')
export MAKEFLAGS

mkdir -p "$BUILD"
rm -f "$BUILD"/check.log "$BUILD"/check-*.log
summary=()
for part in "${PARTS[@]}"; do
	log=$BUILD/check-$part.log
	printf '=== check-%s\n' "$part"
	"${MAKE:-make}" --no-print-directory B="$BUILD" "check-$part" </dev/null 2>&1 | tee "$log.all"
	status=${PIPESTATUS[0]}
	# what make says of a failed recipe comes after the part's own last line
	sed '/^make\(\[[0-9]*\]\)\?: \*\*\* /d' "$log.all" >"$log"
	rm -f "$log.all"
	add_part "check-$part" "$status" "$log"
	summary+=("$(printf 'check-%-6s %s' "$part" "$(tail -n 1 "$log" | grep ' passed, ' || echo "status $status")")")
done
printf '=== all\n'
printf '%s\n' "${summary[@]}"
print_counts | tee "$BUILD/check.log"
exit "${PIPESTATUS[0]}"
