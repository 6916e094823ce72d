"""``ackward analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ackward.cli.arguments import port_number
from ackward.cli.output import talk, writable, writable_directory
from ackward.cli.report_output import Page, show

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

EPILOG = """Examples:\n\n
ackward analyze customer.pcapng --report customer.html\n\n
ackward analyze captures/ --port 443 --json\n\n
ackward analyze customer.pcap --flow 10.0.0.1:40001-10.0.0.2:5432\n\n
ackward analyze customer.pcap --annotate explained.pcapng --parquet tables\n\n
tcpdump -w - -c 1000 tcp | ackward analyze -"""


@app.command(epilog=EPILOG)
def command(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE|DIR|GLOB|-", help="pcap or pcapng, also gzip, zstd, lz4")
    ],
    port: Annotated[
        str | None, typer.Option(metavar="PORT", help="only connections with this port at either end")
    ] = None,
    host: Annotated[str | None, typer.Option(help="only connections with this address at either end")] = None,
    flow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="END|END-END",
            help="only connections with this end, or between these two; may be given again. An end is "
            "10.0.0.1:5432 or \\[::1]:80",
        ),
    ] = None,
    vxlan: Annotated[
        str | None, typer.Option(metavar="PORT", help="look into VXLAN tunnels on this UDP port, mostly 4789")
    ] = None,
    report: Page = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="write segments, flows, exchanges and findings as Parquet",
            callback=writable_directory,
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.pcapng",
            help="write the capture again with comments on stalled packets",
            callback=writable,
        ),
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="exit with 5 if there is a finding")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> int:
    """Explain captures: the same diagnosis as `watch`, from packets alone. No privileges."""
    from ackward.capture.sources import find, never_overwritten
    from ackward.loop.analyzing import analyze

    if report:
        never_overwritten(find(sources), report)
    with talk.status("reading") as spinner:

        def progress(name: str, position: int, size: int | None) -> None:
            whole = f" of {size / 1e6:,.0f}" if size else ""
            reading = f"reading {name}: {position / 1e6:,.0f}{whole} MB"
            spinner.update(escape(reading if position != size else "explaining"))

        seen = analyze(
            sources,
            port=port_number(port, "--port"),
            host=host,
            flow=flow,
            vxlan=port_number(vxlan, "--vxlan"),
            progress=progress,
            annotated=annotate,
        )
    if annotate:
        talk.print(f"annotated: {annotate}", markup=False)
    if parquet:
        from ackward.loop.reading import store
        from ackward.report.tables import tables

        store(tables(seen), parquet)
        talk.print(f"tables: {parquet}", markup=False)
    told = seen.report if as_json or report else seen.brief  # the terminal shows no table of flows
    show(told, as_json=as_json, page=report, title="ackward analyze")
    return 5 if exit_code and seen.brief.findings else 0
