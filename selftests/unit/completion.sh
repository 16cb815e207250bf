#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# The bash completion offers what the program takes, no more and no less. Run as `completion.sh BINARY`.

set -u
# shellcheck source-path=SCRIPTDIR source=counts.sh
. "$(dirname "${BASH_SOURCE[0]}")/counts.sh"

BIN=${1:?usage: completion.sh BINARY}
PATH=$(cd "$(dirname "$BIN")" && pwd):$PATH
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/../../user/cli/ismredir.bash"

# offered WORDS... - what is offered for the last word, sorted, on one line
offered()
{
	COMP_WORDS=(ismredir "$@")
	COMP_CWORD=$#
	COMPREPLY=()
	_ismredir
	printf '%s\n' "${COMPREPLY[@]}" | sort | xargs
}

# same WHAT WANTED GOT
same()
{
	if [ "$2" = "$3" ]; then ok; else fail "$1: wanted \"$2\", offered \"$3\""; fi
}

commands=$("$BIN" help | sed -n 's/^  \([a-z]*\) .*/\1/p' | sort | xargs)
reasons=$("$BIN" -j explain all | jq -r '.reasons[].name' | cat - <(echo all) | sort | xargs)
# the options that the help of load names, and those that it takes and does not name
load=$("$BIN" help load | grep -o -e '--[a-z-]*' | cat - <(echo --default) | sort -u | xargs)

same "all commands" "$commands" "$(offered '' | tr ' ' '\n' | grep -v '^-' | xargs)"
for c in $commands; do
	case $c in # the beginning of another, too
	fabric) same "$c" "fabric fabrics" "$(offered "$c")" ;;
	*) same "$c" "$c" "$(offered "$c")" ;;
	esac
done
same "-j, then a command" "$commands" "$(offered -j '' | tr ' ' '\n' | grep -v '^-' | xargs)"
same "explain" "$reasons" "$(offered explain '')"
same "load" "$load" "$(offered load '')"
same "load --plane" "direct skmsg tcp" "$(offered load --plane '')"
same "conns plane" "direct skmsg tcp" "$(offered conns plane '')"
same "run" "--after --quiet" "$(offered run '-')"
same "run, a program" "1" "$(offered run 'ls' | tr ' ' '\n' | grep -cx ls)"
same "run, its arguments are its own" "" "$(offered run ls --)"
same "dmbs" "" "$(offered dmbs '')"
same "fabric" "format fsck show" "$(offered fabric '')"
same "fabric format" "--dmbs --force --peers --size --unit" "$(offered fabric format '')"
same "fabric fsck" "--evict --repair" "$(offered fabric fsck shm:x '')"
same "fabric show" "" "$(offered fabric show '')"
same "fabrics" "" "$(offered fabrics '')"
same "unload" "--timeout" "$(offered unload '')"
same "conns" "-l comm netns plane port state" "$(offered conns '')"
same "status" "" "$(offered status '')"
print_counts
