"""A client that stops reading for 150 ms with a small buffer: the server may send nothing."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="zero-window",
    summary="the client's small buffer is full and it does not read: zero window",
    shape=Shape(
        nagle=False, answer=60_000, receive_buffer=8192, read_pause=150, rounds=8, congestion="cubic"
    ),
    cause=Cause.RECEIVE_WINDOW,
    holding_end=End.SERVER,
    delaying_end=End.CLIENT,
    calm=("read_pause=0",),
    margin=50,
)
