"""Effects that are made over one netlink socket inside a namespace."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink


class OverNetlink:
    """Opens the socket, and closes it at the end of the ``with``."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._netlink = Netlink(namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._netlink.close()
