#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Level 4 of the tests: unmodified applications, first on plain TCP, so that a fault of the test or of
# the package is told from one of ours, then with ismredir loaded on their cgroup and port.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=body.sh
. "$APPS/body.sh"

RUN=ismapps.$$
BODY=           # pid of the test body that runs now
REFUSED=        # why this kernel has no skmsg plane, empty when it has
BROKEN=         # the self-tests that fail here
MODE=           # plain or accel: how the body runs now
PORT=           # where the server of the test listens; PORT + 1 for a second one
PORTS=7000-7009 # what is selected with --port
OTHER_PORT=7100 # a port that is not
TESTS=()        # names in order
declare -A KIND NEEDS

usage()
{
	echo "usage: run.sh [-l] [-k PATTERN]"
	echo "  -l          list the tests"
	echo "  -k PATTERN  run those whose name matches the extended regular expression"
}

# app NAME KIND COMMAND... - declare a test; its body is the function app_NAME
#   accel      plain, then accelerated: bytes must have been redirected
#   lifecycle  the body loads and unloads by itself
#   SELFTEST   as accel, but it depends on what this self-test of `ismredir check` tries: where that one
#              fails its port is left out of what is selected, and it must be right on plain TCP
app()
{
	TESTS+=("$1")
	KIND[$1]=$2
	NEEDS[$1]="${*:3}"
}

# shellcheck source-path=SCRIPTDIR source=apps.sh
. "$APPS/apps.sh"
# shellcheck source-path=SCRIPTDIR source=lifecycle.sh
. "$APPS/lifecycle.sh"

# judge accel|plain - after a body: were bytes redirected, as they must or must not be?
judge()
{
	local redir tcp note

	read -r redir tcp < <(sent)
	note="$((100 * redir / (redir + tcp + 1))) % of $(((redir + tcp) / 1000)) kB redirected"
	case $1 in
	accel) [ "$redir" -gt 0 ] || die "nothing was redirected; reasons: $(reasons)" ;;
	plain) [ "$redir" -eq 0 ] || die "$redir bytes were redirected on a port that is not selected" ;;
	esac
	[ "$redir" -gt 0 ] || note="plain TCP: $(reasons)"
	echo "$note" >"$DIR/note"
}

# body_plain NAME, body_accel NAME, body_lifecycle NAME - what runs in the background, one at a time
body_plain()
{
	PORT=7000
	"app_$1"
}

body_accel()
{
	local want=accel

	PORT=7000
	if [[ " $BROKEN " == *" ${KIND[$1]} "* ]]; then
		want=plain PORT=$OTHER_PORT
	fi
	load --port "$PORTS"
	"app_$1"
	judge $want
	unload
}

body_lifecycle()
{
	PORT=7000
	"app_$1"
}

# clean - whatever state the box is in, take it away
clean()
{
	[ -z "$BODY" ] || kill -KILL "$BODY" 2>/dev/null
	BODY=
	box_close
	[ ! -e "$ISMREDIR_PIN_DIR" ] || ism unload --timeout 1 >/dev/null 2>&1
}

finish()
{
	trap '' INT TERM
	clean
	[ -z "$TOP" ] || umount "$TOP/bpf" 2>/dev/null
	[ -z "$TOP" ] || rm -rf "$TOP"
	trap - EXIT
}

# run_mode NAME MODE - run a body in a fresh box; returns its result
run_mode()
{
	local name=$1-$2 rc=1 start=$SECONDS

	MODE=$2
	[ "$MODE" != lifecycle ] || name=$1
	mkdir "$TOP/$name" && chmod 755 "$TOP/$name"
	export ISMREDIR_PIN_DIR=$TOP/bpf/$name
	box_open "$RUN.$name" "$TOP/$name" || { report FAIL "$name" "cannot make its box"; return 1; }
	("body_$MODE" "$1" && : >"$DIR/done") >"$DIR/body.log" 2>&1 </dev/null &
	BODY=$!
	disown "$BODY"
	within 150 gone "$BODY" || echo "the test hangs" >"$DIR/why"
	[ ! -e "$DIR/done" ] || rc=0
	if [ $rc = 0 ]; then
		report ok "$name" "$((SECONDS - start)) s  $(cat "$DIR/note" 2>/dev/null)"
	else
		report FAIL "$name" "$(cat "$DIR/why" 2>/dev/null || echo "died")"
		tail -n 8 "$DIR"/*.log | sed 's/^/      | /'
	fi
	clean
	rm -rf "${TOP:?}/$name"
	return $rc
}

# run_test NAME
run_test()
{
	# shellcheck disable=SC2086 # a list of words
	if ! have ${NEEDS[$1]}; then
		report skip "$1" "$MISSING is not installed"
	elif [ "${KIND[$1]}" != lifecycle ] && ! run_mode "$1" plain; then
		report skip "$1-accel" "fails without ismredir already"
	elif [ -n "$REFUSED" ]; then
		report skip "$1-accel" "plane skmsg is refused here: $REFUSED"
	elif [ "${KIND[$1]}" = lifecycle ]; then
		run_mode "$1" lifecycle
	else
		run_mode "$1" accel
	fi
}

# look - what this machine allows, by the program under test itself
look()
{
	local check

	check=$(ism -j check) || [ -n "$check" ] || { echo "ismredir check fails" >&2; exit 1; }
	REFUSED=$(json '.planes.skmsg | select(.verdict == "refused") | .why' <<<"$check")
	BROKEN=$(json '[.tests[] | select(.result == "fail") | .name] | join(" ")' <<<"$check")
	echo "# $(ism version | head -n 1), kernel $(uname -r), failing self-tests: ${BROKEN:-none}"
}

# prepare - what the whole run needs; its bpffs is its own, so that runs go side by side
prepare()
{
	[ "$(id -u)" = 0 ] || { echo "the application tests must run as root" >&2; exit 1; }
	have jq ip ss nsenter timeout sha256sum cmp ||
		{ echo "$MISSING is missing: run \`make deps\`" >&2; exit 1; }
	[ -x "$ISMREDIR" ] || { echo "$ISMREDIR is missing: run \`make\`" >&2; exit 1; }
	trap finish EXIT
	trap 'exit 130' INT TERM HUP
	TOP=$(mktemp -d "${TMPDIR:-/tmp}/ismapps.XXXXXX") && chmod 755 "$TOP" && mkdir "$TOP/bpf" &&
		mount -t bpf "$RUN" "$TOP/bpf" || exit 1
	export ISMREDIR_PIN_DIR=$TOP/bpf/check
}

main()
{
	local pattern=.

	while getopts lk:h option; do
		case $option in
		l) printf '%s\n' "${TESTS[@]}" && exit ;;
		k) pattern=$OPTARG ;;
		h) usage && exit ;;
		*) usage >&2 && exit 2 ;;
		esac
	done
	prepare
	look
	run_matching "$pattern"
	summary
}

main "$@"
