# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2153 # DIR and PORT come from lib.sh and run.sh
#
# Programs' own test suites, first as they are in the same box, then under `ismredir run`: what passes must
# be the same. CPython's have both ends of each connection in one process.

PYTHON311=/usr/bin/python3.11
# All of them in a long run; a short one takes what is about sockets, and quick.
CPYTHON_LONG=(test_socket test_select test_selectors test_poll test_epoll test_ssl test_asyncio test_httplib
	test_httpservers test_ftplib test_smtplib test_socketserver test_asyncore test_asynchat test_telnetlib
	test_urllib2_localnet test_xmlrpc test_subprocess test_signal test_threading)
CPYTHON_SHORT=(test_socket test_select test_epoll test_httplib test_httpservers test_smtplib test_socketserver
	test_asyncore test_asynchat test_urllib2_localnet
	test_asyncio.test_sock_lowlevel test_asyncio.test_streams test_asyncio.test_sendfile
	test_asyncio.test_buffered_proto test_asyncio.test_selector_events)

# cpython RESULTS MODULE - one module of the suite
cpython()
{
	mkdir -p "$DIR/cwd"
	LIMIT=400 inbox env -C "$DIR/cwd" "$PYTHON311" "$RINGS/pytests.py" "$1" "$2" </dev/null >"$1.out" 2>&1
	[ -s "$1" ] || die "$2: no results: $(tail -n 2 "$1.out")"
}

# cpython_module MODULE - natively and under run; a test that differs gets one second try, shown
cpython_module()
{
	local CLIENT_BY=() try

	cpython "$DIR/native" "$1"
	CLIENT_BY=("${UNDER_RUN[@]}")
	for try in 1 2; do
		cpython "$DIR/rings" "$1"
		differ "$1" || return 0
		[ -z "${KEEP:-}" ] || cp "$DIR/rings.out" "$KEEP/$1.$try.out"
	done
	CLIENT_BY=()
	cpython "$DIR/native" "$1" # or is it the machine?
	! differ "$1"
}

# differ MODULE - prints the tests that passed natively and do not under run; false when there are none
differ()
{
	comm -23 <(grep '^ok ' "$DIR/native" | sort) <(sort "$DIR/rings") | sed "s/^ok/$1: not under run:/" |
		tee "$DIR/differ" | grep .
}

app cpython lifecycle "$PYTHON311" comm
app_cpython()
{
	local module modules=("${CPYTHON_SHORT[@]}") wrong=0 count

	[ -z "$FULL" ] || modules=("${CPYTHON_LONG[@]}")
	[ -e /usr/lib/python3.11/test/test_socket.py ] ||
		{ echo "libpython3.11-testsuite is not installed" >"$DIR/skip" && return; }
	export ISMREDIR_AFTER=1,1
	start_daemon
	load --plane direct
	for module in "${modules[@]}"; do
		cpython_module "$module" >"$DIR/said" 2>&1 || wrong=$((wrong + 1))
		cat "$DIR/said" >>"$DIR/differing.log"
		count=$((${count:-0} + $(grep -c '^ok ' "$DIR/native")))
	done
	[ $wrong = 0 ] || die "$wrong modules differ: $(grep -v '^$' "$DIR/differing.log" | head -n 40)"
	[ "$(counter ring_bytes)" -gt 1000000 ] || die "only $(counter ring_bytes) bytes through rings"
	no_timeouts
	echo "$count tests, $(($(counter ring_bytes) / 1000)) kB through rings, $(counter attaches) ends" >"$DIR/note"
	stop_programs
	unload
	stop_daemon
}

# source_of PACKAGE - Debian's source of it, below DIR; false when it cannot be had
source_of()
{
	local apt="$TOP/apt" options

	mkdir -p "$apt/lists/partial" "$apt/parts" "$DIR/src"
	options=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/parts" -o "Dir::State::lists=$apt/lists"
		-o "Dir::Cache=$apt" -o APT::Sandbox::User=root)
	if [ ! -e "$apt/parts/debian.sources" ]; then
		sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$apt/parts/debian.sources" &&
			apt-get -qq "${options[@]}" update || return 1
	fi
	(cd "$DIR/src" && apt-get -qq "${options[@]}" source "$1" 2>"$DIR/apt.log" && cd "$1"-* && pwd) | tail -n 1
}

