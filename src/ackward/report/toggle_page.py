"""The experiment ``quickack-toggle`` as one HTML page that opens offline and asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from ackward.model.toggle import Ack, AckKind, Packet, Timeline, ToggleReport
from ackward.model.trace import FUNCTIONS
from ackward.model.units import duration, instant
from ackward.report import toggle_chart, toggle_table
from ackward.report.html import environment, policy, source

MEANINGS = {
    AckKind.QUICK: "at once, in quick-ACK mode (tcp_in_quickack_mode)",
    AckKind.SECOND_SEGMENT: "more than one full segment had come and the window could advance (__tcp_ack_snd_check)",
    AckKind.READ: "the program had read all (tcp_cleanup_rbuf), or the window grew (tcp_grow_window: quick |= 1)",
    AckKind.SETSOCKOPT: "setsockopt(TCP_QUICKACK) sent it (__tcp_sock_set_quickack)",
    AckKind.TIMER: "the delayed-ACK timer sent it (tcp_delack_timer_handler)",
    AckKind.WITH_DATA: "data that the program wrote took it along (__tcp_transmit_skb)",
}
#: Packets and the trace's words for them are told this far apart at most.
_SAME_NS = 20_000_000


def render(report: ToggleReport) -> str:
    """The whole page. Pure: the same input gives the same text."""
    style = source("report.css") + source("toggle.css") + toggle_chart.css()
    return (
        environment()
        .get_template("toggle.html")
        .render(
            title="ackward lab: quickack-toggle",
            policy=policy(style, ""),
            style=Markup(style),  # noqa: S704 - our own file
            report=report,
            legend=[
                (Markup(toggle_chart.symbol(kind)), kind, words)  # noqa: S704 - built as a tree
                for kind, words in MEANINGS.items()
            ],
            cards=[
                {
                    "title": toggle_table.title(timeline),
                    "timeline": timeline,
                    "chart": Markup(toggle_chart.draw(timeline, report.jiffy_ns)),  # noqa: S704 - built as a tree
                    "packets": list(packet_lines(timeline)),
                }
                for timeline in report.timelines
            ],
            kinds=toggle_table.KINDS,
            functions=FUNCTIONS,
            table=toggle_table,
        )
    )


def packet_lines(timeline: Timeline) -> Iterator[str]:
    """Each packet in tcpdump's words, with what the socket says of the ACK in it beside them."""
    told: dict[tuple[int, int, int], list[Ack]] = {}
    for ack in timeline.acks:
        told.setdefault((ack.seq, ack.ack, ack.bytes), []).append(ack)
    phases = list(timeline.phases)
    for packet in timeline.packets:
        while phases and packet.at_ns >= phases[0].start_ns:
            yield f"--- {phases[0].name}: {phases[0].summary}"
            phases.pop(0)
        yield f"{instant(packet.at_ns):>13}  {_packet(packet):<72}{_said(packet, told)}".rstrip()


def _packet(packet: Packet) -> str:
    span = f"seq {packet.seq}:{packet.seq + packet.bytes}, " if packet.bytes else ""
    arrow = ">" if packet.direction == "sent" else "<"
    return (
        f"{arrow} Flags [{packet.flags}], {span}ack {packet.ack}, win {packet.window}, length {packet.bytes}"
    )


def _said(packet: Packet, told: dict[tuple[int, int, int], list[Ack]]) -> str:
    wire = "" if packet.delay_ns is None else f"  ACK after {duration(packet.delay_ns)}"
    if packet.direction == "received":
        return ""
    acks = told.get((packet.seq, packet.ack, packet.bytes), [])
    ack = min(acks, key=lambda each: abs(each.at_ns - packet.at_ns), default=None)
    if ack is None or abs(ack.at_ns - packet.at_ns) >= _SAME_NS or packet.delay_ns is None:
        return wire
    return f"{wire:<22} socket: {ack.kind}, {duration(ack.delay_ns)}, {ack.quick} left"
