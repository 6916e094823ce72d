"""What ``benchmarks.gateway`` compares: the gateway and its peers, one thread each, between two ports of a loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import AckwardError
from ackward.gateway.control import ask
from ackward.gateway.keys import make_key
from ackward.kernel.namespaces import Namespace, command_inside
from ackward.kernel.sockets import listening_ports

#: The proxies' processor, and the loads'.
PROXY_CPU, LOAD_CPU = "0", "1"
LOCAL = "127.0.0.1"
ACKWARD = str(Path(sys.executable).with_name("ackward"))

HAPROXY = """\
global
  nbthread 1
  maxconn 4000
  maxpipes 1000
  tune.pipesize 1048576
defaults
  mode tcp
  timeout connect 5s
  timeout client 300s
  timeout server 300s
listen one
  bind {address}:{port} backlog 4096
  option splice-request
  option splice-response
  server next {towards}:{target}
"""
NGINX = """\
load_module {module};
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 20000; }}
stream {{
  server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass 127.0.0.1:{target}; proxy_buffer_size 64k; tcp_nodelay on; }}
}}
"""
HTTP = """\
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout client 60s
  timeout server 60s
frontend one
  bind 127.0.0.1:{port} backlog 4096
  http-request return status 200 content-type text/plain string "{body}"
