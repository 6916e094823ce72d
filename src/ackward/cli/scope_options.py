"""The options that say which connections a command is about, the same for every command that looks at them."""

from __future__ import annotations

from typing import Annotated

import typer

Port = Annotated[int | None, typer.Option(help="only connections with this local or remote port")]
Netns = Annotated[str | None, typer.Option(help="only this network namespace: a name, a PID or a path")]
Pid = Annotated[int | None, typer.Option(help="only connections of this process")]
Pod = Annotated[
    str | None, typer.Option(metavar="NS/NAME", help="only this pod, which must run on this node")
]
Cgroup = Annotated[str | None, typer.Option(help="only sockets of this cgroup (v2) and below")]
