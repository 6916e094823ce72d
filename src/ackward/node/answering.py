"""What an agent says about itself: asked through the socket, as the stub asks."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from ackward.errors import Unavailable
from ackward.model.node import Form
from ackward.model.report import Model
from ackward.node.wire import HEADER, PROTOCOL, Answer, Request

#: The container id of such a question: it is counted nowhere.
_ASKER = "ackward-node-status"
_REQUEST = Request(
    {"CNI_COMMAND": "STATUS", "CNI_CONTAINERID": _ASKER},
    b'{"cniVersion": "1.1.0", "name": "ackward", "type": "ackward-cni"}',
)
#: Reasons are a few lines.
_LONGEST = 1 << 16


class Told(Model):
    """``reasons`` are those of /readyz; without a ``form`` the agent is of a version that does not tell."""

    form: Form | None
    reasons: dict[str, str]


def is_asked(request: Request) -> bool:
    """Whether this is the question, and not the stub's."""
    return request.environment.get("CNI_CONTAINERID") == _ASKER


def answer(form: Form, reasons: Mapping[str, str]) -> Answer:
    """What the agent answers to it."""
    return Answer(body=Told(form=form, reasons=dict(reasons)).model_dump_json().encode())


def ask(path: Path, within: float = 2.0) -> Told | None:
    """What the agent there says; none if nobody who speaks our protocol answers within so many seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(within)
        try:
            client.connect(str(path))
            client.sendall(_REQUEST.pack())
            with client.makefile("rb") as stream:
                protocol, _, length = HEADER.unpack(stream.read(HEADER.size))
                body = stream.read(min(length, _LONGEST))
        except (
            OSError,
            ValueError,
            struct.error,
        ):  # nobody there, not ours to ask, too slow, or no path for a socket
            return None
    if protocol != PROTOCOL:
        return None
    try:
        return Told.model_validate_json(body)
    except ValidationError:
        return Told(form=None, reasons={"agent": str(_of_another_version(path))})


def _of_another_version(path: Path) -> Unavailable:
    return Unavailable(
        f"the agent at {path} does not say whether it is ready: it is of another version",
        consequence="what it does is not known here; pods start all the same",
        next_step="start it again with this version, or ask its /readyz",
    )
