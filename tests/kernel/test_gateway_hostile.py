"""Strangers and liars: what each meets, and that real clients are served meanwhile."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from ipaddress import ip_address

import pytest
from tests.kernel.gateway_hosts import ECHO, EXIT, SERVER, Peer, exchange, gateways
from tests.kernel.lab_hosts import python
from tests.polling import eventually
from tests.steady import FINAL

from ackward.gateway import protocol_messages as wire
from ackward.gateway.initiator import Initiator
from ackward.gateway.protocol import LegFailed
from ackward.gateway.protocol_messages import Open, Reason, Result

pytestmark = FINAL

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
    told = eventually(
        lambda: [line for line in served.log("exit") if f"forbidden peer=entry destination={shown}:" in line]
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
    assert eventually(lambda: [line for line in served.log("exit") if "failed=bad-proof" in line])

    anchor = Peer(served).ready()
    joined = Peer(served, session=anchor.end.session)
    joined.end.open(WANTED)
    joined.say()
    assert joined.hear() is not None
    assert joined.hear().result is Result.CONNECTED
    replay = served.connect(EXIT)
    replay.sendall(joined.sent + b"DELETE / HTTP/1.1\r\n")
    assert rejected(served, replay) in (Reason.REPLAYED, None)
    assert eventually(lambda: [line for line in served.log("exit") if "failed=replayed" in line])

    anchor.sock.close()
    assert eventually(lambda: late_joining(served, anchor)), "the session ended with its leg"
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
    assert eventually(
        lambda: [line for line in served.log("exit") if "failed=version" in line and "version 9" in line]
    )


def test_whoever_says_nothing_or_one_byte_at_a_time_is_closed_in_time_and_keeps_nobody_out(served):
    """More than there is room for: legs beyond it are dropped, those within end by the deadline, clients are served."""
    slow = [served.connect(EXIT) for _ in range(48)]
    hello = Initiator(served.key).outgoing()
    began = time.monotonic()
    closed = set()
    heard = set()
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
                if data := sock.recv(100):
                    heard.add(data)
                else:
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
    assert wire.pack_reject(Reason.BUSY) in heard  # an honest peer is told why


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
    assert eventually(
        lambda: (
            served.counter("exit", "legs_rejected") + served.counter("exit", "handshakes_dropped")
            >= before + 200
        )
    )
    assert len(served.log("exit")) - lines < 20


def test_the_socket_family_of_a_leg_does_not_decide_the_destinations(served):
    assert socket.has_ipv6
    peer = Peer(served).ready()
    peer.end.open(Open((ip_address("::ffff:127.0.0.1").ipv4_mapped, SERVER), (HERE, 1)))
    peer.say()
    assert peer.hear().result is Result.CONNECTED
    peer.sock.close()
