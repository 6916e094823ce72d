"""Ends of live connections become flows: of a connection that was watched at both ends one is the client."""

from __future__ import annotations

from ipaddress import ip_address

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from ackward.diagnosis.flows import join
from ackward.model.segments import SEGMENT, Endpoint, FastExchanges, Owner, Recording, SocketFacts

ENDPOINTS = st.builds(
    Endpoint, st.sampled_from([ip_address("10.0.0.1"), ip_address("10.0.0.2")]), st.integers(1, 65535)
)
ROLES = st.tuples(st.booleans(), st.booleans())


def watched(here, there, roles):
    """Both ends of a connection, each with what the recorder says of its role: whether client, and whether seen."""
    ends = ((1, here, there), (2, there, here))
    return tuple(
        SocketFacts(flow, local, remote, *role, Owner(0, None, None, None), FastExchanges())
        for (flow, local, remote), role in zip(ends, roles, strict=True)
    )


def joined(sockets):
    flows, _ = join(Recording(np.zeros(0, SEGMENT), sockets, 1.0, source="live"))
    return list(flows)


@given(ENDPOINTS, ENDPOINTS, st.tuples(ROLES, ROLES), st.booleans())
def test_a_connection_that_was_watched_at_both_ends_has_one_client(here, there, roles, turned):
    """Whatever each end was taken for. What was seen stays, and what was agreed on; the order does not matter."""
    assume(here != there)
    one, other = sockets = watched(here, there, roles)
    [flow] = joined(sockets[::-1] if turned else sockets)
    assert flow.seen_from == "both"
    assert {flow.client_end.flow, flow.server_end.flow} == {1, 2}
    assert (flow.client_end.is_client, flow.server_end.is_client) == (True, False)
    assert (flow.client, flow.server) == (flow.client_end.local, flow.server_end.local)
    first_is_client = flow.client_end.flow == 1
    if one.is_client != other.is_client or one.role_seen > other.role_seen:
        assert first_is_client == one.is_client
    elif other.role_seen > one.role_seen:
        assert first_is_client != other.is_client
    elif here.port != there.port:
        assert flow.server.port < flow.client.port
