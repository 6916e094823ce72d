"""One capture file, chunk after chunk: bytes -> frames. Memory is one chunk, or one record if that is longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ackward.capture.frames import LONGEST_RECORD, Broken, Format, Frames, Problem
from ackward.capture.octets import Octets
from ackward.capture.pcap import FILE_HEADER, MAGICS, Pcap
from ackward.capture.pcapng import SECTION_TYPE, PcapNg
from ackward.capture.sources import GZIP, LZ4, ZSTD, Cut, Source, Stream
from ackward.model.units import plural

INSIDE_HEADER = "it ends inside the file header"
COPY_AGAIN = "copy it once more from where it was captured, or name another capture"

#: A chunk and what is made of it should stay in the processor's cache (measured: 1 to 4 MiB are alike, 16 are slower).
CHUNK = 4 << 20

#: JSON is told from captures by how it begins, and ackward's own documents by their schema, which is named early.
OPENING_OF_JSON, EARLY = b"{", 256
#: The one that `ackward compare` reads, of a watch, a capture or a lab run.
SCHEMA_OF_REPORTS = b'"ackward/report/'

#: Called now and then with the source, the bytes of it that were taken, and its size if that is known.
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Chunk:
    """Octets ``begin`` .. ``end`` of a file, all of whole records, and the frames in them.

    ``offset`` is the place of octet 0 in the file. The octets are written over when the second next chunk is asked for.
    """

    octets: Octets
    begin: int
    end: int
    offset: int
    frames: Frames


class Framing:
    """The chunks of one open file, to be gone through once; then ``problems`` tells what was wrong with it.

    ``form`` is null if the file is no capture: then it has no chunks.
    """

    def __init__(self, source: Source, stream: Stream, progress: Progress | None = None) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._stream = stream
        self._progress = progress
        self._octets = Octets(CHUNK)
        self._end, self._ended = self._fill(0, 0)
        self.opening = self._octets.raw[: min(self._end, FILE_HEADER)].tobytes()
        self.form = _format(self.opening)
        if self.form is None:
            what, next_step = _no_capture(
                self._octets.raw[: min(self._end, EARLY)].tobytes(), compressed=stream.compressed
            )
            self.problems.append(Problem(source.name, None, what, "the file was left out", next_step))

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks up to the file's end, or to where it makes no sense any more.

        Of a file each is made while the one before is worked on. A pipe may be silent for long: nothing waits for it.
        """
        if self._source.size is None:
            yield from self._chunks()
            return
        chunks = self._chunks()
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(next, chunks, None)
            while chunk := ahead.result():
                ahead = pool.submit(next, chunks, None)
                yield chunk

    def _chunks(self) -> Iterator[Chunk]:
        if self.form is None:
            return
        octets, end, ended = self._octets, self._end, self._ended
        spare = Octets(octets.capacity)
        offset, begin = 0, 0
        try:
            while True:
                frames, after = self.form.frame(octets, begin, end, offset)
                if after > begin:
                    yield Chunk(octets, begin, after, offset, frames)
                    begin = after
                    continue
                if ended:
                    break
                kept = end - begin
                if begin:
                    # The last chunk, in these octets, may still be worked on; the one in the others is done.
                    octets, spare = spare, octets
                    if octets.capacity < spare.capacity:
                        octets = Octets(spare.capacity)
                    octets.raw[:kept] = spare.raw[begin:end]
                elif kept == octets.capacity:
                    octets = octets.grown(min(kept * 2, LONGEST_RECORD + CHUNK), kept)
                self._octets = octets
                offset, begin = offset + begin, 0
                end, ended = self._fill(kept, offset)
            if end > begin:
                behind = plural(end - begin, "byte")
                what = f"it ends in the middle of a packet, {behind} behind the last whole one"
                if offset + begin == 0:
                    what = INSIDE_HEADER
                self._note(offset + begin, what, "it was read up to there")
        except Broken as broken:
            self._note(broken.offset, broken.what, "it was read up to there")

    def _fill(self, end: int, offset: int) -> tuple[int, bool]:
        """Reads on behind ``end``; gives the new end, and whether it is that of the file."""
        wanted = self._octets.capacity - end
        try:
            count = self._stream.fill(self._octets.raw[end : self._octets.capacity].data)
        except Cut as cut:
            count, wanted = cut.count, -1
            self._note(offset + end + count, str(cut), "it was read up to there")
        if self._progress:
            self._progress(self._source.name, self._stream.position, self._source.size)
        return end + count, count != wanted

    def _note(self, offset: int, what: str, done: str) -> None:
        self.problems.append(Problem(self._source.name, offset, what, done))


def begins_like_capture(opening: bytes) -> bool:
    """Whether a file that begins like this may be a capture, plain or compressed."""
    return opening[:4] in MAGICS or opening.startswith((SECTION_TYPE, GZIP, ZSTD, LZ4))


def _no_capture(opening: bytes, *, compressed: bool) -> tuple[str, str | None]:
    """What a file is that begins like this and is no capture, and the next step if that tells one."""
    if not opening:
        return "nothing in it could be decompressed" if compressed else "it is empty", COPY_AGAIN
    if opening[:4] in MAGICS:
        return INSIDE_HEADER, COPY_AGAIN
    if opening.lstrip().startswith(OPENING_OF_JSON):
        if SCHEMA_OF_REPORTS in opening:
            return "it is a report and no capture", "`ackward compare BEFORE AFTER` reads reports"
        return "it is JSON and no capture", None
    return f"it is not a capture (it begins with {opening[:4].hex(' ')})", None


def _format(opening: bytes) -> Format | None:
    if opening[:4] in MAGICS and len(opening) == FILE_HEADER:
        return Pcap(opening)
    if opening[:4] == SECTION_TYPE:
        return PcapNg()
    return None
