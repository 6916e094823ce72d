"""Runs a scenario on this kernel: a load before and after the remedy, a diagnosis of each, and the verdict."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ackward.capture.live import LiveCapture, Scope
from ackward.diagnosis.diagnose import diagnose
from ackward.errors import PrivilegeMissing, Unavailable, VerificationFailed
from ackward.kernel.namespaces import Namespace
from ackward.lab import programs
from ackward.lab.peer import Shape
from ackward.lab.proxied import proxied_server
from ackward.lab.scenario import Scenario
from ackward.lab.topology import TwoHosts, set_metrics, set_sysctls, two_hosts
from ackward.model.causes import Cause
from ackward.model.lab import LabReport
from ackward.model.plan import Receipt, Refusal
from ackward.model.report import Report
from ackward.model.scopes import USUAL_SEGMENTS, PortScope, WindowScope
from ackward.model.scopes import Scope as RemedyScope
from ackward.remedies import load as load_remedy
from ackward.remedies.receipts import Receipts
from ackward.verify.compare import compare

#: No scenario's round takes longer than this, whatever stalls it; then its processes are ended.
ROUND_LIMIT_SECONDS = 30


@dataclass(frozen=True)
class Told:
    """A moment of the story: what happens now, and how far the rounds of this phase are."""

    text: str
    done: int = 0
    of: int = 0


Tell = Callable[[Told], None]


def run(scenario: Scenario, tell: Tell = lambda _: None, *, view: str = "both") -> LabReport:
    """Run ``scenario`` and give back what was seen. ``view`` is which host is watched: client, server or both."""
    if os.geteuid() != 0:
        raise PrivilegeMissing.for_this_command(
            "the lab makes network namespaces and needs root", consequence="nothing was run"
        )
    shape = scenario.shape
    link = "at the ends of a long link" if scenario.wan else "joined by a wire"
    tell(Told(f"making two hosts: network namespaces of their own, {link}"))
    with hosts_of(scenario) as hosts, server(hosts, shape):
        watched = {
            "both": (hosts.client, hosts.server),
            "client": (hosts.client,),
            "server": (hosts.server,),
        }[view]
        before, report = _phase("before", hosts, shape, watched, tell)
        fix = None
        if scenario.remedy:
            with _remedied(scenario, hosts, report, tell) as fix:
                after, report_after = _phase("after", hosts, shape, watched, tell)
            tell(Told(f"undone: {scenario.remedy}"))
        else:
            tell(Told("no remedy here: the second phase measures the same again"))
            after, report_after = _phase("again", hosts, shape, watched, tell)
    verdict = compare(before, after)
    return LabReport(
        **report.model_dump(by_alias=True),
        scenario=scenario.name,
        settings=asdict(shape),
        fix=fix,
        before=verdict.before,
        after=verdict.after,
        verdict=verdict.result,
        comparison=verdict,
        report_after=report_after,
    )


@contextmanager
def hosts_of(scenario: Scenario) -> Iterator[TwoHosts]:
    """The two hosts as the scenario wants them."""
    _require_congestion_control(scenario.shape.congestion)
    with two_hosts(scenario.wan) as hosts:
        for host, metrics in (
            (hosts.client, scenario.client_metrics),
            (hosts.server, scenario.server_metrics),
        ):
            set_sysctls(
                host,
                scenario.sysctls,
                next_step="run a scenario that needs none, for example `ackward lab run standoff`",
            )
            if metrics:
                set_metrics(host, hosts, metrics)
        yield hosts


def _require_congestion_control(name: str) -> None:
    there = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    if name and name not in there:
        raise Unavailable(
            f"this kernel has no congestion control {name!r}",
            consequence="nothing was run",
            next_step=f"name one of {', '.join(there)}",
        )


def peer(host: Namespace, half: str, address: str, shape: Shape) -> subprocess.Popen[str]:
    """One half of the load, started in its host; it is the caller's to end."""
    return programs.start(host, "ackward.lab.peer", half, address, shape.to_json())


