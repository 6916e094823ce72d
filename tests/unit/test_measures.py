"""What other tools count too: data sent again, the handshake's round trip, how soon data was acknowledged."""

from __future__ import annotations

import numpy as np
import pytest
from tests import captures
from tests.unit.dialogue import CLIENT, MSS, SERVER, a, handshake, q, rows_of

import ackward
from ackward.diagnosis.exchanges import cut
from ackward.diagnosis.flows import Flows
from ackward.diagnosis.measures import measured
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.model.report import FlowSummary
from ackward.report.flow_table import table_of
from ackward.report.tables import tables

MS = 1_000_000


def of(*dialogues):
    """The measures of flows; milliseconds."""
    rows = [rows_of(packets) for packets in dialogues]
    for number, mine in enumerate(rows):
        mine["flow"] = number
    flows, table = view(WireFlows.of([WireFlow(CLIENT, SERVER, MSS)] * len(rows)), np.concatenate(rows))
    found = measured(cut(flows, table), len(rows))
    return found.retransmissions.tolist(), (found.rtt / MS).tolist(), (found.ack_rtt / MS).tolist()


OPEN = handshake(20)
ASK = [q(21, 0, 100), a(42, 0, 0, 100), a(50, 0, 500, 100), q(50.01, 100, 0, 500)]


def test_a_plain_exchange():
    assert of([*OPEN, *ASK]) == ([0], [20.05], [21])


def test_the_same_from_the_server():
    """There the handshake takes as long, and data leaves the other way."""
    packets = [*handshake(20, at="server"), q(21, 0, 100), a(21.01, 0, 500, 100), q(51, 100, 0, 500)]
    assert of(packets) == ([0], [20], [pytest.approx(29.99)])


@pytest.mark.parametrize(
    ("packets", "count"),
    [
        ([q(300, 0, 100)], 1),
        ([q(300, 0, 100), q(600, 0, 100)], 2),
        ([q(300, 50, 200)], 1),  # part of it is new
        ([q(300, 99, 1)], 0),  # a keep-alive
        ([q(300, 99, 0)], 0),
        ([q(300, 98, 2)], 1),
        ([q(300, 100, 0, flags="F"), q(500, 100, 0, flags="F")], 1),
        ([q(300, 200, 100), q(301, 100, 100)], 1),  # fills a hole
        ([q(300, 100, 100, 500)], 0),
    ],
)
def test_what_had_passed_before_counts(packets, count):
    assert of([*OPEN, q(21, 0, 100), *packets])[0] == [count]


def test_a_syn_again_counts_and_the_answered_one_is_timed():
    packets = [q(-1000, flags="S"), *OPEN, *ASK]
    assert of(packets)[:2] == ([1], [20.05])


def test_data_that_was_sent_again_is_not_timed():
    packets = [*OPEN, q(21, 0, 100), q(241, 0, 100), a(261, 0, 0, 100), q(262, 100, 100), a(292, 0, 0, 200)]
    assert of(packets) == ([1], [20.05], [30])


def test_of_two_the_lower_one_is_the_median_and_each_flow_has_its_own():
    two = [*OPEN, q(30, 0, 100), a(55, 0, 0, 100), q(60, 100, 100), a(95, 0, 0, 200)]
    assert of([*OPEN, *ASK], two, ASK) == ([0, 0, 0], [20.05, 20.05, -1 / MS], [21, 25, 21])


def test_nothing_is_nothing():
    rows = rows_of(OPEN)[:0]
    flows, table = view(WireFlows.of([]), rows)
    assert len(measured(cut(flows, table), 0).rtt) == 0
    assert isinstance(flows, Flows)


def test_the_flow_table_leaves_empty_what_nobody_knows():
    known = {"seen_from": "client", "exchanges": 1, "bytes_to_server": 1}
    flows = [
        FlowSummary(
            client="a",
            server="b",
            elapsed_ns=2,
            retransmissions=3,
            rtt_ns=20 * MS,
            ack_rtt_ns=1 * MS,
            **known,
        ),
        FlowSummary(client="c", server="d", elapsed_ns=1, retransmissions=0, **known),
    ]
    columns = {column.label: column for column in table_of(flows).columns}
    assert [columns["Handshake"].texts[row] for row in columns["Handshake"].index] == ["20.0 ms", ""]
    assert columns["Handshake"].sort == [20 * MS, -1]
    assert columns["Sent again"].sort == [3, 0]
    assert "ACK after" not in {column.label for column in table_of(flows[1:]).columns}


def test_reports_and_tables_tell_them():
    path = captures.DIRECTORY.parent / "corpus" / "tail-loss.client.pcap"
    seen = ackward.analyze([path])
    flows = tables(seen).flows.collect()
    assert flows["retransmissions"].to_list() == [0, 1, 0, 1, 0, 1]
    by_client = {flow.client.rpartition(":")[2]: flow for flow in seen.report.flows}
    for port, again, rtt, ack_rtt in flows.select(
        "client_port", "retransmissions", "rtt_ns", "ack_rtt_ns"
    ).rows():
        flow = by_client[str(port)]
        assert (flow.retransmissions, flow.rtt_ns, flow.ack_rtt_ns) == (again, rtt, ack_rtt)
        assert 40 * MS < rtt < 42 * MS
    middle = of([q(1, 0, 100)])
    assert middle == ([0], [-1 / MS], [-1 / MS])
