# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# Byte-exact streams in every way that applications send and receive.

# The tests of the tests: what a stream must not do is noticed.
test_faults_are_noticed()
{
	local fault pids=()

	for fault in lose double flip swap hang short; do
		spawn $fault in_ns "$B/netns/traffic" pair --fault $fault --timeout 1
		pids+=("$PID")
	done
	for fault in lose double flip swap hang short; do
		if wait "${pids[0]}"; then
			fail "the fault '$fault' went unnoticed"
		fi
		pids=("${pids[@]:1}")
	done
	grep -q 'no progress' "$DIR/hang.log" || fail "a hang is not told as one"
	pair
}

streams_io()
{
	local io

	for io in threads fork poll lt et; do
		accel_pair "$HELD sum=8388608" --io $io --sizes mix --read-sizes mix
	done
	for io in poll lt et; do
		accel_pair "$HELD moved sum=8388608" --io $io --sizes mix --read-sizes mix
	done
}

test_streams_io()
{
	calm_and_restless streams_io
}

# Blocking receives never fail with EAGAIN, MSG_WAITALL and SO_RCVLOWAT are kept.
test_streams_strict()
{
	local i

	load
	for ((i = 0; i < 20; i++)); do
		in_ns "$B/netns/traffic" pair --cgroup "$CG" --bytes 300000 --sizes log >"$DIR/out" 2>&1 ||
			fail "stream $i: $(head -n 1 "$DIR/out")"
		in_ns "$B/netns/traffic" pair --cgroup "$CG" --c2s 0 --end half >"$DIR/out" 2>&1 ||
			fail "half-close $i: $(head -n 1 "$DIR/out")"
	done
	unload
}

test_streams_rounds()
{
	local io

	load
	for io in threads poll lt et; do
		accel_pair "accel both" --io $io --rounds 100 --sizes log --sockopt nodelay=1
		accel_pair "accel both most" --io $io --rounds 500 --sizes small --sockopt nodelay=1
	done
	unload
}

streams_send()
{
	local send

	for send in write writev more sendfile splice uring mixed; do
		accel_pair "$HELD sum=8388608" --send $send --sizes mix
		accel_pair "$HELD moved" --send $send --io et --sizes log
	done
}

test_streams_send()
{
	calm_and_restless streams_send
}

streams_recv()
{
	local recv

	for recv in read readv peek uring mixed; do
		accel_pair "$HELD sum=8388608" --recv $recv --read-sizes mix
		[ $recv = uring ] || accel_pair "$HELD moved" --recv $recv --io et --read-sizes log
	done
}

test_streams_recv()
{
	calm_and_restless streams_recv
}

# Readers that redirected bytes cannot serve: exact all the same, and never asleep for ever.
test_streams_plain_readers()
{
	local recv

	load
	for recv in waitall lowat; do
		pair --recv $recv --read-sizes mix
		pair --side server --recv $recv --read-sizes small --side client --sizes small
		pair --recv $recv --io et --read-sizes log
	done
	unload
}

# splice(2) does not see redirected bytes: exact only when the connection never had any.
# Where the self-test says that splice does not see redirected bytes, such a program has to be left
# out: unselected it must work, and nothing of it may be redirected.
test_streams_splice()
{
	if [ "$PLANE" = tcp ] || [ "$(ism -j check |
		jq -r '.tests[] | select(.name == "splice").result')" = pass ]; then
		load
	else
		load --port 1
	fi
	pair --side server --recv splice --side client --sizes log --s2c 0
	pair --recv splice --read-sizes mix
	pair --recv splice --io et --read-sizes log
	[ "$PLANE" = tcp ] || [ "$(ism -j status | jq .stats.redir_bytes)" = 0 ] ||
		[ "$(ism -j policy | jq '.rules | length')" = 0 ] || fail "redirected, though not selected"
	unload
}

streams_sizes()
{
	local sizes

	for sizes in tiny small log page big mix; do
		pair --sizes $sizes --read-sizes mix --bytes 1000000
		pair --sizes mix --read-sizes $sizes --bytes 1000000
		pair --io et --sizes $sizes --read-sizes $sizes --bytes 500000
	done
	pair --sizes 1 --bytes 50000
	pair --sizes 1 --read-sizes 1 --bytes 50000 --io et
	pair --sizes 4096 --read-sizes 4095
	accel_pair "$HELD both" --sizes 1048576 --io lt
}

