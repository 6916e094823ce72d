"""Whether an agent answers the stub: asked through the socket, as the stub does."""

from __future__ import annotations

import socket
from pathlib import Path

from ackward.node.wire import HEADER, PROTOCOL, Request

#: The container id of such a question: it is counted nowhere.
ASKER = "ackward-node-status"
_REQUEST = Request(
    {"CNI_COMMAND": "STATUS", "CNI_CONTAINERID": ASKER},
    b'{"cniVersion": "1.1.0", "name": "ackward", "type": "ackward-cni"}',
)


def answers(path: Path, within: float = 2.0) -> bool:
    """Whether somebody who speaks our protocol answers there within so many seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(within)
        try:
            client.connect(str(path))
            client.sendall(_REQUEST.pack())
            header = client.recv(HEADER.size, socket.MSG_WAITALL)
        except (OSError, ValueError):  # nobody there, not ours to ask, too slow, or no path for a socket
            return False
    return header.startswith(PROTOCOL)
