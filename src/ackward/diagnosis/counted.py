"""The partition of exchanges that were too fast to be recorded one by one: sums instead of events.

The recorder counts four phases a flow (:class:`FastExchanges`). What a phase may be put down to is the same as for a
recorded exchange of that vantage: no exchange here was slow enough to hide a stall that would be worth a finding.
"""

from __future__ import annotations

from dataclasses import dataclass

from ackward.diagnosis.flows import Flow
from ackward.model.causes import Cause


@dataclass(frozen=True)
class Counted:
    """``causes`` add up to ``elapsed_ns``."""

    exchanges: int
    elapsed_ns: int
    causes: dict[Cause, int]


def counted(flow: Flow) -> Counted:
    """One flow's fast exchanges. The client's count decides where both ends were watched."""
    end = flow.client_end or flow.server_end
    if end is None or not end.fast.count:
        return Counted(0, 0, {})
    fast = end.fast
    round_trips = fast.count * flow.min_rtt_ns
    if flow.client_end:
        network = min(round_trips, fast.wait_ns)
        waited = fast.wait_ns - network
        # The server's own clock says how much of the wait was its program's.
        theirs = flow.server_end.fast if flow.server_end else None
        server = min(waited, theirs.wait_ns) if theirs and theirs.count >= fast.count else waited
        causes = {
            Cause.HANDSHAKE: fast.handshake_ns,
            Cause.CLIENT: fast.request_ns,
            Cause.NETWORK: network + waited - server,
            Cause.SERVER: server,
            Cause.UNKNOWN: fast.response_ns,
        }
    else:
        causes = {
            Cause.HANDSHAKE: fast.handshake_ns,
            Cause.CLIENT: fast.request_ns,
            Cause.NETWORK: round_trips,
            Cause.SERVER: fast.wait_ns,
            Cause.UNKNOWN: fast.response_ns,
        }
    return Counted(fast.count, sum(causes.values()), {cause: ns for cause, ns in causes.items() if ns})
