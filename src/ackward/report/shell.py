"""Commands on a terminal: whole, and fit to be copied, whatever the width."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from ackward.model import names

_INDENT = "  "


@dataclass(frozen=True)
class CommandLine:
    """A command that can be copied as it stands.

    Too long for one line, it is continued the shell's way, with a backslash at the end: between words, and
    inside a word only if that alone is too long. Then the next line starts at the margin: no space comes in.
    """

    command: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Each line as plain text, none wider than the console."""
        for line in shell_lines(names.visible(self.command), options.max_width):
            yield Segment(line, Style(bold=True))
            yield Segment.line()


def shell_lines(command: str, width: int) -> list[str]:
    """``command`` as lines of at most ``width`` that a shell reads as that same command."""
    if len(_INDENT + command) <= width:
        return [_INDENT + command]
    lines: list[str] = []
    current = _INDENT
    for word in _words(command):
        if current.strip():
            if len(current) + 1 + len(word) + 2 <= width:
                current += f" {word}"
                continue
            lines.append(f"{current} \\")
            current = _INDENT * 2
        # Each piece is quoted by itself; backslash and newline vanish before the shell looks for words.
        *pieces, last = _pieces(word, width - len(_INDENT * 2) - 2)
        for piece in pieces:
            lines.append(f"{current}{piece}\\")
            current = ""
        current += last
    return [*lines, current]


def _words(command: str) -> list[str]:
    """The words of ``command`` as written; one word if it is more than words, or not shell at all."""
    try:
        values = shlex.split(command)
    except ValueError:
        return [command]
    return [shlex.quote(value) for value in values] if shlex.join(values) == command else [command]


def _is_word(text: str) -> bool:
    """Whether ``text`` is one shell word as we quote it."""
    try:
        return shlex.join(shlex.split(text)) == text and len(shlex.split(text)) == 1
    except ValueError:
        return False


def _pieces(word: str, width: int) -> list[str]:
    """A shell word cut into words that fit and together read the same; itself if it cannot be cut."""
    value = shlex.split(word)[0] if len(word) > width and _is_word(word) else ""
    pieces = [""]
    for character in value:
        if pieces[-1] and len(shlex.quote(pieces[-1] + character)) > width:
            pieces.append("")
        pieces[-1] += character
    return [shlex.quote(piece) for piece in pieces] if value else [word]
