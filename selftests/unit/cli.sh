#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# The command line: help, prefixes, arguments, exit statuses, and errors as text and as JSON. Run as
# `cli.sh BINARY`. Whatever could load something runs as a user without privileges, with a pin directory
# that does not exist; nothing is ever loaded.

set -u
# shellcheck source-path=SCRIPTDIR source=counts.sh
. "$(dirname "${BASH_SOURCE[0]}")/counts.sh"

TMP=$(mktemp -d "${TMPDIR:-/tmp}/ismredir-cli-XXXXXX") || exit 1
trap 'rm -rf "$TMP"' EXIT
chmod 755 "$TMP"
# the tree may be where others cannot look
install -m 755 "${1:?usage: cli.sh BINARY}" "$TMP/ismredir" || exit 1
install -d -m 1777 "$TMP/asan"
export ISMREDIR_PIN_DIR=$TMP/pins ISMREDIR_SOCK=$TMP/sock ISMREDIR_PRELOAD=$TMP/none.so
unset LD_PRELOAD ISMREDIR_AFTER
UNIT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export ASAN_OPTIONS=log_path=$TMP/asan/log:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1 LC_ALL=C

AS=() # who runs it
if [ "$(id -u)" = 0 ]; then
	NOBODY=(setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all --)
else
	NOBODY=()
