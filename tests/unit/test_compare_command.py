"""``ackward compare``: two reports or captures to a verdict, effect size, interval and causes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import recordings
from tests.unit.capture_files import pcap, standoffs
from tests.unit.dialogue import a, handshake, q

import ackward
from ackward.cli.main import run
from ackward.diagnosis.diagnose import diagnose
from ackward.model.causes import Cause
from ackward.model.report import Capture, CauseTotal, Report
from ackward.model.verdict import Result
from ackward.verify.compare import compare as judge
from ackward.verify.reports import changes, sample

MS = 1_000_000


def prompt(rounds=20):
    """The same requests as in ``standoffs``, each in one piece."""
    packets = handshake(1)
    for number in range(rounds):
        at = 2.0 + 5 * number
        packets += [q(at, 300 * number, 300, 50 * number), a(at + 1.2, 50 * number, 50, 300 * number + 300)]
    return packets


@dataclass(frozen=True)
class Files:
    slow: str
    fast: str
    slow_report: str
    fast_report: str


@pytest.fixture
def files(tmp_path):
    """The same two loads as captures and as their reports."""
    found = {}
    for name, packets in (("slow", standoffs(20)), ("fast", prompt())):
        capture, report = tmp_path / f"{name}.pcap", tmp_path / f"{name}.json"
        capture.write_bytes(pcap(packets))
        report.write_text(ackward.analyze([capture]).report.to_json())
        found |= {name: str(capture), f"{name}_report": str(report)}
    return Files(**found)


def report_with(elapsed):
    """A report of exchanges that took this long, made of quantiles as the diagnosis makes them."""
    from ackward.diagnosis.diagnose import percentiles

    total = int(elapsed.sum())
    return Report(
        capture=Capture(source="test"),
        exchanges=len(elapsed),
        elapsed_ns=total,
        causes={Cause.SERVER: CauseTotal(ns=total, exchanges=len(elapsed))},
        latency_ns=percentiles(elapsed),
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 1 << 50), min_size=1, max_size=100))
def test_of_up_to_a_hundred_exchanges_the_sample_is_their_times(times):
    assert sample(report_with(np.array(times))).tolist() == sorted(times)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 1 << 50), min_size=101, max_size=400))
def test_of_more_it_has_the_same_quantiles(times):
    seen = report_with(np.array(times))
    rebuilt = sample(seen)
    assert len(rebuilt) == len(times)
    assert report_with(rebuilt).latency_ns[1:] == seen.latency_ns[1:]
    assert (rebuilt <= np.sort(times)).all()


def test_the_verdict_on_reports_is_that_on_their_exchanges():
    generator = np.random.default_rng(3)
    before, after = (generator.lognormal(mean, 0.4, 3000).astype(np.int64) for mean in (17.0, 16.8))
    exact = judge(before, after)
    rebuilt = judge(sample(report_with(before)), sample(report_with(after)))
    assert rebuilt.result is exact.result is Result.IMPROVED
    assert rebuilt.ratio == pytest.approx(exact.ratio, rel=0.01)
    assert rebuilt.ratio_low == pytest.approx(exact.ratio_low, rel=0.02)
    assert rebuilt.ratio_high == pytest.approx(exact.ratio_high, rel=0.02)


@pytest.mark.parametrize("name", recordings.names())
def test_reports_carry_their_distribution(name):
    seen = diagnose(recordings.load(name))
    quantiles = seen.report.latency_ns
    assert len(quantiles) == 101
    assert (quantiles[0], quantiles[100]) == (seen.elapsed.min(), seen.elapsed.max())
    assert Report.model_validate_json(seen.report.to_json()).latency_ns == quantiles


def test_a_distribution_that_falls_is_refused():
    with pytest.raises(ValueError, match="latency_ns"):
        Report.model_validate({**report_with(np.array([1, 2])).model_dump(), "latency_ns": [2] * 100 + [1]})


def test_changes_are_a_partition_too(files):
    slow, fast = (
        Report.model_validate_json(Path(name).read_text()) for name in (files.slow_report, files.fast_report)
    )
    found = changes(slow, fast)
    assert found[0].cause is Cause.STANDOFF
    assert sum(change.before_share for change in found) == pytest.approx(1)
    assert sum(change.after_share for change in found) == pytest.approx(1)
    assert sum(change.before_ns for change in found) == pytest.approx(slow.elapsed_ns / slow.exchanges)
    assert (found[0].after_share, found[0].after_ns) == (0, 0)


@pytest.mark.parametrize("slow", ["slow", "slow_report"])
@pytest.mark.parametrize("fast", ["fast", "fast_report"])
def test_captures_and_reports_agree(files, slow, fast):
    """Whatever a side is, the verdict is the same."""
    found = ackward.compare(getattr(files, slow), getattr(files, fast))
    assert found.verdict.result is Result.IMPROVED
    assert found.before.basis == ("quantiles" if "report" in slow else "exchanges")
    assert (found.before.exchanges, found.after.exchanges) == (20, 20)
    assert found.verdict.before.p50_ns == pytest.approx(42.2 * MS, abs=MS)
    assert found.verdict.ratio_high < 0.1
    assert found.causes[0].before_ns == pytest.approx(41 * MS, abs=MS)


def test_json_and_exit_code(files, capsys):
    assert run(["compare", files.slow, files.fast, "--json", "--exit-code"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "ackward/comparison/1"
    assert printed["verdict"]["result"] == "improved"
    assert run(["compare", files.fast, files.slow, "--json", "--exit-code"]) == 5
    assert json.loads(capsys.readouterr().out)["verdict"]["result"] == "worse"
    assert run(["compare", files.fast, files.slow]) == 0
    assert run(["compare", files.slow, files.slow_report, "--exit-code"]) == 0


def test_the_view_names_verdict_interval_and_causes(files, capsys):
    assert run(["compare", files.slow, files.fast_report]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Improved.")
    assert "95 % confidence" in shown
    standoff = next(line for line in shown.splitlines() if line.startswith("standoff"))
    assert standoff.endswith(" 0 %")
    assert "quantiles in its report" in shown


def test_ports_choose_connections_of_captures_only(files, capsys):
    assert run(["compare", files.slow, files.fast, "--port", "80"]) == 0
    assert run(["compare", files.slow, files.fast, "--port", "81"]) == 2
    assert run(["compare", files.slow, files.fast_report, "--port", "80"]) == 2
    assert "is a report" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema": "ackward/report/1"', "cannot be read as JSON"),
        ("{" * 200_000, "cannot be read as JSON"),
        ('{"schema": "ackward/report/2"}', "no report of this version"),
        ('{"error": "UsageError", "missing": "no such file"}', "no such file"),
        ("[]", "not a capture"),
        ("", "it is empty"),
    ],
)
def test_bad_input_is_named(files, tmp_path, capsys, content, said):
    bad = tmp_path / "bad"
    bad.write_text(content)
    assert run(["compare", files.slow, str(bad)]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "bad" in shown
    assert "Traceback" not in shown


def test_a_side_without_exchanges_or_distribution_is_refused(files, tmp_path, capsys):
    old = json.loads(Path(files.fast_report).read_text())
    del old["latency_ns"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    (tmp_path / "none.pcap").write_bytes(pcap([]))
    assert run(["compare", files.slow, str(tmp_path / "old.json")]) == 2
    assert "latency_ns" in capsys.readouterr().err
    assert run(["compare", files.slow, str(tmp_path / "none.pcap")]) == 2
    assert "holds no exchange" in capsys.readouterr().err


def test_parquet_and_annotate_from_the_command_line(files, tmp_path, capsys):
    tables, out = tmp_path / "tables", tmp_path / "out.pcapng"
    assert run(["analyze", files.slow, "--parquet", str(tables), "--annotate", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["exchanges"] == 20
    assert ackward.read(tables).exchanges.collect().height == 20
    assert b"ackward: standoff begins" in out.read_bytes()
    assert run(["analyze", files.slow, "--annotate", files.slow]) == 2
