# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2153 # DIR and PORT come from lib.sh and run.sh
#
# Programs under `ismredir run` while everything around them comes and goes: load and unload, ismredird,
# and their own partner.

# Both sides of what follows are under run, with rings from the first message on.
under_run()
{
	CLIENT_BY=("${UNDER_RUN[@]}") SERVER_BY=("${UNDER_RUN[@]}")
	export ISMREDIR_AFTER=1,1
}

# exchange NAME PORT SECONDS [STYLE STYLE] - a checked transfer that goes on meanwhile; its pids are in LEFT
# and RIGHT
exchange()
{
	rm -f "$DIR/$1"-left.log "$DIR/$1"-right.log
	serve "$1-left" "$2" "$PYTHON" "$RINGS/transfer.py" listen "$2" "$3" "${4:-epoll}" ||
		die "transfer.py does not start"
	LEFT=$PID
	start "$1-right" "$PYTHON" "$RINGS/transfer.py" connect "$2" "$3" "${5:-blocking}"
	RIGHT=$PID
	within 20 grep -q '^flows' "$DIR/$1-right.log" || die "$1 does not begin: $(cat "$DIR/$1"-*.log)"
}

# exchange_ends NAME - it must: to the last byte of both sides
exchange_ends()
{
	within 45 exchanged "$DIR/$1-left.log" "$DIR/$1-right.log" || die "$1: $(tail -qn 1 "$DIR/$1"-*.log)"
}

# enough NAME - the one that was begun last is ended now, and exact
enough()
{
	kill -USR1 "$LEFT" "$RIGHT"
	exchange_ends "$1"
}

# plain_exchange NAME - one from begin to end on TCP: nothing is said but what is checked
plain_exchange()
{
	exchange "$1" $((PORT + 2)) 1 poll select
	exchange_ends "$1"
	quiet "$1"
}

# quiet NAME - neither program was made to say more than one line
quiet()
{
	local log

	for log in "$DIR/$1"-left.log "$DIR/$1"-right.log; do
		[ "$(grep -c ismredir "$log")" -le 1 ] || die "$1: more than a warning: $(grep ismredir "$log" | head -n 3)"
	done
}

# new_rings NAME PORT - a new connection has both ends on rings, and is right
new_rings()
{
	exchange "$1" "$2" 40
	within 20 on_rings "$2" || die "$1: a new connection gets no rings: $(ism conns port "$2")"
	enough "$1"
}

# A server that sleeps in accept() learns of the load with the first connection, which is without rings then.
talk_by_rings()
{
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 4 1000000 || die "the echo differs"
	[ "$(counter ring_bytes)" -gt 1000000 ]
}

# Load after the programs have started, unload under traffic, load again.
app start-order lifecycle python3
app_start-order()
{
	local echo

	under_run
	serve echo "$PORT" "$PYTHON" "$RINGS/peers.py" thread "$PORT" || die "peers.py does not start"
	echo=$PID
	exchange before $((PORT + 1)) 3
	start_daemon
	load --plane direct --port 7000-7009
	within 10 talk_by_rings || die "a server from before load gets no rings: $(reasons)"
	exchange_ends before
	quiet before
	exchange during $((PORT + 1)) 5
	within 10 on_rings $((PORT + 1)) || die "no rings: $(ism conns)"
	unload
	! gone "$LEFT" || die "the transfer was over before unload"
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 4 1000000 || die "the echo differs after unload"
	load --plane direct --port 7000-7009
	new_rings again $((PORT + 3))
	exchange_ends during
	! gone "$echo" || die "the server is gone"
	no_timeouts
	stop_programs
	unload
	stop_daemon
}

no_timeouts()
{
	[ "$(counter timeouts)" = 0 ] || die "$(counter timeouts) lost wake-ups"
	! crashed || die "$(crashed | head -n 1)"
}

# Load, but no ismredird; then one.
app daemon-absent lifecycle python3
app_daemon-absent()
{
	under_run
	load --plane direct --port 7000-7009
	plain_exchange without
	serve echo "$PORT" "$PYTHON" "$RINGS/peers.py" fork "$PORT" || die "peers.py does not start"
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 4 1000000 || die "the echo differs"
	start_daemon
	new_rings with $((PORT + 1))
	stop_programs
	unload
	stop_daemon
}

# ismredird is killed and restarted while bytes flow: they go on through the rings that are there.
app daemon-killed lifecycle python3
app_daemon-killed()
{
	under_run
	start_daemon
	load --plane direct --port 7000-7009
	exchange live "$PORT" 8
	within 10 on_rings "$PORT" || die "no rings: $(ism conns)"
	kill_daemon
	plain_exchange without
	start_daemon
	within 10 resumed || die "the new ismredird does not learn of the rings"
	new_rings with $((PORT + 1))
	exchange live2 $((PORT + 3)) 3
	for _ in 1 2 3 4 5; do
		kill_daemon
		start_daemon
		sleep "0.$((RANDOM % 4))"
	done
	exchange_ends live2
	exchange_ends live
	! crashed || die "$(crashed | head -n 1)"
	stop_programs
	unload
	stop_daemon
}

