"""What ``ackward doctor`` prints with ``--json``: abilities of the host, and what its settings do to whom."""

from __future__ import annotations

import enum
from typing import Final, Literal

from pydantic import Field

from ackward.model.report import Model

SCHEMA: Final = "ackward/doctor/1"


class Outcome(enum.StrEnum):
    """What a probe found out. ``UNSURE``: it could not tell, most often for want of a privilege."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


class ProbeResult(Model):
    """One ability of this host: how it is known (``detail``), and what its absence costs (``costs``)."""

    name: str
    group: str
    outcome: Outcome
    detail: str
    costs: str


class Judgement(enum.StrEnum):
    """Whether a setting makes somebody wait."""

    FINE = "fine"
    HURTS = "hurts"


class Setting(Model):
    """One setting, what it does to whom, and the ``command`` that changes it, if anything should be."""

    name: str
    value: str
    judgement: Judgement
    effect: str
    command: str | None = None


class NamespaceReport(Model):
    """The settings of namespaces that have them in common. The first name is the one that was read."""

    namespaces: list[str]
    settings: list[Setting]


class Ability(Model):
    """Whether one command of ackward works here. ``partly``: it works, with the loss that ``why`` names."""

    command: str
    works: Literal["yes", "partly", "no", "unsure"]
    why: str = ""


class DoctorReport(Model):
    """The host as ackward finds it."""

    schema_: Literal["ackward/doctor/1"] = Field(default=SCHEMA, alias="schema")
    kernel: str = Field(description="release, as uname -r prints it; nothing is concluded from it")
    hz: int | None = Field(description="timer ticks a second; delayed ACKs are rounded to them")
    verdict: str
    commands: list[Ability]
    probes: list[ProbeResult]
    namespaces: list[NamespaceReport]
    notes: list[str] = Field(default=[], description="what could not be examined, and why")

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
