#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Connections between two hosts over a region: each test has two hosts of its own (lib.sh), and is seen to
# leave nothing. As root.
#
#   run.sh [-l] [-n TIMES] [-k PATTERN]

# shellcheck source-path=SCRIPTDIR source=../apps/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../apps/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../apps/body.sh
. "$APPS/body.sh"
RINGS=$(cd "$APPS/../rings" && pwd)
# shellcheck source-path=SCRIPTDIR source=../rings/lib.sh
. "$RINGS/lib.sh"
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
B=${B:-$(dirname "$ISMREDIR")}
PYTHON=/usr/bin/python3

RUN=ismx$$
PORT=7000
PATIENCE=120 # seconds for one test
BODY=
TESTS=()

for file in "$CROSS"/tests_*.sh; do
	# shellcheck source=/dev/null
	. "$file"
	mapfile -t -O "${#TESTS[@]}" TESTS < <(sed -n 's/^test_\([a-z0-9_]*\)()$/\1/p' "$file")
done

usage()
{
	sed -n 's/^#   run.sh/usage: run.sh/p' "$0"
}

finish()
{
	trap '' INT TERM
	[ -z "$BODY" ] || kill -KILL "$BODY" 2>/dev/null
	[ -z "$NAME" ] || hosts_close
	[ -z "$TOP" ] || umount "$TOP/bpf" 2>/dev/null
	[ -z "$TOP" ] || rm -rf "$TOP"
	trap - EXIT
}

prepare()
{
	[ "$(id -u)" = 0 ] || { echo "these tests must run as root" >&2; exit 1; }
	have jq ip ss nsenter timeout setpriv python3 ||
		{ echo "$MISSING is missing: run \`make deps\`" >&2; exit 1; }
	trap finish EXIT
	trap 'exit 130' INT TERM HUP
	TOP=$(mktemp -d "${TMPDIR:-/tmp}/ismcross.XXXXXX") && chmod 755 "$TOP" && mkdir "$TOP/bpf" &&
		mount -t bpf "$RUN" "$TOP/bpf" || exit 1
}

# body NAME - the test, in hosts that are there
body()
{
	on a
	"test_$1"
	: >"$TOP/$1/done"
}

run_test()
{
	local start=$SECONDS why

	NAME=$1 DAEMONS=()
	hosts_open || { report FAIL "$1" "cannot make its hosts"; hosts_close; NAME=; return; }
	(body "$1") >"$TOP/$1/body.log" 2>&1 </dev/null &
	BODY=$!
	disown "$BODY"
	why=$(within "$PATIENCE" gone "$BODY" || echo "the test hangs")
	if [ -e "$TOP/$1/skip" ]; then
		report skip "$1" "$(cat "$TOP/$1/skip")"
	elif [ -e "$TOP/$1/done" ]; then
		report ok "$1" "$((SECONDS - start)) s  $(cat "$TOP/$1/note" 2>/dev/null)"
	else
		report FAIL "$1" "$why$(cat "$TOP/$1"/?/why 2>/dev/null)"
		tail -n 8 "$TOP/$1/body.log" "$TOP/$1"/?/*.log | sed 's/^/      | /'
		[ -z "${KEEP:-}" ] || cp -r "$TOP/$1" "$KEEP/$1.$start"
	fi
	kill -KILL "$BODY" 2>/dev/null
	BODY=
	hosts_close
	NAME=
}

main()
{
	local pattern=. times=1

	while getopts lk:n:h option; do
		case $option in
		l) printf '%s\n' "${TESTS[@]}" && exit ;;
		k) pattern=$OPTARG ;;
		n) times=$OPTARG ;;
		h) usage && exit ;;
		*) usage >&2 && exit 2 ;;
		esac
	done
	prepare
	for _ in $(seq "$times"); do
		run_matching "$pattern"
	done
	summary
}

main "$@"
