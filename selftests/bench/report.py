# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the bench writes: tables as Markdown, and the ratios as a plot in SVG."""

import datetime
import math
import os
import platform
import statistics

NAMES = {"tcp": "plain TCP", "naive": "naive sockmap", "unix": "AF_UNIX", "skmsg": "skmsg"}
COLOURS = {"naive": "#b0b0b0", "unix": "#7aa6d6", "skmsg": "#d1603d"}
ROUND_TRIP = "µs per round trip, p50 / p99 / p99.9"
RATE = "GB/s (10^9 bytes)"
GROUPS = {
    "ping/two-cpus": ("Ping-pong, server and client on two CPUs", ROUND_TRIP),
    "ping/one-cpu": ("Ping-pong, server and client on one CPU", ROUND_TRIP),
    "stream/two-cpus": ("Stream, server and client on two CPUs", RATE),
    "stream/one-cpu": ("Stream, server and client on one CPU", RATE),
    "stream/free": ("Stream, where the scheduler puts them", RATE),
    "connect": ("Short connections: connect, 32 bytes each way, close", "connections per second"),
    "redis": ("redis-benchmark -c 200 -d 1024", "requests per second"),
    "memory": ("A reader that never reads", "MiB accepted, blocked or not, MiB of memory gone"),
}


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


def summarize(row, rounds):
    """
    Medians of one row, and how many times faster than plain TCP in the same round.
    @rounds: one dict of plane to numbers for each round; a plane that failed is absent
    """
    result = {}
    for plane in row.planes:
        runs = [r[plane] for r in rounds if plane in r]
        if not runs:
            continue
        numbers = {k: statistics.median(run[k] for run in runs) for k in runs[0]
                   if isinstance(runs[0][k], (int, float)) and all(k in run for run in runs)}
        ratios = []
        for r in rounds:
            if plane in r and "tcp" in r and r["tcp"][row.key] and r[plane][row.key]:
                ratio = r[plane][row.key] / r["tcp"][row.key]
                ratios.append(1 / ratio if row.fewer else ratio)
        result[plane] = {"median": numbers, "rounds": len(runs),
                         "ratio": quartiles(ratios) if ratios else None}
    return result


def oddities(results):
    """Things that a correct transport never does, and measurements that failed."""
    lines = []
    for row, rounds, _, errors in results:
        for plane in row.planes:
            runs = [r[plane] for r in rounds if plane in r]
            lost = sum(run["sent"] - run["received"] for run in runs if "sent" in run)
            eagain = sum(run.get("spurious_eagain", 0) for run in runs)
            if lost:
                lines.append(f"{row.name}, {NAMES[plane]}: {lost} bytes sent but never received")
            if eagain:
                lines.append(f"{row.name}, {NAMES[plane]}: a blocking recv() returned EAGAIN "
                             f"without cause {eagain} times")
            failed = [text for failed_plane, text in errors if failed_plane == plane]
            if failed:
                lines.append(f"{row.name}, {NAMES[plane]}: failed {len(failed)} times, "
                             f"first: {failed[0]}")
    return lines


def cell(row, one):
    """The medians of a row on one plane."""
    if not one:
        return "-"
    m = one["median"]
    if row.group.startswith("ping"):
        return f"{m['p50_us']:.1f} / {m['p99_us']:.1f} / {m['p999_us']:.1f}"
    if row.group.startswith("stream"):
        return f"{m['gb_per_sec']:.3f}"
    if row.group == "memory":
        stopped = "blocked" if m["blocked"] else "not blocked"
        return f"{m['accepted'] / 2**20:.1f}, {stopped}, {max(m['available_kib'], 0) / 1024:.0f}"
    return f"{m['per_sec']:,.0f}"


def ratio_cell(one):
    """How many times faster, with the quartiles."""
    if not one or not one["ratio"]:
        return "-"
    low, mid, high = one["ratio"]
    return f"**{mid:.2f}** ({low:.2f}..{high:.2f})"


def redirected(summary):
    """The share of the bytes that skmsg moved, or None."""
    return summary.get("skmsg", {"median": {}})["median"].get("redirected")


