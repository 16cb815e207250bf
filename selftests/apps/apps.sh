# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2153 # DIR and PORT come from lib.sh and run.sh
#
# One test per application: start its server at PORT, drive it with a stock client, hold the result
# against what was sent. The same body runs on plain TCP and accelerated.

PYTHON=/usr/bin/python3
[ -x "$PYTHON" ] || PYTHON=python3

# start_redis PORT - a redis-server that keeps nothing on disk
start_redis()
{
	serve redis "$1" redis-server --port "$1" --bind 127.0.0.1 --save '' --appendonly no \
		--dir "$DIR" --daemonize no || die "redis-server does not start"
}

# redis_values PORT - random values of many sizes through redis-cli, there and back
redis_values()
{
	local size

	for size in 1 13 1000 16384 65536 300000 1000000; do
		head -c "$size" /dev/urandom >"$DIR/value"
		inbox redis-cli -p "$1" -x set "value:$size" <"$DIR/value" || die "redis-cli set $size"
		inbox redis-cli -p "$1" get "value:$size" >"$DIR/got" || die "redis-cli get $size"
		truncate -s -1 "$DIR/got" # the newline that redis-cli adds
		same "$DIR/value" "$DIR/got" "the value of $size bytes came back changed"
	done
}

# redis_bench PORT ARGS... - the stock benchmark must end well and name no error
redis_bench()
{
	local port=$1 out

	shift
	out=$(inbox redis-benchmark -p "$port" -q "$@" 2>&1) || die "redis-benchmark $*: exit $? $out"
	! grep -qi error <<<"$out" || die "redis-benchmark $*: $out"
	grep -q 'requests per second' <<<"$out" || die "redis-benchmark $*: no result"
}

app redis accel redis-server redis-benchmark redis-cli
app_redis()
{
	start_redis "$PORT"
	redis_values "$PORT"
	redis_bench "$PORT" -n 20000 -c 50 -d 1024 -t set,get,lpush,lrange_100
	redis_bench "$PORT" -n 20000 -c 50 -d 1024 -t set,get -P 16
	redis_bench "$PORT" -n 2000 -c 1 -d 1024 -t set,get
}

# A client that has filled the send buffer and then sleeps in recv() is woken when room is made there:
# that must not look like an answer to it. One wake-up in some hundred still does, on a busy machine
# (docs/switch-rule.rst, Blocking readers): the client says EAGAIN, and nothing may be lost by it.
app redis-large accel redis-server redis-cli
app_redis-large()
{
	local file n woken=0

	file=$(blob 8m 8M)
	start_redis "$PORT"
	for n in {1..50}; do
		inbox redis-cli -p "$PORT" -x set "large:$((n % 3))" <"$file" 2>"$DIR/said" && continue
		grep -q 'Resource temporarily unavailable' "$DIR/said" ||
			die "redis-cli set, time $n: $(cat "$DIR/said")"
		woken=$((woken + 1))
		[ $woken -le 2 ] || die "redis-cli woken without an answer $woken times in $n"
	done
	inbox redis-cli -p "$PORT" get large:1 >"$DIR/got" || die "redis-cli get: exit $?"
	truncate -s -1 "$DIR/got"
	same "$file" "$DIR/got" "the large value came back changed"
}

app memcached accel memcached python3
app_memcached()
{
	serve memcached "$PORT" memcached -u nobody -l 127.0.0.1 -p "$PORT" -U 0 -m 128 ||
		die "memcached does not start"
	inbox "$PYTHON" "$APPS/memcached_check.py" "$PORT" 300 || die "values came back changed"
	have memcslap memccp memccat || return 0
	inbox memcslap --servers="127.0.0.1:$PORT" --concurrency=8 --execute-number=2000 --test=set ||
		die "memcslap: exit $?"
	inbox memcslap --servers="127.0.0.1:$PORT" --concurrency=8 --execute-number=2000 --test=get ||
		die "memcslap: exit $?"
	head -c 200000 /dev/urandom >"$DIR/value"
	inbox memccp --servers="127.0.0.1:$PORT" "$DIR/value" || die "memccp: exit $?"
	inbox memccat --servers="127.0.0.1:$PORT" --file="$DIR/got" value || die "memccat: exit $?"
	same "$DIR/value" "$DIR/got" "memccat brought another value than memccp stored"
}

