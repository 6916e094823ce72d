"""What a pod's annotations ask for. Pure.

Nothing of a pod is trusted: what makes no sense becomes a complaint in words, and the rest is done all the same.

    enable-quickack            1, t, true, y, yes in any case; the Quickack CNI plugin's own annotation
    ackward.io/quickack        the same, or the networks (CIDRs, comma-separated) to which ACKs leave at once
    ackward.io/initcwnd        the segments that a connection begins with
    ackward.io/nodelay         as the first, or ports and ranges of ports: 80,8000-8100
    ackward.io/bypass          as the first, or one port or range of servers' ports
    ackward.io/bypass-accept   in what its connections may differ from TCP, as `ackward fix bypass --accept` names it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from ackward.model.bypass import Hazard
from ackward.model.scopes import MOST_SEGMENTS, BypassScope, RouteScope, Scope, SocketScope, WindowScope

ENABLE_QUICKACK = "enable-quickack"
PREFIX = "ackward.io/"
_BYPASS = f"{PREFIX}bypass"
#: In what the connections of a bypass may differ from TCP.
BYPASS_ACCEPT = f"{PREFIX}bypass-accept"

_YES = frozenset({"1", "t", "true", "y", "yes"})
_NO = frozenset({"0", "f", "false", "n", "no", ""})

# Connected routes too: to a pod on the same bridge leads no default route.
_EVERY_ROUTE = RouteScope(every=True)
_ALL_PORTS = (1, 65535)

#: A pod with more ports or networks than this is a mistake, and each costs a route or a hook.
_MOST_PARTS = 16
_MOST_SHOWN = 60  # of a value, in a complaint
# A pod may have 256 KiB of annotations, and what is looked at is put on record: nothing sensible is as long or as much.
_LONGEST, _MOST_UNKNOWN = 4096, 8


@dataclass(frozen=True)
class Asked:
    """One remedy and what it is to reach; a scope of sockets gets the pod's cgroup when that is known."""

    remedy: str
    scope: Scope


@dataclass(frozen=True)
class Wanted:
    """All that a pod asks for, in the order in which it is applied. ``complaints``: annotations that make no sense."""

    requests: tuple[Asked, ...] = ()
    complaints: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requests)


class _Nonsense(ValueError):
    """Why a value makes no sense, or the ``part`` of it that makes none."""

    def __init__(self, why: str, part: str | None = None) -> None:
        super().__init__(why)
        self.part = part


def ours(annotations: Mapping[str, object]) -> dict[str, str]:
    """The annotations that :func:`wanted` looks at, as text; of names that it does not know a few, to complain of."""
    known = [name for name in _READERS if name in annotations]
    unknown = sorted(name for name in annotations if name.startswith(PREFIX) and name not in _READERS)
    found = {name: annotations[name] for name in (*known, *unknown[:_MOST_UNKNOWN])}
    return {
        encodable(name): encodable(value if isinstance(value, str) else repr(value))[:_LONGEST]
        for name, value in found.items()
    }


def encodable(text: str) -> str:
    """Without what UTF-8 cannot say: JSON may hold half a surrogate pair, and a record of it could not be written."""
    return text.encode("utf-8", "replace").decode("utf-8")


def wanted(annotations: Mapping[str, object]) -> Wanted:
    """What the annotations ask for."""
    requests: dict[Asked, None] = {}  # in order, and each once
    complaints = []
    looked_at = ours(annotations)
    for name, value in sorted(looked_at.items()):
        reader = _READERS.get(name)
        if reader is None:
            complaints.append(f"{name}: no annotation of this version")
            continue
        try:
            requests |= dict.fromkeys(reader(value.strip()))
        except _Nonsense as error:
            shown = value if error.part is None else error.part
            complaints.append(f"{name}: {shown[:_MOST_SHOWN]!r} {error}")
        except ValueError:  # a model may refuse what a reader let pass
            complaints.append(f"{name}: {value[:_MOST_SHOWN]!r} makes no sense")
    accepted = _accepted(looked_at)
    if accepted and _BYPASS not in looked_at:
        complaints.append(f"{BYPASS_ACCEPT}: asks for nothing without {_BYPASS}")
    if any(one.remedy == "bypass" for one in requests):
        requests = {_accepting(one, accepted): None for one in requests}
    everything = Asked("quickack", _EVERY_ROUTE)
    if everything in requests:  # what is asked for all routes needs no route of its own for some
        requests = {one: None for one in requests if one == everything or one.remedy != "quickack"}
    return Wanted(tuple(requests), tuple(complaints))


