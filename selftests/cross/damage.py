# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Do to the file of a region what nobody should.

damage.py unlink|truncate|zeros|random FILE

zeros and random overwrite all that is not memory of DMBs: the superblock, and the control areas of all peers.
"""

import os
import struct
import sys

ARENA_OFF = 10 * 8  # in struct ism_region_super


def main():
    how, path = sys.argv[1:]
    if how == "unlink":
        os.unlink(path)
        return
    fd = os.open(path, os.O_RDWR)
    if how == "truncate":
        os.ftruncate(fd, 0)
        return
    (length,) = struct.unpack("<Q", os.pread(fd, 8, ARENA_OFF))
    if not 0 < length < os.fstat(fd).st_size:
        sys.exit(f"{path} is no region: {length}")
    os.pwrite(fd, os.urandom(length) if how == "random" else bytes(length), 0)


main()
