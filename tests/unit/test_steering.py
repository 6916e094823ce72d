"""Steering's pure parts: the structs that the kernel reads, and which scopes could hold the same connection."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ackward.model.changes import SocketOption
from ackward.model.scopes import SocketScope
from ackward.remedies.steering.record import SCOPE_SIZE, Note, Record, in_scope, wanted

NODELAY = SocketOption(name="TCP_NODELAY", value=1)
BIT = SocketOption(name="SO_MARK", value=0x100, mask=0x100)
CAP = SocketOption(name="TCP_DELACK_MAX", value=8000)

PORTS = (1, 7, 8, 9)
ADDRESSES = ("10.0.0.1", "10.1.0.1", "192.0.2.1", "fd00::1", "2001:db8::1")
CIDRS = ("10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "::/0", "2001:db8::1/128")

scopes = st.builds(
    SocketScope,
    ports=st.none()
    | st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(lambda pair: (min(pair), max(pair))),
    to=st.none() | st.sampled_from(CIDRS),
)


@given(scopes, scopes)
def test_scopes_that_do_not_overlap_share_no_connection(one: SocketScope, other: SocketScope) -> None:
    first, second = Record.of(1, one, NODELAY), Record.of(1, other, NODELAY)
    assert first.overlaps(second) == second.overlaps(first)
    assert first.overlaps(first)
    # A client's port is picked by its kernel: that it also lies in the other range is allowed for.
    shared = any(
        all(in_scope(scope, ("10.0.0.9", 40000), (address, port), None, ()) for scope in (one, other))
        for port, address in itertools.product(PORTS, ADDRESSES)
    )
    assert first.overlaps(second) or not shared


def test_other_namespaces_options_and_bits_do_not_overlap() -> None:
    scope = SocketScope(ports=(7, 7))
    record = Record.of(1, scope, BIT)
    assert not record.overlaps(Record.of(2, scope, BIT))
    assert not record.overlaps(Record.of(1, scope, NODELAY))
    assert not record.overlaps(record._replace(mask=0x200))


@given(scopes, st.sampled_from([NODELAY, BIT, CAP]))
def test_structs_survive_the_way_to_the_kernel_and_back(scope: SocketScope, option: SocketOption) -> None:
    record = Record.of(1 << 40, scope, option)
    assert len(record.pack()) == SCOPE_SIZE
    assert Record.parse(record.pack()) == record
    assert record.socket_option == option
    assert Note.parse(Note(7, entering=True).pack()) == Note(7, entering=True)


def test_what_a_socket_gets() -> None:
    assert wanted(NODELAY, 0) == 1
    assert wanted(BIT, 0x3) == 0x103
    assert wanted(CAP, 200_000) == 8000
    assert wanted(CAP, 4000) == 4000  # less already: an upper bound