fi
caps=$("${NOBODY[@]}" sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
if [ -z "${caps//0/}" ] && [ -n "$caps" ]; then
	UNPRIVILEGED=1
else
	UNPRIVILEGED=
	skip "cannot shed privileges (CapEff $caps): arguments of load are left out"
fi

# ---------------------------------------------------------------- the checks

# run ARGS... - sets rc, $TMP/out, $TMP/err
run()
{
	timeout 60 "${AS[@]}" "$TMP/ismredir" "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
	rc=$?
}

shown()
{
	printf '%s; out: %s err: %s' "status $rc" "$(head -c 200 "$TMP/out")" "$(head -c 200 "$TMP/err")"
}

# is WHAT CONDITION...
is()
{
	if "${@:2}" >/dev/null; then ok; else fail "$1: $(shown)"; fi
}

is_error_object()
{
	jq -es 'length == 1 and (.[0].error | type == "string" and length > 0)' "$TMP/out" >/dev/null 2>&1
}

# good NAME ARGS... - status 0 and nothing on stderr
good()
{
	run "${@:2}"
	if [ $rc -eq 0 ] && [ ! -s "$TMP/err" ]; then ok; else fail "$1: $(shown)"; fi
}

# good_json FILTER ARGS... - the same, and the one object on stdout satisfies FILTER
good_json()
{
	run -j "${@:2}"
	if [ $rc -eq 0 ] && [ ! -s "$TMP/err" ] && [ "$(wc -l <"$TMP/out")" -eq 1 ] &&
		jq -es "length == 1 and (.[0] | $1)" "$TMP/out" >/dev/null 2>&1; then
		ok
	else
		fail "-j ${*:2}: not $1: $(shown)"
	fi
}

# bad STATUS PATTERN ARGS... - fails with STATUS; the message has PATTERN, on stderr, and as JSON under -j
bad()
{
	local status=$1 pattern=$2

	shift 2
	run "$@"
	if [ $rc -eq "$status" ] && [ ! -s "$TMP/out" ] && head -n 1 "$TMP/err" | grep -q '^ismredir: ' &&
		grep -q -e "$pattern" "$TMP/err"; then
		ok
	else
		fail "$*: wanted status $status and \"$pattern\": $(shown)"
	fi
	run -j "$@"
	if [ $rc -eq "$status" ] && [ ! -s "$TMP/err" ] && is_error_object &&
		jq -r .error "$TMP/out" | grep -q -e "$pattern"; then
		ok
	else
		fail "-j $*: wanted status $status, one JSON error with \"$pattern\": $(shown)"
	fi
}

# ---------------------------------------------------------------- commands

COMMANDS=(check load unload run status conns dmbs fabric fabrics peers policy explain version help)

test_help()
{
	local c

	good "help" help
	for c in "${COMMANDS[@]}"; do
		is "help names $c" grep -q "^  $c " "$TMP/out"
	done
	is "help tells the exit statuses" grep -q 'Exit status: 0 ok, 1 failed, 2 usage' "$TMP/out"
	cp "$TMP/out" "$TMP/help"
	good "-h" -h
	is "-h is help" cmp -s "$TMP/out" "$TMP/help"
	for c in "${COMMANDS[@]}"; do
		good "help $c" help "$c"
		is "help $c is about $c" grep -q "^  $c " "$TMP/out"
	done
	run
	is "no command is a usage error that shows help" [ "$rc" -eq 2 ]
	is "no command shows help" cmp -s "$TMP/out" "$TMP/help"
	bad 2 'unknown command "bogus"' help bogus
	bad 2 'unexpected argument "status"' help load status
}

test_prefixes()
{
	local p

	for p in v ve ver vers versi versio; do
		good "$p" "$p"
		is "$p is version" grep -q '^ismredir [0-9]' "$TMP/out"
	done
	for p in e ex; do
		good "$p budget" "$p" budget
	done
	for p in h he; do
		good "$p" "$p"
	done
	for p in ch co l u s r d pe po; do
		good "help $p" help "$p"
	done
	bad 2 'ambiguous: check or conns' c
	bad 2 'ambiguous: peers or policy' p
	bad 2 'ambiguous: fabric or fabrics' f
	bad 2 'ambiguous' ''
	bad 2 'unknown command "x"' x
	bad 2 'unknown command "statusx"' statusx
	bad 2 'unknown command "Status"' Status
	bad 2 'ambiguous: peers or policy' help p
}

test_global_options()
{
	run -x version
	is "-x is a usage error" [ "$rc" -eq 2 ]
	is "-x prints nothing on stdout" [ ! -s "$TMP/out" ]
	is "-x says what is wrong" [ -s "$TMP/err" ]
	run -j -x version
	is "-j -x is a usage error" [ "$rc" -eq 2 ]
	is "-j -x: the error is JSON" is_error_object
	good "-V" -V
	is "-V is version" grep -q '^ismredir [0-9]' "$TMP/out"
	good "-vv version" -vv version
	run -p explain budget
	is "-p is JSON" jq -e '.reasons[0].name == "budget"' "$TMP/out"
	is "-p has lines" [ "$(wc -l <"$TMP/out")" -gt 3 ]
	good_json '.version' version -vj
	run version -p
	is "version -p is pretty JSON" jq -e .version "$TMP/out"
	is "version -p has lines" [ "$(wc -l <"$TMP/out")" -gt 3 ]
	run -jp bogus
	is "-jp: the error is JSON" is_error_object
}

test_version()
{
	good "version" version
	is "version" grep -Eq '^ismredir [0-9]+\.[0-9]+\.[0-9]+$' "$TMP/out"
	is "version tells the formats" grep -Eq '^map format 7, option version 1, libbpf ' "$TMP/out"
	good_json '.version | test("^[0-9]+\\.[0-9]+\\.[0-9]+$")' version
	good_json '.map_format == 7 and .option_version == 1' version
	good_json ".pin_dir == \"$ISMREDIR_PIN_DIR\"" version
	bad 2 'unexpected argument "x"' version x
}

# ---------------------------------------------------------------- explain

test_explain()
{
	local code name

	good_json '.reasons | length > 30' explain all
	good_json '[.reasons[] | .code, .name] | length == (unique | length)' explain all
	good_json 'all(.reasons[]; (.meaning | length > 0) and (.remedy | length > 0))' explain all
	run -j explain all
	cp "$TMP/out" "$TMP/all"
	while read -r code name; do
		run -j explain "$name"
		cp "$TMP/out" "$TMP/by_name"
		is "explain $name" jq -e ".reasons | length == 1 and .[0].code == $code" "$TMP/out"
		run -j explain "$code"
		is "explain $code is $name" cmp -s "$TMP/out" "$TMP/by_name"
		run -j explain "$(printf '0x%04x' "$code")"
		is "explain $code in hex is $name" cmp -s "$TMP/out" "$TMP/by_name"
	done < <(jq -r '.reasons[] | "\(.code) \(.name)"' "$TMP/all")
	good "explain budget" explain budget
	is "explain tells code and name" grep -q '^0x0202 budget$' "$TMP/out"
	is "explain tells the meaning" grep -q '^  meaning: ' "$TMP/out"
	is "explain tells the remedy" grep -q '^  remedy: ' "$TMP/out"
	good "explain none" explain none
	is "explain shows every code the same way" grep -q '^0x0000 none$' "$TMP/out"
	bad 2 'unknown reason "bogus"' explain bogus
	bad 2 'unknown reason "0xffff"' explain 0xffff
	bad 2 'unknown reason ""' explain ''
	bad 2 'unknown reason "-1"' explain -1
	bad 2 'expected one reason' explain
	bad 2 'expected one reason' explain budget stream
}

# ---------------------------------------------------------------- arguments

test_no_arguments_taken()
{
	local c

	for c in check status peers policy version dmbs fabrics; do
		bad 2 'unexpected argument "x"' "$c" x
		bad 2 'unexpected argument "-l"' "$c" -l
	done
}

test_conns_arguments()
{
	local p

	for p in 0 65536 http 1-2 '' -1; do
		bad 2 'bad port' conns port "$p"
	done
	bad 2 'bad plane "x"' conns plane x
	bad 2 'bad netns' conns netns x
	bad 2 'bad netns' conns netns ''
	bad 2 'unknown filter "bogus"' conns bogus 1
	bad 2 'unknown filter "-x"' conns -x 1
	for p in port comm plane netns state; do
		bad 2 "\"$p\" needs a value" conns "$p"
		bad 2 "\"$p\" needs a value" conns -l comm x "$p"
	done
}

test_unload_arguments()
{
	local t

	for t in x '' -1 86401 nan inf 5s '1 2'; do
		bad 2 'bad --timeout' unload --timeout "$t"
		bad 2 'bad --timeout' unload --timeout="$t"
	done
	bad 2 'needs a value' unload --timeout
	bad 2 'unknown option "x"' unload x
	bad 2 'unknown option "--timeouts"' unload --timeouts 5
	bad 2 'unknown option "-t"' unload -t 5
}

test_load_values()
{
	local v

	for v in 0 65536 80-79 80- -80 http '' 1-2-3 '80 90'; do
		bad 2 'bad port' load --port "$v"
		bad 2 'bad port' load --port="$v"
	done
	for v in 1.2.3 10.0.0.0/33 ::/129 /8 localhost ''; do
		bad 2 'bad peer' load --peer "$v"
	done
	for v in '' sixteen_chars___; do
		bad 2 '1 to 15 characters' load --comm "$v"
	done
	for v in relay TCP ''; do
		bad 2 'expected tcp, skmsg or direct' load --plane "$v"
		bad 2 'expected tcp, skmsg or direct' load --default "$v"
	done
	for v in 0 1 16777217 x '' -5; do
		bad 2 'bad max-conns' load --max-conns "$v"
	done
	for v in foo =1 ''; do
		bad 2 'expected NAME=VALUE' load --set "$v"
	done
	bad 2 'unknown setting "bogus"' load --set bogus=1
	bad 2 'bad budget-bytes "1"' load --set budget-bytes=1
	bad 2 'bad spin ""' load --set spin=
}

test_load_options()
{
	local o

	for o in cgroup port peer comm plane default max-conns config set; do
		bad 2 "\-\-$o needs a value" load "--$o"
		bad 2 "unknown option \"--${o}x\"" load "--${o}x" 1
	done
	bad 2 'unknown option "--replace=1"' load --replace=1
	bad 2 'unknown option "x"' load x
	bad 2 'unknown option "-q"' load -q 80
	bad 2 'unknown option "--"' load --
	bad 2 'bad port "0"' load --port 80 --comm x --port 0
}

test_load_limits()
{
	local args=() i

	for i in {1..33}; do
		args+=(--port "$i")
	done
	bad 2 'too many values of port, at most 32' load "${args[@]}"
	args=()
	for i in {1..9}; do
		args+=(--port "$i" --comm "c$i")
	done
	bad 2 'more than 64 rules' load "${args[@]}"
}

# fails with 1 or 2 and says what and why
test_load_places()
{
	local what

	for what in "--cgroup /no/such/cgroup" "--config /no/such/file" "--cgroup /proc" "--config /"; do
		# shellcheck disable=SC2086
		run load $what
		is "load $what fails" [ "$rc" -eq 1 -o "$rc" -eq 2 ]
		is "load $what names it" grep -q "${what#* }" "$TMP/err"
		is "load $what is not about privileges" [ "$(grep -c 'not permitted' "$TMP/err")" -eq 0 ]
	done
}

test_load_config()
{
	local conf=$TMP/bad.conf

	printf '[load]\nport = 80\n\nport = 70000\n' >"$conf"
	bad 2 "$conf:4: bad port \"70000\"" load --config "$conf"
	printf '[laod]\nport = 80\n' >"$conf"
	bad 2 "$conf:2: unknown section \[laod\]" load --config="$conf"
	printf '[load]\nport = 80\nwhat is this\n' >"$conf"
	bad 2 "$conf:3: expected NAME = VALUE" load --port 90 --config "$conf"
	printf '[rule a]\nport =\n' >"$conf"
	bad 2 "$conf:2: \"port\" has no value" load --config "$conf"
}

# All is well but the user is nobody.
test_no_privileges()
{
	local c

	bad 1 'not permitted: run as root, or with CAP_BPF' load --port 80
	bad 1 'not permitted' load --set budget-bytes=64k --default tcp --plane tcp --replace --skip-tests
	bad 1 'not permitted' load --plane direct --default direct --skip-tests
	bad 1 'not permitted' unload
	bad 1 'not permitted' unload --timeout=0.5 --timeout 1
	bad 1 'not permitted' check
	for c in conns peers policy; do
		run "$c"
		is "$c as nobody fails" [ "$rc" -eq 1 ]
		is "$c as nobody says why" grep -q '^ismredir: ' "$TMP/err"
		run -j "$c"
		is "-j $c as nobody fails" [ "$rc" -eq 1 ]
		is "-j $c as nobody: the error is JSON" is_error_object
	done
}

# ---------------------------------------------------------------- run

# runs STATUS OUT ARGS... - the program ends so, says so, and nobody complains
runs()
{
	run run "${@:3}"
	if [ "$rc" -eq "$1" ] && [ "$(cat "$TMP/out")" = "$2" ] && [ ! -s "$TMP/err" ]; then
		ok
	else
		fail "run ${*:3}: wanted status $1 and \"$2\": $(shown)"
	fi
}

# warns PATTERN OUT ARGS... - the program runs all the same; one line says what it lacks
warns()
{
	run run "${@:3}"
	if [ "$rc" -eq 0 ] && [ "$(cat "$TMP/out")" = "$2" ] && [ "$(wc -l <"$TMP/err")" -eq 1 ] &&
		grep -q "^ismredir: .*$1.*so it runs without the direct plane" "$TMP/err"; then
		ok
	else
		fail "run ${*:3}: wanted a warning \"$1\" and \"$2\": $(shown)"
	fi
}

# expanded by the shell that is run
# shellcheck disable=SC2016
test_run()
{
	local lib=$TMP/lib.so

	if ! echo 'int ismredir_test;' | cc -shared -fPIC -x c -o "$lib" - 2>/dev/null; then
		skip "no compiler: run is left out"
		return
	fi
	chmod 755 "$lib"
	export ISMREDIR_PRELOAD=$lib
	runs 0 "$lib" sh -c 'echo "$LD_PRELOAD"'
	runs 0 "a -j -v --after=1 x" echo a -j -v --after=1 x
	runs 0 -- echo --
	runs 7 "" -- sh -c 'exit 7'
	runs 3 "3,65536" --after 3,64k sh -c 'echo "$ISMREDIR_AFTER"; exit 3'
	runs 0 "0" --after=0 --quiet -- sh -c 'echo "$ISMREDIR_AFTER"'
	runs 0 "1,2097152" --after 1,2M -- sh -c 'echo "$ISMREDIR_AFTER"'
	runs 0 "" sh -c 'echo "${ISMREDIR_AFTER:-}"'
	LD_PRELOAD=$lib runs 0 "$lib" sh -c 'echo "$LD_PRELOAD"'
	cp "$lib" "$TMP/other.so"
	LD_PRELOAD=$TMP/other.so runs 0 "$lib:$TMP/other.so" sh -c 'echo "$LD_PRELOAD"'
	runs 1 "" printenv LD_PRELOAD # has no use for it
	LD_PRELOAD=$lib runs 0 "$lib" printenv LD_PRELOAD
	LD_PRELOAD=$TMP/other.so runs 0 "$TMP/other.so" printenv LD_PRELOAD
	runs 0 "$lib" env printenv LD_PRELOAD
	run run sh -c 'kill -PIPE $$' # bash says nothing of this one
	is "run: a program that dies by a signal does" [ "$rc" -eq 141 ]
	run run sh -c 'echo $$; exec sleep 0'
	is "run: descriptors are not left open" [ "$rc" -eq 0 ]
	runs 0 "0 1 2" sh -c 'cd /proc/$$/fd && echo [0-2] && [ ! -e 3 ]'
	printf '#!/bin/sh\necho script\n' >"$TMP/script"
	chmod 755 "$TMP/script"
	runs 0 script "$TMP/script"
	PATH=$TMP:$PATH runs 0 script script
	good "ru is run" ru true
	test_run_without "$lib"
	test_run_elf
	test_run_errors
	export ISMREDIR_PRELOAD=$TMP/none.so
}

# shellcheck disable=SC2016
test_run_without()
{
	local lib=$1

	if echo 'int main(void) { return 0; }' | cc -static -x c -o "$TMP/static" - 2>/dev/null; then
		chmod 755 "$TMP/static"
		warns 'static is linked statically' "" "$TMP/static"
		runs 0 "" --quiet "$TMP/static"
	fi
	if [ "$(id -u)" = 0 ]; then
		install -m 4755 -o 1 "$(type -P true)" "$TMP/setuid"
		warns 'more privileges than you have' "" "$TMP/setuid"
	fi
	ISMREDIR_PRELOAD=$TMP/none.so warns 'none.so: No such file' "" \
		sh -c 'echo "${LD_PRELOAD:-}"'
	ISMREDIR_PRELOAD=$TMP/none.so runs 0 "" --quiet sh -c 'echo "${LD_PRELOAD:-}"'
	ISMREDIR_PRELOAD=$TMP/script warns 'script is no library' "" sh -c 'echo "${LD_PRELOAD:-}"'
	mkdir -p "$TMP/a b"
	cp "$lib" "$TMP/a b/lib.so"
	ISMREDIR_PRELOAD="$TMP/a b/lib.so" warns 'LD_PRELOAD takes no such path' "" \
		sh -c 'echo "${LD_PRELOAD:-}"'
	# Beside the program it is found by itself.
	cp "$lib" "$TMP/libismredir-preload.so"
	ISMREDIR_PRELOAD='' runs 0 "$TMP/libismredir-preload.so" sh -c 'echo "$LD_PRELOAD"'
	rm "$TMP/libismredir-preload.so"
}

# byte VALUE OFFSET FILE - VALUE as printf takes it
byte()
{
	# shellcheck disable=SC2059
	printf "$1" | dd of="$3" bs=1 seek="$2" conv=notrunc status=none
}

# A program of another C library would not start with ours; files that are broken are for exec() to judge.
# shellcheck disable=SC2016
test_run_elf()
{
	local bad=$TMP/bad n loader

	loader=$(readelf -l "$(type -P sh)" | sed -n 's/.*interpreter: \(.*\)]/\1/p')
	cp "$loader" "$TMP/ld.so" && chmod 755 "$TMP/ld.so"
	echo 'int puts(const char *); char *getenv(const char *);
		int main(void) { char *p = getenv("LD_PRELOAD"); puts(p ? p : "none"); return 0; }' |
		cc -x c -o "$TMP/alien" -Wl,--dynamic-linker="$TMP/ld.so" - && chmod 755 "$TMP/alien"
	warns 'uses another C library' none "$TMP/alien"
	cp "$(type -P cat)" "$bad" && chmod 755 "$bad"
	byte '\026\000' 18 "$bad"
	run run "$bad"
	is "run: another machine is said" grep -q 'is for another machine' "$TMP/err"
	for n in 1 4 16 20 52 63 64 65 100 120; do
		head -c "$n" "$(type -P cat)" >"$bad"
		run run --quiet "$bad"
		is "run: $n bytes of a program" [ "$rc" -ge 126 -a "$rc" -le 127 -o "$rc" -eq 2 ]
	done
	for n in 39 54 57; do # e_phoff, e_phentsize, e_phnum
		cp "$(type -P cat)" "$bad"
		byte '\377' "$n" "$bad"
		run run --quiet "$bad" /dev/null
		is "run: byte $n broken" [ "$rc" -ne 139 -a "$rc" -ne 134 ]
	done
	printf '#!%s\n' "$bad" >"$bad"
	run run --quiet "$bad"
	is "run: a script that is its own interpreter" [ "$rc" -eq 126 ]
}

test_run_errors()
{
	local v

	run run "$TMP/nosuch"
	is "run: not found is 127" [ "$rc" -eq 127 ]
	is "run: not found names it" grep -q "^ismredir: run $TMP/nosuch: No such file" "$TMP/err"
	PATH=/usr/bin:/bin run run nosuch-program
	is "run: not found in PATH is 127" [ "$rc" -eq 127 ]
	run run "$TMP"
	is "run: a directory is 126" [ "$rc" -eq 126 ]
	: >"$TMP/plain"
	run run "$TMP/plain"
	is "run: no permission is 126" [ "$rc" -eq 126 ]
	bad 2 'expected a program' run
	bad 2 'expected a program' run --
	bad 2 'expected a program' run --quiet
	bad 2 'unknown option "-q"' run -q true
	bad 2 'unknown option "--afterwards"' run --afterwards 1 true
	for v in '' x -1 '1,' 1,x 1,-1 4294967296 1,5G 1,2,3 99999999999999999999; do
		bad 2 'bad --after' run --after "$v" true
		bad 2 'bad --after' run --after="$v" true
	done
	bad 2 'bad --after' run --after
}

# ---------------------------------------------------------------- ismredird

test_no_daemon()
{
	local c

	for c in dmbs fabrics; do
		bad 1 "ismredird is not running (nobody at $ISMREDIR_SOCK)" "$c"
	done
}

# Not the daemon, only its words.
test_daemon()
{
	local pid

	if ! command -v python3 >/dev/null; then
		skip "no python3: dmbs and fabrics are left out"
		return
	fi
	mkfifo "$TMP/hold"
	python3 "$UNIT/fake_daemon.py" "$ISMREDIR_SOCK" <"$TMP/hold" >"$TMP/ready" 2>&1 &
	pid=$!
	exec 9>"$TMP/hold"
	for _ in {1..100}; do
		! grep -qs ready "$TMP/ready" || break
		sleep 0.1
	done
	chmod 666 "$ISMREDIR_SOCK"
	good "dmbs" dmbs
	is "dmbs: a line for each" [ "$(wc -l <"$TMP/out")" -eq 3 ]
	is "dmbs: the first" grep -Eq \
		'^0000000000001111 fedcba9876543210 +0 +64K +100 +4.9K +50 +111 +222 +33 owner,partner$' \
		"$TMP/out"
	good_json '.dmbs | length == 2' dmbs
	good_json '.dmbs[0] | .token == "0000000000001111" and .fill == 100 and .flags == "tcp" and
		.writer.bytes == 5000 and .writer.spins == 4 and .writer.tcp_bytes == 77' dmbs
	good_json '.dmbs[1] | .attached == "owner,partner,resumed" and .flags == "fin,rewind"' dmbs
	good "fabrics" fabrics
	is "fabrics: names and numbers" grep -Eq '^ *0 memfd: .* attach,doorbell,export +2 +136K +5$' \
		"$TMP/out"
	is "fabrics: a peer that is this host" grep -Eq \
		'^ *1 +0 alive,self 00010203-[0-9a-f-]* - +1500ms +70ms$' "$TMP/out"
	is "fabrics: a silent one with a strange network" grep -Eq \
		'^ *1 +3 silent +20212223-[0-9a-f-]* NET\?NET\?NET\?NET\? +1500ms +98765ms$' "$TMP/out"
	is "fabrics: one that is gone" grep -Eq '^ *1 +4 gone .* NET1 +1500ms +1ms$' "$TMP/out"
	is "fabrics: one in a state of tomorrow" grep -Eq '^ *1 +63 \? +4041' "$TMP/out"
	good_json '[.fabrics[1].peers[] | [.peer, .state, .self, .pnetid, .lease_ms, .age_ms]] == [
		[0, "alive", true, "", 1500, 70], [3, "silent", false, "NET?NET?NET?NET?", 1500, 98765],
		[4, "gone", false, "NET1", 1500, 1], [63, "?", false, "", 1500, 0]]' fabrics
	good_json '.fabrics[1].peers[1].gid == "20212223-2425-2627-2829-2a2b2c2d2e2f" and
		.fabrics[1].tag == "000abc"' fabrics
	good_json '.fabrics[:1] == [{"index": 0, "name": "memfd:", "pooled": 5, "dmbs": 2, "peers": [],
		"dmb_bytes": 139264, "caps": "attach,doorbell,export",
		"gid": "00010203-0405-0607-0809-0a0b0c0d0e0f",
		"uuid": "10111213-1415-1617-1819-1a1b1c1d1e1f"}]' fabrics
	exec 9>&-
	wait "$pid"
	bad 1 'ismredird is not running' dmbs
	rm -f "$ISMREDIR_SOCK"
}

