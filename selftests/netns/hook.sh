#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# hook.sh WORD... - what `ismredir conns` must show while connections are live; traffic and cases run
# it at that point. Words:
#   accel      at least two ends, every one paired on plane skmsg, and bytes were redirected
#   moved      bytes were redirected, whatever is now
#   direct     every end is on plane direct, and paired
#   both       every end redirected bytes
#   most       nine bytes of ten were redirected
#   switches   some direction changed its plane
#   tcp        nothing was redirected, no end is on plane skmsg
#   ends=N     so many ends
#   sum=N      the ends have sent so many bytes, by both planes together
#   reason=R   some end says so
#   pinned=R   some end says so and never redirected anything
#   none       no end is in the table
#   family=F   of every end

set -u
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

[ "$PLANE" = skmsg ] || exit 0
[ "${1:-}" != wait ] || { sleep 0.2; shift; }

live=$(ism -j conns state established) || { echo "conns failed"; exit 1; }

# must FILTER - true about the connections, or this is what they are
must()
{
	[ "$(jq -r ".conns | $1" <<<"$live")" = true ] && return
	echo "expected '$word', but the connections are:"
	ism conns
	ism status
	exit 1
}

for word; do
	value=${word#*=}
	case $word in
	accel)
		must 'length >= 2 and all(.plane == "skmsg") and (map(.redir_bytes) | add) > 0'
		must '(map(.token) | sort) == (map(.peer_token) | sort)'
		;;
	direct)
		must 'length >= 2 and all(.plane == "direct" and .direct and .peer_direct)'
		must '(map(.token) | sort) == (map(.peer_token) | sort)'
		;;
	moved) must 'map(.redir_bytes) | add > 0' ;;
	both) must 'all(.redir_bytes > 0)' ;;
	most) must '(map(.redir_bytes) | add) > 9 * (map(.tcp_bytes) | add)' ;;
	switches) must '(map(.switches) | add) > 0' ;;
	tcp) must 'all(.plane == "tcp" and .redir_bytes == 0)' ;;
	pinned=*) must "any(.reason == \"$value\" and .plane == \"tcp\" and .redir_bytes == 0)" ;;
	none) must 'length == 0' ;;
	ends=*) must "length == $value" ;;
	sum=*) must "(map(.redir_bytes + .tcp_bytes) | add) == $value" ;;
	reason=*) must "any(.reason == \"$value\")" ;;
	family=*) must "all(.family == \"$value\")" ;;
	*) echo "hook.sh: no such word: $word"; exit 1 ;;
	esac
done
