#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# The first look: redis and iperf3, unmodified, on plain TCP and accelerated, side by side, in a cgroup
# and a network namespace of their own; then what one connection looks like; then everything is removed.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

NAME=ismredir-demo-$$
REDIS_PORT=6379
IPERF_PORT=5201
ROUNDS=5
SCRATCH=
LOADED=
declare -A VALUES REDIR TOTAL # by row; VALUES by "row mode"

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
	inbox redis-benchmark -p "$REDIS_PORT" --csv -c "$1" -n "$2" -d 1024 -t "$3" 2>/dev/null |
		awk -F'","' 'END { print $2 }'
}

iperf_rate()
{
	inbox iperf3 -c 127.0.0.1 -p "$IPERF_PORT" -t 1 -J |
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

start()
{
	local versions

	serve redis "$REDIS_PORT" redis-server --bind 127.0.0.1 --port "$REDIS_PORT" --save '' \
		--appendonly no --daemonize no --dir "$DIR" || fail "redis-server does not start"
	serve iperf3 "$IPERF_PORT" iperf3 -s -B 127.0.0.1 -p "$IPERF_PORT" || fail "iperf3 does not start"
	title "The demo"
	versions=$(redis-server --version | sed 's/Redis server v=\([^ ]*\).*/redis \1/')
	versions+=", $(iperf3 --version | head -n 1 | cut -d' ' -f1-2)"
	printf '  %-9s %s\n' cgroup "$CG" netns "$BOX" \
		programs "$versions, as the distribution packages them"
	echo
	shown "ismredir load --cgroup $CG --port $REDIS_PORT --port $IPERF_PORT"
}

# load - on the demo; the servers are running already and stay as they are
load()
{
	LOADED=1 # before: what is interrupted must be taken back too
	ism load --cgroup "$CG" --port "$REDIS_PORT" --port "$IPERF_PORT" >"$DIR/load" 2>&1 && return
	[ $? -gt 2 ] || LOADED= # it says that it left nothing
	fail "load: $(cat "$DIR/load")"
}

unload()
{
	ism unload >"$DIR/unload" 2>&1 || fail "unload: $(cat "$DIR/unload")"
	LOADED=
}

# measure MODE - every row once
measure()
{
	local mode=$1 row text how value redir0=0 tcp0=0 redir tcp

	for row in "${!ROWS[@]}"; do
		IFS='|' read -r text _ how <<<"${ROWS[row]}"
		value=$($how)
		[ -n "$value" ] || fail "no result of $text ($mode)"
		VALUES[$row $mode]+="$value "
		[ "$mode" = accelerated ] || continue
		within 5 no_conns
		read -r redir tcp < <(sent)
		REDIR[$row]=$((${REDIR[$row]:-0} + redir - redir0))
		TOTAL[$row]=$((${TOTAL[$row]:-0} + redir + tcp - redir0 - tcp0))
		redir0=$redir tcp0=$tcp
	done
}

# rounds - plain and accelerated in turn, and who is first in turn too: the machine may drift
rounds()
{
	local round mode

	printf '\n  measuring, plain and accelerated in turn: round'
	for ((round = 1; round <= ROUNDS; round++)); do
		printf ' %d' "$round"
		for mode in $([ $((round % 2)) = 1 ] && echo plain accelerated || echo accelerated plain); do
			[ "$mode" = plain ] || load
			measure "$mode"
			[ "$mode" = plain ] || unload
		done
	done
	echo
}

# median NUMBER...
median()
{
	printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] :
		(v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

table()
{
	local row text unit plain accelerated

	title "Plain TCP and accelerated (medians of $ROUNDS rounds)"
	printf '  %-30s %16s %16s %7s %11s\n' '' 'plain TCP' accelerated ratio redirected
	for row in "${!ROWS[@]}"; do
		IFS='|' read -r text unit _ <<<"${ROWS[row]}"
		# shellcheck disable=SC2086 # lists of numbers
		plain=$(median ${VALUES[$row plain]}) accelerated=$(median ${VALUES[$row accelerated]})
		awk -v text="$text" -v unit="$unit" -v p="$plain" -v a="$accelerated" \
			-v redir="${REDIR[$row]}" -v total="${TOTAL[$row]}" '
			function commas(s, n) {
				n = length(s) - 3
				return n > 0 ? commas(substr(s, 1, n)) "," substr(s, n + 1) : s
			}
			function value(v) {
				return (v < 1000 ? sprintf("%.1f", v) : commas(sprintf("%.0f", v))) " " unit
			}
			BEGIN { printf "  %-30s %16s %16s %6.2fx %9.1f %%\n", text, value(p), value(a),
				a / p, total ? 100 * redir / total : 0 }'
	done
}

# look - a live connection, by ismredir and by bpftool
look()
{
	local pid

	load
	(enter timeout --foreground 60 redis-benchmark -p "$REDIS_PORT" -q -c 2 -n 100000000 -d 1024 -t get) >/dev/null 2>&1 &
	pid=$!
	disown
	within 10 both_ends "$REDIS_PORT" || fail "no live connection to show"
	title "While redis-benchmark -c 2 is running"
	shown ismredir conns
	page ism conns
	title "One of them, as bpftool sees it"
	shown bpftool map dump pinned /sys/fs/bpf/ismredir/conns
	bpftool map dump pinned /sys/fs/bpf/ismredir/conns >"$DIR/dump" || fail "bpftool: exit $?"
	page first_record "$DIR/dump"
	title "Away with it, in the middle of the traffic"
	shown ismredir unload
	unload
	page cat "$DIR/unload"
	sleep 0.5
	gone "$pid" && fail "redis-benchmark did not survive unload"
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
