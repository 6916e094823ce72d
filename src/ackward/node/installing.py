"""Install and uninstall on a node: the binary before the entry, and the entry out before the binary.

At every moment the runtime can start what its list names: an entry without its binary would keep every pod from
starting, and make the removal of others fail, which leaks their addresses.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from ackward.errors import AckwardError, PartlyChanged, Refused, Unavailable
from ackward.kernel.directories import leave
from ackward.model.node import Form, Placement
from ackward.node import keeper, marker, wire
from ackward.node.answering import Told, ask
from ackward.node.conflist import TYPE
from ackward.node.places import Places, make_run
from ackward.node.pods import Pods
from ackward.node.replacing import install, unwritable

_STUBS = Path(__file__).with_name("stub")
_MODE = 0o755
#: What each of our stubs, of any version, has in it: the protocol's name without its number.
_SIGNATURE = wire.PROTOCOL.partition(b"/")[0] + b"/"


def stub() -> bytes:
    """The stub for this machine; raises :class:`Unavailable` if this installation has none."""
    path = _STUBS / f"{TYPE}-{platform.machine()}"
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(
            f"there is no {path.name} in this installation ({error.strerror})",
            consequence="the runtime would have nothing to start; the node was not changed",
            next_step="install a wheel for this machine, or build it: `python hatch_build.py`",
        ) from error


def place_binary(places: Places) -> bool:
    """Put the stub where the runtime looks for plugins; false if it was there."""
    content = stub()
    path = places.binary
    try:
        there = path.read_bytes()
    except FileNotFoundError:
        there = None
    except OSError as error:
        raise unwritable(path, error) from error
    if there is not None and _SIGNATURE not in there:
        raise Refused(
            f"{path} is somebody else's",
            consequence="it was not replaced; nothing was changed",
            next_step="see which package it belongs to, and remove it if it may go",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return install(path, content, _MODE)


def install_node(places: Places, entry: Mapping[str, object]) -> list[str]:
    """Room for what is missed, binary, then entry; gives what was done in words.

    Raises :class:`PartlyChanged` if the entry found no place.
    """
    try:
        make_run(places.run)  # the stub makes no directory but ours
    except OSError as error:
        raise unwritable(places.run, error) from error
    done = [f"{places.binary} installed" if place_binary(places) else f"{places.binary} was there"]
    found, changed = keeper.put(places.configuration, entry)
    if found.state is Placement.REFUSED:
        raise PartlyChanged(
            found.words,
            consequence="the binary is in place, which changes nothing by itself",
            next_step="see above, then `ackward node install` again",
        )
    if found.state is Placement.NO_LIST:
        done.append(f"{places.configuration} has no list yet: the agent puts the entry in when there is one")
    else:
        done.append(f"{changed}: {found.file}" if changed else f"the entry was in {found.file}")
    return done


def uninstall_node(places: Places, *, keep_binary: bool) -> list[str]:
    """Entry, marker, pods, what is ours in /run, and the binary last; gives what was done in words.

    Raises :class:`Refused` while an agent answers: it would do all again at once.
    """
    if told := ask(places.socket):
        raise _in_the_way(places, told)
    try:
        done = [f"entry taken out of {path}" for path in keeper.take_out(places.configuration)]
    except AckwardError as error:
        raise PartlyChanged(
            error.missing,
            consequence="the entry may still be in the list, so the binary stays: no pod could start without it",
            next_step=error.next_step,
        ) from error
    if marker.remove(places.marker):
        done.append(f"{places.marker} removed")
    open_points = _forget_pods(places, done)
    if not open_points:
        done += _clear_run(places)
    if not keep_binary and _is_ours(places.binary):
        try:
            places.binary.unlink()
        except OSError as error:
            raise unwritable(places.binary, error) from error
        done.append(f"{places.binary} removed")
    if open_points:
        raise PartlyChanged(
            "; ".join(open_points),
            consequence="all else was undone",
            next_step=f"their receipts are kept in {places.attachments}: `ackward node uninstall` again",
        )
    return done or ["nothing of ackward was on this node"]


def _in_the_way(places: Places, told: Told) -> Refused:
    again = "give pods again what they ask for" if told.form is Form.DAEMON else "put the entry back"
    return Refused(
        f"an agent answers at {places.socket}: it would {again}",
        consequence="nothing was changed",
        next_step="in a cluster `kubectl apply -k deploy/uninstall` ends it and does this on each node; "
        "without one end its service, then `ackward node uninstall` again",
    )


def _forget_pods(places: Places, done: list[str]) -> list[str]:
    open_points: list[str] = []
    for pod, outcome in Pods(places.attachments).forget_all():
        done.extend(f"{pod}: {words}" for words in outcome.changed)
        open_points.extend(f"{pod}: {words}" for words in outcome.problems)
    return open_points


def _clear_run(places: Places) -> list[str]:
    """Take away what is ours there, and the directory if nothing else is in it."""
    if not places.run.is_dir():
        return []
    found = [path for path in places.ours if os.path.lexists(path)]
    for path in found:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise unwritable(path, error) from error
    leave(places.run)
    if not places.run.is_dir():
        return [f"{places.run} removed"]
    return [f"{path} removed" for path in found]


def _is_ours(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode) and _SIGNATURE in path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unwritable(path, error) from error
