# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Echoes over many connections, some of which are attacked meanwhile, while the others must not notice.

echoes.py listen ADDR STYLE PORT SPARED_PORT
echoes.py connect ADDR STYLE PORT COUNT SPARED_PORT SPARED_COUNT

STYLE is epoll, or threads that sleep in their calls. The client keeps COUNT connections to PORT: each is given up
when it ends, when its echo is not what was sent, or when it stands still, and replaced; that is counted. Those to
SPARED_PORT go on until SIGUSR1, then to their end: if they are not exact, the status is 1. It says "echoes" once all
have had some.
"""

import collections
import random
import select
import signal
import socket
import struct
import sys
import threading
import time

PERIOD = 1048583
STILL = 3  # seconds without a byte, of who may be attacked
PATIENCE = 20  # the same of others
WINDOWS = [1, 1 << 12, 1 << 17]  # bytes that are sent and have not come back, at least one message
BUFFER = 1 << 16
SOME = 50
RESET = ConnectionResetError, ConnectionAbortedError

PATTERN = memoryview(random.Random(1).randbytes(PERIOD) * 2)


class End(Exception):
    """How a connection ended."""


class Echo:
    """A client's connection."""

    made = 0

    def __init__(self, addr, port, is_spared):
        self.is_spared = is_spared
        self.sock = socket.create_connection((addr, port), PATIENCE)
        self.sock.setblocking(False)
        Echo.made += 1
        self.start = Echo.made * 7919
        self.window = WINDOWS[Echo.made % len(WINDOWS)]
        self.sent = self.got = self.takes = 0
        self.ending = False
        self.last = time.monotonic()

    def piece(self, at, size):
        at = (self.start + at) % PERIOD
        return PATTERN[at : at + size]

    def may_give(self):
        return not self.ending and self.sent - self.got < self.window

    def give(self):
        size = int(2 ** random.uniform(0, 15))
        try:
            self.sent += self.sock.send(self.piece(self.sent, size))
        except (*RESET, BrokenPipeError):
            raise End("reset") from None

    def take(self):
        try:
            data = self.sock.recv(BUFFER)
        except RESET:
            raise End("reset") from None
        if not data:
            raise End("exact" if self.ending and self.got == self.sent else "early end")
        if data != self.piece(self.got, len(data)):
            raise End("garbled")
        self.got += len(data)
        self.takes += 1
        self.last = time.monotonic()

    def check(self):
        if time.monotonic() > self.last + (PATIENCE if self.is_spared else STILL):
            raise End("still")

    def finish(self):
        self.ending = True
        self.sock.shutdown(socket.SHUT_WR)


