# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Who gets which rings, and who does not."""

import errno
import json
import os
import socket
import struct
import time

import control
from control import (OWN_BELL, OWN_DMB, PEER_BELL, PEER_DMB, PROD_TCP, RING_OFF, RX_OFF, STATIC,
                     TX_OFF, connection)
from harness import NOBODY, gone, ism, let_open, refused, settled_fds, steady_fds, test, user, within

LEN = RING_OFF + (64 << 10)  # of a DMB with the smallest ring


def both(box, a, b):
    """Two clients that have attached an end each."""
    ca, cb = box.client(), box.client()
    return ca, cb, box.keep(ca.attach(a)), box.keep(cb.attach(b, 2))


@test
def test_bytes_go_both_ways(box):
    box.start()
    a, b = box.connection()
    _, _, ra, rb = both(box, a, b)
    assert (ra.token, ra.peer) == (rb.peer, rb.token) == (a.token, b.token)
    for r, w, text in ((rb, ra, b"to b"), (ra, rb, b"to a")):
        w.put(RING_OFF, text)
        w.put(RING_OFF + w.peer_ring - len(text), text)
        assert r.get(RING_OFF, 4) == text and r.get(RING_OFF + r.own_ring - 4, 4) == text
    assert ra.get(RING_OFF, 4) == b"to a", "one memory for both directions"
    for r, w in ((rb, ra), (ra, rb)):
        os.write(w.fds[PEER_BELL], struct.pack("=Q", 3))
        assert os.read(r.fds[OWN_BELL], 8) == struct.pack("=Q", 3)
        assert not os.get_blocking(r.fds[OWN_BELL])


@test
def test_static_part(box):
    box.start("--ring-size", "256k")
    a, b = box.connection()
    ca, _, ra, rb = both(box, a, b)
    for r in (ra, rb):
        magic, version, head, length, off, size, token, owner, partner = STATIC.unpack(r.get(0, STATIC.size))
        assert (magic, version, head) == (0x42444D49, 1, RING_OFF)
        assert (length, off, size) == (RING_OFF + (256 << 10), RING_OFF, 256 << 10) and size == r.own_ring
        assert token == r.token and owner == partner == ca.gid
        rest = bytearray(RING_OFF - STATIC.size)
        rest[TX_OFF - STATIC.size] = PROD_TCP
        assert r.get(STATIC.size, len(rest)) == rest, "what nobody has written"
        assert r.get(RING_OFF, r.own_ring) == bytes(r.own_ring), "not empty"


@test
def test_own_dmb_is_read_only(box):
    box.start()
    a, _ = box.connection()
    r = box.keep(box.client().attach(a))
    for prot, fd, ok in ((control.mmap.PROT_WRITE, OWN_DMB, False), (control.mmap.PROT_WRITE, PEER_DMB, True)):
        try:
            control.mmap.mmap(r.fds[fd], 4096, prot=prot).close()
            done = True
        except PermissionError:
            done = False
        assert done == ok, fd
    with user(NOBODY):
        for fd in r.fds:
            for flags in (os.O_RDWR, os.O_WRONLY):
                try:
                    os.close(os.open(f"/proc/self/fd/{fd}", flags))
                except OSError:
                    continue
                raise AssertionError("another user opened it for writing")


@test
def test_token_of_the_partner(box):
    box.start()
    a, b = box.connection()
    c = box.client()
    with refused(errno.EPERM):
        c.attach(a, token=b.token)
    assert not c.list()


@test
def test_token_of_somebody_else(box):
    box.start()
    mine, _ = box.connection()
    theirs, _ = box.connection()
    box.keep(box.client().attach(theirs))
    c = box.client()
    with refused(errno.EPERM):
        c.attach(mine, token=theirs.token)
    with refused(errno.EPERM):
        c.attach(mine, token=theirs.token ^ 1)
    assert c.status()["pairs"] == 1 and c.status()["refused"] == 2


