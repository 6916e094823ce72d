"""Why TCP_QUICKACK "turns itself off after a while": each value through all kinds of traffic, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ackward.lab.experiment import Experiment, ReportAnswer
from ackward.lab.scenario import family, within

if TYPE_CHECKING:
    from ackward.lab.run import Tell

_VALUES = ("unset", "0", "1", "2", "3", "route")
#: SO_RCVBUF, bytes: below the least the kernel raises it (SOCK_MIN_RCVBUF); above the most a phase would not fill it.
_LEAST_BUFFER, _MOST_BUFFER = 2048, 65536


def _ask(settings: Mapping[str, Any], tell: Tell) -> ReportAnswer:
    from ackward.lab.toggle import carry_out

    return ReportAnswer(carry_out(settings, tell), "toggle")


def _values(text: str) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(text.split(",")))
    if not set(values) <= set(_VALUES):
        raise ValueError(f"not one of {', '.join(_VALUES)}")
    return values


def _buffers(text: str) -> tuple[int, ...]:
    buffer = within(_LEAST_BUFFER, _MOST_BUFFER, int)
    return tuple(int(str(buffer(part))) for part in text.split(",") if part)


EXPERIMENT = Experiment(
    name="quickack-toggle",
    summary="TCP_QUICKACK in six kinds of traffic: every ACK's delay, and what ends quick ACKs or brings them back",
    ask=_ask,
    settings={
        "values": _VALUES,
        "buffer": 65536,
        "buffers": (2048, 4096, 8192, 16384, 32768, 65536),
        "family": 4,
        "port": 7000,
    },
    readers={
        "values": _values,
        "buffer": within(16384, _MOST_BUFFER, int),
        "buffers": _buffers,
        "family": family,
        "port": within(1, 65534, int),
    },
    hints={
        "values": f"give some of {','.join(_VALUES)}",
        "buffer": "give bytes from 16384 to 65536",
        "buffers": f"give bytes from {_LEAST_BUFFER} to {_MOST_BUFFER}, for example 8192,65536, or nothing",
        "family": "say 4 or 6",
        "port": "give a port from 1 to 65534",
    },
    needs="tcpdump, iptables and NFQUEUE",
    takes="about 10 seconds",
)
