# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Values of many sizes into a redis-server and back, by one connection: values.py ADDR PORT"""

import os
import socket
import sys

SIZES = [1, 100, 1448, 4096, 65535, 300000, 2000000]
ROUNDS = 8


def request(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def main():
    sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
    answers = sock.makefile("rb")
    for n in range(ROUNDS * len(SIZES)):
        size = SIZES[n % len(SIZES)]
        key, value = b"value:%d" % n, os.urandom(size)
        sock.sendall(request(b"SET", key, value))
        assert answers.readline() == b"+OK\r\n", "SET of %d bytes" % size
        sock.sendall(request(b"GET", key))
        assert answers.readline() == b"$%d\r\n" % size, "GET of %d bytes" % size
        assert answers.read(size + 2) == value + b"\r\n", "a value of %d bytes differs" % size


main()
