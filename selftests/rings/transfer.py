# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""One end of a transfer in which both ends send a pattern and check every byte that they get.

transfer.py listen|connect PORT SECONDS STYLE

STYLE is how the program waits: blocking (a thread for each direction), select, poll or epoll (edge
triggered). After SECONDS, or SIGUSR1, an end stops sending and half-closes; it reads on to the end of the
stream. It says "flows" once bytes go both ways, and at last "exact N bytes, sent M, end eof|reset", status 0. A byte
that is not the pattern's, or no progress for long: it says so, status 1.
"""

import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time

HOST = os.environ.get("ISMREDIR_TEST_HOST", "127.0.0.1")  # where the listener is
PAUSE = float(os.environ.get("ISMREDIR_TEST_PAUSE", "0"))  # seconds, before each piece that is sent
PERIOD = 1048583
PATIENCE = 30  # seconds without any progress
TURNS = 64
FLOWS = 1 << 20


class End(Exception):
    """The stream has ended; says how."""


class Direction:
    """The pattern of one direction, and how far it is."""

    def __init__(self, seed):
        # a period twice, so that every piece is one slice
        self.bytes = memoryview(random.Random(seed).randbytes(PERIOD) * 2)
        self.at = 0

    def piece(self, size):
        start = self.at % PERIOD
        return self.bytes[start : start + size]


class Transfer:
    """Both directions of a connected socket."""

    def __init__(self, sock, seeds, seconds):
        self.sock = sock
        self.out, self.come = map(Direction, seeds)
        self.until = time.monotonic() + seconds
        self.writing = True
        self.buffer = memoryview(bytearray(1 << 17))
        self.told = False
        signal.signal(signal.SIGUSR1, self.stop)

    def stop(self, *_):
        """Nothing more is to be sent."""
        self.until = 0

    def take(self):
        """Receive once and check."""
        try:
            got = self.sock.recv_into(self.buffer[: size()])
        except (ConnectionResetError, ConnectionAbortedError):
            raise End("reset") from None
        if not got:
            raise End("eof")
        want = self.come.piece(got)
        if self.buffer[:got] != want:
            bad = next(n for n in range(got) if self.buffer[n] != want[n])
            sys.exit(f"wrong byte at {self.come.at + bad}, in a piece of {got} from {self.come.at}")
        self.come.at += got
        if not self.told and min(self.out.at, self.come.at) > FLOWS:
            self.told = True
            print("flows", flush=True)

    def give(self):
        """Send once, or end it. A partner that does not listen any more is seen by take()."""
        try:
            if time.monotonic() > self.until:
                self.writing = False
                self.sock.shutdown(socket.SHUT_WR)
            else:
                time.sleep(PAUSE)
                self.out.at += self.sock.send(self.out.piece(size()))
        except BlockingIOError:
            raise
        except OSError:
            self.writing = False


def size():
    """Mostly small, sometimes large."""
    return int(2 ** random.uniform(0, 17))


def blocking(transfer):
    """Two threads, each asleep in its call."""

    def give_all():
        while transfer.writing:
            transfer.give()

    transfer.sock.settimeout(None)
    transfer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", PATIENCE, 0))
    giver = threading.Thread(target=give_all, daemon=True)
    giver.start()
    try:
        while True:
            transfer.take()
    except End:
        giver.join(PATIENCE)
        raise


def wait_select(sock, writing):
    readable, writable, _ = select.select([sock], [sock] if writing else [], [], PATIENCE)
    return readable, writable


def wait_poll(sock, writing):
    poller = select.poll()
    poller.register(sock, select.POLLIN | (select.POLLOUT if writing else 0))
    events = sum(event for _, event in poller.poll(PATIENCE * 1000))
    return events & ~select.POLLOUT, events & ~select.POLLIN


def level(transfer, wait):
    """One call for each readiness that is reported, which must then not block."""
    transfer.sock.setblocking(False)
    while True:
        readable, writable = wait(transfer.sock, transfer.writing)
        if not readable and not writable:
            sys.exit(f"nothing for {PATIENCE} s after {transfer.come.at} bytes, {transfer.out.at} sent")
        if readable:
            attempt(transfer.take)
        if writable and transfer.writing:
            attempt(transfer.give)


def attempt(step):
    """False when it would have blocked."""
    try:
        step()
    except BlockingIOError:
        return False
    return True


def edge(transfer):
    """
    Each direction is used until it would block, by turns; only then is there anything to wait for. But edges are asked
    for now and then before: where the partner is never slower, receiving never would block, and sending, once it had,
    never came to its turn again.
    """
    poller = select.epoll()
    transfer.sock.setblocking(False)
    poller.register(transfer.sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
    more_in = more_out = False
    while True:
        if poller.poll(0 if more_in or more_out else PATIENCE):
            more_in, more_out = True, transfer.writing
        elif not more_in and not more_out:
            break
        for _ in range(TURNS):
            more_in = more_in and attempt(transfer.take)
            more_out = more_out and attempt(transfer.give) and transfer.writing
    sys.exit(f"no edge for {PATIENCE} s after {transfer.come.at} bytes, {transfer.out.at} sent")


STYLES = {
    "blocking": blocking,
    "select": lambda transfer: level(transfer, wait_select),
    "poll": lambda transfer: level(transfer, wait_poll),
    "epoll": edge,
}


def connected(role, port):
    if role == "connect":
        return socket.create_connection((HOST, port))
    with socket.create_server((HOST, port)) as listener:
        return listener.accept()[0]


def main():
    role, port, seconds, style = sys.argv[1:]
    seeds = (1, 2) if role == "connect" else (2, 1)
    with connected(role, int(port)) as sock:
        transfer = Transfer(sock, seeds, float(seconds))
        try:
            STYLES[style](transfer)
        except End as end:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # who is about to exit has no handler
            print(f"exact {transfer.come.at} bytes, sent {transfer.out.at}, end {end}", flush=True)


main()
