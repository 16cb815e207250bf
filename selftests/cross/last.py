# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A writer that waits for its cue, sends its last bytes, and is killed behind them.

last.py listen ADDR PORT | connect ADDR PORT CUE

The reader says "whole", "truncated" or "reset" and how many bytes came. CUE is a file.
"""

import os
import signal
import socket
import sys
import time

from talk import answer, ask

SIZE = 100000  # the ring takes it


def listen(addr, port):
    sock, _ = socket.create_server((addr, port)).accept()
    sock.settimeout(90)
    answer(sock)
    got, how = 0, "reset"
    try:
        while more := sock.recv(1 << 16):
            got += len(more)
        how = "whole" if got == SIZE else "truncated"
    except ConnectionError:
        pass
    print(how, got, flush=True)


def connect(addr, port, cue):
    sock = socket.create_connection((addr, port), 30)
    ask(sock)
    print("ready", flush=True)
    while not os.path.exists(cue):
        time.sleep(0.01)
    sock.sendall(b"z" * SIZE)
    os.kill(os.getpid(), signal.SIGKILL)


if sys.argv[1] == "listen":
    listen(sys.argv[2], int(sys.argv[3]))
else:
    connect(sys.argv[2], int(sys.argv[3]), sys.argv[4])
