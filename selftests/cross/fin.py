# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Transfers whose last bytes are followed by the end at once.

fin.py listen|connect ADDR PORT send|receive N [killed] [slow] [daemon PID]

The end is close(), or with killed the writer's own SIGKILL. Some exchanges first, so that the rings are used. The
reader compares every byte with what the first 4 bytes promise; with slow it does not begin at once. With daemon
the writer kills that process first.
"""

import os
import random
import signal
import socket
import sys
import time

from talk import take

EXCHANGES = 60
SIZES = [1, 100, 5000, 60000, 300000, 900000]
# More than the queue of a reader that stands still takes, so that the rest stays in the ring; or not.
SLOW_SIZES = [5000, 300000, 420000, 600000]
SLOW = 0.7


def content(want):
    return random.Random(want).randbytes(want)


def send(sock, want, pause):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(want.to_bytes(4, "big"))
    for _ in range(EXCHANGES):
        sock.sendall(b"x" * 100)
        take(sock, 100)
        time.sleep(0.005)
    time.sleep(pause)
    sock.sendall(content(want))


def receive(sock, slow):
    want = int.from_bytes(take(sock, 4), "big")
    for _ in range(EXCHANGES):
        sock.sendall(take(sock, 100))
    if slow:
        time.sleep(SLOW)
    got = b""
    while more := sock.recv(65536):
        got += more
    if got != content(want):
        print("truncated: %d of %d" % (len(got), want), flush=True)
        return 1
    return 0


def main():
    role, addr, port, way, n = sys.argv[1:6]
    dies = way == "send" and "killed" in sys.argv
    slow = "slow" in sys.argv
    server = socket.create_server((addr, int(port))) if role == "listen" else None
    random.seed(1)
    bad = 0

    def opened():
        sock = server.accept()[0] if server else socket.create_connection((addr, int(port)), 30)
        sock.settimeout(30)
        return sock

    for k in range(int(n)):
        want = random.choice(SLOW_SIZES if slow else SIZES)
        pid = os.fork() if dies else 0
        if pid:
            os.waitpid(pid, 0)
            continue
        sock = opened()
        if way == "receive":
            bad += receive(sock, slow)
        else:
            send(sock, want, 0.25 * (k % 2))
        if dies:
            if "daemon" in sys.argv:
                os.kill(int(sys.argv[-1]), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        sock.close()
    if way == "receive":
        print("transfers %s bad %d" % (n, bad), flush=True)


main()
