# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Many connections to an echo server that are closed all at once, by a program that goes on with one.

crowd.py PORT CONNECTIONS CUE

They are closed when the file CUE is there; then it is removed.
"""

import os
import socket
import sys
import time


ROUNDS = 20  # who was refused for once asks for rings again


def ask(sock):
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"


def main():
    port, count, cue = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    all_socks = []
    for _ in range(count):
        all_socks.append(socket.create_connection(("127.0.0.1", port)))
        for _ in range(ROUNDS):
            ask(all_socks[-1])
            time.sleep(0.0005)
    one = all_socks.pop(0)
    while not os.path.exists(cue):
        ask(one)
        time.sleep(0.02)
    for sock in all_socks:
        sock.close()
    os.unlink(cue)
    while True:
        ask(one)
        time.sleep(0.02)


main()
