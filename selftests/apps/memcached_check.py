# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Store random values of random sizes in memcached, pipelined, and hold what comes back against them."""

import hashlib
import os
import random
import socket
import sys


def store(stream, values):
    """Set all values without waiting for each reply."""
    for key, value in values.items():
        stream.write(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
    stream.flush()
    for key in values:
        if stream.readline() != b"STORED\r\n":
            sys.exit(f"{key!r} was not stored")


def check(stream, values):
    """Ask for all values in one request."""
    stream.write(b"get %s\r\n" % b" ".join(values))
    stream.flush()
    for key, value in values.items():
        head = stream.readline()
        if head != b"VALUE %s 0 %d\r\n" % (key, len(value)):
            sys.exit(f"unexpected reply {head!r} for {key!r}")
        got = stream.read(len(value))
        if hashlib.sha256(got).digest() != hashlib.sha256(value).digest():
            sys.exit(f"{key!r} of {len(value)} bytes came back changed")
        if stream.readline() != b"\r\n":
            sys.exit(f"no end of line after {key!r}")
    if stream.readline() != b"END\r\n":
        sys.exit("no END after the values")


def main():
    port, count = int(sys.argv[1]), int(sys.argv[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        stream = sock.makefile("rwb")
        for first in range(0, count, 20):
            sizes = [int(2 ** random.uniform(0, 17)) for _ in range(20)]
            values = {b"key%d" % (first + n): os.urandom(s) for n, s in enumerate(sizes)}
            store(stream, values)
            check(stream, values)


main()
