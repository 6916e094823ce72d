"""An engine that outlives us: its pins, and how they go without the loss of a byte.

The kernel keeps a program as long as a socket runs it, and a map as long as a program uses it. So the pins may go while
connections are joined: what is queued stays readable, messages go over TCP into the same queues, and the last of these
connections to close takes the programs and maps with it.
"""

from __future__ import annotations

import time
from pathlib import Path

from ackward.kernel.bpffs import CgroupLink
from ackward.remedies.bpf_pins import BpfPins
from ackward.remedies.bypass.engine import LINK, PINS, Engine
from ackward.remedies.bypass.rules import Rules, Survey
from ackward.remedies.bypass.words import drained

#: So long (seconds) an undo waits for readers to empty their queues, with that much between looks. It is for the report
#: only: a reader that takes longer loses nothing.
_PATIENCE, _PAUSE = 1.0, 0.005


class PinnedEngine(BpfPins):
    """The pinned engine of one receipt, for connections with an end in its namespace."""

    def engine(self) -> Engine:
        """The engine. Raises FileNotFoundError when a part of it is not there."""
        return Engine.at(self.directory)

    def install(self, rules: Rules, cgroup: Path) -> None:
        """Load, pin, attach: nothing joins before all that an undo needs is pinned."""
        with Engine.load(rules) as engine:
            self.make_directory()
            engine.pin(self.directory)
            engine.attach(cgroup)
            engine.pin_link(self.directory)

    def remove(self) -> str | None:
        """Undo it: what became of its connections, in words; none if nothing was there."""
        if not self.is_there:
            return None
        said = "nothing had joined yet"
        try:
            engine = self.engine()
        except FileNotFoundError:
            # Cut off while it was made or removed: the link is pinned last and goes first, but its hook would stay.
            self._detach_link()
        else:
            with engine:
                engine.switch(joining=False, redirecting=False)
                survey = _waited_for(engine)
                said = drained(survey)
                engine.detach()
        for name in (LINK, *PINS):
            (self.directory / name).unlink(missing_ok=True)
        self.remove_directory()
        return said

    def _detach_link(self) -> None:
        try:
            with CgroupLink.at(self.directory / LINK) as link:
                link.detach()
        except FileNotFoundError:
            pass  # it was never attached, or is detached already


def _waited_for(engine: Engine) -> Survey:
    deadline = time.monotonic() + _PATIENCE
    while (survey := engine.survey()).waiting_bytes and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return survey


def all_pinned() -> list[PinnedEngine]:
    """All that are pinned, of every receipt and namespace."""
    return PinnedEngine.all("bypass")
