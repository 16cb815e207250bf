# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# Programs without the library: ismredird moves their bytes between sockets and rings. Their streams are
# checked byte by byte, and every test sees that the relay had part in it.

RELAY=() # what else their ismredirds are told

# relay_up - loads and relaying ismredirds of both; streams that mostly overflow stay, for they are the test
relay_up()
{
	SERVER_BY=() CLIENT_BY=()
	for host in a b; do
		on "$host"
		load --skip-tests --set mix-bytes=0
		daemon_up --relay "${RELAY[@]}"
		within 5 announced || die "$host: its load does not know the fabric: $(ism -j status)"
		within 5 at_work || die "$host: the relay does not begin: $(cat "$DIR/ismredird.log")"
	done
}

# next_relay - this host has an ismredird again
next_relay()
{
	rm -f "$DIR/ismredird.log"
	daemon_up --relay "${RELAY[@]}"
	within 5 at_work || die "the next relay does not begin"
	within 5 announced || die "its load does not know the fabric"
}

# at_work - the relay of this host has the load
at_work()
{
	grep -q '^relay: at work' "$DIR/ismredird.log"
}

# talk SECONDS - a transfer between programs that wait in epoll: a blocking pair of tasks leaves by itself
talk()
{
	exchange "$1" epoll epoll
}

# relayed HOST - bytes that its load has redirected, ever
relayed()
{
	on "$1" sent | cut -d' ' -f1
}

# planes - both ends of PORT are on the plane relay
planes()
{
	[ "$(ends | grep -c ' relay ')" -ge "${1:-2}" ]
}

# slots HOST - slots that its relay has in use
slots()
{
	on "$1" ism -j conns | jq '[.conns[] | select(.plane == "relay")] | length'
}

no_slots()
{
	[ "$(slots a)" = 0 ] && [ "$(slots b)" = 0 ]
}

# checked ARGS... - verified traffic between the hosts
checked()
{
	on b serve traffic "$PORT" "$B/netns/traffic" server --listen "$HOST_B" --port "$PORT" --timeout 15 "$@" ||
		die "traffic does not start: $(tail -n 3 "$TOP/$NAME/b/traffic.log")"
	on a inbox "$B/netns/traffic" client --connect "$HOST_B" --port "$PORT" --timeout 15 "$@" >"$TOP/$NAME/a/traffic.log" 2>&1 ||
		die "traffic $*: $(tail -n 3 "$TOP/$NAME"/[ab]/traffic.log)"
	on b stop_programs
	PORT=$((PORT + 1))
}

# moved HOST SINCE - it has redirected more than that
moved()
{
	[ "$(relayed "$1")" -gt "$2" ]
}

# Requests and responses of all sizes, and streams, by every way of waiting; then what ends a connection. A
# connection on which one task sleeps in recv() while another sends stays on TCP (docs/switch-rule.rst).
test_relay_streams()
{
	local io sizes before

	relay_up
	for io in threads lt et; do
		for sizes in tiny log mix; do
			before=$(relayed a)
			checked --rounds 300 --io $io --sizes $sizes --conns 2
			[ $io = threads ] || moved a "$before" || die "$io, $sizes: nothing went by the relay"
		done
	done
	checked --bytes 4000000 --io et --conns 4 --pause-tx 5:20 --pause-rx 5:20 --sizes mix
	checked --rounds 200 --io poll --end half --tail 100000
	checked --rounds 200 --io poll --send oob
	[ "$(relayed b)" -gt 1000000 ] || die "b: only $(relayed b) bytes by the relay"
	! grep -h 'is reset' "$TOP/$NAME"/?/ismredird.log || die "a relay has lost something"
	# From here on the programs themselves leave bytes behind: relays may say so, and who sleeps in recv() hears EAGAIN
	# before the reset.
	checked --eagain-ok --rounds 200 --io poll --end rst --tail 100000
	checked --eagain-ok --rounds 200 --io poll --end unread --tail 100000
	within 10 no_slots || die "slots of ended connections stay"
	both_down
}

