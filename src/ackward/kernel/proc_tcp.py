"""/proc/net/tcp and tcp6: the one place where every user can read a socket's ACK state.

get_tcp4_sock() and get_tcp6_sock() print ``(icsk_ack.quick << 1) | pingpong``, which sock_diag does not give.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ackward.kernel import counters
from ackward.kernel.namespaces import Namespace, call_inside
from ackward.kernel.sock_diag import SocketRecord, TcpState, addresses

_MICROSECONDS = 1_000_000
_FAMILIES = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6}
#: Columns of a socket that has ACK state; TIME_WAIT and SYN_RECV end before.
_COLUMNS = 17


class AckState(NamedTuple):
    """``quick``: ACKs that still go out at once; ``pingpong``: interactive, so ACKs wait for data to carry them."""

    quick: int
    pingpong: bool


def read(namespace: Namespace) -> list[tuple[int, list[str]]]:
    """The lines of both tables in columns, each with its address family; a family that is not there has none."""

    def lines() -> list[tuple[int, list[str]]]:
        found: list[tuple[int, list[str]]] = []
        for table, family in _FAMILIES.items():
            try:
                text = Path(f"/proc/thread-self/net/{table}").read_text(encoding="ascii")
            except FileNotFoundError:
                continue
            found.extend((family, line.split()) for line in text.splitlines()[1:])
        return found

    return call_inside(namespace, lines)


def ack_states(rows: Iterable[tuple[int, list[str]]]) -> dict[tuple[int, str, str], AckState]:
    """The ACK state of each socket that has one, by the ``key`` of its :class:`SocketRecord`."""
    found: dict[tuple[int, str, str], AckState] = {}
    for _, columns in rows:
        if len(columns) >= _COLUMNS:
            both = int(columns[14])
            found[int(columns[9]), columns[1], columns[2]] = AckState(both >> 1, bool(both & 1))
    return found


def records(rows: Iterable[tuple[int, list[str]]], states: Iterable[TcpState]) -> Iterator[SocketRecord]:
    """The sockets in these states as far as /proc tells of them: for a kernel that has no sock_diag."""
    wanted = frozenset(states)
    tick = _MICROSECONDS // os.sysconf("SC_CLK_TCK")
    for family, columns in rows:
        state = int(columns[3], 16)
        if state not in wanted:
            continue
        (source, sport), (destination, dport) = _end(columns[1]), _end(columns[2])
        version, local, remote = addresses(family, source, destination)
        write_queue, _, read_queue = columns[4].partition(":")
        timer, _, expires = columns[5].partition(":")
        inode = int(columns[9])
        info: dict[str, int] = {}
        if len(columns) >= _COLUMNS:
            info = {
                "rto": int(columns[12]) * tick,
                "ato": int(columns[13]) * tick,
                "snd_cwnd": int(columns[15]),
            }
        yield SocketRecord(
            family=version,
            state=state,
            timer=int(timer, 16),
            retransmits=int(columns[6], 16),
            expires_ms=int(expires, 16) * tick // 1000,
            local=(local, sport),
            remote=(remote, dport),
            key=(inode, columns[1], columns[2]),
            interface=0,
            cookie=None,
            read_queue=int(read_queue, 16),
            write_queue=int(write_queue, 16),
            uid=int(columns[7]),
            inode=inode,
            info=info,
        )


def delayed_acks(namespace: Namespace) -> int | None:
    """How many ACKs a fired timer had to send since the namespace was made: TcpExt DelayedACKs (RFC 9293, 3.8.6.3)."""
    try:
        text = call_inside(namespace, Path("/proc/thread-self/net/netstat").read_text, encoding="ascii")
    except FileNotFoundError:
        return None
    return counters.parse(text).get("TcpExt.DelayedACKs")


def _end(text: str) -> tuple[bytes, int]:
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    return struct.pack(f"={len(words)}I", *words), int(port, 16)
