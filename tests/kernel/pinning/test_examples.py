"""The examples of docs/pinning.md, run."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest
from tests.kernel.lab_hosts import program
from tests.kernel.pinning_hosts import delayed
from tests.kernel.quickack_hosts import SLOW_MS
from tests.polling import eventually

from ackward.kernel.namespaces import call_inside
from ackward.lab.topology import TwoHosts
from ackward.remedies import receipts

DOCUMENT = Path(__file__).parents[3] / "docs" / "pinning.md"
EXAMPLES = dict(re.findall(r"```python\n# example: ([^\n]+)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
#: Runs an example with receipts of the test's own.
WRAPPER = "import sys; from pathlib import Path; from ackward.remedies import receipts; receipts.DIRECTORY = Path(sys.argv.pop(1)); exec(compile(sys.argv.pop(1), 'example', 'exec'))"


def example(name: str, store: receipts.Receipts, *arguments: str) -> list[str]:
    return [sys.executable, "-c", WRAPPER, str(store.directory), EXAMPLES[name], *arguments]


def test_all_examples_are_run() -> None:
    assert EXAMPLES.keys() == {"plain server", "asyncio server", "asyncio client"}


@pytest.mark.parametrize("name", ["plain server", "asyncio server"])
def test_the_servers_of_the_document(hosts: TwoHosts, store: receipts.Receipts, name: str) -> None:
    address, port = hosts.server_address(4), 7400 + len(name)
    with program(hosts.server, example(name, store, address, str(port))) as process:
        assert process.stdout.readline() == "mark\n", process.stderr.read()
        reached = lambda: call_inside(hosts.client, socket.create_connection, (address, port), 5)  # noqa: E731
        with reached() if name == "plain server" else _when_listening(reached) as client:
            before = delayed(hosts)
            for _ in range(50):
                client.send(b"h" * 100)
                client.send(b"b" * 200)
                assert len(client.recv(100, socket.MSG_WAITALL)) == 100
            assert delayed(hosts) == before
    assert eventually(lambda: store.load().receipts == ())


def _when_listening(connect):
    found: list[socket.socket] = []

    def listens() -> bool:
        try:
            found.append(connect())
        except ConnectionRefusedError:
            return False
        return True

    assert eventually(listens)
    return found[0]


def test_the_client_of_the_document(hosts: TwoHosts, store: receipts.Receipts) -> None:
    address = hosts.server_address(4)
    with call_inside(hosts.server, socket.create_server, (address, 0)) as listener:
        arguments = (address, str(listener.getsockname()[1]), "50")
        with program(hosts.client, example("asyncio client", store, *arguments)) as process:
            server, _ = listener.accept()
            with server:
                while server.recv(100, socket.MSG_WAITALL):
                    server.send(b"h" * 100)
                    server.send(b"b" * 200)
            means, median = process.stdout.readline().split()
            assert means == "mark", process.stderr.read()
            assert float(median) < SLOW_MS
    assert eventually(lambda: store.load().receipts == ())
