# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Packets that are no messages, floods, slow clients, and what must not hold the daemon up."""

import errno
import mmap
import os
import resource
import signal
import socket
import struct
import time

import control
from control import HEAD, MAGIC, MSG_MAX, VERSION
from harness import gone, let_open, refused, settled_fds, steady_fds, test, user, within


def head(kind, length, magic=MAGIC, version=VERSION):
    return HEAD.pack(magic, version, kind, length, 1)


def malformed_packets():
    """(name, packet, number of descriptors, before hello?)"""
    body = {control.ATTACH: 16, control.DETACH: 8, control.LEAVE: 8, control.RESUME: 32, control.LIST: 0,
            control.FABRICS: 0, control.STATUS: 0}
    fds = {control.ATTACH: 1, control.RESUME: 5}
    yield "one byte", b"x", 0
    yield "half a head", head(control.STATUS, 0)[:8], 0
    yield "a head less a byte", head(control.STATUS, 0)[:15], 0
    yield "magic", head(control.STATUS, 0, magic=MAGIC ^ 1), 0
    yield "version", head(control.STATUS, 0, version=VERSION + 1), 0
    for kind in (0, control.HELLO_OK, control.ATTACH_OK, control.RESUME_OK, control.DMB, control.LIST_END,
                 control.ERROR, 16, 0xFFFF):
        yield f"type {kind}", head(kind, 0), 0
    for kind, size in body.items():
        good = head(kind, size) + b"\x01" * size
        yield f"type {kind} says more than it has", head(kind, size + 8) + bytes(size), fds.get(kind, 0)
        yield f"type {kind} has more than it says", good + bytes(8), fds.get(kind, 0)
        yield f"type {kind} of another length", head(kind, size + 8) + bytes(size + 8), fds.get(kind, 0)
        if size:
            yield f"type {kind} too short", head(kind, size - 1) + bytes(size - 1), fds.get(kind, 0)
            yield f"type {kind} without a token", head(kind, size) + bytes(size), fds.get(kind, 0)
        yield f"type {kind} with a descriptor more", good, fds.get(kind, 0) + 1
        if kind in fds:
            yield f"type {kind} without descriptors", good, 0
            yield f"type {kind} with a descriptor less", good, fds[kind] - 1
    yield "a second hello", head(control.HELLO, 8) + bytes(8), 0
    yield "longest", head(control.LIST, MSG_MAX - 16) + bytes(MSG_MAX - 16), 0
    yield "too long", head(control.LIST, MSG_MAX - 15) + bytes(MSG_MAX - 15), 0
    yield "a length that wraps", head(control.LIST, 0xFFFFFFFF), 0
    yield "64 kB", head(control.STATUS, 0) + bytes(65000), 0
    ring = struct.pack("=QQQII", 1, 2, 3, 65536, 65536 - 1)
    yield "resume of no ring size", head(control.RESUME, 32) + ring, 5
    yield "resume of one end", head(control.RESUME, 32) + struct.pack("=QQQII", 1, 1, 3, 65536, 65536), 5


@test
def test_malformed_packets(box):
    d = box.start()
    null = box.keep(open("/dev/null", "rb"))
    watcher = box.client()
    watcher.sync()
    before = steady_fds(d)
    n = 0
    for name, packet, fds in malformed_packets():
        c = control.Client(box.sock)
        c.raw(packet, [null.fileno()] * fds)
        try:
            c.recv()
        except control.Gone:
            raise AssertionError(f"{name}: no answer") from None
        except AssertionError as e:
            raise AssertionError(f"{name}: {e}") from None
        with gone():
            c.recv()
        c.close()
        n += 1
        got = watcher.status()
        assert got["malformed"] == n, f"{name} was not counted: {got}"
    settled_fds(d, before)
    assert watcher.status()["refused"] == 0 and watcher.status()["clients"] == 1


@test
def test_malformed_answer(box):
    box.start()
    c = box.client()
    c.raw(HEAD.pack(MAGIC, VERSION, 99, 0, 4711))
    kind, seq, body, fds = c.recv()
    assert (kind, seq, body, fds) == (control.ERROR, 4711, struct.pack("=QiI", 0, -errno.EPROTO, 0), [])


