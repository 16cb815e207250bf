# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A writer whose reader stops for some seconds.

stopped.py listen ADDR PORT | connect ADDR PORT SIZE

The writer says how many bytes it got rid of by writes of SIZE before anybody read, the reader how many came.
"""

import socket
import sys
import time

from talk import answer, ask

STOPPED = 3


def listen(addr, port):
    server = socket.create_server((addr, port))
    sock, _ = server.accept()
    answer(sock)
    time.sleep(STOPPED + 1)
    got = 0
    while more := sock.recv(1 << 20):
        got += len(more)
    print("got %d" % got, flush=True)


def connect(addr, port, size):
    sock = socket.create_connection((addr, port), 30)
    ask(sock)
    sock.setblocking(False)
    sent, end = 0, time.monotonic() + STOPPED
    while time.monotonic() < end:
        try:
            sent += sock.send(b"y" * size)
        except BlockingIOError:
            time.sleep(0.01)
    print(sent)


if sys.argv[1] == "listen":
    listen(sys.argv[2], int(sys.argv[3]))
else:
    connect(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
