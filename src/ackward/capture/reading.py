"""Reads capture files: bytes -> frames -> segments -> flows. Works on any system and needs no privilege.

Memory is 56 bytes a segment, about as much again of 8-byte columns while they are sorted, and a few megabytes
of buffers however long the files are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ackward.capture.frames import Frames, Problem
from ackward.capture.framing import Framing, Progress
from ackward.capture.headers import VXLAN_PORT, Layers
from ackward.capture.interning import Interning
from ackward.capture.octets import Octets, distinct
from ackward.capture.rows import Rows
from ackward.capture.selection import Selection
from ackward.capture.sources import Source, Stream, Unreadable, some
from ackward.capture.tcp_headers import HANDSHAKE, decode
from ackward.capture.wire_flows import WireFlows, assign
from ackward.errors import UsageError
from ackward.model.units import plural

#: The busiest ends that are named where nothing was asked for that there is.
MOST_ENDS_TOLD = 4


@dataclass(frozen=True)
class ReadSource:
    """One file as it was read.

    ``first_packet`` is the number of its first packet among the packets of all sources, by which segments are
    numbered; ``lost`` counts the packets that the capturing program lost, null if it does not say.
    """

    name: str
    packets: int
    first_packet: int
    interfaces: tuple[str, ...]
    lost: int | None


@dataclass(frozen=True)
class WireCapture:
    """What was read from one or more capture files.

    ``segments`` (of dtype ``WIRE_SEGMENT``) are sorted by flow and then by their order in the file; by time
    instead if several files or interfaces were merged. ``skipped`` counts packets by the reason why they are
    no segments. ``truncated``: the capture kept less than whole packets.
    """

    segments: NDArray[Any]
    flows: WireFlows
    sources: tuple[ReadSource, ...]
    skipped: dict[str, int]
    problems: tuple[Problem, ...]
    truncated: bool
    link_types: tuple[int, ...]

    @property
    def packets(self) -> dict[str, int]:
        """How many packets each source holds."""
        return {source.name: source.packets for source in self.sources}


def read_captures(
    sources: Sequence[Source],
    *,
    port: int | None = None,
    host: str | None = None,
    flow: str | Sequence[str] | None = None,
    vxlan: int | None = None,
    progress: Progress | None = None,
) -> WireCapture:
    """The segments and flows in these files.

    Only those of one ``port``, ``host`` (an address) or ``flow`` (or one of several) if given, as :class:`Selection`
    reads them; of the packets inside VXLAN tunnels to UDP port ``vxlan`` too. What cannot be read is a problem in the
    result; raises :class:`UsageError` if none of the files can be read.
    """
    reader = _Reader(Selection.asked(port, host, flow), vxlan, progress)
    for source in sources:
        reader.read(source)
    if not reader.sources:
        raise _unreadable(reader.problems)
    return reader.capture()


def _unreadable(problems: Sequence[Problem]) -> UsageError:
    """None of the files can be read; one may have more than one problem."""
    words = [
        f"{problem.file}: {problem.what}" + (f" (byte {problem.offset})" if problem.offset else "")
        for problem in problems
    ]
    known = (problem.next_step for problem in problems if problem.next_step)
    return UsageError(
        some(words, "; "),
        consequence="nothing was read",
        next_step=next(known, "name a pcap or pcapng file, plain or compressed with gzip, zstd or lz4"),
    )


class _Reader:
    """What was read so far."""

    def __init__(self, selection: Selection, vxlan: int | None, progress: Progress | None) -> None:
        self.sources: list[ReadSource] = []
        self.problems: list[Problem] = []
        self._selection = selection
        self._progress = progress
        self._layers = Layers(vxlan=vxlan)
        self._tunnels = False
        self._pairs = Interning()
        self._mptcp = np.zeros(1 << 12, np.bool_)
        self._rows = Rows()
        self._handshakes: list[NDArray[Any]] = []
        self._packets = 0
        self._vantages: set[tuple[int, int]] = set()
        self._links: set[int] = set()
        self._truncated = False

    def read(self, source: Source) -> None:
        """Reads one file to its end, or to where it makes no sense any more."""
        try:
            with source.open() as stream:
                self._read(source, stream)
        except Unreadable as unreadable:
            done = "the file was left out"
            self.problems.append(Problem(source.name, None, str(unreadable), done, unreadable.next_step))

    def _read(self, source: Source, stream: Stream) -> None:
        framing = Framing(source, stream, self._progress)
        clock = _Clock()
        packets = self._packets
        for chunk in framing:
            if len(chunk.frames):
                self._packets = packets + int(chunk.frames.number[-1]) + 1
                clock.watch(chunk.frames, chunk.offset)
                self._take(chunk.octets, chunk.frames, packets)
        self.problems += framing.problems
        form = framing.form
        if form is None:
            return
        if self._packets == packets and not framing.problems:
            self.problems.append(Problem(source.name, None, "it holds no packets", "it adds nothing"))
        self.sources.append(
            ReadSource(source.name, self._packets - packets, packets, tuple(form.interfaces), form.lost)
        )
        self.problems += [*form.problems(source.name), *clock.problems(source.name)]

    def _take(self, octets: Octets, frames: Frames, first_packet: int) -> None:
        """Adds the segments in these frames."""
        before, passed = self._rows.count, self._layers.passed_tunnels
        decoded = decode(octets, frames, self._layers, self._selection, self._rows)
        if self._layers.passed_tunnels > passed and not self._tunnels:
            self._tunnels = bool(Layers(vxlan=VXLAN_PORT).segments(octets, frames).tunnel.any())
        self._links.update(distinct(frames.link))
        self._truncated |= decoded.cut or bool((frames.captured < frames.original).any())
        rows = decoded.rows
        if not len(rows):
            return
        low = np.minimum(decoded.source, decoded.destination)
        pair = self._pairs.number(np.maximum(decoded.source, decoded.destination), low)
        rows["flow"] = pair
        rows["to_server"] = decoded.source == low
        rows["packet"] += first_packet
        decoded.handshakes["row"] += before
        self._handshakes.append(decoded.handshakes)
        if self._pairs.count > len(self._mptcp):
            self._mptcp = np.concatenate([self._mptcp, np.zeros(self._pairs.count, np.bool_)])
        self._mptcp[pair[decoded.mptcp]] = True
        if len(self._vantages) < 2:  # more make no difference, and a file may have tens of thousands
            interfaces = frames.interface[decoded.frame]
            self._vantages.update((len(self.sources), number) for number in distinct(interfaces))

    def _hints(self) -> list[Problem]:
        """What to ask for instead, where what was asked for left out what it may have been about."""
        files = some([source.name for source in self.sources])
        hints = []
        if ends := self._selection.instead(self._layers, MOST_ENDS_TOLD):
            busiest = ", ".join(f"{end} ({plural(count, 'packet')})" for end, count in ends)
            what = "no packet is of a connection that was asked for"
            hints.append(Problem(files, None, what, f"the busiest ends are {busiest}"))
        if self._tunnels:
            what = f"UDP {VXLAN_PORT} carries TCP in VXLAN tunnels, which was left out"
            hints.append(Problem(files, None, what, f"try --vxlan {VXLAN_PORT}"))
        return hints

    def capture(self) -> WireCapture:
        """All of it, sorted into flows."""
        handshakes = np.concatenate(self._handshakes) if self._handshakes else np.zeros(0, HANDSHAKE)
        by_time = len(self._vantages) > 1
        rows, table = assign(self._rows, self._pairs, handshakes, self._mptcp, by_time=by_time)
        for link in sorted(self._layers.unknown_links):
            names = some([source.name for source in self.sources])
            self.problems.append(
                Problem(names, None, f"link layer {link} is not understood", "its packets were left out")
            )
        self.problems += self._hints()
        return WireCapture(
            segments=rows,
            flows=WireFlows(table, self._layers),
            sources=tuple(self.sources),
            skipped={reason: count for reason, count in sorted(self._layers.skipped.items()) if count},
            problems=tuple(self.problems),
            truncated=self._truncated,
            link_types=tuple(sorted(self._links)),
        )


class _Clock:
    """Watches for times that go back; packets of different interfaces may interleave."""

    def __init__(self) -> None:
        self._last = np.zeros(0, np.int64)  # of each interface
        self._seen = np.zeros(0, np.bool_)
        self._steps = 0
        self._largest = 0
        self._first: int | None = None

    def watch(self, frames: Frames, offset: int) -> None:
        """The next frames of the file. However many interfaces they came from, they are gone through once."""
        interface, times, start = frames.interface, frames.time_ns, frames.start
        if (interface != interface[0]).any():
            order = np.argsort(interface, kind="stable")
            interface, times, start = interface[order], times[order], start[order]
        missing = max(int(interface[-1]) + 1 - len(self._last), 0)
        self._last, self._seen = np.pad(self._last, (0, missing)), np.pad(self._seen, (0, missing))
        begins = np.append(0, np.flatnonzero(interface[1:] != interface[:-1]) + 1)
        mine = interface[begins]
        before = np.append(0, times[:-1])
        before[begins] = np.where(self._seen[mine], self._last[mine], times[begins])
        self._last[mine], self._seen[mine] = times[np.append(begins[1:], len(times)) - 1], True
        steps = times - before
        back = steps < 0
        if back.any():
            self._steps += int(np.count_nonzero(back))
            self._largest = max(self._largest, -int(steps.min()))
            if self._first is None:
                self._first = offset + int(start[back].min())

    def problems(self, file: str) -> list[Problem]:
        """What to tell of it."""
        if not self._steps:
            return []
        what = f"the clock goes back (times: {self._steps:,}), by up to {self._largest / 1e9:.9f} s"
        done = "packets of one interface were kept in the order of the file"
        return [Problem(file, self._first, what, done)]
