"""Remedies in the network namespaces of pods, and what this node remembers of them.

An attachment is one interface of one container, the CNI specification's own unit. Each has a directory with its
record and the receipts of its remedies: two hundred pods do not wait for one lock or read each other's receipts, and
what belongs to a pod goes with it. The remedies are those of ``ackward fix``: no rule about routes is here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from ackward import remedies
from ackward.errors import AckwardError, Refused, Unavailable, UnknownName
from ackward.kernel.namespaces import CLONE_NEWNET, Namespace, call_inside, resolve
from ackward.model.changes import Change, OpenSocketsSet
from ackward.model.plan import Ending, NamespaceIdentity, Receipt, Refusal, State
from ackward.model.report import Model
from ackward.model.scopes import BypassScope, Scope, SocketScope
from ackward.node.advice import for_pod
from ackward.node.annotations import PREFIX, Asked, Wanted, wanted
from ackward.node.pods_cgroup import cgroup_of
from ackward.remedies.pods_on_record import ATTACHMENTS, RECORD
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Remedy, find, identify

NODE = ATTACHMENTS.parent

_LOCKS = 64
#: BPF hooks do what these ask for, and no plan tells what came later: a hook reaches new sockets by itself.
_OF_SOCKETS = (SocketScope, BypassScope)
#: A bypass has a hook on the root of the cgroups, as the other end may be anywhere; the kernel allows 64 there
#: (BPF_CGROUP_MAX_PROGS), and pods shall not take them all from others.
_MOST_BYPASSED = 32
_NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h


class PodReference(Model):
    """A pod by its Kubernetes names, as far as the runtime told them."""

    namespace: str = ""
    name: str = ""
    uid: str = ""

    @property
    def words(self) -> str:
        """As kubectl names it."""
        return f"{self.namespace}/{self.name}"


class Attachment(Model):
    """One interface of one container. ``annotations`` are those that :mod:`ackward.node.annotations` reads.

    ``network`` is the name in the network configuration; ``identity`` is known once the namespace has been looked at.
    """

    container_id: str
    ifname: str
    netns: str = Field(description="the path of its network namespace")
    network: str = ""
    pod: PodReference | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    identity: NamespaceIdentity | None = None

    @property
    def words(self) -> str:
        """The pod if it is known, else the container."""
        return self.pod.words if self.pod and self.pod.name else f"container {self.container_id}"

    @property
    def wanted(self) -> Wanted:
        """What its annotations ask for."""
        return wanted(self.annotations)


@dataclass(frozen=True)
class Outcome:
    """What was changed, what could not be, and what is good to know, in words."""

    changed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Pods:
    """All attachments of a node, in ``directory``. Safe for threads; one attachment is changed by one at a time.

    ``trouble`` is told what has no caller to be told to.
    """

    def __init__(
        self, directory: Path = ATTACHMENTS, trouble: Callable[[str], None] = lambda _: None
    ) -> None:
        self.directory, self._trouble = directory, trouble
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def apply(self, attachment: Attachment, wanted: Wanted | None = None) -> Outcome:
        """Give the namespace what is ``wanted`` (else: what its annotations ask for). The same again changes nothing.

        A remedy that is refused or fails is a problem in words and keeps no other from being applied.
        """
        wanted = attachment.wanted if wanted is None else wanted
        with self._alone(attachment):
            try:
                namespace = _enterable(attachment)
                # Inside, no step of a remedy has to enter by itself. A hook is tried on a connection of our own first.
                outcome = call_inside(namespace, self._apply_routes, namespace, attachment, wanted)
                sockets = [asked for asked in wanted.requests if isinstance(asked.scope, _OF_SOCKETS)]
                return _together(outcome, self._apply_each(namespace, attachment, sockets))
            except (AckwardError, OSError) as error:  # it may also end between look and entry
                return Outcome(problems=(str(error),))

    def _apply_routes(self, namespace: Namespace, attachment: Attachment, wanted: Wanted) -> Outcome:
        identity = identify(namespace)
        self._record(attachment.model_copy(update={"identity": identity}))
        kept = {(asked.remedy, _scope(asked, attachment)) for asked in wanted.requests}
        uncleared = Outcome(problems=tuple(_clear(self._store(attachment), namespace, identity.cookie, kept)))
        routes = [asked for asked in wanted.requests if not isinstance(asked.scope, _OF_SOCKETS)]
        return _together(uncleared, self._apply_each(namespace, attachment, routes))

    def _apply_each(self, namespace: Namespace, attachment: Attachment, requests: Iterable[Asked]) -> Outcome:
        store = self._store(attachment)
        changed: list[str] = []
        problems: list[str] = []
        notes: list[str] = []
        for asked in requests:
            try:
                remedy = remedies.load(asked.remedy)
                found = remedy.plan(namespace, _scope(asked, attachment))
                if isinstance(found, Refusal):
                    raise found.as_error()
                # A plan for sockets is the same again when it is in force.
                if found.changes and store.find(asked.remedy, found.namespace, found.scope) is None:
                    if asked.remedy == "bypass":
                        _require_room()
                    receipt = remedy.apply(found, store)
                    changed += [made.words for made in receipt.changes if _changes(made)] if receipt else []
            except (AckwardError, OSError) as error:
                if isinstance(error, OSError) and not namespace.is_there:
                    raise  # that is what it died of
                problems.append(f"{asked.remedy}: {for_pod(str(error), asked.scope)}")
                continue
            notes += [f"{asked.remedy}: {for_pod(note, asked.scope)}" for note in found.notes]
        return Outcome(tuple(changed), tuple(problems), tuple(notes))

    def lacking(self, attachment: Attachment) -> tuple[str, ...]:
        """What is not in force of what the annotations ask for, as the kernel has it: each names its route or hook."""
        with self._alone(attachment):
            try:
                return self._lacking(_enterable(attachment), attachment)
            except (AckwardError, OSError) as error:
                return (str(error),)

    def _lacking(self, namespace: Namespace, attachment: Attachment) -> tuple[str, ...]:
        store = self._store(attachment)
        receipts = {(receipt.remedy, receipt.scope): receipt for receipt in store.load().receipts}
        lacking: list[str] = []
        for asked in attachment.wanted.requests:
            scope = _scope(asked, attachment)
            remedy = remedies.load(asked.remedy)
            try:
                lacking += _missing(remedy, receipts.get((asked.remedy, scope)), namespace, scope, store)
            except AckwardError as error:  # of the others all is told the same
                lacking.append(f"{asked.remedy}: {error}")
        return tuple(lacking)

    def forget(self, container_id: str, ifname: str) -> Outcome:
        """Take back what was changed, if the namespace is there still, and forget the attachment.

        It stays where something could not be taken back; :meth:`sweep` forgets it when the namespace is gone.
        """
        directory = self._path(container_id, ifname)
        with self._alone_at(directory):
            return _forget(directory)

    def forget_all(self) -> Iterator[tuple[str, Outcome]]:
        """Forget every attachment, also where its record cannot be read: who it was, and what became of it."""
        for directory in self._directories():
            with self._alone_at(directory):
                attachment = _read(directory)
                yield attachment.words if attachment else directory.name, _forget(directory)

    def all(self) -> list[Attachment]:
        """Every attachment that is recorded."""
        return [attachment for attachment in map(_read, self._directories()) if attachment is not None]

    def is_there(self, attachment: Attachment) -> bool:
        """Whether its namespace lives: the same one, not another one at its path."""
        if attachment.identity is not None:
            return find(attachment.identity) is not None
        try:
            _namespace(attachment.netns)
        except (UnknownName, FileNotFoundError):
            return False
        return True

    def sweep(self) -> list[Attachment]:
        """Forget those whose namespace is gone, and what no readable record speaks of; gives them.

        What could not be taken back is told to ``trouble`` and tried again at the next sweep.
        """
        swept: list[Attachment] = []
        for directory in self._directories():
            # An ADD that makes it now has written its record when we get there.
            with self._alone_at(directory):
                attachment = _read(directory)
                if attachment is not None and self.is_there(attachment):
                    continue
                outcome = _forget(directory)
            if attachment is None:
                container_id, _, ifname = directory.name.rpartition(".")
                attachment = Attachment(container_id=container_id, ifname=ifname, netns="")
            if outcome.problems:
                self._trouble(f"{attachment.words} cannot be forgotten: {'; '.join(outcome.problems)}")
            else:
                swept.append(attachment)
        return swept

    def _record(self, attachment: Attachment) -> None:
        directory = self._path(attachment.container_id, attachment.ifname)
        partial = directory / f".{RECORD}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.write_text(attachment.model_dump_json(), encoding="utf-8")
            partial.replace(directory / RECORD)
        except OSError as error:
            raise Unavailable(
                f"{directory} cannot be written ({error.strerror})",
                consequence="without a record nothing is changed",
                next_step=f"make {self.directory} a writable directory with some free space",
            ) from error

    def _store(self, attachment: Attachment) -> Receipts:
        return Receipts(self._path(attachment.container_id, attachment.ifname))

    def _path(self, container_id: str, ifname: str) -> Path:
        return self.directory / f"{container_id}.{ifname}"

    def _directories(self) -> list[Path]:
        try:
            return sorted(entry for entry in self.directory.iterdir() if entry.is_dir())
        except FileNotFoundError:
            return []

    @contextmanager
    def _alone(self, attachment: Attachment) -> Iterator[None]:
        with self._alone_at(self._path(attachment.container_id, attachment.ifname)):
            yield

    @contextmanager
    def _alone_at(self, directory: Path) -> Iterator[None]:
        # A lock for each would have to be made and forgotten with it; that two pods share one does no harm.
        with self._locks[hash(directory.name) % _LOCKS]:
            yield


def _together(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(
        (*one.changed, *other.changed), (*one.problems, *other.problems), (*one.notes, *other.notes)
    )


def _namespace(path: str) -> Namespace:
    """The network namespace that a runtime names; raises :class:`UnknownName` if it is none (any more)."""
    if not path.startswith("/"):
        raise UnknownName(
            f"{path!r} is no absolute path",
            consequence="nothing was done",
            next_step="the runtime names it from / on (CNI_NETNS): see its log",
        )
    namespace = resolve(path)
    descriptor = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    finally:
        os.close(descriptor)
    if kind != CLONE_NEWNET:
        raise UnknownName(
            f"{path} is a namespace, but none of the network",
            consequence="nothing was done",
            next_step="the runtime names the pod's network namespace (CNI_NETNS): see its log",
        )
    return namespace


def _enterable(attachment: Attachment) -> Namespace:
    namespace = _namespace(attachment.netns)
    if namespace.is_current:
        raise Refused(
            f"{attachment.netns} is the node's own network namespace",
            consequence="what a pod asks for is not done to the node; nothing was changed",
            next_step="run `ackward fix` on the node if it shall have the same",
        )
    return namespace


def _scope(asked: Asked, attachment: Attachment) -> Scope:
    """What is asked, of the pod's own cgroup where its sockets are to be found there."""
    if not isinstance(asked.scope, SocketScope | BypassScope) or attachment.pod is None:
        return asked.scope
    return asked.scope.model_copy(update={"cgroup": cgroup_of(attachment.pod.uid)})


