# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# A box to run unmodified programs in: a cgroup, a network namespace and a scratch directory, with
# everything started in it killed by pid, and everything made for it removed, when it closes.

APPS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ISMREDIR=${ISMREDIR:-$(cd "$APPS/../.." && pwd)/build/ismredir}
# Debian keeps daemons and PostgreSQL's programs off the users' PATH.
PATH=$PATH:/usr/sbin:/sbin
for bin in /usr/lib/postgresql/*/bin; do
	PATH=$bin:$PATH
done

# The box that is open now.
BOX=  # its name, empty when none is open
CG=   # absolute path of its cgroup
DIR=  # its scratch directory; logs of its programs are DIR/NAME.log

# cgroup_root - where cgroup v2 is mounted
cgroup_root()
{
	awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "cgroup2") { print $5; exit } }' \
		/proc/self/mountinfo
}

# have COMMAND... - true when all of them are installed; MISSING names the first that is not
# shellcheck disable=SC2034 # MISSING is for the caller
have()
{
	local command

	for command; do
		MISSING=$command
		command -v "$command" >/dev/null || return 1
	done
	MISSING=
}

# within SECONDS COMMAND... - repeat the command until it succeeds, at most so long
within()
{
	local end=$((SECONDS + $1))

	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.1
	done
}

# ism ARGS... - the ismredir under test; it must not hang its caller, and Ctrl-C lets it finish
ism()
{
	timeout -k 5 60 "$ISMREDIR" "$@"
}

# box_open NAME DIR - make the box; DIR must exist and is left to the caller
box_open()
{
	local root

	root=$(cgroup_root)
	[ -n "$root" ] || { echo "no cgroup v2 is mounted" >&2; return 1; }
	DIR=$2
	CG=$root/$1
	BOX=$1
	mkdir "$CG" && ip netns add "$BOX" && ip -n "$BOX" link set lo up
}

# box_pids - who lives in the box
box_pids()
{
	cat "$CG/cgroup.procs" 2>/dev/null
}

box_empty()
{
	[ -z "$(box_pids)" ]
}

# box_kill SIGNAL - signal everyone in the box, each by pid
box_kill()
{
	local pid

	for pid in $(box_pids); do
		kill -s "$1" "$pid" 2>/dev/null
	done
	return 0
}

# box_close - end what runs in the box and remove it; harmless when none is open
box_close()
{
	[ -n "$BOX" ] || return 0
	box_kill TERM
	within 3 box_empty || within 5 box_die
	within 3 rmdir "$CG" 2>/dev/null || echo "cannot remove $CG" >&2
	ip netns del "$BOX" 2>/dev/null
	BOX=
}

box_die()
{
	box_kill KILL
	box_empty
}

# enter COMMAND... - become the command, in the box
# (not by `ip netns exec`: that hides /sys/fs/bpf and /sys/fs/cgroup)
enter()
{
	echo 0 >"$CG/cgroup.procs" || exit 126
	exec nsenter --net="/run/netns/$BOX" -- "$@"
}

# inbox COMMAND... - run a client in the box, at most LIMIT seconds; Ctrl-C reaches it
inbox()
{
	(enter timeout --foreground -k 2 "${LIMIT:-60}" "$@")
}

# spawn NAME COMMAND... - start a daemon in the box; its pid is in PID, its output in DIR/NAME.log
spawn()
{
	local name=$1

	shift
	(enter "$@") </dev/null >>"$DIR/$name.log" 2>&1 &
	PID=$!
	disown "$PID"
}

gone()
{
	! kill -0 "$1" 2>/dev/null
}

# listening PORT - true when someone in the box accepts connections there
listening()
{
	[ -n "$(nsenter --net="/run/netns/$BOX" ss -Hltn "sport = :$1" 2>/dev/null)" ]
}

# serve NAME PORT COMMAND... - spawn a daemon and wait until it listens
serve()
{
	local name=$1 port=$2

	shift 2
	spawn "$name" "$@"
	within 20 listening_or_gone "$port" "$PID"
	listening "$port" || { echo "$name does not listen on $port" >&2; return 1; }
}

listening_or_gone()
{
	listening "$1" || gone "$2"
}

# json FILTER - one value out of the JSON on stdin, empty when it is not there
json()
{
	jq -r "($1) // empty"
}

# sent - "REDIRECTED TCP": bytes that all connections of this load sent, ended or live
sent()
{
	{ ism -j status && ism -j conns; } | jq -rs '
		[.[0].stats.redir_bytes + ([.[1].conns[].redir_bytes] | add // 0),
		 .[0].stats.tcp_bytes + ([.[1].conns[].tcp_bytes] | add // 0)] | join(" ")'
}

# both_ends PORT - conns shows both ends of a connection there, with bytes redirected
both_ends()
{
	[ "$(ism -j conns port "$1" | jq '[.conns[]
		| select(.state == "ESTABLISHED" and .plane == "skmsg" and .redir_bytes > 0) | .role]
		| unique | length')" = 2 ]
}

# no_conns - no record of a connection is left
no_conns()
{
	[ "$(ism -j conns | jq '.conns | length')" = 0 ]
}
