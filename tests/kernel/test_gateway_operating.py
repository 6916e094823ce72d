"""A gateway's days: crashes, drains, names that change, mistakes; each is told, and nothing hangs."""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack, suppress

import pytest
from tests.kernel.gateway_hosts import (
    ECHO,
    ENTRY,
    EXIT,
    SERVER,
    Gateways,
    exchange,
    gateways,
    is_reset,
    reloaded,
)
from tests.kernel.lab_hosts import ACKWARD, ackward, python
from tests.polling import eventually

from ackward.kernel.namespaces import command_inside


def connected_again(made: Gateways) -> list[str]:
    return [line for line in made.log("entry") if "peer exit connected again" in line]


def shown(made: Gateways, place: str) -> str:
    return ackward("gateway", "status", made.name(place)).stdout


@pytest.mark.parametrize("victim", ["entry", "exit"])
def test_killing_a_gateway_resets_its_connections_and_the_other_recovers(victim):
    with gateways() as made, python(made.host, ECHO):
        made.write("exit")
        made.write("entry")
        made.start("exit", "entry")
        clients = [made.connect() for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(b"%02d" % number)
            assert client.recv(2) == b"%02d" % number
        before = len(connected_again(made))
        made.kill(victim)
        for client in clients:
            client.settimeout(5)
            assert is_reset(client)
            client.close()
        if victim == "exit":
            # The entry has no peer: a new client is reset, maybe while it connects, not left hanging.
            with suppress(ConnectionResetError), made.connect() as client:
                client.settimeout(8)
                assert is_reset(client)
            assert eventually(lambda: made.counter("entry", "ended_leg_lost") >= len(clients))
            assert made.counter("entry", "ended_reset_by_server") == 0
            refused = "failed=network: Connection refused"
            assert eventually(lambda: any(refused in line for line in made.log("entry")))
            assert f"exit 127.0.0.1:{EXIT}: NOT connected: network: Connection refused" in shown(
                made, "entry"
            )
        else:
            assert eventually(lambda: made.counter("exit", "connections") == 0), "the exit has let go"
        made.start(victim)
        assert eventually(lambda: made._is_ready("entry"), within=15), "the pool is full again"
        if victim == "exit":
            assert eventually(lambda: len(connected_again(made)) == before + 1)
        assert f"peer      exit 127.0.0.1:{EXIT}: connected, " in shown(made, "entry")
        assert exchange(made, b"again") == b"again"
        made.kill("entry", 15)
        made.kill("exit", 15)
        assert "Traceback" not in made.complaints("entry") + made.complaints("exit")


def test_a_drain_lets_open_connections_finish():
    with gateways() as made, python(made.host, ECHO):
        made.write("exit")
        made.write("entry")
        made.start("exit", "entry")
        with made.connect() as client:
            client.sendall(b"before")
            assert client.recv(6) == b"before"
            assert made.ask("drain", made.name("entry")) == {"draining": True}
            assert made.ask("drain", made.name("exit")) == {"draining": True}
            assert eventually(lambda: made.status("entry")["state"] == "draining")
            with pytest.raises(ConnectionRefusedError):
                assert eventually(lambda: made.connect().close(), within=5)
            client.sendall(b"after")
            assert client.recv(5) == b"after"
            assert made.processes["entry"].poll() is None
        for place in ("entry", "exit"):
            assert made.processes[place].wait(15) == 0, made.complaints(place)
        assert [line for line in made.log("entry") if " connection " in line and line.endswith("end=done")]


def test_a_drain_is_shown_and_another_gateway_can_run_beside():
    with gateways() as made, python(made.host, ECHO):
        made.write("exit")
        made.write("entry")
        made.start("exit", "entry")
        with made.connect() as client:
            client.sendall(b"before")
            assert client.recv(6) == b"before"
            made.ask("drain", made.name("exit"))
            assert eventually(lambda: any("takes no new connections" in line for line in made.log("entry")))
            made.ask("drain", made.name("entry"))
            assert eventually(lambda: made.status("entry")["state"] == "draining")
            head = shown(made, "entry").splitlines()[0]
            assert re.search(r"draining for .*, 1 connection open, ends in .* at the latest; up ", head)
            config = made.directory / "entry.toml"
            with (made.directory / "second.toml").open("w") as second:
                second.write(config.read_text())
            refused = made.run("second")
            assert refused.wait(30) == 2
            assert (
                f"a gateway named '{made.name('entry')}' drains, with 1 connection open"
                in made.complaints("second")
            )
            (made.directory / "exit2.toml").write_text(
                (made.directory / "exit.toml").read_text().replace(made.name("exit"), made.name("exit2"))
            )
            (made.directory / "entry2.toml").write_text(
                config.read_text().replace(made.name("entry"), made.name("entry2"))
            )
            made.start("exit2", "entry2")
            assert exchange(made, b"beside") == b"beside"
            client.sendall(b"after")
            assert client.recv(5) == b"after"
        assert not [line for line in made.log("entry") if "the peer retired" in line]


def test_what_several_workers_cost_is_told_in_log_and_status():
    with gateways() as made, python(made.host, ECHO):
        path = made.write("exit")
        path.write_text("workers = 2\n" + path.read_text())
        made.write("entry")
        made.start("exit", "entry")
        assert exchange(made, b"served") == b"served"
        told = "workers = 2 with an exit: legs cannot be joined"
        assert any(f"notice {told}" in line for line in made.log("exit"))
        shown = {
            place: " ".join(ackward("gateway", "status", made.name(place)).stdout.split())
            for place in made.processes
        }
        assert f"notice {told}" in shown["exit"]
        assert "legs cannot be joined there (several workers)" in shown["entry"]


def test_names_that_change_and_fail_are_told_and_running_connections_stay():
    with gateways() as made, ExitStack() as stack:
        for last in (1, 2):
            stack.enter_context(python(made.host, ECHO.replace('"127.0.0.1"', f'"127.0.0.{last}"')))
        hosts = made.directory / "hosts"
        hosts.write_text("127.0.0.1 app.test\n")
        made.write(
            "named",
            f'[[listen]]\nname = "web"\naddress = "127.0.0.1:{ENTRY}"\ntarget = "app.test:{SERVER}"\n',
        )
        made.own_hosts_file("named", hosts)
        made.start("named")
        with made.connect() as client:
            client.sendall(b"1")
            assert client.recv(1) == b"1"
            hosts.write_text("127.0.0.2 app.test\n")
            reloaded(
                made,
                "named",
                "the name app.test is 127.0.0.2 now, no longer 127.0.0.1; open connections stay",
            )
            assert eventually(
                lambda: made.status("named")["listeners"][0]["destination"] == f"127.0.0.2:{SERVER}"
            )
            assert exchange(made, b"there") == b"there"
            assert eventually(
                lambda: any(f"destination=127.0.0.2:{SERVER}" in line for line in made.log("named"))
            )
            hosts.write_text("")
            reloaded(made, "named", "the name app.test does not resolve")
            assert "127.0.0.2 stays in use" in "".join(made.log("named"))
            assert exchange(made, b"still") == b"still"
            client.sendall(b"2")
            assert client.recv(1) == b"2"
            hosts.write_text("127.0.0.2 app.test\n")
            reloaded(made, "named", "the name app.test resolves again: 127.0.0.2")


def test_an_exit_of_another_version_is_told_in_the_entry_s_log():
    newer = f"""
import socket
with socket.create_server(("127.0.0.1", {EXIT})) as listener:
    print("ready", flush=True)
    while True:
        leg, _ = listener.accept()
        with leg:
            leg.recv(100)
            leg.sendall(bytes.fromhex("61636b7709090001"))
"""
    with gateways() as made, python(made.host, newer):
        made.write("entry")
        made.run("entry")
        told = eventually(lambda: [line for line in made.log("entry") if "failed=version" in line])
        assert "the peer speaks version 9, this gateway 1" in told[0]
        assert eventually(lambda: made.counter("entry", "legs_failed") >= 3), "tried again"
        assert len([line for line in made.log("entry") if "failed=version" in line]) == 1
        with suppress(ConnectionResetError), made.connect() as client:
            client.settimeout(8)
            assert is_reset(client)
        assert made.processes["entry"].poll() is None


# Mistakes: each names what is wrong, and nothing is started.


def refused(made, place, code):
    process = made.run(place)
    assert process.wait(20) == code, made.complaints(place)
    said = made.complaints(place)
    assert "Traceback" not in said
    return said


def test_mistakes_are_named_and_nothing_is_started():
    with gateways() as made:
        made.write("exit")
        made.write("entry", steps="window = false\npool = 3")
        assert "steps.pool" in refused(made, "entry", 2)
        with python(made.host, ECHO):
            (made.directory / "busy.toml").write_text(
                f'name = "{made.name("busy")}"\n[[listen]]\naddress = "127.0.0.1:{SERVER}"\ntarget = "127.0.0.1:9"\n'
            )
            said = refused(made, "busy", 3)
            assert f"127.0.0.1:{SERVER} is in use" in said
        (made.directory / "shared.key").chmod(0o644)
        assert "can be read or changed by others" in refused(made, "exit", 2)
        (made.directory / "shared.key").chmod(0o600)
        made.write(
            "named",
            '[[listen]]\naddress = "127.0.0.1:9"\ntarget = "127.0.0.1:10"\nvia = "x"\n'
            '[peer.x]\naddress = "does-not.exist.invalid:1"\nkeys = ["shared.key"]\n',
        )
        assert "peer.x.address: the name does-not.exist.invalid does not resolve" in refused(made, "named", 3)


FIXED = f'address = "127.0.0.1:{ENTRY}"\ntarget = "127.0.0.1:9"\n'


@pytest.mark.parametrize(
    "listen",
    [FIXED, FIXED + 'answer = "faithful"\n', 'transparent = "10.9.0.0/16"\ninterface = "lo"\n'],
    ids=["early", "faithful", "transparent"],
)
def test_a_missing_capability_is_named(listen):
    with gateways() as made:
        (made.directory / "plain.toml").write_text(f"[[listen]]\n{listen}")
        argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", ACKWARD, "gateway", "run"]
        argv += ["--config", str(made.directory / "plain.toml")]
        done = subprocess.run(command_inside(made.host, argv), capture_output=True, text=True, timeout=30)
        assert done.returncode == 3, done.stderr
        assert "Traceback" not in done.stderr
        assert "sudo" in done.stderr or "CAP_" in done.stderr or "root" in done.stderr


def test_a_server_that_refuses_is_a_reset_and_a_line():
    with gateways() as made:
        made.write("exit")
        made.write("entry")
        made.start("exit", "entry")
        with (
            suppress(ConnectionResetError),
            made.connect() as client,
        ):  # the reset may come before connect() returns
            client.settimeout(5)
            assert is_reset(client)
        assert eventually(lambda: any("end=refused" in line for line in made.log("entry")))
        assert made.counter("entry", "ended_refused") == 1


def test_prometheus_is_told_what_status_says():
    with gateways() as made, python(made.host, ECHO):
        made.write("exit")
        path = made.write("entry")
        path.write_text(path.read_text() + '[metrics]\naddress = "127.0.0.1:7009"\n')
        made.start("exit", "entry")
        for _ in range(3):
            assert exchange(made, b"12345") == b"12345"
        assert eventually(lambda: made.counter("entry", "ended_done") == 3)
        with made.connect(7009) as scraper:
            scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            page = b""
            while part := scraper.recv(1 << 16):
                page += part
        lines = page.decode().splitlines()
        assert "ackward_gateway_accepted_total 3.0" in lines
        assert "ackward_gateway_to_server_total 15.0" in lines
        assert 'ackward_gateway_ended_total{how="done"} 3.0' in lines
        assert "ackward_gateway_draining 0.0" in lines
