# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The rows of the bench that unmodified applications measure, as they are packaged."""

import csv
import glob
import io
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time

from rows import SOCKETS, Row
from stage import BenchError, LeftOut

APP_PLANES = ("tcp", "skmsg", "direct")
SCALE = 8  # of pgbench
PING_MPS = 2000000  # sockperf ends with an error beyond the rate that it was made ready for


def answers(address, request, start):
    """Whether a server answers @request with @start; with an empty request, whether it listens."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(2)
        try:
            sock.connect(address)
            if not request:
                return True
            sock.sendall(request)
            return sock.recv(64).startswith(start)
        except OSError:
            return False


def serve(stage, plane, command, address, request=b"", start=b""):
    """Start a server and wait until it answers."""
    server = stage.start(plane, stage.under(plane, command), stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    for _ in range(500):
        if answers(address, request, start):
            return server
        if server.poll() is not None:
            break
        time.sleep(0.02)
    stage.stop(server)
    raise BenchError(f"{command[0]} does not answer")


def client(stage, plane, command, timeout=60):
    """Run a load generator and return what it printed."""
    return stage.output(plane, stage.under(plane, command), timeout)


def find(pattern, text, scale=1.0):
    """One number out of what a program printed."""
    found = re.search(pattern, text)
    if not found:
        raise BenchError(f"no \"{pattern}\" in: {text.strip()[-300:]}")
    return float(found.group(1)) * scale


def wrk_us(percent, text):
    """A percentile of wrk."""
    found = re.search(percent + r"%\s+([\d.]+)(us|ms|s|m)\b", text)
    if not found:
        raise BenchError(f"wrk says no {percent}%: {text.strip()[-300:]}")
    return float(found.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[found.group(2)]


# redis

def redis_run(stage, plane, test, conns, requests):
    """A fresh server, a value in it, then the measured run."""
    port = stage.port()
    path = f"{stage.folder}/{port}"
    where = ["-s", path] if plane == "unix" else ["-h", "127.0.0.1", "-p", str(port)]
    listen = ["--port", "0", "--unixsocket", path] if plane == "unix" else ["--port", str(port)]
    bench = ["redis-benchmark", *where, "-d", "1024", "--csv"]
    command = ["redis-server", *listen, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
               "--logfile", "/dev/null", "--dir", stage.folder]
    server = serve(stage, plane, command, path if plane == "unix" else ("127.0.0.1", port),
                   b"PING\r\n", b"+PONG")
    try:
        client(stage, plane, bench + ["-t", "set", "-c", "1", "-n", "10"])
        out = client(stage, plane, bench + ["-t", test, "-c", str(conns), "-n", str(requests)])
    finally:
        stage.stop(server)
    line = list(csv.DictReader(io.StringIO(out)))[0]
    return {"per_sec": float(line["rps"]), "p50_us": float(line["p50_latency_ms"]) * 1000,
            "p99_us": float(line["p99_latency_ms"]) * 1000}


def redis_rows(effort):
    """redis-benchmark -d 1024, one connection and many."""
    return [Row(f"redis/c{conns}/{test}", "redis", f"-c {conns}, {test.upper()}", "per_sec", False,
                SOCKETS,
                lambda stage, plane, test=test, conns=conns, n=requests:
                redis_run(stage, plane, test, conns, n),
                ("redis-server", "redis-benchmark"))
            for conns, requests in ((1, effort.requests // 3), (200, effort.requests))
            for test in ("get", "set")]


# sockperf

def sockperf_run(stage, plane, args, seconds):
    """Its own server and client."""
    port = stage.port()
    where = ["--tcp", "-i", "127.0.0.1", "-p", str(port)]
    server = serve(stage, plane, ["sockperf", "server", *where], ("127.0.0.1", port))
    try:
        return client(stage, plane, ["sockperf", *args, *where, "-t", str(seconds)],
                      seconds + 20)
    finally:
        stage.stop(server)


def sockperf_ping(stage, plane, size, seconds):
    """Round trips, blocking, one message at a time."""
    out = sockperf_run(stage, plane, ["ping-pong", "--full-rtt", "--mps",
                                      str(PING_MPS), "-m", str(size)], seconds)
    return {"p50_us": find(r"percentile 50\.000\s*=\s*([\d.]+)", out),
            "p99_us": find(r"percentile 99\.000\s*=\s*([\d.]+)", out),
            "p999_us": find(r"percentile 99\.900\s*=\s*([\d.]+)", out)}


def sockperf_rate(stage, plane, size, seconds):
    """Messages as fast as they go."""
    out = sockperf_run(stage, plane, ["throughput", "-m", str(size)], seconds)
    return {"per_sec": find(r"Message Rate is ([\d.]+)", out)}


def sockperf_rows(effort):
    """sockperf ping-pong and throughput over TCP."""
    rows = [Row(f"sockperf/ping-pong/{size}", "sockperf/ping-pong", f"-m {size}", "p50_us", True,
                APP_PLANES, lambda stage, plane, size=size:
                sockperf_ping(stage, plane, size, effort.app_s), ("sockperf",))
            for size in (64, 1024)]
    return rows + [Row(f"sockperf/throughput/{size}", "sockperf/throughput", f"-m {size}",
                       "per_sec", False, APP_PLANES, lambda stage, plane, size=size:
                       sockperf_rate(stage, plane, size, effort.app_s), ("sockperf",))
                   for size in (64, 1024)]


# nginx

NGINX = """
daemon off; worker_processes 1; user root; pid {folder}/nginx-{port}.pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    client_body_temp_path {folder}/nginx-tmp; proxy_temp_path {folder}/nginx-tmp;
    fastcgi_temp_path {folder}/nginx-tmp; uwsgi_temp_path {folder}/nginx-tmp;
    scgi_temp_path {folder}/nginx-tmp;
    server {{ listen 127.0.0.1:{port}; root {folder}/www; }}
}}
"""


def nginx_files(stage):
    """What it serves."""
    folder = os.path.join(stage.folder, "www")
    os.mkdir(folder)
    for name, size in (("small", 600), ("large", 65536)):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(b"x" * size)
    return folder


def nginx_run(stage, plane, name, conns, seconds):
    """One worker, and wrk with one thread."""
    if plane == "skmsg" and stage.fails("fionread_tcp"):
        raise LeftOut("nginx and wrk ask FIONREAD, which this kernel answers wrongly there")
    stage.once("www", lambda: nginx_files(stage))
    port = stage.port()
    config = os.path.join(stage.folder, f"nginx-{port}.conf")
    with open(config, "w", encoding="utf-8") as out:
        out.write(NGINX.format(folder=stage.folder, port=port))
    server = serve(stage, plane, ["nginx", "-e", "stderr", "-c", config], ("127.0.0.1", port))
    try:
        out = client(stage, plane, ["wrk", "-t", "1", "-c", str(conns), "-d", f"{seconds}s",
                                    "--latency", f"http://127.0.0.1:{port}/{name}"], seconds + 20)
    finally:
        stage.stop(server, signal.SIGTERM)
    if "Socket errors" in out or "Non-2xx" in out:
        raise BenchError(f"wrk: {out.strip()[-200:]}")
    return {"per_sec": find(r"Requests/sec:\s*([\d.]+)", out),
            "p50_us": wrk_us("50", out), "p99_us": wrk_us("99", out)}


def nginx_rows(effort):
    """Static files over keepalive connections."""
    return [Row(f"nginx/{name}/c{conns}", "nginx", f"{words}, -c {conns}", "per_sec", False,
                APP_PLANES, lambda stage, plane, name=name, conns=conns:
                nginx_run(stage, plane, name, conns, effort.app_s), ("nginx", "wrk"))
            for name, words in (("small", "600 B"), ("large", "64 KiB")) for conns in (1, 50)]


# memcached

def memcached_run(stage, plane, conns, seconds):
    """memcaslap's default mix: 9 gets for each set, values of 1 KiB."""
    port = stage.port()
    command = ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m",
               "256", "-t", "1"]
    server = serve(stage, plane, command, ("127.0.0.1", port), b"version\r\n", b"VERSION")
    try:
        out = client(stage, plane, ["memcaslap", "-s", f"127.0.0.1:{port}", "-T", "1", "-c",
                                    str(conns), "-t", f"{seconds}s"], seconds + 30)
    finally:
        stage.stop(server)
    return {"per_sec": find(r"TPS: (\d+)", out)}


