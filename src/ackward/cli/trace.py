"""``ackward trace``."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import closing
from typing import Annotated

import typer
from rich.text import Text

from ackward.cli.arguments import duration_ns
from ackward.cli.output import data, talk
from ackward.cli.scope_options import Cgroup, Netns, Pid, Port
from ackward.model.trace import HeldEvent, LostEvent, Outcome, ProbeEvent, TraceEvent

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

EPILOG = """Examples:\n\n
ackward trace --port 7000               until Ctrl-C\n\n
ackward trace --for 10s | grep fired    delayed ACKs that their timer sent\n\n
ackward trace --acks --port 7000        every ACK, and each step of its mode\n\n
ackward trace --json --count 9 | jq 'select(.event == "held")'\n\n
seq and ack are those of `tcpdump -S`, in brackets those of plain tcpdump; docs/trace.md explains each event."""


@app.command(epilog=EPILOG)
def command(
    for_: Annotated[
        str | None, typer.Option("--for", help="how long, for example 10s; else until Ctrl-C", metavar="TIME")
    ] = None,
    count: Annotated[int | None, typer.Option(help="end after this many events")] = None,
    port: Port = None,
    netns: Netns = None,
    pid: Pid = None,
    cgroup: Cgroup = None,
    slow: Annotated[
        str, typer.Option(help="leave out ACKs and held writes that waited less", metavar="TIME")
    ] = "1ms",
    acks: Annotated[
        bool, typer.Option("--acks", help="every ACK and armed timer, and each step of quick and pingpong")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object a line")] = False,
) -> None:
    """Print one line for each delayed ACK, held write, probe and toggle of quick ACKs, as it happens."""
    from ackward.loop.tracing import trace
    from ackward.report.trace_lines import Lines

    seconds = None if for_ is None else duration_ns(for_, "--for") / 1e9
    stop = threading.Event()
    events = trace(
        seconds,
        port=port,
        netns=netns,
        pid=pid,
        cgroup=cgroup,
        slow_ns=duration_ns(slow, "--slow"),
        every_ack=acks,
        count=count,
        stop=stop,
        note=lambda words: talk.print(f"{words[0].upper()}{words[1:]}.", markup=False),
    )
    lines = Lines()
    told = lost = 0
    previous = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with closing(events):
            for event in events:
                _print(
                    event,
                    event.model_dump_json(by_alias=True) if as_json else lines.line(event),
                    plain=as_json,
                )
                if isinstance(event, LostEvent):
                    lost += event.count
                else:
                    told += 1
    finally:
        signal.signal(signal.SIGINT, previous)
    talk.print(f"{told:,} events told, {lost:,} lost.", markup=False)


def _print(event: TraceEvent, line: str, *, plain: bool) -> None:
    """One line, at once, so that a pipe sees it as it happens."""
    if isinstance(event, LostEvent) and not plain:
        talk.print(f"{line}: narrow the filters.", style="bold red", markup=False)
    elif data.is_terminal and not plain:
        data.print(Text(line, style=_style(event)), soft_wrap=True)
    else:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _style(event: TraceEvent) -> str:
    if isinstance(event, ProbeEvent):
        return "red"
    if isinstance(event, HeldEvent) or getattr(event, "outcome", None) is Outcome.FIRED:
        return "yellow"
    return ""
