# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Connections that are idle, but for a round of questions and answers now and then.

turns.py listen ADDR PORT N | connect ADDR PORT N

The client begins with a round and makes one more at each SIGUSR1. It says "round N" when every answer was right.
"""

import os
import selectors
import signal
import socket
import sys

EXCHANGES = 40


def listen(addr, port, n):
    """Answer on N connections what is asked, until they have ended."""
    ready = selectors.DefaultSelector()
    with socket.create_server((addr, port)) as server:
        for _ in range(n):
            ready.register(server.accept()[0], selectors.EVENT_READ)
    while ready.get_map():
        for key, _ in ready.select():
            data = key.fileobj.recv(1 << 16)
            if data:
                key.fileobj.sendall(data)
            else:
                ready.unregister(key.fileobj)


def ask(sock):
    """Short questions, no two alike."""
    for n in range(EXCHANGES):
        question = os.urandom(1 + 37 * n)
        sock.sendall(question)
        answer = b""
        while len(answer) < len(question):
            more = sock.recv(1 << 16)
            if not more:
                sys.exit("ended")
            answer += more
        if answer != question:
            sys.exit("wrong answer")


def connect(addr, port, n):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    socks = [socket.create_connection((addr, port), 30) for _ in range(n)]
    number = 0
    while True:
        for sock in socks:
            ask(sock)
        number += 1
        print("round", number, flush=True)
        signal.sigwait({signal.SIGUSR1})


(listen if sys.argv[1] == "listen" else connect)(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