# The last bytes and the FIN at once: the FIN may not come first.
test_relay_fin()
{
	relay_up
	TRANSFERS=24 ends_at_once a
	[ "$(relayed a)" -gt 100000 ] || die "only $(relayed a) bytes by the relay"
	both_down
}

# left - the writer's end of PORT is TCP for good, because it streams, and so is the other; neither relay has it any more
left()
{
	[ "$(ends | grep -c '^a tcp stream true\|^b tcp peer_pinned true')" = 2 ] && no_slots
}

# What becomes a stream of small messages leaves its relay, and the sockhash, which is slower than plain TCP.
test_relay_bulk()
{
	local before file=$TOP/$NAME/a/bulk.done

	relay_up
	before=$(relayed a)
	on b serve bulk "$PORT" "$PYTHON" "$CROSS/bulk.py" listen "$HOST_B" "$PORT" || die "bulk.py does not start"
	on a spawn bulk "$PYTHON" "$CROSS/bulk.py" connect "$HOST_B" "$PORT" "$file"
	within 30 test -e "$file" || die "the stream does not arrive: $(cat "$TOP/$NAME"/?/bulk.log)"
	moved a "$before" || die "nothing went by the relay"
	within 10 left || die "it does not leave: $(ends)"
	rm "$file"
	both_down
}

# for_crowd - how often ends took TCP because their relay has too much to do; the end whose relay says so first takes
# the other end with it
for_crowd()
{
	for host in a b; do
		on "$host" ism -j status
	done | jq -s '[.[].reasons.crowded // 0] | add'
}

# all_relayed ARGS... - traffic of which the relay gives nothing to TCP
all_relayed()
{
	local before

	before=$(for_crowd)
	checked --rounds 10000 --io et --sizes tiny --conns 16 "$@"
	[ "$(for_crowd)" = "$before" ] || die "$*: $(for_crowd) ends did not stay with the relay, before $before"
}

# on_two_cpus - this shell and what it starts from now on
on_two_cpus()
{
	"$PYTHON" -c 'import os; p = os.getppid(); os.sched_setaffinity(p, sorted(os.sched_getaffinity(p))[:2])'
}

# A relay that has always something to do, for many connections with small messages, gives those to TCP; but not
# those that TCP would let wait, nor if it is told to keep all.
test_relay_crowd()
{
	local host RELAY=(--crowd 4)

	on_two_cpus
	relay_up
	checked --rounds 40000 --io et --sizes tiny --conns 16 --sockopt nodelay=1
	[ "$(for_crowd)" -gt 0 ] || die "none goes: $(for host in a b; do on $host ism -j status | jq -c .reasons,.daemon.relay; done)"
	[ "$(relayed a)" -gt 10000 ] || die "only $(relayed a) bytes by the relay"
	within 10 no_slots || die "slots of ended connections stay"
	all_relayed
	for host in a b; do
		on $host stop_daemon
	done
	RELAY=(--crowd 0)
	for host in a b; do
		on $host next_relay
	done
	all_relayed --sockopt nodelay=1
	both_down
}

# A reader that stops: what its writer can get rid of is bounded, and arrives once it reads.
test_relay_stopped_reader()
{
	local size n

	relay_up
	for size in 65536 1000 1; do
		rm -f "$TOP/$NAME/b/stopped.log"
		on b serve stopped "$PORT" "$PYTHON" "$CROSS/stopped.py" listen "$HOST_B" "$PORT" ||
			die "stopped.py does not start"
		n=$(on a inbox "$PYTHON" "$CROSS/stopped.py" connect "$HOST_B" "$PORT" $size) || die "stopped.py: $n"
		within 20 grep -q "^got $n\$" "$TOP/$NAME/b/stopped.log" ||
			die "$n were sent by $size: $(cat "$TOP/$NAME/b/stopped.log")"
		[ "$n" -lt 16000000 ] || die "a writer without a reader got rid of $n bytes"
		PORT=$((PORT + 1))
	done
	[ "$(relayed a)" -gt 100000 ] || die "only $(relayed a) bytes by the relay"
	both_down
}

