# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""
The unit files under a running systemd, in one guest: host a is the guest as it has been booted, with what
`make install` installs; host b is a container in it, with a network, a load and an ismredird of its own.
"""

import contextlib
import json
import os
import re
import shlex
import time

import vm
from cross import RUN, SERVER, TOLD, daemon_down, daemon_up, on_plane, outcome, status, streams
from run import BUILD, Skip, check, scenario
from tests_bells import wait_for
from tests_kernel import IN, TRANSFER, load

CLIENT = "10.9.0.2"  # on b
UNIT = "ismredird.service"
ETC = "/etc/systemd/system/ismredird.service.d"
EXAMPLE = "/usr/local/share/doc/ismredir/examples/ismredird-relay.conf"
PINS = "/sys/fs/bpf/ismredir"
REGION = "shm:/dev/shm/region"
TURNS = f"{vm.HERE}/turns.py"
TURNS_PORT = 5600
IDLE, STREAMS = 2, 2  # connections
GENTLY = "env ISMREDIR_TEST_PAUSE=0.03"  # so that the guest has time for what is done meanwhile
WATCHDOG = 8  # seconds
GAVE_UP = re.compile(r"relay: (\d+) connections had bytes in it and are reset, (\d+) go on by TCP")
# A system call that the unit does not allow shall not go unnoticed.
STRICT = "[Service]\nSystemCallErrorNumber=kill\n"


class Container(vm.Guest):
    """A host in a guest: its commands have another network, /run, /sys/fs/bpf and root of /sys/fs/cgroup."""

    def __init__(self, guest, name):  # pylint: disable=super-init-not-called
        self.guest, self.lab, self.name = guest, guest.lab, name
        self.fabric, self.ring = None, "256k"
        self.cgroup = f"/sys/fs/cgroup/{name}"
        guest.ok(f"mkdir {self.cgroup}")
        self.leader = guest.start(
            f"echo $$ >{self.cgroup}/cgroup.procs; exec unshare --net --mount --cgroup sh -ec '"
            "umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; "
            "mount -t bpf bpf /sys/fs/bpf; mount -t tmpfs tmpfs /run; ip link set lo up; echo $$; exec sleep infinity'")
        wait_for(self.leader, "\n")
        self.pid = int(self.leader.said())

    def start(self, text, env=None):
        job = self.guest.start(f"echo $$ >{self.cgroup}/cgroup.procs; "
                               f"exec nsenter -t {self.pid} -n -m -C sh -c {shlex.quote(text)}", env)
        job.guest = self
        return job

    def pump(self, timeout):
        self.guest.pump(timeout)

    def send(self, kind, number, data=b""):
        self.guest.send(kind, number, data)


def write(guest, path, text):
    guest.ok(f"mkdir -p $(dirname {path}); printf %s {shlex.quote(text)} >{path}")


BY_SYSTEMD = f"vm.system={BUILD}/vm/system systemd.unit=vm-agent.service"  # argument of a guest's kernel


def needs_systemd(lab):
    """Skip without; what is installed is found first."""
    for path in ("/lib/systemd/systemd", "/usr/bin/systemctl", "/usr/bin/journalctl"):
        if not os.access(path, os.X_OK):
            raise Skip(f"{path} is missing: run `make deps`")
    if not os.path.exists(f"{BUILD}/vm/system/usr/local/sbin/ismredird"):
        raise Skip("this build is not installed to /usr/local")
    lab.env["PATH"] = f"/usr/local/sbin:{lab.env['PATH']}"


@scenario
def under_systemd(lab):
    needs_systemd(lab)
    a = lab.guest("systemd", append=BY_SYSTEMD).boot()
    a.modprobe("veth")
    if lab.modules:  # the kernel has to find tcp_diag by itself, as on a host
        write(a, "/run/modprobe", f"#!/bin/sh\nexec /sbin/modprobe -C /dev/null -d {lab.modules} \"$@\"\n")
        a.ok("chmod 755 /run/modprobe; echo /run/modprobe >/proc/sys/kernel/modprobe")
    b = Container(a, "b")
    a.ok(f"ip link add eth1 type veth peer name eth1 netns {b.pid}; ip addr add {SERVER}/24 dev eth1; "
         "ip link set eth1 up")
    b.ok(f"ip addr add {CLIENT}/24 dev eth1; ip link set eth1 up")
    a.ok(f"truncate -s 256M /dev/shm/region; ismredir fabric format {REGION}")
    a.fabric, b.fabric = (f"{REGION},bell=udp:{address}:7999" for address in (SERVER, CLIENT))
    load(b, "--skip-tests --set mix-bytes=0")
    b.daemon = daemon_up(b, "--relay")
    return a, b


# ---------------------------------------------------------------- the unit

def systemctl(a, text):
    ended, output = a.run(f"systemctl {text}")
    assert ended == 0, output + journal(a)[-3000:]


def show(a, name, unit=UNIT):
    return a.ok(f"systemctl show -P {name} {unit}").strip()


def journal(a, unit=UNIT, options=""):
    return a.ok(f"journalctl --sync; journalctl -q --no-pager -o cat -u {unit} {options}")


def errors(a):
    return journal(a, options="-p err")


def processes(a):
    """Names of what is in the unit's control group."""
    return sorted(a.ok(f"cd /sys/fs/cgroup/system.slice/{UNIT} 2>/dev/null || exit 0; "
                       "for p in $(cat cgroup.procs); do cat /proc/$p/comm; done; :").split())