def table(group, results, planes):
    """One table in Markdown."""
    others = [p for p in planes if p != "tcp" and group != "memory"]
    title, unit = GROUPS[group]
    share = any(redirected(s) is not None for row, _, s, _ in results if row.group == group)
    head = [""] + [NAMES[p] for p in planes] + [f"{NAMES[p]} : TCP" for p in others]
    head += ["redirected"] if share else []
    lines = [f"## {title}", "", f"{unit}.", "", "| " + " | ".join(head) + " |",
             "|---" * len(head) + "|"]
    for row, _, summary, _ in results:
        if row.group != group:
            continue
        cells = [row.label] + [cell(row, summary.get(p)) for p in planes]
        cells += [ratio_cell(summary.get(p)) for p in others]
        if share:
            part = redirected(summary)
            cells.append("-" if part is None else f"{part:.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines + [""]


INTRO = """# Measured: ismredir beside the alternatives

Made by `make bench`; the figures are of one machine and say nothing about yours: run it there.

- Machine: {cpu}, {cpus} CPUs, Linux {kernel}
- Date: {date}, {version}, load average before the run {load}
- {rounds} rounds; in each round every row is measured on all transports one after the other, in an
  order that rotates. Figures are medians over the rounds. "X : TCP" is how many times faster X
  was than plain TCP **in the same round**: median, in brackets the quartiles; above 1 is faster.
- plain TCP: over loopback. naive sockmap: redirects always, for comparison only: it has no
  backpressure and can reorder. AF_UNIX: a stream socket, for which applications must be changed.
  skmsg: this project. "redirected": share of the bytes that skmsg moved; the rest went by TCP.
"""


BUSY = """**The machine was busy with other work when this was taken: take the ratios as hints and
the other figures not at all.**
"""


def markdown(results, planes, about, plot):
    """The whole page."""
    lines = [INTRO.format(**about)]
    if float(about["load"].split()[0]) > about["cpus"] / 2:
        lines.append(BUSY)
    if plot:
        lines += [f"![how many times faster than plain TCP]({plot})", ""]
    for group in GROUPS:
        if any(row.group == group for row, _, _, _ in results):
            lines += table(group, results, planes)
    odd = oddities(results)
    lines += ["## Oddities seen", ""]
    lines += [f"- {line}" for line in odd] or ["None: every byte arrived, no measurement failed."]
    return "\n".join(lines) + "\n"


class Plot:
    """Horizontal bars from the line "as fast as TCP", to the right faster, on a log scale."""

    WIDTH, LEFT, RIGHT, BAR, GAP, SPAN = 900, 200, 60, 8, 7, 3  # SPAN: powers of two each way

    def __init__(self):
        self.parts = []
        self.y = 60

    def x(self, ratio):
        """Where a ratio lies."""
        power = max(-self.SPAN, min(self.SPAN, math.log2(ratio)))
        width = self.WIDTH - self.LEFT - self.RIGHT
        return self.LEFT + (power + self.SPAN) / (2 * self.SPAN) * width

    def text(self, x, y, what, size=11, anchor="start", weight="normal"):
        """A piece of text."""
        what = what.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" '
                          f'text-anchor="{anchor}" font-weight="{weight}">{what}</text>')

    def bar(self, plane, ratio):
        """One bar with the quartiles as a thin line."""
        low, mid, high = ratio
        left, right = sorted((self.x(1), self.x(mid)))
        middle = self.y + self.BAR / 2
        width = max(right - left, 0.5)
        self.parts.append(f'<rect x="{left:.1f}" y="{self.y}" width="{width:.1f}" '
                          f'height="{self.BAR - 1}" fill="{COLOURS[plane]}"/>'
                          f'<path d="M{self.x(low):.1f} {middle}H{self.x(high):.1f}" '
                          f'stroke="#333"/>')
        beyond = self.x(max(mid, high, 1)) + 4
        self.text(beyond, self.y + self.BAR - 0.5, f"{mid:.2f}", 8)
        self.y += self.BAR

    def row(self, row, summary, planes):
        """All bars of one row."""
        bars = [p for p in planes if p in COLOURS and summary.get(p, {}).get("ratio")]
        if not bars:
            return
        self.text(self.LEFT - 8, self.y + len(bars) * self.BAR / 2 + 4, row.label, 11, "end")
        for plane in bars:
            self.bar(plane, summary[plane]["ratio"])
        self.y += self.GAP

    def legend(self, about, planes):
        """Title and colours."""
        self.text(20, 22, "Times faster than plain TCP on loopback", 15, weight="bold")
        where = f"{about['cpu']}, {about['cpus']} CPUs, Linux {about['kernel']}, {about['date']}"
        self.text(20, 40, where, 10)
        x = self.WIDTH - 330
        for plane in planes:
            if plane in COLOURS:
                self.parts.append(f'<rect x="{x}" y="13" width="10" height="10" '
                                  f'fill="{COLOURS[plane]}"/>')
                self.text(x + 15, 22, NAMES[plane])
                x += 110

    def grid(self, top):
        """Lines at the powers of two, behind the bars."""
        lines = []
        for power in range(-self.SPAN, self.SPAN + 1):
            x = self.x(2 ** power)
            colour = "#333" if power == 0 else "#ddd"
            lines.append(f'<path d="M{x:.1f} {top}V{self.y}" stroke="{colour}"/>')
            self.text(x, self.y + 14, f"{2 ** power:g}", 10, "middle")
        self.parts = lines + self.parts

    def render(self, results, planes, about):
        """The picture."""
        self.legend(about, planes)
        for group, (title, _) in GROUPS.items():
            rows = [r for r in results if r[0].group == group and group != "memory"]
            if rows:
                self.text(20, self.y + 12, title, 11, weight="bold")
                self.y += 20
            for row, _, summary, _ in rows:
                self.row(row, summary, planes)
        self.grid(50)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.WIDTH} {self.y + 24}" '
                f'font-family="sans-serif">\n'
                f'<!-- SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause -->\n'
                f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(self.parts) +
                "</svg>\n")