def memcached_rows(effort):
    """memcached with one thread."""
    return [Row(f"memcached/c{conns}", "memcached", f"-c {conns}", "per_sec", False, APP_PLANES,
                lambda stage, plane, conns=conns:
                memcached_run(stage, plane, conns, effort.app_s), ("memcached", "memcaslap"))
            for conns in (1, 16)]


# PostgreSQL

def postgres_path():
    """Debian keeps the server off the PATH. Return: its folder, or "" when it is on the PATH."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
    return os.path.dirname(found[-1]) + "/" if found else ""


def as_postgres(command):
    """The server refuses to be root."""
    user = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--",
            *command]


def postgres_start(stage, plane, port):
    """On the one cluster of this run."""
    command = as_postgres([postgres_path() + "postgres", "-D", stage.folder + "/pg", "-p",
                           str(port)])
    server = serve(stage, plane, command, ("127.0.0.1", port))
    for _ in range(200):
        if not subprocess.run([postgres_path() + "pg_isready", "-q", "-h", "127.0.0.1", "-p",
                               str(port)], check=False).returncode:
            return server
        time.sleep(0.02)
    stage.stop(server, signal.SIGQUIT)
    raise BenchError("postgres is not ready")


def pgbench(port, *args):
    """Its command line."""
    return ["pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", *args, "postgres"]


def postgres_make(stage):
    """A cluster that forgets at once: what is measured is the way to it."""
    folder = stage.folder + "/pg"
    os.mkdir(folder)
    shutil.chown(folder, "postgres")
    stage.output("tcp", as_postgres([postgres_path() + "initdb", "-D", folder, "-U", "postgres",
                                     "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]), 60)
    with open(folder + "/postgresql.conf", "a", encoding="utf-8") as out:
        out.write("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
                  "synchronous_commit = off\nautovacuum = off\nmax_wal_size = 4GB\n"
                  "shared_buffers = 256MB\nlogging_collector = off\n")
    port = stage.port()
    server = postgres_start(stage, "tcp", port)
    try:
        stage.output("tcp", pgbench(port, "-i", "-q", "-s", str(SCALE)), 120)
    finally:
        stage.stop(server, signal.SIGINT)
    return folder


def postgres_run(stage, plane, args, seconds):
    """A fresh server on the same cluster."""
    stage.once("pg", lambda: postgres_make(stage))
    port = stage.port()
    server = postgres_start(stage, plane, port)
    try:
        client(stage, plane, pgbench(port, "-n", "-S", "-c", "2", "-t", "500"))
        out = client(stage, plane, pgbench(port, "-n", *args, "-T", str(seconds)), seconds + 30)
    finally:
        stage.stop(server, signal.SIGINT)
    return {"per_sec": find(r"tps = ([\d.]+)", out),
            "mean_us": find(r"latency average = ([\d.]+) ms", out, 1000)}


def postgres_rows(effort):
    """pgbench, select-only and the default mix."""
    kinds = (("select/c1", "-S -c 1", ["-S", "-c", "1"]),
             ("select/c8", "-S -c 8", ["-S", "-c", "8"]),
             ("prepared/c8", "-S -M prepared -c 8", ["-S", "-M", "prepared", "-c", "8"]),
             ("tpcb/c8", "TPC-B-like, -c 8", ["-c", "8"]))
    return [Row(f"pgbench/{name}", "pgbench", label, "per_sec", False, APP_PLANES,
                lambda stage, plane, args=args: postgres_run(stage, plane, args, effort.app_s),
                ("pgbench", postgres_path() + "postgres", "setpriv"))
            for name, label, args in kinds]


def app_rows(effort):
    """Every row of an application."""
    return (redis_rows(effort) + sockperf_rows(effort) + nginx_rows(effort) +
            memcached_rows(effort) + postgres_rows(effort))
