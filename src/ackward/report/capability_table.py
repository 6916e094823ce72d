"""What the self-test of the bypass found, as a table on a terminal and as the one in the documentation."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from ackward.model.bypass import Capabilities, Outcome

_COLOUR = {Outcome.SAME: "green", Outcome.MITIGATED: "green", Outcome.DIFFERS: "yellow"}


def view(capabilities: Capabilities) -> Table:
    """The matrix for a terminal."""
    table = Table(box=None, pad_edge=False)
    for column in ("hazard", "programs see"):
        table.add_column(column, header_style="dim", no_wrap=True)
    table.add_column("measured", header_style="dim", overflow="fold", ratio=1)
    for finding in capabilities.findings:
        colour = _COLOUR[finding.outcome]
        table.add_row(finding.hazard, f"[{colour}]{finding.outcome}[/]", escape(finding.measured))
    return table


def markdown(capabilities: Capabilities) -> str:
    """The matrix as a table in Markdown."""
    lines = ["| hazard | programs see | measured |", "|---|---|---|"]
    for finding in capabilities.findings:
        measured = finding.measured.replace("|", "\\|")
        lines.append(f"| `{finding.hazard}` | {finding.outcome} | {measured} |")
    return "\n".join(lines) + "\n"
