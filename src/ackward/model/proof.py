"""What ``fix --prove`` found: the plan, both measured phases, the verdict, and whether the remedy stayed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ackward.model.plan import Plan, Receipt
from ackward.model.report import Model
from ackward.model.verdict import Phase, Verdict


class Proof(Model):
    """``receipt`` is null if the remedy was undone because it had not improved anything."""

    schema_: Literal["ackward/proof/1"] = Field(default="ackward/proof/1", alias="schema")
    plan: Plan
    receipt: Receipt | None
    verdict: Verdict
    phases: tuple[Phase, ...]
