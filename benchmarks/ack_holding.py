"""A receiver that holds its ACKs before a sender of this kernel: thresholds, congestion controls, with and without
D-SACK.

``python -m benchmarks.ack_holding [--json] [--write] [--messages N]`` (root) runs a feed over the link of the scenario
``ack-holding`` for each setting and prints the table. ``--write`` puts it into docs/probes.md, and the chart beside it.
Nothing is lost on that link: each segment that is sent again had arrived.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ackward.kernel.counters import parse
from ackward.kernel.namespaces import Namespace, call_inside
from ackward.lab import programs
from ackward.lab.feed import Feed
from ackward.lab.run import hosts_of
from ackward.lab.scenarios.ack_holding import SCENARIO
from ackward.lab.topology import TwoHosts

THRESHOLDS = (0, 1, 2, 4, 8, 16, 64)
CONTROLS = ("reno", "cubic", "bbr")
DOCS = Path(__file__).parent.parent / "docs"
PAGE, CHART = DOCS / "probes.md", DOCS / "probes.svg"
_BEGIN, _END = "<!-- python -m benchmarks.ack_holding --write -->", "<!-- end -->"


@dataclass(frozen=True)
class Row:
    """One setting. ``probes`` are all, ``again`` those of them and all others that repeated a segment, ``told`` the
    D-SACKs that said so, ``cuts`` how often the sender's kernel took a needless probe for a loss. ``cwnd`` in
    segments, what had not left at once when a message was written (``queue``) in bytes, delays of messages in
    nanoseconds."""

    cc: str
    dsack: str
    threshold: int
    messages: int
    probes: int
    again: int
    told: int
    cuts: int
    timeouts: int
    cwnd_least: int
    cwnd_median: float
    queue_mean: float
    queue_most: int
    megabits: float
    p50_ns: int
    p99_ns: int


def counters(host: Namespace) -> dict[str, int]:
    """The host's own counters."""
    files = [Path("/proc/thread-self/net") / name for name in ("snmp", "netstat")]
    return {name: n for file in files for name, n in parse(call_inside(host, file.read_text)).items()}


def measure(cc: str, dsack: str, threshold: int, messages: int) -> Row:
    """Run one feed between two hosts of its own."""
    scenario = SCENARIO.with_settings([f"threshold={threshold}", f"cc={cc}", f"dsack={dsack}"])
    feed = Feed(messages=messages, congestion=cc)
    with hosts_of(scenario) as hosts:
        before = counters(hosts.server)
        sent, arrived = fed(hosts, feed)
        after = counters(hosts.server)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    return Row(
        cc=cc,
        dsack=dsack,
        threshold=threshold,
        messages=arrived["messages"],
        probes=grown["TcpExt.TCPLossProbes"],
        again=grown["Tcp.RetransSegs"],
        told=grown["TcpExt.TCPDSACKRecv"],
        cuts=grown["TcpExt.TCPLossProbeRecovery"],
        timeouts=grown["TcpExt.TCPTimeouts"],
        megabits=round(arrived["bits_per_second"] / 1e6, 1),
        p50_ns=arrived["p50_ns"],
        p99_ns=arrived["p99_ns"],
        **sent,
    )


