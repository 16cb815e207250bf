# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""One end of a connection between two hosts that asks ismredird for its rings by hand.

attach.py listen|connect PORT pair|wait|stranger

pair: both ends attach; each writes a pattern into its partner's DMB and rings, waits to be rung, and looks
    into its own
wait: only connect asks; it is told to wait, holds the end alone meanwhile, and can give it up
stranger: a user whom the fabric does not name asks for the rings of a connection that root has made
"""

import errno
import os
import pathlib
import select
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "daemon"))
# pylint: disable=wrong-import-position
from control import OWN_BELL, PEER_BELL, RING_OFF, Client, End, Refused, tell_caps

HOST = os.environ["ISMREDIR_TEST_HOST"]
SOCK = os.environ["ISMREDIR_SOCK"]
REMOTE = 32  # ISM_SOCK_REMOTE
NOT_ALLOWED = 0x409


def capable():
    sock = socket.socket()
    tell_caps(sock)
    return sock


def connected(role, port):
    with capable() as sock:
        if role == "connect":
            sock.connect((HOST, port))
            return End(sock.dup())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        sock.listen()
        return End(sock.accept()[0])


def refusal(client, end, share=1):
    try:
        client.attach(end, share)
    except Refused as refused:
        return refused
    sys.exit("the rings came")


def attach(client, end):
    until = time.monotonic() + 10
    while True:
        try:
            return client.attach(end)
        except Refused as refused:
            assert refused.errno == errno.EAGAIN and time.monotonic() < until, refused
        time.sleep(0.02)


def pair(role, client, end):
    mine, theirs = (b"from connect ", b"from listen ") if role == "connect" else (b"from listen ", b"from connect ")
    rings = attach(client, end)
    assert rings.own_off % 4096 == 0 and rings.own_off != rings.peer_off, (rings.own_off, rings.peer_off)
    rings.put(RING_OFF, mine * 1000)
    rings.put(RING_OFF + rings.peer_ring - len(mine), mine)
    os.write(rings.fds[PEER_BELL], struct.pack("=Q", 7))
    assert select.select([rings.fds[OWN_BELL]], [], [], 5)[0], "nobody rang"
    assert rings.get(RING_OFF, 1000 * len(theirs)) == theirs * 1000
    assert rings.get(RING_OFF + rings.own_ring - len(theirs), len(theirs)) == theirs
    mine, = [d for d in client.list().values() if d["token"] == rings.token]
    assert mine["fabric"] == 1 and mine["peer"] == rings.peer and mine["ring_size"] == rings.own_ring, mine
    end.sock.sendall(b"x")  # the partner has looked, too, when this has come
    assert end.sock.recv(1) == b"x"


def wait(role, client, end):
    if role == "listen":
        end.sock.recv(1)
        return
    for _ in range(3):
        assert refusal(client, end).errno == errno.EAGAIN
    other = Client(SOCK)
    assert refusal(other, end, share=2).errno == errno.EBUSY
    assert [d["fabric"] for d in client.list().values()] == [1]
    client.detach(end.token)
    client.sync()
    assert not client.list()
    assert refusal(other, end, share=2).errno == errno.EAGAIN
    other.close()
    until = time.monotonic() + 5
    while client.list():
        assert time.monotonic() < until, "what a client waited for stays when it is gone"


def stranger(role, client, end):
    if role == "listen":
        end.sock.recv(1)
        return
    os.seteuid(1000)
    refused = refusal(Client(SOCK), end)
    os.seteuid(0)
    assert (refused.errno, refused.reason) == (errno.EPERM, NOT_ALLOWED), refused
    assert not client.list()


def main():
    role, port, mode = sys.argv[1:]
    end = connected(role, int(port))
    flags = end.info()[6]
    assert flags & REMOTE, hex(flags)
    client = Client(SOCK)
    {"pair": pair, "wait": wait, "stranger": stranger}[mode](role, client, end)
    end.sock.close()
    print("well")


main()
