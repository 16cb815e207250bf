# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Two guests that share a CXL memory device."""

import vm
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
