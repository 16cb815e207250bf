# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# The kernel's part of the direct plane: what a program tells and asks of its own sockets. Rings come
# with programs started by `ismredir run`; here nobody attaches any.

# direct_case NAME HOOK-WORDS [LOAD-ARGS...] - a case that makes no sense on plain TCP
direct_case()
{
	local name=$1 check=()

	needs_plane
	[ "$2" = - ] || check=(--check "$HOOK $2")
	load "${@:3}"
	in_ns "$B/netns/cases" --cgroup "$CG" "${check[@]}" "$name" || fail "case $name: status $?"
	unload
}

test_direct_seqs()
{
	direct_case direct_seqs -
}

test_direct_report()
{
	direct_case direct_report "direct ends=2"
}

test_direct_client_only()
{
	direct_case direct_client_only "accel both ends=2"
}

test_direct_server_only()
{
	direct_case direct_server_only "accel both ends=2"
}

test_direct_process()
{
	direct_case direct_process -
}

# late_case CASE HOOK-WORDS - both ends are shown before the record of the second is made, and after;
# nothing stays in the table
late_case()
{
	needs_plane
	load
	in_ns "$B/netns/cases" --cgroup "$CG" --check "$HOOK $2" "$1" || fail "case $1: status $?"
	within 5 no_conns || fail "records stay: $(ism conns)"
	unload
}

test_direct_late()
{
	late_case direct_late "tcp ends=2 reason=direct_wait sum=5077"
	late_case direct_saved_syn ""
}

# The two views of a connection, without what is not the same at each look.
test_direct_families()
{
	local n

	cat >"$DIR/see" <<-'END'
	#!/bin/bash
	n=$(cat "$DIR/n" 2>/dev/null || echo 0)
	echo $((n + 1)) >"$DIR/n"
	"$ISMREDIR" -j conns | jq -S '.conns | sort_by(.token)' | grep -v age >"$DIR/see.$n"
	END
	chmod 755 "$DIR/see"
	needs_plane
	load
	in_ns "$B/netns/cases" --cgroup "$CG" --check "$DIR/see" direct_families
	unload
	for n in 0 2; do
		[ "$(jq length "$DIR/see.$n")" = 2 ] || fail "ends: $(cat "$DIR/see.$n")"
		diff "$DIR/see.$n" "$DIR/see.$((n + 1))" || fail "views"
	done
	[ "$(jq -r 'map(.family) | unique | join(" ")' "$DIR/see.0" "$DIR/see.2" | xargs)" = "inet inet6" ] ||
		fail "families: $(cat "$DIR/see.0" "$DIR/see.2")"
}

test_direct_listener()
{
	direct_case direct_listener -
}

test_direct_bad_requests()
{
	direct_case direct_bad -
}

test_direct_policy()
{
	direct_case direct_or_nothing "tcp pinned=not_direct ends=2" --plane direct
	direct_case direct_or_nothing "tcp pinned=not_direct ends=2" --default direct
	# A rule for another port does not matter; the best plane that both can is the default.
	direct_case direct_server_only "accel ends=2" --plane direct --port 1-2 --default skmsg
}

test_direct_tfo()
{
	needs_plane
	ns_sysctl net.ipv4.tcp_fastopen=3
	direct_case direct_tfo -
}

# Counted by what the programs can and by what they did.
test_direct_counters()
{
	needs_plane
	load
	in_ns "$B/netns/cases" --cgroup "$CG" direct_report
	in_ns "$B/netns/cases" --cgroup "$CG" direct_seqs
	[ "$(status '[.stats.direct_pairs, .stats.direct, .stats.pairs, .connections.ever] | join(" ")')" \
		= "2 1 0 1" ] || fail "counters: $(status '.stats | tostring')"
	expect_reason exec
	within 5 no_conns || fail "records stay: $(ism conns)"
	unload
}

# A listener from before load, and what is left of its capabilities after replace, unload and load.
test_direct_reload()
{
	needs_plane
	cat >"$DIR/next" <<-'END'
	#!/bin/bash
	n=$(cat "$DIR/n" 2>/dev/null || echo 0)
	echo $((n + 1)) >"$DIR/n"
	case $n in
	0) "$ISMREDIR" load --cgroup "$CG" --skip-tests ;;
	1) "$ISMREDIR" load --cgroup "$CG" --skip-tests --replace ;;
	*) "$ISMREDIR" unload && "$ISMREDIR" load --cgroup "$CG" --skip-tests ;;
	esac
	END
	chmod 755 "$DIR/next"
	in_ns "$B/netns/cases" --cgroup "$CG" --check "$DIR/next" direct_reload ||
		fail "direct_reload: status $?"
	[ "$(cat "$DIR/n")" = 3 ] || fail "the loads did not happen"
	unload
}

# Replaced, the programs find the records of connections that are older, and take them away at the end.
test_direct_outlives()
{
	needs_plane
	load
	cat >"$DIR/next" <<-'END'
	#!/bin/bash
	exec "$ISMREDIR" load --cgroup "$CG" --skip-tests --replace
	END
	chmod 755 "$DIR/next"
	in_ns "$B/netns/cases" --cgroup "$CG" --check "$DIR/next" direct_outlives ||
		fail "direct_outlives: status $?"
	within 5 no_conns || fail "records stay: $(ism conns)"
	unload
}

