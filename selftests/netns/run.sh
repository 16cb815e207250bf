#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Level-3 tests: runs each test function in a box of its own, shows what failed, and sees that nothing
# stays behind. As root.
#
#   run.sh [-k PATTERN] [-n TIMES] [-l] [-v]
#
# -k only tests whose name matches the regular expression   -l list them   -n repeat   -v show output
# PLANE=tcp runs them on plain TCP, where that makes sense; PLANE=naive shows which tests notice a
# careless redirection.

set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

TEST_LIMIT=60 # seconds
declare -A LIMITS=([streams_sizes]=120 [hundred_loads]=120 [killed_loader]=120
	[streams_random]=590)
TESTS=()
RUN=ismt$$
TOP=
BOX=
CGROOT=
passed=0 failed=0 skipped=0

for file in "$HERE"/tests_*.sh; do
	# shellcheck source=/dev/null
	. "$file"
	mapfile -t -O "${#TESTS[@]}" TESTS < <(sed -n 's/^test_\([a-z0-9_]*\)()$/\1/p' "$file")
done

usage()
{
	sed -n 's/^#   run.sh/usage: run.sh/p' "$0" >&2
	exit 2
}

# ---------------------------------------------------------------- a box for each test

# box_tree - all cgroups of the box, inner ones first
box_tree()
{
	find "$BOX" -depth -type d 2>/dev/null
}

box_pids()
{
	box_tree | sed 's|$|/cgroup.procs|' | xargs -r cat 2>/dev/null
}

box_empty()
{
	[ -z "$(box_pids)" ]
}

# box_die - kill everyone in it, each by pid
box_die()
{
	local pid

	for pid in $(box_pids); do
		kill -KILL "$pid" 2>/dev/null
	done
	box_empty
}

# box_remove - true when nothing is left of its cgroups
box_remove()
{
	box_tree | xargs -r rmdir 2>/dev/null
	[ ! -e "$BOX" ]
}

box_netns()
{
	ip netns list 2>/dev/null | awk -v ns="$NS" '$1 == ns || index($1, ns ".") == 1 { print $1 }'
}

box_open()
{
	NS=$RUN.$1
	BOX=$CGROOT/$RUN.$1
	CG=$BOX/in
	OUT=$BOX/out
	DIR=$TOP/$1
	ISMREDIR_PIN_DIR=$TOP/bpf/$1
	export NS CG OUT DIR ISMREDIR_PIN_DIR
	rm -rf "$DIR"
	mkdir -p "$DIR" && chmod 755 "$DIR" && mkdir "$BOX" "$CG" "$OUT" &&
		ip netns add "$NS" && ip -n "$NS" link set lo up
}

# box_close - remove it; says what a test should not have left
box_close()
{
	local pid ns

	[ -n "$BOX" ] || return 0
	for pid in $(box_pids); do
		echo "left behind: process $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" | head -c 120))"
	done
	within 5 box_die || echo "left behind: processes that do not die"
	if [ -e "$ISMREDIR_PIN_DIR" ]; then
		echo "left behind: pins $(ls "$ISMREDIR_PIN_DIR")"
		ism unload --timeout 1 >/dev/null 2>&1
		rm -rf "$ISMREDIR_PIN_DIR"
	fi
	for ns in $(box_netns); do
		ip netns del "$ns" 2>/dev/null || echo "left behind: namespace $ns"
	done
	within 3 box_remove || echo "left behind: cgroup $(box_tree | head -n 1)"
	BOX=
}

# ---------------------------------------------------------------- running

# body NAME - the shell of one test, inside the box
body()
{
	echo 0 >"$OUT/cgroup.procs"
	trap 'echo "stopped at ${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND" >&2' ERR
	set -eEu
	"test_$1"
}

kernel_trouble()
{
	dmesg | awk -v mark="$1" 'index($0, mark) { on = 1 } on' |
		grep -E 'BUG:|WARNING:|Oops:|kernel BUG at|suspicious RCU|general protection|hung task|rcu_sched'
}

report()
{
	printf '%-4s %-30s %s\n' "$1" "$2" "$3"
	case $1 in
	ok) passed=$((passed + 1)) ;;
	FAIL) failed=$((failed + 1)) ;;
	skip) skipped=$((skipped + 1)) ;;
	esac
}

show()
{
	sed 's/^/     | /' "$@" | tail -n 60
}

