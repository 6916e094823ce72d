"""The end of a leg that accepts: what an exit says, whom it knows, and which openings it has seen.

:mod:`~ackward.gateway.protocol` has the dialogue and its laws.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ackward.gateway import nonces
from ackward.gateway import protocol_messages as wire
from ackward.gateway.protocol import Event, LegEnd, LegFailed, Opened, Ready, State
from ackward.gateway.protocol_messages import Kind, Reason, Result

#: A counter this far behind the newest is refused, so that what was seen fits a fixed number of bits (RFC 6479).
REPLAY_WINDOW = 1024


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


class Responder(LegEnd):
    """The end that accepts. Call :meth:`close` when its socket is closed."""

    def __init__(self, door: Door, *, random: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(State.HELLO_DUE)
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
        assert self._state is State.ANSWERING, "there is nothing to answer"
        self._out.append(wire.pack_answer(self._leg_secret, result))
        self._state = State.PAYLOAD if result is Result.CONNECTED else State.DEAD

    def retire(self) -> None:
        """Ask the initiator not to use this idle leg any more."""
        assert self._state is State.OPEN_DUE, "only an idle leg can be retired"
        self._out.append(wire.pack_retire(self._leg_secret))

    def reject(self, reason: Reason) -> bytes:
        """Refuse the leg before it is ready, for a reason of the gateway's own; gives the bytes to send."""
        self._state = State.DEAD
        return wire.pack_reject(reason)

    def close(self) -> None:
        """The leg is gone, and with it the session that it founded."""
        self._door.sessions.pop(self._founded, None)
        self._state = State.DEAD

    def _fail(self, words: str, reason: Reason, *, peer: str = "") -> LegFailed:
        goodbye = b"" if self._leg_secret else wire.pack_reject(reason)
        self._state = State.DEAD
        return LegFailed(words, reason, goodbye=goodbye, peer=peer or self.peer)

    def _take(self, message: bytes) -> Event | None:
        if self._state is State.OPEN_DUE:
            wanted = wire.unpack_open(self._leg_secret, message)
            if wanted is None:
                raise self._fail("an OPEN with a wrong tag: it was not made for this leg", Reason.BAD_PROOF)
            self._state = State.ANSWERING
            return Opened(wanted, self.peer)
        if self._state is State.PROOF_DUE:
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
        named, nonce = wire.unpack_hello(hello)
        key = self._know(named)
        if nonces.is_ours(nonce):
            raise self._fail("a HELLO of this gateway itself: its legs are led back to it", Reason.REPLAYED)
        self._first = hello
        self._challenge = wire.pack_challenge(key, hello, self._random(wire.NONCE_SIZE))
        self._out.append(self._challenge)
        self._state = State.PROOF_DUE

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
        self._state = State.OPEN_DUE
        return Ready(self.peer)
