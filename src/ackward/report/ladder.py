"""The ladder diagram: one exchange, the client's line left, the server's right, time downward.

Laws, each held by a property test:

- Time only goes down: of two moments the later one is drawn lower.
- Time is to scale: the median flight of a segment is ``FLIGHT`` high and all else in proportion. But an
  interval lower than ``LEAST`` is drawn ``LEAST`` high, so that order can be seen; and one higher than
  ``QUIET`` grows only with its logarithm (``DECADE`` for each factor of ten): a break in both lines marks it
  and carries its duration.
- Where segments are left out between two steps, a dotted line across says so and a label how many.
- Labels of one column never overlap, keep the order of their moments and lie as near to them as that allows.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree as ET

from ackward.model import names, units
from ackward.model.causes import Cause, End
from ackward.model.report import Ladder, LadderStep, Stall

FLIGHT = 30.0
LEAST = 4.0
QUIET = 84.0
DECADE = 30.0

#: Steps that are drawn. A transfer of thousands of segments keeps those nearest to its stalls.
MOST_STEPS = 80

# Geometry in user units of the SVG; the page shows one as one CSS pixel where there is room.
_GUTTER = 158.0
_BETWEEN = 204.0
_WIDTH = 2 * _GUTTER + _BETWEEN
_TOP = 44.0
_BOTTOM = 16.0
_LINE = 15.0
_GAP = 12.0  # from a life line to the label beside it
_LABEL_LETTERS = 21  # of 12 px text in a gutter
_INNER_LETTERS = 15  # of 12 px text in half of the space between the lines

_X = {End.CLIENT: _GUTTER, End.SERVER: _GUTTER + _BETWEEN}
_WHAT = {"write-held": "write held", "ack-timer": "ACK timer", "read": "read"}

#: Steps of one end that lie closer may share a label if they are a run: data in sequence, or bare ACKs.
_RUN = 2 * _LINE


@dataclass(frozen=True)
class Scale:
    """Maps moments (ns) to heights. ``moments`` ascend, and so do ``heights``."""

    moments: tuple[int, ...]
    heights: tuple[float, ...]
    breaks: tuple[tuple[int, int], ...]

    def height(self, moment: int) -> float:
        """The height of one of ``moments``, or of a moment between two of them."""
        at = min(max(bisect_right(self.moments, moment) - 1, 0), len(self.moments) - 2)
        start, end = self.moments[at], self.moments[at + 1]
        fraction = (moment - start) / (end - start)
        return self.heights[at] + fraction * (self.heights[at + 1] - self.heights[at])


@dataclass(frozen=True)
class Label:
    """Lines of text that want to stand beside the height ``wanted`` and stand with their top at ``top``."""

    lines: tuple[str, ...]
    wanted: float
    top: float = 0.0

    @property
    def tall(self) -> float:
        """The height that the lines take, with the space that keeps them from the next label."""
        return len(self.lines) * _LINE + 3


def scale_of(ladder: Ladder) -> Scale:
    """The time axis of ``ladder``: see the laws at the top of this module."""
    points = {0, ladder.elapsed_ns, *(step.at_ns for step in ladder.steps)}
    points |= {step.arrives_ns for step in ladder.steps if step.arrives_ns is not None}
    points |= {moment for stall in ladder.stalls for moment in (stall.start_ns, stall.end_ns)}
    moments = sorted(points)
    if len(moments) == 1:
        moments.append(moments[0] + 1)
    gaps = [end - start for start, end in pairwise(moments)]
    flights = [step.arrives_ns - step.at_ns for step in ladder.steps if step.arrives_ns is not None]
    unit = statistics.median([flight for flight in flights if flight > 0] or gaps)
    heights = [0.0]
    breaks = []
    for start, end in pairwise(moments):
        linear = (end - start) / unit * FLIGHT
        quiet = linear > QUIET
        if quiet:
            breaks.append((start, end))
        heights.append(
            heights[-1] + (QUIET + DECADE * math.log10(linear / QUIET) if quiet else max(linear, LEAST))
        )
    return Scale(tuple(moments), tuple(heights), tuple(breaks))


def place(labels: Sequence[Label], *, above: float = 0.0) -> list[Label]:
    """Move labels as little as possible (least squares) so that none overlaps or rises over ``above``.

    With each label's own offset in the stack taken off, this is isotonic regression: pool adjacent violators.
    """
    order = sorted(range(len(labels)), key=lambda index: labels[index].wanted)
    offsets: list[float] = []
    stacked = 0.0
    pools: list[tuple[float, int]] = []  # the mean of a pool of labels that touch, and how many they are
    for index in order:
        label = labels[index]
        mean, members = label.wanted - label.tall / 2 - stacked, 1
        while pools and pools[-1][0] > mean:
            earlier, others = pools.pop()
            mean = (mean * members + earlier * others) / (members + others)
            members += others
        pools.append((mean, members))
        offsets.append(stacked)
        stacked += label.tall
    means = [max(mean, above) for mean, members in pools for _ in range(members)]
    tops = {index: mean + offset for index, mean, offset in zip(order, means, offsets, strict=True)}
    return [Label(label.lines, label.wanted, tops[index]) for index, label in enumerate(labels)]


def draw(ladder: Ladder, cause: Cause, holding_end: End | None, name: str) -> str:
    """The ladder as an SVG element to stand in an HTML page, styled by the page's style sheet.

    ``name`` is unique on the page. Texts may be hostile: they are escaped here and made visible.
    """
    return _Drawing(ladder, cause, holding_end, name).svg()


def nearest_to_stalls(ladder: Ladder) -> list[LadderStep]:
    """The steps to draw, in order of time: all, or the ``MOST_STEPS`` that are nearest to a stall's ends."""
    steps = sorted(ladder.steps, key=lambda step: step.at_ns)
    if len(steps) <= MOST_STEPS:
        return steps
    ends = [moment for stall in ladder.stalls for moment in (stall.start_ns, stall.end_ns)] or [0]
    distance = {id(step): min(abs(step.at_ns - end) for end in ends) for step in steps}
    kept = {id(step) for step in sorted(steps, key=lambda step: distance[id(step)])[:MOST_STEPS]}
    return [step for step in steps if id(step) in kept]