@test
def test_hello_with_flags(box):
    box.start()
    for body in (struct.pack("=II", 1, 0), struct.pack("=II", 0, 1), b"", bytes(4), bytes(12)):
        c = box.client(hello=False)
        with refused(errno.EPROTO):
            c.ask(control.HELLO, body, expect=control.HELLO_OK)
        with gone():
            c.recv()


@test
def test_empty_packet(box):
    box.start()
    c = box.client()
    c.raw(b"")
    with gone():
        c.recv()


@test
def test_flood_of_descriptors(box):
    d = box.start()
    watcher = box.client()
    watcher.sync()
    before = steady_fds(d)
    null = box.keep(open("/dev/null", "rb"))
    for n in (6, 64, 253):
        for _ in range(10):
            c = control.Client(box.sock)
            c.raw(HEAD.pack(MAGIC, VERSION, control.STATUS, 0, 1), [null.fileno()] * n)
            kind, *_ = c.recv()
            assert kind == control.ERROR
            c.close()
    assert watcher.status()["malformed"] == 30
    settled_fds(d, before)


@test
def test_descriptors_that_do_not_fit(box):
    """Where the daemon's table is full the kernel drops them: no fault of the client, which keeps its rings."""
    d = box.start("--pool", "0")
    c = box.client()
    a, b = box.connection()
    r = box.keep(c.attach(a))
    let_open(d, 0)
    for _ in range(3):
        with refused(errno.ENOMEM):
            c.attach(b, 2)
        with refused(errno.ENOMEM):
            c.resume(a, r)
    status = c.status()
    assert (status["pairs"], status["malformed"], status["refused"]) == (1, 0, 6)


@test
def test_accept_without_descriptors(box):
    d = box.start("--pool", "0")
    c = box.client()
    within(lambda: c.status()["word"] == control.WORD_ON, "on")
    lim = resource.prlimit(d.pid, resource.RLIMIT_NOFILE)
    let_open(d, 0)
    waiting = box.client(hello=False)
    c.sync()
    within(lambda: "accept: " in box.said(), "it says so")
    for _ in range(20):
        time.sleep(0.05)
        assert c.status()["word"] == control.WORD_ON, "what it cannot look up it takes for off"
    resource.prlimit(d.pid, resource.RLIMIT_NOFILE, lim)
    waiting.ask(control.HELLO, bytes(8), expect=control.HELLO_OK)


@test
def test_requests_without_waiting(box):
    box.start("--ring-size", "64k")
    c = box.client()
    ends = [box.connection() for _ in range(20)]
    want = []
    for a, _ in ends:
        want.append((c.send(control.ATTACH, struct.pack("=QQ", a.token, 1), [a.fileno()]), control.ATTACH_OK))
        want.append((c.send(control.STATUS), control.STATUS_OK))
        c.detach(a.token)
    for seq, kind in want:
        _, fds = c.answer(seq, kind)
        for fd in fds:
            os.close(fd)
    assert c.status()["mem_bytes"] == 0


@test
def test_answers_that_nobody_reads(box):
    """Such a client waits, not the daemon, and it gets all its answers when it reads."""
    box.start()
    c, other = box.client(), box.client()
    c.sock.setblocking(False)
    sent = 0
    try:
        while sent < 20000:
            c.send(control.STATUS)
            sent += 1
    except BlockingIOError:
        pass
    assert 0 < sent < 20000, "the daemon queues without limit"
    for _ in range(20):
        other.sync()
    c.sock.settimeout(10)
    first = c.seq - (1 if sent < 20000 else 0) - sent + 1
    for i in range(sent):
        c.answer(first + i, control.STATUS_OK)
    c.seq += 1000
    c.sync()


@test
def test_slow_client_is_disconnected(box):
    box.start()
    slow, mute, quiet = box.client(), box.client(hello=False), box.client()
    slow.sock.setblocking(False)
    try:
        while True:
            slow.send(control.STATUS)
    except BlockingIOError:
        pass
    other = box.client()
    assert other.status()["clients"] == 4
    within(lambda: other.status()["clients"] == 2, "the slow one and the mute one go", 40)
    mute.sock.settimeout(10)
    with gone():
        mute.recv()
    quiet.sync()  # one that has nothing to ask may be silent


