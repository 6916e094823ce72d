"""Numbers as people read them: times, counts, sizes and shares, for the page and the terminal alike."""

from __future__ import annotations

from fractions import Fraction

_MICROSECOND = 1_000
_MILLISECOND = 1_000_000
_SECOND = 1_000_000_000


def duration(ns: int) -> str:
    """A time in nanoseconds to two or three digits: ``850 ns``, ``2.5 us``, ``44.0 ms``, ``2 min 03 s``.

    Below a millisecond no more than two digits of a microsecond are real: a timestamp costs about as much.
    Longer times never read as shorter ones: the text's value does not fall while ``ns`` grows.
    """
    if ns < 0:
        return f"-{duration(-ns)}"
    if ns < _MICROSECOND:
        return f"{ns} ns"
    if _rounded(ns, _MICROSECOND, 0) < 1_000:
        return _fixed(ns, _MICROSECOND, "us", most_digits=2)
    if _rounded(ns, _MILLISECOND, 0) < 1_000:
        return _fixed(ns, _MILLISECOND, "ms", most_digits=3)
    whole = int(_rounded(ns, _SECOND, 0))
    if whole < 60:
        return _fixed(ns, _SECOND, "s", most_digits=3)
    minutes, seconds = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes + (seconds >= 30), 60)
    return f"{count(hours)} h {minutes:02} min"


def instant(ns: int) -> str:
    """A point in time within an exchange, always in milliseconds to the microsecond."""
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    whole, micro = divmod(int(_rounded(ns, _MICROSECOND, 0)), 1_000)
    return f"{sign}{whole}.{micro:03} ms"


def nanoseconds(ns: int) -> str:
    """The exact number, for whoever asks for it: ``2,600,000,000 ns``."""
    return f"{ns:,} ns"


def count(number: int) -> str:
    """A count with its thousands apart: ``30,000``."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """A count and its noun: ``1 flow``, ``30,000 flows``."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def size(octets: int) -> str:
    """A number of bytes in decimal units: ``100 B``, ``64.0 kB``, ``1.50 GB``."""
    if octets < 0:
        return f"-{size(-octets)}"
    if octets < 1_000:
        return f"{octets} B"
    unit = 1_000
    for name in ("kB", "MB", "GB", "TB"):
        if _rounded(octets, unit, 0) < 1_000 or name == "TB":
            return _fixed(octets, unit, name, most_digits=3)
        unit *= 1_000
    raise AssertionError("unreachable: TB takes all")


def share(part: int, whole: int) -> str:
    """A part of a whole in percent. Nothing reads as all or as none unless it is: ``>99.9 %``, ``<0.1 %``."""
    if whole <= 0 or part == 0:
        return "0 %"
    if part == whole:
        return "100 %"
    tenths = _rounded(part * 100, whole, 1)
    if tenths < Fraction(1, 10):
        return "<0.1 %"
    if tenths >= 100:
        return ">99.9 %"
    return f"{float(tenths):.1f} %"


def ratio(value: float) -> str:
    """A ratio of two medians to three digits, in plain notation: ``1.73``, ``0.000523``."""
    if value == 0:
        return "0"
    digits = f"{value:.2e}"
    exponent = int(digits.partition("e")[2])
    return f"{value:,.{max(0, 2 - exponent)}f}"


def _rounded(value: int, unit: int, digits: int) -> Fraction:
    """``value / unit`` rounded half to even, exactly: floats would round 999.95 twice."""
    return Fraction(round(Fraction(value * 10**digits, unit)), 10**digits)


def _fixed(value: int, unit: int, name: str, *, most_digits: int) -> str:
    """``value / unit`` with as many decimals as keep it within ``most_digits`` digits."""
    for decimals in range(most_digits - 1, -1, -1):
        rounded = _rounded(value, unit, decimals)
        if rounded < 10 ** (most_digits - decimals) or decimals == 0:
            return f"{float(rounded):,.{decimals}f} {name}"
    raise AssertionError("unreachable: zero decimals take all")
