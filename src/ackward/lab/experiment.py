"""What an experiment is: a question put to this kernel, and what it answered.

A scenario is a load with a stall in it, for which a diagnosis is made and a remedy proved. An experiment has traffic
of its own and no remedy. Both have a name, a summary and settings, and both are started with ``ackward lab run``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from ackward.lab.scenario import read_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ackward.lab.run import Tell


class Answer(Protocol):
    """What came out, in the three forms that a reader may ask for."""

    def to_json(self) -> str:
        """The whole of it, by its published schema."""
        ...

    def page(self) -> str:
        """One self-contained HTML page."""
        ...

    def view(self) -> RenderableType:
        """What stands on a terminal."""
        ...


class Reported(Protocol):
    """A report of :mod:`ackward.model` with a published schema."""

    def to_json(self) -> str:
        """The whole of it."""
        ...


@dataclass(frozen=True)
class ReportAnswer:
    """An answer that ``ackward.report`` tells: ``NAME_page`` renders its page, ``NAME_table`` its view."""

    report: Reported
    name: str

    def to_json(self) -> str:
        """The whole of it, by its published schema."""
        return self.report.to_json()

    def page(self) -> str:
        """One self-contained HTML page."""
        page: str = importlib.import_module(f"ackward.report.{self.name}_page").render(self.report)
        return page

    def view(self) -> RenderableType:
        """What stands on a terminal."""
        view: RenderableType = importlib.import_module(f"ackward.report.{self.name}_table").view(self.report)
        return view


@dataclass(frozen=True)
class Experiment:
    """A question with its settings: for each a default, a reader that raises ValueError, and a hint for that case.

    ``needs`` are the programs that it uses, beyond root; ``takes`` is how long it lasts with its default settings.
    ``ask`` carries it out, on hosts of its own, and leaves nothing behind.
    """

    name: str
    summary: str
    ask: Callable[[Mapping[str, Any], Tell], Answer]
    settings: Mapping[str, object]
    readers: Mapping[str, Callable[[str], object]]
    hints: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    takes: str = ""

    def with_settings(self, settings: Iterable[str]) -> Experiment:
        """The experiment with ``key=value`` settings applied; raises :class:`UsageError` for what means nothing."""
        given = read_settings(self.name, settings, self.readers, self.hints)
        return replace(self, settings={**self.settings, **given})

    def run(self, tell: Tell) -> Answer:
        """Carry it out; ``tell`` hears what happens meanwhile."""
        return self.ask(self.settings, tell)