# hooked - is there a hook on setsockopt()?
hooked()
{
	compgen -G "$ISMREDIR_PIN_DIR/link_sockopt_*" >/dev/null
}

# It is there for the plane skmsg only, and while a connection may be left from a load with that.
test_direct_hooks()
{
	needs_plane
	load --plane direct
	! hooked || fail "a hook on setsockopt() for rings alone"
	in_ns "$B/netns/cases" --cgroup "$CG" direct_seqs || fail "case direct_seqs: status $?"
	load --replace --plane direct --port 1-2 --default skmsg
	hooked || fail "no hook on setsockopt() with a rule for skmsg"
	load --replace --plane direct
	hooked || fail "a replace took the hook from connections that it had"
	unload
}

# Nothing of it is left behind by unload: the kernel answers as it always did.
test_direct_not_loaded()
{
	needs_plane
	load
	unload
	in_ns python3 - <<-'END' || fail "a kernel without a load says something else"
	import errno, socket
	s = socket.socket()
	for number in (1 | 1 << 8, 2):
	    try:
	        s.getsockopt(0x49534d52, number, 64)
	    except OSError as e:
	        assert e.errno == errno.EOPNOTSUPP, e
	    else:
	        raise SystemExit(f"option {number} was answered")
	END
}

# Every other getsockopt() gives what it gives without a load, to the byte.
test_direct_getsockopts()
{
	needs_plane
	in_ns "$B/netns/cases" --cgroup "$CG" getsockopts >"$DIR/plain"
	load
	in_ns "$B/netns/cases" --cgroup "$CG" getsockopts >"$DIR/loaded"
	unload
	[ "$(wc -l <"$DIR/plain")" -gt 300 ] || fail "too few lines"
	diff "$DIR/plain" "$DIR/loaded" || fail "getsockopt() changes under a load"
}

# start_daemon - ismredird of the box; sets DAEMON_PID
start_daemon()
{
	export ISMREDIR_SOCK=$DIR/control.sock
	[ -x "$B/ismredird" ] || skip "ismredird is not built"
	spawn ismredird "$B/ismredird" --socket "$ISMREDIR_SOCK" --ring-size 64k
	DAEMON_PID=$PID
	within 10 test -S "$ISMREDIR_SOCK" || fail "ismredird: $(cat "$DIR/ismredird.log")"
}

# What the daemon knows of rings, beside what the kernel knows of the connection.
test_direct_conns()
{
	needs_plane
	load
	start_daemon
	cat >"$DIR/look" <<-'END'
	#!/bin/bash
	set -e
	"$ISMREDIR" conns >"$DIR/text"
	"$ISMREDIR" -j conns plane direct >"$DIR/conns"
	"$ISMREDIR" -j dmbs >"$DIR/dmbs"
	"$ISMREDIR" -j status >"$DIR/status"
	"$ISMREDIR" status >>"$DIR/text"
	END
	chmod 755 "$DIR/look"
	# shellcheck disable=SC2016 # the inner shell expands it
	in_ns bash -c 'echo $$ >"$1/cgroup.procs" && exec "${@:2}"' - "$CG" \
		"$HERE/attach.py" "$ISMREDIR_SOCK" "$DIR/look" || fail "attach: $(cat "$DIR/ismredird.log")"
	jq -e '.conns | length == 2 and all(.plane == "direct" and .ring_size == 65536 and
		.ring_fill == 0 and .spins == 11 and .sleeps == 12 and .doorbells == 9 and
		.switches == 4 and .reason == "none" and .redir_bytes == 0) and
		(map([.ring_bytes, .ring_msgs]) | sort) == [[5000, 50], [5001, 51]]' "$DIR/conns" ||
		fail "conns: $(cat "$DIR/conns")"
	grep -Eq '^ESTABLISHED .* direct +4.9K +0 +0 +4 none ' "$DIR/text" || fail "$(cat "$DIR/text")"
	[ "$(jq -r '[.dmbs[].token] | sort | join(" ")' "$DIR/dmbs")" = \
		"$(jq -r '[.conns[].token] | sort | join(" ")' "$DIR/conns")" ] ||
		fail "dmbs: $(cat "$DIR/dmbs")"
	jq -e '.planes.direct == "on" and .connections.direct == 2 and .daemon.pairs == 1' \
		"$DIR/status" || fail "status: $(cat "$DIR/status")"
	grep -q '^plane direct: on, ismredird is process' "$DIR/text" || fail "$(cat "$DIR/text")"
	expect_reason detached
	kill -TERM "$DAEMON_PID"
	reap "$DAEMON_PID" 0 ismredird
	[ "$(status '.daemon')" = null ] || fail "a daemon that is gone"
	[ "$(status '.planes.direct')" = no_daemon ] || fail "the plane without a daemon"
	unload
}