class _Drawing:
    """One SVG under construction: what is drawn first lies below."""

    def __init__(self, ladder: Ladder, cause: Cause, holding_end: End | None, name: str) -> None:
        self.holding_end = holding_end
        self.left_out = max(0, len(ladder.steps) - MOST_STEPS)
        self.ladder = ladder.model_copy(update={"steps": nearest_to_stalls(ladder)})
        self.scale = scale_of(self.ladder)
        self.bottom = _TOP + self.scale.heights[-1]
        self.name = name
        self.root = ET.Element(
            "svg",
            {
                "class": f"ladder cause-{cause}",
                "role": "img",
                "aria-labelledby": f"{name}-title",
                "width": f"{_WIDTH:g}",
            },
        )

    def svg(self) -> str:
        title = ET.SubElement(self.root, "title", {"id": f"{self.name}-title"})
        title.text = (
            f"One exchange of {units.duration(self.ladder.elapsed_ns)} as a ladder diagram, time downward"
        )
        self._marker()
        below = self._add("g")  # life lines need the final height: filled last, drawn first
        self._stalls_and_breaks()
        for step in self.ladder.steps:
            self._mark(step)
        gaps = self._gaps(below)
        for end in End:
            self._labels(end, gaps[end])
        self._life_lines(below)
        height = self.bottom + _BOTTOM
        self.root.set("viewBox", f"0 0 {_WIDTH:g} {height:.0f}")
        self.root.set("height", f"{height:.0f}")
        return ET.tostring(self.root, encoding="unicode")

    def _add(self, tag: str, parent: ET.Element | None = None, **attributes: str | float) -> ET.Element:
        written = {
            name.rstrip("_").replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else value
            for name, value in attributes.items()
        }
        return ET.SubElement(self.root if parent is None else parent, tag, written)

    def _text(self, x: float, y: float, text: str, class_: str, anchor: str = "start") -> None:
        self._add("text", x=x, y=y, class_=class_, text_anchor=anchor).text = names.visible(text)

    def _marker(self) -> None:
        marker = self._add(
            "marker", id=f"{self.name}-head", viewBox="0 0 8 8", refX="7.5", refY="4",
            markerWidth="8", markerHeight="8", orient="auto-start-reverse", markerUnits="userSpaceOnUse",
        )  # fmt: skip
        self._add("path", marker, d="M0 0.8 8 4 0 7.2Z", class_="head")

    def _y(self, moment: int) -> float:
        return _TOP + self.scale.height(moment)

    def _life_lines(self, below: ET.Element) -> None:
        for end, x in _X.items():
            self._text(x, 14.0, str(end), "end", "middle")
            start = 22.0
            for quiet_start, quiet_end in self.scale.breaks:
                middle = self._middle(quiet_start, quiet_end)
                self._add("line", below, x1=x, x2=x, y1=start, y2=middle - 6, class_="life")
                for shift in (-6.0, 2.0):
                    self._add("path", below, d=f"M{x - 6:.1f} {middle + shift + 4:.1f}l12 -4", class_="life")
                start = middle + 4
            self._add("line", below, x1=x, x2=x, y1=start, y2=self.bottom + 6, class_="life")
        if self.left_out:
            self.bottom += _LINE + 8
            words = f"{units.plural(self.left_out, 'step')} farther from the stall left out"
            self._text(_WIDTH / 2, self.bottom, words, "quiet", "middle")

    def _stalls_and_breaks(self) -> None:
        """Shade the stalls on the side of the end that holds; breaks are named on the other side."""
        half = _BETWEEN / 2
        holds_left = self.holding_end is not End.SERVER
        stall_x = _X[End.CLIENT] if holds_left else _X[End.SERVER] - half
        shaded_x, shaded = (stall_x, half) if self.holding_end else (_X[End.CLIENT], _BETWEEN)
        stall_labels = []
        for stall in self.ladder.stalls:
            top, end = self._y(stall.start_ns), self._y(stall.end_ns)
            lasted = stall.end_ns - stall.start_ns
            tall = max(end - top, LEAST)
            area = self._add("rect", x=shaded_x, y=top, width=shaded, height=tall, class_="stall")
            ET.SubElement(area, "title").text = names.visible(f"{stall.label}: {units.nanoseconds(lasted)}")
            words = (units.duration(lasted), *_wrapped(names.visible(stall.label), _INNER_LETTERS))
            stall_labels.append(Label(words, self._calm(stall)))
        beside_line = 4 if holds_left else -4
        self._column(stall_labels, stall_x + half / 2 + beside_line, "stalled", "middle")
        break_x = stall_x + half * (1.5 if holds_left else -0.5)
        durations = [
            Label((units.duration(end - start),), self._middle(start, end))
            for start, end in self.scale.breaks
        ]
        self._column(durations, break_x, "quiet", "middle")

    def _middle(self, start: int, end: int) -> float:
        return (self._y(start) + self._y(end)) / 2

    def _calm(self, stall: Stall) -> float:
        """Where a stall's label stands best: in the middle of its longest break, where nothing flies."""
        inside = [
            (start, end)
            for start, end in self.scale.breaks
            if stall.start_ns <= start and end <= stall.end_ns
        ]
        start, end = max(
            inside, key=lambda pause: pause[1] - pause[0], default=(stall.start_ns, stall.end_ns)
        )
        return self._middle(start, end)

    def _mark(self, step: LadderStep) -> None:
        x, y = _X[step.sender], self._y(step.at_ns)
        group = self._add("g", class_="step estimated" if step.estimated else "step")
        ET.SubElement(group, "title").text = names.visible(_exactly(step))
        if step.kind != "segment":
            self._add("circle", group, cx=x, cy=y, r=4.0, class_=f"event {step.kind}")
            return
        far = _X[End.SERVER if step.sender is End.CLIENT else End.CLIENT]
        if step.arrives_ns is not None:
            self._add(
                "line", group, x1=x, y1=y, x2=far, y2=self._y(step.arrives_ns),
                class_="data" if step.bytes else "bare", marker_end=f"url(#{self.name}-head)",
            )  # fmt: skip
            return
        # Never seen to arrive: half of the way, ended by a cross.
        lost_x, lost_y = (x + far) / 2, y + FLIGHT / 2
        self._add("line", group, x1=x, y1=y, x2=lost_x, y2=lost_y, class_="data" if step.bytes else "bare")
        self._add("path", group, d=f"M{lost_x - 5:.1f} {lost_y - 5:.1f}l10 10m0 -10l-10 10", class_="lost")
        self.bottom = max(self.bottom, lost_y + 6)

    def _gaps(self, below: ET.Element) -> dict[End, list[Label]]:
        """Mark where segments are left out; the labels, by the end that sent what follows."""
        labels: dict[End, list[Label]] = {end: [] for end in End}
        for before, step in pairwise([None, *self.ladder.steps]):
            if step is None or not step.left_out:
                continue
            y = self._middle(before.at_ns if before else step.at_ns, step.at_ns)
            self._add("line", below, x1=_X[End.CLIENT], x2=_X[End.SERVER], y1=y, y2=y, class_="gap")
            words = f"{units.plural(step.left_out, 'segment')} left out"
            labels[step.sender].append(Label(tuple(_wrapped(words, _LABEL_LETTERS)), y))
        return labels

    def _labels(self, end: End, gaps: Sequence[Label]) -> None:
        outward = -1 if end is End.CLIENT else 1
        x = _X[end]
        spans = [(gap.wanted, gap.wanted) for gap in gaps]
        labels = list(gaps)
        for run in self._runs([step for step in self.ladder.steps if step.sender is end]):
            spans.append((self._y(run[0].at_ns), self._y(run[-1].at_ns)))
            labels.append(Label(_words(run), sum(spans[-1]) / 2))
        placed = self._column(labels, x + outward * _GAP, "label", "end" if end is End.CLIENT else "start")
        for label, (first, last) in zip(placed, spans, strict=True):
            if last > first:
                self._add(
                    "path", d=f"M{x:.1f} {first:.1f}h{outward * 5}V{last:.1f}h{outward * -5}", class_="leader"
                )
            if abs(label.top + label.tall / 2 - label.wanted) > 1.5:
                start = x + outward * (5 if last > first else 0)
                end_x, end_y = x + outward * (_GAP - 3), label.top + _LINE / 2 + 1
                path = f"M{start:.1f} {label.wanted:.1f}L{end_x:.1f} {end_y:.1f}"
                self._add("path", d=path, class_="leader")

    def _runs(self, steps: Sequence[LadderStep]) -> list[list[LadderStep]]:
        runs: list[list[LadderStep]] = []
        for step in steps:
            if (
                runs
                and _continues(runs[-1][-1], step)
                and self._y(step.at_ns) - self._y(runs[-1][-1].at_ns) < _RUN
            ):
                runs[-1].append(step)
            else:
                runs.append([step])
        return runs

    def _column(self, labels: Sequence[Label], x: float, class_: str, anchor: str) -> list[Label]:
        placed = place(labels, above=_TOP - 16)
        for label in placed:
            for row, line in enumerate(label.lines):
                kind = f"{class_} first" if row == 0 else class_
                self._text(x, label.top + _LINE * (row + 0.8), line, kind, anchor)
            self.bottom = max(self.bottom, label.top + label.tall)
        return placed