def _changes(made: Change) -> bool:
    """Not where a pod had no connection open yet, so that none was set."""
    return not isinstance(made, OpenSocketsSet) or made.count != 0


def _require_room() -> None:
    from ackward.remedies.bypass.pinned import all_pinned  # only where a pod asks: it loads libbpf

    if len(all_pinned()) >= _MOST_BYPASSED:
        raise Refused(
            f"{_MOST_BYPASSED} bypasses are in force on this node already",
            consequence="the kernel allows 64 such hooks, ours and others'; this pod's connections stay on TCP",
            next_step=f"take {PREFIX}bypass off a pod that can do without, or let this one run on another node",
        )


def _missing(
    remedy: Remedy, receipt: Receipt | None, namespace: Namespace, scope: Scope, store: Receipts
) -> list[str]:
    """What is not in force, of the receipt and of routes that came after it."""
    if receipt is not None:
        details = remedy.status(receipt, store).details
        lost = [look.words for look in details if look.state is not State.IN_FORCE]
        if lost or isinstance(scope, _OF_SOCKETS):
            return lost
    found = remedy.plan(namespace, scope)
    if isinstance(found, Refusal):
        return [] if receipt is not None else [f"{remedy.name}: {found.reason}"]
    return [f"not done: {change.words}" for change in found.changes]


