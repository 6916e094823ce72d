"""A server and two gateways in one namespace of their own, all on its loopback: the real command line, real processes."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.kernel.gateway_chain import ask
from tests.kernel.lab_hosts import ACKWARD
from tests.polling import eventually

from ackward.errors import AckwardError
from ackward.gateway import control
from ackward.gateway.initiator import Initiator
from ackward.gateway.keys import make_key
from ackward.kernel.namespaces import Namespace, call_inside, command_inside, temporary
from ackward.lab.topology import run_on

ENTRY, EXIT, SERVER = 7000, 7001, 7002


class Gateways:
    """Both gateways, each a process that can be started, killed and asked."""

    def __init__(self, host: Namespace, directory: Path, stack: ExitStack) -> None:
        self.host, self.directory, self._stack = host, directory, stack
        self.mark = secrets.token_hex(3)
        self.processes: dict[str, subprocess.Popen[str]] = {}
        #: Where a place is, if not in ``host``; and where legs arrive, and come from.
        self.hosts: dict[str, Namespace] = {}
        self.legs_at, self.legs_from = "127.0.0.1", "127.0.0.1/32"
        #: What a place is started by, where that is not the gateway itself.
        self.before: dict[str, list[str]] = {}
        make_key(directory / "shared.key")
        self.key = bytes.fromhex((directory / "shared.key").read_text())

    def name(self, place: str) -> str:
        return f"test-{os.getpid()}-{self.mark}-{place}"

    def write(
        self, place: str, text: str = "", *, steps: str = "", limits: str = "", answer: str = "optimistic"
    ) -> Path:
        """The configuration of one place; ``text`` replaces what is usual for it."""
        usual = {
            "entry": f'[[listen]]\nname = "web"\naddress = "127.0.0.1:{ENTRY}"\ntarget = "127.0.0.1:{SERVER}"\n'
            f'via = "exit"\nanswer = "{answer}"\n[peer.exit]\naddress = "{self.legs_at}:{EXIT}"\nkeys = ["shared.key"]\n',
            "exit": f'[exit]\naddress = "{self.legs_at}:{EXIT}"\nnetworks = ["{self.legs_from}"]\n[peer.entry]\n'
            f'keys = ["shared.key"]\nallow = ["127.0.0.1/32:{SERVER}"]\n',
        }
        path = self.directory / f"{place}.toml"
        path.write_text(
            f'name = "{self.name(place)}"\n{text or usual[place]}[steps]\n{steps or "window = false"}\n[limits]\n{limits}\n'
        )
        return path

    def run(self, place: str) -> subprocess.Popen[str]:
        """Start one from its configuration; its log is a file."""
        argv = [*self.before.get(place, ()), ACKWARD, "gateway", "run"]
        argv += ["--config", str(self.directory / f"{place}.toml")]
        with (
            (self.directory / f"{place}.log").open("a") as log,
            (self.directory / f"{place}.err").open("a") as err,
        ):
            inside = command_inside(self.hosts.get(place, self.host), argv)
            process = subprocess.Popen(inside, stdout=log, stderr=err, text=True)
        self.processes[place] = process
        self._stack.callback(end, process)
        return process

    def start(self, *places: str) -> None:
        """Start these and wait until they are ready."""
        for place in places:
            self.run(place)
        for place in places:
            assert eventually(lambda place=place: self._is_ready(place)), (
                f"{place} is ready: {self.complaints(place)}"
            )

    def _is_ready(self, place: str) -> bool:
        assert self.processes[place].poll() is None, self.complaints(place)
        status = self.status(place)
        if status is None:
            return False
        pools = [pool for worker in status["workers"] for pool in worker["pools"].values()]
        return all(pool["connected"] and pool["idle"] >= pool["wanted"] for pool in pools)

    def status(self, place: str) -> dict | None:
        try:
            return control.ask(self.name(place), "status")
        except AckwardError:
            return None

    def own_hosts_file(self, place: str, hosts: Path) -> None:
        """Let the gateway see this for /etc/hosts; nobody else does."""
        script = f'mount --bind {hosts} /etc/hosts && exec "$0" "$@"'
        self.before[place] = ["unshare", "--mount", "sh", "-c", script]

    def counter(self, place: str, name: str) -> int:
        status = self.status(place)
        assert status is not None
        return status["counters"][name]

    def log(self, place: str) -> list[str]:
        return (self.directory / f"{place}.log").read_text().splitlines()

    def complaints(self, place: str) -> str:
        return (self.directory / f"{place}.err").read_text()

    def kill(self, place: str, number: int = signal.SIGKILL) -> None:
        self.processes[place].send_signal(number)
        self.processes[place].wait(20)

    def connect(self, port: int = ENTRY, timeout: float = 10.0) -> socket.socket:
        """A client, from this process, in the namespace."""
        sock = call_inside(self.host, lambda: socket.create_connection(("127.0.0.1", port), timeout))
        self._stack.callback(sock.close)
        return sock

    def ask(self, *arguments: str) -> dict:
        done = subprocess.run(
            [ACKWARD, "gateway", *arguments, "--json"], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def end(process: subprocess.Popen[str]) -> None:
    """In order if it can, at once if not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(10)