# ---------------------------------------------------------------- fabric

test_fabric_arguments()
{
	bad 2 'expected format, show or fsck' fabric
	bad 2 'expected format, show or fsck' fabric make
	for c in format show fsck; do
		bad 2 "fabric $c: expected one fabric, as shm:PATH, cxl:PATH or ivshmem:DEVICE" fabric "$c"
		bad 2 "fabric $c: expected one fabric" fabric "$c" shm:a shm:b
		bad 1 'expected shm:PATH, cxl:PATH or ivshmem' fabric "$c" memfd:
		bad 1 '/no/such: No such file' fabric "$c" shm:/no/such
		bad 1 'expected a path' fabric "$c" shm:
	done
	bad 2 '--size: expected' fabric format shm:/no/such --size 1
	bad 2 '--size: expected' fabric format shm:/no/such --size 1X
	bad 2 '--peers: expected 1 to 64' fabric format shm:/no/such --peers 65
	bad 2 '--dmbs: expected' fabric format shm:/no/such --dmbs 0
	bad 2 '--unit: expected' fabric format shm:/no/such --unit 100
	bad 2 'needs a value' fabric format shm:/no/such --unit
	bad 2 'unknown option' fabric format shm:/no/such --what
	bad 2 '--evict: expected the number' fabric fsck shm:/no/such --evict x
}

