"""Rows of the common table, read by column: each column is laid out densely the first time it is asked for.

A structured array keeps a row's fields together; the diagnosis walks along columns. A dense copy of the few columns
that it uses makes each walk several times faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ackward.model.segments import Segments


class Columns:
    """``columns["seq"]`` is a dense column, ``columns[3]`` or ``columns[rows]`` are rows."""

    def __init__(self, rows: Segments) -> None:
        self.rows = rows
        self._dense: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.rows[key]
        if key not in self._dense:
            column = np.ascontiguousarray(self.rows[key])
            column.setflags(write=False)
            self._dense[key] = column
        return self._dense[key]


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
