"""How long a remedy lasts, on the real kernel: a lease ends it whatever happens, a unit of systemd brings it back.

One scope of one remedy stands for all: durations are made and taken back outside of remedies.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.kernel.lab_hosts import ACKWARD
from tests.kernel.quickack_hosts import eventually, router, routing
from tests.kernel.stepping import request, stepping

from ackward import remedies
from ackward.cli import main as cli
from ackward.errors import Refused, Unavailable, UsageError
from ackward.kernel import background, directories
from ackward.kernel.namespaces import Namespace
from ackward.kernel.systemd import UNITS, Systemd
from ackward.loop import fixing
from ackward.model.plan import Ending, Lasting, Plan, Receipt, State
from ackward.remedies import receipts
from ackward.remedies.clearance import undo_all
from ackward.remedies.lasting import lease, persistence
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Occasion, Remedy

Cut = Callable[..., int | None]

PORT, ROUTES = 7300, None
SECOND = Lasting(lease_ns=1_000_000_000)
HOUR = Lasting(lease_ns=3600 * 1_000_000_000)
PERSIST = Lasting(persist=True)


@dataclass(frozen=True)
class Fix:
    remedy: Remedy
    host: Namespace
    store: Receipts
    before: dict[str, list[str]]

    def plan(self, port: int | None = PORT) -> Plan:
        return fixing.plan_quickack(netns=self.host.name, port=port)

    def apply(self, lasting: Lasting, port: int | None = PORT) -> Receipt:
        receipt = self.remedy.apply(self.plan(port), self.store, lasting)
        assert receipt is not None
        return receipt

    def holders(self) -> list[background.Process]:
        return lease.of_directory(self.store.directory)

    @property
    def is_gone(self) -> bool:
        return routing(self.host) == self.before and not self.store.load().receipts and not self.holders()


@pytest.fixture
def fix(tmp_path: Path) -> Iterator[Fix]:
    store = Receipts(tmp_path / "ackward", Systemd(tmp_path / "root"))
    (tmp_path / "root" / UNITS).mkdir(parents=True)
    with router() as host:
        made = Fix(remedies.load("quickack"), host, store, routing(host))
        yield made
        undo_all(store, [host])
        assert not made.holders()


@pytest.fixture(scope="module")
def cut() -> Iterator[Cut]:
    """Applies, renews or undoes and kills it after step ``last``; the number of steps when there are fewer."""
    with stepping() as take:

        def cut(what: str, fix: Fix, lasting: Lasting, last: int, port: int | None = PORT) -> int | None:
            plan = fix.plan(port) if what == "apply" else None
            return take(request(plan, fix.store, last=last, lasting=lasting))

        yield cut


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
        half = Lasting(lease_ns=500_000_000)
        for what in ("apply", "undo"):
            last, total = 0, None
            while total is None:
                last += 1
                if what == "undo":
                    fix.apply(SECOND, ROUTES)
                total = cut(what, fix, half, last, ROUTES)
                assert eventually(lambda: fix.is_gone), (what, last)
            assert total >= 4

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


class TestPersistence:
    """It comes back."""

    def unit(self, fix: Fix, receipt: Receipt) -> Path:
        return fix.store.systemd.units / f"ackward-{receipt.id}.service"

    def boot(self, fix: Fix) -> None:
        """As a boot leaves it: the kernel's state and /run are gone, units are there."""
        for receipt in fix.store.load().receipts:
            fix.remedy.undo(receipt, fix.store, Occasion.UNIT_STOPPED)
        assert fix.is_gone

    def test_the_unit_is_enabled_and_systemd_reads_it_without_complaint(self, fix: Fix) -> None:
        receipt = fix.apply(PERSIST)
        unit = self.unit(fix, receipt)
        assert (unit.parent / "multi-user.target.wants" / unit.name).is_symlink()
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        found = fix.remedy.status(receipt, fix.store)
        assert (found.state, found.persisted) == (State.IN_FORCE, True)

    def test_after_a_boot_it_is_persisted_and_not_in_force_until_its_own_request_runs(self, fix: Fix) -> None:
        receipt = fix.apply(PERSIST)
        fast = routing(fix.host)
        text = self.unit(fix, receipt).read_text()
        self.boot(fix)
        (waiting,) = persistence.without_receipt(fix.store)
        assert waiting.id == receipt.id
        assert waiting.request == ("quickack", "--port", str(PORT), "--netns", fix.host.name)
        assert routing(fix.host) == fix.before
        again = fix.apply(PERSIST)
        assert again.id == receipt.id
        assert routing(fix.host) == fast
        assert self.unit(fix, receipt).read_text() == text
        assert not persistence.without_receipt(fix.store)
        assert fix.remedy.undo(again, fix.store).complete
        assert fix.is_gone
        assert not list(fix.store.systemd.units.rglob("ackward-*"))

    def test_killed_after_any_step_undo_all_leaves_nothing(self, fix: Fix, cut: Cut) -> None:
        for what in ("apply", "undo"):
            last, total = 0, None
            while total is None:
                last += 1
                if what == "undo":
                    fix.apply(PERSIST, ROUTES)
                total = cut(what, fix, PERSIST, last, ROUTES)
                assert undo_all(fix.store, [fix.host]).complete
                assert fix.is_gone, (what, last)
                assert not list(fix.store.systemd.units.rglob("ackward-*")), (what, last)

    def test_undo_all_sweeps_units_without_a_receipt_and_no_others(self, fix: Fix) -> None:
        fix.apply(PERSIST)
        self.boot(fix)
        theirs = fix.store.systemd.units / "ackward-quickack-abcdef.service"
        theirs.write_text("[Service]\nExecStart=/bin/true\n")
        cleared = undo_all(fix.store, [fix.host])
        assert cleared.complete
        assert [path.name for path in fix.store.systemd.units.rglob("ackward-*")] == [theirs.name]

    def test_a_failure_leaves_no_unit(self, fix: Fix) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(fix.store.systemd.units)], check=True
        )
        try:
            (fix.store.systemd.units / "filler").write_bytes(b"x" * 4096)
            with pytest.raises(Unavailable, match="cannot be written"):
                fix.apply(PERSIST)
            assert fix.is_gone
            assert not list(fix.store.systemd.units.rglob("*ackward-*"))
        finally:
            subprocess.run(["umount", str(fix.store.systemd.units)], check=True)

    def test_a_boot_that_cannot_apply_it_keeps_the_unit(self, fix: Fix) -> None:
        receipt = fix.apply(PERSIST)
        self.boot(fix)
        steps = fix.remedy.apply_steps(fix.plan(), fix.store, PERSIST)
        for words in steps:
            if "write and enable" in words:
                break
        steps.close()
        assert fix.is_gone
        assert self.unit(fix, receipt).exists()

    def test_without_systemd_the_error_says_what_to_run_instead(self, fix: Fix) -> None:
        store = Receipts(fix.store.directory, Systemd(fix.store.directory / "nowhere"))
        with pytest.raises(Unavailable, match="systemd does not run here") as caught:
            fix.remedy.apply(fix.plan(), store, PERSIST)
        assert f"fix quickack --port {PORT} --netns {fix.host.name}`" in caught.value.next_step
        assert fix.is_gone

    @pytest.mark.parametrize(("first", "second"), [(HOUR, PERSIST), (PERSIST, HOUR)])
    def test_a_lease_and_persistence_exclude_each_other(
        self, fix: Fix, first: Lasting, second: Lasting
    ) -> None:
        receipt = fix.apply(first)
        with pytest.raises(Refused, match=receipt.id):
            fix.apply(second)
        assert fix.store.get(receipt.id) == receipt
        with pytest.raises(UsageError, match="exclude each other"):
            fixing.apply(fix.plan(), lease=1, persist=True)

    def test_persistence_is_added_to_what_is_in_force(self, fix: Fix) -> None:
        receipt = fix.apply(Lasting())
        added = fix.apply(PERSIST)
        assert added.changes[:-1] == receipt.changes
        assert self.unit(fix, receipt).exists()


