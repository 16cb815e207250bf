# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# The region is taken away under traffic: its file is unlinked, overwritten or truncated (docs/region.rst, "Trust").
# Nobody reads a wrong byte, and nobody waits for ever.

# region_up PLANE - loads and ismredirds for it
region_up()
{
	if [ "$1" = direct ]; then both_up; else relay_up; fi
}

# flowing PLANE SECONDS - a checked transfer that is on that plane at both ends
flowing()
{
	exchange "$2" epoll epoll
	if [ "$1" = direct ]; then
		within 10 across || die "no rings: $(ends)"
	else
		within 5 planes || die "no relay: $(ends)"
	fi
}

# damage HOW - to the region
damage()
{
	"$PYTHON" "$CROSS/damage.py" "$1" "$REGION" || die "damage.py $1"
}

# none_wrong - neither end has got a byte that the other did not send
none_wrong()
{
	! grep -h 'wrong byte' "$TOP/$NAME"/?/transfer.log || die "wrong bytes"
}

# daemons_live - and answer
daemons_live()
{
	for host in a b; do
		on $host
		! gone "$DAEMON_PID" || die "$host: ismredird has ended: $(tail -n 3 "$DIR/ismredird.log")"
		within 5 daemon_answers || die "$host: ismredird does not answer"
	done
}

# spoiled PLANE HOW - the transfer goes on, and so do both daemons; what comes later is right, too
spoiled()
{
	region_up "$1"
	flowing "$1" 4
	damage "$2"
	within 45 ends_told || die "the transfer: $(tail -qn 1 "$TOP/$NAME"/?/transfer.log)"
	none_wrong
	daemons_live
	exchange 1 epoll epoll
	exchange_ends
	both_down
}

test_region_unlinked_direct()
{
	spoiled direct unlink
}

test_region_unlinked_relay()
{
	spoiled relay unlink
}

test_region_zeros_direct()
{
	spoiled direct zeros
}

test_region_zeros_relay()
{
	spoiled relay zeros
}

test_region_random_direct()
{
	spoiled direct random
}

test_region_random_relay()
{
	spoiled relay random
}

# daemons_end - by the signal, which they tell; a truncated region is refused then, and a new one is not
daemons_end()
{
	for host in a b; do
		on $host
		within 10 gone "$DAEMON_PID" || die "$host: ismredird is still there"
		grep -q 'memory of a fabric is gone (SIGBUS)' "$DIR/ismredird.log" ||
			die "$host: $(tail -n 3 "$DIR/ismredird.log")"
		DAEMON_PID=
		cannot "it has no memory" --fabric "$(fabric)"
		stop_programs
	done
	rm -f "$REGION"
	region_make "$REGION" 256M
}

# again PLANE ARGS... - new daemons, and connections on that plane
again()
{
	for host in a b; do
		on $host
		rm -f "$DIR/ismredird.log"
		daemon_up "${@:2}"
		within 5 announced || die "$host: its load does not know the fabric"
		[ "$1" = direct ] || within 5 at_work || die "$host: the relay does not begin"
	done
	on a load --replace --skip-tests
	PORT=$((PORT + 1))
	flowing "$1" 3
	exchange_ends
	both_down
}

# Who has truncated memory mapped gets SIGBUS: the daemons, and programs on rings. It is an end, and nothing wrong
# is read before it.
test_region_truncated_direct()
{
	region_up direct
	flowing direct 60
	damage truncate
	within 20 gone "$CLIENT" || die "the client hangs"
	within 20 gone "$SERVER" || die "the server hangs"
	none_wrong
	daemons_end
	again direct
}

# Programs of the relay have no region mapped: they see a reset, or TCP.
test_region_truncated_relay()
{
	region_up relay
	flowing relay 4
	damage truncate
	within 45 ends_told || die "the transfer: $(tail -qn 1 "$TOP/$NAME"/?/transfer.log)"
	none_wrong
	daemons_end
	again relay --relay
}
