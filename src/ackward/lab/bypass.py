"""Carries out ``lab run bypass``: the document's table with real qperf, then real servers.

Everything is measured in turns, over TCP and over the bypass.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from ackward.errors import PrivilegeMissing, Unavailable
from ackward.kernel import leftovers
from ackward.kernel.namespaces import Namespace, temporary
from ackward.lab import programs
from ackward.lab.local_servers import SERVERS, Server, program, started
from ackward.lab.run import Tell, Told
from ackward.lab.topology import TwoHosts, two_hosts
from ackward.model.bypass_lab import BypassReport, Message, Pairs, ServerLoad
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass import engine
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.rules import Rules
from ackward.remedies.transaction import identify

#: qperf's own control port.
_QPERF = 19765
_NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "sec": 1e9}
_BITS = {"bits": 1.0, "Kb": 1e3, "Mb": 1e6, "Gb": 1e9, "Tb": 1e12}


def carry_out(settings: Mapping[str, Any], tell: Tell) -> BypassReport:
    """Measure everything on hosts of its own. Needs root and qperf."""
    if os.geteuid() != 0:
        raise PrivilegeMissing.for_this_command(
            "the lab makes network namespaces and needs root", consequence="nothing was run"
        )
    if settings["sizes"] and program("qperf") is None:
        raise Unavailable(
            "qperf is not installed",
            consequence="the document's table cannot be made",
            next_step="apt-get install qperf, or --set sizes=",
        )
    notes: list[str] = []
    messages = _messages(settings, tell) if settings["sizes"] else []
    servers = []
    for server in SERVERS:
        if server.name not in settings["servers"]:
            continue
        if absent := server.missing():
            notes.append(f"{absent} is not installed: {server.name} was left out")
            continue
        servers.append(_server(server, settings, tell))
    return BypassReport(
        settings={key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
        kernel=f"{platform.system()} {platform.release()}",
        messages=messages,
        servers=servers,
        notes=tuple(notes),
    )


def _bypass(host: Namespace, settings: Mapping[str, Any]) -> AbstractContextManager[Engine]:
    scope = BypassScope(joins=settings["joins"])
    return engine.attached(Rules(scope, netns=identify(host).cookie or 0))


def _in_turns(
    host: Namespace, settings: Mapping[str, Any], measure: Callable[[Engine | None], float]
) -> Pairs:
    """Measure over TCP and over the bypass, one after the other; every other turn begins with the other."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(settings["turns"]):
        for bypassed in (False, True) if turn % 2 == 0 else (True, False):
            way: AbstractContextManager[Engine | None] = (
                _bypass(host, settings) if bypassed else nullcontext()
            )
            with way as attached:
                found[bypassed].append(measure(attached))
    return Pairs(tcp=found[False], bypass=found[True])


def _messages(settings: Mapping[str, Any], tell: Tell) -> list[Message]:
    found = []
    with two_hosts() as hosts, leftovers.directory("qperf") as directory:
        argv = [str(program("qperf"))]
        with started(hosts.server, argv, _QPERF, Path(directory)):
            for done, size in enumerate(settings["sizes"]):
                tell(Told("qperf, message size", done, len(settings["sizes"])))
                latency, bandwidth = (
                    _in_turns(hosts.server, settings, partial(_qperf, hosts, settings, test, size))
                    for test in ("tcp_lat", "tcp_bw")
                )
                found.append(Message(size=size, latency_ns=latency, bandwidth=bandwidth))
    return found


def _qperf(hosts: TwoHosts, settings: Mapping[str, Any], test: str, size: int, _: Engine | None) -> float:
    seconds = settings["seconds"]
    address = hosts.server_address(settings["family"])
    argv = ["qperf", address, "-t", str(seconds), "-ub", "-m", str(size), *_processors(test), test]
    done = subprocess.run(
        programs.inside(hosts.client, argv), capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    told = re.search(r"(?:latency|bw)\s*=\s*([\d.,]+) (\w+)", done.stdout)
    if done.returncode != 0 or told is None:
        raise Unavailable(
            f"`{' '.join(argv)}` failed: {(done.stderr or done.stdout).strip()}",
            consequence="the document's table cannot be made",
            next_step=f"{programs.AGAIN}; --set sizes= goes without the table",
        )
    units = _NANOSECONDS if test == "tcp_lat" else _BITS
    return float(told[1].replace(",", "")) * units[told[2]]


def _processors(test: str) -> list[str]:
    """Ends that take turns share a processor, where schedulers tend to bring them; those of a stream have one each.

    Left to the scheduler, the wake-up of another processor comes and goes between turns and outweighs the rest.
    """
    allowed = sorted(os.sched_getaffinity(0))
    ends = (allowed[0], allowed[0] if test == "tcp_lat" else allowed[-1])
    # qperf counts processors from 1, whatever its help says; 0 is any.
    return ["-lca", str(ends[0] + 1), "-rca", str(ends[1] + 1)]


def _server(server: Server, settings: Mapping[str, Any], tell: Tell) -> ServerLoad:
    failed = redirected = 0
    tell(Told(f"{server.name} under its own load"))
    with temporary(server.name) as host, server.running(host):

        def measure(attached: Engine | None) -> float:
            nonlocal failed, redirected
            load = server.load(host, server.port, settings["seconds"])
            failed += load.failed
            redirected += attached.counters().redirected if attached else 0
            return load.per_second

        per_second = _in_turns(host, settings, measure)
    return ServerLoad(name=server.name, per_second=per_second, failed=failed, redirected=redirected)
