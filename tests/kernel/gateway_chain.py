"""A client's host, a gateway's and a server's in a row, and gateways as processes in them, ended in LIFO order."""

from __future__ import annotations

import json
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.polling import eventually

from ackward.gateway.protocol_messages import key_id
from ackward.gateway.responder import Known
from ackward.gateway.settings import ExitSettings, PeerSettings, PoolSize, Settings
from ackward.kernel.namespaces import Namespace, call_inside, command_inside

PROGRAM = Path(__file__).with_name("gateway_program.py")
KEY = bytes(range(32))


class Running:
    """A gateway's process."""

    def __init__(self, host: Namespace, settings: Settings, receipts: Path) -> None:
        command = [sys.executable, str(PROGRAM), pickle.dumps(settings).hex(), str(receipts)]
        self.process = subprocess.Popen(
            command_inside(host, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.records: list[dict] = []
        self.failures: list[dict] = []
        self.stuck: list[dict] = []
        self.lost: list[str] = []
        self.turned_away: list[str] = []
        self._answers: queue.Queue[dict] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.error: dict | None = None
        self.workers: list[int] = []

    def await_ready(self) -> None:
        """Until it serves, or has said why it does not."""
        first = self._answers.get(timeout=30)
        self.error = first.get("error")
        self.workers = first.get("ready", [])

    def _read(self) -> None:
        for line in self.process.stdout:
            said = json.loads(line)
            if "ended" in said:
                self.records.append(said["ended"])
            elif "failed" in said:
                self.failures.append(said)
            elif "lost" in said:
                self.lost.append(said["lost"])
            elif "stuck" in said:
                self.stuck.append(said)
            elif "turned_away" in said:
                self.turned_away.append(said["turned_away"])
            else:
                self._answers.put(said)
        self._answers.put({})

    def _ask(self, word: str) -> dict:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._answers.get(timeout=20)

    @property
    def counters(self) -> dict[str, int]:
        return self._ask("counters")["counters"]

    @property
    def status(self) -> list[dict]:
        return self._ask("status")["status"]

    def drain(self) -> None:
        self.process.stdin.write("drain\n")
        self.process.stdin.flush()

    def idle_legs(self) -> int:
        return sum(pool["idle"] for worker in self.status for pool in worker["pools"].values())

    def record(self, number: int = 1) -> dict:
        """The record of the connection that ended as that one."""
        assert eventually(lambda: len(self.records) >= number)
        return self.records[number - 1]

    def open_descriptors(self) -> int:
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.workers)

    def kill(self) -> None:
        """As ``kill -9`` of the supervisor; its workers follow."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        assert eventually(lambda: not any(map(_alive, self.workers)))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(10)
            self.process.stdout.close()
            if not self.process.stdin.closed:
                self.process.stdin.close()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def gateway(host: Namespace, settings: Settings, receipts: Path) -> Iterator[Running]:
    """A gateway in a host until the end."""
    running = Running(host, settings, receipts)
    try:
        running.await_ready()
        yield running
    finally:
        running.close()


def peer(address: tuple[str, int], *, least: int = 4, key: bytes = KEY) -> PeerSettings:
    return PeerSettings("exit", address, key, PoolSize(least=least, most=64))


def leg_exit(address: tuple[str, int], **options) -> ExitSettings:
    return ExitSettings(address, {key_id(KEY): Known(KEY, "entry")}, **options)


class Server:
    """A server in a host: ``serve`` gets each connection in a thread of its own."""

    def __init__(
        self, host: Namespace, address: tuple[str, int], serve: Callable[[socket.socket], None]
    ) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = call_inside(host, socket.create_server, address, family=family, backlog=512)
        self.address = self._listener.getsockname()[:2]
        self._serve = serve
        self.accepted: list[tuple[float, tuple]] = []
        self.errors: list[OSError] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, client = self._listener.accept()
            except OSError:
                return
            self.accepted.append((time.monotonic(), client[:2]))
            thread = threading.Thread(target=self._one, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._serve(connection)
            except OSError as error:
                self.errors.append(error)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(10)
        for thread in self._threads:
            thread.join(10)


@contextmanager
def server(
    host: Namespace, serve: Callable[[socket.socket], None], address: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[Server]:
    made = Server(host, address, serve)
    try:
        yield made
    finally:
        made.close()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 18):
        parts.append(part)
    return b"".join(parts)


def answer_reversed(connection: socket.socket) -> None:
    """Read to the end, then send all of it back the other way round."""
    connection.sendall(read_all(connection)[::-1])


def connect(host: Namespace, address: tuple[str, int], timeout: float = 10) -> socket.socket:
    return call_inside(host, socket.create_connection, address, timeout)


def ask(host: Namespace, address: tuple[str, int], words: bytes, timeout: float = 10) -> bytes:
    """Say all of it, end, and read to the end."""
    with connect(host, address, timeout) as client:
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def free_port(host: Namespace) -> int:
    """A port of the loopback that nobody listens on now."""
    with call_inside(host, socket.create_server, ("127.0.0.1", 0)) as trial:
        return trial.getsockname()[1]
