"""Keys that are exchanged while gateways run: nobody notices, and who has an old one is let in no more."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.gateway_hosts import ECHO, Peer, exchange, gateways, is_reset, reloaded
from tests.kernel.lab_hosts import python
from tests.polling import eventually

from ackward.gateway.keys import make_key
from ackward.gateway.protocol import LegFailed, Retired
from ackward.gateway.protocol_messages import Reason, key_id


def test_keys_are_exchanged_without_a_restart_and_without_losing_a_connection():
    with gateways() as made, python(made.host, ECHO):
        made.write("exit")
        made.write("entry")
        made.start("exit", "entry")
        with made.connect() as client:
            client.sendall(b"1")
            assert client.recv(1) == b"1"
            path = made.directory / "shared.key"
            path.write_text("22" * 32)
            for place in ("exit", "entry"):
                made.processes[place].send_signal(1)
            assert eventually(lambda: any("keys read" in line for line in made.log("entry")))
            assert eventually(lambda: any("keys read" in line for line in made.log("exit")))
            assert eventually(lambda: made._is_ready("entry"), within=15), "legs with the new key"
            stranger = Peer(made)
            stranger.say()
            with pytest.raises(LegFailed) as caught:
                stranger.hear()
            assert caught.value.reason is Reason.UNKNOWN_KEY, "the old key"
            client.sendall(b"2")
            assert client.recv(1) == b"2"
        assert exchange(made, b"new") == b"new"
        path.write_text("broken")
        made.processes["exit"].send_signal(1)
        assert eventually(lambda: any("the old ones stay in use" in line for line in made.log("exit")))
        assert exchange(made, b"still") == b"still"
        assert "22" * 32 not in "".join(made.log("exit") + made.log("entry"))


def accepts(made, key: bytes) -> bool:
    """Whether the exit lets somebody in who has this key."""
    somebody = Peer(made, key)
    try:
        somebody.ready()
    except LegFailed as error:
        assert error.reason is Reason.UNKNOWN_KEY
        return False
    finally:
        somebody.sock.close()
    return True


def test_two_keys_are_accepted_while_one_takes_the_other_s_place():
    """The way of docs/gateway.md: the new key at the exit, then at the entry, then the old one away; nobody notices."""
    with gateways() as made, python(made.host, ECHO):
        made.write("exit", limits="leg_handshake = 1")
        made.write("entry")
        made.start("exit", "entry")
        old, new = made.key, make_key(made.directory / "new.key").secret
        with made.connect() as client:

            def goes_on():
                client.sendall(b"1")
                assert client.recv(1) == b"1"
                assert eventually(lambda: made._is_ready("entry")), "the pool is full"
                assert exchange(made, b"new") == b"new"

            goes_on()
            failed = made.counter("entry", "legs_failed")  # the entry may have been there before the exit
            assert (accepts(made, old), accepts(made, new)) == (True, False)
            use_keys(made, "exit", '"shared.key", "new.key"')
            goes_on()
            assert (accepts(made, old), accepts(made, new)) == (True, True)
            use_keys(made, "entry", '"new.key"')
            goes_on()
            spy = Peer(made, old).ready()
            use_keys(made, "exit", '"new.key"')
            # Who has the old key keeps no leg in store.
            assert isinstance(spy.hear(), Retired)
            assert is_reset(spy.sock)
            goes_on()
            assert (accepts(made, old), accepts(made, new)) == (False, True)
            assert made.counter("entry", "legs_failed") == failed
            # A mistake leaves all as it is, and what needs a restart is named.
            path = made.directory / "entry.toml"
            path.write_text(path.read_text().replace("new.key", "nosuch.key"))
            reloaded(made, "entry", "the old ones stay in use")
            path.write_text("workers = 2\n" + path.read_text().replace("nosuch.key", "new.key"))
            reloaded(made, "entry", "not in force before a restart: workers")
            goes_on()
        assert made.status("entry")["peers"][0]["keys"] == [key_id(new).hex()]


def change_key(made):
    use_keys(made, "entry", '"new.key"')


def drain(made):
    made.ask("drain", made.name("entry"))
    assert eventually(lambda: all(worker["draining"] for worker in made.status("entry")["workers"]))


@pytest.mark.parametrize("change", [change_key, drain])
def test_legs_on_their_way_keep_their_right_to_join(change):
    """The exit sleeps meanwhile: clients whose legs it has not looked at yet are served once it wakes.

    They are more than it accepts at one go: the others meet what has become of the session.
    """
    with gateways() as made, python(made.host, ECHO), ExitStack() as stack:
        make_key(made.directory / "new.key")
        made.write("exit")
        made.write("entry")
        made.start("exit", "entry")
        use_keys(made, "exit", '"shared.key", "new.key"')
        failed = made.counter("entry", "legs_failed")
        [worker] = workers_of(made, "exit")
        os.kill(worker, signal.SIGSTOP)
        try:
            clients = [stack.enter_context(made.connect()) for _ in range(150)]
            for number, client in enumerate(clients):
                client.sendall(b"%03d" % number)
            assert eventually(lambda: made.counter("entry", "pool_empty") >= 140), "legs are made for most"
            change(made)
        finally:
            os.kill(worker, signal.SIGCONT)
        for number, client in enumerate(clients):
            assert client.recv(3) == b"%03d" % number
        assert made.counter("entry", "legs_failed") == failed


def workers_of(made, place) -> list[int]:
    pid = made.processes[place].pid
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def use_keys(made, place, files):
    path = made.directory / f"{place}.toml"
    path.write_text(re.sub(r"keys = \[.*\]", f"keys = [{files}]", path.read_text()))
    reloaded(made, place)


def test_a_worker_that_takes_another_s_place_has_the_keys_of_now():
    with gateways() as made, python(made.host, ECHO):
        made.write("exit")
        made.write("entry")
        made.start("exit", "entry")
        old, path = made.key, made.directory / "shared.key"
        path.write_text("33" * 32)
        for place in ("exit", "entry"):
            reloaded(made, place)
        for place in ("exit", "entry"):
            [worker] = workers_of(made, place)
            os.kill(worker, signal.SIGKILL)
            assert eventually(lambda place=place: f"pid={worker} by=signal 9" in "".join(made.log(place)))  # noqa: B023
            assert eventually(lambda place=place: workers_of(made, place) not in ([], [worker]))  # noqa: B023
            assert eventually(lambda: made._is_ready("entry")), "the pool is full again"
            assert exchange(made, b"again") == b"again"
            assert made.counter(place, "workers_lost") == 1
        assert (accepts(made, old), accepts(made, bytes.fromhex("33" * 32))) == (False, True)