test_fabric()
{
	local r=$TMP/asan/region

	good "fabric format" fabric format "shm:$r" --size 2M --peers 3 --dmbs 16
	is "fabric format: says what it is" grep -q 'of 2.0M: 3 peers with .* for 16 DMBs each' "$TMP/out"
	bad 1 'is a region already' fabric format "shm:$r"
	good "fabric show" fabric show "shm:$r"
	is "fabric show: nobody" grep -qx 'no peers' "$TMP/out"
	good_json '.max_peers == 3 and .max_dmbs == 16 and .size == 2097152 and .peers == []' \
		fabric show "cxl:$r"
	good "fabric fsck" fabric fsck "shm:$r"
	is "fabric fsck: all is well" grep -qx '0 problems' "$TMP/out"
	good_json '.problems == []' fabric fsck "shm:$r" --repair
	bad 1 'nobody is peer 2' fabric fsck "shm:$r" --evict 2
	bad 1 'there is no peer 3' fabric fsck "shm:$r" --evict 3
	good_json '.peers == 8' fabric format "shm:$r" --force --dmbs 4
	bad 1 'bytes are too few' fabric format "shm:$r" --force --peers 64 --dmbs 512
	bad 1 'expected 1 to 64 peers' fabric format "shm:$r" --force --unit 12288
	chmod o+w "$r"
	bad 1 'everybody may write to it' fabric show "shm:$r"
	chmod o-w "$r"
	head -c 4096 /dev/zero >"$r"
	bad 1 'not formatted' fabric show "shm:$r"
	: >"$r"
	bad 1 'it has no memory' fabric show "shm:$r"
	rm -f "$r"
}