@test
def test_what_is_no_connection(box):
    d = box.start()
    _, b = box.connection()
    c = box.client()
    before = steady_fds(d)
    pipe = os.pipe()
    things = {"a pipe": pipe[0], "a file": os.open("/dev/null", os.O_RDWR),
              "a directory": os.open("/", os.O_RDONLY | os.O_DIRECTORY),
              "a path": os.open("/", os.O_PATH)}
    sockets = {"udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "unix": socket.socket(socket.AF_UNIX),
               "netlink": socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), "fresh tcp": socket.socket(),
               "a listener": control.listener()}
    for what, fd in list(things.items()) + [(k, s.fileno()) for k, s in sockets.items()]:
        try:
            c.ask(control.ATTACH, struct.pack("=QQ", b.token, 1), [fd], control.ATTACH_OK)
        except control.Refused as e:
            assert e.errno in (errno.EPERM, errno.ENOENT), (what, e)
        else:
            raise AssertionError(f"{what} was taken for a connection")
    for fd in (*things.values(), pipe[1]):
        os.close(fd)
    for s in sockets.values():
        s.close()
    settled_fds(d, before)


@test
def test_partner_cannot(box):
    box.start()
    c = box.client()
    for caps in ((True, False), (False, True), (False, False)):
        for end in box.connection(*caps):
            with refused(errno.EOPNOTSUPP, 0x0110):
                c.attach(end)
    assert c.status()["mem_bytes"] == 0


@test
def test_partner_has_gone(box):
    box.start()
    a, b = box.connection()
    token = a.token
    b.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    b.close()
    with refused(errno.ENOENT):
        box.client().attach(a, token=token)


@test
def test_twice_by_one_client(box):
    box.start()
    a, _ = box.connection()
    c = box.client()
    box.keep(c.attach(a))
    for share in (1, 2):
        with refused(errno.EALREADY):
            c.attach(a, share)
    assert c.status()["attaches"] == 1


@test
def test_relatives_share(box):
    box.start()
    a, b = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    child = box.client()
    again = box.keep(child.attach(a))
    for x, y in zip(ra.fds[:2], again.fds[:2]):
        assert os.fstat(x).st_ino == os.fstat(y).st_ino
    again.put(RING_OFF, b"child")
    assert rb.get(RING_OFF, 5) == b"child"
    os.write(again.fds[PEER_BELL], struct.pack("=Q", 1))
    assert os.read(rb.fds[OWN_BELL], 8) == struct.pack("=Q", 1)
    # the end is held until the last of them is gone
    ca.close()
    cb.close()
    child.sync()
    assert child.list()[a.token]["flags"] == 1
    # of whom nobody knows another one may come, who has its rings then
    child.close()
    late = box.client()
    within(lambda: late.status()["clients"] == 1, "they are gone")
    again = box.keep(late.attach(a))
    assert os.fstat(ra.fds[0]).st_ino == os.fstat(again.fds[0]).st_ino
    late.leave(a.token)
    time.sleep(0.5)
    assert late.status()["pairs"] == 1, "not while the connection lives"
    a.close()
    b.close()
    within(lambda: late.status()["pairs"] == 0, "the pair ends")


@test
def test_stranger_with_the_socket(box):
    box.start()
    a, b = box.connection()
    ca, _, _, _ = both(box, a, b)
    other = box.client()
    with refused(errno.EBUSY):
        other.attach(a, 3)
    # nor when the holder has left: the rings are in a state that only its relatives know
    ca.detach(a.token)
    ca.sync()
    with refused(errno.EBUSY):
        other.attach(a, 3)
    box.keep(other.attach(a, 1))


@test
def test_detach_of_what_is_not_held(box):
    box.start()
    a, b = box.connection()
    both(box, a, b)
    c = box.client()
    c.detach(a.token)
    with refused(errno.ENOENT):
        c.answer(c.seq, None)
    assert len(c.list()) == 2


