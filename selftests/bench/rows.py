# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The rows of the bench that our own programs measure, and what a row is."""

import dataclasses
import json
import os
import time

from stage import NOWHERE

SOCKETS = ("tcp", "naive", "unix", "skmsg", "direct")
PING_SIZES = (14, 64, 256, 1024, 4096, 8192, 16384, 65536)
SOME_PING_SIZES = (64, 1024, 8192, 65536)
STREAM_SIZES = (64, 256, 1024, 4096, 16384, 65536, 262144, 1 << 20)
SOME_STREAM_SIZES = (64, 1024, 4096, 65536, 1 << 20)
BUSY = 8
TURNS = 6  # where differences of two percent matter


@dataclasses.dataclass
class Effort:
    """How long things are measured: a default run, a quick one, one that only tries everything."""

    rounds: int
    ms: int
    connect_ms: int
    requests: int
    cap: int
    app_s: int
    repeats: int  # measurements that may be repeated in a round because others were at work


EFFORTS = {
    "default": Effort(rounds=5, ms=250, connect_ms=400, requests=50000, cap=256 << 20, app_s=2,
                      repeats=150),
    "quick": Effort(rounds=3, ms=100, connect_ms=150, requests=10000, cap=128 << 20, app_s=1,
                    repeats=40),
    "smoke": Effort(rounds=1, ms=20, connect_ms=30, requests=1000, cap=32 << 20, app_s=1,
                    repeats=0),
}


@dataclasses.dataclass
class Row:
    """
    One line of the result.
    @name: as --only selects it
    @group: the table that it belongs to
    @key: which number of the measurement counts
    @fewer: less of it is better
    @planes: what it can be measured on
    @measure: function of a stage and a plane, returns the numbers
    @needs: programs that must be installed
    @turns: so often all planes in turn for one result, the mean: where what happens at first lasts
            for a run, or small differences matter more than what the host does from second to second
    """

    name: str
    group: str
    label: str
    key: str
    fewer: bool
    planes: tuple
    measure: object
    needs: tuple = ()
    turns: int = 1


