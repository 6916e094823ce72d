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

from dataclasses import dataclass
from enum import Enum

from ackward.gateway import protocol_messages as wire
from ackward.gateway.protocol_messages import Kind, Malformed, Open, Reason, Result


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


class State(Enum):
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
_DUE: dict[State, tuple[Kind, ...]] = {
    State.HELLO_DUE: (Kind.HELLO, Kind.JOIN),
    State.CHALLENGE_DUE: (Kind.CHALLENGE, Kind.REJECT),
    State.PROOF_DUE: (Kind.PROOF,),
    State.READY_DUE: (Kind.READY, Kind.REJECT),
    State.OPEN_DUE: (Kind.OPEN,),
    State.IDLE: (Kind.RETIRE,),
    State.ANSWER_DUE: (Kind.ANSWER, Kind.RETIRE),
    State.ANSWERING: (),
    State.PAYLOAD: (),
    State.DEAD: (),
}
_HEADLESS = {Kind.OPEN, Kind.ANSWER, Kind.RETIRE}


class LegEnd:
    """What both ends do: collect exactly one message at a time."""

    def __init__(self, state: State) -> None:
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
        return self._state in (State.IDLE, State.OPEN_DUE)

    @property
    def carries_payload(self) -> bool:
        """Whether both ends are done with messages: what comes now is for the relay."""
        return self._state is State.PAYLOAD

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
            self._state = State.DEAD
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
        self._state = State.DEAD
        return LegFailed(words, reason, peer=peer)

    def _take(self, message: bytes) -> Event | None:
        raise NotImplementedError
