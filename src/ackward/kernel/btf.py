"""Reads BTF, the type information of a kernel or of a BPF object, without any library.

A parser over bytes: it names structs, their members and where these lie. Everything that the bytes claim is
checked before it is believed: damaged or hostile input ends in one error that says where, not in a traceback.

Format: ``include/uapi/linux/btf.h`` and Documentation/bpf/btf.rst of the kernel.
"""

from __future__ import annotations

import enum
import functools
import struct
import sys
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from ackward.errors import Unavailable

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F  # BTF_MAGIC
_HEADER = 24  # sizeof(struct btf_header)
_ELF_MAGIC = b"\x7fELF"
_INT_SIGNED = 1 << 24  # BTF_INT_SIGNED, in the word after an INT
#: The kernel itself refuses longer chains of types (MAX_RESOLVE_DEPTH, kernel/bpf/btf.c).
_DEEPEST = 32


class Kind(enum.IntEnum):
    """BTF_KIND_*: what a type is."""

    VOID = 0
    INT = 1
    POINTER = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FORWARD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNCTION = 12
    FUNCTION_PROTO = 13
    VARIABLE = 14
    SECTION = 15
    FLOAT = 16
    DECLARATION_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#: Words (of 4 bytes) after a type's three common ones: so many, and so many for each entry.
_TAIL = {
    Kind.INT: (1, 0),
    Kind.ARRAY: (3, 0),
    Kind.STRUCT: (0, 3),
    Kind.UNION: (0, 3),
    Kind.ENUM: (0, 2),
    Kind.FUNCTION_PROTO: (0, 2),
    Kind.VARIABLE: (1, 0),
    Kind.SECTION: (0, 3),
    Kind.DECLARATION_TAG: (1, 0),
    Kind.ENUM64: (0, 3),
}
_FIXED = [_TAIL.get(kind, (0, 0))[0] + 3 for kind in Kind]
_EACH = [_TAIL.get(kind, (0, 0))[1] for kind in Kind]
_TRANSPARENT = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
#: Kinds whose third word is a size in bytes, not another type.
_SIZED = frozenset({Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.FLOAT, Kind.ENUM64})


@dataclass(frozen=True)
class Type:
    """A type with its typedefs and qualifiers taken off.

    ``size`` in bytes, of the whole array for an array, 0 where there is none. ``signed`` is told for integers
    and enums only; ``element`` and ``count`` for arrays only. ``id`` is the number of the type in its BTF.
    """

    kind: Kind
    name: str
    size: int
    id: int
    signed: bool = False
    element: Type | None = None
    count: int = 0


@dataclass(frozen=True)
class Member:
    """A member of a struct: what it is and where it lies, in bits from the start of what was asked about."""

    name: str
    bit_offset: int
    bit_size: int
    is_bitfield: bool
    type: Type


@dataclass(frozen=True)
class Struct:
    """A struct or union and its direct members; an anonymous member's name is empty. ``size`` in bytes."""

    name: str
    size: int
    kind: Kind
    members: tuple[Member, ...]


