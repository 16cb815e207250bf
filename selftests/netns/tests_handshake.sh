# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# The TCP option: who offers, who answers, what else happens to it on the way, and between whom.

# ---------------------------------------------------------------- between namespaces

test_two_namespaces()
{
	local a=$NS b

	b=$(another_ns b)
	veth "$a" 10.9.0.1 "$b" 10.9.0.2
	load
	for _ in 1 2; do
		talk "accel both" --listen 10.9.0.2 --connect 10.9.0.2 \
			--side server --netns "/run/netns/$b" --side client --netns "/run/netns/$a"
	done
	accel_pair "moved sum=8388608" --listen 10.9.0.1 --connect 10.9.0.1 --io et \
		--side server --netns "/run/netns/$a" --side client --netns "/run/netns/$b"
	unload
}

test_two_cgroups()
{
	mkdir "$CG/a" "$CG/b" "$CG/a/deep"
	load --cgroup "$CG/a" --cgroup "$CG/b"
	talk "accel both" --side server --cgroup "$CG/a" --side client --cgroup "$CG/b"
	talk "accel both" --side server --cgroup "$CG/b" --side client --cgroup "$CG/a/deep"
	accel_pair "none" --cgroup "$CG"
	unload
}

four_ends()
{
	[ "$PLANE" != skmsg ] || [ "$(conns '.conns | length')" = 4 ]
}

# The same addresses and ports in two namespaces at once: two connections, never mixed up.
test_same_tuple()
{
	local pids=() i

	another_ns b >/dev/null
	load
	for i in 1 2; do
		[ $i = 1 ] || NS=$NS.b
		spawn same$i in_ns "$B/netns/traffic" pair --cgroup "$CG" --eagain-ok --seed $i \
			--port 9000 --bind-port 45000 --rounds 3000 --sizes small --pause-tx 5:20 \
			--sockopt nodelay=1
		pids+=("$PID")
	done
	within 5 four_ends
	[ "$PLANE" != skmsg ] || [ "$(conns '[.conns[] | select(.plane == "skmsg")] | length')" = 4 ] ||
		fail "expected four accelerated ends: $(ism conns)"
	reap "${pids[0]}" 0 same1
	reap "${pids[1]}" 0 same2
	unload
}

test_dnat()
{
	ip -n "$NS" addr add 10.6.0.1/24 dev lo
	nft_rules <<-'END'
	table ip nat {
		chain out {
			type nat hook output priority -100;
			ip daddr 10.6.0.77 tcp dport 80 dnat to 10.6.0.1:8080
		}
	}
	END
	ip -n "$NS" route add 10.6.0.77/32 dev lo
	load
	talk "accel both" --listen 10.6.0.1 --port 8080 --connect 10.6.0.77 \
		--connect-port 80
	unload
}

# By iptables, from another namespace.
test_dnat_between()
{
	local a=$NS b

	b=$(another_ns b)
	veth "$a" 10.9.0.1 "$b" 10.9.0.2
	NS=$b in_ns iptables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination \
		10.9.0.2:8080 || skip "iptables cannot do DNAT here"
	load
	talk "accel both" --listen 10.9.0.2 --port 8080 --connect 10.9.0.2 --connect-port 80 \
		--side server --netns "/run/netns/$b" --side client --netns "/run/netns/$a"
	unload
}

# The address is rewritten on both ways: neither end knows the other's real one.
test_snat()
{
	local a=$NS b

	b=$(another_ns b)
	veth "$a" 10.9.0.1 "$b" 10.9.0.2
	NS=$b in_ns nft -f - <<-'END' || skip "nft cannot do this here"
	table ip nat {
		chain in {
			type nat hook input priority 100;
			tcp dport 8080 snat to 10.9.0.99:30000-40000
		}
	}
	END
	load
	talk "accel both" --listen 10.9.0.2 --port 8080 --connect 10.9.0.2 \
		--side server --netns "/run/netns/$b" --side client --netns "/run/netns/$a"
	unload
}

# ---------------------------------------------------------------- only one end is in

test_server_outside()
{
	needs_plane
	load
	accel_pair "ends=1 tcp reason=no_answer" --side server --cgroup "$OUT"
	expect_reason no_answer
	unload
}

test_client_outside()
{
	needs_plane
	load
	accel_pair "none" --side client --cgroup "$OUT"
	expect_reason no_offer
	unload
}

test_peer_outside_namespace()
{
	local a=$NS b

	needs_plane
	b=$(another_ns b)
	veth "$a" 10.9.0.1 "$b" 10.9.0.2
	load
	accel_pair "tcp reason=no_answer" --listen 10.9.0.2 --connect 10.9.0.2 \
		--side server --cgroup "$OUT" --netns "/run/netns/$b" \
		--side client --netns "/run/netns/$a"
	unload
}

