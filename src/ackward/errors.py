"""Every error that ackward raises on purpose.

::

    AckwardError                     exit code
    ├── UsageError                   2   the request itself cannot be carried out as written
    │   ├── UnknownName              2   a scenario, namespace, process, cgroup or receipt that does not exist
    │   └── Refused                  2   the request is understood, and carrying it out would do harm
    ├── Unavailable                  3   the kernel or the machine lacks something
    │   ├── PrivilegeMissing         3   ... and that something is a privilege
    │   └── ProgramRejected          3   ... the kernel refused a BPF program
    ├── PartlyChanged                4   some of the change could not be made or undone
    ├── VerificationFailed           5   the measurement does not confirm what was promised
    └── OutputFailed                 1   a report could not be written

Each message is one line that says what is missing, what follows from that, and the next step.
"""

from __future__ import annotations

import copyreg
import shlex
import sys
from pathlib import Path


class AckwardError(Exception):
    """Base of all errors that a user can cause or meet.

    ``missing`` is what is wrong, ``consequence`` what follows from it, ``next_step`` what to do now.
    """

    exit_code = 1

    def __init__(self, missing: str, *, consequence: str, next_step: str) -> None:
        self.missing = missing
        self.consequence = consequence
        self.next_step = next_step
        super().__init__(missing)

    def __str__(self) -> str:
        consequence = self.consequence[:1].upper() + self.consequence[1:]
        parts = (self.missing, consequence, f"Next: {self.next_step}")
        return " ".join(f"{part.rstrip('.')}." for part in parts)

    def __reduce__(self) -> tuple[object, ...]:
        # From process to process (a gateway's children): what an exception does by itself forgets keywords.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def as_json(self) -> dict[str, object]:
        """The error in the shape that ``--json`` prints."""
        return {
            "error": type(self).__name__,
            "missing": self.missing,
            "consequence": self.consequence,
            "next_step": self.next_step,
            "exit_code": self.exit_code,
        }


class UsageError(AckwardError):
    """The request cannot be carried out as written; nothing was changed."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that stands for nothing on this machine."""


class Refused(UsageError):
    """Understood, but carrying it out would harm something; nothing was changed."""


class Unavailable(AckwardError):
    """The kernel or the machine lacks something that was asked for by name."""

    exit_code = 3


class PrivilegeMissing(Unavailable):
    """The process lacks a privilege. Not raised when the object itself is missing."""

    @classmethod
    def for_this_command(cls, missing: str, *, consequence: str) -> PrivilegeMissing:
        """The error whose next step is this very command line under sudo, with full paths (sudo resets PATH)."""
        program = Path(sys.argv[0])
        executable = str(program.resolve()) if program.exists() else sys.argv[0]
        line = shlex.join(["sudo", executable, *sys.argv[1:]])
        return cls(missing, consequence=consequence, next_step=f"run `{line}`")


class ProgramRejected(Unavailable):
    """The kernel's verifier or attach point refused a BPF program; ``log`` holds the verifier's words."""

    def __init__(self, missing: str, *, consequence: str, next_step: str, log: str = "") -> None:
        super().__init__(missing, consequence=consequence, next_step=next_step)
        self.log = log


class PartlyChanged(AckwardError):
    """Part of a change was made or undone and part was not; the message names the part."""

    exit_code = 4


class VerificationFailed(AckwardError):
    """A measurement ran and does not show what was promised."""

    exit_code = 5


class OutputFailed(AckwardError):
    """A report or table could not be written."""
