# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2153 # DIR and PORT come from lib.sh and run.sh
#
# What applications do beside apps/apps.sh that matters to rings: forks, reloads, waiting in every way,
# programs that inherit a connection. And which of the tests there must move how much through rings.

# Less than a third of what a test sends: what TCP keeps depends on who is how fast.
rings redis 10000000
rings memcached 1000000
rings postgresql 100000
rings iperf3 10000000
rings curl 20000000
rings haproxy 3000000
rings nginx 10000000
rings node 3000000
rings asyncio 1000000
rings socat 20000000
# Uploads from one sleep to the next, each on a connection of its own: some never leave TCP.
rings redis-large 0
# Ends before it has sent enough to be worth rings.
rings flow-control 0
# Becomes another program, by exec(), with each connection: that one stays on TCP.
rings sshd 0

also redis client server
also postgresql early server
also nginx client
also socat early

# cli ARGS... - redis-cli at PORT; prints the answer
cli()
{
	inbox redis-cli -p "$PORT" "$@" || die "redis-cli $1: exit $?"
}

# answer WANT ARGS... - the answer must be exactly that
answer()
{
	local want=$1 got

	shift
	got=$(cli "$@")
	[ "$got" = "$want" ] || die "redis-cli $*: \"$got\", not \"$want\""
}

subscribed()
{
	[ "$(inbox redis-cli -p "$PORT" pubsub numsub news | tail -n 1)" = 1 ]
}

blocked()
{
	inbox redis-cli -p "$PORT" info clients | grep -q '^blocked_clients:1'
}

app redis-waiting accel redis-server redis-cli
rings redis-waiting 100000
app_redis-waiting()
{
	local n sub

	start_redis "$PORT"
	# pub/sub: nothing lost, in order
	start sub redis-cli -p "$PORT" subscribe news
	sub=$PID
	within 10 subscribed || die "nobody subscribes"
	for n in {1..400}; do
		printf 'publish news %s\n' "$n:$(printf 'x%.0s' {1..300})"
	done >"$DIR/news"
	inbox redis-cli -p "$PORT" <"$DIR/news" >"$DIR/published" || die "redis-cli publish: exit $?"
	[ "$(sort -u "$DIR/published")" = 1 ] || die "publish reached others than one: $(sort -u "$DIR/published")"
	within 10 grep -q '^400:' "$DIR/sub.log" || die "the subscriber waits for the last message"
	[ "$(grep -o '^[0-9]*:x' "$DIR/sub.log" | tr -d ':x' | tr '\n' ' ')" = "$(seq -s ' ' 400) " ] ||
		die "the subscriber missed a message"
	kill "$sub"
	# a client that sleeps until another one pushes
	for n in 1 2 3 4 5; do
		start pop redis-cli -p "$PORT" blpop queue 20
		within 10 blocked || die "BLPOP does not block"
		cli rpush queue "value $n" >/dev/null
		ended "$PID" "BLPOP"
		grep -q "^value $n$" "$DIR/pop.log" || die "BLPOP brings: $(cat "$DIR/pop.log")"
	done
	answer '' blpop queue 1
	# a transaction in one piece
	printf '%s\n' multi 'set a 1' 'incrby a 41' 'get a' exec | inbox redis-cli -p "$PORT" >"$DIR/multi"
	[ "$(tr '\n' ' ' <"$DIR/multi")" = "OK QUEUED QUEUED QUEUED OK 42 42 " ] || die "MULTI: $(cat "$DIR/multi")"
	# a long pipeline
	redis_bench "$PORT" -n 100000 -c 10 -P 32 -t ping,set,get,incr,lpush,lpop,sadd,hset,mset
}

saved()
{
	inbox redis-cli -p "$PORT" info persistence | grep -q '^rdb_bgsave_in_progress:0'
}

