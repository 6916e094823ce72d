"""The experiment ``quickack-toggle``: what this kernel does with TCP_QUICKACK, watched step by step.

For each setting one connection goes through all phases of :mod:`ackward.lab.toggle_load`; then new connections with
smaller and smaller receive buffers show the first budget. The trace tells what the socket did and tcpdump, in the same
host, what was on the wire.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ackward.capture.live import Scope
from ackward.capture.reading import read_captures
from ackward.capture.sources import Source
from ackward.capture.tracing import TraceSource
from ackward.diagnosis.tracing import told
from ackward.errors import PrivilegeMissing
from ackward.kernel import leftovers
from ackward.lab.run import Tell, Told
from ackward.lab.tcpdump import tcpdump
from ackward.lab.toggle_load import FIRST_DATA, FULL, PHASES, Phase, connected, lost_byte
from ackward.lab.toggle_timeline import Mark, timeline_of
from ackward.lab.topology import DEVICE, TwoHosts, set_metrics, two_hosts
from ackward.lab.wan import Line, Loss, Wan
from ackward.model.tcp_constants import DELACK_MIN_NS
from ackward.model.toggle import FirstBudget, Timeline, ToggleReport
from ackward.model.trace import SocketEvent

#: Each way, milliseconds: far above the time in the hosts, far below every timer.
DELAY = 1.0
_UNSET, _ROUTE = "unset", "route"


@dataclass
class _Run:
    """What one connection left behind: when its phases were, and from which port of the client's it came."""

    setting: str
    buffer: int
    client_port: int
    marks: list[Mark] = field(default_factory=list)


def carry_out(settings: Mapping[str, Any], tell: Tell) -> ToggleReport:
    """Run all connections on hosts of their own and give back what was seen. Needs root and tcpdump."""
    if os.geteuid() != 0:
        raise PrivilegeMissing.for_this_command(
            "the lab makes network namespaces and needs root", consequence="nothing was run"
        )
    family, port = settings["family"], settings["port"]
    wan = Wan(Line(DELAY, losses=(Loss("data", at=lost_byte(FULL[family])),)), Line(DELAY))
    tell(
        Told(
            "making two hosts: network namespaces of their own, at the ends of a link that loses one segment"
        )
    )
    with two_hosts(wan) as hosts, leftovers.directory("toggle") as directory:
        path = Path(directory) / "server.pcap"
        scope = Scope(port=port, netns=hosts.server)
        with TraceSource(scope, every_ack=True) as source:
            with tcpdump(hosts.server, DEVICE, path, port):
                runs, events = _connections(hosts, settings, source, tell)
            lost, notes = source.lost(), tuple(source.notes)
        capture = read_captures([Source(path.name, path)], port=port)
    flows = {flow.client.port: number for number, flow in enumerate(capture.flows)}
    timelines = [
        timeline_of(
            run.setting,
            run.buffer,
            run.marks,
            [event for event in events if event.remote.endswith(f":{run.client_port}")],
            _of(capture.segments, flows.get(run.client_port, -1)),
        )
        for run in runs
    ]
    whole = tuple(timeline for timeline in timelines if timeline.phases[0].name != FIRST_DATA.name)
    return ToggleReport(
        scenario="quickack-toggle",
        settings={
            name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()
        },
        kernel=f"{platform.system()} {platform.release()}",
        jiffy_ns=_jiffy_ns(whole),
        lost_events=lost,
        notes=notes,
        timelines=whole,
        first_budgets=tuple(
            FirstBudget(receive_buffer=timeline.receive_buffer, budget=timeline.budgets[0])
            for timeline in timelines
            if timeline not in whole and timeline.budgets
        ),
    )


def _connections(
    hosts: TwoHosts, settings: Mapping[str, Any], source: TraceSource, tell: Tell
) -> tuple[list[_Run], list[SocketEvent]]:
    runs: list[_Run] = []
    events: list[SocketEvent] = []

    def connection(setting: str, buffer: int, phases: Sequence[Phase]) -> None:
        runs.append(_connection(hosts, settings, setting, buffer, phases, tell))
        events.extend(_told(source))

    for buffer in settings["buffers"]:
        connection(_UNSET, buffer, (FIRST_DATA,))
    # The route last: what is set on it stays until the host is gone.
    for setting in sorted(settings["values"], key=lambda setting: setting == _ROUTE):
        if setting == _ROUTE:
            set_metrics(hosts.server, hosts, ("quickack", "1"))
        connection(setting, settings["buffer"], PHASES)
    return runs, events


def _connection(
    hosts: TwoHosts,
    settings: Mapping[str, Any],
    setting: str,
    buffer: int,
    phases: Sequence[Phase],
    tell: Tell,
) -> _Run:
    value = None if setting in (_UNSET, _ROUTE) else int(setting)
    title = f"TCP_QUICKACK {setting if value is None else f'= {value}'}, receive buffer {buffer} bytes"
    tell(Told(title))
    with connected(
        hosts, family=settings["family"], port=settings["port"], buffer=buffer, value=value
    ) as ends:
        run = _Run(setting, buffer, ends.client.getsockname()[1])
        for phase in phases:
            start = time.time_ns()
            phase.run(ends)
            ends.until_acknowledged()
            run.marks.append(Mark(phase.name, phase.summary, start, time.time_ns(), ends.quickack()))
    return run


def _told(source: TraceSource) -> list[SocketEvent]:
    # What this thread has caused has happened: the events are there by now.
    events = told(source.wait(0), source.realtime_ns(), source.identify)
    return [event for event in events if isinstance(event, SocketEvent)]


def _of(segments: NDArray[Any], flow: int) -> NDArray[Any]:
    mine: NDArray[Any] = segments[segments["flow"] == flow]
    return mine[np.argsort(mine["time_ns"], kind="stable")]


def _jiffy_ns(timelines: Sequence[Timeline]) -> int | None:
    """The first ato of a connection is TCP_ATO_MIN (tcp_event_data_recv)."""
    first = next((point.ato for timeline in timelines for point in timeline.points if point.ato), None)
    return DELACK_MIN_NS // first if first else None