# run_test NAME - a test that fails gets a second try, shown, because who wakes first is not in our
# hands: whether a task sleeps in recv() when another sends decides about acceleration (reason duplex)
run_test()
{
	local name=$1 rc=0 start=$SECONDS mark="ismredir test $RUN.$1.$RANDOM" pid

	box_open "$name" || { report FAIL "$name" "cannot make its box"; box_close; return; }
	echo "$mark" >/dev/kmsg
	body "$name" >"$DIR/log" 2>&1 </dev/null &
	pid=$!
	if ! within "${LIMITS[$name]:-$TEST_LIMIT}" gone_or_zombie "$pid"; then
		echo "FAILED: the test takes more than ${LIMITS[$name]:-$TEST_LIMIT} s" >>"$DIR/log"
		within 5 box_die
	fi
	wait "$pid" 2>/dev/null || rc=$?
	if [ $rc = 0 ] || [ $rc = 77 ]; then
		box_close >"$DIR/left"
	else
		box_close >/dev/null
	fi
	kernel_trouble "$mark" >"$DIR/dmesg"
	if [ $rc = 77 ] && [ ! -s "$DIR/left" ]; then
		report skip "$name" "$(cat "$DIR/skipped")"
	elif [ $rc != 0 ] || [ -s "$DIR/left" ] || [ -s "$DIR/dmesg" ]; then
		if [ -z "${2:-}" ] && [ ! -s "$DIR/left" ] && [ ! -s "$DIR/dmesg" ]; then
			report once "$name" "failed at first; a second try decides"
			show "$DIR/log"
			run_test "$name" again
			return
		fi
		report FAIL "$name" "$((SECONDS - start)) s"
		show "$DIR/log" "$DIR/left" "$DIR/dmesg" 2>/dev/null
	else
		report ok "$name" "$((SECONDS - start)) s"
		[ -z "$VERBOSE" ] || show "$DIR/log"
	fi
}

finish()
{
	trap '' INT TERM
	box_close >/dev/null
	[ -z "$TOP" ] || umount "$TOP/bpf" 2>/dev/null
	[ -z "$TOP" ] || rm -rf "$TOP"
	trap - EXIT
}

prepare()
{
	local tool

	[ "$(id -u)" = 0 ] || { echo "these tests need root" >&2; exit 1; }
	for tool in ip nft jq nsenter setpriv sysctl unshare dmesg; do
		command -v $tool >/dev/null || { echo "needs $tool: make deps" >&2; exit 1; }
	done
	for tool in "$ISMREDIR" "$B/netns/traffic" "$B/netns/cases" "$B/netns/optprog"; do
		[ -x "$tool" ] || [ "$PLANE" = tcp ] || { echo "needs $tool: make" >&2; exit 1; }
	done
	CGROOT=$(cgroup_root)
	[ -n "$CGROOT" ] || { echo "no cgroup v2 is mounted" >&2; exit 1; }
	TOP=$(mktemp -d "${TMPDIR:-/tmp}/ismredir-netns.XXXXXX")
	trap finish EXIT
	trap 'exit 130' INT TERM
	chmod 755 "$TOP"
	mkdir "$TOP/bpf"
	mount -t bpf bpf "$TOP/bpf" || { echo "cannot mount a bpffs" >&2; exit 1; }
}

PATTERN=. TIMES=1 LIST='' VERBOSE=''
while getopts k:n:lv opt; do
	case $opt in
	k) PATTERN=$OPTARG ;;
	n) TIMES=$OPTARG ;;
	l) LIST=1 ;;
	v) VERBOSE=1 ;;
	*) usage ;;
	esac
done
[ $# = $((OPTIND - 1)) ] || usage
mapfile -t TESTS < <(printf '%s\n' "${TESTS[@]}" | grep -E -- "$PATTERN")
[ "${#TESTS[@]}" -gt 0 ] || { echo "no test matches $PATTERN" >&2; exit 2; }
[ -z "$LIST" ] || { printf '%s\n' "${TESTS[@]}"; exit 0; }

prepare
for ((round = 0; round < TIMES; round++)); do
	for name in "${TESTS[@]}"; do
		run_test "$name"
	done
done
tail=
[ $skipped = 0 ] || tail=", $skipped skipped"
echo "$passed passed, $failed failed$tail"
[ $failed = 0 ]
