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

# Nothing of it is left behind by unload: the kernel answers as it always did.
test_direct_not_loaded()
{
	needs_plane
	load
	unload
	in_ns python3 - <<-'END' || fail "a kernel without a load says something else"
	import errno, socket
	s = socket.socket()
	try:
	    s.setsockopt(0x49534d52, 1, 1)
	except OSError as e:
	    assert e.errno == errno.ENOPROTOOPT, e
	else:
	    raise SystemExit("set")
	try:
	    s.getsockopt(0x49534d52, 2, 64)
	except OSError as e:
	    assert e.errno == errno.EOPNOTSUPP, e
	else:
	    raise SystemExit("got")
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
