"""Pinning without privileges: what is refused, which bits of the mark are free, and asyncio's reads."""

from __future__ import annotations

import asyncio
import json
import platform
import socket
import subprocess
import sys
from contextlib import closing
from itertools import pairwise

import pytest

import ackward
from ackward.errors import AckwardError, Unavailable, UsageError
from ackward.kernel import marks, own_socket
from ackward.kernel.route_message import TABLE_MAIN
from ackward.kernel.rules import Rule
from ackward.loop.pinning import Means
from ackward.loop.rearming import rearming
from ackward.model.pins import KeeperStarted, MarkRuleAdded, ProcessPins
from ackward.model.plan import NamespaceIdentity, Plan, Refusal
from ackward.remedies.pin.plan import Marks, plan
from ackward.remedies.quickack.plan import Facts


class TestRefusals:
    """What has no ACKs of its own is refused, and what cannot be had is said."""

    def test_sockets_that_are_not_tcp(self) -> None:
        for made in (socket.socket(type=socket.SOCK_DGRAM), *socket.socketpair()):
            with made, pytest.raises(UsageError, match="no TCP socket"):
                ackward.pin_quickack(made)

    def test_a_closed_socket(self) -> None:
        closed = socket.socket()
        closed.close()
        with pytest.raises(UsageError, match="closed"):
            ackward.pin_quickack(closed)

    def test_mptcp(self) -> None:
        try:
            made = socket.socket(proto=262)
        except OSError as error:
            pytest.skip(f"probe failed: no MPTCP here ({error})")
        with made, pytest.raises(UsageError, match="MPTCP"):
            ackward.pin_quickack(made)

    def test_a_means_that_does_not_exist(self) -> None:
        with socket.socket() as made, pytest.raises(UsageError, match="no means 'quick'") as caught:
            ackward.pin_quickack(made, means="quick")
        assert "delack-max" in caught.value.next_step

    def test_a_means_that_was_forbidden(self) -> None:
        with socket.socket() as made, pytest.raises(UsageError, match="forbids"):
            ackward.pin_quickack(made, means="mark", change_host=False)

    def test_a_route_without_a_peer(self) -> None:
        with socket.socket() as made, pytest.raises(AckwardError, match="no peer"):
            ackward.pin_quickack(made, means=Means.ROUTE)

    def test_a_kernel_without_the_option(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(own_socket, "TCP_DELACK_MAX_US", 250)  # a number that no kernel has
        with socket.socket() as made:
            with pytest.raises(Unavailable, match="TCP_DELACK_MAX_US"):
                ackward.pin_quickack(made, means=Means.DELACK_MAX)
            pinned = ackward.pin_quickack(made, change_host=False)
        assert pinned.means is Means.REARM
        assert pinned.delay_ns == 200_000_000
        assert "not by delack-max: this kernel has no TCP_DELACK_MAX_US" in pinned.why


#: No netlink from here on, as systemd's RestrictAddressFamilies=AF_INET does it: seccomp(2) with struct sock_filter
#: (load the call's number, socket(2)? load its first argument, AF_NETLINK? give EAFNOSUPPORT).
_WITHOUT_NETLINK = """
import ctypes, errno, platform, socket, struct
number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, 16),
        (0x06, 0, 0, 0x50000 | errno.EAFNOSUPPORT), (0x06, 0, 0, 0x7FFF0000)]
instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
program = ctypes.create_string_buffer(struct.pack("=H6xQ", len(code), ctypes.addressof(instructions)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert libc.prctl(22, 2, program) == 0, "PR_SET_SECCOMP"

import ackward
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
pinned = ackward.pin_quickack(client)
print(pinned.means.value, "|", pinned.why)
try:
    ackward.pin_quickack(client, means="route")
except ackward.errors.Unavailable as error:
    print(error)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="socket(2)'s number is not known")
def test_without_netlink_the_strongest_means_that_works_is_taken() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NETLINK], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    taken, refused = done.stdout.splitlines()
    assert taken.startswith(("delack-max", "rearm"))
    assert "not by route: Address family not supported" in taken
    assert "cannot be pinned by route (Address family not supported" in refused


def test_what_is_set_is_taken_back_and_file_flags_stay() -> None:
    with socket.socket(socket.AF_INET6) as made:
        before = own_socket.delack_max_us(made)
        if before is None:
            pytest.skip("probe failed: no TCP_DELACK_MAX_US")
        made.setblocking(False)
        with ackward.pin_quickack(made, change_host=False) as pinned:
            assert pinned.means is Means.DELACK_MAX
            assert own_socket.delack_max_us(made) < before
            assert pinned.receipt is None
        assert own_socket.delack_max_us(made) == before
        assert not made.getblocking()


def test_what_somebody_set_since_is_left() -> None:
    with socket.socket() as made:
        if own_socket.delack_max_us(made) is None:
            pytest.skip("probe failed: no TCP_DELACK_MAX_US")
        pinned = ackward.pin_quickack(made, change_host=False)
        own_socket.set_delack_max_us(made, 100_000)
        pinned.close()
        assert own_socket.delack_max_us(made) == 100_000


def test_a_socket_closed_before_its_pin() -> None:
    made = socket.socket()
    pinned = ackward.pin_quickack(made, change_host=False)
    made.close()
    pinned.rearm()
    pinned.close()


class TestMarks:
    """Bits that rules test or set are claimed; whole numbers claim their bits; what cannot be told claims all."""

    @pytest.mark.parametrize(
        ("value", "mask", "bits"),
        [
            (0x4000, 0x4000, 0x4000),
            (0x200, 0xF00, 0xF00),
            (0xCA6C, marks.ALL, 0xCA6C),
            (0, marks.ALL, marks.ALL),
        ],
    )
    def test_claims(self, value: int, mask: int, bits: int) -> None:
        assert marks.claim(value, mask) == bits

    def test_iptables(self) -> None:
        saved = """
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A cali-PREROUTING -j CONNMARK --restore-mark --nfmask 0xffff0000 --ctmask 0xffff0000
-A INPUT -p tcp --dport 22 -j ACCEPT
"""
        assert marks.of_iptables(saved) == 0xFFFF4000

    @pytest.mark.parametrize(
        ("statement", "bits"),
        [
            ({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 7}}, 7),
            ({"match": {"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, 3840]}, "right": 512}}, 3840),
            ({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": {"set": [1, 4]}}}, 5),
            ({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": {"range": [1, 9]}}}, 15),
            ({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": "@marks"}}, marks.ALL),
            ({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 0}}, marks.ALL),
            ({"mangle": {"key": {"meta": {"key": "mark"}}, "value": 64}}, 64),
            (
                {
                    "mangle": {
                        "key": {"meta": {"key": "mark"}},
                        "value": {"|": [{"&": [{"meta": {"key": "mark"}}, 0xFFFFBFFF]}, 0x4000]},
                    }
                },
                0x4000,
            ),
            ({"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"ct": {"key": "mark"}}}}, 0),
            ({"vmap": {"key": {"meta": {"key": "mark"}}, "data": "@verdicts"}}, marks.ALL),
            ({"xt": {"type": "match", "name": "mark"}}, marks.ALL),
            ({"xt": {"type": "match", "name": "tcp"}}, 0),
            ({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, 0),
            ({"accept": None}, 0),
        ],
    )
    def test_nftables(self, statement: dict, bits: int) -> None:
        document = {"nftables": [{"metainfo": {}}, {"rule": {"expr": [statement]}}]}
        assert marks.of_nftables(json.dumps(document)) == bits

    def test_the_first_free_candidate_is_taken(self) -> None:
        assert marks.free(0) == marks.CANDIDATES[0]
        for taken, following in pairwise(marks.CANDIDATES):
            bits = sum(marks.CANDIDATES[: marks.CANDIDATES.index(taken) + 1])
            assert marks.free(bits) == following
        assert marks.free(marks.ALL) is None


NAMESPACE = NamespaceIdentity(name="here", path="/proc/self/ns/net", inode=1, cookie=1)
SCOPE = ProcessPins(pid=7, start_time=70)


def facts(*rules: Rule) -> Facts:
    return Facts(NAMESPACE, routes=(), rules=rules, interfaces={})


MAIN = (Rule(4, 32766, TABLE_MAIN), Rule(6, 32766, TABLE_MAIN))


class TestPlan:
    """One rule a family before main, what it leads to first, the keeper before all."""

    def test_a_plan(self) -> None:
        made = plan(facts(*MAIN), Marks(0, {}), SCOPE)
        assert isinstance(made, Plan)
        assert isinstance(made.changes[0], KeeperStarted)
        rules = [change for change in made.changes if isinstance(change, MarkRuleAdded)]
        assert [(rule.family, rule.preference, rule.bit) for rule in rules] == [
            (4, 32765, marks.CANDIDATES[0]),
            (6, 32765, marks.CANDIDATES[0]),
        ]
        kinds = [change.kind for change in made.changes]
        assert kinds.index("table-mirrored") < kinds.index("mark-rule-added") < kinds.index("follower")

    def test_the_bit_of_another_process_is_shared(self) -> None:
        made = plan(facts(*MAIN), Marks(0, {4: marks.CANDIDATES[3]}), SCOPE)
        assert isinstance(made, Plan)
        assert {change.bit for change in made.changes if isinstance(change, MarkRuleAdded)} == {
            marks.CANDIDATES[3]
        }

    @pytest.mark.parametrize(
        ("rules", "claimed", "reason"),
        [
            (MAIN, marks.ALL, "no bit of the packet mark is free"),
            ((), 0, "no policy routing rules"),
            ((Rule(4, 32766, 77),), 0, "no IPv4 rule"),
        ],
    )
    def test_refusals(self, rules: tuple[Rule, ...], claimed: int, reason: str) -> None:
        refused = plan(facts(*rules), Marks(claimed, {}), SCOPE)
        assert isinstance(refused, Refusal)
        assert reason in refused.reason


class TestAsyncio:
    """Every read of a transport is followed by a re-arm; nothing else changes for the protocol inside."""

    def test_reads_of_a_stream_are_followed(self) -> None:
        heard: list[str] = []

        async def talk() -> bytes:
            mine, theirs = socket.socketpair()
            with closing(theirs):
                reader, writer = await asyncio.open_connection(sock=mine)
                writer.transport.set_protocol(
                    rearming(writer.transport.get_protocol(), lambda: heard.append("read"))
                )
                theirs.send(b"one")
                got = await reader.readexactly(3)
                writer.write(b"two")
                await writer.drain()
                got += theirs.recv(3)
                theirs.shutdown(socket.SHUT_WR)
                got += await reader.read()
                writer.close()
                await writer.wait_closed()
                return got

        assert asyncio.run(talk()) == b"onetwo"
        assert heard == ["read"]

    def test_a_protocol_with_its_own_buffers_is_refused(self) -> None:
        with pytest.raises(UsageError, match="BufferedProtocol"):
            rearming(asyncio.BufferedProtocol(), lambda: None)