def test_a_namespace_without_a_name_cannot_be_kept(fix: Fix) -> None:
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as process:
        try:
            own = Path("/proc/self/ns/net").stat().st_ino
            assert eventually(lambda: Path(f"/proc/{process.pid}/ns/net").stat().st_ino != own)
            plan = fixing.plan_quickack(netns=str(process.pid), port=PORT)
            with pytest.raises(Refused, match="after a boot"):
                fix.remedy.apply(plan, fix.store, PERSIST)
        finally:
            process.kill()


# In a mount namespace of its own: an empty /run/ackward, and a systemd that is not running.
ELSEWHERE = """
mkdir -p /run/ackward /run/systemd /etc/systemd/system
for place in /run/ackward /run/systemd /etc/systemd/system; do mount -t tmpfs none $place || exit 9; done
mkdir /run/systemd/system
export SYSTEMD_OFFLINE=1
$1
"""


def test_the_commands_of_the_unit_as_systemd_would_run_them(fix: Fix) -> None:
    """Its very ExecStart with /run empty, as after a boot, and its ExecStop; then undo by hand."""
    request = ["fix", "quickack", "--netns", fix.host.name, "--port", str(PORT), "--persist", "--json"]
    script = f"""
    set -e
    {shlex.join([ACKWARD, *request])} > /dev/null
    unit=$(ls /etc/systemd/system/ackward-quickack-*.service)
    id=$(basename $unit .service); id=${{id#ackward-}}
    $(sed -n 's/^ExecStop=//p' $unit) > /dev/null
    {ACKWARD} status --json
    echo ---
    $(sed -n 's/^ExecStart=//p' $unit) > /dev/null
    {ACKWARD} status --json
    echo ---
    {ACKWARD} undo $id > /dev/null
    {ACKWARD} status --json
    find /etc/systemd/system -name '*ackward*'
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", ELSEWHERE.replace("$1", script)],
        capture_output=True,
        text=True,
        check=False,
    )
    directories.leave(Path("/run/ackward"))  # what the mount was made on: out here it is empty
    assert done.returncode == 0, done.stderr
    stopped, started, undone = done.stdout.split("---")
    (waiting,) = json.loads(stopped)["persisted"]
    assert json.loads(stopped)["remedies"] == []
    (remedy,) = json.loads(started)["remedies"]
    assert (remedy["state"], remedy["persisted"], remedy["receipt"]["id"]) == (
        "in force",
        True,
        waiting["id"],
    )
    assert "ackward-" not in undone
    assert routing(fix.host) == fix.before


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
