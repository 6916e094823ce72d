"""A protocol of asyncio around another, which hears of every read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ackward.errors import UsageError


class Rearming(asyncio.Protocol):
    """Hands everything on to ``inner``, and calls ``rearm`` after each read."""

    def __init__(self, inner: asyncio.Protocol, rearm: Callable[[], None]) -> None:
        self._inner = inner
        self._rearm = rearm

    def data_received(self, data: bytes) -> None:
        """Read: the ACK for it need not wait any longer."""
        self._inner.data_received(data)
        self._rearm()

    def eof_received(self) -> bool | None:
        """Hand on."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on."""
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._inner.resume_writing()


def rearming(inner: asyncio.BaseProtocol, rearm: Callable[[], None]) -> Rearming:
    """The protocol to set on the transport; raises :class:`UsageError` if ``inner`` brings its own buffers."""
    if not isinstance(inner, asyncio.Protocol):
        raise UsageError(
            f"{type(inner).__name__} is no asyncio.Protocol",
            consequence="its reads cannot be followed; nothing was changed",
            next_step="call rearm() at the end of its buffer_updated()",
        )
    return Rearming(inner, rearm)