test_streams_sizes()
{
	calm_and_restless streams_sizes
}

streams_pauses()
{
	pair --pause-tx 20:10 --sizes log --bytes 2000000
	pair --pause-rx 20:10 --sizes log --bytes 2000000
	pair --io et --pause-rx 20:10 --pause-tx 20:10 --sizes log --bytes 2000000
	accel_pair "$HELD sum=4000000" --side server --pause-rx 30:30 --side client --io lt \
		--pause-tx 10:50 --bytes 2000000
}

test_streams_pauses()
{
	calm_and_restless streams_pauses
}

# A reader that is slow, or asleep at first: bytes overflow to TCP and come back.
overflow_and_return()
{
	accel_pair "$HELD switches sum=24000000" --c2s 16000000 --s2c 8000000 --sizes 60000 \
		--side server --pause-rx 5:40 --side both --io et
	accel_pair "$HELD switches" --c2s 16000000 --sizes log --side server --sleep-rx 700 --io et
	accel_pair "$HELD switches" --bytes 8000000 --sockopt rcvbuf=20000 --sockopt sndbuf=20000 \
		--pause-rx 2:10 --sizes small
	pair --bytes 8000000 --sizes tiny --side client --sleep-rx 500 --c2s 1000000
}

test_overflow_and_return()
{
	calm_and_restless overflow_and_return
	load_restless --set spin=50
	overflow_and_return
	unload
}

sockbufs()
{
	local buf

	for buf in 2048 8192 65536 1000000; do
		# Plain TCP waits for delayed ACKs with the smallest.
		pair --sockopt sndbuf=$buf --sockopt rcvbuf=$buf --bytes $((buf * 16))
		pair --late-sockopt sndbuf=$buf --late-sockopt rcvbuf=$buf --bytes $((buf * 16)) --io et
		pair --sockopt rcvbuf=$buf --side server --pause-rx 10:5 --bytes $((buf * 8))
	done
}

test_sockbufs()
{
	calm_and_restless sockbufs
}

ends()
{
	local end io

	for end in close half rst unread; do
		for io in threads et; do
			pair --io $io --end $end --bytes 1000000
			pair --io $io --end $end --bytes 0 --tail 5000
			pair --io $io --end $end --tail 3000000 --sizes log
		done
	done
	within 5 no_conns_or_plain || fail "ended connections stay in the table: $(ism conns)"
}

test_ends()
{
	calm_and_restless ends
}

no_conns_or_plain()
{
	[ "$PLANE" != skmsg ] || no_conns
}

test_half_duplex()
{
	load
	accel_pair "moved sum=6000000" --io et --c2s 6000000 --s2c 0
	accel_pair "sum=6000000" --c2s 0 --s2c 6000000
	pair --c2s 0 --s2c 0
	unload
}

test_urgent_inline()
{
	load
	accel_pair "reason=urgent" --send oob --sizes log --io lt
	pair --send oob --sizes small --io et
	pair --send oob --sizes log
	unload
}

test_zerocopy_stream()
{
	load
	accel_pair "tcp pinned=zerocopy" --send zerocopy --sizes big
	pair --send zerocopy --io et
	unload
}

open_ended()
{
	pair --seconds 1 --conns 4 --sizes log
	pair --seconds 1 --conns 4 --sizes mix --io et
	pair --seconds 1 --conns 2 --sizes small --io fork
	pair --seconds 1 --side server --pause-rx 10:20 --side both --io lt
}

test_open_ended()
{
	calm_and_restless open_ended
}

test_hundred()
{
	load
	accel_pair "moved ends=200" --conns 100 --bytes 200000 --sizes log --io et
	accel_pair "ends=200" --conns 100 --bytes 100000 --sizes log
	accel_pair "accel ends=200 both" --conns 100 --rounds 20 --sizes small --sockopt nodelay=1
	unload
}

# Many short connections one after another.
short_connections()
{
	pair --repeat --seconds 2 --conns 10 --bytes 3000 --sizes small
	pair --repeat --seconds 1 --conns 5 --bytes 1 --io et
	pair --repeat --seconds 1 --conns 5 --bytes 20000 --end rst --tail 1000
	within 5 no_conns_or_plain || fail "ended connections stay in the table: $(ism conns)"
}

test_short_connections()
{
	calm_and_restless short_connections
}