class Btf:
    """The types of one kernel or BPF object.

    Making one costs a walk over all types (for a kernel's 5.5 MB about 70 ms); names are looked up in place.
    Raises :class:`Unavailable` if the bytes are not sound.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self._source = source
        if len(data) < _HEADER:
            self._damaged(f"{len(data)} bytes are too few for a header")
        order = "<" if data[0] == _MAGIC & 0xFF else ">"
        magic, version, _, header, type_at, type_length, string_at, string_length = struct.unpack_from(
            f"{order}HBBIIIII", data
        )
        if magic != _MAGIC or version != 1:
            self._damaged(f"it opens with {data[:3].hex()}, not with BTF version 1")
        type_start, string_start = header + type_at, header + string_at
        if header < _HEADER or max(type_start + type_length, string_start + string_length) > len(data):
            self._damaged("its sections reach past its end")
        if type_length % 4 or string_length == 0:
            self._damaged("its sections have impossible lengths")
        self._strings = data[string_start : string_start + string_length]
        if self._strings[:1] != b"\0" or self._strings[-1:] != b"\0":
            self._damaged("its strings are not terminated")
        self._words = array("I", data[type_start : type_start + type_length])
        if (order == "<") != (sys.byteorder == "little"):
            self._words.byteswap()
        #: Where each type starts in ``_words``, by its id; id 0 is void.
        self._at = array("I", [0])
        #: Kind -> offset of the name -> ids. Names stay undecoded: a kernel has a hundred thousand.
        self._named: dict[int, dict[int, int]] = {Kind.STRUCT: {}, Kind.UNION: {}, Kind.FUNCTION: {}}
        self._walk()

    def _damaged(self, how: str) -> NoReturn:
        raise Unavailable(
            f"the type information (BTF) of {self._source} is damaged: {how}",
            consequence="where the kernel keeps its TCP state cannot be told",
            next_step="reinstall what it belongs to: ackward or the kernel",
        )

    def _walk(self) -> None:
        words, position, end = self._words, 0, len(self._words)
        starts, fixed, each, named = self._at, _FIXED, _EACH, self._named
        try:
            while position < end:
                info = words[position + 1]
                kind = info >> 24 & 0x1F
                names = named.get(kind)
                if names is not None:
                    names.setdefault(words[position], len(starts))
                starts.append(position)
                position += fixed[kind] + each[kind] * (info & 0xFFFF)
        except IndexError:
            self._damaged(f"type {len(starts)} is of no known kind or cut off")
        if position != end:
            self._damaged(f"type {len(starts) - 1} reaches past the end")

    def _name(self, offset: int) -> str:
        # Bit 31 of an offset belongs to the strings of the kernel under a module's BTF, which we never read.
        end = self._strings.find(b"\0", offset)
        if end < 0:
            self._damaged(f"a name lies outside its strings (at {offset})")
        return self._strings[offset:end].decode("utf-8", "replace")

    def _id_of(self, kind: Kind, name: str) -> int | None:
        wanted, names, position = name.encode() + b"\0", self._named[kind], 0
        # A name may share the tail of a longer one, so every occurrence counts, not only whole strings.
        while name and (position := self._strings.find(wanted, position)) >= 0:
            if position in names:
                return names[position]
            position += 1
        return None

    def _start(self, number: int) -> int:
        if not 0 < number < len(self._at):
            self._damaged(f"it refers to type {number} of {len(self._at) - 1}")
        return self._at[number]

    def _type(self, number: int, depth: int = 0) -> Type:
        """The type of that id, seen through typedefs and qualifiers."""
        words = self._words
        kind, start = Kind.VOID, 0
        for _ in range(_DEEPEST):
            if number == 0:
                return Type(Kind.VOID, "void", 0, 0)
            start = self._start(number)
            kind = Kind(words[start + 1] >> 24 & 0x1F)
            if kind not in _TRANSPARENT:
                break
            number = words[start + 2]
        else:
            self._damaged(f"type {number} refers to itself")
        name = self._name(words[start])
        if kind is Kind.ARRAY:
            if depth >= _DEEPEST:
                self._damaged(f"the arrays of type {number} nest without end")
            element, count = self._type(words[start + 3], depth + 1), words[start + 5]
            return Type(kind, name, element.size * count, number, element=element, count=count)
        if kind is Kind.POINTER:
            return Type(kind, name, 8, number)
        size = words[start + 2] if kind in _SIZED else 0
        signed = kind is Kind.INT and bool(words[start + 3] & _INT_SIGNED)
        if kind in (Kind.ENUM, Kind.ENUM64):
            signed = bool(words[start + 1] >> 31)
        return Type(kind, name, size, number, signed=signed)

    def function_id(self, name: str) -> int | None:
        """The id of a function (what fentry attaches to), or None if there is none of that name."""
        return self._id_of(Kind.FUNCTION, name)

    def struct(self, name: str) -> Struct | None:
        """The struct or union of that name, or None."""
        number = self._id_of(Kind.STRUCT, name)
        if number is None:
            number = self._id_of(Kind.UNION, name)
        return None if number is None else self._struct(number)

    def _struct(self, number: int) -> Struct:
        words, start = self._words, self._start(number)
        info = words[start + 1]
        members = []
        for entry in range(start + 3, start + 3 + 3 * (info & 0xFFFF), 3):
            resolved, offset, bits = self._type(words[entry + 1]), words[entry + 2], 0
            if info >> 31:  # kind_flag: the offset's top byte is the width of a bitfield
                offset, bits = offset & 0xFFFFFF, offset >> 24
            members.append(
                Member(
                    self._name(words[entry]),
                    offset,
                    bits or resolved.size * 8,
                    is_bitfield=bits > 0,
                    type=resolved,
                )
            )
        return Struct(self._name(words[start]), words[start + 2], Kind(info >> 24 & 0x1F), tuple(members))

    def field(self, struct_name: str, path: str) -> Member | None:
        """The member at a dotted path, found through anonymous members too, or None.

        Its ``bit_offset`` counts from the start of ``struct_name``. Pointers are not followed.
        """
        number: int | None = self._id_of(Kind.STRUCT, struct_name)
        if number is None:
            return None
        found: Member | None = None
        offset = 0
        for name in path.split("."):
            if number is None:
                return None
            found = self._member(number, name, set())
            if found is None:
                return None
            offset += found.bit_offset
            number = found.type.id if found.type.kind in (Kind.STRUCT, Kind.UNION) else None
        return found and replace(found, bit_offset=offset)

    def _member(self, number: int, name: str, searched: set[int]) -> Member | None:
        searched.add(number)
        for member in self._struct(number).members:
            if name and member.name == name:
                return member
            inside = member.type
            # What was searched in vain needs no second look, and damaged input may nest a struct in itself.
            if member.name or inside.kind not in (Kind.STRUCT, Kind.UNION) or inside.id in searched:
                continue
            found = self._member(inside.id, name, searched)
            if found:
                return replace(found, bit_offset=member.bit_offset + found.bit_offset)
        return None


@functools.cache
def kernel_btf(path: Path = VMLINUX) -> Btf:
    """The running kernel's types; read once. Raises :class:`Unavailable` if the kernel has none."""
    return Btf(_read(path, "the kernel was built without CONFIG_DEBUG_INFO_BTF"), str(path))


