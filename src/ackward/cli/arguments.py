"""Values as people write them on a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ackward.errors import UsageError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ns|us|ms|s|m|h)")
_LONGEST = 24 * _UNITS["h"]
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = r"(?P<number>\d+(?:\.\d+)?)"
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_SIZE = re.compile(rf"{_NUMBER} ?(?P<unit>{'|'.join(_SIZES)})")
_RATES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_RATE = re.compile(rf"{_NUMBER} ?(?P<unit>[kKMGT]?)(?:b/s|bit/s|bps|bit)")
_SHARE = re.compile(rf"{_NUMBER} ?(?P<percent>%?)")


def _measured(
    text: str, written: re.Pattern[str], units: Mapping[str, int], complaint: str, examples: str
) -> int:
    """A number with its unit, in whole base units."""
    found = written.fullmatch(text.strip())
    if not found:
        raise UsageError(
            complaint, consequence="nothing was done", next_step=f"write a number and a unit: {examples}"
        )
    return round(float(found["number"]) * units[found["unit"]])


def port_number(text: str | None, option: str) -> int | None:
    """``443`` as a number, null as it is; raises :class:`UsageError` for what is none. Its range is not looked at."""
    if text is None:
        return None
    if not _INTEGER.fullmatch(text.strip()):
        raise UsageError(
            f"{option} {text!r} is no port",
            consequence="nothing was looked at",
            next_step="name one from 1 to 65535",
        )
    return int(text)


def duration_ns(text: str, option: str) -> int:
    """``10s``, ``500ms``, ``1m`` in nanoseconds; raises :class:`UsageError` for anything else."""
    nanoseconds = _measured(text, _DURATION, _UNITS, f"{option} {text!r} is no duration", "10s, 500ms, 1m")
    if nanoseconds > _LONGEST:
        raise UsageError(
            f"{option} {text} is longer than a day",
            consequence="nothing was done",
            next_step="name a shorter time",
        )
    return nanoseconds


def size_bytes(text: str, option: str) -> int:
    """``100B``, ``64kB``, ``50MB``, ``3MiB`` in bytes; raises :class:`UsageError` for anything else."""
    return _measured(text, _SIZE, _SIZES, f"{option} {text!r} is no size", "100B, 64kB, 50MB, 3MiB")


def rate_bits(text: str, option: str) -> int:
    """``1Gb/s``, ``100Mbit/s``, ``64kbps`` in bit/s; raises :class:`UsageError` for anything else.

    Bytes a second (``GB/s``) are refused rather than taken for bits.
    """
    complaint = f"{option} {text!r} is no rate in bits a second"
    return _measured(text, _RATE, _RATES, complaint, "1Gb/s, 100Mb/s, 64kb/s")


def share(text: str, option: str) -> float:
    """``1%``, ``0.1%`` or ``0.001`` as a share from 0 to 1; raises :class:`UsageError` for anything else."""
    found = _SHARE.fullmatch(text.strip())
    value = float(found["number"]) / (100 if found["percent"] else 1) if found else -1
    if not 0 <= value <= 1:
        raise UsageError(
            f"{option} {text!r} is no share of a whole",
            consequence="nothing was done",
            next_step="write a percentage or a fraction: 0.1%, 0.001",
        )
    return value
