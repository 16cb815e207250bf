#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# What `ismredir fabric` says of peers that run, and of one that was killed: `show.sh BUILD`.

set -u
# shellcheck source-path=SCRIPTDIR source=../unit/counts.sh
. "$(dirname "${BASH_SOURCE[0]}")/../unit/counts.sh"

BUILD=${1:?usage: show.sh BUILD}
TMP=$(mktemp -d /dev/shm/ismredir-show-XXXXXX) || exit 1
SPEC=shm:$TMP/region
pids=()

cleanup()
{
	exec 8>&- 9>&-
	for pid in "${pids[@]}"; do
		kill -9 "$pid" 2>/dev/null
	done
	rm -rf "$TMP"
}
trap cleanup EXIT

# is WHAT COMMAND... - the command succeeds; what it printed is in $TMP/out
is()
{
	if "${@:2}" >"$TMP/out" 2>"$TMP/err"; then ok; else fail "$1: $(cat "$TMP/out" "$TMP/err")"; fi
}

# says WHAT PATTERN - what was printed last has a line like it
says()
{
	if grep -Eq "$2" "$TMP/out"; then ok; else fail "$1: $(cat "$TMP/out")"; fi
}

# shows WHAT FILTER - of the object that show prints
shows()
{
	is "$1" "$BUILD/ismredir" -j fabric show "$SPEC"
	if jq -e "$2" "$TMP/out" >/dev/null; then ok; else fail "$1: $(cat "$TMP/out")"; fi
}

# hold FD TOKEN - a peer until the descriptor is closed
hold()
{
	mkfifo "$TMP/hold.$1"
	"$BUILD/region/hold" "$SPEC" "$2" <"$TMP/hold.$1" >"$TMP/ready.$1" 2>&1 8>&- 9>&- &
	pids+=($!)
	eval "exec $1>\"$TMP/hold.$1\""
	for _ in {1..100}; do
		! grep -qs ready "$TMP/ready.$1" || return 0
		sleep 0.1
	done
	fail "no peer: $(cat "$TMP/ready.$1")"
}

is "format" "$BUILD/ismredir" fabric format "$SPEC" --size 1M --peers 3 --dmbs 8
hold 8 a1
hold 9 b2
shows "two peers" '[.peers[].state] == ["alive", "alive"] and .peers[0].pid != .peers[1].pid and
	.peers[0].gid != .peers[1].gid and ([.peers[].bytes] == [10000, 10000])'
shows "their DMBs" '[.dmbs[].token] == ["00000000000000a1", "00000000000000b2"] and .dmbs[0].length == 10000'
shows "what is attached" '[.attached[] | .peer == .owner and .state == "attached"] == [true, true]'
is "a table" "$BUILD/ismredir" fabric show "$SPEC"
says "a line for each peer" '^ *1 alive .* 9.8K +1$'
is "nothing is wrong" "$BUILD/ismredir" fabric fsck "$SPEC"
if "$BUILD/ismredir" fabric format "$SPEC" --force >"$TMP/out" 2>&1; then
	fail "formatted under running peers"
else
	says "who runs is safe from format" 'in use by a process'
fi
if "$BUILD/ismredir" fabric fsck "$SPEC" --evict 0 >"$TMP/out" 2>&1; then
	fail "evicted a peer that runs"
else
	says "who runs is safe from eviction" 'peer 0 is alive'
fi

kill -9 "${pids[1]}"
wait "${pids[1]}" 2>/dev/null
shows "one was killed" '[.peers[].state] == ["alive", "dead"]'
if "$BUILD/ismredir" fabric fsck "$SPEC" >"$TMP/out" 2>&1; then
	fail "fsck says nothing of the dead"
else
	says "fsck names the dead" '^peer 1: its process was killed'
fi
is "repair" "$BUILD/ismredir" fabric fsck "$SPEC" --repair
shows "the dead is gone" '[.peers[].peer] == [0] and [.dmbs[].peer] == [0]'
exec 8>&-
wait "${pids[0]}"
is "it ended well" [ $? -eq 0 ]
shows "nobody is left" '.peers == [] and .dmbs == [] and .attached == []'

# a peer that a device rings, by the number that the server gave it
python3 "$(dirname "${BASH_SOURCE[0]}")/../vm/ivshmem_server.py" --size $((1 << 20)) --memory "$TMP/region" \
	"$TMP/server" >"$TMP/server.log" 2>&1 8>&- 9>&- &
pids+=($!)
disown
for _ in {1..100}; do
	[ ! -S "$TMP/server" ] || break
	sleep 0.1
done
rm "$TMP/hold.8" "$TMP/ready.8"
SPEC=ivshmem:unix:$TMP/server
hold 8 c3
shows "the number of its bell" '[.peers[].bell] == ["device:0"]'
exec 8>&-
wait "${pids[3]}"
is "it ended well, too" [ $? -eq 0 ]
print_counts
