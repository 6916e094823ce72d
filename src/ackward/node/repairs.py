"""Running pods that lack what they ask for get it: whose ADD nobody answered, who lost it, who was there before us."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from ackward.errors import AckwardError
from ackward.node.cni_commands import Commands
from ackward.node.cni_missed import Missed
from ackward.node.logs import tell
from ackward.node.metrics import Metrics
from ackward.node.pods import Attachment, Outcome, Pods

#: Seconds. The promise is 5 s after the agent is back, and a stub may give up on a slow agent at any time.
ANSWER_MISSED = 0.5
LOOK_AT_PODS = 30.0
#: To read 200 pods back takes a second or two of a processor.
READ_BACK = 300.0
_MOST_COMPLAINTS = 100  # the last are remembered, so that each is said once

#: Gives the running pods whose annotations are not those on record (by container id); complains of runtimes.
Unmet = Callable[[Mapping[str, Attachment], Callable[[AckwardError], None]], Iterable[Attachment]]


class Repairs:
    """The repairs of one agent, in a thread of its own. ``wake`` makes it look at the pods at once."""

    def __init__(
        self, pods: Pods, commands: Commands, missed: Missed, metrics: Metrics, unmet: Unmet
    ) -> None:
        self._pods, self._commands, self._missed, self._metrics = pods, commands, missed, metrics
        self._unmet = unmet
        self._complaints: deque[str] = deque(maxlen=_MOST_COMPLAINTS)
        metrics.count_pods(lambda: len(pods.all()))
        self._stop = threading.Event()
        self.wake = threading.Event()
        self.beat = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Repair until told to stop."""
        self._stop = stop
        looked, read_back = -LOOK_AT_PODS, -READ_BACK
        while not stop.is_set():
            self.answer_missed()
            if self.wake.is_set() or time.monotonic() - looked >= LOOK_AT_PODS:
                self.wake.clear()
                self.sweep()
                self.reach_running()
                looked = time.monotonic()
            if time.monotonic() - read_back >= READ_BACK:
                self.restore()
                read_back = time.monotonic()
            self.wake.wait(ANSWER_MISSED)

    def answer_missed(self) -> int:
        """Answer the ADDs that stubs left while nobody was there; how many. A look at all pods does not delay it."""
        self.beat = time.monotonic()
        count = 0
        try:
            if self._missed.waiting():
                count = self._missed.replay(self._commands)
            self._metrics.missed.set(self._missed.waiting())
        except OSError as error:
            self._complain(f"{self._missed.directory}: {error}")
        if count:
            self._metrics.repaired.labels("missed").inc(count)
            tell("missed ADDs answered", count=count)
        return count

    def sweep(self) -> None:
        """Forget the pods that are gone."""
        for attachment in self._pods.sweep():
            tell("pod forgotten", pod=attachment.words, why="its namespace is gone")

    def restore(self) -> None:
        """Read each pod on record back from the kernel, and give back what it has lost."""
        for attachment in self._pods.all():
            if self._stop.is_set():
                return
            self.answer_missed()
            with self._one(attachment):
                if self._pods.is_there(attachment) and (lacking := self._pods.lacking(attachment)):
                    self._told("lost", attachment, self._pods.apply(attachment), lacking=lacking)

    def reach_running(self) -> None:
        """Give running pods what they ask for now, and take back what they ask for no more."""
        recorded = {attachment.container_id: attachment for attachment in self._pods.all()}
        try:
            for attachment in self._unmet(recorded, lambda error: self._complain(str(error))):
                if self._stop.is_set():
                    return
                self.answer_missed()
                with self._one(attachment):
                    wanted = attachment.wanted
                    self._complained(attachment, wanted.complaints)
                    if wanted:
                        self._told("running", attachment, self._pods.apply(attachment, wanted))
                    elif attachment.container_id in recorded:
                        outcome = self._pods.forget(attachment.container_id, attachment.ifname)
                        self._told("withdrawn", attachment, outcome)
        except AckwardError as error:
            self._complain(str(error))

    @contextmanager
    def _one(self, attachment: Attachment) -> Iterator[None]:
        """The repair of one pod: whatever becomes of it, the others get theirs."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a fault of ours; the agent would meet it again at each start
            words = f"{attachment.words}: {type(error).__name__}: {error}"
            if self._metrics.refused(attachment.container_id, attachment.ifname, [words]):
                tell("repair not possible", error=words)

    def _complained(self, attachment: Attachment, complaints: tuple[str, ...]) -> None:
        if news := self._metrics.complained(attachment.container_id, attachment.ifname, complaints):
            tell("annotations make no sense", pod=attachment.words, complaints=news)

    def _told(self, way: str, attachment: Attachment, outcome: Outcome, **fields: object) -> None:
        if outcome.changed:
            self._metrics.repaired.labels(way).inc()
            self._metrics.changes.inc(len(outcome.changed))
        news = self._metrics.refused(attachment.container_id, attachment.ifname, outcome.problems)
        if outcome.problems and not outcome.changed and not news:
            return  # it has been told, and is tried again and again
        otherwise = "pod not repaired" if outcome.problems else "nothing to repair"
        tell(
            "pod repaired" if outcome.changed else otherwise,
            way=way,
            pod=attachment.words,
            changed=outcome.changed,
            problems=outcome.problems,
            notes=outcome.notes,
            **fields,
        )

    def _complain(self, words: str) -> None:
        """Say what cannot be done, once: it is tried again and again."""
        if words not in self._complaints:
            self._complaints.append(words)
            tell("repair not possible", error=words)
