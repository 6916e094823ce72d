"""What /proc tells about TCP sockets, without privileges."""

from __future__ import annotations

from pathlib import Path

from ackward.errors import AckwardError
from ackward.kernel.namespaces import Namespace, call_inside

LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


def listening_ports(namespace: Namespace) -> list[int]:
    """The TCP ports with a listener in ``namespace``, both families; empty where it cannot be entered any more."""

    def read() -> set[int]:
        ports: set[int] = set()
        for table in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]
            except FileNotFoundError:
                continue  # a kernel without this family
            ports.update(
                int(fields[1].rpartition(":")[2], 16)
                for line in lines
                if (fields := line.split())[3] == LISTEN
            )
        return ports

    try:
        return sorted(call_inside(namespace, read))
    except (OSError, AckwardError):
        return []
