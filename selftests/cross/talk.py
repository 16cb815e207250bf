# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Questions and answers, after which a connection has a relay or rings."""

import time

EXCHANGES = 100


def take(sock, n):
    """So many bytes, or EOFError."""
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def ask(sock, pause=0.005):
    for _ in range(EXCHANGES):
        sock.sendall(b"x")
        sock.recv(100)
        time.sleep(pause)


def answer(sock):
    for _ in range(EXCHANGES):
        sock.sendall(sock.recv(100))
