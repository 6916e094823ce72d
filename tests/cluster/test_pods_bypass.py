"""The annotation ackward.io/bypass: asked for by a pod, taken only where it was tried, and gone with the pod."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cluster.cni_runtime import IFNAME, Agent, Chain, pod
from tests.kernel.bpf_file_system import bpf_file_system
from tests.kernel.bypass_hosts import HANGS, connect, listener
from tests.kernel.quickack_hosts import ip

from ackward.kernel.namespaces import Namespace
from ackward.model.bypass import Capabilities, Finding, Hazard, Outcome
from ackward.node import pods as pods_module
from ackward.remedies import receipts
from ackward.remedies.bypass import capabilities
from ackward.remedies.bypass.pinned import PinnedEngine, all_pinned
from ackward.remedies.transaction import identify

ASKS = {"ackward.io/bypass": "7000-7010"}
RESULT = {"cniVersion": "1.0.0"}
ADDRESS = "198.19.7.{}"


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the self-test found is a file beside the receipts: here it is the test that says so."""
    monkeypatch.setattr(receipts, "DIRECTORY", tmp_path / "ackward")
    with bpf_file_system():
        yield


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """Two pods of a node, wired to each other."""
    with pod("one") as one, pod("two") as two:
        ip(one, "link", "add", IFNAME, "type", "veth", "peer", "name", IFNAME, "netns", two.name)
        for number, here in enumerate((one, two), start=1):
            ip(here, "link", "set", IFNAME, "up")
            ip(here, "addr", "add", f"{ADDRESS.format(number)}/24", "dev", IFNAME)
        yield one, two


def tried(*differing: Hazard) -> None:
    """As if the self-test had found no other difference: what joined connections really do is tests/kernel's to say."""
    capabilities.store(
        Capabilities(
            kernel=os.uname().release,
            boot_id=receipts.boot_id(),
            engine=capabilities.build(),
            tried=dt.datetime.now(dt.UTC).isoformat(),
            findings=tuple(
                Finding(
                    hazard=hazard,
                    outcome=Outcome.DIFFERS if hazard in differing else Outcome.SAME,
                    measured="as told",
                )
                for hazard in Hazard
            ),
        )
    )


def of(here: Namespace) -> list[PinnedEngine]:
    """The engines of a pod."""
    cookie = identify(here).cookie
    return [pinned for pinned in all_pinned() if pinned.netns == cookie]


def joined(here: Namespace) -> int:
    """How many connections of a pod have joined ever."""
    (pinned,) = of(here)
    with pinned.engine() as engine:
        return engine.counters().joined


def converse(server: Namespace, client: Namespace, address: str, count: int) -> None:
    """Connections whose ends take turns, as a service shows that a bypass is worth it; every byte arrives."""
    with ExitStack() as closing:
        listening = closing.enter_context(listener(server, address, 7000))
        for _ in range(count):
            near = closing.enter_context(connect(client, address, 7000))
            far = closing.enter_context(listening.accept()[0])
            for end in (near, far):
                end.setblocking(False)
            for turn in range(100):
                for writer, reader in ((near, far), (far, near)):
                    writer.sendall(b"%04d" % turn)
                    assert arrived(reader, 4) == b"%04d" % turn


def arrived(reader: socket.socket, count: int) -> bytes:
    """So many bytes, polled for: a reader that blocks may not join."""
    data, deadline = b"", time.monotonic() + HANGS
    while len(data) < count:
        assert time.monotonic() < deadline, data
        with contextlib.suppress(BlockingIOError):
            data += reader.recv(count - len(data))
    return data


def test_a_pods_connections_within_the_node_join_and_all_is_gone_with_it(
    agent: Agent, pair: tuple[Namespace, Namespace]
) -> None:
    tried()
    one, two = pair
    chain = Chain(one, "podnet", "1.0.0", [agent.entry])
    chain.add(one, ASKS, RESULT)
    assert (agent.served[-1].problems, agent.served[-1].complaints) == ((), ())
    assert "ports 7000-7010" in agent.served[-1].changed[0]
    chain.check(one, ASKS)
    converse(one, two, ADDRESS.format(1), 40)
    assert joined(one) > 0
    chain.add(two, ASKS, RESULT)  # a connection of two pods that both ask
    converse(two, one, ADDRESS.format(2), 40)
    assert joined(one) + joined(two) > 0
    chain.add(one, ASKS, RESULT)  # the same again
    assert len(of(one)) == 1
    for here in pair:
        chain.delete(here)
        assert of(here) == []


def test_without_a_trial_of_this_kernel_the_pod_starts_on_tcp(
    agent: Agent, pair: tuple[Namespace, Namespace]
) -> None:
    one, _ = pair
    chain = Chain(one, "podnet", "1.0.0", [agent.entry])
    chain.add(one, ASKS, RESULT)
    (problem,) = agent.served[-1].problems
    assert "was not tried yet" in problem
    assert "doctor --self-test" in problem
    assert of(one) == []
    chain.delete(one)


def test_a_difference_keeps_it_out_unless_the_pod_accepts_it_by_name(
    agent: Agent, pair: tuple[Namespace, Namespace]
) -> None:
    tried(Hazard.SPLICE, Hazard.OOB)
    one, _ = pair
    chain = Chain(one, "podnet", "1.0.0", [agent.entry])
    chain.add(one, {**ASKS, "ackward.io/bypass-accept": "oob"}, RESULT)
    assert "differs from TCP in splice" in agent.served[-1].problems[0]
    assert of(one) == []
    chain.add(one, {**ASKS, "ackward.io/bypass-accept": "oob,splice"}, RESULT)
    assert agent.served[-1].problems == ()
    assert len(of(one)) == 1
    chain.delete(one)
    assert of(one) == []


def test_pods_do_not_take_all_the_hooks_of_a_node(
    agent: Agent, pair: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried()
    one, two = pair
    chain = Chain(one, "podnet", "1.0.0", [agent.entry])
    chain.add(one, ASKS, RESULT)
    monkeypatch.setattr(pods_module, "_MOST_BYPASSED", 0)
    chain.add(two, ASKS, RESULT)
    assert "in force on this node already" in agent.served[-1].problems[0]
    assert of(two) == []
    chain.add(one, ASKS, RESULT)
    assert agent.served[-1].problems == (), "who has one keeps it"
    for here in pair:
        chain.delete(here)
