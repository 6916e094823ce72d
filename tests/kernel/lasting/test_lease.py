"""A lease ends a remedy whatever happens."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.kernel.lasting.fixes import HOUR, PORT, SECOND, Cut, Fix, killed_after_each_step
from tests.kernel.quickack_hosts import routing
from tests.polling import eventually

from ackward.cli import main as cli
from ackward.kernel import background
from ackward.model.plan import Ending, Lasting, State
from ackward.remedies import receipts
from ackward.remedies.clearance import undo_all
from ackward.remedies.transaction import Occasion


class TestLease:
    """It goes by itself."""

    def test_killed_right_after_apply_it_goes_when_its_time_is_up(self, fix: Fix, cut: Cut) -> None:
        steps = cut("apply", fix, HOUR, 0)
        assert steps is not None
        undo_all(fix.store, [fix.host])
        assert cut("apply", fix, SECOND, steps) is None
        assert routing(fix.host) != fix.before
        assert eventually(lambda: fix.is_gone)
        (line,) = (fix.store.directory / "leases.log").read_text().splitlines()
        assert "undone: add the IPv4 rule" in line

    def test_killed_after_any_step_nothing_is_left_when_its_time_is_up(self, fix: Fix, cut: Cut) -> None:
        """Of apply, and of an undo by hand; the receipts too, and what held the lease."""
        short = Lasting(lease_ns=300_000_000)
        for killed in killed_after_each_step(cut, fix, short, SECOND):
            assert eventually(lambda: fix.is_gone), killed

    def test_undo_by_hand_ends_what_holds_it(self, fix: Fix) -> None:
        receipt = fix.apply(HOUR)
        (holder,) = fix.holders()
        assert receipt.lease is not None
        assert holder.pid == receipt.lease.pid
        outcome = fix.remedy.undo(receipt, fix.store)
        assert {part.ending for part in outcome.details} == {Ending.UNDONE}
        assert len(outcome.details) == len(receipt.changes)
        assert not background.lives(holder)
        assert fix.is_gone

    def test_it_stands_before_the_first_change(self, fix: Fix) -> None:
        steps = fix.remedy.apply_steps(fix.plan(), fix.store, HOUR)
        next(steps)
        assert len(fix.holders()) == 1
        assert not fix.store.load().receipts
        next(steps)
        (receipt,) = fix.store.load().receipts
        assert receipt.lease == receipt.changes[0]
        assert routing(fix.host) == fix.before
        steps.close()
        assert fix.is_gone

    def test_status_says_how_long_and_whether_anybody_will_end_it(self, fix: Fix) -> None:
        receipt = fix.apply(HOUR)
        found = fix.remedy.status(receipt, fix.store)
        assert (found.state, found.lease_held) == (State.IN_FORCE, True)
        assert found.lease_left_ns
        assert 3590 < found.lease_left_ns / 1e9 <= 3600
        (holder,) = fix.holders()
        os.kill(holder.pid, signal.SIGKILL)
        assert eventually(lambda: not background.lives(holder))
        found = fix.remedy.status(receipt, fix.store)
        assert (found.state, found.lease_held) == (State.PARTLY, False)
        assert "nobody ends it" in found.details[0].words
        # The same request renews it.
        renewed = fix.apply(HOUR)
        assert renewed.id == receipt.id
        assert fix.remedy.status(renewed, fix.store).state is State.IN_FORCE

    def test_the_same_request_counts_it_anew(self, fix: Fix) -> None:
        first = fix.apply(SECOND)
        second = fix.apply(HOUR)
        assert second.id == first.id
        assert second.changes[1:] == first.changes[1:]
        (holder,) = fix.holders()
        assert second.lease is not None
        assert second.lease.pid == holder.pid
        # The end of the first lease would have been now: an undo in its name is turned away.
        outcome = fix.remedy.undo(second, fix.store, Occasion.LEASE_OVER)
        assert "renewed" in outcome.words
        assert fix.remedy.status(second, fix.store).state is State.IN_FORCE
        # Without --lease it stays as it is.
        assert fix.apply(Lasting()) == second
        assert fix.apply(SECOND).id == first.id
        assert eventually(lambda: fix.is_gone)

    def test_a_renewal_cut_after_any_step_keeps_one_lease(self, fix: Fix, cut: Cut) -> None:
        last, total = 0, None
        while total is None:
            last += 1
            receipt = fix.apply(HOUR)
            total = cut("apply", fix, Lasting(lease_ns=7200 * 1_000_000_000), last)
            found = fix.remedy.status(fix.store.get(receipt.id), fix.store)
            assert (found.state, found.lease_held) == (State.IN_FORCE, True), last
            fix.remedy.undo(found.receipt, fix.store)
            undo_all(fix.store, [fix.host])  # ends what no receipt speaks of
            assert fix.is_gone, last
        assert total == 3

    def test_the_holder_is_small_and_holds_no_namespace(self, fix: Fix) -> None:
        fix.apply(HOUR)
        (holder,) = fix.holders()
        assert Path(f"/proc/{holder.pid}/ns/net").stat().st_ino != fix.host.inode
        status = Path(f"/proc/{holder.pid}/status").read_text()
        anonymous = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))
        assert int(anonymous) < 12_000  # kB: a bare interpreter has 5,000 of them


class TestCommands:
    """What a user reads."""

    def test_status_lines_up(
        self, fix: Fix, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(receipts, "DIRECTORY", fix.store.directory)
        ask = ["fix", "quickack", "--netns", fix.host.name]
        assert cli.run([*ask, "--port", "7301", "--lease", "30m"]) == 0
        assert cli.run([*ask, "--port", "7302"]) == 0
        assert cli.run([*ask, "--port", "7302", "--lease", "90m"]) == 0
        assert "How long it lasts was changed" in capsys.readouterr().out
        assert cli.run(["status"]) == 0
        table = capsys.readouterr().out.partition("\n\n")[0].splitlines()
        left, remedy = table[0].index("Lease left"), table[0].index("Remedy")
        assert {line.index("quickack for TCP port") for line in table[1:]} == {remedy}
        assert len(table) == 3
        assert all(line[left - 1] == " " and line[left].isdigit() for line in table[1:])
        assert cli.run(["status", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["remedies"]
        assert all(one["lease_held"] and one["lease_left_ns"] > 0 and not one["persisted"] for one in found)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--lease", "1h", "--persist"], "exclude each other"),
            (["--lease", "soon"], "is no duration"),
            (["--lease", "0s"], "no time at all"),
            (["--report", "x.html"], "add `--prove 30s`"),
        ],
    )
    def test_requests_that_mean_nothing(
        self, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for more in ([], ["--dry-run"]):
            assert cli.run(["fix", "quickack", "--port", str(PORT), *options, *more]) == 2
            assert words in capsys.readouterr().err