# Sockets of other cgroups: no option, no record, no change.
test_others_untouched()
{
	needs_plane
	syn_counter
	load
	accel_pair "none" --cgroup "$OUT"
	[ "$(syns_seen)" = 0 ] || fail "an option on the SYN of another cgroup"
	pair
	[ "$(syns_seen)" = 1 ] || fail "no option on the SYN of the loaded cgroup"
	unload
	pair
	[ "$(syns_seen)" = 1 ] || fail "an option after unload"
}

# ---------------------------------------------------------------- existing listeners and connections

test_listener_before_load()
{
	start_server early --cgroup "$CG" "${TALK[@]}" --eagain-ok
	load
	in_ns "$B/netns/traffic" client --cgroup "$CG" --port "$PORT" --eagain-ok "${TALK[@]}" \
		--on-verified "$HOOK accel both"
	reap "$PID" 0 early
	unload
}

test_listener_before_load_elsewhere()
{
	local b

	b=$(another_ns b)
	veth "$NS" 10.9.0.1 "$b" 10.9.0.2
	NS=$b start_server early --cgroup "$CG" --listen 10.9.0.2 --eagain-ok "${TALK[@]}"
	NS=$b start_server early6 --cgroup "$CG" --listen :: --eagain-ok "${TALK[@]}"
	load
	NS=$b in_ns "$B/netns/traffic" client --cgroup "$CG" --port "$PORT" --connect ::1 \
		"${TALK[@]}" --eagain-ok --on-verified "$HOOK accel both"
	reap "$PID" 0 early6
	in_ns "$B/netns/traffic" client --cgroup "$CG" --connect 10.9.0.2 --eagain-ok "${TALK[@]}" \
		--port "$(awk '/^port/ { print $2 }' "$DIR/early.log")" --on-verified "$HOOK accel both"
	unload
	wait
}

# Listeners that were there before, in a cgroup that is not selected.
test_listener_of_others()
{
	needs_plane
	start_server early --cgroup "$OUT"
	load
	[ "$(ism -j conns -l | jq '.listeners | length')" = 0 ] ||
		fail "a listener of another cgroup is armed: $(ism conns -l)"
	in_ns "$B/netns/traffic" client --cgroup "$CG" --port "$PORT" --on-verified "$HOOK tcp"
	reap "$PID" 0 early
	unload
}

# Two listeners on one port: the end of one leaves the other armed.
test_listeners_share_port()
{
	local first

	needs_plane
	load
	start_server one --cgroup "$CG" --listen 127.0.0.5 --port 9000 --timeout 60
	first=$PID
	start_server two --cgroup "$CG" --listen 127.0.0.6 --port 9000 --eagain-ok "${TALK[@]}"
	kill -TERM "$first"
	wait "$first" || true
	in_ns "$B/netns/traffic" client --cgroup "$CG" --connect 127.0.0.6 --port 9000 --eagain-ok \
		"${TALK[@]}" --on-verified "$HOOK accel both"
	reap "$PID" 0 two
	within 5 no_listeners || fail "ended listeners are listed: $(ism conns -l)"
	unload
}

no_listeners()
{
	[ "$(ism -j conns -l | jq '.listeners | length')" = 0 ]
}

test_established_before_load()
{
	needs_plane
	pair --on-connected "$ISMREDIR load --cgroup $CG --skip-tests" --on-verified "$HOOK none"
	[ "$(status .connections.ever)" = 0 ] || fail "an old connection was touched"
	talk "accel both"
	unload
}

# Unload and load again while a server goes on listening.
test_listener_survives_reload()
{
	local i

	needs_plane
	start_server loyal --cgroup "$CG" --repeat --eagain-ok "${TALK[@]}"
	for i in 1 2 3; do
		load
		in_ns timeout 20 "$B/netns/traffic" client --cgroup "$CG" --port "$PORT" "${TALK[@]}" \
			--eagain-ok --repeat --on-verified "$HOOK accel both" >"$DIR/client.log" 2>&1 ||
			fail "load $i: $(cat "$DIR/client.log")"
		unload
	done
	kill -TERM "$PID"
	wait "$PID" || true
}

# ---------------------------------------------------------------- things that happen to options

test_syn_cookies()
{
	needs_plane
	ns_sysctl net.ipv4.tcp_syncookies=2
	load
	accel_pair "tcp" --sizes log
	expect_reason syn_cookie
	[ "$(status .stats.answers)" = 0 ] || fail "a SYN cookie was answered"
	unload
}

