"""Answers of the kernel's own netlink, as every user may ask for them."""

from __future__ import annotations

import socket
import struct

import pytest

from ackward.errors import Unavailable
from ackward.kernel.namespaces import current
from ackward.kernel.netlink import Netlink

# include/uapi/linux/rtnetlink.h
_RTM_GETLINK, _RTM_GETRULE, _RTM_GETNEXTHOP = 18, 34, 106


def test_a_dump_that_the_kernel_refuses_is_no_empty_list() -> None:
    """It ends with NLMSG_DONE like any other, and with an errno in it (nh_valid_dump_req(), net/ipv4/nexthop.c)."""
    with Netlink(current()) as netlink:
        assert isinstance(netlink.dump(_RTM_GETNEXTHOP, struct.pack("=BBBxI", 0, 0, 0, 0)), list)
        with pytest.raises(Unavailable, match="refused to list objects") as refused:
            netlink.dump(_RTM_GETNEXTHOP, struct.pack("=BBBxI", 0, 0, 0, 1))
    assert "Invalid values in header" in str(refused.value)


def test_a_family_that_the_kernel_does_not_have_has_nothing() -> None:
    """So it is with IPv6 on a kernel that was started without (fib_nl_dumprule(), net/core/fib_rules.c)."""
    with Netlink(current()) as netlink:
        assert netlink.dump(_RTM_GETLINK, bytes(16))
        assert netlink.dump(_RTM_GETRULE, struct.pack("=B11x", socket.AF_APPLETALK)) == []
