#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Tests in guests. B=BUILD run.py [-k PATTERN] [-l] [-v]

A scenario starts its guests once, for all checks that belong to it.
"""

import argparse
import os
import re
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import vm  # noqa: E402

BUILD = os.path.abspath(os.environ.get("B") or os.path.join(vm.SOURCE, "build"))
SCENARIOS = []


class Skip(Exception):
    pass


def scenario(start):
    """A function from a Lab to what its checks get."""
    start.checks = []
    SCENARIOS.append(start)
    return start


def check(start):
    def add(fn):
        start.checks.append(fn)
        return fn
    return add


class Runner:
    def __init__(self, pattern, verbose):
        self.pattern, self.verbose = re.compile(pattern), verbose
        self.passed = self.failed = self.skipped = 0

    def say(self, result, name, started, why=""):
        print(f"{result:6} {name:40} {time.monotonic() - started:5.1f} s  {why}".rstrip(), flush=True)

    def one(self, name, fn):
        """Run it, say how it went. Returns what it returned, or None."""
        started = time.monotonic()
        try:
            got = fn()
        except Skip as e:
            self.skipped += 1
            self.say("skip", name, started, str(e))
        except Exception as e:  # pylint: disable=broad-except
            self.failed += 1
            self.say("not ok", name, started)
            print(str(e) if isinstance(e, vm.GuestError) else traceback.format_exc())
        else:
            self.passed += 1
            self.say("ok", name, started)
            return got
        return None

    def scenario(self, start):
        checks = [c for c in start.checks if self.pattern.search(c.__name__)]
        if not checks:
            return
        failed = self.failed
        with vm.Lab(BUILD, keep=f"{BUILD}/vm/logs") as lab:
            guests = self.one(start.__name__, lambda: start(lab))
            for c in checks if guests else ():
                self.one("  " + c.__name__, lambda c=c: c(*guests))
            if self.failed != failed or self.verbose:
                for g in lab.guests:
                    print(f"--- console of {g.name}\n{g.logs()}")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-k", default="", metavar="PATTERN", help="only checks whose names match")
    p.add_argument("-l", action="store_true", help="list them")
    p.add_argument("-v", action="store_true", help="show consoles also of what passed")
    a = p.parse_args()
    if a.l:
        for s in SCENARIOS:
            print(s.__name__, *("  " + c.__name__ for c in s.checks), sep="\n")
        return 0
    runner = Runner(a.k, a.v)
    for s in SCENARIOS:
        runner.scenario(s)
    print(f"{runner.passed} passed, {runner.failed} failed"
          + (f", {runner.skipped} skipped" if runner.skipped else ""))
    return 1 if runner.failed or not runner.passed else 0


if __name__ == "__main__":
    # the checks know this module by its name
    sys.modules["run"] = sys.modules["__main__"]
    import tests_bells  # noqa: E402,F401 pylint: disable=unused-import
    import tests_cross  # noqa: E402,F401 pylint: disable=unused-import
    import tests_cxl  # noqa: E402,F401 pylint: disable=unused-import
    import tests_kernel  # noqa: E402,F401 pylint: disable=unused-import
    import tests_region  # noqa: E402,F401 pylint: disable=unused-import
    import tests_systemd  # noqa: E402,F401 pylint: disable=unused-import
    import tests_units  # noqa: E402,F401 pylint: disable=unused-import
    sys.exit(main())