@test
def test_memory_is_given_back(box):
    d = box.start("--pool", "0", "--ring-size", "64k")
    c = box.client()
    c.sync()
    before = steady_fds(d)
    for _ in range(3):
        ends = [box.connection() for _ in range(10)]
        rings = [c.attach(a) for a, _ in ends]
        status = c.status()
        assert status["pairs"] == 10 and status["mem_bytes"] == 20 * LEN
        name, _, _, _, dmbs, size, pooled, _, _, peers = c.fabrics()[0]
        assert (name.rstrip(b"\0"), dmbs, size, pooled, peers) == (b"memfd:", 20, 20 * LEN, 0, [])
        for r, (a, b) in zip(rings, ends):
            c.detach(r.token)
            r.close()
            a.close()
            b.close()
        status = c.status()
        assert status["pairs"] == status["mem_bytes"] == 0
        settled_fds(d, before)
        assert "memfd:ismredir-dmb" not in open(f"/proc/{d.pid}/maps", encoding="ascii").read()


@test
def test_never_the_same_memory_again(box):
    box.start("--ring-size", "64k", "--pool", "2")
    c = box.client()
    seen = set()
    for _ in range(20):
        a, b = connection()
        r = c.attach(a)
        assert r.get(TX_OFF, 128) == r.peer_dmb[TX_OFF:RX_OFF + 64] == bytes([PROD_TCP]) + bytes(127)
        assert r.peer_dmb[RING_OFF:] == bytes(r.peer_ring) and r.get(RING_OFF, r.own_ring) == bytes(r.own_ring)
        seen |= {os.fstat(fd).st_ino for fd in r.fds[:2]}
        r.put(TX_OFF, b"\xff" * (LEN - TX_OFF))
        c.detach(r.token)
        r.close()
        a.close()
        b.close()
    assert len(seen) == 40


@test
def test_pool_is_filled_again(box):
    box.start("--pool", "5", "--ring-size", "64k")
    c = box.client()
    for _ in range(4):
        within(lambda: c.fabrics()[0][6] == 5, "five are ready")
        box.keep(c.attach(box.connection()[0]))
    within(lambda: c.fabrics()[0][6] == 5, "five are ready again")
    assert c.fabrics()[0][4] == 8


@test
def test_limit_of_a_user(box):
    box.start("--ring-size", "64k", "--limit-uid", str(2 * 3 * LEN + 5000), "--limit-total", "10M")
    ends = [box.connection() for _ in range(5)]
    with user(1000):
        one = box.client()
    with user(1000):
        same = box.client()
    with user(1001):
        other = box.client()
    rings = [box.keep(one.attach(a)) for a, _ in ends[:3]]
    for c in (one, same):
        with refused(errno.EDQUOT):
            c.attach(ends[3][0])
    # the partner's rings are there, whoever asks
    box.keep(same.attach(ends[0][1], 2))
    box.keep(other.attach(ends[3][0]))
    one.detach(rings[1].token)
    one.sync()
    box.keep(same.attach(ends[4][0]))
    with refused(errno.EDQUOT):
        one.attach(ends[1][0])
    assert other.status()["mem_bytes"] == 2 * 4 * LEN


@test
def test_rings_get_smaller_near_the_limit(box):
    """Many connections get rings, and few get large ones."""
    box.start("--pool", "0", "--limit-uid", "30M", "--limit-total", "100M")
    c = box.client()
    sizes = []
    rings = []
    with refused(errno.EDQUOT):
        for _ in range(200):
            a, _ = box.connection()
            rings.append(box.keep(c.attach(a)))
            assert rings[-1].own_ring == rings[-1].peer_ring
            sizes.append(rings[-1].own_ring >> 10)
    assert sizes == sorted(sizes, reverse=True), sizes
    counts = [sizes.count(kib) for kib in (2048, 1024, 512, 256)]
    assert counts[0] == 2 and sum(counts) == len(sizes) and min(counts) > 1 and counts[3] > 10, counts
    for r in rings[10:]:
        c.detach(r.token)
    c.sync()
    a, _ = box.connection()
    assert box.keep(c.attach(a)).own_ring > 256 << 10, "there is room again"


@test
def test_limit_of_all(box):
    box.start("--ring-size", "64k", "--limit-total", str(2 * 3 * LEN), "--limit-uid", str(2 * 2 * LEN))
    ends = [box.connection() for _ in range(4)]
    clients = []
    for uid in (0, 1000, 1001):
        with user(uid):
            clients.append(box.client())
    box.keep(clients[0].attach(ends[0][0]))
    box.keep(clients[0].attach(ends[1][0]))
    r = box.keep(clients[1].attach(ends[2][0]))
    with refused(errno.ENOSPC):
        clients[2].attach(ends[3][0])
    with refused(errno.EDQUOT):
        clients[0].attach(ends[3][0])
    assert clients[0].status()["mem_limit"] == clients[0].status()["mem_bytes"] == 6 * LEN
    clients[1].detach(r.token)
    clients[1].sync()
    box.keep(clients[2].attach(ends[3][0]))