def fed(hosts: TwoHosts, feed: Feed) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a feed from the server to the client; what each of them measured."""
    sender = programs.start(hosts.server, "ackward.lab.feed", "send", "::", feed.to_json())
    try:
        assert sender.stdout is not None
        if sender.stdout.readline().strip() != "ready":
            raise SystemExit(f"the feed did not start: {sender.communicate()[1]}")
        address = hosts.server_address(4)
        reader = programs.start(hosts.client, "ackward.lab.feed", "read", address, feed.to_json())
        try:
            arrived = json.loads(reader.communicate(timeout=120)[0])
        finally:
            reader.kill()
            reader.communicate()
        return json.loads(sender.communicate(timeout=30)[0]), arrived
    finally:
        sender.kill()
        sender.communicate()


def sweep(messages: int) -> Iterator[Row]:
    """All settings."""
    for dsack in ("on", "off"):
        for cc in CONTROLS:
            for threshold in THRESHOLDS:
                yield measure(cc, dsack, threshold, messages)


def table(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    heads = [
        *("D-SACK", "cc", "threshold", "probes", "sent again needlessly", "D-SACKs", "cwnd cuts", "timeouts"),
        *("cwnd, least", "cwnd, median", "queue, mean", "queue, most", "Mbit/s", "delay p50", "delay p99"),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = (
            row.dsack, row.cc, row.threshold, row.probes, row.again, row.told, row.cuts, row.timeouts, row.cwnd_least,
            f"{row.cwnd_median:.0f}", f"{row.queue_mean / 1000:.1f} kB", f"{row.queue_most / 1000:.0f} kB",
            f"{row.megabits:.1f}", f"{row.p50_ns / 1e6:.1f} ms", f"{row.p99_ns / 1e6:.1f} ms",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


#: Paul Tol's "bright" scheme: told apart by those who see colours differently.
_COLOURS = {"reno": "#4477aa", "cubic": "#ee6677", "bbr": "#228833"}
_WIDTH, _HEIGHT, _LEFT, _GAP = 360, 170, 56, 60


def chart(rows: Sequence[Row]) -> str:
    """An SVG of four panels: what was sent again and how late messages were, with D-SACK and without."""
    panels = [
        (
            f"{title}, D-SACK {dsack}",
            [(row.cc, row.threshold, value(row)) for row in rows if row.dsack == dsack],
        )
        for title, value in (
            ("segments sent again needlessly", lambda row: float(row.again)),
            ("delay of a message, p99, ms", lambda row: row.p99_ns / 1e6),
        )
        for dsack in ("on", "off")
    ]
    width, height = 2 * (_WIDTH + _LEFT) + 20, 2 * (_HEIGHT + _GAP) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, (title, bars) in enumerate(panels):
        x, y = _LEFT + number % 2 * (_WIDTH + _LEFT), 30 + number // 2 * (_HEIGHT + _GAP)
        parts += _panel(x, y, title, bars)
    for number, (cc, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + 90 * number
        parts.append(f'<rect x="{x}" y="{height - 22}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{height - 13}">{cc}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(x: int, y: int, title: str, bars: Sequence[tuple[str, int, float]]) -> list[str]:
    most = max((value for _, _, value in bars), default=0) or 1.0
    parts = [
        f'<text x="{x}" y="{y - 8}" font-weight="bold">{title}</text>',
        f'<path d="M{x} {y}V{y + _HEIGHT}H{x + _WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{x - 4}" y="{y + 8}" text-anchor="end">{most:,.0f}</text>',
        f'<text x="{x - 4}" y="{y + _HEIGHT}" text-anchor="end">0</text>',
    ]
    step = _WIDTH / len(THRESHOLDS)
    for cc, threshold, value in bars:
        place = x + step * (THRESHOLDS.index(threshold) + 0.2 + 0.2 * CONTROLS.index(cc))
        tall = _HEIGHT * value / most
        parts.append(
            f'<rect x="{place:.1f}" y="{y + _HEIGHT - tall:.1f}" width="{step * 0.18:.1f}" height="{tall:.1f}" '
            f'fill="{_COLOURS[cc]}"><title>{cc}, threshold {threshold}: {value:,.1f}</title></rect>'
        )
    for number, threshold in enumerate(THRESHOLDS):
        parts.append(
            f'<text x="{x + step * (number + 0.5):.1f}" y="{y + _HEIGHT + 14}" text-anchor="middle">{threshold}</text>'
        )
    return parts


def main() -> int:
    """Print the table; with ``--write`` bring the page and the chart up to date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=32, help="messages on each of 64 connections")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--write", action="store_true", help=f"write the table into {PAGE.name}, and {CHART.name}"
    )
    given = parser.parse_args()
    rows = []
    for row in sweep(given.messages):
        print(f"{row.cc}, D-SACK {row.dsack}, threshold {row.threshold}: {row.again} again", file=sys.stderr)
        rows.append(row)
    print(json.dumps([asdict(row) for row in rows], indent=1) if given.json else table(rows))
    if given.write:
        before, _, rest = PAGE.read_text().partition(_BEGIN)
        after = rest.partition(_END)[2]
        PAGE.write_text(f"{before}{_BEGIN}\n{table(rows)}\n{_END}{after}")
        CHART.write_text(chart(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
