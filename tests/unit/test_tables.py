"""The four tables: what they hold adds up, they are stored whole or not at all, and the queries in the docs run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from tests import recordings
from tests.unit.capture_files import pcap, standoffs
from tests.unit.dialogue import CLIENT, MSS, SERVER, a, handshake, q, rows_of

import ackward
from ackward.diagnosis.diagnose import diagnose, explain
from ackward.diagnosis.traffic import Traffic
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.errors import OutputFailed, UnknownName
from ackward.loop.reading import store
from ackward.model.causes import Cause
from ackward.model.report import Capture
from ackward.report.tables import NAMES, column_of, tables

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def of(packets):
    flows, rows = view(WireFlows.of([WireFlow(CLIENT, SERVER, MSS)]), rows_of(packets))
    return explain(Traffic.of(flows, rows), Capture(source="dialogue"))


def collected(found):
    return {name: getattr(found, name).collect() for name in NAMES}


@pytest.mark.parametrize("name", recordings.names())
def test_causes_add_up_to_the_elapsed_time(name):
    """Per exchange, and over all of them to the report's own sums (recordings count no exchanges)."""
    seen = diagnose(recordings.load(name))
    exchanges = tables(seen).exchanges.collect()
    columns = [column_of(cause) for cause in Cause]
    assert exchanges.select(pl.sum_horizontal(columns) == pl.col("elapsed_ns")).to_series().all()
    for cause in Cause:
        total = seen.report.causes.get(cause)
        assert exchanges[column_of(cause)].sum() == (total.ns if total else 0)


@pytest.mark.parametrize("name", recordings.names())
def test_the_tables_fit_together(name):
    seen = diagnose(recordings.load(name))
    found = collected(tables(seen))
    assert found["flows"].height == len(seen.report.flows)
    assert found["flows"]["elapsed_ns"].sum() == found["exchanges"]["elapsed_ns"].sum()
    assert found["findings"]["cause"].to_list() == [finding.cause for finding in seen.report.findings]
    inside = (
        found["segments"]
        .drop_nulls("exchange")
        .join(found["exchanges"], on="exchange", suffix="_of_exchange")
    )
    assert (inside["flow"] == inside["flow_of_exchange"]).all()
    assert found["segments"]["packet"].null_count() == found["segments"].height  # live: no packets
    told = recordings.load(name).segments["has_state"].sum()
    assert found["segments"]["srtt_ns"].null_count() == found["segments"].height - told


def test_numbers_count_from_the_syn():
    packets = [*handshake(1), q(2, 0, 100), a(3, 0, 50, 100, sack=(200, 300)), q(3.1, 100, 0, 50, flags="F")]
    segments = tables(of(packets)).segments.collect()
    assert segments.select("to_server", "seq", "ack", "bytes", "flags").rows() == [
        (True, 0, None, 0, "S"),
        (False, 0, 1, 0, "SA"),
        (True, 1, 1, 0, "A"),
        (True, 1, 1, 100, "A"),
        (False, 1, 101, 50, "A"),
        (True, 101, 51, 0, "FA"),
    ]
    assert segments.select("sack_left", "sack_right").row(4) == (201, 301)
    assert segments["sack_left"].null_count() == 5


def test_wrapped_sequence_numbers_go_on():
    packets = [*handshake(1), q(2, 0, 100), a(3, 0, 50, 100), q(4, 100, 100, 50), a(5, 50, 50, 200)]
    rows = rows_of(packets)
    shift = 0xFFFFFFFF - 1050  # the client's numbers begin at 1000: they wrap within its first request
    rows["seq"][rows["to_server"]] += shift
    rows["ack"][~rows["to_server"]] += shift
    flows, seen = view(WireFlows.of([WireFlow(CLIENT, SERVER, MSS)]), rows)
    segments = tables(explain(Traffic.of(flows, seen), Capture(source="dialogue"))).segments.collect()
    assert segments.filter("to_server")["seq"].to_list() == [0, 1, 1, 101]
    assert segments.filter(~pl.col("to_server"))["ack"].to_list() == [1, 101, 201]


def test_one_sided_captures_have_numbers_too():
    packets = [packet for packet in [*handshake(1), q(2, 0, 100), q(3, 100, 100, 50)] if packet.to_server]
    segments = tables(of(packets)).segments.collect()
    assert segments["seq"].to_list() == [0, 1, 1, 101]
    assert segments["ack"].to_list() == [None, 0, 0, 50]


