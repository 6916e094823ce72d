"""``ackward sockets``."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from ackward.cli.output import data, print_json, talk
from ackward.cli.scope_options import Cgroup, Netns, Pid, Port
from ackward.errors import PrivilegeMissing
from ackward.model.sockets import SocketReport

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

EPILOG = """Examples:\n\n
ackward sockets                            every connection in sight, suspicious ones first\n\n
ackward sockets --port 7000 --netns web    one service\n\n
ackward sockets --all                      listeners, TIME_WAIT and SYN_RECV too\n\n
ackward sockets --json | jq '.sockets\\[] | select(.pingpong and .route_quickack == false)'\n\n
Columns: quick: ACKs that still go out at once; pp: pingpong, ACKs wait for data to carry them;
ato: how long they wait; Nagle: on, off or cork; route: whether it asks for quick ACKs; unacked: segments;
unsent: bytes written and not sent. For a listener, unacked and unsent are its accept queue and the limit.
A dash: not to be seen without root, or not told by this kernel."""

_STYLES = {"header": "dim", "suspect": "bold yellow", "why": "yellow"}
#: Where there is no terminal, lines are as wide as the widest that people lay out text for.
_WIDTH_OF_FILES = 120


@app.command(epilog=EPILOG)
def command(
    port: Port = None,
    netns: Netns = None,
    pid: Pid = None,
    cgroup: Cgroup = None,
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="listeners, TIME_WAIT and SYN_RECV as well")
    ] = False,
    listening: Annotated[bool, typer.Option("--listening", "-l", help="only listeners")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON (ackward/sockets/1)")] = False,
) -> None:
    """Show each TCP connection with the state of its ACKs, and what may be waiting right now.

    Changes nothing and needs no privileges; root sees all namespaces and other users' processes.
    """
    from ackward.loop.sockets import sockets

    report = sockets(port=port, netns=netns, pid=pid, cgroup=cgroup, all_=all_, listening=listening)
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    for note in report.notes:
        talk.print(f"Note: {note}.", markup=False)
    if report.root_would_add:
        error = PrivilegeMissing.for_this_command(
            f"root would add {'; '.join(report.root_would_add)}", consequence="without it this is not shown"
        )
        talk.print(str(error), markup=False)


def _show(report: SocketReport) -> None:
    from ackward.report.socket_table import lines

    if not report.sockets:
        talk.print("No such sockets.")
        return
    width = data.width if data.is_terminal else _WIDTH_OF_FILES
    for emphasis, group in groupby(lines(report, width), key=lambda line: line.emphasis):
        text = "\n".join(line.text for line in group)
        if emphasis:
            data.print(Text(text, style=_STYLES[emphasis]), soft_wrap=True)
        else:
            data.file.write(text + "\n")  # Rich would take a fifth of a second to pass on ten thousand lines