# ---------------------------------------------------------------- nothing is loaded

test_not_loaded()
{
	good "status" status
	is "status: not loaded is a state" grep -qx 'not loaded' "$TMP/out"
	good_json '. == {"loaded": false}' status
	bad 1 'not loaded' conns
	bad 1 'not loaded' conns -l
	bad 1 'not loaded' conns port 80 comm redis plane skmsg state established netns 1
	bad 1 'not loaded' peers
	bad 1 'not loaded' policy
	bad 1 'not loaded' unload
	bad 1 'not loaded' unload --timeout 1
	is "nothing made the pin directory" [ ! -e "$ISMREDIR_PIN_DIR" ]
}

# A bpffs is wanted before anything is tried. Should something be tried: on a cgroup of our own.
test_no_bpffs()
{
	local cg

	cg=$(awk '/ - cgroup2 / { print $5; exit }' /proc/self/mountinfo)/ismredir-cli-$$
	if ! mkdir "$cg" 2>/dev/null; then
		skip "cannot make a cgroup: load without a bpffs is left out"
		return
	fi
	bad 1 'is not a bpffs' load --cgroup "$cg" --port 80 --skip-tests
	is "load left nothing" [ ! -e "$ISMREDIR_PIN_DIR" ]
	is "the cgroup can be removed" rmdir "$cg"
}

