# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Connections between two guests over a region in ivshmem: rings, the relay, and what breaks in between."""

import time

import vm
from cross import (RUN, SERVER, bind, daemon_down, daemon_up, daemons, on_plane, on_rings, outcome, prepare, redirected,
                   redis, restart, streams)
from run import check, scenario
from tests_kernel import IN, TRANSFER, transfer

SIZE = 256 << 20
PAUSE = 5  # seconds, longer than a lease


@scenario
def across_ivshmem(lab):
    server = lab.ivshmem_server("cross", SIZE)
    guests = lab.pair("a", "b", **vm.doorbell(server))
    for g in guests:
        bind(g)
    prepare(guests)
    return guests


@check(across_ivshmem)
def rings_between_two_guests(a, b):
    with daemons(a, b):
        transfer(a, b, RUN, host=SERVER)
        redis(a, b, RUN, RUN)
        for g in (a, b):
            assert on_rings(g) > 100, g.ok("ismredir status")
        text = a.ok(f"ismredir fabric show {a.fabric}")
        assert text.count(" alive ") == 2 and "no DMBs" in text, text


@check(across_ivshmem)
def relay_between_two_guests(a, b):
    before = [redirected(g) for g in (a, b)]
    with daemons(a, b, "--relay"):
        transfer(a, b, host=SERVER)
        redis(a, b)
        for g, n in zip((a, b), before):
            assert redirected(g) > n + 100, g.ok("ismredir status")


@check(across_ivshmem)
def rings_at_one_end_relay_at_the_other(a, b):
    with daemons(a, b, "--relay"):
        redis(a, b, server_by=RUN)
        assert on_rings(a) > 100, a.ok("ismredir status")
        redis(a, b, client_by=RUN)
        assert on_rings(b) > 100, b.ok("ismredir status")


@check(across_ivshmem)
def a_relay_that_is_killed_loses_nothing_silently(a, b):
    """Its connection is reset, or all of it arrives; the next relay takes the next connection."""
    with daemons(a, b, "--relay") as jobs:
        for n, g in enumerate((b, a)):
            with streams(a, b, "relay") as ends:
                jobs[1 - n] = restart(g, jobs[1 - n], "--relay")
                outcome(ends)
        with streams(a, b, "relay") as ends:
            assert outcome(ends) == ["eof", "eof"]


@check(across_ivshmem)
def rings_outlive_a_daemon_that_is_killed(a, b):
    with daemons(a, b) as jobs:
        with streams(a, b, "direct", RUN) as ends:
            for n, g in enumerate((a, b)):
                jobs[n] = restart(g, jobs[n])
                g.within("ismredir -j status | grep -q '\"resumes\": *[1-9]'")
            assert outcome(ends) == ["eof", "eof"]


def stands_still(a, b, plane, starter=""):
    """A transfer while a guest stands still for longer than a lease: a, for b would stop with it (docs/vm.rst)."""
    with streams(a, b, plane, starter) as ends:
        a.pause()
        time.sleep(PAUSE)
        b.within(f"ismredir fabric show {b.fabric} | grep -q ' silent '")
        a.resume()
        for g in (a, b):
            on_plane(g, plane)
        assert outcome(ends) == ["eof", "eof"]


@check(across_ivshmem)
def a_guest_that_stands_still_keeps_its_rings(a, b):
    with daemons(a, b):
        stands_still(a, b, "direct", RUN)


@check(across_ivshmem)
def a_guest_that_stands_still_keeps_its_relay(a, b):
    with daemons(a, b, "--relay"):
        stands_still(a, b, "relay")


@check(across_ivshmem)
def a_guest_that_dies_leaves_the_region_usable(a, b):
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
    a.within(f"ismredir fabric show {a.fabric} | grep -q ' silent '")
    a.ok(f"ismredir fabric fsck --evict $(ismredir fabric show {a.fabric} | sed -n 's/ silent .*//p') {a.fabric}")
    daemon_down(a, daemon)
    # TCP still tries to reach the dead guest, so an end of the connection may be left
    a.ok(f"ismredir fabric fsck --repair {a.fabric}")
    text = a.ok(f"ismredir fabric show {a.fabric}")
    assert "no peers" in text and "nothing is attached" in text, text


@scenario
def across_plain(lab):
    path = lab.memory("cross-plain", SIZE)
    guests = lab.pair("a", "b", **vm.plain(path, SIZE))
    prepare(guests)
    return guests


def both_planes(a, b, requests=1000):
    """Rings, then the relay, in one pair of daemons that can do both."""
    before = [redirected(g) for g in (a, b)]
    with daemons(a, b, "--relay"):
        transfer(a, b, RUN, host=SERVER)
        redis(a, b, RUN, RUN, requests)
        for g in (a, b):
            assert on_rings(g) > 100, g.ok("ismredir status")
        transfer(a, b, host=SERVER)
        redis(a, b, requests=requests)
        for g, n in zip((a, b), before):
            assert redirected(g) > n + 100, g.ok("ismredir status")


@check(across_plain)
def plain_memory_that_is_polled(a, b):
    both_planes(a, b)


@check(across_plain)
def plain_memory_with_bells_by_udp(a, b):
    for n, g in enumerate((a, b), 1):
        g.fabric += f",bell=udp:10.9.0.{n}:7000"
    both_planes(a, b)
    with daemons(a, b):
        text = a.ok(f"ismredir fabric show {a.fabric}")
        assert text.count("udp:") == 2, text
