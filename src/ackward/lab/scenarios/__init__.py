"""One module a scenario: each holds ``SCENARIO``, or ``EXPERIMENT``. To add one, add a module and a line."""

from __future__ import annotations

from typing import TypeVar

from ackward.errors import UnknownName
from ackward.lab.experiment import Experiment
from ackward.lab.scenario import Scenario
from ackward.lab.scenarios import (
    accept_queue,
    ack_holding,
    ack_thinning,
    bypass,
    congestion_window,
    delayed_ack,
    draining_writer,
    fast_retransmit,
    haproxy,
    healthy,
    idle_restart,
    late_writer,
    late_writer_nagle,
    nagle,
    ocean,
    pacing,
    quickack_toggle,
    response_standoff,
    retransmission_timeout,
    slow_reader,
    slow_server,
    slow_start,
    standoff,
    syn_loss,
    tail_loss,
    tail_loss_without_probe,
    zero_window,
)

ALL: tuple[Scenario, ...] = (
    standoff.SCENARIO,
    response_standoff.SCENARIO,
    haproxy.SCENARIO,
    delayed_ack.SCENARIO,
    nagle.SCENARIO,
    tail_loss.SCENARIO,
    tail_loss_without_probe.SCENARIO,
    retransmission_timeout.SCENARIO,
    fast_retransmit.SCENARIO,
    slow_start.SCENARIO,
    idle_restart.SCENARIO,
    congestion_window.SCENARIO,
    pacing.SCENARIO,
    zero_window.SCENARIO,
    syn_loss.SCENARIO,
    accept_queue.SCENARIO,
    ack_thinning.SCENARIO,
    ack_holding.SCENARIO,
    healthy.SCENARIO,
    slow_server.SCENARIO,
    late_writer.SCENARIO,
    late_writer_nagle.SCENARIO,
    draining_writer.SCENARIO,
    slow_reader.SCENARIO,
)
EXPERIMENTS: tuple[Experiment, ...] = (quickack_toggle.EXPERIMENT, ocean.EXPERIMENT, bypass.EXPERIMENT)


def named(name: str) -> Scenario:
    """The scenario of that name."""
    return _named(name, ALL)


def runnable(name: str) -> Scenario | Experiment:
    """The scenario or the experiment of that name."""
    everything: tuple[Scenario | Experiment, ...] = (*ALL, *EXPERIMENTS)
    return _named(name, everything)


_Named = TypeVar("_Named", bound=Scenario | Experiment)


def _named(name: str, among: tuple[_Named, ...]) -> _Named:
    for each in among:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in among)
    raise UnknownName(
        f"there is no scenario {name!r}", consequence="nothing was run", next_step=f"name one of {known}"
    )
