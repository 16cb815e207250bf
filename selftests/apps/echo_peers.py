# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Echo server on asyncio, and a client that holds every echoed byte against what it sent.

echo_peers.py serve PORT | echo_peers.py talk PORT CONNECTIONS BYTES
"""

import asyncio
import os
import random
import sys

HOST = os.environ.get("ISMREDIR_TEST_HOST", "127.0.0.1")  # where the server is


async def echo(reader, writer):
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def serve(port):
    server = await asyncio.start_server(echo, HOST, port)
    await server.serve_forever()


async def send(writer, data):
    """In pieces of random size with a pause now and then; ends with a half-close."""
    at = 0
    while at < len(data):
        size = int(2 ** random.uniform(0, 17))
        writer.write(data[at : at + size])
        await writer.drain()
        at += size
        if random.random() < 0.02:
            await asyncio.sleep(0.005)
    writer.write_eof()


async def talk_one(port, size):
    data = os.urandom(size)
    reader, writer = await asyncio.open_connection(HOST, port)
    sender = asyncio.create_task(send(writer, data))
    got = await reader.read(-1)
    await sender
    writer.close()
    if got != data:
        at = next((n for n, (a, b) in enumerate(zip(got, data)) if a != b), min(len(got), size))
        sys.exit(f"{len(got)} of {size} bytes came back, the first difference is at {at}")


async def talk(port, connections, size):
    await asyncio.gather(*(talk_one(port, size) for _ in range(connections)))


if sys.argv[1] == "serve":
    asyncio.run(serve(int(sys.argv[2])))
else:
    asyncio.run(talk(*map(int, sys.argv[2:5])))
