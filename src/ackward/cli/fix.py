"""``ackward fix``: apply a remedy, show what it would change, or prove that it helps.

Each command plans its remedy; what all of them do with a plan is :func:`ackward.cli.fix_options.applied`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ackward.cli.fix_options import applied
from ackward.cli.scope_options import Pod
from ackward.model.plan import Plan

Netns = Annotated[str, typer.Option(help="namespace: a name, a PID, a path, or self")]
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
ackward fix quickack --pod shop/cart-0         those of a pod of this node\n\n
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


BYPASS_EPILOG = """Examples:\n\n
ackward fix bypass --port 8080 --dry-run     show what would change, and what of TCP would differ\n\n
ackward fix bypass --port 8080 --prove 30s   keep it only if requests are answered sooner\n\n
ackward fix bypass --port 8080 --accept oob,waitall --lease 1h   take it back in an hour, whatever happens\n\n
ackward fix bypass --cgroup kubepods/pod1 --exclude 22,10.96.0.0/16   a pod's connections within this host"""


@app.callback(epilog="Example: ackward fix quickack --port 7000 --dry-run")
def fix() -> None:
    """Apply a remedy. It can be shown first (--dry-run) and is undone with `ackward undo`."""


@app.command(epilog=EPILOG)
@applied
def quickack(
    netns: SocketsNetns = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="routes to this CIDR, or `all` routes, instead of default routes; of sockets, where they lead"
        ),
    ] = None,
    port: Annotated[
        str | None, typer.Option(help="TCP port, local or remote, instead of routes; of sockets also A-B")
    ] = None,
    cgroup: Cgroup = None,
    pid: Pid = None,
    pod: Pod = None,
    cap: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="let sockets delay ACKs, but no longer than this (8ms); needs a scope"
        ),
    ] = None,
) -> Plan:
    """Acknowledge at once, so that no peer's Nagle waits for an ACK. Open connections profit too.

    For routes (all default ones, or --to), or for one --port; with --cgroup, --pid or --cap for single sockets.
    """
    from ackward.cli.arguments import duration_ns
    from ackward.loop import fixing

    seconds = None if cap is None else duration_ns(cap, "--cap") / 1e9
    if pod is not None:
        from ackward.loop import pods

        netns = pods.netns_to_change(pod, netns, pid, cgroup)
        if to is port is cap is None:
            to = "all"  # as the annotation does: pods of one node meet over the route to their network
    return fixing.plan_quickack(netns=netns, to=to, port=port, cgroup=cgroup, pid=pid, cap=seconds)


@app.command(epilog=NODELAY_EPILOG)
@applied
def nodelay(
    netns: SocketsNetns = None,
    port: Annotated[str | None, typer.Option(help="TCP port, local or remote, or a range A-B")] = None,
    to: Annotated[str | None, typer.Option(help="connections to addresses in this CIDR")] = None,
    cgroup: Cgroup = None,
    pid: Pid = None,
) -> Plan:
    """Turn Nagle's algorithm off for a program that cannot be changed, on open connections too. For the end that holds.

    At least one of --port, --to, --cgroup and --pid; a connection must match all that are given.
    """
    from ackward.loop import fixing

    return fixing.plan_nodelay(netns=netns, port=port, to=to, cgroup=cgroup, pid=pid)


@app.command(epilog=WINDOW_EPILOG)
@applied
def initcwnd(
    segments: Annotated[int, typer.Option(help="how many may leave before the first ACK, for example 30")],
    netns: Netns = "self",
    to: To = None,
    after_idle: Annotated[
        bool,
        typer.Option("--after-idle", help="connections of the whole namespace keep their window over a rest"),
    ] = False,
) -> Plan:
    """Begin with a larger window, so that large answers take fewer round trips. For the end that sends them."""
    from ackward.loop import fixing

    return fixing.plan_initcwnd(netns=netns, to=to, segments=segments, after_idle=after_idle)


@app.command(epilog=BYPASS_EPILOG)
@applied
def bypass(
    netns: SocketsNetns = None,
    port: Annotated[
        str | None, typer.Option(help="the server's TCP port as either end knows it, or a range A-B")
    ] = None,
    to: Annotated[str | None, typer.Option(help="connections to servers in this CIDR")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="connections from clients in this CIDR")
    ] = None,
    cgroup: Annotated[
        str | None, typer.Option(help="connections with an end in this cgroup (v2) or below")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="ports, ranges and CIDRs that stay on TCP (22,10.0.0.0/8)")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(help="differences from TCP that your programs do not mind (oob,waitall)"),
    ] = None,
    no_learn: Annotated[
        bool,
        typer.Option("--no-learn", help="join every connection, not only those that were learned to profit"),
    ] = False,
) -> Plan:
    """Join the two ends of connections within this host: what one writes goes straight into the other's queue.

    At least one of --port, --to, --from and --cgroup; both ends together must match all that are given.
    """
    from ackward.loop import bypassing
    from ackward.remedies.bypass.selftest.run import self_test

    return bypassing.plan_bypass(
        netns=netns,
        port=port,
        to=to,
        source=source,
        cgroup=cgroup,
        exclude=exclude or (),
        accept=accept or (),
        learn=not no_learn,
        self_test=self_test,
    )
