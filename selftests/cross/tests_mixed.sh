# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# A program with the library on one host, one without on the other: rings, which one side's program moves
# itself and the other side's relay.

# mixed_up DIRECT - as relay_up, but the programs of that host are under run
mixed_up()
{
	relay_up
	export ISMREDIR_AFTER=1,1
	if [ "$1" = a ]; then CLIENT_BY=("${UNDER_RUN[@]}"); else SERVER_BY=("${UNDER_RUN[@]}"); fi
}

# mixed DIRECT - a connection is on rings there, and relayed at the other end
mixed()
{
	local relay=a

	[ "$1" = b ] || relay=b
	[[ $(ends) == *"$1 direct "* ]] && [[ $(ends) == *"$relay relay "* ]]
}

# mixed_transfer DIRECT - checked bytes, both ways at once, by every way of waiting of the direct side
mixed_transfer()
{
	local style

	mixed_up "$1"
	for style in select poll epoll blocking; do
		if [ "$1" = a ]; then exchange 3 epoll $style; else exchange 3 $style epoll; fi
		within 5 mixed "$1" || die "$style: not mixed: $(ends)"
		exchange_ends
		PORT=$((PORT + 1))
	done
	both_down
}

test_mixed_transfer_a()
{
	mixed_transfer a
}

test_mixed_transfer_b()
{
	mixed_transfer b
}

# A host whose ismredird does not relay has nothing in common with one whose programs are plain: TCP, every byte.
test_mixed_without_relay()
{
	mixed_up a
	on a
	stop_daemon
	rm -f "$DIR/ismredird.log"
	daemon_up
	within 5 announced || die "its load does not know the fabric"
	exchange 3 epoll epoll
	exchange_ends
	[[ $(on b ism -j status | jq -c .reasons) == *no_plane* ]] || die "b did not refuse: $(on b ism -j status)"
	[ "$(relayed b)" = 0 ] || die "$(relayed b) bytes went by a relay"
	[ "$(direct_bytes a)" = 0 ] || die "$(direct_bytes a) bytes went by rings"
	both_down
}

# direct_bytes HOST - what its programs moved by rings, ever
direct_bytes()
{
	on "$1" counter ring_bytes
}

# mixed_streams DIRECT - requests and responses, streams and what ends them
mixed_streams()
{
	local relay=a before io

	[ "$1" = b ] || relay=b
	mixed_up "$1"
	for io in poll lt et; do
		before=$(relayed $relay)
		checked --rounds 300 --io $io --sizes log --conns 2
		moved $relay "$before" || die "$io: nothing went by the relay"
	done
	checked --bytes 2000000 --io et --conns 3 --pause-tx 5:20 --pause-rx 5:20 --sizes mix
	checked --rounds 200 --io poll --end half --tail 100000
	checked --rounds 200 --io poll --send oob
	[ "$(direct_bytes "$1")" -gt 100000 ] || die "only $(direct_bytes "$1") bytes by the program itself"
	! grep -h 'is reset' "$TOP/$NAME"/?/ismredird.log || die "a relay has lost something"
	# Ends that may lose bytes, and who sleeps in recv() hears EAGAIN before the reset.
	checked --eagain-ok --rounds 200 --io poll --end rst --tail 100000
	checked --eagain-ok --rounds 200 --io poll --end unread --tail 100000
	within 10 no_slots || die "slots of ended connections stay"
	both_down
}

test_mixed_streams_a()
{
	mixed_streams a
}

test_mixed_streams_b()
{
	mixed_streams b
}

# ends_at_once HOST [killed] [slow] - the last bytes of that host's program and its end at once, TRANSFERS or 16 times:
# the other one's reads all of them
ends_at_once()
{
	local n=${TRANSFERS:-16} listens=receive connects=send log=b

	[ "$1" = a ] || { listens=send connects=receive log=a; }
	shift
	on b serve fin "$PORT" "$PYTHON" "$CROSS/fin.py" listen "$HOST_B" "$PORT" $listens "$n" "$@" ||
		die "fin.py does not start"
	on a inbox "$PYTHON" "$CROSS/fin.py" connect "$HOST_B" "$PORT" $connects "$n" "$@" >"$TOP/$NAME/a/fin.log" 2>&1 ||
		die "fin.py: $(tail -n 3 "$TOP/$NAME"/?/fin.log)"
	within 10 grep -q "^transfers $n bad 0\$" "$TOP/$NAME/$log/fin.log" ||
		die "truncated: $(cat "$TOP/$NAME/$log/fin.log")"
}

