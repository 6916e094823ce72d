"""Keeps our entry in the list that the runtime takes, whoever rewrites it.

Laws:

- Our entry is in the list only while the runtime can start its binary: an entry without one keeps every pod from
  starting. Is the binary gone, the entry goes too; both are put back when whoever removes directories is done with it.
- Whoever takes the entry out again and again is not fought: after a burst it is put back once a second, and the log
  says so.
- What cannot be done is said once, not at every look.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ackward.errors import AckwardError, Unavailable
from ackward.kernel.inotify import Watch
from ackward.model.node import Entry, Placement
from ackward.node import conflist
from ackward.node.replacing import rewrite

#: Seconds between looks that nothing gave cause to: a link's target, a directory that was mounted over.
LOOK_AGAIN = 1.0
#: Whether a pod may start without the agent.
POLICIES, _POLICY = ("open", "closed"), "failurePolicy"
#: So often the entry is put back at once; then as often as the allowance grows, a second.
BURST, GROWTH = 120, 1.0


def first_list(directory: Path) -> Path | None:
    """The file that the runtime takes; none if there is none."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if not entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    name = conflist.chosen(names)
    return directory / name if name else None


def look(directory: Path) -> Entry:
    """What is there now; changes nothing."""
    path = first_list(directory)
    if path is None:
        return _entry(Placement.NO_LIST, None, str(_no_list(directory)))
    try:
        # In the first place ours is of no use: it has no result to pass on.
        found = conflist.parse(path.name, path.read_bytes())
        conflist.added(found, {})  # refuses a list that ours cannot be in
        if found.ours:
            return _entry(Placement.IN_PLACE, path)
    except FileNotFoundError:
        return _entry(Placement.NO_LIST, None, str(_no_list(directory)))
    except AckwardError as error:
        return _entry(Placement.REFUSED, path, str(error))
    except OSError as error:
        return _entry(Placement.REFUSED, path, f"{path} cannot be read ({error.strerror})")
    absent = Unavailable(
        f"{path} has no entry of ours",
        consequence="new pods do not meet the plugin",
        next_step="`ackward node install` puts it in, and so does an agent that runs",
    )
    return _entry(Placement.ABSENT, path, str(absent))


def policy(directory: Path) -> str | None:
    """The failure policy of our entry in the list that the runtime takes; none if there is none."""
    try:
        path = first_list(directory)
        found = conflist.parse(path.name, path.read_bytes()) if path else None
        place = found.ours if found else None
    except (AckwardError, OSError):
        return None
    said = found.plugins[place].value.get(_POLICY) if found and place is not None else None
    return said if said in POLICIES else None


def put(directory: Path, wanted: Mapping[str, object]) -> tuple[Entry, str]:
    """Put our entry where the runtime looks; the words say what that changed, if anything."""
    path, before = first_list(directory), policy(directory)
    if path is None:
        return look(directory), ""
    try:
        changed = rewrite(path, lambda text: conflist.added(conflist.parse(path.name, text), wanted))
    except FileNotFoundError:
        return look(directory), ""
    except AckwardError as error:
        return _entry(Placement.REFUSED, path, str(error)), ""
    words = "entry put in"
    if before not in (None, wanted[_POLICY]):
        words += f", {_POLICY} {before} -> {wanted[_POLICY]}"
    return _entry(Placement.IN_PLACE, path), words if changed else ""


def take_out(directory: Path) -> list[Path]:
    """Take our entry out of every list there; gives those that had it. Raises the first complaint at the end."""
    changed: list[Path] = []
    complaint: AckwardError | None = None
    for path in _lists(directory):
        try:
            if conflist.TYPE.encode() in path.read_bytes() and rewrite(path, _without_ours(path.name)):
                changed.append(path)
        except FileNotFoundError:
            continue
        except AckwardError as error:
            complaint = complaint or error
    if complaint:
        raise complaint
    return changed


def _lists(directory: Path) -> list[Path]:
    try:
        return sorted(entry for entry in directory.iterdir() if entry.name.endswith(".conflist"))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _without_ours(name: str) -> Callable[[bytes], bytes]:
    return lambda text: conflist.removed(conflist.parse(name, text))


def _no_list(directory: Path) -> Unavailable:
    return Unavailable(
        f"{directory} has no CNI configuration",
        consequence="there is no list to put the entry into",
        next_step="see that the primary CNI plugin runs, or name its directory with --cni-conf-dir",
    )


