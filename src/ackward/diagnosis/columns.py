"""Rows of the common table, read by column: each column is laid out densely the first time it is asked for.

A structured array keeps a row's fields together; the diagnosis walks along columns. A dense copy of the few columns
that it uses makes each walk several times faster. Captures know nothing of sockets: their rows are put together only
where somebody looks at rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ackward.model.segments import SEGMENT, Segments


class Columns:
    """``columns["seq"]`` is a dense column, ``columns[3]`` or ``columns[rows]`` are rows.

    Made of rows, or of columns, of which ``flow`` must be one; those that are missing are zero.
    """

    def __init__(self, source: Segments | Mapping[str, NDArray[Any]]) -> None:
        self._source = source
        self._dense: dict[str, NDArray[Any]] = {}

    @cached_property
    def rows(self) -> Segments:
        """All rows, as a structured array."""
        rows: Segments = self[:] if isinstance(self._source, Mapping) else self._source
        return rows

    def __len__(self) -> int:
        return len(self._source["flow"])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._column(key)
        if not isinstance(self._source, Mapping):
            return self._source[key]
        rows = np.zeros(self._source["flow"][key].shape, SEGMENT)
        for name, column in self._source.items():
            rows[name] = column[key]
        return rows[()]

    def _column(self, name: str) -> NDArray[Any]:
        if name not in self._dense:
            if isinstance(self._source, Mapping) and name not in self._source:
                column = np.zeros(len(self), SEGMENT[name])
            else:
                column = np.ascontiguousarray(self._source[name])
            column.setflags(write=False)
            self._dense[name] = column
        return self._dense[name]


class Entries:
    """Base of dataclasses whose fields are arrays of one length: one entry each."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def chosen(self, keep: NDArray[np.bool_]) -> Self:
        """The entries where ``keep`` holds."""
        return type(self)(*(getattr(self, field.name)[keep] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All entries of all parts, in their order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))
