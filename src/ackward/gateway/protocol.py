"""The two ends of a leg as state machines without a socket: bytes in, bytes and events out.

The *initiator* (the entry) connects; the *responder* (the exit) accepts. docs/gateway-protocol.md says it in full::

    initiator                          responder            round trips after TCP's own
    HELLO(key id, nonce)          ->
                                  <-   CHALLENGE(nonce, proof)
    PROOF                         ->
                                  <-   READY(session)       2, when the pool is filled
    OPEN(destination, client)     ->                        0, when the leg is used; payload may follow at once
                                  <-   ANSWER(result)       then payload

    JOIN(session, counter) OPEN   ->                        0, for a leg that was not connected beforehand
                                  <-   READY ANSWER

Laws, each held by a test:

- An end reads no byte beyond the message that is due: ``wanted`` says how many bytes the socket may be asked for, so
  what follows stays in the kernel for ``splice``. An end holds at most ``LARGEST`` bytes.
- Nothing is opened for a peer that has not proved, over a nonce or a counter that was never used before, that it knows
  the key. Nothing that was recorded opens anything a second time.
- An OPEN belongs to its leg: its tag is made with a secret that both nonces (or the session's counter) went into.
- No clock is read. A session lives as long as the leg that founded it, at both ends.
- After an error an end takes and gives no more bytes, except the REJECT that tells the peer why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ackward.gateway import protocol_messages as wire
from ackward.gateway.protocol_messages import Kind, Malformed, Open, Reason, Result

#: A counter this far behind the newest is refused, so that what was seen fits a fixed number of bits (RFC 6479).
REPLAY_WINDOW = 1024

_REJECTIONS = {
    Reason.VERSION: "the peer speaks another version of the leg protocol",
    Reason.UNKNOWN_KEY: "the peer does not know the key that we use",
    Reason.BAD_PROOF: "the peer holds another key under the same id, or the leg was tampered with",
    Reason.UNKNOWN_SESSION: "the peer has forgotten the session: it was started anew",
    Reason.REPLAYED: "the peer has seen this very opening before",
    Reason.MALFORMED: "the peer could not read what we sent",
    Reason.BUSY: "the peer has no room for another leg",
    Reason.DRAINING: "the peer is about to end and takes no new legs",
}


class LegFailed(Exception):
    """The leg is of no use. ``reason`` is what to count, ``goodbye`` what to send before closing (may be empty).

    ``by_peer`` tells who refused whom; ``peer`` is the configured name where the key told it.
    """

    def __init__(
        self, words: str, reason: Reason, *, goodbye: bytes = b"", by_peer: bool = False, peer: str = ""
    ) -> None:
        self.reason, self.goodbye, self.by_peer, self.peer = reason, goodbye, by_peer, peer
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class Ready:
    """The peer has proved itself and the leg may be used. ``peer`` is its name (empty at the initiator)."""

    peer: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """To the responder: connect there, and answer."""

    wanted: Open
    peer: str


@dataclass(frozen=True, slots=True)
class Answered:
    """To the initiator: what became of the connection. After ``Result.CONNECTED`` payload follows."""

    result: Result


@dataclass(frozen=True, slots=True)
class Retired:
    """To the initiator: do not use this leg for anything new."""


Event = Ready | Opened | Answered | Retired


@dataclass(slots=True)
class Session:
    """What the founding leg leaves the initiator: the right to connect further legs without a round trip."""

    identity: bytes
    secret: bytes
    key_id: bytes
    counter: int = 0

    def next(self) -> int:
        """A counter that was never used in this session."""
        self.counter += 1
        return self.counter


@dataclass(slots=True)
class _Joinable:
    """A session at the responder: who may join it, and which counters were used."""

    secret: bytes
    key_id: bytes
    newest: int = 0
    seen: int = 0  # bit n: the counter n before the newest was used

    def take(self, counter: int) -> bool:
        """Whether this counter is fresh; it is used then."""
        ahead = counter - self.newest
        if ahead > 0:
            self.seen = ((self.seen << min(ahead, REPLAY_WINDOW)) | 1) & ((1 << REPLAY_WINDOW) - 1)
            self.newest = counter
            return True
        if -ahead >= REPLAY_WINDOW or counter < 1 or self.seen >> -ahead & 1:
            return False
        self.seen |= 1 << -ahead
        return True


@dataclass(frozen=True, slots=True)
class Known:
    """A key that is accepted, and whose it is."""

    key: bytes
    peer: str


@dataclass(slots=True)
class Door:
    """What all responders of one process share: the keys, by id, and the sessions that may be joined.

    ``keys`` may be exchanged at any time; sessions of a key that is gone cannot be joined any more. ``joining`` is off
    where another process may accept the next leg: it would not know the session.
    """

    keys: Mapping[bytes, Known]
    joining: bool = True
    sessions: dict[bytes, _Joinable] = field(default_factory=dict)


class _State(Enum):
    HELLO_DUE = "the responder waits for HELLO or JOIN"
    CHALLENGE_DUE = "the initiator waits for CHALLENGE"
    PROOF_DUE = "the responder waits for PROOF"
    READY_DUE = "the initiator waits for READY"
    OPEN_DUE = "ready; the responder waits for OPEN"
    IDLE = "ready; the initiator may send OPEN"
    ANSWER_DUE = "the initiator waits for ANSWER"
    ANSWERING = "the responder owes an ANSWER"
    PAYLOAD = "the bytes are the connection's own now"
    DEAD = "no more bytes"


#: Which messages may come in which state; how many bytes are read follows from it. Messages of the handshake begin with
#: a head that is read first, since REJECT may come in the place of any.
_DUE: dict[_State, tuple[Kind, ...]] = {
    _State.HELLO_DUE: (Kind.HELLO, Kind.JOIN),
    _State.CHALLENGE_DUE: (Kind.CHALLENGE, Kind.REJECT),
    _State.PROOF_DUE: (Kind.PROOF,),
    _State.READY_DUE: (Kind.READY, Kind.REJECT),
    _State.OPEN_DUE: (Kind.OPEN,),
    _State.IDLE: (Kind.RETIRE,),
    _State.ANSWER_DUE: (Kind.ANSWER, Kind.RETIRE),
    _State.ANSWERING: (),
    _State.PAYLOAD: (),
    _State.DEAD: (),
}
_HEADLESS = {Kind.OPEN, Kind.ANSWER, Kind.RETIRE}


class _End:
    """What both ends do: collect exactly one message at a time."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._held = b""
        self._out: list[bytes] = []
        self._leg_secret = b""

    @property
    def wanted(self) -> int:
        """How many bytes may be read from the socket for this end now; 0: none, they are not ours."""
        return self._due_size() - len(self._held) if _DUE[self._state] else 0

    @property
    def is_ready(self) -> bool:
        """Whether the peer is authenticated and the leg is idle."""
        return self._state in (_State.IDLE, _State.OPEN_DUE)

    @property
    def carries_payload(self) -> bool:
        """Whether both ends are done with messages: what comes now is for the relay."""
        return self._state is _State.PAYLOAD

    def outgoing(self) -> bytes:
        """What has to be sent, once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> Event | None:
        """Take at most ``wanted`` bytes; gives what they mean, if anything yet. Raises :class:`LegFailed`."""
        if not 0 < len(data) <= self.wanted:
            raise ValueError(f"{len(data)} bytes for an end that wants {self.wanted}")
        self._held += data
        try:
            if len(self._held) < self._due_size():
                return None
            message, self._held = self._held, b""
            return self._take(message)
        except Malformed as error:
            reason = Reason.MALFORMED if error.version is None else Reason.VERSION
            raise self._fail(str(error), reason) from error
        except LegFailed:
            self._state = _State.DEAD
            raise

    def _due_size(self) -> int:
        due = _DUE[self._state]
        if due[0] in _HEADLESS:
            return wire.SIZES[due[0]]
        if len(self._held) < wire.HEAD_SIZE:
            return wire.HEAD_SIZE
        kind = wire.read_head(self._held)
        if kind not in due:
            raise Malformed(f"{due[0].name} was due, not {kind.name}")
        return wire.SIZES[kind]

    def _fail(self, words: str, reason: Reason, *, peer: str = "") -> LegFailed:
        """The error of this end; the responder tells the peer, the initiator just closes."""
        self._state = _State.DEAD
        return LegFailed(words, reason, peer=peer)

    def _take(self, message: bytes) -> Event | None:
        raise NotImplementedError


class Initiator(_End):
    """The end that connects. With a :class:`Session` it joins; its first message is in :meth:`outgoing` at once."""

    def __init__(
        self, key: bytes, session: Session | None = None, *, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._key, self._session = key, session
        if session is None:
            super().__init__(_State.CHALLENGE_DUE)
            self._first = wire.pack_hello(key, random(wire.NONCE_SIZE))
        else:
            super().__init__(_State.READY_DUE)
            self._first = wire.pack_join(session.key_id, session.identity, session.secret, session.next())
            self._leg_secret = wire.mac(session.secret, b"joined leg", self._first)
        self._joins = session is not None
        self._opened = False
        self._founded_secret = b""
        self._out.append(self._first)

    @property
    def session(self) -> Session | None:
        """The session that this leg founded, once it is ready; None for joined legs or where the peer allows none."""
        return None if self._joins else self._session

    @property
    def may_open(self) -> bool:
        """Whether :meth:`open` may be called: a joined leg need not wait for READY, the founding one must."""
        return not self._opened and (
            self._state is _State.IDLE or (self._joins and self._state is _State.READY_DUE)
        )

    def open(self, wanted: Open) -> None:
        """Ask for the connection; the payload may be sent right behind it."""
        assert self.may_open, "a leg is opened once, when it is ready or joined"
        self._opened = True
        self._out.append(wire.pack_open(self._leg_secret, wanted))
        if self._state is _State.IDLE:
            self._state = _State.ANSWER_DUE

    def _take(self, message: bytes) -> Event | None:
        if self._state in (_State.CHALLENGE_DUE, _State.READY_DUE):
            if wire.read_head(message) is Kind.REJECT:
                raise self._rejected(message)
            if self._state is _State.READY_DUE:
                return self._welcomed(message)
            self._challenged(message)
            return None
        result = wire.unpack_answer(self._leg_secret, message)
        if result is None:
            return Retired()
        if self._state is _State.IDLE:
            raise Malformed("an ANSWER to nothing")
        self._state = _State.PAYLOAD if result is Result.CONNECTED else _State.DEAD
        return Answered(result)

    def _challenged(self, challenge: bytes) -> None:
        if not wire.proves_responder(self._key, self._first, challenge):
            raise self._fail("the peer has not proved that it knows the key", Reason.BAD_PROOF)
        self._out.append(wire.pack_proof(self._key, self._first, challenge))
        self._leg_secret = wire.mac(self._key, b"leg", self._first, challenge)
        self._founded_secret = wire.mac(self._key, b"session", self._first, challenge)
        self._state = _State.READY_DUE

    def _welcomed(self, message: bytes) -> Ready:
        identity = wire.unpack_ready(self._leg_secret, message)
        if identity is None:
            raise self._fail(
                "a READY with a wrong tag: it is not from the peer of this leg", Reason.BAD_PROOF
            )
        if not self._joins and any(identity):
            self._session = Session(identity, self._founded_secret, wire.key_id(self._key))
        self._state = _State.ANSWER_DUE if self._opened else _State.IDLE
        return Ready()

    def _rejected(self, message: bytes) -> LegFailed:
        reason, version = wire.unpack_reject(message)
        words = _REJECTIONS[reason]
        if version != wire.VERSION:
            words, reason = f"the peer speaks version {version}, this gateway {wire.VERSION}", Reason.VERSION
        self._state = _State.DEAD
        return LegFailed(words, reason, by_peer=True)


class Responder(_End):
    """The end that accepts. Call :meth:`close` when its socket is closed."""

    def __init__(self, door: Door, *, random: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(_State.HELLO_DUE)
        self._door, self._random = door, random
        self._known: Known | None = None
        self._first = self._challenge = self._founded = b""
        self.key_id = b""

    @property
    def peer(self) -> str:
        """The configured name of the peer whose key was named; proved only once :attr:`is_ready`."""
        return self._known.peer if self._known else ""

    def answer(self, result: Result) -> None:
        """Say what became of the connection; payload may follow CONNECTED at once."""
        assert self._state is _State.ANSWERING, "there is nothing to answer"
        self._out.append(wire.pack_answer(self._leg_secret, result))
        self._state = _State.PAYLOAD if result is Result.CONNECTED else _State.DEAD

    def retire(self) -> None:
        """Ask the initiator not to use this idle leg any more."""
        assert self._state is _State.OPEN_DUE, "only an idle leg can be retired"
        self._out.append(wire.pack_retire(self._leg_secret))

    def reject(self, reason: Reason) -> bytes:
        """Refuse the leg before it is ready, for a reason of the gateway's own; gives the bytes to send."""
        self._state = _State.DEAD
        return wire.pack_reject(reason)

    def close(self) -> None:
        """The leg is gone, and with it the session that it founded."""
        self._door.sessions.pop(self._founded, None)
        self._state = _State.DEAD

    def _fail(self, words: str, reason: Reason, *, peer: str = "") -> LegFailed:
        goodbye = b"" if self._leg_secret else wire.pack_reject(reason)
        self._state = _State.DEAD
        return LegFailed(words, reason, goodbye=goodbye, peer=peer or self.peer)

    def _take(self, message: bytes) -> Event | None:
        if self._state is _State.OPEN_DUE:
            wanted = wire.unpack_open(self._leg_secret, message)
            if wanted is None:
                raise self._fail("an OPEN with a wrong tag: it was not made for this leg", Reason.BAD_PROOF)
            self._state = _State.ANSWERING
            return Opened(wanted, self.peer)
        if self._state is _State.PROOF_DUE:
            return self._proved(message)
        if wire.read_head(message) is Kind.JOIN:
            return self._joined(message)
        self._greeted(message)
        return None

    def _know(self, named: bytes) -> bytes:
        self._known = self._door.keys.get(named)
        self.key_id = named
        if self._known is None:
            raise self._fail(f"nobody is known by the key {named.hex()}", Reason.UNKNOWN_KEY)
        return self._known.key

    def _greeted(self, hello: bytes) -> None:
        named, _ = wire.unpack_hello(hello)
        key = self._know(named)
        self._first = hello
        self._challenge = wire.pack_challenge(key, hello, self._random(wire.NONCE_SIZE))
        self._out.append(self._challenge)
        self._state = _State.PROOF_DUE

    def _proved(self, proof: bytes) -> Ready:
        assert self._known is not None
        key = self._known.key
        if not wire.same(proof, wire.pack_proof(key, self._first, self._challenge)):
            raise self._fail("a wrong proof: replayed, forged, or made with another key", Reason.BAD_PROOF)
        self._leg_secret = wire.mac(key, b"leg", self._first, self._challenge)
        identity = bytes(wire.SESSION_ID_SIZE)
        if self._door.joining:
            identity = self._founded = self._random(wire.SESSION_ID_SIZE)
            secret = wire.mac(key, b"session", self._first, self._challenge)
            self._door.sessions[identity] = _Joinable(secret, self.key_id)
        return self._welcome(identity)

    def _joined(self, join: bytes) -> Ready:
        named, identity, counter = wire.unpack_join(join)
        self._know(named)
        session = self._door.sessions.get(identity)
        if session is None or session.key_id != named:
            raise self._fail("a session that is not known (any more)", Reason.UNKNOWN_SESSION)
        if not wire.proves_join(session.secret, join):
            raise self._fail("a forged joining", Reason.BAD_PROOF)
        if not session.take(counter):
            raise self._fail("a joining that was seen before", Reason.REPLAYED)
        self._leg_secret = wire.mac(session.secret, b"joined leg", join)
        return self._welcome(bytes(wire.SESSION_ID_SIZE))

    def _welcome(self, identity: bytes) -> Ready:
        self._out.append(wire.pack_ready(self._leg_secret, identity))
        self._state = _State.OPEN_DUE
        return Ready(self.peer)
