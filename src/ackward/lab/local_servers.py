"""Real servers of one host and their loads: nginx and wrk, Redis and redis-benchmark, PostgreSQL and pgbench.

Each runs in a namespace and a directory of its own and is ended with it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel import leftovers
from ackward.kernel.namespaces import Namespace, call_inside
from ackward.lab import programs
from ackward.model.bypass_lab import Load

ADDRESS = "127.0.0.1"
_LONGEST_START, _LONGEST_END = 30.0, 10.0
#: Debian keeps PostgreSQL's programs away from the path.
_POSTGRES = Path("/usr/lib/postgresql")

_NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; sendfile on;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{ listen {port}; root {directory}/www; location = /short {{ return 200 "ok"; }} }}
}}
"""


@dataclass(frozen=True)
class Server:
    """A server with its load: ``load`` runs for so many seconds and tells requests a second and those that failed."""

    name: str
    needs: tuple[str, ...]
    port: int
    start: Callable[[Namespace, int, Path], list[str]]
    load: Callable[[Namespace, int, float], Load]

    def missing(self) -> str:
        """The first program that this machine lacks, if any."""
        return next((name for name in self.needs if program(name) is None), "")

    @contextmanager
    def running(self, host: Namespace) -> Iterator[None]:
        """The server, in ``host`` until the end. Raises :class:`Unavailable`."""
        if absent := self.missing():
            raise Unavailable(
                f"{absent} is not installed",
                consequence=f"{self.name} cannot be measured",
                next_step="`scripts/setup.sh bench`, or your system's package manager",
            )
        with leftovers.directory(self.name, leftovers.ROOMY) as name:
            directory = Path(name)
            directory.chmod(0o755)
            argv = self.start(host, self.port, directory)
            with started(host, argv, self.port, directory):
                yield


def program(name: str) -> str | None:
    """Where a program is, also where Debian hides it; none if nowhere."""
    found = shutil.which(name)
    if found is None:
        hidden = sorted(_POSTGRES.glob(f"*/bin/{name}"))
        found = str(hidden[-1]) if hidden else None
    return found


@contextmanager
def started(host: Namespace, argv: Sequence[str], port: int, directory: Path) -> Iterator[None]:
    """A process in ``host`` that listens on ``port`` soon, ended at the end."""
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            programs.inside(host, argv), stdout=log, stderr=log, cwd=directory, stdin=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + _LONGEST_START
            while not call_inside(host, _listens, port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable(
                        f"`{argv[0]}` did not start: {(directory / 'log').read_text(errors='replace')[-300:].strip()}",
                        consequence="nothing was measured",
                        next_step=programs.AGAIN,
                    )
                time.sleep(0.01)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_LONGEST_END)
            except subprocess.TimeoutExpired:  # it waits for somebody, or does not hear
                process.kill()
                process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((ADDRESS, port)) == 0


def run(host: Namespace, argv: Sequence[str], limit: float) -> str:
    """What a load prints; raises :class:`Unavailable` with its complaint if it fails."""
    executable = program(argv[0])
    assert executable is not None
    done = subprocess.run(
        programs.inside(host, [executable, *argv[1:]]),
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(
            f"`{' '.join(argv)}` failed: {(done.stderr or done.stdout).strip()[-300:]}",
            consequence="its server cannot be measured",
            next_step=programs.AGAIN,
        )
    return done.stdout


def _as(user: str, argv: Sequence[str]) -> list[str]:
    """Run as that user if we are root: PostgreSQL refuses to be."""
    if os.geteuid() != 0:
        return list(argv)
    entry = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", *argv]


def _nginx(_: Namespace, port: int, directory: Path) -> list[str]:
    (directory / "www").mkdir()
    (directory / "www" / "index.html").write_text("x" * 1024)
    (directory / "nginx.conf").write_text(
        ("user root;" if os.geteuid() == 0 else "") + _NGINX.format(directory=directory, port=port)
    )
    return [str(program("nginx")), "-p", str(directory), "-c", str(directory / "nginx.conf")]


def wrk(host: Namespace, port: int, seconds: float, connections: int = 16, path: str = "/") -> Load:
    """The load of wrk on one page, over connections that are kept open."""
    argv = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        f"http://{ADDRESS}:{port}{path}",
    ]
    told = run(host, argv, seconds + 30)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    requests = re.search(r"(\d+) requests in", told)
    assert rate is not None, told
    assert requests is not None, told
    failed = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", told)))
    failed += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", told)))
    return Load(requests=int(requests[1]), per_second=float(rate[1]), failed=failed)


def _redis(_: Namespace, port: int, directory: Path) -> list[str]:
    return [str(program("redis-server")), "--port", str(port), "--save", "", "--dir", str(directory)]


def redis_benchmark(host: Namespace, port: int, seconds: float) -> Load:
    """The load of ``redis-benchmark -P 1``: GETs of 16 clients, one at a time each; so long on a machine of 2020."""
    requests = max(1000, int(60_000 * seconds))
    told = run(
        host,
        [
            "redis-benchmark",
            "-p",
            str(port),
            "-n",
            str(requests),
            "-c",
            "16",
            "-P",
            "1",
            "-t",
            "get",
            "--csv",
        ],
        60 + seconds * 10,
    )
    rate = re.search(r'"GET","([\d.]+)"', told)
    assert rate is not None, told
    return Load(requests=requests, per_second=float(rate[1]), failed=told.count("Error"))


def _postgres(host: Namespace, port: int, directory: Path) -> list[str]:
    data = directory / "data"
    data.mkdir()
    if os.geteuid() == 0:
        shutil.chown(data, "postgres", "postgres")
    argv = [
        str(program("initdb")),
        "-D",
        str(data),
        "-U",
        "postgres",
        "--no-sync",
        "-A",
        "trust",
        "-E",
        "UTF8",
    ]
    run(host, ["setpriv", *_as("postgres", argv)[1:]] if os.geteuid() == 0 else argv, 60)
    settings = {"port": port, "fsync": "off", "listen_addresses": ADDRESS, "unix_socket_directories": data}
    given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return _as("postgres", [str(program("postgres")), "-D", str(data), *given])


def pgbench(host: Namespace, port: int, seconds: float) -> Load:
    """The load of ``pgbench -S``: one SELECT a transaction, of 4 clients. Makes its tables first."""
    reach = ["-h", ADDRESS, "-p", str(port), "-U", "postgres"]
    tables = run(host, ["psql", *reach, "-Atc", "select to_regclass('pgbench_accounts')", "postgres"], 30)
    if not tables.strip():
        run(host, ["pgbench", *reach, "-i", "-q", "-s", "1", "postgres"], 60)
    argv = ["pgbench", *reach, "-S", "-n", "-c", "4", "-T", str(max(1, round(seconds))), "postgres"]
    told = run(host, argv, seconds + 60)
    rate = re.search(r"tps = ([\d.]+) \(without initial", told)
    failed = re.search(r"number of failed transactions: (\d+)", told)
    requests = re.search(r"transactions actually processed: (\d+)", told)
    assert rate is not None, told
    assert requests is not None, told
    return Load(requests=int(requests[1]), per_second=float(rate[1]), failed=int(failed[1]) if failed else 0)


SERVERS = (
    Server("nginx", ("nginx", "wrk"), 7501, _nginx, wrk),
    Server("redis", ("redis-server", "redis-benchmark"), 7502, _redis, redis_benchmark),
    Server("postgresql", ("postgres", "initdb", "pgbench", "psql"), 7503, _postgres, pgbench),
)
