# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the tests of ismredird share: a daemon of their own, processes of other users, a runner."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import control

BUILD = os.environ["B"]
ISMREDIR = os.path.join(BUILD, "ismredir")
DAEMON = os.environ.get("ISMREDIRD", os.path.join(BUILD, "ismredird"))
CGROUP = os.environ["CG"]
SANITIZED = "asan" in DAEMON
NOBODY = 65534
TESTS = []
LIMIT = 100  # seconds that one test may take


class Skip(Exception):
    pass


def test(fn):
    TESTS.append(fn)
    return fn


def within(condition, what, seconds=20):
    """Wait for something that takes a moment; how long is not what is tested."""
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"never: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def refused(error, reason=None):
    try:
        yield
    except control.Refused as e:
        assert e.errno == error, f"refused with {os.strerror(e.errno)}, expected {os.strerror(error)}"
        assert reason is None or e.reason == reason, hex(e.reason)
    else:
        raise AssertionError(f"not refused with {os.strerror(error)}")


@contextlib.contextmanager
def gone():
    try:
        yield
    except control.Gone:
        pass
    else:
        raise AssertionError("the daemon did not close the connection")


@contextlib.contextmanager
def user(uid):
    """Connect as somebody else: SO_PEERCRED has the effective uid."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


class Box:
    """One test: its directory, its daemons, its children. Nothing of it is left when it closes."""

    def __init__(self, name):
        self.dir = tempfile.mkdtemp(prefix=f"ismd-{name[:20]}-")
        os.chmod(self.dir, 0o755)
        self.sock = os.path.join(self.dir, "control.sock")
        self.log = os.path.join(self.dir, "log")
        self.daemons, self.children, self.closables = [], [], []

    def start(self, *args, wait=True, env=None, sock=None):
        """A daemon; several may be started."""
        env = {**os.environ, **(env or {})}
        with open(self.log, "ab") as log:
            d = subprocess.Popen([DAEMON, "--socket", sock or self.sock, *args], env=env, stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log)
        self.daemons.append(d)
        if wait:
            within(lambda: d.poll() is not None or self.listens(sock or self.sock), "the daemon listens")
            assert d.poll() is None, f"the daemon ended: {self.said()}"
        return d

    def listens(self, path):
        s = control.socket.socket(control.socket.AF_UNIX, control.socket.SOCK_SEQPACKET)
        try:
            s.connect(path)
            return True
        except OSError:
            return False
        finally:
            s.close()

    def said(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def client(self, **kw):
        c = control.Client(self.sock, **kw)
        self.closables.append(c)
        return c

    def connection(self, *args):
        ends = control.connection(*args)
        self.closables += ends
        return ends

    def keep(self, thing):
        self.closables.append(thing)
        return thing

    def fork(self, fn):
        """A child that runs @fn and then waits to be killed; returns its pid once @fn is through."""
        r, w = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(r)
                fn()
                os.write(w, b"k")
                while True:
                    signal.pause()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(w)
        self.children.append(pid)
        with os.fdopen(r, "rb") as f:
            assert f.read(1) == b"k", "the child failed"
        return pid

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.children.remove(pid)

    def stop(self, d, sig=signal.SIGTERM, status=0):
        d.send_signal(sig)
        try:
            got = d.wait(30)
        except subprocess.TimeoutExpired:
            raise AssertionError("the daemon does not end") from None
        self.daemons.remove(d)
        want = -sig if status is None else status
        assert got == want, f"status {got}, expected {want}: {self.said()[-3000:]}"

    def close(self):
        """Returns what went wrong with the daemons, if anything."""
        for thing in self.closables:
            with contextlib.suppress(OSError, BufferError):
                thing.close()
        for pid in list(self.children):
            with contextlib.suppress(OSError):
                self.kill(pid)
        wrong = []
        for d in list(self.daemons):
            try:
                if d.poll() is None:
                    self.stop(d)
                elif d.returncode:
                    wrong.append(f"a daemon ended with {d.returncode}")
            except AssertionError as e:
                wrong.append(str(e))
                d.kill()
                d.wait()
        said = self.said() if os.path.exists(self.log) else ""
        if re.search(r"Sanitizer|runtime error", said):
            wrong.append(said[-6000:])
        shutil.rmtree(self.dir, ignore_errors=True)
        return wrong


def fds_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def steady_fds(d):
    """How many descriptors the daemon has, once it has nothing left to do."""
    seen = []
    within(lambda: seen.append(fds_of(d.pid)) or (len(seen) > 8 and len(set(seen[-8:])) == 1), "it is at rest")
    return seen[-1]


def let_open(d, n):
    """The daemon can open so many more descriptors."""
    steady_fds(d)
    used = {int(fd) for fd in os.listdir(f"/proc/{d.pid}/fd")}
    free = (fd for fd in range(len(used) + n + 1) if fd not in used)
    _, hard = resource.prlimit(d.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(d.pid, resource.RLIMIT_NOFILE, (list(free)[n], hard))


def settled_fds(d, want):
    """The daemon has as many descriptors as before: what it closes, it closes a little later."""
    try:
        within(lambda: fds_of(d.pid) == want, f"{want} descriptors")
    except AssertionError as e:
        fds = f"/proc/{d.pid}/fd"
        raise AssertionError(f"{e}: {[os.readlink(f'{fds}/{fd}') for fd in os.listdir(fds)]}") from None


def ism(*args, status=0):
    done = subprocess.run([ISMREDIR, *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, f"ismredir {args}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout


def load():
    ism("load", "--cgroup", CGROUP, "--skip-tests")


def on_alarm(*_):
    raise AssertionError("the test hangs")


def run_one(fn):
    box = Box(fn.__name__.removeprefix("test_"))
    signal.alarm(LIMIT)
    wrong = []
    try:
        fn(box)
    except Skip as e:
        return "skip", [str(e)]
    except BaseException as e:  # also KeyboardInterrupt: the box is closed first
        wrong = [traceback.format_exc(), "daemon: " + (box.said()[-3000:] if os.path.exists(box.log) else "")]
        if isinstance(e, KeyboardInterrupt):
            raise
    finally:
        signal.alarm(0)
        wrong += box.close()
    return ("FAIL" if wrong else "ok"), wrong


def main(pattern):
    signal.signal(signal.SIGALRM, on_alarm)
    count = {"ok": 0, "FAIL": 0, "skip": 0}
    for fn in TESTS:
        if not re.search(pattern, fn.__name__):
            continue
        start = time.monotonic()
        result, why = run_one(fn)
        took = time.monotonic() - start
        count[result] += 1
        name = fn.__name__.removeprefix("test_")
        print(f"{result:<4}  {name:<34} {took:.1f} s" + (f"  {why[0]}" if result == "skip" else ""), flush=True)
        if result == "FAIL":
            for text in why:
                print("      | " + text.replace("\n", "\n      | "), flush=True)
    skipped = f", {count['skip']} skipped" if count["skip"] else ""
    print(f"{count['ok']} passed, {count['FAIL']} failed{skipped}", flush=True)
    sys.exit(count["FAIL"] > 0)
