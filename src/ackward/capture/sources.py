"""What the user named -> the files to read, in order, each as a stream of bytes that is decompressed on the way."""

from __future__ import annotations

import glob
import gzip
import io
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ackward.errors import UnknownName, UsageError
from ackward.model.names import visible

STANDARD_INPUT = "-"
#: Little is asked of a decompressor at a time, so that little is lost of what it gave before an error.
PIECE = 1 << 16
GZIP, ZSTD, LZ4 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
LONGEST_MAGIC = 4
MAY_READ = "let its owner make it readable for you, or read it as root"
#: Files that are told by name where many share one fate.
MOST_NAMED = 3


class Unreadable(Exception):
    """A file could not be opened, read or decompressed any further. ``next_step`` is null if any other would do."""

    def __init__(self, what: str, next_step: str | None = None) -> None:
        super().__init__(what)
        self.next_step = next_step


@dataclass(frozen=True)
class Source:
    """One file to read, or standard input if ``path`` is null. ``missing`` says why there is nothing to read."""

    name: str
    path: Path | None
    missing: str | None = None

    @property
    def size(self) -> int | None:
        """Bytes of the file itself, null if that cannot be told."""
        try:
            status = self.path.stat() if self.path else None
        except OSError:
            return None  # the reader will say why
        return status.st_size if status and stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """The bytes, decompressed if they are gzip, zstd or lz4. Raises :class:`Unreadable`."""
        with ExitStack() as stack:
            if self.missing:
                raise Unreadable(self.missing)
            try:
                if self.path is None:
                    file = stack.enter_context(open(0, "rb", closefd=False))
                else:
                    file = stack.enter_context(self.path.open("rb"))
                counted = _Counted(file)
            except OSError as error:
                forbidden = isinstance(error, PermissionError)
                raise Unreadable(
                    f"it cannot be read: {_words(error)}", MAY_READ if forbidden else None
                ) from error
            yield Stream(counted)


