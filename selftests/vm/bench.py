#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Between two guests: virtio-net TCP beside relay and direct, in the same guests, interleaved.

    B=BUILD bench.py [--rounds N] [--over ivshmem|plain|cxl] [--markdown FILE]
"""

import argparse
import contextlib
import json
import os
import platform
import re
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import vm  # noqa: E402
from cross import SERVER, bind, daemon_up, prepare  # noqa: E402
from tests_kernel import IN  # noqa: E402

BUILD = os.path.abspath(os.environ.get("B") or os.path.join(vm.SOURCE, "build"))
NETLOAD = f"{BUILD}/bench/netload"
REGION = 256 << 20
PLANES = ("tcp", "relay", "direct")
WARM_MS = 1500  # TCP drains, both ends ask for rings
MS = 1500
NAMES = {"ivshmem": "ivshmem-doorbell, interrupts", "plain": "ivshmem-plain, polling",
         "cxl": "CXL memory (type 3, devdax), polling"}
NOTES = {"cxl": "QEMU emulates each single load and store of this memory, so these figures say that it works, "
                "and nothing of CXL. coherent=yes, rings of 64 KiB."}


def starter(plane):
    """How a program is started that its bytes take @plane."""
    if plane == "tcp":
        return "exec "
    return f"export ISMREDIR_AFTER=1,1; {IN}exec " + ("ismredir run -- " if plane == "direct" else "")


@contextlib.contextmanager
def serving(a, by, port, command, stop=None):
    """A server listens there meanwhile; the command @stop ends it, else SIGKILL."""
    server = a.start(f"{by}{command}")
    try:
        a.within(f"ss -Hltn sport = :{port} | grep -q .")
        yield
    finally:
        if stop:
            a.ok(f"{stop}; :")
        else:
            server.kill()
        server.wait()


def netload(a, b, plane, port, work):
    """The client's line of figures."""
    by = starter(plane)
    with serving(a, by, port, f"{NETLOAD} server {SERVER}:{port}"):
        text = b.ok(f"{by}{NETLOAD} client {SERVER}:{port} {work} --warm-ms {WARM_MS} --ms {MS}")
    return json.loads(text.strip().splitlines()[-1])


def ping(size):
    def measure(a, b, plane, port):
        return netload(a, b, plane, port, f"ping --size {size}")["p50_us"]
    return measure


def stream(size):
    def measure(a, b, plane, port):
        return netload(a, b, plane, port, f"stream --size {size}")["gb_per_sec"] * 1000
    return measure


def redis(options):
    def measure(a, b, plane, port):
        by = starter(plane)
        with serving(a, by, port,
                     f"redis-server --bind {SERVER} --port {port} --save '' --protected-mode no",
                     f"redis-cli -h {SERVER} -p {port} shutdown nosave"):
            text = b.ok(f"{by}redis-benchmark -h {SERVER} -p {port} {options} -t get --csv")
        return float(re.search(r'"GET","([0-9.]+)"', text).group(1))
    return measure


# name, unit, is less better, how
ROWS = (
    ("ping-pong 64 B, p50", "µs", True, ping(64)),
    ("ping-pong 4 KiB, p50", "µs", True, ping(4096)),
    ("stream 1 KiB", "MB/s", False, stream(1024)),
    ("stream 64 KiB", "MB/s", False, stream(65536)),
    ("redis-benchmark -c 1 GET", "requests/s", False, redis("-c 1 -n 3000")),
    ("redis-benchmark -c 50 GET", "requests/s", False, redis("-c 50 -n 20000 -d 1024")),
)


