"""Watches what programs see of their connections: how long they wait for answers, whatever carries these.

Segments say nothing of connections that a bypass has joined, so before and after one are measured here, at the calls
of the programs (``calls.bpf.c``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ackward.capture.calls_layout import CALL, CALL_END
from ackward.errors import ProgramRejected, Unavailable
from ackward.kernel.libbpf import Object
from ackward.kernel.machine import LINUX
from ackward.kernel.questions import tracepoint
from ackward.kernel.ring import Ring
from ackward.model.doctor import Outcome

PROGRAM = Path(__file__).with_name("calls.bpf.o")
#: Beyond so many calls (24 bytes each), or sockets (56), no more are taken: memory is bounded.
MOST_CALLS, MOST_ENDS = 4_000_000, 1_000_000
#: ``elapsed_ns`` of a call that failed.
FAILED = (1 << 64) - 1
_PURPOSE = "what programs wait for cannot be measured; nothing was changed"
_WITHOUT = "apply it without --prove, and compare what your own load says"

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Calls:
    """What was seen of TCP sockets on this host.

    ``calls``: CALL records, their ``socket`` an index of ``ends``. ``ends``: CALL_END records. ``clients`` and
    ``servers``: indices of ``ends``, the two of each connection that has both on this host, in the same order.
    ``lost``: records that found no room. ``ended_early``: there were more than are kept.
    """

    calls: NDArray[Any]
    ends: NDArray[Any]
    clients: Numbers
    servers: Numbers
    lost: int
    ended_early: bool


class CallCapture:
    """A running capture. Use as a context manager; call :meth:`poll` often, then :meth:`finish` once.

    ``cgroup_id``: the v2 cgroup whose sockets (and those below) are marked; 0: none. Raises :class:`Unavailable`.
    """

    def __init__(self, cgroup_id: int = 0) -> None:
        self._cgroup_id = cgroup_id
        self._calls: list[NDArray[Any]] = []
        self._ends: list[NDArray[Any]] = []
        self._taken = 0
        self._sockets = 0

    @property
    def full(self) -> bool:
        """Whether no more should be taken."""
        return self._taken >= MOST_CALLS or self._sockets >= MOST_ENDS

    def __enter__(self) -> Self:
        require_call_hooks()
        self._object = Object(PROGRAM, purpose=_PURPOSE)
        try:
            self._object.set_section(".rodata", struct.pack("=Q", self._cgroup_id))
            self._object.load()
            for program in ("wrote", "got"):
                self._object.attach(program)
            self._rings = Ring(self._object.map("calls"), CALL), Ring(self._object.map("ends"), CALL_END)
        except ProgramRejected as error:
            self._object.close()
            raise ProgramRejected(
                f"this kernel takes no program at its typed tracepoints (tp_btf): {error.missing}",
                log=error.log,
                consequence=_PURPOSE,
                next_step=_WITHOUT,
            ) from error
        except BaseException:
            self._object.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for ring in self._rings:
            ring.close()
        self._object.close()

    def poll(self) -> None:
        """Take what the kernel has ready."""
        calls, ends = (ring.drain() for ring in self._rings)
        if len(calls):
            self._calls.append(calls)
            self._taken += len(calls)
        if len(ends):
            self._ends.append(ends)
            self._sockets += len(ends)

    def finish(self) -> Calls:
        """Stop, and give back everything that was seen."""
        self._object.detach()
        self.poll()
        (lost,) = struct.unpack_from("=Q", self._object.map(".bss").get(bytes(4)) or bytes(8))
        ends = np.concatenate([np.zeros(0, CALL_END), *self._ends])
        calls = _indexed(np.concatenate([np.zeros(0, CALL), *self._calls]), ends)
        return Calls(calls, ends, *paired(ends), lost=lost, ended_early=self.full)


def require_call_hooks() -> None:
    """Raise :class:`Unavailable` unless this kernel has what the capture hooks."""
    for name in ("sock_send_length", "sock_recv_length"):
        outcome, _ = tracepoint(name)(LINUX)
        if outcome is Outcome.NO:
            raise Unavailable(
                f"this kernel has no {name} tracepoint (6.3)",
                consequence=_PURPOSE,
                next_step=_WITHOUT,
            )


def _indexed(calls: NDArray[Any], ends: NDArray[Any]) -> NDArray[Any]:
    """The calls of sockets that are known, these as indices of ``ends``."""
    index = np.full(int(max(calls["socket"].max(initial=0), ends["socket"].max(initial=0))) + 1, -1, np.int64)
    index[ends["socket"]] = np.arange(len(ends))
    where = index[calls["socket"]]
    known: NDArray[Any] = calls[where >= 0]
    known["socket"] = where[where >= 0]
    return known


def paired(ends: NDArray[Any]) -> tuple[Numbers, Numbers]:
    """The indices of the clients' ends whose peers are among ``ends``, and of these. Pure; see ``calls.bpf.c``."""
    own, peer = ends["own"].astype(np.uint64), ends["peer"].astype(np.uint64)
    as_client = ((own + np.uint64(1)) & np.uint64(0xFFFFFFFF)) << np.uint64(32) | peer
    as_server = peer << np.uint64(32) | own
    # Numbers that occur twice say nothing.
    names, first, counts = np.unique(as_server, return_index=True, return_counts=True)
    names, first = names[counts == 1], first[counts == 1]
    clients = np.flatnonzero(np.isin(as_client, names))
    return clients, first[np.searchsorted(names, as_client[clients])]