resumed()
{
	[ "$(counter resumes)" -ge 2 ]
}

# ismredird stands still: nobody waits for it.
app daemon-slow lifecycle python3 curl
app_daemon-slow()
{
	under_run
	start_daemon
	load --plane direct --port 7000-7009
	exchange live "$PORT" 3
	kill -STOP "$DAEMON_PID"
	plain_exchange meanwhile
	exchange later $((PORT + 1)) 40
	kill -CONT "$DAEMON_PID"
	within 20 on_rings $((PORT + 1)) || die "an ismredird that woke up gives no rings: $(ism conns)"
	enough later
	exchange_ends live
	stop_programs
	unload
	stop_daemon
}

# dmbs LEAST MOST - so many are there
dmbs()
{
	ism -j dmbs | jq -e ".dmbs | length | . >= $1 and . <= $2" >/dev/null
}

# It stands still while more connections end than it is told of meanwhile: all the same it forgets them.
app daemon-full-queue lifecycle python3
app_daemon-full-queue()
{
	under_run
	start_daemon --ring-size 64k
	load --plane direct --port 7000-7009
	serve echo "$PORT" "$PYTHON" "$RINGS/peers.py" selectors "$PORT" || die "peers.py does not start"
	start crowd "$PYTHON" "$RINGS/crowd.py" "$PORT" 500 "$DIR/cue"
	within 30 dmbs 900 1000 || die "no rings: $(ism -j dmbs | jq '.dmbs | length') DMBs, $(cat "$DIR/crowd.log")"
	kill -STOP "$DAEMON_PID"
	: >"$DIR/cue"
	within 20 [ ! -e "$DIR/cue" ] || die "close() waits for ismredird"
	sleep 1
	kill -CONT "$DAEMON_PID"
	within 20 dmbs 0 2 || die "$(ism -j dmbs | jq '.dmbs | length') DMBs stay"
	stop_programs
	unload
	stop_daemon
}

# Both ends have asked an ismredird that dies before it answers: the next one is asked soon, by slow ends, too.
app daemon-dies-asked lifecycle python3
app_daemon-dies-asked()
{
	under_run
	start_daemon --ring-size 64k
	load --plane direct --port 7000-7009
	serve echo "$PORT" "$PYTHON" "$RINGS/peers.py" selectors "$PORT" || die "peers.py does not start"
	kill -STOP "$DAEMON_PID"
	start crowd "$PYTHON" "$RINGS/crowd.py" "$PORT" 1 "$DIR/cue"
	sleep 1
	kill_daemon
	start_daemon --ring-size 64k
	within 12 dmbs 2 2 || die "$(ism -j dmbs | jq '.dmbs | length') DMBs, $(ism conns)"
	stop_programs
	unload
	stop_daemon
}

# While it stands still it has the sockets of those that asked: closing and passing them on does what TCP's does.
app daemon-holds-sockets lifecycle python3
app_daemon-holds-sockets()
{
	local asked refused

	under_run
	start_daemon
	load --plane direct --port 7000-7009
	start asked "$PYTHON" "$RINGS/asked.py" "$PORT" "$DIR/cue"
	within 20 [ -e "$DIR/cue" ] || die "it does not start: $(cat "$DIR/asked.log")"
	within 10 dmbs 2 2 || die "no rings at first: $(ism conns)"
	asked=$(counter attaches) refused=$(counter refused)
	kill -STOP "$DAEMON_PID"
	rm "$DIR/cue"
	ended "$PID" "asked.py"
	kill -CONT "$DAEMON_PID"
	within 10 dmbs 0 0 || die "DMBs stay: $(ism -j dmbs)"
	[ $(($(counter attaches) - asked + $(counter refused) - refused)) -ge 1 ] || die "nobody had asked"
	unload
	stop_daemon
}

# Who has asked goes before the answer: the others that have the connection, too, get rings all the same.
app daemon-slow-for-child lifecycle python3
app_daemon-slow-for-child()
{
	local how

	under_run
	start_daemon
	load --plane direct --port 7000-7009
	for how in asks dies inherits; do
		start "$how" "$PYTHON" "$RINGS/asked.py" "$PORT" "$DIR/cue" "$how" "$DAEMON_PID"
		within 20 [ -e "$DIR/cue" ] || die "it does not come so far: $(cat "$DIR/$how.log")"
		within 20 on_rings "$PORT" || die "no rings where a child $how: $(ism conns)"
		rm "$DIR/cue"
		ended "$PID" "asked.py"
	done
	unload
	stop_daemon
}