def _quickack_for_all(value: str) -> list[Asked]:
    yes = _yes_or_no(value)
    if yes is None:
        raise _Nonsense("is neither yes nor no: write true")
    return [Asked("quickack", _EVERY_ROUTE)] if yes else []


def _quickack(value: str) -> list[Asked]:
    if _yes_or_no(value) is not None:
        return _quickack_for_all(value)
    return [Asked("quickack", RouteScope(to=_network(part))) for part in _parts(value)]


def _network(text: str) -> str | None:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise _Nonsense("is neither true nor networks like 10.0.0.0/8,fd00::/8") from error
    return str(network)


def _initcwnd(value: str) -> list[Asked]:
    few_digits = value.isascii() and value.isdigit() and len(value) <= len(str(MOST_SEGMENTS))
    if not few_digits or not 1 <= int(value) <= MOST_SEGMENTS:
        raise _Nonsense(f"is no number of segments from 1 to {MOST_SEGMENTS}")
    return [Asked("initcwnd", WindowScope(segments=int(value)))]


def _nodelay(value: str) -> list[Asked]:
    return [Asked("nodelay", SocketScope(ports=ports)) for ports in _chosen_ports(value)]


def _bypass(value: str) -> list[Asked]:
    chosen = _chosen_ports(value)
    if len(chosen) > 1:  # each is a hook that the whole node shares
        raise _Nonsense("names several ports: write one, or a range, or true")
    # With nothing named the remedy refuses; here the pod is.
    return [Asked("bypass", BypassScope(ports=ports or _ALL_PORTS)) for ports in chosen]


def _bypass_accept(value: str) -> list[Asked]:
    _hazards(value)  # of the bypass itself: it asks for nothing alone
    return []


def _hazards(value: str) -> tuple[Hazard, ...]:
    parts = {part.strip() for part in value.split(",")}
    if unknown := parts.difference(Hazard):
        raise _Nonsense(f"cannot be accepted: write some of {','.join(Hazard)}", ",".join(sorted(unknown)))
    return tuple(sorted(map(Hazard, parts)))


def _accepted(annotations: Mapping[str, str]) -> tuple[Hazard, ...]:
    try:
        return _hazards(annotations.get(BYPASS_ACCEPT, ""))
    except _Nonsense:
        return ()  # there is none, or it has been complained of


def _accepting(asked: Asked, accepted: tuple[Hazard, ...]) -> Asked:
    if not isinstance(asked.scope, BypassScope):
        return asked
    return Asked(asked.remedy, asked.scope.model_copy(update={"accepted": accepted}))


def _chosen_ports(value: str) -> list[tuple[int, int] | None]:
    """Ranges of ports; none stands for all, and no range for no."""
    # A lone 1 is yes, as in the other annotations: nobody serves on port 1.
    yes = _yes_or_no(value)
    if yes is not None:
        return [None] if yes else []
    return [*_joined(map(_ports, _parts(value)))]


def _ports(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    numbers = [part.strip() for part in (first, last or first)]
    if not all(part.isascii() and part.isdigit() and len(part) <= 5 for part in numbers):
        raise _Nonsense("is neither true nor ports like 80,8000-8100")
    low, high = map(int, numbers)
    if not 1 <= low <= high <= 65535:
        raise _Nonsense("names no ports: the first is 1, the last 65535")
    return low, high


def _joined(ranges: map[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without overlaps: two hooks on one connection would take each other's setting back."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def _yes_or_no(value: str) -> bool | None:
    word = value.lower()
    return True if word in _YES else False if word in _NO else None


def _parts(value: str) -> list[str]:
    parts = [part.strip() for part in value.split(",")]
    if len(parts) > _MOST_PARTS:
        raise _Nonsense(f"has {len(parts)} parts: {_MOST_PARTS} are the most")
    return parts


_READERS: Mapping[str, Callable[[str], list[Asked]]] = {
    ENABLE_QUICKACK: _quickack_for_all,
    f"{PREFIX}quickack": _quickack,
    f"{PREFIX}initcwnd": _initcwnd,
    f"{PREFIX}nodelay": _nodelay,
    _BYPASS: _bypass,
    BYPASS_ACCEPT: _bypass_accept,
}
