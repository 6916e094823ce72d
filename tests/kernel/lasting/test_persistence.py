"""A unit of systemd brings a remedy back after a boot."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from tests.kernel.lab_hosts import ACKWARD
from tests.kernel.lasting.fixes import HOUR, PERSIST, PORT, Cut, Fix, killed_after_each_step
from tests.kernel.quickack_hosts import routing
from tests.polling import eventually

from ackward.errors import Refused, Unavailable, UsageError
from ackward.kernel import directories
from ackward.kernel.systemd import Systemd
from ackward.loop import fixing
from ackward.model.plan import Lasting, Receipt, State
from ackward.remedies.clearance import undo_all
from ackward.remedies.lasting import persistence
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Occasion


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
        for killed in killed_after_each_step(cut, fix, PERSIST, PERSIST):
            assert undo_all(fix.store, [fix.host]).complete
            assert fix.is_gone, killed
            assert not list(fix.store.systemd.units.rglob("ackward-*")), killed

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
