"""The experiment ``ocean``: transfers across the talk's ocean by each way, measured beside what the model predicts.

A small answer, three initial windows and a download, over one link with three legs of 28, 214 and 32 ms. Under
loss on the last mile, and beside a flow that competes for it, the download is smaller, so that the slowest way ends.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ackward.errors import PrivilegeMissing, Unavailable
from ackward.lab import programs
from ackward.lab.ocean_hosts import ADDRESS, Distances, Ocean, ocean
from ackward.lab.ocean_ways import LEG_BUFFER, PORT, way_across
from ackward.lab.run import Tell, Told
from ackward.model.ocean import PREDICTED, Crossing, Moments, OceanReport, Transfer, Way
from ackward.model.units import plural
from ackward.predict.split import Leg, predict
from ackward.predict.split import Transfer as Asked

_MS = 1_000_000
SMALL = 100
#: Three initial windows (RFC 6928) of full segments, as in the talk's ladder, less what the two messages of a leg that
#: was not connected beforehand take of its first windows: the last segments would need a round trip of their own.
WINDOWS = (3 * 10 - 3) * 1448
#: What the client's own buffer lets its peer send (``ocean_load``); of a gateway's buffer half is for overhead.
_CLIENT_WINDOW, _GATEWAY_WINDOW = 16 << 20, LEG_BUFFER // 2
_COMPETITOR_PORT = 7009
#: A bottleneck that two flows share, in bytes: about the last mile's own product of rate and round trip.
_SHARED_QUEUE = 300_000
_TRANSFER_SECONDS = 300
#: What setting up a way takes, and starting one load (measured on two processors).
_WAY_SECONDS, _LOAD_SECONDS = 1.5, 0.3
_FAST_OPEN = (
    "split comes sooner than predicted by a round trip of the last leg: with TCP Fast Open the SYN of the ocean's leg "
    "tells the exit where to connect, so it connects while that leg's handshake still runs; the model's split waits "
    "for its end (docs/gateway.md)"
)


def carry_out(settings: Mapping[str, Any], tell: Tell) -> OceanReport:
    """Run every transfer, on hosts of their own, and give back what was seen. Needs root."""
    if os.geteuid() != 0:
        raise PrivilegeMissing.for_this_command(
            "the lab makes network namespaces and needs root", consequence="nothing was run"
        )
    lossless = Distances(settings["legs"], settings["rate"], shared=settings["links"] == "shared")
    conditions = list(_conditions(settings, lossless))
    made = datetime.now(UTC).replace(microsecond=0)
    count = len(settings["ways"]) * sum(len(condition.rounds) for condition in conditions)
    minutes = plural(max(1, round(expected_seconds(settings) / 60)), "minute")
    tell(Told(f"{plural(count, 'transfer')}, about {minutes}"))
    numbers = itertools.count(1)

    def step(text: str) -> None:
        tell(Told(f"{next(numbers)} of {count}: {text}"))

    return OceanReport(
        made=made,
        version=version("ackward"),
        settings={
            name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()
        },
        kernel=f"{platform.system()} {platform.release()}",
        crossings=[_crossing(settings["ways"], condition, step) for condition in conditions],
        prediction=predict(_asked(lossless, WINDOWS, Way.WINDOW)),
        notes=[
            "congestion control is Reno and buffers are fixed: see docs/predict.md",
            "the better a way, the more a busy machine harms it: the delay line is a process",
            *([_FAST_OPEN] if Way.SPLIT in settings["ways"] else []),
        ],
    )


@dataclass(frozen=True)
class _Condition:
    """Under what the ways are compared, and how often each size is fetched by each."""

    distances: Distances
    competing: bool
    rounds: Mapping[int, int]

    def __str__(self) -> str:
        if self.competing:
            return "another flow on the last mile"
        return f"{self.distances.loss:.1%} lost on the last mile" if self.distances.loss else "without loss"


def _conditions(settings: Mapping[str, Any], lossless: Distances) -> Iterator[_Condition]:
    often = {SMALL: settings["rounds"], WINDOWS: settings["rounds"]}
    harmed = often | {settings["harmed_size"]: settings["downloads"]}
    for loss in settings["losses"]:
        rounds = harmed if loss else often | {settings["size"]: settings["downloads"]}
        yield _Condition(replace(lossless, loss=loss), competing=False, rounds=rounds)
    if settings["competing"]:
        yield _Condition(replace(lossless, queue=_SHARED_QUEUE), competing=True, rounds=harmed)


def expected_seconds(settings: Mapping[str, Any]) -> float:
    """About how long a run takes: what its transfers are predicted to take, and what starts its programs."""
    seconds = 0.0
    for condition in _conditions(settings, Distances(settings["legs"], settings["rate"])):
        for way in settings["ways"]:
            seconds += _WAY_SECONDS
            for size, rounds in condition.rounds.items():
                download = _expected(condition.distances, way, size).download_ns / 1e9
                seconds += rounds * download + _LOAD_SECONDS
    return seconds


def _crossing(ways: Sequence[Way], condition: _Condition, step: Callable[[str], None]) -> Crossing:
    distances, competing = condition.distances, condition.competing
    transfers: list[Transfer] = []
    with ocean(distances) as made, _server(made, "server", PORT), _server(made, "entry", _COMPETITOR_PORT):
        for way in ways:
            with way_across(made, way) as address:
                for size, rounds in condition.rounds.items():
                    step(f"{way}, {size:,} bytes, {condition}")
                    with _competitor(made) if competing else nullcontext():
                        seen = _fetch(made, address, size, rounds)
                    transfers.append(_transfer(distances, way, size, seen, predicted=not competing))
    return Crossing(loss=distances.loss, competing=competing, transfers=transfers)


@contextmanager
def _server(ocean: Ocean, place: str, port: int) -> Iterator[None]:
    with programs.ready(
        ocean.hosts[place],
        "ackward.lab.ocean_load",
        "serve",
        str(port),
        name="the server",
        consequence="nothing was measured",
    ):
        yield


@contextmanager
def _competitor(ocean: Ocean) -> Iterator[None]:
    """A download from the near gateway's host, 28 ms away, for as long as the measured one takes."""
    process = _load(ocean, "client", "flood", ADDRESS["entry"], str(_COMPETITOR_PORT))
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def _load(ocean: Ocean, place: str, *arguments: str) -> subprocess.Popen[str]:
    return programs.start(ocean.hosts[place], "ackward.lab.ocean_load", *arguments)


