"""The kernel's counters of TCP in one namespace, and of the host's processors."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.kernel.namespaces import Namespace, call_inside
from ackward.model.load import Counters

_STAT = Path("/proc/stat")
_FILES = ("snmp", "netstat")


class CounterFiles:
    """Open counters of a namespace; they stay its own whichever thread reads them (``single_open_net()``)."""

    def __init__(self, namespace: Namespace) -> None:
        self._files = call_inside(namespace, _open)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            os.close(file)

    def read(self) -> Counters:
        """All counters as they are now."""
        found: dict[str, int] = {}
        for file in self._files:
            found |= parse(_whole(file))
        return Counters(
            time_ns=time.monotonic_ns(),
            # A segment that is sent is counted in OutSegs unless it repeats data (__tcp_transmit_skb()). Data and FIN
            # are in TCPOrigDataSent as well; what opens a connection and resets are no ACKs either.
            acks=found["Tcp.OutSegs"]
            - found["TcpExt.TCPOrigDataSent"]
            - found["Tcp.ActiveOpens"]
            - found["Tcp.OutRsts"],
            received=found["Tcp.InSegs"],
            data_sent=found["TcpExt.TCPOrigDataSent"],
            retransmitted=found["Tcp.RetransSegs"],
            kernel_ns=kernel_ns(_STAT.read_text(encoding="ascii")),
        )


def _open() -> tuple[int, ...]:
    # /proc/net is the net of the process, not of the thread that is inside.
    return tuple(os.open(f"/proc/thread-self/net/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in _FILES)


def _whole(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    parts = []
    while part := os.read(file, 1 << 16):
        parts.append(part)
    return b"".join(parts).decode("ascii")


def parse(text: str) -> dict[str, int]:
    """Counters by ``Group.Name``: lines come in pairs, one of names and one of values (proc(5))."""
    lines = text.splitlines()
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group = names.partition(":")[0]
        for name, value in zip(names.split()[1:], values.split()[1:], strict=True):
            found[f"{group}.{name}"] = int(value)
    return found


def kernel_ns(stat: str) -> int:
    """The time of all processors in system, irq and softirq, from /proc/stat (proc(5))."""
    fields = [int(field) for field in stat.split("\n", 1)[0].split()[1:]]
    return (fields[2] + fields[5] + fields[6]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
