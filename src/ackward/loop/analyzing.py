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
from ackward.diagnosis.wire import WireFlow, view
from ackward.model.report import Capture

#: Of an end whose SYN was not captured: what Ethernet allows with timestamps (RFC 6691).
MOST = 1448


def analyze(
    names: Sequence[str | Path],
    *,
    port: int | None = None,
    host: str | None = None,
    vxlan: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Explain the traffic in captures: files, directories, patterns, or ``-`` for standard input.

    ``port`` and ``host`` keep only connections that have it at either end; ``vxlan`` is the UDP port of tunnels whose
    inner packets are meant too. Needs no privileges and runs on any system.
    """
    return explain_capture(read_captures(find(names), port=port, host=host, vxlan=vxlan, progress=progress))


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
    flows, rows = view(known, capture.segments)
    times = capture.segments["time_ns"]
    notes = [str(problem) for problem in capture.problems]
    notes += [
        f"{count:,} packets are no segments: {what}" for what, count in capture.skipped.items() if count
    ]
    notes[:0] = _places(flows)
    facts = Capture(
        source=", ".join(source.name for source in capture.sources),
        seconds=round((int(times.max()) - int(times.min())) / 1e9, 3) if len(times) else 0.0,
        flows=len(flows),
        segments=len(rows),
        notes=notes,
    )
    return explain(flows, rows, facts)


def _places(flows: Sequence[Flow]) -> list[str]:
    """Where the capture was taken, in words."""
    words = {
        "client": "at the client",
        "server": "at the server",
        "between": "between the hosts, or too near to tell",
    }
    counts = Counter(flow.seen_from for flow in flows)
    return [
        f"captured {words[place]}: {count:,} of {len(flows):,} flows" for place, count in counts.most_common()
    ]
