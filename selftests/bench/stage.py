# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The stage of the bench: cgroups, what is loaded on each of them; and taking it all away."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

PLANES = ("tcp", "naive", "unix", "skmsg")
CGROUPS = ("plain", "naive", "skmsg")
PORTS = 100  # ports of one run; every measurement takes the next one


class BenchError(Exception):
    """Something that the bench needs is missing or does not work."""


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
    A cgroup per plane. tcp and unix share the plain one; on the others their accelerator is loaded.
    Use it as a context manager: leaving it, in whatever way, takes everything away.
    """

    def __init__(self, build, planes, load_args):
        self.build = build
        self.planes = planes
        self.bin = None
        self.load_args = load_args
        self.first_port = 10000 + os.getpid() % 200 * PORTS
        self.used_ports = 0
        self.cgroup = None
        self.naive = None
        self.loaded = False
        self.folder = None
        self.bpffs = None
        self.children = []

    def __enter__(self):
        try:
            self.folder = tempfile.mkdtemp(prefix="ismbench-")
            self.copy_programs()
            self.make_cgroups()
            if "naive" in self.planes:
                self.load_naive()
            if "skmsg" in self.planes:
                self.load_ismredir()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        old = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
        for child in list(self.children):
            tidy(self.stop, child)
        if self.cgroup:
            tidy(self.kill_left)
        if self.loaded:
            tidy(self.ismredir, "unload", "--timeout", "5")
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
        wanted = ["bench/netload"]
        wanted += ["bench/naive"] if "naive" in self.planes else []
        wanted += ["ismredir"] if "skmsg" in self.planes else []
        for name in wanted:
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
        return os.path.join(self.cgroup, "plain" if plane in ("tcp", "unix") else plane)

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

    def load_naive(self):
        """Its loader lives as long as its standard input."""
        self.naive = subprocess.Popen([self.tool("naive"), self.cgroup_of("naive")], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      start_new_session=True)
        if self.naive.stdout.readline() != "ready\n":
            raise BenchError("the naive sockmap accelerator does not load")

    def load_ismredir(self):
        """With a bpffs of our own, so that one that is already at work here is not touched."""
        path = os.path.join(self.folder, "bpf")
        os.mkdir(path)
        subprocess.run(["mount", "-t", "bpf", "bpf", path], check=True)
        self.bpffs = path
        self.loaded = True  # from here on an unload is due, even after half a load
        last = self.first_port + PORTS - 1
        done = self.ismredir("load", "--cgroup", self.cgroup_of("skmsg"),
                             "--port", f"{self.first_port}-{last}", *self.load_args)
        if done.returncode:
            raise BenchError(f"ismredir load: exit {done.returncode}: {done.stderr.strip()}")

    def ismredir(self, *args):
        """Run the command line tool on our own instance."""
        env = dict(os.environ, ISMREDIR_PIN_DIR=os.path.join(self.bpffs, "ismredir"))
        return subprocess.run([self.tool("ismredir"), *args], env=env, text=True,
                              capture_output=True, timeout=60, check=False)

    def stats(self):
        """Counters of the loaded instance, or None."""
        if not self.loaded:
            return None
        try:
            return json.loads(self.ismredir("-j", "status").stdout)["stats"]
        except (ValueError, KeyError):
            return None

    # processes

    def port(self):
        """The next port: no measurement meets the closing connections of the one before."""
        self.used_ports += 1
        return self.first_port + (self.used_ports - 1) % PORTS

    def start(self, plane, command, **options):
        """Start a program inside the cgroup of @plane."""
        join = 'echo 0 > "$0"/cgroup.procs && exec "$@"'
        child = subprocess.Popen(["sh", "-c", join, self.cgroup_of(plane), *command],
                                 start_new_session=True, **options)
        self.children.append(child)
        return child

    def stop(self, child):
        """End a program that start() started."""
        child.kill()
        child.wait(10)
        if child in self.children:
            self.children.remove(child)

    def output(self, plane, command, timeout):
        """Run a program inside the cgroup of @plane to its end and return what it printed."""
        child = self.start(plane, command, text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
        name = os.path.basename(command[0])
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{name} did not end in {timeout:.0f} s") from error
        finally:
            self.stop(child)
        if child.returncode:
            raise BenchError(f"{name}: {err.strip() or child.returncode}")
        return out
