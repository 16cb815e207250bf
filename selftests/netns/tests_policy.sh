# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# Which connections are selected: port, command, address, direction, file, table size.

# accelerated|plain PORT [ARGS...] - a pair on that port looks so
accelerated()
{
	local port=$1

	shift
	talk accel --port "$port" "$@"
}

plain()
{
	local port=$1

	shift
	talk tcp --port "$port" "$@"
}

test_policy_ports()
{
	needs_plane
	load --port 9000-9100 --port 9500
	accelerated 9000
	accelerated 9100
	accelerated 9500
	plain 8999
	plain 9101
	plain 9499
	# The server's port decides, not the client's.
	plain 8000 --bind-port 9050
	accelerated 9050 --bind-port 8000
	expect_reason policy
	unload
}

test_policy_comm()
{
	local alpha

	needs_plane
	alpha=$(comm_of alpha)
	load --comm alpha
	plain 9000
	start_server a --cgroup "$CG" "${TALK[@]}" --eagain-ok
	# shellcheck disable=SC2153 # start_server sets it
	in_ns "$alpha" client --cgroup "$CG" --port "$PORT" "${TALK[@]}" --eagain-ok \
		--on-verified "$HOOK accel"
	reap "$PID" 0 a
	spawn b in_ns "$alpha" server --cgroup "$CG" "${TALK[@]}" --eagain-ok
	within 10 grep -qs '^port' "$DIR/b.log"
	in_ns "$B/netns/traffic" client --cgroup "$CG" "${TALK[@]}" --eagain-ok \
		--port "$(awk '/^port/ { print $2 }' "$DIR/b.log")" --on-verified "$HOOK accel"
	reap "$PID" 0 b
	unload
}

test_policy_peer()
{
	needs_plane
	cat >"$DIR/conf" <<-END
	[load]
	cgroup = $CG
	default = tcp
	[rule some]
	plane = skmsg
	peer = 127.0.0.8/29
	[rule six]
	peer = ::1
	port = 9000
	END
	expect 0 ism load --config "$DIR/conf" --skip-tests
	accelerated 9000 --listen 127.0.0.9 --connect 127.0.0.9
	accelerated 9000 --listen 0.0.0.0 --connect 127.0.0.15
	accelerated 9000 --listen :: --connect 127.0.0.8
	plain 9000 --listen 127.0.0.16 --connect 127.0.0.16
	plain 9000 --listen 127.0.0.7 --connect 127.0.0.7
	accelerated 9000 --listen ::1 --connect ::1
	plain 9001 --listen ::1 --connect ::1
	unload
}

# A destination behind a router is not local: nothing is offered unless allowed.
test_policy_not_local()
{
	local a=$NS b

	needs_plane
	b=$(another_ns b)
	veth "$a" 10.9.0.1 "$b" 10.9.0.2
	ip -n "$b" addr add 10.50.0.1/32 dev lo
	ip -n "$a" route add 10.50.0.0/24 via 10.9.0.2
	load
	plain 9000 --listen 10.50.0.1 --connect 10.50.0.1 --side server --netns "/run/netns/$b" \
		--side client --netns "/run/netns/$a"
	expect_reason not_local
	unload
	load --peer 10.50.0.0/24
	accelerated 9000 --listen 10.50.0.1 --connect 10.50.0.1 --side server \
		--netns "/run/netns/$b" --side client --netns "/run/netns/$a"
	unload
}

test_policy_plane_tcp()
{
	needs_plane
	load --port 9000 --plane tcp
	plain 9000
	unload
}

test_policy_file()
{
	needs_plane
	mkdir "$CG/one" "$CG/two"
	cat >"$DIR/conf" <<-END
	# a comment
	[load]
	cgroup = $CG
	default = tcp
	max-conns = 1000

	[rule not this one]
	plane = tcp
	port = 9005

	[rule range]
	plane = skmsg
	port = 9000-9010

	[rule group]
	plane = skmsg
	port = 9100
	cgroup = $CG/one

	[rule way]
	plane = skmsg
	port = 9200
	cgroup = $CG/two
	direction = in

	[rule other way]
	plane = skmsg
	port = 9201
	cgroup = $CG/two
	direction = out
	END
	expect 0 ism load --config "$DIR/conf" --skip-tests
	expect 0 ism policy
	said 9000-9010
	accelerated 9000
	plain 9005
	plain 9011
	plain 9100
	accelerated 9100 --cgroup "$CG/one"
	accelerated 9200 --side server --cgroup "$CG/two"
	plain 9200 --side client --cgroup "$CG/two"
	plain 9201 --side server --cgroup "$CG/two"
	accelerated 9201 --side client --cgroup "$CG/two"
	unload
}

# The rules of a running load are changed for what comes then.
test_policy_replaced()
{
	needs_plane
	load --port 9000
	plain 9001
	load --replace --port 9001
	accelerated 9001
	plain 9000
	unload
}

test_map_full()
{
	needs_plane
	load --max-conns 8
	accel_pair "ends=8" --conns 30 --bytes 100000 --sizes log
	expect_reason map_full
	[ "$(status .connections.ever)" -gt 0 ] || fail "nothing was accelerated at all"
	within 5 no_conns || fail "records stay: $(ism conns)"
	# There is room again.
	talk "accel ends=2"
	unload
}
