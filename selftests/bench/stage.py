# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The stage of the bench: cgroups, what is loaded on each of them; and taking it all away."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PLANES = ("tcp", "naive", "unix", "skmsg", "direct", "ring", "memcpy")
CGROUPS = ("plain", "naive", "skmsg", "direct", "tools")
PORTS = 400  # ports of one run; every measurement takes the next one
NOWHERE = "unloaded"  # a pretended plane: under `ismredir run`, but nothing is loaded


class BenchError(Exception):
    """Something that the bench needs is missing or does not work."""


class LeftOut(Exception):
    """This cannot be measured on this machine, and that is no failure."""


def cgroup_root():
    """Where cgroup v2 is mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[fields.index("-") + 1] == "cgroup2":
                return fields[4]
    raise BenchError("cgroup v2 is not mounted")


def tidy(action, *args):
    """One step of taking down: the others follow whatever becomes of it."""
    try:
        action(*args)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"bench: cleaning up: {error}")


class Stage:
    """
    A cgroup per plane. Plain TCP and AF_UNIX share one; on the others their accelerator is loaded.
    Use it as a context manager: leaving it, in whatever way, takes everything away.
    """

    def __init__(self, build, planes, load_args):
        self.build = build
        self.planes = planes
        self.bin = None
        self.load_args = load_args
        self.first_port = 10000 + os.getpid() % 50 * PORTS
        self.used_ports = 0
        self.cgroup = None
        self.naive = None
        self.daemon = None
        self.loaded = []
        self.kept = {}
        self.folder = None
        self.bpffs = None
        self.children = []

    def __enter__(self):
        try:
            self.folder = tempfile.mkdtemp(prefix="ismbench-")
            os.chmod(self.folder, 0o711)  # some programs run as other users
            self.copy_programs()
            self.make_cgroups()
            if "naive" in self.planes:
                self.load_naive()
            for plane in ("skmsg", "direct"):
                if plane in self.planes:
                    self.load_ismredir(plane)
            if "direct" in self.planes:
                self.start_daemon()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        old = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
        for child in list(self.children):
            tidy(self.stop, child)
        if self.daemon:
            self.daemon.terminate()
            tidy(self.daemon.wait, 10)
        if self.cgroup:
            tidy(self.kill_left)
        for plane in self.loaded:
            tidy(self.ismredir, plane, "unload", "--timeout", "5")
        if self.naive:
            self.naive.stdin.close()
            tidy(self.naive.wait, 10)
        if self.bpffs:
            tidy(subprocess.run, ["umount", self.bpffs])
        if self.cgroup:
            self.remove_cgroups()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        for number, handler in old.items():
            signal.signal(number, handler)

    def copy_programs(self):
        """A build that goes on meanwhile changes nothing of what is measured."""
        self.bin = os.path.join(self.folder, "bin")
        os.mkdir(self.bin)
        for name in programs(self.planes):
            shutil.copy(os.path.join(self.build, name), self.bin)

    # cgroups

    def make_cgroups(self):
        """One folder for the run, one cgroup for each kind of plane in it."""
        path = os.path.join(cgroup_root(), f"ismbench-{os.getpid()}")
        os.mkdir(path)
        self.cgroup = path
        for name in CGROUPS:
            os.mkdir(os.path.join(path, name))

    def cgroup_of(self, plane):
        """The cgroup that processes of @plane run in."""
        return os.path.join(self.cgroup, plane if plane in CGROUPS else "plain")

    def cpu_seconds(self):
        """CPU time of everything that the bench itself has run."""
        with open(os.path.join(self.cgroup, "cpu.stat"), encoding="ascii") as stat:
            usage = int(stat.readline().split()[1])
        return usage / 1e6 + time.process_time()

    def kill_left(self):
        """End what a measurement left running in our cgroups, process by process."""
        for name in CGROUPS:
            with open(os.path.join(self.cgroup, name, "cgroup.procs"), encoding="ascii") as procs:
                for pid in procs.read().split():
                    tidy(os.kill, int(pid), signal.SIGKILL)

    def remove_cgroups(self):
        """Processes take a moment to leave a cgroup after their end."""
        for path in [os.path.join(self.cgroup, name) for name in CGROUPS] + [self.cgroup]:
            for _ in range(100):
                try:
                    os.rmdir(path)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.03)
            else:
                print(f"bench: cannot remove {path}")

    # what is loaded

    def tool(self, name):
        """Path of our copy of a program."""
        return os.path.join(self.bin, name)

    def env(self, plane):
        """The environment in which programs of a plane find what belongs to it."""
        sock = os.path.join(self.folder, "control.sock" if plane != NOWHERE else "nowhere.sock")
        pins = os.path.join(self.folder, "bpf", plane)
        return dict(os.environ, ISMREDIR_PIN_DIR=pins, ISMREDIR_SOCK=sock)

    def popen(self, group, command, **options):
        """Start a program in one of our cgroups."""
        join = 'echo 0 > "$0"/cgroup.procs && exec "$@"'
        return subprocess.Popen(["sh", "-c", join, os.path.join(self.cgroup, group), *command],
                                start_new_session=True, **options)

    def load_naive(self):
        """Its loader lives as long as its standard input."""
        self.naive = subprocess.Popen([self.tool("naive"), self.cgroup_of("naive")], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      start_new_session=True)
        if self.naive.stdout.readline() != "ready\n":
            raise BenchError("the naive sockmap accelerator does not load")

    def load_ismredir(self, plane):
        """With a bpffs of our own, so that one that is already at work here is not touched."""
        if not self.bpffs:
            path = os.path.join(self.folder, "bpf")
            os.mkdir(path)
            subprocess.run(["mount", "-t", "bpf", "bpf", path], check=True)
            self.bpffs = path
        self.loaded.append(plane)  # from here on an unload is due, even after half a load
        last = self.first_port + PORTS - 1
        done = self.ismredir(plane, "load", "--cgroup", self.cgroup_of(plane), "--plane", plane,
                             "--port", f"{self.first_port}-{last}", *self.load_args)
        if done.returncode:
            raise BenchError(f"ismredir load: exit {done.returncode}: {done.stderr.strip()}")

    def start_daemon(self):
        """ismredird with a control socket of our own."""
        env = self.env("direct")
        with open(os.path.join(self.folder, "ismredird.log"), "w", encoding="utf-8") as log:
            self.daemon = self.popen("tools", [self.tool("ismredird")], env=env, stderr=log,
                                     stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                    sock.connect(env["ISMREDIR_SOCK"])
                    return
            except OSError:
                time.sleep(0.02)
        with open(os.path.join(self.folder, "ismredird.log"), encoding="utf-8") as log:
            raise BenchError(f"ismredird does not start: {log.read().strip()}")

    def ismredir(self, plane, *args):
        """Run the command line tool on our own instance."""
        child = self.popen("tools", [self.tool("ismredir"), *args], env=self.env(plane), text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = child.communicate(timeout=60)
        return subprocess.CompletedProcess(args, child.returncode, out, err)

    def stats(self, plane):
        """(Bytes that the plane moved, bytes on TCP beside them) ever, or None."""
        if plane not in self.loaded:
            return None
        try:
            status = json.loads(self.ismredir(plane, "-j", "status").stdout)
            if plane == "direct":
                return status["daemon"]["ring_bytes"], status["daemon"]["tcp_bytes"]
            return status["stats"]["redir_bytes"], status["stats"]["tcp_bytes"]
        except (ValueError, KeyError, TypeError):
            return None

    def fails(self, test):
        """Whether a self-test says that skmsg lacks something on this kernel."""
        if "tests" not in self.kept:
            out = self.ismredir("skmsg", "-j", "check").stdout
            self.kept["tests"] = {t["name"]: t["result"] for t in json.loads(out)["tests"]}
        return self.kept["tests"].get(test) == "fail"

    def once(self, name, make):
        """What several measurements use and only the first one makes."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    # processes

    def port(self):
        """The next port: no measurement meets the closing connections of the one before."""
        self.used_ports += 1
        return self.first_port + (self.used_ports - 1) % PORTS

    def under(self, plane, command):
        """The command as it is started on a plane: on direct, by `ismredir run`."""
        if plane in ("direct", NOWHERE):
            return [self.tool("ismredir"), "run", "--", *command]
        return command

    def start(self, plane, command, **options):
        """Start a program inside the cgroup of @plane."""
        group = plane if plane in CGROUPS else "plain"
        child = self.popen(group, command, env=self.env(plane), **options)
        self.children.append(child)
        return child

    def stop(self, child, number=signal.SIGKILL):
        """End a program that start() started."""
        child.send_signal(number)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)
        if child in self.children:
            self.children.remove(child)

    def output(self, plane, command, timeout):
        """Run a program inside the cgroup of @plane to its end and return what it printed."""
        child = self.start(plane, command, text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
        name = os.path.basename(command[0] if command[1:2] != ["run"] else command[3])
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{name} did not end in {timeout:.0f} s") from error
        finally:
            self.stop(child)
        if child.returncode:
            said = err.strip() or out.strip()
            raise BenchError(f"{name}: exit {child.returncode}: {said[-300:]}")
        return out


def programs(planes):
    """What the build folder must hold to measure @planes."""
    names = ["bench/netload"]
    names += ["bench/naive"] if "naive" in planes else []
    names += ["bench/barering"] if {"ring", "memcpy"} & set(planes) else []
    names += ["ismredir"] if {"skmsg", "direct"} & set(planes) else []
    names += ["ismredird", "libismredir-preload.so"] if "direct" in planes else []
    return names