def soon(value, wanted, timeout=60):
    """Wait until value() is what is wanted."""
    end = time.monotonic() + timeout
    while (got := value()) != wanted:
        assert time.monotonic() < end, (got, wanted)
        time.sleep(0.5)


def at_work(a):
    """The unit's ismredird is what the load knows, and there is one guard."""
    soon(lambda: processes(a), ["ismredir-guard", "ismredird"])
    soon(lambda: (status(a).get("daemon") or {}).get("pid"), int(show(a, "MainPID")))
    soon(lambda: len(status(a)["fabrics"]), 1)


def relayed_by_it(a):
    """The ismredird that runs moves bytes of connections; what it moved until now does not count."""
    before = status(a)["daemon"]["relay"]
    soon(lambda: all(status(a)["daemon"]["relay"][way] > before[way] for way in ("tx_bytes", "rx_bytes")), True)


def killed(a, how):
    """Main process and guard as they are, until there is another main process. Gives what the guard says of its end."""
    before, pid = len(GAVE_UP.findall(journal(a))), show(a, "MainPID")
    systemctl(a, f"kill -s {how} --kill-who=main {UNIT}")
    soon(lambda: show(a, "MainPID") not in ("0", pid), True)
    soon(lambda: len(GAVE_UP.findall(journal(a))), before + 1)
    at_work(a)
    return map(int, GAVE_UP.findall(journal(a))[-1])


@check(under_systemd)
def units_start_within_their_sandboxes(a, _b):
    write(a, "/etc/ismredir.conf", "[load]\ncgroup = /sys/fs/cgroup/app\ncgroup = /sys/fs/cgroup/system.slice\n"
          "mix-bytes = 0\n")
    write(a, "/etc/default/ismredird", f"ISMREDIRD_OPTS=\"--relay --ring-size 256k --fabric {a.fabric}\"\n")
    write(a, f"{ETC}/strict.conf", STRICT)
    a.ok(f"mkdir -p /sys/fs/cgroup/app; install -D -m 644 {EXAMPLE} {ETC}/relay.conf; systemctl daemon-reload")
    systemctl(a, f"start ismredir.service {UNIT}")
    assert a.ok(f"systemctl is-active ismredir.service {UNIT}") == "active\nactive\n"
    at_work(a)
    soon(lambda: "relay: at work" in journal(a), True)
    text = a.ok("ismredir fabrics")
    assert a.fabric in text and text.count(" alive") == 2, text
    assert journal(a, options="-p warning") == "", journal(a)


@check(under_systemd)
def it_waits_for_its_address(a, _b):
    """More often than systemd starts a unit that has no limit of its own."""
    systemctl(a, f"stop {UNIT}")
    a.ok("ip addr flush dev eth1")
    systemctl(a, f"start --no-block {UNIT}")
    soon(lambda: int(show(a, "NRestarts")) > 6, True)
    a.ok(f"ip addr add {SERVER}/24 dev eth1")
    soon(lambda: show(a, "ActiveState"), "active")
    at_work(a)


