# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# load, replace, unload, and what may go wrong around them, mostly under traffic.

# bulk [ARGS...] - open-ended verified traffic in the background, until end_bulk
bulk()
{
	spawn bulk in_ns "$B/netns/traffic" pair --cgroup "$CG" --eagain-ok --seconds 50 "$@"
	BULK=$PID
	within 10 moving || fail "the traffic does not start: $(cat "$DIR/bulk.log")"
}

# moving - connections are there (or, without ismredir, time has passed)
moving()
{
	if [ -e "$ISMREDIR_PIN_DIR" ]; then
		[ "$(status .connections.now)" -gt 0 ]
	else
		sleep 0.3
	fi
}

end_bulk()
{
	! gone_or_zombie "$BULK" || fail "the traffic ended by itself: $(cat "$DIR/bulk.log")"
	kill -TERM "$BULK"
	reap "$BULK" 0 bulk
}

# not_loaded - as if it had never been
not_loaded()
{
	[ ! -e "$ISMREDIR_PIN_DIR" ] || fail "pins are there: $(ls "$ISMREDIR_PIN_DIR")"
	[ "$(status .loaded)" = false ] || fail "status says loaded"
	[ -z "$(bpftool cgroup show "$CG" 2>/dev/null)" ] || fail "programs are attached"
}

# ---------------------------------------------------------------- under traffic

test_unload_under_traffic()
{
	local kind

	needs_plane
	for kind in "--conns 2 --sizes mix" "--conns 2 --sizes log --io et --pause-tx 20:3" \
		"--conns 20 --sizes small --io lt --pause-tx 50:3" \
		"--conns 2 --io et --side server --pause-rx 10:30"; do
		load_restless
		# shellcheck disable=SC2086 # words
		bulk $kind
		sleep 0.7
		unload
		not_loaded
		sleep 0.3
		end_bulk
	done
}

test_unload_under_requests()
{
	needs_plane
	load_restless
	spawn requests in_ns "$B/netns/traffic" pair --cgroup "$CG" --eagain-ok --rounds 20000 \
		--sizes small --sockopt nodelay=1 --conns 4
	within 10 moving
	sleep 0.5
	unload
	reap "$PID" 0 requests
}

test_replace_under_traffic()
{
	local i

	needs_plane
	load_restless
	bulk --conns 4 --sizes mix --pause-tx 50:5 --io et
	for i in 1 2 3 4 5; do
		load_restless --replace
		[ "$(status .connections.now)" = 8 ] ||
			fail "replace $i lost records: $(ism conns)"
		sleep 0.2
	done
	accel_pair "" # what comes after is accelerated, too
	end_bulk
	unload
}

# New and old connections beside a hundred loads, replaces and unloads.
test_hundred_loads()
{
	local i end=$((SECONDS + 45))

	needs_plane
	bulk --repeat --conns 3 --bytes 60000 --sizes log --pause-tx 50:5
	spawn long in_ns "$B/netns/traffic" pair --cgroup "$CG" --eagain-ok --seconds 100 --conns 2 \
		--sizes log --pause-tx 50:5 --io lt
	for ((i = 0; i < 34 && SECONDS < end; i++)); do
		load
		load --replace
		unload
	done
	echo "$i rounds"
	[ $i -ge 10 ] || fail "only $i rounds in 45 s"
	not_loaded
	kill -TERM "$PID"
	reap "$PID" 0 long
	end_bulk
}

# ---------------------------------------------------------------- killed

# The loader dies at any moment: what is there works, is taken away, or loaded over.
test_killed_loader()
{
	local i left end=$((SECONDS + 40))

	needs_plane
	orphan_cgroups >"$DIR/before"
	bulk --repeat --conns 3 --bytes 60000 --sizes log --pause-tx 50:5
	for ((i = 0; i < 25 && SECONDS < end; i++)); do
		spawn loader "$ISMREDIR" load --cgroup "$CG"
		sleep "0.$(printf '%03d' $((RANDOM % 500)))"
		kill -KILL "$PID" 2>/dev/null || true
		wait "$PID" 2>/dev/null || true
		if ((RANDOM % 2)); then
			recover_by_load
		else
			recover_by_unload
		fi
		not_loaded
	done
	echo "$i rounds"
	end_bulk
	# The next one tidies up after self-tests that were killed.
	expect 0 ism load --cgroup "$CG"
	unload
	orphan_cgroups >"$DIR/after"
	left=$(comm -13 "$DIR/before" "$DIR/after")
	[ -z "$left" ] || { echo "$left" | xargs rmdir; fail "cgroups of killed self-tests stay: $left"; }
}

# orphan_cgroups - of self-tests whose process is gone
orphan_cgroups()
{
	local dir

	for dir in "$(cgroup_root)"/ismredir-check-*; do
		[ ! -d "$dir" ] || [ -d "/proc/${dir##*-}" ] || echo "$dir"
	done | sort
}

recover_by_load()
{
	ism load --cgroup "$CG" --skip-tests >"$DIR/out" 2>&1 ||
		expect 0 ism load --cgroup "$CG" --skip-tests --replace
	accel_pair "" --bytes 100000
	expect 0 ism unload
}