# The first SYN is lost, whatever it carries.
test_first_syn_lost()
{
	nft_rules <<-'END'
	table inet lose {
		set seen { type inet_service; flags dynamic; timeout 60s; }
		chain in {
			type filter hook input priority 0;
			tcp flags & (syn | ack) == syn tcp sport != @seen add @seen { tcp sport } drop
		}
	}
	END
	load
	accel_pair "tcp" --bytes 500000
	[ "$PLANE" != skmsg ] || expect_reason syn_retrans
	unload
}

# A middlebox drops every SYN with an option that it does not know.
test_option_syn_dropped()
{
	syn_counter
	nft_rules <<-'END'
	table inet lose {
		chain in {
			type filter hook input priority 0;
			tcp flags & (syn | ack) == syn tcp option 254 exists drop
		}
	}
	END
	load
	accel_pair "tcp" --bytes 500000
	[ "$PLANE" != skmsg ] || [ "$(syns_seen)" = 1 ] || fail "a retransmitted SYN has the option"
	unload
}

test_option_stripped()
{
	needs_plane
	in_ns iptables -t mangle -A INPUT -p tcp -j TCPOPTSTRIP --strip-options 254 ||
		skip "no TCPOPTSTRIP here"
	load
	accel_pair "tcp" --bytes 500000
	expect_reason no_answer
	unload
}

# Only the answer is lost: the server believes, the client does not. Nothing may be redirected.
test_answer_stripped()
{
	needs_plane
	in_ns iptables -t mangle -A INPUT -p tcp --tcp-flags SYN,ACK SYN,ACK -j TCPOPTSTRIP \
		--strip-options 254 || skip "no TCPOPTSTRIP here"
	load
	accel_pair "tcp" --sizes log
	expect_reason no_answer
	[ "$(status .stats.redir_bytes)" = 0 ] || fail "a half-known pair redirected"
	unload
}

# with_optprog MODE CGROUP HOOK-WORDS [ARGS...] - a pair beside another program; it must have acted
with_optprog()
{
	local mode=$1 cgroup=$2 words=$3

	shift 3
	start_optprog "$mode" "$cgroup"
	accel_pair "$words" "$@"
	stop_optprog
	[ "$OPT_DONE" -gt 0 ] || fail "optprog $mode did nothing"
}

test_echo()
{
	needs_plane
	load
	with_optprog echo "$OUT" "tcp ends=1 reason=echo" --side server --cgroup "$OUT"
	expect_reason echo
	unload
}

test_bad_answers()
{
	local kind

	needs_plane
	load --set negative-ttl=0
	for kind in version zero short long; do
		with_optprog answer-$kind "$OUT" "tcp ends=1 reason=bad_option" \
			--side server --cgroup "$OUT"
	done
	expect_reason bad_option
	unload
}

# A well-formed answer whose token nobody has: it names no record of ours.
test_forged_answer()
{
	needs_plane
	load
	with_optprog answer-token "$OUT" "tcp ends=1" --side server --cgroup "$OUT" --sizes log
	[ "$(status .stats.redir_bytes)" = 0 ] || fail "redirected to a forged token"
	unload
}

test_bad_offers()
{
	local kind

	needs_plane
	load
	for kind in version role short token; do
		with_optprog offer-$kind "$OUT" "none" --side client --cgroup "$OUT"
	done
	[ "$(status .stats.answers)" = 0 ] || fail "a bad offer was answered"
	expect_reason bad_option
	expect_reason unknown_token
	unload
}

# No room on the SYN, then none on the SYN-ACK: others were there first.
test_no_room()
{
	needs_plane
	mkdir "$CG/inner"
	load
	with_optprog fill-syn "$CG/inner" "tcp" --cgroup "$CG/inner"
	expect_reason no_room
	unload
	load
	with_optprog fill-synack "$CG/inner" "tcp" --cgroup "$CG/inner"
	expect_reason no_room
	unload
}

# The kernel's SMC option is seen and shown, and goes together with ours where there is room.
test_smc_capable()
{
	needs_plane
	load
	with_optprog smc "$OUT" "tcp ends=1 reason=no_answer" --side server --cgroup "$OUT" \
		--listen 127.0.0.3 --connect 127.0.0.3
	ism -j peers | jq -e '.peers | any(.address == "127.0.0.3" and .smc)' >/dev/null ||
		fail "the SMC server is not shown: $(ism -j peers)"
	with_optprog smc "$OUT" "none" --side client --cgroup "$OUT"
	ism -j peers | jq -e '.peers | any(.address == "127.0.0.1" and .smc)' >/dev/null ||
		fail "the SMC client is not shown: $(ism -j peers)"
	unload
}

