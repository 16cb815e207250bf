# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the bench writes: tables as Markdown."""

import dataclasses
import datetime
import os
import platform
import statistics

NAMES = {"tcp": "plain TCP", "naive": "naive sockmap", "unix": "AF_UNIX", "skmsg": "skmsg",
         "direct": "direct", "ring": "bare ring", "memcpy": "memcpy"}
ROUND_TRIP = "µs per round trip, p50 / p99 / p99.9"
MEAN = "µs per round trip, mean / p50 / p99.9; the mean is compared"
RATE = "GB/s (10^9 bytes)"
PER_SECOND = "requests per second"
BESIDE = ", beside 8 processes that only compute"
GROUPS = {
    "ping/two-cpus": ("Ping-pong, server and client on two CPUs", ROUND_TRIP),
    "ping/one-cpu": ("Ping-pong, server and client on one CPU", ROUND_TRIP),
    "ping/free": ("Ping-pong, where the scheduler puts them", ROUND_TRIP),
    "epoll": ("Ping-pong between event loops (epoll)", ROUND_TRIP),
    "stream/two-cpus": ("Stream, server and client on two CPUs", RATE),
    "stream/one-cpu": ("Stream, server and client on one CPU", RATE),
    "stream/free": ("Stream, where the scheduler puts them", RATE),
    "connect": ("Short connections: connect, 32 bytes each way, close",
                "connections per second; each the mean of several starts, all columns in turn"),
    "busy/ping/free": ("Ping-pong, where the scheduler puts them" + BESIDE, MEAN),
    "busy/ping/two-cpus": ("Ping-pong, two CPUs" + BESIDE, MEAN),
    "busy/stream/free": ("Stream, where the scheduler puts them" + BESIDE, RATE),
    "busy/stream/two-cpus": ("Stream, two CPUs" + BESIDE, RATE),
    "redis": ("redis-benchmark -d 1024", PER_SECOND),
    "nginx": ("nginx and wrk, keepalive", PER_SECOND),
    "memcached": ("memcached and memcaslap", "operations per second"),
    "pgbench": ("PostgreSQL and pgbench", "transactions per second"),
    "sockperf/ping-pong": ("sockperf ping-pong", ROUND_TRIP),
    "sockperf/throughput": ("sockperf throughput", "messages per second"),
    "other": ("Programs without TCP, plain and under `ismredir run`", "operations per second"),
    "memory": ("A reader that never reads", "MiB accepted, blocked or not, MiB of memory gone"),
    "idle": ("Memory of an idle connection, both ends",
             "KiB: all, in brackets shared memory (rings) + kernel objects"),
}
NO_RATIO = ("memory", "idle")


@dataclasses.dataclass
class Result:
    """
    What came of a row.
    @rounds: one dict of plane to numbers for each round; a plane that failed is absent
    @errors: (plane, text) of those
    @left_out: plane to the reason why it was not measured
    """

    row: object
    rounds: list = dataclasses.field(default_factory=list)
    errors: list = dataclasses.field(default_factory=list)
    left_out: dict = dataclasses.field(default_factory=dict)
    summary: dict = None


def machine():
    """What the figures were taken on."""
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
        info.seek(0)
        virtual = " (virtual machine)" if " hypervisor" in info.read() else ""
    return {"cpu": model + virtual, "cpus": len(os.sched_getaffinity(0)),
            "kernel": platform.release(), "date": datetime.date.today().isoformat()}


def quartiles(values):
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, mid, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, mid, high


def ratios(row, rounds, plane, base):
    """How many times better @plane was than @base, in each round that has both."""
    result = []
    for numbers in rounds:
        if plane in numbers and base in numbers:
            mine, its = numbers[plane][row.key], numbers[base][row.key]
            if mine and its:
                result.append(its / mine if row.fewer else mine / its)
    return result


def summarize(result):
    """Medians of one row, and the ratios to plain TCP in the same round."""
    summary = {}
    for plane in result.row.planes:
        runs = [r[plane] for r in result.rounds if plane in r]
        if not runs:
            continue
        numbers = {k: statistics.median(run[k] for run in runs) for k in runs[0]
                   if isinstance(runs[0][k], (int, float)) and all(k in run for run in runs)}
        values = [] if plane == "tcp" else ratios(result.row, result.rounds, plane, "tcp")
        summary[plane] = {"median": numbers, "rounds": len(runs),
                          "ratio": quartiles(values) if values else None}
    result.summary = summary


def oddities(results):
    """Things that a correct transport never does, and measurements that failed."""
    lines = []
    for result in results:
        for plane in result.row.planes:
            where = f"{result.row.name}, {NAMES[plane]}"
            runs = [r[plane] for r in result.rounds if plane in r]
            lost = sum(run["sent"] - run["received"] for run in runs if "sent" in run)
            eagain = sum(run.get("spurious_eagain", 0) for run in runs)
            if lost:
                lines.append(f"{where}: {lost} bytes sent but never received")
            if eagain:
                lines.append(f"{where}: a recv() returned EAGAIN without cause {eagain} times")
            failed = [text for failed_plane, text in result.errors if failed_plane == plane]
            if failed:
                lines.append(f"{where}: failed {len(failed)} times, first: {failed[0]}")
            if plane in result.left_out:
                lines.append(f"{where}: left out: {result.left_out[plane]}")
    return lines


