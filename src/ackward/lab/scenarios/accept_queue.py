"""The server's accept queue is full, so the kernel drops the SYN (sk_acceptq_is_full() in tcp_conn_request()).

The client alone cannot tell this from a SYN that was lost on the way.
"""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="accept-queue",
    summary="the server does not accept and its queue is full: the SYN is dropped and sent again after a second",
    shape=Shape(nagle=False, reconnect=True, rounds=4, backlog=0, accept_rest=300, crowd=2, rest=400),
    cause=Cause.ACCEPT_QUEUE,
    delaying_end=End.SERVER,
    also=(Excuse(Cause.HANDSHAKE),),
    seen_from={End.CLIENT: Cause.RETRANSMISSION_TIMEOUT},
    calm=("backlog=255", "accept_rest=0", "crowd=0", "rest=0"),
    margin=200,
)
