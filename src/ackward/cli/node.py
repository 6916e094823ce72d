"""``ackward node``: quickack for the pods of a node.

The agent stays small: Rich (2.5 MB) is imported only where something is printed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ackward.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ackward.model.node import NodeStatus
    from ackward.node.places import Places

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    epilog="Example: ackward node status",
    help="Quickack for the pods of this node: a CNI plugin, the agent that it asks, or the agent alone.",
)

Configuration = Annotated[
    Path,
    typer.Option(
        "--cni-conf-dir",
        envvar="ACKWARD_CNI_CONF_DIR",
        help="where the runtime looks for its list of plugins",
    ),
]
Binaries = Annotated[
    Path,
    typer.Option("--cni-bin-dir", envvar="ACKWARD_CNI_BIN_DIR", help="where the runtime looks for plugins"),
]
Run = Annotated[
    Path,
    typer.Option("--run-dir", envvar="ACKWARD_RUN_DIR", help="the agent's socket, and what it did to pods"),
]
MarkerFile = Annotated[
    Path,
    typer.Option(
        "--marker",
        envvar="ACKWARD_MARKER",
        help="the file that is there exactly while new pods get quickack",
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        "--failure-policy",
        envvar="ACKWARD_FAILURE_POLICY",
        help="open: a pod starts though the agent does not answer; closed: it does not; "
        "unless told what the entry has, or open",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]

_CONFIGURATION, _BINARIES = Path("/etc/cni/net.d"), Path("/opt/cni/bin")
_RUN, _MARKER = Path("/run/ackward/node"), Path("/var/run/quickack-enabled")


@app.command(
    epilog="Examples:\n\nackward node agent\n\n"
    "ackward node agent --no-cni --node-name worker-1 --kubeconfig /etc/kubernetes/agent.conf"
)
def agent(
    configuration: Configuration = _CONFIGURATION,
    binaries: Binaries = _BINARIES,
    run_dir: Run = _RUN,
    marker: MarkerFile = _MARKER,
    failure_policy: Policy = None,
    listen: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS:PORT",
            envvar="ACKWARD_LISTEN",
            help="/metrics, /healthz and /readyz; port 0: any",
        ),
    ] = "127.0.0.1:9791",
    no_cni: Annotated[
        bool, typer.Option("--no-cni", help="follow the API server's pods instead of installing a CNI plugin")
    ] = False,
    node_name: Annotated[str | None, typer.Option(envvar="NODE_NAME", help="this node, for --no-cni")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="how to reach the API server, for --no-cni")] = None,
    service_account: Annotated[
        Path | None, typer.Option(help="directory of a service account's token, for --no-cni")
    ] = None,
) -> None:
    """Install the CNI plugin, serve it, keep its entry in the runtime's list, and repair pods. Ends with SIGTERM.

    Logs one JSON object a line on stderr.
    """
    from ackward.node import logs
    from ackward.node.agent import Agent, Settings

    address = _address(listen)
    places = _places(configuration, binaries, run_dir, marker)
    wanted = _entry(places, failure_policy)
    follow = None
    if not no_cni:
        _refuse_of_the_daemon_form({"--kubeconfig": kubeconfig, "--service-account": service_account})
    else:
        from ackward.node.following import PodsOfNode, client

        if not node_name:
            raise UsageError(
                "--no-cni needs the name of this node",
                consequence="the pods of all nodes would have to be followed; nothing was done",
                next_step="say --node-name, or set NODE_NAME (in a pod: from spec.nodeName)",
            )
        connect, node = partial(client, kubeconfig, service_account), node_name
        connect().close()  # a wrong configuration is told now, not in the log

        def follow(changed: Callable[[], None]) -> PodsOfNode:
            return PodsOfNode(connect, node, changed=changed)

    logs.set_up()
    Agent(Settings(places=places, entry=wanted, listen=address, follow=follow)).run()


@app.command(epilog="Example: ackward node install --cni-bin-dir /home/kubernetes/bin")
def install(
    configuration: Configuration = _CONFIGURATION,
    binaries: Binaries = _BINARIES,
    run_dir: Run = _RUN,
    failure_policy: Policy = None,
    as_json: AsJson = False,
) -> None:
    """Put the plugin's binary where the runtime looks for it, then its entry into the runtime's list.

    Until an agent runs, pods start without: what they ask for is noted, and given to them when it does.
    """
    from ackward.node.installing import install_node

    places = _places(configuration, binaries, run_dir, _MARKER)
    _show(install_node(places, _entry(places, failure_policy)), as_json=as_json)


@app.command(epilog="Example: ackward node uninstall")
def uninstall(
    configuration: Configuration = _CONFIGURATION,
    binaries: Binaries = _BINARIES,
    run_dir: Run = _RUN,
    marker: MarkerFile = _MARKER,
    keep_binary: Annotated[
        bool,
        typer.Option("--keep-binary", help="CRI-O starts it once more for each pod that was made with it"),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Leave the node as it was: the entry first, then marker, pods and sockets, and the binary last.

    The agent must have ended: it would do all again.
    """
    from ackward.node.installing import uninstall_node

    places = _places(configuration, binaries, run_dir, marker)
    _show(uninstall_node(places, keep_binary=keep_binary), as_json=as_json)