recover_by_unload()
{
	if [ -e "$ISMREDIR_PIN_DIR" ]; then
		expect 0 ism unload
	else
		expect 1 ism unload
	fi
}

test_killed_unload()
{
	local i

	needs_plane
	for ((i = 0; i < 8; i++)); do
		load_restless
		bulk --conns 4 --sizes mix --pause-tx 50:5 --io et
		spawn unloader "$ISMREDIR" unload
		sleep "0.$(printf '%03d' $((RANDOM % 300)))"
		kill -KILL "$PID" 2>/dev/null || true
		wait "$PID" 2>/dev/null || true
		recover_by_unload
		not_loaded
		end_bulk
	done
}

# An application dies under load: its peer sees the end, as on TCP, and the records go.
test_killed_application()
{
	local who

	load
	for who in server client; do
		start_server server --cgroup "$CG" --c2s 2000000000 --s2c 2000000000 --conns 3 --eagain-ok
		local server=$PID
		spawn client in_ns "$B/netns/traffic" client --cgroup "$CG" --port "$PORT" --conns 3 \
			--c2s 2000000000 --s2c 2000000000 --eagain-ok
		local client=$PID
		sleep 0.7
		kill -KILL "${!who}"
		wait "${!who}" 2>/dev/null || true
		if [ $who = server ]; then
			reap "$client" 3 client
		else
			reap "$server" 3 server
		fi
		within 5 no_conns_or_plain || fail "records of the dead stay: $(ism conns)"
	done
	unload
}

# ---------------------------------------------------------------- readers that sleep

test_unload_sleeping_reader()
{
	needs_plane
	load
	spawn sleeper in_ns "$B/netns/traffic" pair --cgroup "$CG" --eagain-ok --io poll --c2s 3000000 \
		--sizes 60000 --side server --sleep-rx 6000
	within 10 backlog || fail "no backlog: $(ism conns)"
	expect 1 ism unload --timeout 1
	[ "$(status .word)" = drain ] || fail "state $(status .word), not drain"
	accel_pair "" --bytes 100000
	reap "$PID" 0 sleeper
	unload
	not_loaded
}

backlog()
{
	[ "$(conns '[.conns[].backlog] | add // 0')" -gt 0 ]
}

# While it drains it can be switched on again.
test_load_while_draining()
{
	needs_plane
	load
	spawn sleeper in_ns "$B/netns/traffic" pair --cgroup "$CG" --eagain-ok --io poll --c2s 3000000 \
		--sizes 60000 --side server --sleep-rx 5000
	within 10 backlog || fail "no backlog: $(ism conns)"
	expect 1 ism unload --timeout 0
	load --replace
	[ "$(status .word)" = on ] || fail "state $(status .word), not on"
	accel_pair "" --bytes 100000
	reap "$PID" 0 sleeper
	unload
}

# ---------------------------------------------------------------- surroundings that are missing

test_cgroup_removed()
{
	needs_plane
	mkdir "$CG/gone"
	load --cgroup "$CG/gone"
	rmdir "$CG/gone"
	expect 0 ism status
	expect 0 ism -j conns
	unload
	not_loaded
}

test_no_bpffs()
{
	needs_plane
	mkdir "$DIR/plain"
	ISMREDIR_PIN_DIR=$DIR/plain/pins expect 1 ism load --cgroup "$CG"
	said 'bpffs'
	ISMREDIR_PIN_DIR=$DIR/none/pins expect 1 ism load --cgroup "$CG"
	# In a mount namespace of its own, with the default place.
	# shellcheck disable=SC2016 # for that shell
	expect 1 env -u ISMREDIR_PIN_DIR unshare -m sh -c \
		'mount --make-rprivate / && mount -t tmpfs none /sys/fs/bpf &&
		exec "$0" load --cgroup "$1"' "$ISMREDIR" "$CG"
	said 'mount -t bpf'
	not_loaded
}

test_no_root()
{
	local nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)

	needs_plane
	cp "$ISMREDIR" "$DIR/ismredir"
	expect 1 "${nobody[@]}" "$DIR/ismredir" load --cgroup "$CG"
	said 'CAP_|root|privilege|permitted'
	expect 1 "${nobody[@]}" "$DIR/ismredir" unload
	expect 1 "${nobody[@]}" "$DIR/ismredir" check
	expect 0 "${nobody[@]}" "$DIR/ismredir" help
	expect 0 "${nobody[@]}" "$DIR/ismredir" version
	expect 0 "${nobody[@]}" "$DIR/ismredir" explain all
	not_loaded
}

# A kernel that lacks something: what is essential is refused, the rest degrades, and nothing stays.
test_failing_selftests()
{
	local name verdict

	needs_plane
	for name in $(ism -j check | jq -r '.tests[].name'); do
		ISMREDIR_FAIL_TEST=$name ism -j check >"$DIR/check" || true
		verdict=$(jq -r .planes.skmsg.verdict "$DIR/check")
		case $name in
		load | option | insert | redirect | rmem | order | shutdown | backpressure)
			[ "$verdict" = refused ] || fail "without $name: $verdict"
			;;
		esac
		if [ "$verdict" = refused ]; then
			ISMREDIR_FAIL_TEST=$name expect 1 ism load --cgroup "$CG"
			said "$name"
			not_loaded
		else
			ISMREDIR_FAIL_TEST=$name expect 0 ism load --cgroup "$CG"
			unload
		fi
	done
	ISMREDIR_FAIL_TEST=redirect expect 0 ism load --cgroup "$CG" --skip-tests
	unload
}