def test_what_is_asked_for_is_not_made_whole():
    """Columns, rows and conditions reach the batches."""
    seen = diagnose(recordings.load("large-both"))
    segments = tables(seen).segments
    whole = segments.collect()
    assert segments.head(5).collect().equals(whole.head(5))
    assert (
        segments.filter(pl.col("bytes") > 0)
        .select("seq")
        .collect()
        .equals(whole.filter(pl.col("bytes") > 0).select("seq"))
    )
    assert segments.select(pl.len()).collect().item() == whole.height


def test_no_traffic_gives_empty_tables(tmp_path):
    seen = explain(Traffic.of(*view(WireFlows.of([]), rows_of([]))), Capture(source="nothing"))
    store(tables(seen), tmp_path / "tables")
    found = collected(ackward.read(tmp_path / "tables"))
    assert [frame.height for frame in found.values()] == [0, 0, 0, 0]
    assert found["segments"].schema == tables(of(standoffs())).segments.collect_schema()


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A capture, and the directory ``tables`` made of it, from where the docs' commands are run."""
    (tmp_path / "customer.pcap").write_bytes(pcap(standoffs()))
    monkeypatch.chdir(tmp_path)
    store(ackward.read("customer.pcap"), Path("tables"))
    return tmp_path


def test_read_gives_the_same_from_both(kept):
    assert sorted(path.name for path in (kept / "tables").iterdir()) == sorted(
        f"{name}.parquet" for name in NAMES
    )
    stored, fresh = collected(ackward.read("tables")), collected(ackward.read("customer.pcap"))
    for name in NAMES:
        assert stored[name].equals(fresh[name])
        assert stored[name].schema == fresh[name].schema
    assert stored["segments"]["packet"].to_list() == list(range(19))
    assert stored["findings"]["cause"].to_list() == ["standoff"]


def test_a_missing_table_is_named(kept):
    (kept / "tables" / "flows.parquet").unlink()
    with pytest.raises(UnknownName, match=r"flows\.parquet"):
        ackward.read("tables")


def test_all_tables_or_none(kept):
    """The third table fails: the four of before stay, and nothing else is left."""

    class Full:
        segments = flows = findings = tables(of(standoffs(2))).flows

        @property
        def exchanges(self):
            raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in (kept / "tables").iterdir()}
    with pytest.raises(OutputFailed, match="No space left"):
        store(Full(), kept / "tables")
    assert {path.name: path.read_bytes() for path in (kept / "tables").iterdir()} == before
    with pytest.raises(OutputFailed):
        store(Full(), kept / "fresh")
    assert not (kept / "fresh").exists()


def test_tables_are_written_over(kept):
    store(tables(of(standoffs(2))), kept / "tables")
    assert ackward.read("tables").exchanges.collect().height == 2


def test_a_file_stands_where_the_directory_should(kept):
    (kept / "taken").write_text("mine")
    with pytest.raises(OutputFailed, match="taken"):
        store(tables(of(standoffs(2))), kept / "taken")
    assert (kept / "taken").read_text() == "mine"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_page_shows_three_queries_and_one():
    assert (len(blocks("sql")), len(blocks("python"))) == (3, 1)


def test_where_the_time_went(kept):
    rows = duckdb.sql(blocks("sql")[0]).fetchall()
    address, port, cause, ms, share = rows[0]
    assert (address, port, cause) == ("192.0.2.2", 80, "standoff_ns")
    assert ms == pytest.approx(4 * 40, abs=8)
    assert sum(row[4] for row in rows) == pytest.approx(1)
    assert share > 0.8


def test_the_slowest_exchange_segment_by_segment(kept):
    rows = duckdb.sql(blocks("sql")[1]).fetchall()
    assert len({row[0] for row in rows}) == 1
    assert rows[0][-1] is None
    assert max(row[-1] for row in rows[1:]) == pytest.approx(41, abs=0.1)


def test_latency_second_by_second(kept):
    [(second, exchanges, p50_ms, p99_ms, share)] = duckdb.sql(blocks("sql")[2]).fetchall()
    assert (second, exchanges) == (0, 4)
    assert 42 < p50_ms <= p99_ms < 46
    assert share > 0.8


def test_clients_that_lose_most(kept, capsys):
    found = {}
    exec(blocks("python")[0], found)
    assert found["worst"].select("client_address", "server_port", "count").rows() == [("192.0.2.1", 80, 4)]
    assert "192.0.2.1" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["ackward.remedies.receipts", "ackward.cli.main", "ackward.loop.watching"])
def test_what_must_stay_small_loads_no_polars(module):
    code = f"import sys, {module}; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
