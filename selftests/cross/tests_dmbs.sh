# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2153 # PORT and others come from run.sh
#
# A peer that writes anything into the DMBs of connections in use (docs/ring.rst, "Trust"): those connections end, or
# bring what the memory says; all others, of the same programs and daemons, stay exact, and new ones are as ever.
# ismredird is the one with sanitizers. SEEDS: others than those below.

SPARED=7999

# echoes_up PLANE STYLE - loads, ismredirds and programs; all connections are at work, the spared ones on the plane
echoes_up()
{
	DAEMON=$B/daemon-asan/ismredird
	export UBSAN_OPTIONS=print_stacktrace=1
	region_up "$1"
	on b serve echoes "$PORT" "$PYTHON" "$CROSS/echoes.py" listen "$HOST_B" "$2" "$PORT" $SPARED ||
		die "echoes.py does not start"
	SERVER=$PID
	on a
	start echoes "$PYTHON" "$CROSS/echoes.py" connect "$HOST_B" "$2" "$PORT" 24 $SPARED 8
	CLIENT=$PID
	within 20 grep -q ^echoes "$DIR/echoes.log" || die "no echoes: $(cat "$DIR/echoes.log")"
	within 10 all_spared_on "$1" || die "the spared are not on the plane $1: $(PORT=$SPARED ends)"
}

# spared HOST FIELD - of each spared connection there
spared()
{
	on "$1" ism -j conns port $SPARED | jq -r ".conns[].$2"
}

# all_spared_on PLANE
all_spared_on()
{
	for host in a b; do
		[ "$(spared $host plane | grep -cx "$1")" = 8 ] || return 1
	done
}

# scribble SEED ATTACKS
scribble()
{
	local tokens

	mapfile -t tokens < <(spared a token; spared b token)
	[ "${#tokens[@]}" = 16 ] || die "${#tokens[@]} tokens of 16"
	timeout 60 "$PYTHON" "$CROSS/scribble.py" "$REGION" "$1" "$2" "${tokens[@]}" >>"$TOP/$NAME/attacks" ||
		die "seed $1: scribble.py: $?"
	! gone "$CLIENT" || die "seed $1: the client: $(tail -n 3 "$DIR/echoes.log")"
	! gone "$SERVER" || die "seed $1: the server: $(on b tail -n 3 "$DIR/echoes.log")"
	daemons_live
}

# echoes_end - the spared are exact to their end, no program holds on to the others, and neither does ismredird
echoes_end()
{
	on a
	kill -USR1 "$CLIENT"
	ended "$CLIENT" "the client of $(cat "$TOP/$NAME/attacks"): $(tail -n 3 "$DIR/echoes.log")"
	within 20 none_left || die "connections stay: $(ends)"
	within 20 detached || die "DMBs stay"
	within 10 no_slots || die "slots stay"
	within 20 at_rest || die "ismredird does not come to rest"
	grep -qE 'garbled|reset' "$DIR/echoes.log" || die "nothing was hit: $(cat "$DIR/echoes.log")"
	{
		sed 's/:.*/,/' "$TOP/$NAME/attacks"
		tail -n 1 "$DIR/echoes.log"
	} | tr '\n' ' ' >"$TOP/$NAME/note"
}

# none_left - neither host has a connection to the ports of the test
none_left()
{
	[ -z "$(ends)$(PORT=$SPARED ends)" ]
}

# at_rest - both ismredirds sleep whenever they are looked at
at_rest()
{
	local look host

	for look in {1..20}; do
		for host in a b; do
			! grep -q '^State:	R' "/proc/${DAEMONS[$host]}/task"/*/status || return 1
		done
		sleep 0.01
	done
}

# unharmed - by what the sanitizers say, and the programs
unharmed()
{
	! grep -hE 'Sanitizer|runtime error' "$TOP/$NAME"/?/*.log || die "sanitizers"
}

# scribbled PLANE STYLE SEED...
scribbled()
{
	local seed seeds=("${@:3}")

	[ -z "${SEEDS:-}" ] || read -ra seeds <<<"$SEEDS"

	echoes_up "$1" "$2"
	for seed in "${seeds[@]}"; do
		scribble "$seed" 200
	done
	echoes_end
	unharmed
	PORT=$((PORT + 1))
	flowing "$1" 3
	exchange_ends
	both_down
	unharmed
}

test_dmbs_relay()
{
	scribbled relay epoll 1 2
}

test_dmbs_direct_epoll()
{
	scribbled direct epoll 3 4
}

test_dmbs_direct_threads()
{
	scribbled direct threads 5 6
}
