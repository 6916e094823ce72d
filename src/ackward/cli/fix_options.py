"""What every ``ackward fix NAME`` takes beside its scope: how long the remedy shall last, and what is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import typer

from ackward.cli.arguments import duration_ns
from ackward.cli.output import writable
from ackward.errors import UsageError
from ackward.model.plan import Plan

DryRun = Annotated[bool, typer.Option("--dry-run", help="show the plan, change nothing")]
Prove = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="measure that long before and after; undo unless it improved and harmed nothing else",
    ),
]
Lease = Annotated[
    str | None, typer.Option(metavar="TIME", help="take it back by itself after that time, for example 1h")
]
Persist = Annotated[bool, typer.Option("--persist", help="apply it again at each boot, by a systemd unit")]
Page = Annotated[
    Path | None,
    typer.Option(
        "--report", help="with --prove: write what was measured as one HTML page", callback=writable
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@dataclass(frozen=True)
class Manner:
    """How a remedy shall be applied and shown, the same for all of them; times in seconds, None if not asked for."""

    dry_run: bool
    prove: float | None
    lease: float | None
    persist: bool
    page: Path | None
    as_json: bool

    @classmethod
    def asked(
        cls,
        *,
        dry_run: DryRun = False,
        prove: Prove = None,
        lease: Lease = None,
        persist: Persist = False,
        page: Page = None,
        as_json: AsJson = False,
    ) -> Self:
        """What was written on the command line; raises :class:`UsageError`."""
        if page and not prove:
            raise UsageError(
                "--report shows what --prove measures",
                consequence="nothing was changed",
                next_step="add `--prove 30s`",
            )
        return cls(dry_run, _seconds(prove, "--prove"), _seconds(lease, "--lease"), persist, page, as_json)


def applied(plan: Callable[..., Plan]) -> Callable[..., int]:
    """The command that carries out what ``plan`` plans: it takes the options of ``plan``, then those of a manner."""
    scope, manner = (inspect.signature(each, eval_str=True).parameters for each in (plan, Manner.asked))

    def command(**given: Any) -> int:
        from ackward.cli import fix_run

        asked = Manner.asked(**{name: given.pop(name) for name in manner})
        return fix_run.run(plan(**given), asked)

    command.__name__, command.__doc__ = plan.__name__, plan.__doc__
    vars(command)["__signature__"] = inspect.Signature([*scope.values(), *manner.values()])
    return command


def _seconds(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    nanoseconds = duration_ns(text, option)
    if not nanoseconds:
        raise UsageError(
            f"{option} is no time at all",
            consequence="nothing was changed",
            next_step="name a longer one, for example 30s",
        )
    return nanoseconds / 1e9
