# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A writer of two processes, one of which is killed: the other goes on where it stopped.

holders.py listen ADDR PORT TIMES | connect ADDR PORT TIMES

The reader says how often all came as it was sent.
"""

import os
import signal
import socket
import sys

from talk import answer, ask

FIRST, SECOND = 1 << 20, 2 << 20


def pattern(begin, size):
    return b"".join(n.to_bytes(8, "big") for n in range(begin // 8, (begin + size) // 8))


def reader(sock):
    answer(sock)
    got = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    return got == pattern(0, FIRST + SECOND)


def second(sock, parent):
    """When the first has gone."""
    while os.read(parent, 1):
        pass
    sock.sendall(pattern(FIRST, SECOND))


def first(sock):
    ask(sock, 0)
    mine, its = os.pipe()
    if os.fork() == 0:
        os.close(its)
        second(sock, mine)
        os._exit(0)
    sock.sendall(pattern(0, FIRST))
    os.kill(os.getpid(), signal.SIGKILL)


def listen(addr, port, times):
    good = 0
    server = socket.create_server((addr, port))
    for _ in range(times):
        sock, _ = server.accept()
        try:
            good += reader(sock)
        except OSError as e:
            print(e, flush=True)
        sock.close()
    print("of %d good %d" % (times, good), flush=True)


def connect(addr, port, times):
    for _ in range(times):
        pid = os.fork()
        if pid == 0:
            first(socket.create_connection((addr, port), 30))
        os.waitpid(pid, 0)


(listen if sys.argv[1] == "listen" else connect)(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
