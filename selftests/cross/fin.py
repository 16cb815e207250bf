# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Transfers whose last bytes are followed by the end at once.

fin.py listen ADDR PORT | connect ADDR PORT N [killed]

The end is close(), or the writer's own SIGKILL.

Some exchanges first, so that a relay takes the connection. The reader counts; 0xffffffff ends it.
"""

import os
import random
import signal
import socket
import sys
import time

EXCHANGES = 60
SIZES = [1, 100, 5000, 60000, 300000, 900000]


def take(sock, n):
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def listen(addr, port):
    server = socket.create_server((addr, port))
    count = bad = 0
    while True:
        sock, _ = server.accept()
        sock.settimeout(30)
        want = int.from_bytes(take(sock, 4), "big")
        if want == 0xFFFFFFFF:
            break
        for _ in range(EXCHANGES):
            sock.sendall(take(sock, 100))
        got = 0
        while more := sock.recv(65536):
            got += len(more)
        count += 1
        if got != want:
            bad += 1
            print("truncated: %d of %d" % (got, want))
        sock.close()
    print("transfers %d bad %d" % (count, bad), flush=True)


def transfer(addr, port, want, pause):
    sock = socket.create_connection((addr, port), 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(want.to_bytes(4, "big"))
    for _ in range(EXCHANGES):
        sock.sendall(b"x" * 100)
        take(sock, 100)
        time.sleep(0.005)
    time.sleep(pause)
    sock.sendall(os.urandom(want))
    return sock


def transfer_and_die(*args):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    held = transfer(*args)
    os.kill(os.getpid(), signal.SIGKILL)
    held.close()


def connect(addr, port, n, killed):
    random.seed(1)
    for k in range(n):
        args = (addr, port, random.choice(SIZES), 0.25 * (k % 2))
        if killed:
            transfer_and_die(*args)
        else:
            transfer(*args).close()
    sock = socket.create_connection((addr, port), 30)
    sock.sendall(b"\xff" * 4)
    sock.close()


if sys.argv[1] == "listen":
    listen(sys.argv[2], int(sys.argv[3]))
else:
    connect(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), len(sys.argv) > 5)
