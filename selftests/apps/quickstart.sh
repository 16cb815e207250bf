#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# The first look: redis and iperf3, unmodified, on plain TCP, accelerated by the kernel (plane skmsg) and
# under `ismredir run` (plane direct), side by side, in a cgroup and a network namespace of their own; then
# what connections look like; then everything is removed.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

NAME=ismredir-demo-$$
REDIS_PORT=6379
IPERF_PORT=5201
ROUNDS=${ROUNDS:-5}
SCRATCH=
LOADED=
RUN=() # what is put before a program: `ismredir run`, or nothing
PINS=/sys/fs/bpf/ismredir
SHIFT=0 # added to the ports: the servers under `ismredir run` have the next one
declare -A VALUES MEMORY TOTAL # by "row mode"; bytes that did not take TCP, and all

# The rows of the table: what it says, its unit, and how one value of it is measured.
ROWS=(
	"redis SET, 1 KiB, 50 clients|req/s|redis_rate 50 40000 set"
	"redis GET, 1 KiB, 50 clients|req/s|redis_rate 50 40000 get"
	"redis SET, 1 KiB, 1 client|req/s|redis_rate 1 8000 set"
	"redis GET, 1 KiB, 1 client|req/s|redis_rate 1 8000 get"
	"iperf3, 1 stream|Gbit/s|iperf_rate"
)

redis_rate()
{
	inbox "${RUN[@]}" redis-benchmark -p $((REDIS_PORT + SHIFT)) --csv -c "$1" -n "$2" -d 1024 -t "$3" 2>/dev/null |
		awk -F'","' 'END { print $2 }'
}

iperf_rate()
{
	inbox "${RUN[@]}" iperf3 -c 127.0.0.1 -p $((IPERF_PORT + SHIFT)) -t 1 -J |
		jq '.end.sum_received.bits_per_second / 1e9 * 100 | round / 100'
}

title()
{
	if [ -t 1 ]; then
		printf '\n\033[1m%s\033[0m\n' "$*"
	else
		printf '\n%s\n' "$*"
	fi
}

# shown COMMAND... - show a command as a user would type it
shown()
{
	printf '  $ %s\n' "$*"
}

# page COMMAND... - its output, set in
page()
{
	"$@" 2>&1 | sed 's/^/  /'
}

fail()
{
	echo "quickstart: $*" >&2
	exit 1
}

# finish - leave nothing, however this ends
finish()
{
	trap '' INT TERM HUP
	box_close
	[ -z "$LOADED" ] || ism unload >/dev/null || echo "quickstart: \`ismredir unload\` failed" >&2
	[ "$PINS" != "$SCRATCH/bpf/ismredir" ] || umount "$SCRATCH/bpf"
	[ -z "$SCRATCH" ] || rm -rf "$SCRATCH"
}

