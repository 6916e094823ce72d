"""What brings connections to the workers' listeners: a program at the namespace's socket lookup."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.gateway import sockets
from ackward.gateway.settings import FixedListener, Listener, Settings
from ackward.gateway.sockets import Socket
from ackward.gateway.targets import MOST_WORKERS, load, targets_of
from ackward.gateway.worker import Sockets
from ackward.kernel.bpffs import NamespaceLink
from ackward.kernel.libbpf import Object
from ackward.kernel.namespaces import current

_PROGRAM = Path(__file__).with_name("steer.bpf.o")
_PURPOSE = "connections cannot be given to the gateway's listeners; the gateway was not started"


def entrance(listener: Listener, settings: Settings) -> Socket:
    """The listening socket of one worker for one listener."""
    buffer, limits = settings.buffers.near, settings.limits
    if isinstance(listener, FixedListener):
        return sockets.listening(listener.bind, limits, buffer=buffer)
    # Any port: the program finds it, not its address.
    host = "::1" if ":" in listener.network else "127.0.0.1"
    return sockets.listening((host, 0), limits, buffer=buffer, transparent=True)


def _needed(settings: Settings) -> bool:
    """Transparent listeners always; others where the worker that hears of a SYN has to be the one that accepts."""
    transparent = any(not isinstance(listener, FixedListener) for listener in settings.listeners)
    by_syn = any(settings.steps.early or listener.faithful for listener in settings.listeners)
    return transparent or (by_syn and settings.workers > 1)


#: Gives a worker's listeners what is meant for it; called again with those of a worker that replaces a lost one.
Steer = Callable[[int, Sockets], None]


@contextmanager
def steered(settings: Settings, netns: int) -> Iterator[Steer]:
    """Attach the program until the end; a worker keeps it attached as well, so it ends with the last process."""
    if not _needed(settings):
        yield lambda _number, _sockets: None
        return
    targets = targets_of(settings.listeners)
    with Object(_PROGRAM, purpose=_PURPOSE) as program:
        load(program, targets, netns=netns, workers=settings.workers)
        listeners = program.map("listeners")

        def steer(worker: int, own: Sockets) -> None:
            for number, target in enumerate(targets):
                faithful = settings.listeners[target.listener].faithful
                # One worker holds the SYNs of faithful listeners, and accepts what it let through.
                served = (range(settings.workers) if worker == 0 else ()) if faithful else (worker,)
                for each in served:
                    place = struct.pack("=I", number * MOST_WORKERS + each)
                    listeners.put(place, struct.pack("=Q", own.entrances[target.listener].fileno()))

        with NamespaceLink.attach(program.program_fd("steer"), current().path):
            yield steer
