"""``ackward compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from ackward.cli.arguments import port_number
from ackward.cli.output import data, print_json, talk
from ackward.model.verdict import Result

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

EPILOG = """Examples:\n\n
ackward watch --port 7000 --json > before.json\n\n
ackward watch --port 7000 --json > after.json  # once something was changed\n\n
ackward compare before.json after.json\n\n
ackward compare monday.pcap tuesday.pcap --port 443 --exit-code"""


@app.command(epilog=EPILOG)
def command(
    before: Annotated[str, typer.Argument(help="a report (JSON of watch, analyze or lab run), or a capture")],
    after: Annotated[str, typer.Argument(help="the same, afterwards")],
    port: Annotated[
        str | None,
        typer.Option(metavar="PORT", help="of captures only connections with this port at either end"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="of captures only connections with this address at either end")
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="exit with 5 if it became worse")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the comparison as JSON")] = False,
) -> int:
    """Compare before and after: faster or slower, by how much, how surely, and by which cause. No privileges."""
    from ackward.loop.comparing import compare

    with talk.status("comparing"):
        found = compare(before, after, port=port_number(port, "--port"), host=host)
    if as_json:
        print_json(found.to_json())
    else:
        from ackward.report.terminal import comparison_view

        data.print(comparison_view(found))
    return 5 if exit_code and found.verdict.result is Result.WORSE else 0
