"""What is wrong with a configuration, in the words of its fields: one complaint a line. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from ackward.gateway.tuning import Part

#: What numbers count, by the name of their field.
_UNITS: Final = {
    **dict.fromkeys(("near", "leg", "pipe", "mss"), " of bytes"),
    **dict.fromkeys(
        ("connect", "idle", "unacknowledged", "keepalive", "leg_handshake", "drain"), " of seconds"
    ),
    "initial_window": " of segments",
}
#: What is due, by pydantic's type of the error; ``{unit}`` and the names of its context are filled in.
_DUE: Final = {
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number{unit}"
    ),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number{unit}"),
    "greater_than_equal": "a number{unit} of at least {ge}",
    "greater_than": "a number{unit} above {gt}",
    "less_than_equal": "a number{unit} of at most {le}",
    "bool_type": "true or false",
    **dict.fromkeys(("string_type", "path_type"), "a text in quotes"),
    "string_pattern_mismatch": "a text of this form (a regular expression): {pattern}",
    "literal_error": "{expected}",
    **dict.fromkeys(("tuple_type", "list_type"), 'a list, such as ["one", "two"],'),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "mapping_type"), "a table"),
    "too_short": "at least one",
    **dict.fromkeys(("ip_v4_network", "ip_v6_network"), "a network such as 10.1.0.0/16, without host bits,"),
}
#: What pydantic adds to the path of a field that may be a network of either family.
_EITHER: Final = "lax-or-strict"
_LONGEST_GIVEN: Final = 80


def complaints(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Every wrong field of ``root`` with its path, what is due there, and what was given."""
    told = (_complaint(dict(one), root) for one in error.errors())
    return list(dict.fromkeys(told))


def _complaint(error: Mapping[str, Any], root: type[BaseModel]) -> str:
    path = [part for part in error["loc"] if not str(part).startswith(_EITHER)]
    place = ".".join(map(str, path))
    words = _words(error, path, root)
    given = error.get("input")
    shown = ""
    if isinstance(given, (str, int, float, bool)) and len(repr(given)) < _LONGEST_GIVEN:
        shown = f" (given: {given!r})"
    return f"{place}: {words}{shown}" if place else words


def _words(error: Mapping[str, Any], path: Sequence[str | int], root: type[BaseModel]) -> str:
    kind = str(error["type"])
    if kind == "extra_forbidden":
        near = get_close_matches(str(path[-1]), list(_fields(root, path[:-1])), n=1)
        return "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
    if kind == "missing":
        return "this field is needed"
    if kind in _DUE:
        unit = _UNITS.get(str(path[-1]), "") if path else ""
        return f"{_DUE[kind].format(unit=unit, **error.get('ctx', {}))} is due"
    return str(error["msg"]).removeprefix("Value error, ")


def _fields(root: type[BaseModel], path: Sequence[str | int]) -> Iterator[str]:
    """The fields of the table at ``path``, as they are written."""
    table = root
    for part in path:
        named = {field.alias or name: field for name, field in table.model_fields.items()}
        if part in named:
            table = next(_tables(named[str(part)].annotation), table)
    for name, field in table.model_fields.items():
        yield field.alias or name


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _tables(inner)


def differences(old: object, new: object, path: str = "") -> Iterator[str]:
    """The paths of fields that are not the same in two configurations; a list of another length is named as a whole."""
    if isinstance(old, Part) and type(old) is type(new):
        old, new = _named(old), _named(new)
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        old, new = (dict(enumerate(one)) for one in (old, new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from differences(old.get(key), new.get(key), f"{path}.{key}".removeprefix("."))
    elif old != new:
        yield path


def _named(table: Part) -> dict[str, object]:
    return {field.alias or name: getattr(table, name) for name, field in type(table).model_fields.items()}
