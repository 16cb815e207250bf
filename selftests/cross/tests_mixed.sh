# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # PORT and others come from run.sh
#
# A program with the library on one host, one without on the other: rings, which one side's program moves
# itself and the other side's relay.

# mixed_up DIRECT - as relay_up, but the programs of that host are under run
mixed_up()
{
	relay_up
	export ISMREDIR_AFTER=1,1
	if [ "$1" = a ]; then CLIENT_BY=("${UNDER_RUN[@]}"); else SERVER_BY=("${UNDER_RUN[@]}"); fi
}

# mixed DIRECT - a connection is on rings there, and relayed at the other end
mixed()
{
	local relay=a

	[ "$1" = b ] || relay=b
	[[ $(ends) == *"$1 direct "* ]] && [[ $(ends) == *"$relay relay "* ]]
}

# mixed_transfer DIRECT - checked bytes, both ways at once, by every way of waiting of the direct side
mixed_transfer()
{
	local style

	mixed_up "$1"
	for style in select poll epoll blocking; do
		if [ "$1" = a ]; then exchange 1 epoll $style; else exchange 1 $style epoll; fi
		within 5 mixed "$1" || die "$style: not mixed: $(ends)"
		exchange_ends
		PORT=$((PORT + 1))
	done
	both_down
}

test_mixed_transfer_a()
{
	mixed_transfer a
}

test_mixed_transfer_b()
{
	mixed_transfer b
}