# redis' own suite, by Debian's binaries: the parts that talk to servers.
app redis-suite lifecycle redis-server tclsh apt-get dpkg-source
long redis-suite
app_redis-suite()
{
	local src units=() unit

	src=$(source_of redis) || src=
	[ -n "$src" ] || { echo "apt-get gets no source of redis" >"$DIR/skip" && return; }
	for unit in redis-server redis-cli redis-benchmark; do
		ln -s "$(command -v $unit)" "$src/src/$unit"
	done
	for unit in protocol keyspace scan expire other auth multi pubsub dump latency-monitor type/string type/list \
		type/set type/zset type/hash type/stream bitops obuf-limits querybuf client-eviction tracking \
		pubsubshard info limits; do
		units+=(--single "unit/$unit")
	done
	units+=(--single integration/redis-cli --single integration/redis-benchmark --single integration/block-repl)
	suite_of "$src" ./runtest --clients 2 --no-latency --timeout 120 "${units[@]}"
}

# What memcached's suite calls a debugging build: Debian's, that says nothing of Unix sockets, so that the
# suite uses TCP, and is not told what only such a build knows.
write_memcached_debug()
{
	cat >"$1" <<-'END'
		#!/bin/bash
		[ "$*" != -h ] || exec bash -c 'memcached -h | grep -v unix-socket'
		args=()
		for arg; do
			case $arg in
			relaxed_privileges) unset 'args[-1]' ;;
			*) args+=("${arg/,relaxed_privileges/}") ;;
			esac
		done
		exec memcached -u root "${args[@]}"
	END
	chmod +x "$1"
}

# memcached's own suite, as far as it does not need the debugging build.
app memcached-suite lifecycle memcached prove cc apt-get dpkg-source
long memcached-suite
app_memcached-suite()
{
	local src

	src=$(source_of memcached) || src=
	[ -n "$src" ] || { echo "apt-get gets no source of memcached" >"$DIR/skip" && return; }
	write_memcached_debug "$src/memcached-debug"
	cc -o "$src/timedrun" "$src/timedrun.c" || die "cannot build what starts memcached"
	suite_of "$src" prove -j2 t/
}

# suite_of FOLDER COMMAND... - natively, then under run: the same lines that say that something passed
suite_of()
{
	local src=$1 CLIENT_BY=()

	shift
	export ISMREDIR_AFTER=1,1
	start_daemon
	load --plane direct
	LIMIT=1800 inbox env -C "$src" "$@" >"$DIR/native" 2>&1
	CLIENT_BY=("${UNDER_RUN[@]}")
	LIMIT=1800 inbox env -C "$src" "$@" >"$DIR/rings" 2>&1
	for log in native rings; do
		sed 's/\x1b\[[0-9;]*m//g' "$DIR/$log" | sed -nE 's/^(\[ok\]: [^(]*).*/\1/p; s/^(t\/[^ ]*) \.+ ok$/\1/p' |
			sort >"$DIR/$log.ok"
	done
	[ -s "$DIR/native.ok" ] || die "nothing passes natively: $(tail -n 3 "$DIR/native")"
	comm -23 "$DIR/native.ok" "$DIR/rings.ok" >"$DIR/differ"
	[ ! -s "$DIR/differ" ] || die "does not pass under run: $(head -n 20 "$DIR/differ")"
	[ "$(counter ring_bytes)" -gt 1000000 ] || die "only $(counter ring_bytes) bytes through rings"
	no_timeouts
	echo "$(wc -l <"$DIR/native.ok") tests, $(($(counter ring_bytes) / 1000)) kB through rings" >"$DIR/note"
	stop_programs
	unload
	stop_daemon
}
