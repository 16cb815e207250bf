# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Memory and bells of ivshmem, without a region in it: guests, and a process of the host."""

import subprocess
import time

import vm
from run import BUILD, check, scenario

TOOL = f"{BUILD}/vm/devtool"
SIZE = 4 << 20


def device(guest):
    return guest.pci_device(0x1AF4, 0x1110)


def tool(guest, options, *steps):
    """Start devtool on the guest's device."""
    return guest.start(f"exec {TOOL} {device(guest)}{options} {' '.join(map(str, steps))}")


def bound(guest, options, *steps):
    """The same, with interrupts; the first time in a guest this binds the device."""
    guest.modprobe("vfio-pci", "vfio_iommu_type1")
    return tool(guest, options + ",bind=vfio", *steps)


def lines(job):
    status, text = job.wait()
    assert status == 0, text
    return text.splitlines()


def wait_for(job, text):
    end = time.monotonic() + 60
    while text not in job.said():
        assert job.status is None and time.monotonic() < end, job.said()
        job.guest.pump(0.2)


def process(server, *steps):
    """devtool on the host, as one more peer."""
    return subprocess.Popen([TOOL, f"unix:{server}", *map(str, steps)], stdout=subprocess.PIPE,
                            text=True, preexec_fn=vm.die_with_parent)


@scenario
def bells(lab):
    server = lab.ivshmem_server("bells", SIZE)
    a, b = lab.pair("a", "b", **vm.doorbell(server))
    return a, b, server


@check(bells)
def without_a_driver_it_polls(a, *_):
    assert lines(tool(a, "", "info"))[0].endswith(f"{SIZE} bytes, no bell, rings, coherent")


@check(bells)
def it_says_how_to_get_interrupts(a, *_):
    status, text = tool(a, ",irq=vfio", "info").wait()
    assert status == 1 and "driver_override" in text and device(a) in text, text


@check(bells)
def guests_see_each_other(a, b, _):
    lines(tool(a, "", "put", 4096, "from-a"))
    assert lines(tool(b, "", "get", 4096, "put", 8192, "from-b")) == ["from-a"]
    assert lines(tool(a, "", "get", 8192)) == ["from-b"]


@check(bells)
def guests_ring_each_other(a, b, _):
    first = bound(a, "", "info", "wait", 60000, "ring", 1)
    wait_for(first, ", bell")
    second = bound(b, "", "info", "ring", 0, "wait", 60000)
    assert lines(first) == [f"peer 0, {SIZE} bytes, bell, rings, coherent", "rung"]
    assert lines(second) == [f"peer 1, {SIZE} bytes, bell, rings, coherent", "rung"]


@check(bells)
def a_process_of_the_host_is_a_peer(a, _, server):
    guest = bound(a, "", "info", "wait", 60000, "get", 4096, "put", 8192, "from-guest", "ring", 2)
    wait_for(guest, ", bell")
    with process(server, "info", "put", 4096, "from-host", "ring", 0, "wait", 60000, "get", 8192,
                 "gone", 0, "gone", 1, "gone", 7) as host:
        text = host.communicate(timeout=90)[0].splitlines()
    assert text == [f"peer 2, {SIZE} bytes, bell, rings, coherent", "rung", "from-guest", "gone 0",
                    "gone 0", "gone 1"], text
    assert lines(guest)[1:] == ["rung", "from-host"]


@check(bells)
def another_layout(a, b, _):
    """Memory at an offset, the bell described by options, the number given."""
    lines(tool(a, "", "put", 0x100000, "at-an-offset"))
    layout = ",preset=soc,mem=2:0x100000,doorbell=0:12:0,bell-value=0,bell-shift=16"
    first = bound(a, layout, "info", "get", 0, "wait", 60000)
    wait_for(first, ", bell")
    lines(bound(b, layout, "ring", 0))
    assert lines(first) == [f"peer -1, {SIZE - 0x100000} bytes, bell, rings, not coherent",
                            "at-an-offset", "rung"]


@check(bells)
def interrupts_are_not_needed(a, *_):
    assert "no bell" in lines(tool(a, ",irq=none", "info"))[0]


@check(bells)
def who_dies_is_gone(_, b, server):
    with process(server, "gone", 1, "sleep", 3000, "wait", 1, "gone", 1) as host:
        assert host.stdout.readline() == "gone 0\n"
        b.kill()
        text = host.communicate(timeout=60)[0].splitlines()
    # that somebody leaves makes the descriptor ready, too; it is no bell and does no harm
    assert text[-1] == "gone 1", text


@scenario
def plain_memory(lab):
    path = lab.memory("plain", SIZE)
    a, b = lab.pair("a", "b", **vm.plain(path, SIZE))
    return a, b


@check(plain_memory)
def it_has_neither_bell_nor_number(a, _):
    assert lines(tool(a, "", "info"))[0].startswith("peer -1, ")


@check(plain_memory)
def what_one_writes_the_other_reads(a, b):
    reader = tool(b, "", "look", 60000)
    lines(tool(a, "", "put", 0, "hello"))
    assert lines(reader) == ["hello"]
