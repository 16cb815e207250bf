# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the direct plane is meant to reach, and whether it did in this run."""

import dataclasses

from report import quartiles, ratios


@dataclasses.dataclass
class Goal:
    """
    @text: in words
    @rows: names of rows begin with one of these; every one of them must reach it
    @least: how many times better than @base at least, by the median of the ratios in each round
    @more: more than @least, not just that
    """

    text: str
    rows: tuple
    least: float
    base: str = "tcp"
    more: bool = False

    def reached(self, ratio):
        """Whether a ratio is enough."""
        return ratio > self.least if self.more else ratio >= self.least


GOALS = (
    Goal("ping-pong 64 B, two CPUs: 50 times faster than blocking TCP", ("ping/64/two-cpus",), 50),
    Goal("ping-pong 64 B, two CPUs: at most 3 times the bare ring's", ("ping/64/two-cpus",), 1 / 3,
         "ring"),
    Goal("ping-pong 64 B, one CPU: 3 times faster", ("ping/64/one-cpu",), 3),
    Goal("stream 1 KiB, two CPUs: 10 times faster", ("stream/1024/two-cpus",), 10),
    Goal("stream 64 KiB, two CPUs: 3 times faster", ("stream/65536/two-cpus",), 3),
    Goal("stream 64 KiB, two CPUs: half of the bare ring", ("stream/65536/two-cpus",), 0.5, "ring"),
    Goal("redis-benchmark -c 1: 5 times faster", ("redis/c1/",), 5),
    Goal("redis-benchmark -c 200 -d 1024: 1.5 times faster", ("redis/c200/",), 1.5),
    Goal("memcached: faster in every row", ("memcached/",), 1, more=True),
    Goal("nginx: faster in every row", ("nginx/",), 1, more=True),
    Goal("PostgreSQL: faster in every row", ("pgbench/",), 1, more=True),
    Goal("foreign load: no row below TCP", ("busy/",), 1),
    Goal("short connections, capable peer, one CPU: 0.9 of TCP's rate",
         ("connect/both/one-cpu",), 0.9),
    Goal("short connections, capable peer, two CPUs: the same", ("connect/both/two-cpus",), 0.9),
    Goal("short connections, peer not capable, one CPU: 0.98 of TCP's rate",
         tuple(f"connect/{kind}/one-cpu" for kind in ("out", "in", "unloaded")), 0.98),
    Goal("short connections, peer not capable, two CPUs: the same",
         tuple(f"connect/{kind}/two-cpus" for kind in ("out", "in", "unloaded")), 0.98),
    Goal("programs without TCP: 0.98 of their rate", ("other/",), 0.98),
)


def worst(goal, results):
    """The row that is farthest from the goal, and its ratio with quartiles. None: not measured."""
    found = []
    for result in results:
        if result.row.name.startswith(goal.rows):
            values = ratios(result.row, result.rounds, "direct", goal.base)
            if values:
                found.append((quartiles(values), result.row.name))
    return min(found, key=lambda f: f[0][1]) if found else None


def table(results):
    """In Markdown; empty when direct was not measured."""
    lines = []
    for goal in GOALS:
        if not any(r.row.name.startswith(goal.rows) for r in results):
            continue
        found = worst(goal, results)
        if not found:
            lines.append(f"| {goal.text} | - | - | not measured |")
            continue
        (low, mid, high), name = found
        word = "met" if goal.reached(mid) else "**missed**"
        against = "" if goal.base == "tcp" else " of the ring"
        lines.append(f"| {goal.text} | {mid:.2f}{against} ({low:.2f}..{high:.2f}) | {name} | "
                     f"{word} |")
    if not lines or not any("direct" in r.row.planes for r in results):
        return []
    return ["## Goals of the direct plane", "",
            "Median of the rounds' ratios, in brackets quartiles; of several rows the worst.",
            "", "| goal | reached | row | |", "|---|---|---|---|", *lines, ""]
