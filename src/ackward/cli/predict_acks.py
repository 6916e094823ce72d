"""``ackward predict acks``; ``cli/predict.py`` registers :func:`acks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ackward.cli.arguments import duration_ns
from ackward.cli.output import data, print_json, talk, write_file
from ackward.errors import UsageError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from ackward.model.prediction import AckSettings

EPILOG = """Examples:\n\n
ackward predict acks --rtt 0.2ms                                         a request in two writes: the 40 ms standoff\n\n
ackward predict acks --rtt 0.2ms --quickack on                           the same with the remedy\n\n
ackward predict acks --rtt 0.2ms --threshold 16 --inflight 8             Onload's receiver and the sender's probes\n\n
ackward predict acks --rtt 0.2ms --writes 100 --nagle off --think 30ms --rto-min 5ms    the reverse trap\n\n
ackward predict acks --rtt 0.2ms --ladder standoff.svg --json            a picture, and every number\n\n
What the model takes for granted: docs/predict.md."""

#: What a user may have written that the model refused, by the model's own name for it.
_OPTIONS = {
    "rtt_ns": "--rtt",
    "delack_ns": "--delack",
    "rto_min_ns": "--rto-min",
    "think_ns": "--think",
    "rest_ns": "--rest",
    "tick_ns": "--hz",
    "pingpong_threshold": "--pingpong-thresh",
}
_SECOND = 1_000_000_000


def acks(
    rtt: Annotated[str, typer.Option(help="round trip of the path")],
    writes: Annotated[
        str | None, typer.Option(help="bytes of each write of one message (100,200 unless given)")
    ] = None,
    inflight: Annotated[
        int | None, typer.Option(help="instead of --writes: full segments of one message, in one write")
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            help="bytes of each write of the answer; 0: none, the next message follows the last ACK "
            "(100 unless given, 0 with --inflight)"
        ),
    ] = None,
    nagle: Annotated[str, typer.Option(help="client: on or off (TCP_NODELAY)")] = "on",
    tlp: Annotated[str, typer.Option(help="tail-loss probes: on or off (tcp_early_retrans 0)")] = "on",
    rto_min: Annotated[str, typer.Option(help="client: smallest retransmission timeout")] = "200ms",
    cwnd: Annotated[int, typer.Option(help="both: initial congestion window, segments")] = 10,
    delack: Annotated[str, typer.Option(help="server: how long it holds an ACK at most")] = "40ms",
    threshold: Annotated[
        int,
        typer.Option(
            help="server: an ACK after so many segments (EF_DYNAMIC_ACK_THRESH); 0: Linux's own rules"
        ),
    ] = 0,
    quickack: Annotated[str, typer.Option(help="server: on or off (its route has quickack 1)")] = "off",
    quick: Annotated[int, typer.Option(help="server: budget of quick ACKs at the start, up to 16")] = 16,
    pingpong_thresh: Annotated[int, typer.Option(help="both: net.ipv4.tcp_pingpong_thresh")] = 1,
    server_nagle: Annotated[str, typer.Option(help="server: on or off")] = "off",
    think: Annotated[str, typer.Option(help="server: time from a whole message to its answer")] = "0ms",
    rest: Annotated[str, typer.Option(help="client: time between two rounds")] = "0ms",
    mss: Annotated[int, typer.Option(help="bytes of a full segment")] = 1448,
    rounds: Annotated[int, typer.Option(help="messages on one connection")] = 8,
    hz: Annotated[
        int, typer.Option(help="ticks a second of both kernels; 0: timers that fire exactly")
    ] = 250,
    ladder: Annotated[Path | None, typer.Option(help="write a typical round as a picture (SVG)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON (ackward/prediction/1)")] = False,
) -> None:
    """Predict what Nagle, probes and timeouts at the client and the ACK policy of the server do to each other.

    A model: no kernel, no privileges, nothing is sent. Says who waits for whom, and what would avoid it.
    """
    from ackward.predict.acks import predict

    if ladder and ladder.suffix != ".svg":
        raise UsageError(
            f"--ladder {ladder} is no SVG file",
            consequence="nothing was written",
            next_step="name a file that ends in .svg",
        )
    if writes and inflight is not None:
        raise UsageError(
            "--writes and --inflight both say what a message is",
            consequence="nothing was predicted",
            next_step="give one of them",
        )
    if inflight is not None and not 1 <= inflight <= 4_000:
        raise UsageError(
            f"--inflight {inflight} is not between 1 and 4000",
            consequence="nothing was predicted",
            next_step="give a number of segments",
        )
    if hz and not 100 <= hz <= 10_000:
        raise UsageError(
            f"--hz {hz} is not between 100 and 10000",
            consequence="nothing was predicted",
            next_step="usual are 100, 250, 300 and 1000",
        )
    prediction = predict(
        _settings(
            rtt_ns=duration_ns(rtt, "--rtt"),
            writes=_sizes(writes or "100,200", "--writes") if inflight is None else (inflight * mss,),
            answer=_sizes(answer or ("100" if inflight is None else "0"), "--answer"),
            nagle=_switch(nagle, "--nagle"),
            tlp=_switch(tlp, "--tlp"),
            rto_min_ns=duration_ns(rto_min, "--rto-min"),
            cwnd=cwnd,
            delack_ns=duration_ns(delack, "--delack"),
            threshold=threshold,
            quickack=_switch(quickack, "--quickack"),
            quick=quick,
            pingpong_threshold=pingpong_thresh,
            server_nagle=_switch(server_nagle, "--server-nagle"),
            think_ns=duration_ns(think, "--think"),
            rest_ns=duration_ns(rest, "--rest"),
            mss=mss,
            rounds=rounds,
            tick_ns=round(_SECOND / hz) if hz else 0,
        )
    )
    if ladder:
        from ackward.report.prediction_ladder import picture

        write_file(ladder, picture(prediction))
    if as_json:
        print_json(prediction.to_json())
    else:
        from ackward.report.prediction import view

        data.print(view(prediction))
    if ladder:
        talk.print(f"ladder: {ladder}", markup=False)


def _settings(**given: Any) -> AckSettings:
    """The settings, or a :class:`UsageError` in the words of the command line."""
    from pydantic import ValidationError

    from ackward.model.prediction import AckSettings

    try:
        return AckSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        option = _OPTIONS.get(field, f"--{field.replace('_', '-')}")
        raise UsageError(
            f"{option}: {_limit(field, first)}" if field else first["msg"].removeprefix("Value error, "),
            consequence="nothing was predicted",
            next_step="`ackward predict acks --help` shows what it takes",
        ) from error


def _limit(field: str, error: ErrorDetails) -> str:
    """What the model refused, times in the units that people write."""
    from ackward.model.units import duration

    for name, words in (("ge", "at least"), ("le", "at most")):
        if name in error.get("ctx", {}):
            limit = error["ctx"][name]
            return f"{words} {duration(limit) if field.endswith('_ns') else limit}"
    return error["msg"]


def _sizes(text: str, option: str) -> tuple[int, ...]:
    if option == "--answer" and text.strip() == "0":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r} is no list of sizes",
            consequence="nothing was predicted",
            next_step="give bytes with commas between: 100,200",
        ) from error


def _switch(text: str, option: str) -> bool:
    if text not in ("on", "off"):
        raise UsageError(
            f"{option} {text!r} is neither on nor off",
            consequence="nothing was predicted",
            next_step=f"say {option} on or {option} off",
        )
    return text == "on"
