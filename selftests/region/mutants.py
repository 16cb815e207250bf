#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Leaves one fence, look or step out of the core of regions at a time: `crash` must find each of them.

Run as `mutants.py BUILD [NAME...]`, by `make mutants-region`; minutes.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

# name: file, what is there, what takes its place
MUTANTS = {
    "memory in use is free at once": (
        "region_dmb.c",
        "	if (!is_named(r, o->off, o->base.len))\n",
        "	if (1)\n"),
    "an entry is valid first, complete later": (
        "region_dmb.c",
        "	region_store(&r->mem, &d->peer_gen, ISM_PEER_GEN(r->state));\n",
        "	region_store(&r->mem, &d->peer_gen, ISM_PEER_GEN(r->state));\n"
        "	region_set(r, &d->state, ISM_ENTRY_NEXT(region_load(&d->state)));\n"),
    "no fence before an entry is valid": (
        "region_dmb.c",
        "	region_publish(&r->mem, d, sizeof(*d));\n	if (o->base.index",
        "	if (o->base.index"),
    "no second look when attaching": (
        "region_attach.c",
        "	if (!is_current(r, a)) {\n		drop_att",
        "	if (0) {\n		drop_att"),
    "no look at attach tables at the start": (
        "region_dmb.c",
        "	if (!rc && for_each_named(r, region_arena(",
        "	if (0 && for_each_named(r, region_arena("),
    "no fence before an attachment is valid": (
        "region_attach.c",
        "	region_publish(&r->mem, at, sizeof(*at));\n	if (index",
        "	if (index"),
    "the tables are looked at before the entry is invalid": (
        "region_dmb.c",
        "	__u64 index = o->base.index;\n\n	if (!region_check_self(r)) {",
        "	__u64 index = o->base.index;\n	int is_used = is_named(r, o->off, o->base.len);\n\n"
        "	if (!region_check_self(r)) {",
        "	if (!is_named(r, o->off, o->base.len))\n",
        "	if (!is_used)\n"),
    "no fence after memory was emptied": (
        "region_dmb.c",
        "	region_publish(&r->mem, o->base.addr, len);\n",
        ""),
    "a DMB gets its first contents when it is valid": (
        "region_dmb.c",
        "	if (p->init_len)\n",
        "	if (0)\n",
        "	publish(r, o, p);\n",
        "	publish(r, o, p);\n"
        "	if (p->init_len)\n"
        "		region_copy(&r->mem, o->base.addr, p->init, p->init_len);\n"),
    "a DMB's first contents are not written back": (
        "region_dmb.c",
        "	if (p->init_len)\n",
        "	region_publish(&r->mem, o->base.addr, len);\n	if (p->init_len)\n",
        "p->init_len);\n	region_publish(&r->mem, o->base.addr, len);\n",
        "p->init_len);\n"),
    "another boot has the same generation": (
        "region_peer.c",
        "__u64 gen = ISM_PEER_GEN(was) + 1,",
        "__u64 gen = ISM_PEER_GEN(was) + !ISM_PEER_GEN(was),"),
    "orphans stay": (
        "region_dmb.c",
        "		if (r->own[i] && r->own[i]->is_orphan) {",
        "		if (0) {"),
    "what is not there any more stays attached": (
        "region_attach.c",
        "		if (a->is_orphan ? with_orphans &&",
        "		if (1 ? 0 &&"),
    "quarantine never ends": (
        "region_dmb.c",
        "		if (named[i]) {",
        "		if (1) {"),
    "nobody is told how many entries there are": (
        "region_dmb.c",
        "		region_set(r, &self->dmb_high, r->own_high);\n",
        ""),
}


def build(src, out, library):
    tests = ["selftests/region/crash.c", "selftests/region/box.c", "user/lib/err.c"]
    subprocess.run(
        ["cc", "-O1", "-w", "-std=gnu11", "-DREGION_TEST", "-Iinclude", "-Iuser/lib", "-I" + src,
         "-Iselftests/region", "-o", out, *tests, *glob.glob(src + "/*.c"), library, "-lpthread"],
        check=True)


def try_one(name, mutant, tmp, library):
    src, out = os.path.join(tmp, "src"), os.path.join(tmp, "crash")
    shutil.rmtree(src, ignore_errors=True)
    shutil.copytree("user/fabric", src)
    path = os.path.join(src, mutant[0])
    with open(path, encoding="utf-8") as f:
        text = f.read()
    for before, after in zip(mutant[1::2], mutant[2::2]):
        if text.count(before) != 1:
            print(f"not ok - {name}: the place was not found in {mutant[0]}")
            return False
        text = text.replace(before, after)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    build(src, out, library)
    try:
        run = subprocess.run([out, "40"], capture_output=True, text=True, timeout=600, check=False)
        found = run.returncode != 0
        why = next((x for x in run.stdout.splitlines() if x.startswith("not ok")), "a crash")
    except subprocess.TimeoutExpired:
        found, why = True, "it does not end"
    print(f"{'ok' if found else 'not ok'} - {name}: {why[9:100] if found else 'not found'}", flush=True)
    return found


def main():
    library = os.path.join(sys.argv[1], "libismfabric.a")
    names = sys.argv[2:] or list(MUTANTS)
    with tempfile.TemporaryDirectory() as tmp:
        good = sum(try_one(name, MUTANTS[name], tmp, library) for name in names)
    print(f"{good} passed, {len(names) - good} failed")
    return good != len(names)


if __name__ == "__main__":
    sys.exit(main())