# Of two processes that hold a writer one is killed: no FIN, no reset, and the other's bytes follow.
test_mixed_holders()
{
	local n=8

	mixed_up a
	on b serve holders "$PORT" "$PYTHON" "$CROSS/holders.py" listen "$HOST_B" "$PORT" $n || die "holders.py does not start"
	on a inbox "$PYTHON" "$CROSS/holders.py" connect "$HOST_B" "$PORT" $n >"$TOP/$NAME/a/holders.log" 2>&1 ||
		die "holders.py: $(cat "$TOP/$NAME/a/holders.log")"
	within 20 grep -q "^of $n good $n\$" "$TOP/$NAME/b/holders.log" || die "$(cat "$TOP/$NAME/b/holders.log")"
	[ "$(direct_bytes a)" -gt 1000000 ] || die "only $(direct_bytes a) bytes by the program itself"
	both_down
}

test_mixed_fin_a()
{
	mixed_up a
	ends_at_once a
	[ "$(direct_bytes a)" -gt 100000 ] || die "only $(direct_bytes a) bytes by the program itself"
	# Programs that end in order say so, and wait for no daemon.
	! grep 'is let go' "$TOP/$NAME/a/ismredird.log" || die "a FIN was held that need not be"
	both_down
}

test_mixed_fin_b()
{
	mixed_up b
	ends_at_once a
	[ "$(relayed a)" -gt 100000 ] || die "only $(relayed a) bytes by the relay"
	both_down
}

# A writer that is killed: what it has sent by the relay is read to the last byte.
test_mixed_fin_killed_b()
{
	mixed_up b
	ends_at_once a killed
	[ "$(relayed a)" -gt 100000 ] || die "only $(relayed a) bytes by the relay"
	both_down
}

# killed_writer HOST [slow] - the same of one with the library there: its FIN waits for the remote relay
killed_writer()
{
	mixed_up "$1"
	ends_at_once "$1" killed "${@:2}"
	[ "$(direct_bytes "$1")" -gt 100000 ] || die "only $(direct_bytes "$1") bytes by the program itself"
	! grep -h 'is reset' "$TOP/$NAME"/?/ismredird.log || die "a connection was reset"
	grep -q 'is let go' "$TOP/$NAME/$1/ismredird.log" || die "no FIN was held: nothing was tested"
	both_down
}

test_mixed_killed_writer_a()
{
	killed_writer a
}

test_mixed_killed_writer_b()
{
	killed_writer b
}

test_mixed_killed_writer_slow_a()
{
	killed_writer a slow
}

test_mixed_killed_writer_slow_b()
{
	killed_writer b slow
}

# The daemon of the writer is killed, and then the writer behind its last send(): the guard sees to its end.
test_mixed_killed_writer_alone()
{
	local n

	mixed_up a
	for n in 1 2 3 4 5 6; do
		rm -f "$TOP/$NAME"/?/fin.log
		on b serve fin "$PORT" "$PYTHON" "$CROSS/fin.py" listen "$HOST_B" "$PORT" receive 1 ||
			die "fin.py does not start"
		on a
		start fin "$PYTHON" "$CROSS/fin.py" connect "$HOST_B" "$PORT" send 1 killed daemon "$DAEMON_PID"
		within 20 grep -q '^transfers 1 bad 0$' "$TOP/$NAME/b/fin.log" ||
			die "$n: truncated, or hangs: $(cat "$TOP/$NAME"/?/fin.log)"
		within 5 gone "$DAEMON_PID" || die "the daemon was not killed"
		next_relay
		PORT=$((PORT + 1))
	done
	both_down
}