@test
def test_some_descriptors_left(box):
    """Enough to look, not enough for the rings: nothing is kept of what was begun."""
    d = box.start("--pool", "0", "--ring-size", "64k")
    c = box.client()
    ends = [box.connection() for _ in range(4)]
    rings = [c.attach(a) for a, _ in ends[:2]]
    before = steady_fds(d)
    for more in range(9):
        let_open(d, more)
        try:
            r = c.attach(ends[2][0])
        except control.Refused as e:
            # the socket itself, and then six
            assert e.errno == errno.ENOMEM and e.token == ends[2][0].token and more < 7, (more, e)
        else:
            assert more >= 7, "six descriptors in less"
            c.detach(r.token)
            r.close()
        settled_fds(d, before)
        assert c.status()["pairs"] == 2
    for r in rings:
        r.close()


@test
def test_huge_pages_or_not(box):
    box.start("--fabric", "memfd:huge=2M", "--ring-size", "64k", "--pool", "1")
    a, b = box.connection()
    ca, cb = box.client(), box.client()
    body, fds = ca.ask(control.ATTACH, struct.pack("=QQ", a.token, 1), [a.fileno()], control.ATTACH_OK)
    assert struct.unpack("=QQIIQQ", body)[2:] == (64 << 10, 64 << 10, 0, 0)
    size = os.fstat(fds[PEER_DMB]).st_size
    m = control.mmap.mmap(fds[PEER_DMB], size)
    m[RING_OFF:RING_OFF + 4] = b"huge"
    _, other = cb.ask(control.ATTACH, struct.pack("=QQ", b.token, 1), [b.fileno()], control.ATTACH_OK)
    n = control.mmap.mmap(other[OWN_DMB], size, prot=control.mmap.PROT_READ)
    assert n[RING_OFF:RING_OFF + 4] == b"huge"
    for thing in (m, n):
        thing.close()
    for fd in (*fds, *other):
        os.close(fd)


@test
def test_list_shows_what_is_there(box):
    box.start("--ring-size", "64k")
    a, b = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    ra.put(TX_OFF, struct.pack("=Q", 1000 << 8 | 5))
    rb.put(RX_OFF, struct.pack("=Q", 900))
    stats = {name: n for n, name in enumerate(control.STATS_FIELDS, 1)}
    ra.put_stats(**stats)
    got = ca.list()
    assert set(got) == {a.token, b.token}
    dmb = got[b.token]
    assert (dmb["peer"], dmb["ring_size"], dmb["fill"], dmb["prod_flags"]) == (a.token, 64 << 10, 100, 5)
    assert dmb["stats"] == stats and not any(got[a.token]["stats"].values())
    assert dmb["owner_pid"] == dmb["partner_pid"] == os.getpid() and dmb["flags"] == 3
    cb.close()
    within(lambda: ca.list()[b.token]["flags"] == 2, "the end is not held any more")
    assert ca.list()[b.token]["owner_pid"] == 0


@test
def test_the_command_shows_it(box):
    box.start("--ring-size", "64k")
    a, b = box.connection()
    both(box, a, b)
    os.environ["ISMREDIR_SOCK"] = box.sock
    try:
        text = json.dumps(json.loads(ism("-j", "dmbs")))
        for end in (a, b):
            assert f"{end.token:016x}" in text or str(end.token) in text, text
        assert "memfd:" in ism("-j", "fabrics")
        os.environ["ISMREDIR_SOCK"] = box.sock + ".not"
        ism("-j", "dmbs", status=1)
    finally:
        del os.environ["ISMREDIR_SOCK"]


