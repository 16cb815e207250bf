# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Starting and ending: of the daemon, of its clients, of what is loaded; and rings that outlive a daemon."""

import errno
import grp
import os
import signal
import socket
import stat
import struct
import subprocess

import control
from control import OWN_BELL, OWN_DMB, PEER_BELL, PEER_DMB, RING_OFF, RX_OFF, TX_OFF
from harness import DAEMON, SANITIZED, ism, load, refused, settled_fds, steady_fds, test, user, within
from tests_attach import LEN, both

READY = struct.pack("=Q", 1 << 32)  # ISM_RX_READY


@test
def test_killed_client(box):
    d = box.start("--pool", "0")
    c = box.client()
    c.sync()
    before = steady_fds(d)
    a, b = box.connection()
    box.keep(c.attach(b, 2))

    def child():
        # kept open on purpose: the kernel has to close them
        child.keep = control.Client(box.sock)
        child.rings = child.keep.attach(a)

    pid = box.fork(child)
    assert c.list()[a.token]["owner_pid"] == pid and c.status()["clients"] == 2
    box.kill(pid)
    within(lambda: c.status()["clients"] == 1, "the client is gone")
    assert c.list()[a.token]["flags"] == 2, "its hold ends"
    c.detach(b.token)
    a.close()
    b.close()
    within(lambda: c.status()["mem_bytes"] == 0, "the memory is given back")
    settled_fds(d, before)


def restart(box, d, *args):
    box.stop(d, signal.SIGKILL, None)
    assert os.path.exists(box.sock), "there is no stale socket to get over"
    return box.start(*args)


@test
def test_rings_outlive_the_daemon(box):
    args = ("--ring-size", "64k", "--pool", "0")
    d = box.start(*args)
    a, b = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    ra.put(RX_OFF + 8, READY)
    rb.put(RX_OFF + 8, READY)
    instance = ca.instance
    d = restart(box, d, *args)
    ra.put(RING_OFF, b"nobody's")
    assert rb.get(RING_OFF, 8) == b"nobody's", "rings need no daemon"
    ca, cb, watcher = box.client(), box.client(), box.client()
    assert ca.instance != instance
    assert ca.resume(a, ra) == a.token
    got = watcher.list()
    assert {t: x["flags"] for t, x in got.items()} == {a.token: 1 | 4, b.token: 2 | 4}
    assert watcher.status()["mem_bytes"] == 2 * LEN
    # the other end is not known yet, but was used: nobody but its holder may have it
    with refused(errno.EBUSY):
        watcher.attach(b, 2)
    cb.resume(b, rb)
    assert {x["flags"] for x in watcher.list().values()} == {7}
    assert watcher.status()["resumes"] == 2
    # relatives come to the same memory
    child = box.client()
    again = box.keep(child.attach(a))
    again.put(RING_OFF, b"relative")
    assert rb.get(RING_OFF, 8) == b"relative"
    os.write(again.fds[PEER_BELL], struct.pack("=Q", 1))
    assert os.read(rb.fds[OWN_BELL], 8)
    with refused(errno.EBUSY):
        watcher.attach(a, 3)
    for thing in (ca, cb, child, a, b):
        thing.close()
    within(lambda: watcher.status()["mem_bytes"] == 0, "the memory is given back")


@test
def test_relative_resumes(box):
    """Both have the end and both say so; then one goes."""
    d = box.start("--ring-size", "64k")
    a, b = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    d = restart(box, d, "--ring-size", "64k")
    one, two, three = box.client(), box.client(), box.client()
    one.resume(a, ra)
    with refused(errno.EALREADY):
        one.resume(a, ra)
    two.resume(a, ra)
    with refused(errno.EBUSY):
        three.resume(a, ra, share=99)
    one.close()
    within(lambda: three.status()["clients"] == 2, "one goes")
    assert three.list()[a.token]["flags"] & 1