# Another daemon has come in between, which knows the rings by the programs.
test_mixed_killed_writer_resumed()
{
	mixed_up a
	exchange 60 epoll epoll
	within 5 mixed a || die "not mixed: $(ends)"
	on a
	kill_daemon
	next_relay
	within 10 resumed || die "the rings do not come back: $(ism dmbs)"
	kill -KILL "$CLIENT"
	within 10 gone "$SERVER" || die "the survivor hangs"
	exact b || die "the survivor: $(tail -n 2 "$TOP/$NAME/b/transfer.log")"
	both_down
}

# held_end - a program of a is killed while its bytes wait for b's relay, which stands still: its FIN is held
held_end()
{
	mixed_up a
	on b serve last "$PORT" "$PYTHON" "$CROSS/last.py" listen "$HOST_B" "$PORT" || die "last.py does not start"
	on a
	start last "$PYTHON" "$CROSS/last.py" connect "$HOST_B" "$PORT" "$TOP/$NAME/cue"
	within 20 grep -q ready "$DIR/last.log" || die "not ready: $(cat "$TOP/$NAME"/?/last.log)"
	within 5 mixed a || die "not mixed: $(ends)"
	kill -STOP "${DAEMONS[b]}"
	: >"$TOP/$NAME/cue"
	within 10 held 1 || die "no FIN is held: $(ism -j status)"
}

# held NUMBER - so many ends are held back here
held()
{
	[ "$(ism -j status | json .connections.held)" = "$1" ]
}

# last_is HOW - how the reader of the last bytes saw the end
last_is()
{
	within "${2:-10}" grep -qE '^(whole|truncated|reset)' "$TOP/$NAME/b/last.log" || die "the reader hangs"
	grep -q "^$1" "$TOP/$NAME/b/last.log" || die "$(cat "$TOP/$NAME/b/last.log")"
}

# Unload takes away what holds the FIN, so it waits.
test_mixed_unload_waits()
{
	held_end
	! ism unload --timeout 1 >"$TOP/$NAME/unload.log" 2>&1 || die "it does not wait"
	grep -q 'draining: 1 connection ' "$TOP/$NAME/unload.log" || die "$(cat "$TOP/$NAME/unload.log")"
	kill -CONT "${DAEMONS[b]}"
	ism unload --timeout 10 >"$TOP/$NAME/unload.log" 2>&1 || die "unload: $(cat "$TOP/$NAME/unload.log")"
	last_is whole
	load --skip-tests
	both_down
}

# Without ismredird and its guard nobody sees to it: status says so, and the next one resets it.
test_mixed_held_alone()
{
	local guard

	held_end
	guard=$(ps -o pid= --ppid "$DAEMON_PID" | tr -d ' ')
	kill -KILL "$guard" "$DAEMON_PID"
	within 5 gone "$DAEMON_PID" || die "ismredird does not die"
	ism status | grep -q '^held back: the end of 1 connection,.*start ismredird$' || die "$(ism status)"
	next_relay
	ism status | grep -q '^held back: the end of 1 connection,.*before it$' || die "$(ism status)"
	within 15 held 0 || die "it is not reset: $(ism status)"
	kill -CONT "${DAEMONS[b]}"
	last_is reset
	both_down
}

# The remote relay is killed with bytes of the program in it: what follows the hole is not read.
test_mixed_relay_killed()
{
	mixed_up a
	killed_in_between mixed a
}

# The program with the library is killed in the middle of a stream: the other one sees the end, and what
# it got before is exact.
test_mixed_killed()
{
	local n

	mixed_up a
	for n in 1 2 3 4; do
		exchange 60 epoll epoll
		within 5 mixed a || die "$n: not mixed: $(ends)"
		sleep "0.$((RANDOM % 300 + 100))"
		kill -KILL "$CLIENT"
		within 10 gone "$SERVER" || die "$n: the survivor hangs"
		exact b || die "$n: the survivor: $(tail -n 2 "$TOP/$NAME/b/transfer.log")"
		PORT=$((PORT + 1))
	done
	# What a relay still has for the dead is given up soon, not only when both kernels have given up the sockets.
	within 45 detached || die "the rings of the dead stay: $(on a ism dmbs) $(on b ism dmbs) $(ends)"
	within 10 no_slots || die "slots of ended connections stay"
	both_down
}
