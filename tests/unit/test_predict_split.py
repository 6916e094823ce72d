"""The model of split TCP: its laws, the talk's figures, and what the command line says about them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command

from ackward.cli.predict_split import EPILOG, split
from ackward.errors import UsageError
from ackward.model.split import SplitPrediction, Variant
from ackward.predict import split_stream
from ackward.predict.split import Leg, Transfer, predict
from ackward.predict.split_stream import Connection, Stream, carry
from ackward.report.split_ladder import draw

MS = 1_000_000
IW_BYTES = 10 * 1448
#: Each adds a step to the one before.
STEPS = [Variant.SPLIT, Variant.EARLY, Variant.POOL, Variant.WINDOW]
#: Half a nanosecond is rounded away.
ROUNDING = 1


def legs(*milliseconds, loss=()):
    shares = [*loss, *[0.0] * (len(milliseconds) - len(loss))]
    return tuple(Leg(round(ms * MS), share) for ms, share in zip(milliseconds, shares, strict=True))


def ocean(**kwargs):
    return Transfer(**{"legs": legs(28, 214, 32), "size": 3 * IW_BYTES, "bandwidth": 10**9} | kwargs)


def figures(prediction, variant):
    found = prediction.of(variant)
    moments = (
        found.client_connected_ns,
        found.server_connected_ns,
        found.first_byte_ns,
        found.download_ns,
    )
    return [None if moment is None else moment / MS for moment in moments]


# The talk's figures


@pytest.mark.parametrize("ends", [28, 29])
def test_the_talks_direct_connection_and_its_limit(ends):
    found = predict(ocean(legs=legs(ends, 274 - 2 * ends - 4, ends + 4)))
    assert figures(found, Variant.DIRECT) == pytest.approx([274, 411, 548, 822], abs=2)
    assert figures(found, Variant.LIMIT)[2:] == pytest.approx([274, 274], abs=2)


def test_the_talks_figures_with_everything_on():
    """302 and 334 within 2 ms, for gateways as far from their ends: the talk names no legs, only their sum."""
    found = predict(ocean(legs=legs(29, 216, 29)))
    best = found.of(Variant.OPTIMISTIC)
    assert figures(found, Variant.OPTIMISTIC)[2:] == pytest.approx([302, 334], abs=2)
    assert best.first_byte_ratio == pytest.approx(1.81, abs=0.01)
    assert best.download_ratio == pytest.approx(2.46, abs=0.02)


def test_a_longer_last_leg_keeps_the_request_waiting_at_the_exit():
    """The SYN reaches the exit 28 ms before the request; the exit connects in 32: 302 and 334 take 4 ms more."""
    found = predict(ocean(relay_ns=0))
    assert figures(found, Variant.WINDOW)[2:] == pytest.approx([302 + 4, 334 + 4], abs=0.5)
    assert any("waits 4.00 ms at the exit" in note for note in found.advice.notes)


def test_the_talks_steps_between():
    """About 60 ms for splitting, 60 more for early, 200 more for the pool, 150 more for its window."""
    downloads = [figures(predict(ocean()), variant)[3] for variant in (Variant.DIRECT, *STEPS)]
    saved = [before - after for before, after in pairwise(downloads)]
    assert saved == pytest.approx([60, 60, 182, 182], abs=2)
    assert sum(saved[2:]) == pytest.approx(200 + 150, rel=0.05)


def test_faithful_costs_the_whole_round_trip_before_the_client_is_connected():
    found = predict(ocean())
    assert figures(found, Variant.FAITHFUL) == pytest.approx([274, 169, 548, 580], abs=1)
    assert figures(found, Variant.OPTIMISTIC)[:2] == pytest.approx([28, 169], abs=1)


# The laws

rtts = st.integers(1_000, 400 * MS)
shares = st.sampled_from([0.0, 0.0001, 0.001, 0.004])
chains = st.lists(st.builds(Leg, rtts, shares), min_size=1, max_size=4).map(tuple)
lossless = st.lists(st.builds(Leg, rtts), min_size=1, max_size=4).map(tuple)


def transfers(chain=chains):
    return st.builds(
        Transfer,
        legs=chain,
        size=st.integers(1, 2000 * 1448),
        direct_ns=st.none() | rtts,
        bandwidth=st.none() | st.integers(10**6, 10**11),
        initial_window=st.integers(1, 100),
        receive_window=st.integers(1, 4 << 20),
        relay_ns=st.integers(0, MS),
    )


def never_sooner(before, after):
    """No variant's moment is sooner in ``after``."""
    for one, other in zip(predict(before).variants, predict(after).variants, strict=True):
        assert other.first_byte_ns >= one.first_byte_ns - ROUNDING, one.variant
        assert other.download_ns >= one.download_ns - ROUNDING, one.variant