@contextmanager
def gateways(host: Namespace | None = None) -> Iterator[Gateways]:
    """In this host, or in a namespace with nothing in it yet; everything of them is gone at the end."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ackward-gateway-")))
        made = Gateways(host or stack.enter_context(temporary("gateway")), directory, stack)
        yield made
    # Killed ones leave a socket that the next start of a gateway takes away.
    for place in made.processes:
        control.path_of(made.name(place)).unlink(missing_ok=True)


def exchange(made: Gateways, data: bytes, port: int = ENTRY) -> bytes:
    """What an echoing server gives back."""
    return ask(made.host, ("127.0.0.1", port), data)


def is_reset(client: socket.socket) -> bool:
    """Not merely ended: half an answer must not look like all of it."""
    try:
        return client.recv(10) is None
    except ConnectionResetError:
        return True


def reloaded(made: Gateways, place: str, words: str = "keys read") -> None:
    """SIGHUP, and until the log says that it was followed."""
    lines = len(made.log(place))
    made.processes[place].send_signal(signal.SIGHUP)
    assert eventually(lambda: any(words in line for line in made.log(place)[lines:])), f"{place}: {words}"


class Peer:
    """An entry made by hand."""

    def __init__(self, made, key=None, session=None):
        self.sock = made.connect(EXIT, timeout=5)
        self.end = Initiator(key or made.key, session)
        self.sent = b""

    def say(self):
        data = self.end.outgoing()
        self.sent += data
        self.sock.sendall(data)

    def hear(self):
        while self.end.wanted:
            data = self.sock.recv(self.end.wanted)
            if not data:
                raise EOFError
            event = self.end.receive(data)
            self.say()
            if event is not None:
                return event
        return None

    def ready(self):
        self.say()
        self.hear()
        return self


ECHO = f"""
import socket, socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(1 << 16):
                self.request.sendall(data)
        except OSError:
            pass
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024
with Server(("127.0.0.1", {SERVER}), Echo) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


#: Where nobody answers, and nobody says that there is nobody.
SILENT = ("10.99.0.2", "10.99.0.3")


def add_silent_network(made: Gateways) -> None:
    run_on(made.host, "ip", "link", "add", "quiet", "type", "veth", "peer", "name", "deaf")
    run_on(made.host, "ip", "addr", "add", "10.99.0.1/24", "dev", "quiet")
    for device in ("quiet", "deaf"):
        run_on(made.host, "ip", "link", "set", device, "up")
    for address in SILENT:
        run_on(made.host, "ip", "neigh", "add", address, "lladdr", "02:00:00:00:00:99", "dev", "quiet")


def widened(made: Gateways) -> set[str]:
    """Hosts whose routes have an initial window."""
    argv = command_inside(made.host, ["ip", "-4", "route", "show"])
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^(\S+) .*initcwnd 50\b", shown, re.MULTILINE))
