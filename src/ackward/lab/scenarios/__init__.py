"""One module a scenario: each holds ``SCENARIO``. To add one, add a module and a line."""

from __future__ import annotations

from ackward.errors import UnknownName
from ackward.lab.scenario import Scenario
from ackward.lab.scenarios import healthy, late_writer, slow_server, standoff

ALL: tuple[Scenario, ...] = (standoff.SCENARIO, healthy.SCENARIO, slow_server.SCENARIO, late_writer.SCENARIO)


def named(name: str) -> Scenario:
    """The scenario of that name."""
    for scenario in ALL:
        if scenario.name == name:
            return scenario
    known = ", ".join(scenario.name for scenario in ALL)
    raise UnknownName(
        f"there is no scenario {name!r}", consequence="nothing was run", next_step=f"name one of {known}"
    )