test_smc_beside()
{
	needs_plane
	mkdir "$CG/inner"
	ns_sysctl net.ipv4.tcp_timestamps=0
	load
	with_optprog smc "$CG/inner" "accel both" "${TALK[@]}" --cgroup "$CG/inner"
	unload
}

# A sockmap with a program of its own holds the sockets already: ours must stay away.
test_foreign_sockmap()
{
	needs_plane
	mkdir "$CG/inner"
	load
	with_optprog foreign "$CG/inner" "tcp" --cgroup "$CG/inner" --sizes log
	expect_reason foreign_sockmap
	unload
}

# Only one end is held; and then the other tool comes later than ours, and gets nothing.
test_foreign_sockmap_half()
{
	needs_plane
	mkdir "$CG/inner"
	load
	with_optprog foreign "$CG/inner" "tcp" --side server --cgroup "$CG/inner"
	with_optprog foreign "$CG/inner" "tcp" --side client --cgroup "$CG/inner"
	unload
	load --cgroup "$CG/inner"
	start_optprog foreign "$CG"
	talk "accel both" --cgroup "$CG/inner"
	stop_optprog
	unload
}

# ---------------------------------------------------------------- who is remembered

test_peers()
{
	needs_plane
	load
	talk "accel both" --listen 127.0.0.4 --connect 127.0.0.4
	ism -j peers | jq -e '.peers | any(.address == "127.0.0.4" and .ismredir)' >/dev/null ||
		fail "the peer is not shown: $(ism -j peers)"
	unload
}

test_negative_cache()
{
	needs_plane
	syn_counter
	load
	pair --side server --cgroup "$OUT" --side both --port 7100
	[ "$(syns_seen)" = 1 ] || fail "$(syns_seen) offers, expected 1"
	accel_pair "none" --side server --cgroup "$OUT" --side both --port 7100
	[ "$(syns_seen)" = 1 ] || fail "offered again to who did not answer"
	expect_reason negative
	pair --side server --cgroup "$OUT" --side both --port 7101
	[ "$(syns_seen)" = 2 ] || fail "another port is another destination"
	# A listener that is armed now makes the old entries void.
	talk "accel both" --port 7100
	[ "$(syns_seen)" = 3 ] || fail "not asked again after a new listener"
	unload
}

# neg_entries - "ADDRESS PORT REASON LEFT" of each entry, ADDRESS byte by byte; LEFT: seconds that it holds
neg_entries()
{
	bpftool -j map dump pinned "$ISMREDIR_PIN_DIR/negative" |
		jq -r --argjson now "$(awk '{ print int($1) }' /proc/uptime)" '.[].formatted.value |
			select(.until_ns > 0) | "\(.addr | map(tostring) | join(".")) \(.port) \(.reason) \(
			.until_ns / 1000000000 - $now | floor)"' | sort
}

# One entry for each destination, whatever its address is, that is used again.
test_negative_cache_entries()
{
	local at n four=0.0.0.0.0.0.0.0.0.0.255.255.127.0.0.1 six=0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1

	needs_plane
	load --set negative-ttl=1000
	for _ in 1 2; do
		for at in $(seq 7200 7219); do
			pair --side server --cgroup "$OUT" --side both --port "$at"
		done
		load --replace --set negative-ttl=1000 # makes all of them void
	done
	pair --listen ::1 --connect ::1 --side server --cgroup "$OUT" --side both --port 7200
	neg_entries >"$DIR/entries"
	n=$(grep -c "^$four 72[01][0-9] " "$DIR/entries")
	# 20 in 2048 sets of two: where three meet in one, two of them stay
	((n >= 18 && n <= 20)) || fail "$n entries: $(cat "$DIR/entries")"
	[ "$(sort "$DIR/entries" | awk '{ print $1, $2 }' | uniq -d)" = "" ] || fail "twice: $(cat "$DIR/entries")"
	grep -q "^$six 7200 " "$DIR/entries" || fail "IPv6 is not there: $(cat "$DIR/entries")"
	awk '$3 != 258 || $4 < 900 || $4 > 1000 { exit 1 }' "$DIR/entries" || # no_answer
		fail "reasons or times: $(cat "$DIR/entries")"
	unload
}

test_negative_cache_expires()
{
	needs_plane
	syn_counter
	load --set negative-ttl=1
	pair --side server --cgroup "$OUT" --side both --port 7100
	sleep 1.3
	pair --side server --cgroup "$OUT" --side both --port 7100
	[ "$(syns_seen)" = 2 ] || fail "$(syns_seen) offers, expected 2"
	unload
}
