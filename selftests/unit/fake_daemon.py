#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Answers like ismredird with made-up rings, so that what commands show of them can be checked.

fake_daemon.py SOCKET - prints "ready" when it listens; ends when its standard input does. One packet
for each answer, as include/ismredir/control.h says.
"""
import select
import socket
import struct
import sys

MAGIC, VERSION = 0x4C435349, 3
HELLO, HELLO_OK, LIST, DMB, LIST_END, FABRICS, FABRIC, STATUS, STATUS_OK, ERROR = (
    1, 2, 8, 9, 10, 11, 12, 13, 14, 15)


def packet(kind, seq, body=b""):
    return struct.pack("=IHHII", MAGIC, VERSION, kind, len(body), seq) + body


def dmb(token, peer, fill, tx_bytes, tx_msgs, flags, prod):
    stats = struct.pack("=5Q2I16x6Q16x", tx_bytes, tx_msgs, 77, 3, 6, 0, 222, 0, 0, 0, 4, 5, 0)
    return struct.pack("=QQ8I", token, peer, 65536, fill, 111, 222, 33, flags, 0, prod) + stats


def fabric(name, index, *peers):
    return struct.pack("=64s16s16sIIQIIII", name, bytes(range(16)), bytes(range(16, 32)), 19, 2, 139264, 5,
                       index, 0xabc * index, len(peers)) + b"".join(peers)


def peer(first, network, number, life, age):
    return struct.pack("=16s16sIIQQ", bytes(range(first, first + 16)), network, number, life, 1500, age)


def fabrics():
    yield fabric(b"memfd:", 0)
    yield fabric(b"shm:/dev/shm/r", 1, peer(0, b"", 0, 1, 70), peer(32, b"NET\x1b" * 4, 3, 2, 98765),
                 peer(48, b"NET1", 4, 3, 1), peer(64, b"", 63, 77, 0))


def status():
    return struct.pack("=QII13QII", 61000, 3, 1, 10, 9, 1, 2, 4, 1 << 20, 500, 1000, 60, 70, 80, 0,
                       139264, 1 << 30, 4242, 1)


def answers(kind, seq):
    if kind == HELLO:
        return [packet(HELLO_OK, seq, struct.pack("=Q16s", 99, bytes(16)))]
    if kind == LIST:
        a, b = 0x1111, 0xFEDCBA9876543210
        return [packet(DMB, seq, dmb(a, b, 100, 5000, 50, 3, 4)),
                packet(DMB, seq, dmb(b, a, 0, 7000, 70, 7, 9)),
                packet(LIST_END, seq)]
    if kind == FABRICS:
        return [packet(FABRIC, seq, f) for f in fabrics()] + [packet(LIST_END, seq)]
    if kind == STATUS:
        return [packet(STATUS_OK, seq, status())]
    return [packet(ERROR, seq, struct.pack("=Qii", 0, -71, 0))]


def main():
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(sys.argv[1])
    server.listen(8)
    print("ready", flush=True)
    peers = []
    while True:
        ready, _, _ = select.select([server, sys.stdin] + peers, [], [])
        for s in ready:
            if s is sys.stdin:
                return
            if s is server:
                peers.append(server.accept()[0])
                continue
            request = s.recv(4096)
            if not request:
                peers.remove(s)
                s.close()
                continue
            _, _, kind, _, seq = struct.unpack("=IHHII", request[:16])
            for answer in answers(kind, seq):
                s.send(answer)


main()
