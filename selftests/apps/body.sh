# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034 # used by whoever sources this
#
# What the bodies of tests use, and how their results are told.

TOP= # scratch of the whole run
passed=0 failed=0 skipped=0

# die TEXT - end a body: the test has failed
die()
{
	echo "$*" >"$DIR/why"
	exit 1
}

# report ok|FAIL|skip NAME TEXT
report()
{
	printf '%-4s  %-28s %s\n' "$1" "$2" "$3"
	case $1 in
	ok) passed=$((passed + 1)) ;;
	FAIL) failed=$((failed + 1)) ;;
	skip) skipped=$((skipped + 1)) ;;
	esac
}

# run_matching PATTERN [ARGS...] - run_test, with these arguments, for each of TESTS whose name matches
run_matching()
{
	local name

	for name in "${TESTS[@]}"; do
		[[ $name =~ $1 ]] && run_test "$name" "${@:2}"
	done
}

# summary - the line of counts; its status says whether all is well
summary()
{
	echo "$passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
	[ $failed = 0 ]
}

# blob NAME SIZE - a file of random bytes, made once per run; prints its path
blob()
{
	[ -e "$TOP/$1" ] || head -c "$2" /dev/urandom >"$TOP/$1" || die "no space in $TOP"
	echo "$TOP/$1"
}

# same FILE FILE WHAT - both hold the same bytes
same()
{
	[ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ] || die "$3: $(cmp "$1" "$2" 2>&1)"
}

# load [ARGS...] - load on the box
load()
{
	ism load --cgroup "$CG" "$@" >"$DIR/load.log" 2>&1 ||
		die "load: exit $? $(tail -n 3 "$DIR/load.log")"
}

# unload - and see that it left nothing
unload()
{
	local out

	out=$(ism unload 2>&1) || die "unload: exit $? $out"
	[ ! -e "$ISMREDIR_PIN_DIR" ] || [ -z "$(ls -A "$ISMREDIR_PIN_DIR")" ] ||
		die "unload left pins: $(ls "$ISMREDIR_PIN_DIR")"
}

# reasons - why what is on TCP is on TCP, as status counts it
reasons()
{
	ism -j status | jq -r '.reasons | to_entries | map(select(.value > 0 and .key != "none"))
		| sort_by(-.value) | map("\(.key) \(.value)") | join(", ")'
}