# ---------------------------------------------------------------- what the user may get wrong

test_already_loaded()
{
	needs_plane
	load
	expect 1 ism load --cgroup "$CG" --skip-tests
	said 'loaded|--replace'
	talk accel
	unload
	expect 1 ism unload
	said 'not loaded'
	not_loaded
	load --replace # of nothing
	talk accel
	unload
}

test_not_loaded()
{
	needs_plane
	expect 0 ism status
	said 'not loaded'
	expect 1 ism conns
	said 'not loaded'
	expect 1 ism peers
	expect 1 ism policy
	not_loaded
}

test_bad_arguments()
{
	local bad

	needs_plane
	while read -r bad; do
		# shellcheck disable=SC2086 # words
		expect 2 ism $bad
		[ -s "$DIR/out" ] || fail "no message for: $bad"
	done <<-END
	nonsense
	load --cgroup
	load --cgroup $CG --port 0
	load --cgroup $CG --port 70000
	load --cgroup $CG --port 9-8
	load --cgroup $CG --port 1-2-3
	load --cgroup $CG --port x
	load --cgroup $CG --peer 1.2.3.4/33
	load --cgroup $CG --peer 1.2.3
	load --cgroup $CG --comm sixteen-letters-
	load --cgroup $CG --plane warp
	load --cgroup $CG --max-conns 0
	load --cgroup $CG --max-conns -1
	load --cgroup $CG --set nonsense=1
	load --cgroup $CG --set budget-bytes
	load --cgroup $CG --nonsense
	load --cgroup $CG extra
	unload --timeout
	unload --timeout x
	unload extra
	conns port
	conns port x
	conns nonsense
	explain 0x9999
	explain
	status extra
	END
	not_loaded
	expect 1 ism load --cgroup "$CG/no-such" --skip-tests
	said no-such
	expect 2 ism load --cgroup /tmp --skip-tests
	said cgroup
	not_loaded
}

# bad_config LINE TEXT... - the last of these lines is wrong, and the message says where
bad_config()
{
	local line=$1

	shift
	printf '%s\n' "$@" >"$DIR/conf"
	expect 2 ism load --cgroup "$CG" --config "$DIR/conf" --skip-tests
	said "conf:$line"
}

test_bad_config()
{
	needs_plane
	bad_config 2 "[load]" "port = 99999"
	bad_config 2 "[load]" "no-such = 1"
	bad_config 3 "[load]" "port = 9000" "comm"
	bad_config 1 "port = 9000"
	bad_config 2 "[nonsense]" "port = 9000"
	bad_config 3 "[rule a]" "port = 9000" "plane = warp"
	bad_config 2 "[rule a]" "direction = up"
	bad_config 2 "[rule a]" "peer = 10.0.0.0/40"
	bad_config 4 "[load]" "# comment" "" "max-conns = many"
	bad_config 2 "[load]" "cgroup = $CG/no-such"
	expect 1 ism load --cgroup "$CG" --config "$DIR/no-such-file"
	said no-such-file
	head -c 5000 /dev/urandom >"$DIR/conf"
	expect 2 ism load --cgroup "$CG" --config "$DIR/conf"
	not_loaded
}

# Everything that lists speaks JSON, and says the same as the tables.
test_json()
{
	local verb

	needs_plane
	load
	talk accel --on-connected "$ISMREDIR -j conns | jq -e '.conns | length == 2' >/dev/null"
	for verb in status conns "conns -l" peers policy check version "explain all"; do
		# shellcheck disable=SC2086 # words
		ism -j $verb | jq -e . >/dev/null || fail "-j $verb is not JSON"
		# shellcheck disable=SC2086 # words
		ism -p $verb | jq -e . >/dev/null || fail "-p $verb is not JSON"
	done
	bpftool map show pinned "$ISMREDIR_PIN_DIR/conns" >/dev/null || fail "conns is not pinned"
	bpftool -j map dump pinned "$ISMREDIR_PIN_DIR/ctl" |
		jq -e '.[0].formatted.value.format' >/dev/null || fail "ctl has no readable fields"
	unload
}

# Counters of ended connections are kept: status adds up.
test_counters()
{
	needs_plane
	load
	pair --bytes 1000000
	pair --bytes 1000000 --rounds 0 --io et
	within 5 no_conns
	[ "$(status '.stats | .redir_bytes + .tcp_bytes')" = 4000000 ] ||
		fail "4000000 bytes were sent, counted: $(status '.stats | tostring')"
	[ "$(status .stats.pairs)" = 2 ] || fail "pairs: $(status .stats.pairs)"
	[ "$(status .stats.ended)" = 4 ] || fail "ended: $(status .stats.ended)"
	unload
}
