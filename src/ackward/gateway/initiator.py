"""The end of a leg that connects: an entry's words. :mod:`~ackward.gateway.protocol` has the dialogue and its laws."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ackward.gateway import protocol_messages as wire
from ackward.gateway.protocol import Answered, Event, LegEnd, LegFailed, Ready, Retired, State
from ackward.gateway.protocol_messages import Kind, Malformed, Open, Reason, Result

_REJECTIONS = {
    Reason.VERSION: "the peer speaks another version of the leg protocol",
    Reason.UNKNOWN_KEY: "the peer does not know the key that we use",
    Reason.BAD_PROOF: "the peer holds another key under the same id, or the leg was tampered with",
    Reason.UNKNOWN_SESSION: "the peer has forgotten the session: it was started anew",
    Reason.REPLAYED: "the peer has seen this very opening before",
    Reason.MALFORMED: "the peer could not read what we sent",
    Reason.BUSY: "the peer has no room for another leg",
}


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


class Initiator(LegEnd):
    """The end that connects. With a :class:`Session` it joins; its first message is in :meth:`outgoing` at once."""

    def __init__(
        self, key: bytes, session: Session | None = None, *, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._key, self._session = key, session
        if session is None:
            super().__init__(State.CHALLENGE_DUE)
            self._first = wire.pack_hello(key, random(wire.NONCE_SIZE))
        else:
            super().__init__(State.READY_DUE)
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
            self._state is State.IDLE or (self._joins and self._state is State.READY_DUE)
        )

    def open(self, wanted: Open) -> None:
        """Ask for the connection; the payload may be sent right behind it."""
        assert self.may_open, "a leg is opened once, when it is ready or joined"
        self._opened = True
        self._out.append(wire.pack_open(self._leg_secret, wanted))
        if self._state is State.IDLE:
            self._state = State.ANSWER_DUE

    def _take(self, message: bytes) -> Event | None:
        if self._state in (State.CHALLENGE_DUE, State.READY_DUE):
            if wire.read_head(message) is Kind.REJECT:
                raise self._rejected(message)
            if self._state is State.READY_DUE:
                return self._welcomed(message)
            self._challenged(message)
            return None
        result = wire.unpack_answer(self._leg_secret, message)
        if result is None:
            return Retired()
        if self._state is State.IDLE:
            raise Malformed("an ANSWER to nothing")
        self._state = State.PAYLOAD if result is Result.CONNECTED else State.DEAD
        return Answered(result)

    def _challenged(self, challenge: bytes) -> None:
        if not wire.proves_responder(self._key, self._first, challenge):
            raise self._fail("the peer has not proved that it knows the key", Reason.BAD_PROOF)
        self._out.append(wire.pack_proof(self._key, self._first, challenge))
        self._leg_secret = wire.mac(self._key, b"leg", self._first, challenge)
        self._founded_secret = wire.mac(self._key, b"session", self._first, challenge)
        self._state = State.READY_DUE

    def _welcomed(self, message: bytes) -> Ready:
        identity = wire.unpack_ready(self._leg_secret, message)
        if identity is None:
            raise self._fail(
                "a READY with a wrong tag: it is not from the peer of this leg", Reason.BAD_PROOF
            )
        if not self._joins and any(identity):
            self._session = Session(identity, self._founded_secret, wire.key_id(self._key))
        self._state = State.ANSWER_DUE if self._opened else State.IDLE
        return Ready()

    def _rejected(self, message: bytes) -> LegFailed:
        reason, version = wire.unpack_reject(message)
        words = _REJECTIONS[reason]
        if version != wire.VERSION:
            words, reason = f"the peer speaks version {version}, this gateway {wire.VERSION}", Reason.VERSION
        self._state = State.DEAD
        return LegFailed(words, reason, by_peer=True)
