"""How clients get to a gateway: a port, any address and port of a network, several workers, and the SYN alone."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
    answer_reversed,
    ask,
    connect,
    free_port,
    gateway,
    peer,
    read_all,
    server,
)
from tests.kernel.gateway_hosts import EXIT, Gateways, gateways
from tests.kernel.gateway_wires import (
    ADDRESSES,
    CLIENT_NETWORKS,
    CLIENTS,
    NETWORKS,
    Three,
    routing,
    spoofed_syn,
)
from tests.polling import eventually

from ackward.gateway.settings import FixedListener, Limits, Settings, Steps, TransparentListener
from ackward.gateway.targets import Target, uncertain
from ackward.kernel.namespaces import call_inside
from ackward.lab.topology import two_hosts
from ackward.lab.wan import Wan
from ackward.remedies.clearance import undo_all
from ackward.remedies.receipts import Receipts

STEPS = Steps(window=False)
PORTS = {4: 8004, 6: 8006}


def transparent(*, keep_client: bool = False, ports=((1, 65535),), **others) -> Settings:
    """Both families; with ``keep_client`` the answers to the clients' addresses come back to us."""
    listeners = tuple(
        TransparentListener(
            f"all-{family}",
            network,
            "near",
            ports,
            keep_client=keep_client,
            returns=((CLIENT_NETWORKS[family], "far"),) if keep_client else (),
        )
        for family, network in NETWORKS.items()
    )
    return Settings(listeners=listeners, steps=others.pop("steps", STEPS), **others)


@pytest.mark.parametrize("keep_client", [False, True], ids=["own-address", "client-s-address"])
def test_any_address_and_port_of_a_network_and_nothing_else(three: Three, tmp_path: Path, keep_client: bool):
    before = routing(three.gateway)
    settings = transparent(keep_client=keep_client, ports=((8000, 8999),))
    with gateway(three.gateway, settings, tmp_path) as running:
        assert running.error is None
        for family, address in ADDRESSES.items():
            with server(three.server, answer_reversed, (address, PORTS[family])) as far:
                assert ask(three.client, far.address, b"hello") == b"olleh"
                assert (far.accepted[0][1][0] == CLIENTS[family]) is keep_client
            if keep_client:
                continue  # the answers to these clients come to the gateway, whoever asked
            # Another port is forwarded as ever: the client itself reaches the server.
            with server(three.server, answer_reversed, (address, 7100)) as far:
                with connect(three.client, far.address) as client:
                    client.shutdown(socket.SHUT_WR)
                    assert read_all(client) == b""
                assert far.accepted[0][1][0] == CLIENTS[family]
        assert eventually(lambda: len(running.records) == 2)
        ends = [(tuple(record["destination"]), record["end"]) for record in running.records]
        assert ends == [((ADDRESSES[family], PORTS[family]), "done") for family in (4, 6)]
    assert routing(three.gateway) == before


def keeping_clients(made: Gateways, *, returns: str) -> None:
    """Entry and exit on one host, between client and server."""
    listeners = "".join(
        f'[[listen]]\ntransparent = "{network}"\ninterface = "near"\nkeep_client = true\nvia = "exit"\n'
        for network in NETWORKS.values()
    )
    allowed = ", ".join(
        f'"{network}:*"' if ":" not in network else f'"[{network}]:*"' for network in NETWORKS.values()
    )
    made.write("entry", f'{listeners}[peer.exit]\naddress = "127.0.0.1:{EXIT}"\nkeys = ["shared.key"]\n')
    made.write(
        "exit",
        f'[exit]\naddress = "127.0.0.1:{EXIT}"\nnetworks = ["127.0.0.1/32"]\n{returns}'
        f'[peer.entry]\nkeys = ["shared.key"]\nallow = [{allowed}]\n',
    )
    made.start("exit", "entry")


def test_over_legs_the_server_sees_the_client_s_address(three: Three):
    before = routing(three.gateway)
    returns = ", ".join(f'"{network}" = "far"' for network in CLIENT_NETWORKS.values())
    with gateways(three.gateway) as made:
        keeping_clients(made, returns=f"returns = {{ {returns} }}\n")
        for family, address in ADDRESSES.items():
            with server(three.server, answer_reversed, (address, PORTS[family])) as far:
                assert ask(three.client, far.address, b"hello") == b"olleh"
                assert far.accepted[0][1][0] == CLIENTS[family]
    assert routing(three.gateway) == before