@test
def test_long_listing(box):
    """More than a socket's buffer holds, read late, while connections come and go."""
    box.start("--ring-size", "64k", "--pool", "0")
    c, reader = box.client(), box.client()
    reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    keep = []
    for _ in range(250):
        a, b = box.connection()
        _, fds = c.ask(control.ATTACH, struct.pack("=QQ", a.token, 1), [a.fileno()], control.ATTACH_OK)
        for fd in fds:
            os.close(fd)
        keep.append((a.token, b.token))
    seq = reader.send(control.LIST)
    after = reader.send(control.STATUS)
    c.sync()
    for token, _ in keep[200:]:
        c.detach(token)
    c.sync()
    tokens = []
    while True:
        kind, got, body, _ = reader.recv()
        assert got == seq
        if kind == control.LIST_END:
            break
        tokens.append(control.DMB_MSG.unpack_from(body)[0])
    assert len(tokens) == len(set(tokens)), "listed twice"
    assert set(tokens) >= {t for pair in keep[:200] for t in pair}, "one that stayed is missing"
    assert set(tokens) <= {t for pair in keep for t in pair}
    reader.answer(after, control.STATUS_OK)
    assert set(c.list()) == {t for pair in keep[:200] for t in pair}


@test
def test_too_many_clients(box):
    box.start("--max-clients", "8")
    with user(1000):
        mine = [box.client() for _ in range(2)]
    with user(1000):
        third = box.client(hello=False)
        with refused(errno.EUSERS):
            third.answer(0, None)
        with gone():
            third.recv()
    with user(1001):
        box.client()
    rest = [box.client() for _ in range(5)]
    last = box.client(hello=False)
    with refused(errno.EUSERS):
        last.answer(0, None)
    assert rest[0].status()["clients"] == 8
    mine[0].close()
    within(lambda: rest[0].status()["clients"] == 7, "a place is free")
    with user(1000):
        box.client()


@test
def test_many_connections_at_once(box):
    box.start("--max-clients", "400")
    clients = [box.client(hello=False) for _ in range(300)]
    for c in clients:
        c.send(control.HELLO, bytes(8))
    ids = set()
    for c in clients:
        body, fds = c.answer(c.seq, control.HELLO_OK)
        ids.add(body)
        os.close(fds[0])
    assert len(ids) == 1
    assert clients[0].status()["clients"] == 300


def lingering():
    """A socket whose last close() waits for a minute: unsent bytes that nobody reads, and SO_LINGER."""
    a, b = control.connection()
    b.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    a.sock.setblocking(False)
    try:
        while True:
            a.sock.send(bytes(65536))
    except BlockingIOError:
        pass
    a.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    return a, b


@test
def test_close_that_takes_long(box):
    """Who passes a socket whose close() takes a minute does not stop the daemon for a minute."""
    d = box.start()
    c, other = box.client(), box.client()
    other.sync()
    peers = []
    d.send_signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            a, b = lingering()
            peers.append(box.keep(b))
            c.send(control.ATTACH, struct.pack("=QQ", a.token, 1), [a.fileno()])
            # not the last reference: the daemon's queue has one
            a.close()
    finally:
        d.send_signal(signal.SIGCONT)
    for _ in range(10):
        other.sync()
    # also when the connection ends with such sockets unread
    d.send_signal(signal.SIGSTOP)
    try:
        a, b = lingering()
        peers.append(box.keep(b))
        c.raw(b"junk")
        c.send(control.ATTACH, struct.pack("=QQ", a.token, 1), [a.fileno()])
        a.close()
    finally:
        d.send_signal(signal.SIGCONT)
    within(lambda: other.status()["clients"] == 1, "the client ends")
    for _ in range(10):
        other.sync()
    for p in peers:
        p.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        p.close()


@test
def test_user_whose_closes_hang(box):
    """Such a user is not served until they are through; others are."""
    d = box.start()
    with user(1000):
        bad = box.client()
    with user(1000):
        same = box.client()
    other = box.client()
    other.sync()
    peers = []
    # or it is through before we are, and the last close() is ours; once, as a signal ends such a wait
    d.send_signal(signal.SIGSTOP)
    try:
        for _ in range(12):
            a, b = lingering()
            peers.append(box.keep(b))
            bad.send(control.ATTACH, struct.pack("=QQ", 4711, 1), [a.fileno()])
            a.close()
    finally:
        d.send_signal(signal.SIGCONT)
    other.sync()
    within(lambda: other.status()["refused"] >= 8, "eight are refused")
    same.sync()  # what it waits for is looked at after each request
    seq = same.send(control.STATUS)
    for _ in range(10):
        other.sync()
    same.sock.setblocking(False)
    try:
        same.recv()
    except BlockingIOError:
        pass
    else:
        raise AssertionError("a user without end of hanging closes is served")
    assert other.status()["refused"] < 12
    for p in peers:
        p.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        p.close()
    same.sock.settimeout(10)
    same.answer(seq, control.STATUS_OK)


