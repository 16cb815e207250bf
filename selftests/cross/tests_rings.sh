# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# Bytes through rings between hosts, while everything comes and goes.

# Both ends of a transfer, by every way of waiting.
test_transfer()
{
	local style

	both_up
	for style in blocking select poll epoll; do
		exchange 2 "$style" "$style"
		within 10 across || die "$style: no rings: $(ends)"
		exchange_ends
	done
	[ "$(on a counter ring_bytes)" -gt 4000000 ] || die "a: only $(on a counter ring_bytes) bytes on rings"
	[ "$(on b counter ring_bytes)" -gt 4000000 ] || die "b: only $(on b counter ring_bytes) bytes on rings"
	within 5 detached || die "rings of ended connections stay"
	no_timeouts
	both_down
}

# Many connections at once, to servers of every process model.
test_servers()
{
	local model

	both_up
	for model in thread fork prefork selectors; do
		on b serve "$model" "$PORT" "$PYTHON" "$RINGS/peers.py" "$model" "$PORT" || die "$model does not start"
		on a inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 8 1000000 || die "$model: the echo differs"
		on b stop_programs
	done
	[ "$(on b counter ring_bytes)" -gt 10000000 ] || die "only $(on b counter ring_bytes) bytes on rings"
	within 5 detached || die "rings of ended connections stay"
	no_timeouts
	both_down
}

# by - words that make a command one of this host, under run
by()
{
	echo "$CROSS/host.sh $BOX $CG $ISMREDIR_PIN_DIR $ISMREDIR_SOCK $ISMREDIR run --"
}

# What TCP sockets do, between the hosts. Left out are two cases in which both ends write first, more than TCP
# itself holds on a cable, and what is about one host only.
test_posix()
{
	local cases status log=$TOP/$NAME/posix.log

	both_up
	mapfile -t cases < <("$B/direct/posix" -l | grep -vxE 'both_write_first|echo_of_much|same_process|connect_refused')
	timeout 100 "$B/direct/posix" -m both -j 4 -C "$(on a by)" -S "$(on b by)" "${cases[@]}" >"$log" 2>&1
	status=$?
	[ $status = 0 ] || die "$(grep -c ^FAIL "$log") of ${#cases[@]} cases: $(grep -A 3 ^FAIL "$log" | head -n 12)"
	tail -n 1 "$log" >"$TOP/$NAME/note"
	no_timeouts
	both_down
}

# bench ARGS... - redis-benchmark from a to b
bench()
{
	on a inbox redis-benchmark -h "$HOST_B" -p "$PORT" -q "$@" >"$TOP/$NAME/bench.log" 2>&1 ||
		die "redis-benchmark: exit $? $(tail -n 2 "$TOP/$NAME/bench.log")"
}

test_redis()
{
	have redis-server redis-benchmark || { echo "$MISSING is not installed" >"$TOP/$NAME/skip"; exit 0; }
	both_up
	on b serve redis "$PORT" redis-server --port "$PORT" --bind "$HOST_B" --protected-mode no --save '' \
		--dir "$DIR" --daemonize no || die "redis-server does not start"
	bench -n 20000 -c 50 -d 1024 -t set,get,lpush
	bench -n 20000 -c 10 -d 1024 -t set,get -P 16
	[ "$(on b counter ring_bytes)" -gt 10000000 ] || die "only $(on b counter ring_bytes) bytes on rings"
	on b stop_programs
	within 5 detached || die "rings of ended connections stay"
	no_timeouts
	both_down
}

# One end is killed at a random moment: what the other one got is exact, and it sees the end.
test_killed_program()
{
	local n styles=(blocking select poll epoll) victim survivor

	both_up
	for n in {1..12}; do
		exchange 60 "${styles[RANDOM % 4]}" "${styles[RANDOM % 4]}"
		sleep "0.$((RANDOM % 300 + 1000))"
		victim=$SERVER survivor=$CLIENT host=a
		[ $((RANDOM % 2)) = 0 ] || { victim=$CLIENT survivor=$SERVER host=b; }
		kill -KILL "$victim"
		within 10 gone "$survivor" || die "$n: the survivor on $host hangs"
		exact $host || die "$n: the survivor on $host: $(tail -n 2 "$TOP/$NAME/$host/transfer.log")"
	done
	within 10 detached || die "the rings of the dead stay"
	both_down
}