def named(size):
    """A size as people write it."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def cpus(place):
    """Where server and client run: two CPUs, one, or where the scheduler puts them."""
    have = sorted(os.sched_getaffinity(0))
    if place == "free":
        return []
    client = have[1] if place == "two-cpus" and len(have) > 1 else have[0]
    return ["--server-cpu", str(have[0]), "--client-cpu", str(client)]


def netload(stage, work, server, client, args, seconds):
    """One run of the workload program; @server and @client are the planes their ends belong to."""
    port = stage.port()
    if server == "unix":
        address = f"unix:{stage.folder}/{port}"
    else:
        address = f"{'0.0.0.0' if work == 'connect' else '127.0.0.1'}:{port}"
    command = [stage.tool("netload"), "pair", address, work, "--server-cgroup",
               stage.cgroup_of(server), "--client-cgroup", stage.cgroup_of(client)]
    for end, plane in (("server", server), ("client", client)):
        if plane in ("direct", NOWHERE):
            command += [f"--{end}-run", stage.tool("ismredir")]
    # the plane only says in which environment; both ends join cgroups of their own
    plane = NOWHERE if NOWHERE in (server, client) else "tcp"
    return json.loads(stage.output(plane, command + args, seconds + 30))


def bare(stage, plane, work, args):
    """One run of the limits."""
    work = work if plane == "ring" else "memcpy"
    return json.loads(stage.output("tcp", [stage.tool("barering"), work, *args], 40))


def load_row(name, group, label, key, work, args, effort_ms, planes, ends=None, more=(), turns=1):
    """
    A row of the workload program.
    @args: options that the bare ring has, too; @more: others
    @ends: function of the plane, gives those of both ends
    """
    args = [str(a) for a in ["--ms", effort_ms, *args]]
    more = [str(a) for a in more]

    def measure(stage, plane):
        if plane in ("ring", "memcpy"):
            return bare(stage, plane, work, args)
        server, client = ends(plane) if ends else (plane, plane)
        return netload(stage, work, server, client, args + more, effort_ms / 1000)

    return Row(name, group, label, key, not key.endswith("per_sec"), planes, measure, turns=turns)


def ping_rows(effort):
    """Latency of request and answer."""
    places = (("two-cpus", PING_SIZES), ("one-cpu", PING_SIZES), ("free", SOME_PING_SIZES))
    return [load_row(f"ping/{size}/{place}", f"ping/{place}", named(size), "p50_us", "ping",
                     ["--size", size, *cpus(place)], effort.ms, SOCKETS + ("ring",))
            for place, sizes in places for size in sizes]


def epoll_rows(effort):
    """The same between programs that wait in epoll_wait()."""
    return [load_row(f"epoll/{size}/{place}", "epoll", f"{named(size)}, {words}", "p50_us", "ping",
                     ["--size", size, *cpus(place)], effort.ms, SOCKETS, more=["--epoll"])
            for place, words in (("two-cpus", "two CPUs"), ("one-cpu", "one CPU"))
            for size in (64, 1024, 65536)]


def stream_rows(effort):
    """Rate in one direction."""
    return [load_row(f"stream/{size}/{place}", f"stream/{place}", named(size), "gb_per_sec",
                     "stream", ["--size", size, *cpus(place)], effort.ms,
                     SOCKETS + ("ring", "memcpy"))
            for place, sizes in (("two-cpus", STREAM_SIZES), ("one-cpu", SOME_STREAM_SIZES),
                                 ("free", SOME_STREAM_SIZES))
            for size in sizes]


def busy_rows(effort):
    """Beside processes that only compute. The mean counts: a median hides lost turns."""
    planes = ("tcp", "unix", "skmsg", "direct")
    rows = [load_row(f"busy/ping/{size}/{place}", f"busy/ping/{place}", named(size), "mean_us",
                     "ping", ["--size", size, *cpus(place)], 4 * effort.ms, planes,
                     more=["--busy", BUSY])
            for place in ("free", "two-cpus") for size in SOME_PING_SIZES]
    return rows + [load_row(f"busy/stream/{size}/{place}", f"busy/stream/{place}", named(size),
                            "gb_per_sec", "stream", ["--size", size, *cpus(place)],
                            4 * effort.ms, planes, more=["--busy", BUSY])
                   for place in ("free", "two-cpus") for size in (64, 1024, 65536, 1 << 20)]


def connect_rows(effort):
    """
    Short connections, by who of the two ends is capable. On one CPU nobody is ever idle, so the rate
    says what a connection costs; on two it also says who fell asleep before the next one came, which
    goes on as it began.
    """
    some = ("tcp", "naive", "skmsg", "direct")
    kinds = (("both", "both ends capable", lambda p: (p, p), some + ("unix",)),
             ("out", "to a peer that is not capable", lambda p: ("tcp", p), some),
             ("in", "from a peer that is not capable", lambda p: (p, "tcp"), some),
             ("unloaded", "under `ismredir run`, nothing loaded",
              lambda p: (p, p) if p == "tcp" else (NOWHERE, NOWHERE), ("tcp", "direct")))
    return [load_row(f"connect/{kind}/{place}", "connect", f"{label}, {words}", "per_sec",
                     "connect", cpus(place), effort.connect_ms, planes, ends, ["--spread", 16],
                     TURNS)
            for place, words in (("one-cpu", "one CPU"), ("two-cpus", "two CPUs"))
            for kind, label, ends, planes in kinds]


def memory_rows(effort):
    """A reader that never reads."""
    flood = f"64 KiB sends, at most {effort.cap >> 20} MiB"
    rows = [load_row("memory/flood", "memory", flood, "accepted", "hold", ["--size", 65536], 3000,
                     SOCKETS, more=["--cap", effort.cap]),
            load_row("memory/bytes", "memory", "200,000 sends of 1 byte", "accepted", "hold",
                     ["--size", 1], 3000, SOCKETS, more=["--count", 200000])]
    return rows + [load_row("idle/500", "idle", "500 connections, 20 messages of 64 B on each",
                            "total_kib", "idle", ["--size", 64], 3000, SOCKETS,
                            more=["--conns", 500, "--msgs", 20])]


def per_second(stage, plane, command, count, timeout):
    """Run a program that does @count things. Return: how many of them a second."""
    begin = time.monotonic()
    stage.output(plane, stage.under(plane, command), timeout)
    secs = time.monotonic() - begin
    return {"secs": secs, "per_sec": count / secs}


def other_rows(effort):
    """Programs that have nothing to do with TCP: what does the library cost them?"""
    def local(what, *args):
        def measure(stage, plane):
            command = [stage.tool("netload"), "local", "--ms", str(effort.ms), "--size", "64",
                       *args, what]
            return json.loads(stage.output(plane, stage.under(plane, command), 30))
        return measure

    blocks, runs = effort.ms * 4000, max(effort.ms // 2, 20)
    dd = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64", f"count={blocks}", "status=none"]
    loop = ["sh", "-c", f"i=0; while [ $i -lt {runs} ]; do /bin/true; i=$((i+1)); done"]
    # On two CPUs it is the waking up of the other that is measured: seven times as long, and noisier
    kinds = (("pipe", "ping-pong through pipes, 64 B, one CPU", local("pipe", *cpus("one-cpu"))),
             ("file", "read a file, 64 B", local("file")),
             ("dd", "dd bs=64",
              lambda stage, plane: per_second(stage, plane, dd, blocks, 60)),
             ("true", "start /bin/true from a shell",
              lambda stage, plane: per_second(stage, plane, loop, runs, 60)))
    return [Row(f"other/{kind}", "other", label, "per_sec", False, ("tcp", "direct"), measure,
                turns=TURNS) for kind, label, measure in kinds]


def own_rows(effort):
    """Every row that needs no foreign program."""
    return (ping_rows(effort) + epoll_rows(effort) + stream_rows(effort) + connect_rows(effort) +
            other_rows(effort) + busy_rows(effort) + memory_rows(effort))