# ismredird stands still for a while: nothing is lost, or in another order.
test_relay_standstill()
{
	relay_up
	talk 6
	within 3 planes || die "no relay: $(ends)"
	on b
	kill -STOP "$DAEMON_PID"
	sleep 2
	kill -CONT "$DAEMON_PID"
	exchange_ends
	both_down
}

# kill_both - the ismredird of this host and its guard at once; then comes the next one
kill_both()
{
	local guard

	guard=$(ps -o pid= --ppid "$DAEMON_PID" | tr -d ' ')
	[ -n "$guard" ] || die "it has no guard"
	kill -KILL "$guard" "$DAEMON_PID"
	within 5 gone "$DAEMON_PID" || die "ismredird does not die"
	within 5 gone "$guard" || die "its guard does not die"
	next_relay
}

# killed_in_between COMMAND... - b's ismredird is killed in the middle of a transfer for which COMMAND says that it has
# begun, and started again, three times
killed_in_between()
{
	local round

	for round in 1 2 3; do
		talk 8
		within 8 "$@" || die "round $round: not what it should be: $(ends)"
		on b
		"${KILL:-kill_daemon}"
		within 20 ends_told || die "round $round: $(tail -qn 1 "$TOP/$NAME"/?/transfer.log)"
		on b
		! gone "$DAEMON_PID" || next_relay
		stop_programs
		on a stop_programs
		PORT=$((PORT + 1))
	done
	both_down
}

# It is killed: a connection that loses bytes is reset, all others go on, and the next one relays again.
test_relay_killed()
{
	relay_up
	killed_in_between planes
}

# With its guard: what is in the relay holds back what follows, until the next one resets such connections.
test_relay_guard_killed()
{
	relay_up
	KILL=kill_both killed_in_between planes
}

# ends_told - both ends of the transfer have said how it ended
ends_told()
{
	exact a && exact b
}

# It is stopped and started in the middle of a transfer, and the load taken away: TCP has it meanwhile.
test_relay_restart()
{
	relay_up
	talk 10
	within 3 planes || die "no relay: $(ends)"
	on b
	stop_daemon
	[ "$(ends | grep -c ' relay ')" -lt 2 ] || die "b still relays without ismredird"
	rm -f "$DIR/ismredird.log"
	daemon_up --relay
	within 8 planes || die "not relayed again: $(ends)"
	on a ism unload --timeout 10 >/dev/null || die "a: unload"
	exchange_ends
	on a load --skip-tests
	both_down
}

# other - one more connection, to the next port; it may come to any end
other()
{
	local port=$((PORT + 1))

	on b serve other $port "$PYTHON" "$RINGS/transfer.py" listen $port 60 epoll || die "no second server"
	on a start other "$PYTHON" "$RINGS/transfer.py" connect $port 60 epoll
	within 10 grep -q '^flows' "$TOP/$NAME/a/other.log" || die "the second transfer does not begin"
}

# other_planes - both ends of that are relayed
other_planes()
{
	local PORT=$((PORT + 1))

	planes 2
}

# asked N - the relay of this host was asked for so many connections
asked()
{
	[ "$(ism -j status | json .daemon.relay.total)" = "$1" ]
}

# gave_up - the relay of this host has waited for a partner in vain
gave_up()
{
	grep -q 'stays on TCP: Connection timed out' "$DIR/ismredird.log"
}

# A relay that is stopped is asked for a connection while it is not done with another one, and does not come to that.
# Its partner's waits for it, and gives up. The next one is asked again.
test_relay_asked_in_vain()
{
	relay_up
	other
	within 5 other_planes || die "no relay"
	on b
	kill -STOP "$DAEMON_PID"
	talk 60
	within 5 asked 2 || die "a was not asked: $(ends)"
	stop_daemon
	on b
	kill -CONT "$DAEMON_PID"
	within 20 gave_up || die "b was not asked: $(ends)"
	on a next_relay
	within 8 planes || die "not relayed: $(ends)"
	kill -USR1 "$CLIENT" "$SERVER" # enough
	exchange_ends
	both_down
}
