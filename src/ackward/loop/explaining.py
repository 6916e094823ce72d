"""Explain what was read from captures: the same diagnosis as for live sockets, from packets alone."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ackward.capture.reading import WireCapture
from ackward.capture.wire_flows import WireFlows as CapturedFlows
from ackward.diagnosis.clocks import Clock
from ackward.diagnosis.diagnose import Diagnosis, explain
from ackward.diagnosis.flows import SEEN_FROM, Flows
from ackward.diagnosis.joining import join_captures
from ackward.diagnosis.traffic import Traffic
from ackward.diagnosis.wire import WireFlows, captured
from ackward.model.report import Capture

#: Of an end whose SYN was not captured: what Ethernet allows.
MOST = 1460


def explain_capture(capture: WireCapture) -> Diagnosis:
    """Explain what was read."""
    traffic, clocks = _traffic(_known(capture.flows), capture)
    times = capture.segments["time_ns"]
    notes = [*_places(traffic.flows), *clocks, *map(str, capture.problems)]
    notes += [f"{count:,} packets left out: {what}" for what, count in capture.skipped.items() if count]
    facts = Capture(
        source=", ".join(source.name for source in capture.sources),
        seconds=round((int(times.max()) - int(times.min())) / 1e9, 3) if len(times) else 0.0,
        flows=len(traffic.flows),
        segments=len(traffic),
        notes=notes,
    )
    return explain(traffic, facts)


def _known(flows: CapturedFlows) -> WireFlows:
    table = flows.table
    mss = np.minimum(
        *(np.where(table[name] == 0, MOST, table[name]) for name in ("client_mss", "server_mss"))
    )
    clients, servers = table["client"].tolist(), table["server"].tolist()
    return WireFlows(
        flows.addresses("client"),
        flows.addresses("server"),
        mss.astype(np.int64),
        table["mptcp"],
        lambda number: (flows.endpoint(clients[number]), flows.endpoint(servers[number])),
    )


def _traffic(known: WireFlows, capture: WireCapture) -> tuple[Traffic, list[str]]:
    """The flows and their rows; of two captures of the same traffic, both ends on one clock."""
    if len(capture.sources) == 2:
        border = capture.sources[1].first_packet
        of_first = capture.segments["packet"] < border
        joined = join_captures(known, capture.segments[of_first], capture.segments[~of_first])
        if joined:
            one, other = (source.name for source in capture.sources)
            told = f"two views of {joined.pairs:,} flows: by the clock of {one}, {clock_in_words(other, joined.clock)}"
            return Traffic.of(joined.flows, joined.rows), [told]
    return captured(known, capture.segments), []


def clock_in_words(name: str, clock: Clock) -> str:
    """How the clock of a capture runs by that of the other one, in words."""
    ahead, drift, steps = int(clock.ahead[0]), clock.drift[0] * 1e6, clock.steps
    words = f"the clock of {name} is {ahead / 1e6:+.3f} ms ahead"
    if abs(drift) >= 0.05:
        words += f" at the start and {'gains' if drift > 0 else 'loses'} {abs(drift):.1f} ppm"
    if len(steps):
        largest = int(steps[np.abs(steps).argmax()])
        words += (
            f"; later it steps or changes its pace (times: {len(steps):,}), by up to {largest / 1e6:+.3f} ms"
        )
    return words


def _places(flows: Flows) -> list[str]:
    """Where the capture was taken, in words."""
    words = {
        "client": "at the client",
        "server": "at the server",
        "between": "between the hosts, or too near to tell",
        "both": "at both ends",
    }
    counts = Counter(SEEN_FROM[place] for place in flows.seen_from.tolist())
    return [
        f"captured {words[place]}: {count:,} of {len(flows):,} flows" for place, count in counts.most_common()
    ]
