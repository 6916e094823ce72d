"""What ``ackward compare --json`` prints: two reports or captures, before and after."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from ackward.model.causes import Cause
from ackward.model.report import Model
from ackward.model.verdict import Verdict

SCHEMA: Final = "ackward/comparison/1"


class Side(Model):
    """One of the two that are compared."""

    source: str
    basis: Literal["exchanges", "quantiles"] = Field(
        description="what its distribution was taken from: each exchange of a capture, or the quantiles in a report"
    )
    exchanges: int
    elapsed_ns: int = Field(description="sum over exchanges")


class CauseChange(Model):
    """What one cause took before and after: its share of all time (0..1), and nanoseconds an exchange."""

    cause: Cause
    before_share: float
    after_share: float
    before_ns: float = Field(description="mean over all exchanges of that side")
    after_ns: float


class Comparison(Model):
    """The verdict, and which causes made the difference: the largest change first."""

    schema_: Literal["ackward/comparison/1"] = Field(default=SCHEMA, alias="schema")
    before: Side
    after: Side
    verdict: Verdict
    causes: list[CauseChange]

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
