"""`ackward gateway status` for people: what a line says of a drain, of peers and listeners, and units of counters."""

from __future__ import annotations

import pytest

from ackward.gateway.shown import Beside, lines
from ackward.model.gateway_status import GatewayStatus

POOL = {"idle": 5, "wanted": 5, "connected": True, "joins": True}
WORKER = {"worker": 0, "draining": False, "connections": 3, "stuck": [], "longest": []}
STATUS = {
    "name": "sfo",
    "pid": 7,
    "state": "running",
    "seconds": 121.0,
    "steps": {"early": True, "pool": True, "window": False},
    "listeners": [
        {"name": "web", "destination": "10.1.0.7:443", "peer": "blr", "answer": "optimistic"},
        {"name": "10.9.0.0/16", "destination": None, "peer": None, "answer": "faithful"},
    ],
    "exit": None,
    "peers": [{"name": "blr", "address": "198.51.100.7:4433", "keys": [], "allow": []}],
    "counters": {},
    "workers": [WORKER | {"pools": {"blr": POOL}}],
}
BESIDE = {
    "connections": 3,
    "listens": {
        0: {"place": "0.0.0.0:443", "target": "app.example:443"},
        1: {"place": "10.9.0.0/16 at eth1"},
    },
}
LOST = {"lost": {"blr": "network: Connection refused"}}


def shown(beside: dict | None = None, **changes: object) -> list[str]:
    return list(lines(GatewayStatus.model_validate(STATUS | changes), Beside.model_validate(beside or {})))


def peer_line(pools: list[dict], beside: dict | None = None, **changes: object) -> str:
    workers = [WORKER | {"worker": number, "pools": {"blr": pool}} for number, pool in enumerate(pools)]
    [line] = [line for line in shown(beside, workers=workers, **changes) if line.startswith("  peer")]
    return line.removeprefix("  peer      blr ")


def test_the_time_of_a_drain_is_not_the_time_since_the_start():
    beside = BESIDE | {"draining": {"since": 0.3, "left": 41.7}}
    assert shown(beside, state="draining")[0] == (
        "sfo: draining for 300 ms, 3 connections open, ends in 41.7 s at the latest; up 2 min 01 s, pid 7; "
        "steps: early, pool"
    )
    assert shown()[0] == "sfo: running, up 2 min 01 s, pid 7; steps: early, pool"


@pytest.mark.parametrize(
    ("pools", "beside", "said"),
    [
        ([POOL], {}, "connected, 5 of 5 legs idle"),
        ([POOL | {"idle": 0, "wanted": 1}], {}, "connected, 0 of 1 leg idle"),
        ([POOL | {"idle": 7}], {}, "connected, 7 legs idle"),
        ([POOL, POOL], {}, "connected, 10 of 10 legs idle"),
        (
            [POOL, POOL | {"joins": False}],
            {},
            "connected, 10 of 10 legs idle, legs cannot be joined there (several workers)",
        ),
        ([POOL | {"connected": False}], LOST, "NOT connected: network: Connection refused"),
        ([POOL | {"connected": False}], {}, "NOT connected: no answer yet"),
        (
            [POOL | {"connected": False}, POOL],
            LOST,
            "NOT connected in 1 of 2 workers: network: Connection refused",
        ),
    ],
)
def test_a_peer_is_connected_or_the_last_reason_is_said(pools, beside, said):
    assert peer_line(pools, beside) == f"198.51.100.7:4433: {said}"


def test_where_legs_are_accepted_it_says_what_peers_may_reach():
    assert peer_line([POOL], exit="0.0.0.0:1") == (
        "198.51.100.7:4433: connected, 5 of 5 legs idle; may reach nothing"
    )
    comes = {"name": "blr", "address": None, "keys": [], "allow": ["10.0.0.0/8:*"]}
    assert peer_line([], exit="0.0.0.0:1", peers=[comes]) == "(connects to us): may reach 10.0.0.0/8:*"


def test_a_gateway_that_drains_wants_no_legs():
    assert peer_line([POOL | {"connected": False}], state="draining").endswith(
        "no new legs, since this gateway drains"
    )


def test_listeners_say_where_they_listen_and_the_name_that_they_connect_to():
    first, second = [line for line in shown(BESIDE) if "listens" in line]
    assert first == "  listens   web 0.0.0.0:443 -> app.example:443 (10.1.0.7:443) via blr, optimistic"
    assert second == "  listens   10.9.0.0/16 at eth1 -> as asked, faithful"
    unresolved = {"name": "web", "destination": None, "peer": None, "answer": "optimistic"}
    [line] = [line for line in shown(BESIDE, listeners=[unresolved]) if "listens" in line]
    assert line == "  listens   web 0.0.0.0:443 -> app.example:443 (never resolved), optimistic"


def test_counters_have_units_and_one_is_one():
    counted = {
        "pipes": 1,
        "legs_failed": 12,
        "to_client": 43_440,
        "ended_leg_lost": 1,
        "accepted": 0,
        "unheard_of": 2,
    }
    assert [
        line.split(maxsplit=1)[1] for line in shown(counters=counted)[-5:] if "to clients" not in line
    ] == [
        "pipe open",
        "legs failed",
        "connection ended: leg-lost",
        "unheard of",
    ]
    assert any(
        line.endswith("43.4 kB  to clients, by connections that have ended")
        for line in shown(counters=counted)
    )


def test_an_older_gateway_that_knows_no_such_question_is_shown_all_the_same():
    assert shown({"error": "nothing is known of 'beside'"})[1].strip() == (
        "listens   web -> 10.1.0.7:443 via blr, optimistic"
    )
