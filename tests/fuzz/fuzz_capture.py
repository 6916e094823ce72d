"""Feeds damaged captures to the reader: it may refuse a file, and must never crash, hang, or give nonsense.

    python tests/fuzz/fuzz_capture.py [-max_total_time=300] [CORPUS]

The corpus begins with the captures of the unit tests. Needs atheris.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ackward.capture"]):
    from ackward.capture import chain, framing
    from ackward.capture.reading import read_captures
    from ackward.capture.sources import Source
from ackward.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[2]))
FILE = Path(tempfile.mkdtemp(prefix="ackward-fuzz-")) / "capture"


def seeds(directory: Path) -> None:
    """The captures of the unit tests, one file each."""
    from tests.unit import packets as p
    from tests.unit.test_capture_formats import FILES, FRAMES
    from tests.unit.test_capture_headers import SHAPES

    known = {**FILES, **{name: p.pcap([frame], link) for name, (link, frame, _) in SHAPES.items()}}
    known["several sections"] = p.pcapng(FRAMES[:3]) + p.pcapng(FRAMES[3:], order=">")
    for number, data in enumerate(known.values()):
        (directory / f"seed-{number}").write_bytes(data)


def check(data: bytes) -> None:
    """Reads it; what is given back must be a partition of the packets."""
    FILE.write_bytes(data)
    try:
        found = read_captures([Source("fuzz", FILE)], vxlan=4789)
    except UsageError:
        return
    (source,) = found.sources
    rows = found.segments
    assert source.packets >= len(rows) + sum(found.skipped.values())
    assert int(found.flows.table["count"].sum()) == len(rows)
    assert (rows["time_ns"] >= 0).all()
    assert (rows["segments"] >= 1).all()
    for flow in found.flows[:20]:
        assert str(flow.client)
        assert (rows["flow"][flow.segments] == flow.number).all()
    for problem in found.problems:
        assert problem.offset is None or 0 <= problem.offset <= len(data)
        assert str(problem)


def one_input(data: bytes) -> None:
    """The first byte chooses how large chunks and lanes are: small ones have all their borders within the input."""
    size = data[0] if data else 0
    framing.CHUNK = (64, 100, 512, 4 << 20)[size & 3]
    chain.WINDOWS = ((0, 32), (32, 64)) if size & 4 else ((0, 128), (128, 512), (512, 2048))
    chain.FEWEST_LANES = 1 if size & 8 else 12
    check(data[1:])


def main() -> None:
    if not any(not argument.startswith("-") for argument in sys.argv[1:]):
        corpus = Path(tempfile.mkdtemp(prefix="ackward-corpus-"))
        seeds(corpus)
        for seed in list(corpus.iterdir()):
            seed.write_bytes(b"\0" + seed.read_bytes())
        sys.argv.append(str(corpus))
    warnings.simplefilter("error")  # an overflow that NumPy only mutters about is nonsense as well
    # atheris itself grows by some kilobytes a run; that the reader does not is for the unit tests to say.
    sys.argv.append("-rss_limit_mb=0")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
