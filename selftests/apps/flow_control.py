# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Fill a socket's send buffer, then sleep in a blocking recv(): it must wait for the answer.

The peer makes room in the buffer long before it answers. That wakes the sleeper, who has nothing to
read yet, and must not be told so: flow_control.py PORT
"""

import socket
import sys
import threading
import time


def drain_then_answer(listener):
    conn, _ = listener.accept()
    time.sleep(0.2)
    conn.setblocking(False)
    try:
        while conn.recv(1 << 16):
            pass
    except BlockingIOError:
        pass
    time.sleep(0.3)
    conn.sendall(b"done")
    conn.close()


def fill(sock):
    """Returns how many bytes fit."""
    total = 0
    while True:
        try:
            total += sock.send(bytes(1 << 16), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return total


def main():
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        threading.Thread(target=drain_then_answer, args=(listener,), daemon=True).start()
        with socket.create_connection(listener.getsockname()) as sock:
            filled = fill(sock)
            try:
                answer = sock.recv(100)
            except BlockingIOError as error:
                sys.exit(f"after {filled} bytes a blocking recv() says: {error}")
            if answer != b"done":
                sys.exit(f"after {filled} bytes recv() brings {answer!r}")


main()
