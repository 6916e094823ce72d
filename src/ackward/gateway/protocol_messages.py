"""What goes over a leg before the payload: the layout of every message, and what its tags are made of.

docs/gateway-protocol.md is the specification; its vectors are checked against this module. Integers are big-endian,
every message has one fixed size, and tags are HMAC-SHA256 (RFC 2104), cut to 16 bytes where a message is small
(RFC 2104, section 5). Pure.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address

MAGIC = b"ackw"
VERSION = 1

NONCE_SIZE = 32
KEY_SIZE = 32
KEY_ID_SIZE = 8
SESSION_ID_SIZE = 8
PROOF_SIZE = 32
TAG_SIZE = 16

Address = IPv4Address | IPv6Address


class Kind(IntEnum):
    """The type of a message."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    READY = 4
    JOIN = 5
    OPEN = 6
    ANSWER = 7
    RETIRE = 8
    REJECT = 9


class Result(IntEnum):
    """What became of the connection to the destination: the ANSWER's result."""

    CONNECTED = 0
    REFUSED = 1  # the server's host answered with a reset
    UNREACHABLE = 2  # no route, or a router said so
    TIMEOUT = 3  # the connect limit passed
    FORBIDDEN = 4  # not in the allow-list of this peer
    BUSY = 5  # a limit of the gateway
    FAILED = 6  # the gateway itself could not; its log says why


class Reason(IntEnum):
    """Why a leg is rejected."""

    VERSION = 1
    UNKNOWN_KEY = 2
    BAD_PROOF = 3
    UNKNOWN_SESSION = 4
    REPLAYED = 5
    MALFORMED = 6
    BUSY = 7


class Option(IntFlag):
    """Wishes of an OPEN."""

    NONE = 0
    FROM_CLIENT = 1  # connect to the destination from the client's own address


class Malformed(ValueError):
    """Bytes that are no message of this protocol; ``version`` is the sender's if it is another."""

    def __init__(self, what: str, version: int | None = None) -> None:
        self.version = version
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Open:
    """Where a connection shall go, and who asked. Ports are 0 to 65535; ``client`` is for logs unless FROM_CLIENT."""

    destination: tuple[Address, int]
    client: tuple[Address, int]
    options: Option = Option.NONE


# magic, version, kind
_HEAD = struct.Struct("!4sBB")
_HELLO = struct.Struct(f"!6s{KEY_ID_SIZE}s{NONCE_SIZE}s")
_CHALLENGE = struct.Struct(f"!6s{NONCE_SIZE}s{PROOF_SIZE}s")
_PROOF = struct.Struct(f"!6s{PROOF_SIZE}s")
_READY = struct.Struct(f"!6s{SESSION_ID_SIZE}s{TAG_SIZE}s")
_JOIN = struct.Struct(f"!6s{KEY_ID_SIZE}s{SESSION_ID_SIZE}sQ{TAG_SIZE}s")
_REJECT = struct.Struct("!6sH")
# kind, options, destination's port, client's port, two bytes of zero, destination, client
_OPEN = struct.Struct("!BBHHH16s16s")
# kind, result, six bytes of zero
_ANSWER = struct.Struct("!BB6x")

SIZES = {
    Kind.HELLO: _HELLO.size,
    Kind.CHALLENGE: _CHALLENGE.size,
    Kind.PROOF: _PROOF.size,
    Kind.READY: _READY.size,
    Kind.JOIN: _JOIN.size,
    Kind.REJECT: _REJECT.size,
    Kind.OPEN: _OPEN.size + TAG_SIZE,
    Kind.ANSWER: _ANSWER.size + TAG_SIZE,
    Kind.RETIRE: _ANSWER.size + TAG_SIZE,
}
#: No message is longer, so no end ever holds more than this.
LARGEST = max(SIZES.values())
HEAD_SIZE = _HEAD.size


