"""Split TCP across an ocean: direct, HAProxy and each step of the gateway, measured beside predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ackward.lab.experiment import Experiment, ReportAnswer
from ackward.lab.scenario import within
from ackward.model.ocean import Way

if TYPE_CHECKING:
    from ackward.lab.run import Tell


def _ask(settings: Mapping[str, Any], tell: Tell) -> ReportAnswer:
    from ackward.lab.ocean import carry_out

    return ReportAnswer(carry_out(settings, tell), "ocean")


def _ways(text: str) -> tuple[Way, ...]:
    return tuple(dict.fromkeys(map(Way, text.split(","))))


def _legs(text: str) -> tuple[float, ...]:
    legs = tuple(float(str(within(0.1, 1000, float)(part))) for part in text.split(","))
    if len(legs) != 3:
        raise ValueError("three legs")
    return legs


def _losses(text: str) -> tuple[float, ...]:
    return tuple(float(str(within(0, 0.05, float)(part))) for part in text.split(",") if part)


_SIZE = within(1, 10**9, int)
EXPERIMENT = Experiment(
    name="ocean",
    summary="San Francisco to Bangalore: a connection of its own, HAProxy, and each step of the gateway, as predicted?",
    ask=_ask,
    settings={
        "ways": tuple(Way),
        "legs": (28.0, 214.0, 32.0),
        "rate": 50.0,
        "size": 50_000_000,
        "harmed_size": 1_000_000,
        "losses": (0.0, 0.001, 0.01),
        "competing": True,
        "links": "apart",
        "rounds": 3,
        "downloads": 1,
    },
    readers={
        "ways": _ways,
        "legs": _legs,
        "rate": within(1, 10_000, float),
        "size": _SIZE,
        "harmed_size": _SIZE,
        "losses": _losses,
        "competing": lambda text: {"on": True, "off": False}[text],
        "links": lambda text: {"apart": "apart", "shared": "shared"}[text],
        "rounds": within(1, 100, int),
        "downloads": within(1, 100, int),
    },
    hints={
        "ways": f"give some of {','.join(Way)}",
        "legs": "give three round trips in milliseconds: 28,214,32",
        "rate": "give Mbit/s",
        "losses": "give shares up to 0.05, for example 0,0.001,0.01",
        "links": "say apart (a wire for each leg) or shared (one for all that comes to a gateway)",
        "size": "give bytes of the download, up to 1000000000",
        "harmed_size": "give bytes of the download under loss or beside another flow, up to 1000000000",
        "competing": "say on or off: a part beside another flow on the last mile",
        "rounds": "give how often each small answer is fetched, from 1 to 100",
        "downloads": "give how often each download is, from 1 to 100",
    },
    needs="iptables, tc and NFQUEUE; haproxy (or --set ways= without it)",
    takes="about 5 minutes; 84 transfers. A short one: --set losses=0 --set competing=off",
)
