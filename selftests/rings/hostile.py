#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A partner that has rings with an echo server and writes nonsense into them.

hostile.py SOCKET PORT ROUNDS - each round is a connection: some honest echoes, rings from the ismredird at
SOCKET, then random values for a while into every word that the server reads, and into the data.
Layouts: include/ismredir/dmb.h. The server must only lose these connections: the caller looks.
"""
import contextlib
import os
import random
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "daemon"))
import control  # noqa: E402

PROD, CPU, WANT_SPACE, CONS, TCP, WANT_DATA, HOW, RING = 128, 136, 140, 192, 200, 208, 212, 4096
READY = 1 << 32
HONEST = 24
SECONDS = 0.15


def words(rand, prod):
    """Where, what: near the truth, far from it, and anything."""
    near = (prod >> 8) + rand.choice([1, 7, 64, 4096, 65536, 1 << 20, (1 << 20) + 1, -1, -64])
    yield PROD, struct.pack("=Q", (near & (1 << 56) - 1) << 8 | rand.getrandbits(8))
    yield PROD, struct.pack("=Q", rand.getrandbits(64))
    yield PROD, struct.pack("=Q", (near & (1 << 56) - 1) << 8)
    yield CONS, struct.pack("=Q", rand.choice([0, 1, rand.getrandbits(21), rand.getrandbits(64)]))
    yield TCP, struct.pack("=Q", rand.getrandbits(4) << 32 | rand.getrandbits(32))
    yield WANT_DATA, struct.pack("=II", rand.getrandbits(32), rand.getrandbits(1))
    yield WANT_SPACE, struct.pack("=I", rand.getrandbits(32))
    yield CPU, struct.pack("=I", rand.choice([0, 1, 2**31, rand.getrandbits(32)]))
    yield RING + rand.randrange(1 << 20), rand.randbytes(rand.randrange(1, 512))
    yield RING - 512, rand.randbytes(512)


def attack(sock, rings, rand):
    sock.setblocking(False)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        prod = struct.unpack_from("=Q", rings.peer_dmb, PROD)[0]
        at, value = rand.choice(list(words(rand, prod)))
        room = len(rings.peer_dmb) - at
        rings.put(at, value[:room])
        with contextlib.suppress(BlockingIOError):
            if rand.random() < 0.2:
                sock.send(rand.randbytes(rand.randrange(1, 2000)))
            if not sock.recv(65536):
                return
        if rand.random() < 0.3:
            os.eventfd_write(rings.fds[3], 1)


def one_round(path, port, rand):
    daemon = control.Client(path)
    sock = socket.socket()
    control.tell_caps(sock)
    sock.connect(("127.0.0.1", port))
    sock.settimeout(10)
    for _ in range(HONEST):
        sock.sendall(b"echo")
        assert sock.recv(4, socket.MSG_WAITALL) == b"echo"
    end = control.End(sock)
    rings = daemon.attach(end, rand.getrandbits(64) or 1)
    # a reader, so that the server sends into our ring: it has read all that came by TCP
    rings.put(TCP, struct.pack("=Q", READY | end.info()[4]))
    ended = False
    try:
        sock.sendall(b"more")
        attack(sock, rings, rand)
    except (ConnectionError, BrokenPipeError):
        ended = True
    sock.close()
    rings.close()
    daemon.close()
    return ended


def main():
    path, port, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ended = sum(one_round(path, port, random.Random(n)) for n in range(rounds))
    print(f"{rounds} connections, {ended} ended by the server")


main()
