# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
# bash completion for ismredir(8)

_ismredir_reasons()
{
	ismredir -j explain all 2>/dev/null | grep -o '"name":"[a-z_]*"' | cut -d'"' -f4
}

# Options, then a program; what follows that is not ours: the shell's own completion of file names.
_ismredir_run()
{
	local cur=$1 words=$2 prev=$3 w

	for ((w = COMP_CWORD - words + 1; w < COMP_CWORD; w++)); do
		case ${COMP_WORDS[w]} in
		--after) ((w++)) ;;
		-*) ;;
		*) return ;;
		esac
	done
	if [[ $prev == --after ]]; then
		return
	elif [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "--after --quiet" -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -A command -- "$cur" | sort -u)
	fi
}

# A verb of its own, its options, and a spec.
_ismredir_fabric()
{
	local cur=$1 at=$2

	if [[ $at -eq 1 ]]; then
		mapfile -t COMPREPLY < <(compgen -W "format show fsck" -- "$cur")
		return
	fi
	case ${COMP_WORDS[COMP_CWORD - at + 1]} in
	format)
		mapfile -t COMPREPLY < <(compgen -W "--size --peers --dmbs --unit --force" -- "$cur")
		;;
	fsck)
		mapfile -t COMPREPLY < <(compgen -W "--repair --evict" -- "$cur")
		;;
	esac
}

_ismredir()
{
	local cur prev verb="" i
	cur=${COMP_WORDS[COMP_CWORD]}
	prev=${COMP_WORDS[COMP_CWORD - 1]}
	COMPREPLY=()

	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-*) ;;
		*)
			verb=${COMP_WORDS[i]}
			break
			;;
		esac
	done

	if [[ -z $verb ]]; then
		mapfile -t COMPREPLY < <(compgen -W "-j -p -v check load unload run status conns dmbs fabric fabrics peers policy explain version help" -- "$cur")
		return
	fi

	if [[ $verb == run ]]; then
		_ismredir_run "$cur" "$((COMP_CWORD - i))" "$prev"
		return
	fi

	if [[ $verb == fabric ]]; then
		_ismredir_fabric "$cur" "$((COMP_CWORD - i))"
		return
	fi

	case $prev in
	--cgroup)
		mapfile -t COMPREPLY < <(compgen -d -- "${cur:-/sys/fs/cgroup/}")
		return
		;;
	--config)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--plane | --default | plane)
		mapfile -t COMPREPLY < <(compgen -W "tcp skmsg direct" -- "$cur")
		return
		;;
	state)
		mapfile -t COMPREPLY < <(compgen -W "ESTABLISHED SYN_SENT CLOSE_WAIT FIN_WAIT1 FIN_WAIT2 LAST_ACK" -- "$cur")
		return
		;;
	--port | --peer | --comm | --max-conns | --set | --timeout | port | comm | netns)
		return
		;;
	esac

	case $verb in
	load)
		mapfile -t COMPREPLY < <(compgen -W "--cgroup --port --peer --comm --plane --default --config --max-conns --set --replace --skip-tests" -- "$cur")
		;;
	unload)
		mapfile -t COMPREPLY < <(compgen -W "--timeout" -- "$cur")
		;;
	conns)
		mapfile -t COMPREPLY < <(compgen -W "-l port comm plane netns state" -- "$cur")
		;;
	explain)
		mapfile -t COMPREPLY < <(compgen -W "all $(_ismredir_reasons)" -- "$cur")
		;;
	help)
		mapfile -t COMPREPLY < <(compgen -W "check load unload run status conns dmbs fabrics peers policy explain version" -- "$cur")
		;;
	esac
}

complete -o bashdefault -F _ismredir ismredir
