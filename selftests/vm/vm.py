# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Guests for tests: boot, run commands, stop and continue, kill; all gone when the caller is.

    with Lab(build) as lab:
        a, b = lab.pair("a", "b")
        status, text = a.run("uname -r")

A guest sees the host's files, read only, at the same paths, and runs the host's programs. Not for
several threads at once.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import kernel

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
QEMU = os.environ.get("VM_QEMU", "qemu-system-x86_64")
BOOT = 120  # seconds; 3 on an idle machine
COMMAND = 120
# Without hardware virtualization "rep movsb" is emulated byte by byte, so it must not look fast.
CPU = os.environ.get("VM_CPU", "max,-erms,-fsrm")
ACCEL = os.environ.get("VM_ACCEL", "tcg,thread=multi")

HELLO, RUN, KILL, OUTPUT, END, POWEROFF = range(1, 7)
HEAD = struct.Struct("=III")


class GuestError(Exception):
    pass


def die_with_parent():
    """In the child: end when the test ends, however it does."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def doorbell(server):
    """Arguments of a Guest with an ivshmem device of this server, which can interrupt: needs an IOMMU."""
    return {"early": ("-device", "intel-iommu,intremap=on"), "append": "intel_iommu=on",
            "devices": ("-chardev", f"socket,id=ivshmem,path={server}", "-device",
                        "ivshmem-doorbell,chardev=ivshmem,vectors=1")}


def plain(memory, size):
    """Arguments of a Guest with an ivshmem device that is memory and nothing else."""
    return {"devices": ("-object", f"memory-backend-file,id=shared,mem-path={memory},size={size},share=on",
                        "-device", "ivshmem-plain,memdev=shared")}


def cxl(memory, size, labels):
    """
    Arguments of a Guest with a CXL memory device; several share @memory, @labels is each one's own.
    QEMU 7.2 knows persistent devices only, and Linux 6.12 wants interrupts of events, which that has not.
    The kernel refuses regions where it sees a hypervisor, as it cannot flush caches there.
    """
    return {"machine": "q35,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=1G",
            "memory": "512M,maxmem=4G,slots=4", "cpu": CPU + ",-hypervisor", "append": "pci=nomsi",
            "devices": ("-object", f"memory-backend-file,id=pool,share=on,mem-path={memory},size={size}",
                        "-object", f"memory-backend-file,id=lsa,share=on,mem-path={labels},size=1M",
                        "-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1",
                        "-device", "cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2",
                        "-device", "cxl-type3,bus=rp0,memdev=pool,lsa=lsa,id=mem0")}


class Job:
    """A command in a guest."""

    def __init__(self, guest, number, text):
        self.guest, self.number, self.text = guest, number, text
        self.output = b""
        self.status = None

    def said(self):
        """What it has printed until now."""
        self.guest.pump(0)
        return self.output.decode(errors="replace")

    def wait(self, timeout=COMMAND):
        """Returns (exit status, or minus the signal; output). Kills it after @timeout seconds."""
        end = time.monotonic() + timeout
        while self.status is None:
            left = end - time.monotonic()
            if left <= 0:
                self.kill()
                raise GuestError(f"{self.guest.name}: not done in {timeout} s: {self.text}\n"
                                 + self.output.decode(errors="replace")[-2000:])
            self.guest.pump(left)
        return self.status, self.output.decode(errors="replace")

    def kill(self):
        self.guest.send(KILL, self.number)


class Guest:
    """One QEMU. @net: arguments of -netdev without the id; @devices: more arguments of QEMU."""

    def __init__(self, lab, name, net=None, devices=(), machine="q35", cpu=CPU, memory="512M",
                 append="", early=()):
        self.lab, self.name = lab, name
        self.log = f"{lab.dir}/{name}.log"
        self.inbox = b""
        self.jobs = {}
        self.number = 0
        self.ready = False
        self.fabric, self.ring = None, "256k"  # of its ismredird
        self.channel = self.qmp = None
        listeners = {}
        for what in ("cmd", "qmp"):
            listeners[what] = socket.socket(socket.AF_UNIX)
            listeners[what].bind(f"{lab.dir}/{name}.{what}")
            listeners[what].listen(1)
        self.listeners = listeners
        args = ["nice", "-n", os.environ.get("VM_NICE", "15"), QEMU, "-name", f"ismredir-{name}-{os.getpid()}",
                "-accel", ACCEL, "-machine", machine, "-cpu", cpu, "-m", memory, "-nodefaults",
                "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{self.log}",
                "-kernel", lab.kernel, "-initrd", lab.initramfs, "-append",
                # the check whether the timer ticks fails when the host is busy
                f"console=ttyS0 panic=-1 quiet no_timer_check vm.name={name} vm.src={SOURCE} "
                f"vm.agent={lab.build}/vm/agent {append}", *early,
                "-chardev", f"socket,id=qmp,path={lab.dir}/{name}.qmp", "-mon",
                "chardev=qmp,mode=control", "-chardev", f"socket,id=cmd,path={lab.dir}/{name}.cmd",
                "-device", "virtio-serial-pci", "-device",
                "virtserialport,chardev=cmd,name=ismredir.cmd"]
        for tag, path in (("root", "/"), ("src", SOURCE)):
            args += ["-fsdev", f"local,id={tag},path={path},security_model=none,readonly=on,"
                     "multidevs=remap", "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        if net:
            args += ["-netdev", f"{net},id=net", "-device",
                     f"virtio-net-pci,netdev=net,mac=52:54:00:00:00:{len(lab.guests) + 1:02x}"]
        with open(self.log + ".qemu", "wb") as f:
            self.process = subprocess.Popen(args + list(devices), stdin=subprocess.DEVNULL,
                                            stdout=f, stderr=f, preexec_fn=die_with_parent)
        lab.guests.append(self)

    # ------------------------------------------------------------ the channel

    def accept(self, what, timeout=20):
        """QEMU connects to us as it starts."""
        end = time.monotonic() + timeout
        while not select.select([self.listeners[what]], [], [], 0.1)[0]:
            if self.process.poll() is not None or time.monotonic() > end:
                raise GuestError(f"{self.name}: QEMU did not start\n{self.logs()}")
        return self.listeners[what].accept()[0]

    def send(self, kind, number, data=b""):
        self.channel.sendall(HEAD.pack(kind, number, len(data)) + data)

    def pump(self, timeout):
        """Take what the guest says; waits at most @timeout seconds for something."""
        if not select.select([self.channel], [], [], timeout)[0]:
            return
        data = self.channel.recv(1 << 20)
        if not data:
            raise GuestError(f"{self.name}: gone\n{self.logs()}")
        self.inbox += data
        while len(self.inbox) >= HEAD.size:
            kind, number, length = HEAD.unpack_from(self.inbox)
            if len(self.inbox) < HEAD.size + length:
                break
            data = self.inbox[HEAD.size:HEAD.size + length]
            self.inbox = self.inbox[HEAD.size + length:]
            self.take(kind, number, data)

    def take(self, kind, number, data):
        job = self.jobs.get(number)
        if kind == HELLO:
            self.ready = True
        elif kind == OUTPUT and job:
            job.output += data
        elif kind == END and job:
            job.status = os.waitstatus_to_exitcode(struct.unpack("=I", data)[0])
            del self.jobs[number]

    # ------------------------------------------------------------ what tests use

    def boot(self, timeout=BOOT):
        """Wait until it can run commands."""
        end = time.monotonic() + timeout
        if not self.channel:
            self.channel = self.accept("cmd")
        while not self.ready:
            if time.monotonic() > end:
                raise GuestError(f"{self.name}: does not boot\n{self.logs()}")
            self.pump(max(0, end - time.monotonic()))
        return self

    def start(self, text, env=None):
        """Start shell text; returns a Job."""
        for name, value in (env or self.lab.env).items():
            text = f"export {name}='{value}'; {text}"
        self.number += 1
        self.jobs[self.number] = job = Job(self, self.number, text)
        self.send(RUN, self.number, text.encode())
        return job

    def run(self, text, timeout=COMMAND, env=None):
        """Run shell text to its end: (status, output)."""
        return self.start(text, env).wait(timeout)

    def ok(self, text, timeout=COMMAND, env=None):
        """The same, and it must succeed. Returns the output."""
        status, output = self.run(text, timeout, env)
        if status:
            raise GuestError(f"{self.name}: status {status}: {text}\n{output[-4000:]}")
        return output

    def within(self, text, timeout=30):
        """Repeat shell text until it succeeds."""
        end = time.monotonic() + timeout
        while True:
            status, output = self.run(text)
            if status == 0:
                return output
            if time.monotonic() > end:
                raise GuestError(f"{self.name}: never: {text}\n{output[-2000:]}")
            time.sleep(0.2)

    def modprobe(self, *names):
        """Load modules of the guest's kernel; nothing to do in one that has everything built in."""
        if self.lab.modules:
            # not by the host's configuration, which may run programs
            self.ok(f"/sbin/modprobe -C /dev/null -d {self.lab.modules} -a {' '.join(names)}")

    def pci_device(self, vendor, device):
        """Address of the only such device."""
        return self.ok(f"cd /sys/bus/pci/devices; for d in *; do [ $(cat $d/vendor $d/device | tr -d '\n') "
                       f"= {vendor:#06x}{device:#06x} ] && echo $d; done; :").strip()

    def cxl_dax(self):
        """Make all of the CXL memory /dev/dax0.0. Its first 2 MiB are the kernel's."""
        self.modprobe("cxl_acpi", "cxl_pci", "cxl_mem", "cxl_port", "cxl_pmem", "nd_pmem", "dax_pmem",
                      "device_dax")
        self.within("test -e /sys/bus/cxl/devices/mem0")
        self.ok("cxl create-region -m -d decoder0.0 -t pmem mem0; "
                "ndctl create-namespace -m devdax -M mem -f -r region0")
        self.within("test -c /dev/dax0.0")

    def command(self, name, **args):
        """A QMP command."""
        if not self.qmp:
            self.qmp = self.accept("qmp").makefile("rw")
            self.qmp.readline()
            self.command("qmp_capabilities")
        self.qmp.write(json.dumps({"execute": name, "arguments": args}) + "\n")
        self.qmp.flush()
        while True:
            answer = json.loads(self.qmp.readline() or '{"error": "gone"}')
            if "error" in answer:
                raise GuestError(f"{self.name}: {name}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def pause(self):
        """All CPUs stand still."""
        self.command("stop")

    def resume(self):
        self.command("cont")

    def kill(self):
        """As if the power failed."""
        self.process.kill()
        self.process.wait()
        for s in (self.channel, self.qmp, *self.listeners.values()):
            if s:
                s.close()
        self.channel = self.qmp = None

    def logs(self):
        """The end of its console and of what QEMU said."""
        text = ""
        for path in (self.log, self.log + ".qemu"):
            if os.path.exists(path):
                with open(path, "rb") as f:
                    text += f.read().decode(errors="replace")[-3000:]
        return text


def end_by(number, _frame):
    sys.exit(128 + number)


class Lab:
    """What guests share: a kernel, a directory, an end."""

    def __init__(self, build, keep=None):
        self.build = os.path.abspath(build)
        self.keep = keep
        self.dir = tempfile.mkdtemp(prefix="ismredir-vm-")
        self.guests = []
        self.servers = []
        self.files = []
        self.before = {}  # handlers of signals
        self.env = {"B": self.build, "PATH": f"{self.build}:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOME": "/root"}
        os.makedirs(self.build + "/vm", exist_ok=True)
        self.kernel, self.initramfs, self.modules = kernel.prepare(self.build + "/vm")

    def __enter__(self):
        """SIGTERM ends the caller as an exception does, so files and guests go with it."""
        self.before = {s: signal.signal(s, end_by) for s in (signal.SIGTERM, signal.SIGHUP)}
        return self

    def __exit__(self, *exc):
        for s in self.before:
            signal.signal(s, signal.SIG_IGN)
        self.close()
        for s, handler in self.before.items():
            signal.signal(s, handler)

    def memory(self, name, size):
        """A file of memory that guests can share; gone with the lab."""
        path = f"/dev/shm/ismredir-vm-{os.getpid()}-{name}"
        with open(path, "wb") as f:
            f.truncate(size)
        self.files.append(path)
        return path

    def ivshmem_server(self, name, size, *args):
        """A server of shared memory; returns the path of its socket."""
        path = f"{self.dir}/{name}.ivshmem"
        server = subprocess.Popen([sys.executable, HERE + "/ivshmem_server.py", "--size", str(size),
                                   *args, path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  preexec_fn=die_with_parent)
        self.servers.append(server)
        if server.stdout.readline() != b"ready\n":
            raise GuestError("the ivshmem server did not start")
        return path

    def guest(self, name, **args):
        """Start one, without waiting for it."""
        return Guest(self, name, **args)

    def pair(self, first, second, each=({}, {}), **args):
        """Two that are joined by a cable, 10.9.0.1 and 10.9.0.2; booted. @each: arguments of one."""
        path = f"{self.dir}/{first}-{second}.net"
        a = self.guest(first, net=f"stream,server=on,addr.type=unix,addr.path={path}", **each[0],
                       **args)
        end = time.monotonic() + 20
        while not os.path.exists(path):
            if a.process.poll() is not None or time.monotonic() > end:
                raise GuestError(f"{first}: QEMU did not start\n{a.logs()}")
            time.sleep(0.05)
        b = self.guest(second, net=f"stream,server=off,addr.type=unix,addr.path={path}", **each[1],
                       **args)
        for n, g in enumerate((a, b)):
            g.boot()
            g.ok(f"ip addr add 10.9.0.{n + 1}/24 dev eth0; ip link set eth0 up")
        return a, b

    def close(self):
        """Everything ends; logs are kept in the directory @keep, where one was given."""
        for g in self.guests:
            g.kill()
        for s in self.servers:
            s.kill()
            s.wait()
            s.stdout.close()
        for path in self.files:
            os.unlink(path)
        if self.keep:
            os.makedirs(self.keep, exist_ok=True)
            for n in os.listdir(self.dir):
                if n.endswith((".log", ".qemu")):
                    shutil.copy(f"{self.dir}/{n}", self.keep)
        shutil.rmtree(self.dir, ignore_errors=True)
        os.unlink(self.initramfs)
