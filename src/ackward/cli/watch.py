"""``ackward watch``."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn

from ackward.cli.arguments import duration_ns
from ackward.cli.output import talk
from ackward.cli.report_output import Page, show
from ackward.cli.scope_options import Cgroup, Netns, Pid, Pod, Port

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

EPILOG = """Examples:\n\n
ackward watch                              everything on this host, for 10 s\n\n
ackward watch --port 7000 --for 30s        one service\n\n
ackward watch --netns web --report web.html\n\n
ackward watch --pod shop/cart-0            one pod of this node, found through its container runtime"""


@app.command(epilog=EPILOG)
def command(
    for_: Annotated[
        str, typer.Option("--for", help="how long, for example 10s or 2m", metavar="TIME")
    ] = "10s",
    port: Port = None,
    netns: Netns = None,
    pid: Pid = None,
    cgroup: Cgroup = None,
    pod: Pod = None,
    slow: Annotated[
        str, typer.Option(help="record exchanges that took this long, count faster ones", metavar="TIME")
    ] = "1ms",
    report: Page = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="exit with 5 if there is a finding")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> int:
    """Watch live sockets and explain their stalls. Ctrl-C ends early and still reports."""
    from ackward.loop.watching import watch

    seconds = duration_ns(for_, "--for") / 1e9
    slow_ns = duration_ns(slow, "--slow")
    stop = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with Progress(
            TextColumn("watching"),
            BarColumn(30),
            TextColumn("{task.fields[left]}"),
            console=talk,
            transient=True,
            disable=not talk.is_terminal,
        ) as bar:
            task = bar.add_task("watch", total=seconds, left="")

            def progress(gone: float, events: int) -> None:
                bar.update(
                    task,
                    completed=gone,
                    left=f"{max(seconds - gone, 0):4.1f} s left, {events:,} events recorded",
                )

            seen = watch(
                seconds,
                port=port,
                netns=netns,
                pid=pid,
                cgroup=cgroup,
                pod=pod,
                slow_ns=slow_ns,
                stop=stop,
                progress=progress,
            ).report
    finally:
        signal.signal(signal.SIGINT, previous)
    show(seen, as_json=as_json, page=report, title="ackward watch")
    if not seen.exchanges:
        talk.print(
            "Next: `ackward sockets --all` shows what there is; --for 1m watches longer.", markup=False
        )
    return 5 if exit_code and seen.findings else 0
