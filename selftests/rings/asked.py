# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Connections that ismredird was asked about, and that are then to stay TCP and be closed, while it stands still.

asked.py PORT CUE

Makes the file CUE when it has met ismredird, and goes on when that is gone. The requests lie unread in the daemon's
queue then, and each has the socket with it.

asked.py PORT CUE asks|dies|inherits DAEMON

A child that asks while the process DAEMON is stopped, or (inherits) whose parent has, and that ends then. Makes the
file CUE when it has gone and the daemon runs again; goes on talking until the file is gone.

asked.py PORT CUE left

A child that has the rings of both ends, and ends. Makes the file CUE; when that is gone, says whether the connection
is as it was ("exact") or at its end ("ended").
"""

import os
import select
import signal
import socket
import sys
import time


SO_TIMESTAMP = 29  # asm-generic/socket.h


def talk(a, b, rounds, nap=0.0):
    for _ in range(rounds):
        for one, other in ((a, b), (b, a)):
            one.sendall(b"x")
            assert other.recv(1) == b"x"
        time.sleep(nap)


def pair(listener):
    a = socket.create_connection(listener.getsockname())
    b = listener.accept()[0]
    for sock in (a, b):
        sock.settimeout(10)
    return a, b


def ends_and_is_forgotten(listener):
    """What TCP does: the partner sees the end, and no set reports a socket that was closed."""
    ep = select.epoll()
    a, b = pair(listener)
    talk(a, b, 40)
    b.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    talk(a, b, 2)
    ep.register(b, select.EPOLLIN)
    b.close()
    assert a.recv(1) == b"", "bytes that nobody sent"
    a.close()
    events = ep.poll(0.3)
    assert not events, f"a closed socket is reported: {events}"


def lives_on_elsewhere(listener):
    """Passed on and closed here: the connection is the other one's."""
    left, right = socket.socketpair(socket.AF_UNIX)
    a, b = pair(listener)
    talk(a, b, 40)
    socket.send_fds(left, [b"x"], [b.fileno()])
    b.close()
    fds = socket.recv_fds(right, 1, 1)[1]
    b = socket.socket(fileno=fds[0])
    b.settimeout(10)
    talk(a, b, 2)


def child_ends(a, b, how, rounds=40, nap=0.0):
    child = os.fork()
    if not child:
        talk(a, b, rounds, nap)
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == (signal.SIGKILL if how == "dies" else 0)


def child_asks(listener, cue, how, daemon):
    a, b = pair(listener)
    os.kill(daemon, signal.SIGSTOP)
    try:
        if how == "inherits":
            talk(a, b, 4)
        child_ends(a, b, how)
    finally:
        os.kill(daemon, signal.SIGCONT)
    with open(cue, "w", encoding="utf-8"):
        pass
    rounds = 0
    while os.path.exists(cue):
        # Who can say that he goes spares the others the many messages after which they would ask.
        if how != "asks" or rounds < 400:
            talk(a, b, 20)
            rounds += 20
        time.sleep(0.01)


def leaves_rings(listener, cue):
    a, b = pair(listener)
    child_ends(a, b, "left", 200, 0.002)
    with open(cue, "w", encoding="utf-8"):
        pass
    while os.path.exists(cue):
        time.sleep(0.01)
    try:
        a.sendall(b"one")
        print({b"one": "exact", b"": "ended"}.get(b.recv(100), "wrong"))
    except ConnectionError:
        print("ended")


def process_asks(listener, cue):
    first = pair(listener)
    talk(*first, 200, 0.002)
    with open(cue, "w", encoding="utf-8"):
        pass
    while os.path.exists(cue):
        time.sleep(0.01)
    ends_and_is_forgotten(listener)
    lives_on_elsewhere(listener)


def main():
    port, cue = int(sys.argv[1]), sys.argv[2]
    listener = socket.create_server(("127.0.0.1", port))
    if sys.argv[3:] == ["left"]:
        leaves_rings(listener, cue)
    elif len(sys.argv) > 3:
        child_asks(listener, cue, sys.argv[3], int(sys.argv[4]))
    else:
        process_asks(listener, cue)


main()