@test
def test_users_see_their_own(box):
    box.start("--ring-size", "64k")
    ends = [box.connection() for _ in range(3)]
    root = box.client()
    clients = {}
    for uid in (1000, 1001, 1002):
        with user(uid):
            clients[uid] = box.client()
    box.keep(clients[1000].attach(ends[0][0]))
    box.keep(clients[1001].attach(ends[1][0]))
    box.keep(clients[1000].attach(ends[2][0]))
    box.keep(clients[1001].attach(ends[2][1], 2))  # one connection, two users
    tokens = [{a.token, b.token} for a, b in ends]
    assert set(root.list()) == tokens[0] | tokens[1] | tokens[2]
    assert set(clients[1000].list()) == tokens[0] | tokens[2]
    assert set(clients[1001].list()) == tokens[1] | tokens[2]
    assert not clients[1002].list()
    assert root.list()[ends[2][1].token]["uid"] == 1001
    assert root.list()[ends[2][0].token]["uid"] == 1000


@test
def test_hostile_memory(box):
    """Whatever clients write there, the daemon shows numbers and goes on."""
    box.start("--ring-size", "64k")
    a, b = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    for junk in (b"\xff", b"\x80", b"\x01", None):
        for r in (ra, rb):
            r.put(0, os.urandom(RING_OFF) if junk is None else junk * RING_OFF)
        for dmb in ca.list().values():
            assert dmb["fill"] <= dmb["ring_size"] == 64 << 10, dmb
        ca.status()
    for prod, cons, fill in ((200000, 0, 64 << 10), (65537, 0, 64 << 10), (65536, 0, 64 << 10), (5, 6, 0),
                             (1 << 55, 0, 0), (0, 1 << 63, 0), ((1 << 56) - 1, (1 << 64) - 3, 2)):
        ra.put(TX_OFF, struct.pack("=Q", prod << 8))
        rb.put(RX_OFF, struct.pack("=Q", cons))
        got = ca.list()[b.token]["fill"]
        assert got == fill, (prod, cons, got)
    # the other connections do not suffer
    c, _ = box.connection()
    box.keep(ca.attach(c))
    ca.close()
    cb.close()


@test
def test_counters_stay(box):
    box.start("--ring-size", "64k")
    c = box.client()
    for n in (1, 2):
        a, b = box.connection()
        ca, cb, ra, rb = both(box, a, b)
        ra.put_stats(tx_bytes=1000, tx_msgs=10, rx_bytes=5, rx_msgs=5, tcp_tx_bytes=100, tcp_rx_bytes=7, spins=20,
                     sleeps=30, doorbells=40, timeouts=2)
        rb.put_stats(tx_bytes=2000, tx_msgs=20, rx_bytes=5, rx_msgs=5, tcp_tx_bytes=200, tcp_rx_bytes=7, spins=21,
                     sleeps=31, doorbells=41, timeouts=3)
        for when in ("live", "ended"):
            s = c.status()
            assert (s["ring_bytes"], s["ring_msgs"], s["tcp_bytes"]) == (3000 * n, 30 * n, 300 * n), (when, s)
            assert (s["spins"], s["sleeps"], s["doorbells"], s["timeouts"]) == (41 * n, 61 * n, 81 * n, 5 * n)
            assert s["pairs"] == (1 if when == "live" else 0)
            for thing in (a, b, ca, cb):
                thing.close()
            within(lambda: c.status()["pairs"] == 0, "the pair ends")
    assert c.status()["attaches"] == 4 and c.status()["detaches"] == 4


@test
def test_connection_ends_while_attached(box):
    """The rings are the clients' until they say otherwise, but nobody new comes in."""
    box.start()
    a, b = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    token = a.token
    a.close()
    b.close()
    ra.put(RING_OFF, b"last")
    assert rb.get(RING_OFF, 4) == b"last"
    assert set(ca.list()) == {ra.token, rb.token}
    c, _ = box.connection()
    with refused(errno.EPERM):
        box.client().attach(c, token=token)
    ca.detach(token)
    cb.detach(rb.token)
    ca.sync()
    within(lambda: not ca.list(), "the pair ends")


@test
def test_before_hello(box):
    box.start()
    a, _ = box.connection()
    c = box.client(hello=False)
    with refused(errno.EPROTO):
        c.attach(a)
    with gone():
        c.recv()