# A fork() in the middle of everything, then a shutdown.
app redis-fork accel redis-server redis-cli redis-benchmark redis-check-rdb
rings redis-fork 1000000
app_redis-fork()
{
	local server bench

	start_redis "$PORT"
	server=$PID
	start bench redis-benchmark -p "$PORT" -q -n 150000 -c 20 -d 1000 -r 10000 -t set,get
	bench=$PID
	for _ in 1 2 3; do
		sleep 0.2
		answer 'Background saving started' bgsave
		within 20 saved || die "BGSAVE does not end"
	done
	cli info persistence | grep -q '^rdb_last_bgsave_status:ok' || die "BGSAVE fails"
	ended "$bench" redis-benchmark
	! grep -qi error "$DIR/bench.log" || die "redis-benchmark: $(cat "$DIR/bench.log")"
	redis-check-rdb "$DIR/dump.rdb" >"$DIR/rdb.log" || die "redis-check-rdb: $(tail -n 1 "$DIR/rdb.log")"
	inbox redis-cli -p "$PORT" shutdown nosave
	within 10 gone "$server" || die "redis-server does not end by SHUTDOWN"
}

# Four threads that wait with libevent; the client checks each value.
app memcached-verify accel memcached memcaslap
rings memcached-verify 1000000
app_memcached-verify()
{
	serve memcached "$PORT" memcached -u nobody -l 127.0.0.1 -p "$PORT" -U 0 -m 256 -t 4 ||
		die "memcached does not start"
	inbox memcaslap -s "127.0.0.1:$PORT" -T 4 -c 16 -x 40000 -v 1 -X 4000 >"$DIR/slap" ||
		die "memcaslap: exit $? $(tail -n 3 "$DIR/slap")"
	[ "$(grep -Ec '^verify_(misses|failed): 0$' "$DIR/slap")" = 2 ] || die "memcaslap: $(grep verify "$DIR/slap")"
}

# A process for each connection, many of them; and a table that goes in and comes out by COPY.
app postgresql-copy accel postgres initdb psql pgbench
rings postgresql-copy 3000000
app_postgresql-copy()
{
	start_postgres
	seq 150000 | awk '{ printf "%d\t%s\n", $1, substr("0123456789abcdefghijklmnopqrstuvwxyz", $1 % 30 + 1) $1 * 7919 }' \
		>"$DIR/rows"
	sql "create table t (id int primary key, v text)" >/dev/null
	sql "\\copy t from '$DIR/rows'" >/dev/null
	sql "\\copy (select * from t order by id) to '$DIR/back'" >/dev/null
	same "$DIR/rows" "$DIR/back" "the table came back changed"
	inbox pgbench -h 127.0.0.1 -p "$PORT" -U postgres -i -q -s 1 postgres || die "pgbench -i: exit $?"
	inbox pgbench -h 127.0.0.1 -p "$PORT" -U postgres -C -c 4 -j 2 -t 30 -S postgres || die "pgbench -C: exit $?"
	# one that ends by a signal while it sends
	start cancel psql -h 127.0.0.1 -p "$PORT" -U postgres -XAtc \
		"select repeat('x', 1000) from generate_series(1, 100000000)" -o /dev/null postgres
	within 20 on_the_way || die "the large query does not start"
	sql "select pg_terminate_backend(pid) from pg_stat_activity where query like '%100000000%' and pid <> pg_backend_pid()"
	within 20 gone "$PID" || die "psql does not see that its server process is gone"
	[ "$(sql 'select count(*) from t')" = 150000 ] || die "rows are missing"
}

on_the_way()
{
	[ "$(sql "select count(*) from pg_stat_activity where query like '%100000000%' and pid <> pg_backend_pid()")" = 1 ]
}

# download N... - so many, one after the other; each must be the file
downloads()
{
	local n

	for n in $(seq "$1"); do
		inbox curl -sS -f -o "$DIR/got" "http://127.0.0.1:$PORT/8m" || die "download $n: exit $?"
		same "$TOP/8m" "$DIR/got" "download $n differs"
	done
}