def test_an_exit_without_returns_says_why_it_keeps_no_client(three: Three):
    with gateways(three.gateway) as made, server(three.server, answer_reversed, (ADDRESSES[4], 8004)) as far:
        keeping_clients(made, returns="")
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                ask(three.client, far.address, b"hello")
        assert eventually(lambda: made.counter("exit", "ended_forbidden") == 3)
        told = eventually(
            lambda: [line for line in made.log("exit") if "keep_client needs exit.returns" in line]
        )
        assert len(told) == 1
        assert far.accepted == []


def test_the_gateway_s_own_connections_to_the_network_are_not_its_clients(three: Three, tmp_path: Path):
    with gateway(three.gateway, transparent(), tmp_path) as running:
        with server(three.server, answer_reversed, (ADDRESSES[4], 8004)) as far:
            with connect(three.gateway, far.address) as own:
                own.shutdown(socket.SHUT_WR)
                assert read_all(own) == b""
        assert (running.counters["accepted"], running.counters["early_begun"]) == (0, 0)


def test_kill_9_leaves_what_undo_all_takes_away_and_the_next_start_too(three: Three, tmp_path: Path):
    before = routing(three.gateway)
    store = Receipts(tmp_path)
    with gateway(three.gateway, transparent(keep_client=True), tmp_path) as running:
        assert routing(three.gateway) != before
        running.kill()
    assert [receipt.remedy for receipt in store.load().receipts] == ["gateway"]
    undo_all(store, [three.gateway])
    assert routing(three.gateway) == before
    assert store.load().receipts == ()

    with gateway(three.gateway, transparent(), tmp_path) as running:
        running.kill()
    with gateway(three.gateway, transparent(), tmp_path) as running:
        assert running.error is None
        assert len(store.load().receipts) == 1
    assert routing(three.gateway) == before
    assert store.load().receipts == ()


def test_rules_without_a_receipt_are_swept(three: Three, tmp_path: Path):
    before = routing(three.gateway)
    with gateway(three.gateway, transparent(), tmp_path) as running:
        running.kill()
    for receipt in Receipts(tmp_path).load().receipts:
        (tmp_path / f"{receipt.id}.json").unlink()
    undo_all(Receipts(tmp_path), [three.gateway])
    assert routing(three.gateway) == before


def test_a_wrong_interface_starts_nothing_and_changes_nothing(three: Three, tmp_path: Path):
    before = routing(three.gateway)
    settings = Settings(listeners=(TransparentListener("all", NETWORKS[4], "nosuch0"),), steps=STEPS)
    with gateway(three.gateway, settings, tmp_path) as running:
        assert running.error["exit_code"] == 2
        assert "nosuch0" in running.error["missing"]
    assert routing(three.gateway) == before


def test_a_port_in_use_is_named_even_by_another_gateway(three: Three, tmp_path: Path):
    port = free_port(three.gateway)
    settings = Settings(listeners=(FixedListener("web", ("127.0.0.1", port), ("127.0.0.1", 1)),), steps=STEPS)
    with gateway(three.gateway, settings, tmp_path) as first:
        assert first.error is None
        with gateway(three.gateway, settings, tmp_path) as second:
            assert second.error["exit_code"] == 3
            assert f"127.0.0.1:{port} is in use" in second.error["missing"]


def test_workers_share_the_clients_and_hear_the_syns_of_their_own(three: Three, tmp_path: Path):
    port = free_port(three.gateway)
    with server(three.gateway, answer_reversed) as far:
        listener = FixedListener("web", ("127.0.0.1", port), far.address)
        with gateway(
            three.gateway, Settings(listeners=(listener,), steps=STEPS, workers=3), tmp_path
        ) as running:
            clients = [connect(three.gateway, ("127.0.0.1", port)) for _ in range(48)]
            assert eventually(lambda: len(far.accepted) == 48)
            shares = [worker["connections"] for worker in running.status]
            for number, client in enumerate(clients):
                with client:
                    client.sendall(str(number).encode())
                    client.shutdown(socket.SHUT_WR)
                    assert read_all(client) == str(number).encode()[::-1]
            counters = running.counters
        assert sum(shares) == 48
        assert min(shares) > 0
        assert (counters["early_begun"], counters["early_claimed"]) == (48, 48)
        assert len(far.accepted) == 48


