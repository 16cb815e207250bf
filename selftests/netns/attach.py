#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Attach rings to a connection as the preloaded library does, and leave known numbers in them.

attach.py SOCKET COMMAND... - a loopback pair whose ends both get rings from the ismredird at SOCKET
and report it; then runs COMMAND, then detaches. Layouts: include/ismredir/control.h, dmb.h, sockctl.h.
"""
import array
import mmap
import os
import socket
import struct
import subprocess
import sys

SOL, SO_CAPS, SO_INFO, SO_REPORT = 0x49534D52, 1, 2, 3
MAGIC, HELLO, HELLO_OK, ATTACH, ATTACH_OK, DETACH = 0x4C435349, 1, 2, 3, 4, 5
TCP, DIRECT, DETACHED = 0, 2, 0x020C
STATS, PAGE = 256, 4096


def tell(sock, option, value):
    """Its number carries the value: sockctl.h."""
    sock.getsockopt(SOL, option | value << 8)


def pair():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    tell(listener, SO_CAPS, 1)
    listener.listen()
    client = socket.socket()
    tell(client, SO_CAPS, 1)
    client.connect(listener.getsockname())
    return client, listener.accept()[0]


class Daemon:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.s.settimeout(10)
        self.s.connect(path)
        self.ask(HELLO, HELLO_OK, struct.pack("=II", 0, 0))

    def send(self, kind, body, fds=()):
        head = struct.pack("=IHHII", MAGIC, 3, kind, len(body), 7)
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.s.sendmsg([head + body], anc)

    def ask(self, kind, want, body, fds=()):
        self.send(kind, body, fds)
        data, anc, _, _ = self.s.recvmsg(4096, socket.CMSG_SPACE(20))
        got = array.array("i")
        for _, _, raw in anc:
            got.frombytes(raw[: len(raw) - len(raw) % 4])
        kind = struct.unpack("=IHHII", data[:16])[2]
        if kind != want:
            sys.exit(f"answer {kind}: {data[16:].hex()}")
        return data[16:], list(got)


def attach(daemon, sock, share):
    token = struct.unpack("=Q", sock.getsockopt(SOL, SO_INFO, 48)[:8])[0]
    body, fds = daemon.ask(ATTACH, ATTACH_OK, struct.pack("=QQ", token, share), (sock.fileno(),))
    if struct.unpack("=Q", body[:8])[0] != token:
        sys.exit("another token")
    return token, mmap.mmap(fds[1], PAGE)


def main():
    ends = pair()
    daemons = [Daemon(sys.argv[1]) for _ in ends]
    held = []
    for i, sock in enumerate(ends):
        token, peer = attach(daemons[i], sock, 1000 + i)
        # tx_bytes, tx_msgs, tcp_tx_bytes, switches, doorbells, reason, pid; later spins and sleeps
        struct.pack_into("=5Q2I", peer, STATS, 5000 + i, 50 + i, 0, 3, 9, 0, os.getpid())
        struct.pack_into("=2Q", peer, STATS + 88, 11, 12)
        tell(sock, SO_REPORT, DIRECT << 16)
        held.append((token, peer))
    status = subprocess.run(sys.argv[2:], check=False).returncode
    for daemon, sock, (token, _) in zip(daemons, ends, held):
        daemon.send(DETACH, struct.pack("=Q", token))
        tell(sock, SO_REPORT, TCP << 16 | DETACHED)
    sys.exit(status)


main()
