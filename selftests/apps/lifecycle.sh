# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2153 # DIR and PORT come from lib.sh and run.sh
#
# Applications while ismredir comes and goes, and while they are killed themselves.

# bench_start NAME ARGS... - redis-benchmark in the background; its pid is in BENCH
bench_start()
{
	local name=$1

	shift
	(enter redis-benchmark -p "$PORT" -q "$@") </dev/null >"$DIR/$name.log" 2>&1 &
	BENCH=$!
}

# bench_ends - wait for it, at most LIMIT seconds; returns its exit status
bench_ends()
{
	within "${LIMIT:-60}" gone "$BENCH" || die "redis-benchmark hangs"
	wait "$BENCH"
}

# clients NUMBER - so many are connected to redis, the one that asks not counted
clients()
{
	[ "$(inbox redis-cli -p "$PORT" client list | wc -l)" = $(($1 + 1)) ]
}

pongs()
{
	[ "$(grep -c PONG "$DIR/idle.log")" = "$1" ]
}

# A server that listened before load answers accelerated after it; a connection from before load goes on.
app existing-listener lifecycle redis-server redis-benchmark redis-cli
app_existing-listener()
{
	local n=0

	start_redis "$PORT"
	mkfifo "$DIR/fifo"
	spawn idle sh -c "exec redis-cli -p $PORT <'$DIR/fifo'"
	exec 7>"$DIR/fifo"
	for what in true "load --port $PORTS" "redis_values $PORT" "redis_bench $PORT -n 20000 -d 1024 -t set,get" \
		"judge accel" unload; do
		$what || die "$what"
		n=$((n + 1))
		echo PING >&7
		within 5 pongs $n || die "a connection from before load is stuck after: $what"
	done
	exec 7>&-
	redis_bench "$PORT" -n 2000 -d 1024 -t set,get
}

# Two servers that listened before load, each in a network namespace of its own: both are found.
app existing-netns lifecycle redis-server redis-benchmark redis-cli unshare
app_existing-netns()
{
	local before

	start_redis "$PORT"
	spawn other unshare --net sh -c 'ip link set lo up && exec "$@"' sh \
		redis-server --port "$PORT" --save '' --dir "$DIR" --daemonize no
	within 10 grep -q 'Ready to accept' "$DIR/other.log" || die "the second redis-server does not start"
	load --port "$PORTS"
	redis_values "$PORT"
	redirecting || die "the server in the first namespace is not accelerated: $(reasons)"
	before=$(sent)
	inbox nsenter --net="/proc/$PID/ns/net" redis-benchmark -p "$PORT" -q -n 2000 -d 1024 -t set,get ||
		die "redis-benchmark: exit $?"
	[ "$(sent)" != "$before" ] || die "the server in the second namespace is not accelerated: $(reasons)"
	unload
}

# unload in the middle of a benchmark: it ends without an error.
app unload-benchmark lifecycle redis-server redis-benchmark
app_unload-benchmark()
{
	load --port "$PORTS"
	start_redis "$PORT"
	bench_start bench -n 300000 -c 50 -d 1024 -t set,get
	within 10 both_ends "$PORT" || die "the benchmark is not redirected: $(reasons)"
	unload
	! gone "$BENCH" || die "the benchmark was over before unload"
	bench_ends || die "redis-benchmark: exit $?"
	! grep -qi error "$DIR/bench.log" || die "redis-benchmark: $(cat "$DIR/bench.log")"
}

# unload in the middle of a download: every byte arrives.
app unload-download lifecycle curl python3
app_unload-download()
{
	local file

	file=$(blob 64m 64M)
	load --port "$PORTS"
	serve http "$PORT" "$PYTHON" -m http.server --bind 127.0.0.1 --directory "$TOP" "$PORT" ||
		die "http.server does not start"
	(enter curl -sS -f --limit-rate 16M -o "$DIR/got" "http://127.0.0.1:$PORT/64m") &
	BENCH=$!
	within 10 redirecting || die "the download is not redirected: $(reasons)"
	unload
	! gone "$BENCH" || die "the download was over before unload"
	bench_ends || die "curl: exit $?"
	same "$file" "$DIR/got" "the download differs"
}

redirecting()
{
	[ "$(sent | cut -d' ' -f1)" -gt 0 ]
}

# kill -9 of either side under load: the other one sees it as on TCP, nothing hangs, records vanish.
app killed accel redis-server redis-benchmark redis-cli
app_killed()
{
	local server

	start_redis "$PORT"
	server=$PID
	bench_start client -n 10000000 -c 50 -d 1024 -t set
	within 10 clients 50 || die "the benchmark does not connect"
	sleep 0.5
	kill -KILL "$BENCH"
	within 10 clients 0 || die "the server does not see that its clients are dead"
	redis_values "$PORT"
	bench_start victim -n 10000000 -c 50 -d 1024 -t set
	within 10 clients 50 || die "the benchmark does not connect again"
	sleep 0.5
	kill -KILL "$server"
	LIMIT=15
	! bench_ends || die "the benchmark ends well without its server"
	[ "$MODE" = plain ] || within 5 no_conns || die "records stay: $(ism conns)"
}
