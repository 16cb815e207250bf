#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Level 4 of the tests, direct plane: unmodified applications under `ismredir run`.

# shellcheck source-path=SCRIPTDIR source=../apps/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../apps/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../apps/body.sh
. "$APPS/body.sh"
RINGS=$(cd "$APPS/../rings" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$RINGS/lib.sh"

RUN=ismrings.$$
BODY=     # pid of the test body that runs now
MODE=     # how the body runs now, see usage
PORT=7000 # where the server of the test listens; the ports after it are free for others
FULL=     # not empty: everything
REFUSED=  # why this kernel has no skmsg plane, empty when it has
PATIENCE=240 # seconds for one test
ROUNDS=30 # of tests that try random moments
TESTS=()  # names in order
declare -A KIND NEEDS MODES LEAST LONG

usage()
{
	cat <<-END
		usage: run.sh [-l] [-a] [-m MODE] [-k PATTERN]
		  -l          list the tests
		  -a          all modes, many rounds
		  -m MODE     only this one:
		                both    servers and clients under \`ismredir run\`
		                early   the same, with rings from the first message on
		                client  only clients, the servers accelerated without rings or not at all
		                server  only servers
		                plain   nobody, and nothing loaded: is it the test?
		                life    tests that load and unload by themselves
		  -k PATTERN  run those whose name matches the extended regular expression
	END
}

# app NAME KIND COMMAND... - declare a test; its body is the function app_NAME
#   lifecycle  the body loads and unloads by itself
#   accel      the programs are right on plane skmsg, too
#   SELFTEST   they are not where this self-test of `ismredir check` fails: plane skmsg is left out
app()
{
	[[ $1 != go* ]] || return 0 # Go programs do not use the C library: `make check-apps`
	TESTS+=("$1")
	KIND[$1]=$2
	NEEDS[$1]="${*:3}"
	[ "$2" = lifecycle ] && MODES[$1]=life || MODES[$1]="both"
	LEAST[$1]=1
}

# also NAME MODE... - further modes of a test in a short run
also()
{
	MODES[$1]+=" ${*:2}"
}

# long NAME - in long runs only
long()
{
	LONG[$1]=1
}

# rings NAME BYTES - at least so many must go through rings when both sides are under run
rings()
{
	LEAST[$1]=$2
}

# shellcheck source-path=SCRIPTDIR source=../apps/apps.sh
. "$APPS/apps.sh"
# shellcheck source-path=SCRIPTDIR source=apps.sh
. "$RINGS/apps.sh"
# shellcheck source-path=SCRIPTDIR source=life.sh
. "$RINGS/life.sh"
# shellcheck source-path=SCRIPTDIR source=suites.sh
. "$RINGS/suites.sh"

# plane NAME - what to load for it, so that the side that is not under run is accelerated where it can be
plane()
{
	if [ "${KIND[$1]}" = accel ] && [ -z "$REFUSED" ] && [ "$MODE" != server ]; then
		echo skmsg
	else
		echo direct
	fi
}

# judge NAME - after a body: did rings carry its bytes, as they must or must not?
judge()
{
	local status ring tcp bad

	bad=$(crashed) && die "$bad"
	stop_programs
	status=$(ism -j status)
	ring=$(json .daemon.ring_bytes <<<"$status") tcp=$(json .daemon.tcp_bytes <<<"$status")
	case $MODE in
	both | early)
		[ "$ring" -ge "${LEAST[$1]}" ] || die "only $ring bytes through rings, $tcp by TCP beside them;" \
			"reasons: $(reasons)"
		;;
	*)
		[ "$ring" -eq 0 ] || [[ $1 == flow-control ]] || die "$ring bytes through rings of one end"
		;;
	esac
	[ "$(json .daemon.timeouts <<<"$status")" = 0 ] || die "$(json .daemon.timeouts <<<"$status") lost wake-ups"
	[ "$(json .daemon.malformed <<<"$status")" = 0 ] || die "ismredird got malformed packets"
	echo "$((ring / 1000)) kB through rings, $((tcp / 1000)) kB by TCP after they came" >"$DIR/note"
}

# body NAME - what runs in the background, one at a time
body()
{
	case $MODE in
	both | client | early) CLIENT_BY=("${UNDER_RUN[@]}") ;;&
	both | server | early) SERVER_BY=("${UNDER_RUN[@]}") ;;&
	early) export ISMREDIR_AFTER=1,1 ;;&
	plain) "app_$1" && stop_programs && return ;;
	life) "app_$1" && return ;;
	*)
		start_daemon
		load --plane "$(plane "$1")" --port 7000-7009
		"app_$1"
		judge "$1"
		unload
		stop_daemon
		;;
	esac
}

# clean - whatever state the box is in, take it away
clean()
{
	[ -z "$BODY" ] || kill -KILL "$BODY" 2>/dev/null
	BODY=
	[ -z "$BOX" ] || box_kill CONT
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

# run_mode NAME MODE - run a body in a fresh box
run_mode()
{
	local name=$1-$2 rc=1 start=$SECONDS

	MODE=$2
	[ "$MODE" != life ] || name=$1
	mkdir "$TOP/$name" && chmod 755 "$TOP/$name"
	ISMREDIR_PIN_DIR=$TOP/bpf/$name ISMREDIR_SOCK=$TOP/$name/sock DAEMON_PID=
	box_open "$RUN.$name" "$TOP/$name" || { report FAIL "$name" "cannot make its box"; return 1; }
	(body "$1" && : >"$DIR/done") >"$DIR/body.log" 2>&1 </dev/null &
	BODY=$!
	disown "$BODY"
	within "$PATIENCE" gone "$BODY" || hangs
	[ ! -e "$DIR/done" ] || rc=0
	if [ $rc = 0 ] && [ -e "$DIR/skip" ]; then
		report skip "$name" "$(cat "$DIR/skip")"
	elif [ $rc = 0 ]; then
		report ok "$name" "$((SECONDS - start)) s  $(cat "$DIR/note" 2>/dev/null)"
	else
		report FAIL "$name" "$(cat "$DIR/why" 2>/dev/null || echo "died")"
		tail -n 8 "$DIR"/*.log | sed 's/^/      | /'
		[ -z "${KEEP:-}" ] || cp -r "$DIR" "$KEEP/$name.$start"
	fi
	clean
	rm -rf "${TOP:?}/$name"
	return $rc
}

# hangs - say so, and where everybody is
hangs()
{
	local pid

	echo "the test hangs" >"$DIR/why"
	for pid in $(box_pids); do
		echo "$pid $(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-60): $(cat "/proc/$pid/wchan")"
	done >"$DIR/hangs.log" 2>&1
	ism conns >>"$DIR/hangs.log" 2>&1
}

# run_test NAME [MODE] - in that mode, or in all that this run is about
run_test()
{
	local mode modes=${2:-${MODES[$1]}}

	[ -z "$FULL" ] || [ -n "${2:-}" ] || [ "${KIND[$1]}" = lifecycle ] || modes="both early client server"
	[ -n "$FULL" ] || [ -z "${LONG[$1]:-}" ] || return
	[ "${KIND[$1]}" != lifecycle ] || [[ $modes == life ]] || return
	[ "${KIND[$1]}" = lifecycle ] || [[ $modes != life ]] || return
	# shellcheck disable=SC2086 # a list of words
	if ! have ${NEEDS[$1]}; then
		report skip "$1" "$MISSING is not installed"
		return
	fi
	for mode in $modes; do
		run_mode "$1" "$mode"
	done
}

# prepare - what the whole run needs; its bpffs is its own, so that runs go side by side
prepare()
{
	[ "$(id -u)" = 0 ] || { echo "these tests must run as root" >&2; exit 1; }
	have jq ip ss nsenter timeout sha256sum cmp setpriv ||
		{ echo "$MISSING is missing: run \`make deps\`" >&2; exit 1; }
	for file in "$ISMREDIR" "$DAEMON" "$(dirname "$ISMREDIR")/libismredir-preload.so"; do
		[ -e "$file" ] || { echo "$file is missing: run \`make\`" >&2; exit 1; }
	done
	trap finish EXIT
	trap 'exit 130' INT TERM HUP
	export ISMREDIR_PIN_DIR ISMREDIR_SOCK
	TOP=$(mktemp -d "${TMPDIR:-/tmp}/ismrings.XXXXXX") && chmod 755 "$TOP" && mkdir "$TOP/bpf" &&
		mount -t bpf "$RUN" "$TOP/bpf" || exit 1
	ISMREDIR_PIN_DIR=$TOP/bpf/check
	REFUSED=$(ism -j check | json '.planes.skmsg | select(.verdict == "refused") | .why')
	echo "# $(ism version | head -n 1), kernel $(uname -r)"
}

main()
{
	local pattern=. mode=

	while getopts lam:k:h option; do
		case $option in
		l) printf '%s\n' "${TESTS[@]}" && exit ;;
		a) FULL=1 ROUNDS=300 PATIENCE=3000 ;;
		m) mode=$OPTARG ;;
		k) pattern=$OPTARG ;;
		h) usage && exit ;;
		*) usage >&2 && exit 2 ;;
		esac
	done
	prepare
	run_matching "$pattern" "$mode"
	summary
}

main "$@"
