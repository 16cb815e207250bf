# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2153 # used by whoever sources this, and from other libraries
#
# Two hosts, a and b: for each a box (apps/lib.sh) with a load, a pin directory, an ismredird and a socket
# of its own, joined by a cable and by a region. No table of one load has a token of the other, so each
# takes the other for another kernel.

CROSS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HOST=  # the host that apps/lib.sh and rings/lib.sh work on now
NAME=  # of the test
declare -A DAEMONS=() # pid of each host's ismredird
REGION= # file of the region
HOST_A=10.77.0.1 HOST_B=10.77.0.2 # addresses; servers are on b
export ISMREDIR_TEST_HOST=$HOST_B ISMREDIR_TEST_HOST6=fd77::2

# on HOST [COMMAND...] - work there from now on, or only for the command
on()
{
	local before=$HOST rc=0

	[ -z "$HOST" ] || DAEMONS[$HOST]=$DAEMON_PID
	HOST=$1
	BOX=$RUN.$NAME.$1
	CG=$(cgroup_root)/$BOX
	DIR=$TOP/$NAME/$1
	DAEMON_PID=${DAEMONS[$1]:-}
	export ISMREDIR_PIN_DIR=$TOP/bpf/$NAME-$1 ISMREDIR_SOCK=$TOP/$NAME/$1/sock
	[ $# -gt 1 ] || return 0
	shift
	"$@" || rc=$?
	[ -z "$before" ] || on "$before"
	return $rc
}

cable()
{
	local a=$RUN.$NAME.a b=$RUN.$NAME.b

	ip link add eth1 netns "$a" type veth peer name eth1 netns "$b" &&
		ip -n "$a" addr add "$HOST_A/24" dev eth1 && ip -n "$b" addr add "$HOST_B/24" dev eth1 &&
		ip -n "$a" addr add fd77::1/64 dev eth1 nodad && ip -n "$b" addr add fd77::2/64 dev eth1 nodad &&
		ip -n "$a" link set eth1 up && ip -n "$b" link set eth1 up
}

# hosts_open - both, joined by the cable, and a new region
hosts_open()
{
	mkdir -p "$TOP/$NAME/a" "$TOP/$NAME/b" && chmod 755 "$TOP/$NAME" "$TOP/$NAME"/[ab] || return 1
	for host in a b; do
		on $host
		box_open "$BOX" "$DIR" || return 1
	done
	REGION=/dev/shm/$RUN.$NAME
	region_make "$REGION" 256M
	cable
}

# hosts_close - end and remove everything; says what it cannot
hosts_close()
{
	for host in a b; do
		on $host
		box_kill CONT
		box_close
		[ ! -e "$ISMREDIR_PIN_DIR" ] || ism unload --timeout 1 >/dev/null 2>&1
	done
	rm -rf "${TOP:?}/$NAME" "$REGION" "$REGION".*
	HOST=
}

# region_make FILE SIZE
region_make()
{
	truncate -s "$2" "$1" || die "no space in $TOP"
	ism fabric format "shm:$1" >"$TOP/$NAME/format.log" 2>&1 ||
		die "fabric format: $(cat "$TOP/$NAME/format.log")"
}

# fabric [OPTIONS] - spec of the region on this host, which is rung by datagrams; % is another number on each
fabric()
{
	local addr=$HOST_A peer=1

	[ "$HOST" = a ] || addr=$HOST_B peer=2
	echo "shm:$REGION,bell=udp:$addr:7999${1:+,${1//%/$peer}}"
}

# daemon_up [ARGS...] - ismredird of this host, with the region; FABRIC: options of that
daemon_up()
{
	start_daemon --fabric "$(fabric "${FABRIC:-}")" --ring-size 256k "$@"
}

# both_up - loads and ismredirds of both, programs under run with rings from the first message on
both_up()
{
	export ISMREDIR_AFTER=1,1
	SERVER_BY=("${UNDER_RUN[@]}") CLIENT_BY=("${UNDER_RUN[@]}")
	for host in a b; do
		on $host
		load --skip-tests
		daemon_up
		within 5 announced || die "$host: its load does not know the fabric: $(ism -j status)"
	done
}

# announced - the load of this host knows its tag: offers and answers can carry it
announced()
{
	[ -n "$(ctl_tag)" ]
}

# ctl_tag - the tag that the load of this host puts on its offers, empty for none
ctl_tag()
{
	ism -j status | json '.fabrics[0]'
}

# both_down - they must end well, and leave nothing
both_down()
{
	for host in a b; do
		on $host
		stop_programs
		! crashed || die "$host: $(crashed | head -n 1)"
		[ -z "$DAEMON_PID" ] || stop_daemon
		[ -z "$(ctl_tag)" ] || die "$host: an ismredird that has stopped left its tag"
		unload
	done
}

# ends - both hosts' views of the connections to PORT: one line each, "HOST PLANE REASON REMOTE"
ends()
{
	for host in a b; do
		on $host ism -j conns port "$PORT" |
			jq -r --arg h $host '.conns[] | "\($h) \(.plane) \(.reason) \(.remote)"'
	done
}

# rings_at HOST - connections on rings there, with bytes in their own ring
rings_at()
{
	on "$1" direct_ends "$PORT"
}

# across - both hosts have an end on rings
across()
{
	[ "$(rings_at a)" -gt 0 ] && [ "$(rings_at b)" -gt 0 ]
}

# detached - no DMB is left on either host
detached()
{
	on a all_detached && on b all_detached
}

# exchange SECONDS [STYLE STYLE] - a checked transfer in both directions, server on b, client on a; pids in
# SERVER and CLIENT
exchange()
{
	rm -f "$TOP/$NAME"/?/transfer.log
	on b
	serve transfer "$PORT" "$PYTHON" "$RINGS/transfer.py" listen "$PORT" "$1" "${2:-epoll}" ||
		die "transfer.py does not start"
	SERVER=$PID
	on a
	start transfer "$PYTHON" "$RINGS/transfer.py" connect "$PORT" "$1" "${3:-blocking}"
	CLIENT=$PID
	within 20 grep -q '^flows' "$DIR/transfer.log" ||
		die "the transfer does not begin: $(cat "$TOP/$NAME"/?/transfer.log)"
}

# exact HOST - that end of the transfer got every byte, to an end
exact()
{
	grep -q '^exact .* end \(eof\|reset\)$' "$TOP/$NAME/$1/transfer.log"
}

# exchange_ends - the transfer must, to the last byte of both sides
exchange_ends()
{
	within 45 exchanged "$TOP/$NAME/a/transfer.log" "$TOP/$NAME/b/transfer.log" ||
		die "the transfer: $(tail -qn 1 "$TOP/$NAME"/?/transfer.log)"
}

# no_timeouts - nobody was woken by the safety timeout only
no_timeouts()
{
	for host in a b; do
		[ "$(on $host counter timeouts)" = 0 ] || die "$host: $(on $host counter timeouts) lost wake-ups"
	done
}
