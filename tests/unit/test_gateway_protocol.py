"""The leg protocol: the published bytes, every split of them, replays, forgeries, and peers that talk nonsense."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ackward.gateway import nonces
from ackward.gateway import protocol_messages as wire
from ackward.gateway.initiator import Initiator
from ackward.gateway.protocol import Answered, LegFailed, Opened, Ready, Retired
from ackward.gateway.protocol_messages import Open, Option, Reason, Result
from ackward.gateway.responder import REPLAY_WINDOW, Door, Known, Responder

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
WANTED = Open((ip_address("192.0.2.7"), 443), (ip_address("2001:db8::5"), 50000))
SPECIFICATION = Path(__file__).parents[2] / "docs/gateway-protocol.md"


def door(*keys, joining=True):
    return Door({wire.key_id(key): Known(key, f"peer{n}") for n, key in enumerate(keys or (KEY,))}, joining)


def feed(end, data, step=None):
    """Give an end what the network brings, never more than it wants; gives its events and what it left alone."""
    events = []
    while data and end.wanted:
        take = min(end.wanted, step or end.wanted)
        event = end.receive(data[:take])
        data = data[take:]
        if event is not None:
            events.append(event)
    return events, data


def talk(one, other, step=None):
    """Carry bytes between two ends until both are silent; gives the events of each."""
    events = ([], [])
    while True:
        first, second = one.outgoing(), other.outgoing()
        if not first and not second:
            return events
        events[1].extend(feed(other, first, step)[0])
        events[0].extend(feed(one, second, step)[0])


def founded(exit_door, key=KEY):
    """A ready leg: (initiator, responder)."""
    one, other = Initiator(key), Responder(exit_door)
    assert talk(one, other) == ([Ready()], [Ready("peer0")])
    return one, other


def vectors():
    block = SPECIFICATION.read_text().split("## Vectors")[1].split("```")[1]
    return {name: bytes.fromhex(data) for name, data in map(str.split, block.strip().splitlines())}


def test_a_gateway_s_own_leg_is_not_its_peer():
    one, other = Initiator(KEY, random=nonces.fresh), Responder(door())
    error = refused(other, one.outgoing())
    assert (error.reason, error.goodbye) == (Reason.REPLAYED, wire.pack_reject(Reason.REPLAYED))
    assert nonces.fresh(wire.NONCE_SIZE) != nonces.fresh(wire.NONCE_SIZE)
    for other_nonce in (bytes(wire.NONCE_SIZE), nonces.fresh(wire.NONCE_SIZE)[::-1]):
        assert not nonces.is_ours(other_nonce)


def test_the_published_vectors_are_what_both_ends_say():
    expected = vectors()
    fixed = {wire.NONCE_SIZE: b"\xa1" * 32}
    exit_door = door()
    exit_random = {wire.NONCE_SIZE: b"\xb2" * 32, wire.SESSION_ID_SIZE: b"\xc3" * 8}
    one, other = Initiator(KEY, random=fixed.get), Responder(exit_door, random=exit_random.get)
    for name, sender, taker in (
        ("HELLO", one, other),
        ("CHALLENGE", other, one),
        ("PROOF", one, other),
        ("READY", other, one),
    ):
        data = sender.outgoing()
        assert data == expected[name], name
        feed(taker, data)
    other.retire()
    assert other.outgoing() == expected["RETIRE"]
    one.open(WANTED)
    assert (opened := one.outgoing()) == expected["OPEN"]
    assert feed(other, opened)[0] == [Opened(WANTED, "peer0")]
    other.answer(Result.CONNECTED)
    assert other.outgoing() == expected["ANSWER"]

    joined, accepted = Initiator(KEY, one.session), Responder(exit_door)
    joined.open(WANTED)
    assert joined.outgoing() == (first := expected["JOIN"] + expected["JOINED-OPEN"])
    assert feed(accepted, first)[0] == [Ready("peer0"), Opened(WANTED, "peer0")]
    assert accepted.outgoing() == expected["JOINED-READY"]
    assert expected["REJECT"] == wire.pack_reject(Reason.UNKNOWN_KEY)
    assert max(map(len, expected.values())) == wire.LARGEST


@pytest.mark.parametrize("step", [1, 2, 5, 7, None])
@pytest.mark.parametrize("joins", [False, True])
def test_every_split_gives_the_same_and_no_end_reads_payload(step, joins):
    exit_door = door()
    anchor, _ = founded(exit_door)
    one, other = Initiator(KEY, anchor.session if joins else None), Responder(exit_door)
    if not joins:
        talk(one, other, step)
    one.open(WANTED)
    events, left = feed(other, one.outgoing() + b"GET / HTTP/1.1", step)
    assert events[-1] == Opened(WANTED, "peer0")
    assert left == b"GET / HTTP/1.1"
    other.answer(Result.CONNECTED)
    events, left = feed(one, other.outgoing() + b"HTTP/1.1 200", step)
    assert events[-1] == Answered(Result.CONNECTED)
    assert left == b"HTTP/1.1 200"
    assert one.carries_payload
    assert other.carries_payload


@pytest.mark.parametrize("result", [result for result in Result if result is not Result.CONNECTED])
def test_a_connection_that_failed_ends_its_leg(result):
    one, other = founded(door())
    one.open(WANTED)
    feed(other, one.outgoing())
    other.answer(result)
    assert feed(one, other.outgoing())[0] == [Answered(result)]
    assert (one.wanted, other.wanted) == (0, 0)
    assert not one.carries_payload


def test_a_retired_leg_still_serves_the_open_that_crossed():
    one, other = founded(door())
    other.retire()
    one.open(WANTED)
    assert feed(other, one.outgoing())[0] == [Opened(WANTED, "peer0")]
    other.answer(Result.CONNECTED)
    assert feed(one, other.outgoing())[0] == [Retired(), Answered(Result.CONNECTED)]


def test_an_idle_leg_hears_that_it_is_retired():
    one, other = founded(door())
    other.retire()
    assert feed(one, other.outgoing())[0] == [Retired()]


@pytest.mark.parametrize("wanted", [
    WANTED,
    Open((ip_address("fd00::1"), 1), (ip_address("10.0.0.1"), 65535), Option.FROM_CLIENT),
    Open((ip_address("0.0.0.0"), 0), (ip_address("::"), 0)),
])  # fmt: skip
def test_an_open_arrives_as_it_was_sent(wanted):
    one, other = founded(door())
    one.open(wanted)
    assert feed(other, one.outgoing())[0] == [Opened(wanted, "peer0")]


# Attacks


def refused(end, data):
    with pytest.raises(LegFailed) as caught:
        feed(end, data)
    assert end.wanted == 0
    assert not end.carries_payload
    assert not end.is_ready
    return caught.value


def recorded(exit_door):
    """What a listener on the path has: the initiator's bytes of a whole leg, and the founding leg's ends."""
    one, other = Initiator(KEY), Responder(exit_door)
    hello = one.outgoing()
    feed(other, hello)
    feed(one, other.outgoing())
    proof = one.outgoing()
    feed(other, proof)
    feed(one, other.outgoing())
    one.open(WANTED)
    return hello + proof + one.outgoing()


def test_a_replayed_leg_is_refused_at_the_proof():
    exit_door = door()
    tape = recorded(exit_door)
    error = refused(Responder(exit_door), tape)
    assert (error.reason, error.peer) == (Reason.BAD_PROOF, "peer0")
    assert error.goodbye == wire.pack_reject(Reason.BAD_PROOF)


def test_a_replayed_joining_is_refused():
    exit_door = door()
    anchor, _ = founded(exit_door)
    one = Initiator(KEY, anchor.session)
    one.open(WANTED)
    tape = one.outgoing() + b"DELETE / HTTP/1.1"
    assert feed(Responder(exit_door), tape)[0][-1] == Opened(WANTED, "peer0")
    assert refused(Responder(exit_door), tape).reason is Reason.REPLAYED


def test_joinings_out_of_order_are_taken_once_each_and_old_ones_never():
    exit_door = door()
    session = founded(exit_door)[0].session
    tapes = [Initiator(KEY, session).outgoing() for _ in range(REPLAY_WINDOW + 2)]
    for tape in (tapes[5], tapes[2], tapes[-1], tapes[9], tapes[-2]):
        assert feed(Responder(exit_door), tape)[0] == [Ready("peer0")]
    for tape in (tapes[9], tapes[-1], tapes[-2], tapes[5], tapes[0], tapes[1]):
        assert refused(Responder(exit_door), tape).reason is Reason.REPLAYED
    assert feed(Responder(exit_door), tapes[3])[0] == [Ready("peer0")]


@given(st.lists(st.integers(1, 3 * REPLAY_WINDOW), max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_counter_is_taken_twice(counters):
    exit_door = door()
    session = founded(exit_door)[0].session
    taken = set()
    for counter in counters:
        join = wire.pack_join(session.key_id, session.identity, session.secret, counter)
        try:
            feed(Responder(exit_door), join)
        except LegFailed as error:
            assert error.reason is Reason.REPLAYED
            assert counter in taken or counter <= max(taken) - REPLAY_WINDOW
        else:
            assert counter not in taken
            taken.add(counter)


def test_a_session_ends_with_the_leg_that_founded_it():
    exit_door = door()
    anchor, responder = founded(exit_door)
    responder.close()
    assert not exit_door.sessions
    assert (
        refused(Responder(exit_door), Initiator(KEY, anchor.session).outgoing()).reason
        is Reason.UNKNOWN_SESSION
    )


def test_an_exit_with_several_workers_lets_nobody_join():
    anchor, _ = founded(door(joining=False))
    assert anchor.session is None


def test_a_key_that_was_taken_away_opens_nothing_and_a_second_one_is_accepted():
    exit_door = door(KEY)
    session = founded(exit_door)[0].session
    exit_door.keys = {wire.key_id(OTHER): Known(OTHER, "peer0")}
    assert refused(Responder(exit_door), Initiator(KEY).outgoing()).reason is Reason.UNKNOWN_KEY
    assert refused(Responder(exit_door), Initiator(KEY, session).outgoing()).reason is Reason.UNKNOWN_KEY
    founded(exit_door, OTHER)


def test_an_open_of_another_leg_is_refused():
    exit_door = door()
    one, _ = founded(exit_door)
    _, other = founded(exit_door)
    one.open(WANTED)
    error = refused(other, one.outgoing())
    assert error.reason is Reason.BAD_PROOF
    assert error.goodbye == b"", "a ready leg carries no REJECT: the initiator would take it for an ANSWER"


def test_whoever_lacks_the_key_is_no_exit():
    one = Initiator(KEY)
    hello = one.outgoing()
    forged = wire.pack_challenge(OTHER, hello, b"\0" * 32)
    assert refused(one, forged).reason is Reason.BAD_PROOF
    anchor, _ = founded(door())
    joined = Initiator(KEY, anchor.session)
    joined.open(WANTED)
    assert refused(joined, wire.pack_ready(OTHER, bytes(8))).reason is Reason.BAD_PROOF


def test_messages_are_not_reflected_as_the_other_ends():
    one = Initiator(KEY)
    assert refused(one, one.outgoing()).reason is Reason.MALFORMED
    exit_end = Responder(door())
    feed(exit_end, Initiator(KEY).outgoing())
    assert refused(exit_end, exit_end.outgoing()).reason is Reason.MALFORMED


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_changed_bit_opens_nothing(data):
    exit_door = door()
    numbers = count(1)
    one = Initiator(KEY, random=lambda size: next(numbers).to_bytes(size, "big"))
    other = Responder(exit_door)
    position = data.draw(st.integers(0, 8 * (46 + 38 + 56) - 1))
    passed = 0

    def changed(message):
        nonlocal passed
        bits = bytearray(message)
        if passed <= position // 8 < passed + len(bits):
            bits[position // 8 - passed] ^= 1 << position % 8
        passed += len(bits)
        return bytes(bits)

    def try_it():
        for _ in range(2):
            feed(other, changed(one.outgoing()))
            feed(one, other.outgoing())
        one.open(WANTED)
        feed(other, changed(one.outgoing()))

    with pytest.raises(LegFailed):
        try_it()


@given(st.binary(min_size=1, max_size=200))
def test_nonsense_is_refused_and_never_held(nonsense):
    for end in (Responder(door()), Initiator(KEY), founded(door())[1], founded(door())[0]):
        end.outgoing()
        try:
            feed(end, nonsense)
        except LegFailed:
            assert end.wanted == 0
        assert len(end._held) < wire.LARGEST


def test_another_version_is_told_and_told_to():
    hello = bytearray(Initiator(KEY).outgoing())
    hello[4] = 2
    error = refused(Responder(door()), bytes(hello))
    assert "version 2" in str(error)
    assert error.reason is Reason.VERSION
    # Our own version in the goodbye, in a layout that never changes.
    assert error.goodbye == bytes.fromhex("61636b7701090001")
    newer = bytearray(error.goodbye)
    newer[4] = 7
    one = Initiator(KEY)
    answer = refused(one, bytes(newer))
    assert answer.by_peer
    assert "version 7" in str(answer)


def test_a_key_never_shows_in_words():
    exit_door = door()
    with pytest.raises(LegFailed) as caught:
        feed(Responder(exit_door), Initiator(OTHER).outgoing())
    assert OTHER.hex() not in str(caught.value)
    assert wire.key_id(OTHER).hex() in str(caught.value)
