#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Measures plain TCP, the naive sockmap, AF_UNIX and ismredir side by side; run by `make bench`."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # nothing is written into the source tree but what was asked for

# pylint: disable=wrong-import-position
import report
import rows as bench_rows
from stage import PLANES, BenchError, Stage


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="folder of the binaries (%(default)s)")
    parser.add_argument("--quick", action="store_const", const="quick", dest="effort",
                        default="default", help="under two minutes")
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
    effort = bench_rows.EFFORTS[args.effort]
    rows = bench_rows.all_rows(effort)
    if args.only:
        wanted = tuple(args.only.split(","))
        rows = [r for r in rows if r.name.startswith(wanted)]
        if not rows:
            raise BenchError(f"no row begins with {args.only}; --list names them")
    for row in rows:
        row.planes = tuple(p for p in args.planes if p in row.planes)
    return args.rounds or effort.rounds, rows


def requirements(args, rows):
    """Say what is missing before anything is touched."""
    if os.geteuid():
        raise BenchError("must be root: it makes cgroups and loads BPF programs")
    need = [os.path.join(args.build, "bench", "netload")]
    need += [os.path.join(args.build, "bench", "naive")] if "naive" in args.planes else []
    need += [os.path.join(args.build, "ismredir")] if "skmsg" in args.planes else []
    for path in need:
        if not os.access(path, os.X_OK):
            raise BenchError(f"{path} is missing; `make bench-build` makes it")
    if any(r.group == "redis" for r in rows):
        for name in ("redis-server", "redis-benchmark"):
            if not shutil.which(name):
                raise BenchError(f"{name} is missing; `make deps` installs it, "
                                 "or leave redis out with --only")


def redirected(before, after):
    """Share of the bytes that were redirected between two looks at the counters, or None."""
    if not before or not after:
        return None
    moved = {k: after.get(k, 0) - before.get(k, 0) for k in ("redir_bytes", "tcp_bytes")}
    total = sum(moved.values())
    return moved["redir_bytes"] / total if total > 0 else None


def measure(stage, row, plane):
    """One measurement."""
    if plane != "skmsg":
        return row.measure(stage, plane)
    before = stage.stats()
    numbers = row.measure(stage, plane)
    share = redirected(before, stage.stats())
    if share is not None and not row.name.startswith(("connect/out", "connect/in")):
        numbers["redirected"] = share
    return numbers


def run_rounds(stage, rows, rounds):
    """All rounds. Return: per row, the numbers of each round and the errors."""
    results = {row.name: ([], []) for row in rows}
    for number in range(rounds):
        begin = time.monotonic()
        for row in rows:
            turn = number % len(row.planes)
            numbers = {}
            for plane in row.planes[turn:] + row.planes[:turn]:
                try:
                    numbers[plane] = measure(stage, row, plane)
                except (BenchError, ValueError, KeyError, OSError) as error:
                    results[row.name][1].append((plane, f"round {number + 1}: {error}"))
            results[row.name][0].append(numbers)
        took = time.monotonic() - begin
        print(f"bench: round {number + 1} of {rounds} took {took:.0f} s", flush=True)
    return [(row, results[row.name][0], report.summarize(row, results[row.name][0]),
             results[row.name][1]) for row in rows]


def version(args):
    """What is measured."""
    if "skmsg" not in args.planes:
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
        write(args.svg, report.Plot().render(results, args.planes, about))
        plot = os.path.relpath(args.svg, os.path.dirname(args.markdown or args.svg) or ".")
    page = report.markdown(results, args.planes, about, plot)
    if args.markdown:
        write(args.markdown, page)
    if args.json:
        rows = {row.name: {"rounds": rounds, "summary": summary, "errors": errors}
                for row, rounds, summary, errors in results}
        write(args.json, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if not args.markdown or sys.stdout.isatty():
        print(page)


def stop(number, _):
    """A signal ends the run the way an error does: with everything taken away."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main():
    """Return: exit status 0, 1 when something failed, 130 when interrupted."""
    args = arguments()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        rounds, rows = choose_rows(args)
        if args.list:
            print("\n".join(r.name for r in rows))
            return 0
        requirements(args, rows)
        load = " ".join(f"{x:.1f}" for x in os.getloadavg())
        about = dict(report.machine(), rounds=rounds, version=version(args), load=load)
        with Stage(os.path.abspath(args.build), args.planes, args.load_arg) as stage:
            results = run_rounds(stage, rows, rounds)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything is taken away", file=sys.stderr)
        return 130
    write_all(args, results, about)
    failed = [(row.name, *error) for row, _, _, errors in results for error in errors]
    for name, plane, text in failed[:10]:
        print(f"bench: failed: {name} on {plane}: {text}", file=sys.stderr)
    # the naive accelerator is known to fail: that it does is a result
    return 1 if any(plane != "naive" for _, plane, _ in failed) else 0


if __name__ == "__main__":
    sys.exit(main())
