#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Measures plain TCP, its alternatives and ismredir side by side; run by `make bench`."""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # nothing is written into the source tree but what was asked for

# pylint: disable=wrong-import-position
import goals
import report
from apps import app_rows
from plot import Plot
from rows import EFFORTS, own_rows
from stage import PLANES, BenchError, LeftOut, Stage, programs

QUIET = 0.15  # of the machine: with more than this taken by others a measurement is repeated
TRIES = 3


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="folder of the binaries (%(default)s)")
    parser.add_argument("--quick", action="store_const", const="quick", dest="effort",
                        default="default", help="shorter, fewer rounds")
    parser.add_argument("--smoke", action="store_const", const="smoke", dest="effort",
                        help="only whether the bench works")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--only", metavar="ROWS",
                        help="rows whose name begins with one of these, comma between; see --list")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--planes", default=",".join(PLANES), help="comma between (%(default)s)")
    parser.add_argument("--load-arg", action="append", default=[], metavar="ARG",
                        help="give ARG to `ismredir load` too; --load-arg=--config --load-arg=FILE")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there")
    parser.add_argument("--svg", metavar="FILE", help="write the plot there")
    args = parser.parse_args()
    args.planes = args.planes.split(",")
    if any(p not in PLANES for p in args.planes) or "tcp" not in args.planes:
        parser.error(f"--planes: some of {','.join(PLANES)}, and tcp always")
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: at least 1")
    return args


def choose_rows(args):
    """The effort and the rows that the command line asks for."""
    effort = EFFORTS[args.effort]
    rows = own_rows(effort) + app_rows(effort)
    if args.only:
        wanted = tuple(args.only.split(","))
        rows = [r for r in rows if r.name.startswith(wanted)]
        if not rows:
            raise BenchError(f"no row begins with {args.only}; --list names them")
    for row in rows:
        row.planes = tuple(p for p in args.planes if p in row.planes)
    return effort, rows


def requirements(args, rows):
    """Say what is missing before anything is touched."""
    if os.geteuid():
        raise BenchError("must be root: it makes cgroups and loads BPF programs")
    for name in programs(args.planes):
        path = os.path.join(args.build, name)
        if not os.access(path, os.R_OK):
            raise BenchError(f"{path} is missing; `make bench-build` makes it")
    for name in sorted({n for r in rows for n in r.needs}):
        if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            raise BenchError(f"{name} is missing; `make deps` installs it, "
                             "or leave its rows out with --only")


class Foreign:
    """Watches how much of the machine others take; ours is what the stage's cgroups used."""

    def __init__(self, stage):
        self.stage = stage
        self.cpus = os.cpu_count()
        self.begin = self.now()

    def now(self):
        """Wall time, CPU seconds of the machine idle, CPU seconds of ours."""
        with open("/proc/stat", encoding="ascii") as stat:
            fields = stat.readline().split()
        idle = (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), idle, self.stage.cpu_seconds()

    def share(self):
        """Since the beginning, as a share of the machine."""
        wall, idle, ours = (b - a for a, b in zip(self.begin, self.now()))
        return max(0.0, (wall * self.cpus - idle - ours) / (wall * self.cpus))


def measure(stage, row, plane):
    """One measurement."""
    before = stage.stats(plane)
    foreign = Foreign(stage)
    numbers = row.measure(stage, plane)
    numbers["foreign"] = foreign.share()
    after = stage.stats(plane)
    if before and after and not row.name.startswith(("connect/", "other/")):
        moved, tcp = (b - a for a, b in zip(before, after))
        if moved + tcp > 0:
            numbers["share"] = moved / (moved + tcp)
    return numbers


def mean(runs):
    """The numbers of several measurements as one; what is no number goes."""
    if len(runs) == 1:
        return runs[0]
    return {key: statistics.fmean(run[key] for run in runs) for key, value in runs[0].items()
            if isinstance(value, (int, float)) and all(key in run for run in runs)}