"""


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs: where it listens, and the time that its processes have had."""

    port: int
    processes: tuple[subprocess.Popen[bytes], ...]

    def pids(self) -> list[int]:
        """Its processes and their children."""
        found = []
        for process in self.processes:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            found += [process.pid, *map(int, children)]
        return found

    def cpu_seconds(self) -> float:
        """Time on a processor, of all threads so far, and of children that have ended."""
        total = 0.0
        for pid in self.pids():
            try:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    total += int((task / "schedstat").read_text().split()[0]) / 1e9
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a child that ended meanwhile: its parent has its time
            total += (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")  # cutime, cstime: proc(5)
        return total

    def memory(self) -> int:
        """Bytes that are its own (Pss)."""
        return 1024 * sum(
            int(line.split()[1])
            for pid in self.pids()
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Pss:")
        )


def pinned(host: Namespace, cpu: str, argv: list[str], **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command_inside(host, ["taskset", "-c", cpu, *argv]), **options)  # type: ignore[call-overload,no-any-return]


def _wait(told: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not told():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not start")
        time.sleep(0.02)


@contextmanager
def _running(host: Namespace, argvs: list[list[str]], port: int) -> Iterator[Proxy]:
    with ExitStack() as stack:
        started = []
        for argv in argvs:
            process = pinned(host, PROXY_CPU, argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            started.append(process)
        _wait(lambda: port in listening_ports(host), argvs[-1][0])
        yield Proxy(port, tuple(started))


@contextmanager
def haproxy(
    host: Namespace,
    directory: Path,
    port: int,
    target: int,
    *,
    address: str = LOCAL,
    towards: str = LOCAL,
) -> Iterator[Proxy]:
    path = directory / f"haproxy-{port}.cfg"
    path.write_text(HAPROXY.format(address=address, port=port, towards=towards, target=target))
    with _running(host, [["haproxy", "-db", "-f", str(path)]], port) as proxy:
        yield proxy


@contextmanager
def nginx(host: Namespace, directory: Path, port: int, target: int) -> Iterator[Proxy]:
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    path = directory / f"nginx-{port}.conf"
    path.write_text(NGINX.format(module=module, directory=directory, port=port, target=target))
    with _running(host, [["nginx", "-p", str(directory), "-c", str(path)]], port) as proxy:
        yield proxy


@contextmanager
def socat(host: Namespace, directory: Path, port: int, target: int) -> Iterator[Proxy]:  # noqa: ARG001 - of one shape
    listen = f"TCP4-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=4096,nodelay"
    with _running(
        host, [["socat", "-b", "65536", listen, f"TCP4:127.0.0.1:{target},nodelay"]], port
    ) as proxy:
        yield proxy


def _config(directory: Path, name: str, text: str) -> list[str]:
    path = directory / f"{name}.toml"
    path.write_text(f'name = "{name}"\n{text}')
    return [ACKWARD, "gateway", "run", "--config", str(path)]


def _name(port: int, place: str) -> str:
    return f"bench-{os.getpid()}-{port}-{place}"


@contextmanager
def ackward(
    host: Namespace, directory: Path, port: int, target: int, *, splice: bool = True, workers: int = 1
) -> Iterator[Proxy]:
    """One gateway alone, as the others are; early would only begin a connection on the same machine sooner."""
    text = (
        f"workers = {workers}\n[steps]\nearly = false\nsplice = {str(splice).lower()}\n"
        f'[[listen]]\naddress = "127.0.0.1:{port}"\ntarget = "127.0.0.1:{target}"\n'
    )
    with _running(host, [_config(directory, _name(port, "one"), text)], port) as proxy:
        yield proxy


@contextmanager
def on_both(host: Namespace, directory: Path, port: int, target: int, *, workers: int) -> Iterator[Proxy]:
    """A gateway that may use the loads' processor, too."""
    with ackward(host, directory, port, target, workers=workers) as proxy:
        for pid in proxy.pids():
            os.sched_setaffinity(pid, {int(PROXY_CPU), int(LOAD_CPU)})
        yield proxy


@dataclass(frozen=True)
class Far:
    """Another host for the second proxy, and its address as the first one sees it."""

    host: Namespace
    address: str


@contextmanager
def two_haproxies(
    host: Namespace, directory: Path, port: int, target: int, *, far: Far | None = None
) -> Iterator[Proxy]:
    far = far or Far(host, LOCAL)
    with (
        haproxy(far.host, directory, port + 1, target, address=far.address) as second,
        haproxy(host, directory, port, port + 1, towards=far.address) as first,
    ):
        yield Proxy(port, (*first.processes, *second.processes))


@contextmanager
def two_gateways(
    host: Namespace, directory: Path, port: int, target: int, *, far: Far | None = None
) -> Iterator[Proxy]:
    """Entry and exit, with a pool that is filled."""
    far = far or Far(host, LOCAL)
    if not (directory / "leg.key").exists():
        make_key(directory / "leg.key")
    exit_ = (
        f'[steps]\nwindow = false\n[exit]\naddress = "{far.address}:{port + 1}"\n[peer.entry]\nkeys = ["leg.key"]\n'
        f'allow = ["127.0.0.1/32:{target}"]\n'
    )
    entry = (
        f'[steps]\nwindow = false\n[[listen]]\naddress = "127.0.0.1:{port}"\ntarget = "127.0.0.1:{target}"\nvia = "exit"\n'
        f'[peer.exit]\naddress = "{far.address}:{port + 1}"\nkeys = ["leg.key"]\npool = {{ least = 64 }}\n'
    )
    name = _name(port, "entry")
    with (
        _running(far.host, [_config(directory, _name(port, "exit"), exit_)], port + 1) as second,
        _running(host, [_config(directory, name, entry)], port) as first,
    ):
        _wait(lambda: _idle(name) >= 64, "the pool")
        yield Proxy(port, (*first.processes, *second.processes))


def _idle(name: str) -> int:
    try:
        return int(ask(name, "status")["counters"]["legs_idle"])
    except AckwardError:
        return 0


PROXIES = {"ackward": ackward, "haproxy": haproxy, "nginx": nginx, "socat": socat}
PAIRS = {"ackward": two_gateways, "haproxy": two_haproxies}


def missing() -> list[str]:
    """What has to be installed first."""
    found = [name for name in ("haproxy", "nginx", "socat", "wrk", "taskset") if not shutil.which(name)]
    return found + (
        [] if Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists() else ["libnginx-mod-stream"]
    )
