"""The doctor's judgement: which settings hurt whom, which commands work, and the words for both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ackward.cli.doctor import app
from ackward.kernel.namespaces import Namespace
from ackward.kernel.probes import PROBES
from ackward.kernel.settings import HostFacts, NamespaceFacts, Route, ack_state, group, parse_routes
from ackward.loop import doctor
from ackward.loop.judgement import judge
from ackward.model.doctor import DoctorReport, Judgement, Outcome, ProbeResult, Setting

FINE, HURTS = Judgement.FINE, Judgement.HURTS
HOST = HostFacts(hz=250, pingpong_threshold=None)
USUAL = {
    "tcp_pingpong_thresh": "3",
    "tcp_autocorking": "1",
    "tcp_early_retrans": "3",
    "tcp_slow_start_after_idle": "0",
    "tcp_congestion_control": "cubic",
    "tcp_rto_min_us": "200000",
    "tcp_timestamps": "1",
    "tcp_sack": "1",
}
ETH0 = Route(
    4, "default", "main", quickack=False, command=("ip", "-4", "route", "replace", "default", "dev", "eth0")
)
QUICK = Route(4, "default", "main", quickack=True)


def named(name: str, inode: int = 2) -> Namespace:
    return Namespace(name, Path("/run/netns") / name, inode)


def facts(*routes: Route, names: tuple[str, ...] = ("blue",), **changed: str) -> NamespaceFacts:
    spaces = tuple(named(name, number) for number, name in enumerate(names, 2))
    return NamespaceFacts(spaces, USUAL | changed, routes or (ETH0,))


def verdict_on(name: str, facts_: NamespaceFacts, host: HostFacts = HOST) -> Setting:
    return next(setting for setting in judge(facts_, host) if setting.name == name)


def test_usual_settings_hurt_nobody_and_each_has_its_words() -> None:
    settings = judge(facts(), HOST)
    assert {setting.judgement for setting in settings} == {FINE}
    assert {setting.name for setting in settings} == {*USUAL, "quickack on routes"}
    assert all(setting.effect and setting.command is None for setting in settings)


@pytest.mark.parametrize(
    ("name", "value", "better", "whom"),
    [
        ("tcp_pingpong_thresh", "1", "3", "client"),
        ("tcp_pingpong_thresh", "2", "3", "client"),
        ("tcp_early_retrans", "0", "3", "reader"),
        ("tcp_early_retrans", "1", "3", "reader"),
        ("tcp_slow_start_after_idle", "1", "0", "answers"),
        ("tcp_congestion_control", "reno", "cubic", "transfers"),
        ("tcp_rto_min_us", "5000", "200000", "this host"),
        ("tcp_rto_min_us", "1000000", "200000", "readers"),
        ("tcp_timestamps", "0", "1", "connections"),
        ("tcp_sack", "0", "1", "transfers"),
    ],
)
def test_what_hurts_whom_and_the_command_against_it(name: str, value: str, better: str, whom: str) -> None:
    setting = verdict_on(name, facts(**{name: value}))
    assert setting.judgement is HURTS
    assert whom in setting.effect
    assert setting.command == f"nsenter --net=/run/netns/blue -- sysctl -w net.ipv4.{name}={better}"
    assert judge(facts(**{name: value}), HOST)[0].name == name, "what hurts comes first"
    assert verdict_on(name, facts(**{name: better})).judgement is FINE


def test_a_route_with_quickack_overrules_the_threshold_only_if_every_route_has_it() -> None:
    assert verdict_on("tcp_pingpong_thresh", facts(QUICK, tcp_pingpong_thresh="1")).judgement is FINE
    assert verdict_on("tcp_pingpong_thresh", facts(QUICK, ETH0, tcp_pingpong_thresh="1")).judgement is HURTS
    assert verdict_on("quickack on routes", facts(QUICK, ETH0)).value == "1 of 2"


def test_no_route_at_all_overrules_nothing() -> None:
    none = NamespaceFacts((named("blue"),), USUAL | {"tcp_pingpong_thresh": "1"}, ())
    assert verdict_on("tcp_pingpong_thresh", none).judgement is HURTS


def test_a_built_in_threshold_is_judged_and_answered_by_quickack() -> None:
    without = NamespaceFacts((named("blue"),), {}, (ETH0,))
    setting = verdict_on("tcp_pingpong_thresh", without, HostFacts(250, 1))
    assert (setting.judgement, setting.value) == (HURTS, "1, built in")
    assert setting.command == "ackward fix quickack --netns blue"
    assert verdict_on("tcp_pingpong_thresh", without, HostFacts(250, 3)).judgement is FINE
    untold = judge(without, HostFacts(250, None))
    assert "tcp_pingpong_thresh" not in {setting.name for setting in untold}


@pytest.mark.parametrize("control", ["bbr", "bbr3"])
def test_slow_start_after_idle_does_nothing_to_bbr(control: str) -> None:
    setting = verdict_on(
        "tcp_slow_start_after_idle", facts(tcp_slow_start_after_idle="1", tcp_congestion_control=control)
    )
    assert setting.judgement is FINE
    assert control in setting.effect


def test_small_initial_windows_hurt_and_the_command_restates_the_route() -> None:
    route = Route(
        4, "default", "main", quickack=False, initcwnd=4, initrwnd=20, command=("ip", "route", "replace", "x")
    )
    small = verdict_on("initcwnd of IPv4 default", facts(route))
    assert small.judgement is HURTS
    assert small.command == "nsenter --net=/run/netns/blue -- ip route replace x initcwnd 10 initrwnd 20"
    assert verdict_on("initrwnd of IPv4 default", facts(route)).judgement is FINE


def test_a_route_that_cannot_be_restated_gets_no_command() -> None:
    route = Route(6, "default", "100", quickack=False, initrwnd=2)
    setting = verdict_on("initrwnd of IPv6 default in table 100", facts(route))
    assert (setting.judgement, setting.command) == (HURTS, None)


def test_one_command_serves_all_namespaces_of_a_group() -> None:
    setting = verdict_on("tcp_sack", facts(names=("blue", "a b"), tcp_sack="0"))
    assert setting.command == (
        "for ns in /run/netns/blue '/run/netns/a b'; "
        'do nsenter --net="$ns" -- sysctl -w net.ipv4.tcp_sack=1; done'
    )


@given(
    sysctls=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(USUAL, st.sampled_from(["0", "1", "2", "3", "200000"]))
    ),
    readable=st.booleans(),
)
def test_any_settings_can_be_judged(sysctls: dict[str, str], readable: bool) -> None:
    settings = judge(NamespaceFacts((named("blue"),), sysctls, (ETH0,) if readable else None), HOST)
    assert {setting.name for setting in settings} == {*sysctls, "quickack on routes"}
    for setting in settings:
        assert (setting.judgement is HURTS) == (setting.command is not None)
        assert "\n" not in setting.effect


def test_alike_namespaces_are_put_together() -> None:
    one, two, other = facts(names=("one",)), facts(names=("two",)), facts(names=("other",), tcp_sack="0")
    assert [[space.name for space in found.namespaces] for found in group([one, other, two])] == [
        ["one", "two"],
        ["other"],
    ]
    assert len(group([one, facts(QUICK, names=("two",))])) == 2


# As `ip -j -4 route show table all` prints them (iproute2 6.1), one route for each thing that matters.
ROUTES = """[
{"dst":"default","gateway":"192.0.2.1","dev":"eth0","protocol":"dhcp","prefsrc":"192.0.2.2","metric":100,"flags":[],
 "metrics":[{"mtu":1400,"initcwnd":4,"quickack":1}]},
{"dst":"default","flags":[],"nexthops":[{"gateway":"192.0.2.1","dev":"eth0","weight":1,"flags":[]}],
 "metrics":[{"initrwnd":5}]},
{"dst":"198.51.100.0/24","dev":"eth0","table":"100","scope":"link","flags":["linkdown"]},
{"type":"local","dst":"127.0.0.1","dev":"lo","table":"local","protocol":"kernel","scope":"host","flags":[]},
{"type":"blackhole","dst":"203.0.113.0/24","flags":[]}
]"""


def test_routes_are_read_with_what_it_takes_to_restate_them() -> None:
    default, several, down = parse_routes(4, ROUTES)
    assert (default.quickack, default.initcwnd, default.initrwnd) == (True, 4, None)
    assert " ".join(default.command or ()) == (
        "ip -4 route replace default via 192.0.2.1 dev eth0 proto dhcp src 192.0.2.2 metric 100"
        " mtu 1400 quickack 1"
    )
    assert (several.initrwnd, several.command) == (5, None)
    assert (down.table, down.command) == ("100", None)
    assert parse_routes(6, "") == ()


# As Linux 6.18 prints them, shortened: a listener, an interactive socket, one in quick mode, one of TIME_WAIT.
TABLE = """\
 sl local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode
 0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 9000 1 ffff 100 0 0 10 0
 1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 0 0 9001 1 ffff 51 10 25 10 -1
 2: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 0 0 9002 1 ffff 51 10 30 10 -1
 3: 0100007F:9C41 0100007F:1F90 06 00000000:00000000 03:00001234 00000000 0 0 0 3 ffff