class Rounds:
    """All measurements of a run."""

    def __init__(self, stage, effort, rows):
        self.stage = stage
        self.effort = effort
        self.results = [report.Result(row) for row in rows]
        self.repeated = 0

    def quietest(self, row, plane, left):
        """A measurement, again while others are at work. Return: numbers, tries left."""
        best = measure(self.stage, row, plane)
        for _ in range(TRIES - 1):
            if best["foreign"] <= QUIET or left <= 0:
                break
            left -= 1
            self.repeated += 1
            again = measure(self.stage, row, plane)
            best = min(best, again, key=lambda n: n["foreign"])
        return best, left

    def row(self, result, number, left):
        """All turns of a row in one round. Return: numbers by plane, tries left."""
        planes = result.row.planes
        found = {plane: [] for plane in planes}
        for turn in range(number, number + result.row.turns):
            first = turn % len(planes)
            for plane in planes[first:] + planes[:first]:
                try:
                    numbers, left = self.quietest(result.row, plane, left)
                    found[plane].append(numbers)
                except LeftOut as reason:
                    result.left_out[plane] = str(reason)
                except (BenchError, ValueError, KeyError, OSError,
                        subprocess.SubprocessError) as error:
                    result.errors.append((plane, f"round {number + 1}: {error}"))
        return {plane: mean(runs) for plane, runs in found.items() if runs}, left

    def run(self, number):
        """One round."""
        left = self.effort.repeats
        for result in self.results:
            numbers, left = self.row(result, number, left)
            result.rounds.append(numbers)

    def all(self, rounds):
        """Return: the results, summarized."""
        for number in range(rounds):
            begin = time.monotonic()
            self.run(number)
            took = time.monotonic() - begin
            print(f"bench: round {number + 1} of {rounds} took {took:.0f} s", flush=True)
        for result in self.results:
            report.summarize(result)
        return self.results


def version(args):
    """What is measured."""
    if not {"skmsg", "direct"} & set(args.planes):
        return "without ismredir"
    done = subprocess.run([os.path.join(args.build, "ismredir"), "version"], text=True,
                          capture_output=True, check=False, timeout=10)
    return (done.stdout.strip().splitlines() or ["ismredir"])[0]


def write(path, text):
    """Write a result whole or not at all."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as out:
        out.write(text)
    os.replace(path + ".new", path)
    print(f"bench: wrote {path}")


def write_all(args, results, about):
    """Every result that was asked for; the tables on standard output when none was."""
    plot = None
    if args.svg:
        write(args.svg, Plot().render(results, args.planes, about))
        plot = os.path.relpath(args.svg, os.path.dirname(args.markdown or args.svg) or ".")
    page = report.markdown(results, goals.table(results), about, plot)
    if args.markdown:
        write(args.markdown, page)
    if args.json:
        rows = {r.row.name: {"rounds": r.rounds, "summary": r.summary, "errors": r.errors}
                for r in results}
        write(args.json, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if not args.markdown or sys.stdout.isatty():
        print(page)


def stop(number, _):
    """A signal ends the run the way an error does: with everything taken away."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main():
    """Return: exit status 0, 1 when something failed, 130 when interrupted."""
    args = arguments()
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian keeps daemons
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        effort, rows = choose_rows(args)
        if args.list:
            print("\n".join(r.name for r in rows))
            return 0
        requirements(args, rows)
        load = " ".join(f"{x:.1f}" for x in os.getloadavg())
        rounds = args.rounds or effort.rounds
        about = dict(report.machine(), rounds=rounds, version=version(args), load=load,
                     limit=QUIET)
        with Stage(os.path.abspath(args.build), args.planes, args.load_arg) as stage:
            work = Rounds(stage, effort, rows)
            results = work.all(rounds)
        about["repeated"] = work.repeated
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything is taken away", file=sys.stderr)
        return 130
    write_all(args, results, about)
    failed = [(r.row.name, *error) for r in results for error in r.errors]
    for name, plane, text in failed[:10]:
        print(f"bench: failed: {name} on {plane}: {text}", file=sys.stderr)
    # the naive accelerator is known to fail: that it does is a result
    return 1 if any(plane != "naive" for _, plane, _ in failed) else 0


if __name__ == "__main__":
    sys.exit(main())
