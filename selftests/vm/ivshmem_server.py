#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""An ivshmem server, protocol version 0: gives peers a number, the shared memory, and everybody's bells.

    ivshmem_server.py [--vectors N] [--size BYTES] [--memory FILE] [--numbers N] SOCKET

Messages are 64-bit little-endian numbers, some with a descriptor: to a new peer 0 (the version), its
number, -1 with the memory; then, to it for everyone and to everyone for it, the number with an eventfd,
once for each vector; a number alone says that this peer has left. Prints one line for each of them.

A number is used again as late as possible: QEMU (seen with 7.2) uses freed memory when a peer
comes back under the number of one that has left.
"""

import argparse
import os
import selectors
import signal
import socket
import struct
import sys


class Peer:
    def __init__(self, number, conn, vectors):
        self.number, self.conn = number, conn
        flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
        self.bells = [os.eventfd(0, flags) for _ in range(vectors)]

    def send(self, value, fd=None):
        """A peer that does not read is a peer that leaves: the next read sees it."""
        data = struct.pack("<q", value)
        try:
            socket.send_fds(self.conn, [data], [] if fd is None else [fd])
        except OSError:
            pass

    def close(self):
        self.conn.close()
        for fd in self.bells:
            os.close(fd)


class Server:
    def __init__(self, path, memory, vectors, numbers):
        self.memory, self.vectors, self.numbers = memory, vectors, numbers
        self.next = 0
        self.peers = {}
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        self.selector.register(self.listener, selectors.EVENT_READ, None)

    def join(self):
        conn = self.listener.accept()[0]
        order = (n % self.numbers for n in range(self.next, self.next + self.numbers))
        number = next((n for n in order if n not in self.peers), None)
        if number is None:
            conn.close()
            return
        self.next = number + 1
        new = Peer(number, conn, self.vectors)
        new.send(0)
        new.send(number)
        new.send(-1, self.memory)
        for other in self.peers.values():
            for fd in other.bells:
                new.send(other.number, fd)
            for fd in new.bells:
                other.send(number, fd)
        for fd in new.bells:
            new.send(number, fd)
        self.peers[number] = new
        self.selector.register(conn, selectors.EVENT_READ, new)
        print("join", number, flush=True)

    def leave(self, peer):
        self.selector.unregister(peer.conn)
        del self.peers[peer.number]
        peer.close()
        for other in self.peers.values():
            other.send(peer.number)
        print("leave", peer.number, flush=True)

    def serve(self):
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    self.join()
                    continue
                try:
                    data = key.data.conn.recv(64)
                except OSError:
                    data = b""
                if not data:
                    self.leave(key.data)


def open_memory(path, size):
    if path:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    else:
        fd = os.memfd_create("ivshmem", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def main():
    p = argparse.ArgumentParser(description="ivshmem server")
    p.add_argument("--vectors", type=int, default=1)
    p.add_argument("--size", type=int, default=16 << 20)
    p.add_argument("--memory", help="file to be the memory; without, a memfd")
    p.add_argument("--numbers", type=int, default=65536, help="how many numbers there are")
    p.add_argument("socket")
    a = p.parse_args()
    server = Server(a.socket, open_memory(a.memory, a.size), a.vectors, a.numbers)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        print("ready", flush=True)
        server.serve()
    finally:
        os.unlink(a.socket)


if __name__ == "__main__":
    main()