class Client:
    """Keeps its connections; what became of them."""

    def __init__(self, addr, port, count, spared_port, spared_count):
        self.addr = addr
        self.plan = [(int(port), False)] * int(count) + [(int(spared_port), True)] * int(spared_count)
        self.stop = False
        self.ends = collections.Counter()
        self.bad = False
        self.told = 0
        signal.signal(signal.SIGUSR1, self.on_stop)

    def on_stop(self, *_):
        self.stop = True

    def connect(self, port, is_spared):
        return Echo(self.addr, port, is_spared)

    def told_by(self, echo):
        if echo.takes == SOME:
            self.told += 1
            if self.told == len(self.plan):
                print("echoes", flush=True)

    def ended(self, echo, how):
        if not echo.is_spared:  # a FIN may be held back for as long as the memory says
            echo.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        echo.sock.close()
        if not echo.is_spared:
            self.ends[how] += 1
        elif how != "exact":
            self.bad = True
            print(f"spared: {how} after {echo.got} bytes, {echo.sent} sent", flush=True)

    def epoll(self):
        poller, echoes = select.epoll(), {}

        def add(port, is_spared):
            echo = self.connect(port, is_spared)
            echoes[echo.sock.fileno()] = echo, port
            poller.register(echo.sock, select.EPOLLIN | select.EPOLLOUT)

        def drop(fd, how):
            echo, port = echoes.pop(fd)
            self.ended(echo, how)
            if not self.stop and not echo.is_spared:
                add(port, False)

        def step(fd, event):
            echo, _ = echoes[fd]
            if event & ~select.EPOLLOUT:
                echo.take()
                self.told_by(echo)
            if event & select.EPOLLOUT and echo.may_give():
                echo.give()
            poller.modify(fd, select.EPOLLIN | (select.EPOLLOUT if echo.may_give() else 0))

        def try_to(fd, what, *args):
            try:
                what(*args)
            except BlockingIOError:
                pass
            except End as end:
                drop(fd, end.args[0])

        for port, is_spared in self.plan:
            add(port, is_spared)
        checked = 0
        while echoes:
            if self.stop:
                for fd, (echo, _) in list(echoes.items()):
                    if not echo.is_spared:
                        drop(fd, "stopped")
                    elif not echo.ending:
                        echo.finish()
            for fd, event in poller.poll(0.1):
                if fd in echoes:
                    try_to(fd, step, fd, event)
            if time.monotonic() > checked + 0.5:
                checked = time.monotonic()
                for fd, (echo, _) in list(echoes.items()):
                    try_to(fd, echo.check)
            time.sleep(0.001)  # others want the CPU, too

    def threads(self):
        all_threads = [threading.Thread(target=self.thread, args=plan) for plan in self.plan]
        for thread in all_threads:
            thread.start()
        for thread in all_threads:
            while thread.is_alive():
                thread.join(0.1)

    def thread(self, port, is_spared):
        while not self.stop:
            echo = self.connect(port, is_spared)
            blocking(echo.sock, PATIENCE if is_spared else STILL)
            try:
                self.talk(echo)
            except BlockingIOError:
                self.ended(echo, "still")
            except End as end:
                self.ended(echo, end.args[0])
            if is_spared:
                break

    def talk(self, echo):
        while not self.stop:
            while echo.may_give():
                echo.give()
            while echo.got < echo.sent:
                echo.take()
                self.told_by(echo)
            time.sleep(0.001)
        if not echo.is_spared:
            raise End("stopped")
        echo.finish()
        while True:
            echo.take()


def blocking(sock, seconds):
    sock.setblocking(True)
    for what in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
        sock.setsockopt(socket.SOL_SOCKET, what, struct.pack("qq", seconds, 0))


def answer_in_thread(sock):
    try:
        while data := sock.recv(BUFFER):
            sock.sendall(data)
    except OSError:
        pass
    sock.close()


def serve_threads(listeners):
    def accept_all(listener):
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=answer_in_thread, args=[sock], daemon=True).start()

    for listener in listeners[1:]:
        threading.Thread(target=accept_all, args=[listener], daemon=True).start()
    accept_all(listeners[0])


class Answer:
    """A server's connection."""

    def __init__(self, sock):
        self.sock, self.left, self.ended = sock, b"", False
        sock.setblocking(False)

    def step(self, event):
        """What it waits for next; 0: nothing any more."""
        try:
            if event & ~select.EPOLLOUT and not self.ended and len(self.left) < BUFFER:
                data = self.sock.recv(BUFFER)
                self.left += data
                self.ended = not data
            if self.left:
                self.left = self.left[self.sock.send(self.left) :]
        except BlockingIOError:
            pass
        except OSError:
            return 0
        read = select.EPOLLIN if not self.ended and len(self.left) < BUFFER else 0
        return read | (select.EPOLLOUT if self.left else 0)


def serve_epoll(listeners):
    poller, answers = select.epoll(), {}
    accepting = {listener.fileno(): listener for listener in listeners}
    for listener in listeners:
        poller.register(listener, select.EPOLLIN)
    while True:
        for fd, event in poller.poll():
            if fd in accepting:
                sock, _ = accepting[fd].accept()
                answers[sock.fileno()] = Answer(sock)
                poller.register(sock, select.EPOLLIN)
                continue
            wanted = answers[fd].step(event)
            if wanted:
                poller.modify(fd, wanted)
            else:
                answers.pop(fd).sock.close()
        time.sleep(0.001)


def main():
    role, addr, style, *rest = sys.argv[1:]
    if role == "listen":
        listeners = [socket.create_server((addr, int(port)), backlog=64) for port in rest]
        {"epoll": serve_epoll, "threads": serve_threads}[style](listeners)
    client = Client(addr, *rest)
    {"epoll": client.epoll, "threads": client.threads}[style]()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    print(f"made {Echo.made}:", ", ".join(f"{how} {n}" for how, n in sorted(client.ends.items())), flush=True)
    sys.exit(client.bad)


main()
