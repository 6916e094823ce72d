"""An unmodified program that stalls, and a server for it: what steering must not let them notice."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from typing import Self

from ackward.kernel.namespaces import Namespace, call_inside

# An unmodified program: it writes in two pieces, and does as it is told: go on, tell how its sockets are, close, connect.
PROGRAM = """
import fcntl, json, os, socket, sys, time
def connect():
    return socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection = connect()
for line in sys.stdin:
    answer = None
    if line == "round\\n":
        start = time.monotonic()
        connection.send(b"h" * 100)
        connection.send(b"b" * 200)
        assert len(connection.recv(100)) == 100
        answer = (time.monotonic() - start) * 1e3
    elif line == "state\\n":
        number = connection.fileno()
        answer = [sorted(os.listdir("/proc/self/fd")), fcntl.fcntl(number, fcntl.F_GETFL), fcntl.fcntl(number, fcntl.F_GETFD)]
    elif line == "close\\n":
        answer = time.monotonic()
        connection.close()
    elif line == "connect\\n":
        connection = connect()
        answer = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    print(json.dumps(answer), flush=True)
"""


class Program:
    """That program, in ``host``, as a process of its own."""

    def __init__(self, prefix: list[str], address: str, port: int) -> None:
        command = [*prefix, sys.executable, "-S", "-c", PROGRAM, address, str(port)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, what: str) -> object:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def round(self) -> float:
        answer = self.ask("round")
        assert isinstance(answer, float)
        return answer


class Answers:
    """A server for several connections in turn, that counts those whose end it has seen."""

    def __init__(self, host: Namespace, address: str, port: int) -> None:
        self.ended = 0
        self._listener = call_inside(host, socket.create_server, (address, port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # shut down
            with connection, contextlib.suppress(ConnectionError):
                while connection.recv(300, socket.MSG_WAITALL):
                    connection.sendall(b"a" * 100)
                self.ended += 1
