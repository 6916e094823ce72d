"""Write the captures that were explained once more, with the causes beside their packets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ackward.capture.annotating import annotated
from ackward.capture.framing import Framing
from ackward.capture.reading import ReadSource, WireCapture
from ackward.capture.sources import Source, Unreadable, never_overwritten
from ackward.diagnosis.comments import Comments
from ackward.diagnosis.diagnose import Diagnosis
from ackward.errors import OutputFailed, UsageError
from ackward.loop.whole_files import spare_capture, whole_file


def check(sources: Sequence[Source], path: Path) -> None:
    """Raises :class:`UsageError` if these files cannot be read twice, or ``path`` is a capture or no file."""
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{path} is no file that could be replaced",
            consequence="nothing was written",
            next_step="choose another name for the annotated capture",
        )
    for source in sources:
        if source.missing:
            continue
        if source.path is None or source.size is None:
            raise UsageError(
                f"{source.name} can be read only once, and annotating needs it twice",
                consequence="nothing was written",
                next_step="save the capture to a file, then annotate that",
            )
    never_overwritten(sources, path)
    spare_capture(path)


def annotate(sources: Sequence[Source], capture: WireCapture, seen: Diagnosis, path: Path) -> None:
    """Write all that was read of ``sources`` to ``path`` as pcapng, one section after the other, with comments.

    Written whole or not at all; memory does not grow with the files. Raises :class:`OutputFailed`.
    """
    comments = Comments.of(seen.attribution)
    by_name = {source.name: source for source in sources}
    try:
        with whole_file(path) as file:
            for read in capture.sources:
                source = by_name[read.name]
                with source.open() as stream:
                    for piece in annotated(Framing(source, stream), partial(_of_file, comments, read)):
                        file.write(piece)
    except (OSError, Unreadable) as error:
        raise OutputFailed(
            f"{path} could not be written ({getattr(error, 'strerror', None) or error})",
            consequence="nothing was written; what was there before is untouched",
            next_step="choose another path or free some space",
        ) from error


def _of_file(comments: Comments, read: ReadSource, first: int, beyond: int) -> Mapping[int, str]:
    """The comments on packets of one file, numbered in that file."""
    base = read.first_packet
    texts = comments.between(base + first, base + min(beyond, read.packets))
    return {packet - base: text for packet, text in texts.items()}
