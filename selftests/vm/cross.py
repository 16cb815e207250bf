# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Two guests whose ismredirds have a region in common: what the tests of all fabrics share.

A scenario puts the spec of its region into guest.fabric.
"""

import contextlib
import json
import re

import vm
from tests_bells import device
from tests_kernel import IN, end_transfer, load, start_transfer

SERVER = "10.9.0.1"  # on guest a
RUN = "ismredir run --"
SOCKET = "/run/ismredir/control.sock"
LONG = 600  # seconds, for transfers that are ended by a signal
TOLD = re.compile(r"exact (\d+) bytes, sent (\d+), end (eof|reset)")


def bind(guest):
    """The guest's ivshmem devices shall interrupt."""
    guest.modprobe("vfio-pci", "vfio_iommu_type1")
    for d in device(guest).split():
        guest.ok(f"echo vfio-pci >/sys/bus/pci/devices/{d}/driver_override; "
                 f"echo {d} >/sys/bus/pci/drivers_probe")


def prepare(guests, *options, specs=None, settings=""):
    """Format their region, and load. @options: of the format; @specs: else it is ivshmem; @settings: more of the load."""
    for n, g in enumerate(guests):
        g.fabric = specs[n] if specs else f"ivshmem:{device(g)}"
    guests[0].ok(f"ismredir fabric format {guests[0].fabric.split(',')[0]} {' '.join(options)}")
    for g in guests:
        g.modprobe("tcp_diag")  # for SOCK_DESTROY; the guest's kernel finds no modules by itself
        # a stream that mostly overflows stays on the relay, as that is the test
        load(g, f"--skip-tests --set mix-bytes=0 {settings}")


# ---------------------------------------------------------------- ismredird

def daemon_up(guest, *options):
    """ismredird with the region; its load knows the fabric."""
    guest.ok(f"mkdir -p /run/ismredir; rm -f {SOCKET}")
    job = guest.start(f"exec ismredird --fabric {guest.fabric} --ring-size {guest.ring} "
                      + " ".join(options))
    try:
        guest.within(f"test -S {SOCKET} && ismredir dmbs")
        guest.within("ismredir -j status | grep -A1 '\"fabrics\"' | grep -q '[0-9a-f][0-9a-f]'")
    except vm.GuestError as e:
        raise AssertionError(job.said()) from e
    return job


def end_daemon(guest, signal):
    """The process that serves; not its guard."""
    guest.ok(f"kill -s {signal} $(ss -Hlxp src {SOCKET} | sed 's/.*pid=//; s/,.*//')")


def daemon_down(guest, job):
    end_daemon(guest, "TERM")
    ended, text = job.wait()
    assert ended == 0, text


def restart(guest, job, *options):
    """Kill it and start another one."""
    end_daemon(guest, "KILL")
    assert job.wait()[0] == -9, job.said()
    return daemon_up(guest, *options)


@contextlib.contextmanager
def daemons(a, b, *options):
    """One in each guest. Who restarts one puts its job into the list."""
    jobs = []
    try:
        for g in (a, b):
            jobs.append(daemon_up(g, *options))
        yield jobs
    except BaseException:
        for job in jobs:
            job.kill()
        raise
    for g, job in zip((a, b), jobs):
        daemon_down(g, job)


# ---------------------------------------------------------------- what they did

def status(guest):
    return json.loads(guest.ok("ismredir -j status"))


def on_rings(guest):
    """Messages on rings of the daemon that runs."""
    return status(guest)["daemon"]["ring_msgs"]


def redirected(guest):
    """Messages redirected to a partner or to the relay, since the load."""
    return status(guest)["stats"]["redir_msgs"]


def on_plane(guest, plane, port=5555):
    """Wait until this end of the connection is on @plane."""
    try:
        return guest.within(f"ismredir conns port {port} | grep -w ESTABLISHED | grep -w {plane}")
    except vm.GuestError as e:
        raise AssertionError(guest.ok(f"ismredir conns; ismredir dmbs; ismredir fabric show {guest.fabric}")) from e


@contextlib.contextmanager
def streams(a, b, plane, starter="", port=5555, **how):
    """
    A verified stream each way, which is on @plane at both ends by now, or on one plane of two. Gives its two jobs.
    @how: as of start_transfer()
    """
    jobs = start_transfer(a, b, starter, LONG, port, SERVER, **how)
    try:
        for g, p in zip((a, b), (plane, plane) if isinstance(plane, str) else plane):
            on_plane(g, p, port)
        yield jobs
    except AssertionError as e:
        raise AssertionError(f"{e}\n{[job.said() for job in jobs]}") from e
    finally:
        for job in jobs:
            job.kill()


def outcome(jobs):
    """
    No more is sent. How the ends of a transfer ended, both: eof or reset. What they got was right; eof says
    that it was all.
    """
    told = []
    end_transfer(*(job.guest for job in jobs))
    for job in jobs:
        text = job.wait()[1]
        assert job.status == 0 and TOLD.search(text), text
        told.append(TOLD.search(text).groups())
    for (got, _, end), (_, sent, _) in zip(told, reversed(told)):
        assert end == "reset" or got == sent, told
    return [end for _, _, end in told]


# ---------------------------------------------------------------- programs

def redis(a, b, server_by="", client_by="", requests=5000):
    """Requests and answers, so many of each kind; sees that the server ends."""
    server = a.start(f"{IN}exec {server_by} redis-server --bind {SERVER} --port 7777 --save '' "
                     "--protected-mode no")
    a.within("ss -Hltn sport = :7777 | grep -q .")
    b.ok(f"{IN}exec {client_by} redis-benchmark -h {SERVER} -p 7777 -n {requests} -c 4 -P 4 -d 1000 "
         "-t set,get -q")
    a.ok(f"redis-cli -h {SERVER} -p 7777 shutdown nosave; :")
    server.wait()