@test
def test_resume_of_what_it_is_not(box):
    d = box.start("--ring-size", "64k", "--pool", "0")
    a, b = box.connection()
    x, y = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    rx = box.keep(box.client().attach(x))
    d = restart(box, d, "--ring-size", "64k", "--pool", "0")
    c = box.client()
    c.sync()
    before = steady_fds(d)
    null = box.keep(open("/dev/null", "r+b", buffering=0)).fileno()
    own = os.memfd_create("mine", os.MFD_ALLOW_SEALING)
    os.ftruncate(own, os.fstat(ra.fds[OWN_DMB]).st_size)
    f = list(ra.fds)
    swap = lambda **at: [at.get(str(i), fd) for i, fd in enumerate(f)]
    for what, fds in {"devices": [null] * 4, "its bells as memory": [f[2], f[3], f[2], f[3]],
                      "memory as bells": [f[0], f[1], f[0], f[1]],
                      "own and peer exchanged": [f[1], f[0], f[2], f[3]],
                      "memory of another connection": [*rx.fds[:2], f[2], f[3]],
                      "half of another connection": [f[0], rx.fds[1], f[2], f[3]],
                      "memory of its own": [own, own, f[2], f[3]],
                      "a socket as bell": [f[0], f[1], f[2], a.fileno()]}.items():
        try:
            c.resume(a, ra, fds=fds)
        except control.Refused as e:
            assert e.errno == errno.EPERM, (what, e)
        else:
            raise AssertionError(f"{what}: was taken")
    for error, changes in ((errno.EPERM, {"peer": x.token}), (errno.EPERM, {"token": x.token}),
                           (errno.EPERM, {"own_ring": 128 << 10}), (errno.EPERM, {"peer_ring": 128 << 10}),
                           (errno.EPERM, {"token": rb.token, "peer": ra.token})):
        with refused(error):
            c.resume(a, ra, **changes)
    with refused(errno.EPERM):
        c.resume(x, ra)
    os.close(own)
    assert c.status()["mem_bytes"] == 0 and not c.list()
    settled_fds(d, before)
    c.resume(a, ra)
    with refused(errno.EPERM):
        box.client().resume(b, rb, fds=[null] * 4)
    with refused(errno.ESTALE):
        box.client().resume(b, rb, fds=[rx.fds[0], rb.fds[1], rb.fds[2], rb.fds[3]])


@test
def test_resume_with_a_spoiled_head(box):
    """The partner can write the head of a DMB: it only harms the connection with itself."""
    d = box.start("--ring-size", "64k")
    a, b = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    ra.put(0, b"\0" * 8)
    d = restart(box, d, "--ring-size", "64k")
    c = box.client()
    with refused(errno.EPERM):
        c.resume(b, rb)
    assert c.status()["mem_bytes"] == 0


@test
def test_new_rings_before_the_old_ones(box):
    """One end comes new, the other comes with rings of the daemon before: it is told to leave them."""
    d = box.start("--ring-size", "64k")
    a, b = box.connection()
    ca = box.client()
    ra = box.keep(ca.attach(a))
    d = restart(box, d, "--ring-size", "64k")
    cb = box.client()
    rb = box.keep(cb.attach(b, 2))
    again = box.client()
    with refused(errno.ESTALE):
        again.resume(a, ra)
    fresh = box.keep(again.attach(a))
    fresh.put(RING_OFF, b"fresh")
    assert rb.get(RING_OFF, 5) == b"fresh"


@test
def test_resume_counts_for_the_user(box):
    d = box.start("--ring-size", "64k")
    ends = [box.connection() for _ in range(2)]
    rings = [box.keep(box.client().attach(a)) for a, _ in ends]
    d = restart(box, d, "--ring-size", "64k", "--limit-uid", str(2 * LEN))
    with user(1000):
        c = box.client()
    c.resume(ends[0][0], rings[0])
    with refused(errno.EDQUOT):
        c.resume(ends[1][0], rings[1])


@test
def test_resume_after_unload(box):
    d = box.start("--ring-size", "64k")
    a, b = box.connection()
    ca, cb, ra, rb = both(box, a, b)
    try:
        ism("unload")
        d = restart(box, d, "--ring-size", "64k")
        with refused(errno.ESHUTDOWN, 0x0502):
            box.client().resume(a, ra)
    finally:
        load()


