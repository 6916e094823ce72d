"""Names that came from outside: process and container names, addresses, notes. They are shown, never obeyed.

A name may hold markup, terminal escapes, or characters that reorder or hide the text around them (Unicode
TR 36, "bidirectional text spoofing"). Templates and Rich see to markup; the rest is made visible here.
"""

from __future__ import annotations

import unicodedata

from ackward.model.report import Process

#: A letter with more marks than this piles ink over its neighbours. Two are in daily use (Vietnamese).
MOST_MARKS = 2


def visible(text: str) -> str:
    """``text`` with each control, format, surrogate, unassigned or line-breaking character escaped."""
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        # C*: control, format (bidi, zero width), surrogate, private, unassigned. Z*: separators.
        hidden = category[0] == "C" or (category[0] == "Z" and character != " ") or marks > MOST_MARKS
        shown.append(_escape(character) if hidden else character)
    return "".join(shown)


def prose(text: str) -> str:
    """A paragraph: line breaks and runs of white space become single spaces, the rest is made visible."""
    return visible(" ".join(text.split()))


def owner(process: Process | None) -> str:
    """Who owns an end, in one line; empty if nobody knows."""
    if process is None:
        return ""
    parts = []
    if process.command:
        parts.append(process.command)
    if process.pid is not None:
        parts.append(f"pid {process.pid}")
    if process.container_name:
        parts.append(f"in container {process.container_name} ({process.container})")
    elif process.container:
        parts.append(f"in container {process.container}")
    if process.pod:
        parts.append(f"of pod {process.pod} on node {process.node}")
    elif process.netns:
        parts.append(f"in namespace {process.netns}")
    return visible(" ".join(parts))


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