law = settings(deadline=None, max_examples=20)


@law
@given(transfers())
def test_moments_follow_each_other_and_none_beats_the_limit(transfer):
    found = predict(transfer)
    limit = found.of(Variant.LIMIT)
    for each in found.variants:
        assert limit.first_byte_ns - ROUNDING <= each.first_byte_ns <= each.download_ns
        assert each.download_ns >= limit.download_ns - ROUNDING
        if each is not limit:
            assert 0 < each.client_connected_ns < each.first_byte_ns
            assert 0 < each.server_connected_ns < each.first_byte_ns


@law
@given(transfers())
def test_no_step_makes_it_slower(transfer):
    found = predict(transfer)
    for before, after in pairwise(found.of(variant) for variant in STEPS):
        assert after.first_byte_ns <= before.first_byte_ns + ROUNDING
        assert after.download_ns <= before.download_ns + ROUNDING
    assert found.of(Variant.FAITHFUL).download_ns >= found.of(Variant.OPTIMISTIC).download_ns - ROUNDING


@law
@given(transfers(chains.filter(lambda chain: len(chain) == 1)))
def test_a_chain_of_one_leg_is_the_direct_connection(transfer):
    found = predict(replace(transfer, direct_ns=None))
    moments = {figures(found, variant).__repr__() for variant in (Variant.DIRECT, *STEPS)}
    assert len(moments) == 1


@law
@given(transfers(lossless), st.data())
def test_a_longer_leg_makes_nothing_sooner(transfer, data):
    leg = data.draw(st.integers(0, len(transfer.legs) - 1))
    longer = list(transfer.legs)
    longer[leg] = Leg(longer[leg].rtt_ns + data.draw(rtts))
    never_sooner(transfer, replace(transfer, legs=tuple(longer)))