@contextmanager
def server(hosts: TwoHosts, shape: Shape) -> Iterator[None]:
    """The server half, running in its host until the end."""
    if shape.http:
        with proxied_server(hosts.server, shape):
            yield
        return
    arguments = ("serve", "::", shape.to_json())
    with programs.ready(
        hosts.server,
        "ackward.lab.peer",
        *arguments,
        name="the lab's server",
        consequence="nothing was measured",
    ):
        yield


def _phase(
    name: str, hosts: TwoHosts, shape: Shape, watched: tuple[Namespace, ...], tell: Tell
) -> tuple[NDArray[np.int64], Report]:
    """One measured phase: the client's own times, and the diagnosis of what was recorded meanwhile."""
    scope = Scope(port=shape.port, netns=watched[0] if len(watched) == 1 else None, slow_ns=0)
    with LiveCapture(scope, watched) as capture:
        latencies = load(name, hosts, shape, capture, tell)
        recording = capture.finish()
    # Other namespaces may use the same port.
    ours = {host.inode for host in watched}
    sockets = tuple(socket for socket in recording.sockets if socket.owner.netns in ours)
    return latencies, diagnose(replace(recording, sockets=sockets)).report


def load(name: str, hosts: TwoHosts, shape: Shape, capture: LiveCapture, tell: Tell) -> NDArray[np.int64]:
    """Run the client half; gives each round's nanoseconds. ``name`` is the phase's, for the story."""
    process = peer(hosts.client, "load", hosts.server_address(shape.family), shape)
    assert process.stdout is not None
    watchdog = threading.Timer(
        ROUND_LIMIT_SECONDS + shape.rounds * (2 + shape.own_milliseconds / 1000),
        process.kill,
    )
    watchdog.start()
    rounds: list[int] = []
    try:
        for line in process.stdout:
            rounds.append(int(line))
            capture.poll()
            tell(Told(name, len(rounds), shape.rounds))
    finally:
        watchdog.cancel()
        process.kill()
        _, complaint = process.communicate()
    if len(rounds) != shape.rounds:
        raise Unavailable(
            f"the load ended after {len(rounds)} of {shape.rounds} rounds: {complaint.strip() or 'it took too long'}",
            consequence="there is nothing to compare",
            next_step="try fewer --set rounds",
        )
    return np.array(rounds, np.int64)


@contextmanager
def _remedied(scenario: Scenario, hosts: TwoHosts, report: Report, tell: Tell) -> Iterator[str]:
    """Apply the remedy that the diagnosis named, in the host that it named; undone at the end."""
    named = [
        (remedy, finding)
        for finding in report.findings
        for remedy in finding.remedies
        if remedy.name == scenario.remedy and remedy.command
    ]
    if not named:
        raise VerificationFailed(
            f"the diagnosis of {scenario.name} did not name {scenario.remedy}",
            consequence="there is nothing to prove",
            next_step="look at `causes` with --json: was the load disturbed?",
        )
    remedy, finding = named[0]
    host = hosts.server if remedy.end == "server" else hosts.client
    tell(
        Told(
            f"found: {finding.cause}, {finding.exchanges} of {report.exchanges} requests; the remedy is "
            f"`{remedy.command}`"
        )
    )
    store = Receipts()
    cure = load_remedy(remedy.name)
    plan = cure.plan(host, _scope(scenario, hosts, remedy.end, finding.cause))
    if isinstance(plan, Refusal):
        raise plan.as_error()
    receipt: Receipt | None = cure.apply(plan, store)
    try:
        yield remedy.command or ""
    finally:
        if receipt:
            cure.undo(receipt, store)


def _scope(scenario: Scenario, hosts: TwoHosts, end: str, cause: Cause) -> RemedyScope:
    """What the diagnosis's command would reach: this load alone."""
    shape = scenario.shape
    if scenario.remedy != "initcwnd":
        return PortScope(port=shape.port)
    peer = hosts.client_address if end == "server" else hosts.server_address
    return WindowScope(
        to=str(ip_network(peer(shape.family))),
        segments=USUAL_SEGMENTS,
        after_idle=cause == Cause.IDLE_RESTART,
    )
