"""``ackward predict split``; ``cli/predict.py`` registers :func:`split`."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ackward.cli.arguments import duration_ns, rate_bits, share, size_bytes
from ackward.cli.output import data, print_json, talk, write_file
from ackward.errors import UsageError

if TYPE_CHECKING:
    from ackward.predict.split import Leg

EPILOG = """Examples:\n\n
ackward predict split --legs 28ms,214ms,32ms --size 50MB --bandwidth 1Gb/s     two gateways\n\n
ackward predict split --legs 28ms,214ms,32ms --direct 260ms --size 43kB        the direct path is shorter\n\n
ackward predict split --legs 28ms,214ms,32ms --size 50MB --loss 1%             on the last mile, the client's leg\n\n
ackward predict split --legs 28ms,214ms,32ms --size 50MB --ladder ocean.svg    who sends what when, as a picture\n\n
Times count from the client's SYN. What the model takes for granted: docs/predict.md."""


def split(
    legs: Annotated[
        str, typer.Option(help="round trips from the client over each gateway to the server: 28ms,214ms,32ms")
    ],
    size: Annotated[str, typer.Option(help="bytes of the answer: 1kB, 50MB")] = "50MB",
    direct: Annotated[
        str | None,
        typer.Option(help="round trip without gateways; as long as the legs together unless given"),
    ] = None,
    bandwidth: Annotated[str | None, typer.Option(help="of each leg: 1Gb/s; no limit unless given")] = None,
    iw: Annotated[int, typer.Option("--iw", help="initial congestion window, segments")] = 10,
    loss: Annotated[
        str,
        typer.Option(help="share of segments lost on the client's leg (1%), or one share a leg (1%,0,0.1%)"),
    ] = "0",
    receive_window: Annotated[
        str, typer.Option(help="what a receiver lets be in flight; the pooled legs have room for all")
    ] = "3MiB",
    ladder: Annotated[
        Path | None, typer.Option(help="write the messages of a small answer as a picture (SVG)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON (ackward/split/1)")] = False,
) -> None:
    """Predict handshake, first byte and download, directly and over gateways that split TCP; says if it would not pay.

    A model: no kernel, no privileges, nothing is sent.
    """
    from ackward.predict.split import Transfer, predict

    if ladder and ladder.suffix != ".svg":
        raise UsageError(
            f"--ladder {ladder} is no SVG file",
            consequence="nothing was written",
            next_step="name a file that ends in .svg",
        )
    prediction = predict(
        Transfer(
            legs=_chain(legs, loss),
            size=size_bytes(size, "--size"),
            direct_ns=None if direct is None else duration_ns(direct, "--direct"),
            bandwidth=None if bandwidth is None else rate_bits(bandwidth, "--bandwidth"),
            initial_window=iw,
            receive_window=size_bytes(receive_window, "--receive-window"),
        )
    )
    if ladder:
        from ackward.report.split_ladder import draw

        write_file(ladder, draw(prediction))
    if as_json:
        print_json(prediction.to_json())
    else:
        from ackward.report.split_table import advice, lines

        data.print("\n".join(lines(prediction)), soft_wrap=True)
        style = "bold green" if prediction.advice.split else "bold yellow"
        verdict, *notes = advice(prediction)
        data.print(Text(f"\n{verdict}", style=style), soft_wrap=True)
        for note in notes:
            data.print(Text(note), soft_wrap=True)
    if ladder:
        talk.print(f"ladder: {ladder}", markup=False)


def _chain(legs: str, loss: str) -> tuple[Leg, ...]:
    """The legs as they were written; raises :class:`UsageError` where they make no chain."""
    from ackward.predict.split import Leg

    times = [duration_ns(text, f"--legs (leg {number})") for number, text in enumerate(legs.split(","), 1)]
    shares = [share(text, "--loss") for text in loss.split(",")]
    if len(times) < 2:
        raise UsageError(
            f"--legs {legs} is one leg: there is no gateway on it",
            consequence="nothing was predicted",
            next_step="name the round trips from client to gateway, from gateway to gateway, and to the server: "
            "--legs 28ms,214ms,32ms",
        )
    if len(shares) not in (1, len(times)):
        raise UsageError(
            f"--loss names {len(shares)} shares for {len(times)} legs",
            consequence="nothing was predicted",
            next_step="name one share, for the client's leg, or one for each leg",
        )
    return tuple(Leg(time, lost) for time, lost in zip_longest(times, shares, fillvalue=0))
