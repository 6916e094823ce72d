"""Where an exit may connect to: nothing unless it is listed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackward.gateway.allow import AllowList, read_rule

LIST = AllowList(
    tuple(map(read_rule, ["10.1.0.0/16:443", "192.0.2.7:8000-8099", "[fd00::/8]:*", "198.51.100.0/24:80"]))
)


@pytest.mark.parametrize(("address", "port"), [
    ("10.1.255.255", 443),
    ("192.0.2.7", 8000),
    ("192.0.2.7", 8099),
    ("fdff::1", 1),
    ("fdff::1", 65535),
])  # fmt: skip
def test_listed(address, port):
    assert LIST.permits(ip_address(address), port)


@pytest.mark.parametrize(("address", "port"), [
    ("10.2.0.0", 443),
    ("10.1.0.1", 444),
    ("10.1.0.1", 0),
    ("192.0.2.7", 7999),
    ("192.0.2.7", 8100),
    ("192.0.2.8", 8000),
    ("fe80::1", 80),
    ("::1", 80),
    ("127.0.0.1", 80),
    ("169.254.169.254", 80),
    ("fdff::1", 0),
    ("::ffff:10.1.0.1", 443),  # the protocol gives such an address as IPv4; as IPv6 it is not listed
])  # fmt: skip
def test_everything_else_is_denied(address, port):
    assert not LIST.permits(ip_address(address), port)
    assert not AllowList().permits(ip_address(address), port)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_empty_list_allows_nothing(address, port):
    assert not AllowList().permits(address, port)


@pytest.mark.parametrize("text", [
    "10.1.0.0/16", "10.1.0.1/16:443", "host:443", "10.1.0.0/33:1", "fd00::/8:80", "10.0.0.1:0", "10.0.0.1:65536",
    "10.0.0.1:90-80", "10.0.0.1:", ":80", "10.0.0.1:80-", "10.0.0.1:-80", "", "[::ffff:0:0/96]:80", "10.0.0.1:\u0661",
])  # fmt: skip
def test_what_is_no_rule_is_said_in_words(text):
    with pytest.raises(ValueError, match=r"\w"):
        read_rule(text)


@pytest.mark.parametrize("text", ["10.1.0.0/16:443", "192.0.2.7/32:8000-8099", "[fd00::/8]:*"])
def test_a_rule_shows_as_it_is_written(text):
    assert str(read_rule(text)) == text
