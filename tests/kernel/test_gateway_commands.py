"""`ackward gateway run` by flags and with what it cannot have; peers that move; legs and servers from the wrong side."""

from __future__ import annotations

import signal
import subprocess

import pytest
from tests.kernel.gateway_hosts import (
    ECHO,
    ENTRY,
    EXIT,
    SERVER,
    SILENT,
    add_silent_network,
    end,
    exchange,
    gateways,
    widened,
)
from tests.kernel.lab_hosts import ACKWARD, ackward, python
from tests.polling import eventually

from ackward.kernel.namespaces import command_inside


@pytest.mark.parametrize("flags", [[], ["--no-early"], ["--faithful"]], ids=["early", "no-early", "faithful"])
def test_flags_alone_make_a_gateway(flags: list[str]):
    with gateways() as made, python(made.host, ECHO):
        name = made.name("flags")
        argv = [
            ACKWARD,
            "gateway",
            "run",
            "--listen",
            f"127.0.0.1:{ENTRY}",
            "--target",
            f"127.0.0.1:{SERVER}",
        ]
        process = subprocess.Popen(
            command_inside(made.host, [*argv, "--name", name, *flags]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            made.processes["flags"] = process
            assert eventually(lambda: made.status("flags"), within=30), "it runs"
            assert exchange(made, b"served") == b"served"
            [listener] = made.status("flags")["listeners"]
            assert listener["answer"] == ("faithful" if "--faithful" in flags else "optimistic")
            assert made.status("flags")["steps"]["early"] is ("--no-early" not in flags)
            assert made.counter("flags", "early_begun") == (0 if "--no-early" in flags else 1)
        finally:
            end(process)
            complaint = process.communicate()[1]
        assert process.returncode == 0, complaint


@pytest.mark.parametrize(
    "flags",
    [["--faithful"], ["--no-early"], ["--name", "x"], ["--target", "127.0.0.1:1"]],
    ids=lambda flags: flags[0],
)
def test_a_flag_beside_a_configuration_is_refused_not_ignored(tmp_path, flags: list[str]):
    config = tmp_path / "gateway.toml"
    config.write_text('[[listen]]\naddress = "127.0.0.1:1"\ntarget = "127.0.0.1:2"\n')
    done = ackward("gateway", "run", "--check", "--config", str(config), *flags)
    assert done.returncode == 2
    assert f"{flags[0]}: for one gateway alone" in done.stderr
    assert ackward("gateway", "run", "--check", "--config", str(config)).returncode == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--listen", "127.0.0.1:1"], "--listen needs --target"),
        (["--target", "127.0.0.1:1"], "--target needs --listen"),
        (["--listen", "127.0.0.1:1", "--target", "127.0.0.1:2", "--json"], "--json is for --check"),
    ],
)
def test_flags_that_need_another_are_refused(flags: list[str], said: str):
    done = ackward("gateway", "run", *flags)
    assert done.returncode == 2
    assert said in done.stdout + done.stderr


def test_where_only_the_step_window_lacks_a_capability_it_is_named():
    with gateways() as made:
        made.write("exit", steps="early = false").write_text(
            (made.directory / "exit.toml").read_text().replace("127.0.0.1/32", "10.99.0.0/24", 1)
        )
        add_silent_network(made)
        argv = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", ACKWARD, "gateway", "run"]
        argv += ["--config", str(made.directory / "exit.toml")]
        done = subprocess.run(command_inside(made.host, argv), capture_output=True, text=True, timeout=60)
        assert done.returncode == 3, done.stderr
        assert "CAP_NET_ADMIN" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_server_that_does_not_answer_is_given_up_after_limits_connect():
    with gateways() as made:
        add_silent_network(made)
        listen = f'[[listen]]\naddress = "127.0.0.1:{ENTRY}"\ntarget = "{SILENT[0]}:80"\n'
        made.write("alone", listen, limits="connect = 0.2")
        made.start("alone")
        with pytest.raises(ConnectionResetError), made.connect() as client:
            client.recv(1)
        assert eventually(lambda: any("end=connect-timeout" in line for line in made.log("alone")))
        assert made.counter("alone", "ended_connect_timeout") == 1


def test_a_leg_from_elsewhere_is_refused_before_the_handshake():
    with gateways() as made:
        path = made.write("exit")
        path.write_text(path.read_text().replace("127.0.0.1/32", "127.0.0.2/32", 1))
        made.start("exit")
        for _ in range(2):
            with pytest.raises(ConnectionResetError), made.connect(EXIT) as stranger:
                stranger.recv(1)
        assert made.counter("exit", "legs_rejected") == 2
        assert made.counter("exit", "legs_accepted") == 0
        [told] = eventually(lambda: [line for line in made.log("exit") if "turned away" in line])
        assert "not in exit.networks" in told


def test_the_step_window_follows_a_peer_whose_address_changes():
    with gateways() as made:
        add_silent_network(made)
        hosts = made.directory / "hosts"
        hosts.write_text(f"{SILENT[0]} exit.test\n")
        peer = f'via = "exit"\n[peer.exit]\naddress = "exit.test:{EXIT}"\nkeys = ["shared.key"]\n'
        made.write(
            "entry",
            f'initial_window = 50\n[[listen]]\naddress = "127.0.0.1:{ENTRY}"\ntarget = "127.0.0.1:{SERVER}"\n{peer}',
            steps="early = false",
        )
        made.own_hosts_file("entry", hosts)
        made.run("entry")
        assert eventually(lambda: made.status("entry"), within=30), "it runs"
        assert widened(made) == {SILENT[0]}
        hosts.write_text(f"{SILENT[1]} exit.test\n")
        made.processes["entry"].send_signal(signal.SIGHUP)
        assert eventually(lambda: widened(made) == {SILENT[1]}), "the other way is wide"
        made.kill("entry", signal.SIGTERM)
        assert widened(made) == set()
