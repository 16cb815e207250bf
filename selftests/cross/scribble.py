# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Write into the DMBs of a region while connections use them, as a partner may that is broken or hostile.

scribble.py FILE SEED ATTACKS [TOKEN...]

TOKENs (hexadecimal) name the DMBs that are spared, on either side of their connections. Each attack is on one DMB
that is valid just then: on one of its words or lines, or on the bytes in its ring; once, or many times.
"""

import collections
import mmap
import os
import random
import sys
import time

LINE, PAGE = 64, 4096
PEER, LINK, MAILS, ENTRY = 192, 64, 16 * 16, 128  # bytes in a control area: include/ismredir/region.h
LIVE, VALID = 2, 1
RING_OFF = 4096
TIMES = 200
PAUSE = 0.04  # seconds between two attacks, at most
PATIENCE = 20  # seconds without any DMB to attack

# What the partner writes: include/ismredir/dmb.h. Name, offset, words of 64 bits.
FIELDS = [
    ("prod", 128, 1),
    ("cpu", 136, 1),  # and want_space
    ("stamp", 144, 1),
    ("after", 152, 1),
    ("tx", 128, 8),
    ("cons", 192, 1),
    ("tcp", 200, 1),
    ("want", 208, 1),  # want_data, and how
    ("read", 216, 1),
    ("rx", 192, 8),
    ("lines", 128, 16),
    ("static", 0, 16),
    ("stats", 256, 16),
    ("ring", RING_OFF, 0),
]


class Region:
    def __init__(self, path):
        fd = os.open(path, os.O_RDWR)
        self.words = memoryview(mmap.mmap(fd, 0)).cast("Q")
        self.peers, self.dmbs, _, self.control_off, self.control = self.words[5:10]
        tails = PEER + self.peers * 8
        self.directory = (tails + LINE - 1) // LINE * LINE + self.peers * (LINK + MAILS)

    def valid(self, spared):
        """(offset, bytes) of each DMB that may be attacked."""
        for peer in range(self.peers):
            control = (self.control_off + peer * self.control) // 8
            if self.words[control] & 0xFF != LIVE:
                continue
            for n in range(self.dmbs):
                at = control + (self.directory + n * ENTRY) // 8
                state, gen, token, partner, _, _, off, size = self.words[at : at + 8]
                if state & VALID and gen == self.words[control] >> 8 and not spared & {token, partner}:
                    yield off, size


def lie(rng, truth):
    """A word near one that would be right, or anything."""
    return rng.choice([
        rng.getrandbits(64),
        rng.getrandbits(64),
        (1 << rng.randrange(65)) - 1,
        truth + (1 << rng.randrange(64)),
        truth - rng.randrange(1 << 16),
        truth ^ rng.randrange(1 << 8),  # the flags of a producer word
        truth ^ 1 << rng.randrange(32, 40),  # what a reader says
        truth + (rng.randrange(1 << 19) << 8),  # its cursor
        truth + rng.randrange(1 << 12),
        0,
    ]) & (1 << 64) - 1


def attack(rng, words, off, size):
    name, field, count = rng.choice(FIELDS)
    if not count:  # a piece of the ring
        field += rng.randrange(size - RING_OFF) & -8
        count = min((size - field) // 8, 1 << rng.randrange(12))
    times = rng.choice([1, 1, TIMES])
    at = (off + field) // 8
    for _ in range(times):
        for word in range(at, at + count):
            words[word] = lie(rng, words[word])
    return name


def main():
    path, seed, attacks, *tokens = sys.argv[1:]
    region, rng, done = Region(path), random.Random(int(seed)), collections.Counter()
    spared = {int(token, 16) for token in tokens}
    last = time.monotonic()
    while done.total() < int(attacks):
        targets = list(region.valid(spared))
        if targets:
            done[attack(rng, region.words, *rng.choice(targets))] += 1
            last = time.monotonic()
        elif time.monotonic() > last + PATIENCE:
            sys.exit(f"nothing to attack after {done.total()} attacks")
        time.sleep(rng.uniform(0, PAUSE))
    print(f"seed {seed}:", ", ".join(f"{name} {n}" for name, n in sorted(done.items())))


main()
