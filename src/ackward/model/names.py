"""Names that came from outside: of files, processes, containers and pods, and notes. They are shown, never obeyed.

A name may hold markup, terminal escapes, or characters that reorder or hide the text around them (Unicode
TR 36, "bidirectional text spoofing"). Templates and Rich see to markup; the rest is made visible here.
"""

from __future__ import annotations

import unicodedata

#: A letter with more marks than this piles ink over its neighbours. Two are in daily use (Vietnamese).
MOST_MARKS = 2
#: A byte of a file's name that is no UTF-8 is this much more as a character (PEP 383, surrogateescape).
_NO_UTF8 = 0xDC00


def visible(text: str) -> str:
    """``text`` with each character escaped that ``str.isprintable`` does not call printable, or that piles up marks.

    So nothing is left of control and format characters (bidirectional, zero width), surrogates, private and unassigned
    ones, and of separators only the space. A byte of a file's name that is no UTF-8 is shown as that byte.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        plain = character.isprintable() and marks <= MOST_MARKS
        shown.append(character if plain else _escape(character))
    return "".join(shown)


def prose(text: str) -> str:
    """A paragraph: line breaks and runs of white space become single spaces, the rest is made visible."""
    return visible(" ".join(text.split()))


def _escape(character: str) -> str:
    code = ord(character)
    if _NO_UTF8 + 0x80 <= code <= _NO_UTF8 + 0xFF:
        code -= _NO_UTF8
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