def _continues(before: LadderStep, step: LadderStep) -> bool:
    """Whether ``step`` says nothing that the run ending with ``before`` does not say."""
    if (
        before.kind != "segment"
        or step.kind != "segment"
        or before.note
        or step.note
        or before.flags != step.flags
        or step.left_out
    ):
        return False
    return before.seq + before.bytes == step.seq and (before.bytes > 0) == (step.bytes > 0)


def _words(run: Sequence[LadderStep]) -> tuple[str, ...]:
    """The label of a step or run: when and what, then its place in the stream, then its note."""
    step, last = run[0], run[-1]
    when = units.instant(step.at_ns)
    if step.kind != "segment":
        what, place = _WHAT[step.kind], []
    else:
        flags = names.visible(step.flags)
        what = units.size(sum(each.bytes for each in run)) if step.bytes else flags
        seq = f"seq {step.seq}" if last.seq == step.seq else f"seq {step.seq} to {last.seq}"
        ack = f"ack {step.ack}" if last.ack == step.ack else f"ack {step.ack} to {last.ack}"
        times = f"{len(run)} segments:" if len(run) > 1 else ""
        place = [part for part in (times, flags if step.bytes else "", seq, ack) if part]
    lines = (f"{when} {what}", *_filled(place), names.visible(step.note))
    return tuple(row for line in lines for row in _wrapped(line, _LABEL_LETTERS))


def _exactly(step: LadderStep) -> str:
    """What hovering shows: every number as it is."""
    if step.kind != "segment":
        return f"{_WHAT[step.kind]} at {units.nanoseconds(step.at_ns)} {step.note}".strip()
    arrival = "not seen to arrive"
    if step.arrives_ns is not None:
        arrival = f"arrives at {units.nanoseconds(step.arrives_ns)}"
        if step.estimated:
            arrival += " (one of the two times is estimated)"
    sent = f"{step.flags} seq {step.seq} ack {step.ack} {units.plural(step.bytes, 'byte')}"
    return (
        f"{sent}, leaves the {step.sender} at {units.nanoseconds(step.at_ns)}, {arrival}. {step.note}".strip()
    )


def _filled(parts: Sequence[str]) -> list[str]:
    """Rows of whole parts: a number stays with its word."""
    rows: list[str] = []
    for part in parts:
        if rows and len(rows[-1]) + 1 + len(part) <= _LABEL_LETTERS:
            rows[-1] += f" {part}"
        else:
            rows.append(part)
    return rows


def _wrapped(text: str, letters: int) -> list[str]:
    return textwrap.wrap(text, letters, max_lines=4, placeholder=" ...") if text else []