def _entry(state: Placement, path: Path | None, words: str = "") -> Entry:
    return Entry(state=state, file=str(path) if path else None, words=words)


class Keeper:
    """Looks whenever the directory or the binary changes, and puts both back.

    ``place()`` puts the binary there. ``rewrote(path, what)`` is called after each change of a list, ``moved(entry)``
    when something became different, ``trouble(words)`` when changes cannot be watched: then it looks once a second.
    """

    def __init__(
        self,
        directory: Path,
        binary: Path,
        wanted: Mapping[str, object],
        *,
        place: Callable[[], object],
        rewrote: Callable[[Path, str], None],
        moved: Callable[[Entry], None],
        trouble: Callable[[str], None],
    ) -> None:
        self.entry = _entry(Placement.ABSENT, None, "not looked at yet")
        self._directory, self._binary, self._wanted = directory, binary, wanted
        self._place, self._rewrote, self._moved, self._trouble = place, rewrote, moved, trouble
        self._gone_since: float | None = None
        self._allowance, self._counted = float(BURST), time.monotonic()

    def run(self, stop: int, ticked: Callable[[], None]) -> None:
        """Keep the entry until the descriptor ``stop`` is readable; ``ticked`` is called after each look."""
        with ExitStack() as ending:
            waiting = select.poll()
            waiting.register(stop, select.POLLIN)
            watch = self._watch(ending)
            if watch:
                waiting.register(watch.fileno(), select.POLLIN)
            while True:
                if watch and not self._watches(watch):
                    waiting.unregister(watch.fileno())
                    watch = None
                self.settle()
                ticked()
                if any(descriptor == stop for descriptor, _ in waiting.poll(LOOK_AGAIN * 1000)):
                    return

    def _watch(self, ending: ExitStack) -> Watch | None:
        try:
            return ending.enter_context(Watch())
        except OSError as error:  # fs.inotify.max_user_instances is 128 for all of root's programs
            self._trouble(f"changes are looked for once a second: inotify has no room ({error.strerror})")
            return None

    def _watches(self, watch: Watch) -> bool:
        try:
            for directory in (self._directory, self._binary.parent):
                watch.add(directory)
        except OSError as error:
            self._trouble(
                f"{error.filename} is looked at once a second: it cannot be watched ({error.strerror})"
            )
            return False
        watch.drain()
        return True

    def settle(self) -> None:
        """Make it as it should be now."""
        try:
            entry = self._settled()
        except OSError as error:
            entry = _entry(Placement.REFUSED, None, f"{error.filename or self._directory}: {error.strerror}")
        if entry != self.entry:
            self.entry = entry
            self._moved(entry)

    def _settled(self) -> Entry:
        try:
            self._put_binary()
        except AckwardError as error:
            return self._without_binary(error)
        if not self._may_put() and look(self._directory).state is Placement.ABSENT:
            return _entry(Placement.ABSENT, first_list(self._directory), str(_fought()))
        entry, changed = put(self._directory, self._wanted)
        if changed and entry.file:
            self._allowance -= 1
            self._rewrote(Path(entry.file), changed)
        return entry

    def _put_binary(self) -> None:
        """See that the runtime can start it. Raises while it cannot: why, and what to do."""
        now = time.monotonic()
        if self._binary.is_file() and os.access(self._binary, os.X_OK):
            self._gone_since = None
            return
        self._gone_since = self._gone_since or now
        if now - self._gone_since < LOOK_AGAIN:  # `rm -r` fails if a file comes back meanwhile
            raise Unavailable(
                "it has just gone",
                consequence="the entry goes too",
                next_step=f"none: both are put back in {LOOK_AGAIN:g} s",
            )
        self._place()

    def _without_binary(self, why: AckwardError) -> Entry:
        path = first_list(self._directory)
        try:
            for changed in take_out(self._directory):
                self._rewrote(changed, "entry taken out")
        except AckwardError as error:
            return _entry(Placement.REFUSED, path, str(error))
        missing = Unavailable(
            f"{self._binary} is not there ({why.missing})",
            consequence="with our entry in the list no pod could start: it is not in it",
            next_step=why.next_step,
        )
        return _entry(Placement.ABSENT, path, str(missing))

    def _may_put(self) -> bool:
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._counted) * GROWTH)
        self._counted = now
        return self._allowance >= 1


def _fought() -> Unavailable:
    return Unavailable(
        "somebody takes the entry out all the time",
        consequence=f"it is put back {GROWTH:g} times a second, and pods that start in between go without",
        next_step="stop one of the two: that program, or this agent",
    )
