# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Echo servers of every process model, and clients that hold what comes back against what they sent.

peers.py thread|fork|prefork|selectors|inherit PORT
    a thread or a process for each connection; four processes that accept on one socket; one process with
    level-triggered epoll; a new program for each connection that has it as stdin and stdout
peers.py talk PORT CONNECTIONS BYTES
    so many at a time, in threads; every other one shuts its sending side and reads to the end
peers.py sink PORT
    reads and never answers, a thread for each connection
peers.py pour PORT CONNECTIONS BYTES
    sends that much on each, says so, and stays
"""

import os
import random
import selectors
import socket
import socketserver
import subprocess
import sys
import threading

HOST = os.environ.get("ISMREDIR_TEST_HOST", "127.0.0.1")  # where the server is


def echo(sock):
    while piece := sock.recv(1 << 16):
        sock.sendall(piece)


class Echo(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self):
        echo(self.request)


class Sink(socketserver.BaseRequestHandler):
    """One connection, whose bytes nobody wants."""

    def handle(self):
        while self.request.recv(1 << 16):
            pass


class Inherit(socketserver.BaseRequestHandler):
    """One connection, by another program, when some of it has been echoed here."""

    def handle(self):
        for _ in range(100):
            piece = self.request.recv(1000)
            self.request.sendall(piece)
            if not piece:
                return
        subprocess.run(["cat"], stdin=self.request, stdout=self.request, check=True)


class Server:
    """What all socketserver classes here have in common."""

    allow_reuse_address = True
    request_queue_size = 128


class ThreadServer(Server, socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    daemon_threads = True


class ForkServer(Server, socketserver.ForkingTCPServer):
    """A process for each connection."""

    max_children = 200


def prefork(port):
    listener = socket.create_server((HOST, port), backlog=128)
    for _ in range(4):
        if os.fork():
            continue
        while True:
            with listener.accept()[0] as sock:
                echo(sock)
    os.wait()


def multiplex(port):
    """What was read is sent at once or when the socket takes it; nothing is read meanwhile."""
    select = selectors.DefaultSelector()
    listener = socket.create_server((HOST, port), backlog=128)
    listener.setblocking(False)
    select.register(listener, selectors.EVENT_READ)

    def serve(sock, pending, events):
        if events & selectors.EVENT_READ:
            pending = sock.recv(1 << 16)
            if not pending:
                select.unregister(sock)
                sock.close()
                return
        try:
            pending = pending[sock.send(pending) :]
        except BlockingIOError:
            pass
        select.modify(sock, selectors.EVENT_WRITE if pending else selectors.EVENT_READ, pending)

    while True:
        for key, events in select.select():
            if key.fileobj is listener:
                sock = listener.accept()[0]
                sock.setblocking(False)
                select.register(sock, selectors.EVENT_READ, b"")
            else:
                serve(key.fileobj, key.data, events)


QUESTIONS = 60000  # bytes


def converse(sock, data, half_close):
    """
    A few questions and answers, then pieces of random size from a thread; returns what came. The end is said once
    there is an answer to the pieces: what was inherited with an end and unread bytes before it is EAGAIN (shim.rst).
    """
    got = bytearray()
    at = 0
    answered = threading.Event()
    while len(got) < min(len(data), QUESTIONS):
        if len(got) == at:
            sock.sendall(data[at : at + 600])
            at += len(data[at : at + 600])
        got += sock.recv(600)

    def send():
        nonlocal at
        while at < len(data):
            size = int(2 ** random.uniform(0, 17))
            sock.sendall(data[at : at + size])
            at += size
        if half_close:
            answered.wait(60)
            sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    while (half_close or len(got) < len(data)) and (piece := sock.recv(1 << 16)):
        got += piece
        answered.set()
    answered.set()
    sender.join()
    return got


def talk(port, connections, size):
    wrong = []

    def one(number):
        data = os.urandom(size)
        try:
            with socket.create_connection((HOST, port), timeout=60) as sock:
                got = converse(sock, data, number % 2)
        except OSError as error:
            wrong.append(f"connection {number}: {error}")
            return
        if got != data:
            at = next((n for n, (a, b) in enumerate(zip(got, data)) if a != b), min(len(got), size))
            wrong.append(f"connection {number}: {len(got)} of {size} bytes, first difference at {at}")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        sys.exit("\n".join(wrong))


def pour(port, connections, size):
    socks = [socket.create_connection((HOST, port), timeout=60) for _ in range(connections)]
    for sock in socks:
        left = size
        while left:
            left -= sock.send(bytes(min(left, 1 << 16)))
    print("poured", flush=True)
    threading.Event().wait()


def main():
    kind, port = sys.argv[1], int(sys.argv[2])
    address = (HOST, port)
    if kind == "talk":
        talk(port, int(sys.argv[3]), int(sys.argv[4]))
    elif kind == "pour":
        pour(port, int(sys.argv[3]), int(sys.argv[4]))
    elif kind == "prefork":
        prefork(port)
    elif kind == "selectors":
        multiplex(port)
    else:
        server, handler = {
            "thread": (ThreadServer, Echo),
            "fork": (ForkServer, Echo),
            "inherit": (ThreadServer, Inherit),
            "sink": (ThreadServer, Sink),
        }[kind]
        server(address, handler).serve_forever()


main()
