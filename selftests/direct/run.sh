#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# What Linux TCP sockets do must be what they do under the shim: runs the cases of `posix` natively, with
# both roles under `ismredir run`, and with one of them. As root.
#
#   run.sh [-m MODE]... [-v] [CASE|PREFIX*...]
#
# MODE: native, both, client, server, small-both, fortify-native, fortify-both; all of them when none is
# named. small: rings of 64 KiB, and a load of nothing else than rings; fortify: the same cases built with
# _FORTIFY_SOURCE=3.
# ISMREDIR_TEST_POSIX: another program instead of them.

set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
B=${B:-$HERE/../../build}
ISMREDIR=${ISMREDIR:-$B/ismredir}
# shellcheck source-path=SCRIPTDIR source=../apps/lib.sh
. "$HERE/../apps/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../unit/counts.sh
. "$HERE/../unit/counts.sh"

RUN=ismdirect.$$
TOP=
DAEMON_PID=
MODES=() CASES=() MORE=(-j 4)

usage()
{
	sed -n 's/^#   run.sh/usage: run.sh/p' "$0" >&2
	exit 2
}

# daemon_ready - ismredird answers
daemon_ready()
{
	[ -S "$ISMREDIR_SOCK" ] && ism dmbs >/dev/null 2>&1
}

# prepare_rings SIZE [ARGS...] - ismredird with rings of that size, and a load of the box
prepare_rings()
{
	spawn ismredird "$B/ismredird" --socket "$ISMREDIR_SOCK" --pool 4 --ring-size "$1"
	shift
	DAEMON_PID=$PID
	within 10 daemon_ready || return 1
	ism load --cgroup "$CG" --skip-tests "$@" >"$DIR/load.log" 2>&1
}

# mode_close - take the box of a mode away; false when something did not end as it should
mode_close()
{
	local rc=0

	if [ -n "$DAEMON_PID" ]; then
		kill -TERM "$DAEMON_PID" 2>/dev/null || { echo "ismredird is gone"; rc=1; }
		within 5 gone "$DAEMON_PID" || { echo "ismredird does not stop"; rc=1; }
		DAEMON_PID=
	fi
	box_close
	if [ -e "$ISMREDIR_PIN_DIR" ]; then
		ism unload --timeout 2 >"$TOP/unload.log" 2>&1 || { cat "$TOP/unload.log"; rc=1; }
	fi
	return $rc
}

# judge MODE - after the cases: did bytes take rings where they had to, and only there?
judge()
{
	local bytes msgs timeouts attaches

	read -r bytes msgs timeouts attaches < <(ism -j status |
		jq -r '.daemon | "\(.ring_bytes) \(.ring_msgs) \(.timeouts) \(.attaches)"')
	[ "$failed" = 0 ] || echo "      reasons: $(ism -j status | jq -c '.reasons | with_entries(select(.value > 0))')"
	echo "      $((bytes >> 20)) MB in $msgs messages on rings, $attaches attaches, $timeouts lost wake-ups"
	[ "$timeouts" = 0 ] || fail "$1: $timeouts sleeps were ended by the safety timeout only"
	case $1 in
	*both) [ "$bytes" -gt 0 ] || fail "$1: no byte took a ring" ;;
	*) [ "$bytes" = 0 ] || fail "$1: $bytes bytes took rings" ;;
	esac
}

# run_mode MODE
run_mode()
{
	local mode=$1 log=$TOP/$1.log status=0 program=$B/direct/posix by="$ISMREDIR run --" args=() load=()
	local size=1M

	echo "--- $mode"
	[[ $mode != fortify-* ]] || program=$B/direct/posix-fortify
	[[ $mode != small-* ]] || { size=64k; load=(--plane direct); }
	program=${ISMREDIR_TEST_POSIX:-$program}
	export ISMREDIR_PIN_DIR=$TOP/bpf/$mode ISMREDIR_SOCK=$TOP/$mode.sock
	mkdir "$TOP/$mode" && chmod 755 "$TOP/$mode"
	box_open "$RUN.$mode" "$TOP/$mode" || { fail "$mode: cannot make its box"; return; }
	case $mode in
	*both) args=(-C "$by" -S "$by") ;;
	client) args=(-C "$by") load=(--plane direct) ;;
	server) args=(-S "$by") load=(--plane direct) ;;
	esac
	if [[ $mode != *native ]] && ! prepare_rings $size "${load[@]}"; then
		fail "$mode: no rings: $(tail -n 3 "$DIR"/*.log)"
		mode_close
		return
	fi
	(enter timeout -k 5 1500 "$program" -m "${mode#*-}" "${args[@]}" "${MORE[@]}" "${CASES[@]}") \
		</dev/null 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	add_part "$mode" "$status" "$log"
	[[ $mode == *native ]] || judge "$mode"
	mode_close || fail "$mode: it does not end well"
}

# documented - each case that docs/other-shims.rst names is there
documented()
{
	local name all

	all=$'\n'$("$B/direct/posix" -l)$'\n'
	# shellcheck disable=SC2016 # these are RST's quotes
	while read -r name; do
		# shellcheck disable=SC2053 # a name may end in *, for all that begin so
		[[ $all == *$'\n'$name$'\n'* ]] || fail "docs/other-shims.rst names a case $name"
	done < <(grep -o '``[a-z0-9_]\+\*\?``' "$HERE/../../docs/other-shims.rst" | tr -d '`' | sort -u)
}

finish()
{
	trap '' INT TERM
	[ -z "$BOX" ] || mode_close >/dev/null
	[ -z "$TOP" ] || umount "$TOP/bpf" 2>/dev/null
	[ -z "$TOP" ] || rm -rf "$TOP"
	trap - EXIT
}

prepare()
{
	local tool

	[ "$(id -u)" = 0 ] || { echo "these tests must run as root" >&2; exit 1; }
	have ip jq nsenter timeout || { echo "$MISSING is missing: run \`make deps\`" >&2; exit 1; }
	for tool in "$ISMREDIR" "$B/ismredird" "$B/direct/posix" "$B/direct/posix-fortify"; do
		[ -x "$tool" ] || { echo "$tool is missing: run \`make direct-tools\`" >&2; exit 1; }
	done
	trap finish EXIT
	trap 'exit 130' INT TERM HUP
	TOP=$(mktemp -d "${TMPDIR:-/tmp}/ismdirect.XXXXXX") && chmod 755 "$TOP" && mkdir "$TOP/bpf" &&
		mount -t bpf "$RUN" "$TOP/bpf" || exit 1
}

while getopts m:vh opt; do
	case $opt in
	m) MODES+=("$OPTARG") ;;
	v) MORE+=(-v) ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
CASES=("$@")
[ ${#MODES[@]} -gt 0 ] || MODES=(native both client server small-both fortify-native fortify-both)
prepare
for mode in "${MODES[@]}"; do
	run_mode "$mode"
done
documented
print_counts
