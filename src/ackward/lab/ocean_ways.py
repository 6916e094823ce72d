"""The ways across the ocean: nothing in between, HAProxy in the gateways' place, or the gateway with some steps on."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel import leftovers
from ackward.kernel.namespaces import Namespace
from ackward.kernel.sockets import listening_ports
from ackward.lab import programs
from ackward.lab.ocean_hosts import ADDRESS, Distances, Ocean
from ackward.lab.topology import run_on
from ackward.model.ocean import Way
from ackward.predict.split import MSS

PORT = 7000
_LEG_PORT = 7001
#: Bytes of a socket's buffer, its overhead included: the gateway's own defaults.
NEAR_BUFFER, LEG_BUFFER = 2_000_000, 4_900_000
_START_SECONDS = 20.0
#: The command line, as a user would call it: the lab knows the gateway by nothing else.
_ACKWARD = [sys.executable, "-c", "from ackward.cli.main import main; main()", "gateway"]
#: The gateway's own limit.
_MOST_SEGMENTS = 1000

_STEPS = {
    Way.SPLIT: (),
    Way.EARLY: ("early",),
    Way.POOL: ("early", "pool"),
    Way.WINDOW: ("early", "pool", "window"),
    Way.FAITHFUL: ("early", "pool", "window"),
}
_ENTRY = """\
name = "{name}-entry"
initial_window = {segments}
[steps]
early = {early}
pool = {pool}
window = {window}
[buffers]
near = {near}
leg = {leg}
[[listen]]
name = "ocean"
address = "0.0.0.0:{port}"
target = "{server}:{port}"
via = "exit"
answer = "{answer}"
[peer.exit]
address = "{exit}:{leg_port}"
keys = ["ocean.key"]
"""
_EXIT = """\
name = "{name}-exit"
initial_window = {segments}
[steps]
early = {early}
pool = {pool}
window = {window}
[buffers]
near = {near}
leg = {leg}
[exit]
address = "0.0.0.0:{leg_port}"
networks = ["{entry}/32"]
[peer.entry]
keys = ["ocean.key"]
allow = ["{server}/32:{port}"]
"""
_HAPROXY = """\
global
  maxconn 1000
  tune.rcvbuf.client {near}
  tune.rcvbuf.server {leg}
  tune.sndbuf.client {leg}
  tune.sndbuf.server {leg}
defaults
  mode tcp
  option splice-request
  option splice-response
  timeout connect 10s
  timeout client 120s
  timeout server 120s
listen ocean
  bind 0.0.0.0:{port}
  server next {target}
"""


@contextmanager
def way_across(ocean: Ocean, way: Way) -> Iterator[str]:
    """Set up one way; gives the address that the client connects to, port :data:`PORT`."""
    if way is Way.DIRECT:
        yield ADDRESS["server"]
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(leftovers.directory("ocean")))
        if way is Way.HAPROXY:
            _haproxies(stack, ocean, directory)
        else:
            _gateways(stack, ocean, directory, way)
        yield ADDRESS["entry"]


def _haproxies(stack: ExitStack, ocean: Ocean, directory: Path) -> None:
    if not shutil.which("haproxy"):
        raise Unavailable(
            "haproxy is not installed",
            consequence="there is nothing to compare the gateway with",
            next_step="apt-get install haproxy, or leave it out: --set ways=direct,split,early,pool,window,faithful",
        )
    for name, port, target in (
        ("exit", _LEG_PORT, f"{ADDRESS['server']}:{PORT}"),
        ("entry", PORT, f"{ADDRESS['exit']}:{_LEG_PORT}"),
    ):
        path = directory / f"{name}.cfg"
        # SO_RCVBUF is doubled by the kernel (socket(7)); the gateway's figures are after that.
        path.write_text(_HAPROXY.format(port=port, target=target, near=NEAR_BUFFER // 2, leg=LEG_BUFFER // 2))
        host = ocean.hosts[name]
        _started(
            stack,
            host,
            ["haproxy", "-db", "-f", str(path)],
            lambda host=host, port=port: port in listening_ports(host),  # type: ignore[misc]
        )


def _gateways(stack: ExitStack, ocean: Ocean, directory: Path, way: Way) -> None:
    run_on(None, *_ACKWARD, "key", str(directory / "ocean.key"))
    name = f"ocean-{os.getpid()}"
    steps = _STEPS[way]
    words = {
        "name": name,
        **{step: str(step in steps).lower() for step in ("early", "pool", "window")},
        "near": NEAR_BUFFER,
        "leg": LEG_BUFFER,
        "segments": _segments(ocean.distances),
        "port": PORT,
        "leg_port": _LEG_PORT,
        "server": ADDRESS["server"],
        "exit": ADDRESS["exit"],
        "entry": ADDRESS["entry"],
        "answer": "faithful" if way is Way.FAITHFUL else "optimistic",
    }
    for place, text in (("exit", _EXIT), ("entry", _ENTRY)):
        path = directory / f"{place}.toml"
        path.write_text(text.format(**words))
        _started(
            stack,
            ocean.hosts[place],
            [*_ACKWARD, "run", "--config", str(path)],
            lambda place=place: _is_ready(f"{name}-{place}", pool="pool" in steps),  # type: ignore[misc]
        )


def _segments(distances: Distances) -> int:
    """What fills the leg between the gateways: no slow start at all, as the model has it."""
    return min(_MOST_SEGMENTS, math.ceil(distances.rate * 1e6 / 8 * distances.legs[1] / 1000 / MSS))


def _is_ready(name: str, *, pool: bool) -> bool:
    """Whether the gateway runs, knows its peer, and has filled its pool."""
    asked = [*_ACKWARD, "status", name, "--json"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        return False
    status = json.loads(done.stdout)
    pools = [each for worker in status["workers"] for each in worker["pools"].values()]
    return all(each["connected"] and (each["idle"] or not pool) for each in pools)


def _started(stack: ExitStack, host: Namespace, argv: list[str], ready: Callable[[], bool]) -> None:
    """A process in ``host`` until the end, once it is ready."""
    process = subprocess.Popen(
        programs.inside(host, argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    stack.callback(_end, process)
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            complaint = process.communicate()[1].strip()
            raise Unavailable(
                f"`{' '.join(argv)}` did not start: {complaint[-500:]}",
                consequence="this way across the ocean cannot be measured",
                next_step=f"{programs.AGAIN}; --set ways= names the ways to go",
            )
        time.sleep(0.02)


def _end(process: subprocess.Popen[str]) -> None:
    """In order; at once if it does not hear."""
    process.terminate()
    try:
        process.communicate(timeout=3)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
