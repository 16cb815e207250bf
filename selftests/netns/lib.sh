# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# What a test function may use: a box of its own (cgroups, network namespaces, pin directory, scratch
# directory), the ismredir under test, verified traffic, and assertions about what ismredir shows.
#
# A test runs with errexit in a shell of its own, which lives in the box: whoever it starts and does
# not end is found there, and so the test fails. Variables of the box, all exported for hooks:
#   NS    network namespace with lo up        CG    cgroup that is loaded
#   OUT   cgroup that is not                  DIR   scratch directory
#
# Used by the test files that source this: variables, and functions with arguments.
# shellcheck disable=SC2034,SC2119,SC2120

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export HERE
B=${B:-$(cd "$HERE/../.." && pwd)/build}
export B
ISMREDIR=${ISMREDIR:-$B/ismredir}
export ISMREDIR
export PLANE=${PLANE:-skmsg} # tcp: load nothing; naive: redirect without any care
PATH=$PATH:/usr/sbin:/sbin
HOOK=$HERE/hook.sh

# ---------------------------------------------------------------- saying how it went

# fail TEXT... - this test has failed
fail()
{
	echo "FAILED: $*" >&2
	exit 1
}

# skip TEXT... - this test cannot run here
skip()
{
	echo "$*" >"$DIR/skipped"
	exit 77
}

# needs_plane - this test says nothing without ismredir
needs_plane()
{
	[ "$PLANE" = skmsg ] || skip "needs ismredir, not PLANE=$PLANE"
}

# within SECONDS COMMAND... - repeat the command until it succeeds, at most so long
within()
{
	local end=$((SECONDS + $1 + 1))

	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}

gone()
{
	! kill -0 "$1" 2>/dev/null
}

# expect STATUS COMMAND... - the command ends with this status; its output is in $DIR/out
expect()
{
	local want=$1 got=0

	shift
	"$@" >"$DIR/out" 2>&1 || got=$?
	[ "$got" = "$want" ] || fail "status $got, expected $want: $*: $(tail -n 5 "$DIR/out")"
}

# said PATTERN - the output of the last expect has it
said()
{
	grep -Eq -- "$1" "$DIR/out" || fail "the message should match '$1': $(head -c 400 "$DIR/out")"
}

# ---------------------------------------------------------------- the box

# cgroup_root - where cgroup v2 is mounted
cgroup_root()
{
	awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "cgroup2") { print $5; exit } }' \
		/proc/self/mountinfo
}

# in_ns COMMAND... - in the network namespace of the box, or in the one that NS names
# (not by `ip netns exec`: that hides /sys/fs/bpf and /sys/fs/cgroup)
in_ns()
{
	nsenter --net="/run/netns/$NS" -- "$@"
}

ns_sysctl()
{
	in_ns sysctl -qw "$@"
}

# another_ns NAME - one more namespace, with lo up; prints its name
another_ns()
{
	ip netns add "$NS.$1"
	ip -n "$NS.$1" link set lo up
	echo "$NS.$1"
}

# veth NS1 ADDR1 NS2 ADDR2 - join two namespaces by a cable
veth()
{
	ip -n "$1" link add veth0 type veth peer name veth1 netns "$3"
	ip -n "$1" addr add "$2/24" dev veth0
	ip -n "$3" addr add "$4/24" dev veth1
	ip -n "$1" link set veth0 up
	ip -n "$3" link set veth1 up
}

# nft_rules - nftables rules for the box from stdin
nft_rules()
{
	in_ns nft -f - || skip "nft cannot do this here"
}

# ---------------------------------------------------------------- ismredir

# ism ARGS... - the ismredir under test; a hang of it must not be one of the caller
ism()
{
	timeout -k 5 60 "$ISMREDIR" "$@"
}

# load [ARGS...] - on $CG, or on what --cgroup says; without the self-tests, for time
load()
{
	local where=(--cgroup "$CG")

	case $PLANE in
	tcp) return 0 ;;
	naive) start_optprog naive "$CG" && return 0 ;;
	esac
	[[ " $* " != *" --cgroup "* ]] || where=()
	expect 0 ism load "${where[@]}" --skip-tests "$@"
}

# load_restless [ARGS...] - a load that never gives a connection up, however often it must switch to
# TCP and back, and blocking readers (which may then see EAGAIN) or not: for the switch rule itself
load_restless()
{
	load --set readers=any --set mix-bytes=0 --set leave-run=1000000000 \
		--set stream-run=1000000000 "$@"
}

# calm_and_restless COMMAND - run it under both kinds of load; HELD is what hook.sh can then ask of
# streams: without restlessness a connection may have gone to plain TCP for good
calm_and_restless()
{
	HELD=
	load
	"$1"
	unload
	HELD=accel
	load_restless
	"$1"
	unload
}

