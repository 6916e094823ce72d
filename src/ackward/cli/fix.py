"""``ackward fix``: apply a remedy, show what it would change, or prove that it helps."""

from __future__ import annotations

from typing import Annotated

import typer

from ackward.cli.fix_options import AsJson, DryRun, Lease, Manner, Netns, Page, Persist, Prove

To = Annotated[str | None, typer.Option(help="routes to this CIDR instead of default routes")]
SocketsNetns = Annotated[
    str | None,
    typer.Option(help="namespace: a name, a PID, a path, or self; default: that of the process or cgroup"),
]
Cgroup = Annotated[str | None, typer.Option(help="sockets of this cgroup (v2) and below")]
Pid = Annotated[int | None, typer.Option(help="sockets of this process")]

app = typer.Typer(no_args_is_help=True, add_completion=False)

EPILOG = """Examples:\n\n
ackward fix quickack --port 7000 --dry-run     show what would change\n\n
ackward fix quickack --port 7000 --prove 30s   keep it only if it helps\n\n
ackward fix quickack --port 7000 --lease 1h    take it back in an hour, whatever happens\n\n
ackward fix quickack --netns web               all default routes there\n\n
ackward fix quickack --cgroup system.slice/shop.service   a service and all it starts\n\n
ackward fix quickack --pid 4711 --to 10.0.0.0/8   one process, and where its connections lead\n\n
ackward fix quickack --cap 8ms --port 7000     fewer ACKs: delay them, but 8 ms at most"""

NODELAY_EPILOG = """Examples:\n\n
ackward fix nodelay --port 7000 --dry-run    show what would change\n\n
ackward fix nodelay --port 7000-7010 --to 10.0.0.0/8   ports and a destination\n\n
ackward fix nodelay --pid 4711               one process, its open connections at once\n\n
ackward fix nodelay --cgroup system.slice/shop.service   a service and all it starts"""

WINDOW_EPILOG = """Examples:\n\n
ackward fix initcwnd --to 203.0.113.0/24 --segments 30 --dry-run   show what would change\n\n
ackward fix initcwnd --to 203.0.113.0/24 --segments 30 --prove 30s   keep it only if it helps\n\n
ackward fix initcwnd --segments 30 --after-idle   all default routes; no slow start after a rest either"""


@app.callback()
def fix() -> None:
    """Apply a remedy. It can be shown first (--dry-run) and is undone with `ackward undo`."""


@app.command(epilog=EPILOG)
def quickack(
    netns: SocketsNetns = None,
    to: Annotated[
        str | None,
        typer.Option(help="routes to this CIDR instead of default routes; of sockets, where they lead"),
    ] = None,
    port: Annotated[
        str | None, typer.Option(help="TCP port, local or remote, instead of routes; of sockets also A-B")
    ] = None,
    cgroup: Cgroup = None,
    pid: Pid = None,
    cap: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="let sockets delay ACKs, but no longer than this (8ms); needs a scope"
        ),
    ] = None,
    dry_run: DryRun = False,
    prove: Prove = None,
    lease: Lease = None,
    persist: Persist = False,
    page: Page = None,
    as_json: AsJson = False,
) -> int:
    """Acknowledge at once, so that no peer's Nagle waits for an ACK. Open connections profit too.

    For routes (all default ones, or --to), or for one --port; with --cgroup, --pid or --cap for single sockets.
    """
    from ackward.cli import fix_run
    from ackward.cli.arguments import duration_ns
    from ackward.loop import fixing

    manner = Manner.asked(
        dry_run=dry_run, prove=prove, lease=lease, persist=persist, page=page, as_json=as_json
    )
    seconds = None if cap is None else duration_ns(cap, "--cap") / 1e9
    plan = fixing.plan_quickack(netns=netns, to=to, port=port, cgroup=cgroup, pid=pid, cap=seconds)
    return fix_run.run(plan, manner)


@app.command(epilog=NODELAY_EPILOG)
def nodelay(
    netns: SocketsNetns = None,
    port: Annotated[str | None, typer.Option(help="TCP port, local or remote, or a range A-B")] = None,
    to: Annotated[str | None, typer.Option(help="connections to addresses in this CIDR")] = None,
    cgroup: Cgroup = None,
    pid: Pid = None,
    dry_run: DryRun = False,
    prove: Prove = None,
    lease: Lease = None,
    persist: Persist = False,
    page: Page = None,
    as_json: AsJson = False,
) -> int:
    """Turn Nagle's algorithm off for a program that cannot be changed, on open connections too. For the end that holds.

    At least one of --port, --to, --cgroup and --pid; a connection must match all that are given.
    """
    from ackward.cli import fix_run
    from ackward.loop import fixing

    manner = Manner.asked(
        dry_run=dry_run, prove=prove, lease=lease, persist=persist, page=page, as_json=as_json
    )
    plan = fixing.plan_nodelay(netns=netns, port=port, to=to, cgroup=cgroup, pid=pid)
    return fix_run.run(plan, manner)


@app.command(epilog=WINDOW_EPILOG)
def initcwnd(
    segments: Annotated[int, typer.Option(help="how many may leave before the first ACK, for example 30")],
    netns: Netns = "self",
    to: To = None,
    after_idle: Annotated[
        bool,
        typer.Option("--after-idle", help="connections of the whole namespace keep their window over a rest"),
    ] = False,
    dry_run: DryRun = False,
    prove: Prove = None,
    lease: Lease = None,
    persist: Persist = False,
    page: Page = None,
    as_json: AsJson = False,
) -> int:
    """Begin with a larger window, so that large answers take fewer round trips. For the end that sends them."""
    from ackward.cli import fix_run
    from ackward.loop import fixing

    manner = Manner.asked(
        dry_run=dry_run, prove=prove, lease=lease, persist=persist, page=page, as_json=as_json
    )
    plan = fixing.plan_initcwnd(netns=netns, to=to, segments=segments, after_idle=after_idle)
    return fix_run.run(plan, manner)
