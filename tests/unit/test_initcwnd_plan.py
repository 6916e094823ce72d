"""What initcwnd would change, from recorded facts: no kernel, no root."""

from __future__ import annotations

from typing import get_args

import pytest
from tests.unit.test_quickack_plan import DEFAULT4, DEFAULT6, METRICS, NET4, facts, route

from ackward.kernel.netlink import attribute, u32
from ackward.kernel.route_message import RTAX, Route, parse
from ackward.model.changes import OUR_PROTOCOL, Metric, RouteAdded, RouteMetric, SysctlSet
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import WindowScope
from ackward.remedies.initcwnd.plan import AFTER_IDLE, Facts, plan
from ackward.remedies.route_metrics.plan import Routing


def made(scope: WindowScope, *routes: Route, after_idle: str | None = "1") -> Plan | Refusal:
    found = facts(*routes)
    return plan(Facts(Routing(found.namespace, found.routes, found.interfaces), after_idle), scope)


def planned(scope: WindowScope, *routes: Route, after_idle: str = "1") -> Plan:
    found = made(scope, *routes, after_idle=after_idle)
    assert isinstance(found, Plan), found
    return found


def with_metrics(destination: str, protocol: int = 4, **metrics: int) -> Route:
    """A route by 10.0.0.254 with metrics."""
    inner = b"".join(attribute(RTAX[name], u32(value)) for name, value in metrics.items())  # type: ignore[index]
    return route(destination, via="10.0.0.254", protocol=protocol, extra=attribute(METRICS, inner))


def set_metrics(found: Plan) -> list[tuple[str, str, int, int]]:
    return [
        (change.route.destination, change.metric, change.before, change.after)
        for change in found.changes
        if isinstance(change, RouteMetric)
    ]


def test_every_metric_of_the_model_has_its_number() -> None:
    assert set(get_args(Metric)) == set(RTAX)


def test_all_default_routes_of_both_families() -> None:
    found = planned(WindowScope(segments=30), NET4, DEFAULT4, DEFAULT6)
    assert set_metrics(found) == [("0.0.0.0/0", "initcwnd", 0, 30), ("::/0", "initcwnd", 0, 30)]
    assert found.changes[0].words.startswith("set initcwnd 30 on the IPv4 route 0.0.0.0/0 via")


@pytest.mark.parametrize(
    ("metrics", "changes"),
    [
        ({"initcwnd": 10}, [("0.0.0.0/0", "initcwnd", 10, 30)]),
        ({"initcwnd": 50}, [("0.0.0.0/0", "initcwnd", 50, 30)]),
        ({"initcwnd": 30, "quickack": 1}, []),
        ({"initcwnd": 30, "initrwnd": 20}, [("0.0.0.0/0", "initrwnd", 20, 30)]),
        ({"initcwnd": 30, "initrwnd": 40}, []),
    ],
)
def test_only_what_differs_and_initrwnd_only_where_it_is_too_small(
    metrics: dict[str, int], changes: list[tuple[str, str, int, int]]
) -> None:
    found = planned(WindowScope(segments=30), with_metrics("0.0.0.0/0", **metrics))
    assert set_metrics(found) == changes
    assert ("all default routes have initcwnd 30 already" in found.notes) == (not changes)


@pytest.mark.parametrize(("now", "changes"), [("1", 1), ("0", 0)])
def test_after_idle_is_set_unless_it_is_so(now: str, changes: int) -> None:
    found = planned(WindowScope(segments=30, after_idle=True), DEFAULT4, after_idle=now)
    settings = [change for change in found.changes if isinstance(change, SysctlSet)]
    assert settings == [SysctlSet(name=AFTER_IDLE, before="1", after="0")] * changes
    assert any("whole namespace" in note for note in found.notes)


def test_after_idle_without_such_a_setting_is_refused() -> None:
    refusal = made(WindowScope(segments=30, after_idle=True), DEFAULT4, after_idle=None)
    assert isinstance(refusal, Refusal)
    assert AFTER_IDLE in refusal.reason


@pytest.mark.parametrize(("segments", "warned"), [(45, False), (46, True)])
def test_more_than_a_receivers_first_window_is_warned_of(segments: int, warned: bool) -> None:
    found = planned(WindowScope(segments=segments), DEFAULT4)
    assert any("64 KiB" in note for note in found.notes) == warned


def test_only_a_learned_route_is_refused_with_a_way_around_it() -> None:
    learned = route("::/0", via="fe80::1", metric=1024, protocol=9, learned=True)
    refusal = made(WindowScope(segments=30), learned)
    assert isinstance(refusal, Refusal)
    assert refusal.next_step == "`ackward fix initcwnd --to CIDR` leaves it alone"


class TestCopies:
    """Beside what another remedy copied before."""

    SCOPE = WindowScope(to="8.8.8.0/24", segments=30)

    def test_a_copy_carries_what_it_sets_and_knows_what_was_there(self) -> None:
        (change,) = planned(self.SCOPE, with_metrics("0.0.0.0/0", initcwnd=20, quickack=1)).changes
        assert isinstance(change, RouteAdded)
        assert change.metrics == {"initcwnd": 30}
        assert change.before == {"quickack": 1, "initcwnd": 20, "initrwnd": 0}
        sent = parse(bytes.fromhex(change.message))
        assert (sent.metric("initcwnd"), sent.quickack, sent.protocol) == (30, 1, OUR_PROTOCOL)

    def test_the_same_copy_of_another_remedy_is_shared(self) -> None:
        copy = with_metrics("8.8.8.0/24", protocol=OUR_PROTOCOL, quickack=1)
        (change,) = planned(self.SCOPE, DEFAULT4, copy).changes
        assert isinstance(change, RouteAdded)
        assert change.before["quickack"] == 0
        assert change.copy_of == "0.0.0.0/0"

    def test_a_copy_that_has_it_needs_no_change(self) -> None:
        copy = with_metrics("8.8.8.0/24", protocol=OUR_PROTOCOL, initcwnd=30)
        assert planned(self.SCOPE, DEFAULT4, copy).changes == ()

    def test_a_copy_with_another_window_is_refused(self) -> None:
        copy = with_metrics("8.8.8.0/24", protocol=OUR_PROTOCOL, initcwnd=20)
        refusal = made(self.SCOPE, DEFAULT4, copy)
        assert isinstance(refusal, Refusal)
        assert "with initcwnd 20" in refusal.reason
        assert "undo that first" in refusal.next_step

    def test_copies_inside_what_is_asked_for_are_named(self) -> None:
        copy = with_metrics("8.8.8.0/24", protocol=OUR_PROTOCOL, quickack=1)
        assert any("8.8.8.0/24" in note for note in planned(WindowScope(segments=30), DEFAULT4, copy).notes)