# unload [ARGS...] - and see that it left nothing
unload()
{
	case $PLANE in
	tcp) return 0 ;;
	naive) stop_optprog && return 0 ;;
	esac
	expect 0 ism unload "$@"
	[ ! -e "$ISMREDIR_PIN_DIR" ] || fail "unload left $(ls -R "$ISMREDIR_PIN_DIR")"
}

# status FILTER - a value out of `status -j`
status()
{
	ism -j status | jq -r "$1"
}

# reason NAME - how often it decided
reason()
{
	status ".reasons.$1 // 0"
}

expect_reason()
{
	[ "$(reason "$1")" -gt 0 ] ||
		fail "reason $1 was not counted: $(status '.reasons | tostring')"
}

# conns FILTER - a value out of `conns -j`
conns()
{
	ism -j conns | jq -r "$1"
}

# no_conns - the table is empty again
no_conns()
{
	[ "$(conns '.conns | length')" = 0 ]
}

# ---------------------------------------------------------------- programs of a test

# spawn NAME COMMAND... - in the background; its pid is in PID, its output in $DIR/NAME.log
spawn()
{
	local name=$1

	shift
	# Without a shell in between, which would take the signals that are meant for the program.
	[ "$1" != in_ns ] || set -- nsenter --net="/run/netns/$NS" -- "${@:2}"
	"$@" </dev/null >"$DIR/$name.log" 2>&1 &
	PID=$!
}

# reap PID STATUS NAME - wait for a spawned program and its status
reap()
{
	local got=0

	within 90 gone_or_zombie "$1" || fail "$3 does not end"
	wait "$1" || got=$?
	[ "$got" = "$2" ] || fail "$3: status $got, expected $2: $(tail -n 6 "$DIR/$3.log")"
}

gone_or_zombie()
{
	gone "$1" || grep -q '^State:.[ZX]' "/proc/$1/status" 2>/dev/null
}

# pair [ARGS...] - a verified pair in the box. Blocking receives may give EAGAIN: that has tests of
# its own (case_wait_*, streams_strict), and here must not hide other failures.
pair()
{
	in_ns "$B/netns/traffic" pair --cgroup "$CG" --eagain-ok "$@" >"$DIR/pair.log" 2>&1 || {
		local rc=$?

		[ $rc != 4 ] || skip "$(tail -n 1 "$DIR/pair.log")"
		fail "traffic $*: status $rc: $(tail -n 12 "$DIR/pair.log")"
	}
}

# accel_pair HOOK-WORDS [ARGS...] - the same, and the live connections must look so
accel_pair()
{
	local words=$1

	shift
	pair --on-verified "$HOOK $words" "$@"
}

# Requests and responses: what stays redirected.
TALK=(--rounds 60 --sizes small --sockopt nodelay=1)

# talk HOOK-WORDS [ARGS...] - a pair that does so
talk()
{
	local words=$1

	shift
	accel_pair "$words" "${TALK[@]}" "$@"
}

PORT=

# start_server NAME [ARGS...] - a verified server in the box; sets PID and PORT
start_server()
{
	local name=$1

	shift
	spawn "$name" in_ns "$B/netns/traffic" server "$@"
	within 10 grep -qs '^port' "$DIR/$name.log" || fail "$name does not listen: $(cat "$DIR/$name.log")"
	PORT=$(awk '/^port/ { print $2 }' "$DIR/$name.log")
}

# start_optprog MODE CGROUP - one of the other programs; until stop_optprog
start_optprog()
{
	spawn optprog "$B/netns/optprog" "$@"
	OPT_PID=$PID
	within 20 grep -qs attached "$DIR/optprog.log" || fail "optprog $*: $(cat "$DIR/optprog.log")"
}

# stop_optprog - sets OPT_DONE, how often it acted
stop_optprog()
{
	kill -TERM "$OPT_PID"
	reap "$OPT_PID" 0 optprog
	OPT_DONE=$(awk '/^done/ { print $2 }' "$DIR/optprog.log")
}

# comm_of NAME - traffic under another command name; prints its path
comm_of()
{
	cp "$B/netns/traffic" "$DIR/$1"
	echo "$DIR/$1"
}

# syn_counter - count SYNs that carry our option in the box; syns_seen prints how many
syn_counter()
{
	nft_rules <<-END
	table inet seen {
		chain out {
			type filter hook output priority 0;
			tcp flags & (syn | ack) == syn tcp option 254 exists counter
		}
	}
	END
}

syns_seen()
{
	in_ns nft -j list chain inet seen out |
		jq '[.. | .counter? // empty | .packets] | add // 0'
}
