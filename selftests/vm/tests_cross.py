# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Connections between two guests over a region in ivshmem: rings, and the relay."""

import contextlib
import json

import vm
from run import check, scenario
from tests_bells import device
from tests_kernel import IN, TRANSFER, load, transfer

SIZE = 256 << 20
SERVER = "10.9.0.1"  # on guest a
RUN = "ismredir run --"


def status(guest):
    return json.loads(guest.ok("ismredir -j status"))


def daemon_up(guest, *options):
    """ismredird with the region; its load knows the fabric."""
    guest.ok("mkdir -p /run/ismredir; rm -f /run/ismredir/control.sock")
    job = guest.start(f"exec ismredird --fabric ivshmem:{device(guest)} --ring-size 256k "
                      + " ".join(options))
    guest.within("test -S /run/ismredir/control.sock && ismredir dmbs")
    guest.within("ismredir -j status | grep -A1 '\"fabrics\"' | grep -q '[0-9a-f][0-9a-f]'")
    return job


def daemon_down(guest, job):
    guest.ok("kill $(ss -Hlxp src /run/ismredir/control.sock | sed 's/.*pid=//; s/,.*//')")
    ended, text = job.wait()
    assert ended == 0, text


@scenario
def across_ivshmem(lab):
    server = lab.ivshmem_server("cross", SIZE)
    guests = lab.pair("a", "b", **vm.doorbell(server))
    for g in guests:
        g.modprobe("vfio-pci", "vfio_iommu_type1")
        d = device(g)
        g.ok(f"echo vfio-pci >/sys/bus/pci/devices/{d}/driver_override; "
             f"echo {d} >/sys/bus/pci/drivers_probe")
    guests[0].ok(f"ismredir fabric format ivshmem:{device(guests[0])}")
    for g in guests:
        load(g, "--skip-tests")
    return guests


def counters(guest):
    """Messages on rings, and messages redirected to a partner or to the relay."""
    s = status(guest)
    return s["daemon"]["ring_msgs"], s["stats"]["redir_msgs"]


def redis(a, b, server_by="", client_by=""):
    """Requests and answers, 5000 of each kind; sees that the server ends."""
    server = a.start(f"{IN}exec {server_by} redis-server --bind {SERVER} --port 7777 --save '' "
                     "--protected-mode no")
    a.within("ss -Hltn sport = :7777 | grep -q .")
    b.ok(f"{IN}exec {client_by} redis-benchmark -h {SERVER} -p 7777 -n 5000 -c 4 -P 4 -d 1000 "
         "-t set,get -q")
    a.ok(f"redis-cli -h {SERVER} -p 7777 shutdown nosave; :")
    server.wait()


@contextlib.contextmanager
def daemons(a, b, *options):
    jobs = [daemon_up(g, *options) for g in (a, b)]
    try:
        yield jobs
    except BaseException:
        for job in jobs:
            job.kill()
        raise
    for g, job in zip((a, b), jobs):
        daemon_down(g, job)


@check(across_ivshmem)
def rings_between_two_guests(a, b):
    with daemons(a, b):
        transfer(a, b, RUN, host=SERVER)
        redis(a, b, RUN, RUN)
        for g in (a, b):
            assert counters(g)[0] > 100, g.ok("ismredir status")
        text = a.ok(f"ismredir fabric show ivshmem:{device(a)}")
        assert text.count(" alive ") == 2 and "no DMBs" in text, text


@check(across_ivshmem)
def relay_between_two_guests(a, b):
    before = [status(g)["stats"]["redir_msgs"] for g in (a, b)]
    with daemons(a, b, "--relay"):
        transfer(a, b, host=SERVER)
        redis(a, b)
        for g, n in zip((a, b), before):
            assert counters(g)[1] > n + 100, g.ok("ismredir status")


@check(across_ivshmem)
def rings_at_one_end_relay_at_the_other(a, b):
    with daemons(a, b, "--relay"):
        redis(a, b, server_by=RUN)
        assert counters(a)[0] > 100, a.ok("ismredir status")
        redis(a, b, client_by=RUN)
        assert counters(b)[0] > 100, b.ok("ismredir status")


@check(across_ivshmem)
def a_guest_that_dies_leaves_the_region_usable(a, b):
    spec = f"ivshmem:{device(a)}"
    daemon = daemon_up(a)
    daemon_up(b)
    to = f"export ISMREDIR_TEST_HOST={SERVER} ISMREDIR_AFTER=1,1; {IN}exec {RUN} python3 {TRANSFER}"
    server = a.start(f"{to} listen 5556 60 epoll")
    a.within("ss -Hltn sport = :5556 | grep -q .")
    client = b.start(f"{to} connect 5556 60 poll")
    while "flows" not in client.said():
        assert client.status is None, client.output
        b.pump(0.2)
    b.kill()
    server.kill()
    server.wait()
    a.within(f"ismredir fabric show {spec} | grep -q ' silent '")
    a.ok(f"ismredir fabric fsck --evict $(ismredir fabric show {spec} | sed -n 's/ silent .*//p') {spec}")
    daemon_down(a, daemon)
    # TCP still tries to reach the dead guest, so an end of the connection may be left
    a.ok(f"ismredir fabric fsck --repair {spec}")
    text = a.ok(f"ismredir fabric show {spec}")
    assert "no peers" in text and "nothing is attached" in text, text
