# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The control protocol of ismredird and the sockopts that go with it, for tests: packets as they are in
include/ismredir/control.h, connections whose ends can use rings, and DMBs as mappings."""

import array
import contextlib
import mmap
import os
import socket
import struct

MAGIC, VERSION, MSG_MAX = 0x4C435349, 3, 4096
(HELLO, HELLO_OK, ATTACH, ATTACH_OK, DETACH, RESUME, RESUME_OK, LIST, DMB, LIST_END, FABRICS, FABRIC,
 STATUS, STATUS_OK, ERROR, LEAVE) = range(1, 17)
OWN_DMB, PEER_DMB, OWN_BELL, PEER_BELL = range(4)
HEAD = struct.Struct("=IHHII")
STATS = "=5QII16x6Q16x"
STATS_FIELDS = ("tx_bytes tx_msgs tcp_tx_bytes switches doorbells reason pid rx_bytes rx_msgs tcp_rx_bytes "
                "spins sleeps timeouts").split()
DMB_MSG = struct.Struct("=QQ8I")
STATUS_MSG = struct.Struct("=QII14QII")
STATUS_NAMES = ("uptime_ms clients pairs attaches detaches resumes refused malformed ring_bytes ring_msgs "
                "tcp_bytes doorbells spins sleeps timeouts mem_bytes mem_limit pid word").split()
FABRIC_MSG = struct.Struct("=64s16s16sIIQIIII")
PEER_MSG = struct.Struct("=16s16sIIQQ")
STATIC = struct.Struct("=IHHQIIQ16s16s")
RING_OFF, TX_OFF, RX_OFF, STATS_OFF = 4096, 128, 192, 256
PROD_TCP = 4  # the first producer word: the stream is on TCP
WORD_OFF, WORD_ON, WORD_DRAIN = range(3)

SOL, SO_CAPS, SO_INFO = 0x49534D52, 1, 2
INFO = struct.Struct("=QQQIIIIIHBB")
CAP_DIRECT = 1
SOCK_PAIRED = 2


def tell_caps(sock):
    """The socket's program can use rings. An option's number carries the value: sockctl.h."""
    sock.getsockopt(SOL, SO_CAPS | CAP_DIRECT << 8)


class Refused(Exception):
    """An ISM_MSG_ERROR."""

    def __init__(self, error, reason, token):
        super().__init__(f"error {os.strerror(-error)} reason {reason:#x} token {token:#x}")
        self.errno, self.reason, self.token = -error, reason, token


class Gone(Exception):
    """The daemon closed the connection."""


class Client:
    """A connection to the daemon."""

    def __init__(self, path, hello=True, timeout=10):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # blocking: a full queue of the listener is EAGAIN for anybody else
        self.sock.connect(path)
        self.sock.settimeout(timeout)
        self.seq = 100
        self.page_fd = -1
        if hello:
            body, fds = self.ask(HELLO, bytes(8), expect=HELLO_OK)
            self.instance, self.gid = struct.unpack("=Q16s", body)
            self.page_fd, = fds

    def raw(self, data, fds=()):
        """One packet, as it is."""
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self.sock.sendmsg([data], anc)
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Gone from e

    def send(self, kind, body=b"", fds=()):
        self.seq += 1
        self.raw(HEAD.pack(MAGIC, VERSION, kind, len(body), self.seq) + body, fds)
        return self.seq

    def recv(self):
        """(type, seq, body, fds) of the next packet."""
        try:
            data, fds, flags, _ = socket.recv_fds(self.sock, 65536, 16)
        except ConnectionResetError as e:
            raise Gone from e
        if not data:
            raise Gone
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), flags
        magic, version, kind, length, seq = HEAD.unpack_from(data)
        assert (magic, version, length) == (MAGIC, VERSION, len(data) - HEAD.size), data
        return kind, seq, data[HEAD.size:], fds

    def answer(self, seq, expect):
        kind, got, body, fds = self.recv()
        assert got == seq, f"answer to {got}, not to {seq}"
        if kind == ERROR:
            token, error, reason = struct.unpack("=QiI", body)
            raise Refused(error, reason, token)
        assert kind == expect, f"answer of type {kind}, expected {expect}"
        return body, fds

    def ask(self, kind, body=b"", fds=(), expect=None):
        return self.answer(self.send(kind, body, fds), expect)

    def attach(self, end, share=1, token=None):
        with contextlib.suppress(OSError):  # asking is what leaves the proof with the socket
            own = end.token
        token = own if token is None else token
        body, fds = self.ask(ATTACH, struct.pack("=QQ", token, share), [end.fileno()], ATTACH_OK)
        return Rings(*struct.unpack("=QQIIQQ", body), fds, share)

    def detach(self, token):
        self.send(DETACH, struct.pack("=Q", token))

    def leave(self, token):
        self.send(LEAVE, struct.pack("=Q", token))

    def resume(self, end, rings, share=None, fds=None, **changes):
        values = {"token": rings.token, "peer": rings.peer, "share": rings.share if share is None else share,
                  "own_ring": rings.own_ring, "peer_ring": rings.peer_ring,
                  "own_off": rings.own_off, "peer_off": rings.peer_off} | changes
        body, _ = self.ask(RESUME, struct.pack("=QQQIIQQ", *values.values()),
                           [end.fileno(), *(fds or rings.fds)], RESUME_OK)
        return struct.unpack("=Q", body)[0]

    def many(self, kind, each):
        seq = self.send(kind)
        found = []
        while True:
            got, got_seq, body, _ = self.recv()
            assert got_seq == seq
            if got == LIST_END:
                return found
            assert got == each, got
            found.append(body)

    def list(self):
        """{token: dict} of the DMBs that this client may see."""
        names = "token peer ring_size fill owner_pid partner_pid uid flags fabric prod_flags".split()
        found = {}
        for body in self.many(LIST, DMB):
            item = dict(zip(names, DMB_MSG.unpack_from(body)))
            item["stats"] = dict(zip(STATS_FIELDS, struct.unpack_from(STATS, body, DMB_MSG.size)))
            assert item["token"] not in found, "listed twice"
            found[item["token"]] = item
        return found

    def fabrics(self):
        """Of each fabric its fields, the last of them a list of peers."""
        found = []
        for body in self.many(FABRICS, FABRIC):
            *fields, n = FABRIC_MSG.unpack_from(body)
            assert len(body) == FABRIC_MSG.size + n * PEER_MSG.size
            found.append((*fields, [PEER_MSG.unpack_from(body, FABRIC_MSG.size + i * PEER_MSG.size)
                                    for i in range(n)]))
        return found

    def status(self):
        body, _ = self.ask(STATUS, expect=STATUS_OK)
        return dict(zip(STATUS_NAMES, STATUS_MSG.unpack_from(body)))

    def sync(self):
        """Everything sent before has been served."""
        self.status()

    def close(self):
        self.sock.close()
        if self.page_fd >= 0:
            os.close(self.page_fd)
            self.page_fd = -1


class Rings:
    """What ATTACH_OK gave: two mapped DMBs and two doorbells."""

    def __init__(self, token, peer, own_ring, peer_ring, own_off, peer_off, fds, share):
        self.token, self.peer, self.own_ring, self.peer_ring = token, peer, own_ring, peer_ring
        self.own_off, self.peer_off = own_off, peer_off
        self.fds, self.share = fds, share
        self.own = mmap.mmap(fds[OWN_DMB], RING_OFF + own_ring, prot=mmap.PROT_READ, offset=own_off)
        self.peer_dmb = mmap.mmap(fds[PEER_DMB], RING_OFF + peer_ring, offset=peer_off)

    def put(self, offset, data):
        """Write to the partner."""
        self.peer_dmb[offset:offset + len(data)] = data

    def get(self, offset, size):
        return self.own[offset:offset + size]

    def put_stats(self, **values):
        assert not values.keys() - set(STATS_FIELDS)
        self.put(STATS_OFF, struct.pack(STATS, *(values.get(name, 0) for name in STATS_FIELDS)))

    def close(self):
        self.own.close()
        self.peer_dmb.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []


class End:
    """One end of a TCP connection."""

    def __init__(self, sock):
        self.sock = sock

    def fileno(self):
        return self.sock.fileno()

    def info(self):
        return INFO.unpack(self.sock.getsockopt(SOL, SO_INFO, INFO.size))

    @property
    def token(self):
        return self.info()[0]

    def close(self):
        self.sock.close()


def listener(capable=True):
    s = socket.socket()
    if capable:
        tell_caps(s)
    s.bind(("127.0.0.1", 0))
    s.listen()
    return s


def connection(client_capable=True, server_capable=True):
    """Both ends of a connection over loopback."""
    with listener(server_capable) as server:
        a = socket.socket()
        if client_capable:
            tell_caps(a)
        a.connect(server.getsockname())
        b, _ = server.accept()
    return End(a), End(b)
