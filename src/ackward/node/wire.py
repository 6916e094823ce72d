"""What the stub and the agent say to each other. Pure; the other half is stub/request.h and agent.h.

A request is a header, the environment and the configuration; an answer is a header and what goes to stdout. The header
holds the protocol's name and two numbers, big-endian: the lengths of both parts, or the exit code and a length.

An ADD that went well is answered with no bytes at all: the stub then prints prevResult as it stood on its stdin, byte
for byte. So nothing can change it on the way, and it is the same code that prints it when no agent is there.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

PROTOCOL = b"ackcni/1"
HEADER = struct.Struct(">8sII")
#: Kubernetes allows 256 KiB of annotations on a pod, and each byte may need six in JSON.
MOST_CONFIGURATION = 4 << 20
MOST_ENVIRONMENT = 64 << 10


class Malformed(Exception):
    """The bytes are no request. Never leaves the agent: the stub gets no answer and does as its policy says."""


@dataclass(frozen=True)
class Request:
    """One run of the stub: its variables ``CNI_*``, and its stdin."""

    environment: Mapping[str, str]
    configuration: bytes

    def pack(self) -> bytes:
        """As the stub sends it."""
        environment = b"".join(
            f"{name}={value}\0".encode(errors="surrogateescape") for name, value in self.environment.items()
        )
        return (
            HEADER.pack(PROTOCOL, len(environment), len(self.configuration))
            + environment
            + self.configuration
        )


@dataclass(frozen=True)
class Answer:
    """What the stub prints, and its exit code."""

    code: int = 0
    body: bytes = b""

    def pack(self) -> bytes:
        """As the stub reads it."""
        return HEADER.pack(PROTOCOL, self.code, len(self.body)) + self.body


def lengths(header: bytes) -> tuple[int, int]:
    """The lengths of the environment and the configuration that follow; raises :class:`Malformed`."""
    if len(header) != HEADER.size:
        raise Malformed(f"a header of {len(header)} bytes")
    protocol, environment, configuration = HEADER.unpack(header)
    if protocol != PROTOCOL:
        raise Malformed(f"the protocol {protocol!r} (this agent speaks {PROTOCOL!r})")
    if environment > MOST_ENVIRONMENT or configuration > MOST_CONFIGURATION:
        raise Malformed(f"{environment} and {configuration} bytes are more than a request may have")
    return environment, configuration


def request(environment: bytes, configuration: bytes) -> Request:
    """The request of both parts; raises :class:`Malformed`."""
    variables = {}
    for part in environment.split(b"\0"):
        if not part:
            continue
        name, equals, value = part.partition(b"=")
        if not equals:
            raise Malformed(f"a variable without a value: {part[:40]!r}")
        # As Python has file names: whatever bytes there are, they come back the same.
        variables[name.decode(errors="surrogateescape")] = value.decode(errors="surrogateescape")
    return Request(variables, configuration)


def unpack(data: bytes) -> Request:
    """A whole request, as it lies in the directory of the missed; raises :class:`Malformed`."""
    environment, configuration = lengths(data[: HEADER.size])
    middle = HEADER.size + environment
    if len(data) != middle + configuration:
        raise Malformed(f"{len(data)} bytes where {middle + configuration} were announced")
    return request(data[HEADER.size : middle], data[middle:])
