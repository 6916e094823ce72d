"""Unary gRPC calls over a unix socket, on h2.

The protocol: github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. ``grpcio`` with protobuf would take
15 MB of the node agent's 60, 22 MB of disk and threads of its own; this takes 2 MB
(``python -m benchmarks.runtime_client``).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions

OK, DEADLINE_EXCEEDED, NOT_FOUND, UNIMPLEMENTED, INTERNAL = 0, 4, 5, 12, 13  # grpc/statuscodes.md
#: What a container runtime may answer at most; containerd's own limit (defaults.DefaultMaxRecvMsgSize).
MOST_BYTES = 16 << 20
_PREFIX = 5  # one byte says whether it is compressed, four how long it is


class CallFailed(Exception):
    """The server answered with a status that is not OK. Not raised where no server answers: that is an OSError."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        super().__init__(words or f"gRPC status {status}")


@dataclass
class _Answer:
    body: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    ended: bool = False


class Channel:
    """A connection to the server on a unix socket. One call at a time; no call outlives ``seconds``."""

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        """Connects; raises :class:`OSError` if nobody listens there or it may not be opened."""
        self._seconds = seconds
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(seconds)
            self._socket.connect(str(path))
            self._http = h2.connection.H2Connection(
                h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
            )
            self._http.initiate_connection()
            self._socket.sendall(self._http.data_to_send())
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go."""
        self._socket.close()

    def call(self, method: str, request: bytes) -> bytes:
        """Call ``/package.Service/Method``; gives the answer. Raises :class:`CallFailed` or :class:`OSError`."""
        deadline = time.monotonic() + self._seconds
        try:
            stream = self._send(method, request)
            answer = self._receive(stream, deadline)
        except TimeoutError as error:
            raise CallFailed(DEADLINE_EXCEEDED, f"no answer within {self._seconds:g} s") from error
        except h2.exceptions.ProtocolError as error:
            raise CallFailed(INTERNAL, f"what answers does not speak HTTP/2: {error}") from error
        return _message(answer)

    def _send(self, method: str, request: bytes) -> int:
        stream = self._http.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{round(self._seconds * 1000)}m"),
        ]
        self._http.send_headers(stream, headers)
        # A request is a few hundred bytes; the first window of HTTP/2 holds 64 KiB (RFC 9113 section 6.9.2).
        self._http.send_data(stream, b"\0" + len(request).to_bytes(4, "big") + request, end_stream=True)
        self._socket.sendall(self._http.data_to_send())
        return stream

    def _receive(self, stream: int, deadline: float) -> _Answer:
        answer = _Answer()
        while not answer.ended:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the server closed the connection before it had answered")
            self._take(answer, stream, self._http.receive_data(data))
            if pending := self._http.data_to_send():
                self._socket.sendall(pending)
        return answer

    def _take(self, answer: _Answer, stream: int, events: Iterable[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.ConnectionTerminated):
                raise ConnectionResetError("the server ended the connection")
            if getattr(event, "stream_id", None) != stream:
                continue
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    answer.headers.update(
                        (_words(name), _words(value)) for name, value in event.headers or ()
                    )
                case h2.events.DataReceived():
                    answer.body += event.data or b""
                    if len(answer.body) > MOST_BYTES + _PREFIX:
                        raise CallFailed(INTERNAL, f"the answer is longer than {MOST_BYTES >> 20} MiB")
                    self._http.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                case h2.events.StreamEnded():
                    answer.ended = True
                case h2.events.StreamReset():
                    raise CallFailed(
                        INTERNAL, f"the server gave the call up (HTTP/2 error {event.error_code})"
                    )


def _words(header: str | bytes) -> str:
    return header if isinstance(header, str) else header.decode(errors="replace")


def _message(answer: _Answer) -> bytes:
    status = answer.headers.get("grpc-status", "")
    if not status.isdigit():
        http = answer.headers.get(":status", "no status")
        raise CallFailed(INTERNAL, f"what answers does not speak gRPC (HTTP {http})")
    if int(status) != OK:
        raise CallFailed(int(status), unquote(answer.headers.get("grpc-message", "")))
    body = bytes(answer.body)
    size = int.from_bytes(body[1:_PREFIX], "big")
    if len(body) != _PREFIX + size or body[0]:  # compression was not offered
        raise CallFailed(INTERNAL, "the answer is not one whole message")
    return body[_PREFIX:]