def some_digits(value):
    """A time in µs."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def cell(row, one):
    """The medians of a row on one plane."""
    if not one:
        return "-"
    m = one["median"]
    if row.group.startswith("busy/ping"):
        return " / ".join(some_digits(m[k]) for k in ("mean_us", "p50_us", "p999_us"))
    if row.key == "p50_us":
        return " / ".join(some_digits(m[k]) for k in ("p50_us", "p99_us", "p999_us"))
    if row.key == "gb_per_sec":
        return f"{m['gb_per_sec']:.3f}"
    if row.group == "memory":
        stopped = "blocked" if m["blocked"] else "not blocked"
        return f"{m['accepted'] / 2**20:.1f}, {stopped}, {max(m['available_kib'], 0) / 1024:.0f}"
    if row.group == "idle":
        return f"{m['total_kib']:.1f} ({m['shmem_kib']:.1f} + {m['slab_kib']:.1f})"
    return f"{m['per_sec']:,.0f}"


def ratio_cell(one):
    """How many times faster, with the quartiles."""
    if not one or not one["ratio"]:
        return "-"
    low, mid, high = one["ratio"]
    return f"**{mid:.2f}** ({low:.2f}..{high:.2f})"


def percent(value):
    """A share."""
    return "-" if value is None else f"{value:.0%}"


def shares(rows):
    """Columns for the share of the bytes that a plane moved, where that is known."""
    def of(result, plane):
        return result.summary.get(plane, {"median": {}})["median"].get("share")

    planes = [p for p in ("skmsg", "direct") if any(of(r, p) is not None for r in rows)]
    return [(f"by {NAMES[p]}", lambda r, p=p: percent(of(r, p))) for p in planes]


def foreign(result):
    """CPU time of others, as a share of the machine: the median of the worst plane."""
    values = [s["median"]["foreign"] for s in result.summary.values() if "foreign" in s["median"]]
    return percent(max(values, default=None))


def table(group, rows):
    """One table in Markdown."""
    planes = [p for p in NAMES if any(p in r.row.planes for r in rows)]
    title, unit = GROUPS[group]
    columns = [("", lambda r: r.row.label)]
    columns += [(NAMES[p], lambda r, p=p: cell(r.row, r.summary.get(p))) for p in planes]
    if group not in NO_RATIO:
        columns += [(f"{NAMES[p]} : TCP", lambda r, p=p: ratio_cell(r.summary.get(p)))
                    for p in planes if p != "tcp"]
    columns += shares(rows) + [("foreign", foreign)]
    return [f"## {title}", "", f"{unit}.", "", *markdown_table(columns, rows), ""]


def markdown_table(columns, rows):
    """@columns: pairs of head and function of a row"""
    return ["| " + " | ".join(head for head, _ in columns) + " |", "|---" * len(columns) + "|",
            *["| " + " | ".join(what(r) for _, what in columns) + " |" for r in rows]]


def cpu_table(results):
    """CPU time of the streams of the first table."""
    rows = [r for r in results if r.row.group == "stream/two-cpus"]
    planes = [p for p in NAMES if any(p in r.summary for r in rows)]

    def seconds(result, plane):
        value = result.summary.get(plane, {"median": {}})["median"].get("cpu_ns_per_byte")
        return "-" if value is None else f"{value:.3f}"

    columns = [("", lambda r: r.row.label)]
    columns += [(NAMES[p], lambda r, p=p: seconds(r, p)) for p in planes]
    return ["## CPU time of a stream, two CPUs", "",
            "CPU seconds per GB, user and system, both ends.", "",
            *markdown_table(columns, rows), ""] if rows else []


INTRO = """# Measured: ismredir beside the alternatives

Made by `make bench`; the figures are of one machine and say nothing about yours: run it there.

- Machine: {cpu}, {cpus} CPUs, Linux {kernel}
- Date: {date}, {version}, load average before the run {load}
- {rounds} rounds; in each round every row is measured on all transports one after the other, in an
  order that rotates. Figures are medians over the rounds. "X : TCP" is how many times faster X
  was than plain TCP **in the same round**: median, in brackets the quartiles; above 1 is faster.
- plain TCP: over loopback. naive sockmap: redirects always, for comparison only: it has no
  backpressure and can reorder. AF_UNIX: a stream socket, for which applications must be changed.
  skmsg and direct: this project's planes; on direct both programs are started by `ismredir run`.
  bare ring: two processes that spin on the project's ring, without sockets: the limit. memcpy:
  one process that copies each message once into 1 MiB: the limit of one of two CPUs.
- "by skmsg", "by direct": share of the bytes that the plane moved, after it knew of the connection;
  the rest went by TCP. "foreign": CPU time that was not the bench's own, as a share of the
  machine (the kernel's interrupts, too), in the worst column; a measurement with more than
  {limit:.0%} was repeated, and the quietest try counts. {repeated} measurements were repeated.
- What the figures do not say by themselves: [bench-notes.md](bench-notes.md).
"""


BUSY = """**The machine was busy with other work when this was taken: take the ratios as hints and
the other figures not at all.**
"""


def markdown(results, goals, about, plot):
    """The whole page."""
    lines = [INTRO.format(**about)]
    if float(about["load"].split()[0]) > about["cpus"] / 2:
        lines.append(BUSY)
    lines += goals
    if plot:
        lines += [f"![how many times faster than plain TCP]({plot})", ""]
    for group in GROUPS:
        rows = [r for r in results if r.row.group == group]
        lines += table(group, rows) if rows else []
        lines += cpu_table(results) if group == "stream/two-cpus" else []
    odd = oddities(results)
    lines += ["## Oddities seen", ""]
    lines += [f"- {line}" for line in odd] or ["None: every byte arrived, no measurement failed."]
    return "\n".join(lines) + "\n"