# restart HOST - its ismredird is killed or stopped, and started again; its programs give it their rings back
restart()
{
	on "$1"
	kill_daemon "${2:-KILL}"
	sleep "0.$((RANDOM % 4))"
	daemon_up
}

resumed()
{
	[ "$(counter resumes)" -ge 1 ]
}

# ismredird of either host is killed and restarted while bytes flow.
test_killed_daemon()
{
	both_up
	exchange 20
	within 10 across || die "no rings: $(ends)"
	restart a
	on a within 10 resumed || die "a: no rings come back"
	restart b
	on b within 10 resumed || die "b: no rings come back"
	restart b TERM
	on b within 10 resumed || die "b: no rings come back after a stop"
	restart a
	restart b
	exchange_ends
	exchange 3
	within 10 across || die "a new connection gets no rings: $(ends)"
	exchange_ends
	both_down
}

# Both at once, and one that stays away.
test_daemons_away()
{
	both_up
	exchange 10
	within 10 across || die "no rings: $(ends)"
	for host in a b; do
		on $host
		kill_daemon
	done
	sleep 1
	on a daemon_up
	sleep 1
	on b daemon_up
	for host in a b; do
		on $host within 10 resumed || die "$host: no rings come back"
	done
	exchange_ends
	both_down
}

# A daemon that ends leaves what is there alone; new connections are plain TCP.
test_stopped_daemon()
{
	both_up
	exchange 4
	within 10 across || die "no rings: $(ends)"
	on b stop_daemon
	[ -z "$(on b ctl_tag)" ] || die "b's load still knows the fabric"
	exchange_ends
	exchange 1
	exchange_ends
	on b daemon_up
	on a load --replace --skip-tests
	exchange 3
	within 10 across || die "no rings again: $(ends)"
	exchange_ends
	both_down
}

# Only the users that the fabric names get its memory; others are plain TCP from the start.
test_users()
{
	both_up
	on b
	stop_daemon
	FABRIC=direct=1000 daemon_up
	within 5 announced || die "b does not know its fabric"
	on a load --replace --skip-tests
	exchange 1
	[ "$(rings_at b)" = 0 ] || die "root has rings that are for 1000"
	exchange_ends
	[[ $(on b reasons) == *no_plane* ]] || die "b counts $(on b reasons)"
	UNDER_RUN=(setpriv --reuid=1000 --regid=1000 --clear-groups "$ISMREDIR" run)
	SERVER_BY=("${UNDER_RUN[@]}")
	on a load --replace --skip-tests
	exchange 3
	within 10 across || die "no rings for 1000: $(ends)"
	exchange_ends
	both_down
}

# Both ends have to be at work in time, so the first connections may be over before.
some_get_rings()
{
	on a
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 16 1000000 || die "the echo differs"
	[ "$(on b counter ring_bytes)" -gt 0 ]
}

# Rings are refused where the user's limit is reached; those connections are TCP, and right.
test_limits()
{
	both_up
	on b
	stop_daemon
	daemon_up --limit-total 1M --limit-uid 1M
	serve thread "$PORT" "$PYTHON" "$RINGS/peers.py" thread "$PORT" || die "the server does not start"
	on a load --replace --skip-tests
	within 20 some_get_rings || die "nobody got rings"
	[ "$(on b counter refused)" -gt 0 ] || die "nobody was refused"
	both_down
}

# Within one host it is one kernel: the region is not asked.
test_within_a_host()
{
	both_up
	ISMREDIR_TEST_HOST=$HOST_A
	on a
	serve thread "$PORT" "$PYTHON" "$RINGS/peers.py" thread "$PORT" || die "the server does not start"
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 4 4000000 || die "the echo differs"
	[ "$(counter ring_bytes)" -gt 4000000 ] || die "only $(counter ring_bytes) bytes on rings"
	[ "$(ism -j fabrics | jq '[.fabrics[] | select(.index > 0) | .dmbs] | add')" = 0 ] || die "DMBs in the region"
	stop_programs
	both_down
}
