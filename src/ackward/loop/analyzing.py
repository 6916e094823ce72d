"""From the names of capture files to their diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ackward.capture.framing import Progress
from ackward.capture.reading import WireCapture, read_captures
from ackward.capture.sources import find
from ackward.errors import UsageError
from ackward.loop.port_ranges import one_port

if TYPE_CHECKING:
    from ackward.diagnosis.diagnose import Diagnosis


def analyze(
    names: Sequence[str | Path],
    *,
    port: int | None = None,
    host: str | None = None,
    flow: str | Sequence[str] | None = None,
    vxlan: int | None = None,
    progress: Progress | None = None,
    annotated: Path | None = None,
) -> Diagnosis:
    """Explain the traffic in captures: files, directories, patterns, or ``-`` for standard input.

    ``port`` and ``host`` keep only connections that have it at either end, ``flow`` only those named by one end
    (``"10.0.0.1:5432"``) or by both (``"[::1]:40001-[::1]:80"``), or by one of several such names. ``vxlan`` is the UDP
    port of tunnels whose inner packets are meant too. ``annotated`` is where to write the captures again, as one pcapng
    file with comments on the packets of stalls. Needs no privileges and runs on any system.
    """
    one_port(port)
    _one_udp_port(vxlan)
    sources = find(names)
    if annotated:
        from ackward.loop.annotating import annotate, check

        check(sources, annotated)
    with ThreadPoolExecutor(1) as beside:
        # To import the diagnosis takes as long as to read 500,000 packets.
        explain_capture = beside.submit(_diagnosis)
        capture = read_captures(sources, port=port, host=host, flow=flow, vxlan=vxlan, progress=progress)
    seen = explain_capture.result()(capture)
    if annotated:
        annotate(sources, capture, seen, annotated)
    return seen


def _one_udp_port(vxlan: int | None) -> None:
    if vxlan is not None and not 0 < vxlan <= 0xFFFF:
        raise UsageError(
            f"--vxlan {vxlan} is no UDP port",
            consequence="nothing was looked at",
            next_step="name one from 1 to 65535; VXLAN's own is 4789",
        )


def _diagnosis() -> Callable[[WireCapture], Diagnosis]:
    from ackward.loop.explaining import explain_capture

    return explain_capture