@test
def test_the_word_of_the_load(box):
    """Clients see it in the host page, and nobody gets new rings when it is not on."""
    box.start()
    c = box.client()
    word = lambda: struct.unpack("=I", os.pread(c.page_fd, 4, 4))[0]
    within(lambda: word() == control.WORD_ON, "on")
    a, b = box.connection()
    x, y = box.connection(False, False)
    x.sock.sendall(b"redirected and unread")
    info = control.INFO.unpack(y.sock.getsockopt(control.SOL, control.SO_INFO, control.INFO.size))
    assert info[6] & 8, "the test needs the skmsg plane"
    token = a.token
    try:
        ism("unload", "--timeout", "1", status=1)
        within(lambda: word() == control.WORD_DRAIN, "drain")
        assert c.status()["word"] == control.WORD_DRAIN
        with refused(errno.ESHUTDOWN, 0x0501):
            c.attach(a, token=token)
        assert y.sock.recv(100) == b"redirected and unread"
        ism("unload")
        with refused(errno.ESHUTDOWN, 0x0502):
            c.attach(a, token=token)
        within(lambda: word() == control.WORD_OFF, "off")
    finally:
        if not os.path.exists(os.environ["ISMREDIR_PIN_DIR"] + "/ctl"):
            load()
        else:
            ism("unload", "--timeout", "1")
            load()
    with refused(errno.ENOENT):
        c.attach(a, token=token)  # of the load before
    within(lambda: word() == control.WORD_ON, "on again")
    a, b = box.connection()
    box.keep(c.attach(a))


@test
def test_attach_right_after_load(box):
    """The host page is polled, a request is not."""
    try:
        ism("unload")
        box.start()
        c = box.client()
        within(lambda: c.status()["word"] == control.WORD_OFF, "off")
    finally:
        load()
    a, _ = box.connection()
    box.keep(c.attach(a))


@test
def test_nothing_loaded(box):
    box.start(env={"ISMREDIR_PIN_DIR": os.environ["ISMREDIR_PIN_DIR"] + "-none"})
    a, _ = box.connection()
    c = box.client()
    with refused(errno.ESHUTDOWN, 0x0502):
        c.attach(a)
    assert c.status()["word"] == control.WORD_OFF


@test
def test_clean_end(box):
    d = box.start()
    assert sorted(os.listdir(box.dir)) == ["control.sock", "control.sock.lock", "log"]
    c = box.client()
    box.stop(d)
    assert sorted(os.listdir(box.dir)) == ["log"]
    try:
        c.recv()
    except control.Gone:
        pass
    d = box.start()
    box.stop(d, signal.SIGINT)


@test
def test_one_at_a_time(box):
    box.start()
    second = subprocess.run([DAEMON, "--socket", box.sock], capture_output=True, text=True, timeout=30,
                            check=False)
    assert second.returncode == 1 and f"another ismredird serves {box.sock}" in second.stderr, second
    box.client().sync()
    other = box.sock + "2"
    box.start(sock=other)
    control.Client(other).close()


@test
def test_stale_socket(box):
    d = box.start()
    for _ in range(3):
        d = restart(box, d)
        box.client().sync()


@test
def test_something_else_is_there(box):
    with open(box.sock, "w", encoding="ascii") as f:
        f.write("precious")
    done = subprocess.run([DAEMON, "--socket", box.sock], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "is no socket" in done.stderr, done
    with open(box.sock, encoding="ascii") as f:
        assert f.read() == "precious"
    assert not os.path.exists(box.sock + ".lock")


@test
def test_socket_of_somebody_else_stays(box):
    d = box.start()
    os.unlink(box.sock)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.bind(box.sock)
    box.stop(d)
    assert os.path.exists(box.sock)
    s.close()


@test
def test_mode_and_group(box):
    d = box.start()
    st = os.stat(box.sock)
    assert stat.S_IMODE(st.st_mode) == 0o666
    box.stop(d)
    d = box.start("--socket-mode", "0660", "--socket-group", "4711")
    st = os.stat(box.sock)
    assert stat.S_IMODE(st.st_mode) == 0o660 and st.st_gid == 4711
    with user(1000):
        try:
            control.Client(box.sock)
        except PermissionError:
            pass
        else:
            raise AssertionError("the mode lets everybody in")
    box.stop(d)
    name = grp.getgrgid(0).gr_name
    box.start("--socket-group", name)
    old = os.umask(0o077)
    try:
        sub = os.path.join(box.dir, "new", "c.sock")
        box.start(sock=sub)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(os.path.dirname(sub)).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(sub).st_mode) == 0o666