# Worker processes come and go while they are asked.
app nginx-reload fionread_tcp nginx curl wrk python3
rings nginx-reload 10000000
app_nginx-reload()
{
	local master wrk

	blob 8m 8M >/dev/null
	blob 20k 20000 >/dev/null
	cat >"$DIR/nginx.conf" <<-END
		daemon off;
		user root;
		pid $DIR/nginx.pid;
		worker_processes 4;
		events { worker_connections 1000; }
		http {
			access_log off;
			sendfile on;
			tcp_nopush on;
			keepalive_requests 100000;
			upstream back { server 127.0.0.1:$((PORT + 1)); keepalive 8; }
			server { listen 127.0.0.1:$PORT; root $TOP;
				location /8m { proxy_pass http://back; proxy_http_version 1.1;
					proxy_set_header Connection ""; proxy_buffering off; } }
			server { listen 127.0.0.1:$((PORT + 1)); root $TOP; }
		}
	END
	serve nginx "$PORT" nginx -e stderr -c "$DIR/nginx.conf" || die "nginx does not start"
	master=$PID
	# wrk takes it for an error when a connection that idles is closed, as a reload does
	start wrk wrk -t 2 -c 20 -d 5 "http://127.0.0.1:$PORT/20k"
	wrk=$PID
	for _ in 1 2 3; do
		downloads 4
		kill -HUP "$master"
	done
	ended "$wrk" wrk
	! grep -q 'Non-2xx' "$DIR/wrk.log" || die "wrk: $(cat "$DIR/wrk.log")"
	inbox curl -sS -f -o "$DIR/got#1" "http://127.0.0.1:$((PORT + 1))/20k?[1-200]" || die "curl: exit $?"
	for n in 1 77 200; do
		same "$TOP/20k" "$DIR/got$n" "download $n on one connection differs"
	done
}

# Programs that get the connection as their standard input and output, before or after it has rings.
app socat-inetd accel socat python3 sha256sum
rings socat-inetd 0
app_socat-inetd()
{
	local file want

	file=$(blob 8m 8M)
	want=$(sha256sum <"$file")
	serve sum "$PORT" socat "TCP4-LISTEN:$PORT,bind=127.0.0.1,fork,reuseaddr" EXEC:sha256sum,nofork ||
		die "socat does not start"
	[ "$(inbox socat -t 30 - "TCP4:127.0.0.1:$PORT" <"$file")" = "$want" ] || die "sha256sum as a server: another sum"
	serve shell $((PORT + 1)) socat "TCP4-LISTEN:$((PORT + 1)),bind=127.0.0.1,fork,reuseaddr" \
		"SYSTEM:while read -r a b; do echo \$((a * b)); done,nofork" || die "socat does not start"
	for n in {1..3}; do
		[ "$(seq 300 | sed 's/$/ 3/' | inbox socat -t 30 - "TCP4:127.0.0.1:$((PORT + 1))" | md5sum)" = \
			"$(seq 3 3 900 | md5sum)" ] || die "sh as a server, time $n: another answer"
	done
}

# The same sshd, told not to execute itself again for each connection: a child without privileges, in
# chroot(2) and under seccomp(2), has the connection first, so it stays on TCP; nobody may be killed by that.
app sshd-privsep accel sshd scp ssh ssh-keygen
rings sshd-privsep 0
also sshd-privsep early
app_sshd-privsep()
{
	local file n ssh

	# shellcheck disable=SC2034 # for start_sshd
	SSHD_ARGS=(-r)
	file=$(blob 8m 8M)
	start_sshd
	ssh=(ssh -p "$PORT" -i "$DIR/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null
		-o BatchMode=yes -q -F none root@127.0.0.1)
	for n in {1..15}; do
		inbox "${ssh[@]}" 'cat; echo end' <"$file" >"$DIR/got" || die "ssh, time $n: exit $?"
		[ "$(tail -c 4 "$DIR/got")" = end ] || die "ssh, time $n, lost the end of the stream"
	done
	truncate -s -4 "$DIR/got"
	same "$file" "$DIR/got" "what came back from ssh differs"
}

