"""Stops: during the start, with connections that are open, a second time, and when the time to drain is over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest
from tests.kernel.gateway_hosts import ECHO, ENTRY, SERVER, Gateways, Peer, gateways
from tests.kernel.gateway_wires import routing
from tests.kernel.lab_hosts import python
from tests.polling import eventually

from ackward.gateway import control
from ackward.gateway.protocol import LegFailed

ALONE = f'[[listen]]\nname = "web"\naddress = "127.0.0.1:{ENTRY}"\ntarget = "127.0.0.1:{SERVER}"\n'


def opened_for_writing(path) -> int | None:
    """The pipe, once somebody reads from it."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_a_stop_during_the_start_leaves_nothing():
    with gateways() as made:
        before = routing(made.host)
        # A pipe for /etc/hosts: the start waits in the middle for whoever writes into it.
        hosts = made.directory / "hosts"
        os.mkfifo(hosts)
        made.own_hosts_file("named", hosts)
        listen = (
            ALONE.replace('"127.0.0.1:' + str(SERVER), '"app.test:' + str(SERVER)) + 'answer = "faithful"\n'
        )
        made.write("named", listen)
        process = made.run("named")
        pipe = eventually(lambda: opened_for_writing(hosts), within=30)
        assert control.path_of(made.name("named")).exists()
        process.send_signal(signal.SIGTERM)
        with suppress(BrokenPipeError):  # the look-up may have given up by now
            os.write(pipe, b"127.0.0.1 app.test\n")
        os.close(pipe)
        assert process.wait(30) == 0, made.complaints("named")
        assert "Traceback" not in made.complaints("named")
        assert not control.path_of(made.name("named")).exists()
        assert routing(made.host) == before


def stopped_twice(made: Gateways) -> None:
    made.processes["alone"].send_signal(signal.SIGTERM)
    assert eventually(lambda: any(" draining connections=1 " in line for line in made.log("alone")))
    made.processes["alone"].send_signal(signal.SIGTERM)


def stopped_once(made: Gateways) -> None:
    made.processes["alone"].send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "limits"), [(stopped_twice, ""), (stopped_once, "drain = 0.2")], ids=["twice", "drain-is-over"]
)
def test_connections_that_do_not_end_are_reset_and_told(stop: Callable[[Gateways], None], limits: str):
    with gateways() as made, python(made.host, ECHO):
        made.write("alone", ALONE, limits=limits)
        made.start("alone")
        with made.connect() as client:
            client.sendall(b"open")
            assert client.recv(4) == b"open"
            stop(made)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert made.processes["alone"].wait(20) == 0, made.complaints("alone")
        log = made.log("alone")
        assert any(line.endswith("ended before all connections were") for line in log)
        assert [line for line in log if " connection listener=web " in line and line.endswith("end=stopped")]
        assert log[-1].endswith(" ended")


def test_one_stop_lets_open_connections_finish():
    with gateways() as made, python(made.host, ECHO):
        made.write("alone", ALONE)
        made.start("alone")
        with made.connect() as client:
            client.sendall(b"before")
            assert client.recv(6) == b"before"
            stopped_once(made)
            assert eventually(lambda: any(" draining connections=1 " in line for line in made.log("alone")))
            client.sendall(b"after")
            assert client.recv(5) == b"after"
        assert made.processes["alone"].wait(20) == 0, made.complaints("alone")
        assert [line for line in made.log("alone") if line.endswith("end=done")]


def test_what_was_only_counted_is_told_at_the_end():
    with gateways() as made:
        made.write("exit")
        made.start("exit")
        for _ in range(3):
            stranger = Peer(made, bytes(32))
            stranger.say()
            with pytest.raises(LegFailed):
                stranger.hear()
        assert not any("times more" in line for line in made.log("exit"))
        made.kill("exit", signal.SIGTERM)
        assert [
            line for line in made.log("exit") if "failed=unknown-key" in line and "(2 times more)" in line
        ]
