# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Run modules of CPython's own test suite and write "OUTCOME TEST" for each of their tests.

pytests.py RESULTS MODULE[:CLASS]...
"""

import importlib
import sys
import unittest

from test import support


class Recorder(unittest.TextTestResult):
    """Keeps the outcome of every test; the worst one counts where there are several."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {}

    def note(self, test, outcome):
        if self.outcomes.get(test.id(), "ok") == "ok":
            self.outcomes[test.id()] = outcome

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "ok")

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, "error")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "FAIL")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skip")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.note(test, "ok")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note(test, "FAIL")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, "FAIL")


def load(names):
    suite = unittest.TestSuite()
    for name in names:
        module, _, cls = name.partition(":")
        module = importlib.import_module("test." + module)
        suite.addTest(unittest.defaultTestLoader.loadTestsFromName(cls, module) if cls
                      else unittest.defaultTestLoader.loadTestsFromModule(module))
    return suite


def tests_of(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        elif "VSOCK" not in test.id():  # hangs in some virtual machines, and is none of ours
            yield test


def main():
    support.use_resources = ["network"]  # loopback is one; nothing that takes long
    support.verbose = 1
    runner = unittest.TextTestRunner(resultclass=Recorder, verbosity=2)
    result = runner.run(unittest.TestSuite(tests_of(load(sys.argv[2:]))))
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.writelines(sorted(f"{outcome} {test}\n" for test, outcome in result.outcomes.items()))


main()
