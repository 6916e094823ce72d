"""Our entry in a list of chained plugins. Pure: bytes in, bytes or a refusal out.

Laws:

- What is not our entry keeps every byte: order, spacing, unknown keys, and the ``cniVersion`` above all (1.1.0 in it
  broke pods on containerd 1.6).
- :func:`removed` of :func:`added` gives the very bytes that went in.
- An entry of our type that lacks our mark is somebody else's: it is neither changed nor removed.
- A single plugin's ``.conf`` is never made into a list: its name, its version and who owns it are not ours to decide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # the decoder's own, since 2.6
from typing import Any

from ackward.errors import Refused
from ackward.node.cni import ANNOTATIONS, VERSIONS

#: The name of the plugin, its entry's ``type`` and its file in the directory of binaries.
TYPE = "ackward-cni"
#: Who put the entry there, and may take it away.
MARK = ("managedBy", "ackward node")
#: What a runtime takes for a configuration (libcni's ConfFiles as containerd and CRI-O call it).
SUFFIXES = (".conf", ".conflist", ".json")
#: No list of plugins is near this; a runtime would not thank us for copying more.
LARGEST = 1 << 20
#: sockaddr_un has 108 bytes for a path, the last of them zero (unix(7)).
LONGEST_SOCKET = 107

# What JSON says without an escape, which the stub does not undo: no quotes, no backslashes, ASCII alone. Go's encoder,
# with which runtimes write the configuration again, escapes <, > and & too.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+=:,@~ -]+")
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class _Span:
    """A value and where its text begins and ends."""

    value: Any
    begin: int
    end: int


@dataclass(frozen=True)
class Conflist:
    """A list of plugins: its text, and where each entry stands in it."""

    text: str
    name: str
    version: str
    plugins: tuple[_Span, ...]

    @property
    def ours(self) -> int | None:
        """The place of our entry; none if it is not there. Raises :class:`Refused` for a foreign one of our type."""
        places = [
            at
            for at, plugin in enumerate(self.plugins)
            if isinstance(plugin.value, dict) and plugin.value.get("type") == TYPE
        ]
        if not places:
            return None
        if len(places) > 1 or self.plugins[places[0]].value.get(MARK[0]) != MARK[1]:
            raise Refused(
                f"the list {self.name!r} has an entry of the type {TYPE} that ackward did not make",
                consequence="the list was not changed",
                next_step=f"remove that entry, or give it {MARK[0]!r}: {MARK[1]!r} to hand it over",
            )
        return places[0]


def entry(socket: str, failure_policy: str) -> dict[str, object]:
    """Our entry: where the agent listens, and whether a pod may start without it (``open``) or not (``closed``).

    Raises :class:`Refused` for a socket that the stub could not find.
    """
    if not _PLAIN_PATH.fullmatch(socket) or len(socket) > LONGEST_SOCKET:
        raise Refused(
            f"{socket!r} is no path for the agent's socket",
            consequence="the plugin could not ask the agent; nothing was changed",
            next_step=f"name a --run-dir of letters, digits and ._+=:,@~- (the socket: {LONGEST_SOCKET} bytes at most)",
        )
    return {
        "type": TYPE,
        MARK[0]: MARK[1],
        "capabilities": {ANNOTATIONS: True},
        "agentSocket": socket,
        "failurePolicy": failure_policy,
    }


def chosen(names: Sequence[str]) -> str | None:
    """The file that the runtime takes: the first in byte order of those that it takes for configurations.

    Go's ``sort.Strings`` in containerd's go-cni and CRI-O's ocicni; a leading dot hides nothing from them.
    """
    files = [name for name in names if name.endswith(SUFFIXES)]
    return min(files, key=lambda name: name.encode(errors="surrogateescape"), default=None)


def parse(name: str, content: bytes) -> Conflist:
    """The list in a file of that name; raises :class:`Refused` for anything that is none."""
    if not name.endswith(".conflist"):
        raise Refused(
            f"the runtime takes {name}, a single plugin, and ackward chains only to a list",
            consequence="no pod gets quickack from its first packet",
            next_step='make it a .conflist (its plugin into "plugins": [...]), or use `ackward node agent --no-cni`',
        )
    if len(content) > LARGEST:
        raise _broken(name, f"it has {len(content)} bytes")
    try:
        text = content.decode()
        members = list(_members(text))
    except (ValueError, RecursionError, StopIteration) as error:
        raise _broken(name, str(error) or type(error).__name__) from error
    found = [span for key, span in members if key == "plugins"]
    if len(found) != 1 or not isinstance(found[0].value, list) or not found[0].value:
        raise _broken(name, 'it does not have one list of "plugins"')
    top = {key: span.value for key, span in members}
    if not all(isinstance(plugin, dict) and plugin.get("type") for plugin in found[0].value):
        raise _broken(name, 'a plugin in it has no "type"')
    plugins = tuple(_items(text, found[0].begin))
    return Conflist(text, name, str(top.get("cniVersion", "")), plugins)


def added(conflist: Conflist, wanted: Mapping[str, object]) -> bytes:
    """The list with our entry as wanted: at its end if it was not there, else where it stands.

    Others chain themselves to the end as well; who insists on the last place would start a fight. Only the first
    place will not do: there is no result of another plugin to pass on.
    """
    if conflist.version not in VERSIONS:
        raise Refused(
            f"{conflist.name} has the cniVersion {conflist.version!r}, which {TYPE} does not speak",
            consequence="no pod could start with its entry in it; the list was not changed",
            next_step=f"ackward speaks {VERSIONS[0]} to {VERSIONS[-1]}: wait for one that speaks this too",
        )
    place = conflist.ours
    if place is None:
        last = conflist.plugins[-1]
        text = conflist.text
        return (text[: last.end] + _joint(conflist) + json.dumps(wanted) + text[last.end :]).encode()
    if place == 0:
        without = removed(conflist)
        return added(parse(conflist.name, without), wanted)
    ours = conflist.plugins[place]
    if ours.value == wanted:
        return conflist.text.encode()
    return (conflist.text[: ours.begin] + json.dumps(wanted) + conflist.text[ours.end :]).encode()


def removed(conflist: Conflist) -> bytes:
    """The list without our entry; as it is if that is not there. Raises :class:`Refused` if nothing else is in it."""
    place = conflist.ours
    text = conflist.text
    if place is None:
        return text.encode()
    if len(conflist.plugins) == 1:
        raise Refused(
            f"the list {conflist.name!r} has no entry but ours",
            consequence="without it the runtime would have no network at all; the list was not changed",
            next_step="remove the file, or let the primary plugin write it again",
        )
    if place == 0:
        return (text[: conflist.plugins[0].begin] + text[conflist.plugins[1].begin :]).encode()
    return (text[: conflist.plugins[place - 1].end] + text[conflist.plugins[place].end :]).encode()


def _joint(conflist: Conflist) -> str:
    """What stands between two entries, or what would: the list's own way to write them."""
    text, plugins = conflist.text, conflist.plugins
    if len(plugins) > 1:
        return text[plugins[-2].end : plugins[-1].begin]
    opening = text.rindex("[", 0, plugins[0].begin)
    return "," + text[opening + 1 : plugins[0].begin]


