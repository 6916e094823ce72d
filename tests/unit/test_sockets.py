"""What makes a socket suspicious, in which order sockets are listed, and the table."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from ackward.loop.suspicion import suspects, worst_first
from ackward.model.report import Process
from ackward.model.sockets import Socket, SocketNamespace, SocketReport, Suspicion
from ackward.report.socket_table import lines

#: A connection in the middle of a calm request and response: nothing waits.
CALM = Socket(
    state="ESTABLISHED",
    local="192.168.100.101:50000",
    remote="192.168.100.102:7000",
    netns=4026531833,
    process=Process(pid=4194304, command="postgres", netns="self"),
    cgroup="/",
    uid=0,
    inode=7,
    cookie=8,
    mark=0,
    congestion_control="cubic",
    quick=10,
    pingpong=True,
    ato_ns=40_000_000,
    route_quickack=False,
    nodelay=False,
    cork=False,
    unacked=0,
    unacked_bytes=0,
    unsent_bytes=0,
    unread_bytes=0,
    srtt_ns=250_000,
    min_rtt_ns=200_000,
    rto_ns=204_000_000,
    timer=None,
    timer_expires_ns=None,
    retransmits=0,
    retransmitted=0,
    cwnd=10,
    mss=1448,
    window_bytes=65536,
    since_sent_ns=4_000_000,
    since_received_ns=8_000_000,
    since_acked_ns=4_000_000,
    bytes_sent=1000,
    bytes_received=1000,
    window_limited_ns=0,
    buffer_limited_ns=0,
)


def but(**changes: object) -> Socket:
    return CALM.model_copy(update=changes)


HOLDS = but(unsent_bytes=200, unacked=1, unacked_bytes=100)
OWES = but(since_sent_ns=90_000_000)
PROBES = but(timer="zero-window-probe", unsent_bytes=5000)


@pytest.mark.parametrize(
    ("socket", "what"),
    [
        (CALM, None),
        (HOLDS, Suspicion.HELD_BY_NAGLE),
        (HOLDS.model_copy(update={"nodelay": None}), Suspicion.HELD_BY_NAGLE),
        (HOLDS.model_copy(update={"nodelay": True}), None),
        (HOLDS.model_copy(update={"unacked": 0}), None),
        (HOLDS.model_copy(update={"unacked": 10}), None),  # the congestion window is full
        (HOLDS.model_copy(update={"window_bytes": 250}), None),  # the peer's window is full
        (HOLDS.model_copy(update={"unsent_bytes": 1448}), None),  # a whole segment is not Nagle's
        (but(cork=True, unsent_bytes=200, timer="zero-window-probe"), Suspicion.HELD_BY_CORK),
        (OWES, Suspicion.ACK_DELAYED),
        (OWES.model_copy(update={"route_quickack": True}), None),
        (OWES.model_copy(update={"pingpong": False}), None),
        (OWES.model_copy(update={"pingpong": False, "quick": 0}), Suspicion.ACK_DELAYED),
        (OWES.model_copy(update={"quick": None, "pingpong": None}), None),  # not known: not claimed
        (OWES.model_copy(update={"since_received_ns": 80_000_000}), None),  # the timer has fired long ago
        (OWES.model_copy(update={"ato_ns": 0}), None),  # no data ever came
        (
            but(timer="retransmission", retransmits=2, timer_expires_ns=800_000_000, unacked=1),
            Suspicion.RETRANSMITTING,
        ),
        (but(timer="retransmission", unacked=1), None),
        (PROBES.model_copy(update={"window_bytes": 0}), Suspicion.WINDOW_CLOSED),
        (PROBES.model_copy(update={"window_bytes": None}), Suspicion.WINDOW_CLOSED),
        (PROBES, None),
    ],
)
def test_suspicion(socket, what):
    assert [suspect.what for suspect in suspects(socket)] == ([what] if what else [])


def test_the_other_end_on_this_host_settles_whether_an_ack_is_owed():
    assert suspects(OWES, peer=CALM) == []
    [found] = suspects(CALM, peer=HOLDS)
    assert found.what is Suspicion.ACK_DELAYED
    assert "its peer waits" in found.why
    assert suspects(CALM, peer=HOLDS.model_copy(update={"retransmits": 1})) == []


def judged(socket: Socket, **changes: object) -> Socket:
    return socket.model_copy(update={"suspects": suspects(socket), **changes})


def test_suspicious_sockets_come_first_and_listeners_last():
    listener = but(state="LISTEN", remote=None, quick=None, pingpong=None)
    wanted = [judged(HOLDS), judged(OWES), judged(CALM), judged(but(pingpong=False)), listener]
    assert sorted([listener, *wanted[3::-1]], key=worst_first) == wanted


def table(*sockets: Socket, width: int = 120) -> list[str]:
    namespaces = [SocketNamespace(name="self", inode=4026531833, delayed_acks=0)]
    return [line.text for line in lines(SocketReport(namespaces=namespaces, sockets=list(sockets)), width)]


def test_what_is_not_known_is_a_dash():
    hidden = but(
        process=Process(),
        quick=None,
        pingpong=None,
        nodelay=None,
        cork=None,
        route_quickack=None,
        srtt_ns=None,
    )
    header, row = table(hidden)
    cells = dict(zip(header.split(), row.split(), strict=True))
    assert [name for name, cell in cells.items() if cell == "-"] == [
        "process",
        "quick",
        "pp",
        "Nagle",
        "route",
        "srtt",
    ]


def test_connections_of_ipv4_take_one_line_in_120_columns():
    longest = but(local="192.168.100.101:50000", remote="192.168.100.102:50001", rto_ns=1, srtt_ns=9_990_000)
    assert len(table(longest)) == 2


def test_a_suspect_has_its_reason_under_it():
    _header, row, why = table(judged(HOLDS))
    assert "200B" in row.split()
    assert why.strip() == "Nagle holds 200 B until the peer acknowledges 100 B, for 4.00 ms so far"


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize(
    "process",
    [
        Process(pid=4194304, command="postgres", netns="self"),
        Process(
            pid=4194304,
            command="a-name-of-15-ch",
            container="0123456789ab",
            netns="cni-0f0f0f0f-1111-2222-3333",
        ),
        Process(pid=1, command="日本語日本語日本語日本語", netns="x"),
    ],
)
def test_it_lines_up_and_nothing_is_lost_at_any_width(width, process):
    long = but(
        local="[2001:db8:1111:2222:3333:4444:5555:6666]:50000",
        remote="[2001:db8:1111:2222:3333:4444:5555:7777]:7000",
        netns=1,
        process=process,
    )
    header, *rows = table(CALM, long, width=width)
    assert max(map(cell_len, (header, *rows))) <= max(width, 113)
    for column, cell in (("local", long.local), ("remote", long.remote)):
        start = header.index(column)
        end = min(
            at for name in ("remote", "process") if name in header and (at := header.index(name)) > start
        )
        assert cell in "".join(row[start:end].strip() for row in rows)


def test_a_name_cannot_forge_the_table():
    hostile = but(process=Process(pid=1, command="x\n\x1b[31mLISTEN", netns="self"))
    header, row = table(hostile, width=200)
    assert row.isprintable()
    assert row.split()[header.split().index("process")] == r"x\x0a\x1b[31mLISTEN/1"