@pytest.mark.parametrize("early", [False, True], ids=["accept", "syn"])
def test_the_syn_begins_the_far_connection(tmp_path: Path, early: bool):
    """Over a link of 30 ms each way the server is connected after 30 ms by the SYN, after 90 by accept()."""
    with two_hosts(Wan.of(30)) as hosts, server(hosts.server, answer_reversed) as far:
        address = (hosts.addresses[4], 9000)
        settings = Settings(
            listeners=(FixedListener("web", address, far.address),), steps=Steps(early=early, window=False)
        )
        with gateway(hosts.server, settings, tmp_path) as running:
            began = time.monotonic()
            with connect(hosts.client, address) as client:
                handshake = time.monotonic()
                client.shutdown(socket.SHUT_WR)
                read_all(client)
            connected = far.accepted[0][0]
            assert running.record()["early"] is early
    assert connected - began >= (0.030 if early else 0.090)
    assert (connected < handshake) is early


@pytest.mark.parametrize("faithful", [False, True], ids=["early", "faithful"])
def test_one_network_at_two_interfaces_is_two_listeners(three: Three, tmp_path: Path, faithful: bool):
    """The first, at the interface where nobody comes in, has a peer that is not there."""
    listeners = (
        TransparentListener("other", NETWORKS[4], "far", peer="exit", faithful=faithful),
        TransparentListener("own", NETWORKS[4], "near", faithful=faithful),
    )
    nobody = peer(("127.0.0.1", free_port(three.gateway)))
    settings = Settings(listeners=listeners, peers=(nobody,), steps=STEPS)
    with server(three.server, answer_reversed, (ADDRESSES[4], 8004)) as far:
        with gateway(three.gateway, settings, tmp_path) as running:
            assert running.error is None
            assert ask(three.client, far.address, b"hello") == b"olleh"
            assert running.record()["listener"] == "own"
            assert running.counters["early_begun"] == faithful
            assert len(running.records) == 1


def test_a_flood_of_spoofed_syns_is_bounded_and_clients_are_served(three: Three, tmp_path: Path):
    limits = Limits(early_pending=50, early_rate=100, early_wait=0.3)
    with server(three.server, answer_reversed, (ADDRESSES[4], 8004)) as far:
        with gateway(three.gateway, transparent(limits=limits), tmp_path) as running:
            raw = call_inside(
                three.client, socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW
            )
            choice = random.Random(1)
            began = time.monotonic()
            with raw:
                for batch in range(8):
                    for _ in range(400):
                        raw.sendto(spoofed_syn(choice, far.address), (far.address[0], 0))
                    assert ask(three.client, far.address, b"real") == b"laer", batch
                    assert running.counters["early_pending"] <= limits.early_pending
            seconds = time.monotonic() - began
            counters = running.counters
            assert counters["early_refused"] > 0
            # A second's worth at once, then the rate; and the eight real clients.
            assert len(far.accepted) <= limits.early_rate * (seconds + 1) + 8
            assert eventually(lambda: running.counters["early_pending"] == 0)
            assert running.counters["ended_unclaimed"] == counters["early_begun"] - counters["early_claimed"]


def test_targets_match_in_python_as_in_the_kernel():
    target = Target("10.78.2.0/24", 80, 90, 0)
    assert target.matches(("10.78.2.255", 80))
    assert not target.matches(("10.78.3.0", 80))
    assert not target.matches(("10.78.2.1", 91))
    assert not target.matches(("fd78:2::1", 80))


def test_where_the_interface_decides_it_is_told():
    one, two = (Target("10.78.2.0/24", 80, 90, number, name) for number, name in enumerate(("near", "far")))
    anywhere = Target("0.0.0.0/0", 85, 85, 2)
    assert uncertain([one, two, anywhere]) == {0, 1}
    assert uncertain([anywhere, one]) == set()
    others = (
        Target("10.78.2.0/24", 91, 99, 1, "far"),
        Target("10.78.3.0/24", 80, 90, 1, "far"),
        Target("fd78:2::/64", 80, 90, 1, "far"),
        Target("10.78.2.0/24", 80, 90, 1, "near"),
        Target("10.78.2.0/24", 80, 90, 0, "far"),
    )
    assert not any(uncertain([one, other]) for other in others)
