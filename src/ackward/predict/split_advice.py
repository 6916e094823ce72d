"""Whether gateways would pay, why or why not, and what else the figures show. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ackward.model.split import Advice, SplitInput, Timeline, Variant
from ackward.model.units import duration

#: Less is not worth two gateways.
WORTH_NS = 5_000_000
#: Hosts of one data centre or region are this near or nearer: whatever a download lacks there, distance is not why.
NEAR_NS = 2_000_000
#: Nor is a smaller share: the model itself is held to 10 % of a measured download.
WORTH_SHARE = 0.1

Timelines = Mapping[Variant, Timeline]


def advise(given: SplitInput, timelines: Timelines) -> Advice:
    """Compare the direct connection with all steps on."""
    direct, best = timelines[Variant.DIRECT], timelines[Variant.OPTIMISTIC]
    saved = direct.download_ns - best.download_ns
    pays = given.direct.rtt_ns > NEAR_NS and _worth(saved, direct)
    first = f"after {duration(best.first_byte_ns)} instead of {duration(direct.first_byte_ns)}"
    download = f"download after {duration(best.download_ns)} instead of {duration(direct.download_ns)}"
    figures = f"first byte {first}, {download}"
    if pays and _later(best.first_byte_ns, direct.first_byte_ns):
        why = (
            f"with everything on {download}: {best.download_ratio:.2f}x; but the first byte comes later, {first}: "
            f"{best.first_byte_ratio:.2f}x"
        )
        return Advice(split=True, why=why, notes=[*_notes(given, timelines)])
    if pays:
        why = f"with everything on {figures}: {best.first_byte_ratio:.2f}x and {best.download_ratio:.2f}x"
        return Advice(split=True, why=why, notes=[*_notes(given, timelines)])
    notes = [*_one_gateway(given), *_detour(given)]
    return Advice(split=False, why=f"{_reason(given, timelines, saved)}: {figures}", notes=notes)


def _worth(saved_ns: int, direct: Timeline) -> bool:
    return saved_ns >= max(WORTH_NS, WORTH_SHARE * direct.download_ns)


def _later(one_ns: int, other_ns: int) -> bool:
    """By more than can be read off the two times: what gateways add is microseconds."""
    return one_ns > other_ns and duration(one_ns) != duration(other_ns)


def _reason(given: SplitInput, timelines: Timelines, saved: int) -> str:
    """The first of the reasons that holds, the most fundamental first."""
    direct, best = timelines[Variant.DIRECT], timelines[Variant.OPTIMISTIC]
    if given.direct.rtt_ns <= NEAR_NS:
        return (
            f"the ends are only {duration(given.direct.rtt_ns)} apart, as inside one data centre or region: little can "
            f"be won before the first byte; after it windows and bandwidth are a matter of settings, not of distance"
        )
    longer = _path_ns(given) - given.direct.rtt_ns
    if longer > 0 and saved < WORTH_NS <= saved + 2 * longer:
        # A round trip for the handshake and one for the request each grow by the detour.
        return (
            f"the way over the gateways is {duration(longer)} longer than the direct one, and what splitting wins "
            f"does not make up for it"
        )
    if saved < WORTH_NS:
        why = f"it saves {duration(saved)}" if saved > 0 else f"it costs {duration(-saved)}"
        if given.size_bytes <= given.initial_window * given.mss:
            return f"the answer fits one initial window, so there is no slow start to shorten, and {why}"
        return f"{why}, too little for machines that can fail"
    sooner = direct.first_byte_ns - best.first_byte_ns
    return (
        f"it saves {duration(saved)}, {saved / direct.download_ns:.0%} of the download, which bandwidth and windows of "
        f"the legs decide (the first byte alone comes {duration(sooner)} sooner)"
    )


def _notes(given: SplitInput, timelines: Timelines) -> Iterator[str]:
    direct = timelines[Variant.DIRECT]
    alone = timelines[Variant.SPLIT]
    if not _worth(direct.download_ns - alone.download_ns, direct):
        yield f"splitting alone {_alone(alone.download_ns, direct.download_ns)}: it takes the other steps"
    yield from _one_gateway(given)
    near, far = given.legs[0].rtt_ns, given.legs[-1].rtt_ns
    if len(given.legs) > 2 and far > near:
        yield (
            f"the request waits {duration(far - near)} at the exit for the server's handshake: it follows the SYN by "
            f"the first leg's round trip, and the handshake takes the last one's"
        )
    faithful = timelines[Variant.FAITHFUL]
    if faithful.first_byte_ns >= direct.first_byte_ns:
        yield "faithful: the client is connected no sooner than directly; only the download gains"
    yield from _detour(given)


def _alone(split_ns: int, direct_ns: int) -> str:
    after, before = duration(split_ns), duration(direct_ns)
    if after == before:
        return f"changes nothing (the download takes {before} either way)"
    what = "makes it slower" if split_ns > direct_ns else "is not worth it"
    return f"{what} ({after} instead of {before})"


def _one_gateway(given: SplitInput) -> Iterator[str]:
    if len(given.legs) == 2:
        yield "with one gateway no leg has a gateway at both ends: pool and window change nothing, and are as early"


def _detour(given: SplitInput) -> Iterator[str]:
    longer = _path_ns(given) - given.direct.rtt_ns
    if longer > 0:
        yield f"the legs together are {duration(longer)} longer than the direct path"
    elif longer < 0:
        yield f"the legs together are {duration(-longer)} shorter than the direct path"


def _path_ns(given: SplitInput) -> int:
    return sum(leg.rtt_ns for leg in given.legs)
