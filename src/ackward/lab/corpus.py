"""A corpus of captures whose truth is known: each scenario as tcpdump saw it at both ends, with labels beside it.

For each scenario, with segmentation offload on and (``NAME-segmented``) off: ``NAME.client.pcap``, ``NAME.server.pcap``
of the same run, and ``NAME.labels.json`` (:class:`Labels`). The labels come from how the scenario is built and from
times that the client measured, never from a diagnosis.

Without a long link the hosts are some microseconds apart, and their packets do not tell at which of them they were
captured. So where the truth depends on the end, it is asked for with the kernel's word for each packet's direction:
``NAME-any`` is captured on all interfaces, which gives Linux cooked captures.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from ackward.errors import Unavailable
from ackward.lab import programs
from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.scenarios import ALL, named
from ackward.lab.tcpdump import tcpdump
from ackward.lab.topology import DEVICE, TwoHosts, run_on
from ackward.model.causes import Cause, End, Grade
from ackward.model.report import Model

#: Rounds after the warm-up: enough for a median, few enough for a corpus that is kept in a repository.
ROUNDS = 6
_HOSTS = tuple(End)
#: tcpdump's name for all interfaces.
ANY = "any"


class ExcusedCause(Model):
    """A cause that may be named beside the label's own, at best with this grade."""

    cause: Cause
    grade: Grade


class Round(Model):
    """One round as the client measured it. ``lost_ns`` is what it took beyond the baseline, 0 if it did not stall."""

    ns: int
    stalled: bool
    lost_ns: int


class Labels(Model):
    """What is true of a pair of captures.

    ``cause`` is by view (``client``, ``server``, ``both``): one end alone may be unable to tell. ``interface`` is what
    tcpdump was told to capture on. ``rounds`` leaves out the first ``warmup`` rounds of the capture: nothing is claimed
    about them. ``baseline_ns`` is the median of the same load without its stall, measured just before.
    """

    schema_: str = "ackward/corpus/1"
    scenario: str
    offload: bool
    interface: str = DEVICE
    settings: dict[str, object]
    client: str
    server: str
    cause: dict[str, Cause]
    holding_end: End | None
    delaying_end: End | None
    also: list[ExcusedCause]
    baseline_ns: int
    warmup: int
    rounds: list[Round]


def make_corpus(
    directory: Path, names: Sequence[str] | None = None, progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Capture the named scenarios (all if None) into ``directory``; gives the label files. Needs root and tcpdump."""
    for tool in ("tcpdump", "ethtool"):
        if not shutil.which(tool):
            raise Unavailable(
                f"{tool} is not installed",
                consequence="no corpus can be made",
                next_step=f"apt-get install {tool}",
            )
    directory.mkdir(parents=True, exist_ok=True)
    scenarios = ALL if names is None else tuple(named(name) for name in names)
    made = []
    for scenario in scenarios:
        rounds = min(scenario.shape.rounds, ROUNDS) + scenario.warmup
        scenario = replace(scenario, shape=replace(scenario.shape, rounds=rounds))
        variants = [("", True, DEVICE), ("-segmented", False, DEVICE)]
        if _needs_direction(scenario):
            variants.append(("-any", True, ANY))
        for suffix, offload, interface in variants:
            name = scenario.name + suffix
            progress(name)
            made.append(_capture(directory, name, scenario, offload=offload, interface=interface))
    return made


def _needs_direction(scenario: Scenario) -> bool:
    """The truth depends on the end, and the ends are too near to be told apart by time."""
    return bool(scenario.seen_from) and scenario.wan is None


def _causes(scenario: Scenario, interface: str) -> dict[str, Cause]:
    """What each view can tell: of ends that packets do not tell apart, what the one tells that knows less."""
    if _needs_direction(scenario) and interface != ANY:
        ends = dict.fromkeys(_HOSTS, *scenario.seen_from.values())
    else:
        ends = {end: scenario.seen_from.get(end, scenario.cause) for end in _HOSTS}
    return {**{end.value: cause for end, cause in ends.items()}, "both": scenario.cause}


def _capture(directory: Path, name: str, scenario: Scenario, *, offload: bool, interface: str) -> Path:
    calm = scenario.calmed()
    with _hosts(calm, offload=offload) as hosts, lab.server(hosts, calm.shape):
        baseline = int(statistics.median(_load(hosts, calm.shape)[scenario.warmup :]))
    with ExitStack() as stack:
        hosts = stack.enter_context(_hosts(scenario, offload=offload))
        stack.enter_context(lab.server(hosts, scenario.shape))
        for end, host in zip(_HOSTS, (hosts.client, hosts.server), strict=True):
            path = directory / f"{name}.{end}.pcap"
            stack.enter_context(tcpdump(host, interface, path, scenario.shape.port))
        rounds = _load(hosts, scenario.shape)[scenario.warmup :]
        client, server = hosts.client_address(4), hosts.server_address(4)
    family = scenario.shape.family
    assert family == 4
    labels = Labels(
        scenario=scenario.name,
        offload=offload,
        interface=interface,
        settings=asdict(scenario.shape),
        client=client,
        server=f"{server}:{scenario.shape.port}",
        cause=_causes(scenario, interface),
        holding_end=scenario.holding_end,
        delaying_end=scenario.delaying_end,
        also=[_excused(excuse) for excuse in scenario.also],
        baseline_ns=baseline,
        warmup=scenario.warmup,
        rounds=[_round(ns, baseline, scenario.margin) for ns in rounds],
    )
    path = directory / f"{name}.labels.json"
    path.write_text(labels.model_dump_json(indent=1) + "\n")
    return path


def _excused(excuse: Excuse) -> ExcusedCause:
    return ExcusedCause(cause=excuse.cause, grade=excuse.grade)


def _round(ns: int, baseline: int, margin: float) -> Round:
    stalled = ns - baseline > margin * 1e6
    return Round(ns=ns, stalled=stalled, lost_ns=ns - baseline if stalled else 0)


@contextmanager
def _hosts(scenario: Scenario, *, offload: bool) -> Iterator[TwoHosts]:
    switch = "on" if offload else "off"
    with lab.hosts_of(scenario) as hosts:
        for host in (hosts.client, hosts.server):
            run_on(host, "ethtool", "-K", DEVICE, "tso", switch, "gso", switch, "gro", switch)
        yield hosts


def _load(hosts: TwoHosts, shape: Shape) -> list[int]:
    process = lab.peer(hosts.client, "load", hosts.server_address(shape.family), shape)
    seconds = lab.ROUND_LIMIT_SECONDS + shape.rounds * (2 + shape.own_milliseconds / 1000)
    output, complaint = programs.finish(process, seconds)
    rounds = [int(line) for line in output.split()]
    if len(rounds) != shape.rounds:
        raise Unavailable(
            f"the load ended after {len(rounds)} of {shape.rounds} rounds: {complaint.strip() or 'it took too long'}",
            consequence="the corpus is incomplete",
            next_step="run it again on a quieter machine",
        )
    return rounds