@check(under_systemd)
def restarts_keep_relayed_connections(a, b):
    before = errors(a)
    with streams(a, b, "relay", GENTLY) as ends:
        for _ in range(3):
            pid = show(a, "MainPID")
            systemctl(a, f"restart {UNIT}")
            assert show(a, "MainPID") != pid
            at_work(a)
            relayed_by_it(a)
        systemctl(a, "reload ismredir.service")
        relayed_by_it(a)
        assert outcome(ends) == ["eof", "eof"]
    assert errors(a) == before


# ---------------------------------------------------------------- it dies

@contextlib.contextmanager
def turns(a, b, n):
    """Connections that are relayed and idle. Gives what makes a round."""
    server = a.start(f"{IN}exec python3 {TURNS} listen {SERVER} {TURNS_PORT} {n}")
    a.within(f"ss -Hltn sport = :{TURNS_PORT} | grep -q .")
    client = b.start(f"{IN}echo $$ >/run/turns; exec python3 {TURNS} connect {SERVER} {TURNS_PORT} {n}")
    rounds = []

    def one():
        if rounds:
            b.ok("kill -s USR1 $(cat /run/turns)")
        rounds.append(1)
        wait_for(client, f"round {len(rounds)}\n")

    try:
        one()
        yield one
    finally:
        client.kill()
        server.kill()


def ends_on(g, plane, port):
    return sum(c["plane"] == plane for c in json.loads(g.ok(f"ismredir -j conns port {port}"))["conns"])


def idle_are_relayed(a, b, one):
    """Speak until all are."""
    def all_are():
        one()
        return [ends_on(g, "relay", TURNS_PORT) for g in (a, b)]

    soon(all_are, [IDLE, IDLE])


@contextlib.contextmanager
def under_load(a, b):
    """Streams, and idle connections, which go on after what has been done: by TCP, then by the relay again."""
    with turns(a, b, IDLE) as one, contextlib.ExitStack() as stack:
        idle_are_relayed(a, b, one)
        ends = [stack.enter_context(streams(a, b, "relay", GENTLY, 5555 + n)) for n in range(STREAMS)]
        yield ends
        idle_are_relayed(a, b, one)


def resets(ends):
    """How many of the streams were reset; of all others every byte has arrived."""
    return sum("reset" in outcome(jobs) for jobs in ends)


@check(under_systemd)
def a_killed_one_resets_what_has_bytes_in_it(a, b):
    with under_load(a, b) as ends:
        lost, kept = killed(a, "KILL")
        assert lost + kept == IDLE + STREAMS, journal(a)
        assert resets(ends) >= lost, journal(a)


@check(under_systemd)
def its_watchdog_is_fed(a, _b):
    write(a, f"{ETC}/watchdog.conf", f"[Service]\nWatchdogSec={WATCHDOG}\n")
    a.ok("systemctl daemon-reload")
    systemctl(a, f"restart {UNIT}")
    pid, until = show(a, "MainPID"), int(show(a, "WatchdogTimestampMonotonic")) + (WATCHDOG + 1) * 1000000
    soon(lambda: int(show(a, "WatchdogTimestampMonotonic")) > until, True)
    assert show(a, "MainPID") == pid, journal(a)


@check(under_systemd)
def one_that_stands_still_is_replaced(a, b):
    """By the watchdog. What programs have sent meanwhile is lost."""
    a.ok(f"rm {ETC}/watchdog.conf; systemctl daemon-reload")  # for the one that comes
    with under_load(a, b) as ends:
        lost, kept = killed(a, "STOP")
        assert lost + kept == IDLE + STREAMS, journal(a)
        assert resets(ends) >= lost > 0, journal(a)


# ---------------------------------------------------------------- it is stopped

def sent_by_tcp(g, port=5555):
    return sum(c["tcp_bytes"] for c in json.loads(g.ok(f"ismredir -j conns port {port}"))["conns"])