prepare()
{
	[ "$(id -u)" = 0 ] || fail "must run as root: it makes a cgroup and a network namespace"
	have redis-server redis-benchmark iperf3 jq ip ss nsenter bpftool ||
		fail "$MISSING is not installed; \`make deps\` installs it"
	unset ISMREDIR_PIN_DIR
	[ "$(ism -j status | json .loaded)" != true ] ||
		fail "ismredir is loaded on this machine already; \`ismredir unload\` first"
	trap finish EXIT
	trap 'exit 130' INT TERM HUP
	SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/$NAME.XXXXXX") || exit 1
	export ISMREDIR_SOCK=$SCRATCH/control.sock
	if [ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" != bpf_fs ]; then
		# systemd mounts one; without it the demo has its own
		mkdir "$SCRATCH/bpf"
		mount -t bpf bpf "$SCRATCH/bpf" || fail "cannot mount a bpffs"
		PINS=$SCRATCH/bpf/ismredir
		export ISMREDIR_PIN_DIR=$PINS
	fi
	box_open "$NAME" "$SCRATCH" || fail "cannot make the demo cgroup and network namespace"
}

machine()
{
	title "What this machine allows"
	printf '  Linux %s, %s x %s\n' "$(uname -r)" "$(nproc)" \
		"$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)"
	ism -j check >"$SCRATCH/check"
	json '.planes | to_entries[] | "  plane \(.key): \(.value.verdict)  \(.value.why // "")"' \
		<"$SCRATCH/check" | fold -s -w 92 | sed '2,$s/^\([^ ]\)/    \1/'
	[ "$(json .planes.skmsg.verdict <"$SCRATCH/check")" != refused ] ||
		fail "this kernel cannot accelerate; \`ismredir check\` tells what it lacks"
}

# mode NAME - how programs are started from now on
mode()
{
	RUN=() SHIFT=0
	[ "$1" != direct ] || RUN=("$ISMREDIR" run --quiet --) SHIFT=1
}

# servers - one of each, as the mode says
servers()
{
	serve "redis$SHIFT" $((REDIS_PORT + SHIFT)) "${RUN[@]}" redis-server --bind 127.0.0.1 \
		--port $((REDIS_PORT + SHIFT)) --save '' --appendonly no --daemonize no --dir "$DIR" ||
		fail "redis-server does not start"
	serve "iperf3$SHIFT" $((IPERF_PORT + SHIFT)) "${RUN[@]}" iperf3 -s -B 127.0.0.1 \
		-p $((IPERF_PORT + SHIFT)) || fail "iperf3 does not start"
}

start()
{
	local versions

	mode plain
	servers
	mode direct
	servers
	spawn ismredird "$(dirname "$ISMREDIR")/ismredird" --socket "$ISMREDIR_SOCK"
	within 10 test -S "$ISMREDIR_SOCK" || fail "ismredird: $(cat "$DIR/ismredird.log")"
	title "The demo"
	versions=$(redis-server --version | sed 's/Redis server v=\([^ ]*\).*/redis \1/')
	versions+=", $(iperf3 --version | head -n 1 | cut -d' ' -f1-2)"
	printf '  %-9s %s\n' cgroup "$CG" netns "$BOX" \
		programs "$versions, as the distribution packages them"
	echo
	shown "ismredir load --cgroup $CG --port $REDIS_PORT-$((REDIS_PORT + 1)) --port $IPERF_PORT-$((IPERF_PORT + 1))"
	shown "ismredird &"
	shown "ismredir run redis-server ...    # and so on, for the plane direct"
}

# load - on the demo; the servers are running already and stay as they are
load()
{
	LOADED=1 # before: what is interrupted must be taken back too
	ism load --cgroup "$CG" --port "$REDIS_PORT-$((REDIS_PORT + 1))" \
		--port "$IPERF_PORT-$((IPERF_PORT + 1))" >"$DIR/load" 2>&1 && return
	[ $? -gt 2 ] || LOADED= # it says that it left nothing
	fail "load: $(cat "$DIR/load")"
}

unload()
{
	ism unload >"$DIR/unload" 2>&1 || fail "unload: $(cat "$DIR/unload")"
	LOADED=
}

# moved - "MEMORY TCP": bytes that took shared memory, redirected or through rings, and bytes that took TCP
moved()
{
	{ ism -j status && ism -j conns; } | jq -rs '
		[.[0].stats.redir_bytes + .[0].daemon.ring_bytes + ([.[1].conns[].redir_bytes] | add // 0),
		 .[0].stats.tcp_bytes + ([.[1].conns[].tcp_bytes] | add // 0)] | join(" ")'
}

# measure MODE - every row once
measure()
{
	local row text how value memory0=0 tcp0=0 memory tcp

	mode "$1"
	[ "$1" = plain ] || read -r memory0 tcp0 < <(moved)
	for row in "${!ROWS[@]}"; do
		IFS='|' read -r text _ how <<<"${ROWS[row]}"
		value=$($how)
		[ -n "$value" ] || fail "no result of $text ($1)"
		VALUES[$row $1]+="$value "
		[ "$1" != plain ] || continue
		within 5 no_conns
		read -r memory tcp < <(moved)
		MEMORY[$row $1]=$((${MEMORY[$row $1]:-0} + memory - memory0))
		TOTAL[$row $1]=$((${TOTAL[$row $1]:-0} + memory + tcp - memory0 - tcp0))
		memory0=$memory tcp0=$tcp
	done
}

# rounds - the planes in turn, and who is first in turn too: the machine may drift
rounds()
{
	local round mode
	local -a order=(plain skmsg direct)

	printf '\n  measuring, the planes in turn: round'
	for ((round = 1; round <= ROUNDS; round++)); do
		printf ' %d' "$round"
		for mode in "${order[@]}"; do
			[ "$mode" = plain ] || load
			# listeners that were there before are covered from their next connection on
			[ "$mode" != direct ] || warm_up
			measure "$mode"
			[ "$mode" = plain ] || unload
		done
		order=("${order[@]:1}" "${order[0]}")
	done
	echo
}

# warm_up - let the servers under `ismredir run` see that something is loaded
warm_up()
{
	mode direct
	for _ in 1 2; do
		inbox "${RUN[@]}" redis-cli -p $((REDIS_PORT + SHIFT)) ping >/dev/null
		sleep 0.2
	done
	within 5 no_conns
}

# median NUMBER...
median()
{
	printf '%s\n' "$@" | sort -g | awk '
		{ v[NR] = $1 }
		END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

table()
{
	local row text unit plain skmsg direct

	title "Plain TCP, redirected by the kernel, and under \`ismredir run\` (medians of $ROUNDS rounds)"
	printf '  %-29s %15s %11s %6s %11s %6s  %s\n' '' 'plain TCP' skmsg '' direct '' 'by memory'
	for row in "${!ROWS[@]}"; do
		IFS='|' read -r text unit _ <<<"${ROWS[row]}"
		# shellcheck disable=SC2086 # lists of numbers
		plain=$(median ${VALUES[$row plain]}) skmsg=$(median ${VALUES[$row skmsg]}) \
			direct=$(median ${VALUES[$row direct]})
		awk -v text="$text" -v unit="$unit" -v p="$plain" -v s="$skmsg" -v d="$direct" \
			-v sm="${MEMORY[$row skmsg]}" -v st="${TOTAL[$row skmsg]}" \
			-v dm="${MEMORY[$row direct]}" -v dt="${TOTAL[$row direct]}" '
			function commas(s, n) {
				n = length(s) - 3
				return n > 0 ? commas(substr(s, 1, n)) "," substr(s, n + 1) : s
			}
			function value(v) {
				return v < 1000 ? sprintf("%.1f", v) : commas(sprintf("%.0f", v))
			}
			function part(n, all) {
				return all ? sprintf("%.0f %%", 100 * n / all) : "-"
			}
			BEGIN { printf "  %-29s %15s %11s %5.2fx %11s %5.2fx  %s, %s\n", text,
				value(p) " " unit, value(s), s / p, value(d), d / p, part(sm, st), part(dm, dt) }'
	done
}

# keep_busy - redis-benchmark with two connections, in the background; PIDS gets its pid
keep_busy()
{
	(enter timeout --foreground 60 "${RUN[@]}" redis-benchmark -p $((REDIS_PORT + SHIFT)) -q -c 2 \
		-n 100000000 -d 1024 -t get) >/dev/null 2>&1 &
	PIDS+=($!)
	disown
}

# on_rings PORT - both ends of a connection there are on the plane direct
on_rings()
{
	[ "$(ism -j conns port "$1" plane direct | jq '[.conns[] | select(.ring_bytes > 0) | .role] |
		unique | length')" = 2 ]
}

# look - live connections, by ismredir and by bpftool
look()
{
	local PIDS=() pid

	load
	warm_up
	keep_busy
	mode plain
	keep_busy
	within 10 both_ends "$REDIS_PORT" || fail "no redirected connection to show"
	within 10 on_rings $((REDIS_PORT + 1)) || fail "no connection on rings to show"
	title "While redis-benchmark -c 2 is running, once under \`ismredir run\`"
	shown ismredir conns
	page ism conns
	title "One of them, as bpftool sees it"
	shown bpftool map dump pinned "$PINS/conns"
	bpftool map dump pinned "$PINS/conns" >"$DIR/dump" || fail "bpftool: exit $?"
	page first_record "$DIR/dump"
	title "Away with it, in the middle of the traffic"
	shown ismredir unload
	unload
	page cat "$DIR/unload"
	sleep 0.5
	for pid in "${PIDS[@]}"; do
		gone "$pid" && fail "redis-benchmark did not survive unload"
	done
	echo "  redis-benchmark goes on, on plain TCP"
}

# first_record FILE - the first element of bpftool's list
first_record()
{
	awk '{ print } /^    }/ { exit }' "$1" | sed 's/^    },{$/    }, ... ]/'
}

prepare
machine
start
rounds
table
look
box_close
echo "  the demo's processes, cgroup and network namespace are removed; nothing is left"