# Nobody who had rings is there any more, only who inherited the connection: it goes on where they were. Where an
# ismredird that knew of them is gone, too, it ends: bytes may have been in them.
app daemon-knows-rings lifecycle python3
app_daemon-knows-rings()
{
	local how asked

	under_run
	start_daemon
	load --plane direct --port 7000-7009
	for how in exact ended; do
		start "$how" "$PYTHON" "$RINGS/asked.py" "$PORT" "$DIR/cue" left
		asked=$PID
		within 20 [ -e "$DIR/cue" ] || die "it does not come so far: $(cat "$DIR/$how.log")"
		[ "$(counter ring_msgs)" -gt 0 ] || die "nobody got rings: $(ism conns)"
		[ "$how" = exact ] || { kill_daemon; start_daemon; }
		rm "$DIR/cue"
		ended "$asked" "asked.py"
		grep -qx "$how" "$DIR/$how.log" || die "not $how: $(cat "$DIR/$how.log")"
		within 5 dmbs 0 0 || die "DMBs stay: $(ism -j dmbs)"
	done
	unload
	stop_daemon
}

# Its limits are reached: some have rings, the others TCP, all are right.
app daemon-full lifecycle python3
app_daemon-full()
{
	under_run
	start_daemon --ring-size 256k --limit-total 2M --limit-uid 2M
	load --plane direct --port 7000-7009
	serve echo "$PORT" "$PYTHON" "$RINGS/peers.py" thread "$PORT" || die "peers.py does not start"
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 16 2000000 || die "the echo differs"
	[ "$(counter ring_bytes)" -gt 0 ] || die "nobody got rings"
	[ "$(counter refused)" -gt 0 ] || die "nobody was refused"
	stop_programs
	stop_daemon
	start_daemon --max-clients 2
	serve echo "$PORT" "$PYTHON" "$RINGS/peers.py" fork "$PORT" || die "peers.py does not start"
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 8 1000000 || die "the echo differs with two clients at most"
	stop_programs
	unload
	stop_daemon
}

poured()
{
	grep -q poured "$DIR/pour.log"
}

# filled LENGTH - six ends are on rings, none of which is said to hold so much
filled()
{
	ism -j conns port "$PORT" | jq -e "[.conns[] | select(.plane == \"direct\") | .ring_fill] |
		length == 6 and max < $1" >/dev/null
}

# A reader tells of a quarter ring at once in a long stream; when it sleeps it has told of everything.
app quiet-streams lifecycle python3
app_quiet-streams()
{
	under_run
	start_daemon
	load --plane direct --port 7000-7009
	serve sink "$PORT" "$PYTHON" "$RINGS/peers.py" sink "$PORT" || die "peers.py does not start"
	spawn pour "$PYTHON" "$RINGS/peers.py" pour "$PORT" 3 100300000
	within 60 poured || die "not sent: $(cat "$DIR/pour.log")"
	within 5 filled 8192 || die "all was read, and conns says $(ism conns)"
	[ "$(counter ring_bytes)" -gt 200000000 ] || die "$(counter ring_bytes) bytes through rings"
	stop_programs
	unload
	stop_daemon
}

# One end is killed at a random moment: what the other one got is exact, and it sees the end.
killed_once()
{
	local styles=(blocking select poll epoll) victim survivor log

	rm -f "$DIR"/shot-*.log
	exchange shot "$PORT" 60 "${styles[RANDOM % 4]}" "${styles[RANDOM % 4]}"
	sleep "0.$((RANDOM % 300 + 1000))"
	victim=$LEFT survivor=$RIGHT log=shot-right
	[ $((RANDOM % 2)) = 0 ] || { victim=$RIGHT survivor=$LEFT log=shot-left; }
	kill -KILL "$victim"
	within 10 gone "$survivor" || die "killed ${log/shot-/not }: the survivor hangs: $(cat "$DIR/$log.log")"
	grep -q '^exact .* end \(eof\|reset\)$' "$DIR/$log.log" ||
		die "the survivor: $(tail -n 2 "$DIR/$log.log")"
}

app killed-partner lifecycle python3
app_killed-partner()
{
	local n

	under_run
	start_daemon
	load --plane direct --port 7000-7009
	for n in $(seq "$ROUNDS"); do
		killed_once
		echo "$n rounds" >"$DIR/note"
	done
	[ "$(counter ring_bytes)" -gt $((ROUNDS * 100000)) ] || die "only $(counter ring_bytes) bytes through rings"
	within 10 all_detached || die "ismredird keeps the rings of the dead: $(ism dmbs)"
	no_timeouts
	unload
	stop_daemon
}

