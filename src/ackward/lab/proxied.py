"""A real HAProxy in front of a real HTTP server, as in the case where Ruby's split requests met delayed ACKs.

``option http-buffer-request`` makes HAProxy wait for the body before it does anything, as in that case. Without it
HAProxy 2.6 asks for quick ACKs when it sees that a body is missing, and there is no stall (measured).

``python -m ackward.lab.proxied PORT ANSWER`` is the HTTP server (standard library); HAProxy is Debian's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel import leftovers
from ackward.kernel.namespaces import Namespace
from ackward.kernel.sockets import listening_ports
from ackward.lab import programs
from ackward.lab.peer import Shape

_CONFIGURATION = """\
global
  maxconn 100
defaults
  mode http
  option http-buffer-request
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend lab
  bind :::{port} v4v6
  default_backend lab
backend lab
  server one 127.0.0.1:{backend}
"""


class _Handler(BaseHTTPRequestHandler):
    """Answers each POST once its whole body is there."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one write
    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing: the caller reads our output."""


@contextmanager
def proxied_server(host: Namespace, shape: Shape) -> Iterator[None]:
    """HAProxy on the shape's port of ``host``, the HTTP server behind it on the next port of its loopback."""
    if not shutil.which("haproxy"):
        raise Unavailable(
            "haproxy is not installed",
            consequence="the scenario cannot run",
            next_step="apt-get install haproxy, or run another: `ackward lab list`",
        )
    backend = shape.port + 1
    with ExitStack() as stack:
        directory = Path(stack.enter_context(leftovers.directory("haproxy")))
        configuration = directory / "haproxy.cfg"
        configuration.write_text(_CONFIGURATION.format(port=shape.port, backend=backend))
        server = [sys.executable, "-m", "ackward.lab.proxied", str(backend), str(shape.pongs * shape.answer)]
        for command, port in ((server, backend), (["haproxy", "-db", "-f", str(configuration)], shape.port)):
            stack.enter_context(_listening(host, command, port))
        yield


@contextmanager
def _listening(host: Namespace, command: list[str], port: int) -> Iterator[None]:
    """A process in ``host`` that listens on ``port``; ended at the end."""
    process = subprocess.Popen(
        programs.inside(host, command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        deadline = time.monotonic() + 10
        while port not in listening_ports(host):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise Unavailable(
                    f"{command[0]} did not start to listen on port {port}: {process.stderr.read().strip()}",
                    consequence="nothing was measured",
                    next_step=programs.AGAIN,
                )
            time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.communicate()


def main(arguments: list[str]) -> None:
    """The HTTP server; runs until ended."""
    port, answer = (int(argument) for argument in arguments)
    _Handler.answer = b"A" * answer
    ThreadingHTTPServer(("127.0.0.1", port), _Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