class _Counted(io.RawIOBase):
    """A file whose first bytes were looked at, and which knows how many were taken: also where it cannot be rewound."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.opening = file.read(LONGEST_MAGIC)
        self._untaken = self.opening
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._untaken:
            count = min(len(buffer), len(self._untaken))
            buffer[:count] = self._untaken[:count]
            self._untaken = self._untaken[count:]
        else:
            count = self._file.readinto(buffer)
        self.taken += count
        return count


class Stream:
    """The bytes of an open source."""

    def __init__(self, file: _Counted) -> None:
        self._file = file
        self._expanded = _decompressed(file)
        self._errors: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, *_library_errors())

    @property
    def compressed(self) -> bool:
        """Whether the file begins as one that gzip, zstd or lz4 made."""
        return self._expanded is not None

    @property
    def position(self) -> int:
        """How many bytes of the file itself were taken so far: compressed ones, if it is."""
        return self._file.taken

    def fill(self, buffer: memoryview) -> int:
        """Fills the buffer, or less of it at the end. Raises :class:`Cut` with the count if the rest is unreadable."""
        count = 0
        while count < len(buffer):
            try:
                if self._expanded is None:
                    got = self._file.readinto(buffer[count:])
                else:
                    got = self._expanded.readinto1(buffer[count : count + PIECE])
            except self._errors as error:
                raise Cut(count, f"it cannot be read any further ({_words(error)})") from error
            if not got:
                break
            count += got
        return count


class Cut(Unreadable):
    """Reading ended early; ``count`` bytes were put into the buffer before that."""

    def __init__(self, count: int, what: str) -> None:
        super().__init__(what)
        self.count = count


class _Expanding(Protocol):
    def readinto1(self, buffer: memoryview, /) -> int: ...


def _decompressed(file: _Counted) -> _Expanding | None:
    """What expands the file, null if it is not compressed. The two libraries are only loaded where they are needed."""
    if file.opening.startswith(GZIP):
        return gzip.GzipFile(fileobj=io.BufferedReader(file, PIECE))
    if file.opening == ZSTD:
        import zstandard

        compressed = io.BufferedReader(file, PIECE)
        return zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True)
    if file.opening == LZ4:
        import lz4.frame  # type: ignore[import-untyped]

        expanding: _Expanding = lz4.frame.LZ4FrameFile(io.BufferedReader(file, PIECE))
        return expanding
    return None


def _library_errors() -> tuple[type[Exception], ...]:
    """What the libraries that are in use raise; lz4 has no error of its own."""
    zstandard = sys.modules.get("zstandard")
    return (RuntimeError, zstandard.ZstdError) if zstandard else (RuntimeError,)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def find(names: Iterable[str | Path]) -> tuple[Source, ...]:
    """The files that these names stand for: a file, the files in a directory, a pattern, or ``-`` for standard input.

    In the order of the names; within a directory or a pattern by name, where numbers count as numbers, as in
    the files of a ring buffer. A file that was named twice is read once. A name that stands for nothing gives a source
    that cannot be read. Raises :class:`UnknownName` if all do and :class:`UsageError` if there is none at all.
    """
    found: dict[object, Source] = {}
    unknown: list[UnknownName] = []
    for name in map(str, names):
        if name == STANDARD_INPUT:
            found.setdefault(STANDARD_INPUT, Source("standard input", None))
            continue
        try:
            for path in _files(name):
                found.setdefault(path.resolve(), Source(visible(str(path)), path))
        except UnknownName as error:
            unknown.append(error)
            found.setdefault(name, Source(visible(name), Path(name), error.missing))
    if not found:
        raise UsageError(
            "no capture was named",
            consequence="nothing was read",
            next_step="name a file, a directory, a pattern or - for standard input",
        )
    if all(source.missing for source in found.values()):
        raise UnknownName(
            some([error.missing for error in unknown], "; "),
            consequence="nothing was read",
            next_step=unknown[0].next_step,
        )
    return tuple(found.values())


def some(texts: Sequence[str], between: str = ", ") -> str:
    """What is told of many files: the first few, and how many more there are."""
    more = len(texts) - MOST_NAMED
    named = between.join(texts[:MOST_NAMED])
    return f"{named}{between}and {more:,} more" if more > 0 else named


def never_overwritten(sources: Iterable[Source], path: Path) -> None:
    """Raises :class:`UsageError` if ``path``, where something shall be written, is one of the captures to read."""
    for source in sources:
        if source.path and not source.missing and path.exists() and path.samefile(source.path):
            raise UsageError(
                f"{visible(str(path))} is one of the captures to read",
                consequence="nothing was written; a capture is never overwritten",
                next_step="choose another name for what is to be written",
            )


def _files(name: str) -> list[Path]:
    try:
        return _existing(name)
    except OSError as error:
        raise UnknownName(
            f"{visible(name)} cannot be looked at ({error.strerror or error})",
            consequence="nothing was read",
            next_step="name a capture file that may be read, or - to read standard input",
        ) from error


def _existing(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        files = [entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".")]
        if not files:
            raise UnknownName(
                f"the directory {visible(name)} holds no files",
                consequence="nothing was read",
                next_step="name one that holds captures",
            )
        return sorted(files, key=_by_number)
    if path.exists():
        return [path]
    files = [Path(match) for match in glob.glob(name, recursive=True)]  # noqa: PTH207 - of any root
    files = [match for match in files if match.is_file()]
    if not files:
        raise UnknownName(
            f"there is no file {visible(name)}",
            consequence="nothing was read",
            next_step="name a capture file, or - to read standard input",
        )
    return sorted(files, key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """A key that puts ``dump9`` before ``dump10``."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for character in [*str(path), ""]:
        if character.isdecimal() and character.isascii():
            digits += character
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, character))
    return parts
