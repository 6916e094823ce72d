"""A receiver that holds its ACKs as Onload does (EF_DYNAMIC_ACK_THRESH), before a sender of this kernel.

``--set threshold=16 --set delay=40ms --set cc=cubic``. The client's route has ``quickack 1``, so its kernel gives out
one ACK a segment, and the link keeps all but the newest of ``threshold`` of them, or until ``delay`` is over. What
carries data or tells of a duplicate passes at once (RFC 5681 section 4.2). Threshold 1 is an ACK a segment; 0 holds
nothing and leaves the client its own delayed ACKs, as EF_DYNAMIC_ACK_THRESH=0 does.

Each answer of 30 segments begins after a rest with a window of ten: fewer than the threshold, so the sender stands
still until its probe and then until the timer. The answer's end is no full threshold either, and nothing follows: its
probe then repeats a segment that had arrived. With ``dsack=off`` the client cannot tell so (RFC 2883), and each
needless probe costs the sender a part of its window (tcp_process_tlp_ack()).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Self

from ackward.lab.peer import Shape
from ackward.lab.scenario import HINTS, READERS, Excuse, Scenario, read_settings, switch, within
from ackward.lab.wan import Line, Wan
from ackward.model.causes import Cause, End

#: One way, milliseconds: far above the hosts' own time, far below the least probe timeout.
DELAY = 2.0
#: A full segment over the lab's veth: 1500 bytes less headers and timestamps.
FULL = 1448
MOST_HELD = 65_535  # EF_DYNAMIC_ACK_THRESH's own maximum
_READERS = {
    "threshold": within(0, MOST_HELD, int),
    "delay": lambda text: within(1, 10_000, float)(text.removesuffix("ms")),
    "dsack": switch,
}
_HINTS = {
    "threshold": f"give segments from 0 to {MOST_HELD}",
    "delay": "give milliseconds from 1 to 10000, for example 40ms",
    "dsack": "say on or off",
}


@dataclass(frozen=True)
class HeldShape(Shape):
    """The load, and how the client's ACKs are held: ``threshold`` segments, ``delay`` in milliseconds."""

    threshold: int = 16
    delay: float = 40.0
    dsack: bool = True

    def to_json(self) -> str:
        """For the two halves of the load, which know nothing of the link between them."""
        return Shape(**{name: value for name, value in asdict(self).items() if name not in _HINTS}).to_json()


@dataclass(frozen=True)
class AckHolding(Scenario):
    """A scenario whose link follows its shape."""

    def with_settings(self, settings: Iterable[str]) -> Self:
        """Also ``threshold``, ``delay`` (with or without ``ms``), ``dsack``, and ``cc`` for ``congestion``."""
        spelt = [
            f"congestion={setting.removeprefix('cc=')}" if setting.startswith("cc=") else setting
            for setting in settings
        ]
        given = read_settings(self.name, spelt, {**_READERS, **READERS}, {**HINTS, **_HINTS})
        assert isinstance(self.shape, HeldShape)
        return self.of(replace(self.shape, **given))  # type: ignore[arg-type]  # keys are HeldShape's own

    def of(self, shape: HeldShape) -> Self:
        """The scenario with this shape, and the link and the route that it asks for."""
        holds = shape.threshold > 1
        to_server = (
            Line(DELAY, thin=shape.threshold, thin_hold=shape.delay, thin_size=FULL) if holds else Line(DELAY)
        )
        return replace(
            self,
            shape=shape,
            wan=Wan(to_server, Line(DELAY)),
            client_metrics=("quickack", "1") if shape.threshold else (),
            sysctls={**self.sysctls, "net.ipv4.tcp_dsack": str(int(shape.dsack))},
        )


SCENARIO = AckHolding(
    name="ack-holding",
    summary="a receiver acknowledges sixteen segments at once, or after 40 ms: needless probes, a sender that waits",
    shape=HeldShape(),
    cause=Cause.ACK_HOLDING,
    holding_end=End.SERVER,
    seen_from={End.CLIENT: Cause.UNKNOWN},
    also=(
        Excuse(Cause.TAIL_LOSS_PROBE),
        Excuse(Cause.IDLE_RESTART),
        Excuse(Cause.SLOW_START),
        Excuse(Cause.CONGESTION_WINDOW),
    ),
    # After a rest longer than the retransmission timeout the window is ten again (tcp_cwnd_restart()).
    sysctls={"net.ipv4.tcp_slow_start_after_idle": "1"},
).of(
    HeldShape(
        pings=1,
        sizes=(100,),
        answer=30 * FULL,
        nagle=False,
        rest=600.0,
        rounds=10,
        congestion="cubic",
        threshold=16,
    )
)