def _clear(
    store: Receipts, namespace: Namespace, cookie: int | None, kept: Collection[tuple[str, Scope]]
) -> Iterator[str]:
    """Undo what is not asked for any more, not wholly in force, or of an earlier namespace; gives problems."""
    for receipt in store.load().receipts:
        remedy = remedies.load(receipt.remedy)
        same_place = (receipt.namespace.inode, receipt.namespace.cookie) == (namespace.inode, cookie)
        try:
            asked = same_place and (receipt.remedy, receipt.scope) in kept
            if asked and not _missing(remedy, receipt, namespace, receipt.scope, store):
                continue
            outcome = remedy.undo(receipt, store)
        except AckwardError as error:
            yield f"{receipt.id}: {error}"
            continue
        if outcome.failed:
            yield from outcome.open_points


def _forget(directory: Path) -> Outcome:
    if not directory.is_dir():
        return Outcome()
    store = Receipts(directory)
    changed: list[str] = []
    problems: list[str] = []
    notes: list[str] = []
    try:
        contents = store.load()
    except AckwardError as error:
        return Outcome(problems=(str(error),))
    for receipt in reversed(contents.receipts):
        try:
            outcome = remedies.load(receipt.remedy).undo(receipt, store)
        except (AckwardError, OSError) as error:  # it must not keep the others from their undo
            problems.append(f"{receipt.id}: {error}")
            continue
        for part in outcome.details:
            {Ending.UNDONE: changed, Ending.FAILED: problems}.get(part.ending, notes).append(part.words)
    if not problems:
        problems += [
            f"{path.name} could not be read: what it spoke of may be left" for path in contents.damaged
        ]
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            pass  # without a record it went with its last receipt
        except OSError as error:
            problems.append(f"{directory} cannot be removed: {error.strerror}")
    return Outcome(tuple(changed), tuple(problems), tuple(notes))


def _read(directory: Path) -> Attachment | None:
    try:
        return Attachment.model_validate_json((directory / RECORD).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