def _members(text: str) -> Iterator[tuple[str, _Span]]:
    """The members of the one object in a text, in order; raises ValueError for anything else."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    at = _expect(text, 0, "{")
    if text[at : at + 1] == "}":
        raise ValueError("it is empty")
    while True:
        if text[at : at + 1] != '"':
            raise ValueError(f"a name is missing at character {at}")
        key, at = scanstring(text, at + 1)
        at = _expect(text, at, ":")
        value, end = decoder.raw_decode(text, at)
        yield key, _Span(value, at, end)
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it matches everywhere
        if text[at : at + 1] == "}":
            if text[at + 1 :].strip(" \t\n\r"):
                raise ValueError(f"something follows the object at character {at + 1}")
            return
        at = _expect(text, at, ",")


def _items(text: str, begin: int) -> Iterator[_Span]:
    """The items of the array that begins there; it has been read before, so its form is known to be right."""
    decoder = json.JSONDecoder()
    at = _expect(text, begin, "[")
    while True:
        value, end = decoder.raw_decode(text, at)
        yield _Span(value, at, end)
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        if text[at] == "]":
            return
        at = _expect(text, at, ",")


def _expect(text: str, at: int, mark: str) -> int:
    """The place of what follows ``mark`` and the space around it."""
    at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    if text[at : at + 1] != mark:
        raise ValueError(f"{mark!r} is missing at character {at}")
    return _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _broken(name: str, why: str) -> Refused:
    return Refused(
        f"{name} is no list of plugins ({why})",
        consequence="it was not changed; the runtime cannot use it either",
        next_step="let the primary plugin write it again",
    )
