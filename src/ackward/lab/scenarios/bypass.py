"""What a bypass of the stack is worth on this host: qperf as in the document, then real servers, with and without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ackward.lab.experiment import Experiment, ReportAnswer
from ackward.lab.scenario import family, within

if TYPE_CHECKING:
    from ackward.lab.run import Tell

_SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
_SERVERS = ("nginx", "redis", "postgresql")
_JOINS = ("learned", "all")


def _ask(settings: Mapping[str, Any], tell: Tell) -> ReportAnswer:
    from ackward.lab.bypass import carry_out

    return ReportAnswer(carry_out(settings, tell), "bypass")


def _sizes(text: str) -> tuple[int, ...]:
    size = within(1, 1 << 20, int)
    return tuple(int(str(size(part))) for part in text.split(",") if part)


def _servers(text: str) -> tuple[str, ...]:
    servers = tuple(dict.fromkeys(part for part in text.split(",") if part))
    if not set(servers) <= set(_SERVERS):
        raise ValueError(f"not one of {', '.join(_SERVERS)}")
    return servers


def _joins(text: str) -> str:
    if text not in _JOINS:
        raise ValueError(f"not one of {', '.join(_JOINS)}")
    return text


EXPERIMENT = Experiment(
    name="bypass",
    summary="same-host connections joined past the stack: qperf's latency and bandwidth, then nginx, Redis, PostgreSQL",
    ask=_ask,
    settings={
        "sizes": _SIZES,
        "servers": _SERVERS,
        "joins": "all",
        "seconds": 1,
        "turns": 3,
        "family": 4,
    },
    readers={
        "sizes": _sizes,
        "servers": _servers,
        "joins": _joins,
        "seconds": within(1, 60, int),
        "turns": within(1, 100, int),
        "family": family,
    },
    hints={
        "sizes": "give bytes from 1 to 1048576, for example 64,1024, or nothing",
        "servers": f"give some of {','.join(_SERVERS)}, or nothing",
        "joins": "say learned (connections that profit, as `fix bypass` does) or all",
        "seconds": "give whole seconds from 1 to 60 for each measurement",
        "turns": "give how often TCP and bypass are measured in turn, from 1 to 100",
        "family": "say 4 or 6",
    },
    needs="qperf (or --set sizes=); nginx and wrk, redis-server and redis-tools, postgresql: a server that is not "
    "installed is left out",
    takes="about 2.5 minutes: each size (latency, bandwidth) and server `turns` times `seconds`, with and without",
)