@test
def test_where_the_socket_is(box):
    d = subprocess.Popen([DAEMON], env={**os.environ, "ISMREDIR_SOCK": box.sock}, stderr=subprocess.DEVNULL)
    box.daemons.append(d)
    within(lambda: box.listens(box.sock), "ISMREDIR_SOCK")


@test
def test_privileges(box):
    d = box.start()
    with open(f"/proc/{d.pid}/status", encoding="ascii") as f:
        s = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    bpf = 1 << 39
    for caps, want in {"CapEff": bpf, "CapPrm": bpf, "CapBnd": 0, "CapInh": 0, "CapAmb": 0}.items():
        assert int(s[caps], 16) == want, (caps, s[caps])
    assert s["NoNewPrivs"] == "1"
    a, _ = box.connection()
    box.keep(box.client().attach(a))


@test
def test_tells_the_manager(box):
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = os.path.join(box.dir, "notify")
    notify.bind(path)
    notify.settimeout(20)
    d = box.start(env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}, wait=False)
    said = []

    def until(text):
        while not any(text in s for s in said):
            said.append(notify.recv(4096).decode())

    until("READY=1")
    within(lambda: box.listens(box.sock), "ready means ready", 1)
    until("STATUS=load: on")
    for _ in range(3):
        said.clear()
        until("WATCHDOG=1")
    box.stop(d)
    until("STOPPING=1")


@test
def test_bad_options(box):
    for args in (["--what"], ["extra"], ["--ring-size", "100k"], ["--ring-size", "32k"], ["--ring-size", "128M"],
                 ["--ring-size", "64kk"], ["--ring-size", "0"], ["--ring-size", "1M", "--limit-uid", "1M"],
                 ["--ring-size", "-1"], ["--ring-size", ""], ["--limit-total", "x"],
                 ["--limit-total", "100k"], ["--limit-uid", "500k"], ["--limit-total", "99999999999999999999"],
                 ["--limit-total", "99999999999999G"], ["--pool", "5000"], ["--pool", "-1"], ["--max-clients", "0"],
                 ["--crowd", "5000"], ["--crowd", "-1"], ["--socket-mode", "888"], ["--socket-mode", "1777"],
                 ["--socket-group", "no-such-group"], ["--socket", ""]):
        done = subprocess.run([DAEMON, "--socket", box.sock, *args], capture_output=True, text=True, timeout=30,
                              check=False)
        assert done.returncode == 2 and done.stderr and not done.stdout, (args, done)
    for args in (["--fabric", "no:"], ["--fabric", "memfd:x=1"], ["--socket", "/" + "x" * 200],
                 ["--socket", "/no/such/dir/x.sock"]):
        done = subprocess.run([DAEMON, "--socket", box.sock, *args], capture_output=True, text=True, timeout=30,
                              check=False)
        assert done.returncode == 1 and done.stderr.startswith("ismredird: "), (args, done)
    assert os.listdir(box.dir) == []
    for arg, text in (("--help", "--ring-size"), ("--version", "ismredird ")):
        done = subprocess.run([DAEMON, arg], capture_output=True, text=True, timeout=30, check=True)
        assert text in done.stdout and not done.stderr


@test
def test_killed_again_and_again(box):
    """Killed at any moment while clients attach: the next one starts, and old rings are resumed."""
    import random
    rng = random.Random(5)
    args = ("--ring-size", "64k", "--pool", "4")
    d = box.start(*args)
    held, ends = [], []
    for turn in range(4 if SANITIZED else 10):
        c = box.client()
        for a, r in held:
            c.resume(a, r)
        for _ in range(rng.randrange(1, 6)):
            a, b = box.connection()
            ends += [a, b]
            held.append((a, box.keep(c.attach(a))))
        a, b = box.connection()
        c.send(control.ATTACH, struct.pack("=QQ", a.token, 1), [a.fileno()])
        d = restart(box, d, *args)
    c = box.client()
    for a, r in held:
        c.resume(a, r)
    assert len(c.list()) == 2 * len(held)
    for thing in [c] + ends:
        thing.close()
    c = box.client()
    within(lambda: c.status()["mem_bytes"] == 0, "all is given back")
