# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Requests and answers, with pauses, between tasks that sleep in recv().

calls.py listen|connect ADDR PORT

A thread for each connection. Each call of recv() that fails is an error, and so is an answer that is not the request.
"""

import os
import socket
import sys
import threading
import time

CONNECTIONS = 12
REQUESTS = 50
PAUSE = 0.06  # seconds: longer than an ACK is delayed


def answer(sock, number):
    count = 0
    try:
        while data := sock.recv(100):
            sock.sendall(data)
            count += 1
    except OSError as error:
        print(f"server: connection {number}, request {count}: {error}", flush=True)
    sock.close()


def listen(addr, port):
    server = socket.create_server((addr, port), backlog=CONNECTIONS)
    for number in range(CONNECTIONS):
        sock, _ = server.accept()
        threading.Thread(target=answer, args=(sock, number)).start()


def ask(addr, port, number):
    with socket.create_connection((addr, port)) as sock:
        for count in range(REQUESTS):
            sock.sendall(b"%d" % count)
            try:
                if sock.recv(100) != b"%d" % count:
                    sys.exit("another answer")
            except OSError as error:
                print(f"client: connection {number}, request {count}: {error}", flush=True)
                os._exit(1)
            time.sleep(PAUSE)


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