"""


@pytest.mark.parametrize(
    ("inode", "state"), [(9001, (12, True)), (9002, (15, False)), (9000, (0, False)), (0, None), (1, None)]
)
def test_ack_state_of_a_socket(inode: int, state: tuple[int, bool] | None) -> None:
    assert ack_state(TABLE, inode) == state


def results(**outcomes: Outcome) -> list[ProbeResult]:
    """Every probe with ``yes``, but for those named (spaces as underscores)."""
    given_ = {name.replace("_", " "): outcome for name, outcome in outcomes.items()} | outcomes
    return [
        ProbeResult(
            name=row.name,
            group=row.group,
            outcome=given_.get(row.name, Outcome.YES),
            detail="",
            costs=row.costs,
        )
        for row in PROBES
    ]


def examined(*found: NamespaceFacts, notes: tuple[str, ...] = (), **outcomes: Outcome) -> DoctorReport:
    return doctor.report("6.1.0-test", results(**outcomes), found or (facts(),), HOST, notes)


def works(report: DoctorReport) -> dict[str, str]:
    return {ability.command: ability.works for ability in report.commands}


def test_commands_need_only_probes_that_exist() -> None:
    known = {row.name for row in PROBES}
    for need in doctor.NEEDS:
        assert {*need.required, *need.helpful} <= known


def test_all_works_where_all_is_there() -> None:
    report = examined()
    assert set(works(report).values()) == {"yes"}
    assert report.verdict == "all commands work here; no setting makes anybody wait"


def test_what_is_absent_takes_away_what_needs_it_and_nothing_else() -> None:
    report = examined(kernel_BTF=Outcome.NO)
    assert works(report)["watch"] == "no"
    assert works(report)["lab run"] == "no"
    assert works(report)["fix quickack"] == "yes"
    assert (
        next(ability.why for ability in report.commands if ability.command == "watch") == "needs kernel BTF"
    )
    assert report.verdict.startswith("8 of 14 commands work here")


def test_what_only_helps_degrades_aloud() -> None:
    report = examined(sock_send_length=Outcome.NO)
    watch = next(ability for ability in report.commands if ability.command == "watch")
    assert watch.works == "partly"
    assert watch.why.startswith("without sock_send_length: when a program wrote is unknown")


def test_what_could_not_be_told_is_no_promise() -> None:
    assert works(examined(ring_buffer=Outcome.UNSURE))["watch"] == "unsure"


def test_the_verdict_names_what_hurts() -> None:
    report = examined(facts(tcp_sack="0"), facts(tcp_sack="0", tcp_timestamps="0"))
    assert report.verdict == "all commands work here; 2 settings make somebody wait: tcp_sack, tcp_timestamps"


def test_the_report_survives_its_json() -> None:
    report = examined(facts(tcp_sack="0"), kernel_BTF=Outcome.NO, notes=("one",))
    document = json.loads(report.to_json())
    assert document["schema"] == "ackward/doctor/1"
    assert DoctorReport.model_validate_json(report.to_json()) == report


def test_the_tables_line_up_and_commands_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a-rather-long-name-of-a-namespace", "another-rather-long-name")
    report = examined(facts(names=names, tcp_sack="0"), kernel_BTF=Outcome.NO)
    monkeypatch.setattr(doctor, "examine", lambda: report)
    shown = CliRunner().invoke(app, []).stdout
    lines = shown.splitlines()
    header = next(line for line in lines if line.startswith("group"))
    rows = lines[lines.index(header) + 1 :][: len(PROBES)]
    column = header.index("there")
    assert {row[column - 1] for row in rows if len(row) > column} == {" "}
    assert next(setting.command for setting in report.namespaces[0].settings if setting.command) in shown
    assert "sysctl" in shown


def test_without_root_the_next_step_is_this_command_under_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    report = examined(root=Outcome.NO, cgroup_skb=Outcome.UNSURE, notes=("routes could not be read",))
    monkeypatch.setattr(doctor, "examine", lambda: report)
    outcome = CliRunner().invoke(app, ["--json"])
    assert json.loads(outcome.stdout)["notes"] == ["routes could not be read"]
    assert "Note: routes could not be read." in outcome.stderr
    assert "1 probe could not tell without root. What is marked unsure may work or not. " in outcome.stderr
    assert "Next: run `sudo" in outcome.stderr


def test_the_help_has_an_example() -> None:
    assert "Example: sudo ackward doctor" in CliRunner().invoke(app, ["--help"]).stdout