@check(under_systemd)
def a_stopped_one_leaves_nothing(a, b):
    with under_load(a, b) as ends:
        systemctl(a, f"stop {UNIT}")
        assert (processes(a), show(a, "Result")) == ([], "success"), journal(a)
        assert "link_relay" not in a.ok(f"ls {PINS}"), a.ok(f"ls {PINS}")
        text = a.ok(f"ismredir fabric show {REGION}")
        assert text.count(" alive ") == 1, text
        for g in (a, b):
            assert ends_on(g, "relay", 5555) == 0, g.ok("ismredir conns")
            before = sent_by_tcp(g)
            soon(lambda g=g, before=before: sent_by_tcp(g) > before, True)
        systemctl(a, f"start {UNIT}")
        at_work(a)
        for g in (a, b):
            on_plane(g, "relay")
        assert resets(ends) == 0


@check(under_systemd)
def its_guard_stays_for_programs_with_rings(a, b):
    """A partner's relay has what they wrote, so what ends them has to be watched."""
    with streams(a, b, ("direct", "relay"), f"{GENTLY} {RUN}", client_by=GENTLY) as ends:
        systemctl(a, f"restart {UNIT}")
        at_work(a)
        soon(lambda: status(a)["daemon"]["resumes"], 1)
        systemctl(a, f"kill -s KILL --kill-who=main {UNIT}")
        soon(lambda: show(a, "NRestarts") != "0", True)
        at_work(a)
        soon(lambda: status(a)["daemon"]["resumes"], 1)
        on_plane(a, "direct")
        systemctl(a, f"stop {UNIT}")
        assert processes(a) == ["ismredir-guard"], journal(a)
        assert outcome(ends) == ["eof", "eof"]
    soon(lambda: processes(a), [])


# ---------------------------------------------------------------- without a relay

def service(a, name, *args):
    """A program of nobody's as a service, by `ismredir run`. These sources may be in /tmp."""
    a.ok(f"systemd-run -q --unit={name} -p User=nobody -p PrivateTmp=yes -p ProtectSystem=strict "
         f"-p BindReadOnlyPaths={vm.SOURCE} "
         f"-E ISMREDIR_AFTER=1,1 {GENTLY} {RUN} /usr/bin/python3 {TRANSFER} {' '.join(args)}")


@check(under_systemd)
def restarts_of_the_plain_unit_keep_rings(a, _b):
    a.ok(f"rm {ETC}/relay.conf /etc/default/ismredird; systemctl daemon-reload; systemctl reset-failed; :")
    systemctl(a, f"start {UNIT}")
    before = errors(a)
    service(a, "server", "listen", "5500", "600", "epoll")
    a.within("ss -Hltn sport = :5500 | grep -q .")
    service(a, "client", "connect", "5500", "600", "poll")
    for _ in range(3):
        soon(lambda: ends_on(a, "direct", 5500), 2)
        systemctl(a, f"restart {UNIT}")
        soon(lambda: (status(a).get("daemon") or {}).get("resumes"), 2)
        moved = status(a)["daemon"]["ring_bytes"]
        soon(lambda moved=moved: status(a)["daemon"]["ring_bytes"] > moved, True)
    assert ends_on(a, "direct", 5500) == 2
    assert processes(a) == ["ismredird"]
    systemctl(a, "kill -s USR1 server client")  # at once: the end of one is the end of the other
    told = []
    for unit in ("server", "client"):
        soon(lambda unit=unit: show(a, "ActiveState", unit), "inactive")
        text = journal(a, unit)
        assert TOLD.search(text), text
        told.append(TOLD.search(text).groups())
    assert told[0][:2] == told[1][1::-1] and told[0][2] == told[1][2] == "eof", told
    assert errors(a) == before


@check(under_systemd)
def what_was_loaded_goes_with_its_unit(a, b):
    systemctl(a, "stop ismredir.service")
    assert "ismredir" not in a.ok("ls /sys/fs/bpf")
    systemctl(a, f"stop {UNIT}")
    assert a.ok("systemctl --failed -q --plain --no-legend") == ""
    assert "ismredir" not in a.ok("ls /run")
    daemon_down(b, b.daemon)
    # memory of programs with rings whose ismredird was stopped first (docs/cross-kernel.rst)
    a.ok(f"ismredir fabric fsck --repair {REGION}")
    text = a.ok(f"ismredir fabric show {REGION}")
    assert "no peers" in text and "no DMBs" in text and "nothing is attached" in text, text
