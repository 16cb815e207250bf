# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A connection that begins with questions and answers and becomes a stream of small messages.

bulk.py listen ADDR PORT | connect ADDR PORT FILE

The writer creates FILE when the reader has said that all came as it was sent, and stays until it is removed.
"""

import hashlib
import os
import socket
import sys
import time

from talk import answer, ask, take

MESSAGES = 20000
SIZE = 1000


def message(number):
    return number.to_bytes(8, "big") * (SIZE // 8)


def listen(addr, port):
    server = socket.create_server((addr, port))
    sock, _ = server.accept()
    answer(sock)
    seen, left = hashlib.sha256(), MESSAGES * SIZE
    while left and (more := sock.recv(min(left, 1 << 16))):
        seen.update(more)
        left -= len(more)
    sock.sendall(seen.digest())
    sock.recv(1)


def connect(addr, port, path):
    sock = socket.create_connection((addr, port), 30)
    ask(sock)
    sent = hashlib.sha256()
    for number in range(MESSAGES):
        sock.sendall(message(number))
        sent.update(message(number))
    if take(sock, 32) != sent.digest():
        sys.exit("what came is not what was sent")
    with open(path, "w", encoding="ascii"):
        pass
    while os.path.exists(path):
        time.sleep(0.05)


if sys.argv[1] == "listen":
    listen(sys.argv[2], int(sys.argv[3]))
else:
    connect(sys.argv[2], int(sys.argv[3]), sys.argv[4])
