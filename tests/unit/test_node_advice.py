"""What remedies say, as a pod's problem: no option or command of ours that nobody there could give."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.unit.test_initcwnd_plan import made as initcwnd
from tests.unit.test_initcwnd_plan import planned as planned_initcwnd
from tests.unit.test_quickack_plan import DEFAULT4, facts, route

from ackward.errors import AckwardError
from ackward.kernel.bpffs import require_bpffs
from ackward.kernel.machine import LINUX
from ackward.kernel.probes import cgroup2_mount
from ackward.model.bypass import Capabilities, Finding, Hazard, Outcome
from ackward.model.plan import NamespaceIdentity, Plan, Refusal
from ackward.model.scopes import BypassScope, RouteScope, Scope, SocketScope, WindowScope
from ackward.node.advice import for_pod
from ackward.remedies.bypass import plan as bypass
from ackward.remedies.quickack.plan import plan as quickack
from ackward.remedies.steering.plan import overlap

NOWHERE = NamespaceIdentity(inode=1, cookie=1, name="pod", path="/run/netns/pod")
PORTS = BypassScope(ports=(80, 80), accepted=(Hazard.OOB,))
#: An option, or a command of ours but the one that is run on the node.
OF_A_COMMAND_LINE = re.compile(r"(?<!doctor )--\w+|ackward (?:fix|undo)")
LEARNED = route("::/0", via="fe80::1", metric=1024, protocol=9, learned=True)


def refused(found: Plan | Refusal, scope: Scope) -> str:
    assert isinstance(found, Refusal), found
    return for_pod(str(found.as_error()), scope)


def noted(found: Plan | Refusal, scope: Scope) -> list[str]:
    assert isinstance(found, Plan), found
    return [for_pod(note, scope) for note in found.notes]


def capabilities(*differing: Hazard) -> Capabilities:
    findings = tuple(
        Finding(hazard=one, outcome=Outcome.DIFFERS if one in differing else Outcome.SAME, measured="as told")
        for one in Hazard
    )
    return Capabilities(kernel="", boot_id="", engine="", tried="", findings=findings)


def test_what_a_bypass_would_have_to_accept_is_the_annotation_whole() -> None:
    found = bypass.plan(bypass.Facts(NOWHERE, capabilities(Hazard.SPLICE, Hazard.OOB)), PORTS)
    words = refused(found, PORTS)
    assert 'add `ackward.io/bypass-accept: "oob,splice"`' in words
    assert not OF_A_COMMAND_LINE.search(words)


def test_a_trial_is_the_nodes() -> None:
    words = refused(bypass.plan(bypass.Facts(NOWHERE, None), PORTS), PORTS)
    assert "run `ackward doctor --self-test` on the node, as root" in words


@pytest.mark.parametrize("ask", [require_bpffs, cgroup2_mount])
def test_what_is_not_mounted_comes_with_a_directory_of_deploy(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(AckwardError) as raised:
        ask(replace(LINUX, read=lambda _: ""))
    words = for_pod(str(raised.value), SocketScope())
    assert "Next: `kubectl apply -k deploy/nodelay`" in words
    assert "this command" not in words
    assert (Path(__file__).parents[2] / "deploy/nodelay").is_dir()


@pytest.mark.parametrize(
    ("found", "scope"),
    [
        (overlap(("nodelay-1",)), SocketScope()),
        (quickack(facts(LEARNED), RouteScope(every=True)), RouteScope(every=True)),
        (initcwnd(WindowScope(segments=30), LEARNED), WindowScope(segments=30)),
        (initcwnd(WindowScope(segments=30), route("10.0.0.0/8")), WindowScope(segments=30)),
        (
            initcwnd(WindowScope(segments=30), DEFAULT4, replace(DEFAULT4, protocol=3)),
            WindowScope(segments=30),
        ),
    ],
)
def test_no_refusal_advises_what_an_annotation_cannot_say(found: Plan | Refusal, scope: Scope) -> None:
    words = refused(found, scope)
    assert not OF_A_COMMAND_LINE.search(words.replace("`ackward status` lists it", "")), words
    assert "Next: " in words


def test_no_note_does() -> None:
    window = WindowScope(segments=30)
    (rest,) = noted(planned_initcwnd(window, DEFAULT4), window)
    assert rest.endswith("down to 30 segments")
    network = RouteScope(to=str(ip_network("10.1.0.0/16")))
    (copy,) = noted(quickack(facts(DEFAULT4), network), network)
    assert copy.endswith("a pod that is made anew has the new one")
    every = RouteScope(every=True)
    for note in noted(quickack(facts(DEFAULT4, LEARNED), every), every):
        assert not OF_A_COMMAND_LINE.search(note), note
