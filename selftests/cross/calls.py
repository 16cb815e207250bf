# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Requests and answers, with pauses, between tasks that sleep in recv().

calls.py listen|connect ADDR PORT

A thread for each connection. Each call of recv() that fails is an error, and so is an answer that is not the request.
At last the client ends its direction, and sleeps until the server has said FAREWELL, a while later, and ended, too.
Every other one with TCP_USER_TIMEOUT: that may not end the connection.
"""

import os
import socket
import sys
import threading
import time

CONNECTIONS = 12
REQUESTS = 50
PAUSE = 0.06  # seconds: longer than an ACK is delayed
SILENCE = 2.0  # seconds between one FIN and what comes after it
USER_TIMEOUT = 700  # milliseconds
FAREWELL = b"farewell"


def answer(sock, number):
    count = 0
    try:
        while data := sock.recv(100):
            sock.sendall(data)
            count += 1
        for piece in FAREWELL[:4], FAREWELL[4:]:
            time.sleep(SILENCE)
            sock.sendall(piece)
        time.sleep(SILENCE)
    except OSError as error:
        print(f"server: connection {number}, request {count}: {error}", flush=True)
    sock.close()


def listen(addr, port):
    server = socket.create_server((addr, port), backlog=CONNECTIONS)
    for number in range(CONNECTIONS):
        sock, _ = server.accept()
        threading.Thread(target=answer, args=(sock, number)).start()


def fail(what):
    print(what, flush=True)
    os._exit(1)


def read_all(sock, has_timeout):
    got = b""
    while True:
        try:
            data = sock.recv(100)
        except BlockingIOError:  # the ACK of the FIN: TCP may not be kept from it then
            if not has_timeout or got:
                raise
            continue
        if not data:
            return got
        got += data


def ask(addr, port, number):
    has_timeout = number % 2
    with socket.create_connection((addr, port)) as sock:
        if has_timeout:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        for count in range(REQUESTS):
            sock.sendall(b"%d" % count)
            try:
                if sock.recv(100) != b"%d" % count:
                    fail("another answer")
            except OSError as error:
                fail(f"client: connection {number}, request {count}: {error}")
            time.sleep(PAUSE)
        sock.shutdown(socket.SHUT_WR)
        try:
            if read_all(sock, has_timeout) != FAREWELL:
                fail(f"client: connection {number}: another farewell")
        except OSError as error:
            fail(f"client: connection {number}, behind its FIN: {error}")


def main():
    role, addr, port = sys.argv[1:]
    if role == "listen":
        listen(addr, int(port))
        return
    threads = [threading.Thread(target=ask, args=(addr, int(port), n)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("answered", flush=True)


main()
