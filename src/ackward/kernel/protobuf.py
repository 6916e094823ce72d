"""The wire format of Protocol Buffers, as far as the Container Runtime Interface needs it.

Two dozen fields are read and a handful written, so field numbers stand in tables (:mod:`ackward.kernel.cri`) instead of
in generated code, whose runtime would cost the node agent some megabytes. The format:
protobuf.dev/programming-guides/encoding. Fields that nobody asks for are skipped, as it demands; what is cut short or
malformed is a :class:`ValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10

#: Field number -> what was sent under it, in the order of the message; a field may come more than once.
Fields = Mapping[int, list[int | bytes]]
Value = int | bool | str | bytes | Mapping[str, str]


def decode(message: bytes) -> Fields:
    """One message. Strings, bytes and messages inside come as bytes, all numbers as unsigned integers."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has the number 0")
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind == _LENGTH:
            size, at = _varint(message, at)
            value, at = _taken(message, at, size)
        elif kind in _FIXED_SIZE:
            raw, at = _taken(message, at, _FIXED_SIZE[kind])
            value = int.from_bytes(raw, "little")
        else:
            raise ValueError(f"field {number} has the wire type {kind}")
        fields.setdefault(number, []).append(value)
    return fields


def messages(fields: Fields, number: int) -> list[Fields]:
    """All messages that a repeated field holds."""
    return [decode(value) for value in fields.get(number, ()) if isinstance(value, bytes)]


def message(fields: Fields, number: int) -> Fields:
    """The message in a field; an empty one if it was not sent."""
    found = messages(fields, number)
    return found[-1] if found else {}


def text(fields: Fields, number: int) -> str:
    """The string in a field, "" if it was not sent. Bytes that are no UTF-8 come as replacement characters."""
    value = fields.get(number, [b""])[-1]
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def number(fields: Fields, number: int) -> int:
    """The number in a field, 0 if it was not sent."""
    value = fields.get(number, [0])[-1]
    return value if isinstance(value, int) else 0


def mapping(fields: Fields, number: int) -> dict[str, str]:
    """A ``map<string, string>``: on the wire a repeated message of key (1) and value (2)."""
    return {text(entry, 1): text(entry, 2) for entry in messages(fields, number)}


def encode(fields: Mapping[int, Value | list[Value]]) -> bytes:
    """A message: field number -> value. Bytes are a message that was encoded already; a list repeats its field."""
    return b"".join(
        _field(number, value)
        for number, values in fields.items()
        for value in (values if isinstance(values, list) else [values])
    )


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _as_varint(number << 3 | _VARINT) + _as_varint(value)
    if isinstance(value, Mapping):
        return b"".join(_field(number, encode({1: key, 2: entry})) for key, entry in value.items())
    raw = value.encode() if isinstance(value, str) else value
    return _as_varint(number << 3 | _LENGTH) + _as_varint(len(raw)) + raw


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        if at + index >= len(message):
            raise ValueError("the message ends inside a number")
        byte = message[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a number has more than 10 bytes")


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _taken(message: bytes, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(message):
        raise ValueError("the message ends inside a field")
    return message[at : at + size], at + size