# as_postgres COMMAND... - initdb and postgres refuse to run as root
as_postgres()
{
	local user=postgres

	id postgres >/dev/null 2>&1 || user=nobody
	setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups -- "$@"
}

# sql COMMAND - one value
sql()
{
	inbox psql -h 127.0.0.1 -p "$PORT" -U postgres -XAt -c "$1" postgres || die "psql: exit $?"
}

# start_postgres - a fresh cluster, TCP only
start_postgres()
{
	chmod 777 "$DIR"
	as_postgres initdb -D "$DIR/pg" -U postgres -A trust -E UTF8 --locale=C --no-sync ||
		die "initdb: exit $?"
	cat >>"$DIR/pg/postgresql.conf" <<-END
		listen_addresses = '127.0.0.1'
		port = $PORT
		unix_socket_directories = ''
		fsync = off
		shared_memory_type = mmap
		logging_collector = off
	END
	serve postgres "$PORT" setpriv --reuid="$(stat -c %u "$DIR/pg")" --regid="$(stat -c %g "$DIR/pg")" \
		--clear-groups -- postgres -D "$DIR/pg" || die "postgres does not start"
}

app postgresql accel postgres initdb psql pgbench
app_postgresql()
{
	local sums

	start_postgres
	inbox pgbench -h 127.0.0.1 -p "$PORT" -U postgres -i -q -s 2 postgres || die "pgbench -i: exit $?"
	inbox pgbench -h 127.0.0.1 -p "$PORT" -U postgres -c 8 -j 2 -t 200 postgres ||
		die "pgbench: exit $?"
	inbox pgbench -h 127.0.0.1 -p "$PORT" -U postgres -c 8 -j 2 -t 500 -n -S -M prepared postgres ||
		die "pgbench -S: exit $?"
	[ "$(sql 'select count(*) from pgbench_history')" = 1600 ] || die "transactions are missing"
	sums=$(sql "select sum(abalance) = (select sum(bbalance) from pgbench_branches)
		and sum(abalance) = (select sum(tbalance) from pgbench_tellers)
		and sum(abalance) = (select sum(delta) from pgbench_history) from pgbench_accounts")
	[ "$sums" = t ] || die "the balances do not agree: $sums"
	sql "select string_agg(md5(g::text), '' order by g) from generate_series(1, 200000) g" |
		tr -d '\n' | md5sum | cut -d' ' -f1 >"$DIR/got"
	[ "$(cat "$DIR/got")" = "$(sql "select md5(string_agg(md5(g::text), '' order by g))
		from generate_series(1, 200000) g")" ] || die "a large row came back changed"
}

# iperf_run ARGS... - a run must end without error, and every stream must have carried bytes
iperf_run()
{
	inbox iperf3 -c 127.0.0.1 -p "$PORT" -J "$@" >"$DIR/iperf.json" ||
		die "iperf3 $*: $(json .error <"$DIR/iperf.json")"
	[ "$(json '[.end.streams[] | select(.receiver.bytes == 0 or .sender.bytes == 0)] | length == 0' \
		<"$DIR/iperf.json")" = true ] || die "iperf3 $*: a stream carried nothing"
	[ "$(json '.end.sum_received.bytes <= .end.sum_sent.bytes' <"$DIR/iperf.json")" = true ] ||
		die "iperf3 $*: more received than sent"
}

app iperf3 accel iperf3
app_iperf3()
{
	serve iperf3 "$PORT" iperf3 -s -B 127.0.0.1 -p "$PORT" || die "iperf3 does not start"
	iperf_run -t 1
	iperf_run -t 2 -P 8
	iperf_run -t 2 -P 8 -R
	iperf_run -t 2 -P 4 --bidir
	iperf_run -n 4M -l 100
}

app curl accel curl python3
app_curl()
{
	local file

	file=$(blob 64m 64M)
	serve http "$PORT" "$PYTHON" -m http.server --bind 127.0.0.1 --directory "$TOP" "$PORT" ||
		die "http.server does not start"
	serve upload $((PORT + 1)) "$PYTHON" "$APPS/upload_server.py" $((PORT + 1)) ||
		die "upload_server.py does not start"
	inbox curl -sS -f -o "$DIR/got" "http://127.0.0.1:$PORT/64m" || die "curl: exit $?"
	same "$file" "$DIR/got" "the download differs"
	inbox curl -sS -f -Z -o "$DIR/got#1" "http://127.0.0.1:$PORT/64m?[1-4]" || die "curl -Z: exit $?"
	for n in 1 2 3 4; do
		same "$file" "$DIR/got$n" "the parallel download $n differs"
	done
	curl_upload "$file" --data-binary "@$file"
	curl_upload "$file" -T "$file"
}

# curl_upload FILE HOW... - the server answers with the checksum of what it got
curl_upload()
{
	local file=$1 got

	shift
	got=$(inbox curl -sS -f -H Expect: "$@" "http://127.0.0.1:$((PORT + 1))/") || die "curl $1: exit $?"
	[ "$got" = "$(sha256sum <"$file" | cut -d' ' -f1)" ] || die "curl $1: the upload differs"
}

app haproxy accel haproxy redis-server redis-benchmark redis-cli
app_haproxy()
{
	local front=$((PORT + 1))

	start_redis "$PORT"
	cat >"$DIR/haproxy.cfg" <<-END
		global
			maxconn 1000
		defaults
			mode tcp
			timeout connect 5s
			timeout client 30s
			timeout server 30s
		listen redis
			bind 127.0.0.1:$front
			server redis 127.0.0.1:$PORT
	END
	serve haproxy "$front" haproxy -db -f "$DIR/haproxy.cfg" || die "haproxy does not start"
	redis_values "$front"
	redis_bench "$front" -n 20000 -c 50 -d 1024 -t set,get
}

SSHD_ARGS=() # further ones

# start_sshd - one that serves only root with a key made here; in a mount namespace of its own, because it
# insists on a directory in /run
start_sshd()
{
	for key in host key; do
		ssh-keygen -q -t ed25519 -N '' -f "$DIR/$key" || die "ssh-keygen: exit $?"
	done
	cat >"$DIR/sshd.conf" <<-END
		ListenAddress 127.0.0.1:$PORT
		HostKey $DIR/host
		AuthorizedKeysFile $DIR/key.pub
		PidFile none
		StrictModes no
		PermitRootLogin prohibit-password
		UsePAM $(passwd -S root | grep -q ' L ' && echo yes || echo no)
		Subsystem sftp internal-sftp
	END
	serve sshd "$PORT" unshare --mount sh -c \
		'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"' sh \
		"$(command -v sshd)" -D -e "${SSHD_ARGS[@]}" -f "$DIR/sshd.conf" || die "sshd does not start"
}

app sshd accel sshd scp ssh-keygen
app_sshd()
{
	local file ssh

	file=$(blob 64m 64M)
	start_sshd
	ssh=(-P "$PORT" -i "$DIR/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null
		-o BatchMode=yes -q -F none)
	inbox scp "${ssh[@]}" "$file" "root@127.0.0.1:$DIR/there" || die "scp to sshd: exit $?"
	same "$file" "$DIR/there" "the file sent differs"
	inbox scp "${ssh[@]}" "root@127.0.0.1:$DIR/there" "$DIR/back" || die "scp from sshd: exit $?"
	same "$file" "$DIR/back" "the file fetched differs"
	[ "$(inbox ssh -p "$PORT" "${ssh[@]:2}" root@127.0.0.1 'cat; echo end' <"$file" | tail -c 4)" = end ] ||
		die "ssh lost the end of the stream"
}

# nginx asks FIONREAD after each read (from 1.17.5 on), and wrk does too
app nginx fionread_tcp nginx curl python3
app_nginx()
{
	local file out

	file=$(blob 64m 64M)
	blob 20k 20000 >/dev/null
	cat >"$DIR/nginx.conf" <<-END
		daemon off;
		user root;
		pid $DIR/nginx.pid;
		worker_processes 2;
		events { worker_connections 1000; }
		http {
			access_log off;
			sendfile on;
			client_max_body_size 1g;
			client_body_temp_path $DIR/body;
			server {
				listen 127.0.0.1:$PORT;
				root $TOP;
				location /upload { proxy_pass http://127.0.0.1:$((PORT + 1)); }
			}
		}
	END
	serve nginx "$PORT" nginx -e stderr -c "$DIR/nginx.conf" || die "nginx does not start"
	serve upload $((PORT + 1)) "$PYTHON" "$APPS/upload_server.py" $((PORT + 1)) ||
		die "upload_server.py does not start"
	inbox curl -sS -f -o "$DIR/got" "http://127.0.0.1:$PORT/64m" || die "curl: exit $?"
	same "$file" "$DIR/got" "the download differs"
	out=$(inbox curl -sS -f -H Expect: --data-binary "@$file" "http://127.0.0.1:$PORT/upload") ||
		die "curl: exit $?"
	[ "$out" = "$(sha256sum <"$file" | cut -d' ' -f1)" ] || die "the proxied upload differs"
	have wrk || return 0
	out=$(inbox wrk -t 2 -c 50 -d 2 "http://127.0.0.1:$PORT/20k") || die "wrk: exit $?"
	! grep -qE 'Socket errors|Non-2xx' <<<"$out" || die "wrk: $out"
	grep -q 'Requests/sec' <<<"$out" || die "wrk: $out"
}

app node accel node
app_node()
{
	local file sum

	file=$(blob 16m 16M)
	sum=$(sha256sum <"$file" | cut -d' ' -f1)
	serve node "$PORT" node "$APPS/http_peers.js" serve "$PORT" "$file" || die "node does not start"
	[ "$(inbox node "$APPS/http_peers.js" fetch "$PORT" "$file")" = "$sum $sum" ] ||
		die "a download or an upload differs"
}

app asyncio accel python3
app_asyncio()
{
	serve echo "$PORT" "$PYTHON" "$APPS/echo_peers.py" serve "$PORT" || die "echo_peers.py does not start"
	inbox "$PYTHON" "$APPS/echo_peers.py" talk "$PORT" 16 2000000 || die "the echo differs"
}

app flow-control accel python3
app_flow-control()
{
	inbox "$PYTHON" "$APPS/flow_control.py" "$PORT" || die "$(tail -n 1 "$DIR/body.log")"
}

app socat accel socat
app_socat()
{
	local file

	file=$(blob 64m 64M)
	serve echo "$PORT" socat "TCP4-LISTEN:$PORT,bind=127.0.0.1,fork,reuseaddr" EXEC:cat ||
		die "socat does not start"
	inbox socat -t 30 - "TCP4:127.0.0.1:$PORT" <"$file" >"$DIR/got" || die "socat: exit $?"
	same "$file" "$DIR/got" "the echo differs"
	serve sink $((PORT + 1)) socat -u "TCP4-LISTEN:$((PORT + 1)),bind=127.0.0.1" \
		"CREATE:$DIR/sunk" || die "socat does not start"
	inbox socat -u "OPEN:$file" "TCP4:127.0.0.1:$((PORT + 1))" || die "socat -u: exit $?"
	within 10 gone "$PID" || die "the receiving socat does not see the end"
	same "$file" "$DIR/sunk" "the one-way copy differs"
}

# start_go - the Go peers, built here from the distribution's Go: a server and a proxy in front of it
start_go()
{
	FILE=$(blob 16m 16M)
	[ -x "$TOP/go_peers" ] ||
		HOME=$TOP GOCACHE=$TOP/go GO111MODULE=off timeout 120 go build -o "$TOP/go_peers" "$APPS/go_peers.go" ||
		die "go build: exit $?"
	serve go "$PORT" "$TOP/go_peers" serve "$PORT" $((PORT + 1)) "$FILE" || die "the Go server does not start"
}

app go accel go curl
app_go()
{
	start_go
	inbox "$TOP/go_peers" fetch "$PORT" "$FILE" || die "Go from Go: exit $?"
	inbox curl -sS -f -o "$DIR/got" "http://127.0.0.1:$PORT/" || die "curl: exit $?"
	same "$FILE" "$DIR/got" "what curl got from the Go server differs"
}

# Go copies between two TCP sockets with splice(2), which does not see redirected bytes.
app go-proxy splice go curl
app_go-proxy()
{
	start_go
	inbox "$TOP/go_peers" fetch $((PORT + 1)) "$FILE" || die "Go through the Go proxy: exit $?"
	inbox curl -sS -f -o "$DIR/got" "http://127.0.0.1:$((PORT + 1))/" || die "curl: exit $?"
	same "$FILE" "$DIR/got" "what curl got through the Go proxy differs"
}
