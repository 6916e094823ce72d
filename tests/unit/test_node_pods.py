"""What becomes of a pod's wishes when the kernel refuses one of them."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ackward import remedies
from ackward.kernel.namespaces import Namespace, current
from ackward.model.plan import Plan
from ackward.model.scopes import Scope
from ackward.node import pods
from ackward.node.pods import Attachment, Pods
from ackward.remedies.transaction import Remedy, identify

ASKS = Attachment(
    container_id="0123abcd",
    ifname="eth0",
    netns="/run/netns/pod",
    annotations={"enable-quickack": "yes", "ackward.io/initcwnd": "40"},
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """Where they would be applied: quickack meets a device that has gone, initcwnd has nothing to change."""
    here = current()

    def no_device(_: Namespace, __: Scope) -> Plan:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/sys/class/net/eth0")

    def needless(namespace: Namespace, scope: Scope) -> Plan:
        return Plan(
            remedy="initcwnd", namespace=identify(namespace), scope=scope, changes=(), notes=("is so",)
        )

    def load(name: str) -> Remedy:
        return replace(found[name], plan=no_device if name == "quickack" else needless)

    found = {name: remedies.load(name) for name in ("quickack", "initcwnd")}
    monkeypatch.setattr(remedies, "load", load)
    monkeypatch.setattr(pods, "_enterable", lambda _: here)
    return here


def test_a_remedy_that_fails_keeps_no_other(place: Namespace, tmp_path: Path) -> None:
    outcome = Pods(tmp_path).apply(ASKS)
    assert [problem.partition(":")[0] for problem in outcome.problems] == ["quickack"]
    assert "No such file or directory" in outcome.problems[0]
    assert outcome.notes == ("initcwnd: is so",)


def test_of_a_pod_that_ends_meanwhile_that_is_the_problem(
    place: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Namespace, "is_there", False)
    (problem,) = Pods(tmp_path).apply(ASKS).problems
    assert "No such file or directory" in problem
    assert "quickack" not in problem
