# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# The single cases: each of `cases`, with what `conns` must show while it is live ("-": nothing).

# run_case NAME HOOK-WORDS
run_case()
{
	local rc=0 check=()

	[ "$2" = - ] || check=(--check "$HOOK $2")
	load
	in_ns "$B/netns/cases" --cgroup "$CG" "${check[@]}" "$1" || rc=$?
	[ $rc != 4 ] || skip "the kernel lacks it"
	[ $rc = 0 ] || fail "case $1: status $rc"
	unload
}

# What no kernel gives for redirected bytes; noticed when it changes.
known_gap()
{
	local rc=0

	[ "$PLANE" = skmsg ] || { run_case "$1" -; return; }
	load
	in_ns "$B/netns/cases" --cgroup "$CG" "$1" || rc=$?
	unload
	[ $rc = 0 ] || skip "$2"
}

kernel_counts_tcp_queue()
{
	[ "$PLANE" = tcp ] ||
		[ "$(ism -j check | jq -r '.tests[] | select(.name == "fionread_tcp").result')" = pass ]
}

test_case_blocked()
{
	run_case blocked -
}

test_case_blocked_cold()
{
	run_case blocked_cold -
}

test_case_blocked_small()
{
	run_case blocked_small -
}

test_case_blocked_set()
{
	run_case blocked_set switches
}

test_case_blocked_set_late()
{
	run_case blocked_set_late switches
}

test_case_blocked_large()
{
	run_case blocked_large -
}

test_case_tiny()
{
	run_case tiny -
}

test_case_order()
{
	run_case order ends=2
}


test_case_oob()
{
	run_case oob reason=urgent
}

test_case_oob_inline()
{
	run_case oob_inline reason=urgent
}

test_case_lowat()
{
	run_case lowat reason=rcvlowat
}

test_case_lowat_late()
{
	run_case lowat_late reason=rcvlowat
}

test_case_zerocopy()
{
	run_case zerocopy "pinned=zerocopy"
}

test_case_zerocopy_late()
{
	run_case zerocopy_late reason=zerocopy
}

test_case_pacing()
{
	run_case pacing "pinned=pacing"
}

test_case_ulp()
{
	run_case ulp reason=ulp
}

test_case_timestamp()
{
	run_case timestamp "pinned=timestamp"
}

test_case_timestamping()
{
	run_case timestamping "pinned=timestamp"
}

test_case_inq()
{
	run_case inq "pinned=inq"
}

test_case_peek_off()
{
	run_case peek_off "pinned=peek_off"
}

test_case_filter()
{
	run_case filter "pinned=filter"
}


test_case_waitall()
{
	run_case waitall reason=waitall
}

test_case_waitall_warm()
{
	run_case waitall_warm ends=2
}

test_case_waitall_end()
{
	run_case waitall_end -
}

test_case_splice_cold()
{
	run_case splice_cold reason=splice
}

test_case_splice_warm()
{
	run_case splice_warm ends=2
}

test_case_wakes()
{
	run_case wakes accel
}

test_case_restarted()
{
	known_gap restarted "a signal makes a blocking recv() of a socket in a sockhash return EAGAIN"
}

test_case_wait_after_fin()
{
	run_case wait_after_fin -
}

test_case_wait_while_writing()
{
	known_gap wait_while_writing \
		"room in the send buffer makes a recv() that slept before the first send return EAGAIN"
}

test_case_reconnect_unread()
{
	run_case reconnect_unread -
}

test_case_eof_wakes()
{
	run_case eof_wakes -
}

test_case_interrupted()
{
	known_gap interrupted "a signal makes a blocking recv() return EAGAIN, not EINTR"
}

test_case_edge_events()
{
	run_case edge_events accel
}

test_case_peek()
{
	run_case peek accel
}

test_case_two_writers()
{
	run_case two_writers ends=2
}

test_case_two_readers()
{
	run_case two_readers ends=2
}


test_case_epipe()
{
	run_case epipe accel
}

test_case_rst()
{
	run_case rst -
}

test_case_close_unread()
{
	run_case close_unread -
}

test_case_last_words()
{
	run_case last_words -
}

test_case_linger()
{
	run_case linger -
}

test_case_no_listener()
{
	run_case no_listener accel
}

test_case_self_connect()
{
	run_case self_connect -
}

test_case_reconnect()
{
	run_case reconnect accel
}

test_case_then_listen()
{
	run_case then_listen accel
}

test_case_passed()
{
	run_case passed accel
}


test_case_waitall_part()
{
	known_gap waitall_part "MSG_WAITALL returns early when redirected bytes lie there already"
}

test_case_oob_unread()
{
	known_gap oob_unread "recv(MSG_OOB) takes a byte of the stream while redirected bytes lie unread"
}

test_case_splice_polled()
{
	known_gap splice_polled "splice(2) does not see redirected bytes"
}

test_case_skip()
{
	known_gap skip "recv(NULL, MSG_TRUNC) does not skip redirected bytes"
}

test_case_fionread()
{
	kernel_counts_tcp_queue || skip "this kernel says FIONREAD 0 for sockets in a sockhash"
	run_case fionread accel
}

# The bounds and the order hold as well when a connection never goes to plain TCP for good.
test_flow_restless()
{
	local name

	load_restless
	for name in blocked blocked_cold blocked_small blocked_set blocked_set_late blocked_large \
		tiny order two_writers edge_events peek; do
		in_ns "$B/netns/cases" --cgroup "$CG" $name || fail "case $name: status $?"
	done
	unload
}
