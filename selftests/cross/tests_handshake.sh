# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# What offers and answers say when the partner is of another kernel, and what both records say then.

# view HOST FILTER - of the one connection to PORT there
view()
{
	on "$1" ism -j conns port "$PORT" | json ".conns[0] | $2"
}

# chatter - a connection stays open, some bytes went both ways; TALK_LEFT and TALK_RIGHT are its programs
chatter()
{
	on b
	serve chatter "$PORT" "$PYTHON" "$RINGS/transfer.py" listen "$PORT" 20 epoll || die "no server"
	on a
	rm -f "$DIR/chatter.log"
	start chatter "$PYTHON" "$RINGS/transfer.py" connect "$PORT" 20 blocking
	within 10 grep -q '^flows' "$DIR/chatter.log" || die "no bytes: $(cat "$TOP/$NAME"/?/chatter.log)"
}

hang_up()
{
	for host in a b; do
		on $host stop_programs
	done
	within 5 no_records || die "records stay: $(ends)"
}

no_records()
{
	on a no_conns && on b no_conns
}

# is WHAT GOT WANT
is()
{
	[ "$2" = "$3" ] || die "$1 is '$2', expected '$3': $(ends)"
}

# Without any fabric nobody finds the other's token, and nothing says that it could be elsewhere.
test_no_fabric()
{
	on a load --skip-tests
	on b load --skip-tests
	chatter
	is plane "$(view a .plane)" tcp
	is reason "$(view a .reason)" no_answer
	is remote "$(view a '.remote | tostring')" false
	is "records of b" "$(on b ism -j conns port "$PORT" | jq '.conns | length')" 0
	[[ $(on b reasons) == *unknown_token* ]] || die "b counts $(on b reasons)"
	hang_up
}

test_roles()
{
	both_up
	chatter
	within 10 across || die "no rings: $(ends) $(ism dmbs)"
	for host in a b; do
		is "$host's plane" "$(view $host .plane)" direct
		is "$host is remote" "$(view $host '.remote | tostring')" true
		is "$host's fabric" "$(view $host .fabric)" "$(on $host ctl_tag)"
		is "$host direct" "$(view $host '[.direct, .peer_direct] | join(" ")')" "true true"
	done
	is "a's partner" "$(view a .peer_token)" "$(view b .token)"
	is "b's partner" "$(view b .peer_token)" "$(view a .token)"
	is "tags" "$(on a ctl_tag)" "$(on b ctl_tag)"
	hang_up
	both_down
}

# One side knows of no fabric, or of another one.
test_other_fabric()
{
	both_up
	on b
	stop_daemon
	within 5 not announced || die "b still knows a fabric"
	chatter
	is reason "$(view a .reason)" no_answer
	[[ $(on b reasons) == *other_fabric* ]] || die "b counts $(on b reasons)"
	hang_up
	REGION=$REGION.b
	region_make "$REGION" 256M
	on b daemon_up
	on b within 5 announced || die "b does not know its fabric"
	on a load --replace --skip-tests # forgets who did not answer
	chatter
	is reason "$(view a .reason)" no_answer
	[ "$(on b ism -j status | json '.reasons.other_fabric')" -ge 2 ] || die "b counts $(on b reasons)"
	hang_up
	both_down
}

not()
{
	! "$@"
}

# Neither rings nor a relay at one end: no answer, so that nobody waits for anything.
test_plain_program()
{
	both_up
	SERVER_BY=()
	chatter
	is reason "$(view a .reason)" no_answer
	[[ $(on b reasons) == *no_plane* ]] || die "b counts $(on b reasons)"
	hang_up
	SERVER_BY=("${UNDER_RUN[@]}") CLIENT_BY=()
	on a load --replace --skip-tests
	chatter
	is "a's tag" "$(view a .fabric)" ""
	hang_up
	both_down
}

# A rule of the answering end keeps the connection on TCP; it knows the other end's address only.
test_policy()
{
	both_up
	on b load --replace --skip-tests --plane tcp --peer "$HOST_A/32"
	chatter
	is reason "$(view a .reason)" no_answer
	hang_up
	on b load --replace --skip-tests --plane direct --peer "$HOST_A/32"
	on a load --replace --skip-tests
	chatter
	within 10 across || die "no rings: $(ends)"
	hang_up
	both_down
}

# Through a gateway the default says no, at either end.
test_not_local()
{
	both_up
	on a ip -n "$RUN.$NAME.b" addr add 10.78.0.2/32 dev lo
	ip -n "$RUN.$NAME.a" route add 10.78.0.2/32 via "$HOST_B"
	ISMREDIR_TEST_HOST=10.78.0.2 chatter
	is "records of a" "$(on a ism -j conns port "$PORT" | jq '.conns | length')" 0
	[[ $(on a reasons) == *not_local* ]] || die "a counts $(on a reasons)"
	hang_up
	# only b's way back has a gateway: it answers, and then finds out
	ip -n "$RUN.$NAME.a" addr add 10.79.0.1/32 dev lo
	ip -n "$RUN.$NAME.b" route add 10.79.0.1/32 via "$HOST_A"
	ip -n "$RUN.$NAME.a" route change "$HOST_A" dev lo 2>/dev/null
	ip -n "$RUN.$NAME.a" route replace 10.77.0.0/24 dev eth1 src 10.79.0.1
	chatter
	is "records of b" "$(on b ism -j conns port "$PORT" | jq '.conns | length')" 0
	[[ $(on b reasons) == *not_local* ]] || die "b counts $(on b reasons)"
	is plane "$(view a .plane)" tcp
	hang_up
	both_down
}
