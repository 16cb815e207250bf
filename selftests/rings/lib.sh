# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2153 # used by whoever sources this; DIR comes from apps/lib.sh
#
# A box (apps/lib.sh) whose programs are started by `ismredir run`, and its ismredird.

DAEMON=${ISMREDIRD:-$(dirname "$ISMREDIR")/ismredird}
STATIC=$(dirname "$ISMREDIR")/rings/static_echo # a client without a dynamic loader
DAEMON_PID= # of the box's ismredird, empty when none was started
# What servers (spawn, serve) and clients (inbox) are started by: nothing, or the next array.
SERVER_BY=()
CLIENT_BY=()
UNDER_RUN=("$ISMREDIR" run)

# inbox COMMAND... - run a client in the box, at most LIMIT seconds
inbox()
{
	(enter timeout --foreground -k 2 "${LIMIT:-60}" "${CLIENT_BY[@]}" "$@")
}

# spawn NAME COMMAND... - start a server in the box; its pid is in PID, its output in DIR/NAME.log
spawn()
{
	local name=$1

	shift
	(enter "${SERVER_BY[@]}" "$@") </dev/null >>"$DIR/$name.log" 2>&1 &
	PID=$!
	disown "$PID"
}

# start NAME COMMAND... - start a client in the box that goes on meanwhile, as spawn; wait can get its status
start()
{
	local name=$1

	shift
	(enter "${CLIENT_BY[@]}" "$@") </dev/null >>"$DIR/$name.log" 2>&1 &
	PID=$!
}

# ended PID WHAT - wait for what start() started, at most LIMIT seconds; its status must be 0
ended()
{
	within "${LIMIT:-60}" gone "$1" || die "$2 hangs"
	wait "$1" || die "$2: exit $?"
}

# start_daemon [ARGS...]
start_daemon()
{
	local SERVER_BY=()

	rm -f "$ISMREDIR_SOCK"
	spawn ismredird "$DAEMON" --pool 4 "$@"
	DAEMON_PID=$PID
	within 10 daemon_answers || die "ismredird does not start: $(tail -n 2 "$DIR/ismredird.log")"
}

daemon_answers()
{
	[ -S "$ISMREDIR_SOCK" ] && ism dmbs >/dev/null 2>&1
}

# stop_daemon - as systemd does; it must end well
stop_daemon()
{
	kill -TERM "$DAEMON_PID" 2>/dev/null || die "ismredird is gone: $(tail -n 3 "$DIR/ismredird.log")"
	within 5 gone "$DAEMON_PID" || die "ismredird does not stop"
	DAEMON_PID=
}

# kill_daemon [SIGNAL] - and it dies of that; KILL when none is named
kill_daemon()
{
	kill -s "${1:-KILL}" "$DAEMON_PID"
	within 5 gone "$DAEMON_PID" || die "ismredird does not die of SIG${1:-KILL}"
}

# counter NAME - of ismredird
counter()
{
	ism -j status | json ".daemon.$1"
}

# box_others - pids of the box but the daemon's, and its guard's, which ends with it
box_others()
{
	box_pids | grep -vxF "${DAEMON_PID:-0}
$(pgrep -P "${DAEMON_PID:-0}")"
}

no_others()
{
	[ -z "$(box_others)" ]
}

# stop_programs - end all programs of the box by SIGTERM, as a service manager does; none may stay
stop_programs()
{
	local pid

	for pid in $(box_others); do
		kill -TERM "$pid" 2>/dev/null
	done
	within 8 no_others || die "does not end by SIGTERM: $(ps -o args= -p "$(box_others | head -n 1)")"
}

# direct_ends PORT - how many ends of connections there are on rings in both directions
direct_ends()
{
	ism -j conns port "$1" | jq '[.conns[] | select(.plane == "direct" and .ring_msgs > 0)] | length'
}

# on_rings PORT [ENDS] - true when a connection there has both ends on rings
on_rings()
{
	[ "$(direct_ends "$1")" -ge "${2:-2}" ]
}

# crashed - prints what the logs of the box's programs say of a crash
crashed()
{
	grep -hE 'signal (4|6|7|8|11)\b|Segmentation fault|crashed by signal|Assertion .* failed|core dumped' \
		"$DIR"/*.log
}

# all_detached - no DMB is left
all_detached()
{
	[ "$(ism -j dmbs | jq '.dmbs | length')" = 0 ]
}

# exchanged LOG LOG - each got what the other sent, to the end
exchanged()
{
	local a b

	a=$(sed -n 's/^exact \([0-9]*\) bytes, sent \([0-9]*\), end eof$/\1 \2/p' "$1")
	b=$(sed -n 's/^exact \([0-9]*\) bytes, sent \([0-9]*\), end eof$/\2 \1/p' "$2")
	[ -n "$a" ] && [ "$a" = "$b" ]
}
