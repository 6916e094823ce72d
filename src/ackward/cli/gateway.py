"""``ackward gateway``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ackward.cli.output import data, print_json, talk
from ackward.errors import UsageError

if TYPE_CHECKING:
    from ackward.gateway.config import Gateway

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog="Example: ackward gateway run --config /etc/ackward/gateway.toml",
    help="Split TCP over gateways near both ends. docs/gateway.md explains it; `ackward predict split` says whether it "
    "would pay.",
)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Name = Annotated[str | None, typer.Argument(help="which gateway, where several run here")]


@app.command(
    epilog="Examples:\n\nackward gateway run --config /etc/ackward/gateway.toml\n\n"
    "ackward gateway run --listen 0.0.0.0:443 --target app.example:443     one gateway alone"
)
def run(
    config: Annotated[Path | None, typer.Option(help="the configuration, TOML")] = None,
    listen: Annotated[
        str | None, typer.Option(help="one gateway alone: where clients connect", metavar="HOST:PORT")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="... and where their connections go", metavar="HOST:PORT")
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="... and connect a client only once the server has answered")
    ] = False,
    no_early: Annotated[
        bool,
        typer.Option("--no-early", help="... and begin the far connection only once the client is connected"),
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="... and its name, for `status` and `drain`; `gateway` by default")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="only check configuration and keys")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --check: print JSON")] = False,
) -> None:
    """Be a gateway until SIGTERM, which lets open connections finish; a second one ends at once.

    One log line a connection on stdout.

    SIGHUP reads the keys anew, and looks names up. Needs root; --check does not.
    """
    from ackward.gateway.config import load, load_keys

    given = {
        "--listen": listen,
        "--target": target,
        "--faithful": faithful,
        "--no-early": no_early,
        "--name": name,
    }
    flags = [flag for flag, value in given.items() if value]
    if config is None:
        gateway = _of_flags(listen, target, name, faithful=faithful, early=not no_early)
    else:
        gateway = load(_alone(config, flags))
    if as_json and not check:
        raise _json_is_for_check()
    if check:
        keys = load_keys(gateway)
        if as_json:
            ids = {peer: [key.identity.hex() for key in several] for peer, several in keys.items()}
            print_json(json.dumps({"name": gateway.name, "keys": ids}))
        else:
            data.print(f"{gateway.name}: configuration and keys are good", markup=False)
        return
    from ackward.gateway.service import run as serve

    serve(
        gateway,
        reread=None if config is None else lambda: load(config),
        ready=lambda: talk.print(f"gateway {gateway.name} is running; Ctrl-C drains it", markup=False),
    )


def _alone(config: Path, flags: Sequence[str]) -> Path:
    """The configuration, if nothing on the command line asks for something else."""
    if flags:
        raise UsageError(
            f"{', '.join(flags)}: for one gateway alone, without --config",
            consequence="nothing was started",
            next_step="write it into the configuration: listen.N.address, .target, .answer, steps.early, name",
        )
    return config


def _json_is_for_check() -> UsageError:
    return UsageError(
        "--json is for --check: the log of a gateway that runs is lines of key=value",
        consequence="nothing was started",
        next_step="leave it out; `ackward gateway status --json` tells what the gateway does",
    )


def _of_flags(
    listen: str | None, target: str | None, name: str | None, *, faithful: bool, early: bool
) -> Gateway:
    from ackward.gateway.config import check

    if bool(listen) != bool(target):
        one, other = ("--listen", "--target") if listen else ("--target", "--listen")
        raise UsageError(
            f"{one} needs {other}",
            consequence="nothing was started",
            next_step="`ackward gateway run --listen HOST:PORT --target HOST:PORT`",
        )
    if not listen:
        raise UsageError(
            "neither --config nor --listen says what to do",
            consequence="nothing was started",
            next_step="`ackward gateway run --config gateway.toml`, or --listen HOST:PORT --target HOST:PORT",
        )
    entrance = {"address": listen, "target": target, "answer": "faithful" if faithful else "optimistic"}
    given: dict[str, object] = {"steps": {"early": early}, "listen": [entrance]}
    return check(given | ({"name": name} if name is not None else {}), Path("command line"))


@app.command(epilog="Example: ackward gateway status --json | jq .counters")
def status(name: Name = None, as_json: AsJson = False) -> None:
    """What a running gateway does: connections, legs, pool, how connections ended. Root only."""
    from ackward.gateway.control import ask
    from ackward.gateway.shown import Beside, lines
    from ackward.model.gateway_status import GatewayStatus

    seen = GatewayStatus.model_validate(ask(name, "status"))
    if as_json:
        print_json(seen.to_json())
        return
    for line in lines(seen, Beside.model_validate(ask(seen.name, "beside"))):
        data.print(line, markup=False, soft_wrap=True)


@app.command(epilog="Example: ackward gateway drain")
def drain(name: Name = None, as_json: AsJson = False) -> None:
    """Take no new connections and end when the old ones have; what SIGTERM does. Does not wait. Root only."""
    from ackward.gateway.control import ask

    answer = ask(name, "drain")
    if as_json:
        print_json(json.dumps(answer))
    else:
        talk.print("draining; `ackward gateway status` shows what is still open")


@app.command(epilog="Example: ackward gateway key /etc/ackward/blr.key")
def key(path: Annotated[Path, typer.Argument(help="the new file")], as_json: AsJson = False) -> None:
    """Make a key for two gateways: a file to be copied to the other one over a safe way."""
    from ackward.gateway.keys import make_key

    made = make_key(path)
    if as_json:
        print_json(json.dumps({"path": str(path), "id": made.identity.hex()}))
    else:
        data.print(f"{path}: key {made.identity.hex()}", markup=False)
