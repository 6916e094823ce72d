"""Explain capture files: the same diagnosis as for live sockets, from packets alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ackward.capture.framing import Progress
from ackward.capture.reading import WireCapture, read_captures
from ackward.capture.sources import find
from ackward.diagnosis.diagnose import Diagnosis, explain
from ackward.diagnosis.flows import Flow
from ackward.diagnosis.joining import join_captures
from ackward.diagnosis.wire import WireFlow, view
from ackward.loop.annotating import annotate, check
from ackward.model.report import Capture
from ackward.model.segments import Segments

#: Of an end whose SYN was not captured: what Ethernet allows.
MOST = 1460


def analyze(
    names: Sequence[str | Path],
    *,
    port: int | None = None,
    host: str | None = None,
    vxlan: int | None = None,
    progress: Progress | None = None,
    annotated: Path | None = None,
) -> Diagnosis:
    """Explain the traffic in captures: files, directories, patterns, or ``-`` for standard input.

    ``port`` and ``host`` keep only connections that have it at either end; ``vxlan`` is the UDP port of tunnels whose
    inner packets are meant too. ``annotated`` is where to write the captures again, as one pcapng file with comments on
    the packets of stalls. Needs no privileges and runs on any system.
    """
    sources = find(names)
    if annotated:
        check(sources, annotated)
    capture = read_captures(sources, port=port, host=host, vxlan=vxlan, progress=progress)
    seen = explain_capture(capture)
    if annotated:
        annotate(sources, capture, seen, annotated)
    return seen


def explain_capture(capture: WireCapture) -> Diagnosis:
    """Explain what was read."""
    known = [
        WireFlow(
            flow.client,
            flow.server,
            flow.role_seen,
            min(flow.client_mss or MOST, flow.server_mss or MOST),
            flow.mptcp,
        )
        for flow in capture.flows
    ]
    flows, rows, clocks = _views(known, capture)
    times = capture.segments["time_ns"]
    notes = [*_places(flows), *clocks, *map(str, capture.problems)]
    notes += [
        f"{count:,} packets are no segments: {what}" for what, count in capture.skipped.items() if count
    ]
    facts = Capture(
        source=", ".join(source.name for source in capture.sources),
        seconds=round((int(times.max()) - int(times.min())) / 1e9, 3) if len(times) else 0.0,
        flows=len(flows),
        segments=len(rows),
        notes=notes,
    )
    return explain(flows, rows, facts)


def _views(known: Sequence[WireFlow], capture: WireCapture) -> tuple[tuple[Flow, ...], Segments, list[str]]:
    """The flows and rows; of two captures of the same traffic, both ends on one clock."""
    if len(capture.sources) == 2:
        border = capture.sources[1].first_packet
        of_first = capture.segments["packet"] < border
        joined = join_captures(
            view(known, capture.segments[of_first]), view(known, capture.segments[~of_first])
        )
        if joined:
            one, other = (source.name for source in capture.sources)
            ahead = f"the clock of {other} is {joined.offset_ns / 1e6:+.3f} ms from that of {one}"
            return joined.flows, joined.rows, [f"two views of {joined.pairs:,} flows: {ahead}"]
    return (*view(known, capture.segments), [])


def _places(flows: Sequence[Flow]) -> list[str]:
    """Where the capture was taken, in words."""
    words = {
        "client": "at the client",
        "server": "at the server",
        "between": "between the hosts, or too near to tell",
        "both": "at both ends",
    }
    counts = Counter(flow.seen_from for flow in flows)
    return [
        f"captured {words[place]}: {count:,} of {len(flows):,} flows" for place, count in counts.most_common()
    ]