@law
@given(transfers(), st.data())
def test_more_or_worse_makes_nothing_sooner(transfer, data):
    changes = {
        "size": transfer.size + data.draw(st.integers(1, 1000 * 1448)),
        "initial_window": data.draw(st.integers(1, transfer.initial_window)),
        "receive_window": data.draw(st.integers(1, transfer.receive_window)),
        "relay_ns": transfer.relay_ns + data.draw(st.integers(1, MS)),
        "bandwidth": data.draw(st.integers(10**6, transfer.bandwidth or 10**11)),
        "legs": tuple(Leg(leg.rtt_ns, leg.loss + data.draw(shares)) for leg in transfer.legs),
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    never_sooner(transfer, replace(transfer, **{name: changes[name]}))


@law
@given(transfers(lossless))
def test_each_message_takes_half_a_round_trip_and_answers_what_came(transfer):
    found = predict(transfer)
    for ladder in found.ladders:
        for hop in ladder.hops:
            if ladder.variant is Variant.DIRECT:
                rtt = transfer.end_to_end.rtt_ns
            else:
                rtt = transfer.legs[min(hop.sender, hop.receiver)].rtt_ns
            assert hop.arrives_ns - hop.at_ns >= rtt / 2 - ROUNDING
            came = [other.arrives_ns for other in ladder.hops if other.receiver == hop.sender]
            if (hop.kind, hop.sender) != ("syn", 0) and hop.kind != "data":
                assert min(came) <= hop.at_ns + ROUNDING  # at one node nothing begins by itself
        requests = sorted((hop for hop in ladder.hops if hop.kind == "request"), key=lambda hop: hop.sender)
        for before, after in pairwise(requests):
            assert after.at_ns >= before.arrives_ns - ROUNDING
        first_data = min(hop.at_ns for hop in ladder.hops if hop.kind == "data")
        assert first_data >= requests[-1].arrives_ns - ROUNDING


connections = st.builds(
    Connection,
    rtt_ns=st.integers(1000, 10**6),
    interval_ns=st.sampled_from([0.0, 7.0, 500.0, 40_000.0]),
    initial_window=st.none() | st.integers(1, 20),
    receive_window=st.none() | st.integers(1, 50),
)
written = st.lists(st.integers(0, 10**6), min_size=1, max_size=120).map(
    lambda moments: np.sort(np.array(moments, float))
)


def one_by_one(there, connection):
    """Departures by following a sender that counts what is in flight."""
    departures = []
    free = 0.0
    for index, moment in enumerate(there):
        now = max(moment, free)
        while True:
            acks = [left + connection.interval_ns + connection.rtt_ns for left in departures]
            acknowledged = sum(ack <= now for ack in acks)
            windows = [len(there)]
            if connection.initial_window is not None:
                windows.append(connection.initial_window + acknowledged)
            if connection.receive_window is not None:
                windows.append(connection.receive_window)
            if index - acknowledged < min(windows):
                break
            now = min(ack for ack in acks if ack > now)
        departures.append(now)
        free = now + connection.interval_ns
    return departures


@law
@given(written, connections)
def test_departures_are_those_of_a_sender_that_counts_its_flight(there, connection):
    passage = carry(Stream(there, there[-1], len(there)), connection)
    assert passage.departures == pytest.approx(one_by_one(there, connection), abs=1e-3)
    assert (passage.departures >= there).all()
    assert (passage.arrived.head >= passage.departures + connection.rtt_ns / 2).all()


@pytest.mark.parametrize("loss", [0.0, 0.002])
@pytest.mark.parametrize("bandwidth", [None, 10**8])
def test_long_downloads_go_on_at_the_pace_that_was_worked_out(monkeypatch, loss, bandwidth):
    transfer = ocean(legs=legs(28, 214, 32, loss=[loss]), size=80_000_000, bandwidth=bandwidth)
    short = predict(transfer)
    monkeypatch.setattr(split_stream, "worth_working_out", lambda _: transfer.segments)
    for estimated, exact in zip(short.variants, predict(transfer).variants, strict=True):
        assert estimated.download_ns == pytest.approx(exact.download_ns, rel=0.01), exact.variant


def test_loss_in_the_long_run_is_what_mathis_and_others_say():
    """100 ms and 1 %: Reno's 12.2 segments a round trip are more than CUBIC's 5.9."""
    transfer = Transfer(legs=legs(100, loss=[0.01]), size=1448 * 100_000)
    seconds = predict(transfer).of(Variant.DIRECT).download_ns / 1e9
    assert 100_000 / seconds == pytest.approx(np.sqrt(1.5 / 0.01) / 0.1, rel=0.03)


# Advice


@pytest.mark.parametrize(
    ("transfer", "reason"),
    [
        (Transfer(legs(0.1, 0.2, 0.1), 50_000_000, bandwidth=10**10), "one data centre"),
        (Transfer(legs(0.1, 0.2, 0.1), 1000), "one data centre"),
        (Transfer(legs(0.1, 0.2, 0.1), 50_000_000), "a matter of settings"),
        (Transfer(legs(28, 214, 100), 1000, direct_ns=100 * MS), "242 ms longer than the direct one"),
        (Transfer(legs(2, 18), 1000), "fits one initial window"),
        (Transfer(legs(28, 214, 32), 10**9, bandwidth=10**7), "bandwidth and windows"),
    ],
)
def test_it_says_when_gateways_would_not_pay(transfer, reason):
    found = predict(transfer)
    assert not found.advice.split
    assert reason in found.advice.why
    direct, best = found.of(Variant.DIRECT), found.of(Variant.OPTIMISTIC)
    near = transfer.end_to_end.rtt_ns <= 2 * MS
    assert near or direct.download_ns - best.download_ns < max(5 * MS, direct.download_ns / 10)


def test_it_says_when_they_would():
    found = predict(ocean(size=50_000_000))
    assert found.advice.split
    assert f"{found.of(Variant.OPTIMISTIC).download_ratio:.2f}x" in found.advice.why


def test_a_first_byte_that_comes_later_is_said_in_the_verdict():
    """A detour of 174 ms: the download gains, whoever waits for the first byte does not."""
    found = predict(Transfer(legs(28, 214, 32), 10**6, direct_ns=100 * MS))
    assert found.advice.split
    assert found.advice.why == (
        "with everything on download after 498 ms instead of 800 ms: 1.61x; but the first byte comes later, "
        "after 306 ms instead of 200 ms: 0.65x"
    )
    assert "comes later" not in predict(ocean()).advice.why


@pytest.mark.parametrize(
    ("transfer", "words"),
    [
        (
            Transfer(legs(28, 214, 32), 1000),
            "splitting alone changes nothing (the download takes 548 ms either way)",
        ),
        (
            Transfer(legs(28, 214, 32), 10**6, direct_ns=100 * MS),
            "splitting alone makes it slower (1.83 s instead of 800 ms)",
        ),
        (ocean(), "splitting alone is not worth it (762 ms instead of 822 ms)"),
    ],
)
def test_what_splitting_alone_does_is_told_by_what_it_changes(transfer, words):
    assert any(note.startswith(words) for note in predict(transfer).advice.notes)


def test_one_gateway_is_noted_also_where_it_does_not_pay():
    found = predict(Transfer(legs(2, 18), 1000))
    assert not found.advice.split
    assert any("one gateway" in note for note in found.advice.notes)


def test_one_gateway_has_no_leg_to_pool():
    found = predict(Transfer(legs(137, 137), 500_000))
    assert any("one gateway" in note for note in found.advice.notes)
    assert figures(found, Variant.EARLY) == figures(found, Variant.WINDOW)


# The picture


@law
@given(transfers(chains.filter(lambda chain: len(chain) > 1)))
def test_the_ladder_is_to_scale_in_all_panels(transfer):
    found = predict(transfer)
    root = ET.fromstring(draw(found))
    assert len(root.findall(".//{*}g")) == len(found.ladders) == 6
    slowest = max(ladder.download_ns for ladder in found.ladders)
    for panel, ladder in zip(root.findall("{*}g"), found.ladders, strict=True):
        ends = [
            float(line.get("y2")) for line in panel.findall("{*}line") if line.get("class").startswith("hop")
        ]
        shown = [hop.arrives_ns for hop in ladder.hops if hop.arrives_ns <= ladder.download_ns]
        assert ends == pytest.approx([64 + 400 * moment / slowest for moment in shown], abs=0.06)


# The command line

APP = typer.Typer(add_completion=False)
APP.command(epilog=EPILOG)(split)


def run(*arguments):
    return get_command(APP).main(args=list(arguments), prog_name="split", standalone_mode=False)


OCEAN = (
    "--legs",
    "28ms,214ms,32ms",
    "--direct",
    "274ms",
    "--size",
    "50MB",
    "--bandwidth",
    "1Gb/s",
    "--iw",
    "10",
)


def test_the_table_lines_up_and_ends_in_a_verdict(capsys):
    run(*OCEAN)
    lines = capsys.readouterr().out.splitlines()
    (header,) = [
        line
        for line in lines
        if "first byte" in line and "download" in line and "x" not in line[:5] and line[0] == " "
    ]
    rows = [line for line in lines if line.split(" ")[0] in list(Variant)]
    assert [row.split()[0] for row in rows] == list(Variant)
    for row in rows:
        assert row[header.index("first byte") + len("first byte") - 1] == "s"
        assert row[header.index("download") + len("download") - 1] == "s"
    assert any(line.startswith("Split: ") for line in lines)


def test_json_is_the_published_form(capsys):
    run(*OCEAN, "--json", "--loss", "1%,0,0.1%")
    found = SplitPrediction.model_validate_json(capsys.readouterr().out)
    assert [leg.loss for leg in found.input.legs] == pytest.approx([0.01, 0, 0.001])
    assert found.input.direct.loss == pytest.approx(1 - 0.99 * 0.999)
    assert found.input.bandwidth_bits == 10**9


def test_the_ladder_is_written_whole(tmp_path, capsys):
    picture = tmp_path / "ocean.svg"
    run(*OCEAN, "--ladder", str(picture), "--json")
    assert json.loads(capsys.readouterr().out)["schema"] == "ackward/split/1"
    assert ET.parse(picture).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--legs", "28ms"], "no gateway"),
        (["--legs", "28ms,,32ms"], "leg 2"),
        (["--legs", "28ms,0ms,32ms"], "leg 2 has a round trip of 0 ns"),
        (["--legs", "28ms,2m"], "leg 2 has a round trip"),
        (["--legs", ",".join(["1ms"] * 9)], "9 legs"),
        (["--legs", "1ms,1ms", "--loss", "1%,1%,1%"], "3 shares for 2 legs"),
        (["--legs", "1ms,1ms", "--loss", "3%,4%"], "the direct path loses"),
        (["--legs", "1ms,1ms", "--loss", "120%"], "no share"),
        (["--legs", "1ms,1ms", "--size", "50"], "no size"),
        (["--legs", "1ms,1ms", "--size", "0B"], "a size of 0 bytes"),
        (["--legs", "1ms,1ms", "--bandwidth", "1GB/s"], "bits a second"),
        (["--legs", "1ms,1ms", "--iw", "0"], "an initial window of 0"),
        (["--legs", "1ms,1ms", "--ladder", "x.pdf"], "no SVG"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(arguments, words):
    with pytest.raises(UsageError, match=words) as refused:
        run(*arguments)
    assert refused.value.next_step
