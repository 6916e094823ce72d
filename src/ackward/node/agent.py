"""The node agent: everything that runs while it runs, and how it begins and ends.

The thread that starts it keeps the entry and the marker. The others serve the stub, repair pods, ask the own socket
whether it answers, answer HTTP, and with ``--no-cni`` follow the API server. None may end before it is told to: if one
does, the agent ends with an error, and whoever started it starts it again.

Laws: SIGTERM ends it with 0: the marker goes first, what runs is finished, the entry stays (an upgrade lasts seconds,
the stub lets pods start meanwhile, and they are repaired). Killed at any time, the next one finds what it needs on the
disk.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import AckwardError, Unavailable
from ackward.model.node import Entry, Form, Placement
from ackward.node import answering, health, runtime
from ackward.node.cni_commands import Commands, Served
from ackward.node.cni_missed import Missed
from ackward.node.following import PodsOfNode
from ackward.node.installing import place_binary
from ackward.node.keeper import LOOK_AGAIN, Keeper
from ackward.node.logs import tell
from ackward.node.marker import Marker
from ackward.node.metrics import Metrics
from ackward.node.places import Places
from ackward.node.pods import Attachment, Pods
from ackward.node.repairs import Repairs
from ackward.node.requests import Server
from ackward.node.wire import Answer, Request

#: Seconds between questions to the own socket.
_ASK_OWN = 1.0
#: Seconds without a sign of life until a part counts as stuck; a repair of 200 pods gives one after each.
_STUCK = 60.0


@dataclass(frozen=True)
class Settings:
    """What an agent is told.

    ``follow`` makes what follows the API server, given whom to call when pods changed: with it the agent is the
    daemon form, and touches no CNI configuration.
    """

    places: Places
    entry: Mapping[str, object]
    listen: tuple[str, int]
    follow: Callable[[Callable[[], None]], PodsOfNode] | None = None


class Agent:
    """One agent. :meth:`run` returns when it was told to stop; raises if a part of it failed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        places = settings.places
        self._metrics = Metrics()
        pods, missed = Pods(places.attachments, self._trouble), Missed(places.missed, self._trouble)
        self._commands = commands = Commands(pods, missed, tell=self._served)
        self._server = Server(places.socket, self._answer, self._trouble)
        self._repairs = Repairs(pods, commands, missed, self._metrics, self._unmet)
        self._following = settings.follow(self._repairs.wake.set) if settings.follow else None
        self._keeper = Keeper(
            places.configuration,
            places.binary,
            settings.entry,
            place=self._place_binary,
            rewrote=self._rewrote,
            moved=self._moved,
            trouble=lambda words: tell("list not watched", error=words),
        )
        self._stop = threading.Event()
        self._failed = ""
        self._answered = self._ticked = -_STUCK
        self._marked: bool | None = None
        self._mark_complaint = ""

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises :class:`Unavailable` if it cannot begin, or if a part of it failed."""
        with ExitStack() as ending:
            stop = ending.enter_context(self._told_to_stop())
            self._server.open()
            ending.callback(self._server.close)
            marker = ending.enter_context(Marker(self._settings.places.marker))
            pages = {"/metrics": self._metrics_page, "/healthz": self._healthz, "/readyz": self._readyz}
            host, port = ending.enter_context(health.served(*self._settings.listen, pages))
            if not self._following:
                self._place_binary()  # now that nothing refuses this agent any more
            tell("agent started", listen=f"{host}:{port}", socket=self._settings.places.socket)
            threads = [
                self._start("requests", self._server.run),
                self._start("repairs", self._repairs.run),
            ]
            if self._following:
                self._start("following", self._following.run)  # may hang in a read: it is not waited for
            else:
                self._ask_own()
                threads.append(self._start("answering", self._go_on_asking_own))
            try:
                self._keep(stop, marker)
            finally:
                self._mark(marker, so=False)
                self._stop.set()
                self._repairs.wake.set()
                for thread in threads:
                    thread.join()
            tell("agent stopped", why=self._failed or "it was told to")
        if self._failed:
            raise Unavailable(
                f"a part of the agent failed ({self._failed})",
                consequence="it ended; pods start all the same, and the next one repairs them",
                next_step="see its log, and start it again",
            )

    @contextmanager
    def _told_to_stop(self) -> Iterator[int]:
        """A descriptor that becomes readable with SIGTERM, with SIGINT, and when a part of the agent failed."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stop_writer = writer
        before = {
            number: signal.signal(number, lambda *_: self._end())
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield reader
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(writer)
            os.close(reader)

    def _end(self) -> None:
        with suppress(BlockingIOError):  # it was told often enough
            os.write(self._stop_writer, b".")

    def _start(self, name: str, body: Callable[[threading.Event], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                body(self._stop)
            except Exception as error:  # noqa: BLE001 - it ends the agent, with these words
                self._failed = f"{name}: {type(error).__name__}: {error}"
            if not self._stop.is_set():
                self._failed = self._failed or f"{name} ended"
                self._end()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _keep(self, stop: int, marker: Marker) -> None:
        if not self._following:
            self._keeper.run(stop, lambda: self._tick(marker))
            return
        while True:
            self._tick(marker)
            if select.select([stop], [], [], LOOK_AGAIN)[0]:
                return

    def _tick(self, marker: Marker) -> None:
        self._ticked = time.monotonic()
        self._metrics.entry.set(self._keeper.entry.state is Placement.IN_PLACE)
        self._metrics.answering.set(self._answers)
        self._metrics.watching.set(self._following is not None and self._following.is_following)
        self._mark(marker, so=not self._unready())

    def _mark(self, marker: Marker, *, so: bool) -> None:
        try:
            marker.say(so=so)
        except (AckwardError, OSError) as error:
            if str(error) != self._mark_complaint:
                tell("marker cannot be kept", error=str(error))
            self._mark_complaint, self._marked = str(error), None
        else:
            if so != bool(self._marked):
                tell("marker made" if so else "marker removed", path=self._settings.places.marker)
            self._mark_complaint, self._marked = "", so
        self._metrics.marker.set(bool(self._marked))

    def _ask_own(self) -> None:
        if answering.ask(self._settings.places.socket):
            self._answered = time.monotonic()

    def _go_on_asking_own(self, stop: threading.Event) -> None:
        while not stop.wait(_ASK_OWN):
            self._ask_own()

    @property
    def _answers(self) -> bool:
        return time.monotonic() - self._answered < 3 * _ASK_OWN

    def _unready(self) -> dict[str, str]:
        """Why new pods do not get what they ask for."""
        if self._following:
            return {} if self._following.is_following else {"api": str(_not_followed())}
        reasons = {}
        if self._keeper.entry.state is not Placement.IN_PLACE:
            reasons["entry"] = self._keeper.entry.words
        if not self._answers:
            reasons["socket"] = str(_silent(self._settings.places))
        return reasons

    def _unhealthy(self) -> dict[str, str]:
        """Why a start from anew would help."""
        last = {"keeper": self._ticked, "repairs": self._repairs.beat}
        if not self._following:
            last["socket"] = self._answered
        now = time.monotonic()
        reasons = {
            part: f"stuck for {now - then:.0f} s" for part, then in last.items() if now - then > _STUCK
        }
        return {**reasons, "failed": self._failed} if self._failed else reasons

    def _healthz(self) -> health.Answer:
        return health.verdict(self._unhealthy())

    def _readyz(self) -> health.Answer:
        return health.verdict(self._unready())

    def _metrics_page(self) -> health.Answer:
        return health.metrics(self._metrics.text())

    def _unmet(
        self, recorded: Mapping[str, Attachment], complain: Callable[[AckwardError], None]
    ) -> Iterable[Attachment]:
        if self._following is None:
            return runtime.unmet(runtime.of_sandbox, recorded, complain)
        self._following.relist_if_silent()
        return runtime.unmet(self._following.annotations, recorded, complain)

    def _answer(self, request: Request) -> Answer:
        if answering.is_asked(request):
            return answering.answer(Form.DAEMON if self._following else Form.PLUGIN, self._unready())
        return self._commands(request)

    def _served(self, served: Served) -> None:
        self._metrics.count(served)
        if served.code or served.wanted or served.problems or served.complaints:
            tell(
                "request served",
                command=served.command,
                container=served.container_id,
                interface=served.ifname,
                pod=served.pod,
                code=served.code or None,
                error=served.error,
                changed=served.changed,
                problems=served.problems,
                notes=served.notes,
                complaints=served.complaints,
                milliseconds=round(served.seconds * 1000, 3),
            )

    def _trouble(self, words: str) -> None:
        self._metrics.troubles.inc()
        tell("request not understood", error=words)

    def _place_binary(self) -> None:
        if place_binary(self._settings.places):
            tell("binary installed", file=self._settings.places.binary)

    def _rewrote(self, path: Path, what: str) -> None:
        self._metrics.rewrites.inc()
        tell("list rewritten", what=what, file=path)

    def _moved(self, entry: Entry) -> None:
        tell("entry", state=entry.state.value, file=entry.file, why=entry.words)


def _not_followed() -> Unavailable:
    return Unavailable(
        "the API server's pods are not followed",
        consequence="pods that start or change now are not seen",
        next_step="its log says why (`pods not followed`); it tries again by itself",
    )


def _silent(places: Places) -> Unavailable:
    return Unavailable(
        f"{places.socket} does not answer",
        consequence="pods start without what they ask for, and get it when it does",
        next_step="see the agent's log; /healthz fails when a start from anew would help",
    )