# redis under load is killed, and its clients; and killed with a child that has the connections, too.
app killed-redis lifecycle redis-server redis-cli redis-benchmark
app_killed-redis()
{
	local server

	under_run
	start_daemon
	load --plane direct --port 7000-7009
	start_redis "$PORT"
	server=$PID
	start bench redis-benchmark -p "$PORT" -q -n 10000000 -c 50 -d 1024 -t set
	within 10 clients 50 || die "the benchmark does not connect"
	sleep 0.5
	kill -KILL "$PID"
	within 10 clients 0 || die "the server does not see that its clients are dead"
	redis_values "$PORT"
	start victim redis-benchmark -p "$PORT" -q -n 10000000 -c 50 -d 1024 -t set
	within 10 clients 50 || die "the benchmark does not connect again"
	inbox redis-cli -p "$PORT" bgsave >/dev/null
	kill -KILL "$server"
	within 15 gone "$PID" || die "the benchmark does not see that its server is dead"
	! wait "$PID" || die "the benchmark ends well without its server"
	stop_programs
	within 10 all_detached || die "ismredird keeps the rings of the dead: $(ism dmbs)"
	unload
	stop_daemon
}

# clients NUMBER - so many are connected to redis, the one that asks not counted
clients()
{
	[ "$(inbox redis-cli -p "$PORT" client list | wc -l)" = $(($1 + 1)) ]
}

# Programs for which there is no library: they run as ever, and one line says why.
app without-library lifecycle socat setpriv
app_without-library()
{
	local file

	file=$(blob 8m 8M)
	under_run
	start_daemon
	load --plane direct --port 7000-7009
	serve echo "$PORT" "$PYTHON" "$RINGS/peers.py" thread "$PORT" || die "peers.py does not start"
	install -m 4755 "$(command -v socat)" "$DIR/privileged" || die "cannot copy socat"
	chmod 755 "$TOP" "$DIR"
	inbox setpriv --reuid=65534 --regid=65534 --clear-groups "$ISMREDIR" run "$DIR/privileged" \
		-t 30 - "TCP4:127.0.0.1:$PORT" <"$file" >"$DIR/got" 2>"$DIR/said" || die "set-user-id socat: exit $?"
	same "$file" "$DIR/got" "the echo to a set-user-id program differs"
	[ "$(grep -c ismredir: "$DIR/said")" = 1 ] || die "a set-user-id program: $(cat "$DIR/said")"
	inbox "$STATIC" "$PORT" <"$file" >"$DIR/got" 2>"$DIR/said" || die "static program: exit $?"
	same "$file" "$DIR/got" "the echo to a static program differs"
	[ "$(grep -c ismredir: "$DIR/said")" = 1 ] || die "a static program: $(cat "$DIR/said")"
	[ "$(counter ring_bytes)" = 0 ] || die "rings without the library"
	stop_programs
	unload
	stop_daemon
}

# No load, no ismredird, and nothing else either.
app without-anything lifecycle redis-server redis-benchmark redis-cli python3
app_without-anything()
{
	under_run
	plain_exchange alone
	start_redis "$PORT"
	redis_values "$PORT"
	redis_bench "$PORT" -n 20000 -c 20 -t set,get
	ISMREDIR_PRELOAD=/nonexistent inbox true 2>"$DIR/said" || die "run without its library: exit $?"
	[ "$(wc -l <"$DIR/said")" = 1 ] || die "run without its library says: $(cat "$DIR/said")"
	stop_programs
	! crashed || die "$(crashed | head -n 1)"
}

# A partner writes nonsense into its rings: it loses its connections, nobody else notices.
app hostile-partner lifecycle python3
app_hostile-partner()
{
	local server good

	under_run
	start_daemon
	load --plane direct --port 7000-7009
	serve echo "$PORT" "$PYTHON" "$RINGS/peers.py" thread "$PORT" || die "peers.py does not start"
	server=$PID
	start good "$PYTHON" "$RINGS/peers.py" talk "$PORT" 4 20000000
	good=$PID
	CLIENT_BY=()
	inbox "$PYTHON" "$RINGS/hostile.py" "$ISMREDIR_SOCK" "$PORT" "$ROUNDS" >"$DIR/note" ||
		die "hostile.py: exit $?"
	CLIENT_BY=("${UNDER_RUN[@]}")
	ended "$good" "the transfer beside it"
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" 4 1000000 || die "the echo differs afterwards"
	! gone "$server" || die "the server is gone: $(tail -n 3 "$DIR/echo.log")"
	! crashed || die "$(crashed | head -n 1)"
	[ "$(ism -j status | json .reasons.hostile)" -gt 0 ] || die "no nonsense was noticed: $(reasons)"
	stop_programs
	within 10 all_detached || die "ismredird keeps rings: $(ism dmbs)"
	unload
	stop_daemon
}