def with_region(lab, over):
    """Two guests with a region, and load. All bytes of the relay's rows shall take it."""
    settings = "--set readers=any"
    if over == "cxl":
        memory = lab.memory("bench", REGION)
        pair = lab.pair("a", "b", each=[vm.cxl(memory, REGION, lab.memory(f"bench-{n}", 1 << 20))
                                        for n in "ab"])
        for g in pair:
            g.cxl_dax()
            g.ring = "64k"
        # programs may only use rings if the memory is coherent
        prepare(pair, "--peers 2 --dmbs 64 --unit 2M", settings=settings,
                specs=[f"cxl:/dev/dax0.0,peer={n},coherent=yes" for n in range(2)])
        return pair
    if over == "plain":
        pair = lab.pair("a", "b", **vm.plain(lab.memory("bench", REGION), REGION))
    else:
        pair = lab.pair("a", "b", **vm.doorbell(lab.ivshmem_server("bench", REGION)))
    for g in pair:
        g.ring = "1M"
        if over == "ivshmem":
            bind(g)
    prepare(pair, settings=settings)
    return pair


def guests(lab, over):
    """The same, with daemons that can do both planes."""
    pair = with_region(lab, over)
    for g in pair:
        daemon_up(g, "--relay")
    return pair


def measure_all(a, b, rounds):
    """Figures by row and plane, one of each round."""
    got = {row[0]: {p: [] for p in PLANES} for row in ROWS}
    port = 6000
    for turn in range(rounds):
        for name, unit, _, how in ROWS:
            for p in PLANES[turn % 3:] + PLANES[:turn % 3]:
                port += 1
                try:
                    value = how(a, b, p, port)
                except (vm.GuestError, AssertionError, KeyError, AttributeError) as e:
                    print(f"{name}, {p}: {str(e)[-300:]}", file=sys.stderr)
                    value = None
                got[name][p].append(value)
                print(f"{turn + 1}/{rounds} {name:28} {p:7} {value} {unit}", flush=True)
    return got


def ratio(got, plane, less):
    """How many times better than TCP of the same round: median and range."""
    pairs = [(t, v) for t, v in zip(got["tcp"], got[plane]) if t and v]
    if not pairs:
        return "-"
    r = sorted(t / v if less else v / t for t, v in pairs)
    return f"**{statistics.median(r):.2f}** ({r[0]:.2f}..{r[-1]:.2f})"


def median(values):
    values = [v for v in values if v]
    return f"{statistics.median(values):,.1f}" if values else "-"


def table(got, over, rounds, kernel):
    lines = [f"## {NAMES[over]}", "",
             f"{rounds} rounds, two guests with one CPU each ({kernel}) on "
             f"{os.cpu_count()} CPUs of the host ({platform.release()}), QEMU without hardware "
             "virtualization (TCG): every figure is of an emulated machine.",
             *([NOTES[over]] if over in NOTES else []), "",
             "| | unit | virtio-net TCP | relay | direct | relay : TCP | direct : TCP |",
             "|---|---|---|---|---|---|---|"]
    for name, unit, less, _ in ROWS:
        g = got[name]
        lines.append(f"| {name} | {unit} | " + " | ".join(median(g[p]) for p in PLANES) + " | "
                     + f"{ratio(g, 'relay', less)} | {ratio(g, 'direct', less)} |")
    return "\n".join(lines) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--over", choices=sorted(NAMES), default="ivshmem")
    p.add_argument("--rows", default="", metavar="PATTERN", help="only rows that match")
    p.add_argument("--markdown", metavar="FILE", help="append the table")
    a = p.parse_args()
    globals()["ROWS"] = tuple(r for r in ROWS if re.search(a.rows, r[0]))
    with vm.Lab(BUILD, keep=f"{BUILD}/vm/logs") as lab:
        first, second = guests(lab, a.over)
        kernel = "Linux " + first.ok("uname -r").strip()
        text = table(measure_all(first, second, a.rounds), a.over, a.rounds, kernel)
        for g in (first, second):
            print(g.ok("ismredir status; ismredir conns; dmesg | tail -3"), file=sys.stderr)
    print(text)
    if a.markdown:
        with open(a.markdown, "a", encoding="utf-8") as out:
            out.write("\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