def mac(secret: bytes, label: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 over a label of its own for each purpose, a zero byte, and the parts."""
    return hmac.digest(secret, b"ackward leg 1 " + label + b"\0" + b"".join(parts), sha256)


def same(one: bytes, other: bytes) -> bool:
    """Whether two tags are equal, in constant time."""
    return hmac.compare_digest(one, other)


def key_id(key: bytes) -> bytes:
    """The name of a key on the wire, made of the key itself: two keys never share one by a slip in a configuration."""
    return mac(key, b"key id")[:KEY_ID_SIZE]


def head(kind: Kind, version: int = VERSION) -> bytes:
    """The first six bytes of a handshake's message."""
    return _HEAD.pack(MAGIC, version, kind)


def read_head(data: bytes) -> Kind:
    """The kind of a handshake's message from its first six bytes; raises :class:`Malformed`."""
    magic, version, kind = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Malformed("not a leg of ackward gateways")
    if version != VERSION:
        # REJECT keeps its layout in all versions, so that an older peer can be told.
        if kind == Kind.REJECT:
            return Kind.REJECT
        raise Malformed(f"the peer speaks version {version}, this gateway {VERSION}", version)
    try:
        return Kind(kind)
    except ValueError:
        raise Malformed(f"there is no message of kind {kind}") from None


def pack_hello(key: bytes, nonce: bytes) -> bytes:
    """HELLO: which key, and the initiator's nonce."""
    return _HELLO.pack(head(Kind.HELLO), key_id(key), nonce)


def unpack_hello(data: bytes) -> tuple[bytes, bytes]:
    """A HELLO's (key id, nonce)."""
    _, named, nonce = _HELLO.unpack(data)
    return named, nonce


def pack_challenge(key: bytes, hello: bytes, nonce: bytes) -> bytes:
    """CHALLENGE: the responder's nonce, and its proof that it knows the key."""
    opening = head(Kind.CHALLENGE) + nonce
    return opening + mac(key, b"responder", hello, opening)


def proves_responder(key: bytes, hello: bytes, challenge: bytes) -> bool:
    """Whether a CHALLENGE is from somebody who knows the key."""
    return same(challenge[-PROOF_SIZE:], mac(key, b"responder", hello, challenge[:-PROOF_SIZE]))


def pack_proof(key: bytes, hello: bytes, challenge: bytes) -> bytes:
    """PROOF: the initiator's, over both nonces."""
    return head(Kind.PROOF) + mac(key, b"initiator", hello, challenge)


def pack_ready(leg_secret: bytes, session: bytes) -> bytes:
    """READY: the leg may be used; ``session`` (zeros: none) may be joined by further legs."""
    opening = head(Kind.READY) + session
    return opening + mac(leg_secret, b"ready", opening)[:TAG_SIZE]


def unpack_ready(leg_secret: bytes, data: bytes) -> bytes | None:
    """A READY's session id; None if its tag is wrong."""
    opening, tag = data[:-TAG_SIZE], data[-TAG_SIZE:]
    return opening[HEAD_SIZE:] if same(tag, mac(leg_secret, b"ready", opening)[:TAG_SIZE]) else None


def pack_join(named: bytes, session: bytes, secret: bytes, counter: int) -> bytes:
    """JOIN: a further leg of a session; ``counter`` is used once."""
    opening = _JOIN.pack(head(Kind.JOIN), named, session, counter, bytes(TAG_SIZE))[:-TAG_SIZE]
    return opening + mac(secret, b"join", opening)[:TAG_SIZE]


def unpack_join(data: bytes) -> tuple[bytes, bytes, int]:
    """A JOIN's (key id, session id, counter); its tag is for :func:`proves_join`."""
    _, named, session, counter, _ = _JOIN.unpack(data)
    return named, session, counter


def proves_join(secret: bytes, data: bytes) -> bool:
    """Whether a JOIN is from somebody who knows the session's secret."""
    return same(data[-TAG_SIZE:], mac(secret, b"join", data[:-TAG_SIZE])[:TAG_SIZE])


def pack_reject(reason: Reason) -> bytes:
    """REJECT: the leg is closed, and why. Anybody can forge it, as anybody could forge a reset: it is for people."""
    return _REJECT.pack(head(Kind.REJECT), reason)


def unpack_reject(data: bytes) -> tuple[Reason, int]:
    """A REJECT's (reason, the sender's version)."""
    first, reason = _REJECT.unpack(data)
    try:
        return Reason(reason), first[4]
    except ValueError:
        return Reason.MALFORMED, first[4]


def _sixteen(address: Address) -> bytes:
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def _address(sixteen: bytes) -> Address:
    address = ip_address(sixteen)
    assert isinstance(address, IPv6Address)
    return address.ipv4_mapped or address  # RFC 4291, section 2.5.5.2


def pack_open(leg_secret: bytes, wanted: Open) -> bytes:
    """OPEN: the only one of its leg."""
    (destination, port), (client, client_port) = wanted.destination, wanted.client
    opening = _OPEN.pack(
        Kind.OPEN, wanted.options, port, client_port, 0, _sixteen(destination), _sixteen(client)
    )
    return opening + mac(leg_secret, b"open", opening)[:TAG_SIZE]


def unpack_open(leg_secret: bytes, data: bytes) -> Open | None:
    """The OPEN in these bytes; None if its tag is wrong. Raises :class:`Malformed`."""
    if data[0] != Kind.OPEN:
        raise Malformed(f"an OPEN was due, not a message of kind {data[0]}")
    opening, tag = data[:-TAG_SIZE], data[-TAG_SIZE:]
    if not same(tag, mac(leg_secret, b"open", opening)[:TAG_SIZE]):
        return None
    _, options, port, client_port, zero, destination, client = _OPEN.unpack(opening)
    if zero or options & ~int(Option.FROM_CLIENT):
        raise Malformed("an OPEN with options that this version does not know")
    return Open((_address(destination), port), (_address(client), client_port), Option(options))


def pack_answer(leg_secret: bytes, result: Result) -> bytes:
    """ANSWER: what became of the connection; after CONNECTED the payload follows."""
    opening = _ANSWER.pack(Kind.ANSWER, result)
    return opening + mac(leg_secret, b"answer", opening)[:TAG_SIZE]


def pack_retire(leg_secret: bytes) -> bytes:
    """RETIRE: the responder asks not to use this idle leg any more; an OPEN on its way is still served."""
    opening = _ANSWER.pack(Kind.RETIRE, 0)
    return opening + mac(leg_secret, b"answer", opening)[:TAG_SIZE]


def unpack_answer(leg_secret: bytes, data: bytes) -> Result | None:
    """An ANSWER's result, or None for a RETIRE. Raises :class:`Malformed`, also for a wrong tag."""
    opening, tag = data[:-TAG_SIZE], data[-TAG_SIZE:]
    if not same(tag, mac(leg_secret, b"answer", opening)[:TAG_SIZE]):
        raise Malformed("an answer with a wrong tag: it is not from the peer of this leg")
    if opening[0] == Kind.RETIRE:
        return None
    if opening[0] != Kind.ANSWER:
        raise Malformed(f"an ANSWER was due, not a message of kind {opening[0]}")
    try:
        return Result(opening[1])
    except ValueError:
        raise Malformed(f"an ANSWER with the unknown result {opening[1]}") from None
