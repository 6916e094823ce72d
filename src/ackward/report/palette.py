"""One colour per cause, for the page and the terminal.

Families share a hue: waits on ACKs are orange, losses violet, windows and pacing blue to green-blue, queues
olive, work of the programs green, distance and the unknown grey. Lightness tells the members of a family
apart, so the nineteen stay distinct for protan and deutan eyes: at least 14 CIE76 units between any two under
the matrices of Machado, Oliveira and Fernandes (2009) at full severity, and 1.6:1 against both papers, which
tests/unit/test_report_html.py holds. Colour is never the only sign: what wears one carries the cause's name.
"""

from __future__ import annotations

from ackward.model.causes import Cause
from ackward.model.verdict import GuardState, Result

#: The page's paper, light and dark.
PAPER = ("#ffffff", "#14171b")

CAUSES: dict[Cause, str] = {
    Cause.STANDOFF: "#da5210",
    Cause.NAGLE: "#fcb02b",
    Cause.DELAYED_ACK: "#b6954c",
    Cause.ACK_HOLDING: "#9f3501",
    Cause.TAIL_LOSS_PROBE: "#7233bb",
    Cause.RETRANSMISSION_TIMEOUT: "#a25ff9",
    Cause.FAST_RETRANSMIT: "#66508c",
    Cause.SLOW_START: "#63cdfc",
    Cause.IDLE_RESTART: "#5978c5",
    Cause.CONGESTION_WINDOW: "#45aeff",
    Cause.PACING: "#5595b7",
    Cause.RECEIVE_WINDOW: "#48deb3",
    Cause.HOST_QUEUE: "#dac05a",
    Cause.ACCEPT_QUEUE: "#63643b",
    Cause.NETWORK: "#abb7ca",
    Cause.HANDSHAKE: "#59606b",
    Cause.CLIENT: "#87d889",
    Cause.SERVER: "#5fa570",
    Cause.UNKNOWN: "#8c8c8c",
}

#: Names of Rich's sixteen colours, so that every terminal's own theme decides what they look like.
RESULTS: dict[Result, str] = {Result.IMPROVED: "green", Result.UNCHANGED: "yellow", Result.WORSE: "red"}
GUARDS: dict[GuardState, str] = {
    GuardState.FINE: "green",
    GuardState.HARMED: "red",
    GuardState.SILENT: "yellow",
}


def css() -> str:
    """The rules that give ``--cause`` its value inside ``.cause-NAME``."""
    return "\n".join(f".cause-{cause} {{ --cause: {colour}; }}" for cause, colour in CAUSES.items())
