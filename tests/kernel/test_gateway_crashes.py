"""kill -9 of either gateway, in any order and again and again: resets, not hangs; afterwards nothing is left."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
    Running,
    answer_reversed,
    connect,
    gateway,
    leg_exit,
    peer,
    read_all,
    server,
)
from tests.kernel.gateway_wires import (
    ADDRESSES,
    CLIENT_NETWORKS,
    NETWORKS,
    Three,
    alive,
    bpf_objects,
    routing,
    three_hosts,
)
from tests.polling import eventually
from tests.steady import FINAL

from ackward.gateway.settings import Settings, Steps, TransparentListener
from ackward.kernel.bpffs import BPFFS
from ackward.kernel.namespaces import Namespace
from ackward.remedies.clearance import undo_all
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import identify

pytestmark = FINAL

#: Where legs arrive: an address of the server's host outside the network that the entry takes over.
LEGS = ("10.78.8.8", 9100)


@pytest.fixture
def hosts() -> Iterator[Three]:
    with three_hosts() as made:
        for host, words in (
            (made.server, ["addr", "add", f"{LEGS[0]}/32", "dev", "lo"]),
            (made.gateway, ["route", "add", f"{LEGS[0]}/32", "via", "10.78.2.2"]),
        ):
            subprocess.run(["ip", "-n", host.name, *words], check=True)
        subprocess.run(["ip", "-n", made.server.name, "link", "set", "lo", "up"], check=True)
        yield made


def settings_of(hosts: Three) -> dict[str, tuple[Namespace, Settings]]:
    """Everything that changes the kernel: transparent, one family faithful, early, window, clients' addresses."""
    listeners = tuple(
        TransparentListener(f"all-{family}", network, "near", peer="exit", faithful=family == 6)
        for family, network in NETWORKS.items()
    )
    entry = Settings(listeners=listeners, peers=(peer(LEGS),), workers=2, segments=100)
    returns = tuple((network, "wire") for network in CLIENT_NETWORKS.values())
    door = leg_exit(LEGS, networks=("10.78.2.1/32",), returns=returns)
    return {
        "entry": (hosts.gateway, entry),
        "exit": (hosts.server, Settings(exits=(door,), steps=Steps(early=False), segments=100)),
    }


def served(hosts: Three, family: int) -> bool:
    try:
        with connect(hosts.client, (ADDRESSES[family], 8000), 3) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            return read_all(client) == b"olleh"
    except OSError:
        return False


class Pair:
    """Both gateways, started and killed by their place; what they held of BPF is remembered."""

    def __init__(self, hosts: Three, receipts: Path, stack: ExitStack) -> None:
        self.places, self._receipts, self._stack = settings_of(hosts), receipts, stack
        self.running: dict[str, Running] = {}
        self.objects: set[tuple[str, int]] = set()

    def start(self, place: str) -> None:
        host, settings = self.places[place]
        self.running[place] = self._stack.enter_context(gateway(host, settings, self._receipts / place))
        assert self.running[place].error is None

    def remember(self) -> None:
        for one in self.running.values():
            self.objects |= bpf_objects((one.process.pid, *one.workers))

    def end(self, killed: str) -> None:
        """One in order; the other is killed and what it left is undone."""
        self.running[killed].kill()
        undo_all(Receipts(self._receipts / killed), [self.places[killed][0]])
        for place, one in self.running.items():
            if place != killed:
                one.close()


def half_served(hosts: Three, pair: Pair) -> list[socket.socket]:
    """A client of each family in the middle of its request, once both are served."""
    for family in ADDRESSES:
        assert eventually(lambda family=family: served(hosts, family), within=20)
    clients = [connect(hosts.client, (address, 8000)) for address in ADDRESSES.values()]
    for client in clients:
        client.sendall(b"half of it")
    assert eventually(lambda: pair.running["exit"].counters["connections"] >= 2)
    return clients


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_in_any_order_nothing_hangs_and_nothing_is_left(hosts: Three, tmp_path: Path, seed: int):
    chance = random.Random(seed)
    before = {place: routing(host) for place, (host, _) in settings_of(hosts).items()}
    with ExitStack() as stack:
        for address in ADDRESSES.values():
            stack.enter_context(server(hosts.server, answer_reversed, (address, 8000)))
        pair = Pair(hosts, tmp_path, stack)
        for place in chance.sample(("entry", "exit"), 2):
            pair.start(place)
        for victims in chance.sample((["entry"], ["exit"], ["entry", "exit"], ["exit", "entry"]), 4):
            clients = half_served(hosts, pair)
            pair.remember()
            for place in victims:
                pair.running[place].kill()
            for client in clients:
                with client, pytest.raises(ConnectionResetError):
                    client.recv(1)
            for place in chance.sample(victims, len(victims)):
                pair.start(place)
        pair.end(chance.choice(("entry", "exit")))
    assert {kind for kind, _ in pair.objects} == {"prog", "map", "link"}
    assert eventually(lambda: not alive(pair.objects))  # the kernel frees them a little later
    for place, (host, _) in pair.places.items():
        assert routing(host) == before[place]
        assert Receipts(tmp_path / place).load().receipts == ()
        assert not list((BPFFS / "ackward").glob(f"*@{identify(host).cookie}*"))
