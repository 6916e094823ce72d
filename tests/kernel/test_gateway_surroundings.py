"""What a gateway changes around itself, and what becomes of that when others change it, or the gateway is killed."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.kernel.gateway_chain import Running, answer_reversed, connect, gateway, peer, read_all, server
from tests.kernel.gateway_hosts import ENTRY, EXIT, SILENT, add_silent_network, gateways, widened
from tests.kernel.gateway_wires import ADDRESSES, Three, routing
from tests.kernel.test_gateway_listeners import transparent
from tests.polling import eventually

from ackward import remedies
from ackward.cli import main as cli
from ackward.gateway import surroundings
from ackward.gateway.settings import FixedListener, Settings, Steps
from ackward.gateway.surroundings import Widen, surrounded
from ackward.kernel.namespaces import call_inside
from ackward.lab.topology import run_on
from ackward.remedies.receipts import Receipts

LEGS = (ADDRESSES[4], 9100)


def entry(port: int, segments: int = 100) -> Settings:
    """One of several gateways to the same peer, who need not be there."""
    listener = FixedListener("web", ("127.0.0.1", port), ("127.0.0.1", 1), "exit")
    return Settings(listeners=(listener,), peers=(peer(LEGS),), steps=Steps(early=False), segments=segments)


def wide(three: Three) -> list[str]:
    return [line for line in routing(three.gateway)["routes"].splitlines() if "initcwnd" in line]


@contextmanager
def around(three: Three, settings: Settings, store: Receipts) -> Iterator[Inside]:
    """The surroundings of a gateway that is this process."""
    made = surrounded(settings, store)
    widen = call_inside(three.gateway, made.__enter__)
    try:
        yield Inside(three, widen)
    finally:
        call_inside(three.gateway, made.__exit__, None, None, None)


class Inside:
    """What a supervisor asks of its routes, where it is."""

    def __init__(self, three: Three, widen: Widen) -> None:
        self._three, self._widen = three, widen

    def lacking(self) -> str | None:
        return call_inside(self._three.gateway, self._widen.lacking)

    def again(self) -> str | None:
        return call_inside(self._three.gateway, self._widen.again)


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_EVERY", 0.0)
    monkeypatch.setattr(surroundings, "_SHARE", math.inf)


@pytest.fixture
def first(three: Three, store: Receipts) -> Iterator[Running]:
    """A gateway that has widened the route, which the next one finds wide."""
    with gateway(three.gateway, entry(7100), store.directory) as running:
        assert running.error is None
        yield running


def undo(store: Receipts) -> str:
    """As by hand; gives its words."""
    outcomes = [remedies.load("gateway").undo(receipt, store) for receipt in store.load().receipts]
    return "; ".join(outcome.words for outcome in outcomes)


def end_in_order(running: Running, _: Receipts) -> None:
    running.close()


def undo_alive(_: Running, store: Receipts) -> None:
    undo(store)


@pytest.mark.usefixtures("always_due")
@pytest.mark.parametrize("take", [end_in_order, undo_alive], ids=["ended", "undone"])
def test_a_window_that_went_with_another_gateway_is_put_back_under_an_own_receipt(
    three: Three, store: Receipts, first: Running, take: Callable[[Running, Receipts], None]
):
    with around(three, entry(7101), store) as second:
        assert len(store.load().receipts) == 1, "it was wide already"
        assert (second.lacking(), second.again()) == (None, None)
        take(first, store)
        assert wide(three) == []
        assert "the step window is not in force, legs begin slowly: add the IPv4 route" in second.lacking()
        assert "was not in force, and was put back: add the IPv4 route 10.78.2.2/32" in second.again()
        assert [line.split()[0] for line in wide(three)] == ["10.78.2.2"]
        assert len(store.load().receipts) == 1
        assert (second.lacking(), second.again()) == (None, None)
    assert wide(three) == []
    assert store.load().receipts == ()


@pytest.mark.usefixtures("always_due")
def test_an_own_window_that_was_undone_by_hand_is_put_back_and_its_end_is_in_order(
    three: Three, store: Receipts
):
    with around(three, entry(7100), store) as only:
        undo(store)
        assert "put back" in only.again()
        assert len(wide(three)) == 1
        undo(store)
    assert (wide(three), store.load().receipts) == ([], ())


@pytest.mark.usefixtures("always_due")
def test_while_there_is_no_way_it_is_told_once_and_the_window_comes_with_the_way(
    three: Three, store: Receipts
):
    with around(three, entry(7100), store) as only:
        run_on(three.gateway, "ip", "link", "set", "far", "down")
        assert "no route of the namespace" in only.lacking()
        assert "legs begin slowly: no route of the namespace" in only.again()
        assert only.again() is None
        run_on(three.gateway, "ip", "link", "set", "far", "up")
        assert "put back" in only.again()
    run_on(three.gateway, "ip", "-6", "addr", "add", "fd78:2::1/64", "dev", "far", "nodad")
    assert wide(three) == []


@pytest.mark.usefixtures("always_due")
def test_a_route_that_somebody_made_wider_is_left(three: Three, store: Receipts):
    way = [f"{LEGS[0]}/32", "dev", "far"]
    run_on(three.gateway, "ip", "route", "add", *way)
    try:
        with around(three, entry(7100), store) as only:
            run_on(three.gateway, "ip", "route", "change", *way, "initcwnd", "200")
            assert (only.lacking(), only.again()) == (None, None)
            run_on(three.gateway, "ip", "route", "change", *way, "initcwnd", "20")
            assert "set initcwnd 100" in only.again()
    finally:
        run_on(three.gateway, "ip", "route", "del", *way)


def test_routes_are_not_looked_at_all_the_time(three: Three, store: Receipts, first: Running):
    with around(three, entry(7101), store) as second:
        first.close()
        assert second.again() is None
        assert second.lacking() is not None


def test_undo_of_a_gateway_that_runs_says_so(store: Receipts, first: Running):
    told = undo(store)
    assert f"; the gateway that is process {first.process.pid} runs and needs it" in told


def test_status_tells_what_a_killed_gateway_left(
    three: Three,
    store: Receipts,
    own_store: None,
    capsys: pytest.CaptureFixture[str],
):
    with gateway(three.gateway, entry(7100), store.directory) as running:
        [receipt] = store.load().receipts
        assert cli.run(["status"]) == 0
        assert "left this behind" not in capsys.readouterr().out
        running.kill()
        assert cli.run(["status"]) == 0
        told = f"  the gateway has ended and left this behind: `ackward undo {receipt.id}`"
        assert told in capsys.readouterr().out.splitlines()
    assert "runs and needs it" not in undo(store)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "draining"])
def test_new_clients_of_a_network_that_nobody_serves_get_no_answer_or_a_reset(
    three: Three, store: Receipts, killed: bool
):
    """IPv4's reset would need a source address of the table local. If this fails, the kernel does better than is said."""
    with (
        server(three.server, answer_reversed, (ADDRESSES[4], 8000)) as far,
        gateway(three.gateway, transparent(), store.directory) as running,
    ):
        with connect(three.client, far.address) as open_one:
            assert eventually(lambda: running.counters["connections"] == 1)
            if killed:
                running.kill()
            else:
                running.drain()
                assert eventually(lambda: all(worker["draining"] for worker in running.status))
            with pytest.raises(TimeoutError):
                connect(three.client, far.address, 0.5)
            with pytest.raises(ConnectionRefusedError):
                connect(three.client, (ADDRESSES[6], 8000), 5)
            if not killed:
                open_one.shutdown(socket.SHUT_WR)
                assert read_all(open_one) == b""
        if not killed:
            assert eventually(lambda: store.load().receipts == ())
        undo(store)
        with connect(three.client, far.address) as forwarded:
            forwarded.shutdown(socket.SHUT_WR)
            assert read_all(forwarded) == b""


def test_a_gateway_puts_the_window_back_that_went_with_another_s_and_tells_of_it():
    with gateways() as made:
        add_silent_network(made)
        for port, place in enumerate(("first", "second"), ENTRY):
            listen = (
                f'initial_window = 50\n[[listen]]\naddress = "127.0.0.1:{port}"\ntarget = "127.0.0.1:1"\n'
            )
            far = f'via = "exit"\n[peer.exit]\naddress = "{SILENT[0]}:{EXIT}"\nkeys = ["shared.key"]\n'
            made.write(place, listen + far, steps="early = false")
            made.run(place)
            assert eventually(lambda place=place: made.status(place), within=30), "it runs"
        usual = made.status("second")["notices"]
        made.kill("first", signal.SIGTERM)
        [notice] = [one for one in made.status("second")["notices"] if one not in usual]
        assert notice.startswith("the step window is not in force")
        assert eventually(lambda: widened(made) == {SILENT[0]}, within=20)
        assert eventually(lambda: any("was put back" in line for line in made.log("second")))
        assert made.status("second")["notices"] == usual
        made.kill("second", signal.SIGTERM)
        assert widened(made) == set()
