"""Units and timers of systemd as text, and the table of what is in force."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackward.errors import Refused
from ackward.kernel.counters import kernel_ns, parse
from ackward.kernel.systemd import timer_command
from ackward.model.changes import Leased
from ackward.model.plan import (
    Look,
    NamespaceIdentity,
    Persistent,
    Plan,
    Receipt,
    ReceiptState,
    State,
    Status,
)
from ackward.model.scopes import PortScope
from ackward.remedies.lasting import unit
from ackward.report.status_table import lines

REQUEST = ("quickack", "--port", "7000")
ID = "quickack-0a1b2c"
PLACE = Path("/etc/systemd/system") / unit.file_name(ID)
HERE = NamespaceIdentity(name="self", path="/proc/self/ns/net", inode=1, cookie=2)


def plan(request: tuple[str, ...] = REQUEST, namespace: NamespaceIdentity = HERE) -> Plan:
    return Plan(
        remedy="quickack", namespace=namespace, scope=PortScope(port=7000), changes=(), request=request
    )


def test_a_unit_runs_the_request_and_takes_back_its_own_receipt() -> None:
    text = unit.render(ID, REQUEST, "/opt/ackward/bin/ackward")
    assert "ExecStart=/opt/ackward/bin/ackward fix quickack --port 7000 --persist\n" in text
    assert f"ExecStop=/opt/ackward/bin/ackward undo {ID} --until-boot\n" in text
    assert unit.parse(PLACE, text) == Persistent(id=ID, request=REQUEST, unit=str(PLACE))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_any_request_comes_back_from_its_unit(words: list[str]) -> None:
    found = unit.parse(PLACE, unit.render(ID, words, "/bin/ackward"))
    assert found is not None
    assert found.request == tuple(words)


@pytest.mark.parametrize(
    ("word", "written"),
    [("a b", '"a b"'), ("100%", "100%%"), ("$HOME", "$$HOME"), ('"', '"\\""'), ("", '""'), (";", '";"')],
)
def test_systemd_reads_words_as_they_were(word: str, written: str) -> None:
    assert f"--to {written} --persist" in unit.render(ID, ("quickack", "--to", word), "/bin/ackward")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (PLACE.name, "[Service]\nExecStart=/bin/true\n"),
        (PLACE.name, "not a unit at all"),
        (PLACE.name, ""),
        ("ackward-quickack-ffffff.service", unit.render(ID, REQUEST, "/bin/ackward")),
        ("ackward-node.service", unit.render(ID, REQUEST, "/bin/ackward")),
    ],
)
def test_units_of_others_are_not_ours(name: str, text: str) -> None:
    assert unit.parse(PLACE.with_name(name), text) is None


def test_a_request_is_kept_only_if_it_means_the_same_after_a_boot() -> None:
    assert unit.request_of(plan(), first=1) == REQUEST
    assert unit.request_of(plan(), first=None) == REQUEST
    with pytest.raises(Refused, match="another PID"):
        unit.request_of(plan(("nodelay", "--pid", "7")), first=1)
    with pytest.raises(Refused, match="no name that it would have again"):
        unit.request_of(plan(namespace=HERE.model_copy(update={"name": "pid:7", "inode": 9})), first=1)
    with pytest.raises(Refused, match="which command"):
        unit.request_of(plan(()), first=1)


def test_a_timer_of_systemd_runs_once_and_is_collected() -> None:
    command = timer_command("ackward-lease-x", 3600, ["/usr/bin/python3", "-m", "m"], "end of x")
    assert command[0] == "systemd-run"
    assert "--on-active=3600000ms" in command
    assert "--collect" in command
    assert command[-3:] == ["/usr/bin/python3", "-m", "m"]


def test_counters_come_in_pairs_of_lines() -> None:
    text = "Tcp: ActiveOpens OutSegs\nTcp: 3 -1\nTcpExt: TCPOrigDataSent\nTcpExt: 5\n"
    assert parse(text) == {"Tcp.ActiveOpens": 3, "Tcp.OutSegs": -1, "TcpExt.TCPOrigDataSent": 5}
    assert kernel_ns("cpu  1 2 300 4 5 6 7 8 0 0\ncpu0 1\n") == 313 * 10_000_000


def status(lease_left_ns: int | None, *, held: bool = True, persisted: bool = False) -> Status:
    lease = Leased(ends="", ends_boottime_ns=0, pid=7, start_time=8)
    receipt = Receipt(
        id=ID,
        remedy="quickack",
        created="2026-01-02T03:04:05.678+00:00",
        boot_id="",
        namespace=HERE,
        scope=PortScope(port=7000),
        changes=() if lease_left_ns is None else (lease,),
        state=ReceiptState.APPLIED,
    )
    return Status(
        receipt=receipt,
        state=State.PARTLY,
        details=(Look(state=State.GONE, words="w"),),
        lease_left_ns=lease_left_ns,
        lease_held=None if lease_left_ns is None else held,
        persisted=persisted,
    )


def test_the_table_of_remedies_lines_up_and_says_how_long_each_lasts() -> None:
    waiting = Persistent(id="initcwnd-ffffff", request=("initcwnd", "--segments", "30"), unit="/u")
    found = [status(None, persisted=True), status(59_000_000_000), status(-1, held=False)]
    header, *rows = lines(found, [waiting])
    cells = [row[header.index("Lease left") : header.index("At boot")].strip() for row in rows]
    assert cells == ["-", "59.0 s", "over, not held", "-"]
    assert [row[header.index("At boot") :].split()[0] for row in rows] == ["again", "-", "-", "again"]
    assert "2026-01-02 03:04:05" in rows[0]
    assert "persisted, not in force" in rows[3]
    assert rows[3].endswith("initcwnd --segments 30")
    assert list(lines([], [])) == []
