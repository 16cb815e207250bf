# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The unit with what its drop-in has in comments: devices that reach other guests."""

import vm
from cross import bind, daemon_down, daemon_up, outcome, prepare, streams
from run import check, scenario
from tests_systemd import (BY_SYSTEMD, ETC, EXAMPLE, GENTLY, STRICT, UNIT, at_work, errors, journal, needs_systemd,
                           relayed_by_it, soon, systemctl, write)

SIZE = 256 << 20  # CXL memory comes in pieces of that


def start_unit(a, part, fabric):
    """The drop-in with one of its parts in comments switched on; a forbidden system call kills."""
    a.ok(f"install -D -m 644 {EXAMPLE} {ETC}/relay.conf; "
         f"sed -i '/^# For {part}/,/^$/s/^#\\([A-Z]\\)/\\1/' {ETC}/relay.conf")
    assert a.ok(f"grep -c '^DeviceAllow=' {ETC}/relay.conf").strip() != "0"
    write(a, f"{ETC}/strict.conf", STRICT)
    write(a, "/etc/default/ismredird", f"ISMREDIRD_OPTS=\"--relay --ring-size {a.ring} --fabric {fabric}\"\n")
    a.ok("systemctl daemon-reload")
    systemctl(a, f"start {UNIT}")
    at_work(a)
    soon(lambda: "relay: at work" in journal(a), True)
    assert journal(a, options="-p warning") == "", journal(a)


# ---------------------------------------------------------------- ivshmem

@scenario
def ivshmem_under_systemd(lab):
    """Guest a is under systemd, guest b is not."""
    needs_systemd(lab)
    device = vm.doorbell(lab.ivshmem_server("units", SIZE))
    systemd = dict(device, append=f"{device['append']} {BY_SYSTEMD}")
    a, b = lab.pair("a", "b", each=(systemd, device))
    for g in (a, b):
        bind(g)
    prepare((a, b))
    b.daemon = daemon_up(b, "--relay")
    return a, b


@check(ivshmem_under_systemd)
def unit_with_interrupts(a, b):
    start_unit(a, "ivshmem", f"{a.fabric},irq=vfio")
    text = a.ok("ismredir fabrics")
    assert text.count(" alive") == 2 and "bell" in text, text
    before = errors(a)
    with streams(a, b, "relay", GENTLY) as ends:
        systemctl(a, f"restart {UNIT}")
        at_work(a)
        relayed_by_it(a)
        assert outcome(ends) == ["eof", "eof"]
    systemctl(a, f"stop {UNIT}")
    assert errors(a) == before
    daemon_down(b, b.daemon)


# ---------------------------------------------------------------- CXL memory

@scenario
def cxl_under_systemd(lab):
    needs_systemd(lab)
    device = vm.cxl(lab.memory("units", SIZE), SIZE, lab.memory("units-labels", 1 << 20))
    a = lab.guest("a", **dict(device, append=f"{device['append']} {BY_SYSTEMD}")).boot()
    a.cxl_dax()
    a.ring = "64k"
    prepare((a,), "--peers 2 --dmbs 8 --unit 2M", specs=["cxl:/dev/dax0.0,peer=0"])
    return (a,)


@check(cxl_under_systemd)
def unit_with_cxl_memory(a):
    start_unit(a, "cxl:", a.fabric)
    text = a.ok("ismredir fabrics")
    assert "cxl:/dev/dax0.0" in text and text.count(" alive") == 1, text
    systemctl(a, f"stop {UNIT}")