def object_btf(path: Path) -> Btf:
    """The types of a compiled BPF object. Raises :class:`Unavailable` if it is missing or has none."""
    return Btf(elf_section(_read(path, "it was not built"), ".BTF", str(path)), str(path))


def _read(path: Path, if_missing: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = if_missing if isinstance(error, FileNotFoundError) else error.strerror
        raise Unavailable(
            f"{path} cannot be read: {why}",
            consequence="BPF programs that read TCP's state cannot be loaded",
            next_step="boot a kernel with CONFIG_DEBUG_INFO_BTF=y"
            if path == VMLINUX
            else "run `make` to build it",
        ) from error


def elf_section(data: bytes, name: str, source: str) -> bytes:
    """A section of a 64-bit ELF file (man 5 elf). Raises :class:`Unavailable` if it has none."""

    def refuse(how: str) -> Unavailable:
        return Unavailable(
            f"{source} is not a BPF object with type information: {how}",
            consequence="the layout of its records is unknown",
            next_step="compile it with `clang -target bpf -g`",
        )

    if data[:4] != _ELF_MAGIC or len(data) < 64 or data[4] != 2:
        raise refuse("it is not a 64-bit ELF file")
    order = "<" if data[5] == 1 else ">"
    table = struct.unpack_from(f"{order}Q", data, 0x28)[0]
    entry_size, count, names_index = struct.unpack_from(f"{order}HHH", data, 0x3A)
    if entry_size != 64 or names_index >= count or table + 64 * count > len(data):
        raise refuse("its section table is cut off")

    def section(index: int) -> tuple[int, int, int]:
        name_at, _, _, _, offset, size = struct.unpack_from(f"{order}IIQQQQ", data, table + 64 * index)
        return name_at, offset, size

    _, names_at, names_size = section(names_index)
    names = data[names_at : names_at + names_size]
    for index in range(count):
        name_at, offset, size = section(index)
        if names[name_at:].split(b"\0", 1)[0] == name.encode():
            if offset + size > len(data):
                raise refuse(f"its section {name} is cut off")
            return data[offset : offset + size]
    raise refuse(f"it has no section {name}")


@dataclass(frozen=True)
class FieldLayout:
    """A field of a C struct for NumPy.

    ``format`` is a NumPy code in the host's byte order, or ``struct NAME``; ``offset`` is in bytes; ``shape``
    is of an array.
    """

    field: str
    format: str
    offset: int
    shape: tuple[int, ...] = ()


_LETTERS = {Kind.INT: "u", Kind.ENUM: "u", Kind.FLOAT: "f"}


def numpy_layout(btf: Btf, struct_name: str) -> list[FieldLayout]:
    """The fields of a struct of numbers, named structs and arrays of these; ``char[n]`` becomes ``Sn``.

    Raises :class:`Unavailable` if there is no such struct or NumPy has no format for one of its members.
    """
    found = btf.struct(struct_name)
    if found is None:
        raise Unavailable(
            f"the BPF object holds no type information about struct {struct_name}",
            consequence="its records cannot be decoded",
            next_step="give a global variable or a map's value that type: clang keeps only those",
        )
    return [_field_layout(struct_name, member) for member in found.members]


def _field_layout(struct_name: str, member: Member) -> FieldLayout:
    scalar, shape, offset = member.type, [], member.bit_offset // 8
    while scalar.kind is Kind.ARRAY and scalar.element is not None:
        shape.append(scalar.count)
        scalar = scalar.element
    if member.name and scalar.name == "char" and shape:
        return FieldLayout(member.name, f"S{shape.pop()}", offset, tuple(shape))
    if member.name and scalar.name and scalar.kind is Kind.STRUCT:
        return FieldLayout(member.name, f"struct {scalar.name}", offset, tuple(shape))
    if (
        not member.name
        or member.is_bitfield
        or scalar.kind not in _LETTERS
        or scalar.size not in (1, 2, 4, 8)
    ):
        what = "bitfield" if member.is_bitfield else scalar.kind.name.lower()
        raise Unavailable(
            f"struct {struct_name} is no plain record: its member {member.name or '(anonymous)'} is a {what}",
            consequence="NumPy cannot decode it",
            next_step="use integers of 1, 2, 4 or 8 bytes, named structs, and arrays of these",
        )
    letter = "i" if scalar.signed else _LETTERS[scalar.kind]
    return FieldLayout(member.name, f"{letter}{scalar.size}", offset, tuple(shape))