test_send_before_accept()
{
	load
	talk "accel" --accept-delay 300
	pair --accept-delay 300 --sizes log
	pair --accept-delay 300 --sizes log --io et --c2s 8000000 --s2c 0
	unload
}

test_defer_accept()
{
	load
	pair --defer 2 --sizes log --bytes 500000
	pair --defer 2 --accept-delay 200
	talk "accel both" --defer 2
	unload
}

test_fast_open()
{
	ns_sysctl net.ipv4.tcp_fastopen=3
	load
	accel_pair "ends=2" --tfo-no-cookie
	pair --tfo-no-cookie --accept-delay 200 --io et --sizes log
	pair --tfo-no-cookie --bytes 100
	pair --tfo --sizes log # asks for a cookie
	pair --tfo --sizes log # has it, and so bytes in the SYN
	unload
}

test_ipv6()
{
	load
	talk "accel both family=inet6" --listen ::1 --connect ::1
	accel_pair "moved family=inet6" --listen :: --connect ::1 --io et
	unload
}

# An IPv4 client and a listener for both families.
test_mapped()
{
	load
	talk "accel both family=inet" --listen :: --connect 127.0.0.1
	talk "accel both family=inet" --listen :: --connect ::ffff:127.0.0.1
	accel_pair "moved" --listen :: --connect 127.0.0.1 --io et
	unload
}

test_other_addresses()
{
	ip -n "$NS" addr add 10.7.7.7/24 dev lo
	load
	talk "accel both" --listen 0.0.0.0 --connect 127.0.0.1
	talk "accel both" --listen 0.0.0.0 --connect 127.8.9.1
	talk "accel both" --listen 10.7.7.7 --connect 10.7.7.7
	unload
}

# MPTCP brings its own options, and its subflows are nobody's to redirect to.
test_mptcp()
{
	ns_sysctl net.mptcp.enabled=1 || skip "no MPTCP here"
	load_restless
	accel_pair "tcp" --mptcp --sizes log
	pair --mptcp --sizes log --io et --side server --pause-rx 5:10
	pair --side server --mptcp
	pair --side client --mptcp --io et
	pair --mptcp --rounds 50 --sizes small
	unload
}

# one_of WORD... - any of them
one_of()
{
	echo "${@:RANDOM % $# + 1:1}"
}

# random_options - a combination that nobody thought of; small calls and pauses only in short streams
random_options()
{
	local side bytes sizes=(log page big mix) pause=1

	bytes=$(one_of 0 1 $((RANDOM % 2000)) $((RANDOM * 3)) $((RANDOM * 100)) $((RANDOM * 200)))
	[ "$bytes" -gt 100000 ] || sizes+=(tiny small) pause=10
	echo "--seed $RANDOM --conns $(one_of 1 1 2 7) --bytes $bytes"
	one_of "" "" "--rounds $((1 + RANDOM % 40))" "--c2s 0" "--s2c 0" "--accept-delay $((RANDOM % 200))"
	one_of "" "--tail $((RANDOM * 10))" "--end half" "--end rst" "--end unread"
	for side in server client; do
		echo "--side $side --io $(one_of threads fork poll lt et) --send $(one_of write writev more)"
		echo "--recv $(one_of read readv peek mixed) --sizes $(one_of "${sizes[@]}")"
		echo "--read-sizes $(one_of small log page big mix) --sockopt nodelay=$((RANDOM % 2))"
		one_of "" "--pause-tx $((RANDOM % (pause + 1))):$((1 + RANDOM % 10))"
		one_of "" "--pause-rx $((RANDOM % (pause + 1))):$((1 + RANDOM % 10))"
		one_of "" "" "--sleep-rx $((RANDOM % 500))"
		one_of "" "" "--sockopt sndbuf=$((20000 + RANDOM * 4))" \
			"--late-sockopt rcvbuf=$((40000 + RANDOM * 4))"
	done
}

# Set RANDOM_STREAMS for more of them.
test_streams_random()
{
	local i options

	[ -n "${RANDOM_STREAMS:-}" ] || skip "a soak of minutes: make soak"
	for ((i = 0; i < RANDOM_STREAMS; i++)); do
		((i % 10)) || "$(one_of load load_restless)"
		mapfile -t options < <(random_options | tr ' ' '\n' | grep .)
		echo "$SECONDS ${options[*]}"
		pair "${options[@]}"
		((i % 10 < 9)) || unload
	done
	[ ! -e "$ISMREDIR_PIN_DIR" ] || unload
}
