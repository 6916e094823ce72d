"""Reports of the experiment ``ocean``, as they would be if every transfer took a little longer than predicted."""

from __future__ import annotations

from datetime import UTC, datetime

from ackward.model.ocean import PREDICTED, Crossing, Moments, OceanReport, Transfer, Way
from ackward.model.split import SplitPrediction
from ackward.predict.split import Leg, predict
from ackward.predict.split import Transfer as Asked

LEGS = (28.0, 214.0, 32.0)
SIZES = (100, 39_096, 50_000_000)
SLOWER = 1.004


def predicted(octets: int) -> SplitPrediction:
    """Of one size, over the ocean's legs."""
    legs = tuple(Leg(round(leg * 1e6)) for leg in LEGS)
    return predict(Asked(legs=legs, size=octets, bandwidth=50_000_000))


def transfer(way: Way, octets: int) -> Transfer:
    """One way, fetched three times: the first and the last 1 ms around the median."""
    timeline = predicted(octets).of(PREDICTED[way])
    assert timeline.client_connected_ns is not None
    expected = Moments(
        connected_ns=timeline.client_connected_ns,
        first_byte_ns=timeline.first_byte_ns,
        download_ns=timeline.download_ns,
    )

    def taken(more_ns: int) -> Moments:
        return Moments(**{key: round(ns * SLOWER) + more_ns for key, ns in expected.model_dump().items()})

    return Transfer(
        way=way,
        size_bytes=octets,
        rounds=[taken(more_ns) for more_ns in (-1_000_000, 0, 1_000_000)],
        median=taken(0),
        predicted=expected,
        first_byte_ratio=SLOWER,
        download_ratio=SLOWER,
    )


def crossed(ways: tuple[Way, ...] = tuple(Way)) -> OceanReport:
    """All sizes by these ways, as the lab runs them: a way after the other."""
    transfers = [transfer(way, octets) for way in ways for octets in SIZES]
    return OceanReport(
        made=datetime(2026, 11, 23, 2, 26, tzinfo=UTC),
        version="1.2.3",
        settings={"legs": list(LEGS), "rate": 50.0},
        kernel="Linux 6.18",
        crossings=[Crossing(loss=0.0, competing=False, transfers=transfers)],
        prediction=predicted(SIZES[1]),
        notes=["buffers are fixed"],
    )