# ---------------------------------------------------------------- all of it

# stdout that cannot be written is a failure, not silence
test_full_output()
{
	local c

	[ -c /dev/full ] || return
	for c in version help "explain all" "-j explain all"; do
		# shellcheck disable=SC2086
		timeout 60 "${AS[@]}" "$TMP/ismredir" $c >/dev/full 2>"$TMP/err" </dev/null
		rc=$?
		: >"$TMP/out"
		is "$c to a full device fails" [ "$rc" -eq 1 ]
	done
}

AS=("${NOBODY[@]}")
test_help
test_prefixes
test_global_options
test_version
test_explain
test_no_arguments_taken
test_fabric_arguments
test_fabric
test_conns_arguments
test_unload_arguments
test_full_output
test_no_daemon
test_daemon
test_run
if [ -n "$UNPRIVILEGED" ]; then
	test_load_values
	test_load_options
	test_load_limits
	test_load_places
	test_load_config
	test_no_privileges
fi
AS=()
if [ "$(id -u)" = 0 ]; then
	test_not_loaded
	test_no_bpffs
else
	skip "not root: the states without a load are left out"
fi
for log in "$TMP"/asan/log*; do
	[ -e "$log" ] || continue
	fail "the sanitizer found: $(head -c 3000 "$log")"
done
print_counts