@app.command(epilog="Example: ackward node status --json")
def status(
    configuration: Configuration = _CONFIGURATION,
    binaries: Binaries = _BINARIES,
    run_dir: Run = _RUN,
    marker: MarkerFile = _MARKER,
    as_json: AsJson = False,
) -> None:
    """Read back what is so: binary, entry, agent, marker, and each pod as the kernel has it."""
    from ackward.cli.output import data, print_json
    from ackward.node.status import status

    found = status(_places(configuration, binaries, run_dir, marker))
    if as_json:
        print_json(found.model_dump_json(by_alias=True, indent=2))
        return
    for line in _lines(found):
        data.print(line, markup=False, soft_wrap=True)


def _lines(found: NodeStatus) -> list[str]:
    binary = (
        "not there" if not found.binary.present else "there" if found.binary.current else "another version"
    )
    daemon = found.agent.form == "daemon"
    needless = " (this form needs none)" if daemon else ""
    when = "a moment after their start" if daemon else "at once"
    form = f" ({found.agent.form.value} form)" if found.agent.form else ""
    lines = [
        f"ready   {'yes: new pods get' if found.ready else 'no: new pods do not get'} what they ask for {when}",
        *(f"        {part}: {words}" for part, words in found.reasons.items()),
        f"binary  {binary}{needless}: {found.binary.path}",
        f"entry   {found.entry.state.value}{needless}{f': {found.entry.file}' if found.entry.file else ''}",
        f"agent   {'answers' if found.agent.answering else 'does not answer'}{form}: {found.agent.socket}",
        f"marker  {'there' if found.marker.present else 'not there'}: {found.marker.path}",
        f"missed  {found.missed} started while no agent answered, and not reached yet",
        f"pods    {len(found.pods)} on record",
    ]
    for pod in found.pods:
        what = "in force" if pod.alive else "gone"
        if pod.lacking:
            what = f"not in force: {'; '.join(pod.lacking)}"
        lines.append(f"  {pod.pod or pod.container_id} {pod.ifname}: {what}")
    return lines


def _show(done: list[str], *, as_json: bool) -> None:
    from ackward.cli.output import data, print_json

    if as_json:
        from ackward.model.node import NodeChange

        print_json(NodeChange(done=tuple(done)).model_dump_json(by_alias=True, indent=2))
        return
    for words in done:
        data.print(f"{words}.", markup=False, soft_wrap=True)


def _places(configuration: Path, binaries: Path, run_dir: Path, marker: Path) -> Places:
    from ackward.node.places import Places

    for option, path in {
        "--cni-conf-dir": configuration,
        "--cni-bin-dir": binaries,
        "--run-dir": run_dir,
        "--marker": marker,
    }.items():
        if not path.is_absolute():
            raise UsageError(
                f"{option} {str(path)!r} is no absolute path",
                consequence="the runtime looks from another directory; nothing was done",
                next_step="write it from / on",
            )
    return Places(configuration=configuration, binaries=binaries, run=run_dir, marker=marker)


def _entry(places: Places, policy: str | None) -> dict[str, object]:
    from ackward.node import conflist, keeper

    if policy is not None and policy not in keeper.POLICIES:
        raise UsageError(
            f"--failure-policy {policy!r} is neither open nor closed",
            consequence="nothing was done",
            next_step="open lets pods start without the agent, closed does not",
        )
    return conflist.entry(str(places.socket), policy or keeper.policy(places.configuration) or "open")


def _refuse_of_the_daemon_form(given: Mapping[str, object]) -> None:
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                f"{option} is for --no-cni, which was not said",
                consequence="the agent would install the CNI plugin and not ask the API server; nothing was done",
                next_step=f"add --no-cni, or leave {option} out",
            )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(
            f"--listen {text!r} is no address and port",
            consequence="nothing was done",
            next_step="write it as 127.0.0.1:9791 or [::1]:9791",
        )
    return host.strip("[]"), int(port)
