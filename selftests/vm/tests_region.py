# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Regions in memory that guests and the host share."""

import subprocess

import vm
from cross import bind
from run import BUILD, check, scenario
from tests_bells import device

PAIR = f"{BUILD}/vm/fabpair"
SIZE = 256 << 20
ROUNDS = 300


def ends(spec_first, spec_second):
    """Command lines of both ends of fabpair."""
    return (f"{PAIR} {spec_first} 0x1111 0x2222 {ROUNDS} first",
            f"{PAIR} {spec_second} 0x2222 0x1111 {ROUNDS} second")


def both(guests, specs):
    """Two guests hand messages to and fro."""
    jobs = [g.start(text) for g, text in zip(guests, ends(*specs))]
    try:
        for job in jobs:
            assert job.wait() == (0, f"exact {ROUNDS} rounds\n"), job.output.decode()
    finally:
        for job in jobs:
            job.kill()


def with_host(guest, spec, server):
    """A guest and a process of the host do."""
    inside, outside = ends(spec, f"ivshmem:unix:{server}")
    job = guest.start(inside)
    with subprocess.Popen(outside.split(), stdout=subprocess.PIPE, text=True,
                          preexec_fn=vm.die_with_parent) as host:
        assert job.wait() == (0, f"exact {ROUNDS} rounds\n"), job.output.decode()
        assert host.communicate(timeout=60)[0] == f"exact {ROUNDS} rounds\n"


@scenario
def region_by_interrupts(lab):
    server = lab.ivshmem_server("region", SIZE)
    guests = lab.pair("a", "b", **vm.doorbell(server))
    specs = [f"ivshmem:{device(g)}" for g in guests]
    for g, s in zip(guests, specs):
        g.modprobe("vfio-pci", "vfio_iommu_type1")
    guests[0].ok(f"ismredir fabric format {specs[0]}")
    return guests, [s + ",bind=vfio" for s in specs], server


@check(region_by_interrupts)
def what_one_formats_the_other_shows(guests, specs, _):
    made = guests[0].ok(f"ismredir fabric format {specs[0]} --force --peers 5")
    shown = guests[1].ok(f"ismredir fabric show {specs[1]}")
    assert made.split()[1] == shown.split()[1].rstrip(",") and "5 peers" in shown, made + shown


@check(region_by_interrupts)
def two_guests_by_interrupts(guests, specs, _):
    both(guests, specs)


@check(region_by_interrupts)
def two_guests_by_polling(guests, specs, _):
    both(guests, [s.replace("bind=vfio", "irq=none") for s in specs])


@check(region_by_interrupts)
def one_rings_the_other_polls(guests, specs, _):
    both(guests, [specs[0], specs[1].replace("bind=vfio", "irq=none")])


@check(region_by_interrupts)
def a_guest_and_the_host(guests, specs, server):
    with_host(guests[0], specs[0], server)


@check(region_by_interrupts)
def nothing_is_left_of_them(guests, specs, _):
    guests[0].ok(f"ismredir fabric fsck {specs[0]}")
    text = guests[0].ok(f"ismredir fabric show {specs[0]}")
    assert "no peers" in text and "no DMBs" in text and "nothing is attached" in text, text


@scenario
def region_of_one_guest(lab):
    """Four devices of the same memory in one guest, for a suite that is one process."""
    server = lab.ivshmem_server("suite", SIZE)
    args = vm.doorbell(server)
    args["devices"] = []
    for n in range(4):
        args["devices"] += ["-chardev", f"socket,id=ivshmem{n},path={server}", "-device",
                            f"ivshmem-doorbell,chardev=ivshmem{n},vectors=1"]
    return (lab.guest("suite", **args).boot(),)


@check(region_of_one_guest)
def contract_by_interrupts(guest):
    """The suite of the fabric interface, over devices that interrupt."""
    devices = device(guest).split()
    assert len(devices) == 4
    bind(guest)
    text = guest.ok(f"cd /tmp; ISM_CONTRACT_DEVICES='{' '.join(devices)}' {BUILD}/fabric/contract "
                    "-j1 --filter 'contract/!(every_provider*)' 2>&1", timeout=300)
    assert "Failing: 0 | Crashing: 0" in text and "Tested: 0" not in text, text


@scenario
def region_by_polling(lab):
    path = lab.memory("plain", SIZE)
    guests = lab.pair("a", "b", **vm.plain(path, SIZE))
    return guests, [f"ivshmem:{device(g)}" for g in guests]


@check(region_by_polling)
def two_guests_without_bells(guests, specs):
    guests[1].ok(f"ismredir fabric format {specs[1]}")
    both(guests, specs)
