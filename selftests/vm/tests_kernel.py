# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""One guest: what this build does with a kernel that is not this machine's."""

import os
import time

import vm
from run import check, scenario

CGROUP = "/sys/fs/cgroup/app"
IN = f"echo $$ >{CGROUP}/cgroup.procs; "
TRANSFER = f"{vm.SOURCE}/selftests/rings/transfer.py"


def load(guest, *options):
    guest.ok(f"mkdir -p {CGROUP}; ismredir load --cgroup {CGROUP} {' '.join(options)}")


def unload(guest):
    guest.ok("ismredir unload")


def start_transfer(a, b, starter="", seconds=2, port=5555, host="127.0.0.1", client_by=None):
    """
    A verified stream each way between a server on @a and a client on @b, in the loaded cgroups. Gives the
    two jobs. end_transfer() ends it before its time. @client_by: where the client's starter is another
    """
    def to(starter):
        return (f"export ISMREDIR_TEST_HOST={host} ISMREDIR_AFTER=1,1; echo $$ >/run/transfer-{port}; "
                f"{IN}exec {starter} python3 {TRANSFER}")

    server = a.start(f"{to(starter)} listen {port} {seconds} epoll")
    try:
        a.within(f"ss -Hltn sport = :{port} | grep -q .")
    except vm.GuestError as e:
        raise AssertionError(server.said()) from e
    return server, b.start(f"{to(starter if client_by is None else client_by)} connect {port} {seconds} poll")


def end_transfer(*guests):
    """Their ends of all transfers send no more. In one guest it is one end only."""
    for g in guests:
        g.run("for f in /run/transfer-*; do kill -s USR1 $(cat $f); done")  # it may have seen a reset


def transfer(*args, **how):
    """The same, to its end."""
    for job in start_transfer(*args, **how):
        status, text = job.wait()
        assert status == 0 and "exact" in text, text


def counted(guest, pattern):
    text = guest.ok("ismredir status")
    assert guest.run(f"ismredir status | grep -Eq '{pattern}'")[0] == 0, text


@scenario
def one_guest(lab):
    return (lab.guest("one").boot(),)


@check(one_guest)
def its_kernel_is_another(guest):
    assert guest.ok("uname -r").strip() != os.uname().release


@check(one_guest)
def the_self_tests_pass(guest):
    """But those that no kernel passes, or no such old one; see `ismredir check`."""
    text = guest.ok("ismredir check")
    failed = [line.split()[0] for line in text.splitlines() if line.split()[1:2] == ["fail"]]
    release = [int(n) for n in guest.ok("uname -r").split(".")[:2]]
    old = {"link", "fionread_redirected"} if release < [6, 10] else set()
    assert set(failed) <= {"reset", "splice"} | old, text
    assert "plane skmsg: refused" not in text, text


@check(one_guest)
def messages_are_redirected(guest):
    load(guest)
    transfer(guest, guest)
    counted(guest, "bytes: [0-9.]+[KMG]? redirected in [1-9]")
    unload(guest)


@check(one_guest)
def rings_between_two_programs(guest):
    load(guest)
    guest.ok("mkdir -p /run/ismredir")
    daemon = guest.start("exec ismredird")
    guest.within("test -S /run/ismredir/control.sock")
    transfer(guest, guest, "ismredir run --")
    counted(guest, "rings: [0-9.]+[KMG]? in [1-9]")
    unload(guest)
    guest.ok("kill $(ss -Hlxp src /run/ismredir/control.sock | sed 's/.*pid=//; s/,.*//')")
    daemon.wait()


@check(one_guest)
def a_paused_guest_goes_on(guest):
    job = guest.start("sleep 0.2; echo awake")
    guest.pause()
    time.sleep(1)
    assert job.said() == ""
    guest.resume()
    assert job.wait() == (0, "awake\n")
