"""Strangers, liars, killers and mistakes: what each meets, and that real clients are served meanwhile."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from ipaddress import ip_address

import pytest
from tests.kernel.gateway_hosts import ECHO, ENTRY, EXIT, SERVER, exchange, gateways, until
from tests.kernel.lab_hosts import ACKWARD, python

from ackward.gateway import protocol_messages as wire
from ackward.gateway.protocol import Initiator, LegFailed
from ackward.gateway.protocol_messages import Open, Reason, Result
from ackward.kernel.namespaces import command_inside

HERE = ip_address("127.0.0.1")
WANTED = Open((HERE, SERVER), (HERE, 1))


@pytest.fixture(scope="module")
def served():
    """Both gateways and an echoing server; short patience with strangers."""
    with gateways() as made, python(made.host, ECHO):
        made.write("exit", limits="leg_handshake = 1\nleg_handshakes = 32")
        made.write("entry")
        made.start("exit", "entry")
        yield made
        assert exchange(made, b"still there") == b"still there"
        assert made.processes["exit"].poll() is None
        assert made.processes["entry"].poll() is None


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


def test_what_the_entry_does_works_by_hand_and_only_to_listed_places(served):
    peer = Peer(served).ready()
    peer.end.open(WANTED)
    peer.say()
    assert peer.hear().result is Result.CONNECTED
    peer.sock.sendall(b"hello")
    assert peer.sock.recv(5) == b"hello"
    peer.sock.close()


@pytest.mark.parametrize(
    "place", [("127.0.0.1", 22), ("127.0.0.2", SERVER), ("169.254.169.254", 80), ("::1", SERVER)]
)
def test_a_destination_that_is_not_listed_is_refused_counted_and_told_once(served, place):
    before = served.counter("exit", "ended_forbidden")
    for _ in range(3):
        peer = Peer(served).ready()
        peer.end.open(Open((ip_address(place[0]), place[1]), (HERE, 1)))
        peer.say()
        assert peer.hear().result is Result.FORBIDDEN
        peer.sock.close()
    assert served.counter("exit", "ended_forbidden") == before + 3
    shown = f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}"
    told = until(
        lambda: [line for line in served.log("exit") if f"forbidden peer=entry destination={shown}:" in line],
        "told",
    )
    assert len(told) == 1


def rejected(served, sock):
    """The reason in a REJECT, and then nothing more."""
    data = b""
    with suppress(
        ConnectionResetError
    ):  # it closed with bytes unread: the REJECT may be lost, the log has it
        while part := sock.recv(100):
            data += part
    sock.close()
    return wire.unpack_reject(data)[0] if data else None


def test_wrong_keys_forged_and_replayed_openings_are_refused_and_counted(served):
    before = served.counter("exit", "legs_rejected")
    stranger = Peer(served, bytes(32))
    stranger.say()
    with pytest.raises(LegFailed) as caught:
        stranger.hear()
    assert caught.value.reason is Reason.UNKNOWN_KEY

    recorded = Peer(served).ready()
    recorded.end.open(WANTED)
    recorded.say()
    recorded.hear()
    replay = served.connect(EXIT)
    replay.sendall(recorded.sent)
    data = replay.recv(wire.SIZES[wire.Kind.CHALLENGE])
    assert data[5] == wire.Kind.CHALLENGE
    assert rejected(served, replay) in (Reason.BAD_PROOF, None)
    until(lambda: [line for line in served.log("exit") if "failed=bad-proof" in line], "told")

    anchor = Peer(served).ready()
    joined = Peer(served, session=anchor.end.session)
    joined.end.open(WANTED)
    joined.say()
    assert joined.hear() is not None
    assert joined.hear().result is Result.CONNECTED
    replay = served.connect(EXIT)
    replay.sendall(joined.sent + b"DELETE / HTTP/1.1\r\n")
    assert rejected(served, replay) in (Reason.REPLAYED, None)
    until(lambda: [line for line in served.log("exit") if "failed=replayed" in line], "told")

    anchor.sock.close()
    until(lambda: late_joining(served, anchor), "the session ended with its leg")
    assert served.counter("exit", "legs_rejected") >= before + 4
    for peer in (recorded, joined):
        peer.sock.close()


def late_joining(served, anchor):
    late = Peer(served, session=anchor.end.session)
    late.say()
    try:
        late.hear()
    except LegFailed as error:
        return error.reason is Reason.UNKNOWN_SESSION
    finally:
        late.sock.close()
    return False


def test_a_peer_of_another_version_is_told_and_both_logs_say_it(served):
    stranger = served.connect(EXIT)
    hello = bytearray(Initiator(served.key).outgoing())
    hello[4] = 9
    stranger.sendall(hello)
    assert stranger.recv(100) == bytes.fromhex("61636b7701090001")
    stranger.close()
    until(
        lambda: [line for line in served.log("exit") if "failed=version" in line and "version 9" in line],
        "told",
    )


def test_whoever_says_nothing_or_one_byte_at_a_time_is_closed_in_time_and_keeps_nobody_out(served):
    """More than there is room for: legs beyond it are dropped, those within end by the deadline, clients are served."""
    slow = [served.connect(EXIT) for _ in range(48)]
    hello = Initiator(served.key).outgoing()
    began = time.monotonic()
    closed = set()
    position = 0
    while len(closed) < len(slow):
        assert time.monotonic() - began < 8
        for sock in slow:
            if sock in closed:
                continue
            sock.settimeout(0.001)
            try:
                if position < len(hello) - 1:
                    sock.send(hello[position : position + 1])
                if not sock.recv(100):
                    closed.add(sock)
            except TimeoutError:
                continue
            except OSError:
                closed.add(sock)
        position += 1
        # The pool's legs are there: clients need none of the room that strangers take.
        assert exchange(served, b"meanwhile") == b"meanwhile"
    for sock in slow:
        sock.close()
    assert served.counter("exit", "handshakes_dropped") > 0


def test_nonsense_is_refused(served):
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" + bytes(300),
        bytes(1000),
        b"ackw\x01\x06" + bytes(100),
    ):
        sock = served.connect(EXIT)
        try:
            sock.sendall(nonsense)
            assert rejected(served, sock) in (Reason.MALFORMED, Reason.VERSION, None)
        except ConnectionError:  # it was closed with bytes unread
            sock.close()


def test_strangers_fill_neither_log_nor_memory(served):
    lines = len(served.log("exit"))
    before = served.counter("exit", "legs_rejected") + served.counter("exit", "handshakes_dropped")
    for _ in range(200):
        sock = served.connect(EXIT)
        sock.sendall(b"x" * 10)
        sock.close()
    until(
        lambda: (
            served.counter("exit", "legs_rejected") + served.counter("exit", "handshakes_dropped")
            >= before + 200
        ),
        "counted",
    )
    assert len(served.log("exit")) - lines < 20


# Crashes: any order, nothing hangs, nothing is left.


def reset_or_end(client):
    try:
        return not client.recv(10)
    except ConnectionError:
        return True


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
        made.kill(victim)
        for client in clients:
            client.settimeout(5)
            assert reset_or_end(client)
            client.close()
        if victim == "exit":
            # The entry has no peer: a new client is reset, maybe while it connects, not left hanging.
            with suppress(ConnectionResetError), made.connect() as client:
                client.settimeout(8)
                assert reset_or_end(client)
        else:
            until(lambda: made.counter("exit", "connections") == 0, "the exit has let go")
        made.start(victim)
        until(lambda: made._is_ready("entry"), "the pool is full again", seconds=15)
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
            until(lambda: made.status("entry")["state"] == "draining", "drains")
            with pytest.raises(ConnectionRefusedError):
                until(lambda: made.connect().close(), "refuses", seconds=5)
            client.sendall(b"after")
            assert client.recv(5) == b"after"
            assert made.processes["entry"].poll() is None
        for place in ("entry", "exit"):
            assert made.processes[place].wait(15) == 0, made.complaints(place)
        assert [line for line in made.log("entry") if " connection " in line and line.endswith("end=done")]


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
            until(lambda: any("keys read" in line for line in made.log("entry")), "read")
            until(lambda: any("keys read" in line for line in made.log("exit")), "read")
            until(lambda: made._is_ready("entry"), "legs with the new key", seconds=15)
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
        until(lambda: any("the old ones stay in use" in line for line in made.log("exit")), "told")
        assert exchange(made, b"still") == b"still"
        assert "22" * 32 not in "".join(made.log("exit") + made.log("entry"))


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


def test_a_missing_capability_is_named():
    with gateways() as made:
        (made.directory / "plain.toml").write_text(
            f'[[listen]]\naddress = "127.0.0.1:{ENTRY}"\ntarget = "127.0.0.1:9"\nanswer = "faithful"\n'
        )
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
        with made.connect() as client:
            client.settimeout(5)
            assert reset_or_end(client)
        until(lambda: any("end=refused" in line for line in made.log("entry")), "told")
        assert made.counter("entry", "ended_refused") == 1


def test_the_socket_family_of_a_leg_does_not_decide_the_destinations(served):
    assert socket.has_ipv6
    peer = Peer(served).ready()
    peer.end.open(Open((ip_address("::ffff:127.0.0.1").ipv4_mapped, SERVER), (HERE, 1)))
    peer.say()
    assert peer.hear().result is Result.CONNECTED
    peer.sock.close()


def test_prometheus_is_told_what_status_says():
    with gateways() as made, python(made.host, ECHO):
        made.write("exit")
        path = made.write("entry")
        path.write_text(path.read_text() + '[metrics]\naddress = "127.0.0.1:7009"\n')
        made.start("exit", "entry")
        for _ in range(3):
            assert exchange(made, b"12345") == b"12345"
        until(lambda: made.counter("entry", "ended_done") == 3, "ended")
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
