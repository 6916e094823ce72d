"""``ackward predict``: one module a model; each imports its model when it is called."""

from __future__ import annotations

import typer

from ackward.cli import predict_acks, predict_split

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="What a model says without a kernel: no privileges, nothing is sent.",
    epilog="Example: ackward predict acks --rtt 0.2ms",
)
app.command("acks", epilog=predict_acks.EPILOG)(predict_acks.acks)
app.command("split", epilog=predict_split.EPILOG)(predict_split.split)
