# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# Counting: results of single checks, and sums of the lines "N passed, N failed[, N skipped]" with which
# every part of the tests ends. To be sourced. PART_LOGS: where part() keeps what the parts say.

passed=0 failed=0 skipped=0

ok()
{
	passed=$((passed + 1))
}

# fail TEXT
fail()
{
	failed=$((failed + 1))
	printf 'FAIL  %s\n' "$*"
}

# skip TEXT
skip()
{
	skipped=$((skipped + 1))
	printf 'skip  %s\n' "$*"
}

# add_counts LINE - add the numbers of a part; 1 when LINE is no such line
add_counts()
{
	[[ $1 =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]] || return 1
	passed=$((passed + BASH_REMATCH[1]))
	failed=$((failed + BASH_REMATCH[2]))
	skipped=$((skipped + ${BASH_REMATCH[4]:-0}))
}

# add_part NAME STATUS LOG - add the last line of a part that has ended. Saying nothing is a failure, and
# so is an exit status that the line does not explain.
add_part()
{
	local line before=$failed

	line=$(tail -n 1 "$3" 2>/dev/null || :)
	if ! add_counts "$line"; then
		fail "$1 ended with status $2 and without its counts"
	elif [ "$2" -ne 0 ] && [ "$failed" -eq "$before" ]; then
		fail "$1 ended with status $2 though nothing failed"
	fi
}

# print_counts - the last line; its status says whether all is well
print_counts()
{
	printf '%d passed, %d failed' "$passed" "$failed"
	[ "$skipped" -eq 0 ] || printf ', %d skipped' "$skipped"
	printf '\n'
	[ "$failed" -eq 0 ]
}

# part NAME COMMAND... - a part of the tests that counts by itself
part()
{
	local status log="$PART_LOGS/${1// /-}.log"

	printf -- '--- %s\n' "$1"
	"${@:2}" 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	add_part "$1" "$status" "$log"
}

# criterion BINARY [SANITIZER-LOGS] - all of its tests, each in a process of its own, and what a sanitizer
# left in files whose names begin so: a leak alone fails no test
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
	for log in ${2:+"$2".*}; do
		[ -e "$log" ] || continue
		head -n 40 "$log"
		fail "the sanitizer found something, see $log"
	done
	[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || fail "$1 ended with status $status"
	print_counts
}
