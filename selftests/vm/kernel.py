# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The kernel of the test guests: Debian's, unpacked and not installed, and an initramfs for it.

VM_KERNEL=PATH names another one, which must have everything built in that the tests need.
"""

import os
import re
import shutil
import stat
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
SERIES = os.environ.get("VM_SERIES", "6.12")  # another one: 6.1.0, the oldest of bookworm
MODULES = ("virtio_pci", "virtio_net", "virtio_console", "9pnet_virtio", "9p")
BUSYBOX = "/bin/busybox"


def newest_package():
    """Name of Debian's generic kernel of SERIES, unsigned: signed ones need another package's files."""
    wanted = re.compile(r"linux-image-" + re.escape(SERIES) + r"[.-](\d+)\S*-amd64-unsigned$")
    for update in (False, True):
        if update:
            subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        names = subprocess.run(["apt-cache", "pkgnames", "linux-image-" + SERIES], check=True,
                               capture_output=True, text=True).stdout.split()
        found = [(int(wanted.match(n).group(1)), n) for n in names
                 if wanted.match(n) and "-cloud-" not in n and "-rt-" not in n]
        if found:
            return max(found)[1]
    raise RuntimeError(f"apt knows no kernel {SERIES}")


def fetch(cache):
    """Unpack the kernel below @cache, once. Returns (kernel image, module root, version)."""
    if not os.path.exists(cache + "/ready"):
        shutil.rmtree(cache, ignore_errors=True)
        os.makedirs(cache + "/root")
        subprocess.run(["apt-get", "download", "-qq", newest_package()], cwd=cache, check=True,
                       stderr=subprocess.DEVNULL)
        deb = next(n for n in os.listdir(cache) if n.endswith(".deb"))
        subprocess.run(["dpkg", "-x", deb, "root"], cwd=cache, check=True)
        os.unlink(f"{cache}/{deb}")
        version = os.listdir(cache + "/root/lib/modules")[0]
        subprocess.run(["/sbin/depmod", "-b", cache + "/root", version], check=True)
        with open(cache + "/ready", "w", encoding="ascii"):
            pass
    version = os.listdir(cache + "/root/lib/modules")[0]
    return f"{cache}/root/boot/vmlinuz-{version}", cache + "/root", version


def module_files(root, version):
    """Paths of MODULES and of what they need, in the order in which they are loaded."""
    paths = []
    for name in MODULES:
        text = subprocess.run(["/sbin/modprobe", "-d", root, "-S", version, "--show-depends",
                               "--ignore-install", name], check=True, capture_output=True,
                              text=True).stdout
        paths += [line.split()[1] for line in text.splitlines() if line.startswith("insmod ")]
    return list(dict.fromkeys(paths))


def read_module(path):
    if path.endswith(".xz"):
        return subprocess.run(["xz", "-dc", path], check=True, capture_output=True).stdout
    with open(path, "rb") as f:
        return f.read()


class Archive:
    """A cpio archive ("newc"), written here because device nodes then need no root."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self.inode += 1
        raw = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(raw), 0)
        for part in (b"070701" + b"".join(b"%08x" % f for f in fields) + raw, data):
            self.data += part + bytes(-len(part) % 4)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def initramfs(modules=()):
    """The bytes of an initramfs that goes over to the host's files. @modules: their paths."""
    a = Archive()
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        a.add(name, stat.S_IFDIR | 0o755)
    a.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    with open(BUSYBOX, "rb") as f:
        a.add("bin/busybox", stat.S_IFREG | 0o755, f.read())
    with open(HERE + "/guest-init", "rb") as f:
        a.add("init", stat.S_IFREG | 0o755, f.read())
    order = []
    for path in modules:
        name = os.path.basename(path).removesuffix(".xz")
        a.add("modules/" + name, stat.S_IFREG | 0o644, read_module(path))
        order.append(name + "\n")
    a.add("modules/order", stat.S_IFREG | 0o644, "".join(order).encode())
    return a.finish()


def prepare(work):
    """Kernel and initramfs below the directory @work. Returns (kernel, initramfs, module root)."""
    kernel = os.environ.get("VM_KERNEL")
    if kernel:
        root, modules, path = None, (), f"{work}/initramfs-{os.getpid()}"
    else:
        kernel, root, version = fetch(f"{work}/kernel-{SERIES}")
        modules, path = module_files(root, version), f"{work}/initramfs-{os.getpid()}"
    with open(path, "wb") as f:
        f.write(initramfs(modules))
    return kernel, path, root
