# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# Programs as they are, over the relay.

# by_relay BYTES - so many have left each host by its relay, and no connection was reset for it
by_relay()
{
	for host in a b; do
		[ "$(relayed $host)" -gt "$1" ] || die "$host: only $(relayed $host) bytes by the relay"
		! on $host grep 'is reset' "$TOP/$NAME/$host/ismredird.log" || die "$host: a relay has lost something"
	done
}

# Values of many sizes by one connection that stays, there and back; and the stock benchmark.
test_relay_redis()
{
	have redis-server redis-benchmark redis-cli || { echo "$MISSING is not installed" >"$TOP/$NAME/skip"; exit 0; }
	relay_up
	on b serve redis "$PORT" redis-server --port "$PORT" --bind "$HOST_B" --protected-mode no --save '' \
		--dir "$TOP/$NAME/b" --daemonize no || die "redis-server does not start"
	on a inbox "$PYTHON" "$CROSS/values.py" "$HOST_B" "$PORT" || die "the values differ"
	bench -n 20000 -c 20 -d 1024 -t set,get,lpush
	bench -n 20000 -c 5 -d 1024 -t set,get -P 16
	! grep -i error "$TOP/$NAME/bench.log" || die "redis-benchmark: $(grep -i error "$TOP/$NAME/bench.log")"
	by_relay 500000
	both_down
}

test_relay_asyncio()
{
	relay_up
	on b serve echo "$PORT" "$PYTHON" "$APPS/echo_peers.py" serve "$PORT" || die "echo_peers.py does not start"
	on a inbox "$PYTHON" "$APPS/echo_peers.py" talk "$PORT" 4 16000000 || die "the echo differs"
	by_relay 100000
	both_down
}

# trickle FILE - in small pieces at first, so that a relay takes the connection, then the rest
trickle()
{
	for _ in {1..60}; do
		head -c 1000
		sleep 0.02
	done <"$1"
	tail -c +60001 "$1"
}

# A program that no library can be loaded into.
test_relay_static()
{
	local file got=$TOP/$NAME/got

	file=$(blob static 4000000)
	relay_up
	on b serve echo "$PORT" "$PYTHON" "$APPS/echo_peers.py" serve "$PORT" || die "echo_peers.py does not start"
	trickle "$file" | on a inbox "$STATIC" "$PORT" >"$got" || die "static program: exit $?"
	same "$file" "$got" "what comes back"
	by_relay 20000
	both_down
}

# Memory that has to be flushed and fetched: nothing is mapped for the partner, all goes by move_data.
test_relay_not_coherent()
{
	local FABRIC=coherent=no,peer=% io

	relay_up
	for host in a b; do
		[[ $(on $host ism -j fabrics | jq -r '.fabrics[] | select(.index > 0) | .caps') != *coherent* ]] ||
			die "$host: its fabric is coherent"
	done
	for io in lt et; do
		checked --rounds 300 --io $io --sizes mix --conns 2
	done
	checked --bytes 4000000 --io et --conns 4 --pause-tx 5:20 --pause-rx 5:20 --sizes mix
	checked --rounds 200 --io poll --end half --tail 100000
	by_relay 100000
	within 10 no_slots || die "slots of ended connections stay"
	both_down
}

# shown HOST - what the listings say of the one end that it relays
shown()
{
	local conn

	conn=$(on "$1" ism -j conns port "$PORT" plane relay | jq -c '.conns[0]')
	[ "$(json .ring_size <<<"$conn")" = 262144 ] || die "$1: the ring of an end: $conn"
	[ "$(jq '.ring_bytes > 0 and .ring_msgs > 0' <<<"$conn")" = true ] ||
		die "$1: bytes of an end: $conn"
	[ "$(on "$1" ism -j dmbs | jq '[.dmbs[] | select((.attached | contains("relay")) and .writer.bytes > 0)] | length')" = 2 ] ||
		die "$1: its DMBs: $(on "$1" ism -j dmbs)"
	on "$1" ism status | grep -q '^plane relay: 1 ends now' || die "$1: status: $(on "$1" ism status)"
}

# What the command shows of relayed ends: rings, bytes, doorbells; and only who may sees it.
test_relay_shown()
{
	relay_up
	talk 4
	within 3 planes || die "no relay: $(ends)"
	within 3 rung a || die "a: no doorbells: $(on a ism -j status | jq -c .daemon.relay)"
	shown a
	shown b
	[ "$(on a inbox setpriv --reuid=1000 --regid=1000 --clear-groups "$ISMREDIR" -j dmbs | jq '.dmbs | length')" = 0 ] ||
		die "another user sees root's DMBs"
	exchange_ends
	within 10 no_slots || die "slots of ended connections stay"
	for host in a b; do
		[ "$(on $host ism -j status | jq -c '.daemon.relay | [.ends, .total, .broken]')" = '[0,1,0]' ] ||
			die "$host: $(on $host ism -j status | jq -c .daemon.relay)"
	done
	both_down
}

rung()
{
	[ "$(on "$1" ism -j status | jq '.daemon.relay | .doorbells > 0 and .tx_bytes > 100000 and .rx_bytes > 100000')" = true ]
}

# With the capabilities of the drop-in ismredird-relay.conf and no other one: the relay works, and its guard does.
test_relay_least_rights()
{
	local caps

	caps=$(sed -n 's/^CapabilityBoundingSet=//p' "$CROSS/../../user/daemon/ismredird-relay.conf" \
		"$CROSS/../../user/daemon/ismredird.service" | tr 'A-Z ' 'a-z\n' | sed 's/^cap_/,+/' | tr -d '\n')
	[[ $caps == *+perfmon*+bpf* ]] || die "the units ask for $caps"
	# shellcheck disable=SC2016 # for the shell that is written
	printf '#!/bin/sh\nexec setpriv --inh-caps=-all --bounding-set=-all%s "%s" "$@"\n' "$caps" "$DAEMON" >"$TOP/$NAME/ismredird"
	chmod +x "$TOP/$NAME/ismredird"
	DAEMON=$TOP/$NAME/ismredird
	relay_up
	talk 3
	within 3 planes || die "no relay: $(ends)"
	exchange_ends
	by_relay 100000
	PORT=$((PORT + 1))
	talk 20
	within 3 planes || die "no relay: $(ends)"
	on b
	kill_daemon
	within 10 grep -q 'relay: .* connections had bytes in it' "$DIR/ismredird.log" || die "b: its guard does nothing"
	next_relay
	stop_programs
	on a stop_programs
	on b without_syslog
	both_down
}

# without_syslog - where the kernel hides addresses, a relay that would not recognise sleepers does not begin
without_syslog()
{
	setpriv --inh-caps=-all --bounding-set=-all grep -q '^0* . woken_wake_function$' /proc/kallsyms || return 0
	stop_daemon
	rm -f "$DIR/ismredird.log"
	sed -i 's/,+syslog//' "$DAEMON"
	daemon_up --relay
	within 5 grep -q '^relay: .*CAP_SYSLOG' "$DIR/ismredird.log" || die "it begins without addresses"
	! at_work || die "it is at work without addresses"
}
