#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What two guests show while they talk, as docs/vm-transcript.rst has it: `make vm-transcript`.

Everything in it is what the commands have printed.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cross  # noqa: E402
import tests_cross  # noqa: E402
import vm  # noqa: E402

BUILD = os.path.abspath(os.environ.get("B") or os.path.join(vm.SOURCE, "build"))
HEAD = """\
.. SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
.. made by `make vm-transcript`

======================================
Two guests, as their commands show it
======================================

Two QEMU guests, each with a kernel of its own, share an ivshmem device; between them is a virtio-net cable.
``make vm-transcript`` makes this page anew: what follows a prompt is what the command printed there.

"""


class Page:
    def __init__(self):
        self.text = HEAD

    def title(self, text):
        self.text += f"{text}\n{'=' * len(text)}\n\n"

    def block(self, lines):
        self.text += "::\n\n" + "".join(f"  {line}".rstrip() + "\n" for line in lines) + "\n"

    def show(self, guests, *commands):
        """Run them in each guest."""
        for g in guests:
            lines = []
            for c in commands:
                lines += [f"{g.name}# {c}"] + g.ok(c).rstrip("\n").split("\n")
            self.block(lines)

    def transfer(self, guests, plane, starter=""):
        """The same stream as the tests', with a look at both ends while it flows."""
        with cross.streams(*guests, plane, starter) as jobs:
            self.show(guests, "ismredir conns", "ismredir dmbs")
            cross.outcome(jobs)
        for job, role in zip(jobs, ("listen", "connect")):
            self.block([f"{job.guest.name}# {starter} python3 transfer.py {role} ...".replace("#  ", "# ")]
                       + job.output.decode().rstrip("\n").split("\n"))


def main():
    page = Page()
    with vm.Lab(BUILD) as lab:
        guests = tests_cross.across_ivshmem(lab)
        page.title("Kernels and the region")
        page.show(guests, "uname -sr", f"ismredir fabric show {guests[0].fabric}")
        with cross.daemons(*guests, "--relay"):
            page.title("With ismredird --relay in both")
            page.show(guests, "ismredir fabrics")
            page.title("A transfer between programs as they are: relayed")
            page.transfer(guests, "relay")
            page.title("A transfer between programs that ismredir run started: direct")
            page.transfer(guests, "direct", cross.RUN)
            page.title("Afterwards")
            page.show(guests, "ismredir status")
    sys.stdout.write(page.text)


if __name__ == "__main__":
    main()