# peers KIND CONNECTIONS BYTES - echo servers of one kind
peers()
{
	serve "$1" "$PORT" "$PYTHON" "$RINGS/peers.py" "$1" "$PORT" || die "peers.py $1 does not start"
	inbox "$PYTHON" "$RINGS/peers.py" talk "$PORT" "$2" "$3" || die "the echo differs"
}

app python-threads accel python3
rings python-threads 1000000
also python-threads early client server
app_python-threads()
{
	peers thread 16 4000000
}

app python-fork accel python3
rings python-fork 1000000
also python-fork early
app_python-fork()
{
	peers fork 16 4000000
}

app python-prefork accel python3
rings python-prefork 1000000
app_python-prefork()
{
	peers prefork 16 4000000
}

app python-selectors accel python3
rings python-selectors 1000000
also python-selectors early
app_python-selectors()
{
	peers selectors 16 4000000
}

app python-inherit accel python3
rings python-inherit 10000
app_python-inherit()
{
	peers inherit 8 1000000
}

# transfer STYLE STYLE - both ways at once for a moment, every byte checked at both ends
transfer()
{
	local server

	serve "listen-$1" "$PORT" "$PYTHON" "$RINGS/transfer.py" listen "$PORT" 1.5 "$1" ||
		die "transfer.py does not start"
	server=$PID
	inbox "$PYTHON" "$RINGS/transfer.py" connect "$PORT" 1.5 "$2" >"$DIR/transfer" 2>&1 ||
		die "$1 and $2: $(tail -n 1 "$DIR/transfer")"
	within 20 gone "$server" || die "$1 and $2: the server does not end"
	exchanged "$DIR/listen-$1.log" "$DIR/transfer" || die "$1 and $2: $(tail -qn 1 "$DIR/listen-$1.log" "$DIR/transfer")"
	rm "$DIR/listen-$1.log"
}

app transfer accel python3
rings transfer 10000000
also transfer early client server
app_transfer()
{
	transfer blocking blocking
	transfer select poll
	transfer poll epoll
	transfer epoll epoll
	transfer epoll blocking
}

# TLS servers and clients of OpenSSL, with another one in between.
app openssl accel openssl curl socat
rings openssl 10000000
app_openssl()
{
	local file

	file=$(blob 64m 64M)
	inbox openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout "$DIR/key" -out "$DIR/cert" \
		2>/dev/null || die "openssl req: exit $?"
	serve openssl "$PORT" sh -c "cd '$TOP' && exec openssl s_server -quiet -WWW -accept 127.0.0.1:$PORT \
		-cert '$DIR/cert' -key '$DIR/key'" || die "openssl s_server does not start"
	inbox curl -sS -f --cacert "$DIR/cert" --resolve "localhost:$PORT:127.0.0.1" -o "$DIR/got" \
		"https://localhost:$PORT/64m" || die "curl: exit $?"
	same "$file" "$DIR/got" "the download by curl differs"
	printf 'GET /64m HTTP/1.0\r\n\r\n' | inbox openssl s_client -quiet -ign_eof -connect "127.0.0.1:$PORT" \
		2>/dev/null >"$DIR/answer"
	sed '1,/^\r$/d' "$DIR/answer" >"$DIR/got"
	same "$file" "$DIR/got" "the download by s_client differs"
	serve tls $((PORT + 1)) socat "OPENSSL-LISTEN:$((PORT + 1)),bind=127.0.0.1,fork,reuseaddr,cert=$DIR/cert,key=$DIR/key,verify=0" \
		EXEC:cat || die "socat does not start"
	inbox socat -t 30 - "OPENSSL:127.0.0.1:$((PORT + 1)),verify=0" <"$file" >"$DIR/got" || die "socat: exit $?"
	same "$file" "$DIR/got" "the echo by TLS differs"
}
