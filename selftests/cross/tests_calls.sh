# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# Relayed programs that sleep in recv(). On a socket in a sockhash it says EAGAIN to who is woken without data
# (docs/switch-rule.rst, "Blocking readers"), so nothing of ours may wake anybody.

# calls READERS - requests and answers, of which none fails; the relay has part in them
calls()
{
	local host

	relay_up
	for host in a b; do
		on $host load --replace --skip-tests --set mix-bytes=0 --set "readers=$1"
	done
	on b serve calls "$PORT" "$PYTHON" "$CROSS/calls.py" listen "$HOST_B" "$PORT" || die "calls.py does not start"
	on a inbox "$PYTHON" "$CROSS/calls.py" connect "$HOST_B" "$PORT" >"$TOP/$NAME/a/calls.log" 2>&1 ||
		die "$1: $(cat "$TOP/$NAME"/?/calls.log)"
	[ ! -s "$TOP/$NAME/b/calls.log" ] || die "$1: $(cat "$TOP/$NAME/b/calls.log")"
	! grep -h 'is reset' "$TOP/$NAME"/?/ismredird.log || die "a relay has lost something"
}

test_calls_safe()
{
	calls safe
	[ "$(relayed a)" -gt 100 ] || die "only $(relayed a) bytes by the relay"
	both_down
}

# Who sleeps in recv() leaves the relay with its first message.
test_calls_poll()
{
	calls poll
	[ "$(relayed a)" -gt 0 ] || die "nothing by the relay"
	[ "$(relayed a)" -lt 100 ] || die "$(relayed a) bytes by the relay"
	both_down
}
