# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# Fabrics of one ismredird, and its answers to who asks for rings across them.

# by_hand MODE - attach.py at both ends: it must find all as it should be
by_hand()
{
	on b
	serve "$1" "$PORT" "$PYTHON" "$CROSS/attach.py" listen "$PORT" "$1" || die "$1: attach.py does not start"
	on a inbox "$PYTHON" "$CROSS/attach.py" connect "$PORT" "$1" >"$TOP/$NAME/$1.log" 2>&1 ||
		die "$1: $(tail -n 3 "$TOP/$NAME/$1.log")"
	within 10 gone "$PID" || die "$1: the listening end hangs"
	grep -q '^well' "$TOP/$NAME/b/$1.log" || die "$1: the listening end: $(tail -n 3 "$TOP/$NAME/b/$1.log")"
}

test_attach()
{
	both_up
	SERVER_BY=() CLIENT_BY=()
	by_hand pair
	by_hand wait
	by_hand stranger
	within 5 detached || die "DMBs stay: $(on a ism dmbs) $(on b ism dmbs)"
	both_down
}

# peers_are JSON - what this host says of the peers of its second fabric: number, state, is it this host?
peers_are()
{
	[ "$(ism -j fabrics | jq -c '[.fabrics[1].peers[] | [.peer, .state, .self]]')" = "$1" ]
}

test_fabric_peers()
{
	both_up
	on a
	peers_are '[[0,"alive",true],[1,"alive",false]]' || die "$(ism -j fabrics)"
	on b peers_are '[[0,"alive",false],[1,"alive",true]]' || die "$(on b ism -j fabrics)"
	[ "$(ism -j fabrics | jq -c '[.fabrics[1].peers[].gid]')" = \
		"$(on b ism -j fabrics | jq -c '[.fabrics[1].peers[].gid]')" ] || die "GIDs differ"
	ism fabrics | grep -Eq '^ *1 +1 alive ' || die "$(ism fabrics)"
	kill -STOP "${DAEMONS[b]}"
	within 10 peers_are '[[0,"alive",true],[1,"silent",false]]' || die "of a stopped one: $(ism -j fabrics)"
	ism -j fabrics | jq -e '.fabrics[1].peers[1] | .age_ms > .lease_ms' >/dev/null || die "$(ism -j fabrics)"
	kill -CONT "${DAEMONS[b]}"
	within 10 peers_are '[[0,"alive",true],[1,"alive",false]]' || die "it goes on: $(ism -j fabrics)"
	on b stop_daemon
	within 5 peers_are '[[0,"alive",true]]' || die "it has left: $(ism -j fabrics)"
	both_down
}

# cannot TEXT ARGS... - ismredird refuses to start, and says so
cannot()
{
	local out

	! out=$(inbox "$DAEMON" --socket "$DIR/other" "${@:2}" 2>&1) || die "it starts: ${*:2}"
	[[ $out == *"$1"* ]] || die "${*:2}: $out"
}

test_fabrics()
{
	local n options=()

	on a
	load --skip-tests
	region_make "$REGION.2" 64M
	start_daemon --fabric memfd: --fabric "$(fabric)" --fabric "shm:$REGION.2" --ring-size 256k
	within 5 announced || die "the load does not know the fabrics"
	[ "$(ism -j fabrics | jq -c '[.fabrics[] | .index]')" = "[0,1,2]" ] || die "$(ism -j fabrics)"
	[ "$(ism -j fabrics | jq -c '[.fabrics[].tag // empty]')" = "$(ism -j status | jq -c .fabrics)" ] ||
		die "listed and announced differ: $(ism -j fabrics) $(ism -j status | jq -c .fabrics)"
	ism -j fabrics | jq -e '.fabrics[1].caps | contains("by_token")' >/dev/null || die "$(ism -j fabrics)"
	ism load --cgroup "$CG" --replace --skip-tests >/dev/null 2>&1 || die "load --replace"
	[ "$(ism -j status | jq '.fabrics | length')" = 2 ] || die "load --replace forgets the fabrics"
	stop_daemon
	[ "$(ism -j status | jq '.fabrics | length')" = 0 ] || die "a stopped ismredird left its tags"
	cannot "opened twice" --fabric "shm:$REGION.2" --fabric "shm:$REGION.2"
	cannot "for this kernel already" --fabric memfd: --fabric memfd:
	for n in {1..6}; do
		options+=(--fabric "shm:$REGION.2")
	done
	cannot "is not understood" "${options[@]}"
	cannot "do not fit" --ring-size 64M --fabric "shm:$REGION.2"
	cannot "" --fabric "shm:$REGION.none"
	unload
}
