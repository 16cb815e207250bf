# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Two guests that share a CXL memory device."""

import vm
from cross import RUN, daemons, on_rings, outcome, prepare, redirected, redis, streams
from run import check, scenario

SIZE = 256 << 20
MAP = "import mmap, os; m = mmap.mmap(os.open('/dev/dax0.0', os.O_RDWR), 2 << 20); "


def python(guest, text):
    return guest.ok(f'python3 -c "{MAP}{text}"')


@scenario
def cxl_pair(lab):
    memory = lab.memory("pool", SIZE)
    guests = lab.pair("a", "b", each=[vm.cxl(memory, SIZE, lab.memory(f"labels-{n}", 1 << 20))
                                      for n in "ab"])
    for g in guests:
        g.cxl_dax()
    return guests


@check(cxl_pair)
def what_one_stores_the_other_loads(a, b):
    python(a, "m[4096:4109] = b'stored-by-a\\0\\0'")
    assert python(b, "print(m[4096:4107])") == "b'stored-by-a'\n"
    python(b, "m[8192:8203] = b'stored-by-b'")
    assert python(a, "print(m[8192:8203])") == "b'stored-by-b'\n"


@scenario
def across_cxl(lab):
    """A region in CXL memory. All of it is emulated access by access, so everything is small."""
    memory = lab.memory("cxl", SIZE)
    guests = lab.pair("a", "b", each=[vm.cxl(memory, SIZE, lab.memory(f"cxl-{n}", 1 << 20)) for n in "ab"])
    for g in guests:
        g.cxl_dax()
        g.ring = "64k"
    prepare(guests, "--peers 2 --dmbs 32 --unit 2M",
            specs=[f"cxl:/dev/dax0.0,peer={n}" for n in range(2)])
    return guests


@check(across_cxl)
def relay_over_cxl(a, b):
    before = [redirected(g) for g in (a, b)]
    with daemons(a, b, "--relay"):
        # programs cannot flush caches, so they get no rings, and the relay has them
        with streams(a, b, "relay", RUN) as ends:
            assert outcome(ends) == ["eof", "eof"]
        redis(a, b, requests=100)
        for g, n in zip((a, b), before):
            assert on_rings(g) == 0 and redirected(g) > n + 100, g.ok("ismredir status")


@check(across_cxl)
def rings_over_coherent_cxl(a, b):
    for g in (a, b):
        g.fabric += ",coherent=yes"
    with daemons(a, b):
        with streams(a, b, "direct", RUN) as ends:
            assert outcome(ends) == ["eof", "eof"]
        redis(a, b, RUN, RUN, requests=100)
        for g in (a, b):
            assert on_rings(g) > 100, g.ok("ismredir status")
