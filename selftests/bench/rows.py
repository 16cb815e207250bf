# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The rows of the bench: what is measured, and how on each plane."""

import csv
import dataclasses
import io
import json
import os
import socket
import subprocess
import time

from stage import PLANES, BenchError

PING_SIZES = (14, 64, 256, 1024, 4096, 16384, 65536)
STREAM_SIZES = (64, 256, 1024, 4096, 16384, 65536, 262144, 1 << 20)
SOME_STREAM_SIZES = (64, 4096, 65536)


@dataclasses.dataclass
class Effort:
    """How long things are measured: a default run, a quick one, one that only tries everything."""

    rounds: int
    ms: int
    connect_ms: int
    requests: int
    cap: int


EFFORTS = {
    "default": Effort(rounds=7, ms=250, connect_ms=400, requests=50000, cap=256 << 20),
    "quick": Effort(rounds=3, ms=100, connect_ms=150, requests=10000, cap=128 << 20),
    "smoke": Effort(rounds=1, ms=20, connect_ms=30, requests=1000, cap=32 << 20),
}


@dataclasses.dataclass
class Row:
    """
    One line of the result.
    @name: group/what/where, as --only selects it
    @key: which number of the measurement counts
    @fewer: less of it is better
    @planes: what it can be measured on
    @measure: function of a stage and a plane, returns the numbers
    """

    name: str
    label: str
    key: str
    fewer: bool
    planes: tuple
    measure: object

    @property
    def group(self):
        """Which table it belongs to."""
        parts = self.name.split("/")
        return parts[0] if len(parts) < 3 else f"{parts[0]}/{parts[2]}"


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
    out = stage.output("tcp", command + [str(a) for a in args], seconds + 30)
    return json.loads(out)


def load_row(name, label, key, fewer, args, effort_ms, ends=None, planes=PLANES):
    """A row of the workload program. @ends: function of the plane, gives those of both ends."""
    work = name.split("/", maxsplit=1)[0].replace("memory", "hold")

    def measure(stage, plane):
        server, client = ends(plane) if ends else (plane, plane)
        return netload(stage, work, server, client, ["--ms", effort_ms, *args], effort_ms / 1000)

    return Row(name, label, key, fewer, planes, measure)


def ping_rows(effort):
    """Latency of request and answer."""
    return [load_row(f"ping/{size}/{place}", named(size), "p50_us", True,
                     ["--size", size, *cpus(place)], effort.ms)
            for place in ("two-cpus", "one-cpu") for size in PING_SIZES]


def stream_rows(effort):
    """Rate in one direction."""
    return [load_row(f"stream/{size}/{place}", named(size), "gb_per_sec", False,
                     ["--size", size, *cpus(place)], effort.ms)
            for place, sizes in (("two-cpus", STREAM_SIZES), ("one-cpu", SOME_STREAM_SIZES),
                                 ("free", SOME_STREAM_SIZES))
            for size in sizes]


def connect_rows(effort):
    """Short connections, by who of the two ends is capable."""
    some = ("tcp", "naive", "skmsg")
    kinds = (("both", "both ends capable", lambda p: (p, p), some + ("unix",)),
             ("out", "to a peer that is not capable", lambda p: ("tcp", p), some),
             ("in", "from a peer that is not capable", lambda p: (p, "tcp"), some))
    return [load_row(f"connect/{kind}", label, "per_sec", False,
                     ["--spread", 16, *cpus("two-cpus")], effort.connect_ms, ends, planes)
            for kind, label, ends, planes in kinds]


def memory_rows(effort):
    """A reader that never reads."""
    flood = f"64 KiB sends, at most {effort.cap >> 20} MiB"
    return [load_row("memory/flood", flood, "accepted", True,
                     ["--size", 65536, "--cap", effort.cap], 3000),
            load_row("memory/bytes", "200,000 sends of 1 byte", "accepted", True,
                     ["--size", 1, "--count", 200000], 3000)]


def redis_ready(address):
    """Wait until the server answers."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    for _ in range(200):
        try:
            with socket.socket(family) as sock:
                sock.settimeout(2)
                sock.connect(address)
                sock.sendall(b"PING\r\n")
                if sock.recv(64).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise BenchError("redis-server does not answer")


def redis_run(stage, plane, test, requests):
    """A fresh server, a value in it, then the measured run."""
    port = stage.port()
    path = f"{stage.folder}/{port}"
    where = ["-s", path] if plane == "unix" else ["-h", "127.0.0.1", "-p", str(port)]
    listen = ["--port", "0", "--unixsocket", path] if plane == "unix" else ["--port", str(port)]
    bench = ["redis-benchmark", *where, "-d", "1024", "--csv"]
    command = ["redis-server", *listen, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
               "--logfile", "/dev/null", "--dir", stage.folder]
    server = stage.start(plane, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        redis_ready(path if plane == "unix" else ("127.0.0.1", port))
        stage.output(plane, bench + ["-t", "set", "-c", "1", "-n", "10"], 30)
        out = stage.output(plane, bench + ["-t", test, "-c", "200", "-n", str(requests)], 60)
    finally:
        stage.stop(server)
    line = list(csv.DictReader(io.StringIO(out)))[0]
    return {"per_sec": float(line["rps"]), "p50_us": float(line["p50_latency_ms"]) * 1000,
            "p99_us": float(line["p99_latency_ms"]) * 1000}


def redis_rows(effort):
    """redis-benchmark -c 200 -d 1024, server and client from the distribution."""
    return [Row(f"redis/{test}", test.upper(), "per_sec", False, PLANES,
                lambda stage, plane, test=test: redis_run(stage, plane, test, effort.requests))
            for test in ("get", "set")]


def all_rows(effort):
    """Every row, in the order of the report."""
    return (ping_rows(effort) + stream_rows(effort) + connect_rows(effort) + redis_rows(effort) +
            memory_rows(effort))