def _fetch(ocean: Ocean, address: str, size: int, rounds: int) -> list[Moments]:
    process = _load(ocean, "client", "fetch", address, str(PORT), str(size), str(rounds))
    output, complaint = programs.finish(process, _TRANSFER_SECONDS)
    moments = [tuple(map(int, line.split())) for line in output.splitlines()]
    if len(moments) != rounds:
        raise Unavailable(
            f"a transfer of {size} bytes from {address} failed: {complaint.strip() or 'it took too long'}",
            consequence="the ways cannot be compared",
            next_step="try a smaller --set size or harmed_size",
        )
    return [Moments(connected_ns=a, first_byte_ns=b, download_ns=c) for a, b, c in moments]


def _transfer(distances: Distances, way: Way, size: int, seen: list[Moments], *, predicted: bool) -> Transfer:
    median = Moments(
        **{
            field: int(statistics.median(getattr(each, field) for each in seen))
            for field in Moments.model_fields
        }
    )
    expected = _expected(distances, way, size) if predicted else None
    return Transfer(
        way=way,
        size_bytes=size,
        rounds=seen,
        median=median,
        predicted=expected,
        first_byte_ratio=median.first_byte_ns / expected.first_byte_ns if expected else None,
        download_ratio=median.download_ns / expected.download_ns if expected else None,
    )


def _asked(distances: Distances, size: int, way: Way) -> Asked:
    losses = (distances.loss, 0.0, 0.0)
    return Asked(
        legs=tuple(Leg(round(rtt * _MS), loss) for rtt, loss in zip(distances.legs, losses, strict=True)),
        size=size,
        bandwidth=round(distances.rate * 1e6),
        receive_window=_CLIENT_WINDOW if way is Way.DIRECT else _GATEWAY_WINDOW,
    )


def _expected(distances: Distances, way: Way, size: int) -> Moments:
    timeline = predict(_asked(distances, size, way)).of(PREDICTED[way])
    assert timeline.client_connected_ns is not None
    return Moments(
        connected_ns=timeline.client_connected_ns,
        first_byte_ns=timeline.first_byte_ns,
        download_ns=timeline.download_ns,
    )