@test
def test_host_page(box):
    box.start()
    c = box.client()
    with open(f"/proc/self/fd/{c.page_fd}", "rb") as f:
        magic, word, instance, wake, cpus = struct.unpack("=IIQII", f.read(24))
    assert magic == 0x42444D49 and instance == c.instance
    assert cpus == os.sysconf("SC_NPROCESSORS_ONLN")
    if len(os.sched_getaffinity(0)) > 1:
        assert wake > 0
    for flags in (os.O_RDONLY, os.O_RDWR):
        fd = os.open(f"/proc/self/fd/{c.page_fd}", flags)
        try:
            mmap.mmap(fd, 4096, prot=mmap.PROT_WRITE)
        except PermissionError:
            pass
        else:
            raise AssertionError("a client can write the host page")
        try:
            os.ftruncate(fd, 0)
        except OSError:
            pass
        else:
            raise AssertionError("a client can take the host page away")
        os.close(fd)
    within(lambda: os.pread(c.page_fd, 4, 4) == struct.pack("=I", control.WORD_ON), "the word is on")
    assert c.status()["word"] == control.WORD_ON
    assert word in (control.WORD_ON, control.WORD_OFF)


@test
def test_one_cpu_has_no_wake(box):
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        box.start()
    finally:
        os.sched_setaffinity(0, cpus)
    c = box.client()
    assert struct.unpack("=I", os.pread(c.page_fd, 4, 16)) == (0,)


@test
def test_random_packets(box):
    """Headers that are nearly right, with any body and any descriptors."""
    import random
    d = box.start("--ring-size", "64k")
    rng = random.Random(20)
    watcher = box.client()
    watcher.sync()
    a, b = box.connection()
    null = box.keep(open("/dev/null", "rb"))
    tokens = (a.token, b.token)
    before = steady_fds(d)
    for _ in range(400):
        c = control.Client(box.sock, hello=rng.random() < 0.9)
        for _ in range(rng.randrange(1, 6)):
            kind = rng.choice((control.HELLO, control.ATTACH, control.DETACH, control.LEAVE, control.RESUME,
                               control.LIST, control.FABRICS, control.STATUS, rng.randrange(20)))
            body = {control.ATTACH: 16, control.DETACH: 8, control.LEAVE: 8, control.RESUME: 32,
                    control.HELLO: 8}.get(kind, 0)
            data = bytearray(rng.randbytes(body))
            if body >= 8 and rng.random() < 0.7:
                data[:8] = struct.pack("=Q", rng.choice(tokens))
            if rng.random() < 0.1:
                data += rng.randbytes(rng.randrange(1, 100))
            n_fds = {control.ATTACH: 1, control.RESUME: 5}.get(kind, 0) + (rng.random() < 0.1)
            fds = [rng.choice((a.fileno(), b.fileno(), null.fileno(), c.sock.fileno())) for _ in range(n_fds)]
            try:
                c.raw(HEAD.pack(MAGIC, VERSION, kind, len(data), rng.randrange(1 << 32)) + bytes(data), fds)
            except control.Gone:
                break
        c.close()
    within(lambda: watcher.status()["clients"] == 1, "all are served")
    a.close()
    b.close()
    within(lambda: watcher.status()["mem_bytes"] == 0, "the memory is given back")
    status = watcher.status()
    assert status["malformed"] > 50 and status["refused"] > 50, status
    within(lambda: watcher.fabrics()[0][6] == 16, "the pool is full")
    settled_fds(d, before)


@test
def test_status_counts(box):
    box.start()
    c = box.client()
    s = c.status()
    assert s["clients"] == 1 and s["pairs"] == s["refused"] == s["malformed"] == s["attaches"] == 0
    assert s["pid"] and s["mem_limit"] > 0
    with refused(errno.EPERM):
        a, b = box.connection()
        c.attach(a, token=b.token)
    assert c.status()["refused"] == 1
    assert c.status()["uptime_ms"] >= s["uptime_ms"]
