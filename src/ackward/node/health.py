"""One small HTTP server: /metrics, /healthz and /readyz, for anybody who reaches it."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from ackward.errors import Unavailable
from ackward.node.logs import tell
from ackward.node.metrics import CONTENT_TYPE

#: Conversations at a time, and how long one may take: nobody keeps the kubelet's probe out for longer.
_AT_ONCE, _SECONDS = 8, 3.0

#: Gives the answer of a path: fine or not, and the body with its type.
Answer = tuple[bool, str, bytes]


def verdict(reasons: Mapping[str, str]) -> Answer:
    """Fine when there are no reasons against; else they are the body."""
    body = json.dumps({"ok": not reasons, "reasons": dict(reasons)}) + "\n"
    return not reasons, "application/json", body.encode()


def metrics(text: bytes) -> Answer:
    """Metrics are always fine."""
    return True, CONTENT_TYPE, text


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], answers: Mapping[str, Callable[[], Answer]]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.answers = answers
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(address, _Handler)

    def process_request(self, request: object, client_address: object) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        try:
            super().process_request(request, client_address)  # type: ignore[arg-type]
        except BaseException:  # no more threads (the cgroup's pids.max): the next client may find one
            self._room.release()
            raise

    def process_request_thread(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        # A client that sends a byte now and then would never run into a timeout.
        cut = threading.Timer(_SECONDS, _cut, [request])
        cut.daemon = True
        try:
            cut.start()
            super().process_request_thread(request, client_address)
        except RuntimeError:  # no more threads: without the cut nobody is talked to
            self.handle_error(request, client_address)
            self.shutdown_request(request)
        finally:
            cut.cancel()
            self._room.release()

    def handle_error(self, *_: object) -> None:
        """A client that went away, or was too slow, is no event; what fails on our side is told."""
        error = sys.exception()
        if not isinstance(error, OSError):
            tell("page failed", error=f"{type(error).__name__}: {error}")


def _cut(conversation: socket.socket) -> None:
    """End it now, both ways. Closing would not: who reads from it keeps it open."""
    with suppress(OSError):  # it has ended
        conversation.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = _SECONDS
    server: _Server
    server_version = "ackward"
    sys_version = ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s: %(explain)s\n"

    def do_GET(self) -> None:
        """Answer one of the paths."""
        answer = self.server.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(404, explain="/metrics, /healthz and /readyz are there")
            return
        fine, kind, body = answer()
        self.send_response(200 if fine else 503)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
        """The kubelet asks every few seconds: that is no event."""


@contextmanager
def served(host: str, port: int, answers: Mapping[str, Callable[[], Answer]]) -> Iterator[tuple[str, int]]:
    """Serve these paths in a thread; gives where (port 0: one that is free). Raises :class:`Unavailable`."""
    try:
        server = _Server((host, port), answers)
    except (OSError, OverflowError) as error:
        raise Unavailable(
            f"{host} port {port} cannot be listened on ({getattr(error, 'strerror', None) or error})",
            consequence="health and metrics could not be asked for; the agent did not start",
            next_step="choose another with --listen ADDRESS:PORT",
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="health", daemon=True)
    thread.start()
    try:
        yield str(server.server_address[0]), int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
